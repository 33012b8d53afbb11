"""A run that is killed, or told to stop, goes on as if nothing had happened: real signals to real processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.streaming import StepStream
from hf_videovit.training.engine.checkpointing import list_checkpoints
from hf_videovit.training.engine.stopping import watch_signals
from hf_videovit.training.methods.choosing import finetune


pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[3]
STOPS_AT = 7
# Waits at that step, and in each validation, for a signal; one thread, as here, so that sums are the same to the last
# bit.
SCRIPT = f"""
import sys, time
import torch
from hf_videovit.training.engine import loop as engine
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune
after_step, validate = engine._Run._after_step, engine._Run._validate
def wait_for_signal(run):
    while not run.stopping.is_set():
        time.sleep(0.02)
def step_and_wait(self, *arguments):
    after_step(self, *arguments)
    if self.progress.step == {STOPS_AT}:
        wait_for_signal(self)
def wait_and_validate(self, *arguments):
    print("validates", file=sys.stderr, flush=True)
    wait_for_signal(self)
    validate(self, *arguments)
torch.set_num_threads(1)
engine._Run._after_step, engine._Run._validate = step_and_wait, wait_and_validate
finetune(RunConfig.from_yaml(sys.argv[1]))
"""


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(recipe):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", SCRIPT, str(recipe)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def lines_of(folder):
    path = folder / "logs" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses_of(folder):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines_of(folder) if "loss" in line]


def validations_of(folder):
    return [line for line in lines_of(folder) if "validation" in line]


def wait_for_step(process, folder, step):
    while max((line["step"] for line in lines_of(folder)), default=0) < step:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def wait_for_all_to_end(group):
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(group, 0)
            time.sleep(0.02)


@pytest.mark.parametrize(("sent", "num_workers"), [(signal.SIGKILL, 1), (signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_signal_in_the_middle_of_an_epoch(tiny_fields, tmp_path, one_thread, sent, num_workers):
    fields = tiny_fields | {"num_workers": num_workers, "epochs": 3, "mixup": 0.8, "ema_decay": 0.9, "num_sample": 2}
    fields |= {"eval_every": 0, "resume": True, "save_every": 0}
    fields |= {"save_steps": 2} if sent == signal.SIGKILL else {}
    folder = tmp_path / "stopped"
    config = RunConfig.from_fields(**fields | {"output_dir": str(folder)})
    config.save(tmp_path / "recipe.yaml")
    stopped = start(tmp_path / "recipe.yaml")
    wait_for_step(stopped, folder, STOPS_AT)
    stopped.send_signal(sent)
    _, said = stopped.communicate()
    assert stopped.returncode != 0
    checkpoints = list_checkpoints(folder / "checkpoints")
    assert "Traceback" not in said
    if sent != signal.SIGKILL:
        name = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[sent]
        assert f"Stopped by {name}; step {STOPS_AT} is saved. Continue with `--resume`." in said
        assert len(checkpoints) == 1
    assert checkpoints
    assert losses_of(folder)[-1][0] == STOPS_AT
    whole = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "whole")}))
    finetune(config)
    assert losses_of(folder) == losses_of(whole.output_dir)
    assert len(losses_of(folder)) == 15
    assert (folder / "model.safetensors").read_bytes() == (whole.output_dir / "model.safetensors").read_bytes()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_job_while_it_validates(tiny_fields, tmp_path, one_thread, sent):
    """As launchers, clusters and terminals send it: the workers go on as long as the validation needs them."""
    fields = tiny_fields | {"num_workers": 2, "save_every": 0, "resume": True}
    fields |= {"processor": fields["processor"] | {"isolate_decoding": True}}
    folder = tmp_path / "stopped"
    config = RunConfig.from_fields(**fields | {"output_dir": str(folder)})
    config.save(tmp_path / "recipe.yaml")
    stopped = start(tmp_path / "recipe.yaml")
    assert any(line == "validates\n" for line in stopped.stderr)
    os.killpg(stopped.pid, sent)
    _, said = stopped.communicate()
    assert stopped.returncode != 0
    assert "step 5 is saved. Continue with `--resume`." in said
    assert [line["step"] for line in validations_of(folder)] == [5]
    wait_for_all_to_end(stopped.pid)
    whole = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "whole")}))
    finetune(config)
    assert losses_of(folder) == losses_of(whole.output_dir)
    assert validations_of(folder) == validations_of(whole.output_dir)
    assert (folder / "model.safetensors").read_bytes() == (whole.output_dir / "model.safetensors").read_bytes()


@pytest.mark.parametrize("position", [0, 1])
def test_a_batch_that_comes_with_the_signal_is_not_lost(tiny_fields, tmp_path, one_thread, monkeypatch, position):
    """Also where it is the first of all, so that no step has been taken yet."""
    fields = tiny_fields | {"num_workers": 0, "epochs": 2, "eval_every": 0, "save_every": 0, "resume": True}
    whole = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "whole")}))
    config = RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "stopped")})
    read = StepStream.epoch

    def signalled(stream, *arguments):
        for index, batch in enumerate(read(stream, *arguments)):
            if index == position:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(StepStream, "epoch", signalled)
        with pytest.raises(SystemExit, match=f"step {position} is saved"):
            finetune(config)
    finetune(config)
    assert losses_of(tmp_path / "stopped") == losses_of(whole.output_dir)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "stopped", whole.output_dir)]
    assert weights[0] == weights[1]


def test_a_second_ctrl_c_ends_the_run_at_once():
    with watch_signals() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.wait(5) and request.made_by == "Ctrl-C"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_handler_is_put_back_and_threads_do_without(sent):
    before = signal.getsignal(sent)
    with watch_signals() as noticed:
        os.kill(os.getpid(), sent)
        assert noticed.wait()
    assert signal.getsignal(sent) == before
    seen = []

    def run():
        with watch_signals() as event:
            seen.append(event.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
