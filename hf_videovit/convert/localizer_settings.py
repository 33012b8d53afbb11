"""Settings of localisers in the official configuration files, which no tensor shape shows, as fields of ours."""

import ast
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


# Fields of ActionFormer's and TriDet's YAML files, section `model`, and ours.
MODEL = {
    "n_head": "num_attention_heads",
    "n_mha_win_size": "attention_window",
    "use_abs_pe": "use_absolute_positions",
    "max_seq_len": "max_sequence_length",
    "regression_range": "regression_ranges",
    "downsample_type": "sgp_downsampling",
    "init_conv_vars": "sgp_init_std",
    "k": "sgp_window_ratio",
    "iou_weight_power": "iou_weight_power",
    "input_noise": "input_noise",
}
TRAINING = {
    "cls_prior_prob": "classifier_prior",
    "init_loss_norm": "loss_normalizer",
    "head_empty_cls": "empty_labels",
    "dropout": "hidden_dropout_prob",
    "droppath": "drop_path_rate",
    "label_smoothing": "label_smoothing",
    "loss_weight": "regression_loss_weight",
}
DECODING = {
    "pre_nms_thresh": "score_threshold",
    "pre_nms_topk": "max_candidates",
    "iou_threshold": "iou_threshold",
    "min_score": "min_score",
    "max_seg_num": "max_segments",
    "nms_method": "nms_method",
    "nms_sigma": "nms_sigma",
    "duration_thresh": "min_length",
    "voting_thresh": "voting_threshold",
}
DATASET = {
    "num_frames": "feature_window",
    "default_fps": "feature_fps",
    "downsample_rate": "downsample_rate",
    "force_upsampling": "resize_to_max_length",
    "max_seq_len": "max_sequence_length",
}
# What OpenTAD's suppression does without a word in the file.
OPENTAD_NMS = {
    "use_soft_nms": True,
    "sigma": 0.5,
    "iou_threshold": 0.0,
    "min_score": 0.0,
    "max_seg_num": 100,
    "multiclass": True,
    "voting_thresh": 0.0,
}
Fields = dict[str, Any]


def read_settings(source: str | os.PathLike | Mapping[str, Any]) -> Mapping[str, Any]:
    """
    An official configuration file.

    Args:
        source (`str` or `os.PathLike` or `Mapping[str, Any]`):
            A YAML or JSON file, the `config.txt` that ActionFormer's training writes beside its checkpoints (a printed
            dict), or its content.

    Returns:
        `Mapping[str, Any]`: its content.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be read.
    """
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".txt":
            content = ast.literal_eval(text)
        else:
            content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, SyntaxError, yaml.YAMLError) as error:
        raise ValueError(f"`settings` {path.name} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"`settings` {path.name} must hold a mapping, got {type(content).__name__}.")
    return content


def localizer_fields(settings: Mapping[str, Any]) -> tuple[Fields, Fields]:
    """
    Fields of the configuration and of the processor.

    Args:
        settings (`Mapping[str, Any]`):
            Content of an official configuration file: of ActionFormer or TriDet with the sections `model`, `dataset`,
            `train_cfg` and `test_cfg`, or the first of them with the last two inside; or the `model` of OpenTAD.

    Returns:
        `tuple[dict, dict]`: fields of [`ActionFormerConfig`], and of [`TemporalLocalizationProcessor`].

    Raises:
        ValueError: the file has none of these.
    """
    model = settings.get("model", settings)
    if "projection" in model:
        return _of_opentad(model, settings)
    dataset = settings.get("dataset", {})
    training = {**model.get("train_cfg", {}), **settings.get("train_cfg", {})}
    testing = {**model.get("test_cfg", {}), **settings.get("test_cfg", {})}
    # the official code copies these two from the section `dataset`
    model = {**{name: dataset[name] for name in ("max_seq_len", "num_classes") if name in dataset}, **model}
    fields = {ours: model[theirs] for theirs, ours in MODEL.items() if theirs in model}
    if not fields:
        raise ValueError("`settings` has neither the section `model` of ActionFormer and TriDet nor that of OpenTAD.")
    if fields.get("sgp_downsampling") == "avg":
        fields["sgp_downsampling"] = "mean"
    fields |= {ours: training[theirs] for theirs, ours in TRAINING.items() if theirs in training}
    if training.get("center_sample") == "none":
        fields["center_sampling_radius"] = None
    elif "center_sample_radius" in training:
        fields["center_sampling_radius"] = training["center_sample_radius"]
    if fields.get("regression_loss_weight", 1) < 0:
        fields["regression_loss_weight"] = 0
    processor = {ours: dataset[theirs] for theirs, ours in DATASET.items() if theirs in dataset}
    if "feat_stride" in dataset:
        processor["feature_stride"] = dataset["feat_stride"] if dataset["feat_stride"] > 0 else None
    processor |= {ours: testing[theirs] for theirs, ours in DECODING.items() if theirs in testing}
    if "multiclass_nms" in testing:
        processor["class_agnostic"] = not testing["multiclass_nms"]
    return fields, processor


def _of_opentad(model: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Fields, Fields]:
    projection, head = model["projection"], model["rpn_head"]
    attention, points = projection.get("attn_cfg", {}), head.get("prior_generator", {})
    taken = (
        (attention, {"n_head": "num_attention_heads", "n_mha_win_size": "attention_window"}),
        (projection.get("conv_cfg", {}), {"proj_pdrop": "hidden_dropout_prob"}),
        (projection, {"path_pdrop": "drop_path_rate", "use_abs_pe": "use_absolute_positions"}),
        (projection, {"max_seq_len": "max_sequence_length"}),
        (points, {"regression_range": "regression_ranges"}),
        (head, {"cls_prior_prob": "classifier_prior", "loss_normalizer": "loss_normalizer"}),
        (head, {"loss_normalizer_momentum": "loss_normalizer_momentum", "label_smoothing": "label_smoothing"}),
        (head, {"loss_weight": "regression_loss_weight"}),
    )
    fields = {ours: section[theirs] for section, names in taken for theirs, ours in names.items() if theirs in section}
    fields["center_sampling_radius"] = (
        head.get("center_sample_radius", 1.5) if head.get("center_sample", "radius") == "radius" else None
    )
    return fields, {**_opentad_grid(settings), **_opentad_decoding(settings.get("post_processing", {}))}


def _opentad_decoding(processing: Mapping[str, Any]) -> Fields:
    """Choice of segments. What a file leaves out has the default of OpenTAD's function, not of our processor."""
    processor = {
        ours: processing[theirs]
        for theirs, ours in (("pre_nms_thresh", "score_threshold"), ("pre_nms_topk", "max_candidates"))
        if theirs in processing
    }
    if not processing.get("nms"):
        return processor
    nms = {**OPENTAD_NMS, **processing["nms"]}
    return {
        **processor,
        "nms_method": "soft" if nms["use_soft_nms"] else "hard",
        "nms_sigma": nms["sigma"],
        "iou_threshold": nms["iou_threshold"],
        "min_score": nms["min_score"],
        "max_segments": nms["max_seg_num"],
        "class_agnostic": not nms["multiclass"],
        "voting_threshold": nms["voting_thresh"],
    }


def _opentad_grid(settings: Mapping[str, Any]) -> Fields:
    """Where features lie in a video, by the data set's section for tests."""
    dataset = settings.get("dataset", {})
    dataset = dataset.get("test") or dataset.get("val") or dataset.get("train") or {}
    processor: Fields = {"feature_fps": dataset["fps"]} if dataset.get("fps", -1) > 0 else {}
    if "resize_length" in dataset:
        return {**processor, "feature_stride": None, "resize_to_max_length": True}
    if dataset.get("feature_stride", -1) > 0:
        processor["feature_stride"] = dataset["feature_stride"]
        processor["downsample_rate"] = dataset.get("sample_stride", 1)
        processor["feature_offset"] = dataset.get("offset_frames", 0)
    return processor


__all__ = ["localizer_fields", "read_settings"]
