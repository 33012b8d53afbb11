"""
ActionFormer and its relatives: the layouts of actionformer_release, of OpenTAD and of TriDet. Official files hold two
sets of weights, of which the averaged ones are evaluated.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.configuration_actionformer import ACTIONFORMER_SIZES, ActionFormerConfig
from ..modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from ..modeling.modeling_actionformer import ActionFormerForTemporalActionLocalization
from ..published import published_processor_kwargs
from ..published.localizers import feature_processor_fields
from .fields import (
    Shapes,
    agreed,
    class_names,
    default_names,
    depth,
    given_fields,
    known_config,
    make_config,
    refuse_other_count,
    refuse_unknown_fields,
    shape_of,
    with_class_names,
)
from .keys import Checkpoint, clean_names, shorten
from .localizer_settings import localizer_fields, read_settings
from .plan import Conversion, Piece


logger = logging.get_logger(__name__)

TASK = "temporal-action-localization"
MODEL_CLASSES: dict[str, Any] = {TASK: ActionFormerForTemporalActionLocalization}
RAW_ENTRY = "state_dict"
PREFIXES = ("_orig_mod.", "module.", "model.")
# OpenTAD's names, and the official ones.
OPENTAD_NAMES = (
    (re.compile(r"projection\.embed\.(\d+)\.conv\."), r"backbone.embd.\1.conv."),
    (re.compile(r"projection\.embed\.(\d+)\.norm\."), r"backbone.embd_norm.\1."),
    (re.compile(r"projection\.(stem|branch|proj)\."), r"backbone.\1."),
    (re.compile(r"rpn_head\.cls_convs\.(\d+)\.conv\."), r"cls_head.head.\1.conv."),
    (re.compile(r"rpn_head\.cls_convs\.(\d+)\.norm\."), r"cls_head.norm.\1."),
    (re.compile(r"rpn_head\.reg_convs\.(\d+)\.conv\."), r"reg_head.head.\1.conv."),
    (re.compile(r"rpn_head\.reg_convs\.(\d+)\.norm\."), r"reg_head.norm.\1."),
    (re.compile(r"rpn_head\.cls_head\."), "cls_head.cls_head.conv."),
    (re.compile(r"rpn_head\.reg_head\."), "reg_head.offset_head.conv."),
    (re.compile(r"rpn_head\.scale\."), "reg_head.scale."),
    (re.compile(r"rpn_head\.loss_normalizer"), "loss_normalizer"),
)
HEADS = {
    "cls": "classification_head",
    "reg": "offset_head",
    "start": "boundary_heads.start",
    "end": "boundary_heads.end",
}
# Official names outside the blocks, and ours.
NAMES = (
    (r"backbone\.proj\.(\d+)\.conv\.(\w+)", r"actionformer.embeddings.projections.\1.\2"),
    (r"backbone\.embd\.(\d+)\.conv\.(\w+)", r"actionformer.embeddings.tower.convs.\1.\2"),
    (r"backbone\.embd_norm\.(\d+)\.(\w+)", r"actionformer.embeddings.tower.norms.\1.\2"),
    (r"neck\.fpn_norms\.(\d+)\.(\w+)", r"actionformer.neck.norms.\1.\2"),
    (r"neck\.(lateral_convs|fpn_convs)\.(\d+)\.conv\.(\w+)", r"actionformer.neck.\1.\2.\3"),
    (r"reg_head\.scale\.(\d+)\.scale", r"offset_head.scales.\1.scale"),
    (r"reg_head\.offset_head\.conv\.(\w+)", r"offset_head.offsets.\1"),
    (r"loss_normalizer", "loss_normalizer"),
)
HEAD = re.compile(r"(cls|reg|start|end)_head\.(?:(head|norm)\.(\d+)|(cls_head))\.(?:conv\.)?(\w+)")
BLOCK = re.compile(r"backbone\.(stem|branch)\.(\d+)\.(.+)")
# Inside a block.
MODULES = {
    **{f"attn.{name}_conv.conv": f"attention.{name}_conv" for name in ("query", "key", "value")},
    **{f"attn.{name}_norm": f"attention.{name}_norm" for name in ("query", "key", "value")},
    **{f"attn.{name}": f"attention.{name[0]}_proj" for name in ("query", "key", "value")},
    "attn.proj": "attention.o_proj",
    "attn.rel_pe": "attention.relative_positions.bias",
    "ln1": "norm1",
    "ln2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
    "drop_path_attn.scale": "branch1.0.gamma",
    "drop_path_mlp.scale": "branch2.0.gamma",
    "conv1.conv": "conv1",
    "conv2.conv": "conv2",
    "downsample.conv": "downsample",
    # TriDet
    "ln": "norm1",
    "gn": "norm2",
    "mlp.2": "mlp.fc2",
    "drop_path_out.scale": "branch1.0.gamma",
    "psi": "convs.gate",
    "fc": "convs.channel",
    "convw": "convs.short",
    "convkw": "convs.long",
    "global_fc": "convs.mean",
    "downsample.1": "downsample",
}
# Settings of a localiser that shapes do not show, for blocks with attention.
NEEDED = ("num_attention_heads", "attention_window")
SGP_RATIOS = (5.0, 1.5)  # of the published models
OPENTAD_FIELDS = {"padding_mode": "opentad", "conv_norm_eps": 1e-6}
OPENTAD_DECODING = {"candidates_per_level": False, "min_length": 0.0, "voting_weights": "score", "resized_offset": 0.0}


def plan_conversion(
    checkpoint: Checkpoint,
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    settings: str | os.PathLike | Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Conversion:
    """
    Plan the conversion of an ActionFormer, OpenTAD or TriDet checkpoint.

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
        settings (`str` or `os.PathLike` or `Mapping[str, Any]`, *optional*):
            The official configuration of the checkpoint, see [`~convert.localizer_settings.read_settings`]: windows,
            heads, ranges, positions and what the processor needs.
        overrides (`Any`):
            Fields of the configuration.

    Returns:
        [`Conversion`]

    Raises:
        ValueError: the file is not such a checkpoint, contradicts an argument, or settings are needed.
    """
    refuse_unknown_fields(ActionFormerConfig, overrides, labels)
    config = known_config(ActionFormerConfig, config, published)
    if published is not None and settings is not None:
        raise ValueError("Pass `settings` or `published`, not both.")
    opentad, sources = _official_names(checkpoint)
    shapes = {name: checkpoint.shapes[source] for name, source in sources.items()}
    _refuse_other_models(shapes, checkpoint)
    told, decoding = localizer_fields(read_settings(settings)) if settings is not None else ({}, {})
    given = {**told, **given_fields(ActionFormerConfig, config, overrides, set())}
    if published is not None:
        _refuse_other_layout(published, given["padding_mode"] == "opentad", opentad, checkpoint)
        decoding = published_processor_kwargs(published)
    fields = _all_fields(shapes, given, checkpoint, opentad)
    names = _class_names(shapes, labels, given, checkpoint)
    plan = Conversion(
        checkpoint, make_config(ActionFormerConfig, with_class_names(fields, names)), MODEL_CLASSES[task], {}
    )
    _map_names(plan, sources)
    if opentad:
        decoding = {**OPENTAD_DECODING, **decoding}
        if plan.config.num_labels == 1:  # its code takes every point then
            decoding |= {"score_threshold": 0.0, "max_candidates": None}
    elif plan.config.block_type == "sgp":
        decoding = {"voting_weights": "score", **decoding}
    plan.processor = localizer_processor(plan.config, decoding)
    if RAW_ENTRY in checkpoint.ignored:
        logger.info(f"{checkpoint.name}: the averaged weights are used. Pass entry={RAW_ENTRY!r} for the others.")
    return plan


def localizer_processor(config: Any, decoding: Mapping[str, Any]) -> TemporalLocalizationProcessor:
    """
    Processor of a converted localiser.

    Args:
        config ([`ActionFormerConfig`]):
            Its configuration.
        decoding (`Mapping[str, Any]`):
            Further fields of the processor.

    Returns:
        [`TemporalLocalizationProcessor`]
    """
    return TemporalLocalizationProcessor(**{**decoding, **feature_processor_fields(config)})


def _official_names(checkpoint: Checkpoint) -> tuple[bool, dict[str, str]]:
    """Whether a file has OpenTAD's layout, and official names, each with its name in the file."""
    opentad = False
    cleaned: dict[str, str] = {}
    for name, source in clean_names(checkpoint.shapes, PREFIXES).items():
        for pattern, official in OPENTAD_NAMES:
            if pattern.match(name):
                opentad, name = True, pattern.sub(official, name, count=1)
        if name in cleaned:
            raise ValueError(f"{checkpoint.name} has {name!r} twice, as {cleaned[name]!r} and as {source!r}.")
        cleaned[name] = source
    return opentad, cleaned


def _refuse_other_layout(published: str, expected: bool, opentad: bool, checkpoint: Checkpoint) -> None:
    """ValueError if the file cannot be the published checkpoint that the caller named."""
    if expected != opentad:
        words = {True: "OpenTAD's", False: "the authors'"}
        raise ValueError(
            f"`published` {published!r} has {words[expected]} layout, but {checkpoint.name} has {words[opentad]}."
        )


def _refuse_other_models(shapes: Shapes, checkpoint: Checkpoint) -> None:
    needed = ("backbone.embd.0.conv.weight", "cls_head.cls_head.conv.weight", "reg_head.offset_head.conv.weight")
    missing = [name for name in needed if name not in shapes]
    if missing:
        raise ValueError(
            f"{checkpoint.name} is not an ActionFormer, OpenTAD or TriDet checkpoint: {', '.join(missing)} are "
            f"missing. It starts with {shorten(list(shapes)[:5])}."
        )


def _all_fields(shapes: Shapes, given: dict[str, Any], checkpoint: Checkpoint, opentad: bool) -> dict[str, Any]:
    """All fields of the configuration. ValueError if shapes and caller disagree or settings are needed."""
    given = {name: value for name, value in given.items() if value is not None or name == "center_sampling_radius"}
    shown = {
        **_pyramid_fields(shapes, checkpoint),
        **_block_fields(shapes, given, checkpoint),
        **_head_fields(shapes, checkpoint),
    }
    if "layer_scale_init_value" not in shown:
        given = {**given, "drop_path_rate": 0.0}
    shown.setdefault("layer_scale_init_value", 0.0)
    start = 1 + shown["num_branch_layers"] - depth(shapes, "reg_head.scale.", checkpoint)
    fields = {**(OPENTAD_FIELDS if opentad else {"padding_mode": "actionformer"}), **given}
    fields = agreed({**shown, "neck_start_level": start}, fields, checkpoint)
    missing = [name for name in NEEDED if name not in fields] if fields["block_type"] == "transformer" else []
    if missing:
        fields |= _recipe(fields, shapes, missing, checkpoint)
    return fields


def _recipe(fields: dict[str, Any], shapes: Shapes, missing: list[str], checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of the one official recipe that has these shapes."""
    size = shapes["cls_head.cls_head.conv.weight"][0]
    for name, recipe in ACTIONFORMER_SIZES.items():
        known = ActionFormerConfig.from_size(name)
        same = ("hidden_size", "head_hidden_size", "num_stem_layers", "num_branch_layers", "neck_type")
        if known.num_labels == size and all(getattr(known, one) == fields[one] for one in same):
            logger.warning(
                f"{checkpoint.name} has the shapes of the official model for {name}; its windows, heads, ranges and "
                "positions are assumed. Pass `settings` with the checkpoint's own configuration to be sure."
            )
            assumed = {**recipe, "num_attention_heads": known.num_attention_heads}
            assumed["attention_window"] = known.attention_window
            return {one: value for one, value in assumed.items() if one not in fields and one != "num_labels"}
    raise ValueError(
        f"{' and '.join(f'`{name}`' for name in missing)} are needed: no shape in {checkpoint.name} shows them. Pass "
        "them with `use_absolute_positions` and `regression_ranges`, or `settings` with the checkpoint's official "
        "configuration."
    )


def _pyramid_fields(shapes: Shapes, checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields from the shapes of embedding and neck."""
    hidden_size, channels, kernel = shapes["backbone.embd.0.conv.weight"]
    projections = [
        shape_of(f"backbone.proj.{index}.conv.weight", checkpoint, shapes)
        for index in range(depth(shapes, "backbone.proj.", checkpoint))
    ]
    fields: dict[str, Any] = {
        "feature_size": [shape[1] for shape in projections] if projections else channels,
        "hidden_size": hidden_size,
        "embedding_kernel_size": kernel,
        "num_embedding_layers": depth(shapes, "backbone.embd.", checkpoint),
        "use_embedding_norm": "backbone.embd_norm.0.weight" in shapes,
        "num_stem_layers": depth(shapes, "backbone.stem.", checkpoint),
        "num_branch_layers": depth(shapes, "backbone.branch.", checkpoint),
        "neck_type": "identity",
        "use_neck_norm": "neck.fpn_norms.0.weight" in shapes,
    }
    if projections:
        fields["feature_projection_sizes"] = [shape[0] for shape in projections]
    if "neck.lateral_convs.0.conv.weight" in shapes:
        fields |= {"neck_type": "fpn", "neck_hidden_size": shapes["neck.lateral_convs.0.conv.weight"][0]}
    return fields


def _blocks(shapes: Shapes) -> Iterator[str]:
    """Prefix of the first block of each level."""
    yield "backbone.stem.0."
    numbers = {int(match[2]) for name in shapes if (match := BLOCK.fullmatch(name)) and match[1] == "branch"}
    yield from (f"backbone.branch.{number}." for number in sorted(numbers))


def _block_fields(shapes: Shapes, given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields from the shapes of the blocks."""
    first = "backbone.branch.0." if "backbone.branch.0.mlp.0.weight" in shapes else "backbone.stem.0."
    fields: dict[str, Any] = {}
    if f"{first}mlp.0.weight" in shapes:
        fields["intermediate_size"] = shapes[f"{first}mlp.0.weight"][0]
    if f"{first}drop_path_mlp.scale" in shapes or f"{first}conv1.conv.weight" in shapes:
        fields["layer_scale_init_value"] = 1e-4
    if f"{first}psi.weight" in shapes:
        return {**fields, "block_type": "sgp", **_sgp_fields(shapes, given, checkpoint)}
    if f"{first}mlp.0.weight" not in shapes:
        return {**fields, "block_type": "conv"}
    fields["block_type"] = "transformer"
    biases = [shapes.get(f"{block}attn.rel_pe") for block in _blocks(shapes)]
    fields["use_relative_positions"] = any(biases)
    if any(biases):
        fields["attention_window"] = [shape[3] if shape else -1 for shape in biases]
        fields["num_attention_heads"] = next(shape[2] for shape in biases if shape)
    return fields


def _sgp_fields(shapes: Shapes, given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields from the kernels of TriDet's blocks."""
    pairs = []
    for block in _blocks(shapes):
        if f"{block}convw.weight" in shapes:
            long_window = shape_of(f"{block}convkw.weight", checkpoint, shapes)[2]
            pairs.append((shapes[f"{block}convw.weight"][2], long_window))
    measured = [long_window / (window + 1) for window, long_window in pairs]
    for ratio in (given.get("sgp_window_ratio"), *SGP_RATIOS, *measured):
        if ratio and all(round((window + 1) * ratio) // 2 * 2 + 1 == long_window for window, long_window in pairs):
            break
    else:
        raise ValueError(f"{checkpoint.name} has long kernels of no common ratio to the short ones: {pairs}.")
    averages = "backbone.branch.0.downsample.1.weight" in shapes
    return {
        "sgp_window_size": [window for window, _ in pairs],
        "sgp_window_ratio": ratio,
        "sgp_downsampling": "mean" if averages else "max",
    }


def _head_fields(shapes: Shapes, checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields from the shapes of the heads."""
    _, head_size, kernel = shapes["cls_head.cls_head.conv.weight"]
    fields: dict[str, Any] = {
        "num_head_layers": 1 + depth(shapes, "cls_head.head.", checkpoint),
        "head_kernel_size": kernel,
        "head_hidden_size": head_size,
        "use_head_norm": "cls_head.norm.0.weight" in shapes or "cls_head.head.0.conv.weight" not in shapes,
    }
    outputs = shapes["reg_head.offset_head.conv.weight"][0]
    if outputs > 2:
        boundary = shape_of("start_head.cls_head.conv.weight", checkpoint, shapes)
        fields |= {"num_bins": outputs // 2 - 1, "boundary_kernel_size": boundary[2]}
    return fields


def _class_names(
    shapes: Shapes, labels: str | Sequence[str] | None, given: dict[str, Any], checkpoint: Checkpoint
) -> list[str] | None:
    """Class names, or `None` to keep those of the caller."""
    size = shapes["cls_head.cls_head.conv.weight"][0]
    names = class_names(labels)
    if names is None:
        return default_names(size, given, checkpoint)
    refuse_other_count(len(names), size, checkpoint)
    return names


def _map_names(plan: Conversion, sources: dict[str, str]) -> None:
    """Fill in the pieces. The plan's check reports unknown names."""
    stem = plan.config.num_stem_layers
    for name, source in sources.items():
        ours = _our_name(name, stem)
        if ours is not None:
            plan.pieces[ours] = Piece(source, _without_unit_axes(ours))
    if "loss_normalizer" not in plan.pieces:
        plan.fresh["loss_normalizer"] = "the official code does not save it; training starts with that of a new model"


def _our_name(name: str, stem: int) -> str | None:
    if match := BLOCK.fullmatch(name):
        number = int(match[2]) + (stem if match[1] == "branch" else 0)
        module, _, kind = match[3].rpartition(".")
        if match[3] in MODULES:
            return f"actionformer.layers.{number}.{MODULES[match[3]]}"
        return f"actionformer.layers.{number}.{MODULES[module]}.{kind}" if module in MODULES else None
    if match := HEAD.fullmatch(name):
        part = "classifier" if match[4] else f"tower.{'convs' if match[2] == 'head' else 'norms'}.{match[3]}"
        return f"{HEADS[match[1]]}.{part}.{match[5]}"
    for pattern, ours in NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    return None


def _without_unit_axes(name: str) -> Any:
    """Transformation to our shape: linear layers are convolutions of one step there, and norms have unit axes."""
    linear = (".q_proj.", ".k_proj.", ".v_proj.", ".o_proj.", ".fc1.", ".fc2.", ".projections.", ".lateral_convs.")
    if name.endswith("weight") and any(part in name for part in (*linear, ".downsample.")):
        return lambda tensor: tensor.squeeze(2)
    if re.search(r"norm(\d|s\.\d+)?\.(weight|bias)$|_norm\.(weight|bias)$|gamma$", name):
        return torch.flatten
    if name.endswith("relative_positions.bias"):
        return lambda tensor: tensor.squeeze(0).squeeze(0)
    return torch.Tensor.float if name == "loss_normalizer" else None


__all__ = ["localizer_processor", "plan_conversion"]
