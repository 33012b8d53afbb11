"""
Augmentation of training clips with torchvision v2 on uint8 tensors. Random choices are the same for all frames of a
clip. They depend on seed, epoch and sample id only.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from transformers.image_utils import SizeDict

from ...modeling.video_processing_base import output_size
from ..arguments import AugmentationArguments
from ..fields import check_minimum, check_range, option
from .sources import stable_hash


RAND_AUGMENT_BINS = 11  # magnitudes 0 to 10, the scale of the recipes
RAND_AUGMENT_FILL = 128
SOLARIZE_FROM = 128 / 255
ERASED_AREA = (0.02, 0.33)
ERASED_RATIO = (0.3, 10 / 3)
CROP_SIDES = (1.0, 0.875, 0.75, 0.66)  # shares of the short side of the frame
# Places of a multi-scale crop (right, down), in quarters of the free space: corners, centre, centres of the edges, and
# points halfway between corners and centre.
CROP_PLACES = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)


def sample_seed(seed: int, epoch: int, name: str, stream: str = "augmentation") -> int:
    """
    Seed of the random numbers of a sample.

    Args:
        seed (`int`):
            Seed of the run.
        epoch (`int`):
            The epoch.
        name (`str`):
            Sample id.
        stream (`str`, *optional*, defaults to `"augmentation"`):
            Name of the purpose. Purposes have independent random numbers.

    Returns:
        `int`: a seed of 63 bits.
    """
    return stable_hash(f"{seed}/{epoch}/{stream}/{name}") >> 1


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    """
    Run a block with a seed for torch's CPU generator, and restore the generator after it.

    Args:
        seed (`int`):
            The seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would also seed accelerators
        yield


Region = tuple[float, float, float, float]


class MultiScaleCrop(torch.nn.Module):
    """
    The crop of the official pretraining of VideoMAE V2. Width and height are `CROP_SIDES` of the short side, at most
    one step apart. A side within 3 pixels of the output size is set to it. The crop is at one of 13 fixed places and
    is resized with bilinear interpolation and antialiasing, as in PIL.

    Args:
        size (`tuple[int, int]`):
            Height and width of the output.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def crops(self, height: int, width: int) -> list[tuple[int, int]]:
        """
        Possible sizes of the crop.

        Args:
            height (`int`):
                Height of the frame.
            width (`int`):
                Width of the frame.

        Returns:
            `list[tuple[int, int]]`: heights and widths.
        """
        sides = [int(min(height, width) * share) for share in CROP_SIDES]
        heights, widths = ([wanted if abs(side - wanted) < 3 else side for side in sides] for wanted in self.size)
        pairs = itertools.product(range(len(sides)), repeat=2)
        return [(heights[row], widths[column]) for row, column in pairs if abs(row - column) <= 1]

    def random_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """
        A random crop, from torch's global CPU generator.

        Args:
            height (`int`):
                Height of the frame.
            width (`int`):
                Width of the frame.

        Returns:
            `tuple[int, int, int, int]`: top, left, height and width.
        """
        choices = self.crops(height, width)
        crop_height, crop_width = choices[int(torch.randint(len(choices), ()))]
        crop_height, crop_width = min(crop_height, height), min(crop_width, width)  # within the frame
        right, down = CROP_PLACES[int(torch.randint(len(CROP_PLACES), ()))]
        return down * ((height - crop_height) // 4), right * ((width - crop_width) // 4), crop_height, crop_width

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """
        Crop and resize a clip.

        Args:
            clip (`torch.Tensor` of shape `(..., height, width)`):
                The clip.

        Returns:
            `torch.Tensor` of shape `(..., *size)`: the crop.
        """
        top, left, height, width = self.random_box(*clip.shape[-2:])
        clip = clip[..., top : top + height, left : left + width]
        return v2.functional.resize(clip, list(self.size), InterpolationMode.BILINEAR, antialias=True)


class ShortSideCrop(torch.nn.Module):
    """
    A crop at any place after the short side of the clip is resized to a random length, with bicubic interpolation and
    without antialiasing, as in the pretraining of BEVT.

    Args:
        size (`tuple[int, int]`):
            Height and width of the output.
        lengths (`Sequence[int]`):
            Smallest and largest length of the short side, in pixels; at least the size of the crop.

    Raises:
        ValueError: the short side may be smaller than the crop.
    """

    def __init__(self, size: tuple[int, int], lengths: Sequence[int]):
        super().__init__()
        if lengths[0] < max(size):
            raise ValueError(f"`crop_short_side` must be at least {max(size)} (pixels of the crop), got {lengths[0]}")
        self.lengths, self.crop = lengths, v2.RandomCrop(size)

    def random_length(self) -> int:
        """A random length of the short side, from torch's global CPU generator."""
        return int(torch.randint(self.lengths[0], self.lengths[1] + 1, ()))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """
        Resize and crop a clip.

        Args:
            clip (`torch.Tensor` of shape `(..., height, width)`):
                The clip.

        Returns:
            `torch.Tensor` of shape `(..., *size)`: the crop.
        """
        scale = self.random_length() / min(clip.shape[-2:])
        sides = [int(side * scale + 0.5) for side in clip.shape[-2:]]
        return self.crop(v2.functional.resize(clip, sides, InterpolationMode.BICUBIC, antialias=False))


class CenterCrop(ShortSideCrop):
    """
    A crop near the center, for aligned objects such as a face or a mouth. Clips are resized by torchvision with the
    processor's interpolation, so that a crop without shift equals the crop of the evaluation; with `resize_as_opencv`
    it does but for one grey level.

    Args:
        size (`tuple[int, int]`):
            Height and width of the output.
        lengths (`Sequence[int]`):
            Smallest and largest length of the short side, in pixels; at least the size of the crop.
        shift (`int`):
            Largest offset of the crop from the center along either side, in pixels.
        interpolation (`InterpolationMode`):
            Interpolation of the resizing.
        antialias (`bool`):
            Whether downscaling is antialiased.
    """

    def __init__(
        self,
        size: tuple[int, int],
        lengths: Sequence[int],
        shift: int,
        interpolation: InterpolationMode,
        antialias: bool,
    ):
        super().__init__(size, lengths)
        self.around = [side + 2 * shift for side in size]
        self.interpolation, self.antialias = interpolation, antialias

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """
        Resize and crop a clip.

        Args:
            clip (`torch.Tensor` of shape `(..., height, width)`):
                The clip.

        Returns:
            `torch.Tensor` of shape `(..., *size)`: the crop.
        """
        sides = output_size(clip.shape[-2:], SizeDict(shortest_edge=self.random_length()))
        clip = v2.functional.resize(clip, list(sides), self.interpolation, antialias=self.antialias)
        return self.crop(v2.functional.center_crop(clip, [min(pair) for pair in zip(sides, self.around)]))


class ColourChanges(torch.nn.Module):
    """
    Colour jitter, grey, blur and solarisation in the order of MoCo v3. They are computed in float32 and rounded once.

    Args:
        arguments ([`AugmentationArguments`]):
            Probabilities and strengths.
        view (`int`):
            1 for the long clip of contrastive pretraining, 0 for the short one and for all other clips.
        size (`tuple[int, int]`):
            Height and width of the frames.
    """

    def __init__(self, arguments: AugmentationArguments, view: int, size: tuple[int, int]):
        super().__init__()
        steps: list[torch.nn.Module] = []
        blur, solarize = (values[min(view, len(values) - 1)] for values in (arguments.blur, arguments.solarize))
        if arguments.color_jitter:
            jitter = v2.ColorJitter(*arguments.color_jitter)
            steps.append(v2.RandomApply([jitter], p=arguments.color_jitter_probability))
        if arguments.grayscale:
            steps.append(v2.RandomGrayscale(arguments.grayscale))
        if blur:
            low, high = arguments.blur_sigma
            radius = min(math.ceil(3 * high), (min(size) - 1) // 2)  # three deviations, within the frame
            steps.append(v2.RandomApply([v2.GaussianBlur(2 * radius + 1, (low, high))], p=blur))
        if solarize:
            steps.append(v2.RandomSolarize(SOLARIZE_FROM, p=solarize))
        self.steps = torch.nn.Sequential(*steps)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """
        Change the colours of all frames in the same way.

        Args:
            clip (`torch.Tensor` of shape `(num_frames, 3, height, width)`):
                uint8 frames.

        Returns:
            `torch.Tensor` of the same shape: uint8 frames.
        """
        return (self.steps(clip.float() / 255).clamp(0, 1) * 255).round().to(clip.dtype)


class ClipAugmentation:
    """
    Random crop, colour changes, flip, RandAugment and erasing of one clip.

    The crop depends on `crop`: [`MultiScaleCrop`] (`"multi_scale"`), [`ShortSideCrop`] (`"short_side"`),
    [`CenterCrop`] (`"center"`), or a random resized crop by area and ratio (`"area"`).

    The order is that of the official fine-tuning: RandAugment at full resolution, crop, flip, and one erased box
    shared by all frames, with new noise in each. There are two differences. The RandAugment of torchvision applies
    each operation always, with bilinear interpolation and a fixed magnitude; officially the probability is 0.5, the
    interpolation bicubic and the magnitude slightly random. The noise of the erased box is added before normalisation
    and clipped at black and white.

    Args:
        arguments ([`AugmentationArguments`]):
            Probabilities and strengths.
        crop_size (`tuple[int, int]`):
            Height and width of the output.
        image_mean (`tuple[float, ...]`, *optional*, defaults to `(0.485, 0.456, 0.406)`):
            Mean of the later normalisation, in [0, 1], used as mean of the erasing noise.
        image_std (`tuple[float, ...]`, *optional*, defaults to `(0.229, 0.224, 0.225)`):
            Standard deviation of the later normalisation, used as that of the erasing noise.
        interpolation (`InterpolationMode`, *optional*, defaults to `InterpolationMode.BILINEAR`):
            Interpolation of the crops `"area"` and `"center"`. It should be that of the processor, so that training
            and evaluation use the same pixels.
        antialias (`bool`, *optional*, defaults to `False`):
            Whether their downscaling is antialiased. It should be that of the processor.
        jitter (`float`, *optional*, defaults to 0.0):
            Largest change of brightness, contrast and saturation, which is applied first.
        view (`int`, *optional*, defaults to 0):
            Number of the clip if two clips are augmented differently, see [`ColourChanges`].
    """

    def __init__(
        self,
        arguments: AugmentationArguments,
        crop_size: tuple[int, int],
        *,
        image_mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        image_std: tuple[float, ...] = (0.229, 0.224, 0.225),
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool = False,
        jitter: float = 0.0,
        view: int = 0,
    ):
        self.arguments = arguments
        self.image_mean, self.image_std = image_mean, image_std
        steps: list[torch.nn.Module] = [v2.ColorJitter(jitter, jitter, jitter)] if jitter else []
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
        if arguments.crop == "multi_scale":
            steps.append(MultiScaleCrop(crop_size))
        elif arguments.crop == "short_side":
            steps.append(ShortSideCrop(crop_size, arguments.crop_short_side))
        elif arguments.crop == "center":
            lengths, shift = arguments.crop_short_side, arguments.crop_shift
            steps.append(CenterCrop(crop_size, lengths, shift, interpolation, antialias))
        else:
            scale, ratio = (tuple(bounds) for bounds in (arguments.crop_scale, arguments.crop_ratio))
            steps.append(v2.RandomResizedCrop(crop_size, scale, ratio, interpolation, antialias))
        colours = ColourChanges(arguments, view, crop_size)
        if len(colours.steps):
            steps.append(colours)
        if arguments.flip:
            steps.append(v2.RandomHorizontalFlip(arguments.flip))
        self.steps = steps

    def __call__(self, clip: torch.Tensor, seed: int) -> torch.Tensor:
        """
        Augment a clip.

        Args:
            clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
                uint8 frames.
            seed (`int`):
                Seed of all random numbers, see [`sample_seed`].

        Returns:
            `torch.Tensor` of shape `(num_frames, num_channels, *crop_size)`: uint8 frames.
        """
        return self.follow(clip, seed)[0]

    def follow(self, clip: torch.Tensor, seed: int) -> tuple[torch.Tensor, Region]:
        """
        Augment a clip, and say which part of its frames is left. Only the crop by area and the flip are followed; the
        operations of RandAugment that move pixels are not.

        Args:
            clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
                uint8 frames.
            seed (`int`):
                Seed of all random numbers, see [`sample_seed`].

        Returns:
            `tuple`: uint8 frames of shape `(num_frames, num_channels, *crop_size)`; and left, top, right and bottom of
            the part as shares of width and height, with left and right exchanged if it is mirrored.
        """
        left, top, right, bottom = 0.0, 0.0, 1.0, 1.0
        with seeded_torch(seed):
            for step in self.steps:
                if isinstance(step, v2.RandomResizedCrop):
                    height, width = clip.shape[-2:]
                    box = step.make_params([clip])
                    left, right = box["left"] / width, (box["left"] + box["width"]) / width
                    top, bottom = box["top"] / height, (box["top"] + box["height"]) / height
                    clip = step.transform(clip, box)
                elif isinstance(step, v2.RandomHorizontalFlip):
                    if torch.rand(1).item() < step.p:
                        clip, left, right = v2.functional.horizontal_flip(clip), right, left
                else:
                    clip = step(clip)
            if torch.rand(()).item() < self.arguments.random_erasing:
                clip = self._erase(clip)
        return clip.contiguous(), (left, top, right, bottom)

    def rows(self, clip: torch.Tensor, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        """
        The rows of one clip, made in a worker.

        Args:
            clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
                uint8 frames.
            seeds (`Sequence[int]`):
                Seed of each augmented copy.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_copies, num_frames, num_channels, *crop_size)`.
        """
        return {"pixel_values": torch.stack([self(clip, seed) for seed in seeds])}

    def finish(self, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Complete a batch on the device. There is nothing to do.

        Args:
            rows (`dict[str, torch.Tensor]`):
                Rows of a batch.

        Returns:
            `dict[str, torch.Tensor]`: the same rows.
        """
        return rows

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
        pixels = ((noise * std + mean).clamp(0, 1) * 255).round().to(clip, non_blocking=True)
        clip = clip.clone()
        clip[..., top : top + box_height, left : left + box_width] = pixels
        return clip


READ_ROWS = ("seeds", "frame_size")  # rows whose numbers are read when a batch is completed


class DeviceAugmentation:
    """
    The same augmentation on the accelerator. Workers only decode, and downscale frames with more than `area` pixels.
    They return flattened uint8 frames, so that clips of all shapes can be stacked. On the device, each clip is
    transformed by [`ClipAugmentation`] with the same seed. Frames that are not downscaled give the same pixels as in a
    worker, up to rounding. Downscaled frames give the same distribution of crops, but not the same crop.

    Args:
        augmentation ([`ClipAugmentation`]):
            The augmentation.
        area (`int`):
            Largest number of pixels of a frame that is sent to the device.
    """

    def __init__(self, augmentation: ClipAugmentation, area: int):
        self.augmentation, self.area = augmentation, area

    def rows(self, clip: torch.Tensor, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        """
        The rows of one clip, made in a worker.

        Args:
            clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
                uint8 frames.
            seeds (`Sequence[int]`):
                Seed of each augmented copy.

        Returns:
            `dict`: `frames`, uint8 of shape `(1, num_frames, num_channels, area)`, of which the first `height * width`
            pixels are used; `frame_size`, height and width, of shape `(1, 2)`; `seeds` of shape `(num_copies,)`.
        """
        height, width = clip.shape[-2:]
        if height * width > self.area:
            scale = math.sqrt(self.area / (height * width))
            size = [max(1, int(height * scale)), max(1, int(width * scale))]
            clip = v2.functional.resize(clip, size, InterpolationMode.BILINEAR, antialias=True)
            height, width = size
        frames = clip.new_zeros(1, *clip.shape[:2], self.area)
        frames[0, ..., : height * width] = clip.flatten(-2)
        return {"frames": frames, "frame_size": torch.tensor([[height, width]]), "seeds": torch.tensor(list(seeds))}

    def finish(self, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Augment a batch on its device.

        Args:
            rows (`dict[str, torch.Tensor]`):
                Rows of several clips with merged copies: `seeds` run over all clips once for each copy. `seeds` and
                `frame_size` are read and should be on the CPU, see [`move_rows`].

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_clips * num_copies, num_frames, num_channels, *crop_size)`,
            and the other rows.
        """
        rows = dict(rows)
        frames, seeds = rows.pop("frames"), rows.pop("seeds").tolist()
        sizes = rows.pop("frame_size").tolist()
        clips = [
            clip[..., : height * width].unflatten(-1, (height, width)) for clip, (height, width) in zip(frames, sizes)
        ]
        augmented = [self.augmentation(clips[index % len(clips)], seed) for index, seed in enumerate(seeds)]
        return {"pixel_values": torch.stack(augmented), **rows}


Augmentation = ClipAugmentation | DeviceAugmentation


def move_rows(rows: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """
    Rows on a device, without waiting for it. Those that [`~DeviceAugmentation.finish`] reads stay on the CPU.

    Args:
        rows (`dict[str, torch.Tensor]`):
            Stacked tensors from the loader.
        device (`torch.device`):
            The device.

    Returns:
        `dict[str, torch.Tensor]`
    """
    return {
        name: value if name.endswith(READ_ROWS) else value.to(device, non_blocking=True)
        for name, value in rows.items()
    }


def mirrored_labels(label_names: Sequence[str]) -> list[tuple[str, str]]:
    """
    Pairs of labels that a horizontal flip exchanges: swapping "left" and "right" in one name gives the other.

    Args:
        label_names (`Sequence[str]`):
            Label names of the data.

    Returns:
        `list[tuple[str, str]]`: the pairs.
    """
    sides = {"left": "right", "right": "left"}
    known = {name.lower(): name for name in label_names}
    pairs = []
    for lower, name in known.items():
        swapped = re.sub(r"(?<![a-z])(left|right)(?![a-z])", lambda match: sides[match[1]], lower)
        if lower < swapped and swapped in known:
            pairs.append((name, known[swapped]))
    return pairs


@dataclass
class MixingArguments:
    """
    Mixup and cutmix of labelled clips.

    Raises:
        ValueError: a value is out of range.
    """

    mixup: float = option(0.0, "alpha of mixup; 0 is off")
    cutmix: float = option(0.0, "alpha of cutmix; 0 is off")
    mix_probability: float = option(1.0, "probability that a batch is mixed")
    mix_switch: float = option(0.5, "probability of cutmix if both are on")

    def __post_init__(self) -> None:
        check_minimum(self, mixup=0, cutmix=0)
        for name in ("mix_probability", "mix_switch"):
            check_range(name, getattr(self, name), 0.0, 1.0)


class BatchMixing:
    """
    Mixup or cutmix of a batch, with one share for the whole batch, as in the official recipes.

    Args:
        arguments ([`MixingArguments`]):
            Strength and probability of each.
        num_labels (`int`):
            Number of classes of the soft labels.
    """

    def __init__(self, arguments: MixingArguments, num_labels: int):
        self.arguments = arguments
        self.mixup = v2.MixUp(alpha=arguments.mixup, num_classes=num_labels) if arguments.mixup else None
        self.cutmix = v2.CutMix(alpha=arguments.cutmix, num_classes=num_labels) if arguments.cutmix else None

    def __call__(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Mix a batch, with random numbers from torch's global CPU generator.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips.
            labels (`torch.Tensor` of shape `(batch_size,)`):
                Class indices.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: mixed clips and soft labels of shape `(batch_size, num_labels)`. Both
            are unchanged if the batch is not mixed.
        """
        mix = self.mixup or self.cutmix
        if mix is None or torch.rand(()).item() >= self.arguments.mix_probability:
            return pixel_values, labels
        if self.mixup and self.cutmix and torch.rand(()).item() < self.arguments.mix_switch:
            mix = self.cutmix
        mixed, soft = mix(tv_tensors.Video(pixel_values), labels)
        return mixed.as_subclass(torch.Tensor), soft
