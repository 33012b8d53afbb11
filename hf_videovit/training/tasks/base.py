"""The interface between a loss and the training loop."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from transformers import PreTrainedModel

from ..data.streaming import Batch
from ..optimization import parameter_groups


@runtime_checkable
class HasIdleParameters(Protocol):
    """A model with parameters that some inputs do not use."""

    def has_idle_parameters(self) -> bool:
        """Whether inputs of the configured size leave parameters without a gradient."""


class Task(nn.Module):
    """
    A model with its loss.

    Args:
        model (`PreTrainedModel`):
            The model that is trained, validated and saved.

    Attributes:
        idle_parameters (`bool`):
            Whether a step may leave parameters without a gradient. Data-parallel processes then search for them after
            each forward pass instead of waiting for their gradients.
    """

    idle_parameters = False

    _no_split_modules: list[str] | None = None  # as in transformers; for sharding

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Compute the loss of a batch.

        Args:
            batch (`dict[str, torch.Tensor]`):
                Tensors on the model's device.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the mean over the batch's samples (or the items of `count`), and
            further scalars to log.
        """

    def count(self, batch: Batch) -> int:
        """
        Number of items that the loss of a batch is a mean over. A step averages over the items of all processes.

        Args:
            batch ([`Batch`]):
                A batch from the workers.

        Returns:
            `int`: the number of samples, if the task does not say otherwise.
        """
        return len(batch)

    def begin_step(self, step: int, total_steps: int) -> None:
        """
        Called before the passes of a step, for losses that change during the run.

        Args:
            step (`int`):
                Optimiser step, from 0.
            total_steps (`int`):
                Steps of the run.
        """

    def parameter_groups(
        self, weight_decay: float, layer_decay: float, rules: Sequence[Mapping[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """
        Optimiser groups of the model. A task with parameters of its own adds them.

        Args:
            weight_decay (`float`):
                See [`parameter_groups`].
            layer_decay (`float`):
                See [`parameter_groups`].
            rules (`Sequence[Mapping]`, *optional*, defaults to `()`):
                See [`parameter_groups`].

        Returns:
            `list[dict]`: see [`parameter_groups`].
        """
        return parameter_groups(self.model, weight_decay, layer_decay, prefix="model.", rules=rules)
