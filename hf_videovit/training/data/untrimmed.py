"""
Annotations of untrimmed videos (ActivityNet, HACS, FineAction) as a list for classification: training clips are the
labelled segments, evaluation videos are whole. This is UniFormerV2's protocol for ActivityNet and HACS.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .activitynet import check_database, segment_bounds


TRAINING = ("train", "training")


def untrimmed_rows(database: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    """
    Rows of a list: one a segment of the training videos, with `start` and `end` in seconds, and one a video of the
    other subsets.

    A whole video has the class in which it has the most seconds, the first of several. Videos without segments are
    left out: they have no class.

    Args:
        database (`Mapping[str, Any]`):
            `database` of an annotation file of ActivityNet's form.
        what (`str`):
            Name of the file, for messages.

    Returns:
        `list[dict[str, Any]]`: rows with `video`, `label`, `split`, `start` and `end`; the bounds of a whole video are
        empty.

    Raises:
        ValueError: an entry or a segment is not of this form.
    """
    check_database(database, what)
    rows: list[dict[str, Any]] = []
    for video, entry in database.items():
        split = str(entry.get("subset", "")).lower()
        annotations = entry.get("annotations") or []
        if split in TRAINING:
            for one in annotations:
                start, end = segment_bounds(one, video, what)
                rows.append({"video": video, "label": one["label"], "split": "train", "start": start, "end": end})
        elif annotations:
            seconds: dict[str, float] = defaultdict(float)
            for one in annotations:
                start, end = segment_bounds(one, video, what)
                seconds[one["label"]] += end - start
            label = max(seconds, key=lambda name: seconds[name])
            rows.append({"video": video, "label": label, "split": split, "start": "", "end": ""})
    return rows


__all__ = ["untrimmed_rows"]
