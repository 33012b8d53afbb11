"""
UniFormer for top-down human pose estimation: one heatmap a keypoint of the person that an image was cropped to
([Li et al., 2022](https://huggingface.co/papers/2201.09450), head of [Xiao et al.,
2018](https://huggingface.co/papers/1804.06208)). Behaviour follows `pose_estimation/` of the official code
(Sense-X/UniFormer, commit 52a0415).
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_uniformer import UniFormerConfig
from .layers import scale_to_step, start_of, starting
from .modeling_uniformer import UniFormerModel, UniFormerPreTrainedModel
from .modeling_uniformer_maps import last_map_side


HEAD_INIT_STD = 1e-3
POSE_HEAD = "pose head"  # mark of its layers; see `_init_weights`


@dataclass
class UniFormerPoseEstimatorOutput(ModelOutput):
    """
    Output of [`UniFormerForPoseEstimation`], with the names of transformers' VitPose, whose
    `post_process_pose_estimation` takes it.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            See the class.
        heatmaps (`torch.Tensor` of shape `(batch_size, num_keypoints, height / 4, width / 4)`):
            Score of each keypoint at each place; the maximum is about 1.
        hidden_states, attentions (`tuple(torch.Tensor)`, *optional*):
            As in [`UniFormerModelOutput`].
    """

    loss: torch.Tensor | None = None
    heatmaps: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class _UniFormerPoseHead(nn.Module):
    """
    Deconvolutions with BatchNorm and ReLU, `(batch, channels, h, w)` to `(batch, keypoints, 8 h, 8 w)` with three.
    """

    def __init__(self, config: UniFormerConfig):
        super().__init__()
        widths = [config.hidden_size, *config.pose_hidden_sizes]
        layers: list[nn.Module] = []
        for in_channels, out_channels in zip(widths, widths[1:]):
            doubling = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
            layers += [starting(POSE_HEAD, doubling), nn.BatchNorm2d(out_channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.projection = starting(POSE_HEAD, nn.Conv2d(widths[-1], config.num_labels, 1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.projection(self.layers(hidden_states))


class UniFormerForPoseEstimation(UniFormerPreTrainedModel):
    """
    Heatmaps of keypoints at a quarter of the image's resolution, from the map of stage 4 after a LayerNorm. There is
    one keypoint a label of the configuration.

    ```
    loss = mean over samples, keypoints and places of (keypoint_weight * (heatmap - label)) ** 2
    ```

    Args:
        config ([`UniFormerConfig`]):
            Configuration with `modality="image"`; `num_labels` is the number of keypoints.

    Raises:
        ValueError: `config.modality` is not `"image"`.
    """

    def __init__(self, config: UniFormerConfig):
        super().__init__(config)
        if config.modality != "image":
            raise ValueError(f"`modality` must be 'image' for {type(self).__name__}, got {config.modality!r}.")
        self.num_labels = config.num_labels
        self.uniformer = UniFormerModel(config, add_pooling_layer=False)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = _UniFormerPoseHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if start_of(module) == POSE_HEAD and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            init.normal_(module.weight, std=HEAD_INIT_STD)
            if module.bias is not None:
                init.zeros_(module.bias)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        keypoint_weights: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniFormerPoseEstimatorOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images of one person each, such as transformers' `VitPoseImageProcessor` crops. If a side is
                not a multiple of 32, the heatmaps do not cover the image to its edge.
            labels (`torch.Tensor` of shape `(batch_size, num_keypoints, height / 4, width / 4)`, *optional*):
                Target heatmaps, made by `hf_videovit.dense.encode_heatmaps` for example.
            keypoint_weights (`torch.Tensor` of shape `(batch_size, num_keypoints)`, *optional*):
                Weight of each keypoint: 0 for one that is not labelled. Defaults to 1.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Elements of the labels of the whole optimiser step; see [`scale_to_step`].

        Returns:
            [`UniFormerPoseEstimatorOutput`]

        Raises:
            ValueError: a shape does not fit the configuration, or `keypoint_weights` are given without `labels`.

        Example:

        ```python
        >>> import torch

        >>> from hf_videovit import UniFormerConfig, UniFormerForPoseEstimation

        >>> config = UniFormerConfig.from_size("small", modality="image", num_labels=17)
        >>> model = UniFormerForPoseEstimation(config).eval()
        >>> list(model(torch.rand(1, 3, 256, 192)).heatmaps.shape)
        [1, 17, 64, 48]
        ```"""
        if keypoint_weights is not None and labels is None:
            raise ValueError("`keypoint_weights` need `labels`, got None.")
        outputs = self.uniformer(pixel_values, return_dict=True, **kwargs)
        grid = [last_map_side(side, self.config.stem) for side in pixel_values.shape[-2:]]
        maps = self.norm(outputs.last_hidden_state).unflatten(1, grid).movedim(-1, 1)
        heatmaps = self.head(maps)
        loss = None
        if labels is not None:
            loss = scale_to_step(_heatmap_loss(heatmaps, labels, keypoint_weights), labels, num_items_in_batch)
        return UniFormerPoseEstimatorOutput(
            loss=loss,
            heatmaps=heatmaps,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _heatmap_loss(heatmaps: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Mean squared error in float32, errors times weights; see [`UniFormerForPoseEstimation`]."""
    if labels.shape != heatmaps.shape:
        raise ValueError(f"`labels` must have shape {tuple(heatmaps.shape)}, got {tuple(labels.shape)}.")
    errors = heatmaps.float() - labels.float()
    if weights is not None:
        if weights.shape != heatmaps.shape[:2]:
            raise ValueError(
                f"`keypoint_weights` must have shape {tuple(heatmaps.shape[:2])}, got {tuple(weights.shape)}."
            )
        errors = errors * weights.float()[..., None, None]
    return errors.square().mean()


__all__ = ["UniFormerForPoseEstimation", "UniFormerPoseEstimatorOutput"]
