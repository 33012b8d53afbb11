"""Result of an evaluation of a detector of objects or of a pose model, and the claim about it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.markup import escape
from rich.table import Column, Table

from ..data.bad_videos import BadVideo
from ..data.coco_images import ObjectSource, find_objects, read_objects
from ..data.streaming import ClipStream
from .claims import Claim
from .evaluation import gathered
from .results import Result


@dataclass
class ObjectResult(Result):
    """
    Predictions in COCO's format, and their metrics.

    Args:
        predictions (`list[dict]`):
            COCO's results, in the order of the data.
        num_images (`int`):
            Number of images.
        metrics (`dict[str, float]`, *optional*, defaults to `{}`):
            Metrics by name, from 0 to 1.
        per_class (`list[dict]`, *optional*, defaults to `[]`):
            `label` and `average_precision` (`None` without objects) of each category.
        boxes (`str`, *optional*, defaults to `""`):
            Pose estimation: which people were looked at.
        failed (`list[dict]`, *optional*, defaults to `[]`):
            Images that could not be read: their objects count as missed.
        protocol (`dict`, *optional*, defaults to `{}`):
            Settings of processor and metric.
        manifest (`str`, *optional*):
            SHA-256 of the annotations, see [`objects_hash`].
        environment (`dict`, *optional*, defaults to `{}`):
            Versions, device, command.
        seconds (`float`, *optional*, defaults to 0.0):
            Duration in seconds.
    """

    predictions: list[dict[str, Any]]
    num_images: int
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    boxes: str = ""
    failed: list[dict[str, Any]] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
    manifest: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything except the predictions, as plain values."""
        return {
            "metrics": self.metrics,
            "per_class": self.per_class,
            **({"boxes": self.boxes} if self.boxes else {}),
            "num_images": self.num_images,
            "num_predictions": len(self.predictions),
            "num_failed": len(self.failed),
            "failed": self.failed,
            "protocol": self.protocol,
            "manifest_sha256": self.manifest,
            "environment": self.environment,
            "seconds": round(self.seconds, 3),
        }

    def save_predictions(self, path: str | Path) -> None:
        """
        Write the predictions as COCO's results, which its server and other tools score.

        Args:
            path (`str` or `Path`):
                The file (.json).
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.predictions), encoding="utf-8")

    def table(self) -> Table:
        """The categories as a table for `rich.print`, the worst first."""
        table = Table(
            Column("label", overflow="fold"), Column("average precision", justify="right"), box=None, pad_edge=False
        )
        known = [row for row in self.per_class if row["average_precision"] is not None]
        for row in sorted(known, key=lambda one: one["average_precision"]):
            table.add_row(escape(row["label"]), f"{100 * row['average_precision']:.1f} %")
        return table


@dataclass(frozen=True)
class ObjectClaim(Claim):
    """
    The data and settings of an evaluation, as `results.json` records them.

    Args:
        data (`str`):
            The annotations (COCO's JSON).
        data_root (`str`, *optional*):
            Folder of the images. Defaults to that of the annotations.
        people (`str`, *optional*):
            Pose estimation: COCO's results with detected people; `None` for annotated boxes.
        flip_test (`bool`, *optional*, defaults to `True`):
            Pose estimation: whether to average with flipped crops.
        pck_threshold (`float`, *optional*, defaults to 0.1):
            Pose estimation: see [`correct_keypoints`].
        sigmas (`Sequence[float]`, *optional*):
            Pose estimation: see [`keypoint_sigmas`].
        max_samples (`int`, *optional*):
            Largest number of images; more are sampled by `seed`.
        seed (`int`, *optional*, defaults to 0):
            Seed of the run.
    """

    files = (("data", "data"), ("people", "boxes"))

    data: str
    data_root: str | None = None
    people: str | None = None
    flip_test: bool = True
    pck_threshold: float = 0.1
    sigmas: Sequence[float] | None = None
    max_samples: int | None = None
    seed: int = 0

    def open(self, label_names: Sequence[str], pose: bool) -> ObjectSource:
        """
        Open the annotations.

        Args:
            label_names (`Sequence[str]`):
                Labels of the model.
            pose (`bool`):
                Whether the labels are keypoints.

        Returns:
            [`ObjectSource`]: one sample an image.

        Raises:
            ValueError: the file is not COCO's, or has other labels.
        """
        kind: Any = "keypoints" if pose else "instances"
        split = "train" if Path(self.data).is_file() else None
        found = find_objects(self.data, split, kind, self.data_root)
        if found is None:
            raise ValueError(f"`data` {self.data!r} has no annotations to evaluate on, such as instances_val.json")
        source = read_objects(*found, kind=kind)
        if pose:
            check_keypoints(source, label_names)
        else:
            source = source.with_label_names(label_names)
        return source.sample(self.max_samples, self.seed)


def check_keypoints(source: ObjectSource, names: Sequence[str]) -> None:
    """
    Refuse data whose keypoints are not those of the model.

    Args:
        source ([`ObjectSource`]):
            The data.
        names (`Sequence[str]`):
            Keypoints of the model.

    Raises:
        ValueError: the names or their order differ.
    """
    theirs = [str(one) for one in source.categories[0]["keypoints"]]
    if theirs != list(names):
        raise ValueError(f"{source.path} has the keypoints {', '.join(theirs)}, the model {', '.join(names)}")


def objects_hash(source: ObjectSource) -> str:
    """
    Hash of the annotations that a result was measured on. Neither the folder of the images nor their order matters.

    Args:
        source ([`ObjectSource`]):
            The annotations.

    Returns:
        `str`: SHA-256 in hexadecimal.
    """
    rows = (source.row(index) for index in range(len(source)))
    lines = sorted(json.dumps([image["name"], objects], sort_keys=True) for image, objects in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def failures_of(bad: Sequence[BadVideo], stream: ClipStream, accelerator: Accelerator | None) -> list[dict[str, Any]]:
    """
    The samples that no process could read, in the order of the data.

    Args:
        bad (`Sequence[BadVideo]`):
            Those of this process.
        stream ([`ClipStream`]):
            The samples.
        accelerator (`Accelerator` or `None`):
            The processes.

    Returns:
        `list[dict]`: `id`, `reason` and `kind` of each.
    """
    own = [(stream.source.place(one.position, stream.rank, stream.world), one) for one in bad]
    found = sorted(gathered(own, accelerator), key=lambda pair: pair[0])
    return [{"id": one.id, "reason": one.reason, "kind": one.kind} for _, one in found]


__all__ = ["ObjectClaim", "ObjectResult", "check_keypoints", "failures_of", "objects_hash"]
