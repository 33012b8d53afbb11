"""
Masks of masked video modelling. `True` means hidden from the encoder, or not reconstructed by the decoder.

`rng` is a `numpy.random.Generator`, or a `numpy.random.RandomState` for the masks of the official data loaders.
"""

from functools import lru_cache

import numpy as np

from ...modeling.frame_sampling import Random, random_integers


Grid = tuple[int, int, int]


def tube_mask(grid: Grid, ratio: float, rng: Random | None = None) -> np.ndarray:
    """
    Hide the same random positions in every frame (Tong et al., 2022).

    Args:
        grid (`tuple[int, int, int]`):
            Tokens of a clip along frames, height and width.
        ratio (`float`):
            Share of each frame to hide; the count is rounded down.
        rng (`numpy.random.Generator` or `numpy.random.RandomState`, *optional*):
            Random numbers; a new generator by default.

    Returns:
        `numpy.ndarray` of bool of shape `(frames, height * width)`.

    Raises:
        ValueError: the ratio hides nothing or everything.
    """
    frames, height, width = grid
    hidden = int(ratio * height * width)
    if not 0 < hidden < height * width:
        raise ValueError(f"`ratio` must hide some but not all of {height * width} positions, got {ratio}.")
    mask = np.arange(height * width) >= height * width - hidden
    (np.random.default_rng() if rng is None else rng).shuffle(mask)
    return np.repeat(mask[None], frames, axis=0)


@lru_cache(maxsize=32)
def running_cell_masks(grid: Grid, ratio: float) -> np.ndarray:
    """
    The four phases of the running-cell mask (Wang et al., 2023). In every 2 x 2 cell, `int(4 * ratio)` positions are
    masked, and the pattern advances by one position in reading order from frame to frame.

    Args:
        grid (`tuple[int, int, int]`):
            Tokens of a clip along frames, height and width; height and width must be even.
        ratio (`float`):
            Share that is not reconstructed: 0.25, 0.5 or 0.75. Other values are rounded down to one of these.

    Returns:
        `numpy.ndarray` of bool of shape `(4, frames, height * width)`, read-only.

    Raises:
        ValueError: the grid is odd, or the ratio masks no or all positions of a cell.
    """
    frames, height, width = grid
    if height % 2 or width % 2:
        raise ValueError(f"`grid` must have an even height and width for 2 x 2 cells, got {height} x {width}.")
    masked = int(4 * ratio)
    if masked not in (1, 2, 3):
        raise ValueError(f"`ratio` must mask 1, 2 or 3 of the 4 positions of a cell, got {ratio}.")
    cell = 2 * (np.arange(height) % 2)[:, None] + np.arange(width) % 2  # position in its cell, (height, width)
    phase = np.arange(4)[:, None, None, None]
    frame = np.arange(frames)[:, None, None]
    masks = (cell + phase + 1 + frame) % 4 < masked
    masks.flags.writeable = False
    return masks.reshape(4, frames, height * width)


def running_cell_mask(grid: Grid, ratio: float, rng: Random | None = None) -> np.ndarray:
    """
    A random phase of [`running_cell_masks`].

    Args:
        grid (`tuple[int, int, int]`):
            Tokens of a clip along frames, height and width; height and width must be even.
        ratio (`float`):
            Share that is not reconstructed: 0.25, 0.5 or 0.75.
        rng (`numpy.random.Generator` or `numpy.random.RandomState`, *optional*):
            Random numbers; a new generator by default.

    Returns:
        `numpy.ndarray` of bool of shape `(frames, height * width)`.
    """
    rng = np.random.default_rng() if rng is None else rng
    return running_cell_masks(tuple(grid), ratio)[int(random_integers(rng, 0, 4))].copy()


def dual_masks(
    grid: Grid, encoder_ratio: float, decoder_ratio: float, rng: Random | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Encoder and decoder mask of one sample, sampled in the official order.

    Args:
        grid (`tuple[int, int, int]`):
            Tokens of a clip along frames, height and width.
        encoder_ratio (`float`):
            Ratio of the tube mask.
        decoder_ratio (`float`):
            Ratio of the running-cell mask. 0 reconstructs all tokens that are hidden from the encoder (VideoMAE V1).
        rng (`numpy.random.Generator` or `numpy.random.RandomState`, *optional*):
            Random numbers; a new generator by default.

    Returns:
        `tuple` of two `numpy.ndarray` of bool of shape `(frames * height * width,)`.
    """
    rng = np.random.default_rng() if rng is None else rng
    encoder = tube_mask(grid, encoder_ratio, rng).ravel()
    decoder = ~encoder if decoder_ratio == 0 else running_cell_mask(grid, decoder_ratio, rng).ravel()
    return encoder, decoder
