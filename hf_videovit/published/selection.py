"""Choice of an official checkpoint: by data set, score and licence, and by how its file can be had."""

import re
from collections.abc import Iterable, Mapping

from .entries import LOCALIZATION, PublishedCheckpoint, PublishedResult
from .label_lists import nearest


NOT_STATED = "not stated"
# Data set of the labels of a head, by the start of the name of their list.
LABELLED = {
    "k400": "Kinetics-400",
    "k600": "Kinetics-600",
    "k700": "Kinetics-700",
    "k710": "Kinetics-710",
    "mit": "Moments in Time",
    "ssv1": "Something-Something V1",
    "ssv2": "Something-Something V2",
    "imagenet-1k": "ImageNet-1K",
    "coco-keypoints": "COCO keypoints",
}
SHORT_FORMS = {
    **{short: name for short, name in LABELLED.items() if short[0] in "km" or short.startswith("ssv")},
    "in1k": "ImageNet-1K",
    "epic": "EPIC-Kitchens 100",
    "anet": "ActivityNet",
}
TASK_WORDS = {"temporal-localization": LOCALIZATION}  # as the command line calls it
LESSER_METRICS = ("top5",)
FILE_WORDS = {
    "cloud drive": "web",
    "not listed": "unlisted",
    "dead link": "gone",
    "never released": "none",
}
# The words of the tables, explained.
FILE_LEGEND = (
    "file: hub, link = `hf-videovit models NAME --download` gets it; web = linked by its authors, for a browser; "
    "gone = no longer online; unlisted = scores are published, the file is not; none = never released"
)


def data_of(entry: PublishedCheckpoint) -> list[str]:
    """
    Data sets of an entry: those it has scores on, and that of its labels.

    Args:
        entry ([`PublishedCheckpoint`]):
            The entry.

    Returns:
        `list[str]`: their names.
    """
    names = [result.data for result in entry.results]
    names += [name for start, name in LABELLED.items() if (entry.labels or "").startswith(start)]
    return list(dict.fromkeys(names))


def main_result(entry: PublishedCheckpoint, data: str | None = None) -> PublishedResult | None:
    """
    The score of an entry that a table shows.

    Args:
        entry ([`PublishedCheckpoint`]):
            The entry.
        data (`str`, *optional*):
            Data set, as for [`list_published`]. Defaults to the one that the entry names first.

    Returns:
        [`PublishedResult`], *optional*: the first score, of those that are not top-5 accuracies.
    """
    results = [one for one in entry.results if data is None or _is_data(one.data, data)]
    return min(results, key=lambda one: one.metric in LESSER_METRICS, default=None)


def weights_licence(entry: PublishedCheckpoint) -> str:
    """
    Licence of the weights of an entry.

    Args:
        entry ([`PublishedCheckpoint`]):
            The entry.

    Returns:
        `str`: its id, `"not stated"`, or several where the sources differ.
    """
    stated = dict.fromkeys(one.licence.lower() for one in entry.licences if one.covers == "weights")
    return " / ".join(stated) or NOT_STATED


def file_word(entry: PublishedCheckpoint) -> str:
    """
    How the official file can be had, in one word; see `FILE_LEGEND`.

    Args:
        entry ([`PublishedCheckpoint`]):
            The entry.

    Returns:
        `str`: the word.
    """
    file = entry.file
    if file.address is None:
        return FILE_WORDS.get(file.availability, "web")
    return "link" if file.repository is None else "hub"


def select(entries: Iterable[PublishedCheckpoint], wanted: Mapping[str, str | None]) -> list[PublishedCheckpoint]:
    """
    Entries with certain properties.

    Args:
        entries (`Iterable[PublishedCheckpoint]`):
            All entries.
        wanted (`Mapping[str, str | None]`):
            Value of `model_type`, `data`, `task`, `size` and `licence`; `None` for any.

    Returns:
        `list[PublishedCheckpoint]`: those that have all of them.

    Raises:
        ValueError: no entry has a value.
    """
    chosen = list(entries)
    every = list(chosen)
    for argument, value in wanted.items():
        if value is not None:
            value = TASK_WORDS.get(value, value)
            fitting = {one.name for one in every if _has(one, argument, value)}
            if not fitting:
                raise ValueError(_nothing(argument, value, every))
            chosen = [one for one in chosen if one.name in fitting]
    return chosen


def values_of(entry: PublishedCheckpoint, argument: str) -> list[str]:
    """
    Values of an entry that it can be chosen by.

    Args:
        entry ([`PublishedCheckpoint`]):
            The entry.
        argument (`str`):
            `model_type`, `data`, `task`, `size` or `licence`.

    Returns:
        `list[str]`: the values.
    """
    if argument == "data":
        return data_of(entry)
    if argument == "licence":
        return weights_licence(entry).split(" / ")
    return [getattr(entry, argument)]


def _has(entry: PublishedCheckpoint, argument: str, value: str) -> bool:
    values = values_of(entry, argument)
    return any(_is_data(one, value) for one in values) if argument == "data" else value.lower() in values


def _is_data(name: str, wanted: str) -> bool:
    full = SHORT_FORMS.get(_plain(wanted), wanted)
    return bool(_plain(full)) and _plain(name).startswith(_plain(full))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _nothing(argument: str, value: str, entries: list[PublishedCheckpoint]) -> str:
    known = sorted({one for entry in entries for one in values_of(entry, argument)}, key=str.lower)
    return f"`{argument}` must be one of {', '.join(known)}, got {value!r}.{nearest(value, known)}"


__all__ = [
    "FILE_LEGEND",
    "NOT_STATED",
    "data_of",
    "file_word",
    "main_result",
    "select",
    "values_of",
    "weights_licence",
]
