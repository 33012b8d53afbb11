"""docs/troubleshooting.md: each error is caused for real, and the message on the page is the one that is printed."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor
from typer.testing import CliRunner

from hf_videovit import VideoMAEV2ForPreTraining
from hf_videovit.cli import app
from hf_videovit.folders import held_folder
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier, tiny_config, tiny_processor


ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
FIXTURES = ROOT / "tests" / "fixtures"
LABELS = {"id2label": {0: "left", 1: "right"}, "label2id": {"left": 0, "right": 1}}
TINY_RUN = (
    "train --checkpoint my-model --data clips --batch_size 2 --num_workers 0 --max_steps 2 --no_progress --output_dir"
)

OWN_PROCESS = ("Transformers does not know the model type",)
CASES: dict[str, Callable[[], str]] = {}


def case(heading: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Marks the function that causes the error of a section of the page, and returns what is printed."""

    def register(function: Callable[[], str]) -> Callable[[], str]:
        CASES[heading] = function
        return function

    return register


def command(line: str, code: int = 2) -> str:
    """What a command prints as its error, without the hint at --debug."""
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == code, done.output
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    return "\n".join(errors or [done.stderr]).removesuffix(" (use --debug for the traceback)")


def raised(call: Callable[[], object]) -> str:
    """The last line of the traceback of a Python call."""
    with pytest.raises(Exception) as caught:
        call()
    kind = caught.type.__name__ if caught.type.__module__ == "builtins" else caught.type.__qualname__
    return f"{kind}: {caught.value}"


def quoted() -> dict[str, str]:
    """The message below each heading of the page."""
    sections = re.split(r"^### (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    blocks = {
        name: re.findall(r"^```text\n(.*?)^```", body, flags=re.M | re.S)
        for name, body in zip(sections[::2], sections[1::2])
    }
    assert all(len(found) == 1 for found in blocks.values()), blocks
    return {name: found[0] for name, found in blocks.items()}


def pattern(message: str) -> re.Pattern[str]:
    """A message as a pattern: lines may be wrapped anywhere, and `...` stands for any words."""
    return re.compile(re.escape(" ".join(message.split())).replace(re.escape("..."), ".+"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the page's commands name: clips, models, a finished run."""
    root = tmp_path_factory.mktemp("troubleshooting")
    for split in ("train", "val"):
        for name in ("left", "right"):
            for number in range(2):
                frames = moving_square_clip(name, num_frames=6, seed=number + 10 * (split == "val"))
                write_clip(root / "clips" / split / name / f"{number}.mp4", frames)
    save_tiny_classifier(root / "my-model", config=LABELS)
    VideoMAEV2ForPreTraining(tiny_config()).save_pretrained(root / "pretrained")
    tiny_processor().save_pretrained(root / "pretrained")
    broken = (root / "clips" / "train" / "left" / "0.mp4").read_bytes()[:300]
    (root / "broken.mp4").write_bytes(broken)
    return root


@pytest.fixture(scope="module")
def finished_run(place) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        done = CliRunner().invoke(app, shlex.split(f"{TINY_RUN} out --save_steps 1"))
    assert done.exit_code == 0, done.output
    return place / "out"


@pytest.fixture
def here(place, monkeypatch) -> None:
    monkeypatch.chdir(place)


@case("Transformers does not know the model type")
def unknown_model_type() -> str:
    program = "from transformers import pipeline; pipeline('video-classification', model='my-model')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr[done.stderr.rindex("ValueError: ") :]


@case("A package is missing")
def missing_package() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gradio", None)
        patch.delitem(sys.modules, "hf_videovit.inference.demo", raising=False)  # which another test may have loaded
        return command("demo my-model")


@case("There is no such device")
def no_such_device() -> str:
    return command("classify broken.mp4 --model my-model --device cuda:63")


@case("The weights are damaged")
def damaged_weights() -> str:
    if not Path("copied").exists():
        shutil.copytree("my-model", "copied")
        with open("copied/model.safetensors", "r+b") as file:
            file.truncate(5000)
    return command("classify broken.mp4 --model copied")


@case("The model has no classifier")
def no_classifier() -> str:
    return command("classify broken.mp4 --model pretrained")


@case("The file is a web page")
def web_page() -> str:
    Path("vit_b.pth").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    return command("convert --checkpoint vit_b.pth --model-type videomae_v2 --task feature-extraction -o new")


class Recorder:
    """An object that is pickled beside the weights."""


@case("The file holds more than tensors")
def pickled_objects() -> str:
    torch.save({"model": {"weight": torch.zeros(2)}, "logger": Recorder()}, "checkpoint.pth")
    words = "convert --checkpoint checkpoint.pth --model-type videomae_v2 --task feature-extraction -o new"
    return command(words)


@case("Weights are left over or missing")
def left_over() -> str:
    content = torch.load(FIXTURES / "videomae_v2" / "finetune" / "checkpoint.pth", weights_only=True)
    content["module"]["blocks.0.attn.gate"] = torch.zeros(3)
    torch.save(content, "own.pth")
    words = "convert --checkpoint own.pth --model-type videomae_v2 --task video-classification --output new"
    return command(f"{words} --set num_attention_heads=3 --set image_size=32")


@case("A new classifier needs the number of labels")
def no_labels_of_classifier() -> str:
    shutil.copy(FIXTURES / "videomae_v2" / "pretrain" / "checkpoint.pth", "pretrain.pth")
    words = "convert --checkpoint pretrain.pth --model-type videomae_v2 --task video-classification -o new"
    return command(words)


@case("The width of the heads is not in the file")
def head_dim() -> str:
    shutil.copy(FIXTURES / "uniformer" / "image_classify" / "checkpoint.pth", "uniformer.pth")
    return command("convert --checkpoint uniformer.pth --model-type uniformer --task backbone -o new")


@case("A video cannot be read")
def damaged_video() -> str:
    lines = command("embed broken.mp4 --model my-model --output features.npy", code=1).splitlines()
    return next(line for line in lines if "[decoder" in line)


@case("Too many videos cannot be read")
def too_many_damaged() -> str:
    for name in ("left", "right"):
        shutil.copytree(f"clips/train/{name}", f"damaged/train/{name}", dirs_exist_ok=True)
        shutil.copytree(f"clips/val/{name}", f"damaged/val/{name}", dirs_exist_ok=True)
        shutil.copy("broken.mp4", f"damaged/train/{name}/0.mp4")
    return command(f"{TINY_RUN} out-damaged --data damaged --bad_video_minimum 2")


@case("Frames with values up to 1")
def unit_frames() -> str:
    processor = AutoVideoProcessor.from_pretrained("my-model")
    return raised(lambda: processor(np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32)))


@case("The colour axis of frames is not clear")
def colour_axis() -> str:
    processor = AutoVideoProcessor.from_pretrained("my-model")
    return raised(lambda: processor(np.zeros((8, 3, 32, 3), np.uint8)))


@case("An argument of the processor does not exist")
def misspelt_argument() -> str:
    processor = AutoVideoProcessor.from_pretrained("my-model")
    return raised(lambda: processor("clips/train/left/0.mp4", num_clip=5))


@case("The data do not exist")
def no_data() -> str:
    return command("train --checkpoint my-model --data clip --output_dir new")


@case("The videos have no labels")
def no_labels() -> str:
    Path("videos").mkdir(exist_ok=True)
    shutil.copy("clips/train/left/0.mp4", "videos/one.mp4")
    return command("train --checkpoint my-model --data videos --output_dir new")


@case("Splits are inside the classes")
def inner_splits() -> str:
    for name in ("left", "right"):
        for split in ("train", "val"):
            shutil.copytree(f"clips/{split}/{name}", f"dataset/{name}/{split}", dirs_exist_ok=True)
    return command("train --checkpoint my-model --data dataset --output_dir new")


@case("The labels of data and model differ")
def other_labels() -> str:
    for name in ("jump", "run"):
        shutil.copytree("clips/val/left", f"sport/{name}", dirs_exist_ok=True)
    return command("evaluate --model my-model --data sport")


@case("There is no such recipe")
def no_recipe() -> str:
    return command("train --recipe videomae_v2/own_clip --data clips --output_dir new")


@case("A field is misspelt")
def misspelt_field() -> str:
    return command("train --checkpoint my-model --data clips --learning_rat 1e-3")


@case("A field belongs to another method")
def field_of_another_method() -> str:
    return command("pretrain --checkpoint pretrained --data clips --output_dir new --mixup 0.8")


@case("The output folder has an earlier run")
def earlier_run() -> str:
    return command(f"{TINY_RUN} out")


@case("The output folder is in use")
def in_use() -> str:
    with held_folder(Path("busy"), "output_dir"):
        return command(f"{TINY_RUN} busy")


@case("A resumed run has other settings")
def other_settings() -> str:
    return command(f"{TINY_RUN} out --resume --learning_rate 0.1")


@case("The gradient is not finite")
def not_finite() -> str:
    model = AutoModelForVideoClassification.from_pretrained("my-model")
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    model.save_pretrained("nan-model")
    tiny_processor().save_pretrained("nan-model")
    return command(f"{TINY_RUN} out-nan --checkpoint nan-model --max_steps 40 --eval_every 0")


@case("The index is of other weights")
def other_index() -> str:
    if not Path("clips.index").exists():
        done = CliRunner().invoke(app, shlex.split("index clips --model my-model --output clips.index"))
        assert done.exit_code == 0, done.output
    save_tiny_classifier("new-model", seed=1, config=LABELS)
    return command("search clips.index clips/val/left/0.mp4 --model new-model")


@case("The processes do not see each other")
def lonely_processes() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        return command(f"{TINY_RUN} new")


def test_every_section_has_its_error():
    assert set(quoted()) == set(CASES)


@pytest.mark.parametrize(
    "heading", [pytest.param(name, marks=pytest.mark.slow if name in OWN_PROCESS else ()) for name in CASES]
)
@pytest.mark.usefixtures("finished_run", "here")
def test_the_message_is_the_one_that_is_printed(heading):
    printed = " ".join(CASES[heading]().split())
    assert pattern(quoted()[heading]).fullmatch(printed), printed
