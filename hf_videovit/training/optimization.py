"""Optimiser and its parameter groups, from the tables that the model itself carries."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from .arguments import OptimizationArguments


@runtime_checkable
class HasLayerTable(Protocol):
    """A model that says how it is built: parameter-name prefixes a depth, and what must not decay."""

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Prefixes a depth, embeddings first and head last; an earlier depth claims a name before a later one."""

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with more than one axis that must not decay."""


@dataclass(frozen=True)
class LearningRates:
    """Learning rates after the batch rule."""

    peak: float
    final: float
    effective_batch: int


def scaled_learning_rates(arguments: OptimizationArguments, world: int) -> LearningRates:
    """
    Apply the linear rule to the learning rates: times effective batch over `learning_rate_batch`.

    Args:
        arguments ([`OptimizationArguments`]):
            Batch and learning rates.
        world (`int`):
            Number of processes.
    """
    effective = arguments.batch_size * world * arguments.accumulation
    factor = effective / arguments.learning_rate_batch if arguments.learning_rate_batch else 1.0
    return LearningRates(arguments.learning_rate * factor, arguments.min_learning_rate * factor, effective)


def layer_ids(model: nn.Module) -> dict[str, int]:
    """Depth of each parameter, by name, as the model's own table says."""
    if not isinstance(model, HasLayerTable):
        raise ValueError(f"`layer_decay` needs a model with `layer_groups()`, {type(model).__name__} has none")
    groups = model.layer_groups()
    ids = {}
    for name, _ in model.named_parameters():
        fitting = (depth for depth, prefixes in enumerate(groups) if name.startswith(tuple(prefixes)))
        depth = next(fitting, None)
        if depth is None:
            raise ValueError(f"`layer_groups()` of {type(model).__name__} has no depth for parameter {name!r}")
        ids[name] = depth
    return ids


def head_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters above the encoder: those that a checkpoint of another task does not have."""
    ids = layer_ids(model)
    last = len(model.layer_groups()) - 1 if isinstance(model, HasLayerTable) else None
    return {name for name, depth in ids.items() if depth == last}


def freeze_layers(model: nn.Module, count: int) -> None:
    """
    Leave the embeddings and the first blocks as they are.

    Args:
        model (`nn.Module`):
            A model with a table of its depths.
        count (`int`):
            Blocks to freeze. ValueError if there are fewer.
    """
    ids = layer_ids(model)
    blocks = max(ids.values()) - 1
    if count > blocks:
        raise ValueError(f"`frozen_layers` must be at most {blocks}, the model's blocks, got {count}")
    for name, parameter in model.named_parameters():
        if ids[name] <= count:
            parameter.requires_grad_(False)


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    layer_decay: float = 1.0,
    prefix: str = "",
    rules: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """
    Sort the trainable parameters into optimiser groups.

    One-dimensional parameters (biases, norms, layer scale) and what the model's `no_weight_decay()` names do not
    decay. With L encoder blocks a parameter at depth d (0 embeddings, L + 1 head) learns at
    `layer_decay ** (L + 1 - d)` times the learning rate.

    Args:
        model (`nn.Module`):
            The model.
        weight_decay (`float`):
            Decay of the others.
        layer_decay (`float`, *optional*, defaults to 1.0):
            Factor between neighbouring depths.
        prefix (`str`, *optional*, defaults to `""`):
            Put before each name in `names`.
        rules (`Sequence[Mapping]`, *optional*, defaults to `()`):
            What is done otherwise, see [`OptimizationArguments`]: of a parameter the first rule whose `match` is found
            in its name says its `lr_scale`, whether it has `decay`, whether its rate is `constant` after the warm-up,
            or several of these. A rule that fits no parameter is a ValueError.

    Returns:
        `list[dict]`: groups with `params`, `names`, `weight_decay`, `lr_scale` and `constant`, from the lowest depth
        up.
    """
    depths = layer_ids(model) if layer_decay != 1.0 else {}
    top = max(depths.values(), default=0)
    not_decayed = model.no_weight_decay() if isinstance(model, HasLayerTable) else set()
    groups: dict[tuple[int, float, float, bool], dict[str, Any]] = {}
    fitting: set[int] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        number = next((index for index, rule in enumerate(rules) if re.search(rule["match"], name)), len(rules))
        fitting.add(number)
        rule = rules[number] if number < len(rules) else {}
        depth = depths.get(name, top)
        decays = rule.get("decay", parameter.ndim > 1 and name not in not_decayed)
        decay, scale = weight_decay if decays else 0.0, rule.get("lr_scale", layer_decay ** (top - depth))
        constant = rule.get("constant", False)
        empty = {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale, "constant": constant}
        group = groups.setdefault((depth, decay, scale, constant), empty)
        group["params"].append(parameter)
        group["names"].append(prefix + name)
    idle = [rule["match"] for index, rule in enumerate(rules) if index not in fitting]
    if idle:
        raise ValueError(f"`parameter_rules` {idle} fit no parameter of {type(model).__name__} that is left to them")
    return [groups[key] for key in sorted(groups)]


def build_optimizer(groups: list[dict[str, Any]], arguments: OptimizationArguments) -> torch.optim.AdamW:
    """
    AdamW over parameter groups.

    Args:
        groups (`list[dict]`):
            From [`parameter_groups`]; `names` stay out of the optimiser.
        arguments ([`OptimizationArguments`]):
            Betas and epsilon. The learning rate is set before each step, see [`set_learning_rate`].
    """
    params = [{key: value for key, value in group.items() if key != "names"} for group in groups]
    betas = (arguments.betas[0], arguments.betas[1])
    return torch.optim.AdamW(params, lr=arguments.learning_rate, betas=betas, eps=arguments.eps)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float, constant_rate: float) -> None:
    """Give each group its share (`lr_scale`) of the learning rate, or of that of groups that are `constant`."""
    for group in optimizer.param_groups:
        group["lr"] = (constant_rate if group["constant"] else learning_rate) * group["lr_scale"]
