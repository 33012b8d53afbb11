"""What the loop expects of a method."""

from abc import abstractmethod
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..optimization import parameter_groups


class Task(nn.Module):
    """
    A training method around a model.

    Args:
        model (`PreTrainedModel`):
            The model that is trained, validated and saved.
    """

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
