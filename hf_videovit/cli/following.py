"""The command that comes after each command: one table, and the line that is printed."""

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .common import screen


# Words of a command, or none. A row gets the command's arguments by name, and what the command returned.
Row = Callable[[Any, Any], list[Any] | str | None]

DETECTION_LAYOUTS = ("ava", "ava-kinetics", "cvat", "coco", "slowfast", "alphaction", "fair", "people")
RECIPES_OF_DATA = {
    "digit-pictures": "uniformer/digit_pictures_detection"
}  # generated data without a recipe of its name

# Methods of `pretrain`, and those whose models start from a classifier of images. The methods themselves load torch.
PRETRAINING = ("contrastive", "image_tokenizer", "masked_pixels", "masked_words")
FROM_IMAGES = ("object_detection", "pose", "semantic_segmentation")
NEXT: dict[str, Row] = {
    "models": lambda given, found: found or (["models", "NAME"] if given.name is None else None),
    "convert": lambda given, _: ["models", "NAME", "--download"] if given.list_names else _after_folder(given.output),
    "classify": lambda given, _: (
        None if given.engine or _is_export(given.model) else ["explain", _file(given.videos), "--model", given.model]
    ),
    "explain": lambda given, _: (
        ["explain", "VIDEO", "--model", given.model] if given.video is None else ["demo", given.model]
    ),
    "embed": lambda given, _: ["index", *given.videos, "--model", given.model, "--output", "INDEX"],
    "evaluate": lambda given, found: found or _after_evaluation(given.model),
    "index": lambda given, _: ["search", given.output, "CLIP"],
    "search": lambda given, _: (
        ["search", given.index, given.clip, "--page", "found.html"] if given.page is None else None
    ),
    "export": lambda given, _: _after_folder(given.output),
    "detect-actions": lambda given, _: ["demo", given.model] if given.output else None,
    "localize": lambda given, _: ["demo", given.model] if given.output else None,
    "scores": lambda given, _: ["localize", "VIDEO", "--model", "LOCALIZER", "--scores", given.output],
    "train": lambda _, folder: folder and _after_folder(folder),
    "pretrain": lambda _, folder: folder and _after_folder(folder),
    "preview": lambda given, _: _after_preview(given.ctx.args),
    "probe": lambda given, _: ["train", "--checkpoint", given.model, "--data", given.data, "--output_dir", "NEW"],
    "prepare": lambda given, _: (
        ["doctor", given.output] if given.layout in DETECTION_LAYOUTS else _after_folder(given.output)
    ),
    "prepare token-labels": lambda given, _: [
        *("train", "--recipe", "uniformer/train_small_tl_224", "--data", given.data),
        *("--token_labels", given.output, "--output_dir", "NEW"),
    ],
    "generate": lambda given, folder: (
        [*_training("tubevit/digit_identity_joint", "CLIPS"), "--image_data", folder]
        if given.kind == "digit-stills"
        else _training(RECIPES_OF_DATA.get(given.kind, f"videomae_v2/{given.kind.replace('-', '_')}"), folder)
    ),
    "recipes": lambda given, _: _after_recipes(given.name),
    "examples": lambda given, _: (
        ["examples", "COPY_TO"] if given.copy_to is None else f"python {given.copy_to}/finetune.py --help"
    ),
    "publish": lambda given, _: ["demo", given.model if given.dry_run else given.repo_id or given.model],
    "info": lambda _, found: found or None,
    "doctor": lambda given, _: _after_check(given.videos or []),
}

NOTHING_FOLLOWS = {
    "serve": "runs until it is ended",
    "watch": "runs until it is ended",
    "demo": "runs until it is ended",
    "reproduce": "its answer is the end: confirmed or not",
}


def following_line(name: str, given: SimpleNamespace, result: Any = None) -> str | None:
    """
    The command that comes next.

    Args:
        name (`str`):
            Name of the command that was run.
        given (`SimpleNamespace`):
            Its arguments.
        result (*optional*):
            What it returned.

    Returns:
        `str` or `None`: the line, if there is one.
    """
    words = NEXT[name](given, result) if name in NEXT else None
    if not words:
        return None
    return words if isinstance(words, str) else shlex.join(["hf-videovit", *map(str, words)])


def followed(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """
    A command that prints on standard error what comes next. Nothing is printed after an error, with `--quiet`, or if
    standard output is JSON.

    Args:
        name (`str`):
            Name of the command.
        command (`Callable`):
            The command.

    Returns:
        `Callable`: with the signature of `command`.
    """

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        result = command(**given)
        silent = screen.quiet or given.get("as_json")
        if not silent and (line := following_line(name, SimpleNamespace(**given), result)):
            screen.print(f"Next: {line}", soft_wrap=True, markup=False, highlight=False)
        return result

    return run


def _file(videos: list[str]) -> str:
    """The video, if it is one file."""
    return videos[0] if len(videos) == 1 and Path(videos[0]).is_file() else "VIDEO"


def _is_export(model: str) -> bool:
    """Whether a model is a file or folder that `export` wrote."""
    return Path(model, "export_report.json").is_file() or Path(model).is_file()


def _after_folder(folder: Path | str | None) -> str | None:
    """The command that `info` names for a folder."""
    from .info import describe_folder

    return None if folder is None or not Path(folder).is_dir() else describe_folder(Path(folder))["next"]


def _after_evaluation(model: str | None) -> list[Any] | None:
    if model is None:
        return None
    return ["publish", model, "--repo-id", "OWNER/NAME"] if Path(model).is_dir() else ["demo", model]


def _after_check(checked: list[str]) -> list[Any]:
    if not checked:
        return ["doctor", "FOLDER"]
    whole = len(checked) == 1 and any(Path(checked[0], split).is_dir() for split in ("train", "training"))
    return _training("NAME", checked[0] if whole else "CLIPS")


def _after_recipes(name: str | None) -> list[Any]:
    if name is None or "/" not in name:
        return _training("NAME", "CLIPS")
    from ..training.recipe_files import read_recipe

    recipe = read_recipe(name)
    method = recipe.get("method", {}).get("name")
    words = _training(name, "CLIPS", "pretrain" if method in PRETRAINING else "train")
    if recipe.get("model", {}).get("needs_checkpoint"):
        words += ["--image_model", "IMAGE_MODEL"] if method in FROM_IMAGES else ["--checkpoint", "MODEL"]
    return words


def _after_preview(given: list[str]) -> list[Any]:
    """The run that was previewed, in a new folder. The command is that of its method."""
    words = [part for word in given for part in word.split("=", 1)]
    options = {name: value for name, value in zip(words, words[1:]) if name.startswith("--")}
    method = options.get("--method")
    if method is None and "--recipe" in options:
        from ..training.recipe_files import read_recipe

        method = read_recipe(options["--recipe"]).get("method", {}).get("name")
    folder = [] if "--output_dir" in options else ["--output_dir", "NEW"]
    return ["pretrain" if method in PRETRAINING else "train", *given, *folder]


def _training(recipe: str, data: Any, command: str = "train") -> list[Any]:
    return [command, "--recipe", recipe, "--data", data, "--output_dir", "NEW"]


__all__ = ["NEXT", "NOTHING_FOLLOWS", "followed", "following_line"]
