"""
Swin with space-time attention as plain modules: either windows over space and time together (Video Swin), or attention
over time at every place followed by windows within frames, as TimeSformer divides it.

LSTCL's authors name a "Swin augmented with space-time attention" and give no details that are known to us. These two
designs are the plausible ones. Beyond the fields that [`~backbone_video_swin`] needs, a configuration has
`temporal_attention`, `num_frames`, `time_interpolation` and `hidden_size`.

Hidden states have shape `(batch_size, frames, height, width, channels)`, in tokens.
"""

from typing import Any

import torch
from torch import nn

from .backbone_timesformer import TEMPORAL_PROJECTION, TimesformerAttention, resize_times
from .backbone_video_swin import (
    SwinWindows,
    VideoSwinEncoder,
    VideoSwinLayer,
    VideoSwinPatchEmbeddings,
    VideoSwinStage,
)
from .layers import starting


class DividedSwinLayer(VideoSwinLayer):
    """
    Attention over time at every place, then a block with windows within frames.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
        stage (`int`):
            Index of the stage.
        drop_path_rate (`float`):
            Rate of stochastic depth.
    """

    def __init__(self, config: Any, stage: int, drop_path_rate: float):
        super().__init__(config, stage, drop_path_rate)
        dim, num_heads = config.hidden_sizes[stage], config.num_attention_heads[stage]
        self.temporal_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.temporal_attention = TimesformerAttention(config, dim, num_heads)
        self.temporal_fc = starting(TEMPORAL_PROJECTION, nn.Linear(dim, dim))

    def forward(self, hidden_states: torch.Tensor, windows: SwinWindows, **kwargs: Any) -> torch.Tensor:
        """See [`VideoSwinLayer.forward`]."""
        places = hidden_states.permute(0, 2, 3, 1, 4)  # (batch, height, width, frames, channels)
        series = self.temporal_norm(places).flatten(0, 2)  # (batch * height * width, frames, channels)
        series = self.drop_path(self.temporal_attention(series, **kwargs)[0])
        residual = self.temporal_fc(series).view(places.shape).permute(0, 3, 1, 2, 4)
        return super().forward(hidden_states + residual, windows, **kwargs)


class DividedSwinStage(VideoSwinStage):
    """A stage of [`DividedSwinLayer`]s."""

    layer_class = DividedSwinLayer


class DividedSwinEncoder(VideoSwinEncoder):
    """All stages with divided attention."""

    stage_class = DividedSwinStage


class SpaceTimeSwinBackbone(nn.Module):
    """
    Embeddings, stages and the final norm. The relative bias tells the frames of a window apart. Attention over time
    has no such bias, so `temporal_attention="divided"` adds a learnt table of times to the patches. It starts at zero.

    Args:
        config (`PreTrainedConfig`):
            Configuration with the fields that the module names.
    """

    def __init__(self, config: Any):
        super().__init__()
        divided = config.temporal_attention == "divided"
        self.patch_embeddings = VideoSwinPatchEmbeddings(config)
        self.time_interpolation = config.time_interpolation
        frames = -(-config.num_frames // config.tubelet_size)
        self.time_embeddings = nn.Parameter(torch.zeros(1, frames, config.hidden_sizes[0])) if divided else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.encoder = (DividedSwinEncoder if divided else VideoSwinEncoder)(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips; padded at the end to whole patches.

        Returns:
            `tuple`: the tokens of the last stage, `(batch_size, frames * height * width, hidden_size)`, and the maps
            of the earlier stages, `(batch_size, frames, height, width, channels)`.
        """
        hidden_states = self.patch_embeddings(pixel_values)
        if self.time_embeddings is not None:
            times = resize_times(self.time_embeddings, hidden_states.shape[1], self.time_interpolation)
            hidden_states = hidden_states + times.to(hidden_states.dtype)[:, :, None, None]
        outputs = self.encoder(self.dropout(hidden_states), **kwargs)
        return self.layernorm(outputs[-1]).flatten(1, 3), outputs[:-1]


__all__ = ["DividedSwinEncoder", "DividedSwinLayer", "DividedSwinStage", "SpaceTimeSwinBackbone"]
