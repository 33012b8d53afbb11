"""Whole detectors: official files convert, and find what a plain restatement of the official heads finds."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection, pipeline
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from hf_videovit import (
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerDetectorConfig,
    UniFormerDetectorImageProcessor,
    UniFormerForObjectDetection,
    convert_checkpoint,
)
from hf_videovit.convert import convert_to_folder
from hf_videovit.modeling.image_processing_uniformer_dense import paste_masks
from hf_videovit.modeling.modeling_region_heads import mask_targets
from hf_videovit.modeling.modeling_region_proposals import BoxDeltas, anchor_grid, match_and_sample, pool_regions
from tests.dense import official_dense
from tests.parity.uniformer import official_layout


CHANNELS = [8, 16, 24, 32]
TINY = {"modality": "image", "depths": [1, 1, 4, 1], "hidden_sizes": CHANNELS, "head_dim": 8}
SIZE = (64, 96)
LABELS = 4


def backbone_state(seed: int = 0) -> tuple[UniFormerBackbone, dict[str, torch.Tensor]]:
    """A backbone and its official names."""
    torch.manual_seed(seed)
    config = UniFormerConfig(**TINY, out_indices=[1, 2, 3, 4], attention_type="hybrid", window_size=3)
    model = UniFormerBackbone(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor += 0.1 * torch.randn_like(tensor)
    names = official_layout(model.state_dict())
    return model, {f"backbone.{name.replace('norms.stage', 'norm')}": tensor for name, tensor in names.items()}


def detector_file(stages: int) -> tuple[UniFormerBackbone, dict[str, torch.Tensor]]:
    backbone, state = backbone_state()
    heads = official_dense.random_state(official_dense.detector_heads(CHANNELS, labels=LABELS, stages=stages))
    return backbone, {**state, **heads}


def converted(state: dict[str, torch.Tensor], **fields) -> UniFormerForObjectDetection:
    return convert_checkpoint(
        "uniformer", {"state_dict": state, "meta": {}}, task="object-detection", head_dim=8, window_size=3, **fields
    )


@pytest.mark.parametrize("stages", [1, 3])
def test_a_converted_detector_finds_what_the_official_heads_find(stages):
    backbone, state = detector_file(stages)
    limits = {"proposals_before_nms": [20, 15], "num_proposals": 12, "max_detections": 9, "score_threshold": 0.2}
    model = converted(state, **limits)
    assert (model.config.num_box_stages, model.config.num_labels) == (stages, LABELS)
    torch.manual_seed(3)
    pixels = torch.randn(1, 3, *SIZE)
    valid = (52, 90)
    mask = torch.zeros(1, *SIZE, dtype=torch.long)
    mask[:, : valid[0], : valid[1]] = 1
    with torch.no_grad():
        maps = list(backbone(pixels).feature_maps)
        wanted = official_dense.detect(state, maps, valid, stages=stages, before=15, most=12, threshold=0.2, limit=9)
        found = model(pixels, mask)
    assert len(wanted) >= 3
    assert (found.scores[0] > 0).sum() == len(wanted)
    for index, (score, label, box, one) in enumerate(wanted):
        assert found.scores[0, index].item() == pytest.approx(score, abs=1e-5)
        assert found.pred_labels[0, index] == label
        scale = torch.tensor([valid[1], valid[0], valid[1], valid[0]])
        # in pixels of an image of 96: float32 after two decodings, here in double precision
        torch.testing.assert_close(found.pred_boxes[0, index] * scale, torch.tensor(box), atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.pred_masks[0, index], one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stages", [1, 3])
def test_every_tensor_of_a_detector_has_its_place(stages, tmp_path):
    _, state = detector_file(stages)
    for name in ("roi_head.extra.weight", "neck.fpn_convs.9.conv.weight"):
        with pytest.raises(ValueError, match=name):
            converted({**state, name: torch.zeros(2, 2)})
    last = [name for name in state if name.startswith("roi_head.mask_head") and name.endswith("conv_logits.bias")][-1]
    with pytest.raises(ValueError, match="conv_logits.bias"):
        converted({name: tensor for name, tensor in state.items() if name != last})
    folder = tmp_path / "detector"
    convert_to_folder(
        "uniformer",
        {"state_dict": state},
        folder,
        task="object-detection",
        head_dim=8,
        window_size=3,
        labels=list("abcd"),
    )
    loaded = AutoModelForObjectDetection.from_pretrained(folder)
    assert list(loaded.config.id2label.values()) == list("abcd")
    for name, tensor in converted(state).state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert isinstance(AutoImageProcessor.from_pretrained(folder), UniFormerDetectorImageProcessor)


def test_files_without_heads_are_told_apart():
    _, state = backbone_state()
    with pytest.raises(ValueError, match="not a Mask R-CNN"):
        converted(state)


@pytest.mark.parametrize(
    ("detector", "size", "parameters"),
    [
        ("mask_rcnn", "small", 41),
        ("mask_rcnn", "base", 69),
        ("cascade_mask_rcnn", "small", 79),
        ("cascade_mask_rcnn", "base", 107),
    ],
)
def test_published_sizes(detector, size, parameters):
    """Millions of parameters of the authors' table."""
    with torch.device("meta"):
        model = UniFormerForObjectDetection(UniFormerDetectorConfig.from_size(size, detector, num_labels=80))
    assert round(sum(one.numel() for one in model.parameters()) / 1e6) == parameters


def tiny_detector(**fields) -> UniFormerForObjectDetection:
    torch.manual_seed(0)
    backbone = UniFormerConfig(**TINY, out_indices=[1, 2, 3, 4])
    small = {
        "pyramid_size": 16,
        "box_hidden_size": 24,
        "num_labels": LABELS,
        "score_threshold": 0.0,
        "mask_convolutions": 1,
    }
    return UniFormerForObjectDetection(UniFormerDetectorConfig(backbone_config=backbone, **{**small, **fields}))


def objects() -> list[dict[str, torch.Tensor]]:
    """One image with two objects, one without any."""
    masks = torch.zeros(2, *SIZE)
    masks[0, 8:40, 8:40] = 1
    masks[1, 20:60, 50:90] = 1
    boxes = torch.tensor([[24 / 96, 24 / 64, 32 / 96, 32 / 64], [70 / 96, 40 / 64, 40 / 96, 40 / 64]])
    none = {
        "boxes": torch.zeros(0, 4),
        "class_labels": torch.zeros(0, dtype=torch.long),
        "masks": torch.zeros(0, *SIZE),
    }
    return [{"boxes": boxes, "class_labels": torch.tensor([1, 3]), "masks": masks}, none]


CASCADE = {"num_box_stages": 3, "box_convolutions": 1, "box_layers": 1, "box_loss": "giou", "box_loss_weight": 10.0}


@pytest.mark.parametrize("fields", [{}, CASCADE, {"use_masks": False}], ids=["mask", "cascade", "boxes"])
def test_losses_reach_every_parameter(fields):
    model = tiny_detector(**fields).train()
    output = model(torch.randn(2, 3, *SIZE), labels=objects())
    assert output.scores is None
    assert output.loss.item() == pytest.approx(sum(output.loss_dict.values()).item())
    output.loss.backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, CASCADE], ids=["mask", "cascade"])
def test_training_lowers_the_losses_of_what_is_there_and_of_its_shape(fields):
    model = tiny_detector(**fields, anchor_scale=4.0).train()
    images, labels = torch.randn(2, 3, *SIZE), objects()
    images[0, :, 8:40, 8:40] += 2
    images[0, :, 20:60, 50:90] -= 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        output = model(images, labels=labels)
        output.loss.backward()
        optimizer.step()
        history.append({name: one.item() for name, one in output.loss_dict.items()})
    for name in ("loss_objectness", "loss_classes", "loss_masks"):
        first, last = (sum(one[name] for one in part) for part in (history[:5], history[-5:]))
        assert last < 0.8 * first, name


def test_labels_that_do_not_fit_are_refused():
    model, pixels = tiny_detector(), torch.randn(2, 3, *SIZE)
    with pytest.raises(ValueError, match="one entry for each of 2 images"):
        model(pixels, labels=objects()[:1])
    with pytest.raises(ValueError, match="class_labels, boxes, masks"):
        model(pixels, labels=[{"boxes": torch.zeros(0, 4)}] * 2)
    with pytest.raises(ValueError, match="as many"):
        model(pixels, labels=[{**objects()[0], "class_labels": torch.tensor([1])}, objects()[1]])
    with pytest.raises(ValueError, match="`pixel_mask` must have shape"):
        model(pixels, torch.ones(2, 4, 4))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"box_loss": "l2"}, "`box_loss`"),
        ({"num_box_stages": 4}, "`box_thresholds`"),
        ({"nms_threshold": 1.5}, "`nms_threshold`"),
        ({"proposals_before_nms": [5]}, "`proposals_before_nms`"),
        ({"backbone_config": {"depths": [1, 1, 1, 1]}}, "model_type"),
        ({"backbone_config": {"model_type": "uniformer", "modality": "image"}}, "maps of four stages"),
        ({"box_hiden_size": 3}, "box_hidden_size"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(fields, named):
    with pytest.raises(Exception, match=named):
        UniFormerDetectorConfig(**fields)


def test_anchors_are_centred_on_places_and_keep_their_area():
    anchors = anchor_grid((2, 3), 16, 8.0, (0.5, 1.0, 2.0), torch.zeros(1)).view(2, 3, 3, 4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    torch.testing.assert_close(centres[1, 2], torch.tensor([[32.0, 16.0]] * 3))
    sides = anchors[..., 2:] - anchors[..., :2]
    torch.testing.assert_close(sides.prod(-1), torch.full((2, 3, 3), 128.0**2))
    torch.testing.assert_close(sides[0, 0, :, 1] / sides[0, 0, :, 0], torch.tensor([0.5, 1.0, 2.0]))


def test_deltas_are_undone():
    torch.manual_seed(0)
    low = torch.rand(20, 2) * 50
    boxes, references = (torch.cat((low, low + 5 + torch.rand(20, 2) * 40), dim=1) for _ in range(2))
    coder = BoxDeltas((0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(coder.decode(coder.encode(boxes, references), references)[:, 0], boxes)


def test_regions_of_a_ramp_are_its_values_at_their_cells():
    """A map that holds the place of each pixel's centre shows where a region is read."""
    maps = [
        torch.arange(64.0)[None, None, None].expand(1, 1, 64, 64) * stride + stride / 2 for stride in (4, 8, 16, 32)
    ]
    boxes = torch.tensor([[20.0, 12.0, 48.0, 44.0], [40.0, 40.0, 180.0, 200.0]])  # read at strides 4 and 8
    pooled = pool_regions(maps, [boxes], 7)
    for region, (left, _, right, _) in zip(pooled, boxes.tolist()):
        cells = left + (right - left) * (torch.arange(7) + 0.5) / 7
        # in pixels, up to 180: the rounding of float32 in the mean of many samples
        torch.testing.assert_close(region[0], cells.expand(7, 7), atol=1e-3, rtol=0)


def test_matching_keeps_the_best_box_of_each_object_above_the_lower_threshold():
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 90.0, 90.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 4.0], [80.0, 80.0, 120.0, 120.0]])
    found, background, matches = match_and_sample(boxes, objects, (0.7, 0.3), (10, 0.5), keep_best=True)
    assert (found.tolist(), matches.tolist()) == ([0], [0])  # 0.5 is the best; the second object has less than 0.3
    assert background.tolist() == [2]  # 0.4 is neither
    nothing = match_and_sample(boxes, torch.zeros(0, 4), (0.5, 0.5), (10, 0.25))
    assert (len(nothing[0]), len(nothing[1])) == (0, 3)


def test_masks_of_ones_fill_their_boxes():
    boxes = torch.tensor([[2.0, 3.0, 10.0, 8.0]])
    pasted = paste_masks(torch.ones(1, 28, 28), boxes, 12, 16) >= 0.5
    wanted = torch.zeros(12, 16, dtype=torch.bool)
    wanted[3:8, 2:10] = True
    assert torch.equal(pasted[0], wanted)


def test_pasting_equals_the_plain_rule():
    torch.manual_seed(0)
    mask, box = torch.rand(28, 28), [2.3, 1.7, 12.9, 9.2]
    torch.testing.assert_close(
        paste_masks(mask[None], torch.tensor([box]), 11, 15)[0], official_dense.pasted(mask, box, (11, 15))
    )


def test_mask_targets_are_the_object_in_the_box():
    masks = torch.zeros(1, 40, 40)
    masks[0, :, :20] = 1
    target = mask_targets(masks, torch.tensor([0]), torch.tensor([[10.0, 0.0, 30.0, 40.0]]))
    assert target[0, :, :14].all() and not target[0, :, 14:].any()


def picture(height: int = 60, width: int = 90) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_pipelines_of_transformers_take_a_detector(tmp_path):
    processor = UniFormerDetectorImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    tiny_detector().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with CaptureLogger(logging.get_logger("transformers.pipelines.base")) as captured:
        found = pipeline("object-detection", model=tmp_path)(picture(), threshold=0.0)
        segments = pipeline("image-segmentation", model=tmp_path)(picture(), threshold=0.0, mask_threshold=0.3)
    assert "not supported" not in captured.out
    assert found and all(0 <= one["box"]["xmin"] <= one["box"]["xmax"] <= 90 for one in found)
    assert segments and segments[0]["mask"].size == (90, 60)


def test_the_processor_follows_the_official_protocol():
    processor = UniFormerDetectorImageProcessor()
    for height, width, wanted in ((480, 640, (800, 1067)), (300, 900, (444, 1333)), (800, 800, (800, 800))):
        batch = processor(torch.zeros(3, height, width, dtype=torch.uint8), return_tensors="pt")
        assert (
            tuple(side.item() for side in (batch["pixel_mask"].amax(2).sum(), batch["pixel_mask"].amax(1).sum()))
            == wanted
        )
        assert all(side % 32 == 0 for side in batch["pixel_values"].shape[-2:])
