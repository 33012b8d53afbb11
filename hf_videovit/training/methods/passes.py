"""Forward passes of a method's models, described without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from ...modeling.configuration_base import frame_size


@dataclass(frozen=True)
class Pass:
    """
    A forward pass of one of a method's models, described without weights. Plans count its cost.

    Args:
        name (`str`):
            Name of the pass: `"clip"` for the main one, `"image"`, `"teacher"`, `"words"`.
        build (`Callable[[], torch.nn.Module]`):
            Builds the model. Called on torch's meta device.
        inputs (`dict[str, torch.Tensor]`):
            Example inputs on the meta device.
        batch_size (`int`):
            Number of samples in `inputs`.
        samples (`float`):
            Number of samples in one forward pass of a process.
        trained (`bool`, *optional*, defaults to `True`):
            Whether a backward pass follows.
        share (`float`, *optional*, defaults to 1.0):
            Share of a process's batches that go through it. Passes with a share below 1 take turns.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: dict[str, torch.Tensor]
    batch_size: int
    samples: float
    trained: bool = True
    share: float = 1.0


def model_pass(
    auto_class: Any,
    config: PreTrainedConfig,
    inputs: dict[str, torch.Tensor],
    samples: float = 1,
    *,
    name: str = "clip",
) -> Pass:
    """
    The pass of a model that an auto class builds.

    Args:
        auto_class (`type`):
            An auto class, such as `AutoModelForVideoClassification`.
        config (`PreTrainedConfig`):
            Configuration of the model.
        inputs (`dict[str, torch.Tensor]`):
            Example inputs on the meta device.
        samples (`float`, *optional*, defaults to 1):
            Number of samples in one forward pass of a process.
        name (`str`, *optional*, defaults to `"clip"`):
            Name of the pass.

    Returns:
        [`Pass`]
    """
    return Pass(name, lambda: auto_class.from_config(config), inputs, len(next(iter(inputs.values()))), samples)


def example_pixels(config: PreTrainedConfig, clips: int = 1, frames: int | None = None) -> torch.Tensor:
    """
    Clips of the model's size on the meta device.

    Args:
        config (`PreTrainedConfig`):
            Configuration of the model.
        clips (`int`, *optional*, defaults to 1):
            Number of clips.
        frames (`int`, *optional*):
            Number of frames. Defaults to that of the model.

    Returns:
        `torch.Tensor` of shape `(clips, frames, num_channels, height, width)`.

    Raises:
        ValueError: the model's clips have no number of frames.
    """
    if frames is None and "num_frames" not in config.to_dict():
        raise ValueError(f"`model_type` must be that of a model of clips, got {config.model_type!r}")
    height, width = frame_size(config.image_size)
    shape = (clips, config.num_frames if frames is None else frames, config.num_channels, height, width)
    return torch.empty(shape, device="meta")


__all__ = ["Pass", "example_pixels", "model_pass"]
