"""The official numbers, and that the comparison itself can fail."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from .parity.__main__ import ADAPTERS, main, run


FIXTURES = Path(__file__).parent / "fixtures"
CASES = sorted(path for family in ADAPTERS for path in (FIXTURES / family).iterdir())


@pytest.mark.parametrize("directory", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_official_numbers_are_met(directory):
    reports = list(run(directory))
    assert reports and all(report.lines for report in reports)
    assert not [line for report in reports for line in report.lines if line.endswith("FAIL")]


def changed_copy(case: str, target: Path, change) -> Path:
    """A fixture with other tensors, in a directory whose name tells nothing."""
    shutil.copytree(FIXTURES / "videomae_v2" / case, target)
    tensors = load_file(target / "io.safetensors")
    change(tensors)
    save_file(tensors, target / "io.safetensors")
    return target


def test_a_case_is_recognised_by_its_files(tmp_path, capsys):
    assert main([str(changed_copy("finetune", tmp_path / "x", lambda tensors: None))]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_an_encoder_without_head_is_a_case(tmp_path, capsys):
    copy = changed_copy("finetune", tmp_path / "x", lambda tensors: tensors.pop("logits"))
    weights = torch.load(copy / "checkpoint.pth", weights_only=True)["module"]
    torch.save(
        {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}, copy / "checkpoint.pth"
    )
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_classes": 0}))
    assert main([str(copy)]) == 0
    assert "pooled" in capsys.readouterr().out


def test_loss_over_all_decoded_tokens_is_caught(tmp_path, capsys):
    """A reference whose loss were the mistaken one would agree with the tensor that is there to catch it."""
    copy = changed_copy(
        "pretrain",
        tmp_path / "x",
        lambda tensors: tensors.update(loss=tensors["loss_all_decoded_tokens_not_used"].clone()),
    )
    assert main([str(copy)]) == 1
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.endswith("FAIL")]
    assert set(failed) == {"loss"}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors["logits"].add_(1e-3),
        lambda tensors: tensors["logits"].mul_(float("nan")),
        lambda tensors: tensors.update(something_new=tensors["logits"].clone()),
        lambda tensors: tensors.update(pooled=tensors["pooled"][:, :-1].contiguous()),
    ],
    ids=["value", "nan", "unknown tensor", "shape"],
)
def test_differences_and_unknown_tensors_fail(tmp_path, capsys, change):
    assert main([str(changed_copy("finetune", tmp_path / "x", change))]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_key_that_cannot_be_placed_fails(tmp_path, capsys):
    copy = changed_copy("finetune", tmp_path / "x", lambda tensors: None)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_heads": 5}))
    assert main([str(copy)]) == 1
    assert "num_attention_heads" in capsys.readouterr().out


def test_an_empty_directory_fails(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
