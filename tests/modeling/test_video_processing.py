"""
The clip processor: forms of input, views, the protocol that travels. Pixels against the official code:
tests/test_parity.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor

from hf_videovit import VideoDecodingError, VideoMAEV2VideoProcessor
from hf_videovit.modeling.video_processing_base import output_size, without_colours

from ..clips import write_clip


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """40 frames whose grey level tells their index."""
    levels = np.arange(40, dtype=np.uint8) * 6
    return np.broadcast_to(levels[:, None, None, None], (40, 48, 64, 3)).copy()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, frames: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("clips") / "levels ünï.mp4"
    write_clip(path, frames)
    return path


def processor(**kwargs) -> VideoMAEV2VideoProcessor:
    fields = {"num_frames": 4, "frame_stride": 2, "size": {"shortest_edge": 32}, "crop_size": 32}
    return VideoMAEV2VideoProcessor(**{**fields, **kwargs})


def levels_of(pixel_values: torch.Tensor) -> list[int]:
    """Frame indices told from the grey levels of `(frames, channels, height, width)`."""
    return (pixel_values.mean(dim=(1, 2, 3)) * 255 / 6).round().int().tolist()


def test_every_form_of_one_video_gives_the_same_clip(clip, frames):
    make = processor()
    expected = make(clip, return_tensors="pt").pixel_values
    assert expected.shape == (1, 4, 3, 32, 32)
    forms = [
        str(clip),
        clip.read_bytes(),
        io.BytesIO(clip.read_bytes()),
        {"path": None, "bytes": clip.read_bytes()},
        [clip],
        [[str(clip)]],
    ]
    for form in forms:
        assert make(form, return_tensors="pt").pixel_values.equal(expected)
    arrays = [frames, torch.from_numpy(frames).permute(0, 3, 1, 2), [Image.fromarray(frame) for frame in frames]]
    for form in arrays:
        torch.testing.assert_close(make(form, return_tensors="pt").pixel_values, expected, atol=0.05, rtol=0)


def test_files_are_sampled_and_ready_clips_are_not(clip, frames):
    make = processor(do_rescale=True, do_normalize=False)
    assert levels_of(make(clip, return_tensors="pt").pixel_values[0]) == [16, 18, 20, 22]
    assert levels_of(make(frames, return_tensors="pt").pixel_values[0]) == [16, 18, 20, 22]
    assert levels_of(make(frames[:4], return_tensors="pt").pixel_values[0]) == [0, 1, 2, 3]
    assert levels_of(make(frames[:4], do_sample_frames=True, return_tensors="pt").pixel_values[0]) == [0, 2, 2, 2]
    assert make(clip, do_sample_frames=False, return_tensors="pt").pixel_values.shape[1] == 40


def test_views_are_ordered_clip_by_clip(clip):
    make = processor(num_clips=2, num_crops=3, do_normalize=False)
    batch = make([clip, clip], return_tensors="pt", return_metadata=True)
    assert batch.pixel_values.shape == (2, 6, 4, 3, 32, 32) and make.num_views == 6
    assert [levels_of(view)[0] for view in batch.pixel_values[0]] == [0, 0, 0, 32, 32, 32]
    assert batch["video_metadata"][0].frames_indices == [0, 2, 4, 6, 32, 34, 36, 38]
    for mode in ("train", "validation"):
        assert make(clip, sampling_mode=mode, return_tensors="pt").pixel_values.shape == (1, 4, 3, 32, 32)


def test_crops_cover_the_long_side():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None], (4, 32, 64, 3)).copy()
    make = processor(num_crops=3, do_normalize=False, do_rescale=False)
    crops = make(ramp, return_tensors="pt").pixel_values[0]
    assert [int(crop[0, 0, 0, 0]) for crop in crops] == [0, 16, 32]
    tall = make(ramp.transpose(0, 2, 1, 3), return_tensors="pt").pixel_values[0]
    assert tall.equal(crops.transpose(-1, -2))


def test_crops_of_a_square_clip_go_along_its_width():
    ramp = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, None, :, None], (4, 48, 48, 3)).copy()
    make = processor(num_crops=3, size={"shortest_edge": 48}, do_normalize=False, do_rescale=False)
    crops = make(ramp, return_tensors="pt").pixel_values[0]
    assert [int(crop[0, 0, 0, 0]) for crop in crops] == [0, 8, 16]
    turned = make(ramp.transpose(0, 2, 1, 3), return_tensors="pt").pixel_values[0]
    assert [int(crop[0, 0, 0, 0]) for crop in turned] == [8, 8, 8]


@pytest.mark.parametrize(("spare", "offset"), [(10, 5), (11, 6), (12, 6), (13, 6)])
def test_centre_crop_rounds_half_pixels_to_even(spare, offset):
    columns = np.arange(32 + spare, dtype=np.uint8)
    frames = np.tile(columns[None, None, :, None], (4, 32, 1, 3))
    for mode in ("validation", "test"):
        crop = processor(sampling_mode=mode)(frames, do_rescale=False, do_normalize=False).pixel_values[0]
        assert crop[0, 0, 0].tolist() == list(range(offset, offset + 32))


def test_loaded_clips_then_normalised_equal_a_call(clip):
    make = processor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 64})
    clips, metadata = make.load_clips(clip)
    assert clips.dtype == torch.uint8 and clips.shape == (1, 4, 3, 48, 64)
    assert metadata.frames_indices == [16, 18, 20, 22]
    assert make.normalize_clips(clips).equal(make(clip, return_tensors="pt").pixel_values)


def test_random_modes_repeat_with_a_seed(clip):
    make = processor(do_normalize=False)
    draws = [
        make(clip, sampling_mode="train", seed=seed, return_tensors="pt").pixel_values for seed in (1, 1, 2, 3, 4)
    ]
    levels = [tuple(levels_of(draw[0])) for draw in draws]
    assert levels[0] == levels[1] and len(set(levels)) > 1


def test_short_videos_are_padded_by_the_protocol(frames):
    batch = processor(num_frames=16, do_normalize=False)(frames[:5], return_tensors="pt")
    assert levels_of(batch.pixel_values[0]) == [0, 2] + [4] * 14


def test_protocol_travels_with_the_folder(tmp_path, clip):
    make = processor(num_clips=2, num_crops=3, frame_sampling="segment", decoding_policy="salvage")
    make.save_pretrained(tmp_path)
    loaded = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is VideoMAEV2VideoProcessor and loaded.to_dict() == make.to_dict()
    assert loaded(clip, return_tensors="pt").pixel_values.equal(make(clip, return_tensors="pt").pixel_values)


def test_defaults_are_the_published_protocol(clip):
    batch = VideoMAEV2VideoProcessor()(clip, return_tensors="pt", return_metadata=True)
    assert batch.pixel_values.shape == (1, 16, 3, 224, 224)
    assert batch["video_metadata"][0].frames_indices == [*range(0, 40, 4)] + [36] * 6


def test_long_side_is_cut_not_rounded():
    from transformers.image_utils import SizeDict

    assert output_size((54, 96), SizeDict(shortest_edge=28)) == (28, 49)
    assert output_size((96, 54), SizeDict(shortest_edge=28)) == (49, 28)
    assert output_size((96, 54), SizeDict(height=7, width=9)) == (7, 9)


def test_grey_and_alpha_frames_become_rgb():
    make = processor(do_normalize=False, do_rescale=False)
    grey = make(np.full((4, 1, 40, 40), 7, np.uint8), return_tensors="pt").pixel_values
    assert grey.shape == (1, 4, 3, 32, 32) and (grey == 7).all()
    alpha = np.zeros((4, 40, 40, 4), np.uint8)
    assert make(alpha, return_tensors="pt").pixel_values.shape == (1, 4, 3, 32, 32)


def test_colours_are_taken_away_on_every_path(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    processor(do_grayscale=True).save_pretrained(tmp_path)
    make = AutoVideoProcessor.from_pretrained(tmp_path)
    seen = make(colours, return_tensors="pt").pixel_values
    uncoloured = make(colours, return_tensors="pt", do_normalize=False, do_rescale=False).pixel_values
    expected = [np.asarray(Image.fromarray(frame).convert("L")) for frame in colours]
    for channel in range(3):
        assert np.abs(uncoloured[0, :, channel].int().numpy() - np.stack(expected).astype(int)).max() <= 1
    assert make.normalize_clips(torch.from_numpy(colours).permute(0, 3, 1, 2)[None]).equal(seen)
    assert not make(colours, return_tensors="pt", do_grayscale=False).pixel_values.equal(seen)
    assert not processor()(colours, return_tensors="pt").pixel_values.equal(seen)


def test_grey_stays_as_it_is():
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert without_colours(grey).equal(grey)


@pytest.mark.parametrize(
    ("videos", "kwargs", "message"),
    [
        (np.zeros((8, 3, 9, 3), np.uint8), {}, "Cannot tell the channel axis .* pass `input_data_format`"),
        (np.zeros((8, 9, 9), np.float32)[None, ..., None].repeat(3, -1)[0] / 255, {}, "pass `do_rescale=False`"),
        (np.zeros((3, 3), np.uint8), {}, "must have 4 axes, or 5 for a batch"),
        ([], {}, "`videos` must be a path"),
        (3.5, {}, "`videos` must be a path"),
        (np.zeros((8, 40, 40, 3), np.uint8), {"video_metadata": []}, "one entry for each of the 1 videos, got 0"),
    ],
)
def test_bad_input_is_named(videos, kwargs, message):
    with pytest.raises(ValueError, match=message):
        processor()(videos, return_tensors="pt", **kwargs)


def test_misspelt_arguments_and_values_are_refused(clip):
    with pytest.raises(ValueError, match="`frame_sampling` must be one of .*'desne'"):
        processor(frame_sampling="desne")
    with pytest.raises(ValueError, match="`num_clips` must be at least 1, got 0"):
        processor(num_clips=0)
    with pytest.raises(ValueError, match="`frame_stidre` is not an argument .* Did you mean `frame_stride`"):
        processor()(clip, frame_stidre=3)
    with pytest.raises(ValueError, match="Did you mean `num_crops`"):
        processor(num_crop=3)


def test_missing_files_are_decoding_errors(tmp_path):
    with pytest.raises(VideoDecodingError, match="no.mp4"):
        processor()(tmp_path / "no.mp4")
