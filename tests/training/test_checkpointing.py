import errno
import json

import pytest
import torch

from hf_videovit.training import checkpointing
from hf_videovit.training.checkpointing import (
    Checkpoint,
    flatten_optimizer,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    unflatten_optimizer,
)


def make_checkpoint(step):
    return Checkpoint(step, {"task": {"weight": torch.full((3,), float(step))}}, {"epoch": 1}, {"position": step})


def test_round_trip_keeps_the_latest(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, make_checkpoint(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000010", "step_00000100"]
    loaded = load_checkpoint(list_checkpoints(tmp_path)[-1])
    assert (loaded.step, loaded.state, loaded.rank_state) == (100, {"epoch": 1}, {"position": 100})
    assert torch.equal(loaded.tensors["task"]["weight"], torch.full((3,), 100.0))


@pytest.mark.parametrize("failing", ["write_tensors", "write_json", "sync"])
def test_disk_full_leaves_the_previous_checkpoint_intact(tmp_path, monkeypatch, failing):
    save_checkpoint(tmp_path, make_checkpoint(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpointing, failing, full)
    with pytest.raises(OSError, match="step_00000002 could not be written .*No space left.*step_00000001 is intact"):
        save_checkpoint(tmp_path, make_checkpoint(2))
    kept = list_checkpoints(tmp_path)[0]
    assert load_checkpoint(kept).step == 1
    assert all(path.read_bytes() == content for path, content in before.items())


def test_what_a_killed_writer_left_is_not_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path, make_checkpoint(1))
    (tmp_path / ".step_00000002.draft").mkdir()
    (tmp_path / "step_00000003").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000001"]
    save_checkpoint(tmp_path, make_checkpoint(2))
    assert load_checkpoint(list_checkpoints(tmp_path)[-1]).step == 2


def test_another_number_of_processes_is_refused_with_the_reason(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint(1))
    with pytest.raises(ValueError, match="written by 1 processes and cannot go on with 2"):
        load_checkpoint(path, rank=0, world=2)


def test_another_format_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint(1))
    state = json.loads((path / "state.json").read_text()) | {"format": 99}
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="not of format 1"):
        load_checkpoint(path)


def test_optimizer_state_survives_without_pickle(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, betas=(0.8, 0.9))
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors, groups = flatten_optimizer(optimizer.state_dict())
    save_checkpoint(tmp_path, Checkpoint(1, {"optimizer": tensors}, {"groups": groups}, {}))
    loaded = load_checkpoint(list_checkpoints(tmp_path)[0])
    fresh = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters())
    fresh.load_state_dict(unflatten_optimizer(loaded.tensors["optimizer"], loaded.state["groups"]))
    first, second = optimizer.state_dict(), fresh.state_dict()
    assert first["param_groups"] == second["param_groups"]
    for index, values in first["state"].items():
        assert all(torch.equal(value, second["state"][index][name]) for name, value in values.items())
