"""The published protocol of UniFormer's image models."""

from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs, Unpack

from .image_processing_base import CentredImageProcessor


class UniFormerImageProcessorKwargs(ImagesKwargs, total=False):
    """Nothing beyond the common fields."""


class UniFormerImageProcessor(CentredImageProcessor):
    """
    Short side to 256 by bicubic interpolation, a centred crop of 224 x 224, ImageNet normalisation: the official
    evaluation, `int(256 / 224 * size)` before a crop of `size`.

    For dense prediction hand over `do_center_crop=False` and the size that the task asks for; token-labelled models at
    384 pixels have `size={"shortest_edge": 438}` and a crop of 384.
    """

    valid_kwargs = UniFormerImageProcessorKwargs
    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 256}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def __init__(self, **kwargs: Unpack[UniFormerImageProcessorKwargs]):
        super().__init__(**kwargs)


__all__ = ["UniFormerImageProcessor", "UniFormerImageProcessorKwargs"]
