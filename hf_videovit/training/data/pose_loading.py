"""From people in images to crops with keypoints."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tvF

from ...dense.pose import BOX_PADDING
from .augmentation import sample_seed
from .coco_images import ObjectSample
from .loaders import Record
from .object_loading import object_sample, read_pixels


@dataclass(frozen=True)
class PoseAugmentation:
    """
    How training crops of people are changed.

    Args:
        size (`tuple[int, int]`):
            Height and width of a crop in pixels.
        flip (`float`, *optional*, defaults to 0.0):
            Probability of a horizontal flip.
        pairs (`tuple[tuple[int, int], ...]`, *optional*, defaults to `()`):
            Keypoints that a flip exchanges.
        scale_factor (`float`, *optional*, defaults to 0.0):
            Standard deviation of the factor of the crop's size, and its largest distance from 1.
        rotation (`float`, *optional*, defaults to 0.0):
            Standard deviation of the angle in degrees; twice as much is the largest angle.
        rotation_probability (`float`, *optional*, defaults to 0.0):
            Probability of a rotation.
    """

    size: tuple[int, int]
    flip: float = 0.0
    pairs: tuple[tuple[int, int], ...] = ()
    scale_factor: float = 0.0
    rotation: float = 0.0
    rotation_probability: float = 0.0


def crop_matrix(
    box: np.ndarray, size: tuple[int, int], factor: float = 1.0, degrees: float = 0.0, flipped: bool = False
) -> np.ndarray:
    """
    The map from places of a crop to places of its image, without augmentation that of transformers'
    `VitPoseImageProcessor`: the box grows to the shape of the crop, and by a quarter.

    Args:
        box (`np.ndarray` of shape `(4,)`):
            Left, top, width and height in pixels.
        size (`tuple[int, int]`):
            Height and width of the crop in pixels.
        factor (`float`, *optional*, defaults to 1.0):
            Factor of the part of the image that is seen.
        degrees (`float`, *optional*, defaults to 0.0):
            Clockwise angle of the part of the image that is seen.
        flipped (`bool`, *optional*, defaults to `False`):
            Whether the crop is mirrored.

    Returns:
        `np.ndarray` of shape `(2, 3)`: takes `(x, y, 1)`, whole numbers being the middles of pixels.
    """
    height, width = size
    wide = max(box[2], box[3] * width / height)
    grown = BOX_PADDING * factor * np.array([wide, wide * height / width])
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    last = np.array([width - 1, height - 1])
    linear = turn @ np.diag(grown / last * np.array([-1 if flipped else 1, 1]))
    centre = box[:2] + box[2:] / 2
    return np.column_stack([linear, centre - linear @ (last / 2)])


class PoseLoader:
    """
    Reads the training crop of a person with its keypoints.

    Args:
        augmentation ([`PoseAugmentation`]):
            Size, flip, scale and rotation.
        num_keypoints (`int`):
            Number of keypoints.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample.
    """

    def __init__(self, augmentation: PoseAugmentation, num_keypoints: int, seed: int):
        self.augmentation, self.num_keypoints, self.seed = augmentation, num_keypoints, seed

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(3, height, width)`; `keypoints` of shape `(num_keypoints, 2)` in
            pixels of the crop; `visible` of shape `(num_keypoints,)`, 1 for labelled keypoints.
        """
        own, sample = self.augmentation, object_sample(record)
        rng = np.random.default_rng(sample_seed(self.seed, record.epoch, sample.id, "augmentation"))
        flipped = bool(rng.random() < own.flip)
        factor = float(
            np.clip(1 + own.scale_factor * rng.standard_normal(), 1 - own.scale_factor, 1 + own.scale_factor)
        )
        degrees = float(np.clip(own.rotation * rng.standard_normal(), -2 * own.rotation, 2 * own.rotation))
        if rng.random() >= own.rotation_probability:
            degrees = 0.0
        box = np.array(sample.objects[0]["bbox"], dtype=np.float64)
        matrix = crop_matrix(box, own.size, factor, degrees, flipped)
        keypoints, visible = self.keypoints(sample)
        inside = (keypoints - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        if flipped:
            order = np.arange(self.num_keypoints)
            for left, right in own.pairs:
                order[left], order[right] = right, left
            inside, visible = inside[order], visible[order]
        return {
            "pixel_values": _cropped(read_pixels(sample), matrix, own.size),
            "keypoints": torch.from_numpy(inside).float(),
            "visible": torch.from_numpy(visible).float(),
        }

    def keypoints(self, sample: ObjectSample) -> tuple[np.ndarray, np.ndarray]:
        """
        Keypoints of a person.

        Args:
            sample ([`ObjectSample`]):
                The sample.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: x and y `(num_keypoints, 2)` in pixels of the image, and whether each is
            labelled.

        Raises:
            ValueError: the annotation has another number of keypoints.
        """
        flat = np.array(sample.objects[0].get("keypoints", ()), dtype=np.float64)
        if flat.size != 3 * self.num_keypoints:
            raise ValueError(f"{sample.id}: `keypoints` must have {3 * self.num_keypoints} numbers, got {flat.size}")
        points = flat.reshape(-1, 3)
        return points[:, :2], (points[:, 2] > 0).astype(np.float64)

    def decode(self, record: Record) -> torch.Tensor:
        """
        A crop before augmentation, as a clip of one frame.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `torch.Tensor` of shape `(1, 3, height, width)`: uint8.
        """
        sample = object_sample(record)
        box = np.array(sample.objects[0]["bbox"], dtype=np.float64)
        return _cropped(read_pixels(sample), crop_matrix(box, self.augmentation.size), self.augmentation.size)[None]


def _cropped(pixels: torch.Tensor, matrix: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear, black outside of the image."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    corner = offset + 0.5 - linear @ np.array([0.5, 0.5])  # Pillow counts from the corners of pixels
    numbers = np.column_stack([linear, corner]).ravel().tolist()
    image = tvF.to_pil_image(pixels)
    crop = image.transform(size[::-1], Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR)
    return tvF.pil_to_tensor(crop)


class PersonLoader:
    """
    Reads the crop of a person for evaluation, with the processor alone.

    Args:
        processor (`VitPoseImageProcessor`):
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
            `dict`: `pixel_values` as the processor makes them.
        """
        sample = object_sample(record)
        boxes = [[[float(one) for one in sample.objects[0]["bbox"]]]]
        inputs = self.processor([read_pixels(sample)], boxes=boxes, return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"][0]}


__all__ = ["PersonLoader", "PoseAugmentation", "PoseLoader", "crop_matrix"]
