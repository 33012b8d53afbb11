"""Reading weight files: lazily, every wrapper, and nothing but tensors."""

import argparse
import json
import os
import sys

import pytest
import torch
from safetensors.torch import save_file

from hf_videovit.convert import keys
from hf_videovit.convert.keys import clean_names, open_checkpoint


WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class RunsOnLoading:
    """What a malicious file holds: rebuilding it calls a function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def read_all(checkpoint):
    return {name: checkpoint.read(name) for name in checkpoint.shapes}


def assert_weights(checkpoint):
    assert checkpoint.shapes == {"a.weight": (2, 3), "a.bias": (2,)}
    for name, tensor in read_all(checkpoint).items():
        assert torch.equal(tensor, WEIGHTS[name])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS},
        {"module": WEIGHTS},
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": WEIGHTS, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "epoch": 7, "scaler": None},
        {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1, name="run", nested=argparse.Namespace(x=[1]))},
        {"state_dict": {"model": WEIGHTS}},
    ],
    ids=["bare", "model", "module", "state_dict", "training state", "namespace", "nested"],
)
def test_wrappers(content, legacy, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_weights(open_checkpoint(path))


@pytest.mark.parametrize("place", range(3))
def test_of_several_wrappers_the_official_loaders_first_is_taken(place):
    """`model` before `module` before `state_dict` before `model_state`, in whatever order the file has them."""
    wrappers = ("model", "module", "state_dict", "model_state")[place:]
    others = {name: {key: tensor + 1 for key, tensor in WEIGHTS.items()} for name in wrappers[1:]}
    assert_weights(open_checkpoint({**others, wrappers[0]: WEIGHTS}))


def test_training_state_is_reported(tmp_path):
    torch.save({"model": WEIGHTS, "epoch": 7, "optimizer": {}}, tmp_path / "w.pth")
    assert sorted(open_checkpoint(tmp_path / "w.pth").ignored) == ["epoch", "optimizer"]


def test_entry_chooses(tmp_path):
    averaged = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
    torch.save({"model": WEIGHTS, "model_ema": averaged}, tmp_path / "w.pth")
    assert_weights(open_checkpoint(tmp_path / "w.pth"))
    chosen = open_checkpoint(tmp_path / "w.pth", entry="model_ema")
    assert torch.equal(chosen.read("a.bias"), WEIGHTS["a.bias"] + 1)
    with pytest.raises(ValueError, match=r"`entry` 'teacher' is not in w\.pth; found model, model_ema"):
        open_checkpoint(tmp_path / "w.pth", entry="teacher")


def test_only_an_average_is_named(tmp_path):
    torch.save({"model_ema": WEIGHTS, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="Pass entry='model_ema'"):
        open_checkpoint(tmp_path / "w.pth")


def test_safetensors_file_and_folder(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert_weights(open_checkpoint(tmp_path / "model.safetensors"))
    assert_weights(open_checkpoint(str(tmp_path)))
    with pytest.raises(ValueError, match="`entry`"):
        open_checkpoint(tmp_path / "model.safetensors", entry="model")


def test_shards(tmp_path):
    for number, (name, tensor) in enumerate(WEIGHTS.items()):
        save_file({name: tensor}, tmp_path / f"part{number}.safetensors")
    index = {"weight_map": {"a.weight": "part0.safetensors", "a.bias": "part1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_weights(open_checkpoint(tmp_path))
    for bad in ("gone.safetensors", "../elsewhere/part1.safetensors"):
        index["weight_map"]["a.bias"] = bad
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="names shards that are not in the folder"):
            open_checkpoint(tmp_path)


def test_folder_without_or_with_several(tmp_path):
    with pytest.raises(ValueError, match="0 weight files; found nothing"):
        open_checkpoint(tmp_path)
    torch.save(WEIGHTS, tmp_path / "one.pth")
    assert_weights(open_checkpoint(tmp_path))
    torch.save(WEIGHTS, tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"2 weight files; found one\.pth, two\.pth"):
        open_checkpoint(tmp_path)


def test_state_dict_in_memory():
    assert_weights(open_checkpoint(WEIGHTS))
    assert_weights(open_checkpoint({"module": WEIGHTS}))


def test_tensors_stay_on_disk_and_survive_remapping(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(keys, "REMAP_AFTER_BYTES", 0)
    monkeypatch.setattr(
        torch, "load", lambda *args, load=torch.load, **options: opened.append(options) or load(*args, **options)
    )
    torch.save({"model": WEIGHTS}, tmp_path / "w.pth")
    assert_weights(open_checkpoint(tmp_path / "w.pth"))
    assert len(opened) == 2
    assert all(options["mmap"] and options["weights_only"] for options in opened)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_is_refused_and_does_not_run(legacy, tmp_path):
    trace = tmp_path / "it_ran"
    content = {"model": WEIGHTS, "args": RunsOnLoading(trace)}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="contains pickled objects besides tensors") as error:
        open_checkpoint(tmp_path / "evil.pth")
    assert not trace.exists()
    assert "mkdir" in str(error.value)
    assert "save only the tensors" in str(error.value)


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
        open_checkpoint(tmp_path / "whole.pth")


@pytest.mark.parametrize(
    "content", [torch.ones(2), [1, 2], {}, {"model": {}}, {"model": {"a": 1, "b": torch.ones(1)}}]
)
def test_not_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth (is an|has entries that are not plain tensors)"):
        open_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 173574417\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n<html></html>", "web page"),
        (b'{"error": "Entry not found"}', "cannot be read as weights"),
        (b"PK\x03\x04 and then nothing", "cut off after"),
        (bytes(range(256)), "cannot be read as weights"),
    ],
)
def test_what_is_no_weight_file(content, message, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", ["pth", "legacy.pth", "safetensors"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(suffix, share, tmp_path):
    path = tmp_path / f"w.{suffix}"
    weights = {"a": torch.randn(200, 200)}
    if suffix == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == "pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="cut off|damaged|not a complete safetensors file"):
        open_checkpoint(path)


def test_no_such_file():
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_checkpoint("nowhere.pth")


def test_old_torch_is_refused(tmp_path, monkeypatch):
    torch.save(WEIGHTS, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(ValueError, match=r"torch>=2\.6"):
        open_checkpoint(tmp_path / "w.pth")


def test_clean_names():
    names = ["_orig_mod.module.a", "backbone.model.b", "module.model.c", "d", "blocks._orig_mod.0"]
    assert clean_names(names) == {
        "a": "_orig_mod.module.a",
        "b": "backbone.model.b",
        "c": "module.model.c",
        "d": "d",
        "blocks.0": "blocks._orig_mod.0",
    }
    with pytest.raises(ValueError, match="'a' twice"):
        clean_names(["a", "module.a"])


def test_nothing_is_imported_to_unpickle():
    assert "pickle" not in vars(sys.modules["hf_videovit.convert.keys"])


def test_a_damaged_byte_is_found(tmp_path):
    """torch reads such a file without a word."""
    path = tmp_path / "w.pth"
    torch.save({"a.weight": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(1000)) + 500] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a.weight"].count_nonzero() == 1
    with pytest.raises(ValueError, match=r"w\.pth is damaged: the checksum of w/data/0 is wrong"):
        open_checkpoint(path)


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_weights(open_checkpoint(tmp_path / "w.pth"))


def test_the_content_tells_the_kind_of_file(tmp_path):
    save_file(WEIGHTS, tmp_path / "pytorch_model.bin")
    assert_weights(open_checkpoint(tmp_path / "pytorch_model.bin"))
    torch.save(WEIGHTS, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="rename it to .pth"):
        open_checkpoint(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "`checkpoint` must be a path or a dict of tensors, got NoneType"),
        ([1], "got list"),
        ({"a": torch.ones(2).to_sparse()}, "not plain tensors.*sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, "not plain tensors.*on meta"),
        ({3: torch.ones(2)}, "not plain tensors: 3"),
    ],
)
def test_sources_that_are_none(source, message):
    with pytest.raises(ValueError, match=message):
        open_checkpoint(source)
