"""
Frame sampling: forms that hold for every video length, and what the samplers refuse. Official draws:
tests/test_parity.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_videovit.modeling.frame_sampling import (
    FRAME_SAMPLINGS,
    SAMPLING_MODES,
    crop_offsets,
    sample_at_rate,
    sample_clips,
)


lengths = st.integers(1, 400)
clip_lengths = st.integers(1, 40)
strides = st.integers(1, 9)


@given(
    total=lengths,
    num_frames=clip_lengths,
    stride=strides,
    clips=st.integers(1, 6),
    sampling=st.sampled_from(FRAME_SAMPLINGS),
    mode=st.sampled_from(SAMPLING_MODES),
    seed=st.integers(0, 5),
)
def test_indices_exist_ascend_and_repeat_with_the_seed(total, num_frames, stride, clips, sampling, mode, seed):
    assume(mode != "pretrain" or sampling in ("dense", "dense_cyclic"))
    options = {"frame_sampling": sampling, "sampling_mode": mode, "num_frames": num_frames, "frame_stride": stride}
    draws = [sample_clips(total, num_clips=clips, rng=np.random.default_rng(seed), **options) for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    assert draws[0].shape == (clips if mode == "test" else 1, num_frames)
    assert draws[0].min() >= 0 and draws[0].max() < total
    steps = np.diff(draws[0], axis=1)
    if sampling == "dense_cyclic":  # begins again where the video ends
        assert ((steps - stride) % total == 0).all()
    else:
        assert (steps >= 0).all()


def test_one_clip_of_middles_and_several_as_sparse_has_them():
    options = {"sampling_mode": "test", "num_frames": 4}
    middle = sample_clips(41, frame_sampling="sparse_middle", **options)
    assert middle.tolist() == [[5, 15, 25, 35]]
    several = sample_clips(41, frame_sampling="sparse_middle", num_clips=3, **options)
    np.testing.assert_array_equal(several, sample_clips(41, frame_sampling="sparse", num_clips=3, **options))


@given(total=lengths, num_frames=clip_lengths, stride=strides, seed=st.integers(0, 5))
def test_pretraining_clips_keep_their_stride_until_the_video_ends(total, num_frames, stride, seed):
    rng = np.random.default_rng(seed)
    options = {"frame_sampling": "dense", "num_frames": num_frames, "frame_stride": stride}
    steps = np.diff(sample_clips(total, sampling_mode="pretrain", rng=rng, **options)[0])
    moving = np.count_nonzero(steps)
    assert (steps[:moving] == stride).all() and (steps[moving:] == 0).all()
    if total > num_frames * stride and stride > 1:
        assert moving == num_frames - 1


def test_dense_training_is_a_little_wider_than_its_stride_and_testing_is_not():
    options = {"frame_sampling": "dense", "num_frames": 16, "frame_stride": 4}
    train = sample_clips(300, sampling_mode="train", rng=np.random.default_rng(0), **options)[0]
    test = sample_clips(300, sampling_mode="test", num_clips=5, **options)
    assert train[-1] - train[0] == 63 and set(np.diff(train)) == {4, 5}
    assert set(np.diff(test).ravel()) == {4}


def test_one_test_clip_is_the_middle_one():
    assert sample_clips(100, frame_sampling="dense", sampling_mode="test", num_frames=10, frame_stride=2)[0, 0] == 40


def test_uniform_sampling_reaches_the_tail():
    indices = sample_clips(100, frame_sampling="uniform", sampling_mode="test", num_frames=16, num_clips=2)
    assert indices.min() <= 2 and indices.max() >= 97
    assert len(np.unique(indices)) == 32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"total": 0}, "`total` must be at least 1, got 0"),
        ({"num_frames": 0}, "`num_frames` must be at least 1"),
        ({"num_frames": "four"}, "`num_frames` must be at least 1, got 'four'"),
        ({"frame_stride": -1}, "`frame_stride` must be at least 1"),
        ({"num_clips": 0}, "`num_clips` must be at least 1"),
        ({"frame_sampling": "spread"}, "`frame_sampling` must be one of .*'spread'"),
        ({"sampling_mode": "eval"}, "`sampling_mode` must be one of .*'eval'"),
        ({"frame_sampling": "segment", "sampling_mode": "pretrain"}, "needs a dense `frame_sampling`"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    options = {"total": 10, "frame_sampling": "dense", "sampling_mode": "test", "num_frames": 4, **wrong}
    with pytest.raises(ValueError, match=message):
        sample_clips(options.pop("total"), **options)


@given(long_side=st.integers(8, 500), crop=st.integers(1, 8), crops=st.integers(1, 6))
def test_crops_lie_inside_and_reach_both_ends(long_side, crop, crops):
    offsets = crop_offsets(long_side, crop, crops)
    assert len(offsets) == crops and offsets == sorted(offsets)
    assert min(offsets) >= 0 and max(offsets) + crop <= long_side
    if crops > 1:
        assert offsets[0] == 0 and offsets[-1] >= long_side - crop - 1


def test_a_crop_larger_than_the_side_is_refused():
    with pytest.raises(ValueError, match="side of 4 pixels cannot hold a crop of 5"):
        crop_offsets(4, 5, 3)


def test_a_centred_crop_rounds_half_pixels_to_the_even_one():
    assert [crop_offsets(5 + spare, 5, 1) for spare in (5, 6, 7, 9)] == [[2], [3], [4], [4]]


def test_bounds_of_segments_are_rounded_to_the_nearest_and_halves_to_the_even_frame():
    """Bounds of 11 frames in 4 parts: 0, 2.5, 5, 7.5."""
    assert sample_clips(11, frame_sampling="sparse", sampling_mode="test", num_frames=4).tolist() == [[1, 3, 6, 9]]
    assert sample_clips(12, frame_sampling="sparse_middle", sampling_mode="test", num_frames=4).tolist() == [
        [1, 4, 7, 9]
    ]


@pytest.mark.parametrize("rates", [(25, 7), (30, 11), (50, 12), (30, 15)])
def test_clips_of_a_fixed_rate_show_the_frames_of_exact_arithmetic(rates):
    """The last clip ends on the last frame; a place that is a whole frame is that frame, not the one before."""
    step = Fraction(*rates)
    for total in range(74, 139):
        for num_frames in (8, 16):
            first = total - 1 - step * (num_frames - 1)
            clips = sample_at_rate(total, num_frames, float(step), sampling_mode="test", num_clips=3)
            for clip, start in zip(clips, (Fraction(0), first / 2, first), strict=True):
                assert clip.tolist() == [math.floor(start + step * index) for index in range(num_frames)]


@given(total=lengths, num_frames=clip_lengths, seed=st.integers(0, 5))
def test_sparse_training_stays_in_its_segments(total, num_frames, seed):
    options = {"frame_sampling": "sparse", "num_frames": num_frames}
    low = np.round((total - 1) / num_frames * np.arange(num_frames))
    high = np.round((total - 1) / num_frames * np.arange(1, num_frames + 1))
    train = sample_clips(total, sampling_mode="train", rng=np.random.default_rng(seed), **options)[0]
    assert (low <= train).all() and (train <= high).all()
    validation = sample_clips(total, sampling_mode="validation", num_clips=4, **options)
    np.testing.assert_array_equal(validation, sample_clips(total, sampling_mode="test", **options))


def test_crops_may_be_rounded_up():
    assert crop_offsets(10, 5, 1) == crop_offsets(10, 5, 3)[1:2] == [2]
    assert crop_offsets(10, 5, 1, "up") == [3]
    assert crop_offsets(10, 5, 3, "up") == [0, 3, 5]
    with pytest.raises(ValueError, match="`rounding` must be one of .*'down'"):
        crop_offsets(10, 5, 1, "down")
