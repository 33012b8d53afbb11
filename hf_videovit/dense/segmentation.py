"""Images with masks for semantic segmentation, and the score of what a model makes of them."""

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
IGNORED = 255  # of a mask: no label, as in `UperNetConfig.loss_ignore_index`
STRIDE = 32
SCALES = (0.5, 2.0)  # official: of the short side over the crop's, uniformly


class SegmentationFolder(Dataset):
    """
    Images and masks of the same names in the folders `images` and `masks`. A mask is an image of class indices, 255
    where nothing is labelled.

    Args:
        folder (`str` or `Path`):
            Holds the two.
        processor (`BaseImageProcessor`):
            Normalises; must not resize or crop.
        num_labels (`int`):
            Classes, to refuse masks with others.
        crop_size (`int`, *optional*):
            Training: images are scaled by 0.5 to 2, cropped to this size and mirrored, all at random. Without it they
            stay whole and are padded to multiples of 32 pixels at the bottom and on the right.

    Raises:
        ValueError: the folders do not hold the same names, or an image and its mask differ in size, or a mask holds a
            class beyond `num_labels`.
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
                f"`folder` {str(folder)!r} needs images/ and masks/ of the same names; alone are {alone}."
            )
        self.pairs = [(path, found[1][name]) for name, path in found[0].items()]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        path, mask_path = self.pairs[index]
        with Image.open(path) as one, Image.open(mask_path) as other:
            image, mask = one.convert("RGB"), other.copy()
        if image.size != mask.size:
            raise ValueError(f"{path.name} has {image.size} pixels, its mask {mask.size}.")
        if self.crop_size is not None:
            image, mask = scale_at_random(image, mask, self.crop_size)
        labels = torch.from_numpy(np.array(mask).astype(np.int64))
        wrong = labels[(labels >= self.num_labels) & (labels != IGNORED)]
        if labels.ndim != 2 or wrong.numel():
            what = f"class {int(wrong[0])}" if wrong.numel() else "colours"
            raise ValueError(
                f"{mask_path.name} holds {what}; indices below {self.num_labels} or {IGNORED} are allowed."
            )
        pixels = self.processor(image, return_tensors="pt").pixel_values[0]
        sample = {"pixel_values": pixels, "labels": labels}
        if self.crop_size is None:
            return pad(sample, *(-(-side // STRIDE) * STRIDE for side in labels.shape))
        return crop_at_random(sample, self.crop_size)


def scale_at_random(image: Image.Image, mask: Image.Image, crop_size: int) -> tuple[Image.Image, Image.Image]:
    scale = float(torch.empty(()).uniform_(*SCALES)) * crop_size / min(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    return image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)


def crop_at_random(sample: Sample, side: int) -> Sample:
    """A square of `side` pixels, padded where the image is smaller; half of them mirrored."""
    top, left = (int(torch.randint(max(1, length - side + 1), ())) for length in sample["labels"].shape)
    sample = {name: one[..., top : top + side, left : left + side] for name, one in sample.items()}
    sample = pad(sample, side, side)
    return {name: one.flip(-1) for name, one in sample.items()} if torch.rand(()) < 0.5 else sample


def pad(sample: Sample, height: int, width: int) -> Sample:
    """The mean colour at the bottom and on the right, where no label counts."""
    values = {"pixel_values": 0, "labels": IGNORED}
    return {
        name: F.pad(one, (0, width - one.shape[-1], 0, height - one.shape[-2]), value=values[name])
        for name, one in sample.items()
    }


@torch.no_grad()
def mean_iou(model: nn.Module, data: SegmentationFolder, accelerator: Accelerator | None = None) -> float:
    """
    Mean over classes of intersection over union, pixels of all images together; one scale, whole images.

    Args:
        model (`nn.Module`):
            Its output has `logits` of shape `(batch_size, num_labels, height, width)`. Left in evaluation mode.
        data ([`SegmentationFolder`]):
            Without `crop_size`.
        accelerator (`Accelerator`, *optional*):
            Shares the images among processes.

    Returns:
        `float`: from 0 to 1, over the classes that occur in labels or answers.
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
