"""Loss scaling (fp16), which accelerate gives on accelerators only: its scaler is put into place by hand."""

import json

import pytest
import torch
from accelerate import Accelerator

from hf_videovit.training.engine import loop as engine
from hf_videovit.training.engine.checkpointing import list_checkpoints
from tests.training.engine import test_loop
from tests.training.engine.test_loop import losses, run


START = 2.0**20  # so large that the first losses overflow


@pytest.fixture
def scaled(monkeypatch):
    """Runs of `test_engine` with a scaler of their own."""

    def accelerator(cpu):
        made = Accelerator(cpu=cpu)
        made.scaler, made.native_amp = torch.amp.GradScaler("cpu", init_scale=START, growth_interval=5), True
        return made

    monkeypatch.setattr(test_loop, "Accelerator", accelerator)
    monkeypatch.setitem(Accelerator(cpu=True).state.__dict__, "_mixed_precision", "fp16")


def test_overflowing_steps_are_left_out_and_the_scale_is_kept_in_checkpoints(tmp_path, monkeypatch, scaled):
    options = {"save_steps": 2, "epochs": 3}
    whole, _ = run(tmp_path / "whole", **options)
    left_out = (tmp_path / "whole" / "logs" / "nonfinite.rank0.jsonl").read_text().splitlines()
    skipped = [json.loads(line)["step"] for line in left_out]
    assert skipped and skipped[0] == 1 and len(skipped) < 10
    after_step = engine._Run._after_step

    def kill(self, *arguments):
        after_step(self, *arguments)
        if self.progress.step == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine._Run, "_after_step", kill)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", **options)
    monkeypatch.setattr(engine._Run, "_after_step", after_step)
    saved = list_checkpoints(tmp_path / "killed" / "checkpoints")[-1]
    state = json.loads((saved / "state.json").read_text())
    assert state["scaler"]["scale"] < START
    assert {"growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"} < state["scaler"].keys()
    resumed, _ = run(tmp_path / "killed", resume=True, **options)
    assert [str(line) for line in losses(resumed)] == [str(line) for line in losses(whole)]  # NaN where left out
    for first, second in zip(whole.model.parameters(), resumed.model.parameters()):
        assert torch.isfinite(first).all() and torch.equal(first, second)
    scales = []
    for name in ("whole", "killed"):
        last = list_checkpoints(tmp_path / name / "checkpoints")[-1]
        scales.append(json.loads((last / "state.json").read_text())["scaler"])
    assert scales[0] == scales[1]
