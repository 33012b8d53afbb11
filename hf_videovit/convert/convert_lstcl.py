"""
LSTCL, whose authors published no weights: the official TimeSformer layout and that of transformers' ports, MoCo v3's
around either a TimeSformer or an image ViT, and plain image ViTs, whose attention over space starts that over time.
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
from ..published import (
    label_fields,
    published_config,
    published_entry,
    published_labels,
    published_processor_kwargs,
)
from .fields import (
    Shapes,
    agreed,
    depth,
    fill_heads,
    given_fields,
    make_config,
    refuse_unknown_fields,
)
from .keys import Checkpoint, clean_names, shorten
from .plan import Piece, Plan


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
# What an image ViT's block starts attention over time with, besides its own place.
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
MOCO_ONLY = "only pre-training needs projector, predictor and target branch"


def make_plan(
    checkpoint: Checkpoint,
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    **overrides: Any,
) -> Plan:
    """Plan the conversion of a TimeSformer, MoCo v3 or image ViT; see [`~convert.convert_checkpoint`]."""
    refuse_unknown_fields(LstclConfig, overrides, labels)
    sources = official_names(checkpoint)
    shapes = {name: checkpoint.shapes[source] for name, source in sources.items()}
    online = {name.removeprefix(ONLINE): shape for name, shape in shapes.items() if not name.startswith(TARGET)}
    refuse_other_models(online, checkpoint)
    if published is not None:
        if config is not None:
            raise ValueError("Give `config` or `published`, not both.")
        if published_entry(published).model_type != LstclConfig.model_type:
            raise ValueError(f"`published` {published!r} is no TimeSformer.")
        config = published_config(published)
    given = {
        name: value
        for name, value in given_fields(LstclConfig, config, overrides, SHAPING_FIELDS).items()
        if value is not None
    }
    fields = all_fields(online, given, task, checkpoint)
    names = classes(online, task, labels, given, checkpoint)
    if names is not None:
        fields = {name: value for name, value in fields.items() if name not in ("num_labels", "id2label", "label2id")}
        fields |= label_fields(names)
    full = make_config(LstclConfig, fields)
    plan = Plan(checkpoint, full, MODEL_CLASSES[task], {})
    map_names(plan, sources, shapes, task)
    plan.processor = processor_of(full, published)
    return plan


def official_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Official names without wrappers' prefixes, each with that in the file."""
    cleaned: dict[str, str] = {}
    for name, source in clean_names(checkpoint.shapes).items():
        if ".layer." in name or name.startswith(("timesformer.", "embeddings.", "layernorm.", "classifier.")):
            for theirs, official in TRANSFORMERS_NAMES:
                name = name.replace(theirs, official)
        cleaned[name] = source
    return cleaned


def refuse_other_models(shapes: Shapes, checkpoint: Checkpoint) -> None:
    """ValueError for what is none of the layouts."""
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
    missing = [name for name in needed if name not in shapes]
    if missing or len(shapes["patch_embed.proj.weight"]) != 4:
        lacks = f"`{missing[0]}` is missing" if missing else "its patches are not those of single frames"
        raise ValueError(
            f"{checkpoint.name} is no TimeSformer, MoCo v3 or image ViT checkpoint: {lacks}. It starts with "
            f"{shorten(list(checkpoint.shapes)[:5])}."
        )


def all_fields(shapes: Shapes, given: dict[str, Any], task: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Shown and given fields of the configuration as one."""
    fields = agreed(shown_fields(shapes, task, checkpoint), given, checkpoint)
    fields.setdefault("attention_type", attention_type(shapes))
    if fields["attention_type"] != "divided_space_time" and "blocks.0.temporal_fc.weight" in shapes:
        raise ValueError(
            f"`attention_type` {fields['attention_type']!r} has no attention over time apart, {checkpoint.name} has."
        )
    if "time_embed" in shapes:
        fields.setdefault("num_frames", shapes["time_embed"][1])
    grid = table_grid(shapes["pos_embed"][1] - 1, fields, checkpoint)
    fields.setdefault("image_size", [side * fields["patch_size"] for side in grid])
    if isinstance(fields["image_size"], list) and len(set(fields["image_size"])) == 1:
        fields["image_size"] = fields["image_size"][0]
    fields.setdefault("position_grid", list(grid))
    fill_heads(fields, "hidden_size", "num_attention_heads", ENCODER_HEADS, checkpoint)
    return fields


def attention_type(shapes: Shapes) -> str:
    """What names show; an image ViT becomes a divided TimeSformer."""
    if "blocks.0.temporal_fc.weight" in shapes or "time_embed" not in shapes:
        return "divided_space_time"
    return "joint_space_time"


def shown_fields(shapes: Shapes, task: str, checkpoint: Checkpoint) -> dict[str, Any]:
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
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
    }
    if "blocks.0.mlp.fc1.weight" in shapes:
        fields["intermediate_size"] = shapes["blocks.0.mlp.fc1.weight"][0]
    if task == "pretraining" and "predictor.0.weight" in shapes:
        layers = sorted(name for name in shapes if re.fullmatch(r"head\.\d+\.weight", name) and len(shapes[name]) == 2)
        predictor = [name for name in shapes if re.fullmatch(r"predictor\.\d+\.weight", name)]
        fields |= {
            "framework": "moco_v3",
            "num_projection_layers": len(layers),
            "projection_hidden_size": shapes["head.0.weight"][0],
            "projection_size": shapes["predictor.0.weight"][1],
            "num_prediction_layers": sum(len(shapes[name]) == 2 for name in predictor),
            "prediction_hidden_size": shapes["predictor.0.weight"][0],
        }
    return fields


def table_grid(places: int, fields: dict[str, Any], checkpoint: Checkpoint) -> tuple[int, int]:
    """Rows and columns of the checkpoint's position table: as the caller's size says where it fits, else square."""
    size, patch = fields.get("image_size"), fields["patch_size"]
    if size is not None:
        height, width = frame_size(size)
        if height // patch * (width // patch) == places:
            return height // patch, width // patch
    side = math.isqrt(places)
    if side * side != places:
        raise ValueError(
            f"`image_size` is needed: {checkpoint.name} has {places} positions, which are no square, and "
            f"{size or 'nothing'} was given."
        )
    return side, side


def classes(
    shapes: Shapes,
    task: str,
    labels: str | Sequence[str] | None,
    given: dict[str, Any],
    checkpoint: Checkpoint,
) -> list[str] | None:
    """Class names; `None`: as given."""
    if task != "video-classification":
        if labels is not None:
            raise ValueError(f"`labels` goes with task='video-classification', got task={task!r}.")
        return None
    size = video_classes(shapes)
    names = published_labels(labels) if isinstance(labels, str) else None if labels is None else list(labels)
    told = len(given["id2label"]) if given.get("id2label") else given.get("num_labels")
    count = told if names is None else len(set(names))
    if names is not None and count != len(names):
        raise ValueError("`labels` names a class twice.")
    if size is None:
        if count is None:
            raise ValueError(
                f"{checkpoint.name} has no classifier of videos: pass `num_labels`, `id2label` or `labels` of your "
                "task; the classifier starts fresh. Without classes, use task='feature-extraction'."
            )
        return names
    if count is not None and count != size:
        raise ValueError(
            f"The head of {checkpoint.name} has {size} classes, {count} are named. To train a new head, convert with "
            "the old one and load with `ignore_mismatched_sizes=True`."
        )
    return names if count is not None else [f"LABEL_{index}" for index in range(size)]


def video_classes(shapes: Shapes) -> int | None:
    """Classes of the head, where it is one of videos: an image ViT's is not."""
    known = "time_embed" in shapes and "head.weight" in shapes
    return shapes["head.weight"][0] if known else None


def map_names(plan: Plan, sources: dict[str, str], shapes: Shapes, task: str) -> None:
    """Fill the plan's pieces, what is dropped, and what starts fresh."""
    base = "" if task == "feature-extraction" else "lstcl."
    pretraining, moco = task == "pretraining", any(name.startswith(ONLINE) for name in sources)
    targets = plan.config.framework != "simsiam" and pretraining
    online = {name.removeprefix(ONLINE): shape for name, shape in shapes.items()}
    keeps_head = task == "video-classification" and video_classes(online) is not None
    for name, source in sources.items():
        own = name.removeprefix(ONLINE).removeprefix(TARGET)
        if moco and not pretraining and (name.startswith((TARGET, PREDICTOR)) or HEAD_PART.fullmatch(own)):
            plan.dropped[source] = MOCO_ONLY
        elif own in CLASSIFIER and not keeps_head:
            plan.dropped[source] = "no classifier of this task"
        elif own in CLASSIFIER:
            plan.pieces[CLASSIFIER[own]] = Piece(source)
        elif name.startswith(PREDICTOR):
            plan.pieces[name] = Piece(source)
        elif HEAD_PART.fullmatch(own):
            owner = "target.projector." if name.startswith(TARGET) else "projector."
            plan.pieces[owner + own.removeprefix("head.")] = Piece(source)
        elif name.startswith(TARGET):
            add_encoder_tensor(plan, source, "target.lstcl.backbone.", own, shapes)
        else:
            add_encoder_tensor(plan, source, f"{base}backbone.", own, shapes)
            if targets and not moco:  # a fresh target is a copy
                add_encoder_tensor(plan, source, "target.lstcl.backbone.", own, shapes)
    add_fresh(plan, keeps_head)


def add_encoder_tensor(plan: Plan, source: str, stem: str, name: str, shapes: Shapes) -> None:
    """One tensor of an encoder; an unknown name stays without a piece, which the plan's check reports."""
    block = BLOCK.fullmatch(name)
    if block is None:
        if name in NAMES:
            plan.pieces[stem + NAMES[name]] = Piece(source, resizing(name, plan))
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


def resizing(name: str, plan: Plan) -> Transform | None:
    """What makes a table of positions or times one of the configuration's size, where it is not."""
    config = plan.config
    if name == "time_embed":
        return lambda table: resize_times(table, config.num_frames, config.time_interpolation)
    if name == "pos_embed":
        return lambda table: resize_positions(table, tuple(config.position_grid), config.position_interpolation)
    return None


def resize_positions(table: torch.Tensor, grid: tuple[int, int], interpolation: str) -> torch.Tensor:
    """
    A table of a class token and a square of places, `(1, 1 + places, hidden_size)`, for another grid. In two
    dimensions; the official helper takes the places for one line, which tears rows apart.
    """
    places = table.shape[1] - 1
    if grid[0] * grid[1] == places:
        return table
    side = math.isqrt(places)
    smooth: dict[str, Any] = {} if interpolation == "nearest" else {"align_corners": False}
    square = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode=interpolation, **smooth).flatten(2).transpose(1, 2)
    return torch.cat((table[:, :1], resized), dim=1)


def add_fresh(plan: Plan, keeps_head: bool) -> None:
    """What no checkpoint of the kind has."""
    with torch.device("meta"):
        expected = plan.model_class(plan.config).state_dict()
    for name in expected:
        if name in plan.pieces:
            continue
        if name.endswith("time_embeddings"):
            plan.fresh[name] = "an image model knows no times"
        elif name.startswith("classifier.") and not keeps_head:
            plan.fresh[name] = "the checkpoint has no classifier of videos; train before use"
        elif name.startswith(("projector.", "predictor.", "target.projector.")):
            plan.fresh[name] = "the checkpoint has no heads of contrastive pre-training"


def processor_of(config: LstclConfig, published: str | None) -> LstclVideoProcessor:
    """The protocol of the published checkpoint, else one centred view of the configuration's size."""
    height, width = frame_size(config.image_size)
    fields: dict[str, Any] = {} if published is None else published_processor_kwargs(published)
    fields |= {
        "num_frames": config.num_frames,
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
    }
    return LstclVideoProcessor(**fields)


__all__ = ["make_plan"]
