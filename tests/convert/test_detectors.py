"""Official action detectors: what becomes of their heads, and of the protocol."""

import pytest
import torch
from transformers import AutoVideoProcessor

from hf_videovit import AutoModelForActionDetection, VideoMAEV2ForActionDetection, convert_checkpoint
from hf_videovit.convert import convert_to_folder
from tests.convert.layouts import UNSHOWN, official_layout, tiny_model


def official(model) -> dict[str, torch.Tensor]:
    """VideoMAE-Action-Detection's layout of a detector of ours."""
    state = official_layout(model)
    return {name.replace("action_head.head.", "head."): tensor for name, tensor in state.items()}


def mmaction2(model) -> dict[str, torch.Tensor]:
    """mmaction2's layout, with a row for the background."""
    renamed = {}
    for name, tensor in official(model).items():
        for theirs, ours in (
            ("patch_embed.proj.", "patch_embed.projection."),
            ("mlp.fc1.", "mlp.layers.0.0."),
            ("mlp.fc2.", "mlp.layers.1."),
        ):
            name = name.replace(theirs, ours)
        if name.startswith("head."):
            name = name.replace("head.", "roi_head.bbox_head.fc_cls.")
            renamed[name] = torch.cat((torch.full_like(tensor[:1], 9.0), tensor))
        else:
            renamed[f"backbone.{name}"] = tensor
    return renamed


def detector(**fields):
    return tiny_model(VideoMAEV2ForActionDetection, num_labels=5, **fields)


def convert(state, **fields):
    return convert_checkpoint("videomae_v2", state, task="action-detection", **{**UNSHOWN, **fields})


def answer(model, **inputs):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(1, 4, 3, 8, 12, generator=generator)
    with torch.no_grad():
        return model(clips, torch.tensor([[[1.0, 1.0, 7.0, 6.0]]]), **inputs).logits


@pytest.mark.parametrize("wrapper", [None, "model", "module"])
def test_the_official_layout_keeps_every_weight(wrapper):
    model = detector(detection_config={"roi_aligned": False, "roi_scale": 1 / 16, "box_convention": "inclusive"})
    state = official(model) if wrapper is None else {wrapper: official(model), "epoch": 3}
    converted = convert(state)
    assert isinstance(converted, VideoMAEV2ForActionDetection)
    torch.testing.assert_close(answer(converted), answer(model))
    assert converted.config.detection_config.box_convention == "inclusive"


def test_one_field_of_the_head_can_be_replaced():
    converted = convert(official(detector()), detection_config={"roi_scale": 1 / 4})
    head = converted.config.detection_config
    assert (head.roi_scale, head.roi_aligned, head.box_convention) == (1 / 4, False, "inclusive")


def test_the_background_of_mmaction2_goes_and_the_others_keep_their_order():
    model = detector()
    converted = convert(mmaction2(model))
    assert torch.equal(converted.action_head.classifier.weight, model.action_head.classifier.weight)
    assert converted.config.num_labels == 5
    assert converted.config.detection_config.box_enlargement == [0.0, 0.0]


def test_a_softmax_over_all_columns_keeps_the_background():
    converted = convert(mmaction2(detector()), problem_type="single_label_classification")
    assert converted.config.num_labels == 6
    assert converted.config.detection_config.background_label == 0
    assert (converted.action_head.classifier.weight[0] == 9).all()


def test_a_head_of_two_layers():
    model = detector(detection_config={"head_hidden_sizes": [24]})
    state = {}
    for name, tensor in mmaction2(model).items():
        name = name.replace("bbox_head.fc_cls.", "bbox_head.fc_cls.2.")
        state[name.replace("backbone.action_head.layers.0.", "roi_head.bbox_head.fc_cls.0.")] = tensor
    converted = convert(state)
    assert torch.equal(converted.action_head.layers[0].weight, model.action_head.layers[0].weight)
    assert torch.equal(converted.action_head.classifier.weight, model.action_head.classifier.weight)


def test_the_protocol_travels(tmp_path):
    fields = {"labels": list("abcde"), **UNSHOWN}
    folder = convert_to_folder(
        "videomae_v2",
        official(detector()),
        tmp_path / "model",
        task="action-detection",
        **UNSHOWN,
        labels=list("abcde"),
    )
    model = AutoModelForActionDetection.from_pretrained(folder)
    assert list(model.config.id2label.values()) == list("abcde")
    processor = AutoVideoProcessor.from_pretrained(folder)
    fields = ("sampling_fps", "read_key_frame", "pad_multiple", "box_convention", "do_center_crop", "use_person_score")
    assert [getattr(processor, name) for name in fields] == [25, False, 16, "inclusive", False, True]
    pixels = processor(torch.full((4, 3, 16, 16), 123, dtype=torch.uint8), boxes=[[0, 0, 9, 9]])["pixel_values"]
    expected = (123 - torch.tensor([122.7717, 115.9465, 102.9801])) / 57.375
    torch.testing.assert_close(pixels[0, 0, :, 0, 0], expected, atol=1e-4, rtol=0)


def test_what_is_no_detector_is_refused():
    state = official(detector())
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    with pytest.raises(ValueError, match="has no head, so it is no action-detection checkpoint"):
        convert(headless)
    related = {**state, "head.hr2o.0.conv_q.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="InternVideo, with relations between actors"):
        convert(related)
    with pytest.raises(ValueError, match="`labels` has 2 names, but .* scores 5 labels"):
        convert(state, labels=["a", "b"])
    with pytest.raises(ValueError, match="task='action-detection'"):
        convert_checkpoint("videomae_v2", state, task="video-classification", **UNSHOWN)
