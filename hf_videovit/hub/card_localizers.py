"""Rows on the card of a localiser in place of pixels and clips: features, pyramid, choice of segments."""

from typing import Any

import torch
from transformers import PreTrainedConfig


def feature_rows(processor: Any) -> list[tuple[str, str]]:
    """
    Rows on the features of a localiser and on the choice of segments.

    Args:
        processor ([`TemporalLocalizationProcessor`]):
            The checkpoint's processor.

    Returns:
        `list[tuple[str, str]]`: name and value of each row.
    """
    rate = f"{processor.feature_fps:g} frames per second" if processor.feature_fps else "the video's own frame rate"
    if processor.feature_stride is None:
        windows = "spread evenly over the whole video"
    else:
        windows = f"windows of {processor.feature_window:g} frames, {processor.feature_stride:g} apart, at {rate}"
    rows = [("features", f"{processor.feature_size} numbers; {windows}")]
    rows += [(name, str(value)) for name, value in (processor.feature_description or {}).items() if value is not None]
    if processor.resize_to_max_length:
        rows.append(("length", f"resized to {processor.max_sequence_length} steps"))
    classes = "all classes together" if processor.class_agnostic else "each class alone"
    kinds = {"soft": f"soft, sigma {processor.nms_sigma:g}", "hard": f"overlap {processor.iou_threshold:g}"}
    suppression = kinds.get(processor.nms_method, "none")
    rows.append(("suppression", f"{suppression}; {classes}; at most {processor.max_segments} segments a video"))
    if processor.class_agnostic and processor.voting_threshold:
        rows.append(("voting", f"mean of candidates that overlap by {processor.voting_threshold:g}"))
    return rows


def pyramid_rows(config: PreTrainedConfig, auto_class: Any) -> list[tuple[str, str]]:
    """
    Rows on a localiser: class, number of parameters, input, levels.

    Args:
        config ([`ActionFormerConfig`] or [`VideoTemporalLocalizerConfig`]):
            The model's configuration.
        auto_class (`Any`):
            The auto class that builds the model.

    Returns:
        `list[tuple[str, str]]`: name and value of each row.
    """
    with torch.device("meta"):
        model = auto_class.from_config(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = [("class", type(model).__name__), ("parameters", f"{parameters:,}")]
    encoder = getattr(config, "encoder_config", None)
    if encoder is not None:
        part = sum(parameter.numel() for parameter in model.encoder.parameters())
        rows.append(("encoder", f"{encoder.model_type}, {part:,} parameters, {config.encoder_training} in training"))
        config = config.localizer_config  # type: ignore[attr-defined]
    windows = ", ".join("all" if window < 0 else str(window) for window in config.attention_windows)
    rows += [
        ("input", f"features of size {', '.join(map(str, config.feature_sizes))}"),
        ("levels, width", f"{config.num_levels}, {config.hidden_size}"),
    ]
    if config.block_type == "transformer":
        rows += [("heads", str(config.num_attention_heads)), ("window of each level", windows)]
    return rows


def localizer_limits(config: PreTrainedConfig) -> list[str]:
    """
    Limits of a localiser.

    Args:
        config ([`ActionFormerConfig`] or [`VideoTemporalLocalizerConfig`]):
            The model's configuration.

    Returns:
        `list[str]`: a sentence or more each.
    """
    reads = (
        "The model reads features, not frames: they must be made by the encoder and in the way of the protocol above."
    )
    if hasattr(config, "encoder_config"):
        reads = "Segments are placed as finely as the windows of the protocol above allow."
    limits = [
        reads,
        f"Each of the {config.num_labels} labels has a separate score; choose a threshold for your use.",
    ]
    if config.num_labels == 1:
        limits[1] = "Segments have no names: a classifier of whole videos gives them (`class_scores`)."
    return limits


__all__ = ["feature_rows", "localizer_limits", "pyramid_rows"]
