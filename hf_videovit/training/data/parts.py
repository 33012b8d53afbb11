"""Columns of a list that say which part of a file a clip is: `start` and `end`, in seconds or in frames."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...modeling.video_decoding_parts import VideoPart


# A column names a bound if its words are one of BOUNDS and otherwise only words of UNITS and FILLERS: `start`,
# `t_end`, `startTime`, `endtime`, `end (s)`, `clip_start_seconds`, `stop_frame`.
BOUNDS = {
    "start": ("start", "starts", "starting", "begin", "begins", "beginning"),
    "end": ("end", "ends", "ending", "stop", "stops", "finish", "until"),
    "length": ("duration", "length", "dur"),
}
# Words with other meanings as well. They name bounds only in pairs, and only with numbers in both columns.
VAGUE = (("from", "to"), ("first", "last"), ("onset", "offset"), ("in", "out"), ("t0", "t1"), ("t1", "t2"))
UNITS: dict[str, tuple[str, ...]] = {
    "seconds": ("s", "sec", "secs", "second", "seconds"),
    "milliseconds": ("ms", "msec", "millis", "millisecond", "milliseconds"),
    "microseconds": ("us", "usec", "microsecond", "microseconds"),
    "minutes": ("min", "mins", "minute", "minutes"),
    "frames": ("frame", "frames", "f", "fr", "idx", "index", "num", "number", "no", "nr"),
}
PER_SECOND = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "minutes": 1 / 60, "frames": 1.0}
FILLERS = re.compile(
    "clip|segment|seg|part|action|event|t|ts|time|timestamp|timecode|tc|at|in|of|video|hh|mm|ss|hms|"
    "hhmmss|clock|cut|trim|shot|scene|sentence|word|utterance|gesture|sign|label|annotation|ann|narration|"
    "youtube|temporal|subclip|chunk|window|interval|span|range|point"
)
COUNTS = ("n", "num", "number", "count", "nr", "length", "len")  # with `frames`: a length
PAIRS = re.compile(
    "segment|segments|timestamps|timestamp|interval|intervals|span|spans|range|window|bounds|trim|times"
)
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
PAIR = re.compile(r"[\[(]?\s*([\d:.]+)\s*(?:,|;|-|–|\bto\b)\s*([\d:.]+)\s*[\])]?")


@dataclass(frozen=True)
class PartColumns:
    """
    The columns of a part.

    Args:
        unit (`str`):
            Unit of the values, a key of `UNITS`.
        start, end, length (`str`, *optional*):
            Columns of the bounds. The length counts only without an end.
        pair (`str`, *optional*):
            Column of both bounds, as a list of two numbers or a text such as `1.5-3`.
        end_included (`bool`, *optional*, defaults to `False`):
            Whether the frame at the end is in the part, as that of `last_frame` is.
    """

    unit: str
    start: str | None = None
    end: str | None = None
    length: str | None = None
    pair: str | None = None
    end_included: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the columns that are read."""
        length = None if self.end else self.length
        return [name for name in (self.start, self.end, length, self.pair) if name is not None]

    def part(self, row: Mapping[str, Any]) -> VideoPart | None:
        """
        The part of a row.

        Args:
            row (`Mapping[str, Any]`):
                The row.

        Returns:
            [`VideoPart`] or `None`: `None` if the row has no bounds.

        Raises:
            ValueError: a bound is no number, or the end is not after the start.
        """
        row = _flat(row)
        if self.pair is not None:
            bounds = _two_bounds(row.get(self.pair)) if _is_given(row.get(self.pair)) else (None, None)
            if bounds is None:
                raise ValueError(f"{self.pair} must have two bounds, got {row[self.pair]!r}: give each part a row")
            start, end = bounds
        else:
            start, end = (row.get(name) if name else None for name in (self.start, self.end))
        low, high = self._number(start), self._number(end)
        if high is not None and self.end_included:
            high += 1
        if high is None and self.end is None and self.length is not None:
            length = self._number(row.get(self.length))
            high = None if length is None else (low or 0.0) + length
        if low is None and high is None:
            return None
        return VideoPart(low or 0.0, high, self.unit == "frames")

    def has_start(self, row: Mapping[str, Any]) -> bool:
        """
        Whether a row says where its part starts. A part without a start begins with the file.

        Args:
            row (`Mapping[str, Any]`):
                The row.

        Returns:
            `bool`
        """
        return any(_is_given(_flat(row).get(name)) for name in (self.start, self.pair) if name is not None)

    def _number(self, value: Any) -> float | None:
        if not _is_given(value):
            return None
        number = _seconds(value)
        if self.unit == "frames" and (number is None or ":" in str(value) or number % 1):
            raise ValueError(f"{' and '.join(self.names)} must be whole numbers of frames, got {value!r}")
        if number is None:
            raise ValueError(f"{' and '.join(self.names)} must be numbers or h:mm:ss, got {value!r}")
        return number if ":" in str(value) else number / PER_SECOND[self.unit]


def find_part_columns(rows: Sequence[Mapping[str, Any]], taken: Iterable[str | None]) -> PartColumns | None:
    """
    Find the columns of parts. Seconds are preferred to frames.

    Args:
        rows (`Sequence[Mapping[str, Any]]`):
            The rows of a list.
        taken (`Iterable[str | None]`):
            Columns that have another meaning.

    Returns:
        [`PartColumns`] or `None`: `None` if the rows are whole files.

    Raises:
        ValueError: the start has one unit, and the end or length has another one.
    """
    columns = _values_by_column(rows, set(taken))
    found: dict[str, dict[str, str]] = {unit: {} for unit in UNITS}
    for column in columns:
        bound, unit = _meaning(column)
        if bound is not None:
            found[unit].setdefault(bound, column)
    if not any(bounds.keys() & {"start", "end"} for bounds in found.values()) and (vague := _vague_bounds(columns)):
        return vague
    bounded = [(unit, bounds) for unit, bounds in found.items() if bounds.keys() & {"start", "end"}]
    for unit, bounds in bounded:
        if "start" in bounds and bounds.keys() & {"end", "length"}:
            return PartColumns(unit, bounds.get("start"), bounds.get("end"), bounds.get("length"))
    if bounded:
        unit, bounds = bounded[0]
        others = [names[bound] for names in found.values() if names is not bounds for bound in names]
        if others:
            names = " and ".join([*bounds.values(), *others])
            raise ValueError(
                f"the columns {names} have different units: name both bounds of a part in seconds (`start`, `end`, "
                "`duration`) or in frames (`start_frame`, `end_frame`, `num_frames`), and rename other columns"
            )
        return PartColumns(unit, bounds.get("start"), bounds.get("end"))
    pairs = [name for name, values in columns.items() if _names_pair(name) and _holds_pairs(values)]
    return PartColumns(_unit(_words(pairs[0])) or "seconds", pair=pairs[0]) if pairs else None


def _values_by_column(rows: Sequence[Mapping[str, Any]], taken: set[str | None]) -> dict[str, list[Any]]:
    """The values of each column that has some."""
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in _flat({name: value for name, value in row.items() if name not in taken}).items():
            if _is_given(value):
                columns.setdefault(name, []).append(value)
    return columns


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the fields of structures as columns: `segment.start`."""
    flat = {}
    for name, value in row.items():
        fields = value.items() if isinstance(value, Mapping) else ()
        flat.update({f"{name}.{field}": inner for field, inner in fields} or {name: value})
    return flat


def _is_given(value: Any) -> bool:
    return value is not None and value != [] and str(value).strip().lower() not in ("", "nan", "none", "null")


def _seconds(value: Any) -> float | None:
    """A number, or the seconds of a text such as `0:01:02.5`, `1,5` or `1.5 s`; `None` for anything else."""
    text = str(value).strip().replace(",", ".")
    text = re.sub(r"(?<=\d)\s*s(ec)?\.?$", "", text)
    clock = CLOCK.fullmatch(text)
    hours, minutes, seconds = clock.groups() if clock else (None, None, text)
    try:
        return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)
    except ValueError:
        return None


def _words(column: str) -> list[str]:
    """The words of a name. Words without a space between them are separated where both are known: `starttime`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column)
    return [part for word in re.findall(r"[a-z0-9]+", spaced.lower()) for part in _separate(word)]


def _separate(word: str) -> list[str]:
    known = {name for names in UNITS.values() for name in names if len(name) > 2} | {"t", "time", "clip", "video"}
    for bound in ("start", "begin", "end", "stop"):
        for first, second in ((bound, word.removeprefix(bound)), (word.removesuffix(bound), bound)):
            if first + second == word and ({first, second} - {bound}) & known:
                return [first, second]
    return ["num", "frames"] if word in ("nframes", "numframes", "framecount") else [word]


def _unit(words: Iterable[str]) -> str | None:
    found = {unit for word in words for unit, spellings in UNITS.items() if word in spellings}
    return found.pop() if len(found) == 1 else None


def _meaning(column: str) -> tuple[str | None, str]:
    """Bound and unit that the name of a column means; no bound for any other column."""
    words = _words(column)
    if {"frame", "frames"} & set(words) and set(words) <= {"frame", "frames", "of", *COUNTS} and words != ["frame"]:
        return "length", "frames"
    bounds = [bound for word in words for bound, spellings in BOUNDS.items() if word in spellings]
    rest = [word for word in words if not any(word in spellings for spellings in BOUNDS.values())]
    if len(bounds) != 1 or not _only_known(rest):
        return None, "seconds"
    return bounds[0], _unit(rest) or "seconds"


def _only_known(words: Sequence[str]) -> bool:
    """Whether words are units, at most of one kind, and fillers."""
    units = [word for word in words if any(word in spellings for spellings in UNITS.values())]
    return all(word in units or FILLERS.fullmatch(word) for word in words) and (not units or _unit(units) is not None)


def _vague_bounds(columns: Mapping[str, Sequence[Any]]) -> PartColumns | None:
    """Two columns that differ in one of the pairs of `VAGUE` and have numbers."""
    by_words = {tuple(_words(column)): column for column in columns}
    for start, end in VAGUE:
        for words, column in by_words.items():
            other = by_words.get(tuple(end if word == start else word for word in words))
            rest = [word for word in words if word != start]
            if start not in words or other is None or not _only_known(rest):
                continue
            if all(_seconds(value) is not None for value in (*columns[column], *columns[other])):
                unit = _unit(rest) or "seconds"
                return PartColumns(unit, column, other, end_included=unit == "frames" and end == "last")
    return None


def unread_bounds(rows: Sequence[Mapping[str, Any]], taken: Iterable[str | None]) -> list[str]:
    """
    Columns that may be bounds of parts, though their names are not understood: `start_pts` beside `end_pts`.

    Args:
        rows (`Sequence[Mapping[str, Any]]`):
            The rows of a list of whole files.
        taken (`Iterable[str | None]`):
            Columns that have another meaning.

    Returns:
        `list[str]`: the columns.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for column, values in _values_by_column(rows, set(taken)).items():
        words = _words(column)
        bounds = [bound for bound in ("start", "end") if set(words) & set(BOUNDS[bound])]
        if len(bounds) == 1 and all(_seconds(value) is not None for value in values):
            rest = tuple(word for word in words if word not in BOUNDS[bounds[0]])
            found.setdefault(rest, {})[bounds[0]] = column
    return [column for columns in found.values() if len(columns) == 2 for column in columns.values()]


def _names_pair(column: str) -> bool:
    words = _words(column)
    rest = [word for word in words if not PAIRS.fullmatch(word) and word not in ("start", "end")]
    return bool(words) and len(rest) < len(words) and _only_known(rest)


def _two_bounds(value: Any) -> tuple[Any, Any] | None:
    """The bounds in a list of two, or in a text such as `[1.0, 2.0]` or `0:01-0:03`."""
    if isinstance(value, str):
        match = PAIR.fullmatch(value.strip())
        return None if match is None else (match[1], match[2])
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    pair = isinstance(value, list | tuple) and len(value) == 2 and not any(isinstance(one, list) for one in value)
    return (value[0], value[1]) if pair else None


def _holds_pairs(values: Sequence[Any]) -> bool:
    """Whether all values are bounds, or lists of bounds of which some have too many."""
    return all(_two_bounds(value) is not None or isinstance(value, list | tuple) for value in values)
