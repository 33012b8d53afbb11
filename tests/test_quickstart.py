"""The demo itself, with few clips and steps: every station is passed, whatever the accuracy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig

from hf_videovit.training.preparing.digit_motion import build_digit_motion


pytestmark = pytest.mark.slow


ROOT = Path(__file__).resolve().parents[1]


def test_quickstart_on_a_folder_of_clips(tmp_path):
    data = build_digit_motion(tmp_path, num_train=12, num_test=6, size=32)
    recipe = ROOT / "hf_videovit" / "training" / "recipes" / "videomae_v2" / "digit_motion.yaml"
    words = ["--data", str(data), "--recipe", str(recipe), "--output-dir", str(tmp_path / "out")]
    flags = ["--max_steps", "1", "--batch_size", "6", "--num_workers", "0"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py"), *words, *flags],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out" / "model"
    assert set(AutoConfig.from_pretrained(folder).label2id) == {path.name for path in (data / "train").iterdir()}
    assert {"README.md", "model.safetensors", "results.json", "run.yaml"} <= {file.name for file in folder.iterdir()}
    assert (tmp_path / "out" / "predictions.png").stat().st_size > 10_000
    for words in ("accelerate launch", "chance", "16.7%", "single frames", "never seen"):
        assert words in done.stdout
