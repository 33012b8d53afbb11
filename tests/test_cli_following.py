"""What is next: every command has a row or a reason, the lines are commands that exist, and they can be silenced."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.cli.following import FROM_IMAGES, NEXT, NOTHING_FOLLOWS, PRETRAINING, following_line
from hf_videovit.training.methods.choosing import METHODS
from tests.saved_model import save_tiny_classifier


COMMANDS = get_command(app).commands
CASES = [
    ("models", {"name": None}, None, "hf-videovit models NAME"),
    ("models", {"name": "x"}, "hf-videovit convert --published x", "hf-videovit convert --published x"),
    ("models", {"name": "x"}, None, None),
    ("convert", {"list_names": True}, None, "hf-videovit models NAME --download"),
    ("convert", {"list_names": False, "output": "MODEL"}, None, "hf-videovit classify VIDEO --model MODEL"),
    ("classify", {"engine": None, "videos": ["CLIP"], "model": "m"}, None, "hf-videovit explain CLIP --model m"),
    ("classify", {"engine": None, "videos": ["a", "b"], "model": "m"}, None, "hf-videovit explain VIDEO --model m"),
    ("classify", {"engine": "ray", "videos": ["CLIP"], "model": "m"}, None, None),
    ("classify", {"engine": None, "videos": ["CLIP"], "model": "CLIP"}, None, None),  # an export is a file
    ("explain", {"video": "a", "model": "my model"}, None, "hf-videovit demo 'my model'"),
    ("explain", {"video": None, "model": "m"}, None, "hf-videovit explain VIDEO --model m"),
    ("embed", {"videos": ["a"], "model": "m"}, None, "hf-videovit index a --model m --output INDEX"),
    ("evaluate", {"model": "MODEL"}, None, "hf-videovit publish MODEL --repo-id OWNER/NAME"),
    ("evaluate", {"model": "m"}, "hf-videovit train --checkpoint m", "hf-videovit train --checkpoint m"),
    ("evaluate", {"model": "owner/name"}, None, "hf-videovit demo owner/name"),
    ("evaluate", {"model": None}, None, None),
    ("index", {"output": Path("i")}, None, "hf-videovit search i CLIP"),
    ("search", {"index": "i", "clip": "c", "page": None}, None, "hf-videovit search i c --page found.html"),
    ("search", {"index": "i", "clip": "c", "page": "p.html"}, None, None),
    ("export", {"output": "MODEL"}, None, "hf-videovit classify VIDEO --model MODEL"),
    ("detect-actions", {"model": "m", "output": ["a.mp4"]}, None, "hf-videovit demo m"),
    ("detect-actions", {"model": "m", "output": None}, None, None),
    ("localize", {"model": "m", "output": ["a.png"]}, None, "hf-videovit demo m"),
    ("scores", {"output": "s.json"}, None, "hf-videovit localize VIDEO --model LOCALIZER --scores s.json"),
    ("train", {}, "MODEL", "hf-videovit classify VIDEO --model MODEL"),
    ("train", {}, None, None),
    ("pretrain", {}, "MODEL", "hf-videovit classify VIDEO --model MODEL"),
    (
        "preview",
        {"ctx": SimpleNamespace(args=["--recipe", "tubevit/digit_motion"])},
        None,
        "hf-videovit train --recipe tubevit/digit_motion --output_dir NEW",
    ),
    (
        "preview",
        {"ctx": SimpleNamespace(args=["--recipe=bevt/digit_motion", "--output_dir=o"])},
        None,
        "hf-videovit pretrain --recipe=bevt/digit_motion --output_dir=o",
    ),
    (
        "preview",
        {"ctx": SimpleNamespace(args=["--recipe", "bevt/digit_motion", "--method", "classification"])},
        None,
        "hf-videovit train --recipe bevt/digit_motion --method classification --output_dir NEW",
    ),
    (
        "probe",
        {"model": "m", "data": "d"},
        None,
        "hf-videovit train --checkpoint m --data d --output_dir NEW",
    ),
    ("prepare", {"layout": "ava", "output": "k.jsonl"}, None, "hf-videovit doctor k.jsonl"),
    (
        "prepare token-labels",
        {"data": Path("i"), "output": Path("l")},
        None,
        "hf-videovit train --recipe uniformer/train_small_tl_224 --data i --token_labels l --output_dir NEW",
    ),
    (
        "generate",
        {"kind": "digit-motion"},
        Path("f"),
        "hf-videovit train --recipe videomae_v2/digit_motion --data f --output_dir NEW",
    ),
    (
        "generate",
        {"kind": "digit-stills"},
        Path("f"),
        "hf-videovit train --recipe tubevit/digit_identity_joint --data CLIPS --output_dir NEW --image_data f",
    ),
    ("recipes", {"name": "bevt"}, None, "hf-videovit train --recipe NAME --data CLIPS --output_dir NEW"),
    (
        "recipes",
        {"name": "tubevit/digit_motion"},
        None,
        "hf-videovit train --recipe tubevit/digit_motion --data CLIPS --output_dir NEW",
    ),
    (
        "recipes",
        {"name": "videomae_v2/ava_huge"},
        None,
        "hf-videovit train --recipe videomae_v2/ava_huge --data CLIPS --output_dir NEW --checkpoint MODEL",
    ),
    (
        "recipes",
        {"name": "uniformer/train_upernet_small_ade20k"},
        None,
        "hf-videovit train --recipe uniformer/train_upernet_small_ade20k --data CLIPS --output_dir NEW "
        "--image_model IMAGE_MODEL",
    ),
    (
        "recipes",
        {"name": "bevt/digit_motion_tokenizer"},
        None,
        "hf-videovit pretrain --recipe bevt/digit_motion_tokenizer --data CLIPS --output_dir NEW",
    ),
    ("examples", {"copy_to": None}, None, "hf-videovit examples COPY_TO"),
    ("publish", {"repo_id": "o/n", "model": "m", "dry_run": False}, None, "hf-videovit demo o/n"),
    ("publish", {"repo_id": "o/n", "model": "m", "dry_run": True}, None, "hf-videovit demo m"),
    ("info", {}, "hf-videovit doctor f", "hf-videovit doctor f"),
    ("info", {}, "", None),
    ("doctor", {"videos": None}, None, "hf-videovit doctor FOLDER"),
    ("doctor", {"videos": ["a.mp4"]}, None, "hf-videovit train --recipe NAME --data CLIPS --output_dir NEW"),
]


def test_every_command_has_a_row_or_a_reason():
    assert NEXT.keys() | NOTHING_FOLLOWS.keys() == COMMANDS.keys()
    assert not NEXT.keys() & NOTHING_FOLLOWS.keys()
    assert NEXT.keys() == {name for name, *_ in CASES}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "clip.mp4").touch()
    return {"MODEL": str(save_tiny_classifier(folder / "model")), "CLIP": str(folder / "clip.mp4")}


def placed(value, places):
    """The made-up names MODEL and CLIP, replaced by those of files."""
    if isinstance(value, list):
        return [placed(one, places) for one in value]
    return places.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize(("name", "given", "result", "expected"), CASES)
def test_the_line_is_a_command_that_exists(name, given, result, expected, places):
    given = {key: placed(value, places) for key, value in given.items()}
    line = following_line(name, SimpleNamespace(**given), placed(result, places))
    for made_up, path in places.items():
        line = line and line.replace(path, made_up)
    assert line == expected
    if line is not None:
        program, verb, *words = shlex.split(line)
        known = {option for parameter in COMMANDS[verb].params for option in parameter.opts}
        free = COMMANDS[verb].context_settings.get("ignore_unknown_options")
        assert program == "hf-videovit" and (free or {word for word in words if word.startswith("--")} <= known)


def test_the_line_is_printed_beside_the_output_and_can_be_silenced(tmp_path):
    def run(*words):
        return CliRunner().invoke(app, [*map(str, words)])

    shown = run("recipes", "bevt/small_clips")
    line = "Next: hf-videovit pretrain --recipe bevt/small_clips --data CLIPS --output_dir NEW\n"
    assert shown.stderr.endswith(line) and "Next" not in shown.stdout
    for silent in (("-q", "recipes", "bevt"), ("recipes", "bevt", "--json"), ("recipes", "bevt", "--quiet")):
        assert run(*silent).exit_code == 0 and "Next" not in run(*silent).output
    failed = run("recipes", "nothing/like_this")
    assert failed.exit_code == 2 and "Next" not in failed.output
    copied = run("examples", tmp_path / "copies")
    assert copied.stderr.strip() == f"Next: python {tmp_path}/copies/finetune.py --help"


def test_methods_of_the_lines_are_those_of_the_commands():
    assert {method.name for method in METHODS if method.goal == "encoder"} == set(PRETRAINING)
    assert set(FROM_IMAGES) <= {method.name for method in METHODS}
