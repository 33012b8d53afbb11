"""Processors of published localisers, from their entries and configurations."""

from typing import Any


def feature_processor_fields(config: Any) -> dict[str, Any]:
    """
    Fields of the processor of a localiser that its configuration determines.

    Args:
        config ([`ActionFormerConfig`]):
            Configuration of the localiser.

    Returns:
        `dict[str, Any]`: fields of [`TemporalLocalizationProcessor`].
    """
    return {
        "max_sequence_length": config.max_sequence_length,
        "length_multiple": config.length_multiple,
        "pad_to_max_length": config.padding_mode != "zeros",
        "feature_size": sum(config.feature_sizes),
    }


def frame_processor_fields(protocol: Any) -> dict[str, Any]:
    """
    Fields of the video processor of a localiser with its encoder.

    Args:
        protocol ([`PublishedProtocol`]):
            Protocol of the entry.

    Returns:
        `dict[str, Any]`: fields of the encoder's video processor.
    """
    side = protocol.image_size
    return {
        "num_frames": protocol.num_frames,
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": list(protocol.image_mean),
        "image_std": list(protocol.image_std),
        "antialias": protocol.antialias,
    }


__all__ = ["feature_processor_fields", "frame_processor_fields"]
