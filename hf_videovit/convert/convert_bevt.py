"""
BEVT: the official joint pre-training checkpoint (stage 2), fine-tuned and Video Swin checkpoints, and image Swins
(stage 1 among them), which are inflated.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.backbone_video_swin import resize_table
from ..modeling.configuration_base import frame_size
from ..modeling.configuration_bevt import BevtConfig
from ..modeling.modeling_bevt import BevtForPreTraining, BevtForVideoClassification, BevtModel
from ..modeling.video_processing_bevt import BevtVideoProcessor
from ..published import (
    label_fields,
    published_config,
    published_entry,
    published_labels,
    published_processor_kwargs,
)
from .fields import agreed, depth, given_fields, make_config, refuse_unknown_fields
from .keys import Checkpoint, shorten
from .plan import Piece, Plan
from .swin_names import official_checkpoint


logger = logging.get_logger(__name__)

MODEL_CLASSES: dict[str, Any] = {
    "video-classification": BevtForVideoClassification,
    "feature-extraction": BevtModel,
    "pretraining": BevtForPreTraining,
}
PRETRAINED, FINE_TUNED, ENCODER, IMAGE = "pre-training", "fine-tuned", "encoder", "image"
TASK_LAYOUTS = {"pretraining": PRETRAINED, "video-classification": FINE_TUNED, "feature-extraction": ENCODER}
# Windows of published models; a table's length alone does not always tell the window.
KNOWN_WINDOWS = ([8, 7, 7], [16, 7, 7], [8, 12, 12])
BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)")
MERGING = re.compile(r"layers\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)")
TABLE = "attn.relative_position_bias_table"
FIRST_TABLE = f"layers.0.blocks.0.{TABLE}"
BLOCK_MODULES = {
    **{name: name for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")},
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.o_proj",
}
ENCODER_MODULES = {
    "patch_embed.proj": "embeddings.projection",
    "patch_embed.norm": "embeddings.norm",
    "norm": "layernorm",
}
HEAD_MODULES = {"cls_head.fc_cls": "classifier"}
IMAGE_MODULES = {
    "patch_embed_2d.proj": "image_embeddings.projection",
    "patch_embed_2d.norm": "image_embeddings.norm",
    "lm_down": "image_decoder.projection",
    "fpn.0": "image_decoder.upsample",
}
VIDEO_MODULES = {
    "lm_down_st.0": "video_decoder.projection",
    "fpn_s.0": "video_decoder.upsample",
    "fpn_t.0": "video_decoder.upsample_time",
}
WORDS = {"cls_head.lm_head": "token_classifier"}
STREAM_MODULES = {**IMAGE_MODULES, **VIDEO_MODULES}
# Buffers that every model makes itself, whatever its window.
BUFFERS = re.compile(r"(.*\.)?(relative_position_index|attn_mask|relative_coords_table)")


def plan_conversion(
    checkpoint: Checkpoint,
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    use_ema: bool = True,
    pretrained_window_size: Sequence[int] | None = None,
    **overrides: Any,
) -> Plan:
    """
    Plan the conversion of a BEVT, Video Swin or image Swin checkpoint; see [`~convert.convert_checkpoint`] for the
    arguments. `use_ema=False` takes the raw weights where a file has moving averages too; `pretrained_window_size`
    says the file's window where neither an index buffer nor a published model tells it; with another `window_size`
    tables of relative positions are resized.
    """
    if task not in MODEL_CLASSES:
        raise ValueError(f"`task` of a BEVT must be one of {', '.join(MODEL_CLASSES)}, got {task!r}.")
    refuse_unknown_fields(BevtConfig, overrides, labels)
    checkpoint = official_checkpoint(checkpoint, use_ema)
    layout = layout_of(checkpoint)
    if published is not None:
        refuse_other_file(published, layout, config, checkpoint)
        config = published_config(published)
    given = given_fields(BevtConfig, config, overrides, set())
    if task == "feature-extraction" or layout in (PRETRAINED, FINE_TUNED):
        given = {name: value for name, value in given.items() if name not in ("image_stream", "video_stream")}
    refuse_impossible(layout, task, given, labels, checkpoint)
    window = file_window(checkpoint, layout, given, pretrained_window_size)
    fields = agreed(shown_fields(checkpoint, layout, given), given, checkpoint)
    fields.setdefault("window_size", window if layout != IMAGE else [8, *window[1:]])
    names = class_names(checkpoint, task, labels, given)
    if names is not None:
        fields = {name: value for name, value in fields.items() if name not in ("num_labels", "id2label", "label2id")}
        fields |= label_fields(names)
    plan = Plan(checkpoint, make_config(BevtConfig, fields), MODEL_CLASSES[task], {})
    map_names(plan, layout, task, window)
    plan.processor = processor_of(plan.config, published)
    return plan


def layout_of(checkpoint: Checkpoint) -> str:
    """What the file holds; ValueError for no Swin."""
    shapes = checkpoint.shapes
    kernel = shapes.get("patch_embed.proj.weight", ())
    if len(kernel) not in (4, 5) or FIRST_TABLE not in shapes:
        raise ValueError(
            f"{checkpoint.name} is no Swin checkpoint: `patch_embed.proj.weight` with 4 or 5 axes and `{FIRST_TABLE}` "
            f"are needed. It starts with {shorten(list(shapes)[:5])}."
        )
    if len(kernel) == 4:
        return IMAGE
    if "mask_token" in shapes:
        return PRETRAINED
    return FINE_TUNED if "cls_head.fc_cls.weight" in shapes else ENCODER


def refuse_other_file(published: str, layout: str, config: PreTrainedConfig | None, checkpoint: Checkpoint) -> None:
    """ValueError where the file cannot be the published one that it is said to be."""
    if config is not None:
        raise ValueError("Give `config` or `published`, not both.")
    entry = published_entry(published)
    if entry.model_type != BevtConfig.model_type:
        raise ValueError(f"`published` {published!r} is no BEVT.")
    if layout not in (TASK_LAYOUTS[entry.task], IMAGE):
        raise ValueError(
            f"`published` {published!r} has the {TASK_LAYOUTS[entry.task]} layout, but {checkpoint.name} has the "
            f"{layout} layout."
        )


def refuse_impossible(
    layout: str,
    task: str,
    given: dict[str, Any],
    labels: str | Sequence[str] | None,
    checkpoint: Checkpoint,
) -> None:
    """ValueError where the file cannot do the task, with what to do."""
    if task == "pretraining" and layout in (FINE_TUNED, ENCODER):
        raise ValueError(
            f"{checkpoint.name} has no decoders (it holds the {layout} layout), so it cannot be converted for "
            "task='pretraining': joint pre-training starts from an image Swin, or goes on from a pre-training "
            "checkpoint."
        )
    unnamed = labels is None and not {"num_labels", "id2label"} & set(given)
    if task == "video-classification" and layout != FINE_TUNED and unnamed:
        raise ValueError(
            f"{checkpoint.name} holds the {layout} layout, without a classifier of videos. To fine-tune it, pass "
            "`num_labels` or `id2label`: the classifier starts fresh. Without classes, use task='feature-extraction'."
        )


def file_window(
    checkpoint: Checkpoint, layout: str, given: dict[str, Any], pretrained: Sequence[int] | None
) -> list[int]:
    """
    The window of the file's tables, from its index buffer, from `pretrained`, or from their length.

    Raises:
        ValueError: nothing tells the window, or `pretrained` does not fit.
    """
    length = checkpoint.shapes[FIRST_TABLE][0]
    if layout == IMAGE:
        side = (math.isqrt(length) + 1) // 2
        if (2 * side - 1) ** 2 != length:
            raise ValueError(f"{checkpoint.name}: {FIRST_TABLE} has {length} rows, which belong to no square window.")
        return [1, side, side]
    if pretrained is not None:
        if table_length(pretrained) != length:
            raise ValueError(
                f"`pretrained_window_size` {list(pretrained)} has tables of {table_length(pretrained)} rows, those of "
                f"{checkpoint.name} have {length}."
            )
        return list(pretrained)
    index = FIRST_TABLE.replace("bias_table", "index")
    places = math.isqrt(math.prod(checkpoint.shapes[index])) if index in checkpoint.shapes else None
    fitting = [window for window in windows_of_length(length) if places is None or math.prod(window) == places]
    preferred = [window for window in fitting if window in KNOWN_WINDOWS or window == given.get("window_size")]
    square = [window for window in fitting if window[1] == window[2]]
    for candidates in (square if places is not None else [], preferred, fitting):
        if len(candidates) == 1:
            return candidates[0]
    raise ValueError(
        f"`pretrained_window_size` is needed: the tables of {checkpoint.name} have {length} rows, which "
        f"{shorten([str(window) for window in fitting])} have."
    )


def table_length(window: Sequence[int]) -> int:
    return math.prod(2 * size - 1 for size in window)


def windows_of_length(length: int) -> list[list[int]]:
    """Windows (frames, height, width) whose tables have so many rows."""
    sides = [side for side in range(1, length + 1, 2) if length % side == 0]
    return [
        [(frames + 1) // 2, (rows + 1) // 2, (length // frames // rows + 1) // 2]
        for frames in sides
        for rows in sides
        if length // frames % rows == 0
    ]


def shown_fields(checkpoint: Checkpoint, layout: str, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of the configuration that shapes show."""
    shapes = checkpoint.shapes
    kernel = shapes["patch_embed.proj.weight"]
    if kernel[-1] != kernel[-2]:
        raise ValueError(f"{checkpoint.name}: patch_embed.proj.weight has shape {kernel}; expected square patches.")
    stages = depth(shapes, "layers.", checkpoint)
    fields: dict[str, Any] = {
        "hidden_sizes": [kernel[0] * 2**stage for stage in range(stages)],
        "num_channels": kernel[1],
        "patch_size": kernel[-1],
        "depths": [depth(shapes, f"layers.{stage}.blocks.", checkpoint) for stage in range(stages)],
        "num_attention_heads": [shapes[f"layers.{stage}.blocks.0.{TABLE}"][1] for stage in range(stages)],
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in shapes,
        "intermediate_sizes": [shapes[f"layers.{stage}.blocks.0.mlp.fc1.weight"][0] for stage in range(stages)],
    }
    if layout != IMAGE:
        fields["tubelet_size"] = kernel[2]
    if layout == PRETRAINED:
        fields |= {"image_stream": "patch_embed_2d.proj.weight" in shapes, "video_stream": True}
    if "cls_head.lm_head.weight" in shapes and layout != IMAGE:
        fields["vocab_size"] = shapes["cls_head.lm_head.weight"][0]
    for name in ("depths", "hidden_sizes", "num_attention_heads", "intermediate_sizes"):
        if given.get(name):
            given[name] = list(given[name])  # tuples and lists say the same
    return fields


def class_names(
    checkpoint: Checkpoint, task: str, labels: str | Sequence[str] | None, given: dict[str, Any]
) -> list[str] | None:
    """Names of the classes (`None`: as given)."""
    if task != "video-classification":
        if labels is not None:
            raise ValueError(f"`labels` goes with task='video-classification', got task={task!r}.")
        return None
    names = published_labels(labels) if isinstance(labels, str) else None if labels is None else list(labels)
    if names is not None and len(set(names)) != len(names):
        raise ValueError("`labels` names a class twice.")
    if "cls_head.fc_cls.weight" not in checkpoint.shapes:
        return names
    size = checkpoint.shapes["cls_head.fc_cls.weight"][0]
    given_size = len(given["id2label"]) if given.get("id2label") else given.get("num_labels", size)
    if len(names or range(given_size)) != size:
        raise ValueError(
            f"The head of {checkpoint.name} has {size} classes, {len(names or range(given_size))} are given."
        )
    if isinstance(labels, str):
        logger.warning(f"That the head of {checkpoint.name} orders its classes as {labels!r} does is unverified.")
    if names is None and not {"num_labels", "id2label"} & set(given):
        return [f"LABEL_{index}" for index in range(size)]
    return names


def map_names(plan: Plan, layout: str, task: str, window: Sequence[int]) -> None:
    """Fill the plan's pieces, what is dropped, and what starts fresh; unknown names are reported by its check."""
    base = "" if task == "feature-extraction" else f"{BevtModel.base_model_prefix}."
    resized = table_transform(layout, window, plan.config.window_size)
    for name in plan.checkpoint.shapes:
        reason = dropping_reason(name, layout, task, plan)
        if reason is not None:
            plan.dropped[name] = reason
        elif (match := BLOCK.fullmatch(name)) and match[3] == TABLE:
            stem = f"{base}encoder.stages.{match[1]}.layers.{match[2]}.attention."
            plan.pieces[f"{stem}relative_position_bias_table"] = Piece(name, resized)
        elif match:
            module, _, kind = match[3].rpartition(".")
            if module in BLOCK_MODULES:
                stem = f"{base}encoder.stages.{match[1]}.layers.{match[2]}."
                plan.pieces[f"{stem}{BLOCK_MODULES[module]}.{kind}"] = Piece(name)
        elif match := MERGING.fullmatch(name):
            plan.pieces[f"{base}encoder.stages.{match[1]}.merging.{match[2]}"] = Piece(name)
        else:
            map_outside(plan, name, base, layout, task)
    settle_fresh(plan, task, layout)


def map_outside(plan: Plan, name: str, base: str, layout: str, task: str) -> None:
    """A tensor outside the blocks."""
    module, _, kind = name.rpartition(".")
    module = "norm" if module == "fc_norm" else module
    inflated = layout == IMAGE and name == "patch_embed.proj.weight"
    if name == "mask_token":
        plan.pieces[name] = Piece(name)
    elif module in ENCODER_MODULES:
        ours = f"{base}{ENCODER_MODULES[module]}.{kind}"
        if task != "pretraining" or plan.config.video_stream or module == "norm":
            plan.pieces[ours] = Piece(name, inflate(plan.config.tubelet_size) if inflated else None)
        if layout == IMAGE and task == "pretraining" and plan.config.image_stream and module != "norm":
            plan.pieces[f"image_{ENCODER_MODULES[module]}.{kind}"] = Piece(name)
    for modules in (HEAD_MODULES, STREAM_MODULES, WORDS):
        if module in modules:
            plan.pieces[f"{modules[module]}.{kind}"] = Piece(name)


def dropping_reason(name: str, layout: str, task: str, plan: Plan) -> str | None:
    """Why a tensor is left behind on purpose, if it is."""
    module = name.rpartition(".")[0]
    if BUFFERS.fullmatch(name):
        return "the model makes its indices and masks itself"
    if name.startswith("cls_head.vae_encoder."):
        return "the tokenizer is a model of its own, see convert_codebook"
    if name.startswith("data_preprocessor."):
        return "normalisation is the video processor's"
    if module == "norm" and f"fc_norm.{name.rpartition('.')[2]}" in plan.checkpoint.shapes:
        return "the official loader takes fc_norm in its place"
    if layout == IMAGE and module in ("head", "cls_head.lm_head", "lm_head"):
        return "heads of images are not taken over, as in the official code"
    if task == "feature-extraction" and module in HEAD_MODULES:
        return "features need no classifier"
    if task != "pretraining" and (name == "mask_token" or module in STREAM_MODULES or module in WORDS):
        return "only pre-training needs it"
    if module in IMAGE_MODULES and not plan.config.image_stream:
        return "the configuration has no image stream"
    if module in VIDEO_MODULES and not plan.config.video_stream:
        return "the configuration has no video stream"
    return None


def settle_fresh(plan: Plan, task: str, layout: str) -> None:
    """What the model has and no piece gives, where that is to be expected."""
    if task == "video-classification" and layout != FINE_TUNED:
        plan.fresh = dict.fromkeys(
            ("classifier.weight", "classifier.bias"), "a checkpoint without classifier; train before use"
        )
    if task != "pretraining":
        return
    wanted = {"mask_token": True}
    for modules, present in (
        (IMAGE_MODULES, plan.config.image_stream and layout == IMAGE),
        (VIDEO_MODULES, plan.config.video_stream and layout == IMAGE),
        (WORDS, True),
    ):
        wanted |= {f"{ours}.{kind}": present for ours in modules.values() for kind in ("weight", "bias")}
    reason = "not in the checkpoint, as in the official start of joint pre-training"
    plan.fresh = {name: reason for name, present in wanted.items() if present and name not in plan.pieces}


def inflate(tubelet_size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A kernel of images for clips: the same in every frame, the sum kept."""
    return lambda kernel: kernel.unsqueeze(2).repeat(1, 1, tubelet_size, 1, 1) / tubelet_size


def table_transform(
    layout: str, source: Sequence[int], target: Sequence[int]
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """
    How tables of relative positions become those of another window: resized between images (bicubic) and repeated for
    every distance in time, or resized between clips (trilinear); the official loaders' two ways.
    """
    if layout == IMAGE:
        return lambda table: resize_table(table, source[1:], target[1:], "bicubic").repeat(2 * target[0] - 1, 1)
    if list(source) == list(target):
        return None
    return lambda table: resize_table(table, source, target, "trilinear")


def processor_of(config: BevtConfig, published: str | None) -> BevtVideoProcessor:
    """The protocol of the published checkpoint, else one centred view of the configuration's size."""
    height, width = frame_size(config.image_size)
    fields: dict[str, Any] = {} if published is None else published_processor_kwargs(published)
    fields |= {
        "num_frames": config.num_frames,
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
    }
    return BevtVideoProcessor(**fields)


__all__ = ["plan_conversion"]
