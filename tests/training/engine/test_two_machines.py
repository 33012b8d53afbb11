"""Two launchers that meet over the network: one is killed, and the other goes on from the last checkpoint."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine.checkpointing import list_checkpoints, read_state
from tests.training.engine.test_many_processes import SCRIPT, curve, environment


pytestmark = pytest.mark.slow

SECONDS = 240


def start(folder, port, first):
    """One machine: torchrun with a process. The machines meet at the first one."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-id", "job", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    conf = f"is_host={int(first)},last_call_timeout=10,keep_alive_interval=1,keep_alive_max_attempt=2"
    command += ["--rdzv-conf", conf]
    command += ["--max-restarts", "2", "--monitor-interval", "0.2", str(SCRIPT), str(folder / "run.json")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment(ACCELERATE_USE_CPU="true"), start_new_session=True, **pipes)


def kill(machine):
    """Everything on a machine at once, as when its power fails."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(machine.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    for process in (machine.pid, *map(int, children)):
        os.kill(process, signal.SIGKILL)


def test_a_killed_machine_is_done_without(tiny_fields, tmp_path):
    out = tmp_path / "out"
    fields = tiny_fields | {"batch_size": 2, "epochs": 3, "num_workers": 0, "save_steps": 1, "save_every": 0}
    fields |= {"resume": True, "eval_every": 0, "max_train_samples": 16, "output_dir": str(out)}
    RunConfig.from_fields(**fields).save(tmp_path / "run.yaml")
    (tmp_path / "run.json").write_text(json.dumps({"recipe": str(tmp_path / "run.yaml"), "pause": 0.5}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, second = (start(tmp_path, port, is_first) for is_first in (True, False))
    began = time.monotonic()
    while len(curve(out)) < 3 and time.monotonic() < began + SECONDS:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    kill(second)
    said = first.communicate(timeout=SECONDS)[0]
    second.communicate()
    assert first.returncode == 0, said
    assert "Resuming from" in said and "A step keeps its 4 clips" in said, said
    assert [step for step, *_ in curve(out)] == list(range(1, 13))
    assert read_state(list_checkpoints(out / "checkpoints")[-1])["world"] == 1
    assert json.loads((out / "results.json").read_text())["environment"]["processes"] == 1
