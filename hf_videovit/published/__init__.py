"""
Facts about the official checkpoints: sizes, files, labels, protocols, licences and results, each with its source.

`list_published()` lists the checkpoints, and `published_entry` has what is known of one. `published_config`,
`published_labels` and `published_processor_kwargs` return what a converted checkpoint needs.
"""

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .entries import (
    ACTION_DETECTION,
    CLASSIFICATION_TASKS,
    IMAGE_TASKS,
    KEYPOINTS,
    LOCALIZATION,
    NEVER_RELEASED,
    OBJECTS,
    SEMANTICS,
    TASKS,
    PublishedCheckpoint,
    PublishedFile,
    PublishedLicence,
    PublishedProtocol,
    PublishedResult,
)
from .label_lists import (
    KINETICS_710_SUBSETS,
    LABEL_LISTS,
    ava_rows,
    kinetics_710_rows,
    kinetics_spellings,
    label_fields,
    nearest,
    one_of,
    published_labels,
)
from .localizers import feature_processor_fields
from .selection import select


if TYPE_CHECKING:
    from transformers import PreTrainedConfig


FOLDER = Path(__file__).parent
COUNTS = FOLDER / "counts.json"  # `python -m hf_videovit.hub.model_table` writes it
# Models around a backbone of another model type.
DENSE_MODEL_TYPES = {OBJECTS: "uniformer_detector", SEMANTICS: "uniformer_segmenter"}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML was built with it


def list_published(
    model_type: str | None = None,
    *,
    data: str | None = None,
    task: str | None = None,
    size: str | None = None,
    licence: str | None = None,
) -> list[str]:
    """
    Names of the official checkpoints that this package knows; [`published_entry`] has the rest.

    Args:
        model_type (`str`, *optional*):
            Only those of one family.
        data (`str`, *optional*):
            Only those that were trained for or scored on a data set: its name, the start of it, or a short form such
            as `"k400"`.
        task (`str`, *optional*):
            Only those of one task, see [`PublishedCheckpoint`].
        size (`str`, *optional*):
            Only those of one size.
        licence (`str`, *optional*):
            Only those whose weights have this licence, or none that is stated (`"not stated"`).

    Returns:
        `list[str]`: the names.

    Raises:
        ValueError: no checkpoint has this family, data set, task, size or licence.

    Example:
    ```python
    >>> from hf_videovit import list_published

    >>> list_published("videomae_v2", data="k710", size="base")
    ['videomae-v2-base-k710-distilled']
    ```"""
    wanted = {"model_type": model_type, "data": data, "task": task, "size": size, "licence": licence}
    return [entry.name for entry in select(_entries().values(), wanted)]


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
    entries = _entries()
    if name not in entries:
        listed = f"`name` must be one of the {len(entries)} checkpoints that `hf-videovit models` lists"
        raise ValueError(f"{listed}, got {name!r}.{nearest(name, entries)}")
    return entries[name]


def published_config(name: str) -> "PreTrainedConfig":
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
    from transformers import CONFIG_MAPPING

    entry = published_entry(name)
    if entry.task in DENSE_MODEL_TYPES:
        return _dense_config(entry)
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


def _dense_config(entry: PublishedCheckpoint) -> "PreTrainedConfig":
    """Configuration of a detector or segmenter, whose fields beside the backbone are those of its kind."""
    from transformers import CONFIG_MAPPING

    fields = {**entry.config, **label_fields(published_labels(str(entry.labels)))}
    sized = {"out_indices": [1, 2, 3, 4], **fields.pop("backbone_config")}
    backbone = CONFIG_MAPPING[entry.model_type].from_size(entry.size, **sized)
    return CONFIG_MAPPING[DENSE_MODEL_TYPES[entry.task]].from_size(entry.size, backbone_config=backbone, **fields)


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
    if task in DENSE_MODEL_TYPES:
        return {**protocol.processor, **normalisation}
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


@cache
def _entries() -> dict[str, PublishedCheckpoint]:
    entries: dict[str, PublishedCheckpoint] = {}
    counts = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}
    for path in sorted(FOLDER.glob("*.yaml")):
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        for name, row in content["checkpoints"].items():
            if name in entries:
                raise ValueError(f"Two published checkpoints are named {name}.")
            row |= counts.get(name, {})
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
    "ACTION_DETECTION",
    "CLASSIFICATION_TASKS",
    "IMAGE_TASKS",
    "KEYPOINTS",
    "OBJECTS",
    "SEMANTICS",
    "KINETICS_710_SUBSETS",
    "LABEL_LISTS",
    "LOCALIZATION",
    "NEVER_RELEASED",
    "TASKS",
    "PublishedCheckpoint",
    "PublishedFile",
    "PublishedLicence",
    "PublishedProtocol",
    "PublishedResult",
    "ava_rows",
    "kinetics_710_rows",
    "kinetics_spellings",
    "label_fields",
    "list_published",
    "one_of",
    "published_config",
    "published_entry",
    "published_labels",
    "published_processor_kwargs",
]
