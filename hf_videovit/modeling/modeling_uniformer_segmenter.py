"""
Semantic segmentation with UniFormer ([Li et al., 2022](https://huggingface.co/papers/2201.09450)). Behaviour follows
`semantic_segmentation/` of the official code (Sense-X/UniFormer, commit 52a0415), which uses MMSegmentation.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_uniformer_dense import UniFormerSegmenterConfig
from .layers import start_of, starting
from .modeling_region_proposals import CLASSES, XAVIER
from .modeling_uniformer_detector import FeaturePyramid, backbone_from


AUXILIARY_STAGE = 2  # index of the map of the auxiliary head


def resize_map(hidden_states: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """
    Bilinear resizing between the centres of pixels.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, channels, height, width)`):
            Map.
        size (`Sequence[int]`):
            New height and width.

    Returns:
        `torch.Tensor` of shape `(batch_size, channels, *size)`.
    """
    if tuple(hidden_states.shape[-2:]) == tuple(size):
        return hidden_states
    return F.interpolate(hidden_states, size=tuple(size), mode="bilinear", align_corners=False)


class _ConvolutionWithNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.convolution(hidden_states)))


class UperNetDecoder(nn.Module):
    """
    UperNet's decoder: the last map pooled to several grids, then a feature pyramid whose levels are concatenated.

    Args:
        config ([`UniFormerSegmenterConfig`]):
            Configuration.
        channels (`Sequence[int]`):
            Channels of the backbone's maps, the finest first.
    """

    def __init__(self, config: UniFormerSegmenterConfig, channels: Sequence[int]):
        super().__init__()
        width = config.hidden_size
        self.scales = list(config.pool_scales)
        self.pooled = nn.ModuleList(_ConvolutionWithNorm(channels[-1], width, 1) for _ in self.scales)
        self.bottleneck = _ConvolutionWithNorm(channels[-1] + len(self.scales) * width, width)
        self.lateral = nn.ModuleList(_ConvolutionWithNorm(one, width, 1) for one in channels[:-1])
        self.outputs = nn.ModuleList(_ConvolutionWithNorm(width, width) for _ in channels[:-1])
        self.fusion = _ConvolutionWithNorm(len(channels) * width, width)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """
        Decode maps.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, channels, height, width)`):
                Maps of the backbone.

        Returns:
            `torch.Tensor` of shape `(batch_size, hidden_size, height, width)` at the resolution of the first.
        """
        last = maps[-1]
        grids = [
            resize_map(layer(F.adaptive_avg_pool2d(last, scale)), last.shape[-2:])
            for scale, layer in zip(self.scales, self.pooled)
        ]
        levels = [
            *(layer(one) for layer, one in zip(self.lateral, maps)),
            self.bottleneck(torch.cat([last, *grids], 1)),
        ]
        for level in range(len(levels) - 2, -1, -1):
            levels[level] = levels[level] + resize_map(levels[level + 1], levels[level].shape[-2:])
        levels = [*(layer(one) for layer, one in zip(self.outputs, levels)), levels[-1]]
        return self.fusion(torch.cat([resize_map(one, levels[0].shape[-2:]) for one in levels], 1))


class SemanticPyramidDecoder(nn.Module):
    """
    Semantic FPN's decoder: each level of a feature pyramid is brought to the finest resolution in steps of two, and
    all are added.

    Args:
        config ([`UniFormerSegmenterConfig`]):
            Configuration.
        channels (`Sequence[int]`):
            Channels of the backbone's maps, the finest first.
    """

    def __init__(self, config: UniFormerSegmenterConfig, channels: Sequence[int]):
        super().__init__()
        self.pyramid = FeaturePyramid(channels, config.pyramid_size, add_pooled_level=False)
        self.levels = nn.ModuleList(self._level(config, level) for level in range(len(channels)))

    def _level(self, config: UniFormerSegmenterConfig, level: int) -> nn.Sequential:
        """Convolutions, each of which is followed by a doubling; the finest level has one without."""
        layers: list[nn.Module] = []
        widths = [config.pyramid_size, *[config.hidden_size] * max(1, level)]
        for pair in zip(widths, widths[1:]):
            layers.append(_ConvolutionWithNorm(*pair))
            if level:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        return nn.Sequential(*layers)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """
        Decode maps.

        Args:
            maps (`Sequence[torch.Tensor]` of shapes `(batch_size, channels, height, width)`):
                Maps of the backbone.

        Returns:
            `torch.Tensor` of shape `(batch_size, hidden_size, height, width)` at the resolution of the first.
        """
        levels = [level(one) for level, one in zip(self.levels, self.pyramid(maps))]
        return torch.stack([resize_map(one, maps[0].shape[-2:]) for one in levels]).sum(0)


class _SegmentationHead(nn.Module):
    """Dropout of whole channels, then a classifier of every place."""

    def __init__(self, config: UniFormerSegmenterConfig, channels: int):
        super().__init__()
        self.dropout = nn.Dropout2d(config.classifier_dropout)
        self.classifier = starting(CLASSES, nn.Conv2d(channels, config.num_labels, 1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(hidden_states))


class UniFormerSegmenterPreTrainedModel(PreTrainedModel):
    """Weight initialisation of the official code, and what transformers must know of the models."""

    config_class = UniFormerSegmenterConfig
    base_model_prefix = "segmenter"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["UniFormerBackbone"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As MMSegmentation: Kaiming's in convolutions, Xavier's in the pyramid, small in what predicts."""
        super()._init_weights(module)
        start = start_of(module)
        if start == XAVIER:
            init.xavier_uniform_(module.weight)
        elif start == CLASSES:
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class UniFormerForSemanticSegmentation(UniFormerSegmenterPreTrainedModel):
    """
    A label for every pixel: a backbone and the decoder of UperNet or Semantic FPN.

    ```
    loss = cross-entropy of the logits at the size of the labels, over all pixels
           + auxiliary_loss_weight * the same of the auxiliary head
    ```

    Pixels with the label `semantic_loss_ignore_index` add nothing, but count in the mean, as in the official code.

    Args:
        config ([`UniFormerSegmenterConfig`]):
            Configuration.
    """

    def __init__(self, config: UniFormerSegmenterConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.backbone = backbone_from(config.backbone_config)
        channels = list(self.backbone.channels)
        decoder = UperNetDecoder if config.decode_head == "upernet" else SemanticPyramidDecoder
        self.decoder = decoder(config, channels)
        self.head = _SegmentationHead(config, config.hidden_size)
        if config.use_auxiliary_head:
            width = config.auxiliary_hidden_size
            self.auxiliary = _ConvolutionWithNorm(channels[AUXILIARY_STAGE], width)
            self.auxiliary_head = _SegmentationHead(config, width)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> SemanticSegmenterOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images.
            labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
                Label of every pixel.

        Returns:
            [`~transformers.modeling_outputs.SemanticSegmenterOutput`]: `logits` of shape `(batch_size, num_labels,
            height, width)`.

        Raises:
            ValueError: a shape does not fit the configuration.

        Example:

        ```python
        >>> import torch

        >>> from hf_videovit import UniFormerForSemanticSegmentation, UniFormerSegmenterConfig

        >>> config = UniFormerSegmenterConfig.from_size("small", num_labels=150)
        >>> model = UniFormerForSemanticSegmentation(config).eval()
        >>> list(model(torch.rand(1, 3, 64, 96)).logits.shape)
        [1, 150, 64, 96]
        ```"""
        outputs = self.backbone(pixel_values, **kwargs)
        maps = outputs.feature_maps
        logits = resize_map(self.head(self.decoder(maps)), pixel_values.shape[-2:])
        loss = None
        if labels is not None:
            loss = self._loss(logits, labels, pixel_values)
            if self.config.use_auxiliary_head:
                auxiliary = self.auxiliary_head(self.auxiliary(maps[AUXILIARY_STAGE]))
                loss = loss + self.config.auxiliary_loss_weight * self._loss(auxiliary, labels, pixel_values)
        return SemanticSegmenterOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        wanted = (len(pixel_values), *pixel_values.shape[-2:])
        if tuple(labels.shape) != wanted:
            raise ValueError(f"`labels` must have shape {wanted}, got {tuple(labels.shape)}.")
        resized = resize_map(logits, labels.shape[-2:])
        ignored = self.config.semantic_loss_ignore_index
        return F.cross_entropy(resized.float(), labels, ignore_index=ignored, reduction="none").mean()


__all__ = [
    "SemanticPyramidDecoder",
    "UniFormerForSemanticSegmentation",
    "UniFormerSegmenterPreTrainedModel",
    "UperNetDecoder",
    "resize_map",
]
