"""
Tokenizers of visual words. A frozen tokenizer assigns a word to each patch of an image; in pretraining, masked words
are predicted from the rest of the image.

A tokenizer is any object with `vocab_size`, `patch_size` and a call that maps pixels to words, see
[`VisualTokenizer`].
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, FlavaImageCodebook, FlavaImageCodebookConfig, PreTrainedConfig

from ...files import loading, parse_json, read_text
from ...modeling.configuration_bevt_image_codebook import BevtImageCodebookConfig
from ...modeling.modeling_bevt_image_codebook import BevtImageCodebook
from ...modeling.word_pixels import moving_pixels, word_pixels
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource


FITTING_STEPS = 20


@runtime_checkable
class VisualTokenizer(Protocol):
    """
    Maps pixels of shape `(num_images, num_channels, height, width)` in [0.1, 0.9] to words of shape
    `(num_images, height / patch_size, width / patch_size)`, each below `vocab_size`.
    """

    vocab_size: int
    patch_size: int

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor: ...


@runtime_checkable
class PaintsWords(Protocol):
    """A tokenizer that can draw its words."""

    def paint(self, words: torch.Tensor) -> torch.Tensor:
        """
        Draw words.

        Args:
            words (`torch.Tensor` of shape `(num_images, rows, columns)`):
                The words.

        Returns:
            `torch.Tensor` of shape `(num_images, num_channels, height, width)`: pixels in [0.1, 0.9].
        """


@runtime_checkable
class PreparesClips(Protocol):
    """A tokenizer whose words depend on the whole clip, not on one frame alone."""

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Change the pixels of whole clips before the tokenizer is called on them.

        Args:
            pixels (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)` or \
                `(num_images, [1,] num_channels, height, width)`):
                Clips or images, in [0.1, 0.9].

        Returns:
            `torch.Tensor` of the same shape, in the same range.
        """


class CodebookTokenizer(nn.Module):
    """
    The encoder of DALL-E's discrete VAE, with which BEVT was trained.

    Args:
        codebook (`FlavaImageCodebook`):
            Result of [`~convert.codebook.convert_codebook`], or `facebook/flava-image-codebook` of transformers.
        images_at_once (`int`, *optional*, defaults to 64):
            Images per forward pass; the activations are large.
    """

    patch_size = 8

    def __init__(self, codebook: FlavaImageCodebook, images_at_once: int = 64):
        super().__init__()
        self.codebook, self.images_at_once = codebook.eval().requires_grad_(False), images_at_once
        self.vocab_size = codebook.config.vocab_size

    @torch.no_grad()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Find the words of images.

        Args:
            pixels (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
                In [0.1, 0.9].

        Returns:
            `torch.Tensor` of shape `(num_images, height / patch_size, width / patch_size)`: the words.
        """
        parts = pixels.to(self.codebook.dtype).split(self.images_at_once)
        return torch.cat([self.codebook.get_codebook_indices(part) for part in parts])


class LearnedTokenizer(nn.Module):
    """
    A tokenizer that was trained on images, frozen.

    Args:
        model ([`BevtImageCodebook`]):
            The model.
        images_at_once (`int`, *optional*, defaults to 64):
            Images per forward pass; the activations are large.
    """

    def __init__(self, model: BevtImageCodebook, images_at_once: int = 64):
        super().__init__()
        self.model, self.images_at_once = model.eval().requires_grad_(False), images_at_once
        self.vocab_size, self.patch_size = model.config.vocab_size, model.config.patch_size

    @torch.no_grad()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Find the words of images.

        Args:
            pixels (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
                In [0.1, 0.9].

        Returns:
            `torch.Tensor` of shape `(num_images, height / patch_size, width / patch_size)`: the words.
        """
        return torch.cat([self.model.find_words(part) for part in pixels.split(self.images_at_once)])

    @torch.no_grad()
    def paint(self, words: torch.Tensor) -> torch.Tensor:
        """
        Draw words, see [`PaintsWords`].

        Args:
            words (`torch.Tensor` of shape `(num_images, rows, columns)`):
                The words.

        Returns:
            `torch.Tensor` of shape `(num_images, num_channels, height, width)`: pixels in [0.1, 0.9].
        """
        return self.model.paint(words)


class MovingLearnedTokenizer(LearnedTokenizer):
    """A [`LearnedTokenizer`] of the difference from the mean frame of a clip (`subtract_mean_frame`)."""

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Subtract the mean frame, see [`PreparesClips`].

        Args:
            pixels (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)` or \
                `(num_images, [1,] num_channels, height, width)`):
                Clips or images, in [0.1, 0.9].

        Returns:
            `torch.Tensor` of the same shape, in the same range.
        """
        return self.model.prepare(pixels)


class PatchTokenizer(nn.Module):
    """
    Assigns each patch to the nearest of a few typical patches (k-means). It is fitted to any data in seconds and meant
    for small images and trials. Its words have less meaning than those of DALL-E.

    Args:
        patches (`torch.Tensor` of shape `(vocab_size, num_channels, patch_size, patch_size)`):
            The typical patches, in [0.1, 0.9].

    Raises:
        ValueError: `patches` has another shape.
    """

    patches: torch.Tensor

    def __init__(self, patches: torch.Tensor):
        super().__init__()
        if patches.ndim != 4 or patches.shape[2] != patches.shape[3]:
            raise ValueError(
                "`patches` must have shape (vocab_size, num_channels, patch_size, patch_size), got "
                f"{tuple(patches.shape)}"
            )
        self.register_buffer("patches", patches.float())
        self.vocab_size, self.num_channels, self.patch_size, _ = patches.shape

    @torch.no_grad()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Find the words of images.

        Args:
            pixels (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
                In [0.1, 0.9].

        Returns:
            `torch.Tensor` of shape `(num_images, height / patch_size, width / patch_size)`: the words.
        """
        cut, size = _patches_of(pixels.float(), self.patch_size), self.patch_size
        words = _nearest(cut, self.patches.flatten(1))
        return words.view(len(pixels), pixels.shape[-2] // size, pixels.shape[-1] // size)

    def paint(self, words: torch.Tensor) -> torch.Tensor:
        """
        Draw words, see [`PaintsWords`].

        Args:
            words (`torch.Tensor` of shape `(num_images, rows, columns)`):
                The words.

        Returns:
            `torch.Tensor` of shape `(num_images, num_channels, height, width)`: pixels in [0.1, 0.9].
        """
        patches = self.patches[words]  # (num_images, rows, columns, num_channels, patch_size, patch_size)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    @classmethod
    def fit(cls, pixels: torch.Tensor, vocab_size: int, patch_size: int, seed: int = 0) -> "PatchTokenizer":
        """
        Find the typical patches of some images.

        Args:
            pixels (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
                In [0.1, 0.9]; see [`~word_pixels.word_pixels`].
            vocab_size (`int`):
                Number of words, at least 2. It is smaller if the images have fewer different patches.
            patch_size (`int`):
                Height and width of a patch, in pixels.
            seed (`int`, *optional*, defaults to 0):
                Seed of the initial patches.

        Returns:
            [`PatchTokenizer`]: the tokenizer.

        Raises:
            ValueError: `vocab_size` is below 2, or a side of the images is not a multiple of `patch_size`.
        """
        if vocab_size < 2:
            raise ValueError(f"`vocab_size` must be at least 2, got {vocab_size}")
        generator = torch.Generator().manual_seed(seed)
        cut = _patches_of(pixels.float(), patch_size)
        different = torch.unique(cut, dim=0)
        centres = different[torch.randperm(len(different), generator=generator)[:vocab_size]]
        for _ in range(FITTING_STEPS):
            words = _nearest(cut, centres)
            sums = torch.zeros_like(centres).index_add_(0, words, cut)
            counts = torch.bincount(words, minlength=len(centres))[:, None]
            centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        return cls(centres.view(-1, pixels.shape[1], patch_size, patch_size))

    def save_pretrained(self, folder: str | Path) -> None:
        """
        Save the tokenizer, to be loaded by [`load_tokenizer`].

        Args:
            folder (`str` or `Path`):
                Folder that receives `model.safetensors` and `config.json`.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        save_file({"patches": self.patches.cpu().contiguous()}, path / "model.safetensors")
        (kind,) = (name for name, one in TOKENIZER_TYPES.items() if one is type(self))
        (path / "config.json").write_text(json.dumps({"tokenizer_type": kind}) + "\n", encoding="utf-8")


class MovingPatchTokenizer(PatchTokenizer):
    """
    Words of moving content: typical patches of clips from which their mean frame is subtracted. A static background is
    a single word, so that only motion is left to learn. Meant for static cameras. From an image, its mean colours are
    subtracted.
    """

    @staticmethod
    def prepare(pixels: torch.Tensor) -> torch.Tensor:
        """
        Subtract the mean frame, see [`PreparesClips`]. Pixels that equal those of the mean frame become grey (0.5).

        Args:
            pixels (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)` or \
                `(num_images, [1,] num_channels, height, width)`):
                Clips or images, in [0.1, 0.9].

        Returns:
            `torch.Tensor` of the same shape, in the same range.
        """
        return moving_pixels(pixels)


TOKENIZER_TYPES: dict[str, type[PatchTokenizer]] = {  # by `tokenizer_type` of the configuration file
    "patch_words": PatchTokenizer,
    "moving_patch_words": MovingPatchTokenizer,
}


def fit_patch_tokenizer(
    source: VideoSource,
    processor: ClipProcessor,
    config: PreTrainedConfig,
    vocab_size: int,
    num_videos: int = 64,
    tokenizer_class: type[PatchTokenizer] = PatchTokenizer,
) -> PatchTokenizer:
    """
    Fit a [`PatchTokenizer`] with the patch size of a model to some frames of a source.

    Args:
        source ([`VideoSource`]):
            Videos or images.
        processor ([`ClipProcessor`]):
            Processor of the model, or the reader of image files for images.
        config (`PreTrainedConfig`):
            Configuration of the model.
        vocab_size (`int`):
            Number of words.
        num_videos (`int`, *optional*, defaults to 64):
            Number of videos to read: the first ones in the order of seed 0.
        tokenizer_class (`type`, *optional*, defaults to [`PatchTokenizer`]):
            [`PatchTokenizer`] or [`MovingPatchTokenizer`].

    Returns:
        [`PatchTokenizer`]: the tokenizer.
    """
    frames: list[torch.Tensor] = []
    for sample in itertools.islice(source.share(0, 1, 0, 0), num_videos):
        options: dict[str, Any] = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
        clip = processor(sample.video, sampling_mode="validation", **options)["pixel_values"][0]
        small = word_pixels(clip, (clip.shape[-2] // 2, clip.shape[-1] // 2))
        if issubclass(tokenizer_class, MovingPatchTokenizer):
            small = tokenizer_class.prepare(small[None])[0]
        frames.append(small[:: max(len(clip) // 4, 1)])
    return tokenizer_class.fit(torch.cat(frames), vocab_size, config.prediction_patch_size // 2)


def _patches_of(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Patches `(num_patches, num_channels * size * size)` of images, row by row."""
    if pixels.shape[-2] % size or pixels.shape[-1] % size:
        raise ValueError(f"`pixels` must have sides that are multiples of {size}, got {tuple(pixels.shape[-2:])}")
    cut = pixels.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # (images, channels, rows, size, columns, size)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).flatten(1)


def _nearest(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centre of each row."""
    # Squared distances without the term that is equal for all centres.
    gaps = centres.square().sum(1) - 2 * rows @ centres.T
    return gaps.argmin(1)


def _patch_tokenizer_type(name: str | Path) -> type[PatchTokenizer] | None:
    """Class of the patch tokenizer in a folder, `None` if there is none."""
    file = Path(name) / "config.json"
    if not file.is_file():
        return None
    what = f"`tokenizer` {str(file)!r}"
    return TOKENIZER_TYPES.get(parse_json(read_text(file, "`tokenizer`"), what).get("tokenizer_type", ""))


def codebook_without_weights(name: str | Path) -> Callable[[], nn.Module] | None:
    """
    A function that builds the network of a tokenizer without loading its weights, such as on torch's meta device.

    Args:
        name (`str` or `Path`):
            Folder or Hub id. A Hub id is assumed to be DALL-E's tokenizer, the only published one.

    Returns:
        `Callable[[], torch.nn.Module]`: the function, or `None` for patch tokenizers, whose cost is negligible.
    """
    if _patch_tokenizer_type(name) is not None:
        return None
    config: Any = AutoConfig.from_pretrained(name) if Path(name).is_dir() else FlavaImageCodebookConfig()
    if isinstance(config, BevtImageCodebookConfig):
        return lambda: BevtImageCodebook(config)
    return lambda: FlavaImageCodebook(config)


def check_tokenizer(tokenizer: VisualTokenizer, config: PreTrainedConfig) -> None:
    """
    Check that a tokenizer fits a model.

    Args:
        tokenizer ([`VisualTokenizer`]):
            The tokenizer.
        config (`PreTrainedConfig`):
            Configuration of the model.

    Raises:
        ValueError: the tokenizer has another patch size, or more words than the model.
    """
    size, vocabulary = config.prediction_patch_size, config.vocab_size
    if 2 * tokenizer.patch_size != size:
        raise ValueError(
            f"`tokenizer` must have patches of {size // 2} pixels, half of the model's {size}, got "
            f"{tokenizer.patch_size}"
        )
    if tokenizer.vocab_size > vocabulary:
        raise ValueError(
            f"`tokenizer` must have at most the model's {vocabulary} words (`vocab_size`), got {tokenizer.vocab_size}"
        )


@torch.no_grad()
def find_words(tokenizer: VisualTokenizer, *groups: torch.Tensor) -> list[torch.Tensor]:
    """
    Find the words of groups of frames. Groups of the same frame size share a forward pass.

    Args:
        tokenizer ([`VisualTokenizer`]):
            The tokenizer; it is moved to the device of the frames.
        groups (`torch.Tensor` of shape `(..., num_channels, height, width)`):
            Frames with values from 0 to 255.

    Returns:
        `list[torch.Tensor]`: words of shape `(..., rows, columns)` for each group.
    """
    device = groups[0].device
    tokenizer = tokenizer.to(device) if isinstance(tokenizer, nn.Module) else tokenizer
    small = [word_pixels(group, (group.shape[-2] // 2, group.shape[-1] // 2)) for group in groups]
    if isinstance(tokenizer, PreparesClips):
        small = [tokenizer.prepare(pixels) for pixels in small]
    small = [pixels.flatten(0, -4) for pixels in small]
    with torch.autocast(device.type, enabled=False):
        if len({pixels.shape[-2:] for pixels in small}) > 1:
            words = [tokenizer(pixels) for pixels in small]
        else:
            words = list(tokenizer(torch.cat(small)).split([len(pixels) for pixels in small]))
    return [found.unflatten(0, group.shape[:-3]) for found, group in zip(words, groups)]


def load_tokenizer(name: str | Path) -> CodebookTokenizer | LearnedTokenizer | PatchTokenizer:
    """
    Load a tokenizer.

    Args:
        name (`str` or `Path`):
            Folder of a [`PatchTokenizer`], or folder or Hub id of a [`BevtImageCodebook`] or `FlavaImageCodebook`.

    Returns:
        [`CodebookTokenizer`], [`LearnedTokenizer`] or [`PatchTokenizer`]: the tokenizer.

    Raises:
        ValueError: `name` is none of them.
    """
    patch_tokenizer = _patch_tokenizer_type(name)
    if patch_tokenizer is not None:
        with loading("`tokenizer`", name):
            return patch_tokenizer(load_file(Path(name) / "model.safetensors")["patches"])
    with loading("`tokenizer`", name):
        config: Any = AutoConfig.from_pretrained(name)
    if isinstance(config, BevtImageCodebookConfig):
        with loading("`tokenizer`", name):
            model = BevtImageCodebook.from_pretrained(name, config=config, dtype=torch.float32)
        return MovingLearnedTokenizer(model) if config.subtract_mean_frame else LearnedTokenizer(model)
    if not isinstance(config, FlavaImageCodebookConfig):
        raise ValueError(
            f"`tokenizer` {str(name)!r} must be a FlavaImageCodebook (see hf_videovit.convert.codebook), a "
            f"BevtImageCodebook or a saved PatchTokenizer, got {config.model_type}"
        )
    with loading("`tokenizer`", name):
        return CodebookTokenizer(FlavaImageCodebook.from_pretrained(name, config=config))


__all__ = [
    "CodebookTokenizer",
    "LearnedTokenizer",
    "MovingLearnedTokenizer",
    "MovingPatchTokenizer",
    "PaintsWords",
    "PatchTokenizer",
    "PreparesClips",
    "VisualTokenizer",
    "check_tokenizer",
    "codebook_without_weights",
    "find_words",
    "fit_patch_tokenizer",
    "load_tokenizer",
]
