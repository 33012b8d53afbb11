"""Conversion of ActionFormer, OpenTAD and TriDet files: which weights, what shapes show, and what they do not."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoFeatureExtractor

from hf_videovit import AutoModelForTemporalActionLocalization, convert_checkpoint
from hf_videovit.convert import convert_to_folder, plan_conversion
from hf_videovit.convert.localizer_settings import localizer_fields, read_settings


FIXTURES = Path(__file__).parents[1] / "fixtures" / "temporal_localization"
TASK = "temporal-action-localization"
SHOWN = {"num_attention_heads": 2, "attention_window": [5, 5, 7, -1], "use_absolute_positions": True}
CASES = (
    "forward_anet",
    "forward_conv",
    "forward_multi_features",
    "forward_options",
    "opentad_forward",
    "tridet_forward",
)


def file_of(case: str) -> dict:
    return torch.load(FIXTURES / case / "checkpoint.pth", weights_only=True)


def settings_of(case: str) -> dict:
    config = json.loads((FIXTURES / case / "config.json").read_text())
    return config.get("constructor") or {"model": config["model"]}


def converted(case: str, checkpoint=None, **options):
    checkpoint = FIXTURES / case / "checkpoint.pth" if checkpoint is None else checkpoint
    return convert_checkpoint("actionformer", checkpoint, task=TASK, settings=settings_of(case), **options)


@pytest.mark.parametrize("case", CASES)
def test_averaged_weights_by_default_and_the_others_on_request(case, caplog):
    caplog.set_level(logging.INFO, "hf_videovit")
    weights = file_of(case)
    head = next(
        name for name in weights["state_dict"] if name.endswith("cls_head.conv.weight") or "cls_head.weight" in name
    )
    averaged, raw = converted(case), converted(case, entry="state_dict")
    assert torch.equal(averaged.classification_head.classifier.weight, weights["state_dict_ema"][head])
    assert torch.equal(raw.classification_head.classifier.weight, weights["state_dict"][head])
    assert "averaged weights are used. Pass entry='state_dict'" in caplog.text
    bare = converted(case, {name: one.clone() for name, one in weights["state_dict"].items()})
    assert torch.equal(bare.classification_head.classifier.weight, weights["state_dict"][head])


@pytest.mark.parametrize("case", CASES)
def test_no_tensor_is_lost(case):
    plan = plan_conversion("actionformer", FIXTURES / case / "checkpoint.pth", task=TASK, settings=settings_of(case))
    used = [piece.source for piece in plan.pieces.values()]
    assert sorted(used) == sorted(plan.checkpoint.shapes)
    assert not plan.dropped
    assert set(plan.fresh) <= {"loss_normalizer"}


@pytest.mark.slow  # a conversion for each tensor
@pytest.mark.parametrize("case", CASES)
def test_a_tensor_too_many_and_one_missing_are_named(case):
    weights = file_of(case)["state_dict_ema"]
    with pytest.raises(ValueError, match=r"1 left over in the checkpoint: module\.new\.weight"):
        converted(case, {**weights, "module.new.weight": torch.ones(2)})
    last_of_kind = {re.sub(r"\d+", "#", name): name for name in weights}
    for name in last_of_kind.values():
        rest = {one: tensor for one, tensor in weights.items() if one != name}
        if "loss_normalizer" in name:
            continue
        with pytest.raises(ValueError):
            converted(case, rest)


def test_the_normaliser_of_opentad_is_kept():
    weights = file_of("opentad_forward")["state_dict_ema"]
    expected = int(weights["module.rpn_head.loss_normalizer"])
    model = converted("opentad_forward")
    assert model.loss_normalizer == expected
    assert model.loss_normalizer.dtype == torch.float32
    assert model.config.padding_mode == "opentad"
    assert converted("forward_anet").config.padding_mode == "actionformer"


def test_what_no_shape_shows_is_asked_for():
    file = FIXTURES / "forward_anet" / "checkpoint.pth"
    with pytest.raises(ValueError, match="`num_attention_heads` and `attention_window` are needed"):
        convert_checkpoint("actionformer", file, task=TASK)
    model = convert_checkpoint("actionformer", file, task=TASK, **SHOWN, max_sequence_length=48)
    expected = converted("forward_anet")
    features = torch.randn(1, 48, 12)
    with torch.no_grad():
        assert torch.equal(model(features).logits, expected(features).logits)


def test_windows_of_relative_positions_are_shown_and_must_agree():
    file = FIXTURES / "forward_options" / "checkpoint.pth"
    assert convert_checkpoint("actionformer", file, task=TASK).config.attention_window == [5, 5, 7, 5]
    with pytest.raises(ValueError, match="`attention_window` is 9"):
        convert_checkpoint("actionformer", file, task=TASK, attention_window=9)


def test_the_official_model_of_a_data_set_needs_no_settings(caplog):
    """A file with the shapes of the ActivityNet recipe: wider, and two levels more."""
    widths = {24: 256, 12: 256, 96: 1024}
    state = {}
    for name, tensor in file_of("forward_anet")["state_dict_ema"].items():
        sizes = [widths.get(size, size) for size in tensor.shape]
        names = [name]
        if "branch.2." in name:
            names += [name.replace("branch.2.", f"branch.{index}.") for index in (3, 4)]
        elif "fpn_norms.3." in name or "scale.3." in name:
            names += [name.replace(".3.", f".{index}.") for index in (4, 5)]
        state |= {one: torch.zeros(sizes) for one in names}
    plan = plan_conversion("actionformer", state, task=TASK)
    plan.check()
    assert plan.config.attention_window == [7, 7, 7, 7, 7, -1]
    assert plan.config.use_absolute_positions
    assert plan.config.num_attention_heads == 4
    assert plan.config.max_sequence_length == 192
    assert "has the shapes of the official model for activitynet" in caplog.text


def test_a_folder_has_the_protocol(tmp_path):
    convert_to_folder(
        "actionformer",
        FIXTURES / "inference" / "checkpoint.pth",
        tmp_path / "model",
        task=TASK,
        settings=settings_of("inference"),
        labels=["a", "b", "c", "d", "e"],
    )
    processor = AutoFeatureExtractor.from_pretrained(tmp_path / "model")
    model = AutoModelForTemporalActionLocalization.from_pretrained(tmp_path / "model")
    assert model.config.id2label[4] == "e"
    assert (processor.score_threshold, processor.max_segments, processor.nms_sigma) == (0.05, 60, 0.5)
    assert (processor.max_sequence_length, processor.length_multiple) == (64, 32)
    assert processor.pad_to_max_length
    assert processor.feature_size == 12


def test_opentads_decoding():
    plan = plan_conversion(
        "actionformer",
        FIXTURES / "opentad_forward" / "checkpoint.pth",
        task=TASK,
        settings={
            **settings_of("opentad_forward"),
            "post_processing": {
                "pre_nms_thresh": 0.01,
                "pre_nms_topk": 50,
                "nms": {
                    "use_soft_nms": True,
                    "sigma": 0.7,
                    "max_seg_num": 40,
                    "multiclass": False,
                    "voting_thresh": 0.9,
                },
            },
        },
    )
    processor = plan.processor
    assert not processor.candidates_per_level
    assert processor.voting_weights == "score"
    assert processor.class_agnostic
    assert (processor.score_threshold, processor.max_candidates, processor.max_segments) == (0.01, 50, 40)
    assert (processor.resized_offset, processor.min_length) == (0, 0)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            {"feature_stride": 4, "sample_stride": 2, "offset_frames": 8},
            {"feature_stride": 4, "downsample_rate": 2, "feature_offset": 8},
        ),
        ({"feature_stride": 8, "fps": 15}, {"feature_stride": 8, "feature_offset": 0, "feature_fps": 15}),
        ({"resize_length": 192, "fps": -1}, {"feature_stride": None, "resize_to_max_length": True}),
    ],
)
def test_the_place_of_opentads_features(dataset, expected):
    settings = {**settings_of("opentad_forward"), "dataset": {"train": {}, "test": dataset}}
    _, processor = localizer_fields(settings)
    assert {name: processor[name] for name in expected} == expected
    plan = plan_conversion(
        "actionformer", FIXTURES / "opentad_forward" / "checkpoint.pth", task=TASK, settings=settings
    )
    assert {name: getattr(plan.processor, name) for name in expected} == expected


def test_what_opentads_settings_leave_out_is_its_default():
    nms = {"sigma": 0.7, "voting_thresh": 0.7}
    _, processor = localizer_fields({**settings_of("opentad_forward"), "post_processing": {"nms": nms}})
    assert processor == {
        "nms_method": "soft",
        "nms_sigma": 0.7,
        "iou_threshold": 0.0,
        "min_score": 0.0,
        "max_segments": 100,
        "class_agnostic": False,
        "voting_threshold": 0.7,
    }


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".txt"])
def test_settings_files(suffix, tmp_path):
    content = {
        "dataset": {"feat_stride": 4, "num_frames": 16, "max_seq_len": 48, "num_classes": 1, "default_fps": None},
        "model": {"n_head": 2, "n_mha_win_size": [5, 5, 7, -1], "use_abs_pe": True},
        "train_cfg": {"label_smoothing": 0.1, "loss_weight": -1, "center_sample": "none"},
        "test_cfg": {"multiclass_nms": False, "nms_method": "hard", "voting_thresh": 0.9},
    }
    text = {".yaml": yaml.safe_dump, ".json": json.dumps, ".txt": repr}[suffix](content)
    (tmp_path / f"config{suffix}").write_text(text)
    fields, processor = localizer_fields(read_settings(tmp_path / f"config{suffix}"))
    assert fields == {
        "num_attention_heads": 2,
        "attention_window": [5, 5, 7, -1],
        "use_absolute_positions": True,
        "max_sequence_length": 48,
        "label_smoothing": 0.1,
        "regression_loss_weight": 0,
        "center_sampling_radius": None,
    }
    assert processor == {
        "feature_stride": 4,
        "feature_window": 16,
        "feature_fps": None,
        "max_sequence_length": 48,
        "class_agnostic": True,
        "nms_method": "hard",
        "voting_threshold": 0.9,
    }


def test_settings_that_are_none_are_refused(tmp_path):
    (tmp_path / "config.txt").write_text("__import__('os').getcwd()")
    with pytest.raises(ValueError, match=r"config\.txt cannot be read"):
        read_settings(tmp_path / "config.txt")
    (tmp_path / "config.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="must hold a mapping"):
        read_settings(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="neither the section `model`"):
        localizer_fields({"a": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"published": "x"}, "`name` must be one of the .* checkpoints"),
        ({"labels": ["a", "b"]}, "1 classes, but 2"),
        ({"num_hidden_layers": 3}, "is not a field"),
        ({"hidden_size": 32}, "`hidden_size` is 32"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        converted("forward_anet", **options)


def test_other_files_and_tasks_are_refused():
    with pytest.raises(ValueError, match="is not an ActionFormer, OpenTAD or TriDet checkpoint"):
        convert_checkpoint("actionformer", {"blocks.0.norm1.weight": torch.ones(3)}, task=TASK)
    with pytest.raises(ValueError, match="`task` of a actionformer checkpoint must be one of temporal-action"):
        convert_checkpoint("actionformer", FIXTURES / "forward_anet" / "checkpoint.pth", task="video-classification")
    with pytest.raises(ValueError, match="Convert it as the family 'actionformer'"):
        convert_checkpoint("videomae_v2", FIXTURES / "forward_anet" / "checkpoint.pth", task="video-classification")
