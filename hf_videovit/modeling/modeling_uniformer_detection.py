"""Action detection with UniFormer ([Li et al., 2022](https://huggingface.co/papers/2201.04676))."""

from typing import Any

import torch

from .configuration_uniformer import UniFormerConfig
from .modeling_action_detection import PyramidActionDetectionMixin
from .modeling_uniformer import UniFormerModel, UniFormerPreTrainedModel
from .modeling_uniformer_maps import last_map_side


class UniFormerForActionDetection(PyramidActionDetectionMixin, UniFormerPreTrainedModel):
    """
    Scores of actions for each person in a clip: the four stages, norm, and an action detection head on the last map.

    Args:
        config ([`UniFormerConfig`]):
            Configuration with `modality="video"`; `detection_config` describes the head.

    Raises:
        ValueError: `config.modality` is not `"video"`.
    """

    def __init__(self, config: UniFormerConfig):
        super().__init__(config)
        if config.modality != "video":
            raise ValueError(f"`modality` must be 'video' for {type(self).__name__}, got {config.modality!r}.")
        self.uniformer = UniFormerModel(config)
        self.add_pyramid_head(config.hidden_sizes, config.hidden_size)
        self.post_init()

    def has_idle_parameters(self) -> bool:
        """Whether nothing reads the normalised class token."""
        return self.config.use_token_pruning

    def _stage_maps(self, pixel_values: torch.Tensor, outputs: Any, count: int) -> list[torch.Tensor]:
        """See [`PyramidActionDetectionMixin`]."""
        sides = [last_map_side(side, self.config.stem) for side in pixel_values.shape[-2:]]
        last = outputs.last_hidden_state.unflatten(1, (-1, *sides))  # (batch, frames, height, width, channels)
        finer = outputs.feature_maps[1 - count :] if count > 1 else ()
        return [*(one.movedim(1, -1) for one in finer), last]


__all__ = ["UniFormerForActionDetection"]
