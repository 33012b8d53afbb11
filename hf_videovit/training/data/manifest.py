"""
What `hf-videovit prepare` leaves beside the videos and every reader of data looks for: the label map and the number of
videos in each shard. Locally or on a Hub.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


LABELS_FILE = "labels.json"  # a list of names in the order of their indices
SUMMARY_FILE = "prepared.json"
MANIFEST_FILE = "manifest.jsonl"


def read_file(location: str | Path) -> bytes | None:
    """Content of a file, or of an `hf://` URL; `None` if it does not exist."""
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
    """Names in `labels.json` of a folder or `hf://` URL, `None` if there is no list of names."""
    content = read_file(f"{folder}/{LABELS_FILE}")
    names = None if content is None else json.loads(content)
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def read_shard_sizes(folder: str | Path) -> dict[str, int]:
    """Videos in each shard, by file name, as counted when it was written; without shards that have changed since."""
    content = read_file(f"{folder}/{SUMMARY_FILE}")
    if content is None:
        return {}
    shards: Mapping[str, Mapping[str, Any]] = json.loads(content).get("shards", {})
    present = _file_sizes(folder)
    return {name: shard["videos"] for name, shard in shards.items() if shard["bytes"] == present.get(name)}


def _file_sizes(folder: str | Path) -> dict[str, int]:
    if "://" not in str(folder):
        return {path.name: path.stat().st_size for path in Path(folder).iterdir() if path.is_file()}
    from huggingface_hub import HfFileSystem

    entries: list[Any] = HfFileSystem().ls(str(folder), detail=True)
    return {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"}
