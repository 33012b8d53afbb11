"""VideoMAE V2's published protocol."""

from .video_processing_key_frames import KeyFrameVideoProcessor, KeyFrameVideoProcessorKwargs


class VideoMAEV2VideoProcessorKwargs(KeyFrameVideoProcessorKwargs, total=False):
    """Nothing beyond the common fields."""


class VideoMAEV2VideoProcessor(KeyFrameVideoProcessor):
    """
    16 frames at stride 4, short side to 224 by bilinear interpolation without antialiasing (OpenCV's, in the official
    code), ImageNet normalisation.

    One centred view by default. The published numbers use `num_clips=5, num_crops=3` on Kinetics, UCF101 and HMDB51,
    and `frame_sampling="segment", num_clips=2, num_crops=3` on Something-Something V2 (official test scripts);
    converted checkpoints carry theirs.
    """

    valid_kwargs = VideoMAEV2VideoProcessorKwargs
    published_num_frames = 16
    frame_sampling = "dense"
    frame_stride = 4
    antialias = False
    resize_as_opencv = True


__all__ = ["VideoMAEV2VideoProcessor", "VideoMAEV2VideoProcessorKwargs"]
