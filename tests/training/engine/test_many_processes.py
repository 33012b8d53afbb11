"""
Killed, stopped, out of space, with damaged videos: runs of one process and two go on, and miss or repeat nothing.
`observed_run.py` says how they are started.
"""

import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine.checkpointing import list_checkpoints
from tests.clips import STEPS, moving_square_clip, write_clip


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("observed_run.py")
NUM_STEPS = 12
KILLED_AT = sorted(random.Random(3).sample(range(2, NUM_STEPS), 3))  # three steps, the same every time


def environment(**more):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | more


def do_runs(folder, runs):
    """Statuses and output of runs, one after the other."""
    for index, run in enumerate(runs):
        config = RunConfig.from_fields(**run.pop("fields"))
        run["recipe"] = str(folder / f"run {index}.yaml")
        config.save(run["recipe"])
    (folder / "runs.json").write_text(json.dumps(runs))
    command = [sys.executable, str(SCRIPT), str(folder / "runs.json"), str(folder / "answers.json")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answers.json").read_text())


def launch(folder, run):
    """`accelerate launch` with two processes on the CPU."""
    RunConfig.from_fields(**run.pop("fields")).save(folder / "run.yaml")
    (folder / "run.json").write_text(json.dumps(run | {"recipe": str(folder / "run.yaml")}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", "2"]
    command += ["--main_process_port", str(port), str(SCRIPT), str(folder / "run.json")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment(ACCELERATE_USE_CPU="true"), **pipes)


def lines_of(folder):
    path = folder / "logs" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def curve(folder):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines_of(folder) if "loss" in line]


def ledger(folder):
    return sorted(path.read_text() for path in (folder / "logs").glob("bad_videos.rank*.jsonl"))


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def fields(tiny_fields, clip_folder, tmp_path):
    """A run of 12 steps over 3 epochs, with everything that has a state: one damaged video among 16."""
    clips = sorted((clip_folder / "train").rglob("*.mp4"))[:15]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows = [f"{clip},{clip.parent.name}" for clip in clips] + [f"{tmp_path / 'broken.mp4'},up"]
    (tmp_path / "train.csv").write_text("\n".join(["file,label", *rows]))
    more = {"label_names": sorted(STEPS), "data": str(tmp_path / "train.csv"), "holdout": 0.0, "epochs": 3}
    more |= {"mixup": 0.8, "num_sample": 2, "ema_decay": 0.9, "save_steps": 2, "save_every": 0, "resume": True}
    return tiny_fields | more | {"bad_video_limit": 0.1, "output_dir": str(tmp_path / "whole")}


@pytest.mark.parametrize("world", [1, 2])
def test_killed_three_times_and_nothing_has_happened(fields, tmp_path, world):
    """kill -9 after a step, in the middle of one and while a checkpoint is being written: bit for bit the same run."""
    fields = fields | {"num_workers": 2, "batch_size": 4 // world}
    killed = fields | {"output_dir": str(tmp_path / "killed")}
    first, second, third = KILLED_AT
    kills = [("step", first), ("update", second), ("save", third)]
    runs = [{"world": world, "fields": killed, "kill": kill, "victim": world - 1} for kill in kills]
    runs += [{"world": world, "fields": each} for each in (killed, fields)]
    answers = do_runs(tmp_path, runs)
    for answer in answers[:3]:
        assert answer["statuses"][world - 1] == -signal.SIGKILL, answer["said"]
    assert [answer["statuses"] for answer in answers[3:]] == [[0] * world] * 2, answers[-1]["said"]
    assert "Resuming from" in answers[3]["said"][0]
    assert [step for step, *_ in curve(tmp_path / "whole")] == list(range(1, NUM_STEPS + 1))
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert ledger(tmp_path / "killed") == ledger(tmp_path / "whole")
    assert sum(len(text.splitlines()) for text in ledger(tmp_path / "whole")) == 3
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_full_disk_three_processes_and_kept_checkpoints(fields, tmp_path):
    fields = fields | {"num_workers": 0, "batch_size": 2, "keep_checkpoints": 3}
    folder = tmp_path / "full"
    full = fields | {"output_dir": str(folder)}
    answers = do_runs(
        tmp_path,
        [
            {"world": 2, "fields": full, "file_limit": [9, 20_000]},
            {"world": 3, "fields": full},
            {"world": 2, "fields": full},
            {"world": 2, "fields": fields},
        ],
    )
    stopped, three, resumed, whole = answers
    assert stopped["statuses"] == [1, 1]
    for said in stopped["said"]:
        failed = re.search(r"step_000000(08|10) could not be written", said)  # step 8 may still be being written
        assert failed, said
        assert f"step_{int(failed[1]) - 2:08d} is intact" in said
    assert "File too large" in stopped["said"][0]
    assert three["statuses"] == [1] * 3
    assert "keeps the 4 clips of a step, which 3 processes cannot share equally" in three["said"][0]
    assert resumed["statuses"] == whole["statuses"] == [0, 0]
    assert curve(folder) == curve(tmp_path / "whole")
    kept = [path.name for path in list_checkpoints(folder / "checkpoints")]
    assert kept == ["step_00000008", "step_00000010", "step_00000012"]


def test_sigterm_to_the_launcher_saves_and_the_run_goes_on(fields, tmp_path):
    fields = fields | {"num_workers": 1, "batch_size": 2, "save_steps": 100, "output_dir": str(tmp_path / "stopped")}
    running = launch(tmp_path, {"fields": fields, "pause": 1.0})
    while len(curve(tmp_path / "stopped")) < KILLED_AT[0]:
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    said = running.communicate()[0]
    assert running.returncode != 0
    assert "is saved. Continue with `--resume`." in said, said
    saved = list_checkpoints(tmp_path / "stopped" / "checkpoints")
    assert len(saved) == 1 and len(curve(tmp_path / "stopped")) < NUM_STEPS
    runs = [{"world": 2, "fields": fields | {"output_dir": str(tmp_path / name)}} for name in ("stopped", "whole")]
    answers = do_runs(tmp_path, runs)
    assert [answer["statuses"] for answer in answers] == [[0, 0]] * 2, answers[0]["said"]
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def write_shards(folder, num_shards, num_clips, damaged):
    """Tars of tiny clips that share them out unevenly; some are cut short."""
    names = sorted(STEPS)
    encoded = [
        write_clip(folder / f"{name}.mp4", moving_square_clip(name, num_frames=8, height=32, width=32)).read_bytes()
        for name in names
    ]
    for shard in range(num_shards):
        with tarfile.open(folder / f"clips-{shard:02d}.tar", "w") as archive:
            for index in range(shard, num_clips, num_shards):
                content = encoded[index % 4][:200] if index in damaged else encoded[index % 4]
                parts = (("mp4", content), ("json", json.dumps({"label": names[index % 4]}).encode()))
                for suffix, data in parts:
                    member = tarfile.TarInfo(f"{index:03d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    for name in names:
        (folder / f"{name}.mp4").unlink()


def test_thirteen_shards_and_damaged_videos_in_two_processes_of_two_workers(tiny_fields, tmp_path):
    (tmp_path / "shards").mkdir()
    damaged = {7, 20, 33, 64, 100}
    write_shards(tmp_path / "shards", 13, 101, damaged)
    data = str(tmp_path / "shards" / "clips-*.tar")
    fields = tiny_fields | {"data": data, "eval_data": data, "num_workers": 2, "batch_size": 5, "eval_every": 0}
    fields |= {"holdout": 0.0, "save_every": 0, "log_every": 5, "output_dir": str(tmp_path / "out")}
    files = {"seen": str(tmp_path / "seen"), "evaluated": str(tmp_path / "evaluated.json")}
    running = launch(tmp_path, {"fields": fields, **files})
    said = running.communicate()[0]
    assert running.returncode == 0, said
    seen = {epoch: Counter() for epoch in range(2)}
    for rank in range(2):
        for line in (tmp_path / f"seen.{rank}").read_text().splitlines():
            _, epoch, ids = json.loads(line)
            seen[epoch].update(ids)
    bad = [json.loads(line) for text in ledger(tmp_path / "out") for line in text.splitlines()]
    for epoch in range(2):
        assert len(seen[epoch]) == 96 and set(seen[epoch].values()) == {1}
        names = [line["id"] for line in bad if line["epoch"] == epoch]
        assert sorted(int(name[-3:]) for name in names) == sorted(damaged)
        assert not set(names) & set(seen[epoch])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["num_videos"], results["num_failed"]) == (96, 5)
    evaluated = json.loads((tmp_path / "evaluated.json").read_text())
    assert len(evaluated) == 96 and set(evaluated) == set(seen[0])
    assert {video["id"] for video in results["failed"]} == set(names)
