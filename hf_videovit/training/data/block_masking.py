"""
Masks of masked visual words: blocks in an image (Bao et al., 2022), and tubes of them in a clip (BEVT).

`rng` is a `random.Random`, whose draws of one seed are those of the official data loaders.
"""

import math
import random
from dataclasses import dataclass

import numpy as np


ATTEMPTS = 10  # boxes tried before a mask is left as it is


@dataclass(frozen=True)
class BlockMasks:
    """
    What is hidden of an image or a clip. The defaults are BEVT's.

    Args:
        height (`int`, *optional*, defaults to 14):
            Words of an image from top to bottom.
        width (`int`, *optional*, defaults to 14):
            Words from left to right.
        ratio (`float`, *optional*, defaults to 0.5):
            Share of an image to hide at most; the count is rounded down. It stays a little below at times, where no
            block fits into what is left.
        smallest_block (`int`, *optional*, defaults to 16):
            Words that a block aims to cover at least.
        widest_aspect (`float`, *optional*, defaults to 10 / 3):
            Sides of a block differ by this factor at most.
        shortest_tube (`float`, *optional*, defaults to 0.5):
            Share of a clip's frames that are hidden at least.
        longest_tube (`float`, *optional*, defaults to 1.0):
            Share at most.

    Raises:
        ValueError: a grid without places, or a share out of range.
    """

    height: int = 14
    width: int = 14
    ratio: float = 0.5
    smallest_block: int = 16
    widest_aspect: float = 1 / 0.3
    shortest_tube: float = 0.5
    longest_tube: float = 1.0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 2:
            raise ValueError(f"`height` and `width` must be at least 2, got {self.height} and {self.width}.")
        if not 0 < self.ratio < 1 or int(self.ratio * self.height * self.width) < 1:
            raise ValueError(
                f"`ratio` must hide some but not all of {self.height * self.width} places, got {self.ratio}."
            )
        if self.smallest_block < 1 or self.widest_aspect < 1:
            raise ValueError(
                "`smallest_block` and `widest_aspect` must be at least 1, got "
                f"{self.smallest_block} and {self.widest_aspect}."
            )
        if not 0 <= self.shortest_tube <= self.longest_tube <= 1:
            raise ValueError(
                "`shortest_tube` and `longest_tube` must be shares in this order, got "
                f"{self.shortest_tube} and {self.longest_tube}."
            )

    def image(self, rng: random.Random) -> np.ndarray:
        """A mask of bool `(height, width)`, `True` = hidden: blocks are added until the wanted share is reached."""
        mask = np.zeros((self.height, self.width), dtype=bool)
        wanted = int(self.ratio * mask.size)
        while (budget := wanted - int(mask.sum())) > 0 and self._add_block(mask, budget, rng):
            pass
        return mask

    def _add_block(self, mask: np.ndarray, budget: int, rng: random.Random) -> bool:
        """Hide one more block that covers between 1 and `budget` new places; whether one was found."""
        bound = math.log(self.widest_aspect)
        for _ in range(ATTEMPTS):
            area = rng.uniform(self.smallest_block, budget)
            aspect = math.exp(rng.uniform(-bound, bound))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if rows >= self.height or columns >= self.width:
                continue
            top, left = rng.randint(0, self.height - rows), rng.randint(0, self.width - columns)
            block = mask[top : top + rows, left : left + columns]
            if 0 < block.size - int(block.sum()) <= budget:
                block[...] = True
                return True
        return False

    def clip(self, frames: int, rng: random.Random) -> np.ndarray:
        """
        One mask of images in neighbouring frames by chance, on a circle: a tube that runs over the end goes on at the
        start.

        Args:
            frames (`int`):
                Frames of the clip in tokens.
            rng (`random.Random`):
                Source of the draws.

        Returns:
            `numpy.ndarray` of bool of shape `(frames, height, width)`.
        """
        image = self.image(rng)
        start = rng.randint(0, frames - 1)
        length = rng.randint(max(int(self.shortest_tube * frames), 1), min(int(self.longest_tube * frames), frames))
        mask = np.zeros((frames, *image.shape), dtype=bool)
        mask[(start + np.arange(length)) % frames] = image
        return mask


__all__ = ["BlockMasks"]
