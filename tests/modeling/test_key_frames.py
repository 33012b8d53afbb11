"""Clips around key-frames, and boxes that go with their pixels."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_videovit import VideoMAEV2VideoProcessor
from hf_videovit.modeling.box_geometry import crop_boxes, flip_boxes, restore_boxes, scale_boxes, to_corners
from hf_videovit.modeling.frame_sampling import key_frame_offsets, nearest_frames
from hf_videovit.modeling.modeling_action_detection import ActionDetectionOutput
from tests.clips import write_clip


CONVENTIONS = pytest.mark.parametrize("convention", ["exclusive", "inclusive"])


def processor(**fields):
    fields = {"num_frames": 4, "frame_stride": 2, "do_center_crop": False, "size": {"shortest_edge": 32}, **fields}
    return VideoMAEV2VideoProcessor(**fields)


def painted(height=48, width=64, box=(16, 8, 40, 32), frames=4):
    """A black clip with a white rectangle, and the rectangle."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    clip[:, y1:y2, x1:x2] = 255
    return clip, [list(map(float, box))]


def numbered_clip(path, frames=40, fps=25):
    """A video whose frames are as bright as their number."""
    grey = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 6
    return write_clip(path, np.broadcast_to(grey, (frames, 32, 48, 3)).copy(), fps=fps)


@CONVENTIONS
@pytest.mark.parametrize(
    ("given_boxes", "box_format", "normalized"),
    [
        ([[16.0, 8.0, 40.0, 32.0]], "xyxy", False),
        ([[16.0, 8.0, 24.0, 24.0]], "xywh", False),
        ([[28.0, 20.0, 24.0, 24.0]], "cxcywh", False),
        ([[16 / 64, 8 / 48, 40 / 64, 32 / 48]], "xyxy", True),
    ],
)
def test_every_format_names_the_same_pixels(given_boxes, box_format, normalized, convention):
    corners, kept = to_corners(torch.tensor(given_boxes), (48, 64), box_format, normalized, convention)
    last = 1.0 if convention == "inclusive" else 0.0
    torch.testing.assert_close(corners, torch.tensor([[16.0, 8.0, 40 - last, 32 - last]]))
    assert kept.tolist() == [0]


def test_boxes_outside_the_frame_are_left_out_and_named():
    boxes = torch.tensor([[-9.0, -9, 5, 5], [70, 10, 80, 20], [3, 3, 3, 9], [10, 10, 20, 20]])
    corners, kept = to_corners(boxes, (48, 64), "xyxy", False, "exclusive")
    assert kept.tolist() == [0, 3]
    assert corners[0].tolist() == [0, 0, 5, 5]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(*[st.floats(0, 40)] * 2, *[st.floats(2, 20)] * 2), min_size=1, max_size=5),
    st.sampled_from([(32, 48), (96, 64), (51, 77)]),
    st.sampled_from(["exclusive", "inclusive"]),
)
def test_boxes_come_back_from_the_network(boxes, size, convention):
    """Resized and restored, a box is where it was, to a pixel of the network where corners are inclusive."""
    given_boxes = torch.tensor([[x, y, x + width, y + height] for x, y, width, height in boxes])
    corners, kept = to_corners(given_boxes, (64, 64), "xyxy", False, convention)
    restored = restore_boxes(scale_boxes(corners, (64, 64), size), size, (64, 64), convention)
    torch.testing.assert_close(restored, given_boxes[kept].clamp(max=64), atol=1e-3, rtol=0)


@CONVENTIONS
def test_pixels_and_boxes_are_cropped_and_flipped_alike(convention):
    clip, boxes = painted()
    corners, _ = to_corners(torch.tensor(boxes), (48, 64), "xyxy", False, convention)
    flipped = flip_boxes(crop_boxes(corners, 4, 10, 40, 48), 48, convention)
    pixels = clip[0, 4:44, 10:58, 0][:, ::-1]
    rows, columns = np.nonzero(pixels)
    last = 0 if convention == "inclusive" else 1
    assert flipped[0].tolist() == [columns.min(), rows.min(), columns.max() + last, rows.max() + last]


def test_boxes_follow_the_resized_and_cropped_pixels():
    clip, boxes = painted()
    for fields in ({}, {"do_center_crop": True, "crop_size": {"height": 24, "width": 28}}):
        batch = processor(antialias=False, do_normalize=False, **fields)(clip, boxes=boxes, return_tensors="pt")
        rows, columns = (batch["pixel_values"][0, 0, 0] > 0.5).nonzero(as_tuple=True)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        torch.testing.assert_close(batch["boxes"][0, 0], torch.stack(found).float(), atol=1.0, rtol=0)


def test_clips_of_other_sizes_are_padded_and_their_sizes_are_known():
    wide, boxes = painted(width=80)
    narrow, _ = painted(width=64)
    batch = processor(pad_multiple=16)([wide, narrow], boxes=[boxes, boxes * 2], return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 4, 3, 32, 64)
    assert batch["sizes"].tolist() == [[32, 53], [32, 42]]
    assert batch["original_sizes"].tolist() == [[48, 80], [48, 64]]
    assert (batch["pixel_values"][1, ..., 42:] == 0).all()
    assert batch["box_mask"].tolist() == [[True, False], [True, True]]


def test_a_clip_without_people_and_boxes_that_were_dropped():
    clip, boxes = painted()
    batch = processor()([clip, clip], boxes=[[], [[90.0, 90.0, 99.0, 99.0], *boxes]], return_tensors="pt")
    assert batch["boxes"].shape == (2, 1, 4)
    assert [rows.tolist() for rows in batch["kept_boxes"]] == [[], [1]]


@pytest.mark.parametrize(("stride", "read", "expected"), [(4, True, [-8, -4, 0, 4]), (4, False, [-7, -3, 1, 5])])
def test_offsets_of_a_clip(stride, read, expected):
    assert key_frame_offsets(4, stride, read).tolist() == expected


def test_frames_are_found_by_time_whatever_the_rate():
    times = np.arange(300) / 30
    found = nearest_frames(np.array([4.0]), key_frame_offsets(16, 4, False), times, fps=25)
    seconds = times[found[0]]
    wanted = 4.0 + key_frame_offsets(16, 4, False) / 25
    assert np.abs(seconds - wanted).max() <= 1 / 60 + 1e-9
    own = nearest_frames(np.array([4.0]), key_frame_offsets(16, 4, False), times)
    assert own[0].tolist() == (120 + key_frame_offsets(16, 4, False)).tolist()


def test_uneven_times_are_followed():
    """A live recording: frames of the first second are lost."""
    times = np.concatenate(([0.0], 1 + np.arange(30) / 30))
    assert nearest_frames(np.array([1.5]), np.array([-15, 0, 15]), times, fps=30)[0].tolist() == [1, 16, 30]


def test_beyond_the_ends_the_border_frame_is_repeated_and_the_key_frame_must_be_inside():
    times = np.arange(50) / 25
    found = nearest_frames(np.array([0.0, 1.96]), key_frame_offsets(4, 8), times)
    assert found.tolist() == [[0, 0, 0, 8], [33, 41, 49, 49]]
    for outside in (-0.1, 2.5):
        with pytest.raises(ValueError, match="`key_frames` must lie between 0 and 2 seconds"):
            nearest_frames(np.array([outside]), key_frame_offsets(4, 8), times)


def test_a_video_gives_a_clip_for_each_key_frame(tmp_path):
    path = str(numbered_clip(tmp_path / "clip.mp4"))
    made = processor(do_normalize=False, do_resize=False)
    batch = made(path, key_frame=[0.4, 1.2], boxes=[[[0, 0, 9, 9]], []], return_tensors="pt")
    numbers = (batch["pixel_values"].mean((2, 3, 4)) * 255 / 6).round().int().tolist()
    assert numbers == [[6, 8, 10, 12], [26, 28, 30, 32]]
    alone = made([path, path], key_frame=[0.4, 1.2], return_tensors="pt")
    assert torch.equal(alone["pixel_values"], batch["pixel_values"])
    assert "boxes" not in alone


def test_answers_are_in_pixels_of_the_video_with_the_best_label_first():
    clip, boxes = painted()
    made = processor(box_convention="inclusive")
    inputs = made([clip], boxes=[[*boxes, [0.0, 0.0, 12.0, 12.0]]], return_tensors="pt")
    outputs = ActionDetectionOutput(probabilities=torch.tensor([[[0.2, 0.9, 0.7], [0.6, 0.1, 0.2]]]))
    (answer,) = made.post_process_action_detection(outputs, inputs, person_scores=[[1.0, 0.5]])
    torch.testing.assert_close(answer["boxes"], torch.tensor([boxes[0], [0, 0, 12, 12]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(answer["scores"][1], torch.tensor([0.3, 0.05, 0.1]))
    assert [labels.tolist() for labels in answer["labels"]] == [[1, 2], []]
    (answer,) = made.post_process_action_detection(outputs, inputs, threshold=0.0, top_k=1)
    assert [labels.tolist() for labels in answer["labels"]] == [[1], [0]]


def test_the_settings_travel_with_the_processor(tmp_path):
    fields = {"sampling_fps": 25, "read_key_frame": False, "pad_multiple": 16, "box_convention": "inclusive"}
    processor(**fields).save_pretrained(tmp_path)
    loaded = VideoMAEV2VideoProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in fields} == fields
    saved = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert "boxes" not in saved


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": [[0, 0, 2, 2]], "normalized": True}, "`boxes` must lie between 0 and 1"),
        ({"boxes": [[0, 0, float("nan"), 2]]}, "`boxes` must be finite"),
        ({"boxes": [[0, 0, 2, 2]], "box_format": "corners"}, "`box_format` must be one of"),
        ({"boxes": [[[0, 0, 2]]]}, r"`boxes` of a clip must have shape \(num_boxes, 4\)"),
        ({"boxes": [[[0, 0, 2, 2]]] * 2}, "`boxes` must have an entry for each of the 1 clips, got 2"),
        ({"key_frame": 1.0}, "`key_frame` must be None for videos given as frames"),
        ({"boxes": [[0, 0, 2, 2]], "box_fromat": "xyxy"}, "`box_fromat` is not an argument"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    clip, _ = painted()
    with pytest.raises(ValueError, match=message):
        processor()(clip, **arguments)


def test_fields_that_are_not_allowed_are_refused():
    with pytest.raises(ValueError, match="`box_convention` must be one of"):
        processor(box_convention="pixels")
    with pytest.raises(ValueError, match="`pad_multiple` must be at least 1"):
        processor(pad_multiple=0)
