"""
UniFormer (version 1): the official image, token-labelling, video and dense-prediction layouts, and that of MMAction2's
ports. An image checkpoint is converted to a video model by inflating its convolutions.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, VitPoseImageProcessor
from transformers.utils import logging

from ..modeling.configuration_base import frame_size
from ..modeling.configuration_uniformer import UniFormerConfig
from ..modeling.image_processing_uniformer import UniFormerImageProcessor
from ..modeling.modeling_uniformer import (
    UniFormerBackbone,
    UniFormerForImageClassification,
    UniFormerForVideoClassification,
    UniFormerModel,
)
from ..modeling.modeling_uniformer_pose import UniFormerForPoseEstimation
from ..modeling.video_processing_uniformer import UniFormerVideoProcessor
from ..published import published_entry, published_processor_kwargs
from .fields import (
    Shapes,
    agreed,
    class_names,
    default_names,
    depth,
    given_count,
    given_fields,
    in_any_block,
    known_config,
    make_config,
    refuse_labels,
    refuse_unknown_fields,
    with_class_names,
)
from .keys import Checkpoint, clean_names, shorten
from .plan import Conversion, Piece


logger = logging.get_logger(__name__)

MODEL_CLASSES: dict[str, Any] = {
    "image-classification": UniFormerForImageClassification,
    "video-classification": UniFormerForVideoClassification,
    "feature-extraction": UniFormerModel,
    "backbone": UniFormerBackbone,
    "keypoint-detection": UniFormerForPoseEstimation,
}
POSE = "keypoint-detection"
DENSE = ("backbone", POSE)
NAMED = ("image-classification", "video-classification", POSE)  # tasks whose head has labels
CLASSIFICATION = {"image-classification": "image", "video-classification": "video"}
MMACTION2_HEAD = ("cls_head.fc_cls.", "head.")  # theirs, and the official one
# Parts of detectors, segmenters and pose estimators other than the backbone.
DENSE_HEADS = (
    *("neck.", "rpn_head.", "roi_head.", "bbox_head.", "mask_head."),
    *("decode_head.", "auxiliary_head.", "keypoint_head."),
)
TRAINING_STATE = ("data_preprocessor.", "ema_", "steps")  # of MMCV and MMEngine, among the weights
# Width of the heads by (modality, depths, sizes, layer scale in attention blocks), for sizes whose published models
# all agree. Published models of other sizes differ (image S, S+ and B), so the caller must pass it.
SMALL, BASE, LARGE = (3, 4, 8, 3), (5, 8, 20, 7), (5, 10, 24, 7)
WIDTHS = (64, 128, 320, 512)
HEAD_DIMS = {
    ("video", SMALL, WIDTHS, False): 64,
    ("video", BASE, WIDTHS, False): 64,
    ("image", BASE, WIDTHS, True): 64,
    ("image", LARGE, (128, 192, 448, 640), True): 64,
    **{(one, (2, 5, 8, 2), (56, 112, 224, 448), scaled): 28 for one in ("image", "video") for scaled in (False, True)},
    **{(one, (3, 5, 9, 3), (64, 128, 256, 512), scaled): 32 for one in ("image", "video") for scaled in (False, True)},
}
IMAGE_LAYER_SCALE, VIDEO_LAYER_SCALE = 1e-6, 0.1  # initial values, which are not in the file
# Label lists in the order of the heads, by the number of classes.
LABEL_ORDERS: dict[str, dict[int, tuple[str, ...]]] = {
    "official": {400: ("k400-uniformer",), 600: ("k600-uniformer",), 174: ("ssv1", "ssv2")},
    "MMAction2": {400: ("k400-mmaction2",)},
}
IMAGENET, COCO_KEYPOINTS = "imagenet-1k", "coco-keypoints"
POSE_IMAGE_SIZE = [256, 192]

BLOCK = re.compile(r"blocks([1-4])\.(\d+)\.(.+)\.(\w+)")
GAMMA = re.compile(r"blocks([1-4])\.(\d+)\.gamma_([12])")
PATCH = re.compile(r"patch_embed([1-4])\.(proj|norm)\.((?:\d\.)?\w+)")
POSE_HEAD = re.compile(r"keypoint_head\.(deconv_layers|final_layer)\.((?:\d+\.)?\w+)")
DENSE_NORM = re.compile(r"norm([1-4])\.(weight|bias)")
CONV_MODULES = {
    "pos_embed": "position",
    "norm1": "norm1",
    "conv1": "mixer.conv1",
    "attn": "mixer.depthwise",
    "conv2": "mixer.conv2",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
ATTENTION_MODULES = {
    "pos_embed": "position",
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.o_proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "t_norm": "temporal_norm",
    "t_attn.qkv": "temporal_attention.qkv",
    "t_attn.proj": "temporal_attention.o_proj",
}
POINTWISE = ("conv1", "conv2", "mlp.fc1", "mlp.fc2")
# Outside the blocks, in the base model; then in the classes with a head.
NAMES = {
    "norm": "norm",
    "cls_token": "class_token",
    "cls_upsample": "class_upsample",
    "norm_cls": "class_norm",
}
HEADS = {"head": "classifier", "aux_head": "auxiliary_classifier", "head_cls": "class_classifier"}
POSE_PROJECTION = "keypoint_head.final_layer.weight"
POSE_HEADS = {"deconv_layers": "head.layers", "final_layer": "head.projection"}


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
    Plan the conversion of a UniFormer checkpoint.

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
    selection: dict[str, Any] = {
        name: overrides.pop(name) for name in ("out_features", "out_indices") if name in overrides
    }
    refuse_unknown_fields(UniFormerConfig, overrides, labels)
    config = known_config(UniFormerConfig, config, published)
    config = getattr(config, "backbone_config", config)  # of a published detector or segmenter
    layout, sources, left = _official_names(checkpoint, task)
    _warn_of_heads(left, checkpoint, task)
    shapes = {name: checkpoint.shapes[source] for name, source in sources.items()}
    source_modality = _modality_of(shapes, checkpoint)
    if published is not None:
        _refuse_other_layout(published, layout)
    given = given_fields(UniFormerConfig, config, overrides, set())
    given = _select_features({**given, **selection}, selection, task)
    modality = _target_modality(task, source_modality, given, shapes, checkpoint)
    inflated = modality != source_modality
    if inflated and published is not None:  # videos have other classes
        given = {name: value for name, value in given.items() if name not in {"id2label", "label2id"} - set(overrides)}
    fields = _all_fields(shapes, given, source_modality, modality, task, checkpoint)
    names = _class_names(shapes, task, labels, given, checkpoint, layout, inflated=inflated)
    full = make_config(UniFormerConfig, with_class_names(fields, names))
    plan = Conversion(
        checkpoint, full, MODEL_CLASSES[task], {}, dropped=dict.fromkeys(left, "not part of the backbone")
    )
    _map_names(plan, sources, task, inflated=inflated)
    _add_fresh(plan, shapes)
    plan.processor = _make_processor(full, task, published)
    return plan


def _refuse_other_layout(published: str, layout: str) -> None:
    """ValueError if the published checkpoint that the caller named has the classes of another layout."""
    if (layout == "MMAction2") != (published_entry(published).labels == "k400-mmaction2"):
        raise ValueError(f"`published` {published!r} is not in the {layout} layout, whose classes have another order.")


def _official_names(checkpoint: Checkpoint, task: str) -> tuple[str, dict[str, str], list[str]]:
    """Layout; official names without prefixes of wrappers, each with its name in the file; names to drop."""
    layout, sources, left = "official", {}, []
    for name, source in clean_names(checkpoint.shapes).items():
        if name.startswith(MMACTION2_HEAD[0]):
            layout, name = "MMAction2", MMACTION2_HEAD[1] + name.removeprefix(MMACTION2_HEAD[0])
        if name.startswith((*DENSE_HEADS, *TRAINING_STATE)) and not (task == POSE and POSE_HEAD.fullmatch(name)):
            left.append(source)
        else:
            sources[name] = source
    return layout, sources, left


def _warn_of_heads(left: list[str], checkpoint: Checkpoint, task: str) -> None:
    """Warn about dropped parts of a detector, segmenter or pose estimator."""
    parts = Counter(next((one for one in (*DENSE_HEADS, *TRAINING_STATE) if one in name), name) for name in left)
    if parts:
        listed = ", ".join(f"{name.rstrip('._')} ({count} tensors)" for name, count in parts.items())
        hint = f" task={POSE!r} keeps keypoint_head." if "keypoint_head." in parts and task != POSE else ""
        logger.warning(f"{checkpoint.name}: dropped {listed}: not part of the backbone.{hint}")


def _modality_of(shapes: Shapes, checkpoint: Checkpoint) -> str:
    """`"image"` or `"video"`. ValueError if the file is not a UniFormer."""
    axes = len(shapes.get("blocks1.0.pos_embed.weight", ()))
    if axes not in (4, 5) or "blocks3.0.attn.qkv.weight" not in shapes:
        raise ValueError(
            f"{checkpoint.name} is not a UniFormer checkpoint: `blocks1.0.pos_embed.weight` or "
            f"`blocks3.0.attn.qkv.weight` are missing. It starts with {shorten(list(shapes)[:5])}."
        )
    return "image" if axes == 4 else "video"


def _select_features(given: dict[str, Any], selection: dict[str, Any], task: str) -> dict[str, Any]:
    """Select the maps that a backbone returns; all four stages by default."""
    if task != "backbone":
        return {name: value for name, value in given.items() if name not in ("out_features", "out_indices")}
    other = {"out_features": "out_indices", "out_indices": "out_features"}
    for name in selection:
        if other[name] not in selection:
            given.pop(other[name], None)
    if given.get("out_features") in (None, ["stage4"]) and given.get("out_indices") in (None, [4]) and not selection:
        given = {**given, "out_features": [f"stage{number}" for number in range(1, 5)], "out_indices": None}
    return given


def _target_modality(task: str, source: str, given: dict[str, Any], shapes: Shapes, checkpoint: Checkpoint) -> str:
    """Modality of the new model. ValueError if the file does not support it."""
    wanted = {**dict.fromkeys(DENSE, "image"), **CLASSIFICATION}.get(task, given.get("modality", source))
    if given.get("modality") == "video" and wanted == "image" and source == "image":
        raise ValueError(f"`modality` 'video' is not supported with task={task!r}.")
    if source == "video" and wanted == "image":
        raise ValueError(f"{checkpoint.name} is a video model, which does not support task={task!r}.")
    if task not in DENSE and not {"norm.weight", "norm.bias"} & set(shapes):
        raise ValueError(
            f"{checkpoint.name} is a backbone for dense prediction without the classifier's norm; use task='backbone'"
            f" or task={POSE!r}."
        )
    return wanted


def _all_fields(
    shapes: Shapes, given: dict[str, Any], source: str, modality: str, task: str, checkpoint: Checkpoint
) -> dict[str, Any]:
    """All fields of the configuration. ValueError if shapes and caller disagree or a field is unknown."""
    shown = _shown_fields(shapes, source, task, checkpoint)
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    scaled = in_any_block(shapes, "blocks3.", "gamma_1")
    if "head_dim" not in given:
        key = (source, tuple(shown["depths"]), tuple(shown["hidden_sizes"]), scaled)
        if key not in HEAD_DIMS:
            raise ValueError(
                "`head_dim` is needed: no tensor shape shows it, and published models of one size differ. It is 64 in "
                "plain ImageNet S and B, 32 in token-labelled S, S+ and B and in plain S+ unless the file name "
                f"contains dim64. With the wrong value {checkpoint.name} would load but be worse. Pass head_dim=64 or "
                "32, or `published`."
            )
        given["head_dim"] = HEAD_DIMS[key]
    if source != modality:  # a video model may have parts that no image model has
        given["modality"] = modality
        for name in ("modality", "use_split_attention", "use_temporal_overlap"):
            shown.pop(name)
    if task == POSE:
        given.setdefault("image_size", POSE_IMAGE_SIZE)
    value = given.get("layer_scale_init_value", 0.0)
    if scaled and not value:
        given["layer_scale_init_value"] = VIDEO_LAYER_SCALE if source == "video" else IMAGE_LAYER_SCALE
    elif value and not scaled:
        raise ValueError(f"`layer_scale_init_value` is {value}, but {checkpoint.name} has no layer scales.")
    return agreed(shown, {name: one for name, one in given.items() if one is not None}, checkpoint)


def _shown_fields(shapes: Shapes, modality: str, task: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields from tensor shapes."""

    def size(name: str, axis: int) -> int:
        if len(shapes.get(name, ())) <= axis:
            raise ValueError(
                f"{checkpoint.name} is not a complete UniFormer: {name} is {shapes.get(name, 'missing')}."
            )
        return shapes[name][axis]

    stages = range(1, 5)
    pose: dict[str, Any] = {}
    if POSE_PROJECTION in shapes:
        kernels = [name for name in shapes if POSE_HEAD.fullmatch(name) and len(shapes[name]) == 4]
        pose["pose_hidden_sizes"] = [shapes[name][1] for name in kernels if name != POSE_PROJECTION]
    first = "patch_embed1.proj.0.weight" if "patch_embed1.proj.0.weight" in shapes else "patch_embed1.proj.weight"
    stem = "patch"
    if first == "patch_embed1.proj.0.weight":
        stem = "conv" if "patch_embed2.proj.0.weight" in shapes else "conv_first"
    return {
        "modality": modality,
        "depths": [depth(shapes, f"blocks{stage}.", checkpoint) for stage in stages],
        "hidden_sizes": [size(f"blocks{stage}.0.pos_embed.weight", 0) for stage in stages],
        "intermediate_sizes": [size(f"blocks{stage}.0.mlp.fc1.weight", 0) for stage in stages],
        "num_channels": size(first, 1),
        "stem": stem,
        "use_temporal_overlap": modality == "video" and size("patch_embed2.proj.weight", 2) > 1,
        "use_split_attention": in_any_block(shapes, "blocks3.", "t_attn.qkv.weight"),
        "use_token_pruning": any(name.startswith(("cls_token", "cls_upsample.")) for name in shapes),
        "use_auxiliary_head": task == "image-classification" and "aux_head.weight" in shapes,
        "layer_scale_in_conv_blocks": in_any_block(shapes, "blocks1.", "gamma_1"),
        "qkv_bias": in_any_block(shapes, "blocks3.", "attn.qkv.bias"),
        **pose,
    }


def _class_names(
    shapes: Shapes,
    task: str,
    labels: str | Sequence[str] | None,
    given: dict[str, Any],
    checkpoint: Checkpoint,
    layout: str,
    *,
    inflated: bool,
) -> list[str] | None:
    """Class names, or `None` to keep those of the caller."""
    refuse_labels(labels, task, NAMED)
    if task not in NAMED:
        return None
    size = shapes.get(POSE_PROJECTION if task == POSE else "head.weight", (None,))[0]
    names = _label_names(labels, layout)
    counted = given_count(given) is not None
    if names is None and not counted and (inflated or size is None):
        lacks = "has no keypoint head" if task == POSE else "has no classifier"
        holds = "is an image checkpoint, whose classes are not those of videos" if inflated else lacks
        raise ValueError(
            f"{checkpoint.name} {holds}; pass `num_labels`, `id2label` or `labels` of your task. The head is new "
            "unless it has the same number of classes."
        )
    if names is None:
        return None if inflated or size is None else _default_names(size, given, checkpoint, layout, task)
    if len(names) != size and not inflated and size is not None:
        raise ValueError(f"`labels` does not fit: the head of {checkpoint.name} has {size} classes, not {len(names)}.")
    return names


def _label_names(labels: str | Sequence[str] | None, layout: str) -> list[str] | None:
    """Names of a label list; `"k400"` and `"k600"` mean the layout's own order."""
    if not isinstance(labels, str):
        return class_names(labels)
    own = {f"k{size}": names[0] for size, names in LABEL_ORDERS[layout].items() if size != 174}
    if labels in ("k400", "k600") and labels not in own:
        raise ValueError(f"`labels` {labels!r} in the order of {layout} is not known; pass the names as a list.")
    return class_names(own.get(labels, labels))


def _default_names(
    size: int, given: dict[str, Any], checkpoint: Checkpoint, layout: str, task: str
) -> list[str] | None:
    """Class names without `labels`: 1000 image classes are ImageNet's, 17 keypoints COCO's."""
    if task == "image-classification" and size == 1000:
        return default_names(size, given, checkpoint, [IMAGENET], certain=True)
    if task == POSE:
        return default_names(size, given, checkpoint, [COCO_KEYPOINTS] if size == 17 else [], certain=True)
    return default_names(size, given, checkpoint, LABEL_ORDERS[layout].get(size, ()))


def _map_names(plan: Conversion, sources: dict[str, str], task: str, *, inflated: bool) -> None:
    """Fill in the plan: pieces and dropped tensors. The plan's check reports unknown names."""
    base = "" if task == "feature-extraction" else f"{UniFormerModel.base_model_prefix}."
    plan.official_names = {
        **{base + ours: theirs for theirs, ours in NAMES.items()},
        **{ours: theirs for theirs, ours in HEADS.items()},
        **{ours: f"keypoint_head.{theirs}" for theirs, ours in POSE_HEADS.items()},
        **{f"norms.stage{stage}": f"norm{stage}" for stage in range(1, 5)},
        **({"norm": "norm4"} if task == POSE else {}),
    }
    for name, source in sources.items():
        shape = plan.checkpoint.shapes[source]
        reason = _dropping_reason(name, shape, task, plan.config, inflated=inflated)
        if reason is not None:
            plan.dropped[source] = reason
            continue
        ours, transform = _place_tensor(name, inflated=inflated, overlap=plan.config.use_temporal_overlap)
        if ours is None:
            continue
        if ours.startswith((*HEADS.values(), "norms.", "head.")):
            plan.pieces[ours.replace("norms.stage4.", "norm.") if task == POSE else ours] = Piece(source, transform)
        else:
            plan.pieces[base + ours] = Piece(source, transform)


def _dropping_reason(
    name: str, shape: tuple[int, ...], task: str, config: UniFormerConfig, *, inflated: bool
) -> str | None:
    """Reason to drop a tensor, or `None`."""
    module, _, _ = name.rpartition(".")
    if task in DENSE:
        if module in ("norm", "norm_cls", *HEADS):
            return "dense prediction has no classifier"
        match = DENSE_NORM.fullmatch(name)
        if task == POSE:
            return "keypoints use only the last map" if match and match[1] != "4" else None
        if match and f"stage{match[1]}" not in config.out_features:
            return "the backbone does not return this stage's map"
        return None
    if DENSE_NORM.fullmatch(name):
        return "only backbones have norms of the maps of stages"
    if module in HEADS and task == "feature-extraction":
        return "features have no classifier"
    if module == "aux_head" and task != "image-classification":
        return "the auxiliary classifier of tokens is for images only"
    if module in HEADS and inflated and shape[0] != config.num_labels:
        return "the number of classes differs"
    return None


def _place_tensor(name: str, *, inflated: bool, overlap: bool) -> tuple[str | None, Callable | None]:
    """Our name of an official tensor and its transformation."""
    if match := GAMMA.fullmatch(name):
        return f"stages.{int(match[1]) - 1}.blocks.{match[2]}.layer_scale{match[3]}.gamma", torch.flatten
    if match := BLOCK.fullmatch(name):
        stage, number, module, kind = int(match[1]), match[2], match[3], match[4]
        modules = CONV_MODULES if stage < 3 else ATTENTION_MODULES
        if module not in modules:
            return None, None
        transform: Callable | None = None
        if kind == "weight" and stage < 3 and module in POINTWISE:
            transform = _pointwise
        elif kind == "weight" and inflated and module in ("pos_embed", "attn"):
            transform = inflation_by(3 if module == "pos_embed" else 5)
        return f"stages.{stage - 1}.blocks.{number}.{modules[module]}.{kind}", transform
    if match := PATCH.fullmatch(name):
        stage, part, rest = int(match[1]), match[2], match[3]
        inner = "layers" if rest[0].isdigit() else "projection"
        convolution = part == "proj" and rest in ("weight", "0.weight", "3.weight")
        taps = 3 if stage == 1 or overlap else 1
        transform = inflation_by(taps) if inflated and convolution else None
        return f"patch_embeddings.{stage - 1}.{inner if part == 'proj' else 'norm'}.{rest}", transform
    if match := POSE_HEAD.fullmatch(name):
        return f"{POSE_HEADS[match[1]]}.{match[2]}", None
    if match := DENSE_NORM.fullmatch(name):
        return f"norms.stage{match[1]}.{match[2]}", None
    module, _, kind = name.rpartition(".")
    known = {**NAMES, **HEADS}
    if name in known:
        return known[name], None
    return (f"{known[module]}.{kind}", None) if module in known else (None, None)


def _pointwise(kernel: torch.Tensor) -> torch.Tensor:
    """Kernel of a convolution of size one as a matrix."""
    return kernel.flatten(1)


def inflation_by(taps: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """
    Transformation of a 2-D kernel to a 3-D one: repeated along time and divided by the number of repetitions. For a
    clip of identical frames it gives the same output as for the image.

    Args:
        taps (`int`):
            Frames of the new kernel.

    Returns:
        `Callable[[torch.Tensor], torch.Tensor]`: from `(out, in, height, width)` to `(out, in, taps, height, width)`.
    """
    return lambda kernel: kernel.unsqueeze(2).repeat_interleave(taps, dim=2) / taps


def _add_fresh(plan: Conversion, shapes: Shapes) -> None:
    """Mark parameters that such a file cannot have as new."""
    with torch.device("meta"):
        expected = plan.model_class(plan.config).state_dict()
    missing = [name for name in expected if name not in plan.pieces]
    dense = any(DENSE_NORM.fullmatch(name) for name in shapes)
    norms = "norm." if plan.model_class is UniFormerForPoseEstimation else "norms."
    held = {name.split(".")[0] for name in plan.pieces}
    split = plan.config.use_split_attention and not in_any_block(shapes, "blocks3.", "t_attn.qkv.weight")
    for name in missing:
        if name.startswith(norms) and not dense:
            plan.fresh[name] = "not part of a classifier's checkpoint; official dense training also initialises it"
        elif name.startswith("head.") and POSE_PROJECTION not in shapes:
            plan.fresh[name] = "the checkpoint has no keypoint head; train before use"
        elif name.startswith(("classifier.", "class_classifier.")) and name.split(".")[0] not in held:
            plan.fresh[name] = "the checkpoint has no classifier for these classes; train before use"
        elif split and ".temporal_" in name:
            plan.fresh[name] = "an image checkpoint has no attention over time"


def _make_processor(
    config: UniFormerConfig, task: str, published: str | None
) -> UniFormerImageProcessor | UniFormerVideoProcessor | VitPoseImageProcessor:
    """Processor with the protocol of the published checkpoint, or with one centred view."""
    height, width = frame_size(config.image_size)
    crop = {"height": height, "width": width}
    if task == POSE:
        return VitPoseImageProcessor(size=crop)
    if config.modality == "image":
        if task == "backbone":
            return UniFormerImageProcessor(do_resize=False, do_center_crop=False)
        return UniFormerImageProcessor(size={"shortest_edge": 256 * min(height, width) // 224}, crop_size=crop)
    known = published is not None and published_entry(published).task == "video-classification"
    fields: dict[str, Any] = published_processor_kwargs(published) if known and published else {}
    fields |= {"num_frames": config.num_frames, "size": {"shortest_edge": min(height, width)}, "crop_size": crop}
    return UniFormerVideoProcessor(**fields)


__all__ = ["plan_conversion"]
