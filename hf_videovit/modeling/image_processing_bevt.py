"""BEVT's images."""

from typing import Any

from transformers import BatchFeature
from transformers.image_utils import ImageInput, PILImageResampling
from transformers.processing_utils import ImagesKwargs, Unpack

from .image_processing_base import CentredImageProcessor
from .word_pixels import word_pixels


class BevtImageProcessorKwargs(ImagesKwargs, total=False):
    """
    Args:
        return_word_pixels (`bool`, *optional*, defaults to `False`):
            Whether to return the copies that the tokenizer of visual words sees, too.
    """

    return_word_pixels: bool | None


class BevtImageProcessor(CentredImageProcessor):
    """
    Short side to 224, a centred crop of 224 x 224, ImageNet normalisation; with `return_word_pixels=True` also
    `word_pixel_values`, the same crops at half the size for the tokenizer.
    """

    valid_kwargs = BevtImageProcessorKwargs
    resample = PILImageResampling.BICUBIC
    image_mean = [0.485, 0.456, 0.406]
    image_std = [0.229, 0.224, 0.225]
    size = {"shortest_edge": 224}
    crop_size = {"height": 224, "width": 224}
    default_to_square = False
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    return_word_pixels = False

    def __init__(self, **kwargs: Unpack[BevtImageProcessorKwargs]):
        super().__init__(**kwargs)

    def preprocess(self, images: ImageInput, *args: Any, **kwargs: Unpack[BevtImageProcessorKwargs]) -> BatchFeature:
        """
        Args:
            images:
                One image or a list of images.
            kwargs:
                Fields of the processor to replace for this call, and `return_tensors`.

        Returns:
            [`BatchFeature`] with `pixel_values` of shape `(num_images, num_channels, height, width)`, and
            `word_pixel_values` of half the height and width if asked for.
        """
        wanted = kwargs.pop("return_word_pixels", None)
        batch = super().preprocess(images, *args, **kwargs)
        if wanted or (wanted is None and self.return_word_pixels):
            grey = super().preprocess(
                images, *args, **{**kwargs, "do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
            )
            pixels = grey["pixel_values"]
            batch["word_pixel_values"] = word_pixels(pixels, (pixels.shape[-2] // 2, pixels.shape[-1] // 2))
        return batch


__all__ = ["BevtImageProcessor", "BevtImageProcessorKwargs"]
