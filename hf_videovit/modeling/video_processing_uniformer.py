"""The published protocol of UniFormer's video models."""

from .video_processing_uniformer_v2 import UniFormerV2VideoProcessor, UniFormerV2VideoProcessorKwargs


class UniFormerVideoProcessorKwargs(UniFormerV2VideoProcessorKwargs, total=False):
    """Nothing beyond the common fields."""


class UniFormerVideoProcessor(UniFormerV2VideoProcessor):
    """
    16 frames spread over 64 neighbouring ones; pixels as in UniFormerV2, which took its loaders over: short side to
    the crop's by bilinear interpolation of unrounded pixels without antialiasing, mean 0.45 and deviation 0.225.

    One centred view by default. The published numbers use `num_clips=4` on Kinetics, `num_clips=5, num_crops=3` on
    UCF101 and HMDB51, `frame_sampling="sparse", num_crops=3` on Something-Something, and `frame_sampling="sparse"`
    with one view for the light models (released test scripts); converted checkpoints carry theirs.
    """

    valid_kwargs = UniFormerVideoProcessorKwargs
    published_num_frames = 16
    frame_sampling = "span"
    frame_stride = 4


__all__ = ["UniFormerVideoProcessor", "UniFormerVideoProcessorKwargs"]
