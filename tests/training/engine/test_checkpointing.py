import errno
import json
import shutil
import threading

import pytest
import torch
from safetensors.torch import save_file

from hf_videovit.folders import file_hash
from hf_videovit.training.engine import checkpointing, tensor_files
from hf_videovit.training.engine.checkpointing import (
    ASIDE,
    FORMAT,
    CheckpointWriter,
    TrainingCheckpoint,
    flatten_optimizer,
    list_checkpoints,
    load_checkpoint,
    read_rank_state,
    save_checkpoint,
    unflatten_optimizer,
)


def make_checkpoint(step):
    weight = torch.full((3,), float(step))
    return TrainingCheckpoint(step, {"task": {"weight": weight}}, {"epoch": 1}, {"position": step})


def test_round_trip_keeps_the_latest(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, make_checkpoint(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000010", "step_00000100"]
    loaded = load_checkpoint(list_checkpoints(tmp_path)[-1])
    assert (loaded.step, loaded.state, loaded.rank_state) == (100, {"epoch": 1}, {"position": 100})
    assert torch.equal(loaded.tensors["task"]["weight"], torch.full((3,), 100.0))


@pytest.mark.parametrize("failing", ["_write_tensors", "_write_json", "_sync"])
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


def test_another_number_of_processes_reads_what_all_share(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint(1))
    loaded = load_checkpoint(path, rank=1)
    assert (loaded.state, loaded.rank_state, loaded.world) == ({"epoch": 1}, {}, 1)
    assert read_rank_state(path, 0) == {"position": 1}


@pytest.mark.parametrize("change", [{"format": 99}, {"format": None}])
def test_another_format_is_refused(tmp_path, change):
    path = save_checkpoint(tmp_path, make_checkpoint(1))
    state = json.loads((path / "state.json").read_text()) | change
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=f"must have format {FORMAT}"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("state.json", {"step": -5}),
        ("state.json", {"step": 2}),
        ("state.json", {"epoch": 10**9}),
        ("state.json", {"parts": []}),
        ("state.json", {"sha256": None}),
        ("rank_0.json", {"position": -1}),
        ("rank_0.json", {"more": 1}),
    ],
)
def test_a_state_that_was_edited_is_refused_by_name(tmp_path, name, change):
    path = save_checkpoint(tmp_path, make_checkpoint(1))
    values = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps(values))  # in another form, but with the same values
    assert load_checkpoint(path).step == 1
    (path / name).write_text(json.dumps(values | change))
    with pytest.raises(ValueError, match=f"{path / name} was edited since it was written"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["state.json", "rank_0.json", "task.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "missing", "one bit"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    path = save_checkpoint(tmp_path, make_checkpoint(1))
    content = (path / name).read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    wrong = {"truncated": content[:-9], "empty": b"", "other": b"[1]", "missing": b"", "one bit": flipped}
    (path / name).write_bytes(wrong[damage])
    if damage == "missing":
        (path / name).unlink()
    with pytest.raises(ValueError, match=f"{path / name} is (damaged: |missing).*Delete this checkpoint to resume"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_named(tmp_path, value):
    checkpoint = make_checkpoint(1)
    checkpoint.tensors["task"]["weight"][0] = value
    path = save_checkpoint(tmp_path, checkpoint)
    with pytest.raises(ValueError, match="task.safetensors is damaged: weight has values that are not finite"):
        load_checkpoint(path)


def test_a_checkpoint_in_a_folder_of_another_step_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint(1))
    with pytest.raises(ValueError, match="step_00000009 is of step 1: give its folder its name back"):
        load_checkpoint(path.rename(tmp_path / "step_00000009"))


def test_values_of_any_kind_are_sealed(tmp_path):
    state = {"best": float("nan"), "groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "names": {1: "a"}}], "none": None}
    path = save_checkpoint(tmp_path, TrainingCheckpoint(1, {}, state, {"sums": {"loss": 0.1 + 0.2}}))
    assert load_checkpoint(path).rank_state == {"sums": {"loss": 0.1 + 0.2}}


def test_optimizer_state_survives_without_pickle(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, betas=(0.8, 0.9))
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors, groups = flatten_optimizer(optimizer.state_dict())
    save_checkpoint(tmp_path, TrainingCheckpoint(1, {"optimizer": tensors}, {"groups": groups}, {}))
    loaded = load_checkpoint(list_checkpoints(tmp_path)[0])
    fresh = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters())
    fresh.load_state_dict(unflatten_optimizer(loaded.tensors["optimizer"], loaded.state["groups"]))
    first, second = optimizer.state_dict(), fresh.state_dict()
    assert first["param_groups"] == second["param_groups"]
    for index, values in first["state"].items():
        assert all(torch.equal(value, second["state"][index][name]) for name, value in values.items())


def test_a_file_that_cannot_grow_any_more_is_a_full_disk_too(tmp_path):
    """What safetensors raises is no `OSError` of its own accord."""
    resource = pytest.importorskip("resource")
    save_checkpoint(tmp_path, make_checkpoint(1))
    large = TrainingCheckpoint(2, {"task": {"weight": torch.zeros(2**18)}}, {}, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(OSError, match="step_00000002 could not be written .*File too large.*00000001 is intact"):
            save_checkpoint(tmp_path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert load_checkpoint(tmp_path / "step_00000001").step == 1


def test_all_processes_fail_when_one_does(tmp_path):
    asked = []

    def another_process_failed(well):
        asked.append(well)
        return len(asked) != 2

    with pytest.raises(OSError, match="see the error of another process.*there is no earlier checkpoint"):
        save_checkpoint(tmp_path, make_checkpoint(1), agree=another_process_failed)
    assert asked == [True, True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("killed_before", ["draft", "aside"])
def test_a_step_saved_again_is_never_missing(tmp_path, monkeypatch, killed_before):
    save_checkpoint(tmp_path, make_checkpoint(1), keep=1)
    again = TrainingCheckpoint(1, {"task": {"weight": torch.zeros(1)}}, {"epoch": 2}, {})
    replace, rmtree = checkpointing.os.replace, checkpointing.shutil.rmtree

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    if killed_before == "draft":
        monkeypatch.setattr(
            checkpointing.os, "replace", lambda old, new: stop() if ".draft" in old.name else replace(old, new)
        )
    else:
        monkeypatch.setattr(
            checkpointing.shutil,
            "rmtree",
            lambda path, **options: stop() if path.exists() and ASIDE in path.name else rmtree(path, **options),
        )
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, again, keep=1)
    monkeypatch.undo()
    epochs = [load_checkpoint(path).state["epoch"] for path in list_checkpoints(tmp_path)]
    assert epochs == ([1] if killed_before == "draft" else [2])
    save_checkpoint(tmp_path, again, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def kill_within_removal(monkeypatch):
    """Every removal is killed after its first file."""
    rmtree = shutil.rmtree

    def stop(path, **options):
        if path.is_dir() and (files := sorted(path.iterdir())):
            files[0].unlink()
            raise KeyboardInterrupt
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", stop)


def test_a_checkpoint_half_deleted_by_a_kill_is_deleted_by_the_next_save(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, make_checkpoint(step), keep=2)
    with monkeypatch.context() as patched:
        kill_within_removal(patched)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, make_checkpoint(3), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000002", "step_00000003"]
    assert len(list(tmp_path.iterdir())) == 3
    save_checkpoint(tmp_path, make_checkpoint(4), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000003", "step_00000004"]


@pytest.mark.parametrize("left", ["step_00000001", ".step_00000001.draft", ".step_00000001.removed"])
def test_parts_of_checkpoints_do_not_stay(tmp_path, left):
    (tmp_path / left).mkdir()
    (tmp_path / left / "task.safetensors").write_bytes(b"x")
    save_checkpoint(tmp_path, make_checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]


@pytest.mark.parametrize("mine", ["step_00000001/notes.txt", "step_1/model.safetensors", "best/state.json", "a.pth"])
def test_files_of_others_beside_checkpoints_stay(tmp_path, mine):
    (tmp_path / mine).parent.mkdir(exist_ok=True)
    (tmp_path / mine).write_text("mine")
    for step in (2, 3):
        save_checkpoint(tmp_path, make_checkpoint(step), keep=1)
    assert (tmp_path / mine).read_text() == "mine"
    assert [path.name for path in list_checkpoints(tmp_path)][-1] == "step_00000003"


def test_a_run_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """What changes meanwhile is not in it, and an error is raised where the run waits for it."""
    may_write, write = threading.Event(), checkpointing._write_tensors

    def slowly(*arguments):
        assert may_write.wait(10)
        write(*arguments)

    monkeypatch.setattr(checkpointing, "_write_tensors", slowly)
    writer = CheckpointWriter(tmp_path)
    weight = torch.ones(3)
    writer.begin(TrainingCheckpoint(1, {"task": {"weight": weight}}, {}, {}))
    weight.zero_()
    assert list_checkpoints(tmp_path) == []
    may_write.set()
    writer.finish()
    assert load_checkpoint(tmp_path / "step_00000001").tensors["task"]["weight"].tolist() == [1, 1, 1]

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpointing, "_write_tensors", full)
    writer.begin(make_checkpoint(2))
    with pytest.raises(OSError, match="step_00000002 could not be written .*No space left.*step_00000001 is intact"):
        writer.begin(make_checkpoint(3))


def test_the_tensors_are_shared_out_and_read_by_any_number(tmp_path):
    """
    What two processes wrote, one reads: a process writes its share only, whatever the order in which it holds the
    tensors. Nothing is pickled.
    """
    values = {f"w{number}": torch.full((2, number + 1), float(number)) for number in range(5)}
    draft = tmp_path / ".step_00000001.draft"
    orders = [list(values.items()), list(values.items())[::-1]]
    named = [{f"task/{name}": value for name, value in order} for order in orders]
    shares = [CheckpointWriter(tmp_path, rank=rank)._own_tensors(named[rank], world=2) for rank in range(2)]
    assert sorted(name for share in shares for name in share) == [f"task/w{number}" for number in range(5)]
    draft.mkdir()
    digests = {}
    for rank, share in enumerate(shares):
        tensor_files.save_tensors(draft, share, rank, checkpointing._write_tensors, digests).result()
    assert digests == {path.name: file_hash(path) for path in draft.iterdir()}
    found = {f"task/w{number}": torch.zeros(2, number + 1) for number in range(5)}
    checkpointing.read_into(draft, found, alone=True)
    assert all(torch.equal(found[f"task/{name}"], value) for name, value in values.items())
    assert sorted(path.name for path in draft.iterdir()) == ["task.1.safetensors", "task.safetensors"]


def test_a_checkpoint_that_lacks_a_tensor_gets_no_name(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, make_checkpoint(1))
    monkeypatch.setattr(CheckpointWriter, "_own_tensors", lambda writer, named, world: {"task/other": torch.ones(1)})
    with pytest.raises(RuntimeError, match="No process wrote task/weight of checkpoint .*step_00000002"):
        save_checkpoint(tmp_path, make_checkpoint(2))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000001"]


def test_shards_of_a_tensor_are_put_together(tmp_path):
    rows = torch.arange(12.0).view(4, 3)
    for rank, (first, last) in enumerate(((0, 3), (3, 4))):
        places = json.dumps({"w": [[4, 3], [first, 0]]})
        save_file({"w": rows[first:last].clone()}, tmp_path / tensor_files.file_name("ema", rank), {"places": places})
    found = {"ema/w": torch.zeros(4, 3)}
    checkpointing.read_into(tmp_path, found, alone=True)
    assert torch.equal(found["ema/w"], rows)
    save_file({"w": rows[3:].clone()}, tmp_path / "ema.1.safetensors")
    with pytest.raises(ValueError, match="ema.1.safetensors is damaged: "):
        checkpointing.read_into(tmp_path, found, alone=True)
