"""Columns of a list that say which part of a file a clip is: `start` and `end`, in seconds or in frames."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...modeling.video_decoding_parts import VideoPart


# A column names a bound if its words are one of BOUNDS and otherwise only words of UNITS: `start`, `t_end`,
# `startTime`, `end (s)`, `clip_start_seconds`, `stop_frame`.
BOUNDS = {
    "start": ("start", "begin", "from"),
    "end": ("end", "stop", "to"),
    "length": ("duration", "length"),
}
UNITS: dict[str, tuple[str, ...]] = {
    "seconds": ("s", "sec", "secs", "second", "seconds"),
    "frames": ("frame", "frames", "idx", "index"),
    "milliseconds": ("ms", "msec", "millis", "millisecond", "milliseconds"),
}
FILLERS = ("clip", "segment", "seg", "part", "action", "event", "t", "ts", "time", "timestamp", "at", "in", "video")
PAIRS = ("segment", "timestamps", "timestamp", "interval", "span", "time_range", "time_span", "start_end")
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class PartColumns:
    """
    The columns of a part.

    Args:
        unit (`str`):
            `"seconds"`, `"milliseconds"` or `"frames"`.
        start, end, length (`str`, *optional*):
            Columns of the bounds. The length counts only without an end.
        pair (`str`, *optional*):
            Column of both bounds, as a list of two numbers.
    """

    unit: str
    start: str | None = None
    end: str | None = None
    length: str | None = None
    pair: str | None = None

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
        if self.pair is not None:
            bounds = row.get(self.pair)
            start, end = bounds if bounds else (None, None)
        else:
            start, end = (row.get(name) if name else None for name in (self.start, self.end))
        low, high = self._number(start), self._number(end)
        if high is None and self.end is None and self.length is not None:
            length = self._number(row.get(self.length))
            high = None if length is None else (low or 0.0) + length
        if low is None and high is None:
            return None
        return VideoPart(low or 0.0, high, self.unit == "frames")

    def _number(self, value: Any) -> float | None:
        text = "" if value is None else str(value).strip().replace(",", ".")
        if not text or text.lower() in ("nan", "none", "null"):
            return None
        clock = CLOCK.fullmatch(text)
        try:
            hours, minutes, seconds = clock.groups() if clock else (None, None, text)
            number = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)
        except ValueError as error:
            raise ValueError(f"{' and '.join(self.names)} must be numbers or h:mm:ss, got {value!r}") from error
        return number / 1000 if self.unit == "milliseconds" else number


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
    """
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in set(taken)]
    found: dict[str, dict[str, str]] = {unit: {} for unit in UNITS}
    for column in columns:
        bound, unit = _meaning(column)
        if bound is not None and any(row.get(column) not in (None, "") for row in rows):
            found[unit].setdefault(bound, column)
    for unit, bounds in found.items():
        words = [word for column in bounds.values() for word in _words(column)]
        alone = ("from" in words) != ("to" in words)  # `from` may also name where a clip comes from
        if ("start" in bounds or "end" in bounds) and not alone:
            return PartColumns(unit, bounds.get("start"), bounds.get("end"), bounds.get("length"))
    pairs = [name for name in columns if "_".join(_words(name)) in PAIRS]
    return next((PartColumns("seconds", pair=name) for name in pairs if _holds_pairs(rows, name)), None)


def _words(column: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column)
    return re.findall(r"[a-z0-9]+", spaced.lower())


def _meaning(column: str) -> tuple[str | None, str]:
    """Bound and unit that the name of a column means; no bound for any other column."""
    words = _words(column)
    bounds = [bound for word in words for bound, spellings in BOUNDS.items() if word in spellings]
    units = [unit for word in words for unit, spellings in UNITS.items() if word in spellings]
    rest = [word for word in words if not any(word in group for group in (*BOUNDS.values(), *UNITS.values(), FILLERS))]
    if len(bounds) != 1 or len(units) > 1 or rest:
        return None, "seconds"
    return bounds[0], units[0] if units else "seconds"


def _holds_pairs(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    values = [row[column] for row in rows if row.get(column)]
    return bool(values) and all(
        isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(bound, int | float) for bound in value)
        for value in values
    )
