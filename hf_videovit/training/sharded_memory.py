"""Memory of a process that shares out weights, gradients and optimiser with others (FSDP2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import nn
from transformers import PreTrainedModel


FLOAT = 4  # bytes: weights, gradients and states are float32
MOMENTS = 2  # of AdamW


@dataclass(frozen=True)
class ParameterShapes:
    """
    The parameters of a model as FSDP2 groups them.

    Args:
        trained (`tuple[tuple[int, ...], ...]`):
            Shapes of the parameters that are trained.
        frozen (`tuple[tuple[int, ...], ...]`):
            Shapes of the others.
        largest_block (`int`):
            Parameters of the largest block that is gathered at once.
        rest (`int`):
            Parameters outside blocks, which stay gathered during a step.
    """

    trained: tuple[tuple[int, ...], ...]
    frozen: tuple[tuple[int, ...], ...]
    largest_block: int
    rest: int


@dataclass(frozen=True)
class ShardedMemory:
    """
    Bytes of the process that holds the largest shards.

    Args:
        weights (`int`):
            Its shards of all parameters.
        gradients (`int`):
            Its shards of their gradients.
        optimizer (`int`):
            Its shards of AdamW's moments, and a counter for each parameter.
        average (`int`):
            Its shards of the moving average.
        gathered (`int`):
            Whole weights and gradients of the blocks in work: an estimate, two blocks of each and what is outside
            blocks.
        activations (`int`):
            What the backward pass needs: an estimate.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of all."""
        return sum(getattr(self, item.name) for item in fields(self))


def parameter_shapes(model: PreTrainedModel) -> ParameterShapes:
    """
    The parameters of a model by their shapes.

    Args:
        model (`PreTrainedModel`):
            The model; the meta device will do.

    Returns:
        [`ParameterShapes`]
    """
    parameters = list(model.parameters())
    names = set(model._no_split_modules or [])
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    in_blocks = {id(parameter) for block in blocks for parameter in block.parameters()}
    return ParameterShapes(
        tuple(tuple(parameter.shape) for parameter in parameters if parameter.requires_grad),
        tuple(tuple(parameter.shape) for parameter in parameters if not parameter.requires_grad),
        max(map(_size, blocks), default=0),
        sum(parameter.numel() for parameter in parameters if id(parameter) not in in_blocks),
    )


def sharded_memory(
    shapes: ParameterShapes, processes: int, *, average: bool, mixed: bool, activations: float = 0
) -> ShardedMemory:
    """
    Memory of a process under FSDP2. Each parameter is cut along its first axis into equal parts, rounded up.

    Args:
        shapes ([`ParameterShapes`]):
            The parameters.
        processes (`int`):
            Number of processes.
        average (`bool`):
            Whether there is a moving average of the weights.
        mixed (`bool`):
            Whether blocks are gathered in half precision.
        activations (`float`, *optional*, defaults to 0):
            Bytes of activations.

    Returns:
        [`ShardedMemory`]
    """
    trained = sum(_largest_shard(shape, processes) for shape in shapes.trained)
    every = trained + sum(_largest_shard(shape, processes) for shape in shapes.frozen)
    gathered = 2 * (2 * shapes.largest_block + shapes.rest) * (FLOAT // 2 if mixed else FLOAT)
    return ShardedMemory(
        weights=FLOAT * every,
        gradients=FLOAT * trained,
        optimizer=FLOAT * (MOMENTS * trained + len(shapes.trained)),
        average=FLOAT * every if average else 0,
        gathered=gathered if processes > 1 else 0,
        activations=round(activations),
    )


def _largest_shard(shape: Sequence[int], processes: int) -> int:
    """Elements of the largest part of a parameter."""
    return -(-shape[0] // processes) * math.prod(shape[1:]) if shape else 1


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


__all__ = ["ParameterShapes", "ShardedMemory", "parameter_shapes", "sharded_memory"]
