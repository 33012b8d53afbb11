"""What a run will be, before anything of it runs: size, batch, learning rate, steps, memory and time."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_layers import GradientCheckpointingLayer

from .arguments import RunConfig
from .data.streaming import count_batches
from .methods.choosing import method_of
from .methods.common import Goal, Pass
from .schedules import schedule_steps


BYTES_PER_PARAMETER = 16  # float32 weight and gradient, and AdamW's two moments
AUTOCAST_SHARE = 0.6  # of the float32 activations: what norms keep stays in float32
UTILISATION = 0.4  # of the speed of one large matrix product that training usually reaches
MATMUL_SIDE = 2048


@dataclass(frozen=True)
class OtherPass:
    """
    A forward pass beside the main one: images beside clips, a teacher, a tokenizer.

    Args:
        macs (`int`):
            Multiply-accumulates of one sample.
        samples_per_step (`float`):
            Samples of an optimiser step, over all processes.
    """

    macs: int
    samples_per_step: float


@dataclass(frozen=True)
class RunPlan:
    """
    A run in numbers. Memory and time are estimates: memory of one process by the tensors that the backward pass needs,
    time by the speed of one large matrix product on this machine, without waiting for data.

    Args:
        method (`str`):
            The training method.
        model_type (`str`):
            The family.
        num_parameters (`int`):
            Of the model that is trained.
        forward_macs (`int`):
            Multiply-accumulates of one clip's forward pass.
        processes (`int`):
            Processes, each with `batch_size` videos in a forward pass.
        videos_per_step (`int`):
            Videos decoded for an optimiser step, over all processes: what learning rates are scaled by.
        effective_batch (`int`):
            Clips of an optimiser step, augmented copies (`num_sample`) counted.
        peak_learning_rate (`float`):
            After the batch rule.
        final_learning_rate (`float`):
            At the end, after the batch rule.
        num_videos (`int` or `None`):
            Training videos of an epoch.
        steps_per_epoch (`int` or `None`):
            Optimiser steps.
        total_steps (`int` or `None`):
            Of the run; `None` while nobody says how many videos there are.
        warmup_steps (`int` or `None`):
            Of these.
        memory_gib (`float`):
            Of one process's device.
        hours (`float` or `None`):
            With as many devices like this machine's as there are processes.
        others (`dict[str, OtherPass]`):
            What else goes through a model in a step, by name.
    """

    method: str
    model_type: str
    num_parameters: int
    forward_macs: int
    processes: int
    videos_per_step: int
    effective_batch: int
    peak_learning_rate: float
    final_learning_rate: float
    num_videos: int | None
    steps_per_epoch: int | None
    total_steps: int | None
    warmup_steps: int | None
    memory_gib: float
    hours: float | None
    others: dict[str, OtherPass] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each number, for people."""
        shown = {
            "num_parameters": f"{self.num_parameters:,} ({self.num_parameters / 1e6:.1f} M)",
            "forward_macs": f"{self.forward_macs / 1e9:.2f} G a clip",
            "memory_gib": f"about {self.memory_gib:.1f} GiB a process",
            "hours": "unknown" if self.hours is None else f"about {self.hours:.3g} h on devices like this one",
        }
        rows = []
        for item in fields(self):
            if item.name == "others":
                continue
            value = getattr(self, item.name)
            text = "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((item.name.replace("_", " "), shown.get(item.name, text)))
        for name, other in self.others.items():
            rows.append((f"{name} macs", f"{other.macs / 1e9:.2f} G each, {other.samples_per_step:g} a step"))
        return rows

    def __rich__(self) -> Any:
        """A table, for `rich.print`."""
        from rich.table import Table

        table = Table("run", "", title="Plan")
        for row in self.rows():
            table.add_row(*row)
        return table


def plan_run(
    config: RunConfig,
    goal: Goal | None = None,
    *,
    processes: int | None = None,
    num_videos: int | None = None,
    device: torch.device | None = None,
) -> RunPlan:
    """
    Say what a run will be, without loading weights or decoding anything.

    Args:
        config ([`RunConfig`]):
            The run.
        goal (`str`, *optional*):
            `"classifier"` or `"encoder"`, see [`~methods.choosing.choose`].
        processes (`int`, *optional*):
            Number of processes. Defaults to what the recipe was made for (`about.processes`), else 1.
        num_videos (`int`, *optional*):
            Training videos. Counted in `data.data` by default; without data, `about.num_videos`.
        device (`torch.device`, *optional*):
            The device whose speed is measured; the accelerator, if there is one, by default.

    Returns:
        [`RunPlan`]
    """
    method = method_of(config, goal)
    arguments = config.optimization
    processes = processes or int(config.about.get("processes", 1))
    num_labels = config.about.get("num_labels")
    if config.data.data is not None:
        source = method.open_sources()[0]
        num_videos, num_labels = num_videos or source.num_samples, len(source.label_names) or num_labels
    elif num_videos is None:
        num_videos = config.about.get("num_videos")
    measured = [(one, measure(one)) for one in method.passes(num_labels)]
    (_, cost), *others = measured
    batches = [_batches(num_videos, rank, processes, config) for rank in range(processes)]
    unknown = num_videos is None and arguments.max_steps is None
    steps = schedule_steps(arguments, [1] * processes if unknown else batches)
    per_step = arguments.accumulation * processes
    hours = None
    if not unknown:
        flops = steps.total_steps * arguments.accumulation * _flops(config, measured)
        device = torch.device("cpu") if config.run.cpu else device
        hours = flops / (UTILISATION * matmul_speed(config.run.mixed_precision, device)) / 3600
    return RunPlan(
        method=method.name,
        model_type=cost.model_type,
        num_parameters=cost.num_parameters,
        forward_macs=cost.forward_macs,
        processes=processes,
        videos_per_step=arguments.batch_size * per_step,
        effective_batch=arguments.batch_size * per_step * config.augmentation.num_sample,
        peak_learning_rate=steps.rates.peak,
        final_learning_rate=steps.rates.final,
        num_videos=num_videos,
        steps_per_epoch=None if unknown else steps.steps_per_epoch,
        total_steps=None if unknown else steps.total_steps,
        warmup_steps=None if unknown else steps.warmup_steps,
        memory_gib=estimate_memory(config, measured) / 2**30,
        hours=hours,
        others={one.name: OtherPass(cost.forward_macs, one.samples * per_step) for one, cost in others},
    )


@dataclass(frozen=True)
class ModelCost:
    """
    What one sample costs.

    Args:
        model_type (`str`):
            The family.
        num_parameters (`int`):
            Parameters.
        forward_macs (`int`):
            Multiply-accumulates of matrix products and convolutions.
        activation_bytes (`int`):
            Held for the backward pass, in float32.
        checkpointed_bytes (`int`):
            Held with gradient checkpointing: the input of every block, and one block's inside.
    """

    model_type: str
    num_parameters: int
    forward_macs: int
    activation_bytes: int
    checkpointed_bytes: int


def measure(one: Pass) -> ModelCost:
    """
    Count what one sample costs by running it through a model that has shapes but no memory (torch's meta device).

    Args:
        one ([`Pass`]):
            The model and its example inputs.
    """
    with torch.device("meta"):
        model: Any = one.build().to("meta").train(one.trained)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    held: dict[int, int] = {}
    block_inputs: list[int] = []

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # Attention that is not eager keeps no probabilities, square with the heads before them.
        square = tensor.ndim > 2 and tensor.shape[-1] == tensor.shape[-2] and math.prod(tensor.shape[:-2]) > 1
        if storage._cdata not in weights and not (square and model.config._attn_implementation != "eager"):
            held[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    def note_input(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        block_inputs.append(args[0].numel() * 4)

    alive: list[torch.Tensor] = []  # a freed tensor's storage may come back under the same number
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.register_forward_pre_hook(note_input)
    saved = torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, saved, torch.set_grad_enabled(one.trained):
        model(**one.inputs)
    activations = sum(held.values()) // one.batch_size
    checkpointed = sum(block_inputs) // one.batch_size + activations // max(len(block_inputs), 1)
    macs = counter.get_total_flops() // (2 * one.batch_size)
    return ModelCost(
        model.config.model_type, model.num_parameters(), macs, activations, min(checkpointed, activations)
    )


def estimate_memory(config: RunConfig, measured: Sequence[tuple[Pass, ModelCost]]) -> float:
    """
    Bytes that a process needs on its device: weights, gradients, optimiser, average, frozen models, activations.

    Args:
        config ([`RunConfig`]):
            The run.
        measured (`Sequence[tuple[Pass, ModelCost]]`):
            The passes of a step with their costs, that of the trained model first.
    """
    mixed = config.run.mixed_precision in ("fp16", "bf16")
    per_parameter = BYTES_PER_PARAMETER + (4 if config.optimization.ema_decay else 0) + (2 if mixed else 0)
    bytes_needed: float = measured[0][1].num_parameters * per_parameter
    for one, cost in measured:
        if one.trained:
            held = cost.checkpointed_bytes if config.model.gradient_checkpointing else cost.activation_bytes
            bytes_needed += one.samples * held * (AUTOCAST_SHARE if mixed else 1.0)
        else:
            bytes_needed += cost.num_parameters * (6 if mixed else 4)
    return bytes_needed


def matmul_speed(mixed_precision: str | None = None, device: torch.device | None = None) -> float:
    """
    Floating-point operations a second of a large matrix product.

    Args:
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"fp16"` to time that type.
        device (`torch.device`, *optional*):
            The accelerator, if there is one, by default.
    """
    device = device or _default_device()
    # On a CPU half precision may be emulated, and nobody trains so there.
    half = device.type != "cpu" and mixed_precision in ("fp16", "bf16")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[str(mixed_precision)] if half else torch.float32
    side = MATMUL_SIDE if device.type == "cpu" else 4 * MATMUL_SIDE
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def _default_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _flops(config: RunConfig, measured: Sequence[tuple[Pass, ModelCost]]) -> float:
    """
    Of one forward pass of a process, and of the backward pass, which costs twice that; checkpointing adds a forward
    pass.
    """
    trained = 4 if config.model.gradient_checkpointing else 3
    return sum(2 * one.samples * (trained if one.trained else 1) * cost.forward_macs for one, cost in measured)


def _batches(num_videos: int | None, rank: int, processes: int, config: RunConfig) -> int | None:
    if num_videos is None:
        return None
    share = len(range(rank, num_videos, processes))
    return count_batches(share, config.optimization.batch_size, config.optimization.drop_last)


__all__ = ["ModelCost", "OtherPass", "RunPlan", "estimate_memory", "matmul_speed", "measure", "plan_run"]
