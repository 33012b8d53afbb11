"""The optimiser and its parameter groups, built from the model's own tables of layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from .arguments import OptimizationArguments


@runtime_checkable
class HasLayerTable(Protocol):
    """A model with a table of its layers: parameter names by depth, and the parameters without weight decay."""

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Prefixes of parameter names by depth, embeddings first, head last. The first depth that matches counts."""

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters with more than one axis that must not decay."""


@dataclass(frozen=True)
class LearningRates:
    """
    Learning rates after the linear rule, see [`scaled_learning_rates`].

    Args:
        peak (`float`):
            Highest learning rate.
        final (`float`):
            Learning rate at the end of the run.
        effective_batch (`int`):
            Videos per optimiser step, over all processes.
    """

    peak: float
    final: float
    effective_batch: int


def scaled_learning_rates(arguments: OptimizationArguments, world: int) -> LearningRates:
    """
    Apply the linear rule (Goyal et al., 2017) to the learning rates: they are multiplied by the effective batch and
    divided by `learning_rate_batch`.

    Args:
        arguments ([`OptimizationArguments`]):
            Batch and learning rates.
        world (`int`):
            Number of processes.

    Returns:
        [`LearningRates`]
    """
    effective = arguments.batch_size * world * arguments.accumulation
    factor = effective / arguments.learning_rate_batch if arguments.learning_rate_batch else 1.0
    return LearningRates(arguments.learning_rate * factor, arguments.min_learning_rate * factor, effective)


def layer_ids(model: nn.Module) -> dict[str, int]:
    """
    Depth of each parameter, by name, from the model's own table.

    Args:
        model (`nn.Module`):
            A model with `layer_groups()`.

    Returns:
        `dict[str, int]`: 0 for the embeddings, 1 for the first block, and so on.

    Raises:
        ValueError: the model has no table, or the table lacks a parameter.
    """
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
    """
    Names of the parameters above the encoder, which a checkpoint for another task does not have.

    Args:
        model (`nn.Module`):
            A model with `layer_groups()`.

    Returns:
        `set[str]`: the names of the parameters at the last depth.
    """
    ids = layer_ids(model)
    last = len(model.layer_groups()) - 1 if isinstance(model, HasLayerTable) else None
    return {name for name, depth in ids.items() if depth == last}


def freeze_layers(model: nn.Module, count: int) -> None:
    """
    Freeze the embeddings and the first blocks.

    Args:
        model (`nn.Module`):
            A model with `layer_groups()`.
        count (`int`):
            Number of blocks to freeze.

    Raises:
        ValueError: the model has fewer blocks.
    """
    ids = layer_ids(model)
    blocks = max(ids.values()) - 1
    if count > blocks:
        raise ValueError(f"`frozen_layers` must be at most {blocks}, the number of blocks, got {count}")
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

    One-dimensional parameters (biases, norms, layer scale) and those named by the model's `no_weight_decay()` do not
    decay. With L encoder blocks, the learning rate of a parameter at depth d (0 embeddings, L + 1 head) is multiplied
    by `layer_decay ** (L + 1 - d)`.

    Args:
        model (`nn.Module`):
            The model.
        weight_decay (`float`):
            Weight decay of the other parameters.
        layer_decay (`float`, *optional*, defaults to 1.0):
            Factor between neighbouring depths.
        prefix (`str`, *optional*, defaults to `""`):
            Put before each name in `names`.
        rules (`Sequence[Mapping]`, *optional*, defaults to `()`):
            Exceptions, see [`OptimizationArguments`]. The first rule whose `match` is found in a parameter's name
            applies. It sets `lr_scale`, `decay` (whether the parameter decays), `constant` (whether its learning rate
            is constant after the warm-up), or several of these.

    Returns:
        `list[dict]`: groups with `params`, `names`, `weight_decay`, `lr_scale` and `constant`, from the lowest depth
        up.

    Raises:
        ValueError: a rule applies to no parameter, or the model has no table of its layers where one is needed.
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
        raise ValueError(
            f"`parameter_rules` {idle} apply to no parameter of {type(model).__name__} that earlier rules left"
        )
    return [groups[key] for key in sorted(groups)]


def build_optimizer(groups: list[dict[str, Any]], arguments: OptimizationArguments) -> torch.optim.AdamW:
    """
    AdamW over parameter groups, with one fused kernel for a step. The kernel leaves everything as it is where the
    optimiser's attribute `found_inf`, a tensor, is 1.

    Args:
        groups (`list[dict]`):
            From [`parameter_groups`]; `names` are not passed to the optimiser.
        arguments ([`OptimizationArguments`]):
            Betas and epsilon. The learning rate is set before each step, see [`set_learning_rate`].

    Returns:
        `torch.optim.AdamW`
    """
    params = [{key: value for key, value in group.items() if key != "names"} for group in groups]
    betas = (arguments.betas[0], arguments.betas[1])
    return torch.optim.AdamW(params, lr=arguments.learning_rate, betas=betas, eps=arguments.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float, constant_rate: float) -> None:
    """
    Set the learning rate of each group, multiplied by the group's `lr_scale`.

    Args:
        optimizer (`torch.optim.Optimizer`):
            An optimiser from [`build_optimizer`].
        learning_rate (`float`):
            Learning rate of the step.
        constant_rate (`float`):
            Learning rate of the step for `constant` groups.
    """
    for group in optimizer.param_groups:
        group["lr"] = (constant_rate if group["constant"] else learning_rate) * group["lr_scale"]
