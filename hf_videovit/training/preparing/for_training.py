"""How to encode videos so that a run decodes them fast: chosen from the way in which the run samples and crops."""

from typing import Any

from ..data.processors import ClipProcessor
from .encoding import EncodingSettings


# Sampling of neighbouring frames at a stride; the others take frames from all over a video.
DENSE_SAMPLINGS = ("dense", "dense_cyclic", "span", "span_from_start")
REFERENCE_DISTANCES = (8, 4, 2, 1)
SPREAD_DISTANCE = 4
KEYFRAME_EVERY = 48
CRF = 17
ROOM = 8 / 7  # short side over the side of the crop, as 256 over 224


def training_encoding(
    processor: ClipProcessor, resized_sides: tuple[int, ...] = (), **overrides: Any
) -> EncodingSettings:
    """
    How to encode the videos of a run.

    All frames are kept, so that the run samples the same frames of a prepared video as of its original. Every
    `references_every`-th frame is one that others are decoded from: the stride of a dense sampling, or the power of
    two below it, and 4 where frames are taken from all over a video. The short side is the largest length that the
    run resizes to or crops from.

    Args:
        processor ([`ClipProcessor`]):
            The run's processor, which knows the sampling and the crop.
        resized_sides (`tuple[int, ...]`, *optional*, defaults to `()`):
            Lengths of the short side that the run's augmentation resizes to.
        overrides:
            Fields of [`EncodingSettings`] to use instead.

    Returns:
        [`EncodingSettings`]: settings that encode every video.

    Raises:
        ValueError: a field is out of range.
    """
    distance = SPREAD_DISTANCE
    if processor.frame_sampling in DENSE_SAMPLINGS:
        distance = next(one for one in REFERENCE_DISTANCES if one <= processor.frame_stride)
    resized, crop = processor.size, processor.crop_size
    short_side = resized.get("shortest_edge") or min(resized.get("height", 0), resized.get("width", 0))
    sides = [round(min(crop.get("height"), crop.get("width")) * ROOM), short_side, *resized_sides]
    chosen = {
        "short_side": max(sides) + max(sides) % 2,
        "crf": CRF,
        "keyframe_every": KEYFRAME_EVERY,
        "reencode": True,
        "references_every": distance,
    }
    return EncodingSettings(**(chosen | overrides))
