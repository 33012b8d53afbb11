"""
The table that every common test runs over: one tiny configuration a family, one row a head.

A new family adds a `Family` to `FAMILIES`; `tests/test_families.py` and `tests/hf_common` then hold it to the same
standard as the others.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from transformers import (
    AutoBackbone,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForKeypointDetection,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

import hf_videovit as package


Inputs = dict[str, torch.Tensor]
Shapes = list[tuple[int, ...]]
# Compiling takes minutes, more than CI has: there it is tried for one family, or for heads without options.
LONG = pytest.mark.skipif(not os.environ.get("DEPLOY_MATRIX"), reason="takes long: `make matrix` runs it")
LABELS = ("push", "pull", "lift", "drop", "turn")


def clips(config: PreTrainedConfig, batch_size: int, *, num_frames: int | None = None, size=None) -> torch.Tensor:
    """Normalised clips `(batch_size, num_frames, num_channels, height, width)`."""
    height, width = size or (config.image_size, config.image_size)
    return torch.randn(batch_size, num_frames or config.num_frames, config.num_channels, height, width)


def features_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    return {"pixel_values": clips(config, batch_size, **shape)}


def classification_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    labels = torch.arange(batch_size) % config.num_labels
    return {"pixel_values": clips(config, batch_size, **shape), "labels": labels}


def action_detection_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    """Clips, three boxes each of which the last of the first clip is missing, and several labels a box."""
    pixel_values = clips(config, batch_size, **shape)
    height, width = pixel_values.shape[-2:]
    low, extent = torch.rand(batch_size, 3, 2) * 0.5, 0.2 + torch.rand(batch_size, 3, 2) * 0.3
    mask = torch.ones(batch_size, 3, dtype=torch.bool)
    mask[0, -1] = False
    return {
        "pixel_values": pixel_values,
        "boxes": torch.cat((low, low + extent), dim=-1) * torch.tensor([width, height, width, height]),
        "box_mask": mask,
        "labels": (torch.rand(batch_size, 3, config.num_labels) < 0.4).float(),
    }


def image_classification_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    """Normalised images `(batch_size, num_channels, height, width)`."""
    inputs = classification_inputs(config, batch_size, **{**shape, "num_frames": 1})
    return {**inputs, "pixel_values": inputs["pixel_values"][:, 0]}


def image_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    return {"pixel_values": clips(config, batch_size, **{**shape, "num_frames": 1})[:, 0]}


def pose_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    """Images, and target heatmaps at a quarter of their resolution."""
    inputs = image_inputs(config, batch_size, **shape)
    sides = [side // 4 for side in inputs["pixel_values"].shape[-2:]]
    return {**inputs, "labels": torch.rand(batch_size, config.num_labels, *sides)}


def dual_masking_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    """Tube mask for the encoder; for the decoder any mask with the right count, another one for each sample."""
    pixel_values = clips(config, batch_size, **shape)
    frames = pixel_values.shape[1] // config.tubelet_size
    tokens = pixel_values.shape[3] * pixel_values.shape[4] // config.patch_size**2  # of one frame
    hidden = torch.rand(batch_size, tokens).argsort(dim=1) < int(config.encoder_mask_ratio * tokens)
    skipped = frames * tokens * int(4 * config.decoder_mask_ratio) // 4
    return {
        "pixel_values": pixel_values,
        "encoder_mask": hidden.repeat(1, frames),
        "decoder_mask": torch.rand(batch_size, frames * tokens).argsort(dim=1) < skipped,
    }


def masked_words_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    """For each stream that the model has: pixels, masks on the grid of visual words, and the words."""
    inputs: Inputs = {}
    pixels, side = clips(config, batch_size, **shape), config.prediction_patch_size
    frames, height, width = pixels.shape[1], pixels.shape[3] // side, pixels.shape[4] // side
    if config.video_stream:
        mask = torch.rand(batch_size, frames // config.tubelet_size, height, width) < 0.4
        mask[:, 0, 0, 0] = True
        labels = torch.randint(config.vocab_size, (batch_size, frames, height, width))
        inputs |= {"pixel_values": pixels, "mask": mask, "labels": labels}
    if config.image_stream:
        mask = torch.rand(batch_size, height, width) < 0.5
        mask[:, 0, 0] = True
        labels = torch.randint(config.vocab_size, (batch_size, height, width))
        inputs |= {"image_pixel_values": pixels[:, 0].flip(-1), "image_mask": mask, "image_labels": labels}
    return inputs


def bevt_shapes(config: PreTrainedConfig, batch_size: int) -> tuple[Shapes, Shapes]:
    """Maps from block to block, and attention within windows; of clips."""
    grid = [config.num_frames // config.tubelet_size, *2 * [config.image_size // config.patch_size]]
    maps: Shapes = [(batch_size, *grid, config.hidden_sizes[0])]
    attentions: Shapes = []
    for size, depth, heads in zip(config.hidden_sizes, config.depths, config.num_attention_heads):
        window = [min(side, length) for side, length in zip(grid, config.window_size)]
        windows = torch.Size(-(-side // length) for side, length in zip(grid, window)).numel()
        places = torch.Size(window).numel()
        maps += [(batch_size, *grid, size)] * depth
        attentions += [(batch_size * windows, heads, places, places)] * depth
        grid = [grid[0], *(-(-side // 2) for side in grid[1:])]
    return maps, attentions


def two_clips_inputs(config: PreTrainedConfig, batch_size: int, **shape: Any) -> Inputs:
    """A short and a long clip of each video."""
    names = ("pixel_values", "long_pixel_values")
    return {name: clips(config, batch_size, **shape) for name in names}


def timesformer_shapes(config: PreTrainedConfig, batch_size: int) -> tuple[Shapes, Shapes]:
    """One class token, and the tokens of each frame; attention within frames, where each sees the class token."""
    places = (config.image_size // config.patch_size) ** 2
    hidden = (batch_size, 1 + places * config.num_frames, config.hidden_size)
    attention = (batch_size * config.num_frames, config.num_attention_heads, 1 + places, 1 + places)
    return [hidden] * (config.num_hidden_layers + 1), [attention] * config.num_hidden_layers


def uniformer_shapes(config: PreTrainedConfig, batch_size: int) -> tuple[Shapes, Shapes]:
    """Maps from stage to stage, and attention in the last two; four frames and sides of a multiple of 32."""
    frames = [config.num_frames // 2] if config.modality == "video" else []
    strides = (4, 4, 8, 16, 32)
    maps = [
        (batch_size, channels, *frames, config.image_size // stride, config.image_size // stride)
        for channels, stride in zip((config.hidden_sizes[0], *config.hidden_sizes), strides)
    ]
    attentions: Shapes = []
    for stage in (2, 3):
        tokens = torch.Size(maps[stage + 1][2:]).numel()
        attentions += [(batch_size, config.num_heads(stage), tokens, tokens)] * config.depths[stage]
    return maps, attentions


@dataclass(frozen=True)
class Head:
    """
    One model class: the auto class that gives it, what it is fed, what it answers, prefixes of the parameters that its
    inputs never reach, fields of its own, and the sets of options it takes (all by default).
    """

    model_class: type[PreTrainedModel]
    auto_class: type
    inputs: Callable[..., Inputs]
    output: str = "logits"
    idle: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] | None = None
    any_size: bool = False

    def answer(self, outputs: Any) -> torch.Tensor:
        """What the head answers; of several maps the last."""
        answer = outputs[self.output]
        return answer if isinstance(answer, torch.Tensor) else answer[-1]

    @property
    def trains(self) -> bool:
        """Whether the head works out a loss."""
        return self.output in ("logits", "heatmaps")


@dataclass(frozen=True)
class Family:
    """
    Args:
        name (`str`):
            The model type.
        tiny (`dict`):
            Fields of the smallest sensible configuration.
        options (`dict`):
            Sets of further fields, by name, that reach other branches of the code.
        processor (`dict`):
            Fields of the processor that fit `tiny`.
        any_size (`bool`):
            Whether clips need not be a whole number of patches, and images are clips of one frame.
        class_tokens_a_frame (`int`):
            Class tokens of every frame among the hidden states.
        class_tokens (`int`):
            Class tokens of the whole clip among the hidden states.
        attends_within_frames (`bool`):
            Whether blocks attend to the tokens of one frame, and attentions have a row for each frame.
        any_size (`bool`):
            Whether clips need not be a whole number of patches, and images are clips of one frame.
        shapes (`Callable`, *optional*):
            Of hidden states and of attentions, for a configuration and a batch size, where not every block sees the
            same tokens.
    """

    name: str
    config_class: type[PreTrainedConfig]
    tiny: dict[str, Any]
    heads: tuple[Head, ...]
    processor_class: type
    processor: dict[str, Any]
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    any_size: bool = False
    class_tokens_a_frame: int = 0
    class_tokens: int = 0
    attends_within_frames: bool = False
    shapes: Callable[[PreTrainedConfig, int], tuple[Shapes, Shapes]] | None = None

    def config(self, **fields: Any) -> PreTrainedConfig:
        names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: index for index, name in enumerate(LABELS)}}
        return self.config_class(**{**self.tiny, **names, **fields})

    def expected_shapes(self, config: PreTrainedConfig, batch_size: int, tokens: int) -> tuple[Shapes, Shapes]:
        """Of hidden states, whose first has this number of `tokens`, and of attentions."""
        if self.shapes is not None:
            return self.shapes(config, batch_size)
        rows = config.num_frames if self.attends_within_frames else 1
        attention = (batch_size * rows, config.num_attention_heads, tokens // rows, tokens // rows)
        hidden = [(batch_size, tokens, config.hidden_size)] * (config.num_hidden_layers + 1)
        return hidden, [attention] * config.num_hidden_layers

    def head(self, auto_class: type) -> Head | None:
        return next((head for head in self.heads if head.auto_class is auto_class), None)


@dataclass(frozen=True)
class Case:
    """A head of a family under one set of options."""

    family: Family
    head: Head
    options: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.head.model_class.__name__, self.options)))

    def config(self, **fields: Any) -> PreTrainedConfig:
        options = self.family.options.get(self.options, {})
        return self.family.config(**{**self.head.fields, **options, **fields})

    def model(self, seed: int = 0, **fields: Any) -> PreTrainedModel:
        """
        A model in evaluation mode whose parameters are all away from their initial values: biases of zero and norms of
        one would hide mistakes.
        """
        torch.manual_seed(seed)
        model = self.head.model_class(self.config(**fields)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        return model

    def inputs(
        self, batch_size: int = 2, seed: int = 1, config: PreTrainedConfig | None = None, **shape: Any
    ) -> Inputs:
        torch.manual_seed(seed)
        return self.head.inputs(config or self.config(), batch_size, **shape)


TINY_SWIN = {
    "backbone": "video_swin",
    "hidden_sizes": [8, 16],
    "depths": [2, 2],
    "num_attention_heads": [2, 4],
    "patch_size": 4,
    "image_size": 32,
}
TINY_VIDEOMAE_V2 = {
    "model_type": "videomae_v2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "patch_size": 8,
    "image_size": 32,
    "num_frames": 4,
}

FAMILIES = (
    Family(
        name="bevt",
        config_class=package.BevtConfig,
        tiny={
            "hidden_sizes": [8, 16],
            "depths": [1, 2],
            "num_attention_heads": [1, 2],
            "window_size": [2, 2, 2],
            "image_size": 32,
            "num_frames": 4,
            "vocab_size": 24,
            "drop_path_rate": 0.0,
            "classifier_dropout": 0.0,
        },
        heads=(
            Head(package.BevtModel, AutoModel, features_inputs, output="last_hidden_state"),
            Head(
                package.BevtForPreTraining,
                AutoModelForPreTraining,
                masked_words_inputs,
                options=("clips", "images"),
            ),
            Head(package.BevtForActionDetection, package.AutoModelForActionDetection, action_detection_inputs),
            Head(package.BevtForVideoClassification, AutoModelForVideoClassification, classification_inputs),
        ),
        processor_class=package.BevtVideoProcessor,
        processor={
            "num_frames": 4,
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
        },
        options={
            "clips": {"image_stream": False, "qkv_bias": False, "num_channels": 1, "window_size": [1, 3, 2]},
            "images": {"video_stream": False, "image_loss_weight": 0.5},
        },
        any_size=True,
        shapes=bevt_shapes,
    ),
    Family(
        name="lstcl",
        config_class=package.LstclConfig,
        tiny={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "patch_size": 8,
            "image_size": 32,
            "num_frames": 4,
            "drop_path_rate": 0.0,
            "projection_size": 16,
            "projection_hidden_size": 24,
            "prediction_hidden_size": 24,
        },
        heads=(
            Head(package.LstclModel, AutoModel, features_inputs, output="last_hidden_state"),
            Head(
                package.LstclForPreTraining,
                AutoModelForPreTraining,
                two_clips_inputs,
                output="short_query",
                idle=("target.",),
                fields={"freeze_patch_embeddings": False},
            ),
            Head(
                package.LstclForActionDetection,
                package.AutoModelForActionDetection,
                action_detection_inputs,
                idle=("lstcl.backbone.fc_norm",),
            ),
            Head(package.LstclForVideoClassification, AutoModelForVideoClassification, classification_inputs),
        ),
        processor_class=package.LstclVideoProcessor,
        processor={
            "num_frames": 4,
            "frame_stride": 2,
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
        },
        options={
            "joint": {"attention_type": "joint_space_time", "framework": "byol", "symmetric": True},
            "frames": {"attention_type": "space_only", "framework": "simsiam", "num_channels": 1},
            "swin": {**TINY_SWIN, "framework": "simsiam", "symmetric": True},
            "divided_swin": {**TINY_SWIN, "temporal_attention": "divided", "symmetric": True},
            "other_encoder": {"backbone_config": TINY_VIDEOMAE_V2, "framework": "byol"},
        },
        class_tokens=1,
        shapes=timesformer_shapes,
    ),
    Family(
        name="tubevit",
        config_class=package.TubeViTConfig,
        tiny={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            # windows that end before the next one starts: the number of tokens grows with the clip
            "tubes": [
                {"kernel": [2, 8, 8], "stride": [4, 16, 16], "space_to_depth": [2, 1, 1]},
                {"kernel": [4, 4, 4], "stride": [4, 16, 16], "offset": [0, 2, 4], "space_to_depth": [1, 2, 2]},
                {"kernel": [1, 16, 16], "stride": [8, 16, 16]},
            ],
            "image_size": 32,
            "num_frames": 8,
        },
        heads=(
            Head(package.TubeViTModel, AutoModel, features_inputs, output="last_hidden_state"),
            Head(package.TubeViTForActionDetection, package.AutoModelForActionDetection, action_detection_inputs),
            Head(package.TubeViTForVideoClassification, AutoModelForVideoClassification, classification_inputs),
            Head(
                package.TubeViTForImageClassification,
                AutoModelForImageClassification,
                image_classification_inputs,
                idle=("tubevit.embeddings.tubes.0.", "tubevit.embeddings.tubes.1."),
            ),
        ),
        processor_class=package.TubeViTVideoProcessor,
        processor={
            "num_frames": 8,
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
        },
        options={
            "interpolated": {"tube_kernels": "interpolated", "base_kernel_size": [4, 4, 4], "pooling_type": "score"},
            "gated": {
                "gate_layer": 1,
                "gate_positions": False,
                "image_position_grid": [2, 2],
                "use_class_token": True,
                "num_channels": 1,
                "pooling_type": "attention_mlp",
            },
        },
        any_size=True,
    ),
    Family(
        name="uniformer",
        config_class=package.UniFormerConfig,
        tiny={
            "depths": [1, 1, 2, 1],
            "hidden_sizes": [8, 16, 24, 32],
            "intermediate_sizes": [16, 32, 48, 64],
            "head_dim": 8,
            "image_size": 64,
            "num_frames": 4,
        },
        heads=(
            Head(
                package.UniFormerModel,
                AutoModel,
                features_inputs,
                output="last_hidden_state",
                options=("split", "light"),
            ),
            Head(
                package.UniFormerForActionDetection,
                package.AutoModelForActionDetection,
                action_detection_inputs,
                options=("split", "light"),
                idle=("uniformer.class_norm",),
            ),
            Head(
                package.UniFormerForVideoClassification,
                AutoModelForVideoClassification,
                classification_inputs,
                options=("split", "light"),
            ),
            Head(
                package.UniFormerForImageClassification,
                AutoModelForImageClassification,
                image_classification_inputs,
                fields={"modality": "image"},
                options=("token_labels", "light", "windows"),
            ),
            Head(
                package.UniFormerBackbone,
                AutoBackbone,
                image_inputs,
                output="feature_maps",
                fields={"modality": "image", "out_indices": [1, 2, 3, 4]},
                options=("windows", "light"),
            ),
            Head(
                package.UniFormerForPoseEstimation,
                AutoModelForKeypointDetection,
                pose_inputs,
                output="heatmaps",
                fields={"modality": "image", "pose_hidden_sizes": [8, 8, 8]},
                options=("windows",),
            ),
        ),
        processor_class=package.UniFormerVideoProcessor,
        processor={
            "num_frames": 4,
            "frame_stride": 2,
            "size": {"shortest_edge": 64},
            "crop_size": {"height": 64, "width": 64},
        },
        options={
            "split": {"use_split_attention": True, "use_temporal_overlap": True, "num_channels": 1},
            "light": {
                "use_token_pruning": True,
                "stem": "conv_first",
                "layer_scale_init_value": 0.1,
                "layer_scale_in_conv_blocks": True,
            },
            "token_labels": {"use_auxiliary_head": True, "stem": "conv", "layer_scale_init_value": 0.5},
            "windows": {"attention_type": "window", "window_size": 3, "qkv_bias": False},
        },
        any_size=True,
        shapes=uniformer_shapes,
    ),
    Family(
        name="uniformer_v2",
        config_class=package.UniFormerV2Config,
        tiny={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "patch_size": 8,
            "image_size": 32,
            "num_frames": 4,
            "global_layers": [0, 1],
            "global_num_attention_heads": 2,
            "global_intermediate_size": 48,
            "global_dropout": 0.0,
            "classifier_dropout": 0.0,
        },
        heads=(
            Head(package.UniFormerV2Model, AutoModel, features_inputs, output="last_hidden_state"),
            Head(package.UniFormerV2ForActionDetection, package.AutoModelForActionDetection, action_detection_inputs),
            Head(package.UniFormerV2ForVideoClassification, AutoModelForVideoClassification, classification_inputs),
        ),
        processor_class=package.UniFormerV2VideoProcessor,
        processor={
            "num_frames": 4,
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
        },
        options={
            "motion": {"num_local_modules": 2, "temporal_downsample": True, "global_layers": [1]},
            "plain_vit": {
                "use_gate": False,
                "use_pre_layernorm": False,
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-12,
                "num_local_modules": 1,
                "local_reduction": 2.3,
                "num_channels": 1,
            },
        },
        class_tokens_a_frame=1,
        attends_within_frames=True,
    ),
    Family(
        name="videomae_v2",
        config_class=package.VideoMAEV2Config,
        tiny={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "patch_size": 8,
            "image_size": 32,
            "num_frames": 4,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
        heads=(
            Head(package.VideoMAEV2Model, AutoModel, features_inputs, output="last_hidden_state"),
            Head(
                package.VideoMAEV2ForPreTraining,
                AutoModelForPreTraining,
                dual_masking_inputs,
                options=("cosine", "first_token"),
            ),
            Head(
                package.VideoMAEV2ForActionDetection,
                package.AutoModelForActionDetection,
                action_detection_inputs,
                any_size=True,
            ),
            Head(package.VideoMAEV2ForVideoClassification, AutoModelForVideoClassification, classification_inputs),
        ),
        processor_class=package.VideoMAEV2VideoProcessor,
        processor={
            "num_frames": 4,
            "frame_stride": 2,
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
        },
        options={
            "cosine": {"use_cosine_attention": True, "layer_scale_init_value": 0.5, "qkv_bias": False},
            "first_token": {"use_mean_pooling": False, "num_channels": 1},
            "adapters": {"adapter_layers": [1], "adapter_hidden_size": 6},
        },
    ),
)


def cases(options: bool = True, **wanted: Any) -> Iterator[Case]:
    """
    Every case of the table.

    Args:
        options (`bool`, *optional*, defaults to `True`):
            Whether to include the families' sets of options.
        wanted:
            Attributes that the head must have, such as `trains=True`.
    """
    for family in FAMILIES:
        for head in family.heads:
            if all(getattr(head, name) == value for name, value in wanted.items()):
                case = Case(family, head)
                yield case
                names = family.options if head.options is None else head.options
                yield from (replace(case, options=name) for name in (names if options else ()))


def options_once() -> Iterator[Case]:
    """
    Every set of options under one head of its family, of those that train where there are such: for what is slow and
    depends on the head's code or on the encoder's, but not on both.
    """
    found = {(case.family.name, case.options): case for case in sorted(cases(), key=lambda case: case.head.trains)}
    yield from (case for (_, options), case in found.items() if options)
