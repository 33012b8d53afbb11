"""A Space on the Hub that shows a model with the page of `hf-videovit demo`."""

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, SpaceCard, SpaceCardData
from huggingface_hub.errors import EntryNotFoundError

from .. import __version__
from ..files import read_json
from .asking import asking, check_id
from .card_facts import ACTIONS, CLASSIFICATION, LOCALIZATION
from .cards import is_rendered, seal_card
from .publishing import CARD, Publication, StagedFile, list_staged, send_files


APP, REQUIREMENTS, CONFIG = "app.py", "requirements.txt", "config.json"
REQUIREMENT = re.compile(r"hf[_-]videovit\[[^\]]*space[^\]]*\]\s*([@=<>~!]|$)")
TEMPLATE = Path(__file__).with_name("space_template.md")
PACKAGE = f"hf_videovit[space]>={__version__}"
# What the page of each task shows, and the classes of the task's models.
DESCRIPTIONS = {
    CLASSIFICATION: "Classifies a video and shows the important frames",
    ACTIONS: "Names what each person in a video does",
    LOCALIZATION: "Finds when which actions happen in a film",
}
CLASSES = {
    ACTIONS: ("ForActionDetection",),
    LOCALIZATION: ("ForTemporalActionLocalization", "VideoTemporalLocalizer"),
}
SDK_VERSION = "6.31.0"  # used if gradio is not installed here; the page was tested with it
APP_TEXT = '''"""Demo of {model_id}, see hf_videovit.inference.demo."""

from hf_videovit.inference.demo import build_demo, serve_demo


serve_demo(build_demo("{model_id}"))
'''


def publish_space(
    model_id: str,
    space_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    overwrite_card: bool = False,
    title: str | None = None,
    package: str = PACKAGE,
    message: str = "Publish with hf_videovit",
    token: str | bool | None = None,
) -> Publication:
    """
    Create or update a Space for a model on the Hub, in one commit.

    Args:
        model_id (`str`):
            `"owner/name"` of the model. For a private model the Space needs a secret `HF_TOKEN` with read access.
        space_id (`str`):
            `"name"` or `"owner/name"` of the Space; it is created if it does not exist.
        private (`bool`, *optional*, defaults to `False`):
            Whether a new Space is private.
        dry_run (`bool`, *optional*, defaults to `False`):
            Only list the files. No request is sent to the Hub.
        overwrite_card (`bool`, *optional*, defaults to `False`):
            Replace the Space's README even if it was edited on the Hub.
        title (`str`, *optional*):
            Headline. Defaults to the model's name.
        package (`str`, *optional*):
            The line of `requirements.txt` that installs this package; see [`write_space`].
        message (`str`, *optional*, defaults to `"Publish with hf_videovit"`):
            Message of the commit.
        token (`str` or `bool`, *optional*):
            Defaults to the token of `hf auth login` or of the environment.

    Returns:
        [`Publication`]

    Raises:
        ValueError: an id or `package` is malformed, or the Space's files were edited on the Hub.
        PublishingError: the Hub rejected a request or could not be reached.
    """
    check_id(space_id, "space_id")
    with tempfile.TemporaryDirectory(prefix="space-") as name:
        api = HfApi(token=token)
        licence = None if dry_run else _licence_of(api, model_id)
        task = CLASSIFICATION if dry_run else _task_of(api, model_id)
        staged = write_space(name, model_id, title=title, licence=licence, package=package, task=task)
        if dry_run:
            return Publication(space_id, staged)
        return send_files(
            staged,
            space_id,
            repo_type="space",
            private=private,
            overwrite_card=overwrite_card,
            check=_check_space,
            message=message,
            token=token,
        )


def write_space(
    folder: str | os.PathLike,
    model_id: str,
    *,
    title: str | None = None,
    licence: str | None = None,
    package: str = PACKAGE,
    task: str = CLASSIFICATION,
) -> list[StagedFile]:
    """
    Write the files of a Space into a folder: `app.py`, `requirements.txt` and `README.md` with its metadata.

    Args:
        folder (`str` or `os.PathLike`):
            Folder for the files.
        model_id (`str`):
            `"owner/name"` of the model.
        title (`str`, *optional*):
            Headline. Defaults to the model's name.
        licence (`str`, *optional*):
            Licence id of the model.
        package (`str`, *optional*):
            The line of `requirements.txt` that installs this package with its extra `space`: a range of versions, or
            `"hf_videovit[space] @ git+https://..."` for a version that is not on a registry.
        task (`str`, *optional*, defaults to `"video-classification"`):
            Task of the model, for the words of the README: `"video-classification"`, `"action-detection"` or
            `"temporal-action-localization"`.

    Returns:
        `list[StagedFile]`: the files, by path.

    Raises:
        ValueError: `model_id` or `package` is malformed, `task` is unknown, or the folder has other files of these
            names.
    """
    if task not in DESCRIPTIONS:
        raise ValueError(f"`task` must be one of {', '.join(DESCRIPTIONS)}, got {task!r}")
    check_id(model_id, "model_id")
    if "/" not in model_id:
        raise ValueError(f"`model_id` must be a Hub id such as 'owner/name', got {model_id!r}")
    if not REQUIREMENT.match(package) or "\n" in package:
        raise ValueError(f"`package` must be one requirement on 'hf_videovit[space]', got {package!r}")
    folder = Path(folder)
    _refuse_foreign(folder, [name for name in OWN if (folder / name).exists()], "folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / APP).write_text(APP_TEXT.format(model_id=model_id), encoding="utf-8")
    (folder / REQUIREMENTS).write_text(package + "\n", encoding="utf-8")
    name = title or model_id.rpartition("/")[2]
    text = TEMPLATE.read_text(encoding="utf-8")
    facts = _metadata(name, model_id, licence, task)
    card = SpaceCard.from_template(facts, template_str=text, title=name, model_id=model_id, task=task)
    (folder / CARD).write_text(seal_card(str(card)), encoding="utf-8")
    return list_staged(folder)


def _is_own_app(text: str) -> bool:
    model_id = re.search(r'build_demo\("([^"\n]*)"\)', text)
    return model_id is not None and text == APP_TEXT.format(model_id=model_id[1])


def _is_own_requirement(text: str) -> bool:
    return text.count("\n") <= 1 and REQUIREMENT.match(text) is not None


# The files of a Space, and whether one was written here and not edited since.
OWN: dict[str, Callable[[str], bool]] = {APP: _is_own_app, REQUIREMENTS: _is_own_requirement, CARD: is_rendered}


def _refuse_foreign(folder: Path, names: Iterable[str], where: str) -> None:
    foreign = [name for name in names if not OWN[name]((folder / name).read_text(encoding="utf-8", errors="replace"))]
    if foreign:
        raise ValueError(
            f"`{where}` has files that hf_videovit did not write, or that were edited since: {', '.join(foreign)}. "
            "Move or delete them, or choose another place"
        )


def _check_space(api: HfApi, space_id: str) -> None:
    """Raise a ValueError if the Space has another app."""
    kind: dict[str, Any] = {"repo_type": "space"}
    with tempfile.TemporaryDirectory(prefix="space-") as folder:
        present = []
        for name in (APP, REQUIREMENTS):
            download = partial(api.hf_hub_download, space_id, name, local_dir=folder, **kind)
            try:
                asking(space_id, download, EntryNotFoundError)
                present.append(name)
            except EntryNotFoundError:
                continue
        _refuse_foreign(Path(folder), present, "space_id")


def _metadata(title: str, model_id: str, licence: str | None, task: str) -> SpaceCardData:
    return SpaceCardData(
        title=title,
        emoji="🎬",
        colorFrom="indigo",
        colorTo="gray",
        sdk="gradio",
        sdk_version=_gradio_version(),
        app_file=APP,
        license=licence,
        models=[model_id],
        tags=[task, "hf_videovit"],
        short_description=DESCRIPTIONS[task],
        preload_from_hub=[model_id],
        pinned=False,
    )


def _gradio_version() -> str:
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError:
        return SDK_VERSION


def _licence_of(api: HfApi, model_id: str) -> str | None:
    """Licence in the model's card on the Hub. PublishingError if the model does not exist."""
    asking(model_id, lambda: api.model_info(model_id))
    try:
        path = asking(model_id, lambda: api.hf_hub_download(model_id, CARD), EntryNotFoundError)
    except EntryNotFoundError:
        return None
    return ModelCard(Path(path).read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict().get("license")


def _task_of(api: HfApi, model_id: str) -> str:
    """Task of a model on the Hub, from its class."""
    try:
        path = asking(model_id, lambda: api.hf_hub_download(model_id, CONFIG), EntryNotFoundError)
    except EntryNotFoundError:
        return CLASSIFICATION
    name = (read_json(path, "`model_id`:").get("architectures") or [""])[0]
    return next((task for task, ends in CLASSES.items() if name.endswith(ends)), CLASSIFICATION)


__all__ = ["publish_space", "write_space"]
