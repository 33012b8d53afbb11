"""
Files that `hf-videovit prepare` writes beside the videos and that all readers of data use: the label map and the
number of videos in each shard. They may be local or on a Hub.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import decode_text, parse_json


LABELS_FILE = "labels.json"  # a list of names in the order of their indices
SUMMARY_FILE = "prepared.json"
MANIFEST_FILE = "manifest.jsonl"


def read_file(location: str | Path) -> bytes | None:
    """
    Read a file.

    Args:
        location (`str` or `Path`):
            A path or an `hf://` URL.

    Returns:
        `bytes` or `None`: the content; `None` if the file does not exist.
    """
    if "://" not in str(location):
        path = Path(location)
        return path.read_bytes() if path.is_file() else None
    from huggingface_hub import HfFileSystem

    try:
        with HfFileSystem().open(str(location), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def read_label_names(folder: str | Path) -> list[str] | None:
    """
    Read `labels.json`.

    Args:
        folder (`str` or `Path`):
            A folder or its `hf://` URL.

    Returns:
        `list[str]` or `None`: the label names; `None` if there is no list of names.
    """
    content = read_file(f"{folder}/{LABELS_FILE}")
    what = f"`data`: {folder}/{LABELS_FILE}"
    names = None if content is None else parse_json(decode_text(content, what), what)
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def read_shard_sizes(folder: str | Path) -> dict[str, int]:
    """
    Read the number of videos in each shard from `prepared.json`. Shards whose size has changed since are left out.

    Args:
        folder (`str` or `Path`):
            A folder or its `hf://` URL.

    Returns:
        `dict[str, int]`: number of videos by file name.
    """
    content = read_file(f"{folder}/{SUMMARY_FILE}")
    if content is None:
        return {}
    what = f"`data`: {folder}/{SUMMARY_FILE}"
    shards: Mapping[str, Mapping[str, Any]] = parse_json(decode_text(content, what), what).get("shards", {})
    present = _file_sizes(folder)
    return {name: shard["videos"] for name, shard in shards.items() if shard["bytes"] == present.get(name)}


def _file_sizes(folder: str | Path) -> dict[str, int]:
    if "://" not in str(folder):
        return {path.name: path.stat().st_size for path in Path(folder).iterdir() if path.is_file()}
    from huggingface_hub import HfFileSystem

    entries: list[Any] = HfFileSystem().ls(str(folder), detail=True)
    return {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"}
