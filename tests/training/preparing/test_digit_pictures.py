"""Pictures of digits: annotations that the pixels confirm, and files that COCO's and ADE20K's readers take."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.training.preparing import digit_pictures
from hf_videovit.training.preparing.digit_motion import handwritten_digits
from hf_videovit.training.preparing.digit_pictures import (
    KEYPOINTS,
    build_digit_pictures,
    generate_digit_picture,
    run_lengths,
)


def test_masks_are_where_the_colour_of_a_digit_is_and_boxes_enclose_them():
    for index in range(20):
        picture = generate_digit_picture("training", index)
        assert picture.pixels.shape == (96, 128, 3) and 1 <= len(picture.objects) <= 4
        assert not sum(one.mask.astype(int) for one in picture.objects).max() > 1  # no overlap
        for one in picture.objects:
            left, top, right, bottom = one.box
            rows, columns = np.nonzero(one.mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == one.box
            label = 2 + (0, 1, 2, 3).index(one.digit)
            inner = picture.semantic == label
            assert (inner[top:bottom, left:right] <= one.mask[top:bottom, left:right]).all()
            # the digit has one colour, the photograph does not
            colours = picture.pixels[inner & one.mask].astype(float)
            assert np.median(np.abs(colours - np.median(colours, axis=0))) < 12
            assert not np.isin(picture.semantic[one.mask], 1).any()


def test_keypoints_turn_with_the_digit(monkeypatch):
    matte = np.zeros((8, 8), np.float32)
    matte[1:7, 2:5] = 1  # a rectangle, one of its corners cut off
    matte[1:3, 2] = 0
    opacity, points = digit_pictures._turned(matte, np.array([60.0, 50.0]), 32.0, 0.0)
    np.testing.assert_allclose(points, [[58, 50], [52, 38], [64, 38], [52, 62], [64, 62]])
    assert opacity[60, 53] > 0.9 and opacity[39, 53] < 0.1  # the cut corner is the upper left one
    opacity, points = digit_pictures._turned(matte, np.array([60.0, 50.0]), 32.0, np.pi / 2)
    # clockwise: what was above is on the right, so the upper left corner is the upper right one
    np.testing.assert_allclose(points[KEYPOINTS.index("top_left")], [72, 42])
    assert opacity[43, 71] < 0.1 and opacity[43, 49] > 0.9 and opacity[50, 68] > 0.9


def test_a_picture_depends_on_its_arguments_only():
    one = generate_digit_picture("validation", 3)
    others = [
        generate_digit_picture(*args) for args in (("training", 3), ("validation", 4), ("validation", 3, (5, 6)))
    ]
    assert generate_digit_picture("validation", 3).fingerprint == one.fingerprint
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert {one.digit for one in others[-1].objects} <= {5, 6}
    with pytest.raises(ValueError, match="`split` must be one of training, validation, got 'x'"):
        generate_digit_picture("x", 0)
    with pytest.raises(ValueError, match=r"`digits` must be different numbers from 0 to 9, got \[1, 1\]"):
        generate_digit_picture("training", 0, (1, 1))
    assert len(handwritten_digits()[0]) == 1797


def test_files_hold_what_was_drawn(tmp_path):
    words = ["generate", "digit-pictures", str(tmp_path), "--train", "3", "--val", "2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "--recipe uniformer/digit_pictures_detection" in result.output
    folder = Path(result.stdout.strip().splitlines()[0])
    assert build_digit_pictures(tmp_path, num_train=3, num_val=2) == folder
    assert json.loads((folder / "labels.json").read_text()) == ["background", "0", "1", "2", "3"]
    picture = generate_digit_picture("training", 1)
    assert json.loads((folder / "pictures.json").read_text())["training/000001.png"] == picture.fingerprint
    for kind, pixels in (("images", picture.pixels), ("annotations", picture.semantic)):
        np.testing.assert_array_equal(np.array(Image.open(folder / kind / "training" / "000001.png")), pixels)
    instances, poses = (
        json.loads((folder / "annotations" / f"{kind}_training.json").read_text())
        for kind in ("instances", "keypoints")
    )
    own = [one for one in instances["annotations"] if one["image_id"] == 2]
    names = {one["id"]: one["name"] for one in instances["categories"]}
    assert [names[one["category_id"]] for one in own] == [str(one.digit) for one in picture.objects]
    for entry, one in zip(own, picture.objects, strict=True):
        counts = entry["segmentation"]["counts"]
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        np.testing.assert_array_equal(flat.reshape(one.mask.shape, order="F"), one.mask)
        left, top, width, height = entry["bbox"]
        assert (left, top, left + width, top + height) == one.box and entry["area"] == one.mask.sum()
    (person,) = poses["categories"]
    assert person["keypoints"] == list(KEYPOINTS) and person["skeleton"] == [[2, 3], [3, 5], [5, 4], [4, 2]]
    points = [one["keypoints"] for one in poses["annotations"] if one["image_id"] == 2]
    np.testing.assert_allclose(
        np.reshape(points, (-1, 5, 3))[..., :2], [one.keypoints for one in picture.objects], atol=1e-3
    )
    with pytest.raises(ValueError, match="`num_val` must be at least 1, got 0"):
        build_digit_pictures(tmp_path, num_val=0)


def test_run_lengths_start_with_what_is_outside():
    assert run_lengths(np.array([[1, 0], [1, 1]], bool)) == [0, 2, 1, 1]
    assert run_lengths(np.zeros((2, 2), bool)) == [4]
