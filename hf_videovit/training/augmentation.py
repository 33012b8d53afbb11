"""
What happens to a training clip. torchvision v2 does the work on uint8 tensors; every draw holds for all frames of a
clip and depends on seed, epoch and sample id and on nothing else.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from .arguments import AugmentationArguments
from .sources import stable_hash


RAND_AUGMENT_BINS = 11  # magnitudes 0 to 10, the scale of the recipes
RAND_AUGMENT_FILL = 128
ERASED_AREA = (0.02, 0.33)
ERASED_RATIO = (0.3, 10 / 3)


def sample_seed(seed: int, epoch: int, name: str, stream: str = "augmentation") -> int:
    """A 63-bit seed from (seed, epoch, sample id); another `stream` gives independent draws for another purpose."""
    return stable_hash(f"{seed}/{epoch}/{stream}/{name}") >> 1


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    """Run a block with torch's CPU generator set to `seed`, and put the generator back after it."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


class ClipAugmentation:
    """
    Random crop, flip, RandAugment and erasing of one clip.

    Follows the official fine-tuning order: RandAugment at full resolution, random resized crop (bilinear, not
    antialiased), flip, one erased box shared by all frames with fresh noise in each. Two departures: torchvision's
    RandAugment applies each of its operations always, bilinear and with a fixed magnitude (officially each with
    probability 0.5, bicubic and a slightly random one), and the erasing noise, laid on before normalisation, is cut at
    black and white.

    Args:
        arguments ([`AugmentationArguments`]):
            What to draw from.
        crop_size (`tuple[int, int]`):
            Height and width of the result.
        image_mean (`tuple[float, ...]`):
            Mean of the normalisation that follows, in [0, 1]: the centre of the erasing noise.
        image_std (`tuple[float, ...]`):
            Deviation of the normalisation that follows: the spread of the erasing noise.
    """

    def __init__(
        self,
        arguments: AugmentationArguments,
        crop_size: tuple[int, int],
        image_mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        image_std: tuple[float, ...] = (0.229, 0.224, 0.225),
    ):
        self.arguments = arguments
        self.image_mean, self.image_std = image_mean, image_std
        steps: list[torch.nn.Module] = []
        if arguments.rand_augment_ops:
            steps.append(
                v2.RandAugment(
                    arguments.rand_augment_ops,
                    arguments.rand_augment_magnitude,
                    RAND_AUGMENT_BINS,
                    interpolation=InterpolationMode.BILINEAR,
                    fill=RAND_AUGMENT_FILL,
                )
            )
        scale, ratio = (tuple(bounds) for bounds in (arguments.crop_scale, arguments.crop_ratio))
        steps.append(v2.RandomResizedCrop(crop_size, scale, ratio, antialias=False))
        if arguments.flip:
            steps.append(v2.RandomHorizontalFlip(arguments.flip))
        self.transform = v2.Compose(steps)

    def __call__(self, clip: torch.Tensor, seed: int) -> torch.Tensor:
        """
        Args:
            clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
                uint8 frames.
            seed (`int`):
                Seed of every draw, see [`sample_seed`].

        Returns:
            `torch.Tensor` of shape `(num_frames, num_channels, *crop_size)`: uint8 frames.
        """
        with seeded_torch(seed):
            clip = self.transform(clip)
            if torch.rand(()).item() < self.arguments.random_erasing:
                clip = self._erase(clip)
        return clip.contiguous()

    def _erase(self, clip: torch.Tensor) -> torch.Tensor:
        num_frames, num_channels, height, width = clip.shape
        for _ in range(10):
            area = height * width * torch.empty(()).uniform_(*ERASED_AREA).item()
            ratio = math.exp(torch.empty(()).uniform_(*map(math.log, ERASED_RATIO)).item())
            box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if box_height < height and box_width < width:
                break
        else:
            return clip
        top = int(torch.randint(0, height - box_height + 1, ()))
        left = int(torch.randint(0, width - box_width + 1, ()))
        noise = torch.randn(num_frames, num_channels, box_height, box_width)
        mean = torch.tensor(self.image_mean).view(-1, 1, 1)
        std = torch.tensor(self.image_std).view(-1, 1, 1)
        pixels = ((noise * std + mean).clamp(0, 1) * 255).round().to(clip.dtype)
        clip = clip.clone()
        clip[..., top : top + box_height, left : left + box_width] = pixels
        return clip


class BatchMixing:
    """
    Mixup and cutmix of a batch: one of the two and one share for the whole batch, as in the official recipes.

    Args:
        arguments ([`AugmentationArguments`]):
            `mixup`, `cutmix`, `mix_probability`, `mix_switch`.
        num_labels (`int`):
            Number of classes of the soft labels.
    """

    def __init__(self, arguments: AugmentationArguments, num_labels: int):
        self.arguments = arguments
        self.mixup = v2.MixUp(alpha=arguments.mixup, num_classes=num_labels) if arguments.mixup else None
        self.cutmix = v2.CutMix(alpha=arguments.cutmix, num_classes=num_labels) if arguments.cutmix else None

    def __call__(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Draws from torch's global CPU generator.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.
            labels (`torch.Tensor` of shape `(batch_size,)`):
                Class indices.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: mixed clips, and soft labels of shape `(batch_size, num_labels)`; both
            unchanged when this batch is not mixed.
        """
        mix = self.mixup or self.cutmix
        if mix is None or torch.rand(()).item() >= self.arguments.mix_probability:
            return pixel_values, labels
        if self.mixup and self.cutmix and torch.rand(()).item() < self.arguments.mix_switch:
            mix = self.cutmix
        mixed, soft = mix(tv_tensors.Video(pixel_values), labels)
        return mixed.as_subclass(torch.Tensor), soft
