"""The baseline without time: one frame of the clip, the same for all places."""

import numpy as np
import pytest
import torch
from transformers.video_utils import VideoMetadata

from hf_videovit import VideoMAEV2VideoProcessor
from hf_videovit.training.evaluation.still_frames import StillFrameVideoMAEV2VideoProcessor


FIELDS = {"num_frames": 4, "size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}


@pytest.fixture
def frames() -> np.ndarray:
    return np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((12, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("frame_sampling", ["dense", "segment", "uniform"])
def test_a_clip_is_one_of_the_frames_the_family_would_take(frame_sampling):
    metadata = VideoMetadata(total_num_frames=40)
    family = VideoMAEV2VideoProcessor(**FIELDS, frame_sampling=frame_sampling, num_clips=3)
    still = StillFrameVideoMAEV2VideoProcessor(**FIELDS, frame_sampling=frame_sampling, num_clips=3)
    sampled, repeated = family.sample_frames(metadata), still.sample_frames(metadata)
    assert repeated.shape == sampled.shape == (3, 4)
    np.testing.assert_array_equal(repeated, np.repeat(sampled[:, [2]], 4, axis=1))


def test_training_draws_the_frame(frames):
    still = StillFrameVideoMAEV2VideoProcessor(**FIELDS, frame_sampling="uniform")
    seen = set()
    for seed in range(40):
        clips, _ = still.load_clips(frames, sampling_mode="train", rng=np.random.default_rng(seed))
        assert (clips == clips[:, :1]).all()
        seen.add(int(clips[0, 0, 0, 0, 0]))
    assert len(seen) > 8


def test_everything_else_is_the_family_s(frames):
    family = VideoMAEV2VideoProcessor(**FIELDS, frame_sampling="uniform")
    still = StillFrameVideoMAEV2VideoProcessor.from_dict(family.to_dict())
    pixel_values = still(frames, return_tensors="pt")["pixel_values"]
    expected = family(frames, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixel_values, expected[:, 2:3].expand_as(expected))
