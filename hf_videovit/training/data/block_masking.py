"""
Masks of masked visual words: blocks in an image (Bao et al., 2022), and tubes of blocks in a clip (BEVT).

`rng` is a `random.Random`, so that a seed gives the masks of the official data loaders.
"""

import math
import random
from dataclasses import dataclass

import numpy as np


ATTEMPTS = 10  # to place another block before a mask is complete


@dataclass(frozen=True)
class BlockMasks:
    """
    Random masks of images and clips. The defaults are those of BEVT.

    Args:
        height (`int`, *optional*, defaults to 14):
            Number of rows of words in an image.
        width (`int`, *optional*, defaults to 14):
            Number of columns of words in an image.
        ratio (`float`, *optional*, defaults to 0.5):
            Largest share of an image that is hidden; the number of words is rounded down. The share is a little
            smaller if no further block fits.
        smallest_block (`int`, *optional*, defaults to 16):
            Smallest target area of a block, in words.
        widest_aspect (`float`, *optional*, defaults to 10 / 3):
            Largest aspect ratio of a block.
        shortest_tube (`float`, *optional*, defaults to 0.5):
            Smallest share of the frames of a clip with hidden words.
        longest_tube (`float`, *optional*, defaults to 1.0):
            Largest share of the frames of a clip with hidden words.

    Raises:
        ValueError: the grid is too small, or a share is out of range.
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
                "`shortest_tube` and `longest_tube` must be increasing shares from 0 to 1, got "
                f"{self.shortest_tube} and {self.longest_tube}."
            )

    def image(self, rng: random.Random) -> np.ndarray:
        """
        A random mask of an image: blocks are added until the share is reached. At least one place is hidden.

        Args:
            rng (`random.Random`):
                Random numbers.

        Returns:
            `np.ndarray` of shape `(height, width)`: bool, `True` where hidden.
        """
        mask = np.zeros((self.height, self.width), dtype=bool)
        wanted = int(self.ratio * mask.size)
        while (budget := wanted - int(mask.sum())) > 0 and self._add_block(mask, budget, rng):
            pass
        if not mask.any():  # in a small grid, no block may fit in all attempts
            mask[rng.randrange(self.height), rng.randrange(self.width)] = True
        return mask

    def _add_block(self, mask: np.ndarray, budget: int, rng: random.Random) -> bool:
        """Hide another block that covers between 1 and `budget` new places. Returns whether one was found."""
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
        A random mask of a clip: the same mask of an image in a random range of consecutive frames. A range that
        exceeds the end continues at the start.

        Args:
            frames (`int`):
                Number of frames of the clip, in tokens.
            rng (`random.Random`):
                Random numbers.

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
