"""From images with objects to batches of a detector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvF
from transformers.image_utils import SizeDict

from ...modeling.image_processing_uniformer_dense import kept_ratio_size
from ...modeling.opencv_resize import resize_as_opencv
from ...modeling.video_decoding import VideoDecodingError
from .augmentation import sample_seed
from .coco_images import ObjectSample, decode_mask, is_object
from .images import read_image
from .loaders import Record


NO_LABEL = -1  # of a place in a batch without an object


@dataclass(frozen=True)
class ObjectAugmentation:
    """
    How training images of a detector are changed.

    Args:
        short_sides (`tuple[int, ...]`):
            Lengths in pixels of which one at random is the short side, unless the long side would exceed `long_side`.
        long_side (`int`):
            Longest side in pixels.
        flip (`float`):
            Probability of a horizontal flip.
        divisor (`int`):
            Sides of a batch are padded to its multiples.
    """

    short_sides: tuple[int, ...]
    long_side: int
    flip: float
    divisor: int


class ObjectLoader:
    """
    Reads a training image with its objects.

    Args:
        augmentation ([`ObjectAugmentation`]):
            Sizes and flip.
        labels (`Mapping[Any, int]`):
            Label of each category id.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample.
        masks (`bool`):
            Whether masks are read.
    """

    def __init__(self, augmentation: ObjectAugmentation, labels: Mapping[Any, int], seed: int, masks: bool):
        self.augmentation, self.labels, self.seed, self.masks = augmentation, dict(labels), seed, masks

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(3, height, width)`; `boxes` of shape `(objects, 4)`, corners in
            pixels; `class_labels` of shape `(objects,)`; with masks `masks`, uint8 of shape
            `(objects, height, width)`.
        """
        sample, pixels = object_sample(record), self.pixels(record)
        own = self.augmentation
        rng = np.random.default_rng(sample_seed(self.seed, record.epoch, sample.id, "augmentation"))
        size = SizeDict(shortest_edge=int(rng.choice(own.short_sides)), longest_edge=own.long_side)
        height, width = kept_ratio_size(*sample.size, size)
        flipped = rng.random() < own.flip
        entries = [one for one in sample.objects if is_object(one)]
        corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in entries)])
        boxes = corners.reshape(-1, 4).float() * torch.tensor([width / sample.size[1], height / sample.size[0]] * 2)
        boxes = boxes.clamp(torch.zeros(4), torch.tensor([width, height] * 2).float())
        if flipped:
            boxes = torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), dim=1)
        image = resize_as_opencv(pixels, height, width)
        row = {
            "pixel_values": image.flip(-1) if flipped else image,
            "boxes": boxes,
            "class_labels": torch.tensor([self.labels[one["category_id"]] for one in entries], dtype=torch.long),
        }
        if self.masks:
            stacked = torch.stack([decode_mask(one, sample.size) for one in entries])
            masks = tvF.resize(stacked, [height, width], interpolation=tvF.InterpolationMode.NEAREST_EXACT)
            row["masks"] = masks.flip(-1) if flipped else masks
        return row

    def pixels(self, record: Record) -> torch.Tensor:
        """
        Read an image.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `torch.Tensor` of shape `(3, height, width)`: uint8.

        Raises:
            VideoDecodingError: the file is damaged, or has another size than its annotations say.
        """
        return read_pixels(object_sample(record))

    def decode(self, record: Record) -> torch.Tensor:
        """
        An image before augmentation, as a clip of one frame.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `torch.Tensor` of shape `(1, 3, height, width)`: uint8.
        """
        return self.pixels(record)[None]

    def collate(self, rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """
        Pad the samples of a batch to one size, at the bottom and on the right.

        Args:
            rows (`Sequence[Mapping]`):
                The samples.

        Returns:
            `dict`: stacked tensors, with `sizes` of shape `(batch_size, 2)`, height and width without padding. Places
            without an object have the label -1.
        """
        sizes = torch.tensor([row["pixel_values"].shape[-2:] for row in rows])
        divisor = self.augmentation.divisor
        height, width = (-(-int(side) // divisor) * divisor for side in sizes.amax(0))
        most = max(1, *(len(row["boxes"]) for row in rows))
        batch = {"sizes": sizes}
        batch["pixel_values"] = torch.stack([_grown(row["pixel_values"], (3, height, width)) for row in rows])
        batch["boxes"] = torch.stack([_grown(row["boxes"], (most, 4)) for row in rows])
        batch["class_labels"] = torch.stack([_grown(row["class_labels"], (most,), NO_LABEL) for row in rows])
        if self.masks:
            batch["masks"] = torch.stack([_grown(row["masks"], (most, height, width)) for row in rows])
        return batch


def _grown(one: torch.Tensor, shape: Sequence[int], value: int = 0) -> torch.Tensor:
    """A tensor padded at the end of each axis."""
    spare = [(0, wanted - own) for own, wanted in zip(one.shape, shape, strict=True)]
    return F.pad(one, [side for pair in reversed(spare) for side in pair], value=value)


def read_pixels(sample: ObjectSample) -> torch.Tensor:
    """
    The image of a sample.

    Args:
        sample ([`ObjectSample`]):
            The sample.

    Returns:
        `torch.Tensor` of shape `(3, height, width)`: uint8.

    Raises:
        VideoDecodingError: the file is damaged, or has another size than its annotations say.
    """
    pixels = tvF.pil_to_tensor(read_image(str(sample.video)))
    if tuple(pixels.shape[-2:]) != sample.size:
        reason = f"it has {tuple(pixels.shape[-2:])} pixels, the annotations say {sample.size}"
        raise VideoDecodingError(str(sample.video), "PIL", reason, kind="undecodable")
    return pixels


def object_sample(record: Record) -> ObjectSample:
    """
    The sample of a record.

    Args:
        record ([`Record`]):
            The record.

    Returns:
        [`ObjectSample`]
    """
    assert isinstance(record.sample, ObjectSample)
    return record.sample


class WholeImageLoader:
    """
    Reads an image for evaluation, with the processor alone.

    Args:
        processor ([`UniFormerDetectorImageProcessor`]):
            The checkpoint's processor.
    """

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `dict`: `pixel_values` and `pixel_mask` as the processor makes them, and `size`: height and width of the
            image.
        """
        pixels = read_pixels(object_sample(record))
        inputs = self.processor(images=pixels, return_tensors="pt")
        size = torch.tensor(pixels.shape[-2:])
        return {"pixel_values": inputs["pixel_values"][0], "pixel_mask": inputs["pixel_mask"][0], "size": size}


__all__ = ["NO_LABEL", "ObjectAugmentation", "ObjectLoader", "WholeImageLoader", "object_sample", "read_pixels"]
