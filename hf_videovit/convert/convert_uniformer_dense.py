"""
Whole detectors and segmenters around UniFormer, in the layouts of MMDetection 2 and MMSegmentation: backbone, neck and
heads. `convert_uniformer` converts the backbone.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedConfig

from ..modeling.configuration_uniformer import UniFormerConfig
from ..modeling.configuration_uniformer_dense import DETECTORS, UniFormerDetectorConfig, UniFormerSegmenterConfig
from ..modeling.image_processing_uniformer_dense import (
    SIZE_DIVISOR,
    UniFormerDetectorImageProcessor,
    UniFormerSegmenterImageProcessor,
)
from ..modeling.modeling_uniformer_detector import UniFormerForObjectDetection
from ..modeling.modeling_uniformer_segmenter import UniFormerForSemanticSegmentation
from ..published import published_config, published_entry, published_labels, published_processor_kwargs
from . import convert_uniformer
from .fields import Shapes, agreed, class_names, default_names, given_fields, make_config, with_class_names
from .keys import Checkpoint, clean_names
from .plan import Conversion, Piece


OBJECTS, SEMANTICS = "object-detection", "semantic-segmentation"
MODEL_CLASSES: dict[str, Any] = {
    OBJECTS: UniFormerForObjectDetection,
    SEMANTICS: UniFormerForSemanticSegmentation,
}
CONFIGS: dict[str, Any] = {OBJECTS: UniFormerDetectorConfig, SEMANTICS: UniFormerSegmenterConfig}
# Lists of labels by the number of classes of a head.
KNOWN_LABELS = {OBJECTS: {80: "coco"}, SEMANTICS: {150: "ade20k"}}
HEADS = ("neck.", "rpn_head.", "roi_head.", "decode_head.", "auxiliary_head.")
MODULES = {"conv": "convolution", "bn": "norm"}
# An official name, and what it is called here. A group is a number of the name that stays.
DETECTOR_NAMES = (
    (r"neck\.lateral_convs\.(\d+)\.conv\.(\w+)", r"pyramid.layers.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.(\d+)\.conv\.(\w+)", r"pyramid.layers.layer_blocks.\1.0.\2"),
    (r"rpn_head\.rpn_conv\.(\w+)", r"proposals.convolution.\1"),
    (r"rpn_head\.rpn_cls\.(\w+)", r"proposals.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(\w+)", r"proposals.box.\1"),
    (r"roi_head\.bbox_head\.(\d+)\.shared_convs\.(\d+)\.conv\.(\w+)", r"heads.box_heads.\1.convolutions.\2.0.\3"),
    (r"roi_head\.bbox_head\.(\d+)\.shared_convs\.(\d+)\.bn\.(\w+)", r"heads.box_heads.\1.convolutions.\2.1.\3"),
    (r"roi_head\.bbox_head\.(\d+)\.shared_fcs\.(\d+)\.(\w+)", r"heads.box_heads.\1.layers.\2.\3"),
    (r"roi_head\.bbox_head\.(\d+)\.fc_cls\.(\w+)", r"heads.box_heads.\1.classifier.\2"),
    (r"roi_head\.bbox_head\.(\d+)\.fc_reg\.(\w+)", r"heads.box_heads.\1.box.\2"),
    (r"roi_head\.mask_head\.(\d+)\.convs\.(\d+)\.conv\.(\w+)", r"heads.mask_heads.\1.convolutions.\2.\3"),
    (r"roi_head\.mask_head\.(\d+)\.upsample\.(\w+)", r"heads.mask_heads.\1.upsample.\2"),
    (r"roi_head\.mask_head\.(\d+)\.conv_logits\.(\w+)", r"heads.mask_heads.\1.classifier.\2"),
)
SCALE_HEAD = r"decode_head\.scale_heads\.(\d+)\.(\d+)\.(conv|bn)\.(\w+)"
SEGMENTER_NAMES = (
    (SCALE_HEAD, r"decoder.levels.\1.\2.{\3}.\4"),
    (r"neck\.lateral_convs\.(\d+)\.conv\.(\w+)", r"decoder.pyramid.layers.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.(\d+)\.conv\.(\w+)", r"decoder.pyramid.layers.layer_blocks.\1.0.\2"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.classifier.\1"),
    (r"auxiliary_head\.conv_seg\.(\w+)", r"auxiliary_head.classifier.\1"),
    (r"auxiliary_head\.convs\.0\.(conv|bn)\.(\w+)", r"auxiliary.{\1}.\2"),
    (r"decode_head\.psp_modules\.(\d+)\.1\.(conv|bn)\.(\w+)", r"decoder.pooled.\1.{\2}.\3"),
    (r"decode_head\.bottleneck\.(conv|bn)\.(\w+)", r"decoder.bottleneck.{\1}.\2"),
    (r"decode_head\.lateral_convs\.(\d+)\.(conv|bn)\.(\w+)", r"decoder.lateral.\1.{\2}.\3"),
    (r"decode_head\.fpn_convs\.(\d+)\.(conv|bn)\.(\w+)", r"decoder.outputs.\1.{\2}.\3"),
    (r"decode_head\.fpn_bottleneck\.(conv|bn)\.(\w+)", r"decoder.fusion.{\1}.\2"),
)
ONE_STAGE = re.compile(r"roi_head\.(bbox_head|mask_head)\.(?=[a-z])")
BACKBONE_FIELDS = {*UniFormerConfig.__dataclass_fields__, "out_features", "out_indices"} - {"num_labels", "id2label"}


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
    Plan the conversion of a detector or a segmenter.

    Args:
        checkpoint ([`Checkpoint`]):
            The opened file.
        task (`str`):
            `"object-detection"` or `"semantic-segmentation"`.
        config ([`PreTrainedConfig`], *optional*):
            See [`~convert.convert_checkpoint`].
        labels (`str` or `Sequence[str]`, *optional*):
            See [`~convert.convert_checkpoint`]. 80 classes of a detector are COCO's, 150 of a segmenter ADE20K's.
        published (`str`, *optional*):
            See [`~convert.convert_checkpoint`].
        overrides (`Any`):
            Fields of the configuration of the model or of its backbone, such as `head_dim` and `attention_type`.

    Returns:
        [`Conversion`]

    Raises:
        ValueError: the file is not such a checkpoint, has no heads, or contradicts an argument.
    """
    names = clean_names(checkpoint.shapes)
    heads = {_with_stage(name): source for name, source in names.items() if name.startswith(HEADS)}
    shapes = {name: checkpoint.shapes[source] for name, source in heads.items()}
    own = {name: value for name, value in overrides.items() if name not in BACKBONE_FIELDS}
    config = _known_config(task, config, published)
    backbone = _plan_backbone(checkpoint, set(heads.values()), task, config, overrides, own)
    shown = _detector_fields(shapes, checkpoint) if task == OBJECTS else _segmenter_fields(shapes, checkpoint)
    given = given_fields(CONFIGS[task], config, own, set())
    given.pop("backbone_config", None)
    defaults = DETECTORS["cascade_mask_rcnn"] if shown.get("num_box_stages", 1) > 1 else {}
    count = shown.pop("num_labels")
    fields = {**({} if config else defaults), **agreed(shown, given, checkpoint)}
    fields = with_class_names(fields, _class_names(labels, count, given, task, checkpoint))
    full = make_config(CONFIGS[task], {**fields, "backbone_config": backbone.config})
    plan = Conversion(checkpoint, full, MODEL_CLASSES[task], {}, dropped=backbone.dropped)
    plan.pieces = {f"backbone.{name}": piece for name, piece in backbone.pieces.items()}
    plan.fresh = {f"backbone.{name}": reason for name, reason in backbone.fresh.items()}
    plan.official_names = {f"backbone.{ours}": theirs for ours, theirs in backbone.official_names.items()}
    for name, source in heads.items():
        if ours := _our_name(name, task):
            plan.pieces[ours] = Piece(source)
    plan.processor = _make_processor(full, task, published)
    return plan


def _known_config(task: str, config: PreTrainedConfig | None, published: str | None) -> PreTrainedConfig | None:
    """Configuration that the caller passed, or that of the published checkpoint that the caller named."""
    if published is None:
        return config
    if config is not None:
        raise ValueError("Pass `config` or `published`, not both.")
    its_task = published_entry(published).task
    if its_task != task:
        raise ValueError(f"`published` {published!r} is a checkpoint for task={its_task!r}, not for {task!r}.")
    return published_config(published)


def _plan_backbone(
    checkpoint: Checkpoint,
    heads: set[str],
    task: str,
    config: PreTrainedConfig | None,
    overrides: dict[str, Any],
    own: dict[str, Any],
) -> Conversion:
    """The conversion of the backbone alone, with the attention of the published models."""
    fields = {name: value for name, value in overrides.items() if name not in own}
    light = any(name.rpartition("cls_token")[1] for name in checkpoint.shapes)
    if task == OBJECTS and config is None and not light:
        fields.setdefault("attention_type", "hybrid")
    rest = {name: shape for name, shape in checkpoint.shapes.items() if name not in heads}
    return convert_uniformer.plan_conversion(
        replace(checkpoint, shapes=rest),
        task="backbone",
        config=getattr(config, "backbone_config", None),
        **fields,
    )


def _with_stage(name: str) -> str:
    """Names of a detector with one stage as those of a cascade of one."""
    return ONE_STAGE.sub(r"roi_head.\1.0.", name)


def _our_name(name: str, task: str) -> str | None:
    """Our name of an official tensor outside the backbone."""
    for pattern, ours in DETECTOR_NAMES if task == OBJECTS else SEGMENTER_NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(r"\{(\w+)\}", lambda part: MODULES[part[1]], re.sub(pattern, ours, name))
    return None


def _detector_fields(shapes: Shapes, checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of a detector from tensor shapes."""
    box = "roi_head.bbox_head.0."
    classifier, pyramid = f"{box}fc_cls.weight", "neck.fpn_convs.0.conv.weight"
    missing = [name for name in (classifier, pyramid, "rpn_head.rpn_cls.weight") if name not in shapes]
    if missing:
        raise ValueError(
            f"{checkpoint.name} is not a Mask R-CNN or Cascade Mask R-CNN: {', '.join(missing)} is missing. "
            "task='backbone' converts the backbone of any detector."
        )
    return {
        "num_labels": shapes[classifier][0] - 1,
        "pyramid_size": shapes[pyramid][0],
        "num_box_stages": _count(shapes, r"roi_head\.bbox_head\.(\d+)\..+"),
        "box_convolutions": _count(shapes, r"roi_head\.bbox_head\.0\.shared_convs\.(\d+)\..+"),
        "box_layers": _count(shapes, r"roi_head\.bbox_head\.0\.shared_fcs\.(\d+)\..+"),
        "box_hidden_size": shapes[classifier][1],
        "use_masks": any(name.startswith("roi_head.mask_head.") for name in shapes),
        "mask_convolutions": _count(shapes, r"roi_head\.mask_head\.0\.convs\.(\d+)\..+"),
    }


def _segmenter_fields(shapes: Shapes, checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of a segmenter from tensor shapes."""
    classifier = "decode_head.conv_seg.weight"
    if classifier not in shapes:
        raise ValueError(
            f"{checkpoint.name} is not a UperNet or Semantic FPN: {classifier} is missing. task='backbone' converts "
            "the backbone of any segmenter."
        )
    fpn = any(re.fullmatch(SCALE_HEAD, name) for name in shapes)
    auxiliary = "auxiliary_head.conv_seg.weight"
    fields = {
        "num_labels": shapes[classifier][0],
        "decode_head": "fpn" if fpn else "upernet",
        "hidden_size": shapes[classifier][1],
        "use_auxiliary_head": auxiliary in shapes,
    }
    if auxiliary in shapes:
        fields["auxiliary_hidden_size"] = shapes[auxiliary][1]
    if fpn and "neck.fpn_convs.0.conv.weight" in shapes:
        fields["pyramid_size"] = shapes["neck.fpn_convs.0.conv.weight"][0]
    return fields


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers a pattern has at its group, from 0 on."""
    found = (re.fullmatch(pattern, name) for name in shapes)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _class_names(
    labels: str | Sequence[str] | None, count: int, given: dict[str, Any], task: str, checkpoint: Checkpoint
) -> list[str] | None:
    """Class names, or `None` to keep those of the caller."""
    names = class_names(labels)
    if names is None:
        known = [KNOWN_LABELS[task][count]] if count in KNOWN_LABELS[task] else []
        return default_names(count, given, checkpoint, known, certain=True)
    if len(names) != count:
        raise ValueError(
            f"`labels` does not fit: the head of {checkpoint.name} has {count} classes, not {len(names)}."
        )
    return names


def _make_processor(
    config: Any, task: str, published: str | None
) -> UniFormerDetectorImageProcessor | UniFormerSegmenterImageProcessor:
    """Processor with the published protocol."""
    if published is not None:
        made = UniFormerDetectorImageProcessor if task == OBJECTS else UniFormerSegmenterImageProcessor
        return made(**published_processor_kwargs(published))
    if task == OBJECTS:
        return UniFormerDetectorImageProcessor()
    divisor = SIZE_DIVISOR if config.decode_head == "fpn" else None
    ade20k = list(config.id2label.values()) == published_labels("ade20k")  # whose masks begin with unlabelled pixels
    return UniFormerSegmenterImageProcessor(size_divisor=divisor, do_reduce_labels=ade20k)


__all__ = ["plan_conversion"]
