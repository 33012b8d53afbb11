"""What a run may remove and replace in its folder, and that it has the folder for itself."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate import Accelerator

from hf_videovit.folders import held_folder
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine.checkpointing import list_checkpoints
from hf_videovit.training.engine.run_folder import RunFolder, open_run_folder
from hf_videovit.training.methods.choosing import finetune, pretrain


ROOT = Path(__file__).parents[3]
FOREIGN = [
    "checkpoints/official.pth",
    "checkpoints/step_00000001/notes.txt",
    "checkpoints/step_00000001/state.json",
    "logs/notes.txt",
    "logs/metrics.jsonl",
    "README.md",
    "model.safetensors",
    "config.json",
    "run.yaml",
    "images/config.json",
    "reconstructions.png",
]


def snapshot(folder):
    """Content of all files but those of the lock."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".lock"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def quick(fields, **more):
    return RunConfig.from_fields(**fields | {"max_steps": 1, "eval_every": 0, "save_every": 0} | more)


@pytest.fixture
def claim(tmp_path):
    def claim(**fields):
        config = RunConfig.from_fields(output_dir=str(tmp_path / "out"), cpu=True, **fields)
        with open_run_folder(config, Accelerator(cpu=True)) as folder:
            return folder

    return claim


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_refused_by_name_and_kept(claim, tmp_path, name, flags):
    write(tmp_path / "out" / name)
    if flags == {"resume": True} and name.endswith("state.json"):
        return  # taken for a checkpoint and refused when it is read
    shown = "checkpoints/step_00000001" if "step_" in name else name
    with pytest.raises(ValueError, match=f"`output_dir` .*/out' has files .* no earlier run wrote.*{shown}"):
        claim(**flags)
    assert snapshot(tmp_path / "out") == {name: b"mine"}


@pytest.mark.parametrize("name", ["notes.txt", "train.log", "data/a/1.mp4", "official.pth", ".gitignore"])
def test_files_that_are_not_in_the_way_stay(claim, tmp_path, name):
    write(tmp_path / "out" / name)
    claim()
    claim(overwrite=True)
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_link_is_not_followed(claim, tmp_path):
    write(tmp_path / "mine" / "step_00000001" / "state.json", "{}")
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    (tmp_path / "out" / "checkpoints" / "step_00000001").symlink_to(tmp_path / "mine" / "step_00000001")
    with pytest.raises(ValueError, match="checkpoints/step_00000001"):
        claim(overwrite=True)
    assert (tmp_path / "mine" / "step_00000001" / "state.json").exists()


def test_a_file_is_no_folder(claim, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="`output_dir` must be a folder"):
        claim()
    assert (tmp_path / "out").read_text() == "mine"


def test_a_finished_model_without_checkpoints_is_replaced_only_when_asked(tiny_fields):
    folder = finetune(quick(tiny_fields)).output_dir
    before = snapshot(folder)
    assert not list_checkpoints(folder / "checkpoints")
    for flags in ({}, {"resume": True}):
        with pytest.raises(ValueError, match="has the files of an earlier run without checkpoints.*`overwrite`"):
            finetune(quick(tiny_fields, seed=1, **flags))
        assert snapshot(folder) == before
    finetune(quick(tiny_fields, seed=1, overwrite=True, holdout=0.0))
    assert snapshot(folder)["model.safetensors"] != before["model.safetensors"]


@pytest.mark.parametrize("name", ["README.md", "config.json", "results.json"])
def test_results_that_were_edited_are_not_replaced(tiny_fields, name):
    folder = finetune(quick(tiny_fields)).output_dir
    (folder / "README.md").write_text("a card")
    RunFolder(folder).record_results()
    finetune(quick(tiny_fields, overwrite=True))
    assert not (folder / "README.md").exists()
    write(folder / name)
    with pytest.raises(ValueError, match=f"changed since: {name}"):
        finetune(quick(tiny_fields, overwrite=True))
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
def test_the_model_that_a_run_starts_from_is_not_replaced(tiny_fields, flags):
    folder = finetune(quick(tiny_fields)).output_dir
    before = snapshot(folder)
    with pytest.raises(ValueError, match="has the `checkpoint` of the run"):
        finetune(quick(tiny_fields | {"config": {}}, checkpoint=str(folder), **flags))
    assert snapshot(folder) == before


def test_overwrite_removes_all_that_the_earlier_run_wrote(tiny_fields):
    folder = finetune(RunConfig.from_fields(**tiny_fields | {"epochs": 1, "keep_best": True})).output_dir
    assert {"checkpoints", "logs", "results.json"} <= {path.name for path in folder.iterdir()}
    write(folder / "checkpoints" / "step_00000001" / "task.safetensors")  # half deleted by a kill
    config = RunConfig.from_fields(**tiny_fields | {"overwrite": True})
    with open_run_folder(config, Accelerator(cpu=True)):
        assert set(snapshot(folder)) == {"logs/run.json"}
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "logs"]


def test_a_run_that_ended_before_its_first_checkpoint_can_be_resumed(claim, tmp_path):
    claim()
    write(tmp_path / "out" / "logs" / "metrics.jsonl", '{"step": 1, "epoch": 0}\n')
    with pytest.raises(ValueError, match="files of an earlier run without checkpoints: logs/metrics.jsonl"):
        claim()
    claim(resume=True)
    assert set(snapshot(tmp_path / "out")) == {"logs/run.json"}


def test_a_run_killed_while_it_saves_can_be_resumed(claim, tmp_path):
    claim().begin_saving()
    write(tmp_path / "out" / "model.safetensors", "half")
    with pytest.raises(ValueError, match="model.safetensors"):
        claim()
    claim(resume=True)


@pytest.mark.parametrize("method", ["classification", "pixels", "words"])
def test_every_file_of_a_run_is_known_as_its_own(tiny_fields, pretraining_fields, word_fields, method):
    pytest.importorskip("matplotlib")
    fields = {"classification": tiny_fields, "pixels": pretraining_fields, "words": word_fields}[method]
    fields |= {"epochs": 1, "curves": True, "keep_best": True, "patience": 3}
    fields |= {"trackers": ["tensorboard"]} if importlib.util.find_spec("tensorboard") else {}
    fields |= {} if method == "classification" else {"picture_every": 1}
    result = (finetune if method == "classification" else pretrain)(RunConfig.from_fields(**fields))
    record = json.loads((result.output_dir / "logs" / "run.json").read_text())
    assert "model.safetensors" in record["files"] and not record["saving"]
    with open_run_folder(RunConfig.from_fields(**fields | {"overwrite": True}), Accelerator(cpu=True)):
        assert set(snapshot(result.output_dir)) == {"logs/run.json"}


HOLD = """
import sys, time
from pathlib import Path
from hf_videovit.folders import held_folder
with held_folder(Path(sys.argv[1]), "output_dir"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_second_run_is_told_who_has_the_folder(claim, holder, tmp_path):
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ValueError, match=rf"in use by process {holder.pid} on .+ since \d{{4}}-\d\d-\d\d \d\d:"):
            claim(**flags)
    assert snapshot(tmp_path / "out") == {}


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_folder_of_a_killed_run_is_free_at_once(claim, holder, sent):
    holder.send_signal(sent)
    holder.wait()
    started = time.perf_counter()
    claim()
    assert time.perf_counter() - started < 5


def test_a_process_can_use_a_folder_again(tmp_path):
    for _ in range(2):
        with held_folder(tmp_path / "out", "output"):
            assert (tmp_path / "out" / ".lock.json").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    shutil.rmtree(tmp_path / "out")
