"""Official action detectors: what becomes of their heads, and of the protocol."""

import pytest
import torch
from transformers import AutoConfig, AutoVideoProcessor
from typer.testing import CliRunner

from hf_videovit import AutoModelForActionDetection, VideoMAEV2ForActionDetection, convert_checkpoint, published_config
from hf_videovit.cli import app
from hf_videovit.convert import convert_to_folder, plan_conversion
from hf_videovit.published import ava_rows, published_labels
from tests.convert.layouts import UNSHOWN, official_layout, tiny_model


def published_file(name) -> dict[str, torch.Tensor]:
    """A file with the names and shapes of a published detector, all zeros that take no memory."""
    with torch.device("meta"):
        model = VideoMAEV2ForActionDetection(published_config(name))
        state = (mmaction2 if name.endswith("mmaction2") else official)(model)
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}


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


def test_ava_names_the_labels_and_those_that_count():
    state = official(tiny_model(VideoMAEV2ForActionDetection, num_labels=80))
    named = convert(state, labels="ava")
    assert [named.config.id2label[row] for row in range(80)] == published_labels("ava")
    assert named.config.detection_config.evaluated_labels == ava_rows("evaluated")
    chosen = convert(state, labels="ava", detection_config={"evaluated_labels": [0, 4]})
    assert chosen.config.detection_config.evaluated_labels == [0, 4]
    unnamed = convert(state)
    assert unnamed.config.detection_config.evaluated_labels is None
    ported = convert(mmaction2(tiny_model(VideoMAEV2ForActionDetection, num_labels=80)), labels="ava")
    assert ported.config.detection_config.evaluated_labels == ava_rows("evaluated")
    with pytest.raises(ValueError, match="`labels` has 80 names, but .* scores 5 labels"):
        convert(official(detector()), labels="ava")


@pytest.mark.parametrize(
    "name",
    ["videomae-base-k400-labels-ava", "videomae-large-ava-kinetics-mmaction2", "videomae-v2-giant-ava-kinetics"],
)
def test_published_detectors_are_planned_in_full(name):
    plan = plan_conversion("videomae_v2", published_file(name), task="action-detection", published=name)
    plan.check()
    assert not plan.dropped and not plan.fresh
    assert plan.config.detection_config.to_dict() == published_config(name).detection_config.to_dict()
    own = plan_conversion("videomae_v2", published_file(name), task="action-detection", labels="ava")
    for field in ("id2label", "hidden_size", "num_hidden_layers", "num_attention_heads", "use_mean_pooling"):
        assert getattr(own.config, field) == getattr(plan.config, field), field
    assert own.config.detection_config.to_dict() == plan.config.detection_config.to_dict()
    assert own.processor.to_dict() == plan.processor.to_dict()


def test_one_field_of_a_published_head_can_be_replaced():
    """The scale of the ViT-g, which does not fit its patches, and nothing else."""
    name = "videomae-v2-giant-ava-kinetics"
    plan = plan_conversion(
        "videomae_v2",
        published_file(name),
        task="action-detection",
        published=name,
        detection_config={"roi_scale": 1 / 14},
    )
    expected = {**published_config(name).detection_config.to_dict(), "roi_scale": 1 / 14}
    assert plan.config.detection_config.to_dict() == expected


def test_the_file_of_another_layout_is_refused():
    pairs = (
        ("videomae-base-k400-ava", "videomae-base-ava-kinetics-mmaction2", "the MMAction2 layout, but .* fine-tuned"),
        ("videomae-base-ava-kinetics-mmaction2", "videomae-base-k400-ava", "the fine-tuned layout, but .* MMAction2"),
    )
    for file, published, message in pairs:
        with pytest.raises(ValueError, match=message):
            plan_conversion("videomae_v2", published_file(file), task="action-detection", published=published)


def test_a_published_detector_is_converted_by_its_name(tmp_path):
    """By the command, to a folder that holds its labels, its protocol and its card."""
    name, folder = "videomae-small-k400-ava", tmp_path / "detector"
    torch.save({"model": published_file(name)}, tmp_path / "file.pth")
    words = ["convert", "--published", name, "--checkpoint", str(tmp_path / "file.pth"), "--output", str(folder)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["VideoMAEV2ForActionDetection"]
    assert list(config.id2label.values()) == published_labels("ava")
    assert config.detection_config.evaluated_labels == ava_rows("evaluated")
    assert AutoVideoProcessor.from_pretrained(folder).sampling_fps == 25
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert 'pipeline("action-detection", model="detector")' in card and "22.5 %" in card
