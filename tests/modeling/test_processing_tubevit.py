"""TubeViT's processors: clips of a fixed rate, images that look like frames."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.video_utils import VideoMetadata

from hf_videovit import TubeViTImageProcessor, TubeViTVideoProcessor
from hf_videovit.modeling.frame_sampling import sample_at_rate


def metadata(frames: int, fps: float | None) -> VideoMetadata:
    return VideoMetadata(total_num_frames=frames, fps=fps)


def test_frames_stand_the_right_time_apart():
    processor = TubeViTVideoProcessor(num_frames=4, frame_rate=15)
    assert processor.sample_frames(metadata(100, 30.0)).tolist() == [46, 48, 50, 52]
    assert processor.sample_frames(metadata(8, 7.5)).tolist() == [2, 3, 3, 4]  # repeated: slower than the clip
    assert processor.sample_frames(metadata(100, None)).tolist() == [46, 48, 50, 52]  # stride 2, the default


def test_four_clips_from_the_first_place_to_the_last():
    clips = TubeViTVideoProcessor(num_frames=8, frame_rate=10, num_clips=4).sample_frames(metadata(90, 30.0))
    assert clips[:, 0].tolist() == [0, 22, 45, 68]
    assert clips[-1, -1] == 89
    assert (np.diff(clips, axis=1) == 3).all()


def test_random_clips_stay_inside_and_repeat_with_the_seed():
    processor = TubeViTVideoProcessor(num_frames=8, frame_rate=12)
    draws = [
        processor.sample_frames(metadata(50, 25.0), sampling_mode="train", rng=np.random.default_rng(seed)).tolist()
        for seed in (0, 0, 1, 2, 3)
    ]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(draw[0] >= 0 and draw[-1] <= 49 for draw in draws)
    old = sample_at_rate(50, 8, 2.0, sampling_mode="train", rng=np.random.RandomState(0))
    assert old.shape == (1, 8)


def test_a_clip_longer_than_the_video_stays_on_the_last_frame():
    assert sample_at_rate(5, 4, 2.0, sampling_mode="test", num_clips=2).tolist() == [[0, 2, 4, 4]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 1.0, "test"), "`total` must be at least 1"),
        ((9, 4, 0.0, "test"), "`step` must be above 0"),
        ((9, 4, 1.0, "tests"), "`sampling_mode` must be one of"),
    ],
)
def test_impossible_sampling(arguments, message):
    total, num_frames, step, mode = arguments
    with pytest.raises(ValueError, match=message):
        sample_at_rate(total, num_frames, step, sampling_mode=mode)


def test_rate_is_saved_and_checked(tmp_path):
    processor = TubeViTVideoProcessor(num_frames=8, frame_rate=6)
    processor.save_pretrained(tmp_path)
    assert TubeViTVideoProcessor.from_pretrained(tmp_path).frame_rate == 6
    with pytest.raises(ValueError, match="`frame_rate` must be above 0"):
        TubeViTVideoProcessor(frame_rate=0)


def test_an_image_and_a_clip_of_it_look_the_same(tmp_path):
    TubeViTImageProcessor().save_pretrained(tmp_path)
    images = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(images) is TubeViTImageProcessor
    pixels = torch.randint(0, 256, (3, 300, 260), dtype=torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    from_image = images(image, return_tensors="pt").pixel_values
    from_clip = TubeViTVideoProcessor(num_frames=2)(pixels.expand(2, -1, -1, -1), return_tensors="pt").pixel_values
    assert from_image.shape == (1, 3, 224, 224)
    torch.testing.assert_close(from_image, from_clip[:, 0], atol=1e-6, rtol=0)
