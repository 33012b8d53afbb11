"""What holds for every mask. Draws equal to the official generators': tests/test_parity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_videovit.training.data.masking import dual_masks, running_cell_masks, tube_mask


even = st.integers(1, 8).map(lambda half: 2 * half)


@given(frames=st.integers(1, 9), height=st.integers(2, 9), width=st.integers(2, 9), seed=st.integers(0, 9))
def test_tubes_hide_the_same_positions_in_every_frame(frames, height, width, seed):
    mask = tube_mask((frames, height, width), 0.75, np.random.default_rng(seed))
    assert mask.shape == (frames, height * width) and mask.dtype == bool
    assert (mask == mask[0]).all() and mask[0].sum() == int(0.75 * height * width)


@given(frames=st.integers(1, 12), height=even, width=even, ratio=st.sampled_from((0.25, 0.5, 0.75)))
def test_cells_run(frames, height, width, ratio):
    masked = int(4 * ratio)
    for phase in running_cell_masks((frames, height, width), ratio):
        grid = phase.reshape(frames, height // 2, 2, width // 2, 2)
        cells = grid.transpose(0, 1, 3, 2, 4).reshape(frames, -1, 4)
        assert (cells.sum(-1) == masked).all()
        assert (cells == cells[:, :1]).all()
        assert (cells[1:] == np.roll(cells[:-1], -1, axis=-1)).all()
        for start in range(frames - 3):
            assert (phase[start : start + 4].sum(0) == masked).all()


def test_decoder_ratio_zero_reconstructs_what_the_encoder_lacks():
    encoder, decoder = dual_masks((4, 4, 4), 0.75, 0.0)
    assert (decoder == ~encoder).all()


def test_each_draw_is_another_and_repeats_with_its_seed():
    first, second = (
        [np.stack(masks) for masks in zip(*(dual_masks((8, 14, 14), 0.9, 0.5, rng) for _ in range(6)))]
        for rng in (np.random.default_rng(0), np.random.default_rng(0))
    )
    for encoder, decoder in (first, second):
        assert encoder.shape == (6, 1568) and len(np.unique(encoder, axis=0)) == 6
        assert len(np.unique(decoder, axis=0)) > 1
        assert (encoder.sum(1) == 8 * 176).all() and (decoder.sum(1) == 784).all()
    assert all((one == other).all() for one, other in zip(first, second))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: running_cell_masks((4, 3, 4), 0.5), "even height and width .* got 3 x 4"),
        (lambda: running_cell_masks((4, 4, 4), 0.1), "`ratio` must mask 1, 2 or 3 .* got 0.1"),
        (lambda: tube_mask((4, 4, 4), 0.01), "`ratio` must hide some but not all of 16 positions, got 0.01"),
        (lambda: tube_mask((4, 4, 4), 1.0), "`ratio` must hide some but not all of 16 positions, got 1.0"),
    ],
)
def test_masks_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
