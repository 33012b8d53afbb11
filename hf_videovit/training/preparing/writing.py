"""
Prepare a published data set for training: every clip is read to its end, resized and written to a shard, with a
manifest and a label map. `hf-videovit prepare` runs this module.

A shard is the unit of work. A process writes it under a temporary name, renames it and then records it, so that an
interrupted preparation can continue. The place of each clip is decided before the first clip is read. Neither the
number of processes nor an interruption changes a byte.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm
from transformers.utils import logging

from ...bulk.engines import Engine
from ...bulk.ray_engine import run_calls_on_ray
from ...folders import HOLDER_FILE, LOCK_FILE, file_hash, held_folder, shorten
from ...modeling.video_decoding import VideoDecodingError, available_decoders
from ...processes import run_apart
from ..data.manifest import LABELS_FILE, MANIFEST_FILE, SUMMARY_FILE
from .annotations import Annotations, VideoIndex, order_labels, read_annotations
from .encoding import EncodedClip, EncodingSettings, encode_clip


logger = logging.get_logger(__name__)

FORMATS = ("tar", "parquet", "folder")
NOTES = ".preparing"  # folder with a note per finished shard; removed when all shards are finished
ROWS_PER_GROUP = 16  # rows per group of a parquet file; a reader keeps a whole group in memory


@dataclass(frozen=True)
class Job:
    """
    One clip of a shard.

    Args:
        id (`str`):
            Id of the clip.
        key (`str`):
            Name of its file in the shard, without suffix.
        label (`str`, `tuple[str, ...]` or `None`):
            Name of its label, or names of any number of labels.
        path (`str` or `None`):
            Its video; `None` if there is none.
        source (`str`):
            Path of the video relative to the folder of the videos.
        start, end (`float`, *optional*):
            Start and end of the clip in the video, in seconds. By default the clip is the whole video.
        problem (`str`, *optional*, defaults to `""`):
            Reason why there is no video.
        exact (`bool`, *optional*, defaults to `False`):
            See [`Clip`].
        fps (`float`, *optional*):
            See [`Clip`].
    """

    id: str
    key: str
    label: str | tuple[str, ...] | None
    path: str | None
    source: str
    start: float | None = None
    end: float | None = None
    problem: str = ""
    exact: bool = False
    fps: float | None = None


@dataclass(frozen=True)
class Shard:
    """
    A unit of work.

    Args:
        name (`str`):
            Name of its file. Plain folders have no such file.
        split (`str`):
            Its split.
        jobs (`tuple[Job, ...]`):
            Its clips.
        format (`str`):
            One of `FORMATS`.
        label_names (`tuple[str, ...]`):
            Names of the labels.
        encoding ([`EncodingSettings`]):
            How clips are encoded.
        by_class (`bool`):
            Whether a plain folder has a subfolder per class.
    """

    name: str
    split: str
    jobs: tuple[Job, ...]
    format: str
    label_names: tuple[str, ...]
    encoding: EncodingSettings
    by_class: bool

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the content depends on, except the folder of the videos."""
        facts = asdict(self)
        for job in facts["jobs"]:
            job["path"] = job["path"] is not None
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass
class PreparedData:
    """
    The result of a preparation.

    Args:
        folder (`Path`):
            The prepared folder, to be used as `data` of a training run.
        label_names (`list[str]`):
            Names of the labels, in the order of their indices.
        videos (`dict[str, int]`):
            Number of clips in each split.
        failures (`list[dict]`, *optional*, defaults to `[]`):
            Rows of the manifest for missing clips: `id`, `split`, `source`, `error`, `kind`.
        duplicates (`list[list[str]]`, *optional*, defaults to `[]`):
            Groups of clips with the same content, as `split/id`.
        shards_kept (`int`, *optional*, defaults to 0):
            Number of shards that an earlier, interrupted preparation had finished.
        psnr (`dict[str, float]`, *optional*, defaults to `{}`):
            PSNR of each encoded clip in dB, by `split/id`; see [`EncodedClip`].
    """

    folder: Path
    label_names: list[str]
    videos: dict[str, int]
    failures: list[dict[str, Any]] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    shards_kept: int = 0
    psnr: dict[str, float] = field(default_factory=dict)


def prepare(
    source: str | Path,
    output: str | Path,
    *,
    layout: str = "auto",
    videos: str | Path | None = None,
    format: str = "tar",
    encoding: EncodingSettings | None = None,
    clips_per_shard: int = 128,
    split_number: int = 1,
    holdout: float = 0.0,
    label_names: Sequence[str] | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **columns: Any,
) -> PreparedData:
    """
    Prepare a data set for training.

    Args:
        source (`str` or `Path`):
            Its annotations: a folder of classes, a list, or an official layout, see [`read_annotations`].
        output (`str` or `Path`):
            A new folder, or the folder of the same preparation if that was interrupted.
        layout (`str`, *optional*, defaults to `"auto"`):
            Layout of `source`, or `"auto"` to detect it.
        videos (`str` or `Path`, *optional*):
            Folder of the videos, which may be at any depth. The folder of the annotations by default.
        format (`str`, *optional*, defaults to `"tar"`):
            `"tar"` (WebDataset), `"parquet"` or `"folder"`.
        encoding ([`EncodingSettings`], *optional*):
            Size and quality of the clips; the defaults of [`EncodingSettings`] otherwise.
        clips_per_shard (`int`, *optional*, defaults to 128):
            Clips per shard.
        split_number (`int`, *optional*, defaults to 1):
            Official split of UCF101 and HMDB51: 1, 2 or 3.
        holdout (`float`, *optional*, defaults to 0.0):
            Share of the clips that becomes the split `val`, for folders and lists without splits.
        label_names (`Sequence[str]`, *optional*):
            Order of the labels. The official order by default, or sorted names where there is none.
        seed (`int`, *optional*, defaults to 0):
            Seed of the order of the clips, which mixes the classes in every shard.
        num_workers (`int`, *optional*):
            Number of processes. One by default; with the engine ray as many as the cluster has cores.
        engine ([`Engine`], *optional*):
            Where the shards are made; on this machine by default. On Ray, all machines must see `source`, the videos
            and `output` under the same names.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether an earlier preparation in `output` may be replaced.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.
        columns:
            `video_column`, `label_column`, `label_separator` and `root` of a list.

    Returns:
        [`PreparedData`]: a summary. `output` holds the shards, `labels.json`, `prepared.json` and `manifest.jsonl`,
        which has a line per clip with its place, hash, size, frames, rate and label, or the reason why it is missing.

    Raises:
        ValueError: an argument is not allowed, `output` is in use or has other files, or no clip can be read.
    """
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}, got {format!r}")
    for name, value in (("clips_per_shard", clips_per_shard), ("num_workers", num_workers)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}")
    annotations = read_annotations(source, layout, split_number, holdout, **columns)
    names = order_labels(annotations, label_names)
    root = Path(videos or source).expanduser()
    shards = plan_shards(
        annotations,
        root if root.is_dir() else root.parent,
        names,
        format=format,
        encoding=encoding or EncodingSettings(),
        clips_per_shard=clips_per_shard,
        seed=seed,
    )
    output = Path(output)
    with held_folder(output, "output"):
        notes = _begin(output, shards, overwrite)
        kept = len(notes)
        missing = [shard for shard in shards if shard.name not in notes]
        clips = sum(len(shard.jobs) for shard in missing)
        with tqdm(total=clips, desc="preparing", unit="clip", disable=not progress) as bar:
            for shard, note in _made(missing, output.absolute(), num_workers, engine or Engine()):
                notes[shard.name] = note
                bar.update(len(shard.jobs))
        return _finish(output, shards, notes, names, annotations.layout, kept)


def plan_shards(
    annotations: Annotations,
    root: Path,
    label_names: Sequence[str],
    *,
    format: str,
    encoding: EncodingSettings,
    clips_per_shard: int,
    seed: int,
) -> list[Shard]:
    """
    Assign the clips to shards.

    Args:
        annotations ([`Annotations`]):
            The clips.
        root (`Path`):
            Folder of the videos.
        label_names (`Sequence[str]`):
            Names of the labels, in order.
        format (`str`):
            One of `FORMATS`.
        encoding ([`EncodingSettings`]):
            How clips are encoded.
        clips_per_shard (`int`):
            Clips per shard.
        seed (`int`):
            Seed of the order in each split.

    Returns:
        `list[Shard]`: the shards of all splits.
    """
    index = VideoIndex(root)
    one_label = all(isinstance(clip.label, str) for clip in annotations.clips)
    by_class = one_label and all(re.fullmatch(r"[^./\\][^/\\]*", name) for name in label_names)
    shards = []
    for split in dict.fromkeys(clip.split for clip in annotations.clips):
        clips = [clip for clip in annotations.clips if clip.split == split]
        keys = unique_keys([clip.id for clip in clips])
        order = np.random.default_rng([seed, *split.encode()]).permutation(len(clips))
        jobs = []
        for number in order:
            clip, key = clips[number], keys[number]
            path, cut, problem = index.find(clip)
            name = clip.names[0] if path is None else _relative(path.absolute(), root)
            start, end = (clip.start, clip.end) if cut else (None, None)
            place = None if path is None else str(path)
            jobs.append(Job(clip.id, key, clip.label, place, name, start, end, problem, clip.exact, clip.fps))
        suffix = "" if format == "folder" else f".{format}"
        for number, first in enumerate(range(0, len(jobs), clips_per_shard)):
            part = tuple(jobs[first : first + clips_per_shard])
            name = f"{split}-{number:05d}{suffix}"
            shards.append(Shard(name, split, part, format, tuple(label_names), encoding, by_class))
    return shards


def unique_keys(ids: Sequence[str]) -> list[str]:
    """
    File names without suffix for clips. They have plain characters, no dots, and differ in more than case.

    Args:
        ids (`Sequence[str]`):
            Ids of the clips.

    Returns:
        `list[str]`: one name per id.
    """
    seen: Counter[str] = Counter()
    keys = []
    for name in ids:
        stem = re.sub(r"\.[A-Za-z0-9]{2,4}$", "", name)
        key = re.sub(r"[^\w-]+", "_", stem).strip("_") or "clip"
        seen[key.lower()] += 1
        keys.append(key if seen[key.lower()] == 1 else f"{key}~{seen[key.lower()]}")
    return keys


def make_shard(shard: Shard, output: Path) -> dict[str, Any]:
    """
    Encode and write the clips of a shard, and record it as finished. A clip that cannot be read becomes a row with
    `error` and `kind`.

    Args:
        shard ([`Shard`]):
            The shard.
        output (`Path`):
            Folder that receives it.

    Returns:
        `dict[str, Any]`: `fingerprint`, `bytes` of its file and `rows` of the manifest.
    """
    rows: list[dict[str, Any]] = []
    writer = WRITERS[shard.format](shard, output)
    for job in shard.jobs:
        label = list(job.label) if isinstance(job.label, tuple) else job.label
        row: dict[str, Any] = {"id": job.id, "split": shard.split, "label": label, "shard": shard.name}
        row["source"] = job.source
        try:
            clip = _encoded(job, shard.encoding)
            rows.append(row | {"file": writer.add(job, clip)} | _describe(job, clip))
        except VideoDecodingError as error:
            rows.append(row | {"error": error.reason, "kind": error.kind})
    note = {"fingerprint": shard.fingerprint, "bytes": writer.close(), "rows": rows}
    _write_atomically(output / NOTES / f"{shard.name}.json", json.dumps(note, ensure_ascii=False))
    return note


def _encoded(job: Job, encoding: EncodingSettings) -> EncodedClip:
    if job.path is None:
        raise VideoDecodingError(job.source, None, job.problem, "missing")
    return encode_clip(job.path, encoding, job.start, job.end, job.exact, job.fps)


def _describe(job: Job, clip: EncodedClip) -> dict[str, Any]:
    """The columns of the manifest for a stored clip."""
    probe = clip.probe
    facts: dict[str, Any] = {"sha256": hashlib.sha256(clip.content).hexdigest(), "bytes": len(clip.content)}
    facts |= {"num_frames": probe.num_frames, "fps": round(probe.fps, 4) if probe.fps else None}
    facts |= {"width": probe.width, "height": probe.height}
    facts |= {"duration": round(probe.duration, 4) if probe.duration else None, "kept": clip.kept}
    facts |= {} if clip.psnr is None else {"psnr": round(clip.psnr, 2)}
    return facts | ({} if job.start is None else {"start": job.start, "end": job.end})


def _write_atomically(path: Path, text: str) -> None:
    """Write a file so that no reader finds it incomplete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", errors="surrogateescape")
    os.replace(partial, path)


# ---------------------------------------------------------------------- formats


class _TarWriter:
    """A WebDataset tar with `key.mp4` and `key.json` per clip. It has no times or owners, so it is reproducible."""

    def __init__(self, shard: Shard, output: Path):
        self.path, self.partial = output / shard.name, output / f".{shard.name}.partial"
        self.archive: tarfile.TarFile | None = None

    def add(self, job: Job, clip: EncodedClip) -> str:
        """Store a clip and return its place."""
        self.archive = self.archive or tarfile.TarFile(self.partial, "w", format=tarfile.PAX_FORMAT)
        named: dict[str, Any] = {"id": job.id}
        if job.label is not None:
            named["labels" if isinstance(job.label, tuple) else "label"] = job.label
        text = json.dumps(named, ensure_ascii=False).encode("utf-8", "surrogateescape")
        for suffix, content in ((clip.suffix, clip.content), (".json", text)):
            member = tarfile.TarInfo(job.key + suffix)
            member.size = len(content)
            self.archive.addfile(member, io.BytesIO(content))
        return f"{self.path.name}/{job.key}"

    def close(self) -> int:
        """Move the file to its place and return its size in bytes."""
        if self.archive is None:  # no clip could be read
            return 0
        self.archive.close()
        os.replace(self.partial, self.path)
        return self.path.stat().st_size


class _ParquetWriter:
    """A parquet file with the columns `id`, `video` and `label` (`labels`), with the features of `datasets`."""

    def __init__(self, shard: Shard, output: Path):
        from datasets import ClassLabel, Features, List, Value, Video

        self.shard = shard
        self.path, self.partial = output / shard.name, output / f".{shard.name}.partial"
        several = any(isinstance(job.label, tuple) for job in shard.jobs)
        self.column = None if all(job.label is None for job in shard.jobs) else "labels" if several else "label"
        features: dict[str, Any] = {"id": Value("string"), "video": Video()}
        if self.column is not None:
            label = ClassLabel(names=list(shard.label_names))
            features[self.column] = List(label) if several else label
        self.schema = Features(features).arrow_schema
        self.writer: pq.ParquetWriter | None = None
        self.rows: list[dict[str, Any]] = []
        self.count = 0

    def add(self, job: Job, clip: EncodedClip) -> str:
        """Store a clip and return its place."""
        row: dict[str, Any] = {"id": job.id, "video": {"bytes": clip.content, "path": job.key + clip.suffix}}
        if isinstance(job.label, tuple):
            row["labels"] = [self.shard.label_names.index(name) for name in job.label]
        elif job.label is not None:
            row["label"] = self.shard.label_names.index(job.label)
        self.rows.append(row)
        self.count += 1
        if len(self.rows) == ROWS_PER_GROUP:
            self._flush()
        return f"{self.path.name}/{self.count - 1}"

    def close(self) -> int:
        """Move the file to its place and return its size in bytes."""
        if self.rows:
            self._flush()
        if self.writer is None:
            return 0
        self.writer.close()
        os.replace(self.partial, self.path)
        return self.path.stat().st_size

    def _flush(self) -> None:
        # Videos are already compressed.
        self.writer = self.writer or pq.ParquetWriter(self.partial, self.schema, compression="none")
        self.writer.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.rows = []


class _FolderWriter:
    """Plain files: `split/class/key.mp4`, or `videos/split/key.mp4` if not every clip has exactly one label."""

    def __init__(self, shard: Shard, output: Path):
        self.shard, self.output, self.bytes = shard, output, 0

    def add(self, job: Job, clip: EncodedClip) -> str:
        """Store a clip and return its place."""
        folder = f"{self.shard.split}/{job.label}" if self.shard.by_class else f"videos/{self.shard.split}"
        path = self.output / folder / f"{job.key}{clip.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(clip.content)
        os.replace(partial, path)
        self.bytes += len(clip.content)
        return path.relative_to(self.output).as_posix()

    def close(self) -> int:
        """Return the size of all files in bytes."""
        return self.bytes


WRITERS: dict[str, Any] = {"tar": _TarWriter, "parquet": _ParquetWriter, "folder": _FolderWriter}


# ---------------------------------------------------------------------- beginning and end


def _relative(path: Path, root: Path) -> str:
    """A path without the folders of this machine."""
    root = root.absolute()  # as paths of lists and of folders of classes are
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _begin(output: Path, shards: Sequence[Shard], overwrite: bool) -> dict[str, dict[str, Any]]:
    """Prepare the output folder. Returns the notes on shards that are already finished."""
    notes = _read_notes(output)
    if not (output / SUMMARY_FILE).exists() and not (output / NOTES).exists():
        foreign = sorted(path.name for path in output.iterdir() if path.name not in (LOCK_FILE, HOLDER_FILE))
        if foreign:
            raise ValueError(
                f"`output` must be a new folder, {str(output)!r} contains other files: {shorten(foreign)}"
            )
    wanted = {shard.name: shard.fingerprint for shard in shards}
    good = {name: note for name, note in notes.items() if wanted.get(name) == note["fingerprint"]}
    if len(good) < len(notes) and not overwrite:
        raise ValueError(
            f"`output` {str(output)!r} contains a preparation of other clips or with other settings. Choose another "
            "folder, or set `overwrite`"
        )
    if len(good) < len(notes):
        _remove(output, [notes[name] for name in notes.keys() - good.keys()])
    _refuse_foreign(output, shards, notes)
    good = {name: note for name, note in good.items() if _is_there(output, note)}
    (output / NOTES).mkdir(parents=True, exist_ok=True)
    for unfinished in output.rglob(".*.partial"):
        if _is_own_partial(unfinished, shards):
            unfinished.unlink()
    return good


def _refuse_foreign(output: Path, shards: Sequence[Shard], notes: dict[str, dict[str, Any]]) -> None:
    """Raise a ValueError if files would be replaced that no preparation wrote."""
    if (output / NOTES).exists():  # an interrupted preparation: a shard may be in its place before it is noted
        return
    planned = {output / shard.name for shard in shards if Path(shard.name).suffix}
    own = {path for note in notes.values() for path in _files(output, note)}
    if foreign := sorted(path.name for path in planned - own if path.exists()):
        raise ValueError(f"`output` {str(output)!r} contains other files with the names of shards: {shorten(foreign)}")


def _is_own_partial(path: Path, shards: Sequence[Shard]) -> bool:
    name = path.name.removeprefix(".").removesuffix(".partial")
    jobs = (job for shard in shards if shard.format == "folder" for job in shard.jobs)
    return name in {shard.name for shard in shards} or Path(name).stem in {job.key for job in jobs}


def _read_notes(output: Path) -> dict[str, dict[str, Any]]:
    notes: dict[str, dict[str, Any]] = {}
    if (output / SUMMARY_FILE).exists():
        shards = _read_summary(output)["shards"]
        notes = {
            name: {"fingerprint": one["fingerprint"], "bytes": one["bytes"], "rows": []}
            for name, one in shards.items()
        }
        for line in (output / MANIFEST_FILE).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            row = json.loads(line)
            notes[row["shard"]]["rows"].append(row)
    for path in sorted((output / NOTES).glob("*.json")):
        notes[path.stem] = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    return notes


def _read_summary(output: Path) -> dict[str, Any]:
    """The summary of a finished preparation. ValueError if another program wrote it, or if its files were edited."""
    try:
        summary = json.loads((output / SUMMARY_FILE).read_text(encoding="utf-8"))
        hashes = {name: summary["sha256"][name] for name in (LABELS_FILE, MANIFEST_FILE)}
        shards = summary["shards"].values()
        well = all({"fingerprint", "bytes"} <= shard.keys() for shard in shards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        well = False
    if not well:
        raise ValueError(f"`output` {str(output)!r} contains a {SUMMARY_FILE} that no preparation wrote")
    edited = [
        name for name, value in hashes.items() if not (output / name).is_file() or file_hash(output / name) != value
    ]
    if edited:
        raise ValueError(
            f"`output` {str(output)!r} contains files that were changed since they were written: "
            f"{shorten(edited)}. Choose another folder"
        )
    return summary


def _files(output: Path, note: dict[str, Any]) -> dict[Path, int]:
    """Files of a shard and their sizes."""
    rows = [row for row in note["rows"] if "file" in row]
    if rows and Path(rows[0]["shard"]).suffix:
        return {output / rows[0]["shard"]: note["bytes"]}
    return {output / row["file"]: row["bytes"] for row in rows}


def _is_there(output: Path, note: dict[str, Any]) -> bool:
    return all(path.is_file() and path.stat().st_size == size for path, size in _files(output, note).items())


def _remove(output: Path, notes: Sequence[dict[str, Any]]) -> None:
    """Delete shards, the files that describe all shards, and their folders that become empty."""
    splits = {row["split"] for note in notes for row in note["rows"]}
    for name in (LABELS_FILE, MANIFEST_FILE, SUMMARY_FILE, *(f"{split}.jsonl" for split in splits)):
        (output / name).unlink(missing_ok=True)
    for note in notes:
        for path in _files(output, note):
            path.unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent):
                if (
                    folder != output
                    and folder.is_relative_to(output)
                    and folder.is_dir()
                    and not any(folder.iterdir())
                ):
                    folder.rmdir()


def _made(
    shards: Sequence[Shard], output: Path, num_workers: int | None, engine: Engine
) -> Iterator[tuple[Shard, dict[str, Any]]]:
    """Shards and their notes in the order in which they are finished, made in one process or several."""
    calls = [partial(make_shard, shard, output) for shard in shards]
    if calls and engine.name == "ray":
        made = run_calls_on_ray(calls, num_workers, engine.address)
    elif (num_workers or 1) == 1 or len(calls) < 2:
        made = ((number, call()) for number, call in enumerate(calls))
    else:
        made = run_apart(calls, num_workers or 1, __name__)
    for number, note in made:
        yield shards[number], note


def _finish(
    output: Path,
    shards: Sequence[Shard],
    notes: dict[str, dict[str, Any]],
    label_names: list[str],
    layout: str,
    kept: int,
) -> PreparedData:
    """Write the label map, the manifest and the summary, and delete the notes, which they contain."""
    rows = [row for shard in shards for row in notes[shard.name]["rows"]]
    stored = [row for row in rows if "file" in row]
    failures = [row for row in rows if "error" in row]
    if not stored:
        reason = f"; the first is {failures[0]['source']}: {failures[0]['error']}" if failures else ""
        raise ValueError(f"None of the {len(rows)} clips could be read{reason}")
    _write_atomically(output / LABELS_FILE, json.dumps(label_names, indent=1, ensure_ascii=False) + "\n")
    manifest = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    _write_atomically(output / MANIFEST_FILE, manifest)
    if shards[0].format == "folder" and not shards[0].by_class:
        _write_lists(output, stored)
    videos = Counter(row["split"] for row in stored)
    failed = Counter(row["split"] for row in failures)
    duplicates = _duplicates(stored)
    ffmpeg = available_decoders()["pyav"].ffmpeg
    summary = {
        "layout": layout,
        "format": shards[0].format,
        "encoding": asdict(shards[0].encoding),
        "splits": {split: {"videos": videos[split], "failed": failed[split]} for split in {**videos, **failed}},
        "num_labels": len(label_names),
        "duplicates": duplicates,
        "sha256": {name: file_hash(output / name) for name in (LABELS_FILE, MANIFEST_FILE)},
        "versions": {"av": version("av"), "ffmpeg": ffmpeg},
        "shards": {
            shard.name: {
                "videos": sum("file" in row for row in notes[shard.name]["rows"]),
                "bytes": notes[shard.name]["bytes"],
                "fingerprint": notes[shard.name]["fingerprint"],
            }
            for shard in shards
        },
    }
    _write_atomically(output / SUMMARY_FILE, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(output / NOTES)
    if failures:
        logger.warning(f"{len(failures)} of {len(rows)} clips are missing or damaged; see {MANIFEST_FILE}")
    psnr = {f"{row['split']}/{row['id']}": row["psnr"] for row in stored if "psnr" in row}
    return PreparedData(output, label_names, dict(videos), failures, duplicates, kept, psnr)


def _write_lists(output: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one list per split, for plain files without class folders."""
    for split in dict.fromkeys(row["split"] for row in rows):
        lines = []
        for row in rows:
            if row["split"] == split:
                column = "labels" if isinstance(row["label"], list) else "label"
                named = {} if row["label"] is None else {column: row["label"]}
                lines.append(json.dumps({"video": row["file"], **named}, ensure_ascii=False) + "\n")
        _write_atomically(output / f"{split}.jsonl", "".join(lines))


def _duplicates(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Groups of clips with the same content. Duplicates across splits make a score too high."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row["sha256"], []).append(f"{row['split']}/{row['id']}")
    return sorted(group for group in groups.values() if len(group) > 1)
