"""
Facts about the official checkpoints: sizes, files, labels, protocols, licences and results, each with its source.

`list_published()` lists the checkpoints. `published_config`, `published_labels` and `published_processor_kwargs`
return what a converted checkpoint needs.
"""

import json
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from transformers import CONFIG_MAPPING, PreTrainedConfig

from .localizers import feature_processor_fields


FOLDER = Path(__file__).parent
FRAME_SAMPLINGS = ("dense", "dense_cyclic", "segment", "span", "span_from_start", "sparse", "sparse_middle", "uniform")
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
    *("coco-keypoints", "ava"),
)
AVA_SUBSETS = ("evaluated", "person_movement", "object_manipulation", "person_interaction")
KEYPOINTS = "keypoint-detection"
IMAGE_TASKS = ("image-classification", "backbone", KEYPOINTS)
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
            `"image-classification"`, `"backbone"` (feature maps for dense prediction), `"keypoint-detection"`,
            `"feature-extraction"` or `"pretraining"`.
        file ([`PublishedFile`]):
            The official file.
        num_labels (`int`, *optional*):
            Number of classes; `None` for a model without a classifier.
        labels (`str`, *optional*):
            Its label list, for [`published_labels`]; `None` if the names are not part of this package.
        config (`dict[str, Any]`, *optional*):
            Fields of the configuration that differ from those of `size` and that no tensor shape shows, such as
            UniFormer's `head_dim`.
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

    def __post_init__(self) -> None:
        one_of("task", self.task, TASKS)
        if self.labels is not None and len(published_labels(self.labels)) != self.num_labels:
            raise ValueError(f"`labels` {self.labels} of {self.name} does not have {self.num_labels} names.")
        named = (*CLASSIFICATION_TASKS, ACTION_DETECTION, LOCALIZATION, KEYPOINTS)
        if (self.task in named) != (self.num_labels is not None):
            raise ValueError(
                f"`num_labels` of {self.name} must be given for a classifier, detector, localiser or pose estimator, "
                "and only there."
            )


def list_published(model_type: str | None = None) -> list[str]:
    """
    Names of the official checkpoints that this package knows.

    Args:
        model_type (`str`, *optional*):
            Only those of one family.

    Returns:
        `list[str]`: the names.

    Raises:
        ValueError: the family does not exist.
    """
    types = sorted({entry.model_type for entry in _entries().values()})
    if model_type is not None:
        one_of("model_type", model_type, types)
    return [name for name, entry in _entries().items() if model_type in (None, entry.model_type)]


def published_entry(name: str) -> PublishedCheckpoint:
    """
    Entry of an official checkpoint.

    Args:
        name (`str`):
            One of [`list_published`].

    Returns:
        [`PublishedCheckpoint`]

    Raises:
        ValueError: the checkpoint does not exist.
    """
    one_of("name", name, list(_entries()))
    return _entries()[name]


def published_config(name: str) -> PreTrainedConfig:
    """
    Configuration of an official checkpoint, with its class names if they are known.

    Args:
        name (`str`):
            One of [`list_published`].

    Returns:
        [`PreTrainedConfig`]

    Raises:
        ValueError: the checkpoint does not exist.

    Example:
    ```python
    >>> from hf_videovit import published_config

    >>> published_config("videomae-v2-base-k710-distilled").id2label[0]
    'riding a bike'
    ```"""
    entry = published_entry(name)
    fields: dict[str, Any] = {} if entry.task == LOCALIZATION else {"image_size": entry.protocol.image_size}
    if entry.task not in (*IMAGE_TASKS, LOCALIZATION):
        fields |= {"num_frames": entry.protocol.num_frames, "view_merging": entry.protocol.view_merging}
    fields |= entry.config
    if entry.labels == "ava":
        fields["detection_config"] = {**fields["detection_config"], "evaluated_labels": ava_rows("evaluated")}
    if entry.labels is not None:
        fields |= label_fields(published_labels(entry.labels))
    elif entry.num_labels is not None:
        fields["num_labels"] = entry.num_labels
    return CONFIG_MAPPING[entry.model_type].from_size(entry.size, **fields)


def published_processor_kwargs(name: str) -> dict[str, Any]:
    """
    Arguments of the family's video processor, or image processor for a task on images, or processor of features for a
    localiser, for the evaluation protocol of a checkpoint.

    Args:
        name (`str`):
            One of [`list_published`].

    Returns:
        `dict[str, Any]`: the arguments.

    Raises:
        ValueError: the checkpoint does not exist.
    """
    protocol, task = published_entry(name).protocol, published_entry(name).task
    if task == LOCALIZATION:
        config: Any = published_config(name)
        return {**protocol.processor, **feature_processor_fields(getattr(config, "localizer_config", config))}
    normalisation = {"image_mean": list(protocol.image_mean), "image_std": list(protocol.image_std)}
    if task == KEYPOINTS:
        height, width = published_entry(name).config["image_size"]
        return {"size": {"height": height, "width": width}, **normalisation}
    if task == "backbone":  # the detector or segmenter decides on sizes
        return {"do_resize": False, "do_center_crop": False, **normalisation}
    crop = {"height": protocol.image_size, "width": protocol.image_size}
    rate = {} if protocol.frame_rate is None else {"frame_rate": protocol.frame_rate}
    if task == "image-classification":
        return {"size": {"shortest_edge": 256 * protocol.image_size // 224}, "crop_size": crop, **normalisation}
    if task == ACTION_DETECTION:
        return {
            "num_frames": protocol.num_frames,
            "frame_stride": protocol.frame_stride,
            "size": {"shortest_edge": 256 * protocol.image_size // 224},
            "crop_size": crop,
            "do_center_crop": False,  # of training
            **normalisation,
            **protocol.processor,
        }
    return {
        "num_frames": protocol.num_frames,
        "frame_sampling": protocol.frame_sampling,
        "frame_stride": protocol.frame_stride,
        **rate,
        "num_clips": protocol.num_clips,
        "num_crops": protocol.num_crops,
        "size": {"shortest_edge": protocol.image_size},
        "crop_size": crop,
        **normalisation,
        "antialias": protocol.antialias,
    }


def published_labels(name: str) -> list[str]:
    """
    Class names in the order of published heads.

    Args:
        name (`str`):
            `"k400"`, `"k600"`, `"k700"` or `"k710"`: Kinetics as VideoMAE V2's heads order it. `"k400-uniformer"`: the
            order of all official UniFormer and UniFormerV2 heads (their Kinetics-710 is `"k710"`). `"k400-mmaction2"`,
            `"k600-mmaction2"`, `"k700-mmaction2"`, `"k710-mmaction2"`: the order of MMAction2's ports of
            UniFormerV2. `"k600-uniformer"`: the order of UniFormer (version 1). `"imagenet-1k"`: ImageNet's usual
            order. `"coco-keypoints"`: the 17 keypoints of COCO. `"mit"` (Moments in Time), `"ssv1"`, `"ssv2"`
            (Something-Something): the data sets' own order. `"ava"`: the 80 actions of AVA and AVA-Kinetics, whose
            files count from 1. Few of them are alphabetical: match by name with any other list.

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
        close = get_close_matches(str(value), [str(one) for one in allowed], 3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"`{argument}` must be one of {', '.join(allowed)}, got {value!r}.{hint}")


@cache
def _read_labels(name: str) -> Any:
    return json.loads((FOLDER / "labels" / f"{name}.json").read_text(encoding="utf-8"))


@cache
def _entries() -> dict[str, PublishedCheckpoint]:
    entries: dict[str, PublishedCheckpoint] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, row in content["checkpoints"].items():
            if name in entries:
                raise ValueError(f"Two published checkpoints are named {name}.")
            try:
                entries[name] = _entry(
                    name, content["model_type"], content.get("licences", []), row, content.get("protocol")
                )
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, {name}: {error}") from error
    return entries


def _entry(
    name: str,
    model_type: str,
    common: list[dict[str, str]],
    row: dict[str, Any],
    family_protocol: dict[str, Any] | None = None,
) -> PublishedCheckpoint:
    known = {one.name for one in fields(PublishedCheckpoint)}
    row = {**row}
    licences = [*common, *row.pop("licences", [])]
    protocol: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in {**(family_protocol or {}), **row.pop("protocol", {})}.items()
    }
    unknown = set(row) - known
    if unknown:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    return PublishedCheckpoint(
        name=name,
        model_type=model_type,
        file=PublishedFile(**row.pop("file")),
        protocol=PublishedProtocol(**protocol),
        licences=tuple(PublishedLicence(**one) for one in licences),
        results=tuple(PublishedResult(**one) for one in row.pop("results", [])),
        notes=tuple(row.pop("notes", [])),
        **row,
    )


__all__ = [
    "PublishedCheckpoint",
    "PublishedFile",
    "PublishedLicence",
    "PublishedProtocol",
    "PublishedResult",
    "ava_rows",
    "kinetics_710_rows",
    "kinetics_spellings",
    "list_published",
    "published_config",
    "published_entry",
    "published_labels",
    "published_processor_kwargs",
]
