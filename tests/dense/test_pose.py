"""Target heatmaps, flip test and keypoints from heatmaps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import VitPoseImageProcessor

from hf_videovit import UniFormerConfig, UniFormerForPoseEstimation
from hf_videovit.dense.pose import (
    decode_heatmaps,
    encode_heatmaps,
    estimate_poses,
    flip_pairs,
    flip_test,
    keypoints_in_image,
    unflip_heatmaps,
)
from hf_videovit.modeling.modeling_uniformer_pose import UniFormerPoseEstimatorOutput
from hf_videovit.published import published_labels


CROP = (64, 48)
COCO = published_labels("coco-keypoints")


def tiny_estimator(**fields) -> UniFormerForPoseEstimation:
    torch.manual_seed(0)
    config = UniFormerConfig(
        modality="image",
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        head_dim=8,
        pose_hidden_sizes=[8, 8, 8],
        **{"id2label": dict(enumerate(("nose", "left_eye", "right_eye"))), **fields},
    )
    return UniFormerForPoseEstimation(config).eval()


def test_a_mirror_exchanges_left_and_right():
    pairs = flip_pairs(COCO)
    assert pairs == [(number, number + 1) for number in range(1, 17, 2)]
    for names in (["nose"], ["left_eye", "nose"], ["right_eye", "left_ear", "right_ear"]):
        with pytest.raises(ValueError, match="`names`"):
            flip_pairs(names)


def test_heatmaps_come_back_from_the_mirror():
    maps = torch.arange(2 * 3 * 2 * 4.0).view(2, 3, 2, 4)
    pairs = [(1, 2)]
    assert torch.equal(unflip_heatmaps(unflip_heatmaps(maps, pairs, shift=False), pairs, shift=False), maps)
    plain = unflip_heatmaps(maps, pairs, shift=False)
    assert torch.equal(plain[:, 1], maps[:, 2].flip(-1))
    shifted = unflip_heatmaps(maps, pairs)
    assert torch.equal(shifted[..., 1:], plain[..., :-1])
    assert torch.equal(shifted[..., 0], plain[..., 0])
    for wrong in ([(1, 3)], [(0, 1), (1, 2)]):
        with pytest.raises(ValueError, match="`pairs`"):
            unflip_heatmaps(maps, wrong)


def test_flip_test_is_the_mean_of_both_answers():
    model, pixels = tiny_estimator(), torch.randn(2, 3, 64, 64)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        mirrored = unflip_heatmaps(model(pixels.flip(-1)).heatmaps, [(1, 2)], shift=True)
        expected = (model(pixels).heatmaps + mirrored) / 2
    assert torch.equal(flip_test(model, pixels), expected)
    both = flip_test(model, pixels, shift=False)
    other = flip_test(model, pixels.flip(-1), shift=False)
    torch.testing.assert_close(unflip_heatmaps(other, [(1, 2)], shift=False), both)
    with pytest.raises(ValueError, match="left and right"):
        flip_test(tiny_estimator(id2label={0: "a", 1: "b"}), pixels)


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_shift_aligns_the_mirror_of_official_targets_only(unbiased):
    """What the shift is for: a target made of mirrored keypoints, turned back, lies where the target is."""
    keypoints = torch.tensor([[[20.0, 24.0]]])
    mirrored = torch.tensor([[[47 - 20.0, 24.0]]])
    visible = torch.ones(1, 1)
    labels, _ = encode_heatmaps(keypoints, visible, CROP, sigma=1, unbiased=unbiased)
    turned, _ = encode_heatmaps(mirrored, visible, CROP, sigma=1, unbiased=unbiased)
    errors = [(unflip_heatmaps(turned, [], shift=shift) - labels).abs().max() for shift in (False, True)]
    assert (errors[1] < errors[0]) != unbiased
    assert min(errors) < 1e-5


def test_targets_of_the_official_geometry():
    keypoints = torch.tensor([[[21.0, 30.0], [21.9, 30.0], [500.0, 30.0], [-60.0, 30.0], [8.0, 8.0]]])
    visible = torch.tensor([[1.0, 0.5, 1.0, 1.0, 0.0]])
    labels, weights = encode_heatmaps(keypoints, visible, CROP, sigma=1)
    assert labels.shape == (1, 5, 16, 12)
    # pixel 21 is cell 5.25, pixel 30 cell 7.5: to the nearest, halves up
    assert labels[0, 0].argmax().item() == 8 * 12 + 5
    assert labels[0, 0, 8, 5] == 1
    torch.testing.assert_close(labels[0, 0, 8, 6], torch.tensor(-0.5).exp())
    assert labels[0, 0, 8, 8] > 0 and labels[0, 0, 8, 9] == 0  # three standard deviations
    assert weights.tolist() == [[1.0, 0.5, 0.0, 0.0, 0.0]]
    assert (labels[0, 2:] == 0).all()
    with pytest.raises(ValueError, match="`sigma`"):
        encode_heatmaps(keypoints, visible, CROP, sigma=0)
    with pytest.raises(ValueError, match="`keypoints`"):
        encode_heatmaps(keypoints, visible[0], CROP)


@settings(max_examples=50, deadline=None)
@given(x=st.floats(12, 35), y=st.floats(12, 50), unbiased=st.booleans())
def test_keypoints_survive_encoding_within_a_cell(x, y, unbiased):
    keypoints = torch.tensor([[[x, y]]])
    labels, _ = encode_heatmaps(keypoints, torch.ones(1, 1), CROP, unbiased=unbiased)
    found, scores = decode_heatmaps(labels, CROP, unbiased=unbiased)
    # the unbiased peak lies between cells, so that a quarter of a cell nears it; the official one is rounded
    assert (found - keypoints).abs().max() <= (0.26 if unbiased else 0.51) * 63 / 15
    assert scores.item() > 0.8


def test_a_peak_moves_a_quarter_of_a_cell_away_from_the_edge_only():
    maps = torch.zeros(1, 3, 16, 12)
    maps[0, :, 7, 5], maps[0, 0, 7, 6], maps[0, 1, 6, 5] = 1.0, 0.5, 0.5
    maps[0, 2, 7, 5], maps[0, 2, 0, 11], maps[0, 2, 0, 10] = 0, 1.0, 0.5
    found, scores = decode_heatmaps(maps, CROP)
    assert found.tolist() == [[[21.0, 28.0], [20.0, 27.0], [44.0, 0.0]]]
    assert scores.tolist() == [[1.0, 1.0, 1.0]]


def test_vitpose_crops_are_undone():
    """Cropped by the processor, found in the crop, and back where it was."""
    processor = VitPoseImageProcessor(size={"height": 64, "width": 48}, do_normalize=False)
    image = torch.zeros(3, 120, 160, dtype=torch.uint8)
    image[:, 70, 90] = 255
    box = [70.0, 40.0, 36.0, 48.0]
    crop = processor(image, boxes=[[box]], return_tensors="pt").pixel_values[0, 0]
    place = torch.tensor(divmod(int(crop.argmax()), 48)).flip(0).float()
    found = keypoints_in_image(place[None, None], torch.tensor([box]), CROP)
    assert (found[0, 0] - torch.tensor([90.0, 70.0])).abs().max() < 0.6
    corners = torch.tensor([[[0.0, 0.0], [47.0, 63.0]]])
    grown = keypoints_in_image(corners, torch.tensor([[0.0, 0.0, 48.0, 64.0]]), CROP)
    torch.testing.assert_close(grown, torch.tensor([[[-6.0, -8.0], [54.0, 72.0]]]))


def test_vitpose_reads_our_heatmaps():
    """transformers' post-processing takes the output, and agrees on heatmaps of the unbiased geometry."""
    processor = VitPoseImageProcessor(size={"height": 64, "width": 48})
    keypoints = torch.tensor([[[20.3, 31.7], [12.1, 40.4]], [[30.0, 20.0], [25.5, 33.3]]])
    labels, _ = encode_heatmaps(keypoints, torch.ones(2, 2), CROP, unbiased=True)
    boxes = [[[10.0, 20.0, 60.0, 90.0]], [[5.0, 5.0, 30.0, 20.0]]]
    output = UniFormerPoseEstimatorOutput(heatmaps=labels)
    poses = processor.post_process_pose_estimation(output, boxes=boxes)
    exact = keypoints_in_image(keypoints, torch.tensor(boxes)[:, 0], CROP)
    for (pose,), expected in zip(poses, exact):
        assert (pose["keypoints"] - expected).abs().max() < 0.5
        assert pose["scores"].shape == (2,)


def test_from_an_image_to_poses():
    processor, model = VitPoseImageProcessor(size={"height": 64, "width": 64}), tiny_estimator()
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    boxes = [[[10.0, 10.0, 30.0, 60.0], [50.0, 20.0, 40.0, 40.0]]]
    inputs = processor(image, boxes=boxes, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs.heatmaps.shape == (2, 3, 16, 16)
    (persons,) = processor.post_process_pose_estimation(outputs, boxes=boxes)
    assert [one["keypoints"].shape for one in persons] == [(3, 2), (3, 2)]


@pytest.mark.parametrize("unbiased", [False, True])
def test_poses_of_several_images(unbiased):
    """A stand-in that marks the bright spot of a crop: it is found where it was, mirrored or not."""
    processor = VitPoseImageProcessor(size={"height": 64, "width": 48}, do_normalize=False)

    class Marker(torch.nn.Module):
        device = torch.device("cpu")
        config = UniFormerConfig(modality="image", id2label={0: "left", 1: "right"})

        def forward(self, pixels):
            peak = pixels[:, 0].flatten(1).argmax(1)
            place = torch.stack((peak % 48, peak // 48), dim=-1)[:, None].expand(-1, 2, -1).float()
            labels, _ = encode_heatmaps(place, torch.ones(len(pixels), 2), CROP, unbiased=unbiased)
            return UniFormerPoseEstimatorOutput(heatmaps=labels)

    images, boxes = [torch.zeros(3, 120, 160, dtype=torch.uint8) for _ in range(3)], []
    spots = [[(90, 70)], [], [(30, 40), (120, 100)]]
    for image, places in zip(images, spots):
        for x, y in places:
            image[:, y, x] = 255
        boxes.append([(x - 10, y - 12, 24, 32) for x, y in places])
    found = estimate_poses(Marker(), processor, images, boxes, unbiased=unbiased)
    assert [len(one) for one in found] == [1, 0, 2]
    for persons, places in zip(found, spots):
        for person, place in zip(persons, places):
            assert (person["keypoints"] - torch.tensor(place)).abs().max() < 2  # a cell is 2.5 pixels
            assert (person["scores"] > 0.8).all()
    assert estimate_poses(Marker(), processor, images, [[], [], []]) == [[], [], []]
    with pytest.raises(ValueError, match="`boxes`"):
        estimate_poses(Marker(), processor, images, boxes[:2])


def test_an_estimator_learns_its_targets():
    torch.manual_seed(0)
    model = tiny_estimator().train()
    pixels = torch.randn(4, 3, 64, 64)
    keypoints = torch.rand(4, 3, 2) * 40 + 10
    labels, weights = encode_heatmaps(keypoints, torch.ones(4, 3), (64, 64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = model(pixels, labels=labels, keypoint_weights=weights).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
