"""LSTCL's protocol: that of its TimeSformer encoder, as the paper's own is not known to us."""

from .video_processing_base import ClipVideoProcessor, ClipVideoProcessorKwargs


class LstclVideoProcessorKwargs(ClipVideoProcessorKwargs, total=False):
    """Nothing beyond the common fields."""


class LstclVideoProcessor(ClipVideoProcessor):
    """
    8 frames at stride 32, short side to 224 by bilinear interpolation without antialiasing, mean 0.45 and deviation
    0.225 in every channel (TimeSformer's and SlowFast's). One centred view by default.
    """

    valid_kwargs = LstclVideoProcessorKwargs
    published_num_frames = 8
    frame_sampling = "dense"
    frame_stride = 32
    image_mean = [0.45, 0.45, 0.45]
    image_std = [0.225, 0.225, 0.225]
    antialias = False


__all__ = ["LstclVideoProcessor", "LstclVideoProcessorKwargs"]
