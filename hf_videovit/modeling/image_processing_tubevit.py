"""TubeViT's images."""

from transformers.image_utils import PILImageResampling

from .image_processing_base import CentredImageProcessor


class TubeViTImageProcessor(CentredImageProcessor):
    """
    Short side to 224, centre crop, mean and deviation 0.5: as [`TubeViTVideoProcessor`] does with frames, so that one
    model sees both alike. The paper states the crop's size only.
    """

    resample = PILImageResampling.BILINEAR
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"shortest_edge": 224}
    crop_size = {"height": 224, "width": 224}
    default_to_square = False
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True


__all__ = ["TubeViTImageProcessor"]
