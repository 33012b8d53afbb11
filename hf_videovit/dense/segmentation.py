"""Images with masks for semantic segmentation, and the mean IoU of a model."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers.image_processing_utils import BaseImageProcessor


Sample = dict[str, torch.Tensor]
IGNORED = 255  # mask value of unlabelled pixels, as in `UperNetConfig.loss_ignore_index`
STRIDE = 32
SCALES = (0.5, 2.0)  # official: short side over the crop size, uniformly distributed


class SegmentationFolder(Dataset):
    """
    Images and masks with the same names in the folders `images` and `masks`. A mask is an image of class indices, with
    255 for unlabelled pixels.

    Args:
        folder (`str` or `Path`):
            Folder that contains the two folders.
        processor (`BaseImageProcessor`):
            Normalises the images; must not resize or crop.
        num_labels (`int`):
            Number of classes. Masks with other classes are an error.
        crop_size (`int`, *optional*):
            For training: images are randomly scaled by 0.5 to 2, cropped to this size and flipped. Without it they are
            kept whole and padded to multiples of 32 pixels at the bottom and on the right.

    Raises:
        ValueError: the folders do not have the same names, an image and its mask differ in size, or a mask has a class
        beyond `num_labels`.
    """

    def __init__(
        self, folder: str | Path, processor: BaseImageProcessor, num_labels: int, *, crop_size: int | None = None
    ):
        self.processor, self.num_labels, self.crop_size = processor, num_labels, crop_size
        found = [
            {path.stem: path for path in sorted(Path(folder, kind).glob("*")) if path.is_file()}
            for kind in ("images", "masks")
        ]
        if not found[0] or found[0].keys() != found[1].keys():
            alone = sorted(found[0].keys() ^ found[1].keys())[:5]
            raise ValueError(
                f"`folder` {str(folder)!r} needs images/ and masks/ with the same names; without a partner: {alone}."
            )
        self.pairs = [(path, found[1][name]) for name, path in found[0].items()]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        path, mask_path = self.pairs[index]
        with Image.open(path) as one, Image.open(mask_path) as other:
            image, mask = one.convert("RGB"), other.copy()
        if image.size != mask.size:
            raise ValueError(f"{path.name} has {image.size} pixels, but its mask has {mask.size}.")
        if self.crop_size is not None:
            image, mask = _scale_at_random(image, mask, self.crop_size)
        labels = torch.from_numpy(np.array(mask).astype(np.int64))
        wrong = labels[(labels >= self.num_labels) & (labels != IGNORED)]
        if labels.ndim != 2 or wrong.numel():
            what = f"class {int(wrong[0])}" if wrong.numel() else "colours"
            raise ValueError(
                f"{mask_path.name} has {what}; values must be class indices below {self.num_labels} or {IGNORED}."
            )
        pixels = self.processor(image, return_tensors="pt").pixel_values[0]
        sample = {"pixel_values": pixels, "labels": labels}
        if self.crop_size is None:
            return _pad(sample, *(-(-side // STRIDE) * STRIDE for side in labels.shape))
        return _crop_at_random(sample, self.crop_size)


def _scale_at_random(image: Image.Image, mask: Image.Image, crop_size: int) -> tuple[Image.Image, Image.Image]:
    scale = float(torch.empty(()).uniform_(*SCALES)) * crop_size / min(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    return image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)


def _crop_at_random(sample: Sample, side: int) -> Sample:
    """A square of `side` pixels, padded if the image is smaller, flipped with probability 0.5."""
    top, left = (int(torch.randint(max(1, length - side + 1), ())) for length in sample["labels"].shape)
    sample = {name: one[..., top : top + side, left : left + side] for name, one in sample.items()}
    sample = _pad(sample, side, side)
    return {name: one.flip(-1) for name, one in sample.items()} if torch.rand(()) < 0.5 else sample


def _pad(sample: Sample, height: int, width: int) -> Sample:
    """Pad with the mean colour and unlabelled pixels at the bottom and on the right."""
    values = {"pixel_values": 0, "labels": IGNORED}
    return {
        name: F.pad(one, (0, width - one.shape[-1], 0, height - one.shape[-2]), value=values[name])
        for name, one in sample.items()
    }


@torch.no_grad()
def mean_iou(model: nn.Module, data: SegmentationFolder, accelerator: Accelerator | None = None) -> float:
    """
    Mean intersection over union of the classes, over the pixels of all images, at one scale, on whole images.

    Args:
        model (`nn.Module`):
            Its output has `logits` of shape `(batch_size, num_labels, height, width)`. It stays in evaluation mode.
        data ([`SegmentationFolder`]):
            Images and masks, without `crop_size`.
        accelerator (`Accelerator`, *optional*):
            Distributes the images over processes.

    Returns:
        `float`: from 0 to 1, over the classes that occur in labels or predictions.
    """
    accelerator = accelerator or Accelerator()
    device, num_labels = accelerator.device, data.num_labels
    model = model.to(device).eval()
    counts = torch.zeros(num_labels, num_labels, dtype=torch.long, device=device)
    for index in range(accelerator.process_index, len(data), accelerator.num_processes):
        sample = {name: one[None].to(device) for name, one in data[index].items()}
        found, labels = model(sample["pixel_values"]).logits.argmax(1), sample["labels"]
        known = labels != IGNORED
        pairs = labels[known] * num_labels + found[known]
        counts += pairs.bincount(minlength=num_labels**2).view_as(counts)
    counts = accelerator.reduce(counts)
    both = counts.diag()
    either = counts.sum(0) + counts.sum(1) - both
    return (both[either > 0] / either[either > 0]).mean().item()


__all__ = ["SegmentationFolder", "mean_iou"]
