"""Every error of a command is one line that names the file or the argument, or what to install."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import hf_videovit
from hf_videovit.cli import app
from hf_videovit.cli.common import choose_device, screen
from hf_videovit.cli.errors import explain
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a run without `--output_dir` writes to `output`


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("errors")
    for name in ("left", "right"):
        for number in range(2):
            write_clip(root / "clips" / name / f"{number}.mp4", moving_square_clip(name, num_frames=6, seed=number))
    return root


@pytest.fixture(scope="module")
def model(place):
    return save_tiny_classifier(place / "model")


def command(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 2, done.output
    assert len(lines) == 1, done.output
    assert isinstance(done.exception, SystemExit)
    return lines[0]


def commands_with(model, place):
    clip = place / "clips" / "left" / "0.mp4"
    return {
        "classify": ["classify", clip, "--model", model],
        "embed": ["embed", clip, "--model", model, "-o", place / "x.npy"],
        "evaluate": ["evaluate", "--model", model, "--data", place / "clips"],
        "probe": ["probe", model, "--data", place / "clips"],
        "train": ["train", "--checkpoint", model, "--data", place / "clips", "--output_dir", place / "out"],
        "plan": ["train", "--checkpoint", model, "--data", place / "clips", "--plan"],
    }


@pytest.mark.parametrize("name", ["classify", "embed", "evaluate", "probe", "train", "plan"])
@pytest.mark.parametrize("size", [0, 4, 5000])
def test_truncated_weights_are_named(model, place, name, size):
    broken = place / f"broken{size}"
    if not broken.exists():
        shutil.copytree(model, broken)
        with (broken / "model.safetensors").open("r+b") as file:
            file.truncate(size)
    assert f"{str(broken)!r}: model.safetensors is damaged or incomplete" in command(
        *commands_with(broken, place)[name]
    )


@pytest.mark.parametrize("name", ["classify", "embed", "evaluate", "probe", "train", "plan"])
def test_missing_folders_are_named_with_their_argument(place, name):
    line = command(*commands_with(place / "nowhere", place)[name])
    assert line.startswith(("error: --model", "error: `checkpoint`"))
    assert f"{str(place / 'nowhere')!r} does not exist" in line


@pytest.mark.parametrize("name", ["embed", "evaluate", "probe", "train", "plan"])
def test_a_damaged_protocol_is_not_replaced(model, place, name):
    broken = place / "protocol"
    if not broken.exists():
        shutil.copytree(model, broken)
        (broken / "video_preprocessor_config.json").write_text('{"size": ')
    assert "video_preprocessor_config.json' is not a valid JSON" in command(*commands_with(broken, place)[name])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--recipe", "nowhere.yaml"], "`recipe` 'nowhere.yaml' is neither a file nor the name of a recipe"),
        (["train", "--recipe", "{bad}.yaml"], "bad.yaml' is not valid YAML: .* in line 3"),
        (["preview", "--recipe", "{bad}.yaml"], "bad.yaml' is not valid YAML"),
        (["train", "--recipe", "{bad}-latin.yaml"], "bad-latin.yaml' has a text encoding other than UTF-8"),
        (["train", "--data", "{clips}", "--config.hidden_size", "abc", "--plan"], "`config` 'hidden_size': .*'abc'"),
        (["train", "--data", "{clips}", "--model_type", "videomae_v3", "--plan"], "did you mean `videomae_v2`"),
        (["train", "--teacher", "{bad}/none", "--data", "{clips}", "--plan"], "`teacher` '.*none' does not exist"),
        (["train", "--data", "{bad}/none", "--plan"], "`data` '.*none' does not exist"),
        (
            ["pretrain", "--model_type", "bevt", "--tokenizer", "{bad}/none", "--data", "{clips}"],
            "`tokenizer` '.*none'",
        ),
        (["convert", "--list", "--labels"], None),
    ],
)
def test_faults_of_recipes_and_fields_are_named(place, words, message):
    (place / "bad.yaml").write_text("model:\n  size: [small\n")
    (place / "bad-latin.yaml").write_bytes("about:\n  title: café\n".encode("latin-1"))
    words = [word.format(bad=place / "bad", clips=place / "clips") for word in words]
    if message is None:  # typer's own errors stay typer's
        assert CliRunner().invoke(app, words).exit_code == 2
        return
    assert re.search(message, command(*words))


@pytest.mark.parametrize("content", ['["a", ', '{"a": 1}'])
def test_faults_of_label_files_are_named(place, model, content):
    (place / "names.json").write_text(content)
    words = ["convert", "--checkpoint", model / "model.safetensors", "--model-type", "videomae_v2"]
    words += ["--task", "video-classification", "--labels", place / "names.json", "-o", place / "converted"]
    assert "names.json" in command(*words)


def test_any_other_error_is_one_line_too(monkeypatch, place, model):
    def broken(*args, **kwargs):
        raise IndexError("list index out of range")

    monkeypatch.setattr("hf_videovit.doctor.find_videos", broken)
    line = command("classify", "x.mp4", "--model", model)
    assert line.startswith("error: IndexError: list index out of range (")
    assert "fault of the program" in line
    with pytest.raises(IndexError):
        CliRunner().invoke(app, ["--debug", "classify", "x.mp4", "--model", str(model)], catch_exceptions=False)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    for module, extra in (("gradio", "hf_videovit[space]"), ("sklearn", "hf_videovit[demo]"), ("timm", "timm")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError) as caught:
            __import__(module)
        assert explain(caught.value).endswith(f": pip install {extra!r}")
    assert "not valid YAML or JSON" in explain(json.JSONDecodeError("Expecting value", "", 0))


@pytest.mark.parametrize("place_of_debug", [0, 1, 3])
def test_debug_may_stand_anywhere(place_of_debug, tmp_path):
    words = ["train", "--data", str(tmp_path / "missing"), "--needs_checkpoint", "false"]
    words.insert(place_of_debug, "--debug")
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ValueError), done.output
    assert "does not exist" in str(done.exception)


@pytest.fixture
def talkative(monkeypatch):
    """`classify` that logs, shows a notice and fails."""

    def talk(places):
        for level in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger("hf_videovit.talk"), level)(f"logged {level}")
        screen.print("noticed", os.environ.get("TQDM_DISABLE"))
        raise ValueError("and failed")

    monkeypatch.setattr("hf_videovit.doctor.find_videos", talk)
    return ["classify", "x.mp4", "--model", "m"]


@pytest.mark.parametrize("place", [0, 1, 2, 4])
@pytest.mark.parametrize(
    ("option", "logged", "noticed"),
    [
        ("-q", [], False),
        ("--quiet", [], False),
        ("-v", ["info", "warning", "error"], True),
        ("--verbose", ["info", "warning", "error"], True),
        ("--debug", ["debug", "info", "warning", "error"], True),
    ],
)
def test_what_is_printed_is_chosen_before_or_after_the_command(talkative, option, logged, noticed, place):
    talkative.insert(place, option)
    before = logging.getLogger("hf_videovit").level, screen.quiet, dict(os.environ)
    done = CliRunner().invoke(app, talkative)
    assert str(done.exception) == "and failed" if option == "--debug" else "error: and failed" in done.stderr
    assert [line.split()[-1] for line in done.stderr.splitlines() if "hf_videovit.talk" in line] == logged
    assert ("noticed None" in done.stderr) is noticed
    assert before == (logging.getLogger("hf_videovit").level, screen.quiet, dict(os.environ))
    assert not logging.getLogger("hf_videovit").handlers


def test_quiet_and_verbose_exclude_each_other(talkative):
    assert "--quiet and --verbose exclude each other" in command(*talkative, "-q", "-v")
    done = CliRunner().invoke(app, ["--debug", *talkative, "-q"])
    assert str(done.exception) == "--quiet and --debug exclude each other."


def test_options_of_all_commands_are_not_read_after_two_dashes(talkative, monkeypatch):
    words = []
    monkeypatch.setattr("hf_videovit.doctor.find_videos", lambda places: words.extend(places) or 1 / 0)
    CliRunner().invoke(app, ["classify", "--model", "m", "--", "-q", "--debug"])
    assert words == ["-q", "--debug"]


@pytest.mark.parametrize("module", ["hf_videovit", "hf_videovit.cli"])
def test_the_version_is_that_of_the_package(module):
    command_line = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command_line, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"hf-videovit {hf_videovit.__version__}\n"
    assert f'version="{hf_videovit.__version__}"' in (Path(__file__).parents[1] / "setup.py").read_text()


@pytest.mark.parametrize("device", ["cuda:7", "nonsense", "meta:x"])
def test_a_device_that_is_not_there_is_named(model, place, device):
    words = ["evaluate", "--model", model, "--data", place / "clips", "--device", device]
    assert "--device must be a device of this machine (cpu" in command(*words)
    assert "exclude each other" in command(*words, "--cpu")


def test_any_accelerator_is_chosen(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    assert choose_device(None) == "meta"
    assert choose_device(None, cpu=True) == choose_device("cpu") == "cpu"


@pytest.fixture
def copied(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copied")


@pytest.mark.parametrize("content", [None, '{"a": '])
def test_a_damaged_or_missing_processor_is_named(copied, place, content):
    path = next(copied.glob("*preprocessor_config.json"))
    path.unlink()
    if content is not None:
        path.write_text(content)
    for name in ("classify", "embed", "evaluate", "probe"):
        assert f"--model '{copied}'" in command(*commands_with(copied, place)[name])


def test_weights_that_are_missing_or_of_other_shapes_are_named_in_one_short_line(copied, place):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"intermediate_size": 2 * config["intermediate_size"]}))
    for name in ("classify", "evaluate", "embed"):
        message = command(*commands_with(copied, place)[name])
        assert f"'{copied}'" in message and "Traceback" not in message
    (copied / "model.safetensors").unlink()
    for name in ("classify", "evaluate", "embed", "train"):
        message = command(*commands_with(copied, place)[name])
        assert f"'{copied}' cannot be loaded: Error no file named model.safetensors" in message
        assert "Traceback" not in message


def test_a_checkpoint_that_does_not_fit_its_configuration_is_not_trained_from_scratch(copied, place):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"intermediate_size": 2 * config["intermediate_size"]}))
    assert "has other shapes than its config.json" in command(*commands_with(copied, place)["train"], "--cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "results.json' has no `metrics`"),
        ('{"metrics": {"top1": 1.0}, "seed": "x"}', "results.json' is damaged: `seed` is 'x'"),
        ('{"metrics": 3}', "results.json' is damaged: `metrics` is 3"),
        ('{"metrics": {"top1": 1.0}, "held_out": [1]}', r"results.json' is damaged: `held_out` is \[1\]"),
    ],
)
def test_damaged_results_are_named(copied, place, content, message):
    (copied / "results.json").write_text(content)
    assert re.search(message, command("reproduce", copied, "--data", place / "clips"))


@pytest.mark.parametrize("device", ["tpu", "cuda:77"])
def test_classify_names_the_devices_that_there_are(model, place, device):
    words = ["classify", place / "clips" / "left" / "0.mp4", "--model", model, "--device", device]
    assert "--device must be a device of this machine" in command(*words)


def test_an_empty_recipe_and_models_of_images_are_refused(place, tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert "empty.yaml is empty" in command("train", "--recipe", tmp_path / "empty.yaml", "--data", place / "clips")
    words = ["train", "--model_type", "vit", "--data", place / "clips", "--plan"]
    assert "`model_type` must be that of a model of clips, got 'vit'" in command(*words)


@pytest.mark.parametrize(("option", "name"), [("--output", "mine.json"), ("--predictions", "mine.jsonl")])
def test_evaluate_replaces_only_its_own_files(model, place, tmp_path, option, name):
    words = ["evaluate", "--model", model, "--data", place / "clips", "--cpu", option, tmp_path / name]
    for _ in range(2):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    (tmp_path / name).write_text('{"mine": 1}')
    assert f"{option} '{tmp_path / name}' exists, and no earlier call wrote it" in command(*words)
    assert (tmp_path / name).read_text() == '{"mine": 1}'
    assert f"{option} must be a file, '{tmp_path}' is a folder" in command(*words[:-1], tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_doctor_replaces_only_its_own_reports(place, tmp_path, suffix):
    words = ["doctor", place / "clips", "--report", tmp_path / f"report{suffix}"]
    for _ in range(2):
        assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    (tmp_path / f"report{suffix}").write_text("mine")
    assert "exists, and no earlier call wrote it" in command(*words)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".mp4"])
def test_detect_actions_replaces_no_files_of_users(model, place, tmp_path, suffix):
    clip = place / "clips" / "left" / "0.mp4"
    (tmp_path / f"mine{suffix}").write_text("mine")
    words = ["detect-actions", clip, "--model", model, "--boxes", tmp_path / "boxes.json", "--output"]
    assert "exists, and no earlier call wrote it" in command(*words, tmp_path / f"mine{suffix}")
    (tmp_path / "link.mp4").symlink_to(clip)
    for path in (clip, tmp_path / "link.mp4"):
        assert "is the video itself" in command(*words, path)
