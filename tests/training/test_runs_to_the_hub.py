"""From a training script to a repo that answers alike, through a Hub on this machine, by processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResultEntry, parse_eval_result_entries
from transformers import pipeline

from hf_videovit.hub.cards import is_rendered
from hf_videovit.training.arguments import RunConfig
from tests.clips import moving_square_clip, write_clip
from tests.hub_server import READER, WRITER, running


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[2]
ANSWER = """
import json, sys
import hf_videovit
from transformers import pipeline
classify = pipeline("video-classification", model="org/squares")
print(json.dumps(classify(sys.argv[1], top_k=None, function_to_apply="none")))
"""


def python(hub, home, words, token=WRITER):
    """A process that knows this Hub only."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    known |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    known |= {"PYTHONPATH": str(ROOT), **({"HF_TOKEN": token} if token else {})}
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=known, cwd=ROOT)


def recipe(fields, folder, **more):
    RunConfig.from_fields(**{**fields, **more}).save(folder / "run.yaml")
    return ["--recipe", folder / "run.yaml"]


def test_finetuning_ends_on_the_hub_with_a_model_that_answers_alike(tiny_fields, clip_folder, tmp_path):
    """The clips come from a data set of the same Hub; its results are then shown beside that data set."""
    with running() as hub:
        clips = {path.relative_to(clip_folder).as_posix(): path.read_bytes() for path in clip_folder.rglob("*.mp4")}
        hub.create("datasets", "org/clips", clips)
        data = "hf://datasets/org/clips"
        words = [ROOT / "examples" / "finetune.py", *recipe(tiny_fields, tmp_path, data=data, epochs=1)]
        words += ["--push_to_hub", "org/squares", "--hub_private", "true"]
        done = python(hub, tmp_path / "home", words)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "published as" in done.stdout and hub.repos["models", "org/squares"].private
        files = hub.files("org/squares")
        assert not any("checkpoint" in path or path.endswith((".jsonl", ".yaml.bak")) for path in files)
        private = (str(tmp_path).encode(), WRITER.encode())
        assert not any(word in content for content in files.values() for word in private)
        card = files["README.md"].decode()
        assert is_rendered(card) and 'model="org/squares"' in card and "| optimiser steps done |" in card
        entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/hf_videovit.yaml"]))
        assert entries and all(isinstance(entry, EvalResultEntry) for entry in entries)
        measured = json.loads(files["results.json"])["metrics"]
        assert {(entry.dataset_id, entry.task_id, entry.value) for entry in entries} == {
            ("org/clips", name, round(100 * value, 4)) for name, value in measured.items()
        }

        video = str(write_clip(tmp_path / "clip.mp4", moving_square_clip()))
        there = python(hub, tmp_path / "another home", ["-c", ANSWER, video])
        assert there.returncode == 0, there.stderr[-3000:]
        here = pipeline("video-classification", model=tiny_fields["output_dir"])
        assert json.loads(there.stdout.splitlines()[-1]) == here(video, top_k=None, function_to_apply="none")


@pytest.mark.parametrize("script", ["finetune.py", "pretrain_videomae_v2.py", "pretrain_lstcl.py", "pretrain_bevt.py"])
def test_without_a_right_to_publish_nothing_is_trained(script, tiny_fields, tmp_path):
    with running() as hub:
        words = [ROOT / "examples" / script, "--data", tiny_fields["data"], "--output_dir", tmp_path / "output"]
        done = python(hub, tmp_path / "home", [*words, "--push_to_hub", "org/squares"], "hf_wrong")
        assert done.returncode != 0 and "no valid token" in done.stderr
        assert not (tmp_path / "output").exists() and not hub.repos


def test_a_pretrained_model_is_published_too(pretraining_fields, tmp_path):
    with running() as hub:
        words = [ROOT / "examples" / "pretrain_videomae_v2.py", *recipe(pretraining_fields, tmp_path, epochs=1)]
        done = python(hub, tmp_path / "home", [*words, "--push_to_hub", "org/squares"])
        assert done.returncode == 0, done.stderr[-3000:]
        files = hub.files("org/squares")
        assert {"config.json", "model.safetensors", "video_preprocessor_config.json", "README.md"} <= set(files)
        assert 'from_pretrained("org/squares")' in files["README.md"].decode()


def test_a_run_that_may_not_write_keeps_its_result(tiny_fields, tmp_path):
    """The token is known, so training starts; the repo is somebody else's."""
    with running() as hub:
        words = [ROOT / "examples" / "finetune.py", *recipe(tiny_fields, tmp_path, epochs=1)]
        done = python(hub, tmp_path / "home", [*words, "--push_to_hub", "org/squares"], READER)
        assert done.returncode != 0 and "has no write access" in done.stderr and not hub.repos
        assert (Path(tiny_fields["output_dir"]) / "model.safetensors").is_file()
        again = python(
            hub,
            tmp_path / "home",
            ["-m", "hf_videovit.cli", "publish", tiny_fields["output_dir"], "--repo-id", "org/squares"],
        )
        assert again.returncode == 0 and "model.safetensors" in hub.files("org/squares"), again.stderr[-3000:]
