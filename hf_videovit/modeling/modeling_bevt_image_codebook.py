"""
A tokenizer of visual words that is trained: a vector-quantised autoencoder of images
([van den Oord et al., 2017](https://huggingface.co/papers/1711.00937)), as PeCo has it before its pretraining
([Dong et al., 2021](https://huggingface.co/papers/2111.12710)).

The quantiser is plain torch. A package for it would be one more dependency of the code that travels to the Hub, and
nothing here may wait for the device, or keep a codebook that differs between processes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_bevt_image_codebook import BevtImageCodebookConfig
from .layers import init_as_torch
from .word_pixels import LOWEST, RANGE, moving_pixels


MIDDLE = LOWEST + RANGE / 2  # grey
ROWS_AT_ONCE = 16384  # vectors whose distances from all words are in memory together
SMALLEST_VARIANCE = 1e-4  # of pixels, by which their error is divided


@dataclass
class BevtImageCodebookOutput(ModelOutput):
    """
    Outputs of [`BevtImageCodebook`].

    Args:
        loss (`torch.Tensor` of shape `()`):
            `pixel_loss` and the weighted `commitment_loss`.
        words (`torch.LongTensor` of shape `(num_images, rows, columns)`):
            The words.
        reconstruction (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
            The images as their words describe them.
        pixel_loss (`torch.Tensor` of shape `()`):
            Mean squared error of the reconstruction, divided by the variance of the pixels: 1 is the error of the mean
            colour.
        commitment_loss (`torch.Tensor` of shape `()`):
            Mean squared distance between the encoder's outputs and the vectors of their words.
        perplexity (`torch.Tensor` of shape `()`):
            Number of words in equal use that would be as varied as those of the images.
    """

    loss: torch.Tensor | None = None
    words: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    pixel_loss: torch.Tensor | None = None
    commitment_loss: torch.Tensor | None = None
    perplexity: torch.Tensor | None = None


class BevtImageCodebookBlock(nn.Module):
    """
    A residual block.

    Args:
        hidden_size (`int`):
            Number of channels.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(hidden_size, hidden_size, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden_size, hidden_size, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Add the branch to its input.

        Args:
            hidden_states (`torch.Tensor` of shape `(num_images, hidden_size, height, width)`):
                The input.
        """
        return hidden_states + self.conv2(F.silu(self.conv1(F.silu(hidden_states))))


class BevtImageCodebookVectors(nn.Module):
    """
    The vectors of the words. They are not trained by gradients: each is the moving average of the vectors that it
    stood for, over the batches of all processes. A word that is hardly used starts again from a vector of the batch,
    drawn with a probability that grows with its distance from every word.

    Args:
        config ([`BevtImageCodebookConfig`]):
            Configuration.
    """

    vectors: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor

    def __init__(self, config: BevtImageCodebookConfig):
        super().__init__()
        self.decay, self.restart_share = config.codebook_decay, config.restart_share
        self.register_buffer("vectors", torch.empty(config.vocab_size, config.code_size))
        self.register_buffer("counts", torch.zeros(config.vocab_size))  # moving averages: vectors of a batch
        self.register_buffer("sums", torch.zeros(config.vocab_size, config.code_size))  # and their sum

    def nearest(self, rows: torch.Tensor) -> torch.Tensor:
        """
        The nearest word of each vector.

        Args:
            rows (`torch.Tensor` of shape `(num_rows, code_size)`):
                Vectors.

        Returns:
            `torch.LongTensor` of shape `(num_rows,)`: words.
        """
        # Squared distances without the term that is equal for all words.
        own = self.vectors.square().sum(1)
        parts = [rows] if torch.compiler.is_compiling() else rows.split(ROWS_AT_ONCE)  # a graph has no number of parts
        return torch.cat([(own - 2 * part @ self.vectors.T).argmin(1) for part in parts])

    @torch.no_grad()
    def follow(self, rows: torch.Tensor, words: torch.Tensor) -> None:
        """
        Move the vectors of the words towards those of a batch, and restart unused words. A batch that is not finite
        changes nothing.

        Args:
            rows (`torch.Tensor` of shape `(num_rows, code_size)`):
                The vectors.
            words (`torch.LongTensor` of shape `(num_rows,)`):
                Their words.
        """
        counts = torch.zeros_like(self.counts).index_add_(0, words, torch.ones_like(rows[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, words, rows)
        drawn = self._distant(rows, words)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
            dist.broadcast(drawn, 0)
        usual = counts.sum() / len(counts)
        counts, sums = self.counts.lerp(counts, 1 - self.decay), self.sums.lerp(sums, 1 - self.decay)
        vectors = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1e-9), self.vectors)
        unused = counts < self.restart_share * usual
        vectors = torch.where(unused[:, None], drawn, vectors)
        sums = torch.where(unused[:, None], drawn * usual, sums)
        counts = torch.where(unused, usual, counts)
        finite = vectors.isfinite().all()
        for kept, new in ((self.vectors, vectors), (self.counts, counts), (self.sums, sums)):
            kept.copy_(torch.where(finite, new, kept))

    def _distant(self, rows: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """As many vectors of a batch as there are words, those far from their word with a higher probability."""
        gaps = (rows - self.vectors[words]).square().sum(1)
        noise = torch.rand_like(gaps).clamp(min=1e-9)
        best = (gaps.clamp(min=1e-12).log() - (-noise.log()).log()).argsort(descending=True)  # Gumbel's trick
        return rows[best[torch.arange(len(self.counts), device=rows.device) % len(rows)]]


class BevtImageCodebook(PreTrainedModel):
    """
    A tokenizer of visual words that is trained on images: encoder, codebook, decoder. In training mode, the codebook
    follows the batch.

    Args:
        config ([`BevtImageCodebookConfig`]):
            Configuration.
    """

    config: BevtImageCodebookConfig
    base_model_prefix = "bevt_image_codebook"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["BevtImageCodebookBlock"]

    def __init__(self, config: BevtImageCodebookConfig):
        super().__init__(config)
        width, blocks = config.hidden_size, config.num_hidden_layers
        halvings = config.patch_size.bit_length() - 1
        down: list[nn.Module] = [nn.Conv2d(config.num_channels, width, 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(config.code_size, width, 3, padding=1)]
        for _ in range(halvings):
            down += [nn.SiLU(), nn.Conv2d(width, width, 4, stride=2, padding=1)]
        down += [BevtImageCodebookBlock(width) for _ in range(blocks)]
        up += [BevtImageCodebookBlock(width) for _ in range(blocks)]
        for _ in range(halvings):
            up += [nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
        self.encoder = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(width, config.code_size, 1))
        # Without it the outputs hardly differ at first, and one word stands for all of them. A batch has thousands of
        # places, so that its statistics are exact and few batches are enough for the running ones.
        self.norm = nn.BatchNorm2d(config.code_size, momentum=0.3, affine=False)
        self.codebook = BevtImageCodebookVectors(config)
        self.decoder = nn.Sequential(*up, nn.SiLU(), nn.Conv2d(width, config.num_channels, 3, padding=1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init_as_torch(module)
        elif isinstance(module, BevtImageCodebookVectors):
            init.normal_(module.vectors)
            init.zeros_(module.counts)
            init.zeros_(module.sums)

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Change the pixels of whole clips as the tokenizer expects them: with `subtract_mean_frame` the difference from
        the mean frame, otherwise nothing.

        Args:
            pixels (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)` or \
                `(num_images, [1,] num_channels, height, width)`):
                Clips or images, in [0.1, 0.9].

        Returns:
            `torch.Tensor` of the same shape, in the same range.
        """
        return moving_pixels(pixels) if self.config.subtract_mean_frame else pixels

    def find_words(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Find the words of images.

        Args:
            pixel_values (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
                In [0.1, 0.9].

        Returns:
            `torch.LongTensor` of shape `(num_images, height / patch_size, width / patch_size)`: the words.

        Raises:
            ValueError: the images have another number of channels, or sides that are no multiples of `patch_size`.
        """
        rows, grid = self._encoded(pixel_values)
        return self.codebook.nearest(rows).view(grid)

    def paint(self, words: torch.Tensor) -> torch.Tensor:
        """
        Draw words.

        Args:
            words (`torch.LongTensor` of shape `(num_images, rows, columns)`):
                The words.

        Returns:
            `torch.Tensor` of shape `(num_images, num_channels, height, width)`: pixels in [0.1, 0.9].
        """
        return self._decoded(self.codebook.vectors[words]).clamp(LOWEST, LOWEST + RANGE)

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BevtImageCodebookOutput:
        r"""
        Describe images by words and reconstruct them. The gradient of the reconstruction passes by the words to the
        encoder.

        Args:
            pixel_values (`torch.Tensor` of shape `(num_images, num_channels, height, width)`):
                In [0.1, 0.9], see [`~word_pixels.word_pixels`], after [`~BevtImageCodebook.prepare`].

        Returns:
            [`BevtImageCodebookOutput`]

        Raises:
            ValueError: the images have another number of channels, or sides that are no multiples of `patch_size`.
        """
        rows, grid = self._encoded(pixel_values)
        words = self.codebook.nearest(rows)
        quantized = self.codebook.vectors[words]
        if self.training:
            self.codebook.follow(rows.detach(), words)
        straight = rows + (quantized - rows).detach()
        reconstruction = self._decoded(straight.view(*grid, -1))
        pixels = pixel_values.float()
        error = F.mse_loss(reconstruction, pixels)
        pixel_loss = error / pixels.var(unbiased=False).clamp(min=SMALLEST_VARIANCE)
        commitment_loss = F.mse_loss(rows, quantized)
        return BevtImageCodebookOutput(
            loss=pixel_loss + self.config.commitment_weight * commitment_loss,
            words=words.view(grid),
            reconstruction=reconstruction,
            pixel_loss=pixel_loss,
            commitment_loss=commitment_loss,
            perplexity=perplexity(words, self.config.vocab_size),
        )

    def _encoded(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """The encoder's outputs `(num_rows, code_size)` in float32, and the shape of the words."""
        size, channels = self.config.patch_size, self.config.num_channels
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != channels or shape[2] % size or shape[3] % size:
            raise ValueError(
                f"`pixel_values` must have shape (num_images, {channels}, height, width) with sides that are "
                f"multiples of {size}, got {shape}."
            )
        latents = self.norm(self.encoder((pixel_values.to(self.dtype) - MIDDLE) / RANGE)).float()
        return latents.movedim(1, -1).flatten(0, 2), (shape[0], shape[2] // size, shape[3] // size)

    def _decoded(self, vectors: torch.Tensor) -> torch.Tensor:
        """Images of vectors `(num_images, rows, columns, code_size)`, in float32."""
        return self.decoder(vectors.movedim(-1, 1).to(self.dtype)).float() * RANGE + MIDDLE


def perplexity(words: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """
    The number of words in equal use that would be as varied as some words.

    Args:
        words (`torch.LongTensor`):
            Words in any shape.
        vocab_size (`int`):
            Number of words that there are.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    flat = words.flatten()
    ones = torch.ones_like(flat, dtype=torch.float32)
    return perplexity_of(torch.zeros(vocab_size, device=flat.device).index_add_(0, flat, ones))


def perplexity_of(counts: torch.Tensor) -> torch.Tensor:
    """
    The same from the number of times that each word is used.

    Args:
        counts (`torch.Tensor` of shape `(vocab_size,)`):
            Numbers of times.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    return torch.special.entr(counts / counts.sum()).sum().exp()


__all__ = ["BevtImageCodebook", "BevtImageCodebookOutput", "perplexity_of"]
