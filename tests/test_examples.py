"""What every script that trains does before and after the training."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_videovit.cli import running


EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if "run_script(" in path.read_text())


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Runs a script with stand-ins for the Hub and the training; answers what it called, in order."""

    def run(path: Path, *words: str) -> list[tuple]:
        called: list[tuple] = []
        result = SimpleNamespace(output_dir=tmp_path, facts={"outcomes": {}}, evaluation=None)
        accelerator = SimpleNamespace(is_main_process=True, end_training=lambda: called.append(("end",)))
        stand_ins = {
            "check_access": lambda repo_id: called.append(("check", repo_id)),
            "make_accelerator": lambda run: called.append(("accelerator",)) or accelerator,
            "run": lambda method, accelerator: called.append(("train", method.goal)) or result,
            "finish_run": lambda folder, run, facts: called.append(("finish", folder, run.push_to_hub, facts)),
        }
        for name, value in stand_ins.items():
            monkeypatch.setattr(running, name, value)
        monkeypatch.setattr(sys, "argv", [str(path), "--data", "clips", "--output_dir", str(tmp_path), *words])
        runpy.run_path(str(path), run_name="__main__")
        assert ("finish", tmp_path, *(words[1:] or [None]), result.facts) in called
        return [one[:2] if one[0] in ("check", "train") else one[:1] for one in called]

    return run


def goal_of(path: Path) -> str:
    return "classifier" if path.stem.startswith("finetune") else "encoder"


def test_there_are_scripts_that_train():
    assert len(SCRIPTS) >= 4


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_hub_is_asked_before_the_training_and_gets_the_result_after(told, path):
    steps = [("accelerator",), ("train", goal_of(path)), ("finish",), ("end",)]
    assert told(path, "--push_to_hub", "me/model") == [("check", "me/model"), *steps]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_run_that_is_not_to_be_published_asks_nobody(told, path):
    assert told(path) == [("accelerator",), ("train", goal_of(path)), ("finish",), ("end",)]
