"""What a run will be, before anything of it runs: size, batch, learning rate, steps, memory and time."""

import math
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
    PreTrainedConfig,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from ..modeling.configuration_base import frame_size
from .arguments import RunConfig
from .building import described_config
from .data.images import open_images
from .data.sources import VideoSource
from .data.streaming import count_batches
from .methods.image_classification import open_run_data
from .schedules import schedule_steps
from .words.tokenizers import patch_tokenizer_type


TaskName = Literal["classification", "contrastive", "masked_modeling", "masked_words"]

BYTES_PER_PARAMETER = 16  # float32 weight and gradient, and AdamW's two moments
AUTOCAST_SHARE = 0.6  # of the float32 activations: what norms keep stays in float32
UTILISATION = 0.4  # of the speed of one large matrix product that training usually reaches
MATMUL_SIDE = 2048


@dataclass(frozen=True)
class RunPlan:
    """
    A run in numbers. Memory and time are estimates: memory of one process by the tensors that the backward pass needs,
    time by the speed of one large matrix product on this machine, without waiting for data.

    Args:
        task (`str`):
            The method.
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
            Likewise.
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
        images_per_step (`int` or `None`):
            Images beside the videos of a step, over all processes, where a method sees both.
        image_macs (`int` or `None`):
            Multiply-accumulates of one image's forward pass.
        word_macs (`int` or `None`):
            Of a tokenizer, for the words of one clip.
    """

    task: str
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
    images_per_step: int | None = None
    image_macs: int | None = None
    word_macs: int | None = None

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each number, for people."""
        shown = {
            "num_parameters": f"{self.num_parameters:,} ({self.num_parameters / 1e6:.1f} M)",
            "forward_macs": f"{self.forward_macs / 1e9:.2f} G a clip",
            "memory_gib": f"about {self.memory_gib:.1f} GiB a process",
            "hours": "unknown" if self.hours is None else f"about {self.hours:.3g} h on devices like this one",
            "image_macs": f"{(self.image_macs or 0) / 1e9:.2f} G an image",
            "word_macs": f"{(self.word_macs or 0) / 1e9:.2f} G a clip",
        }
        rows = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.default is None:  # of other methods
                continue
            text = "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((item.name.replace("_", " "), shown.get(item.name, text)))
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
    task: TaskName = "classification",
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
        task (`str`, *optional*, defaults to `"classification"`):
            `"classification"` (distillation included), `"contrastive"`, `"masked_modeling"` or `"masked_words"`.
        processes (`int`, *optional*):
            Number of processes. Defaults to what the recipe was made for (`about.processes`), else 1.
        num_videos (`int`, *optional*):
            Training videos. Counted in `data.data` by default; without data, `about.num_videos`.
        device (`torch.device`, *optional*):
            What to time; the accelerator, if there is one, by default.

    Returns:
        [`RunPlan`]
    """
    if task not in get_args(TaskName):
        raise ValueError(f"`task` must be one of {', '.join(get_args(TaskName))}, got {task!r}")
    arguments = config.optimization
    processes = processes or int(config.about.get("processes", 1))
    num_labels = config.about.get("num_labels")
    if config.data.data is not None:
        source = _training_source(config, task)
        num_videos, num_labels = num_videos or source.num_samples, len(source.label_names) or num_labels
    elif num_videos is None:
        num_videos = config.about.get("num_videos")
    model_config, teacher = _model_config(config, num_labels), _teacher_cost(config)
    cost = measure_model(model_config, task)
    words = WordCost.of(config, model_config) if task == "masked_words" else None
    batches = [_batches(num_videos, rank, processes, config) for rank in range(processes)]
    unknown = num_videos is None and arguments.max_steps is None
    steps = schedule_steps(arguments, [1] * processes if unknown else batches)
    copies = config.augmentation.num_sample
    total = None if unknown else steps.total_steps
    videos = arguments.batch_size * arguments.accumulation * processes
    hours = None
    if total is not None:
        passes = total * arguments.accumulation
        flops: float = passes * arguments.batch_size * copies * _training_flops(config, cost, teacher)
        flops += words.flops(config, passes) if words else 0
        device = torch.device("cpu") if config.run.cpu else device
        hours = flops / (UTILISATION * matmul_speed(config.run.mixed_precision, device)) / 3600
    return RunPlan(
        task=task,
        model_type=cost.model_type,
        num_parameters=cost.num_parameters,
        forward_macs=cost.forward_macs,
        processes=processes,
        videos_per_step=videos,
        effective_batch=videos * copies,
        peak_learning_rate=steps.rates.peak,
        final_learning_rate=steps.rates.final,
        num_videos=num_videos,
        steps_per_epoch=None if unknown else steps.steps_per_epoch,
        total_steps=total,
        warmup_steps=None if unknown else steps.warmup_steps,
        memory_gib=(estimate_memory(config, cost, teacher) + (words.memory(config) if words else 0)) / 2**30,
        hours=hours,
        images_per_step=words.images * arguments.accumulation * processes if words and words.image else None,
        image_macs=words.image.forward_macs if words and words.image else None,
        word_macs=words.frames * words.macs if words else None,
    )


@dataclass(frozen=True)
class ModelCost:
    """
    What one clip costs.

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


@dataclass(frozen=True)
class WordCost:
    """
    What masked visual words cost besides the model's main stream.

    Args:
        image (`ModelCost` or `None`):
            Of an image beside the clips, where the model sees both.
        images (`int`):
            Such images in a forward pass.
        frames (`int`):
            Of a sample of the main stream.
        macs (`int`):
            Of the tokenizer, for one frame.
        tokenizer_bytes (`int`):
            Of its weights.
    """

    image: ModelCost | None
    images: int
    frames: int
    macs: int
    tokenizer_bytes: int

    @classmethod
    def of(cls, config: RunConfig, model_config: PreTrainedConfig) -> "WordCost":
        """Of a run."""
        macs, size = measure_tokenizer(config.model.tokenizer, model_config)
        frames = model_config.num_frames if model_config.video_stream else 1
        image = None
        if model_config.video_stream and model_config.image_stream:
            image = measure_model(model_config, "masked_words", beside=True)
        images = config.data.image_batch_size or config.optimization.batch_size
        return cls(image, images if image else 0, frames, macs, size)

    def flops(self, config: RunConfig, passes: int) -> float:
        """Of so many forward passes: the images', and the words', which a cache works out for its copies alone."""
        kept = config.data.word_cache is not None
        share = min(config.data.word_copies / config.optimization.epochs, 1.0) if kept else 1.0
        clips = config.optimization.batch_size * config.augmentation.num_sample
        words = 2 * share * (clips * self.frames + self.images) * self.macs
        return passes * (words + (self.images * _training_flops(config, self.image, None) if self.image else 0))

    def memory(self, config: RunConfig) -> float:
        """Bytes of the tokenizer and of what the images hold for the backward pass."""
        if self.image is None:
            return self.tokenizer_bytes
        checkpointing = config.model.gradient_checkpointing
        held = self.image.checkpointed_bytes if checkpointing else self.image.activation_bytes
        mixed = config.run.mixed_precision in ("fp16", "bf16")
        return self.tokenizer_bytes + self.images * held * (AUTOCAST_SHARE if mixed else 1.0)


def measure_tokenizer(name: str | None, config: PreTrainedConfig) -> tuple[int, int]:
    """
    Multiply-accumulates of the words of one frame, and bytes of the tokenizer's weights. Typical patches cost next to
    nothing; a name on the Hub is taken for DALL-E's tokenizer, the only published one.

    Args:
        name (`str`, *optional*):
            Folder or Hub id.
        config (`PreTrainedConfig`):
            The model's.
    """
    if name is None or patch_tokenizer_type(name) is not None:
        return 0, 0
    codebook = AutoConfig.from_pretrained(name) if Path(name).is_dir() else FlavaImageCodebookConfig()
    height, width = frame_size(config.image_size)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        tokenizer = FlavaImageCodebook(codebook)
        tokenizer(torch.empty(1, config.num_channels, height // 2, width // 2))
    return counter.get_total_flops() // 2, 4 * tokenizer.num_parameters()


def measure_model(config: PreTrainedConfig, task: TaskName = "classification", beside: bool = False) -> ModelCost:
    """
    Count what one clip costs by running it through a model that has shapes but no memory (torch's meta device).

    Args:
        config (`PreTrainedConfig`):
            The model's.
        task (`str`, *optional*, defaults to `"classification"`):
            The model's head, and whether tokens are masked, or a second clip goes through a second branch.
        beside (`bool`, *optional*, defaults to `False`):
            Whether to count the images that a model of masked words sees beside clips instead of the clips.
    """
    head: Any = AutoModelForVideoClassification if task == "classification" else AutoModelForPreTraining
    frames, clips = config.num_frames, 2 if task == "contrastive" else 1  # statistics of a batch need two
    if config.to_dict().get("modality") == "image":
        head, frames = AutoModelForImageClassification, 1
    with torch.device("meta"):
        model = head.from_config(config).to("meta").train()
        inputs = _example(config, task, clips, frames, beside)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    held: dict[int, int] = {}
    block_inputs: list[int] = []

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # Attention that is not eager keeps no probabilities, square with the heads before them.
        square = tensor.ndim > 2 and tensor.shape[-1] == tensor.shape[-2] and math.prod(tensor.shape[:-2]) > 1
        if storage._cdata not in weights and not (square and config._attn_implementation != "eager"):
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
    with torch.device("meta"), FlopCounterMode(display=False) as counter, saved:
        model(**inputs)
    activations = sum(held.values()) // clips
    checkpointed = sum(block_inputs) // clips + activations // max(len(block_inputs), 1)
    macs = counter.get_total_flops() // (2 * clips)
    return ModelCost(config.model_type, model.num_parameters(), macs, activations, min(checkpointed, activations))


def _example(
    config: PreTrainedConfig, task: TaskName, clips: int, frames: int, beside: bool
) -> dict[str, torch.Tensor]:
    """Inputs of a method."""
    height, width = frame_size(config.image_size)
    pixel_values = torch.empty(clips, frames, config.num_channels, height, width)
    if task == "contrastive":
        return {"pixel_values": pixel_values, "long_pixel_values": pixel_values}
    if task == "masked_modeling":
        mask = torch.zeros(1, math.prod(config.token_grid()), dtype=torch.bool)
        return {"pixel_values": pixel_values, "encoder_mask": mask, "decoder_mask": mask}
    if task == "masked_words":
        words = (height // config.prediction_patch_size, width // config.prediction_patch_size)
        if beside or not config.video_stream:
            mask = torch.zeros(clips, *words, dtype=torch.bool)
            return {"image_pixel_values": pixel_values[:, 0], "image_mask": mask}
        return {
            "pixel_values": pixel_values,
            "mask": torch.zeros(clips, frames // config.tubelet_size, *words, dtype=torch.bool),
        }
    return {"pixel_values": pixel_values}


def estimate_memory(config: RunConfig, cost: ModelCost, teacher: ModelCost | None = None) -> float:
    """
    Bytes that a process needs on its device: weights, gradients, optimiser, moving average, teacher, activations.

    Args:
        config ([`RunConfig`]):
            The run.
        cost ([`ModelCost`]):
            Of its model.
        teacher ([`ModelCost`], *optional*):
            Of its teacher.
    """
    mixed = config.run.mixed_precision in ("fp16", "bf16")
    per_parameter = BYTES_PER_PARAMETER + (4 if config.optimization.ema_decay else 0) + (2 if mixed else 0)
    fixed = cost.num_parameters * per_parameter + (teacher.num_parameters * (6 if mixed else 4) if teacher else 0)
    per_clip = cost.checkpointed_bytes if config.model.gradient_checkpointing else cost.activation_bytes
    clips = config.optimization.batch_size * config.augmentation.num_sample
    return fixed + clips * per_clip * (AUTOCAST_SHARE if mixed else 1.0)


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


def _training_source(config: RunConfig, task: TaskName) -> VideoSource:
    """What an epoch is one of."""
    if task == "masked_words" and not _model_config(config, None).video_stream:
        return open_images(str(config.data.data), config.data.image_split)[0]
    return open_run_data(config)[0]


def _model_config(config: RunConfig, num_labels: int | None) -> PreTrainedConfig:
    if config.model.checkpoint is None:
        found = described_config(config.model)
    else:
        found = AutoConfig.from_pretrained(config.model.checkpoint, **config.model.config)
    if num_labels:
        found.num_labels = num_labels
    return found


def _teacher_cost(config: RunConfig) -> ModelCost | None:
    if config.model.teacher is None:
        return None
    return measure_model(AutoConfig.from_pretrained(config.model.teacher))


def _training_flops(config: RunConfig, cost: ModelCost, teacher: ModelCost | None) -> int:
    """Of one clip: a forward pass, a backward pass of twice that, and what is recomputed or asked of a teacher."""
    passes = 4 if config.model.gradient_checkpointing else 3
    return 2 * (passes * cost.forward_macs + (teacher.forward_macs if teacher else 0))


def _batches(num_videos: int | None, rank: int, processes: int, config: RunConfig) -> int | None:
    if num_videos is None:
        return None
    share = len(range(rank, num_videos, processes))
    return count_batches(share, config.optimization.batch_size, config.optimization.drop_last)
