"""
Weights and optimiser state during training: replicated in every process (one process, DDP), or sharded (FSDP2).
Both have the same interface for the loop. Validation, pictures and the saved model always use an ordinary model with
complete weights.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from transformers import PreTrainedModel

from ..arguments import OptimizationArguments
from ..optimization import build_optimizer
from ..tasks import Task
from .checkpointing import flatten_optimizer, list_tensors, read_into, unflatten_optimizer


Tensors = dict[str, torch.Tensor]
DATA_PARALLEL = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
AVERAGED_AT_ONCE = 16  # tensors of the average that are updated together; their changes need memory


class MovingAverage:
    """
    Exponential moving average of a state dict. Each process averages its own shards.

    Args:
        values (`dict[str, torch.Tensor]`):
            Initial values, updated in place.
        decay (`float`):
            Share of the average that an update keeps.
    """

    def __init__(self, values: Tensors, decay: float):
        self.values, self.decay = values, decay

    @torch.no_grad()
    def update(self, state: Tensors, moves: torch.Tensor) -> None:
        """
        Update the average with new values. Integer tensors, such as counters, are copied.

        Args:
            state (`dict[str, torch.Tensor]`):
                A state dict of the same names.
            moves (`torch.Tensor` of shape `()`):
                1 to update, 0 to leave the average as it is. It is not read, so nothing waits for the device.
        """
        pairs = [(_local_tensor(kept), _local_tensor(state[name].detach())) for name, kept in self.values.items()]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        weight = moves * (1 - self.decay)
        for start in range(0, len(floating), AVERAGED_AT_ONCE):
            averages, values = map(list, zip(*floating[start : start + AVERAGED_AT_ONCE]))
            changes = torch._foreach_sub(values, averages)
            torch._foreach_mul_(changes, weight)
            torch._foreach_add_(averages, changes)
        for kept, new in pairs:
            if not kept.is_floating_point():
                kept.copy_(torch.where(moves > 0, new, kept))


class WholeWeights:
    """
    Every process holds all weights.

    Args:
        accelerator (`Accelerator`):
            Prepares task and optimiser.
        task ([`Task`]):
            The model with its loss.
        arguments ([`OptimizationArguments`]):
            Arguments of the optimiser.
    """

    def __init__(self, accelerator: Accelerator, task: Task, arguments: OptimizationArguments):
        self.accelerator, self.arguments = accelerator, arguments
        groups = task.parameter_groups(arguments.weight_decay, arguments.layer_decay, arguments.parameter_rules)
        self.task, self.optimizer = self._prepare(task, build_optimizer(groups, arguments))
        self.module: Task = accelerator.unwrap_model(self.task)
        self.parameters: list[Any] = [value for group in self.optimizer.param_groups for value in group["params"]]
        self._start_average()

    def _prepare(self, task: Task, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        return self.accelerator.prepare(task, optimizer)

    def _start_average(self) -> None:
        self.averaged: PreTrainedModel | None = None
        self.average: MovingAverage | None = None
        if decay := self.arguments.ema_decay:
            self.averaged = copy.deepcopy(self.module.model).eval()
            self.average = MovingAverage(self.averaged.state_dict(), decay)

    @contextmanager
    def backward_pass(self, last: bool) -> Iterator[Any]:
        """
        A block around a forward and backward pass.

        Args:
            last (`bool`):
                Whether this is the last pass of a step, after which processes reduce their gradients.

        Returns:
            `Iterator[Callable[[torch.Tensor], None]]`: the function that computes the gradient of a loss.
        """
        with nullcontext() if last else self.accelerator.no_sync(self.task):
            yield self._backward

    def step(self) -> torch.Tensor:
        """
        Update the weights and their average unless the gradient is not finite, and reset the gradient. The device
        decides this itself, and the host does not wait for it.

        Returns:
            `torch.Tensor`: norm of the gradient before clipping. It is the same in all processes.
        """
        norm = self._clip()
        finite = norm.isfinite()
        optimizer, scaler = self.optimizer.optimizer, self.accelerator.scaler  # accelerate's wrapper of it is slow
        if scaler is None:
            on_host = finite.device.type == "cpu"  # where reading is free and the fused step takes longer to skip
            optimizer.found_inf = None if on_host and finite else (~finite).float()
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.module.model.state_dict(), finite.float())
        return norm

    def _clip(self) -> torch.Tensor:
        """Clip the gradient to `clip_grad`. Returns its norm before that."""
        self.accelerator.unscale_gradients(self.optimizer)
        if self.arguments.clip_grad is not None:
            return _whole_tensor(clip_grad_norm_(self.parameters, self.arguments.clip_grad))
        return _whole_tensor(get_total_norm([value.grad for value in self.parameters if value.grad is not None]))

    def _backward(self, loss: torch.Tensor) -> None:
        scaler = self.accelerator.scaler
        (loss if scaler is None else scaler.scale(loss)).backward()

    def model(self) -> PreTrainedModel:
        """The model with complete weights, averaged with `ema_decay`. All processes call this together."""
        return _with_same_buffers(self.module.model if self.averaged is None else self.averaged, self.accelerator)

    def parts(self) -> tuple[dict[str, Tensors], list[dict[str, Any]]]:
        """
        The state for a checkpoint.

        Returns:
            `tuple[dict[str, dict[str, torch.Tensor]], list[dict]]`: tensors by part (`task`, `optimizer`, `ema`),
            sharded as they are, and the groups of the optimiser.
        """
        tensors, groups = flatten_optimizer(self.optimizer.state_dict())
        parts = {"task": self.module.state_dict(), "optimizer": tensors}
        if self.average is not None:
            parts["ema"] = self.average.values
        return parts, groups

    def load(self, path: Path, groups: list[dict[str, Any]]) -> None:
        """
        Load the state of a checkpoint. Each process reads its shards. All processes call this together.

        Args:
            path (`Path`):
                The folder of the checkpoint.
            groups (`list[dict]`):
                Groups of the optimiser.

        Raises:
            ValueError: the tensors of the checkpoint have other names or sizes, or a file is damaged.
        """
        stored = list_tensors(path)
        parts = {"task": self.module.state_dict()}
        if self.average is not None:
            parts["ema"] = self.average.values
        into = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        wanted = {name for name in stored if not name.startswith("optimizer/")}
        if into.keys() != wanted:
            different = ", ".join(name.partition("/")[2] for name in sorted(into.keys() ^ wanted)[:8])
            raise ValueError(f"The checkpoint is of another model: it differs in the tensors {different}")
        state = {}
        for name in sorted(stored.keys() - wanted):
            state[name.partition("/")[2]] = into[name] = self._empty_state(name, stored[name])
        for name, value in into.items():
            check_shape(name.partition("/")[2], stored[name].size, value)
        with torch.no_grad():
            read_into(path, into)
        groups = [group | {"fused": True} for group in groups]  # also those of checkpoints from before the fused step
        self.optimizer.load_state_dict(unflatten_optimizer(state, groups))

    def _empty_state(self, name: str, facts: Any) -> torch.Tensor:
        """A tensor of the optimiser to fill. Counters have no shape, all others that of their parameter."""
        if not facts.size:
            return torch.empty((), dtype=facts.properties.dtype)
        like = self.parameters[int(name.partition("/")[2].partition(".")[0])]
        return torch.empty_like(like, dtype=facts.properties.dtype, requires_grad=False)


class FullyShardedWeights(WholeWeights):
    """
    FSDP2: every process holds a shard of each tensor, and writes and reads it in checkpoints.

    The encoder's blocks, which are listed in the model's `_no_split_modules`, are gathered one at a time.
    """

    def _prepare(self, task: Task, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        present = {type(module).__name__ for module in task.modules()}
        task._no_split_modules = [name for name in task.model._no_split_modules or [] if name in present]
        self.whole = copy.deepcopy(task.model)
        return self.accelerator.prepare(task, optimizer)

    def _start_average(self) -> None:
        self.average = None
        if decay := self.arguments.ema_decay:
            state = self.module.model.state_dict()
            self.average = MovingAverage({name: value.detach().clone() for name, value in state.items()}, decay)

    def model(self) -> PreTrainedModel:
        """A copy of the model with complete weights."""
        state = self.module.model.state_dict() if self.average is None else self.average.values
        self.whole.load_state_dict({name: _whole_tensor(value) for name, value in state.items()})
        return _with_same_buffers(self.whole.to(self.accelerator.device), self.accelerator)


def _with_same_buffers(model: PreTrainedModel, accelerator: Accelerator) -> PreTrainedModel:
    """A model with the buffers of the first process: each has BatchNorm's statistics of its own batches."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
    return model


def arrange_weights(accelerator: Accelerator, task: Task, arguments: OptimizationArguments) -> WholeWeights:
    """
    Prepare task and optimiser for the kind of parallelism with which the processes were started.

    Args:
        accelerator (`Accelerator`):
            The processes.
        task ([`Task`]):
            The model with its loss. It must not have been prepared.
        arguments ([`OptimizationArguments`]):
            Arguments of the optimiser.

    Returns:
        [`WholeWeights`] or a subclass.

    Raises:
        ValueError: `fsdp_version` is 1, or the processes were started for DeepSpeed.
    """
    if task.idle_parameters and accelerator.distributed_type in DATA_PARALLEL:
        accelerator.ddp_handler = accelerator.ddp_handler or DistributedDataParallelKwargs()
        accelerator.ddp_handler.find_unused_parameters = True
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            "`distributed_type` must be NO, MULTI_GPU, MULTI_CPU or FSDP, got DEEPSPEED: FSDP2 "
            "(examples/accelerate/fsdp2.yaml) shards as much, and its runs can be resumed"
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise ValueError("`fsdp_version` must be 2 (examples/accelerate/fsdp2.yaml), got 1")
        return FullyShardedWeights(accelerator, task, arguments)
    return WholeWeights(accelerator, task, arguments)


def _whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the shards of all processes, which call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def check_shape(name: str, size: Sequence[int], like: torch.Tensor) -> None:
    """
    Raise an error if a tensor of a checkpoint has another shape.

    Args:
        name (`str`):
            The tensor.
        size (`Sequence[int]`):
            Its shape in the checkpoint.
        like (`torch.Tensor`):
            The tensor of the run.

    Raises:
        ValueError: the shapes differ.
    """
    if tuple(size) != tuple(like.shape):
        raise ValueError(f"{name} has the shape {tuple(size)}, must have {tuple(like.shape)}")
