"""
Fields of a configuration, from tensor shapes and from the caller's arguments. Shared by the converters of all
families.
"""

import copy
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.configuration_base import frame_size
from ..published import (
    label_fields,
    published_config,
    published_entry,
    published_labels,
    published_processor_kwargs,
)
from .keys import Checkpoint
from .spelling import spell_missing


logger = logging.get_logger(__name__)

Shapes = dict[str, tuple[int, ...]]


def refuse_unknown_fields(
    config_class: type[PreTrainedConfig], overrides: dict[str, Any], labels: str | Sequence[str] | None
) -> None:
    """
    Check the names of configuration fields that the caller passed.

    Args:
        config_class (`type[PreTrainedConfig]`):
            The family's configuration.
        overrides (`dict[str, Any]`):
            Fields that the caller passed.
        labels (`str` or `Sequence[str]`):
            The caller's `labels`.

    Raises:
        ValueError: a field does not exist, or the classes are given twice.
    """
    allowed = {*config_class.__dataclass_fields__, "num_labels", "attn_implementation"}
    for name in overrides:
        if name not in allowed:
            nearest = get_close_matches(name, allowed, n=1)
            hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
            raise ValueError(f"`{name}` is not a field of {config_class.__name__}.{hint}")
    told = {"num_labels", "id2label", "label2id"} & set(overrides)
    if labels is not None and told:
        raise ValueError(f"Pass `labels` or `{min(told)}`, not both.")


def known_config(
    config_class: type[PreTrainedConfig], config: PreTrainedConfig | None, published: str | None
) -> PreTrainedConfig | None:
    """
    Configuration that the caller passed, or that of the published checkpoint that the caller named.

    Args:
        config_class (`type[PreTrainedConfig]`):
            The family's configuration.
        config ([`PreTrainedConfig`]):
            Configuration that the caller passed.
        published (`str`):
            Name of the published checkpoint that the caller passed.

    Returns:
        [`PreTrainedConfig`], *optional*: the configuration, or `None` if the caller passed neither.

    Raises:
        ValueError: both are passed, the published checkpoint does not exist, or it is of another family.
    """
    if published is None:
        return config
    if config is not None:
        raise ValueError("Pass `config` or `published`, not both.")
    family = published_entry(published).model_type
    if family != config_class.model_type:
        raise ValueError(
            f"`published` {published!r} is a checkpoint of the family {family!r}, not of {config_class.model_type!r}."
        )
    return published_config(published)


def given_fields(
    config_class: type[PreTrainedConfig],
    config: PreTrainedConfig | None,
    overrides: dict[str, Any],
    shaping: frozenset[str] | set[str],
) -> dict[str, Any]:
    """
    Fields of the configuration from the caller: `overrides` over `config`.

    Args:
        config_class (`type[PreTrainedConfig]`):
            The family's configuration.
        config ([`PreTrainedConfig`]):
            Configuration that the caller passed.
        overrides (`dict[str, Any]`):
            Fields that the caller passed.
        shaping (`frozenset[str]` or `set[str]`):
            Fields that determine `position_grid`. If one of them is overridden, `position_grid` is dropped.

    Returns:
        `dict[str, Any]`: the fields.

    Raises:
        ValueError: `config` belongs to another family.
    """
    if config is None:
        return dict(overrides)
    if not isinstance(config, config_class):
        raise ValueError(f"`config` must be a {config_class.__name__}, got {type(config).__name__}.")
    fields = copy.deepcopy(config).to_dict()
    for name in ("model_type", "transformers_version", "architectures", "dtype", "num_labels"):
        fields.pop(name, None)
    if shaping & set(overrides):
        fields.pop("position_grid", None)
    unnamed = fields.get("id2label") == {0: "LABEL_0", 1: "LABEL_1"}  # the default, which carries no information
    if unnamed or {"num_labels", "id2label"} & set(overrides):
        fields.pop("id2label", None)
        fields.pop("label2id", None)
    return {**fields, **overrides}


def make_config(config_class: type[PreTrainedConfig], fields: dict[str, Any]) -> Any:
    """
    Build a configuration, with errors as ValueError.

    Args:
        config_class (`type[PreTrainedConfig]`):
            The family's configuration.
        fields (`dict[str, Any]`):
            Its fields.

    Returns:
        The configuration.

    Raises:
        ValueError: a field has a wrong type, or fields do not fit together.
    """
    try:
        return config_class(**fields)
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def protocol_processor(processor_class: type, config: PreTrainedConfig, published: str | None) -> Any:
    """
    Video processor of a converted model.

    Args:
        processor_class (`type`):
            The family's video processor.
        config (`PreTrainedConfig`):
            Configuration of the new model, which has the size of a clip.
        published (`str`):
            Name of the published checkpoint that the caller passed, or `None`.

    Returns:
        The processor, with the protocol of the published checkpoint or with one centred view.
    """
    height, width = frame_size(config.image_size)
    fields: dict[str, Any] = {} if published is None else published_processor_kwargs(published)
    fields |= {
        "num_frames": config.num_frames,
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
    }
    return processor_class(**fields)


def agreed(shown: dict[str, Any], given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """
    Merge the fields that shapes show with those that the caller passed.

    Args:
        shown (`dict[str, Any]`):
            Fields from tensor shapes.
        given (`dict[str, Any]`):
            Fields from the caller.
        checkpoint ([`Checkpoint`]):
            The file, for the error.

    Returns:
        `dict[str, Any]`: all fields.

    Raises:
        ValueError: the two disagree.
    """
    for name, value in shown.items():
        if name in given and given[name] != value:
            raise ValueError(f"`{name}` is {given[name]!r}, but {checkpoint.name} has {value!r}.")
    return {**given, **shown}


def refuse_labels(labels: str | Sequence[str] | None, task: str, tasks: Sequence[str]) -> None:
    """
    Check that `labels` is not passed for a task without classes.

    Args:
        labels (`str` or `Sequence[str]`):
            The caller's `labels`.
        task (`str`):
            Task of the model.
        tasks (`Sequence[str]`):
            Tasks of the family that have classes.

    Raises:
        ValueError: `labels` is passed for another task.
    """
    if labels is not None and task not in tasks:
        raise ValueError(f"`labels` is only supported with task={' or '.join(map(repr, tasks))}, got task={task!r}.")


def class_names(labels: str | Sequence[str] | None) -> list[str] | None:
    """
    Class names that the caller passed.

    Args:
        labels (`str` or `Sequence[str]`):
            Name of a published label list, or the names themselves.

    Returns:
        `list[str]`, *optional*: the names, or `None` without `labels`.

    Raises:
        ValueError: the list does not exist, or has a name twice.
    """
    if labels is None:
        return None
    names = published_labels(labels) if isinstance(labels, str) else list(labels)
    if len(set(names)) != len(names):
        raise ValueError("`labels` names a class twice.")
    return names


def given_count(given: dict[str, Any]) -> int | None:
    """
    Number of classes that the caller passed as `id2label` or `num_labels`.

    Args:
        given (`dict[str, Any]`):
            Fields of the configuration from the caller.

    Returns:
        `int`, *optional*: the number, or `None` if neither is given.
    """
    return len(given["id2label"]) if given.get("id2label") else given.get("num_labels")


def refuse_other_count(count: int, size: int, checkpoint: Checkpoint) -> None:
    """
    Check that the caller's number of classes is that of a head.

    Args:
        count (`int`):
            Classes that the caller passed.
        size (`int`):
            Classes of the head.
        checkpoint ([`Checkpoint`]):
            The file, for the error.

    Raises:
        ValueError: the two differ.
    """
    if count != size:
        raise ValueError(
            f"The head of {checkpoint.name} has {size} classes, but {count} are given. To train a new head, convert "
            "with the old one and load with `ignore_mismatched_sizes=True`."
        )


def default_names(
    size: int, given: dict[str, Any], checkpoint: Checkpoint, fitting: Sequence[str] = (), *, certain: bool = False
) -> list[str] | None:
    """
    Class names of a head without `labels` from the caller.

    Args:
        size (`int`):
            Classes of the head.
        given (`dict[str, Any]`):
            Fields of the configuration from the caller.
        checkpoint ([`Checkpoint`]):
            The file, for the error.
        fitting (`Sequence[str]`, *optional*, defaults to `()`):
            Published label lists with as many names.
        certain (`bool`, *optional*, defaults to `False`):
            Whether the first of them is that of the head. Otherwise a warning suggests them.

    Returns:
        `list[str]`, *optional*: the names, or `None` to keep those of the caller.

    Raises:
        ValueError: the caller's number of classes differs from the head's.
    """
    count = given_count(given)
    if count is not None:
        refuse_other_count(count, size, checkpoint)
        return None
    if certain and fitting:
        return published_labels(fitting[0])
    if fitting:
        choices = " or ".join(f"labels={name!r}" for name in fitting)
        logger.warning(f"The {size} classes are not named. If they match a published label list, pass {choices}.")
    return [f"LABEL_{index}" for index in range(size)]


def with_class_names(fields: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """
    Set the class names of a configuration.

    Args:
        fields (`dict[str, Any]`):
            Fields of the configuration.
        names (`list[str]` or `None`):
            Class names; `None` keeps those in `fields`.

    Returns:
        `dict[str, Any]`: the fields.
    """
    if names is None:
        return fields
    others = {name: value for name, value in fields.items() if name not in ("num_labels", "id2label", "label2id")}
    return {**others, **label_fields(names)}


def fill_heads(fields: dict[str, Any], width: str, heads: str, known: dict[int, int], checkpoint: Checkpoint) -> None:
    """
    Set the number of attention heads from the published models if the caller did not pass it.

    Args:
        fields (`dict[str, Any]`):
            Fields of the configuration; changed in place.
        width (`str`):
            Name of the field with the width.
        heads (`str`):
            Name of the field with the number of heads.
        known (`dict[int, int]`):
            Number of heads of the published models by width.
        checkpoint ([`Checkpoint`]):
            The file, for the error.

    Raises:
        ValueError: no published model has this width.
    """
    if fields.get(heads) is not None:
        return
    if fields[width] not in known:
        raise ValueError(
            f"`{heads}` is needed: {checkpoint.name} has {width} {fields[width]}, which no published model has "
            f"({', '.join(map(str, known))}), and shapes do not show the number of heads."
        )
    fields[heads] = known[fields[width]]


def depth(shapes: Shapes, prefix: str, checkpoint: Checkpoint) -> int:
    """
    Number of blocks of a stack.

    Args:
        shapes ([`Shapes`]):
            Tensor shapes by name.
        prefix (`str`):
            Name before the number of a block, such as `"blocks."`.
        checkpoint ([`Checkpoint`]):
            The file, for the error.

    Returns:
        `int`: the number of blocks.

    Raises:
        ValueError: a block is missing.
    """
    start = re.escape(prefix)
    numbers = {int(name.removeprefix(prefix).split(".")[0]) for name in shapes if re.match(rf"{start}\d+\.", name)}
    gaps = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    if gaps:
        raise ValueError(f"{checkpoint.name}: {prefix}{gaps[0]} is missing, but later blocks exist.")
    return len(numbers)


def in_any_block(shapes: Shapes, prefix: str, name: str) -> bool:
    """
    Whether any block of a stack has a tensor, so that a file that lacks it in some block is not taken for another
    model.

    Args:
        shapes ([`Shapes`]):
            Tensor shapes by name.
        prefix (`str`):
            Name before the number of a block, such as `"blocks."`.
        name (`str`):
            Name of the tensor inside the block.

    Returns:
        `bool`: whether one has it.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\d+\.{re.escape(name)}")
    return any(pattern.fullmatch(one) for one in shapes)


def shape_of(name: str, checkpoint: Checkpoint, shapes: Shapes | None = None) -> tuple[int, ...]:
    """
    Shape of a tensor that every such file has.

    Args:
        name (`str`):
            Its name.
        checkpoint ([`Checkpoint`]):
            The file.
        shapes ([`Shapes`], *optional*):
            Tensor shapes by clean name. Defaults to those of the file.

    Returns:
        `tuple[int, ...]`: the shape.

    Raises:
        ValueError: the file lacks the tensor.
    """
    found = checkpoint.shapes if shapes is None else shapes
    if name not in found:
        sources = {one: checkpoint.in_file(one) for one in found}
        raise ValueError(f"{checkpoint.name} is not complete: {spell_missing(name, sources, {}) or name} is missing.")
    return found[name]


def select_slice(start: int, stop: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """
    Transformation that takes a slice of the first axis.

    Args:
        start (`int`):
            First index.
        stop (`int`):
            Index after the last.

    Returns:
        `Callable[[torch.Tensor], torch.Tensor]`: the transformation.
    """
    return lambda tensor: tensor[start:stop]


def select_rows(rows: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """
    Transformation that takes rows of the first axis.

    Args:
        rows (`list[int]`):
            Indices.

    Returns:
        `Callable[[torch.Tensor], torch.Tensor]`: the transformation.
    """
    return lambda tensor: tensor[torch.tensor(rows, device=tensor.device)]
