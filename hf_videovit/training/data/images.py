"""Image files as clips of one frame: a source of image files, and processors that read them."""

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.video_utils import VideoMetadata

from ...modeling.image_processing_tubevit import TubeViTImageProcessor
from ...modeling.image_processing_uniformer import UniFormerImageProcessor
from ...modeling.video_decoding import VideoDecodingError, source_name
from ...modeling.video_decoding_types import PICTURE_SUFFIXES
from ...modeling.video_processing_base import ClipVideoProcessor
from ...modeling.video_processing_bevt import BevtVideoProcessor
from ...modeling.video_processing_tubevit import TubeViTVideoProcessor
from ...modeling.video_processing_uniformer import UniFormerVideoProcessor
from .folders import folder_source
from .lists import LIST_SUFFIXES, list_source
from .manifest import read_label_names
from .opening import list_splits, split_folder, warn_of_remarks
from .processors import ClipProcessor
from .sources import EVAL_SPLITS, VideoList


class ImageFileMixin(ClipVideoProcessor):
    """
    Reads image files as clips of one frame. It precedes the video processor of a family in the bases of a class, so
    that images are cropped and normalised like frames of that processor.
    """

    def _load(
        self, video: Any, metadata: VideoMetadata | None, options: dict[str, Any]
    ) -> tuple[torch.Tensor, VideoMetadata]:
        if isinstance(video, str | os.PathLike):
            video = [read_image(video)]
        return super()._load(video, metadata, options | {"do_sample_frames": False})


class ImageFileTubeViTVideoProcessor(ImageFileMixin, TubeViTVideoProcessor):
    """The processor of TubeViT for image files."""


class ImageFileBevtVideoProcessor(ImageFileMixin, BevtVideoProcessor):
    """The processor of BEVT for image files."""


class ImageFileUniFormerVideoProcessor(ImageFileMixin, UniFormerVideoProcessor):
    """Reads image files like [`UniFormerImageProcessor`], and is saved as that processor."""

    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    resample = PILImageResampling.BICUBIC
    antialias = True

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """
        Save an image processor of the same size.

        Args:
            save_directory (`str` or `os.PathLike`):
                Folder that receives the configuration.
        """
        image_processor = UniFormerImageProcessor(size=dict(self.size), crop_size=dict(self.crop_size))
        return image_processor.save_pretrained(save_directory, *args, **kwargs)


IMAGE_READERS: dict[type, type[ImageFileMixin]] = {
    BevtVideoProcessor: ImageFileBevtVideoProcessor,
    TubeViTVideoProcessor: ImageFileTubeViTVideoProcessor,
}


def image_reader(processor: ClipProcessor) -> ImageFileMixin:
    """
    A processor that treats image files as a video processor treats frames.

    Args:
        processor ([`ClipVideoProcessor`]):
            The video processor of a family that is also trained on images.

    Returns:
        [`ImageFileMixin`]: the processor of image files.

    Raises:
        ValueError: the family is not trained on images.
    """
    if type(processor) not in IMAGE_READERS:
        raise ValueError(
            f"`processor` must be one of {[one.__name__ for one in IMAGE_READERS]} to read images, got "
            f"{type(processor).__name__}"
        )
    known = processor.valid_kwargs.__annotations__
    fields = {name: value for name, value in processor.to_dict().items() if name in known}
    return IMAGE_READERS[type(processor)](**fields | {"num_frames": 1, "num_clips": 1, "num_crops": 1})


def image_processor(processor: ClipProcessor) -> TubeViTImageProcessor:
    """
    The image processor with the settings of a video processor, for a model that is used on images only.

    Args:
        processor ([`TubeViTVideoProcessor`]):
            The video processor.

    Returns:
        [`TubeViTImageProcessor`]: the image processor.

    Raises:
        ValueError: the video processor removes colours, which the image processor cannot do.
    """
    if processor.do_grayscale:
        raise ValueError(
            "`do_grayscale` must be false if images are also classified, because their processor keeps colours"
        )
    names = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")
    switches = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    known = {name: value for name, value in processor.to_dict().items() if name in (*names, *switches)}
    return TubeViTImageProcessor(**{name: value for name, value in known.items() if value is not None})


def read_image(path: str | os.PathLike) -> Image.Image:
    """
    Read an image file in RGB and in upright orientation.

    Args:
        path (`str` or `os.PathLike`):
            The file.

    Returns:
        `PIL.Image.Image`: the image.

    Raises:
        VideoDecodingError: the file is missing or damaged. The training loop counts it as an unreadable video.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image.convert("RGB"))
    except FileNotFoundError as error:
        raise VideoDecodingError(source_name(path), "PIL", "there is no such file", kind="missing") from error
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VideoDecodingError(source_name(path), "PIL", str(error), kind="undecodable") from error


def open_images(data: str | Path, train_split: str = "train") -> tuple[VideoList, VideoList | None]:
    """
    Labelled image files.

    Args:
        data (`str` or `Path`):
            `{data}/{split}/{class}/*.jpg`, `{data}/{class}/*.jpg`, or a list (CSV, TSV, JSON, JSONL).
        train_split (`str`, *optional*, defaults to `"train"`):
            The split to train on, if there are splits.

    Returns:
        `tuple[VideoList, VideoList | None]`: the images to train on, and the images to evaluate on if there is such a
        split.

    Raises:
        ValueError: there are no such images, or no such split.
    """
    path = Path(data).expanduser()
    splits = list_splits(path, suffixes=PICTURE_SUFFIXES)
    if splits and train_split not in splits:
        raise ValueError(f"`train_split` must be one of {', '.join(splits)} in {str(data)!r}, got {train_split!r}")
    held_out = next((split for split in EVAL_SPLITS if split in splits), None)
    train = _open(path, train_split if splits else None)
    evaluation = None if held_out is None else _open(path, held_out).with_label_names(train.label_names)
    warn_of_remarks("training", train)
    warn_of_remarks("evaluation", evaluation)
    return train, evaluation


def _open(path: Path, split: str | None) -> VideoList:
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        source = list_source(path, split)
        if isinstance(source, VideoList):
            return source
    if not path.is_dir():
        raise ValueError(f"{str(path)!r} must be a folder of classes of images or a list of image files")
    return folder_source(
        path if split is None else split_folder(path, split), read_label_names(path), PICTURE_SUFFIXES
    )
