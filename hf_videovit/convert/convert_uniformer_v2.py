"""UniFormerV2: the official layout (published files and training checkpoints) and that of MMAction2's ports."""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.configuration_uniformer_v2 import UniFormerV2Config
from ..modeling.modeling_uniformer_v2 import UniFormerV2ForVideoClassification, UniFormerV2Model
from ..modeling.video_processing_uniformer_v2 import UniFormerV2VideoProcessor
from ..published import (
    KINETICS_710_SUBSETS,
    kinetics_710_rows,
    published_entry,
    published_labels,
)
from .fields import (
    Shapes,
    agreed,
    class_names,
    default_names,
    depth,
    fill_heads,
    given_fields,
    in_any_block,
    known_config,
    make_config,
    protocol_processor,
    refuse_labels,
    refuse_unknown_fields,
    select_rows,
    select_slice,
    shape_of,
    with_class_names,
)
from .keys import Checkpoint, clean_names, shorten
from .plan import Conversion, Piece


logger = logging.get_logger(__name__)

MODEL_CLASSES: dict[str, Any] = {
    "video-classification": UniFormerV2ForVideoClassification,
    "feature-extraction": UniFormerV2Model,
}
HEADS = {768: 12, 1024: 16}  # 64 channels a head in every published model; shapes do not show it
OFFICIAL, MMACTION2 = "official", "MMAction2"
# MMAction2's words, and the official ones.
MMACTION2_NAMES = {"transformer.norm.": "transformer.proj.0.", "cls_head.fc_cls.": "transformer.proj.2."}
# Label lists whose order each layout's heads have, by the number of classes; only 710 classes name themselves.
LABEL_ORDERS: dict[str, dict[int, tuple[str, ...]]] = {
    OFFICIAL: {400: ("k400-uniformer",), 710: ("k710",), 339: ("mit",), 174: ("ssv1", "ssv2")},
    MMACTION2: {
        400: ("k400-mmaction2",),
        600: ("k600-mmaction2",),
        700: ("k700-mmaction2",),
        710: ("k710-mmaction2",),
        339: ("mit",),
    },
}
BLOCK = re.compile(r"transformer\.(resblocks|dec)\.(\d+)\.(.+)")
POSITION = re.compile(r"transformer\.dpe\.(\d+)\.(weight|bias)")
# Outside the blocks: name in the base model.
NAMES = {
    "conv1.weight": "embeddings.patch_embeddings.projection.weight",
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding",
    "ln_pre.weight": "embeddings.layernorm.weight",
    "ln_pre.bias": "embeddings.layernorm.bias",
    "transformer.temporal_cls_token": "encoder.query.embedding",
    "transformer.balance": "gate.weight",
    "transformer.proj.0.weight": "layernorm.weight",
    "transformer.proj.0.bias": "layernorm.bias",
}
CLASSIFIER = {"transformer.proj.2.weight": "classifier.weight", "transformer.proj.2.bias": "classifier.bias"}
# Inside a block; `attn.in_proj_*` are three of ours.
MODULES = {"attn.out_proj": "attention.o_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
TOWER_MODULES = {**MODULES, "ln_1": "norm1", "ln_2": "norm2"}
GLOBAL_MODULES = {**MODULES, "ln_1": "norm_query", "ln_3": "norm_tokens", "ln_2": "norm2"}
LOCAL = re.compile(r"lmhra([12])\.pos_embed\.([0-3])\.(\w+)")
LOCAL_MODULES = {"0": "norm", "1": "down", "2": "temporal", "3": "up"}


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
    Plan the conversion of a UniFormerV2 checkpoint.

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
    refuse_unknown_fields(UniFormerV2Config, overrides, labels)
    config = known_config(UniFormerV2Config, config, published)
    layout, sources = _official_names(checkpoint)
    shapes = {name: checkpoint.shapes[source] for name, source in sources.items()}
    _refuse_other_models(shapes, checkpoint)
    if published is not None:
        expected = MMACTION2 if published_entry(published).file.wrapper == "state_dict" else OFFICIAL
        if layout != expected:
            raise ValueError(
                f"`published` {published!r} has the {expected} layout, but {checkpoint.name} has the {layout} layout; "
                "their classes are in different orders."
            )
    given = given_fields(UniFormerV2Config, config, overrides, {"image_size", "patch_size"})
    if published is None and "position_grid" not in overrides:
        given.pop("position_grid", None)  # a table of another size than the configuration's is interpolated
    fields = _all_fields(shapes, given, checkpoint)
    rows, names = _class_names(shapes, task, labels, given, checkpoint, layout)
    plan = Conversion(
        checkpoint, make_config(UniFormerV2Config, with_class_names(fields, names)), MODEL_CLASSES[task], {}
    )
    _map_names(plan, sources, task, rows)
    plan.processor = protocol_processor(UniFormerV2VideoProcessor, plan.config, published)
    return plan


def _official_names(checkpoint: Checkpoint) -> tuple[str, dict[str, str]]:
    """Layout, and official names without prefixes of wrappers, each with its name in the file."""
    layout = OFFICIAL
    cleaned: dict[str, str] = {}
    for name, source in clean_names(checkpoint.shapes).items():
        for theirs, official in MMACTION2_NAMES.items():
            if name.startswith(theirs):
                layout, name = MMACTION2, official + name.removeprefix(theirs)
        if name in cleaned:
            raise ValueError(f"{checkpoint.name} has {name!r} twice, as {cleaned[name]!r} and as {source!r}.")
        cleaned[name] = source
    return layout, cleaned


def _refuse_other_models(shapes: Shapes, checkpoint: Checkpoint) -> None:
    """ValueError if the file is not a UniFormerV2 checkpoint, with a hint for a CLIP tower."""
    needed = ("conv1.weight", "positional_embedding", "transformer.temporal_cls_token", "transformer.proj.0.weight")
    missing = [name for name in needed if name not in shapes]
    if not missing:
        return
    clip = any(name.startswith(("visual.", "vision_model.", "transformer.resblocks.")) for name in shapes)
    hint = " For an image tower such as CLIP's, use UniFormerV2Model.from_image_vit." if clip else ""
    raise ValueError(
        f"{checkpoint.name} is not a UniFormerV2 checkpoint: {', '.join(missing)} are missing. It starts with "
        f"{shorten(list(shapes)[:5])}.{hint}"
    )


def _all_fields(shapes: Shapes, given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """All fields of the configuration. ValueError if shapes and caller disagree or a field is unknown."""
    given = {name: value for name, value in given.items() if value is not None}
    shown = {**_tower_fields(shapes, checkpoint), **_video_fields(shapes, given, checkpoint)}
    fields = agreed(shown, given, checkpoint)
    height, width = shown["position_grid"]
    if "image_size" not in given:
        sides = (height * shown["patch_size"], width * shown["patch_size"])
        fields["image_size"] = sides[0] if height == width else list(sides)
    if fields.get("temporal_downsample") and "num_frames" not in given:
        fields["num_frames"] = 16
    fill_heads(fields, "hidden_size", "num_attention_heads", HEADS, checkpoint)
    layers = fields.get("global_layers")
    number = depth(shapes, "transformer.dec.", checkpoint)
    if layers is None:  # the last blocks, true for every published model
        fields["global_layers"] = list(range(shown["num_hidden_layers"] - number, shown["num_hidden_layers"]))
    elif len(layers) != number:
        raise ValueError(f"`global_layers` names {len(layers)} blocks, but {checkpoint.name} has {number} of them.")
    return fields


def _tower_fields(shapes: Shapes, checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields from the shapes of the image tower."""
    kernel = shapes["conv1.weight"]
    if len(kernel) != 5 or kernel[3] != kernel[4]:
        raise ValueError(
            f"{checkpoint.name}: conv1.weight has shape {kernel}; expected (width, channels, frames, patch, patch) "
            "with square patches."
        )
    fields: dict[str, Any] = {
        "hidden_size": kernel[0],
        "num_channels": kernel[1],
        "patch_size": kernel[3],
        "num_hidden_layers": depth(shapes, "transformer.resblocks.", checkpoint),
        "use_pre_layernorm": bool({"ln_pre.weight", "ln_pre.bias"} & set(shapes)),
        "position_grid": _square_grid(shapes, checkpoint),
    }
    if kernel[2] > 1:
        fields |= {"temporal_downsample": True, "temporal_kernel_size": kernel[2]}
    if "transformer.resblocks.0.mlp.c_fc.weight" in shapes:
        fields["intermediate_size"] = shapes["transformer.resblocks.0.mlp.c_fc.weight"][0]
    return fields


def _square_grid(shapes: Shapes, checkpoint: Checkpoint) -> list[int]:
    """Rows and columns of the position table, whose first entry is that of the class token."""
    patches = shapes["positional_embedding"][0] - 1
    side = math.isqrt(max(patches, 0))
    if side < 1 or side * side != patches:
        raise ValueError(f"{checkpoint.name}: positional_embedding has {patches} patches, which are not a square.")
    return [side, side]


def _video_fields(shapes: Shapes, given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields from the shapes of local modules, global blocks and gate."""
    fields: dict[str, Any] = {
        "num_local_modules": sum(
            in_any_block(shapes, "transformer.resblocks.", f"lmhra{number}.pos_embed.1.weight") for number in (1, 2)
        ),
        "use_gate": "transformer.balance" in shapes,
    }
    if fields["num_local_modules"]:
        reduced, width = shape_of("transformer.resblocks.0.lmhra1.pos_embed.1.weight", checkpoint, shapes)[:2]
        ratio = given.get("local_reduction", 1.5)
        if "local_reduction" not in given and int(width // ratio) != reduced:
            ratio = width / (reduced + 0.5)  # any ratio that floors to the width found
        if int(width // ratio) != reduced:
            raise ValueError(
                f"`local_reduction` {ratio} makes local modules {int(width // ratio)} wide, but those of "
                f"{checkpoint.name} have {reduced} channels."
            )
        fields["local_reduction"] = ratio
    if "transformer.dec.0.mlp.c_fc.weight" in shapes:
        fields["global_intermediate_size"] = shapes["transformer.dec.0.mlp.c_fc.weight"][0]
    return fields


def _class_names(
    shapes: Shapes,
    task: str,
    labels: str | Sequence[str] | None,
    given: dict[str, Any],
    checkpoint: Checkpoint,
    layout: str,
) -> tuple[list[int] | None, list[str] | None]:
    """Rows of the head to use (`None` for all) and class names (`None` to keep those of the caller)."""
    refuse_labels(labels, task, ["video-classification"])
    if task != "video-classification":
        return None, None
    if "transformer.proj.2.weight" not in shapes:
        raise ValueError(f"{checkpoint.name} has no classifier; use task='feature-extraction'.")
    size = shapes["transformer.proj.2.weight"][0]
    if labels is None:
        return None, default_names(size, given, checkpoint, LABEL_ORDERS[layout].get(size, ()), certain=size == 710)
    rows, names = _named_rows(labels, size, layout) if isinstance(labels, str) else (None, class_names(labels) or [])
    if len(rows or range(size)) != len(names):
        raise ValueError(
            f"`labels` does not fit: the head of {checkpoint.name} has {size} classes, but "
            + (f"{labels!r} has {len(names)}." if isinstance(labels, str) else f"{len(names)} are given.")
        )
    return rows, names


def _named_rows(labels: str, size: int, layout: str) -> tuple[list[int] | None, list[str]]:
    """
    Rows and names of a published label list. `"k400"`, `"k600"` and `"k700"` mean the layout's own order. A
    Kinetics-710 head is reduced to the rows of these classes.
    """
    own = {OFFICIAL: {"k400": "k400-uniformer"}, MMACTION2: {f"k{n}": f"k{n}-mmaction2" for n in (400, 600, 700, 710)}}
    labels = own[layout].get(labels, labels)
    names = published_labels(labels)
    ports = labels.endswith("-mmaction2")
    if ports != (layout == MMACTION2) and not (labels == "mit" or labels.startswith("ssv")):
        raise ValueError(f"`labels` {labels!r} is not the order of a file in the {layout} layout.")
    if size == 710 and labels in KINETICS_710_SUBSETS:
        return kinetics_710_rows(labels), names
    if labels in ("k600", "k700") and size == len(names):
        logger.warning(
            f"It is not verified that official heads of {size} classes have the order {labels!r}; check a few "
            "predictions."
        )
    return None, names


def _map_names(plan: Conversion, sources: dict[str, str], task: str, rows: list[int] | None) -> None:
    """Fill in the plan: pieces and dropped tensors. The plan's check reports unknown names."""
    base = "" if task == "feature-extraction" else f"{UniFormerV2Model.base_model_prefix}."
    plan.official_names = {base + ours: theirs for theirs, ours in NAMES.items()}
    plan.official_names |= {ours: theirs for theirs, ours in CLASSIFIER.items()}
    for name, source in sources.items():
        if name.startswith("data_preprocessor."):
            plan.dropped[source] = "the video processor does the normalisation"
        elif name in CLASSIFIER:
            if task == "feature-extraction":
                plan.dropped[source] = "features need no classifier"
            else:
                plan.pieces[CLASSIFIER[name]] = Piece(source, None if rows is None else select_rows(rows))
        elif name in NAMES:
            plan.pieces[base + NAMES[name]] = Piece(source)
        elif match := POSITION.fullmatch(name):
            plan.pieces[f"{base}encoder.global_blocks.{match[1]}.dynamic_position.{match[2]}"] = Piece(source)
        elif match := BLOCK.fullmatch(name):
            kind, modules = {
                "resblocks": ("layers", TOWER_MODULES),
                "dec": ("global_blocks", GLOBAL_MODULES),
            }[match[1]]
            pieces = _block_pieces(match[3], source, modules, plan.checkpoint.shapes[source])
            plan.pieces |= {f"{base}encoder.{kind}.{match[2]}.{ours}": piece for ours, piece in pieces.items()}


def _block_pieces(name: str, source: str, modules: dict[str, str], shape: tuple[int, ...]) -> dict[str, Piece]:
    """Our tensors of a block from one official tensor."""
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind, third = name.rpartition("_")[2], shape[0] // 3
        return {
            f"attention.{letter}_proj.{kind}": Piece(source, select_slice(index * third, (index + 1) * third))
            for index, letter in enumerate("qkv")
        }
    if match := LOCAL.fullmatch(name):
        transform = _pointwise if match[2] in "13" and match[3] == "weight" else None
        return {f"local{match[1]}.{LOCAL_MODULES[match[2]]}.{match[3]}": Piece(source, transform)}
    module, _, kind = name.rpartition(".")
    return {f"{modules[module]}.{kind}": Piece(source)} if module in modules else {}


def _pointwise(kernel: torch.Tensor) -> torch.Tensor:
    """Kernel of a 1 x 1 x 1 convolution as a matrix."""
    return kernel.flatten(1)


__all__ = ["plan_conversion"]
