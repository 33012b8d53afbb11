"""Two processes on the CPU, started as a user would: uneven shares, unreadable videos, tars that do not divide."""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.opening import open_source
from hf_videovit.training.evaluation.evaluation import evaluate_model
from hf_videovit.training.methods.choosing import finetune
from tests.clips import STEPS


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[3]
NAMES = sorted(STEPS)


def launch(script, *arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--num_processes", "2", "--main_process_port", str(port), str(ROOT / "examples" / script)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_list(path, clips, *more):
    path.write_text("\n".join(["file,label", *(f"{clip},{clip.parent.name}" for clip in clips), *more]))


@pytest.fixture
def uneven_lists(clip_folder, tmp_path):
    """13 clips to train on; 8 to evaluate on, and a ninth that is broken."""
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    write_list(tmp_path / "train.csv", sorted((clip_folder / "train").rglob("*.mp4"))[:13])
    write_list(tmp_path / "val.csv", sorted((clip_folder / "val").rglob("*.mp4")), f"{tmp_path}/broken.mp4,up")
    return tmp_path


def curve_of(folder, key="loss"):
    lines = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def test_two_processes_train_like_one_with_twice_the_batch(tiny_fields, uneven_lists, tmp_path):
    fields = tiny_fields | {"label_names": NAMES, "data": str(uneven_lists), "batch_size": 2, "num_workers": 1}
    fields["config"] = fields["config"] | {"drop_path_rate": 0.0}  # its draws differ between one process and two
    RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "two")}).save(tmp_path / "recipe.yaml")
    launch("finetune.py", "--recipe", tmp_path / "recipe.yaml")
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert (results["num_videos"], results["num_failed"]) == (8, 1)
    assert results["environment"]["processes"] == 2
    assert (tmp_path / "two" / "README.md").is_file()
    alone = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "one"), "batch_size": 4}))
    assert alone.facts["steps"] == 8
    for key, tolerance in (("loss", 1e-5), ("grad_norm", 1e-4)):
        assert curve_of(tmp_path / "two", key) == pytest.approx(curve_of(alone.output_dir, key), rel=tolerance)


def test_tars_that_do_not_divide_and_broken_videos(tiny_fields, clip_folder, tmp_path):
    clips = sorted((clip_folder / "train").rglob("*.mp4"))
    for shard in range(3):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as archive:
            for index, clip in enumerate(clips[shard::3]):
                content = b"not a video" if (shard, index) in ((0, 0), (0, 1)) else clip.read_bytes()
                for name, data in (("mp4", content), ("json", json.dumps({"label": clip.parent.name}).encode())):
                    member = tarfile.TarInfo(f"{shard}_{index}.{name}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    fields = tiny_fields | {"data": str(tmp_path), "output_dir": str(tmp_path / "out"), "epochs": 2, "batch_size": 3}
    RunConfig.from_fields(**fields, bad_video_limit=0.2, holdout=0.0).save(tmp_path / "recipe.yaml")
    launch("finetune.py", "--recipe", tmp_path / "recipe.yaml")
    records = [path.read_text().splitlines() for path in (tmp_path / "out" / "logs").glob("bad_videos.rank*.jsonl")]
    bad = [json.loads(line) for lines in records for line in lines]
    assert sorted((line["epoch"], line["id"]) for line in bad) == [
        (epoch, f"train-0.tar/0_{index}") for epoch in (0, 1) for index in (0, 1)
    ]
    assert 6 <= len(curve_of(tmp_path / "out")) <= 8


def test_evaluation_by_two_processes_is_that_of_one(tiny_fields, uneven_lists, tmp_path):
    fields = tiny_fields | {"epochs": 1, "eval_every": 0, "output_dir": str(tmp_path / "model")}
    result = finetune(RunConfig.from_fields(**fields))
    val = uneven_lists / "val.csv"
    command = ["--model", result.output_dir, "--data", val, "--num_workers", 0]
    launch("evaluate_classifier.py", *command, "--output", tmp_path / "2.json", "--predictions", tmp_path / "2.jsonl")
    alone = evaluate_model(result.model, result.processor, open_source(val))
    assert [json.loads(line) for line in (tmp_path / "2.jsonl").read_text().splitlines()] == alone.predictions()
    together = json.loads((tmp_path / "2.json").read_text())
    for key in ("metrics", "num_videos", "failed", "manifest_sha256"):
        assert together[key] == alone.to_dict()[key]
