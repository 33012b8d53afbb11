"""Rows of a card's tables: protocol, architecture, what a run was told and what it counted."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.image_utils import PILImageResampling


# Which saved fields of a run its card shows, in this order: group, field, words.
RUN_FACTS = (
    ("data", "data", "data"),
    ("data", "eval_data", "evaluation data"),
    ("model", "checkpoint", "started from"),
    ("model", "size", "size"),
    ("optimization", "epochs", "epochs"),
    ("optimization", "max_steps", "steps"),
    ("optimization", "batch_size", "batch size of a process"),
    ("optimization", "accumulation", "forward passes a step"),
    ("optimization", "learning_rate", "learning rate"),
    ("optimization", "weight_decay", "weight decay"),
    ("optimization", "layer_decay", "layer-wise learning-rate decay"),
    ("run", "mixed_precision", "mixed precision"),
    ("run", "seed", "seed"),
)
# Likewise of what a finished run counted.
COUNTED_FACTS = (
    ("num_train_videos", "training videos"),
    ("num_bad_train_videos", "of which unreadable"),
    ("steps", "optimiser steps done"),
    ("effective_batch", "videos a step"),
    ("hardware", "hardware"),
    ("seconds", "seconds"),
)


def protocol_rows(config: PreTrainedConfig, processor: Any) -> list[tuple[str, str]]:
    """What happens to a video or image between the file and the model's answer, as rows of a table."""
    rows = _clip_rows(config, processor) if hasattr(processor, "num_clips") else []
    if processor.do_resize:
        rows.append(("resize", f"{_size_words(processor.size)}, {_resampling_words(processor)}"))
    if processor.do_center_crop:
        rows.append(("crop", _size_words(processor.crop_size)))
    if hasattr(processor, "num_clips") and processor.do_grayscale:
        rows.append(("colours", "none: brightness in all channels"))
    if processor.do_normalize:
        rows.append(("normalisation", f"mean {_numbers(processor.image_mean)}, std {_numbers(processor.image_std)}"))
    return rows


def _clip_rows(config: PreTrainedConfig, processor: Any) -> list[tuple[str, str]]:
    """Frames, clips and crops."""
    num_frames = processor.num_frames or processor.published_num_frames or config.num_frames
    rate = processor.to_dict().get("frame_rate")
    sampling = {
        "dense": f"{num_frames} frames, " + (f"{rate:g} a second" if rate else f"{processor.frame_stride} apart"),
        "dense_cyclic": f"{num_frames} frames, {processor.frame_stride} apart, from the start again past the end",
        "segment": f"{num_frames} frames, one from each of {num_frames} equal segments",
        "span": f"{num_frames} frames, spread over {num_frames * processor.frame_stride} neighbouring ones",
        "sparse": f"{num_frames} frames, one from each of {num_frames} equal segments",
        "sparse_middle": f"{num_frames} frames, from the middle of each of {num_frames} equal segments",
        "uniform": f"{num_frames} frames, spread over the whole video",
    }
    rows: list[tuple[str, str]] = [("a clip", sampling[processor.frame_sampling])]
    merging = {"softmax_mean": ", probabilities averaged", "logits_mean": ", logits averaged"}
    views = f"{processor.num_clips} clips x {processor.num_crops} crops"
    views += merging.get(config.to_dict().get("view_merging", ""), "")
    return [*rows, ("views of a video", views if processor.num_views > 1 else "one")]


def _resampling_words(processor: Any) -> str:
    if not hasattr(processor, "num_clips"):  # image processors antialias
        return PILImageResampling(processor.resample).name.lower()
    return f"bilinear, {'with' if processor.antialias else 'without'} antialiasing"


def architecture_rows(config: PreTrainedConfig, auto_class: Any) -> list[tuple[str, str]]:
    """Class, size and input of a model, and how its blocks are built."""
    with torch.device("meta"):
        model = auto_class.from_config(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    frames = "" if config.to_dict().get("modality") == "image" else f"{config.num_frames} frames of "
    return [
        ("class", type(model).__name__),
        ("parameters", f"{parameters:,}"),
        ("input", f"{frames}{width} x {height} pixels"),
        *_block_rows(config),
    ]


def _block_rows(config: PreTrainedConfig) -> list[tuple[str, str]]:
    fields = config.to_dict()
    if "hidden_sizes" in fields:
        return [
            ("blocks of each stage", _numbers(config.depths)),
            ("width of each stage", _numbers(config.hidden_sizes)),
            ("width of an attention head", str(config.head_dim)),
        ]
    if "depths" in fields and hasattr(config, "hidden_sizes"):
        return [
            ("blocks of each stage", _numbers(config.depths)),
            ("width of each stage", _numbers(config.hidden_sizes)),
            ("heads of each stage", _numbers(config.num_heads)),
            ("window", "{} frames of {} x {} tokens".format(*config.window_size)),
            _token_row(config, fields),
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
    """How a model was trained: a table of `run.yaml` and of what the run counted."""
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
    """A Hub id unchanged; of a path only the name, since folders of one machine mean nothing on another."""
    return path if path is None or hub_id(path) else Path(path).name


def hub_id(name: str | None) -> str | None:
    """The name, if it is a Hub id and no path of this machine."""
    return name if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def _size_words(size: Mapping[str, int]) -> str:
    if size.get("shortest_edge"):
        return f"short side to {size['shortest_edge']}"
    return f"{size['width']} x {size['height']}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
