"""
BEVT: the official joint pretraining checkpoint (stage 2), fine-tuned and Video Swin checkpoints, and image Swins
(including stage 1), which are inflated.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.backbone_video_swin import resize_table
from ..modeling.configuration_bevt import BevtConfig
from ..modeling.modeling_bevt import BevtForPreTraining, BevtForVideoClassification, BevtModel
from ..modeling.video_processing_bevt import BevtVideoProcessor
from ..published import published_entry
from .fields import (
    agreed,
    class_names,
    default_names,
    depth,
    given_fields,
    in_any_block,
    known_config,
    make_config,
    protocol_processor,
    refuse_labels,
    refuse_other_count,
    refuse_unknown_fields,
    shape_of,
    with_class_names,
)
from .keys import Checkpoint, shorten
from .plan import Conversion, Piece
from .swin_names import official_checkpoint


logger = logging.get_logger(__name__)

MODEL_CLASSES: dict[str, Any] = {
    "video-classification": BevtForVideoClassification,
    "feature-extraction": BevtModel,
    "pretraining": BevtForPreTraining,
}
PRETRAINED, FINE_TUNED, ENCODER, IMAGE = "pretraining", "fine-tuned", "encoder", "image"
TASK_LAYOUTS = {"pretraining": PRETRAINED, "video-classification": FINE_TUNED, "feature-extraction": ENCODER}
# Windows of published models. The length of a table does not always determine the window.
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
# Buffers that every model computes itself.
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
) -> Conversion:
    """
    Plan the conversion of a BEVT, Video Swin or image Swin checkpoint. With another `window_size`, tables of relative
    positions are resized.

    Args:
        checkpoint ([`Checkpoint`]):
            The opened file.
        task (`str`):
            See [`~convert.convert_checkpoint`].
        config ([`PreTrainedConfig`], *optional*):
            See [`~convert.convert_checkpoint`].
        labels (`str` or `Sequence[str]`, *optional*):
            See [`~convert.convert_checkpoint`].
        published (`str`, *optional*):
            See [`~convert.convert_checkpoint`].
        use_ema (`bool`, *optional*, defaults to `True`):
            Whether to use the moving averages if the file has them beside the raw weights.
        pretrained_window_size (`Sequence[int]`, *optional*):
            Window of the file, if neither an index buffer nor a published model gives it.
        overrides (`Any`):
            Fields of the configuration.

    Returns:
        [`Conversion`]

    Raises:
        ValueError: the file is not such a checkpoint, does not support the task, or contradicts an argument.
    """
    if task not in MODEL_CLASSES:
        raise ValueError(f"`task` of a BEVT must be one of {', '.join(MODEL_CLASSES)}, got {task!r}.")
    refuse_unknown_fields(BevtConfig, overrides, labels)
    config = known_config(BevtConfig, config, published)
    checkpoint = official_checkpoint(checkpoint, use_ema)
    layout = _layout_of(checkpoint)
    if published is not None:
        _refuse_other_file(published, layout, checkpoint)
    given = given_fields(BevtConfig, config, overrides, set())
    if task == "feature-extraction" or layout in (PRETRAINED, FINE_TUNED):
        given = {name: value for name, value in given.items() if name not in ("image_stream", "video_stream")}
    _refuse_impossible(layout, task, given, labels, checkpoint)
    window = _file_window(checkpoint, layout, given, pretrained_window_size)
    fields = agreed(_shown_fields(checkpoint, layout, given), given, checkpoint)
    fields.setdefault("window_size", window if layout != IMAGE else [8, *window[1:]])
    names = _class_names(checkpoint, task, labels, given)
    plan = Conversion(checkpoint, make_config(BevtConfig, with_class_names(fields, names)), MODEL_CLASSES[task], {})
    _map_names(plan, layout, task, window)
    plan.processor = protocol_processor(BevtVideoProcessor, plan.config, published)
    return plan


def _layout_of(checkpoint: Checkpoint) -> str:
    """Layout of the file. ValueError if it is not a Swin."""
    shapes = checkpoint.shapes
    kernel = shapes.get("patch_embed.proj.weight", ())
    if len(kernel) not in (4, 5) or FIRST_TABLE not in shapes:
        raise ValueError(
            f"{checkpoint.name} is not a Swin checkpoint: `patch_embed.proj.weight` with 4 or 5 axes and "
            f"`{FIRST_TABLE}` are needed. It starts with {shorten(list(shapes)[:5])}."
        )
    if len(kernel) == 4:
        return IMAGE
    if "mask_token" in shapes:
        return PRETRAINED
    return FINE_TUNED if "cls_head.fc_cls.weight" in shapes else ENCODER


def _refuse_other_file(published: str, layout: str, checkpoint: Checkpoint) -> None:
    """ValueError if the file cannot be the published checkpoint that the caller named."""
    expected = TASK_LAYOUTS[published_entry(published).task]
    if layout not in (expected, IMAGE):
        raise ValueError(
            f"`published` {published!r} has the {expected} layout, but {checkpoint.name} has the {layout} layout."
        )


def _refuse_impossible(
    layout: str,
    task: str,
    given: dict[str, Any],
    labels: str | Sequence[str] | None,
    checkpoint: Checkpoint,
) -> None:
    """ValueError if the file does not support the task, with the alternatives."""
    if task == "pretraining" and layout in (FINE_TUNED, ENCODER):
        raise ValueError(
            f"{checkpoint.name} has no decoders (it has the {layout} layout), so it cannot be converted for "
            "task='pretraining'. Joint pretraining starts from an image Swin or continues a pretraining checkpoint."
        )
    unnamed = labels is None and not {"num_labels", "id2label"} & set(given)
    if task == "video-classification" and layout != FINE_TUNED and unnamed:
        raise ValueError(
            f"{checkpoint.name} has the {layout} layout without a video classifier. To fine-tune it, pass "
            "`num_labels` or `id2label` for a new classifier. Without classes, use task='feature-extraction'."
        )


def _file_window(
    checkpoint: Checkpoint, layout: str, given: dict[str, Any], pretrained: Sequence[int] | None
) -> list[int]:
    """
    Window of the tables in the file: from `pretrained`, from the index buffer, or from the length of the tables.

    Raises:
        ValueError: the window is ambiguous, or `pretrained` does not fit.
    """
    length = checkpoint.shapes[FIRST_TABLE][0]
    if layout == IMAGE:
        side = (math.isqrt(length) + 1) // 2
        if (2 * side - 1) ** 2 != length:
            raise ValueError(f"{checkpoint.name}: {FIRST_TABLE} has {length} rows, which is not a square window.")
        return [1, side, side]
    if pretrained is not None:
        if _table_length(pretrained) != length:
            raise ValueError(
                f"`pretrained_window_size` {list(pretrained)} needs tables of {_table_length(pretrained)} rows, but "
                f"those of {checkpoint.name} have {length}."
            )
        return list(pretrained)
    index = FIRST_TABLE.replace("bias_table", "index")
    places = math.isqrt(math.prod(checkpoint.shapes[index])) if index in checkpoint.shapes else None
    fitting = [window for window in _windows_of_length(length) if places is None or math.prod(window) == places]
    preferred = [window for window in fitting if window in KNOWN_WINDOWS or window == given.get("window_size")]
    square = [window for window in fitting if window[1] == window[2]]
    for candidates in (square if places is not None else [], preferred, fitting):
        if len(candidates) == 1:
            return candidates[0]
    raise ValueError(
        f"`pretrained_window_size` is needed: the tables of {checkpoint.name} have {length} rows, which fit "
        f"{shorten([str(window) for window in fitting])}."
    )


def _table_length(window: Sequence[int]) -> int:
    return math.prod(2 * size - 1 for size in window)


def _windows_of_length(length: int) -> list[list[int]]:
    """Windows (frames, height, width) whose tables have this number of rows."""
    sides = [side for side in range(1, length + 1, 2) if length % side == 0]
    return [
        [(frames + 1) // 2, (rows + 1) // 2, (length // frames // rows + 1) // 2]
        for frames in sides
        for rows in sides
        if length // frames % rows == 0
    ]


def _shown_fields(checkpoint: Checkpoint, layout: str, given: dict[str, Any]) -> dict[str, Any]:
    """Fields of the configuration from tensor shapes."""
    shapes = checkpoint.shapes
    kernel = shapes["patch_embed.proj.weight"]
    if kernel[-1] != kernel[-2]:
        raise ValueError(f"{checkpoint.name}: patch_embed.proj.weight has shape {kernel}; expected square patches.")
    stages = depth(shapes, "layers.", checkpoint)

    def first_block(stage: int, name: str) -> tuple[int, ...]:
        return shape_of(f"layers.{stage}.blocks.0.{name}", checkpoint)

    fields: dict[str, Any] = {
        "hidden_sizes": [kernel[0] * 2**stage for stage in range(stages)],
        "num_channels": kernel[1],
        "patch_size": kernel[-1],
        "depths": [depth(shapes, f"layers.{stage}.blocks.", checkpoint) for stage in range(stages)],
        "num_attention_heads": [first_block(stage, TABLE)[1] for stage in range(stages)],
        "qkv_bias": in_any_block(shapes, "layers.0.blocks.", "attn.qkv.bias"),
        "intermediate_sizes": [first_block(stage, "mlp.fc1.weight")[0] for stage in range(stages)],
    }
    if layout != IMAGE:
        fields["tubelet_size"] = kernel[2]
    if layout == PRETRAINED:
        fields |= {
            "image_stream": any(name.rpartition(".")[0] in IMAGE_MODULES for name in shapes),
            "video_stream": True,
        }
    if "cls_head.lm_head.weight" in shapes and layout != IMAGE:
        fields["vocab_size"] = shapes["cls_head.lm_head.weight"][0]
    for name in ("depths", "hidden_sizes", "num_attention_heads", "intermediate_sizes"):
        if given.get(name):
            given[name] = list(given[name])  # tuples and lists are equivalent
    return fields


def _class_names(
    checkpoint: Checkpoint, task: str, labels: str | Sequence[str] | None, given: dict[str, Any]
) -> list[str] | None:
    """Class names, or `None` to keep those of the caller."""
    refuse_labels(labels, task, ["video-classification"])
    if task != "video-classification":
        return None
    names = class_names(labels)
    if "cls_head.fc_cls.weight" not in checkpoint.shapes:
        return names
    size = checkpoint.shapes["cls_head.fc_cls.weight"][0]
    if names is None:
        return default_names(size, given, checkpoint)
    refuse_other_count(len(names), size, checkpoint)
    if isinstance(labels, str):
        logger.warning(f"It is not verified that the head of {checkpoint.name} has the order {labels!r}.")
    return names


def _map_names(plan: Conversion, layout: str, task: str, window: Sequence[int]) -> None:
    """Fill in the plan: pieces, dropped tensors and new parameters. The plan's check reports unknown names."""
    base = "" if task == "feature-extraction" else f"{BevtModel.base_model_prefix}."
    plan.official_names = {
        **{base + ours: theirs for theirs, ours in ENCODER_MODULES.items()},
        **{ours: theirs for theirs, ours in (HEAD_MODULES | STREAM_MODULES | WORDS).items()},
        **{f"{base}encoder.stages.{stage}.merging": f"layers.{stage}.downsample" for stage in range(3)},
    }
    resized = _table_transform(layout, window, plan.config.window_size)
    for name in plan.checkpoint.shapes:
        reason = _dropping_reason(name, layout, task, plan)
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
            _map_outside(plan, name, base, layout, task)
    _settle_fresh(plan, task, layout)


def _map_outside(plan: Conversion, name: str, base: str, layout: str, task: str) -> None:
    """Add a tensor outside the blocks."""
    module, _, kind = name.rpartition(".")
    module = "norm" if module == "fc_norm" else module
    inflated = layout == IMAGE and name == "patch_embed.proj.weight"
    if name == "mask_token":
        plan.pieces[name] = Piece(name)
    elif module in ENCODER_MODULES:
        ours = f"{base}{ENCODER_MODULES[module]}.{kind}"
        if task != "pretraining" or plan.config.video_stream or module == "norm":
            plan.pieces[ours] = Piece(name, _inflate(plan.config.tubelet_size) if inflated else None)
        if layout == IMAGE and task == "pretraining" and plan.config.image_stream and module != "norm":
            plan.pieces[f"image_{ENCODER_MODULES[module]}.{kind}"] = Piece(name)
    for modules in (HEAD_MODULES, STREAM_MODULES, WORDS):
        if module in modules:
            plan.pieces[f"{modules[module]}.{kind}"] = Piece(name)


def _dropping_reason(name: str, layout: str, task: str, plan: Conversion) -> str | None:
    """Reason to drop a tensor, or `None`."""
    module = name.rpartition(".")[0]
    if BUFFERS.fullmatch(name):
        return "the model computes its indices and masks"
    if name.startswith("cls_head.vae_encoder."):
        return "the tokenizer is a separate model, see convert_codebook"
    if name.startswith("data_preprocessor."):
        return "the video processor does the normalisation"
    if module == "norm" and f"fc_norm.{name.rpartition('.')[2]}" in plan.checkpoint.shapes:
        return "the official loader uses fc_norm instead"
    if layout == IMAGE and module in ("head", "cls_head.lm_head", "lm_head"):
        return "image heads are not transferred, as in the official code"
    if task == "feature-extraction" and module in HEAD_MODULES:
        return "features have no classifier"
    if task != "pretraining" and (name == "mask_token" or module in STREAM_MODULES or module in WORDS):
        return "it is only used in pretraining"
    if module in IMAGE_MODULES and not plan.config.image_stream:
        return "the configuration has no image stream"
    if module in VIDEO_MODULES and not plan.config.video_stream:
        return "the configuration has no video stream"
    return None


def _settle_fresh(plan: Conversion, task: str, layout: str) -> None:
    """Mark parameters that such a file cannot have as new."""
    if task == "video-classification" and layout != FINE_TUNED:
        plan.fresh = dict.fromkeys(
            ("classifier.weight", "classifier.bias"), "the checkpoint has no classifier; train before use"
        )
    if task != "pretraining" or layout != IMAGE:  # a pretraining checkpoint has all of them
        return
    wanted = {"mask_token": True}
    for modules, present in (
        (IMAGE_MODULES, plan.config.image_stream),
        (VIDEO_MODULES, plan.config.video_stream),
        (WORDS, True),
    ):
        wanted |= {f"{ours}.{kind}": present for ours in modules.values() for kind in ("weight", "bias")}
    reason = "not in the checkpoint; the official joint pretraining also initialises it"
    plan.fresh = {name: reason for name, present in wanted.items() if present and name not in plan.pieces}


def _inflate(tubelet_size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Transformation of an image kernel to one for clips: the same in every frame, with the same sum."""
    return lambda kernel: kernel.unsqueeze(2).repeat(1, 1, tubelet_size, 1, 1) / tubelet_size


def _table_transform(
    layout: str, source: Sequence[int], target: Sequence[int]
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """
    Transformation of tables of relative positions to another window, as in the official loaders. Tables of images are
    resized (bicubic) and repeated for every distance in time; tables of clips are resized (trilinear).
    """
    if layout == IMAGE:
        return lambda table: resize_table(table, source[1:], target[1:], "bicubic").repeat(2 * target[0] - 1, 1)
    if list(source) == list(target):
        return None
    return lambda table: resize_table(table, source, target, "trilinear")


__all__ = ["plan_conversion"]
