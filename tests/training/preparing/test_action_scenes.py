"""Scenes of four: what the label depends on, what it does not, and that every scene is made the same again."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.modeling.video_decoding import decode_video
from hf_videovit.training.data.annotation_checks import check_annotations
from hf_videovit.training.data.key_frames import read_key_frames
from hf_videovit.training.preparing import action_scenes
from hf_videovit.training.preparing.action_scenes import (
    DIRECTIONS,
    build_digit_scenes,
    build_people_scenes,
    generate_digit_scene,
    generate_people_scene,
    load_people,
)
from hf_videovit.training.preparing.digit_motion import write_clip


ACTIONS = ("bend", "jump", "stand", "wave")
SCENES = settings(max_examples=25, deadline=None)


def marked_clips():
    """A clip a brightness: frames that tell from which action they are."""
    levels = dict(zip(ACTIONS, (30, 90, 150, 220)))
    return {name: [np.full((24, 64, 64, 3), level, np.uint8)] for name, level in levels.items()}


def cells(tracks):
    """Quarter of the frame in which each box lies, on every frame: `(4, 24)`."""
    middle = (tracks[..., :2] + tracks[..., 2:]) / 2
    return (middle[..., 1] > 48) * 2 + (middle[..., 0] > 64)


@SCENES
@given(index=st.integers(0, 10**6), seed=st.integers(0, 3), split=st.sampled_from(["train", "val"]))
def test_the_four_do_the_four_actions_each_in_its_quarter(index, seed, split):
    for scene in (
        generate_digit_scene(split, index, seed),
        generate_people_scene(marked_clips(), split, index, seed),
    ):
        assert scene.frames.shape == (24, 96, 128, 3) and scene.frames.dtype == np.uint8
        assert sorted(scene.labels) in (sorted(DIRECTIONS), sorted(ACTIONS))
        assert (cells(scene.tracks) == np.arange(4)[:, None]).all()
        corner = np.array([[0, 0], [64, 0], [0, 48], [64, 48]])[:, None]
        assert (scene.tracks[..., :2] >= corner - 1e-9).all()
        assert (scene.tracks[..., 2:] <= corner + [64, 48] + 1e-9).all()


@SCENES
@given(index=st.integers(0, 10**6))
def test_digits_move_as_their_label_says_and_people_drift(index):
    scene = generate_digit_scene("train", index)
    steps = np.diff(scene.tracks[..., :2], axis=1)
    for label, step in zip(scene.labels, steps):
        speed = step @ np.array(DIRECTIONS[label])
        assert (speed >= 0.3 - 1e-9).all() and (speed <= 0.45 + 1e-9).all()
        assert np.abs(step @ np.array(DIRECTIONS[label])[::-1]).max() < 1e-9  # nothing across
    people = generate_people_scene(marked_clips(), "train", index)
    assert np.abs(np.diff(people.tracks[..., :2], axis=1)).max() <= 0.35 + 1e-9


def test_place_and_size_at_the_key_frame_do_not_tell_the_direction():
    """Means over 300 scenes, by direction: equal within the noise of 300 uniform numbers."""
    seen = {name: [] for name in DIRECTIONS}
    for index in range(300):
        scene = generate_digit_scene("train", index)
        for label, box in zip(scene.labels, scene.boxes):
            seen[label].append([(box[0] + box[2]) / 2 % 64, (box[1] + box[3]) / 2 % 48, box[2] - box[0]])
    means = np.array([np.mean(values, axis=0) for values in seen.values()])
    spread = np.array([np.std(values, axis=0) for values in seen.values()]).mean(axis=0) / np.sqrt(300)
    assert (np.ptp(means, axis=0) < 5 * spread).all()
    orders = Counter(generate_digit_scene("val", index).labels for index in range(60))
    assert len(orders) > 12  # of 24


@SCENES
@given(index=st.integers(0, 10**6))
def test_boxes_lie_on_the_people(index):
    """Inside a box, away from its edges, there is only its clip, on every frame; outside only the photograph."""
    scene = generate_people_scene(marked_clips(), "train", index)
    order = []
    for track in scene.tracks:
        inside = []
        for frame in (0, 12, 23):
            x1, y1, x2, y2 = track[frame]
            part = scene.frames[frame, int(y1) + 2 : int(y2) - 1, int(x1) + 2 : int(x2) - 1].astype(float)
            assert part.std() < 2.5  # the noise
            inside.append(part.mean())
        assert np.ptp(inside) < 1
        order.append(inside[0])
    assert [scene.labels[place] for place in np.argsort(order)] == list(ACTIONS)


def test_a_box_is_as_exact_as_a_tenth_of_a_pixel():
    """A bright square pasted on black: its weighted extent is the box."""
    frames = np.zeros((24, 96, 128, 3), np.float32)
    corners = np.tile([7.3, 5.6], (24, 1))
    pixels, opacity = action_scenes._scaled_clip(np.full((24, 64, 64, 3), 200, np.float32), corners, 36.5)
    action_scenes._paste(frames, 3, pixels, opacity)
    x1, y1, x2, y2 = action_scenes._boxes(3, corners, 36.5)[0]
    shown = frames[0, ..., 0] / 200
    middle = (
        np.array([(shown.sum(axis) * (np.arange(n) + 0.5)).sum() for axis, n in ((0, 128), (1, 96))]) / shown.sum()
    )
    np.testing.assert_allclose(middle, [(x1 + x2) / 2, (y1 + y2) / 2], atol=0.05)
    assert shown.sum() == pytest.approx(36.5**2, rel=0.01)


def test_scenes_depend_on_seed_split_and_index_only():
    first = generate_digit_scene("train", 3)
    assert first.fingerprint == generate_digit_scene("train", 3).fingerprint
    others = [
        generate_digit_scene("val", 3),
        generate_digit_scene("train", 4),
        generate_digit_scene("train", 3, seed=1),
    ]
    assert len({first.fingerprint, *(scene.fingerprint for scene in others)}) == 4
    with pytest.raises(ValueError, match="`split` must be one of train, val"):
        generate_digit_scene("test", 0)
    with pytest.raises(ValueError, match="four actions, got 1: bend"):
        generate_people_scene({"bend": []}, "train", 0)


def test_digits_are_written_once_with_their_boxes(tmp_path, monkeypatch):
    folder = build_digit_scenes(tmp_path, num_train=3, num_val=2)
    assert json.loads((folder / "labels.json").read_text()) == list(DIRECTIONS)
    rows = read_key_frames(folder / "train.jsonl").rows
    assert len(rows) == 3 and len(read_key_frames(folder / "val.jsonl").rows) == 2
    assert check_annotations(folder / "train.jsonl", labels=dict(enumerate(DIRECTIONS, start=1))) == []
    scene = generate_digit_scene("train", 1)
    assert rows[1].labels == tuple((label,) for label in scene.labels) and rows[1].frame == 12
    np.testing.assert_allclose(rows[1].boxes, scene.boxes, atol=1e-5)
    decoded = decode_video(folder / rows[1].video).frames
    assert np.abs(decoded.astype(float) - scene.frames).mean() < 4
    with (folder / "scenes.csv").open() as file:
        assert [row["frames_sha256"] for row in csv.DictReader(file)][1] == scene.fingerprint
    monkeypatch.setattr(action_scenes, "generate_digit_scene", None)  # any use of it would raise
    assert build_digit_scenes(tmp_path, num_train=3, num_val=2) == folder
    with pytest.raises(ValueError, match="`num_val` must be at least 1"):
        build_digit_scenes(tmp_path, num_val=0)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    for split in ("train", "val"):
        for name, clips in marked_clips().items():
            (root / split / name).mkdir(parents=True)
            write_clip(root / split / name / "0.mp4", clips[0])
    return root


def test_people_come_from_the_users_clips(people, tmp_path):
    folder = build_people_scenes(tmp_path, people, num_train=2, num_val=1)
    assert json.loads((folder / "labels.json").read_text()) == sorted(ACTIONS)
    (row,) = read_key_frames(folder / "val.jsonl").rows
    scene = generate_people_scene(load_people(people, "val"), "val", 0)
    np.testing.assert_allclose(row.boxes, scene.boxes, atol=1e-5)
    assert list(row.labels) == [(label,) for label in scene.labels]


def test_folders_without_four_actions_are_refused(people, tmp_path):
    with pytest.raises(ValueError, match="must have four actions in train/, .* has none"):
        build_people_scenes(tmp_path, tmp_path / "nowhere")
    short = tmp_path / "short"
    for name in ACTIONS:
        (short / "train" / name).mkdir(parents=True)
        write_clip(short / "train" / name / "0.mp4", np.zeros((5, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"train/bend needs clips of 24 frames; too short: 0\.mp4"):
        load_people(short, "train")
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path != short]


def test_the_command_writes_scenes(people, tmp_path):
    words = ["generate", "digit-scenes", str(tmp_path), "--train", "1", "--val", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and (Path(result.stdout.strip()) / "val.jsonl").is_file()
    words = ["generate", "people-scenes", str(tmp_path), "--clips", str(people), "--train", "1", "--val", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    for wrong in (
        ["digit-scenes", str(tmp_path), "--clips", str(people)],
        ["people-scenes", str(tmp_path)],
        ["x", "y"],
    ):
        assert CliRunner().invoke(app, ["generate", *wrong]).exit_code == 2
