"""Files as people leave them: folders with links and hidden files, text in other encodings, names in other forms."""

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open


# Folders that operating systems, archives and network drives add to the folders of a user.
SYSTEM_FOLDERS = (
    "__macosx",
    "@eadir",
    "#recycle",
    "#snapshot",
    "@recycle",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "__pycache__",
)
BYTE_ORDER_MARKS = {  # the longer ones first, since one is the start of another
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def is_hidden(name: str) -> bool:
    """
    Whether a file or folder is one that no user made: `.DS_Store`, `._clip.mp4`, `.ipynb_checkpoints`, `__MACOSX`.

    Args:
        name (`str`):
            Name without its folder.

    Returns:
        `bool`
    """
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def visible_folders(folder: Path) -> list[Path]:
    """
    Subfolders that a user sees, sorted by name. Links to folders count.

    Args:
        folder (`Path`):
            The folder.

    Returns:
        `list[Path]`: the subfolders.
    """
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir())


def visible_files(folder: Path, *, deep: bool = True) -> list[Path]:
    """
    Files that a user sees, sorted by path. Links to files and folders are followed, but not links to a folder around
    them. A link whose target is missing is listed as a file.

    Args:
        folder (`Path`):
            The folder.
        deep (`bool`, *optional*, defaults to `True`):
            Whether to search the subfolders as well.

    Returns:
        `list[Path]`: the files.
    """
    return sorted(_walk(Path(folder), (), deep))


def has_file(folder: Path, suffixes: Sequence[str]) -> bool:
    """
    Whether [`visible_files`] of a folder, at any depth, include one with a suffix.

    Args:
        folder (`Path`):
            The folder.
        suffixes (`Sequence[str]`):
            Suffixes in lower case.

    Returns:
        `bool`
    """
    return any(file.suffix.lower() in suffixes for file in _walk(Path(folder), (), deep=True))


def _walk(folder: Path, around: tuple[str, ...], deep: bool) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in around:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if not entry.is_dir():
                yield folder / entry.name
            elif deep:
                yield from _walk(folder / entry.name, (*around, real), deep)


def plain_name(name: str) -> str:
    """
    A name in the form in which names are compared: composed characters (NFC), no spaces around it.

    Args:
        name (`str`):
            The name.

    Returns:
        `str`: the name.
    """
    return unicodedata.normalize("NFC", name).strip()


def present_path(path: Path) -> Path:
    """
    A path as the disk spells it: where there is no such file, the same name with composed (NFC) or decomposed (NFD)
    characters is tried, and backslashes of Windows as slashes.

    Args:
        path (`Path`):
            The path.

    Returns:
        `Path`: a path that exists, or `path`.
    """
    text = str(path)
    if (text.isascii() and "\\" not in text) or path.exists():
        return path
    forms = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    spellings = [Path(one) for form in forms for one in (form, form.replace("\\", "/"))]
    return next((one for one in spellings if one.exists()), path)


class MissingFolderError(ValueError, FileNotFoundError):
    """The folder of a model does not exist. The message names the argument."""


@contextmanager
def loading(what: str, place: str | os.PathLike) -> Iterator[None]:
    """
    Report errors of loading a model, configuration or processor with the argument that names it.

    Args:
        what (`str`):
            The argument, such as `` "`checkpoint`" ``.
        place (`str` or `os.PathLike`):
            Its value: a folder or Hub id.

    Raises:
        ValueError: the folder or a file in it is missing, damaged or incomplete, or there is no such repo.
    """
    from huggingface_hub.errors import HFValidationError, StrictDataclassFieldValidationError

    name = f"{what} {str(place)!r}"
    if not Path(place).exists() and (Path(place).is_absolute() or len(Path(place).parts) > 2):
        raise MissingFolderError(f"{name} does not exist")
    try:
        yield
    except SafetensorError as error:
        check_weights(what, place)
        raise ValueError(f"{name}: the weights are damaged or incomplete ({error})") from error
    except StrictDataclassFieldValidationError as error:
        fault = " ".join(str(error).split()).removeprefix("Validation error for field ")
        raise ValueError(f"{name}: `config` {fault}") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"{name}: the weights do not fit config.json: the tensors listed above have other shapes"
        ) from error
    except ValueError as error:
        # pipelines repeat the tracebacks of every class that they tried
        causes = re.findall(r"^\w*Error: (.+)$", str(error), re.MULTILINE)
        if "See the original errors" not in str(error) or not causes:
            raise
        raise ValueError(f"{name} cannot be loaded: {causes[-1]}") from error
    except (OSError, HFValidationError) as error:
        here = "" if Path(place).exists() else "there is no such folder, and from the Hub: "
        raise ValueError(f"{name} cannot be loaded: {here}{' '.join(str(error).split())}") from error


def check_weights(what: str, place: str | os.PathLike) -> None:
    """
    Open the weights in a folder, without reading them.

    Args:
        what (`str`):
            The argument, for the error message.
        place (`str` or `os.PathLike`):
            Its value. Nothing is checked unless it is a folder.

    Raises:
        ValueError: a file is damaged or incomplete.
    """
    for file in sorted(Path(place).glob("*.safetensors")):
        try:
            with safe_open(file, "numpy"):
                continue
        except SafetensorError as error:
            raise ValueError(
                f"{what} {str(place)!r}: {file.name} is damaged or incomplete, copy or download it again ({error})"
            ) from error


def decode_text(content: bytes, what: str) -> str:
    """
    Text in UTF-8, or in UTF-16 with a byte order mark, as spreadsheets save it.

    Args:
        content (`bytes`):
            Content of a file.
        what (`str`):
            The argument and the file, for the error message.

    Returns:
        `str`: the text.

    Raises:
        ValueError: the text has another encoding.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        if encoding == "utf-8" and b"\0" in content:
            raise UnicodeDecodeError(encoding, content, content.index(b"\0"), content.index(b"\0") + 1, "NUL byte")
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[min(error.start, len(content) - 1)]:02x}"
        raise ValueError(
            f"{what} has a text encoding other than UTF-8 ({found} in line {line}): save it as UTF-8, in Excel as "
            "'CSV UTF-8'"
        ) from error


def read_text(path: str | os.PathLike, what: str) -> str:
    """
    Read a text file, see [`decode_text`].

    Args:
        path (`str` or `os.PathLike`):
            The file.
        what (`str`):
            Name of the argument, for the error message.

    Returns:
        `str`: the text.

    Raises:
        ValueError: there is no such file, or its encoding is unknown.
    """
    if not Path(path).is_file():
        raise ValueError(f"{what} {str(path)!r} is not a file")
    return decode_text(Path(path).read_bytes(), f"{what} {str(path)!r}")


def parse_json(text: str, what: str) -> Any:
    """
    Parse JSON.

    Args:
        text (`str`):
            The text.
        what (`str`):
            The argument and the file, for the error message.

    Returns:
        `Any`: the value.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is not valid JSON: {error.msg} in line {error.lineno}") from error


def read_json(path: str | os.PathLike, what: str) -> Any:
    """
    Read a JSON file.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        what (`str`):
            Name of the argument, for the error message.

    Returns:
        `Any`: the value.

    Raises:
        ValueError: there is no such file, or it is not JSON.
    """
    return parse_json(read_text(path, what), f"{what} {str(path)!r}")


def parse_yaml(text: str, what: str) -> Any:
    """
    Parse YAML.

    Args:
        text (`str`):
            The text.
        what (`str`):
            The argument and the file, for the error message.

    Returns:
        `Any`: the value.

    Raises:
        ValueError: the text is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ValueError(f"{what} is not valid YAML: {reason}{where}") from error
