"""The embedded data set: what its classes look like, and that nothing but the motion gives the motion away."""

import csv
import threading
from collections import Counter

import av
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_videovit.training.preparing import digit_motion
from hf_videovit.training.preparing.digit_motion import (
    LABEL_SETS,
    MOTIONS,
    Sprite,
    build_digit_motion,
    generate_clip,
    motion_steps,
    plan_scene,
    sprite_opacity,
    write_clip,
    write_example_clips,
)


RECORDED_LABELS = [("left", 9), ("1", 0), ("right_left", 9)]
RECORDED_MEANS = [190.532, 191.531, 194.601]
# Playing a clip backwards swaps the classes in pairs; mirroring it leaves the vertical ones alone.
REVERSED_MOTION = {
    "right": "left",
    "left": "right",
    "down": "up",
    "up": "down",
    "clockwise": "counter-clockwise",
    "counter-clockwise": "clockwise",
}
MIRRORED_MOTION = {**REVERSED_MOTION, "down": "down", "up": "up"}
ON_SCREEN = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def sprite_on(path: np.ndarray, side: float = 12.0) -> Sprite:
    return Sprite(0, np.ones((8, 8), np.float32), side, np.array([255.0, 0.0, 0.0], np.float32), 1.0, path)


def torus_centroids(opacity: np.ndarray) -> np.ndarray:
    """Centre of mass of each frame as (x, y), on the torus: the phase of the first Fourier coefficient."""
    size = opacity.shape[-1]
    wave = np.exp(2j * np.pi * np.arange(size) / size)
    phases = np.stack([opacity.sum(axis=1) @ wave, opacity.sum(axis=2) @ wave], axis=1)
    return np.angle(phases) / (2 * np.pi) * size % size


def torus_steps(positions: np.ndarray, size: int) -> np.ndarray:
    return (np.diff(positions, axis=0) + size / 2) % size - size / 2


def turning(steps: np.ndarray) -> float:
    """Mean cross product of neighbouring steps: positive is clockwise where y points down."""
    return float(np.mean(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]))


def classify_steps(steps: np.ndarray) -> str:
    """The motion class that positions on the screen show."""
    mean = steps.mean(axis=0)
    if np.linalg.norm(steps - mean, axis=1).max() < 1e-3:
        return max(ON_SCREEN, key=lambda motion: float(np.dot(ON_SCREEN[motion], mean)))
    return "clockwise" if turning(steps) > 0 else "counter-clockwise"


@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_what_its_name_says_on_the_screen(motion):
    size, frames = 64, 16
    path = np.cumsum(np.concatenate([[[60.0, 3.0]], motion_steps(motion, 3.0, 10.0, 0.7, frames)]), axis=0) % size
    seen = torus_steps(torus_centroids(sprite_opacity(sprite_on(path), size)), size)
    if motion in ON_SCREEN:
        np.testing.assert_allclose(seen, np.tile(np.multiply(ON_SCREEN[motion], 3.0), (frames - 1, 1)), atol=1e-3)
    else:
        assert (turning(seen) > 0) == (motion == "clockwise")


def test_clockwise_goes_from_right_to_bottom():
    steps = motion_steps("clockwise", speed=10 * np.pi / 2, radius=10.0, phase=0.0, num_frames=2)
    np.testing.assert_allclose(steps, [[-10.0, 10.0]], atol=1e-9)


def test_a_sprite_that_leaves_comes_back_on_the_other_side():
    size = 32
    centre, wrapped = (sprite_opacity(sprite_on(np.array([at])), size)[0] for at in ([16.0, 16.0], [0.0, 31.0]))
    assert wrapped[:, 0].max() > 0 and wrapped[:, -1].max() > 0 and wrapped[0].max() > 0 and wrapped[-1].max() > 0
    np.testing.assert_allclose(np.roll(centre, (15, -16), axis=(0, 1)), wrapped, atol=1e-5)


@given(st.floats(0, 64), st.floats(0, 64), st.floats(28, 36))
@settings(deadline=None, max_examples=25)
def test_a_single_frame_shows_the_same_sprite_wherever_it_is(x, y, side):
    """No blur, no scaling, no cut at the border: how much of the sprite is seen does not depend on its place."""
    amount = sprite_opacity(sprite_on(np.array([[x, y], [32.0, 32.0]]), side), 64).sum(axis=(1, 2))
    assert amount[0] == pytest.approx(amount[1], rel=0.02)


@pytest.mark.parametrize(("swap", "seen"), [(REVERSED_MOTION, -1.0), (MIRRORED_MOTION, np.array([-1.0, 1.0]))])
@pytest.mark.parametrize("motion", MOTIONS)
def test_reversed_and_mirrored_motion_is_another_class(motion, swap, seen):
    steps = motion_steps(motion, 2.0, 9.0, 1.1, 12)
    assert classify_steps(steps) == motion
    assert classify_steps((steps[::-1] if swap is REVERSED_MOTION else steps) * seen) == swap[motion]
    assert swap[swap[motion]] == motion


def test_a_clip_depends_on_its_own_number_only():
    alone = generate_clip("motion", "train", 7, size=32, num_frames=4)
    generate_clip("motion", "train", 3, size=32, num_frames=4)
    assert generate_clip("motion", "train", 7, size=32, num_frames=4).fingerprint == alone.fingerprint
    others = [("train", 8, 0), ("test", 7, 0), ("train", 7, 1)]
    prints = {generate_clip("motion", split, i, size=32, num_frames=4, seed=s).fingerprint for split, i, s in others}
    assert len(prints | {alone.fingerprint}) == 4


def test_clips_are_still_the_ones_that_results_were_measured_on():
    """A change of a drawn number shows here. Means, not hashes: libraries may differ in a last bit."""
    clips = [generate_clip(label_set, "test", 1, size=32, num_frames=8) for label_set in ("motion", "both", "change")]
    assert [(clip.label, clip.digit) for clip in clips] == RECORDED_LABELS
    np.testing.assert_allclose([clip.frames.mean() for clip in clips], RECORDED_MEANS, atol=0.05)


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_every_prefix_of_a_split_is_balanced(label_set):
    labels = LABEL_SETS[label_set]
    count = 3 * len(labels) + 1
    scenes = [plan_scene(label_set, index, np.random.default_rng(index)) for index in range(count)]
    counts = Counter(scene.label for scene in scenes)
    assert set(counts) == set(labels)
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("known", ["digits", "motions"])
def test_both_is_uniform_given_one_of_its_halves(known):
    scenes = [plan_scene("both", index, np.random.default_rng(index)) for index in range(64)]
    counts = Counter((getattr(scene, known), scene.label) for scene in scenes)
    assert len(set(counts.values())) == 1
    assert len(counts) == 4 * len({getattr(scene, known) for scene in scenes})


def test_position_and_speed_do_not_depend_on_the_motion():
    """What a single frame or a single speed could give away: drawn from one distribution for every class."""
    rng = np.random.default_rng(0)
    backdrop = np.full((8, 32, 32, 3), 128.0, np.float32)
    for motion in MOTIONS:
        scene = plan_scene("motion", MOTIONS.index(motion), rng)
        assert scene.motions == (motion,)
        sprites = [digit_motion._random_sprite(rng, scene, 3, scene.motions, "train", backdrop) for _ in range(400)]
        for frame in (0, 4, 7):
            wave = np.exp(2j * np.pi * np.array([sprite.path[frame] for sprite in sprites]) / 32)
            assert np.abs(wave.mean(axis=0)).max() < 0.15  # 400 uniform phases: 0.05 on average
        assert np.mean([sprite.speed for sprite in sprites]) == pytest.approx(0.045 * 32, rel=0.03)


def test_splits_share_neither_writers_nor_places():
    assert digit_motion.TRAIN_DIGITS == 1347
    mattes, digits = digit_motion.handwritten_digits()
    backdrop = np.full((2, 32, 32, 3), 128.0, np.float32)
    scene = plan_scene("appearance", 5, np.random.default_rng(0))
    for split, writers in (("train", mattes[:1347]), ("test", mattes[1347:])):
        rng = np.random.default_rng(1)
        matte = digit_motion._random_sprite(rng, scene, 5, scene.motions, split, backdrop).matte
        assert (writers == matte).all(axis=(1, 2)).any()


def test_change_happens_in_the_middle_and_at_a_named_frame():
    clip = generate_clip("change", "train", 1, size=32, num_frames=64)
    assert clip.label == "right_left" and clip.change_frame == 32 and clip.frames.shape == (64, 32, 32, 3)
    path = digit_motion._random_path(np.random.default_rng(0), ("right", "left"), 1.0, 32, 64)
    steps = torus_steps(path, 32)[:, 0]
    np.testing.assert_allclose(steps[: clip.change_frame - 1], 1.0)
    np.testing.assert_allclose(steps[clip.change_frame - 1 :], -1.0)


def test_two_sprites_are_labelled_by_the_larger_digit():
    scenes = [plan_scene("binding", index, np.random.default_rng(index)) for index in range(60)]
    assert all(scene.digits[0] > scene.digits[1] for scene in scenes)
    clip = generate_clip("binding", "train", 2, size=32, num_frames=4)
    assert clip.label == clip.motion == "down"


def test_speed_bins_and_blink_counts_are_told_apart():
    speeds = [generate_clip("speed", "train", index, size=32, num_frames=2).speed / 32 for index in range(3)]
    assert 0.03 <= speeds[0] < 0.04 <= speeds[1] < 0.05 <= speeds[2] <= 0.06
    shown = digit_motion._blinking(3, 16, np.random.default_rng(0))
    assert np.abs(np.fft.rfft(shown - shown.mean())).argmax() == 3
    assert generate_clip("count", "train", 2, size=32, num_frames=8).blinks == 3


def test_frames_survive_the_encoder(tmp_path):
    frames = generate_clip("motion", "train", 0, size=64, num_frames=6).frames
    write_clip(tmp_path / "clip.mp4", frames)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert len(container.streams.audio) == 0 and container.streams.video[0].average_rate == 25
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 6


@pytest.mark.parametrize("label_set", ["motion", "both"])
def test_examples_are_one_unseen_clip_of_each_label(tmp_path, label_set):
    files = write_example_clips(tmp_path / "new", label_set, size=32, num_frames=2)
    assert tuple(files) == LABEL_SETS[label_set]
    assert all(path.is_file() and path.stem == label for label, path in files.items())


def test_data_set_is_written_once(tmp_path, monkeypatch):
    folder = build_digit_motion(tmp_path, num_train=12, num_test=6, size=32, num_frames=4)
    with open(folder / "labels.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert Counter(row["split"] for row in rows) == {"train": 12, "test": 6}
    assert Counter(row["label"] for row in rows) == dict.fromkeys(MOTIONS, 3)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.mp4")}
    assert files == {row["file"] for row in rows}
    assert all(row["file"].startswith(f"{row['split']}/{row['label']}/") for row in rows)
    clip = generate_clip("motion", "train", 5, size=32, num_frames=4)
    assert clip.fingerprint in {row["frames_sha256"] for row in rows}

    monkeypatch.setattr(digit_motion, "generate_clip", None)  # any use of it would raise
    assert build_digit_motion(tmp_path, num_train=12, num_test=6, size=32, num_frames=4) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]  # no lock


def test_plain_backdrops_are_another_data_set(tmp_path):
    arguments = {"num_train": 6, "num_test": 6, "size": 32, "num_frames": 4}
    plain = build_digit_motion(tmp_path, **arguments, backdrop_contrast=0.0)
    assert plain != build_digit_motion(tmp_path, **arguments)
    clip = generate_clip("motion", "test", 0, size=32, backdrop_contrast=0.0)
    spread = [np.median(np.abs(frame - np.median(frame))) for frame in clip.frames[..., 0].astype(float)]
    usual = generate_clip("motion", "test", 0, size=32)
    assert max(spread) <= 2.0  # noise is left
    assert (clip.motion, clip.digit, clip.colour) == (usual.motion, usual.digit, usual.colour)


def test_a_second_process_waits_for_the_first(tmp_path):
    arguments = {"num_train": 6, "num_test": 6, "size": 32, "num_frames": 2}
    folder = build_digit_motion(tmp_path / "elsewhere", **arguments)
    lock = FileLock(tmp_path / f"{folder.name}.lock")
    built = []
    with lock:
        waiting = threading.Thread(target=lambda: built.append(build_digit_motion(tmp_path, **arguments)))
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive() and not (tmp_path / folder.name).exists()
    waiting.join()
    assert built == [tmp_path / folder.name] and (built[0] / "labels.csv").is_file()


def test_an_interrupted_run_leaves_nothing_half_done(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(digit_motion, "write_clip", fail)
        with pytest.raises(OSError, match="disk full"):
            build_digit_motion(tmp_path, num_train=6, num_test=6, size=32, num_frames=2)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert build_digit_motion(tmp_path, num_train=6, num_test=6, size=32, num_frames=2).is_dir()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"label_set": "colour"}, "`label_set` must be one of motion, .* got 'colour'"),
        ({"num_train": 0}, "`num_train` must be at least 1, got 0"),
        ({"num_test": -1}, "`num_test` must be at least 1, got -1"),
        ({"size": 33}, "`size` must be even .* got 33"),
        ({"num_frames": 1}, "`num_frames` must be at least 2, .* got 1"),
        ({"backdrop_contrast": 1.5}, "`backdrop_contrast` must be between 0 and 1, got 1.5"),
    ],
)
def test_bad_arguments_are_named(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        build_digit_motion(tmp_path, **wrong)


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="`split` must be one of train, test, got 'val'"):
        generate_clip("motion", "val", 0)
