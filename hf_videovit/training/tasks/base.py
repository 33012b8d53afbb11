"""What the loop expects of a method."""

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from transformers import PreTrainedModel

from ..optimization import parameter_groups


@runtime_checkable
class HasIdleParameters(Protocol):
    """A model with parts that some inputs do not reach."""

    def has_idle_parameters(self) -> bool:
        """Whether inputs of the configured size leave parameters without gradient."""


class Task(nn.Module):
    """
    A training method around a model.

    Args:
        model (`PreTrainedModel`):
            The model that is trained, validated and saved.

    Attributes:
        idle_parameters (`bool`):
            Whether a step may leave parameters without gradient. Processes then look for them after each forward pass
            instead of waiting for gradients that never come.
    """

    idle_parameters = False

    _no_split_modules: list[str] | None = None  # as transformers means it; for sharding

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            batch (`dict[str, torch.Tensor]`):
                Tensors on the model's device.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the mean over the batch's samples, and scalars worth a curve.
        """

    def begin_step(self, step: int, total_steps: int) -> None:
        """
        Called before the passes of a step; for methods in which something changes over the run.

        Args:
            step (`int`):
                Optimiser step, from 0.
            total_steps (`int`):
                Steps of the run.
        """

    def parameter_groups(self, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups of the model; a method with parameters of its own adds theirs."""
        return parameter_groups(self.model, weight_decay, layer_decay, prefix="model.")
