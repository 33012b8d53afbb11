"""Stills for joint training: what they show, and that nothing of the test data is in training data of either kind."""

import csv

import numpy as np
import pytest
from PIL import Image

from hf_videovit.cli.training import generate
from hf_videovit.training.preparing.digit_motion import (
    SPLITS,
    TRAIN_DIGITS,
    generate_clip,
    handwritten_digits,
)
from hf_videovit.training.preparing.digit_stills import SEED_OF_STILLS, build_digit_stills, generate_still


def rows_of(folder):
    with open(folder / "labels.csv", newline="") as table:
        return list(csv.DictReader(table))


def test_no_drawing_is_in_training_and_test_data(tmp_path):
    clips = generate("digit-motion", tmp_path, labels="identity", num_train=10, num_eval=10, size=16)
    stills = generate("digit-stills", tmp_path, num_train=70, num_eval=20, size=16)
    assert "identity" in clips.name and build_digit_stills(tmp_path, 70, 20, size=16) == stills
    mattes, digits = handwritten_digits()
    shown = dict.fromkeys(SPLITS, frozenset())
    for row in rows_of(clips) + rows_of(stills):
        drawing = int(row["drawings"])
        assert str(digits[drawing]) == row["label"] == row["digit"]
        shown[row["split"]] |= {drawing}
    assert max(shown["train"]) < TRAIN_DIGITS <= min(shown["test"])
    pixels = [{matte.tobytes() for matte in part} for part in (mattes[:TRAIN_DIGITS], mattes[TRAIN_DIGITS:])]
    assert not pixels[0] & pixels[1]  # nor the same drawing under two numbers
    assert len(shown["train"]) > 50  # many drawings, not many pictures of few


def test_files_are_the_stills_that_the_table_names(tmp_path):
    folder = build_digit_stills(tmp_path, num_train=11, num_test=2, size=16)
    rows = rows_of(folder)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == {row["file"] for row in rows}
    still = generate_still("train", 10, size=16)
    row = next(row for row in rows if row["file"] == "train/0/000010.png")
    assert row["frames_sha256"] == still.fingerprint and row["drawings"] == str(still.drawings[0])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / row["file"])), still.frames[0])


def test_a_still_depends_on_its_arguments_only():
    again = [generate_still("train", 3, size=16).fingerprint for _ in range(2)]
    others = [generate_still(*which, size=16) for which in (("train", 13), ("test", 3))]
    others += [generate_still("train", 3, size=16, seed=1), generate_clip("identity", "train", 3, size=16)]
    assert again[0] == again[1] and len({again[0], *(other.fingerprint for other in others)}) == 5
    clip = generate_clip("identity", "train", 3, size=16, num_frames=2, seed=SEED_OF_STILLS)
    np.testing.assert_array_equal(generate_still("train", 3, size=16).frames, clip.frames[:1])


@pytest.mark.parametrize("index", range(6))
def test_the_digit_is_in_the_middle_of_a_plain_frame(index):
    still = generate_still("test", index, size=32)
    frame = still.frames[0].astype(float)
    ground = np.median(np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]]), axis=0)
    distance = np.abs(frame - ground).mean(axis=-1)
    assert still.label == str(still.digit) == str(index)
    assert distance[:4].max() < 12 and distance[:, :4].max() < 12  # noise only
    inked = distance > 40
    assert inked.sum() > 20
    np.testing.assert_allclose([axis.mean() for axis in np.nonzero(inked)], 15.5, atol=4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_train": 0}, "`num_train` must be at least 1, got 0"),
        ({"num_test": -1}, "`num_test` must be at least 1, got -1"),
        ({"size": 33}, "`size` must be even .* got 33"),
    ],
)
def test_bad_arguments_are_named(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        build_digit_stills(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_options_of_other_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--labels is for digit-motion only, got 'identity' for digit-stills"):
        generate("digit-stills", tmp_path, labels="identity")
    with pytest.raises(ValueError, match="--size is for digit-motion and digit-stills only, got 32 for digit-scenes"):
        generate("digit-scenes", tmp_path, size=32)
    with pytest.raises(ValueError, match="`label_set` must be one of motion, .*, identity, got 'colour'"):
        generate("digit-motion", tmp_path, labels="colour")
