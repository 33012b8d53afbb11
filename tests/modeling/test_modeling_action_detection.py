"""The action detection head: facts that need no official numbers."""

import pytest
import torch

from hf_videovit import ActionDetectionConfig, AutoModelForActionDetection, VideoMAEV2Config
from hf_videovit.modeling.modeling_action_detection import (
    ActionDetectionHead,
    action_detection_loss,
    action_probabilities,
    enlarge_boxes,
    jitter_boxes,
)
from tests.families import FAMILIES, Case


HEADS = [Case(family, head) for family in FAMILIES for head in family.heads if "ActionDetection" in str(head)]
every_family = pytest.mark.parametrize("case", HEADS, ids=str)


def ramp(height: int, width: int, frames: int = 2) -> torch.Tensor:
    """A map whose two channels are x and y of each place's centre, in tokens."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack((x, y)).float()[None, :, None].expand(1, 2, frames, height, width)


def test_there_is_a_head_for_each_family():
    assert len(HEADS) == 6


@pytest.mark.parametrize("time_last", [False, True])
def test_a_ramp_gives_the_centre_of_the_box(time_last):
    config = ActionDetectionConfig(spatial_pooling="mean", pool_time_after_roi=time_last)
    head = ActionDetectionHead(config, 2, 3)
    boxes = torch.tensor([[[32.0, 48.0, 96.0, 80.0], [20.0, 20.0, 41.0, 77.0]]])
    _, features = head(ramp(8, 12), boxes, 1 / 16)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 / 16
    torch.testing.assert_close(features, centres, atol=1e-5, rtol=0)


def test_boxes_read_without_alignment_lie_half_a_token_off():
    boxes = torch.tensor([[[32.0, 48.0, 96.0, 80.0]]])
    features = [
        ActionDetectionHead(ActionDetectionConfig(spatial_pooling="mean", roi_aligned=aligned), 2, 3)(
            ramp(8, 12), boxes, 1 / 16
        )[1]
        for aligned in (True, False)
    ]
    torch.testing.assert_close(features[1] - features[0], torch.full((1, 1, 2), 0.5))


def test_a_box_over_everything_with_mean_pooling_is_the_mean_of_the_map():
    feature_map = torch.randn(1, 5, 3, 6, 6)
    head = ActionDetectionHead(ActionDetectionConfig(roi_size=6, spatial_pooling="mean"), 5, 3)
    _, features = head(feature_map, torch.tensor([[[0.0, 0.0, 96.0, 96.0]]]), 1 / 16)
    torch.testing.assert_close(features[0, 0], feature_map[0].mean((1, 2, 3)))


def test_the_mean_over_time_commutes_with_sampling_and_the_maximum_does_not():
    feature_map, boxes = torch.randn(2, 4, 3, 6, 8), torch.tensor([[[9.0, 7.0, 70.0, 80.0]]] * 2)
    sampled = {
        (pooling, after): ActionDetectionHead(
            ActionDetectionConfig(temporal_pooling=pooling, pool_time_after_roi=after), 4, 3
        ).sample(feature_map, boxes, 1 / 16)
        for pooling in ("mean", "max")
        for after in (False, True)
    }
    torch.testing.assert_close(sampled["mean", False], sampled["mean", True])
    assert not torch.allclose(sampled["max", False], sampled["max", True])


def test_global_feature_is_the_same_for_all_boxes_of_a_clip():
    head = ActionDetectionHead(ActionDetectionConfig(global_feature="map", spatial_pooling="mean"), 4, 3)
    boxes = torch.tensor([[[0.0, 0.0, 32.0, 32.0], [40.0, 20.0, 90.0, 90.0]]])
    feature_map = torch.randn(1, 4, 2, 6, 6)
    _, features = head(feature_map, boxes, 1 / 16)
    assert features.shape == (1, 2, 8)
    torch.testing.assert_close(features[0, 0, 4:], features[0, 1, 4:])
    assert not torch.allclose(features[0, 0, :4], features[0, 1, :4])


@every_family
def test_rows_follow_the_boxes_and_padding_changes_nothing(case):
    model, inputs = case.model(), case.inputs()
    boxes, mask = inputs["boxes"], inputs["box_mask"]
    with torch.no_grad():
        logits = model(inputs["pixel_values"], boxes, mask).logits
        flipped = model(inputs["pixel_values"], boxes.flip(1), mask.flip(1)).logits
        listed = model(inputs["pixel_values"], [boxes[0, :2], boxes[1]]).logits
    torch.testing.assert_close(flipped.flip(1), logits)
    torch.testing.assert_close(listed, logits)
    assert (logits[0, 2] == 0).all()
    assert (logits[0, 1] != 0).any()


@every_family
def test_no_boxes_give_no_rows_a_loss_of_zero_and_gradients_of_zero(case):
    model, inputs = case.model().train(), case.inputs()
    labels = torch.zeros(2, 0, model.config.num_labels)
    outputs = model(inputs["pixel_values"], [torch.zeros(0, 4)] * 2, labels=labels)
    assert outputs.logits.shape == (2, 0, model.config.num_labels)
    outputs.loss.backward()
    assert outputs.loss == 0
    assert (model.action_head.classifier.weight.grad == 0).all()


@every_family
def test_boxes_decide(case):
    """Another box of the same clip gives another answer, and the encoder learns from it."""
    model, inputs = case.model(), case.inputs()
    size = torch.tensor(inputs["pixel_values"].shape[-1])
    boxes = torch.stack([torch.stack((x, x, x + size // 2, x + size // 2)) for x in (0 * size, size // 2)])[None]
    logits = model(inputs["pixel_values"][:1], boxes.float()).logits
    assert not torch.allclose(logits[0, 0], logits[0, 1], atol=1e-4)


@every_family
def test_half_precision_follows_single(case):
    model, inputs = case.model(), case.inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        found = model.to(torch.bfloat16)(**inputs).logits.float()
    assert (found - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("case", [case for case in HEADS if case.family.name in ("uniformer", "videomae_v2")], ids=str)
def test_exports_with_any_number_of_boxes(case):
    """Maps of several stages and of one: what the encoders do does not depend on boxes."""
    model, inputs = case.model(), case.inputs()
    given = (inputs["pixel_values"], inputs["boxes"], inputs["box_mask"])
    dims = {0: torch.export.Dim.DYNAMIC}
    boxed = {**dims, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, given, dynamic_shapes=(dims, boxed, boxed)).module()
    for batch_size, count in ((1, 5), (3, 2)):
        pixel_values = case.inputs(batch_size)["pixel_values"]
        boxes = torch.rand(batch_size, count, 4).sort(dim=-1).values * pixel_values.shape[-1]
        mask = torch.ones(batch_size, count, dtype=torch.bool)
        with torch.no_grad():
            torch.testing.assert_close(
                program(pixel_values, boxes, mask).logits, model(pixel_values, boxes, mask).logits
            )


@pytest.mark.parametrize("settings", [{"fused_stages": 1}, {"fused_stages": 2}, {}])
def test_fused_stages_halve_the_stride(settings):
    case = next(case for case in HEADS if case.family.name == "uniformer")
    config = case.config(detection_config=settings)
    stages = settings.get("fused_stages", 2)
    model = AutoModelForActionDetection.from_config(config).eval()
    with torch.no_grad():
        outputs = model(**case.inputs())
    side = config.image_size // (32 // stages)
    assert outputs.feature_map.shape[1:] == (sum(config.hidden_sizes[-stages:]), 2, side, side)
    assert model.feature_stride == 32 // stages
    assert outputs.hidden_states is None


def test_models_without_stages_refuse_to_fuse_them():
    case = next(case for case in HEADS if case.family.name == "videomae_v2")
    model = AutoModelForActionDetection.from_config(case.config(detection_config={"fused_stages": 2}))
    with pytest.raises(ValueError, match="`fused_stages` must be 1"):
        model(**case.inputs())


def test_the_configuration_of_the_head_travels_and_one_field_can_be_replaced(tmp_path):
    config = VideoMAEV2Config(num_labels=3, detection_config={"roi_scale": 1 / 16, "box_convention": "inclusive"})
    config.save_pretrained(tmp_path)
    assert VideoMAEV2Config.from_pretrained(tmp_path).detection_config.to_dict() == config.detection_config.to_dict()
    changed = VideoMAEV2Config.from_pretrained(tmp_path, detection_config={"roi_scale": 1 / 14})
    assert changed.detection_config.roi_scale == 1 / 14
    assert changed.detection_config.box_convention == "inclusive"


@pytest.mark.parametrize("convention", ["inclusive", "exclusive"])
def test_boxes_grow_and_move_within_their_clip(convention):
    sizes = torch.tensor([[40, 60]])
    last = torch.tensor([59.0, 39.0]) if convention == "inclusive" else torch.tensor([60.0, 40.0])
    boxes = torch.cat((torch.zeros(2), last))[None, None]
    torch.testing.assert_close(enlarge_boxes(boxes, sizes, (0.1, 0.05), convention), boxes)
    draws = torch.rand(1, 500, 4)
    moved = jitter_boxes(boxes.expand(1, 500, 4), sizes, (0.2, 0.1, 0.1, 0.05), draws, convention)
    assert (moved[..., :2] >= 0).all()
    assert (moved[..., 2:] <= last).all()
    assert (moved[..., 2:] - moved[..., :2] >= 1).all()


def test_box_jitter_covers_the_official_ranges():
    boxes = torch.tensor([100.0, 100.0, 200.0, 300.0]).expand(1, 4000, 4)
    draws = torch.rand(1, 4000, 4)
    moved = jitter_boxes(boxes, torch.tensor([[1000, 1000]]), (0.2, 0.1, 0.1, 0.05), draws) - boxes
    shares = moved[0] / torch.tensor([100.0, 200.0, 100.0, 200.0])
    expected = torch.tensor([[-0.2, -0.1, -0.1, -0.05], [0.1, 0.05, 0.2, 0.1]])
    torch.testing.assert_close(torch.stack((shares.amin(0), shares.amax(0))), expected, atol=2e-3, rtol=0)


def loss(logits, labels, mask=None, problem_type=None, **head):
    config = VideoMAEV2Config(num_labels=logits.shape[-1], detection_config=head)
    config.problem_type = problem_type
    mask = torch.ones(logits.shape[:2], dtype=torch.bool) if mask is None else mask
    return action_detection_loss(logits, labels, mask, config)


def test_reductions_differ_by_the_counts_of_boxes_and_labels():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4), (torch.rand(2, 3, 4) < 0.5).float()
    per_person = loss(logits, labels, loss_reduction="sum_over_boxes")
    torch.testing.assert_close(loss(logits, labels, loss_reduction="mean"), per_person / 6)
    torch.testing.assert_close(loss(logits, labels, loss_reduction="mean_over_boxes"), per_person / 6 * 4)


def test_padding_and_people_without_labels_stay_out_of_the_loss():
    logits, labels = torch.randn(1, 3, 4), torch.tensor([[[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]])
    mask = torch.tensor([[True, True, False]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, :1], labels[:, :1])
    found = loss(logits, labels, mask, loss_reduction="mean", ignore_unlabelled_boxes=True)
    torch.testing.assert_close(found, expected)
    assert loss(logits, labels, mask, loss_reduction="mean") != found


def test_the_background_takes_part_in_the_softmax_and_not_in_the_loss():
    logits, labels = torch.randn(1, 2, 5), torch.tensor([[3, -100]])
    expected = torch.nn.functional.cross_entropy(logits[0, :1, 1:], torch.tensor([2]))
    problem = {"problem_type": "single_label_classification", "loss_reduction": "mean"}
    torch.testing.assert_close(loss(logits, labels, background_label=0, **problem), expected)
    soft = torch.nn.functional.one_hot(torch.tensor([[3, 0]]), 5).float()
    torch.testing.assert_close(loss(logits, soft, background_label=0, **problem), expected)
    config = VideoMAEV2Config(num_labels=5, detection_config={"background_label": 0})
    config.problem_type = "single_label_classification"
    torch.testing.assert_close(action_probabilities(logits, config), logits.softmax(-1))


def test_the_focal_loss_weighs_easy_answers_down():
    logits, labels = torch.tensor([[[4.0, -0.1]]]), torch.tensor([[[1.0, 1.0]]])
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    expected = 3 * ((1 - torch.exp(-plain)) ** 2 * plain).mean()
    found = loss(logits, labels, loss_reduction="mean", focal_gamma=2, focal_alpha=3)
    torch.testing.assert_close(found, expected)


def test_poses_share_a_softmax():
    config = VideoMAEV2Config(num_labels=5, detection_config={"softmax_labels": 3})
    probabilities = action_probabilities(torch.randn(2, 4, 5), config)
    torch.testing.assert_close(probabilities[..., :3].sum(-1), torch.ones(2, 4))
    logits, labels = torch.randn(1, 1, 5), torch.tensor([[[0.0, 1, 0, 1, 0]]])
    pose = torch.nn.functional.cross_entropy(logits[0, :, :3], torch.tensor([1]))
    others = torch.nn.functional.binary_cross_entropy_with_logits(logits[..., 3:], labels[..., 3:], reduction="sum")
    found = loss(logits, labels, softmax_labels=3, softmax_loss_weight=1.2, loss_reduction="mean_over_boxes")
    torch.testing.assert_close(found, 1.2 * pose + others)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.zeros(2, 4)}, r"`boxes` must have shape \(2, num_boxes, 4\), got \(2, 4\)"),
        ({"box_mask": torch.ones(2, 7, dtype=torch.bool)}, r"`box_mask` must have shape \(2, 3\), got \(2, 7\)"),
        ({"labels": torch.zeros(2, 3)}, r"`labels` of a multi-label problem must have shape \(2, 3, 5\)"),
        ({"boxes": [torch.zeros(1, 4)] * 2}, "`box_mask` must be None with a list of `boxes`"),
    ],
)
def test_wrong_shapes_are_refused(change, message):
    case = next(case for case in HEADS if case.family.name == "videomae_v2")
    with pytest.raises(ValueError, match=message):
        case.model()(**{**case.inputs(), **change})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temporal_pooling", "sum"),
        ("box_convention", "pixels"),
        ("loss_reduction", "none"),
        ("roi_scale", 0.0),
        ("box_jitter", [0.1, 0.1]),
        ("fused_stages", 0),
        ("global_feature", "clip"),
    ],
)
def test_values_that_are_not_allowed_are_refused(field, value):
    with pytest.raises(Exception, match=f"`{field}` must be") as raised:
        ActionDetectionConfig(**{field: value})
    assert isinstance(raised.value, ValueError)
