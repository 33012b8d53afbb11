"""
Conversion of official checkpoints to models and folders of this package. Every tensor of a file is used or reported.
"""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .keys import open_checkpoint
from .kinds import DETECTION_TASK, holds_encoder, refuse_other_kinds, without_box_classifier
from .plan import SAFETENSORS_DTYPES, Conversion, build_converted, write_folder
from .published_sizes import SIZES, check_depths, report_unshown_fields


# Module of each family; each has a `plan_conversion`.
CONVERTERS = {
    "actionformer": "convert_actionformer",
    "bevt": "convert_bevt",
    "lstcl": "convert_lstcl",
    "tubevit": "convert_tubevit",
    "uniformer": "convert_uniformer",
    "uniformer_v2": "convert_uniformer_v2",
    "video_temporal_localizer": "convert_adatad",
    "videomae_v2": "convert_videomae_v2",
}
# Module of whole detectors and segmenters, by family.
DENSE_CONVERTERS = {"uniformer": "convert_uniformer_dense"}
# Averaged weights, which the official code evaluates; `entry` chooses the others.
PREFERRED_ENTRIES = dict.fromkeys(("actionformer", "video_temporal_localizer"), "state_dict_ema")
TASKS = (
    *("video-classification", "image-classification", "feature-extraction", "pretraining", "backbone"),
    *("keypoint-detection", "object-detection", "semantic-segmentation"),
    *("action-detection", "temporal-action-localization"),
)
TOLD = ("config", "published", "settings")  # arguments that say what no shape shows
MAX_SHARD_BYTES = 5 * 10**9


def convert_checkpoint(
    model_type: str,
    checkpoint: str | os.PathLike | Mapping[str, Any],
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    dtype: torch.dtype | str | None = torch.float32,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    entry: str | None = None,
    **config_overrides: Any,
) -> PreTrainedModel:
    """
    Convert an official checkpoint to a model. Layout, wrapper and sizes are read from the file; nothing in it is
    executed.

    Args:
        model_type (`str`):
            Family, such as `"lstcl"`, `"uniformer_v2"` or `"videomae_v2"`.
        checkpoint (`str`, `os.PathLike` or `Mapping[str, Any]`):
            A `.pth`, `.pyth`, `.bin` or `.safetensors` file, a folder with one, or a loaded dict; for TubeViT an image
            ViT, also as `.npz`.
        task (`str`):
            `"video-classification"`, `"image-classification"`, `"pretraining"`, `"backbone"` (feature maps for dense
            prediction), `"keypoint-detection"`, `"object-detection"` (with masks), `"semantic-segmentation"`,
            `"action-detection"`, `"temporal-action-localization"` or `"feature-extraction"` (the encoder; for a
            pretraining checkpoint with its norm of every token). Each family supports some of them.
        config (`PreTrainedConfig`, *optional*):
            Configuration to use. It must agree with the tensor shapes.
        dtype (`torch.dtype` or `str`, *optional*, defaults to `torch.float32`):
            Type of the weights; `None` keeps that of the file.
        labels (`str` or `Sequence[str]`, *optional*):
            Class names: `"k400"`, `"k600"`, `"k700"`, `"k710"` in the order of the file's layout, another name of
            [`~published.published_labels`], or a list. With one of the first three, a Kinetics-710 head is reduced to
            the rows of these classes. A head of 710 classes is named by default.
        published (`str`, *optional*):
            Name of the published checkpoint that the file is, for its labels; see [`~published.list_published`].
        entry (`str`, *optional*):
            Entry of the file that holds the weights, such as `"model_ema"`. Found automatically by default.
        config_overrides:
            Fields of the configuration that no tensor shape shows: `image_size` and `num_frames` if they are not 224
            and 16, `num_attention_heads` (and `decoder_num_attention_heads`) for widths that no published model has,
            `num_labels` or `id2label` for a new classifier on a checkpoint without one. For TubeViT also `tube_init`,
            `"fan_in"` or `"inflate"`; for ActionFormer and AdaTAD `settings`, the official configuration file or its
            content.

    Returns:
        `PreTrainedModel`: in evaluation mode.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a checkpoint of the family, does not support the task, or contradicts an argument.

    Example:

    ```python
    >>> from hf_videovit import convert_checkpoint

    >>> model = convert_checkpoint("videomae_v2", "vit_b_k710_dl_from_giant.pth", task="video-classification")
    >>> model.config.id2label[0]
    'riding a bike'
    ```"""
    plan = plan_conversion(
        model_type,
        checkpoint,
        task=task,
        config=config,
        labels=labels,
        published=published,
        entry=entry,
        **config_overrides,
    )
    return build_converted(plan, _parse_dtype(dtype))


def convert_to_folder(
    model_type: str,
    checkpoint: str | os.PathLike | Mapping[str, Any],
    folder: str | os.PathLike,
    *,
    task: str,
    dtype: torch.dtype | str | None = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    **options: Any,
) -> Path:
    """
    Convert a checkpoint to a folder for `from_pretrained`: weights as safetensors, configuration and processor. Only
    one tensor is in memory at a time, so a large checkpoint needs no more memory than a small one.

    Args:
        model_type (`str`):
            Family, as for [`convert_checkpoint`].
        checkpoint (`str` or `os.PathLike` or `Mapping[str, Any]`):
            File, folder or loaded dict, as for [`convert_checkpoint`].
        folder (`str` or `os.PathLike`):
            New or empty folder. It appears when all files are written.
        task (`str`):
            Task of the model, as for [`convert_checkpoint`].
        dtype (`torch.dtype` or `str`, *optional*, defaults to `torch.float32`):
            Type of the weights; `None` keeps that of the file.
        max_shard_bytes (`int`, *optional*):
            Maximum size of a weight file in bytes.
        options (`Any`):
            `config`, `labels`, `published`, `entry` and fields of the configuration, as for [`convert_checkpoint`].
            With `published` the processor follows the protocol of the published numbers.

    Returns:
        `Path`: the folder.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: as for [`convert_checkpoint`], or `folder` is not empty.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"`max_shard_bytes` must be at least 1, got {max_shard_bytes}.")
    plan = plan_conversion(model_type, checkpoint, task=task, **options)
    return write_folder(plan, folder, _parse_dtype(dtype), max_shard_bytes)


def plan_conversion(
    model_type: str,
    checkpoint: str | os.PathLike | Mapping[str, Any],
    *,
    task: str,
    entry: str | None = None,
    **options: Any,
) -> Conversion:
    """
    Plan a conversion without reading the weights.

    Args:
        model_type (`str`):
            Family, as for [`convert_checkpoint`].
        checkpoint (`str` or `os.PathLike` or `Mapping[str, Any]`):
            File, folder or loaded dict, as for [`convert_checkpoint`].
        task (`str`):
            Task of the model, as for [`convert_checkpoint`].
        entry (`str`, *optional*):
            Entry of the file that holds the weights.
        options (`Any`):
            `config`, `labels`, `published` and fields of the configuration, as for [`convert_checkpoint`].

    Returns:
        [`Conversion`]

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: as for [`convert_checkpoint`].
    """
    if model_type not in CONVERTERS:
        raise ValueError(f"`model_type` must be one of {', '.join(CONVERTERS)}, got {model_type!r}.")
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {task!r}.")
    modules = [one[model_type] for one in (CONVERTERS, DENSE_CONVERTERS) if model_type in one]
    by_task = {
        name: one for one in (import_module(f".{one}", __name__) for one in modules) for name in one.MODEL_CLASSES
    }
    if task not in by_task:
        raise ValueError(f"`task` of a {model_type} checkpoint must be one of {', '.join(by_task)}, got {task!r}.")
    converter = by_task[task]
    opened = open_checkpoint(checkpoint, entry=entry, preferred=PREFERRED_ENTRIES.get(model_type))
    refuse_other_kinds(opened, task)
    if model_type == "actionformer" and holds_encoder(opened):  # both parts become one model
        converter = import_module(f".{CONVERTERS['video_temporal_localizer']}", __name__)
    left_out: dict[str, str] = {}
    if task != DETECTION_TASK:
        opened, left_out = without_box_classifier(opened)
    plan = converter.plan_conversion(opened, task=task, **options)
    plan.dropped |= left_out
    family = (getattr(plan.config, "backbone_config", None) or plan.config).model_type
    if family in SIZES and all(options.get(name) is None for name in TOLD):
        if plan.config.model_type == family:
            check_depths(plan, set(options), task)
        report_unshown_fields(plan, set(options), task)
    return plan


def _parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Floating-point dtype from a dtype or its name. ValueError for any other."""
    by_name = {str(one).removeprefix("torch."): one for one in SAFETENSORS_DTYPES}
    if dtype is None or dtype in SAFETENSORS_DTYPES:
        return dtype  # type: ignore[return-value]
    if dtype not in by_name:
        raise ValueError(f"`dtype` must be one of {', '.join(by_name)}, got {dtype!r}.")
    return by_name[str(dtype)]


__all__ = ["convert_checkpoint", "convert_to_folder"]
