"""
Search of videos by an example: their features in a folder, kept up to date, and the videos nearest to a clip.

The folder has a table of videos and features (`videos.parquet`) and a description of how they were made. FAISS
searches the table through `datasets`, exactly: no vector is left out or approximated.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import PreTrainedModel

from ..files import read_json
from ..folders import held_folder, write_text
from ..modeling.video_decoding import VideoDecodingError
from ..modeling.video_processing_base import ClipVideoProcessor
from ..video_files import video_size
from .feature_sets import weights_hash
from .features import iter_video_features


TABLE_FILE = "videos.parquet"
DESCRIPTION_FILE = "index.json"
SAVED_EVERY = 256  # videos; a run that is killed loses no more
SCHEMA = pa.schema(
    [
        ("video", pa.string()),
        ("bytes", pa.int64()),
        ("modified", pa.int64()),
        ("features", pa.list_(pa.float32())),
    ]
)
INNER_PRODUCT = 0  # faiss.METRIC_INNER_PRODUCT; of vectors of length 1 it is the cosine


@dataclass
class IndexChanges:
    """
    How an index was brought up to date.

    Args:
        added (`list[str]`):
            Videos that are new.
        changed (`list[str]`):
            Videos whose files changed.
        removed (`list[str]`):
            Videos that are gone.
        kept (`list[str]`):
            Videos whose features were there.
        failed (`dict[str, str]`):
            Videos that cannot be read, and why. They are not in the index.
    """

    added: list[str]
    changed: list[str]
    removed: list[str]
    kept: list[str]
    failed: dict[str, str]

    def __str__(self) -> str:
        names = ("added", "changed", "removed", "kept", "failed")
        return ", ".join(f"{len(getattr(self, name))} {name}" for name in names)


@dataclass(frozen=True)
class Hit:
    """
    A video near an example.

    Args:
        video (`str`):
            Path of the video.
        score (`float`):
            Cosine of the angle between the features, -1 to 1.
    """

    video: str
    score: float


def update_index(
    model: PreTrainedModel,
    processor: ClipVideoProcessor,
    videos: Iterable[str],
    folder: str | os.PathLike,
    *,
    name: str,
    pooling: str = "default",
    batch_size: int = 1,
    progress: Callable[[Iterator[Any], int], Iterable[Any]] | None = None,
) -> IndexChanges:
    """
    Bring the index of videos up to date. Only new and changed videos are embedded. Videos that are not listed any more
    are removed.

    Args:
        model ([`PreTrainedModel`]):
            A model of this package; its encoder is used.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        videos (`Iterable[str]`):
            All videos of the index: files and folders of pictures on this machine.
        folder (`str` or `os.PathLike`):
            The index; made if it does not exist.
        name (`str`):
            Folder or Hub id of the model, which searches load.
        pooling (`str`, *optional*, defaults to `"default"`):
            `"default"`, `"mean"` or `"first"`, see [`get_video_features`].
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass.
        progress (`Callable`, *optional*):
            Takes the features in the making and their number, and yields them.

    Returns:
        [`IndexChanges`]

    Raises:
        ValueError: the index is of another model, or a video is not on this machine.
    """
    folder = Path(folder)
    description = {"weights": weights_hash(model), "pooling": pooling, "model": _place(name)}
    with held_folder(folder, "output"):
        _check_description(folder, description)
        rows = {row["video"]: row for row in _read_table(folder).to_pylist()}
        facts = _file_facts(videos)
        known = {one: rows[one] for one in facts if one in rows and facts[one].items() <= rows[one].items()}
        stale = [one for one in facts if one not in known]
        changes = IndexChanges([], [], sorted(rows.keys() - facts.keys()), [*known], {})
        made = iter_video_features(model, processor, stale, batch_size=batch_size, pooling=pooling, on_error="return")
        write_text(folder / DESCRIPTION_FILE, json.dumps(description, indent=1, ensure_ascii=False) + "\n")
        try:
            for place, features in enumerate(made if progress is None else progress(made, len(stale))):
                video = stale[place]
                if isinstance(features, VideoDecodingError):
                    changes.failed[video] = str(features)
                    continue
                (changes.changed if video in rows else changes.added).append(video)
                known[video] = {"video": video, **facts[video], "features": _unit(features.numpy())}
                if (place + 1) % SAVED_EVERY == 0:
                    _write_table(folder, known)
        finally:
            _write_table(folder, known)
    return changes


def search_index(folder: str | os.PathLike, features: torch.Tensor | np.ndarray, top_k: int = 5) -> list[Hit]:
    """
    The videos whose features are nearest to those of an example, by their cosine.

    Args:
        folder (`str` or `os.PathLike`):
            An index.
        features (`torch.Tensor` or `np.ndarray` of shape `(feature_size,)`):
            Features of the example.
        top_k (`int`, *optional*, defaults to 5):
            Number of videos.

    Returns:
        `list[Hit]`: the nearest first; fewer than `top_k` if the index has fewer.

    Raises:
        ValueError: the folder is no index, has no videos, or the features have another size.
    """
    describe_index(folder)
    if top_k < 1:
        raise ValueError(f"`top_k` must be at least 1, got {top_k}.")
    dataset = Dataset(_read_table(Path(folder)))
    if not len(dataset):
        raise ValueError(f"`folder` {str(folder)!r} is an index without videos.")
    query = _unit(np.asarray(features, np.float32))
    size = len(dataset[0]["features"])
    if query.shape != (size,):
        raise ValueError(f"`features` must have shape ({size},), as in the index, got {query.shape}.")
    shows_progress = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        dataset.add_faiss_index("features", metric_type=INNER_PRODUCT)
    finally:
        if shows_progress:
            enable_progress_bars()
    scores, rows = dataset.get_nearest_examples("features", query, k=min(top_k, len(dataset)))
    return [Hit(video, float(score)) for video, score in zip(rows["video"], scores)]


def describe_index(folder: str | os.PathLike) -> dict[str, str]:
    """
    How the features of an index were made.

    Args:
        folder (`str` or `os.PathLike`):
            The index.

    Returns:
        `dict[str, str]`: `model`, the hash of its `weights`, and the `pooling`.

    Raises:
        ValueError: the folder is no index.
    """
    if not (Path(folder) / DESCRIPTION_FILE).is_file():
        raise ValueError(f"`folder` {str(folder)!r} is no index: make one with `hf-videovit index`.")
    return read_json(Path(folder) / DESCRIPTION_FILE, "index")


def _place(name: str) -> str:
    """A folder with its whole path, since searches may start elsewhere; a Hub id as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _check_description(folder: Path, description: dict[str, str]) -> None:
    if not (folder / DESCRIPTION_FILE).is_file():
        return
    earlier = describe_index(folder)
    for key in ("weights", "pooling"):
        if earlier.get(key) != description[key]:
            what = f"features of {earlier.get('model')!r} with pooling {earlier.get('pooling')!r}"
            raise ValueError(f"`output` {str(folder)!r} has {what}, which differ in {key}: give another folder.")


def _file_facts(videos: Iterable[str]) -> dict[str, dict[str, int]]:
    """Size and time of each video, by its whole path."""
    facts = {}
    for video in videos:
        size = video_size(video)
        if size is None:
            raise ValueError(f"`videos` must be files or folders of pictures on this machine, got {video!r}.")
        facts[os.path.abspath(video)] = {"bytes": size, "modified": os.stat(video).st_mtime_ns}
    return facts


def _unit(features: np.ndarray) -> np.ndarray:
    return features / max(float(np.linalg.norm(features)), 1e-12)


def _read_table(folder: Path) -> pa.Table:
    path = folder / TABLE_FILE
    return pq.read_table(path, schema=SCHEMA) if path.is_file() else SCHEMA.empty_table()


def _write_table(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    draft = folder / f".{TABLE_FILE}.draft"
    pq.write_table(pa.Table.from_pylist([rows[name] for name in sorted(rows)], SCHEMA), draft)
    os.replace(draft, folder / TABLE_FILE)


__all__ = ["Hit", "IndexChanges", "describe_index", "search_index", "update_index"]
