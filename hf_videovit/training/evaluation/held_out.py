"""
The clips that a run held out of its training data, and those that it was trained on. `results.json` names the former,
`logs/training_clips.json` the latter. Both are known by content, so that clips may be moved and renamed; clips
that are not local files are known by id.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from transformers.utils import cached_file, logging

from ...files import parse_json, read_text
from ...modeling.video_decoding_parts import VideoPart
from ...video_files import video_size
from ..arguments import DataArguments
from ..data.key_frame_source import KeyFrameSource, key_frame_id
from ..data.opening import list_splits, load_evaluation_source
from ..data.sources import EVAL_SPLITS, VideoList, VideoSource
from ..data.twins import content_digest


logger = logging.get_logger(__name__)

RESULTS_FILE = "results.json"
CLIPS_FILE = "logs/training_clips.json"
HELD_OUT = "held_out"  # field of results.json: digest by id
# Types of the fields of results.json that are read.
CLAIM_TYPES: dict[str, type | tuple[type, ...]] = {
    "metrics": dict,
    "seed": int,
    "data": (str, NoneType),
    "split": (str, NoneType),
    "max_samples": (int, NoneType),
    "reading": dict,
    HELD_OUT: dict,
    "protocol": dict,
}
MOST_CLIPS = 20_000  # larger training sets are not recorded
# How data are read, which results.json records where it differs from the defaults.
READING = ("data_config", "data_root", "video_column", "label_column", "label_names", "label_separator")


def clip_digests(source: VideoSource) -> dict[str, str | None]:
    """
    Hashes of the clips of a source.

    Args:
        source ([`VideoSource`]):
            Videos.

    Returns:
        `dict[str, str | None]`: by id, a hash of size and content, with the bounds of a part or the time of a
        key-frame; `None` for a video that is not a local file. Empty for streams.
    """
    if isinstance(source, KeyFrameSource):
        digests = {video: _digest(video) for video in {row.video for row in source.rows}}
        return {key_frame_id(row): f"{digests[row.video]}@{row.time:.6f}" for row in source.rows}
    if not isinstance(source, VideoList):
        return {}
    return {sample.id: _digest(sample.video) for sample in source}


def _digest(video: str | dict[str, Any]) -> str | None:
    path, part = str(video["path"] if isinstance(video, dict) else video), VideoPart.of(video)
    size = video_size(path)
    if size is None:
        return None
    return content_digest(path, size)[:24] + ("" if part is None else f" {part}")


def claim_of(data: DataArguments, seed: int, evaluated: VideoSource | None) -> dict[str, Any]:
    """
    Facts for `results.json` about the clips of a run's evaluation.

    Args:
        data ([`DataArguments`]):
            The data of the run.
        seed (`int`):
            Seed of the run.
        evaluated ([`VideoSource`] or `None`):
            The evaluation clips.

    Returns:
        `dict[str, Any]`: plain values, from which [`open_clips`] opens the same clips.
    """
    default = DataArguments()
    reading = {name: getattr(data, name) for name in READING if getattr(data, name) != getattr(default, name)}
    claim: dict[str, Any] = {"seed": seed, "data": data.eval_data or data.data, "split": data.eval_split}
    claim |= {"max_samples": data.max_eval_samples, "reading": reading}
    if isinstance(evaluated, VideoList) and evaluated.held_out:
        claim |= {"split": data.train_split, HELD_OUT: clip_digests(evaluated)}
    return claim


def save_training_clips(source: VideoSource, folder: Path) -> None:
    """
    Record the clips that a run is trained on, unless there are too many.

    Args:
        source ([`VideoSource`]):
            Training clips.
        folder (`Path`):
            Folder of the run.
    """
    if isinstance(source, (VideoList, KeyFrameSource)) and (source.num_samples or 0) <= MOST_CLIPS:
        path = folder / CLIPS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(clip_digests(source), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_claim(model: str) -> dict[str, Any]:
    """
    Read the `results.json` of a model.

    Args:
        model (`str`):
            Folder or Hub id.

    Returns:
        `dict[str, Any]`: its content; empty if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = cached_file(
        model,
        RESULTS_FILE,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    claim = {} if path is None else _read(Path(path))
    for name, kind in CLAIM_TYPES.items():
        if name in claim and not isinstance(claim[name], kind):
            raise ValueError(f"the file {str(path)!r} is damaged: `{name}` is {claim[name]!r}")
    return claim


@dataclass(frozen=True)
class EvaluationClips:
    """
    Clips to evaluate a model on.

    Args:
        source ([`VideoSource`]):
            The clips.
        held_out (`bool`, *optional*, defaults to `False`):
            Whether they are those of the data that the model's training held out. Other clips of the data are left
            out.
        trained_on (`int`, *optional*, defaults to 0):
            How many of them the model was trained on, as far as is known.
    """

    source: VideoSource
    held_out: bool = False
    trained_on: int = 0

    def told(self) -> str:
        """
        Remark for the user about the clips.

        Returns:
            `str`: a sentence, or nothing.
        """
        count = self.source.num_samples
        if self.held_out:
            return f"scored on the {count} clips that training held out; --all-clips scores the others too"
        if self.trained_on:
            return f"{self.trained_on} of the {count} clips were trained on, so the scores are too high"
        return ""


def open_clips(
    model: str, claim: Mapping[str, Any], arguments: DataArguments, *, all_clips: bool = False
) -> EvaluationClips:
    """
    Open the clips to evaluate a model on. If some of the data were trained on and others were held out, only the
    latter are opened.

    Args:
        model (`str`):
            Folder or Hub id of the model. A model on the Hub does not say which clips it was trained on.
        claim (`Mapping[str, Any]`):
            The `results.json` of the model; empty if there is none.
        arguments ([`DataArguments`]):
            `eval_data`, `eval_split`, columns.
        all_clips (`bool`, *optional*, defaults to `False`):
            Whether to open all clips, also those that the model was trained on.

    Returns:
        [`EvaluationClips`]

    Raises:
        ValueError: the data or the split is missing.
    """
    known, data, seed = claim.get(HELD_OUT) or {}, str(arguments.eval_data), int(claim.get("seed", 0))
    splits = list_splits(data, arguments.data_config)
    if arguments.eval_split is None and claim.get("split") in splits and not set(EVAL_SPLITS) & set(splits):
        arguments = replace(arguments, eval_split=claim["split"])
    source = load_evaluation_source(arguments, seed)
    path = Path(model) / CLIPS_FILE
    if not isinstance(source, VideoList) or not (known or path.is_file()):
        return EvaluationClips(source)
    digests = clip_digests(source)
    trained_on = None if not path.is_file() else len(_copies(digests, _read(path)))
    chosen = _matching(digests, known)
    if all_clips or not chosen or trained_on == 0:
        return EvaluationClips(source, trained_on=trained_on or 0)
    if len(chosen) < len(known):
        logger.warning(f"{len(known) - len(chosen)} of the {len(known)} held-out clips are not in {data!r} any more")
    return EvaluationClips(source.select(i for i, name in enumerate(digests) if name in chosen), held_out=True)


def count_trained_on(model: str, source: VideoSource) -> int:
    """
    Count the clips that a model was trained on.

    Args:
        model (`str`):
            Folder or Hub id of the model. A model on the Hub does not say which clips it was trained on.
        source ([`VideoSource`]):
            Videos.

    Returns:
        `int`: their number, as far as is known.
    """
    path = Path(model) / CLIPS_FILE
    return len(_copies(clip_digests(source), _read(path))) if path.is_file() else 0


def _copies(present: Mapping[str, str | None], known: Mapping[str, str | None]) -> set[str]:
    """Names of clips with the content of a known one, or with its name where there is no file."""
    contents = set(known.values())
    return {name for name, digest in present.items() if (name in known if digest is None else digest in contents)}


def _matching(present: Mapping[str, str | None], known: Mapping[str, str | None]) -> set[str]:
    """Names of the known clips. Each is found once: with its own name if it still has it."""
    found = {name for name, digest in present.items() if name in known and known[name] == digest}
    missing = Counter(digest for name, digest in known.items() if name not in found and digest is not None)
    for name, digest in present.items():
        if digest is not None and name not in found and missing[digest] > 0:
            found.add(name)
            missing[digest] -= 1
    return found


def _read(path: Path) -> dict[str, Any]:
    values = parse_json(read_text(path, "the file"), f"the file {str(path)!r}")
    if not isinstance(values, dict):
        raise ValueError(f"the file {str(path)!r} must have fields")
    return values
