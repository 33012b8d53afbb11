"""Training and evaluation mode of models."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """
    Put a model into evaluation mode for a block. After it each of its modules is in the mode it had before.

    Args:
        model (`nn.Module`):
            The model.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
