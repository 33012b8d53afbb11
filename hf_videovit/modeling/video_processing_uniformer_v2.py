"""UniFormerV2's published protocol."""

from collections.abc import Sequence

from transformers.image_utils import SizeDict

from .video_processing_base import output_size_by_ratio
from .video_processing_key_frames import KeyFrameVideoProcessor, KeyFrameVideoProcessorKwargs


class UniFormerV2VideoProcessorKwargs(KeyFrameVideoProcessorKwargs, total=False):
    """Nothing beyond the common fields."""


class UniFormerV2VideoProcessor(KeyFrameVideoProcessor):
    """
    8 frames, one from each of 8 segments of the whole video; short side to the crop's by bilinear interpolation of
    unrounded pixels without antialiasing; mean 0.45 and deviation 0.225 in every channel (neither CLIP's nor
    ImageNet's, which the authors' demos on the Hub use by mistake).

    One centred view by default. The published numbers use `num_clips=4, num_crops=3` on Kinetics and Moments in Time,
    3 x 1 for the frozen models, 1 x 3 on Something-Something and 10 x 3 on ActivityNet and HACS (released test
    scripts); converted checkpoints carry theirs. With one crop of Something-Something the official loader takes the
    left one; here it is the centre.
    """

    valid_kwargs = UniFormerV2VideoProcessorKwargs
    published_num_frames = 8
    frame_sampling = "sparse"
    image_mean = [0.45, 0.45, 0.45]
    image_std = [0.225, 0.225, 0.225]
    antialias = False
    round_resized = False
    crop_rounding = "up"

    def resized_size(self, current: Sequence[int], size: SizeDict) -> tuple[int, int]:
        """
        The ratio of the sides is computed first, as in the official code, so a long side can be a pixel shorter. See
        [`ClipVideoProcessor.resized_size`].
        """
        return output_size_by_ratio(current, size)


__all__ = ["UniFormerV2VideoProcessor", "UniFormerV2VideoProcessorKwargs"]
