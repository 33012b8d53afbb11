"""
Files of detected people: AlphAction's and InternVideo's JSON, and the pickles of FAIR and MMAction2.

A pickle is a program that builds objects. It is read here without running it: a table of the instructions that plain
values and arrays of numbers need, and every other instruction and every other name is refused.
"""

import json
import os
import pickletools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files import parse_json, read_text
from .key_frames import NO_AREA, BoxRows, KeyFrame, KeyFrames, group_boxes


ALPHACTION_FACTOR = 10_000  # an image's id is this times the number of its movie, plus the timestamp
Sizes = Mapping[str, tuple[int, int]]


def read_movies(path: str | os.PathLike) -> list[str]:
    """
    Read a list of movies, such as `ava_file_names_trainval_v2.1.txt`.

    Args:
        path (`str` or `os.PathLike`):
            A file with one name in each line.

    Returns:
        `list[str]`: names without suffix. The place of each is its number in AlphAction's files.
    """
    lines = read_text(path, "`path`").splitlines()
    return [line.strip().rpartition(".")[0] or line.strip() for line in lines if line.strip()]


def read_alphaction_people(
    path: str | os.PathLike, movies: Sequence[str], sizes: Sizes, threshold: float = 0.8, offset: float = 0.0
) -> KeyFrames:
    """
    Read AlphAction's detected people, as VideoMAE's code does: boxes are clipped to the image, and boxes of at most a
    pixel are left out.

    Args:
        path (`str` or `os.PathLike`):
            A JSON list of `image_id`, `bbox` (x, y, width, height in pixels of the key-frame's image) and `score`.
        movies (`Sequence[str]`):
            Names of the movies by number, see [`read_movies`].
        sizes (`Mapping[str, tuple[int, int]]`):
            Width and height of the images of each movie. AlphAction's have a shorter side of at most 360 pixels.
        threshold (`float`, *optional*, defaults to 0.8):
            Smallest score of a person.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video, in seconds.

    Returns:
        [`KeyFrames`] with `scores`, sorted by movie and time.

    Raises:
        ValueError: an entry is not as above, or its movie is not in `movies`.
    """
    numbers, boxes, scores = [], [], []
    for index, entry in enumerate(_read_list(path)):
        try:
            numbers.append(int(entry["image_id"]))
            boxes.append([float(value) for value in entry["bbox"]])
            scores.append(float(entry["score"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, entry {index}: not an image_id, a bbox and a score ({error})") from error
    movie_numbers, seconds = np.divmod(np.asarray(numbers, dtype=np.int64), ALPHACTION_FACTOR)
    if len(numbers) and not 0 <= movie_numbers.min() <= movie_numbers.max() < len(movies):
        raise ValueError(f"{path} has movie {movie_numbers.max()}, `movies` has {len(movies)} names")
    names = np.array(list(movies), dtype=object)[movie_numbers]
    table = BoxRows(names, seconds - offset, np.asarray(boxes).reshape(-1, 4), scores=np.asarray(scores))
    table = table.select(np.argsort(numbers, kind="stable"))
    table, skipped = _above(table, threshold)
    inclusive, solid = _official_corners(table, sizes)
    if not solid.all():
        skipped[NO_AREA] = int((~solid).sum())
    moved = BoxRows(table.videos, table.times, inclusive + np.array([0, 0, 1, 1]), scores=table.scores).select(solid)
    found = group_boxes(moved, sizes, shares=False)
    return KeyFrames(found.rows, found.skipped + skipped, found.missing)


def _official_corners(table: BoxRows, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Inclusive corners of boxes x, y, width, height, clipped to the image, and which of them have an area."""
    corners = table.boxes.copy()
    corners[:, 2:] = corners[:, :2] + np.maximum(corners[:, 2:] - 1, 0)
    limits = (
        np.array([sizes.get(name, (np.inf, np.inf)) for name in table.videos], dtype=np.float64).reshape(-1, 2) - 1
    )
    corners = np.clip(corners, 0, np.tile(limits, 2))
    return corners, (corners[:, 2:] > corners[:, :2]).all(axis=1) | np.isinf(limits).any(axis=1)


def read_internvideo_people(path: str | os.PathLike, sizes: Sizes, threshold: float = 0.8) -> KeyFrames:
    """
    Read InternVideo's detected people of AVA-Kinetics.

    Args:
        path (`str` or `os.PathLike`):
            A JSON list of `image_id` (`"video_second"`), `bbox` (x1, y1, x2, y2 as shares) and `score`.
        sizes (`Mapping[str, tuple[int, int]]`):
            Width and height of each video in pixels. People of other videos are counted as missing.
        threshold (`float`, *optional*, defaults to 0.8):
            Smallest score of a person.

    Returns:
        [`KeyFrames`] with `scores`.

    Raises:
        ValueError: an entry is not as above.
    """
    videos, times, boxes, scores = [], [], [], []
    for index, entry in enumerate(_read_list(path)):
        try:
            video, _, second = str(entry["image_id"]).rpartition("_")
            times.append(float(second))
            boxes.append([float(value) for value in entry["bbox"]])
            scores.append(float(entry["score"]))
            videos.append(video)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, entry {index}: not an image_id, a bbox and a score ({error})") from error
    corners = np.asarray(boxes).reshape(-1, 4)
    table = BoxRows(np.array(videos, dtype=object), np.asarray(times), corners, scores=np.asarray(scores))
    return _grouped(table, sizes, threshold)


def read_fair_people(path: str | os.PathLike, sizes: Sizes, threshold: float = 0.9, offset: float = 0.0) -> KeyFrames:
    """
    Read detected people from a pickle of FAIR or MMAction2. Nothing in the file is executed.

    Args:
        path (`str` or `os.PathLike`):
            A dictionary of `"video,0902"` to an array of x1, y1, x2, y2 as shares and a score, such as
            `ava_dense_proposals_val.FAIR.recall_93.9.pkl`.
        sizes (`Mapping[str, tuple[int, int]]`):
            Width and height of each video in pixels. People of other videos are counted as missing.
        threshold (`float`, *optional*, defaults to 0.9):
            Smallest score of a person.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video, in seconds.

    Returns:
        [`KeyFrames`] with `scores`.

    Raises:
        ValueError: the file is no such dictionary, or needs more than numbers to be read.
    """
    content = read_plain_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dictionary, got {type(content).__name__}")
    videos: list[str] = []
    times: list[float] = []
    boxes = [np.empty((0, 5))]
    for key, value in content.items():
        video, comma, second = key.rpartition(",") if isinstance(key, str) else ("", "", "")
        if not comma or not second.strip().isdigit():
            raise ValueError(f"{path}: keys must be like 'video,0902', got {key!r}")
        array = np.asarray(value, dtype=np.float64)
        if array.size and (array.ndim != 2 or array.shape[1] != 5):
            raise ValueError(f"{path}: boxes of {key!r} must have 4 corners and a score, got the shape {array.shape}")
        boxes.append(array.reshape(-1, 5))
        videos += [video] * len(boxes[-1])
        times += [float(second) - offset] * len(boxes[-1])
    table = np.concatenate(boxes)
    names = np.array(videos, dtype=object)
    return _grouped(BoxRows(names, np.asarray(times), table[:, :4], scores=table[:, 4]), sizes, threshold)


def write_alphaction(
    path: str | os.PathLike,
    rows: Sequence[KeyFrame],
    movies: Sequence[str],
    label_numbers: Mapping[str, int],
    offset: float = 0.0,
) -> Path:
    """
    Write truth in AlphAction's form of COCO, which VideoMAE's code reads: one entry for each person, with the numbers
    of all labels.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        rows (`Sequence[KeyFrame]`):
            The key-frames; `video` must be the name of a movie.
        movies (`Sequence[str]`):
            Names of the movies by number, see [`read_movies`].
        label_numbers (`Mapping[str, int]`):
            Number of each label, from 1.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video, in seconds.

    Returns:
        `Path`: the file.
    """
    content = alphaction_annotations(rows, movies, label_numbers, offset)
    Path(path).write_text(json.dumps(content), encoding="utf-8")
    return Path(path)


def alphaction_annotations(
    rows: Iterable[KeyFrame], movies: Sequence[str], label_numbers: Mapping[str, int], offset: float = 0.0
) -> dict[str, list[dict[str, Any]]]:
    """
    Content of the file of [`write_alphaction`].

    Args:
        rows (iterable of [`KeyFrame`]):
            The key-frames.
        movies (`Sequence[str]`):
            Names of the movies by number.
        label_numbers (`Mapping[str, int]`):
            Number of each label, from 1.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video, in seconds.

    Returns:
        `dict[str, list[dict[str, Any]]]`: categories, annotations and images.

    Raises:
        ValueError: a movie has no number.
    """
    places = {name: place for place, name in enumerate(movies)}
    images, annotations = [], []
    for row in rows:
        if row.video not in places:
            raise ValueError(f"`movies` lacks {row.video!r}")
        timestamp = round(row.time + offset)
        image_id = ALPHACTION_FACTOR * places[row.video] + timestamp
        folder = f"{row.video}/{timestamp}"
        image = {"id": image_id, "img_path": f"{folder}.jpg", "video_path": f"{folder}.mp4"}
        size = {"height": row.height, "width": row.width}
        images.append(image | size | {"movie": row.video, "timestamp": timestamp})
        for index, (box, names, person) in enumerate(zip(row.boxes, row.labels, row.person_ids)):
            x, y, width, height = np.round([*box[:2], *(box[2:] - box[:2])], 2).tolist()
            annotations.append(
                {
                    "id": 1000 * image_id + index,
                    "image_id": image_id,
                    "category_id": 1,
                    "action_ids": sorted(label_numbers[name] for name in names),
                    "person_id": index if person is None else person,
                    "bbox": [x, y, width, height],
                    "area": round(width * height, 4),
                    "keypoints": [],
                    "iscrowd": 0,
                }
            )
    categories = [{"supercategory": "person", "id": 1, "name": "person"}]
    return {"categories": categories, "annotations": annotations, "images": images}


def _read_list(path: str | os.PathLike) -> list[dict[str, Any]]:
    content = parse_json(read_text(path, "`path`"), f"`path` {os.fspath(path)!r}")
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a list of people, got {type(content).__name__}")
    return content


def _above(table: BoxRows, threshold: float) -> tuple[BoxRows, Counter[str]]:
    assert table.scores is not None
    kept = table.scores >= threshold
    skipped = Counter({f"scores below {threshold:g}": int((~kept).sum())} if not kept.all() else {})
    return table.select(kept), skipped


def _grouped(table: BoxRows, sizes: Sizes, threshold: float) -> KeyFrames:
    table, skipped = _above(table, threshold)
    found = group_boxes(table, sizes)
    return KeyFrames(found.rows, found.skipped + skipped, found.missing)


# ---------------------------------------------------------------------- pickles


class _Mark:
    """Start of a group of values on the stack."""


class _Name:
    """A function or class that the pickle names; it is only compared with those that arrays need."""

    def __init__(self, module: Any, name: Any):
        self.path = f"{module}.{name}".replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if self.path not in BUILDERS:
            raise ValueError(f"it names {self.path}, which no array of numbers needs")


class _Array:
    """An array that is being built."""

    def __init__(self) -> None:
        self.value = np.empty(0)


class _Type:
    """A data type of numbers."""

    def __init__(self, code: Any):
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or code.lstrip("<>=|") not in NUMBERS:
            raise ValueError(f"it has an array of {code!r}, not of numbers")
        self.dtype = np.dtype(code)


NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
# Names that numpy's pickles use.
BUILDERS = (
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
    "builtins.bytes",
)
IGNORED = ("PROTO", "FRAME")
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBER_CODES = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
TEXT_CODES = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
BYTE_CODES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
STORE_CODES, LOAD_CODES = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


def read_plain_pickle(path: str | os.PathLike) -> Any:
    """
    Read a pickle of dictionaries, lists, text and numpy's arrays of numbers, without executing anything in it.

    Args:
        path (`str` or `os.PathLike`):
            The file, of any protocol.

    Returns:
        The value; arrays are found at most one level deep, in a dictionary or a list.

    Raises:
        ValueError: the file is damaged, or contains anything else. Nothing of it was run.
    """
    machine = _Machine()
    try:
        for code, argument, _ in pickletools.genops(Path(path).read_bytes()):
            machine.step(code.name, argument)
        (value,) = machine.stack
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError) as error:
        reason = str(error) if type(error) is ValueError else "it is damaged"
        raise ValueError(f"{path} is not read: {reason}. Nothing in it was run.") from error
    if isinstance(value, dict):
        return {key: _finished(one) for key, one in value.items()}
    return [_finished(one) for one in value] if isinstance(value, list) else _finished(value)


class _Machine:
    """The stack and the memo of a pickle that is being read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, code: str, argument: Any) -> None:
        """Follow one instruction, or refuse it."""
        stack = self.stack
        if code in NUMBER_CODES or code in TEXT_CODES or code in BYTE_CODES:
            stack.append(argument)
        elif code in STORE_CODES or code == "MEMOIZE":
            self.memo[len(self.memo) if code == "MEMOIZE" else argument] = stack[-1]
        elif code in LOAD_CODES:
            stack.append(self.memo[argument])
        elif code in TUPLES:
            stack[-TUPLES[code] :] = [tuple(stack[-TUPLES[code] :])]
        elif code == "MARK":
            stack.append(_Mark)
        elif code in EMPTY:
            stack.append(EMPTY[code]())
        elif code in FIXED:
            stack.append(FIXED[code])
        elif code in ("GLOBAL", "STACK_GLOBAL"):
            module, name = argument.split(" ", 1) if code == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(_Name(module, name))
        elif code == "REDUCE":
            values, function = stack.pop(), stack.pop()
            stack.append(_call(function, values))
        elif code == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif code not in IGNORED and code != "STOP":
            self._collect(code)

    def _collect(self, code: str) -> None:
        """Instructions that put values into a collection."""
        if code in ("TUPLE", "LIST", "DICT"):
            values = self._since_mark()
            pairs = dict(zip(values[::2], values[1::2])) if code == "DICT" else values
            self.stack.append(tuple(values) if code == "TUPLE" else pairs)
        elif code in ("APPEND", "APPENDS"):
            values = [self.stack.pop()] if code == "APPEND" else self._since_mark()
            assert type(self.stack[-1]) is list
            self.stack[-1].extend(values)
        elif code in ("SETITEM", "SETITEMS"):
            values = [self.stack.pop(-2), self.stack.pop()] if code == "SETITEM" else self._since_mark()
            assert type(self.stack[-1]) is dict
            self.stack[-1].update(zip(values[::2], values[1::2]))
        else:
            raise ValueError(f"it has the instruction {code}, which plain data does not need")

    def _since_mark(self) -> list[Any]:
        place = max(index for index, value in enumerate(self.stack) if value is _Mark)
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values


def _call(function: Any, values: Any) -> Any:
    """Result of one of `BUILDERS`. The names stand for what is done here; nothing is looked up."""
    path = function.path
    if path == "builtins.bytes":
        assert values == ()
        return b""
    if path == "numpy.dtype":
        return _Type(values[0])
    if path == "numpy.core.multiarray._reconstruct":
        return _Array()  # its type, shape and content follow
    if path == "_codecs.encode":
        assert values[1:] in ((), ("latin1",), ("latin-1",))
        return values[0].encode("latin-1")
    if path == "numpy.core.multiarray.scalar":
        return np.frombuffer(_as_bytes(values[1]), values[0].dtype, count=1)[0].item()
    if path == "numpy.core.numeric._frombuffer":
        content, kind, shape, order, *axes = values
        assert axes in ([], [None])
        result = _Array()
        result.value = _array(content, kind, shape, order == "F")
        return result
    raise ValueError(f"it calls {path}")


def _set_state(target: Any, state: Any) -> None:
    """Give an array its type, shape and content, or a type its byte order."""
    if isinstance(target, _Array):
        _, shape, kind, fortran, content = state
        target.value = _array(content, kind, shape, fortran)
    elif isinstance(target, _Type):
        assert state[2:5] == (None, None, None)  # neither a shape nor fields
        if state[1] in ("<", ">"):
            target.dtype = target.dtype.newbyteorder(state[1])
    else:
        raise ValueError(f"it changes the state of {type(target).__name__}")


def _array(content: Any, kind: _Type, shape: Sequence[int], fortran: bool) -> np.ndarray:
    flat = np.frombuffer(_as_bytes(content), kind.dtype)
    return flat.reshape(tuple(shape), order="F" if fortran else "C")


def _finished(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


def _as_bytes(content: Any) -> bytes:
    """Bytes; Python 2 wrote them as text."""
    return content.encode("latin-1") if isinstance(content, str) else bytes(content)


__all__ = [
    "alphaction_annotations",
    "read_alphaction_people",
    "read_fair_people",
    "read_internvideo_people",
    "read_movies",
    "read_plain_pickle",
    "write_alphaction",
]
