"""Rows of the tables of a card: protocol, architecture, settings and counts of a run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.image_utils import PILImageResampling

from ..modeling.configuration_base import frame_size
from ..modeling.image_processing_uniformer_dense import UniFormerSegmenterImageProcessor


# Saved fields of a run that its card shows, in this order: group, field, label.
RUN_FACTS = (
    ("data", "data", "data"),
    ("data", "eval_data", "evaluation data"),
    ("model", "checkpoint", "started from"),
    ("model", "size", "size"),
    ("optimization", "epochs", "epochs"),
    ("optimization", "max_steps", "steps"),
    ("optimization", "batch_size", "batch size per process"),
    ("optimization", "accumulation", "forward passes per step"),
    ("optimization", "learning_rate", "learning rate"),
    ("optimization", "weight_decay", "weight decay"),
    ("optimization", "layer_decay", "layer-wise learning-rate decay"),
    ("run", "mixed_precision", "mixed precision"),
    ("run", "seed", "seed"),
)
# Counts of a finished run that its card shows: name, label.
COUNTED_FACTS = (
    ("num_train_videos", "training videos"),
    ("num_bad_train_videos", "of which unreadable"),
    ("steps", "optimiser steps done"),
    ("effective_batch", "videos per step"),
    ("hardware", "hardware"),
    ("seconds", "seconds"),
)


def protocol_rows(config: PreTrainedConfig, processor: Any, *, detects: bool = False) -> list[tuple[str, str]]:
    """
    Rows on the processing of a video or an image: sampling, views, resizing, cropping, normalisation.

    Args:
        config ([`PreTrainedConfig`]):
            The model's configuration.
        processor (`Any`):
            The checkpoint's video or image processor.
        detects (`bool`, *optional*, defaults to `False`):
            Whether the model is for action detection.

    Returns:
        `list[tuple[str, str]]`: name and value of each row.
    """
    rows = [] if detects or not hasattr(processor, "num_clips") else _clip_rows(config, processor)
    if detects:
        rows = _key_frame_rows(config, processor)
    if processor.do_resize:
        rows.append(("resize", f"{_size_words(processor.size)}, {_resampling_words(processor)}"))
    divisor = getattr(processor, "size_divisor", 1)
    if divisor > 1:
        how = "padded at the bottom and on the right" if getattr(processor, "do_pad", False) else "rounded up"
        rows.append(("sides", f"{how} to multiples of {divisor} pixels"))
    if isinstance(processor, UniFormerSegmenterImageProcessor):
        rows.append(("evaluation", _segmentation_words(processor)))
    if getattr(processor, "do_center_crop", False):
        rows.append(("crop", _size_words(processor.crop_size)))
    if hasattr(processor, "num_clips") and processor.do_grayscale:
        rows.append(("colours", "none: greyscale in all channels"))
    if processor.do_normalize:
        pixels = ", for pixels from 0 to 255" if processor.rescale_factor == 1 else ""
        statistics = f"mean {_numbers(processor.image_mean)}, std {_numbers(processor.image_std)}"
        rows.append(("normalisation", statistics + pixels))
    return rows


def _segmentation_words(processor: UniFormerSegmenterImageProcessor) -> str:
    """How an evaluation of semantic segmentation sees an image."""
    words = ["whole image"]
    if processor.window_size is not None:
        words = [f"windows of {processor.window_size} pixels, {processor.window_stride} apart"]
    if processor.test_scales != [1.0]:
        words.append(f"sizes times {', '.join(f'{scale:g}' for scale in processor.test_scales)}")
    if processor.flip_test:
        words.append("mirrored too")
    return "; ".join(words)


def _clip_rows(config: PreTrainedConfig, processor: Any) -> list[tuple[str, str]]:
    """Frames, clips and crops."""
    num_frames = processor.num_frames or processor.published_num_frames or config.num_frames
    rate = processor.to_dict().get("frame_rate")
    sampling = {
        "dense": f"{num_frames} frames, " + (f"{rate:g} per second" if rate else f"{processor.frame_stride} apart"),
        "dense_cyclic": f"{num_frames} frames, {processor.frame_stride} apart, cyclic past the end",
        "segment": f"{num_frames} frames, one from each of {num_frames} equal segments",
        "span": f"{num_frames} frames, spread over {num_frames * processor.frame_stride} consecutive ones",
        "span_from_start": f"{num_frames} frames, spread over {num_frames * processor.frame_stride} consecutive ones",
        "sparse": f"{num_frames} frames, one from each of {num_frames} equal segments",
        "sparse_middle": f"{num_frames} frames, from the middle of each of {num_frames} equal segments",
        "uniform": f"{num_frames} frames, spread over the whole video",
    }
    rows: list[tuple[str, str]] = [("clip", sampling[processor.frame_sampling])]
    merging = {"softmax_mean": ", probabilities averaged", "logits_mean": ", logits averaged"}
    views = f"{processor.num_clips} clips x {processor.num_crops} crops"
    views += merging.get(config.to_dict().get("view_merging", ""), "")
    return [*rows, ("views per video", views if processor.num_views > 1 else "one")]


def _key_frame_rows(config: PreTrainedConfig, processor: Any) -> list[tuple[str, str]]:
    """Frames around a key-frame, and how boxes are read."""
    num_frames = processor.num_frames or processor.published_num_frames or config.num_frames
    rate = f" at {processor.sampling_fps:g} frames per second" if processor.sampling_fps else ""
    head = config.detection_config
    width, height = (f"{100 * share:g} %" for share in head.box_enlargement)
    enlarged = f", enlarged by {width} of the width and {height} of the height" if any(head.box_enlargement) else ""
    return [
        ("clip", f"{num_frames} frames, {processor.frame_stride} apart{rate}, around the key-frame"),
        ("padding", f"at the bottom and right, to multiples of {processor.pad_multiple} pixels"),
        ("boxes", f"{processor.box_convention} corners{enlarged}"),
        ("features of a box", f"{head.roi_size} x {head.roi_size} samples, {head.spatial_pooling} over them"),
    ]


def _resampling_words(processor: Any) -> str:
    if not hasattr(processor, "num_clips"):  # image processors antialias
        return PILImageResampling(processor.resample).name.lower()
    return f"bilinear, {'with' if processor.antialias else 'without'} antialiasing"


def architecture_rows(config: PreTrainedConfig, auto_class: Any) -> list[tuple[str, str]]:
    """
    Rows on a model: class, number of parameters, input size and blocks.

    Args:
        config ([`PreTrainedConfig`]):
            The model's configuration.
        auto_class (`Any`):
            The auto class that builds the model.

    Returns:
        `list[tuple[str, str]]`: name and value of each row.
    """
    with torch.device("meta"):
        model = auto_class.from_config(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if hasattr(config, "backbone_config") and not hasattr(config, "image_size"):
        return [
            ("class", type(model).__name__),
            ("parameters", f"{parameters:,}"),
            ("backbone", type(model.backbone).__name__),
            *_block_rows(config.backbone_config),
        ]
    height, width = frame_size(config.image_size)
    frames = "" if config.to_dict().get("modality") == "image" else f"{config.num_frames} frames of "
    return [
        ("class", type(model).__name__),
        ("parameters", f"{parameters:,}"),
        ("input", f"{frames}{width} x {height} pixels"),
        *_block_rows(config),
    ]


def _block_rows(config: PreTrainedConfig) -> list[tuple[str, str]]:
    fields = config.to_dict()
    if "head_dim" in fields:
        return [
            ("blocks of each stage", _numbers(config.depths)),
            ("width of each stage", _numbers(config.hidden_sizes)),
            ("width of an attention head", str(config.head_dim)),
        ]
    if fields.get("hidden_sizes"):
        return [
            ("blocks of each stage", _numbers(config.depths)),
            ("width of each stage", _numbers(config.hidden_sizes)),
            ("heads of each stage", _numbers(config.num_attention_heads)),
            ("window", "{} frames of {} x {} tokens".format(*config.window_size)),
            _token_row(config, fields),
        ]
    if "code_size" in fields:
        return [
            ("residual blocks, width", f"{config.num_hidden_layers} on each side, {config.hidden_size}"),
            ("words", f"{config.vocab_size}, each a vector of {config.code_size} numbers"),
            ("area of a word", f"{config.patch_size} x {config.patch_size} pixels of a frame at half its size"),
        ]
    widths = f"{config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads}"
    return [("blocks, width, heads", widths), _token_row(config, fields)]


def _token_row(config: PreTrainedConfig, fields: Mapping[str, Any]) -> tuple[str, str]:
    if "tubes" in fields:
        kernels = ", ".join(" x ".join(map(str, tube["kernel"])) for tube in fields["tubes"])
        return "tubes", f"{kernels} (frames x height x width)"
    if "tubelet_size" in fields:
        return "tubelet", f"{config.tubelet_size} frames of {config.patch_size} x {config.patch_size} pixels"
    return "patch", f"{config.patch_size} x {config.patch_size} pixels of one frame"


def run_lines(run: Mapping[str, Any], counted: Mapping[str, Any]) -> list[str]:
    """
    Markdown lines on the training of a model.

    Args:
        run (`Mapping[str, Any]`):
            The content of `run.yaml`, by group of arguments.
        counted (`Mapping[str, Any]`):
            The counts of the run, see [`~cards.write_model_card`].

    Returns:
        `list[str]`: the entries of `about`, and a table of settings and counts.
    """
    rows = []
    for group, name, words in RUN_FACTS:
        value = run.get(group, {}).get(name)
        if value is not None:
            rows.append(f"| {words} | {last_part(value) if name in ('data', 'eval_data', 'checkpoint') else value} |")
    rows += [f"| {words} | {counted[name]} |" for name, words in COUNTED_FACTS if counted.get(name)]
    rows += [f"| {words} | {value} |" for words, value in counted.get("outcomes", {}).items()]
    about = [f"{key}: {value}  " for key, value in run.get("about", {}).items()]
    return [*about, "", "| | |", "|---|---|", *rows] if rows else about


def last_part(path: str | None) -> str | None:
    """
    Shorten a local path to its name, because folders of one machine mean nothing on another.

    Args:
        path (`str`):
            A path or a Hub id.

    Returns:
        `str`, *optional*: a Hub id unchanged, the last part of a path, or `None`.
    """
    return path if path is None or hub_id(path) else Path(path).name


def hub_id(name: str | None) -> str | None:
    """
    Tell a Hub id from a local path.

    Args:
        name (`str`):
            A path or a Hub id.

    Returns:
        `str`, *optional*: the name if it is a Hub id, otherwise `None`.
    """
    return name if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def _size_words(size: Mapping[str, int]) -> str:
    if size.get("shortest_edge"):
        longest = f", the long one to at most {size['longest_edge']}" if size.get("longest_edge") else ""
        return f"short side to {size['shortest_edge']}{longest}"
    return f"{size['width']} x {size['height']}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
