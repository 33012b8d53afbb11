"""COCO's metrics on answers whose scores are known, and the share of correct keypoints."""

import numpy as np
import pytest

from hf_videovit.training.data.coco_images import find_objects, read_objects
from hf_videovit.training.evaluation.metrics.coco import coco_metrics, correct_keypoints, keypoint_sigmas
from hf_videovit.training.evaluation.pose import without_doubles
from hf_videovit.training.preparing.digit_pictures import build_digit_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return build_digit_pictures(tmp_path_factory.mktemp("pictures"), num_train=1, num_val=6)


def answers(source, **changes):
    """The truth as predictions."""
    rows = []
    for sample in source:
        for one in sample.objects:
            found = {"image_id": sample.image_id, "category_id": one["category_id"], "score": 0.9}
            rows.append(found | {name: change(one) for name, change in changes.items()})
    return rows


def test_boxes_and_masks(pictures):
    source = read_objects(*find_objects(pictures, "val", "instances"))
    right = answers(source, bbox=lambda one: one["bbox"])
    metrics, per_class = coco_metrics(source, right, "bbox")
    assert metrics["AP"] == pytest.approx(1) and metrics["AP50"] == pytest.approx(1) and "APl" not in metrics
    assert [value for value in per_class.values() if value is not None and value < 0.999] == []
    # shifted by a quarter of its width: an overlap of 0.6 counts at 0.5, 0.55 and 0.6 of ten thresholds
    moved = answers(source, bbox=lambda one: [one["bbox"][0] + one["bbox"][2] / 4, *one["bbox"][1:]])
    shifted, _ = coco_metrics(source, moved, "bbox")
    assert (
        shifted["AP50"] == pytest.approx(1) and shifted["AP75"] == 0 and shifted["AP"] == pytest.approx(0.3, abs=0.01)
    )
    wrong = [{**one, "category_id": one["category_id"] % 4 + 1} for one in right]
    assert coco_metrics(source, wrong, "bbox")[0]["AP"] < 0.1
    assert coco_metrics(source, [], "bbox")[0]["AP"] == 0
    from pycocotools import mask

    packed = answers(source, segmentation=lambda one: mask.frPyObjects(one["segmentation"], 96, 128))
    assert coco_metrics(source, packed, "segm")[0]["AP"] == pytest.approx(1)
    # missing answers of one image lower the recall: images are never left out
    some = [one for one in right if one["image_id"] != 1]
    assert coco_metrics(source, some, "bbox")[0]["AR100"] < 0.99


def test_keypoints(pictures):
    source = read_objects(*find_objects(pictures, "val", "keypoints"), kind="keypoints")
    sigmas = keypoint_sigmas(source.categories[0]["keypoints"])
    assert sigmas == [0.05] * 5 and keypoint_sigmas(["nose", *"abcdefghijklmnop"])[0] == 0.026
    right = answers(source, keypoints=lambda one: one["keypoints"])
    assert coco_metrics(source, right, "keypoints", sigmas)[0]["AP"] == pytest.approx(1)

    def shifted(pixels):
        return answers(
            source,
            keypoints=lambda one: np.add(np.reshape(one["keypoints"], (-1, 3)), [pixels, 0, 0]).ravel().tolist(),
        )

    # exp(-distance^2 / (2 area (2 sigma)^2)) as the metric defines the similarity
    areas = [one["area"] for sample in source for one in sample.objects]
    for pixels in (0.5, 2.0):
        similar = np.exp(-(pixels**2) / (2 * np.array(areas) * 0.01))
        metrics, _ = coco_metrics(source, shifted(pixels), "keypoints", sigmas)
        recalls = np.mean([(similar >= bound).mean() for bound in np.arange(0.5, 1, 0.05)])
        assert metrics["AR"] == pytest.approx(recalls, abs=0.02)
    with pytest.raises(ValueError, match="`sigmas` must be one for each of 5 keypoints, got 2"):
        keypoint_sigmas(source.categories[0]["keypoints"], [0.1, 0.1])


def test_correct_keypoints():
    truth = np.array([[[0.0, 0, 2], [10, 0, 1], [50, 50, 0]], [[0, 0, 2], [0, 9, 2], [1, 1, 2]]])
    found = truth[..., :2] + np.array([3.0, 0])
    sides = np.array([20.0, 40.0])
    assert correct_keypoints(found, truth, sides, 0.1) == pytest.approx(3 / 5)  # within 2 and 4 pixels
    found[1] = np.nan
    assert correct_keypoints(found, truth, sides, 0.2) == pytest.approx(2 / 5)
    assert np.isnan(correct_keypoints(found, truth * [1, 1, 0], sides, 0.2))


def test_a_person_who_was_found_twice_counts_once():
    def pose(x, score, image=1):
        return {"image_id": image, "keypoints": [x, 0.0, 1.0, x, 9.0, 1.0], "score": score, "area": 400.0}

    entries = [pose(0, 0.5), pose(0.5, 0.9), pose(30, 0.4), pose(0, 0.1, image=2)]
    assert without_doubles(entries, [0.05, 0.05]) == entries[1:]
