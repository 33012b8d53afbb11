"""Images with a label for every pixel: folders as ADE20K has them, lists, and the functions that read them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ...modeling.video_decoding import VideoDecodingError, source_name
from ...modeling.video_decoding_types import PICTURE_SUFFIXES
from ...published import published_labels
from .augmentation import sample_seed
from .images import read_image
from .lists import LIST_SUFFIXES, choose_column, read_rows
from .loaders import Record
from .manifest import read_label_names
from .segmentation_augmentation import SegmentationAugmentation
from .sources import EVAL_SPLITS, IndexedSource, Sample, fingerprint, shuffled_indices


IGNORED = 255  # of a pixel without a label, in masks and for the loss
IMAGES, MASKS = "images", "annotations"
IMAGE_COLUMNS, MASK_COLUMNS = ("image", "image_path", "path"), ("mask", "mask_path", "annotation", "segmentation")
OTHER_NAMES = {"train": ("training",), "val": ("validation",), "validation": ("val",)}
ADE20K_NAMES = "objectInfo150.txt"  # in the folder of ADE20K's challenge


@dataclass(frozen=True)
class SegmentationSample(Sample):
    """
    An image with its mask.

    Args:
        id, video, label:
            See [`Sample`]. `video` is the path of the image, and there is no label of the whole.
        mask (`str`):
            Path of the mask.
    """

    mask: str


class SegmentationSource(IndexedSource):
    """
    Images with masks of labels.

    Args:
        pairs (`Sequence[tuple[str, str, str]]`):
            Unique name, path of the image and path of the mask. Files need not exist: those that cannot be read are
            reported as unreadable samples.
        label_names (`Sequence[str]`):
            Names of the labels in the order of their indices.
        remarks (`Sequence[str]`, *optional*, defaults to `()`):
            See [`VideoSource`].

    Raises:
        ValueError: there are too many labels for 8 bits, or none.
    """

    def __init__(self, pairs: Sequence[tuple[str, str, str]], label_names: Sequence[str], remarks: Sequence[str] = ()):
        if not 0 < len(label_names) < IGNORED:
            raise ValueError(f"`label_names` must be 1 to {IGNORED - 1} names, got {len(label_names)}")
        self.pairs, self.label_names, self.num_samples = list(pairs), list(label_names), len(pairs)
        self.remarks = tuple(remarks)

    def __getitem__(self, index: int) -> SegmentationSample:
        name, image, mask = self.pairs[index]
        return SegmentationSample(name, image, None, mask)

    def with_label_names(self, label_names: Sequence[str]) -> "SegmentationSource":
        """
        The same images. Values of masks have no names of their own, so the names must be the same.

        Args:
            label_names (`Sequence[str]`):
                Names of the model's labels.

        Returns:
            [`SegmentationSource`]

        Raises:
            ValueError: the names are others, or in another order.
        """
        if list(label_names) != self.label_names:
            different = next(
                (pair for pair in zip(self.label_names, label_names) if pair[0] != pair[1]), ("their number", "")
            )
            raise ValueError(
                f"The labels of the masks must be those of the model, in the same order: {len(self.label_names)} and "
                f"{len(label_names)} labels differ in {different[0]!r}"
            )
        return self

    def fingerprint(self) -> str:
        """See [`VideoSource.fingerprint`]."""
        return fingerprint(self.num_samples, [self.label_names, [name for name, _, _ in self.pairs]])

    def sample(self, count: int | None, seed: int) -> "SegmentationSource":
        """
        Select images at random.

        Args:
            count (`int` or `None`):
                Largest number of images; `None` for all.
            seed (`int`):
                Seed of the choice.

        Returns:
            [`SegmentationSource`]: the images, in the order of this source.
        """
        if count is None or count >= self.num_samples:
            return self
        chosen = sorted(shuffled_indices(self.num_samples, seed, 0)[:count].tolist())
        return SegmentationSource([self.pairs[index] for index in chosen], self.label_names, self.remarks)

    def with_masks_of_others(self, seed: int) -> "SegmentationSource":
        """
        The same images, each with the mask of another one.

        Args:
            seed (`int`):
                Seed of the order.

        Returns:
            [`SegmentationSource`]
        """
        order = shuffled_indices(self.num_samples, seed, 0).tolist()
        partner = dict(zip(order, [*order[1:], *order[:1]]))  # one circle: nobody keeps its own
        pairs = [(name, image, self.pairs[partner[row]][2]) for row, (name, image, _) in enumerate(self.pairs)]
        return SegmentationSource(pairs, self.label_names, self.remarks)


def open_segmentation(
    data: str | Path,
    split: str | None = "train",
    *,
    root: str | Path | None = None,
    label_names: Sequence[str] | None = None,
) -> SegmentationSource | None:
    """
    Open images with masks.

    Args:
        data (`str` or `Path`):
            A folder with `images/SPLIT` and `annotations/SPLIT`, or with `images` and `annotations`; a mask has the
            name of its image and any suffix. Or a list (CSV, JSON, JSONL) with the columns `image` and `mask`, and
            perhaps `split`.
        split (`str`, *optional*, defaults to `"train"`):
            The split. `train` also means `training`, and `val` means `validation`. `None` for the first split to
            evaluate on.
        root (`str` or `Path`, *optional*):
            Folder that the paths of a list are relative to. Defaults to that of the list.
        label_names (`Sequence[str]`, *optional*):
            Names of the labels. Defaults to `labels.json` in the folder, or to ADE20K's where its
            `objectInfo150.txt` is.

    Returns:
        [`SegmentationSource`] or `None`: `None` if there is no split to evaluate on.

    Raises:
        ValueError: there are no such images, or the labels have no names.
    """
    path = Path(data).expanduser()
    if not path.exists():
        raise ValueError(f"`data` {str(path)!r} does not exist: a folder or a list of images and masks is needed")
    if path.suffix.lower() in LIST_SUFFIXES:
        pairs = _listed(path, split, Path(root) if root else path.parent)
    elif path.is_dir():
        pairs = _in_folders(path, split)
    else:
        raise ValueError(
            f"`data` {str(data)!r} must be a folder with {IMAGES} and {MASKS}, or a list "
            f"({', '.join(LIST_SUFFIXES)}) of images and masks"
        )
    if pairs is None:
        return None
    if not pairs:
        raise ValueError(f"`data` {str(data)!r} has no images of the split {split!r}")
    return SegmentationSource(pairs, label_names or _label_names(path if path.is_dir() else path.parent))


def _label_names(folder: Path) -> list[str]:
    found = read_label_names(folder)
    if found is None and (folder / ADE20K_NAMES).is_file():
        found = published_labels("ade20k")
    if found is None:
        raise ValueError(f"`label_names` is needed: {str(folder)!r} has no labels.json with the names of the labels")
    return list(found)


def _of_split(names: Sequence[str], split: str | None, what: str) -> str | None:
    """The name of a split among those that exist; `None` where there is none to evaluate on."""
    if split is None:
        return next((name for name in EVAL_SPLITS if name in names), None)
    found = next((name for name in (split, *OTHER_NAMES.get(split, ())) if name in names), None)
    if found is None:
        raise ValueError(f"{what} has the splits {', '.join(sorted(names)) or 'none'}, not {split!r}")
    return found


def _in_folders(path: Path, split: str | None) -> list[tuple[str, str, str]] | None:
    images, masks = path / IMAGES, path / MASKS
    if not images.is_dir() or not masks.is_dir():
        raise ValueError(f"`data` {str(path)!r} must contain the folders {IMAGES} and {MASKS}")
    splits = sorted(one.name for one in images.iterdir() if one.is_dir())
    if splits:
        name = _of_split(splits, split, f"`data` {str(path)!r}")
        if name is None:
            return None
        images, masks = images / name, masks / name
    elif split is None:
        return None
    known = {one.stem: one for one in sorted(masks.iterdir()) if one.is_file()} if masks.is_dir() else {}
    pictures = sorted(one for one in images.iterdir() if one.suffix.lower() in PICTURE_SUFFIXES)
    if pictures and not any(one.stem in known for one in pictures):
        raise ValueError(
            f"`data`: {str(masks)!r} has no mask with the name of an image, such as {pictures[0].stem}.png"
        )
    return [(one.name, str(one), str(known.get(one.stem, masks / f"{one.stem}.png"))) for one in pictures]


def _listed(path: Path, split: str | None, root: Path) -> list[tuple[str, str, str]] | None:
    rows, what = read_rows(path), f"`data` {str(path)!r}"
    columns = list(rows[0])
    image, mask = (
        choose_column(None, columns, usual, name) for usual, name in ((IMAGE_COLUMNS, "image"), (MASK_COLUMNS, "mask"))
    )
    if image is None or mask is None:
        missing = "image" if image is None else "mask"
        raise ValueError(f"{what} must have a column {missing!r}, its columns are {', '.join(columns)}")
    if "split" in columns:
        name = _of_split(sorted({str(row["split"]) for row in rows}), split, what)
        rows = [row for row in rows if name is not None and str(row["split"]) == name]
    if split is None and ("split" not in columns or not rows):
        return None
    pairs = [(str(row[image]), str(root / str(row[image])), str(root / str(row[mask]))) for row in rows]
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise ValueError(f"{what} names an image more than once")
    return pairs


def read_mask(path: str | os.PathLike, num_labels: int, *, reduce: bool) -> torch.Tensor:
    """
    Read a mask.

    Args:
        path (`str` or `os.PathLike`):
            A picture with one value a pixel.
        num_labels (`int`):
            Number of labels.
        reduce (`bool`):
            Whether 0 is a pixel without a label, and 1 the first label, as in ADE20K. Otherwise 0 is the first.

    Returns:
        `torch.Tensor` of shape `(height, width)`: uint8, 255 for pixels without a label.

    Raises:
        ValueError: the mask has colours, or a value beyond the labels.
        VideoDecodingError: the file is missing or damaged.
    """
    try:
        with Image.open(path) as picture:
            values = np.array(picture)
    except FileNotFoundError as error:
        raise VideoDecodingError(source_name(path), "PIL", "there is no such mask", kind="missing") from error
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VideoDecodingError(source_name(path), "PIL", str(error), kind="undecodable") from error
    if values.ndim != 2:
        raise ValueError(f"The mask {str(path)!r} must have one value a pixel, got {values.shape[-1]} channels")
    labels = values.astype(np.int64)
    if reduce:
        labels = np.where((labels == 0) | (labels == IGNORED), IGNORED, labels - 1)
    wrong = labels[(labels >= num_labels) & (labels != IGNORED)]
    if len(wrong):
        largest = num_labels if reduce else num_labels - 1
        raise ValueError(
            f"The mask {str(path)!r} must have values up to {largest}, or {IGNORED}, for {num_labels} labels, got "
            f"{int(wrong[0]) + reduce}"
        )
    return torch.from_numpy(labels.astype(np.uint8))


def read_pair(sample: SegmentationSample, num_labels: int, *, reduce: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Read an image and its mask.

    Args:
        sample ([`SegmentationSample`]):
            Their paths.
        num_labels (`int`):
            Number of labels.
        reduce (`bool`):
            See [`read_mask`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: uint8 image `(3, height, width)` and labels `(height, width)`.

    Raises:
        VideoDecodingError: a file cannot be read, or both differ in size.
    """
    image = torch.from_numpy(np.array(read_image(str(sample.video)))).permute(2, 0, 1)
    labels = read_mask(sample.mask, num_labels, reduce=reduce)
    if labels.shape != image.shape[1:]:
        sizes = f"the image has {tuple(image.shape[1:])} pixels, its mask {tuple(labels.shape)}"
        raise VideoDecodingError(source_name(sample.video), "PIL", sizes, kind="undecodable")
    return image, labels


class SegmentationLoader:
    """
    Reads an image with its mask for training.

    Args:
        augmentation ([`SegmentationAugmentation`]):
            Resizes, crops and changes both.
        num_labels (`int`):
            Number of labels.
        reduce (`bool`):
            See [`read_mask`].
        seed (`int`):
            Seed of all random numbers, together with epoch and sample.
    """

    def __init__(self, augmentation: SegmentationAugmentation, num_labels: int, reduce: bool, seed: int):
        self.augmentation, self.num_labels, self.reduce, self.seed = augmentation, num_labels, reduce, seed

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(3, height, width)` of the crop; `labels`, uint8 of shape `(height,
            width)`; `sizes` of shape `(2,)`: height and width of the part that is no padding.
        """
        assert isinstance(record.sample, SegmentationSample)
        image, labels = read_pair(record.sample, self.num_labels, reduce=self.reduce)
        rng = np.random.default_rng(sample_seed(self.seed, record.epoch, record.sample.id, "augmentation"))
        image, labels, size = self.augmentation(image, labels, rng)
        return {"pixel_values": image, "labels": labels, "sizes": torch.tensor(size)}

    def decode(self, record: Record) -> torch.Tensor:
        """
        Read an image before augmentation.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `torch.Tensor` of shape `(1, 3, height, width)`: uint8.
        """
        return torch.from_numpy(np.array(read_image(str(record.sample.video)))).permute(2, 0, 1)[None]


class WholeImageLoader:
    """
    Reads an image with its mask for evaluation.

    Args:
        processor ([`UniFormerSegmenterImageProcessor`]):
            The checkpoint's processor.
        num_labels (`int`):
            Number of labels.
    """

    def __init__(self, processor: Any, num_labels: int):
        self.processor, self.num_labels = processor, num_labels

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `dict`: `view_0`, `view_1`, ... of shape `(3, height, width)`, the normalised image in every size of the
            protocol; `labels`, uint8 of the size of the file.
        """
        assert isinstance(record.sample, SegmentationSample)
        image, labels = read_pair(record.sample, self.num_labels, reduce=bool(self.processor.do_reduce_labels))
        views = self.processor.views(image)
        return {f"view_{index}": view for index, view in enumerate(views)} | {"labels": labels}


__all__ = [
    "IGNORED",
    "IMAGES",
    "SegmentationLoader",
    "SegmentationSample",
    "SegmentationSource",
    "WholeImageLoader",
    "open_segmentation",
    "read_mask",
    "read_pair",
]
