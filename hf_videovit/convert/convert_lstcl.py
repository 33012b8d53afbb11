"""
LSTCL, whose authors published no weights: the official TimeSformer layout and that of transformers' ports, MoCo v3's
files of a TimeSformer or an image ViT, and plain image ViTs, whose spatial attention also initialises the temporal
attention.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig

from ..modeling.backbone_timesformer import resize_times
from ..modeling.configuration_base import frame_size
from ..modeling.configuration_lstcl import LstclConfig
from ..modeling.modeling_lstcl import LstclForPreTraining, LstclForVideoClassification, LstclModel
from ..modeling.video_processing_lstcl import LstclVideoProcessor
from .fields import (
    Shapes,
    agreed,
    class_names,
    default_names,
    depth,
    fill_heads,
    given_count,
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
from .keys import Checkpoint, clean_names, shorten
from .plan import Conversion, Piece


Transform = Callable[[torch.Tensor], torch.Tensor]

MODEL_CLASSES: dict[str, Any] = {
    "video-classification": LstclForVideoClassification,
    "feature-extraction": LstclModel,
    "pretraining": LstclForPreTraining,
}
ENCODER_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16}
# What the position table follows from.
SHAPING_FIELDS = {"image_size", "patch_size"}
ONLINE, TARGET = "base_encoder.", "momentum_encoder."  # MoCo v3's two branches
PREDICTOR = "predictor."
# transformers' words for TimeSformer, and the official ones.
TRANSFORMERS_NAMES = (
    ("timesformer.", ""),
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.time_embeddings", "time_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    ("temporal_attention.attention.qkv.", "temporal_attn.qkv."),
    ("temporal_attention.output.dense.", "temporal_attn.proj."),
    ("temporal_layernorm.", "temporal_norm1."),
    ("temporal_dense.", "temporal_fc."),
    ("attention.attention.qkv.", "attn.qkv."),
    ("attention.output.dense.", "attn.proj."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("layernorm.", "norm."),
    ("classifier.", "head."),
)
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
HEAD_PART = re.compile(r"head\.\d+\..+")
BLOCK_MODULES = {
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.o_proj",
    "temporal_norm1": "temporal_norm",
    "temporal_attn.qkv": "temporal_attention.qkv",
    "temporal_attn.proj": "temporal_attention.o_proj",
    "temporal_fc": "temporal_fc",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# Tensors of an image ViT's block that also initialise the attention over time.
TEMPORAL_COPIES = {
    "norm1": "temporal_norm",
    "attn.qkv": "temporal_attention.qkv",
    "attn.proj": "temporal_attention.o_proj",
}
NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "time_embed": "embeddings.time_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
CLASSIFIER = {"head.weight": "classifier.weight", "head.bias": "classifier.bias"}
MOCO_ONLY = "projector, predictor and target branch are only used in pretraining"


def plan_conversion(
    checkpoint: Checkpoint,
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    **overrides: Any,
) -> Conversion:
    """
    Plan the conversion of a TimeSformer, MoCo v3 or image ViT checkpoint.

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
        overrides (`Any`):
            Fields of the configuration.

    Returns:
        [`Conversion`]

    Raises:
        ValueError: the file is not such a checkpoint, does not support the task, or contradicts an argument.
    """
    refuse_unknown_fields(LstclConfig, overrides, labels)
    config = known_config(LstclConfig, config, published)
    sources = _official_names(checkpoint)
    shapes = {name: checkpoint.shapes[source] for name, source in sources.items()}
    online = {name.removeprefix(ONLINE): shape for name, shape in shapes.items() if not name.startswith(TARGET)}
    _refuse_other_models(online, checkpoint)
    given = {
        name: value
        for name, value in given_fields(LstclConfig, config, overrides, SHAPING_FIELDS).items()
        if value is not None
    }
    fields = _all_fields(online, given, task, checkpoint)
    names = _class_names(online, task, labels, given, checkpoint)
    full = make_config(LstclConfig, with_class_names(fields, names))
    plan = Conversion(checkpoint, full, MODEL_CLASSES[task], {})
    _map_names(plan, sources, shapes, task)
    plan.processor = protocol_processor(LstclVideoProcessor, full, published)
    return plan


def _official_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Official names without prefixes of wrappers, each with its name in the file."""
    cleaned: dict[str, str] = {}
    for name, source in clean_names(checkpoint.shapes).items():
        if ".layer." in name or name.startswith(("timesformer.", "embeddings.", "layernorm.", "classifier.")):
            for theirs, official in TRANSFORMERS_NAMES:
                name = name.replace(theirs, official)
        cleaned[name] = source
    return cleaned


def _refuse_other_models(shapes: Shapes, checkpoint: Checkpoint) -> None:
    """ValueError if the file has none of the layouts."""
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
    missing = [name for name in needed if name not in shapes]
    if missing or len(shapes["patch_embed.proj.weight"]) != 4:
        lacks = f"`{missing[0]}` is missing" if missing else "its patches span several frames"
        raise ValueError(
            f"{checkpoint.name} is not a TimeSformer, MoCo v3 or image ViT checkpoint: {lacks}. It starts with "
            f"{shorten(list(checkpoint.shapes)[:5])}."
        )


def _all_fields(shapes: Shapes, given: dict[str, Any], task: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """All fields of the configuration, from shapes and from the caller."""
    fields = agreed(_shown_fields(shapes, task, checkpoint), given, checkpoint)
    fields.setdefault("attention_type", _attention_type(shapes))
    if fields["attention_type"] != "divided_space_time" and in_any_block(shapes, "blocks.", "temporal_fc.weight"):
        raise ValueError(
            f"`attention_type` {fields['attention_type']!r} has no separate attention over time, but "
            f"{checkpoint.name} has one."
        )
    if "time_embed" in shapes:
        fields.setdefault("num_frames", shapes["time_embed"][1])
    grid = _table_grid(shapes["pos_embed"][1] - 1, fields, checkpoint)
    fields.setdefault("image_size", [side * fields["patch_size"] for side in grid])
    if isinstance(fields["image_size"], list) and len(set(fields["image_size"])) == 1:
        fields["image_size"] = fields["image_size"][0]
    fields.setdefault("position_grid", list(grid))
    fill_heads(fields, "hidden_size", "num_attention_heads", ENCODER_HEADS, checkpoint)
    return fields


def _attention_type(shapes: Shapes) -> str:
    """Attention type from the tensors' names; an image ViT becomes a divided TimeSformer."""
    if in_any_block(shapes, "blocks.", "temporal_fc.weight") or "time_embed" not in shapes:
        return "divided_space_time"
    return "joint_space_time"


def _shown_fields(shapes: Shapes, task: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of the configuration that shapes show."""
    width, channels, patch, other = shapes["patch_embed.proj.weight"]
    if patch != other:
        raise ValueError(f"{checkpoint.name}: patches must be square, patch_embed.proj.weight has {patch} x {other}.")
    fields: dict[str, Any] = {
        "backbone": "timesformer",
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "num_hidden_layers": depth(shapes, "blocks.", checkpoint),
        "qkv_bias": in_any_block(shapes, "blocks.", "attn.qkv.bias"),
    }
    if "blocks.0.mlp.fc1.weight" in shapes:
        fields["intermediate_size"] = shapes["blocks.0.mlp.fc1.weight"][0]
    if task == "pretraining" and "predictor.0.weight" in shapes:
        layers = sorted(name for name in shapes if re.fullmatch(r"head\.\d+\.weight", name) and len(shapes[name]) == 2)
        predictor = [name for name in shapes if re.fullmatch(r"predictor\.\d+\.weight", name)]
        fields |= {
            "framework": "moco_v3",
            "num_projection_layers": len(layers),
            "projection_hidden_size": shape_of("head.0.weight", checkpoint, shapes)[0],
            "projection_size": shapes["predictor.0.weight"][1],
            "num_prediction_layers": sum(len(shapes[name]) == 2 for name in predictor),
            "prediction_hidden_size": shapes["predictor.0.weight"][0],
        }
    return fields


def _table_grid(places: int, fields: dict[str, Any], checkpoint: Checkpoint) -> tuple[int, int]:
    """Rows and columns of the position table: from the caller's image size if it fits, otherwise a square."""
    size, patch = fields.get("image_size"), fields["patch_size"]
    if size is not None:
        height, width = frame_size(size)
        if height // patch * (width // patch) == places:
            return height // patch, width // patch
    side = math.isqrt(places)
    if side * side != places:
        raise ValueError(
            f"`image_size` is needed: {checkpoint.name} has {places} positions, which are not a square; got "
            f"{size or 'nothing'}."
        )
    return side, side


def _class_names(
    shapes: Shapes,
    task: str,
    labels: str | Sequence[str] | None,
    given: dict[str, Any],
    checkpoint: Checkpoint,
) -> list[str] | None:
    """Class names, or `None` to keep those of the caller."""
    refuse_labels(labels, task, ["video-classification"])
    if task != "video-classification":
        return None
    size = _video_classes(shapes)
    names = class_names(labels)
    if size is None:
        if names is None and given_count(given) is None:
            raise ValueError(
                f"{checkpoint.name} has no video classifier. Pass `num_labels`, `id2label` or `labels` of your task "
                "for a new classifier, or use task='feature-extraction'."
            )
        return names
    if names is None:
        return default_names(size, given, checkpoint)
    refuse_other_count(len(names), size, checkpoint)
    return names


def _video_classes(shapes: Shapes) -> int | None:
    """Number of classes of a video head; `None` for an image ViT."""
    known = "time_embed" in shapes and "head.weight" in shapes
    return shapes["head.weight"][0] if known else None


def _map_names(plan: Conversion, sources: dict[str, str], shapes: Shapes, task: str) -> None:
    """Fill in the plan: pieces, dropped tensors and new parameters."""
    base = "" if task == "feature-extraction" else "lstcl."
    plan.official_names = {
        **{f"{branch}{base}backbone.{ours}": theirs for branch in ("", "target.") for theirs, ours in NAMES.items()},
        **{ours: theirs for theirs, ours in CLASSIFIER.items()},
        **dict.fromkeys(("projector", "target.projector"), "head"),
        "predictor": "predictor",
    }
    pretraining, moco = task == "pretraining", any(name.startswith(ONLINE) for name in sources)
    targets = plan.config.framework != "simsiam" and pretraining
    online = {name.removeprefix(ONLINE): shape for name, shape in shapes.items()}
    keeps_head = task == "video-classification" and _video_classes(online) is not None
    for name, source in sources.items():
        own = name.removeprefix(ONLINE).removeprefix(TARGET)
        if moco and not pretraining and (name.startswith((TARGET, PREDICTOR)) or HEAD_PART.fullmatch(own)):
            plan.dropped[source] = MOCO_ONLY
        elif own in CLASSIFIER and not keeps_head:
            plan.dropped[source] = "the classifier is for another task"
        elif own in CLASSIFIER:
            plan.pieces[CLASSIFIER[own]] = Piece(source)
        elif name.startswith(PREDICTOR):
            plan.pieces[name] = Piece(source)
        elif HEAD_PART.fullmatch(own):
            owner = "target.projector." if name.startswith(TARGET) else "projector."
            plan.pieces[owner + own.removeprefix("head.")] = Piece(source)
        elif name.startswith(TARGET):
            _add_encoder_tensor(plan, source, "target.lstcl.backbone.", own, shapes)
        else:
            _add_encoder_tensor(plan, source, f"{base}backbone.", own, shapes)
            if targets and not moco:  # a new target branch is a copy
                _add_encoder_tensor(plan, source, "target.lstcl.backbone.", own, shapes)
    _add_fresh(plan, keeps_head)


def _add_encoder_tensor(plan: Conversion, source: str, stem: str, name: str, shapes: Shapes) -> None:
    """Add a tensor of an encoder. An unknown name gets no piece, which the plan's check reports."""
    block = BLOCK.fullmatch(name)
    if block is None:
        if name in NAMES:
            plan.pieces[stem + NAMES[name]] = Piece(source, _table_transform(name, plan))
        return
    number, module, kind = block.groups()
    layer = f"{stem}encoder.layers.{number}."
    if module in BLOCK_MODULES:
        plan.pieces[f"{layer}{BLOCK_MODULES[module]}.{kind}"] = Piece(source)
    divided = plan.config.attention_type == "divided_space_time"
    temporal = any(f"blocks.{number}.temporal_fc." in other for other in shapes)
    if divided and not temporal and module in TEMPORAL_COPIES:
        plan.pieces[f"{layer}{TEMPORAL_COPIES[module]}.{kind}"] = Piece(source)
        if module == "attn.proj":
            plan.pieces[f"{layer}temporal_fc.{kind}"] = Piece(source, torch.zeros_like)


def _table_transform(name: str, plan: Conversion) -> Transform | None:
    """Transformation that resizes a table of positions or times to the configuration's size."""
    config = plan.config
    if name == "time_embed":
        return lambda table: resize_times(table, config.num_frames, config.time_interpolation)
    if name == "pos_embed":
        return lambda table: resize_positions(table, tuple(config.position_grid), config.position_interpolation)
    return None


def resize_positions(table: torch.Tensor, grid: tuple[int, int], interpolation: str) -> torch.Tensor:
    """
    Resize a table of a class token and a square of positions to another grid, in two dimensions. (The official helper
    resizes the positions as one line, which breaks up rows.)

    Args:
        table (`torch.Tensor` of shape `(1, 1 + num_positions, hidden_size)`):
            Learnt positions.
        grid (`tuple[int, int]`):
            Rows and columns of the new table.
        interpolation (`str`):
            Mode of `torch.nn.functional.interpolate`.

    Returns:
        `torch.Tensor` of shape `(1, 1 + rows * columns, hidden_size)`.
    """
    places = table.shape[1] - 1
    if grid[0] * grid[1] == places:
        return table
    side = math.isqrt(places)
    smooth: dict[str, Any] = {} if interpolation == "nearest" else {"align_corners": False}
    square = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode=interpolation, **smooth).flatten(2).transpose(1, 2)
    return torch.cat((table[:, :1], resized), dim=1)


def _add_fresh(plan: Conversion, keeps_head: bool) -> None:
    """Mark parameters that no such checkpoint has as new."""
    with torch.device("meta"):
        expected = plan.model_class(plan.config).state_dict()
    timed = any(name.endswith("time_embeddings") for name in plan.pieces)
    heads = [
        head
        for head in ("projector.", "predictor.", "target.projector.")
        if not any(name.startswith(head) for name in plan.pieces)
    ]
    for name in expected:
        if name in plan.pieces:
            continue
        if name.endswith("time_embeddings") and not timed:
            plan.fresh[name] = "an image model has no time embeddings"
        elif name.startswith("classifier.") and not keeps_head:
            plan.fresh[name] = "the checkpoint has no video classifier; train before use"
        elif name.startswith(tuple(heads)):
            plan.fresh[name] = "the checkpoint has no heads for contrastive pretraining"


__all__ = ["plan_conversion"]
