"""Images in COCO's format: what is read, how it is changed, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_videovit.dense.pose import keypoints_in_image
from hf_videovit.training.data.coco_images import (
    decode_mask,
    find_objects,
    learnable,
    people,
    read_objects,
)
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.data.object_loading import ObjectAugmentation, ObjectLoader
from hf_videovit.training.data.pose_loading import PersonLoader, PoseAugmentation, PoseLoader
from hf_videovit.training.preparing.digit_pictures import build_digit_pictures, generate_digit_picture


POLYGON = {"segmentation": [[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return build_digit_pictures(tmp_path_factory.mktemp("pictures"), num_train=4, num_val=2)


def write(path, images, annotations, categories=None):
    categories = categories or [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


IMAGE = {"id": 1, "file_name": "a.png", "height": 8, "width": 10}


def box(**more):
    return {"image_id": 1, "category_id": 3, "bbox": [2, 1, 4, 4], **more}


def test_layouts_are_found(pictures, tmp_path):
    file, images = find_objects(pictures, "train", "instances")
    assert (file.name, images) == ("instances_training.json", pictures / "images" / "training")
    assert find_objects(pictures, None, "keypoints")[0].name == "keypoints_validation.json"
    (tmp_path / "train2017").mkdir()
    coco = write(tmp_path / "annotations" / "instances_train2017.json", [IMAGE], [])
    assert find_objects(tmp_path, "train", "instances") == (coco, tmp_path / "train2017")
    assert find_objects(tmp_path, None, "instances") is None
    beside = write(tmp_path / "other" / "valid" / "_annotations.coco.json", [IMAGE], [])
    assert find_objects(tmp_path / "other", "val", "instances") == (beside, beside.parent)
    assert find_objects(coco, "train", "instances", tmp_path) == (coco, tmp_path)
    with pytest.raises(ValueError, match=r"has no annotations/person_keypoints_train.json or annotations/keypoints_"):
        find_objects(tmp_path, "train", "keypoints")


def test_labels_follow_the_ids_of_categories_and_crowds_are_not_learnt(tmp_path):
    images = [IMAGE, {**IMAGE, "id": 2, "file_name": "b.png"}]
    rows = [box(), box(iscrowd=1), {**box(), "image_id": 2, "bbox": [0, 0, 0.5, 3]}]
    source = read_objects(write(tmp_path / "a.json", images, rows), tmp_path)
    assert source.label_names == ["cat", "dog"] and source.labels == {3: 0, 7: 1}
    kept = learnable(source)
    assert [one.id for one in kept] == ["a.png"] and kept.remarks == (
        "1 images without objects are left out of the training",
    )
    assert source[0].objects[0]["area"] == 16
    renamed = source.with_label_names(["bird", "dog", "cat"])
    assert renamed.labels == {None: 0, 7: 1, 3: 2}
    with pytest.raises(ValueError, match="1 of 2 label names"):
        source.with_label_names(["cat"])
    for wrong, message in (
        (box(category_id=1), "annotation 1 names an image or a category"),
        ({**box(), "bbox": [1, 2]}, r"annotation 1 must have `bbox` \[x, y, width, height\], got \[1, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            read_objects(write(tmp_path / "b.json", images, [wrong]), tmp_path)
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ValueError, match="is not COCO's format for images: 'images' is missing"):
        read_objects(tmp_path / "c.json", tmp_path)


def test_masks_of_all_three_kinds_are_the_same():
    wanted = torch.zeros(8, 10, dtype=torch.uint8)
    wanted[1:5, 2:6] = 1
    plain = {"size": [8, 10], "counts": [17, 4, 4, 4, 4, 4, 4, 4, 35]}
    assert torch.equal(decode_mask({"segmentation": plain}, (8, 10)), wanted)
    assert torch.equal(decode_mask(POLYGON, (8, 10)), wanted)
    from pycocotools import mask

    packed = mask.encode(np.asfortranarray(wanted.numpy()))
    assert torch.equal(decode_mask({"segmentation": packed}, (8, 10)), wanted)
    with pytest.raises(ValueError, match="The annotation 4 has no `segmentation`: set `use_masks` false"):
        decode_mask({"id": 4}, (8, 10))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_and_masks_go_with_the_pixels(pictures, flip):
    source = read_objects(*find_objects(pictures, "train", "instances"))
    augmentation = ObjectAugmentation((192,), 256, flip, 32)
    rows = [ObjectLoader(augmentation, source.labels, 0, True)(Record(sample, 0, 0)) for sample in source]
    for index, row in enumerate(rows):
        objects = generate_digit_picture("training", index).objects
        assert row["pixel_values"].shape == (3, 192, 256) and row["class_labels"].tolist() == [
            (0, 1, 2, 3).index(one.digit) for one in objects
        ]
        for one, corners, mask in zip(objects, row["boxes"], row["masks"], strict=True):
            left, top, right, bottom = (2 * side for side in one.box)
            expected = [256 - right, top, 256 - left, bottom] if flip else [left, top, right, bottom]
            assert corners.tolist() == expected
            twice = np.repeat(np.repeat(one.mask, 2, 0), 2, 1)
            assert np.array_equal(mask.numpy().astype(bool), twice[:, ::-1] if flip else twice)
    small = ObjectLoader(ObjectAugmentation((40,), 50, 0.0, 32), source.labels, 0, True)(Record(source[0], 0, 0))
    assert small["pixel_values"].shape == (3, 38, 50)  # the long side is the bound
    batch = ObjectLoader(augmentation, source.labels, 0, True).collate([rows[0], small])
    assert batch["pixel_values"].shape == (2, 3, 192, 256) and batch["sizes"].tolist() == [[192, 256], [38, 50]]
    assert not batch["pixel_values"][1, :, 38:].any() and not batch["pixel_values"][1, :, :, 50:].any()
    assert batch["masks"].shape[2:] == (192, 256)
    counts = [int((one >= 0).sum()) for one in batch["class_labels"]]
    assert counts == [len(rows[0]["boxes"]), len(small["boxes"])]


def test_a_crop_is_that_of_the_processor_and_keypoints_stay_on_their_pixels(tmp_path):
    from transformers import VitPoseImageProcessor

    pixels = np.zeros((80, 100, 3), np.uint8)
    place = np.array([38, 30])
    pixels[place[1] - 1 : place[1] + 2, place[0] - 1 : place[0] + 2] = 255  # a dot of three pixels around a keypoint
    Image.fromarray(pixels).save(tmp_path / "a.png")
    category = [{"id": 1, "name": "x", "keypoints": ["left_a", "right_a", "nose"]}]
    entry = {"image_id": 1, "category_id": 1, "bbox": [20, 15, 40, 44], "keypoints": [38, 30, 2, 0, 0, 0, 1, 2, 1]}
    entries = [entry, {**entry, "keypoints": [0] * 9, "num_keypoints": 0}]
    image = {"id": 1, "file_name": "a.png", "height": 80, "width": 100}
    source = people(read_objects(write(tmp_path / "a.json", [image], entries, category), tmp_path, kind="keypoints"))
    (sample,) = source
    assert sample.id == "a.png#0"
    size, record = (64, 48), Record(sample, 0, 0)
    plain = PoseLoader(PoseAugmentation(size), 3, 0)(record)
    processor = VitPoseImageProcessor(size={"height": 64, "width": 48}, do_normalize=False)
    theirs = PersonLoader(processor)(record)["pixel_values"]
    assert (plain["pixel_values"] / 255 - theirs).abs().max() < 0.03
    back = keypoints_in_image(plain["keypoints"][None], torch.tensor([[20.0, 15.0, 40.0, 44.0]]), size)[0]
    torch.testing.assert_close(back[0], torch.tensor([38.0, 30.0]))
    assert plain["visible"].tolist() == [1, 0, 1]
    strong = PoseAugmentation(size, 1.0, ((0, 1),), 0.2, 30.0, 1.0)
    for epoch in range(8):
        row = PoseLoader(strong, 3, 0)(Record(sample, epoch, 0))
        x, y = row["keypoints"][1].round().long().tolist()  # mirrored: left became right
        assert row["visible"].tolist() == [0, 1, 1] and row["pixel_values"][0, y, x] > 150
    with pytest.raises(ValueError, match="`keypoints` must have 6 numbers, got 9"):
        PoseLoader(PoseAugmentation(size), 2, 0)(record)


def test_detected_people_replace_annotated_ones(pictures):
    source = read_objects(*find_objects(pictures, "val", "keypoints"), kind="keypoints")
    found = [{"image_id": 2, "bbox": [1, 1, 9, 9], "score": 0.5}, {"image_id": 2, "bbox": [3, 1, 9, 9], "score": 0.4}]
    samples = list(people(source, found))
    assert [(one.id, one.objects[0]["score"]) for one in samples] == [("000001.png#0", 0.5), ("000001.png#1", 0.4)]
    with pytest.raises(ValueError, match="one lacks 'score'"):
        people(source, [{"image_id": 2, "bbox": [1, 1, 9, 9]}])


def test_the_control_keeps_no_picture(pictures):
    source = read_objects(*find_objects(pictures, "train", "instances"))
    shuffled = source.shuffled_images(0)
    assert all(Path(one.video).name != one.id for one in shuffled)
    assert sorted(one.video for one in shuffled) == sorted(one.video for one in source)
    assert [one.objects for one in shuffled] == [one.objects for one in source]
