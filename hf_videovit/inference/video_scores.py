"""Files of a classifier's scores of whole videos, which name the segments of a localiser."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def order_scores(scores: Mapping[str, float], class_names: Sequence[str]) -> list[float]:
    """
    Scores in the order of a data set's classes, matched by name. Case, and spaces, underscores and hyphens, do not
    count.

    Args:
        scores (`Mapping[str, float]`):
            Score of each label of a classifier.
        class_names (`Sequence[str]`):
            Names of the classes.

    Returns:
        `list[float]`: one score for each class.

    Raises:
        ValueError: a class is not among the labels, or two labels have one name.
    """
    known = {_plain(label): score for label, score in scores.items()}
    if len(known) != len(scores):
        raise ValueError("`scores` must have one label for each name; some labels differ in spelling only.")
    missing = [name for name in class_names if _plain(name) not in known]
    if missing:
        raise ValueError(
            f"`class_names` must be labels of the classifier; {len(missing)} of {len(class_names)} are not, such as "
            f"{', '.join(map(repr, missing[:3]))}."
        )
    return [known[_plain(name)] for name in class_names]


def video_scores(classifier: Any, videos: Iterable[Any], class_names: Sequence[str], **options: Any) -> Iterable[Any]:
    """
    Scores of whole videos by the classifier's own protocol.

    Args:
        classifier ([`~pipeline.ClipClassificationPipeline`]):
            The pipeline.
        videos (`Iterable`):
            The videos.
        class_names (`Sequence[str]`):
            Names of the classes; see [`order_scores`].
        options (`Any`):
            Arguments of the pipeline, such as `num_clips`.

    Yields:
        `list[float]` of each video in order, or `{"error": message}` for one that cannot be read.

    Raises:
        ValueError: a class is not among the labels.
    """
    order_scores(dict.fromkeys(classifier.model.config.id2label.values(), 0.0), class_names)  # before the first video
    for answer in classifier((video for video in videos), top_k=None, on_error="report", **options):
        if isinstance(answer, dict):
            yield answer
        else:
            yield order_scores({one["label"]: one["score"] for one in answer}, class_names)


def write_scores(
    path: str | os.PathLike, results: Mapping[str, Sequence[float]], class_names: Sequence[str], **facts: Any
) -> Path:
    """
    Write a file of scores, in the form that ActionFormer and OpenTAD read.

    Args:
        path (`str` or `os.PathLike`):
            The .json file.
        results (`Mapping[str, Sequence[float]]`):
            Scores by name of the video.
        class_names (`Sequence[str]`):
            Names of the classes, in the order of the scores.
        facts (`Any`):
            Further facts, such as the model.

    Returns:
        `Path`: the file.
    """
    content = {"classes": list(class_names), **facts, "results": {name: list(row) for name, row in results.items()}}
    path = Path(path)
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_scores(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """
    Read a file of scores.

    Args:
        path (`str` or `os.PathLike`):
            JSON file `{"results": {video: [p, ...]}}`, with the names of the classes as `classes` or `class`. Pickles
            are refused.

    Returns:
        `tuple[dict[str, np.ndarray], list[str] | None]`: scores by name of the video, and the names of the classes if
        the file has them.

    Raises:
        ValueError: the file is not such a JSON, or its rows differ in length.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = {str(name): np.asarray(row, np.float64).reshape(-1) for name, row in content["results"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"Scores {path} must be a JSON object with `results` by video: {error!r}") from error
    names = content.get("classes", content.get("class"))
    sizes = {len(row) for row in rows.values()} | ({len(names)} if names else set())
    if len(sizes) > 1:
        raise ValueError(f"Scores {path} must have as many scores of each video as classes, got {sorted(sizes)}.")
    return rows, list(names) if names else None


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character not in " _-")


__all__ = ["order_scores", "read_scores", "video_scores", "write_scores"]
