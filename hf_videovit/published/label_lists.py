"""Class names of published heads, in the order of their outputs."""

import json
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any


FOLDER = Path(__file__).parent / "labels"
# Subsets of Kinetics-710 in the order of VideoMAE V2's heads; of the official UniFormers', whose Kinetics-400 is the
# start of Kinetics-710; and of MMAction2's ports, which are rows of MMAction2's own Kinetics-710.
KINETICS_710_SUBSETS = (
    *("k400", "k600", "k700"),
    "k400-uniformer",
    *("k400-mmaction2", "k600-mmaction2", "k700-mmaction2"),
)
LABEL_LISTS = (
    *KINETICS_710_SUBSETS,
    *("k710", "k710-mmaction2", "k600-uniformer", "mit", "ssv1", "ssv2", "imagenet-1k"),
    *("coco-keypoints", "coco", "ade20k", "ava"),
)
AVA_SUBSETS = ("evaluated", "person_movement", "object_manipulation", "person_interaction")


def published_labels(name: str) -> list[str]:
    """
    Class names in the order of published heads.

    Args:
        name (`str`):
            `"k400"`, `"k600"`, `"k700"` or `"k710"`: Kinetics as VideoMAE V2's heads order it. `"k400-uniformer"`: the
            order of all official UniFormer and UniFormerV2 heads (their Kinetics-710 is `"k710"`). `"k400-mmaction2"`,
            `"k600-mmaction2"`, `"k700-mmaction2"`, `"k710-mmaction2"`: the order of MMAction2's ports of
            UniFormerV2. `"k600-uniformer"`: the order of UniFormer (version 1). `"imagenet-1k"`: ImageNet's usual
            order. `"coco-keypoints"`: the 17 keypoints of COCO; `"coco"`: its 80 kinds of objects without the gaps
            of its ids. `"ade20k"`: the 150 classes of ADE20K, whose masks count from 1. `"mit"` (Moments in Time),
            `"ssv1"`, `"ssv2"` (Something-Something): the data sets' own order. `"ava"`: the 80 actions of AVA and
            AVA-Kinetics, whose files count from 1. Few of them are alphabetical: match by name with any other list.

    Returns:
        `list[str]`: the names.

    Raises:
        ValueError: the list does not exist.
    """
    one_of("name", name, LABEL_LISTS)
    return list(_read_labels(name))


def kinetics_710_rows(name: str) -> list[int]:
    """
    Rows of a Kinetics-710 head that are the head of a subset of Kinetics, in the order of that subset's list.

    Args:
        name (`str`):
            A subset of Kinetics, see [`published_labels`]. Those that end in `-mmaction2` are rows of
            `"k710-mmaction2"`, the others of `"k710"`.

    Returns:
        `list[int]`: the rows.

    Raises:
        ValueError: the list does not exist.
    """
    one_of("name", name, KINETICS_710_SUBSETS)
    return list(_read_labels("k710_rows")[name])


def ava_rows(name: str) -> list[int]:
    """
    Rows of an 80-class AVA head, counted from 0; AVA's files count from 1.

    Args:
        name (`str`):
            `"evaluated"`: the 60 labels that AVA's metric scores. `"person_movement"` (poses), `"object_manipulation"`
            or `"person_interaction"`: one of the three groups of all 80.

    Returns:
        `list[int]`: the rows.

    Raises:
        ValueError: the subset does not exist.
    """
    one_of("name", name, AVA_SUBSETS)
    return list(_read_labels("ava_rows")[name])


def kinetics_spellings() -> dict[str, str]:
    """
    Spelling variants of class names in other releases of Kinetics.

    Returns:
        `dict[str, str]`: the other spelling, with the spelling used here.
    """
    return dict(_read_labels("spellings"))


def label_fields(names: list[str]) -> dict[str, Any]:
    """
    Label fields of a configuration.

    Args:
        names (`list[str]`):
            Class names in order.

    Returns:
        `dict[str, Any]`: `id2label` and `label2id`.
    """
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def one_of(argument: str, value: Any, allowed: Any) -> None:
    """
    Check that a value is allowed.

    Args:
        argument (`str`):
            Name of the caller's argument, for the error.
        value (`Any`):
            Its value.
        allowed (`Any`):
            The allowed values.

    Raises:
        ValueError: `value` is not among them.
    """
    if value not in allowed:
        raise ValueError(f"`{argument}` must be one of {', '.join(allowed)}, got {value!r}.{nearest(value, allowed)}")


def nearest(value: Any, allowed: Any) -> str:
    """
    The end of an error message: allowed values that are like the one that was given.

    Args:
        value (`Any`):
            The value.
        allowed (`Any`):
            The allowed values.

    Returns:
        `str`: a question with up to three values; empty if none is near.
    """
    close = get_close_matches(str(value), [str(one) for one in allowed], 3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


@cache
def _read_labels(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


__all__ = [
    "AVA_SUBSETS",
    "KINETICS_710_SUBSETS",
    "LABEL_LISTS",
    "ava_rows",
    "kinetics_710_rows",
    "kinetics_spellings",
    "label_fields",
    "one_of",
    "published_labels",
]
