"""The example with `transformers.Trainer` and a `Video` column of `datasets`: it trains, passes add up to a step."""

import json
import runpy
import sys
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline, set_seed

from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier


SCRIPT = Path(__file__).parents[1] / "examples" / "finetune_trainer.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes that differ in brightness."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 4), ("val", 2)):
        for name, shift in (("bright", 120), ("dark", 0)):
            for number in range(count):
                frames = moving_square_clip(num_frames=4, height=32, width=32, seed=number) // 2 + shift
                write_clip(root / split / name / f"{split}{number}.mp4", frames)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier", frame_stride=1)


@pytest.fixture
def train(monkeypatch, tmp_path, data, checkpoint):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    # the processor decodes; older releases of datasets load their own decoder all the same, where it is installed
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", False)

    def run(name, **options):
        options = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 1e-3, **options}
        fixed = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
        words = [f"--{key}={value}" for key, value in {**options, **fixed}.items()]
        places = ["--checkpoint", str(checkpoint), "--data", str(data), "--output_dir", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *places, *words])
        set_seed(0)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return tmp_path / name

    return run


def test_it_trains(train, data):
    output = train("out", num_train_epochs=15)
    assert json.loads((output / "eval_results.json").read_text())["eval_accuracy"] == 1
    model = AutoModelForVideoClassification.from_pretrained(output)
    assert model.config.id2label == {0: "bright", 1: "dark"}
    assert AutoVideoProcessor.from_pretrained(output).num_frames == 4
    best = pipeline("video-classification", model=str(output))(str(data / "val" / "dark" / "val1.mp4"))[0]
    assert best["label"] == "dark"


def test_passes_add_up_to_a_step(train):
    """One step of 8 clips gives the same weights in 1, 2 and 4 passes."""
    weights = []
    for size in (8, 4, 2):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        # videos of as many frames as a clip: nothing is drawn
        output = train(f"out{size}", max_steps=1, optim="sgd", max_grad_norm=0.0, **split)
        weights.append(AutoModelForVideoClassification.from_pretrained(output).state_dict())
    for other in weights[1:]:
        for name, value in weights[0].items():
            torch.testing.assert_close(other[name], value, atol=1e-6, rtol=1e-4, msg=name)
