"""Entries of the official checkpoints: file, protocol, results and licences, checked as they are read."""

import os
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from .label_lists import one_of, published_labels


FRAME_SAMPLINGS = ("dense", "dense_cyclic", "segment", "span", "span_from_start", "sparse", "sparse_middle", "uniform")
KEYPOINTS = "keypoint-detection"
OBJECTS, SEMANTICS = "object-detection", "semantic-segmentation"
IMAGE_TASKS = ("image-classification", "backbone", KEYPOINTS, OBJECTS, SEMANTICS)
CLASSIFICATION_TASKS = ("video-classification", "image-classification")
ACTION_DETECTION = "action-detection"
LOCALIZATION = "temporal-action-localization"
TASKS = ("video-classification", ACTION_DETECTION, LOCALIZATION, "feature-extraction", "pretraining", *IMAGE_TASKS)
NEVER_RELEASED = "never released"
AVAILABILITIES = ("listed", "cloud drive", "not listed", "dead link", NEVER_RELEASED)
RESULT_KINDS = ("zoo", "paper", "third party", "recalled-unverified")
METRICS = (
    *("top1", "top5", "mean_average_precision"),
    *("box_average_precision", "mask_average_precision", "keypoint_average_precision", "mean_iou"),
)
DTYPES = ("float16", "float32")
HUB = "https://huggingface.co"
SUFFIXES = (".pth", ".pyth", ".pt", ".bin", ".tar", ".safetensors")


@dataclass(frozen=True)
class PublishedFile:
    """
    An official file.

    Args:
        repository (`str`, *optional*):
            Hub repository that lists the file.
        path (`str`, *optional*):
            Path in the repository.
        url (`str`, *optional*):
            Address, if the file is in no Hub repository.
        sha256 (`str`, *optional*):
            Checksum, if one is listed.
        bytes (`int`, *optional*):
            Size as listed; `None` if only the rounded `size` is known.
        size (`str`, *optional*):
            Rounded size with its unit.
        dtype (`str`, *optional*):
            Data type of the tensors.
        wrapper (`str`, *optional*):
            Entry of the file that holds the weights; `None` for none or unknown.
        availability (`str`, *optional*, defaults to `"listed"`):
            `"listed"`, `"cloud drive"` (linked by its authors, download with a browser), `"not listed"` (results are
            published, the file is not), `"dead link"`, or `"never released"`.

    Raises:
        ValueError: a value is not allowed, or a listed file has no address.
    """

    repository: str | None = None
    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    size: str | None = None
    dtype: str | None = None
    wrapper: str | None = None
    availability: str = "listed"

    @property
    def address(self) -> str | None:
        """URL under which any program can get the file; `None` if there is none, or a browser is needed."""
        if self.availability != "listed":
            return None
        if self.repository is not None:
            return f"{os.environ.get('HF_ENDPOINT', HUB)}/{self.repository}/resolve/main/{quote(str(self.path))}"
        parts = urlsplit(str(self.url))
        if PurePosixPath(parts.path).suffix not in SUFFIXES:
            return None
        return f"{self.url}?dl=1" if parts.hostname == "www.dropbox.com" and not parts.query else self.url

    @property
    def name(self) -> str:
        """Name of the file; `FILE` if it is not known."""
        named = self.path or (self.url if self.address else None)
        return PurePosixPath(urlsplit(named).path).name if named else "FILE"

    def __post_init__(self) -> None:
        one_of("availability", self.availability, AVAILABILITIES)
        if self.dtype is not None:
            one_of("dtype", self.dtype, DTYPES)
        if self.availability == "listed" and self.url is None and (self.repository is None or self.path is None):
            raise ValueError("A listed file needs `repository` and `path`, or `url`.")


@dataclass(frozen=True)
class PublishedProtocol:
    """
    Evaluation protocol of the published numbers; see the fields of the family's video processor.

    Args:
        num_frames (`int`, *optional*, defaults to 16):
            Frames of a clip.
        frame_sampling (`str`, *optional*, defaults to `"dense"`):
            One of `FRAME_SAMPLINGS`.
        frame_stride (`int`, *optional*, defaults to 4):
            Distance of the sampled frames in frames of the video.
        frame_rate (`float`, *optional*):
            Frames per second of the sampled clip, if the protocol sets a rate instead of a stride.
        num_clips (`int`, *optional*, defaults to 1):
            Clips per video.
        num_crops (`int`, *optional*, defaults to 1):
            Crops per clip.
        image_size (`int`, *optional*, defaults to 224):
            Height and width of a crop in pixels.
        image_mean (`tuple[float, ...]`, *optional*, defaults to `(0.485, 0.456, 0.406)`):
            Mean of each channel, for pixels in [0, 1].
        image_std (`tuple[float, ...]`, *optional*, defaults to `(0.229, 0.224, 0.225)`):
            Standard deviation of each channel.
        antialias (`bool`, *optional*, defaults to `False`):
            Whether resizing uses antialiasing.
        view_merging (`str`, *optional*, defaults to `"softmax_mean"`):
            `"softmax_mean"` averages the probabilities of the views, `"logits_mean"` their logits.
        processor (`dict[str, Any]`, *optional*):
            Further fields of the video processor: those of action detection, such as `sampling_fps`. With
            `rescale_factor` 1.0, `image_mean` and `image_std` are for pixels in [0, 255]. For a localiser, fields of
            its processor of features; the others are then those of its encoder's clips, if it has one.

    Raises:
        ValueError: a value is not allowed.
    """

    num_frames: int = 16
    frame_sampling: str = "dense"
    frame_stride: int = 4
    frame_rate: float | None = None
    num_clips: int = 1
    num_crops: int = 1
    image_size: int = 224
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    antialias: bool = False
    view_merging: str = "softmax_mean"
    processor: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("frame_sampling", self.frame_sampling, FRAME_SAMPLINGS)
        one_of("view_merging", self.view_merging, ("softmax_mean", "logits_mean"))
        for name in ("num_frames", "frame_stride", "num_clips", "num_crops", "image_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class PublishedResult:
    """
    A reported result.

    Args:
        data (`str`):
            Data set.
        metric (`str`):
            One of `METRICS`.
        value (`float`):
            In percent.
        source (`str`):
            Who reports it.
        kind (`str`):
            `"zoo"` (the official model zoo), `"paper"`, `"third party"`, or `"recalled-unverified"` (not checked in
            its source).
        views (`str`, *optional*):
            `frames x clips x crops` of a video.
        url (`str`, *optional*):
            Address of the source.
        note (`str`, *optional*):
            Further conditions.

    Raises:
        ValueError: a value is not allowed.
    """

    data: str
    metric: str
    value: float
    source: str
    kind: str
    views: str | None = None
    url: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        one_of("metric", self.metric, METRICS)
        one_of("kind", self.kind, RESULT_KINDS)
        if not 0 < self.value <= 100:
            raise ValueError(f"`value` is in percent, got {self.value}.")


@dataclass(frozen=True)
class PublishedLicence:
    """
    A licence as one source states it.

    Args:
        source (`str`):
            Who states it.
        licence (`str`):
            Licence id, such as `"apache-2.0"`.
        covers (`str`, *optional*, defaults to `"weights"`):
            `"weights"` or `"code"`.
    """

    source: str
    licence: str
    covers: str = "weights"


@dataclass(frozen=True)
class PublishedCheckpoint:
    """
    One official checkpoint.

    Args:
        name (`str`):
            Name in this package.
        model_type (`str`):
            Family.
        size (`str`):
            Preset of the family's configuration.
        summary (`str`):
            Description in one sentence.
        task (`str`):
            Task of the file: `"video-classification"`, `"action-detection"`, `"temporal-action-localization"`,
            `"image-classification"`, `"object-detection"`, `"semantic-segmentation"`, `"keypoint-detection"`,
            `"feature-extraction"` or `"pretraining"`.
        file ([`PublishedFile`]):
            The official file.
        num_labels (`int`, *optional*):
            Number of classes; `None` for a model without a classifier.
        labels (`str`, *optional*):
            Its label list, for [`published_labels`]; `None` if the names are not part of this package.
        config (`dict[str, Any]`, *optional*):
            Fields of the configuration that differ from those of `size` and that no tensor shape shows, such as
            UniFormer's `head_dim`. A detector names its `detector`, a segmenter its `segmenter`; both have the fields
            of their backbone in `backbone_config`.
        protocol ([`PublishedProtocol`], *optional*):
            Evaluation protocol.
        licences (`tuple[PublishedLicence, ...]`, *optional*, defaults to `()`):
            Licences as each source states them.
        results (`tuple[PublishedResult, ...]`, *optional*, defaults to `()`):
            Results as each source reports them.
        notes (`tuple[str, ...]`, *optional*, defaults to `()`):
            Remarks for the card.
        method (`str`, *optional*):
            Method to cite on the card, if it is not that of the family.
        parameters (`int`, *optional*):
            Number of parameters, counted on the model of this package.
        gmacs (`float`, *optional*):
            Multiply-accumulates in 10^9 of one view, counted on the model of this package: of an action detector or a
            pretraining model those of its encoder, of a localiser of features those of its longest sequence, of a
            detector of objects those of 800 x 1280 pixels, of a segmenter those of 512 x 2048. `None` where the input
            has no fixed size.

    Raises:
        ValueError: a value is not allowed, or `num_labels` does not match `task` or `labels`.
    """

    name: str
    model_type: str
    size: str
    summary: str
    task: str
    file: PublishedFile
    num_labels: int | None = None
    labels: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    protocol: PublishedProtocol = field(default_factory=PublishedProtocol)
    licences: tuple[PublishedLicence, ...] = ()
    results: tuple[PublishedResult, ...] = ()
    notes: tuple[str, ...] = ()
    method: str | None = None
    parameters: int | None = None
    gmacs: float | None = None

    def __post_init__(self) -> None:
        one_of("task", self.task, TASKS)
        if self.labels is not None and len(published_labels(self.labels)) != self.num_labels:
            raise ValueError(f"`labels` {self.labels} of {self.name} does not have {self.num_labels} names.")
        named = (*CLASSIFICATION_TASKS, ACTION_DETECTION, LOCALIZATION, KEYPOINTS, OBJECTS, SEMANTICS)
        if (self.task in named) != (self.num_labels is not None):
            raise ValueError(
                f"`num_labels` of {self.name} must be given for a classifier, detector, localiser or pose estimator, "
                "and only there."
            )


__all__ = [
    "ACTION_DETECTION",
    "AVAILABILITIES",
    "CLASSIFICATION_TASKS",
    "IMAGE_TASKS",
    "KEYPOINTS",
    "OBJECTS",
    "SEMANTICS",
    "LOCALIZATION",
    "METRICS",
    "NEVER_RELEASED",
    "TASKS",
    "PublishedCheckpoint",
    "PublishedFile",
    "PublishedLicence",
    "PublishedProtocol",
    "PublishedResult",
]
