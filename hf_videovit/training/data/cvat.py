"""
CVAT for video 1.1: people as tracks, actions as attributes.

A track has a box on many frames and holds for one person. Actions are its check boxes that are on, the values of its
selects, or its own label. `outside` ends a person. Between two boxes of a track lies a straight line, as in CVAT.
"""

import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from .key_frames import KeyFrame, KeyFrames


# Values of a select that mean that nobody acts.
NO_ACTION = ("", "none", "no", "nothing", "undefined", "__undefined__", "unknown", "n/a", "false")
SHAPES = ("polygon", "polyline", "points", "cuboid", "ellipse", "skeleton", "mask")
CORNERS = ("xtl", "ytl", "xbr", "ybr")
DECIMALS = 4  # of pixels, in what is written


@dataclass
class Track:
    """
    One person, or another thing.

    Args:
        id (`int`):
            Its number.
        label (`str`):
            Its label.
        frames (`list[int]`, *optional*):
            Frames that have a box.
        boxes (`list[list[float]]`, *optional*):
            Corners x1, y1, x2, y2 in pixels, the second one exclusive.
        outside (`list[bool]`, *optional*):
            Whether it has left.
        actions (`list[tuple[str, ...]]`, *optional*):
            Names of the attributes that are on, sorted.
        lines (`list[int]`, *optional*):
            Line of each box in the file.
    """

    id: int
    label: str
    frames: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    outside: list[bool] = field(default_factory=list)
    actions: list[tuple[str, ...]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def in_order(self) -> "Track":
        """
        The same track.

        Returns:
            [`Track`] with frames that grow.
        """
        order = sorted(range(len(self.frames)), key=self.frames.__getitem__)
        return Track(
            self.id,
            self.label,
            [self.frames[index] for index in order],
            [self.boxes[index] for index in order],
            [self.outside[index] for index in order],
            [self.actions[index] for index in order],
            [self.lines[index] for index in order],
        )

    def at(self, frame: int) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """
        Box and actions on a frame.

        Args:
            frame (`int`):
                Number of the frame.

        Returns:
            `tuple[np.ndarray, tuple[str, ...]]`, or `None` where it is not seen.
        """
        last = int(np.searchsorted(self.frames, frame, side="right")) - 1
        if last < 0 or self.outside[last]:
            return None
        box = np.asarray(self.boxes[last])
        if self.frames[last] != frame:
            if last + 1 == len(self.frames):
                return None
            share = (frame - self.frames[last]) / (self.frames[last + 1] - self.frames[last])
            box = box + share * (np.asarray(self.boxes[last + 1]) - box)
        return box, self.actions[last]


@dataclass
class CvatFile:
    """
    The content of a file.

    Args:
        tracks (`list[Track]`):
            The tracks, with frames in order.
        width, height (`int`):
            Size of the video in pixels.
        num_frames (`int`):
            Frames of the task; 0 if the file does not tell.
        source (`str`):
            Name of the video; empty if the file does not tell.
        skipped (`Counter[str]`):
            Number of shapes that are not boxes.
    """

    tracks: list[Track]
    width: int
    height: int
    num_frames: int
    source: str
    skipped: Counter[str]


def read_cvat(
    path: str | os.PathLike,
    fps: float,
    every: int,
    video: str | None = None,
    timestamps: Sequence[float] | np.ndarray | None = None,
    person_label: str | None = "person",
) -> KeyFrames:
    """
    Key-frames of a file.

    Args:
        path (`str` or `os.PathLike`):
            The file. One that declares entities is refused.
        fps (`float`):
            Frames per second of the video.
        every (`int`):
            Distance of the key-frames in frames; the first is frame 0.
        video (`str`, *optional*):
            Name of the video in the rows; that in the file by default.
        timestamps (`Sequence[float]`, *optional*):
            Time of each frame in seconds, for videos whose frames are not evenly spaced.
        person_label (`str`, *optional*, defaults to `"person"`):
            Label of the tracks that are people. `None`: all tracks are people, and their labels are actions.

    Returns:
        [`KeyFrames`]: key-frames with at least one person.

    Raises:
        ValueError: the file is not of that format, no track has the label, or `every` or `fps` is not positive.
    """
    if every < 1 or not fps > 0:
        raise ValueError(f"`every` must be at least 1 and `fps` positive, got {every} and {fps}")
    content = parse_cvat(path)
    labels = sorted({track.label for track in content.tracks})
    people = [track for track in content.tracks if person_label in (None, track.label)]
    people.sort(key=lambda track: track.id)
    if content.tracks and not people:
        raise ValueError(
            f"{path}: no track is labelled {person_label!r}, but {', '.join(labels)}. Give `person_label`, or None if "
            "the labels of the tracks are actions"
        )
    name = video or content.source
    if not name:
        raise ValueError(f"{path} does not name its video: give `video`")
    skipped = Counter(content.skipped)
    if len(people) < len(content.tracks):
        skipped["tracks that are no people"] = len(content.tracks) - len(people)
    ends = max((track.frames[-1] + 1 for track in people if track.frames), default=0)
    rows = []
    for frame in range(0, ends, every):
        seen = [(track, *found) for track in people if (found := track.at(frame)) is not None]
        seen = [one for one in seen if (one[1][2:] > one[1][:2]).all()]
        if seen:
            tracks, boxes, actions = zip(*seen)
            if person_label is None:
                actions = tuple(tuple(sorted({*names, track.label})) for track, names in zip(tracks, actions))
            time = frame / fps if timestamps is None else _time(timestamps, frame, path)
            ids = tuple(track.id for track in tracks)
            rows.append(KeyFrame(name, time, content.width, content.height, np.stack(boxes), actions, ids, frame))
    return KeyFrames(rows, skipped)


def _time(timestamps: Sequence[float] | np.ndarray, frame: int, path: str | os.PathLike) -> float:
    if frame >= len(timestamps):
        raise ValueError(f"{path} has boxes on frame {frame}, the video has {len(timestamps)} frames")
    return float(timestamps[frame])


def parse_cvat(path: str | os.PathLike) -> CvatFile:
    """
    Tracks of a file.

    Args:
        path (`str` or `os.PathLike`):
            The file.

    Returns:
        [`CvatFile`]

    Raises:
        ValueError: the file is not XML, declares a document type (entities), or is not CVAT for video.
    """
    reader = _Reader(path)
    try:
        with Path(path).open("rb") as file:
            reader.parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is not XML: {error}") from error
    return reader.finish()


class _Reader:
    """Collects tracks while expat reads the file. Nothing else of it is kept in memory."""

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        # entities are declared in a document type; CVAT writes none
        self.parser.StartDoctypeDeclHandler = self.refuse
        self.parser.EntityDeclHandler = self.refuse
        self.open: list[str] = []
        self.words: list[str] = []
        self.tracks: list[Track] = []
        self.facts: dict[str, str] = {}
        self.kinds: dict[str, str] = {}  # input type of each attribute that the file declares
        self.declared = ""
        self.attribute = ""
        self.constant: dict[str, str] = {}  # attributes of the whole track
        self.values: dict[str, str] = {}
        self.skipped: Counter[str] = Counter()

    def refuse(self, *declaration: Any) -> None:
        self.fail("it declares a document type or entities, which CVAT does not write")

    def fail(self, reason: str) -> None:
        raise ValueError(f"{self.path}, line {self.parser.CurrentLineNumber}: {reason}")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.open and name != "annotations":
            self.fail(f"CVAT's files start with <annotations>, not <{name}>")
        self.open.append(name)
        self.words = []
        try:
            if name == "track":
                self.tracks.append(Track(int(attributes["id"]), attributes["label"]))
                self.constant = {}
            elif name == "box" and self.open[-2] == "track":
                self.values = {}
                track = self.tracks[-1]
                track.frames.append(int(attributes["frame"]))
                track.boxes.append([float(attributes[corner]) for corner in CORNERS])
                track.outside.append(attributes.get("outside", "0") == "1")
                track.lines.append(self.parser.CurrentLineNumber)
            elif name == "attribute" and "meta" not in self.open:
                self.attribute = attributes["name"]
            elif name in SHAPES:
                self.skipped[f"shapes of the kind {name}"] += 1
            elif name == "image":
                self.fail("it is CVAT for images; export the task as CVAT for video 1.1")
        except (KeyError, ValueError) as error:
            if str(self.path) in str(error):
                raise
            self.fail(f"<{name}> lacks {error}" if isinstance(error, KeyError) else f"<{name}>: {error}")

    def text(self, words: str) -> None:
        self.words.append(words)

    def end(self, name: str) -> None:
        self.open.pop()
        words, self.words = "".join(self.words).strip(), []
        inside = self.open[-1] if self.open else ""
        if "meta" in self.open:
            if inside == "attribute" and name == "name":
                self.declared = words
            elif inside == "attribute" and name == "input_type":
                self.kinds[self.declared] = words.lower()
            else:
                self.facts.setdefault(f"{inside}/{name}", words)
        elif name == "attribute":
            (self.values if inside == "box" else self.constant)[self.attribute] = words
        elif name == "box" and inside == "track":
            self.tracks[-1].actions.append(self.actions({**self.constant, **self.values}))

    def actions(self, values: dict[str, str]) -> tuple[str, ...]:
        """Check boxes that are on and values of selects."""
        found = set()
        for name, value in values.items():
            kind = self.kinds.get(name, "")
            if value.lower() == "true":
                found.add(name)
            elif (
                value.lower() not in NO_ACTION and kind not in ("number", "text", "checkbox") and not _is_number(value)
            ):
                found.add(value)
        return tuple(sorted(found))

    def finish(self) -> CvatFile:
        self.tracks = [track.in_order() for track in self.tracks]
        for track in self.tracks:
            if len(set(track.frames)) < len(track.frames):
                raise ValueError(f"{self.path}: track {track.id} has two boxes on one frame")
        if any(key.startswith("project/") for key in self.facts):
            raise ValueError(f"{self.path} is a project of several tasks; export each task for itself")
        width, height = (self.facts.get(f"original_size/{side}", "") for side in ("width", "height"))
        if not (width.isdigit() and height.isdigit()):
            raise ValueError(f"{self.path} does not tell the size of its video (<original_size>)")
        frames = self.facts.get("task/size", self.facts.get("job/size", ""))
        source = self.facts.get("meta/source", self.facts.get("task/source", ""))
        return CvatFile(
            self.tracks, int(width), int(height), int(frames) if frames.isdigit() else 0, source, self.skipped
        )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def write_cvat(
    path: str | os.PathLike,
    rows: Iterable[KeyFrame],
    label_names: Sequence[str] | None = None,
    person_label: str = "person",
) -> Path:
    """
    Write the key-frames of one video: a track for each person, a check box for each label. Import it in CVAT as CVAT
    1.1 to correct boxes and actions.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        rows (iterable of [`KeyFrame`]):
            Key-frames of one video at equal distances, with `frame`; those that are left out have nobody. Predictions
            must be decided first, see [`KeyFrame.above`]. People without a number become tracks of a single frame.
        label_names (`Sequence[str]`, *optional*):
            Names of all labels; those that occur by default.
        person_label (`str`, *optional*, defaults to `"person"`):
            Label of the tracks.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: there is no row, rows are of several videos or have `label_scores` or no `frame`, or a name is not
            in `label_names`.
    """
    rows = sorted(rows, key=lambda row: -1 if row.frame is None else row.frame)
    _check_rows(rows)
    used = KeyFrames(rows).label_names
    names = used if label_names is None else list(label_names)
    if set(used) - set(names):
        raise ValueError(f"`label_names` lacks {', '.join(sorted(set(used) - set(names)))}")
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    root.append(_meta(rows, names, person_label))
    frames = [int(row.frame or 0) for row in rows]
    step = min(np.diff(frames), default=1)
    for number, boxes in sorted(_by_person(rows).items()):
        track = ET.SubElement(root, "track", id=str(number), label=person_label, source="file")
        places = [place for place, _ in boxes]
        for (place, person), following in zip(boxes, [*places[1:], None]):
            _add_box(track, rows[place], person, names, frames[place])
            if following is None or frames[following] > frames[place] + step:
                _add_box(track, rows[place], person, names, int(frames[place] + step), outside=True)
    ET.indent(root)
    Path(path).write_bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
    return Path(path)


def _check_rows(rows: Sequence[KeyFrame]) -> None:
    videos = sorted({row.video for row in rows})
    if len(videos) != 1:
        raise ValueError(f"`rows` must be of one video, got {len(videos)}: {', '.join(videos[:3])}")
    if any(row.frame is None for row in rows):
        raise ValueError(f"`rows` of {videos[0]} must have `frame`")
    if any(row.label_scores is not None for row in rows):
        raise ValueError("`rows` have `label_scores`: choose labels with `KeyFrame.above` first")


def _by_person(rows: Sequence[KeyFrame]) -> dict[int, list[tuple[int, int]]]:
    """Key-frames and place in them of each person, by the number of the track."""
    known = [number for row in rows for number in row.person_ids if number is not None]
    following = max(known, default=-1) + 1
    people: dict[int, list[tuple[int, int]]] = {}
    for place, row in enumerate(rows):
        for index, number in enumerate(row.person_ids):
            if number is None:
                number, following = following, following + 1
            people.setdefault(number, []).append((place, index))
    return people


def _add_box(
    track: ET.Element, row: KeyFrame, person: int, names: Sequence[str], frame: int, outside: bool = False
) -> None:
    corners = {corner: f"{value:.{DECIMALS}f}" for corner, value in zip(CORNERS, row.boxes[person])}
    state = {"frame": str(frame), "outside": str(int(outside)), "occluded": "0", "keyframe": "1"}
    box = ET.SubElement(track, "box", {**state, **corners, "z_order": "0"})
    for name in names:
        ET.SubElement(box, "attribute", name=name).text = "true" if name in row.labels[person] else "false"


def _meta(rows: Sequence[KeyFrame], names: Sequence[str], person_label: str) -> ET.Element:
    meta = ET.Element("meta")
    task = ET.SubElement(meta, "task")
    ET.SubElement(task, "name").text = rows[0].video
    ET.SubElement(task, "size").text = str(int(rows[-1].frame or 0) + 1)
    ET.SubElement(task, "mode").text = "interpolation"
    label = ET.SubElement(ET.SubElement(task, "labels"), "label")
    ET.SubElement(label, "name").text = person_label
    attributes = ET.SubElement(label, "attributes")
    for name in names:
        attribute = ET.SubElement(attributes, "attribute")
        parts = {
            "name": name,
            "mutable": "True",
            "input_type": "checkbox",
            "default_value": "false",
            "values": "false",
        }
        for part, value in parts.items():
            ET.SubElement(attribute, part).text = value
    size = ET.SubElement(task, "original_size")
    ET.SubElement(size, "width").text = str(rows[0].width)
    ET.SubElement(size, "height").text = str(rows[0].height)
    ET.SubElement(task, "source").text = rows[0].video
    return meta


__all__ = ["CvatFile", "Track", "parse_cvat", "read_cvat", "write_cvat"]
