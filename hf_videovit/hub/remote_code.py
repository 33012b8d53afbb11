"""
The code of a model inside its repo, so that it loads without this package with `trust_remote_code=True`.

The files of `modeling/` import only each other. A model's file and the siblings that it imports, recursively, are
copied unchanged. `modeling_code.json` records the version and the revision of the package and the hashes of the files.
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from .. import __version__
from ..files import read_json
from ..registration import FAMILIES, family_classes


PACKAGE = "hf_videovit"
MANIFEST = "modeling_code.json"
# Auto classes that another file than config.json names.
PROCESSOR_FILES = {
    "AutoVideoProcessor": "video_preprocessor_config.json",
    "AutoImageProcessor": "preprocessor_config.json",
    "AutoFeatureExtractor": "preprocessor_config.json",
}
# Auto classes of tasks that transformers does not know: `AutoModel` loads these models, with their heads.
HEADS = {
    "ForActionDetection": "AutoModelForActionDetection",
    "ForTemporalActionLocalization": "AutoModelForTemporalActionLocalization",
}


def write_remote_code(folder: str | os.PathLike) -> list[Path]:
    """
    Copy the code of a saved model into its folder, and name it in `config.json` and in the processors' files.

    Every auto class of the family is named, so the same repo loads as backbone, for pretraining or as classifier.
    transformers has no auto class for action detection and temporal localisation, so that `AutoModel` loads a detector
    or a localiser as what it is, with its head.

    Args:
        folder (`str` or `os.PathLike`):
            Folder with a saved model of one of this package's families.

    Returns:
        `list[Path]`: the files that were written or changed.

    Raises:
        ValueError: the folder has no model of this package.
    """
    folder = Path(folder)
    written = []
    addresses = {auto: _address(model_class) for auto, model_class in classes_of(folder).items()}
    fields = read_json(folder / "config.json", "`folder`:")
    for ending, auto in HEADS.items():
        if any(name.endswith(ending) for name in fields.get("architectures") or ()):
            addresses["AutoModel"] = addresses[auto]
    named = addresses.keys() - PROCESSOR_FILES.keys()
    written.append(_add_auto_map(folder / "config.json", {name: addresses[name] for name in sorted(named)}))
    for auto, file in PROCESSOR_FILES.items():
        if (folder / file).is_file() and auto in addresses:
            written.append(_add_auto_map(folder / file, {auto: addresses[auto]}))
    copies = []
    for source in sorted(code_files(folder)):
        copies.append(Path(shutil.copyfile(source, folder / source.name)))
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(code_manifest(copies), indent=2) + "\n", encoding="utf-8")
    return [*written, *copies, manifest]


def classes_of(folder: str | os.PathLike) -> dict[str, type]:
    """
    The classes of the family that a saved model belongs to.

    Args:
        folder (`str` or `os.PathLike`):
            Folder with a saved model.

    Returns:
        `dict[str, type]`: each class by the name of its auto class.

    Raises:
        ValueError: the folder has no model of this package.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"`folder` {str(folder)!r} has no config.json")
    fields = read_json(path, "`folder`:")
    model_type = fields.get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(f"`folder` {str(folder)!r} has a model of type {model_type!r}, must be one of {known}")
    config_class, classes = family_classes(model_type)
    # frames are prepared by the processor of a localiser's encoder
    encoder = fields.get("encoder_config", {}).get("model_type")
    frames = family_classes(encoder)[1] if encoder in FAMILIES else {}
    frames = {auto: one for auto, one in frames.items() if auto == "AutoVideoProcessor"}
    return {"AutoConfig": config_class, **frames, **classes}


def code_files(folder: str | os.PathLike) -> set[Path]:
    """
    The files of this package that a saved model needs to load without the package.

    Args:
        folder (`str` or `os.PathLike`):
            Folder with a saved model.

    Returns:
        `set[Path]`: the files.
    """
    files: set[Path] = set()
    for model_class in classes_of(folder).values():
        own = Path(inspect.getfile(model_class))
        files |= {own, *map(Path, get_relative_import_files(own))}
    return files


def code_manifest(files: list[Path]) -> dict[str, Any]:
    """
    Version and revision of the package, and the SHA-256 of each file.

    Args:
        files (`list[Path]`):
            Copied source files.

    Returns:
        `dict[str, Any]`: the content of `modeling_code.json`.
    """
    return {
        "package": PACKAGE,
        "version": __version__,
        "revision": package_revision(),
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)},
    }


def package_revision() -> str | None:
    """
    Commit of the package's source.

    Returns:
        `str`, *optional*: the commit of the checkout (with `-dirty` if files were changed), or the commit that the
        package was installed from; `None` for an installed release.
    """
    root = Path(inspect.getfile(write_remote_code)).parents[2]
    if (root / ".git").exists() and shutil.which("git"):
        words = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        said = subprocess.run(words, capture_output=True, text=True, check=False)
        if said.returncode == 0:
            return said.stdout.strip()
    try:
        origin = metadata.distribution(PACKAGE).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(origin).get("vcs_info", {}).get("commit_id") if origin else None


def _address(model_class: type) -> str:
    """`file.Class`, the form of `auto_map`."""
    return f"{Path(inspect.getfile(model_class)).stem}.{model_class.__name__}"


def _add_auto_map(path: Path, addresses: Mapping[str, str]) -> Path:
    fields = read_json(path, "`folder`:")
    fields["auto_map"] = dict(addresses)
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path
