"""The plan of a run before it starts: size, batch, learning rate, steps, memory and time."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_layers import GradientCheckpointingLayer

from ..files import check_weights
from .arguments import AugmentationArguments, RunConfig
from .building import require_checkpoint
from .data.sources import EVAL_SPLITS, VideoList, VideoSource, preview
from .lora import add_adapter
from .methods.choosing import method_of
from .methods.common import Goal, Method
from .methods.passes import Pass
from .schedules import schedule_steps
from .sharded_memory import ParameterShapes, ShardedMemory, parameter_shapes, sharded_memory


BYTES_PER_PARAMETER = 16  # float32 weight and gradient, and AdamW's two moments
AUTOCAST_SHARE = 0.6  # of the float32 activations: those of norms stay in float32
UTILISATION = 0.4  # share of the speed of one large matrix product that training usually reaches
MATMUL_SIDE = 2048
SHARDED_OVER = (8, 64)  # numbers of processes that every plan names
MOST_CLASSES = 40  # classes that a plan lists


@dataclass(frozen=True)
class OtherPass:
    """
    A forward pass besides the main one: images besides clips, a teacher, a tokenizer.

    Args:
        macs (`int`):
            Multiply-accumulates of one sample.
        samples_per_step (`float`):
            Samples per optimiser step, over all processes.
    """

    macs: int
    samples_per_step: float

    def text(self) -> str:
        """The numbers as text."""
        return f"{self.macs / 1e9:.2f} GMACs each, {self.samples_per_step:g} per step"


@dataclass(frozen=True)
class DataPlan:
    """
    The data of a run in numbers.

    Args:
        data (`str`):
            The data.
        splits (`tuple[str, ...]`):
            Splits of the data.
        num_train (`int` or `None`):
            Training samples; `None` if unknown.
        num_eval (`int` or `None`):
            Evaluation samples; `None` if unknown.
        evaluated_on (`str`):
            Where the evaluation samples come from.
        classes (`dict[str, tuple[int, int] | None]`):
            Training and evaluation samples of each class; `None` if unknown.
        remarks (`tuple[str, ...]`):
            What is left out, and what else a user should know.
        samples (`str`, *optional*, defaults to `"clips"`):
            What the samples are, see [`Method.samples`].
    """

    data: str
    splits: tuple[str, ...]
    num_train: int | None
    num_eval: int | None
    evaluated_on: str
    classes: dict[str, tuple[int, int] | None]
    remarks: tuple[str, ...]
    samples: str = "clips"

    def rows(self) -> list[tuple[str, str]]:
        """
        The numbers as text.

        Returns:
            `list[tuple[str, str]]`: name and value of each.
        """
        rows = [
            ("data", self.data),
            ("splits", ", ".join(self.splits) or "none"),
            (f"training {self.samples}", "unknown" if self.num_train is None else str(self.num_train)),
            (
                f"evaluation {self.samples}",
                f"{'' if self.num_eval is None else self.num_eval} {self.evaluated_on}".strip(),
            ),
            ("classes", str(len(self.classes)) if self.classes else f"none: the {self.samples} have no labels"),
        ]
        for name, counts in list(self.classes.items())[:MOST_CLASSES]:
            known = "" if counts is None else f"{counts[0]} to train on, {counts[1]} to evaluate on"
            rows.append((f"  {name}", known))
        if len(self.classes) > MOST_CLASSES:
            rows.append((f"  and {len(self.classes) - MOST_CLASSES} more", ""))
        return rows + [("note", remark) for remark in self.remarks]


@dataclass(frozen=True)
class RunPlan:
    """
    A run in numbers. Memory and time are estimates. Memory is that of one process, from the tensors that the backward
    pass needs. Time follows from the speed of one large matrix product on this machine, without waiting for data.

    Args:
        method (`str`):
            Name of the training method.
        model_type (`str`):
            Family of the model.
        num_parameters (`int`):
            Number of parameters of the trained model.
        forward_macs (`int`):
            Multiply-accumulates of the forward pass of one sample.
        processes (`int`):
            Number of processes, each with `batch_size` videos or images in a forward pass.
        videos_per_step (`int`):
            Videos or images per optimiser step, over all processes. Learning rates are scaled by it.
        effective_batch (`int`):
            Samples per optimiser step, augmented copies (`num_sample`) included.
        peak_learning_rate (`float`):
            Highest learning rate, after scaling by the batch.
        final_learning_rate (`float`):
            Learning rate at the end, after scaling by the batch.
        num_videos (`int` or `None`):
            Training videos or images of an epoch; `None` if unknown.
        steps_per_epoch (`int` or `None`):
            Optimiser steps of an epoch; `None` if unknown.
        total_steps (`int` or `None`):
            Optimiser steps of the run; `None` if unknown.
        warmup_steps (`int` or `None`):
            Optimiser steps of the warm-up, included in `total_steps`; `None` if unknown.
        memory_gib (`float`):
            Device memory of one process in GiB.
        sharded_gib (`dict[int, float]`):
            Device memory of one process in GiB under FSDP2, by the number of processes.
        hours (`float` or `None`):
            Duration in hours with one device like this machine's per process; `None` if unknown.
        others (`dict[str, OtherPass]`, *optional*, defaults to `{}`):
            Further forward passes of a step, by name.
        data ([`DataPlan`], *optional*):
            The clips and their classes, if the run names its data.
        settings (`dict[str, str]`, *optional*, defaults to `{}`):
            What the run starts from, and the regularisation and augmentation that are on.
        samples (`str`, *optional*, defaults to `"clips"`):
            What the samples are, see [`Method.samples`].
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
    sharded_gib: dict[int, float]
    hours: float | None
    others: dict[str, OtherPass] = field(default_factory=dict)
    data: DataPlan | None = None
    settings: dict[str, str] = field(default_factory=dict)
    samples: str = "clips"

    def rows(self) -> list[tuple[str, str]]:
        """
        The numbers as text.

        Returns:
            `list[tuple[str, str]]`: name and value of each.
        """
        sharded = ", ".join(f"{gib:.1f} GiB of each of {number}" for number, gib in self.sharded_gib.items())
        rows = [] if self.data is None else self.data.rows()
        files = "videos" if self.samples == "clips" else self.samples
        seen = "clips" if self.samples == "clips" else f"augmented {self.samples}"
        rows += [
            ("method", self.method),
            ("family", self.model_type),
            ("parameters", f"{self.num_parameters:,} ({self.num_parameters / 1e6:.1f} M)"),
            ("forward pass", f"{self.forward_macs / 1e9:.2f} GMACs per {self.samples.removesuffix('s')}"),
            *((f"forward pass, {name}", other.text()) for name, other in self.others.items()),
            ("processes", str(self.processes)),
            (f"{files} per step", str(self.videos_per_step)),
            (f"{seen} per step", f"{self.effective_batch}, augmented copies included"),
            ("highest learning rate", f"{self.peak_learning_rate:.4g}"),
            ("last learning rate", f"{self.final_learning_rate:.4g}"),
            (f"{files} per epoch", _known(self.num_videos)),
            ("steps per epoch", _known(self.steps_per_epoch)),
            ("steps", _known(self.total_steps)),
            ("steps of warm-up", _known(self.warmup_steps)),
            ("memory", f"about {self.memory_gib:.1f} GiB per process"),
            ("memory under FSDP2", f"about {sharded} processes"),
            (
                "time",
                "unknown" if self.hours is None else f"about {hours_and_minutes(self.hours)} on devices like this one",
            ),
        ]
        return [*rows, *self.settings.items()]

    def __rich__(self) -> Any:
        """A table, for `rich.print`."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("run", "", title="Plan")
        for row in self.rows():
            table.add_row(*(escape(text) for text in row))
        return table


def _known(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def hours_and_minutes(hours: float) -> str:
    """
    A duration as people read it.

    Args:
        hours (`float`):
            Hours.

    Returns:
        `str`: such as `"2:05 h"`, or `"less than a minute"`.
    """
    minutes = round(60 * hours)
    return f"{minutes // 60}:{minutes % 60:02} h" if minutes else "less than a minute"


def plan_run(
    config: RunConfig,
    goal: Goal | None = None,
    *,
    processes: int | None = None,
    num_videos: int | None = None,
    device: torch.device | None = None,
) -> RunPlan:
    """
    Plan a run without loading weights or decoding videos.

    Args:
        config ([`RunConfig`]):
            The run.
        goal (`str`, *optional*):
            `"classifier"` or `"encoder"`, see [`~methods.choosing.choose`].
        processes (`int`, *optional*):
            Number of processes. Defaults to that of the recipe (`about.processes`), else 1.
        num_videos (`int`, *optional*):
            Number of training videos. Counted in `data.data` by default; without data, `about.num_videos`.
        device (`torch.device`, *optional*):
            The device whose speed is measured. Defaults to the accelerator if there is one.

    Returns:
        [`RunPlan`]

    Raises:
        ValueError: the run would not start: the data does not fit the method, a field is not allowed, or the
            checkpoint that the recipe starts from is not given.
    """
    method = method_of(config, goal)
    require_checkpoint(config.model)
    if config.model.checkpoint is not None:
        check_weights("`checkpoint`", config.model.checkpoint)
        method.describe()
    arguments = config.optimization
    processes = processes or int(config.about.get("processes", 1))
    num_labels = config.about.get("num_labels")
    data = None
    if config.data.data is not None:
        source, held_out = method.checked_sources()
        data = describe_data(method, source, held_out)
        num_videos, num_labels = num_videos or source.num_samples, len(source.label_names) or num_labels
    elif num_videos is None:
        num_videos = config.about.get("num_videos")
    measured = [(one, measure(one, config.model.lora)) for one in method.passes(num_labels)]
    (_, cost), *others = measured
    unknown = num_videos is None and arguments.max_steps is None
    batches = [
        None if num_videos is None else method.num_batches(num_videos, rank, processes) for rank in range(processes)
    ]
    steps = schedule_steps(arguments, [1] * processes if unknown and data is None else batches)
    per_step = arguments.accumulation * processes
    hours = None
    if not unknown:
        flops = steps.total_steps * arguments.accumulation * _flops(measured, config.model.gradient_checkpointing)
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
        sharded_gib={
            number: estimate_sharded_memory(config, measured, number).total / 2**30
            for number in sorted({*SHARDED_OVER, *([processes] if processes > 1 else [])})
        },
        hours=hours,
        others={one.name: OtherPass(cost.forward_macs, one.samples * one.share * per_step) for one, cost in others},
        data=data,
        settings=describe_settings(method),
        samples=method.samples,
    )


def describe_settings(method: Method) -> dict[str, str]:
    """
    The start of a run, and its settings besides rates and steps.

    Args:
        method ([`Method`]):
            The method with its run.

    Returns:
        `dict[str, str]`: text by name.
    """
    config = method.config
    model, augmentation = config.model, config.augmentation
    start = model.checkpoint or model.image_model
    on = _changed(augmentation, AugmentationArguments())
    settings = {
        "starts from": start or f"random weights{'' if model.size is None else f', size {model.size}'}",
        "fields of the model": ", ".join(f"{name} {value}" for name, value in model.config.items()) or "its own",
        "layer decay": f"{config.optimization.layer_decay:g}",
        "weight decay": f"{config.optimization.weight_decay:g}",
        "augmentation": f"crop {augmentation.crop}{on and f', {on}'}",
        "fields of the method": _changed(method.arguments, method.arguments_class()) or "defaults",
    }
    if "crop" in method.unread:
        del settings["augmentation"]
    return settings


def _changed(arguments: Any, defaults: Any) -> str:
    """Fields that differ from their defaults, with their values."""
    pairs = ((item.name, getattr(arguments, item.name), getattr(defaults, item.name)) for item in fields(arguments))
    return ", ".join(f"{name} {value}" for name, value, default in pairs if value != default)


def describe_data(method: Method, train: VideoSource, evaluation: VideoSource | None) -> DataPlan:
    """
    Describe the data of a run.

    Args:
        method ([`Method`]):
            The method of the run.
        train ([`VideoSource`]):
            Its training samples.
        evaluation ([`VideoSource`] or `None`):
            Its evaluation samples.

    Returns:
        [`DataPlan`]
    """
    data, samples, splits = method.config.data, method.samples, method.list_splits()
    chosen = data.eval_split or next((name for name in EVAL_SPLITS if name in splits), None)
    if evaluation is None:
        where = "none"
    elif data.eval_data is not None:
        where = f"from {data.eval_data}"
    elif chosen is not None:
        where = f"of {chosen!r}"
    else:
        holds_out = "holdout" not in method.unread
        where = f"held out of the training {samples} (`holdout` {data.holdout:g})" if holds_out else "of another split"
    classes: dict[str, tuple[int, int] | None] = dict.fromkeys(train.label_names)
    if isinstance(train, VideoList):
        theirs = evaluation.label_counts() if isinstance(evaluation, VideoList) else {}
        classes = {name: (count, theirs.get(name, 0)) for name, count in train.label_counts().items()}
    remarks = [*train.remarks, *(evaluation.remarks if evaluation is not None else ())]
    lonely = [name for name, counts in classes.items() if counts is not None and counts[0] == 0]
    if lonely:
        remarks.append(f"Classes without training {samples}: {preview(lonely)}")
    return DataPlan(
        str(data.data),
        tuple(splits),
        train.num_samples,
        0 if evaluation is None else evaluation.num_samples,
        where,
        classes,
        tuple(dict.fromkeys(remarks)),
        samples,
    )


@dataclass(frozen=True)
class ModelCost:
    """
    The cost of one sample.

    Args:
        model_type (`str`):
            Family of the model.
        num_parameters (`int`):
            Number of parameters.
        num_trained (`int`):
            Number of those that are trained: of the adapter and the head, where there is an adapter.
        forward_macs (`int`):
            Multiply-accumulates of matrix products and convolutions.
        activation_bytes (`int`):
            Bytes held for the backward pass in float32.
        checkpointed_bytes (`int`):
            Bytes held with gradient checkpointing: the input of every block, and the activations of one block.
        shapes ([`ParameterShapes`]):
            Its parameters, as FSDP2 shares them out.
    """

    model_type: str
    num_parameters: int
    num_trained: int
    forward_macs: int
    activation_bytes: int
    checkpointed_bytes: int
    shapes: ParameterShapes


def measure(one: Pass, lora: Mapping[str, Any] | None = None) -> ModelCost:
    """
    Measure the cost of one sample by a forward pass on torch's meta device, which has shapes but no memory.

    Args:
        one ([`Pass`]):
            The model and its example inputs.
        lora (`Mapping[str, Any]`, *optional*):
            Fields of the adapter that is trained instead of all weights.

    Returns:
        [`ModelCost`]
    """
    with torch.device("meta"):
        model: Any = one.build().to("meta").train(one.trained)
        if lora and one.trained:
            add_adapter(model, lora)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    held: dict[int, int] = {}
    block_inputs: list[int] = []

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # Only eager attention keeps its probabilities: square matrices with axes for samples and heads before them.
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
    checkpointed = min(checkpointed, activations)
    trained = model.num_parameters(only_trainable=True)
    shapes = parameter_shapes(model)
    return ModelCost(model.config.model_type, model.num_parameters(), trained, macs, activations, checkpointed, shapes)


def estimate_memory(config: RunConfig, measured: Sequence[tuple[Pass, ModelCost]]) -> float:
    """
    Device memory of a process: weights, gradients, optimiser, moving average, frozen models and activations.

    Args:
        config ([`RunConfig`]):
            The run.
        measured (`Sequence[tuple[Pass, ModelCost]]`):
            The passes of a step with their costs, that of the trained model first.

    Returns:
        `float`: bytes.
    """
    mixed = _is_mixed(config)
    per_parameter = BYTES_PER_PARAMETER + (4 if config.optimization.ema_decay else 0) + (2 if mixed else 0)
    trained = measured[0][1]
    frozen = trained.num_parameters - trained.num_trained
    return trained.num_trained * per_parameter + frozen * (6 if mixed else 4) + _held_besides(config, measured)


def estimate_sharded_memory(
    config: RunConfig, measured: Sequence[tuple[Pass, ModelCost]], processes: int
) -> ShardedMemory:
    """
    Device memory of a process under FSDP2.

    Args:
        config ([`RunConfig`]):
            The run.
        measured (`Sequence[tuple[Pass, ModelCost]]`):
            The passes of a step with their costs, that of the trained model first.
        processes (`int`):
            Number of processes.

    Returns:
        [`ShardedMemory`]: frozen models, which are not shared out, count as activations.
    """
    return sharded_memory(
        measured[0][1].shapes,
        processes,
        average=config.optimization.ema_decay is not None,
        mixed=_is_mixed(config),
        activations=_held_besides(config, measured),
    )


def _is_mixed(config: RunConfig) -> bool:
    return config.run.mixed_precision in ("fp16", "bf16")


def _held_besides(config: RunConfig, measured: Sequence[tuple[Pass, ModelCost]]) -> float:
    """Bytes of activations and of frozen models."""
    mixed, held_bytes = _is_mixed(config), 0.0
    in_turn = 0.0  # passes of some batches only are never held together: the largest counts
    for one, cost in measured:
        if one.trained:
            held = cost.checkpointed_bytes if config.model.gradient_checkpointing else cost.activation_bytes
            activations = one.samples * held * (AUTOCAST_SHARE if mixed else 1.0)
            if one.share < 1:
                in_turn = max(in_turn, activations)
            else:
                held_bytes += activations
        else:
            held_bytes += cost.num_parameters * (6 if mixed else 4)
    return held_bytes + in_turn


def matmul_speed(mixed_precision: str | None = None, device: torch.device | None = None) -> float:
    """
    Speed of a large matrix product.

    Args:
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"fp16"` to time that type. Ignored on CPUs.
        device (`torch.device`, *optional*):
            Defaults to the accelerator if there is one.

    Returns:
        `float`: floating-point operations per second.
    """
    device = device or _default_device()
    # CPUs may emulate half precision, and it is not used for training there.
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
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def _flops(measured: Sequence[tuple[Pass, ModelCost]], gradient_checkpointing: bool) -> float:
    """
    Floating-point operations of the forward and backward pass of a process. A backward pass costs as much as two
    forward passes. Checkpointing adds a forward pass.
    """
    trained = 4 if gradient_checkpointing else 3
    return sum(
        2 * one.samples * one.share * (trained if one.trained else 1) * cost.forward_macs for one, cost in measured
    )


__all__ = [
    "DataPlan",
    "ModelCost",
    "OtherPass",
    "RunPlan",
    "describe_data",
    "describe_settings",
    "estimate_memory",
    "estimate_sharded_memory",
    "matmul_speed",
    "measure",
    "plan_run",
]
