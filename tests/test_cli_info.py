"""`hf-videovit info`: what a folder is, from its files."""

import json

import numpy as np
import pytest
from transformers import CLIPConfig
from typer.testing import CliRunner

from hf_videovit import TubeViTConfig, TubeViTModel
from hf_videovit.cli import app
from hf_videovit.training.arguments import RunConfig
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import LABELS, save_tiny_classifier, save_tiny_detector, save_tiny_localizer


def run(folder, *words):
    done = CliRunner().invoke(app, ["info", str(folder), *words], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    return done.stdout


def facts(folder):
    return json.loads(run(folder, "--json"))


@pytest.fixture
def trained(tmp_path):
    folder = save_tiny_classifier(tmp_path / "model", num_clips=2)
    rows = [
        {"label": "right", "videos": 3, "accuracy": 1.0, "taken_for": None},
        {"label": "up", "videos": 1, "accuracy": 0.0, "taken_for": "down"},
    ]
    results = {"metrics": {"top1": 0.75}, "per_class": rows, "num_videos": 4, "data": "/somewhere/squares"}
    results["environment"] = {"packages": {"torch": "2.8.0"}, "python": "3.10.1", "device": "cpu: x86_64"}
    (folder / "results.json").write_text(json.dumps(results))
    config = RunConfig.from_fields(data="/somewhere/squares", learning_rate=0.25, output_dir=str(folder))
    config.method["name"] = "classification"
    config.about["hardware"] = "one core"
    config.save(folder / "run.yaml")
    (folder / "logs").mkdir()
    lines = [{"step": 9, "epoch": 1, "validation": {"top1": 0.5}}, {"step": 12, "epoch": 2, "loss": 1.5}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "logs" / "metrics.jsonl").write_text(text + '{"step": 13, "ep')
    return folder


def test_a_trained_model_is_described(trained):
    found = facts(trained)
    assert found["kind"] == "model" and found["labels"] == list(LABELS)
    sections = found["sections"]
    assert sections["Architecture"]["class"] == "VideoMAEV2ForVideoClassification"
    assert sections["Weights"]["numbers stored"] == sections["Architecture"]["parameters"] + " in F32"
    assert sections["Protocol"]["clip"] == "4 frames, 2 apart"
    assert sections["Scores"]["top-1 accuracy"] == "75.0 %, squares, 4 videos"
    assert sections["Scores"]["chance"] == "16.7 %, squares"
    assert sections["Scores"]["majority (always `right`)"] == "75.0 %, squares"
    assert sections["Scores"]["measured with"] == "torch 2.8.0, Python 3.10.1, on cpu: x86_64"
    assert sections["Worst classes"] == {
        "up": "videos 1, accuracy 0.0 %, taken for down",
        "right": "videos 3, accuracy 100.0 %",
    }
    assert sections["Training"] == {
        "hardware": "one core",
        "data": "squares",
        "learning_rate": "0.25",
        "method": "classification",
        "steps logged": "12, epoch 2",
        "last validation": "step 9: top1 0.5",
    }
    shown = run(trained)
    assert "top-1 accuracy" in shown and "/somewhere" not in shown
    assert facts(trained)["next"] == f"hf-videovit classify VIDEO --model {trained}"


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (save_tiny_detector, "VideoMAEV2ForActionDetection (videomae_v2), action-detection"),
        (save_tiny_localizer, "VideoTemporalLocalizer (video_temporal_localizer), temporal-action-localization"),
    ],
)
def test_other_heads(save, words, tmp_path):
    found = facts(save(tmp_path / "model"))
    assert words in found["summary"]
    assert {"Architecture", "Protocol", "Weights"} <= found["sections"].keys() and found["labels"] == list(LABELS)


def test_what_a_folder_lacks_is_said(tmp_path):
    TubeViTModel(TubeViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(tmp_path)
    assert "preprocessor_config.json" in facts(tmp_path)["sections"]["Not complete"]["reason"]
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert "damaged" in facts(tmp_path)["sections"]["Weights"]["files"]
    (tmp_path / "model.safetensors").unlink()
    assert "its weights are missing" in facts(tmp_path)["summary"] and not facts(tmp_path)["next"]


def test_a_model_of_transformers_is_not_ours(tmp_path):
    CLIPConfig().save_pretrained(tmp_path)
    assert facts(tmp_path)["kind"] == "other model"


def test_an_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base", "r": 4}))
    found = facts(tmp_path)
    assert found["kind"] == "adapter" and found["sections"]["Adapter"] == {"for the model": "org/base", "rank": "4"}


def test_an_export(tmp_path):
    (tmp_path / "export.json").write_text(json.dumps({"export_format": "onnx"}))
    config = {"architectures": ["A"], "model_type": "videomae_v2", "id2label": {str(i): f"l{i}" for i in range(11)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "export_report.json").write_text(json.dumps({"format": "onnx", "speedup": 1.5, "classifies": True}))
    found = facts(tmp_path)
    assert (found["kind"], found["summary"]) == ("export", "an export of A for onnx")
    assert found["labels"] == [f"l{index}" for index in range(11)]
    assert found["sections"]["Comparison"] == {"speed against torch": "1.5"}


def test_a_run_that_has_not_ended(tmp_path):
    (tmp_path / "checkpoints" / "step_7").mkdir(parents=True)
    found = facts(tmp_path)
    assert found["kind"] == "unfinished run" and found["sections"]["Run"]["checkpoints"] == "step_7"


def test_prepared_data(tmp_path):
    splits = {"train": {"videos": 1200, "failed": 3}, "val": {"videos": 10, "failed": 0}}
    (tmp_path / "prepared.json").write_text(json.dumps({"layout": "kinetics", "format": "tar", "splits": splits}))
    (tmp_path / "labels.json").write_text(json.dumps(["a", "b"]))
    found = facts(tmp_path)
    assert found["kind"] == "prepared data" and found["labels"] == ["a", "b"]
    assert found["sections"]["Data"]["train"] == "1,200 clips, 3 unreadable"


def test_features(tmp_path):
    (tmp_path / "features.json").write_text(json.dumps({"encoder": "org/base", "window": 16}))
    (tmp_path / "manifest.jsonl").write_text('{"video": "a"}\n{"video": "b"}\n')
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    found = facts(tmp_path)
    assert (found["kind"], found["summary"]) == ("features", "features of 2 videos")
    assert found["sections"]["Description"]["encoder"] == "org/base"


def test_videos_and_nothing(tmp_path):
    assert facts(tmp_path)["kind"] == "unknown"
    save_tiny_classifier(tmp_path / "runs" / "first")
    assert "models are in first" in facts(tmp_path / "runs")["summary"]
    write_clip(tmp_path / "clips" / "up" / "a.mp4", moving_square_clip())
    found = facts(tmp_path / "clips")
    assert found["kind"] == "videos" and found["sections"]["Folders"] == {"up": "1 videos"}


@pytest.mark.parametrize(("name", "words"), [("gone", "There is no folder"), ("a.pth", "is a file, not a folder")])
def test_what_is_no_folder(name, words, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"")
    done = CliRunner().invoke(app, ["info", str(tmp_path / name)])
    assert done.exit_code == 2 and words in done.stderr


def test_a_damaged_file_is_named(trained):
    (trained / "run.yaml").write_text("about: [")
    done = CliRunner().invoke(app, ["info", str(trained)])
    assert done.exit_code == 2 and "run.yaml" in done.stderr
