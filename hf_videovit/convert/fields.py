"""What shapes show, what a caller says, and one configuration from both: the same for every family's converter."""

import copy
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .keys import Checkpoint


Shapes = dict[str, tuple[int, ...]]


def refuse_unknown_fields(
    config_class: type[PreTrainedConfig], overrides: dict[str, Any], labels: str | Sequence[str] | None
) -> None:
    """ValueError for what is no field of the configuration, and for classes that are told twice."""
    allowed = {*config_class.__dataclass_fields__, "num_labels", "attn_implementation"}
    for name in overrides:
        if name not in allowed:
            nearest = get_close_matches(name, allowed, n=1)
            hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
            raise ValueError(f"`{name}` is not a field of {config_class.__name__}.{hint}")
    told = {"num_labels", "id2label", "label2id"} & set(overrides)
    if labels is not None and told:
        raise ValueError(f"Give `labels` or `{min(told)}`, not both.")


def given_fields(
    config_class: type[PreTrainedConfig],
    config: PreTrainedConfig | None,
    overrides: dict[str, Any],
    shaping: frozenset[str] | set[str],
) -> dict[str, Any]:
    """
    What the caller says of the configuration, `overrides` over `config`. `position_grid`, which follows from the
    fields in `shaping`, is left out where one of them is overridden.
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
    unnamed = fields.get("id2label") == {0: "LABEL_0", 1: "LABEL_1"}  # the default says nothing
    if unnamed or {"num_labels", "id2label"} & set(overrides):
        fields.pop("id2label", None)
        fields.pop("label2id", None)
    return {**fields, **overrides}


def make_config(config_class: type[PreTrainedConfig], fields: dict[str, Any]) -> Any:
    """The configuration; its own checks of types and divisibility as ValueError."""
    try:
        return config_class(**fields)
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def agreed(shown: dict[str, Any], given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Shown and given fields as one; ValueError where they disagree."""
    for name, value in shown.items():
        if name in given and given[name] != value:
            raise ValueError(f"`{name}` is {given[name]!r}, but {checkpoint.name} has {value!r}.")
    return {**given, **shown}


def fill_heads(fields: dict[str, Any], width: str, heads: str, known: dict[int, int], checkpoint: Checkpoint) -> None:
    """Attention heads of a published width, where nobody says."""
    if fields.get(heads) is not None:
        return
    if fields[width] not in known:
        raise ValueError(
            f"`{heads}` is needed: {checkpoint.name} has {width} {fields[width]}, which no published model has "
            f"({', '.join(map(str, known))}), and shapes do not show the number of heads."
        )
    fields[heads] = known[fields[width]]


def depth(shapes: Shapes, prefix: str, checkpoint: Checkpoint) -> int:
    """Number of blocks under `prefix`; ValueError for a gap."""
    start = re.escape(prefix)
    numbers = {int(name.removeprefix(prefix).split(".")[0]) for name in shapes if re.match(rf"{start}\d+\.", name)}
    gaps = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    if gaps:
        raise ValueError(f"{checkpoint.name}: {prefix}{gaps[0]} is missing, though later blocks are there.")
    return len(numbers)


def select_slice(start: int, stop: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor[start:stop]


def select_rows(rows: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor[torch.tensor(rows, device=tensor.device)]
