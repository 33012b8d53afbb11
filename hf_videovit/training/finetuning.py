"""Fine-tuning from a run's description to a folder that is ready for the Hub: what scripts and command share."""

import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import (
    AutoConfig,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
from transformers.utils import logging

from .arguments import ModelArguments, RunArguments, RunConfig
from .augmentation import BatchMixing, ClipAugmentation
from .engine import FitResult, fit
from .evaluation import EvaluationResult, evaluate_model
from .opening import load_sources, match_labels
from .optimization import HasLayerTable, head_parameters
from .sources import VideoSource
from .streaming import BadVideoLedger, ClipStream, TrainingClipLoader
from .tasks import ClassificationTask


logger = logging.get_logger(__name__)


@dataclass
class FinetuneResult:
    """
    What fine-tuning leaves behind.

    Args:
        model (`PreTrainedModel`):
            The trained model in evaluation mode, also saved in `output_dir`.
        processor ([`ClipVideoProcessor`]):
            Its processor, also saved there.
        evaluation ([`EvaluationResult`] or `None`):
            The final evaluation through the processor's own protocol, where there are videos for it.
        history (`list[dict]`):
            Lines of the training log.
        output_dir (`Path`):
            The folder.
        label_names (`list[str]`):
            The model's labels.
        facts (`dict`):
            What a model card states: data, size, steps, time, scores, protocol, environment, arguments.
    """

    model: PreTrainedModel
    processor: Any
    evaluation: EvaluationResult | None
    history: list[dict[str, Any]]
    output_dir: Path
    label_names: list[str]
    facts: dict[str, Any]


def finetune(
    config: RunConfig,
    *,
    model: PreTrainedModel | None = None,
    processor: Any = None,
    train_source: VideoSource | None = None,
    eval_source: VideoSource | None = None,
    accelerator: Accelerator | None = None,
) -> FinetuneResult:
    """
    Train a classifier, evaluate it and save it.

    Args:
        config ([`RunConfig`]):
            The run.
        model (`PreTrainedModel`, *optional*):
            A model whose labels are those of the data; built from `config.model` by default.
        processor ([`ClipVideoProcessor`], *optional*):
            Its processor; likewise.
        train_source ([`VideoSource`], *optional*):
            Videos to train on; opened from `config.data` by default, together with `eval_source`.
        eval_source ([`VideoSource`], *optional*):
            Videos to evaluate on.
        accelerator (`Accelerator`, *optional*):
            Processes and devices; made from `config.run` by default.

    Returns:
        [`FinetuneResult`]; `output_dir` holds config, weights, processor, `results.json` and `run.yaml`, and beside
        them the run's records in `checkpoints` and `logs`.
    """
    accelerator = accelerator or make_accelerator(config.run)
    torch.manual_seed(config.run.seed)
    if train_source is None:
        train_source, eval_source = load_sources(config.data, config.run.seed)
    if model is None or processor is None:
        built_model, built_processor = build_model(config.model, train_source.label_names)
        model, processor = model or built_model, processor or built_processor
    train_source = match_labels(train_source, model.config.id2label)
    fitted = _fit_classifier(config, accelerator, model, processor, train_source, eval_source)
    evaluation = None
    if eval_source is not None:
        evaluation = evaluate_model(
            fitted.model,
            processor,
            eval_source,
            batch_size=config.run.eval_batch_size or config.optimization.batch_size,
            num_workers=config.data.num_workers,
            accelerator=accelerator,
            timeout=config.data.worker_timeout,
            progress=config.run.progress,
        )
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    facts = _facts(config, accelerator, fitted, evaluation, train_source, label_names)
    output_dir = Path(config.run.output_dir)
    if accelerator.is_main_process:
        save_run(output_dir, config, fitted.model, processor, evaluation)
    accelerator.wait_for_everyone()
    return FinetuneResult(fitted.model, processor, evaluation, fitted.history, output_dir, label_names, facts)


def make_accelerator(arguments: RunArguments) -> Accelerator:
    """The processes and devices of a run, as `accelerate launch` started them."""
    return Accelerator(cpu=arguments.cpu, mixed_precision=arguments.mixed_precision)


def build_model(arguments: ModelArguments, label_names: Sequence[str]) -> tuple[PreTrainedModel, Any]:
    """
    The model and processor that a run starts from.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a family and size from scratch.
        label_names (`Sequence[str]`):
            Names of the data's labels.

    Returns:
        `tuple[PreTrainedModel, ClipVideoProcessor]`: the model in float32. Its labels are the checkpoint's where the
        head is kept, the data's otherwise.
    """
    if arguments.checkpoint is None:
        config = _config_from_scratch(arguments)
        _name_labels(config, label_names)
        model = AutoModelForVideoClassification.from_config(config, **_attention(arguments))
        processor = _processor_from_scratch(config, arguments.processor)
    else:
        config = AutoConfig.from_pretrained(arguments.checkpoint, **arguments.config)
        model = _load_model(arguments, config, label_names)
        processor = _load_processor(arguments, config)
    model = model.float()
    if arguments.gradient_checkpointing:
        with warnings.catch_warnings():  # its new name is not in all supported versions of transformers
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable()
    frames = processor.num_frames or processor.published_num_frames
    if frames != model.config.num_frames:
        logger.warning(f"The processor samples {frames} frames, the model was built for {model.config.num_frames}.")
    return model, processor


def save_run(
    folder: Path, config: RunConfig, model: PreTrainedModel, processor: Any, evaluation: EvaluationResult | None
) -> None:
    """
    Write what the Hub and the next user need.

    Args:
        folder (`Path`):
            Receives config, weights, processor, `run.yaml` and `results.json`.
        config ([`RunConfig`]):
            The run.
        model (`PreTrainedModel`):
            The trained model.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        evaluation ([`EvaluationResult`] or `None`):
            Its scores.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    config.save(folder / "run.yaml")
    if evaluation is not None:
        evaluation.save(folder / "results.json", seed=config.run.seed, data=config.data.eval_data or config.data.data)


class ClassificationBatch:
    """
    Makes the task's input of a batch of uint8 clips, on the device: normalisation, then mixing.

    Args:
        processor ([`ClipVideoProcessor`]):
            Normalises.
        mixing ([`BatchMixing`]):
            Mixes clips and labels.
    """

    def __init__(self, processor: Any, mixing: BatchMixing):
        self.processor, self.mixing = processor, mixing

    def __call__(self, rows: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
        clips = rows["pixel_values"].to(device, non_blocking=True)
        labels = rows["labels"].to(device, non_blocking=True)
        pixel_values, labels = self.mixing(self.processor.normalize_clips(clips), labels)
        return {"pixel_values": pixel_values, "labels": labels}


def _fit_classifier(
    config: RunConfig,
    accelerator: Accelerator,
    model: PreTrainedModel,
    processor: Any,
    train_source: VideoSource,
    eval_source: VideoSource | None,
) -> FitResult:
    data, run = config.data, config.run
    ledger = BadVideoLedger(
        Path(run.output_dir) / "logs" / f"bad_videos.rank{accelerator.process_index}.jsonl",
        data.bad_video_limit,
        data.bad_video_minimum,
    )
    stream = training_stream(config, accelerator, train_source, processor, ledger)

    def validate(weights: PreTrainedModel) -> dict[str, float]:
        assert eval_source is not None
        result = evaluate_model(
            weights,
            processor,
            eval_source,
            batch_size=run.eval_batch_size or config.optimization.batch_size,
            num_workers=data.num_workers,
            sampling_mode="validation",
            accelerator=accelerator,
            mixed_precision=accelerator.mixed_precision,
            timeout=data.worker_timeout,
        )
        return result.metrics | {"num_failed": len(result.failed)}

    return fit(
        ClassificationTask(model, config.augmentation.label_smoothing),
        stream,
        config,
        accelerator=accelerator,
        prepare_batch=ClassificationBatch(processor, BatchMixing(config.augmentation, model.config.num_labels)),
        ledger=ledger,
        validate=None if eval_source is None else validate,
    )


def training_stream(
    config: RunConfig, accelerator: Accelerator, source: VideoSource, processor: Any, ledger: BadVideoLedger
) -> ClipStream:
    """
    The augmented training batches of this process.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`):
            Tells which process this is.
        source ([`VideoSource`]):
            The videos, labelled with the model's labels.
        processor ([`ClipVideoProcessor`]):
            Samples, decodes, and says to what size clips are cropped.
        ledger ([`BadVideoLedger`]):
            Is told of unreadable videos, unless `bad_video` is `"raise"`.
    """
    size = processor.crop_size if processor.do_center_crop else processor.size
    augmentation = ClipAugmentation(
        config.augmentation,
        (size["height"], size["width"]),
        tuple(processor.image_mean),
        tuple(processor.image_std),
    )
    return ClipStream(
        source,
        TrainingClipLoader(processor, augmentation, config.run.seed),
        config.optimization.batch_size,
        config.run.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        num_workers=config.data.num_workers,
        prefetch_batches=config.data.prefetch_batches,
        timeout=config.data.worker_timeout,
        drop_last=config.optimization.drop_last,
        on_bad_video=ledger.add if config.data.bad_video == "skip" else None,
    )


def _config_from_scratch(arguments: ModelArguments) -> PreTrainedConfig:
    config_class = type(AutoConfig.for_model(arguments.model_type))
    if arguments.size is None:
        return config_class(**arguments.config)
    return config_class.from_size(arguments.size, **arguments.config)


def _name_labels(config: PreTrainedConfig, label_names: Sequence[str]) -> None:
    if len(label_names) < 2:
        raise ValueError(f"A classifier needs at least 2 labels, the data has {list(label_names)}")
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"


def _attention(arguments: ModelArguments) -> dict[str, Any]:
    return {} if arguments.attn_implementation is None else {"attn_implementation": arguments.attn_implementation}


def _processor_from_scratch(config: PreTrainedConfig, overrides: dict[str, Any]) -> Any:
    """The family's processor, sized like the model."""
    sides = config.image_size
    height, width = (sides, sides) if isinstance(sides, int) else sides
    fields = {
        "num_frames": config.num_frames,
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
    }
    registered = VIDEO_PROCESSOR_MAPPING[type(config)]
    processor_class = registered["torchvision"] if isinstance(registered, dict) else registered
    return processor_class(**(fields | overrides))


def _load_processor(arguments: ModelArguments, config: PreTrainedConfig) -> Any:
    if arguments.checkpoint is None:
        raise ValueError("`checkpoint` is needed to load a processor")
    try:
        return AutoVideoProcessor.from_pretrained(arguments.checkpoint, **arguments.processor)
    except OSError:
        logger.warning(f"{arguments.checkpoint} has no video processor: the family's own is used.")
        return _processor_from_scratch(config, arguments.processor)


def _load_model(arguments: ModelArguments, config: PreTrainedConfig, label_names: Sequence[str]) -> PreTrainedModel:
    """A checkpoint as a classifier; with a new head where its labels are not the data's."""
    theirs = [config.id2label[index] for index in sorted(config.id2label)]
    keep = arguments.head == "keep" or arguments.head == "auto" and set(theirs) == set(label_names)
    if not keep:
        _name_labels(config, label_names)
    model, info = AutoModelForVideoClassification.from_pretrained(
        arguments.checkpoint,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=not keep,
        output_loading_info=True,
        **_attention(arguments),
    )
    missing = set(info["missing_keys"])
    has_table = isinstance(model, HasLayerTable)
    allowed = head_parameters(model) if has_table and not keep else set()
    if missing - allowed:
        raise ValueError(
            f"`checkpoint` {arguments.checkpoint!r} lacks {', '.join(sorted(missing - allowed)[:8])} of "
            f"{type(model).__name__}" + ("; `head` new starts a fresh head" if keep else "")
        )
    if not keep:
        logger.warning(f"New head for {len(label_names)} labels; the checkpoint's {len(theirs)} are dropped.")
        _renew_head(model, missing | {name for name, *_ in info["mismatched_keys"]})
    return model


def _renew_head(model: PreTrainedModel, fresh: set[str]) -> None:
    """
    Start the head anew where it was loaded, since a head of the same size but of other labels fits without being
    right. What is pooled into it (`fc_norm`) keeps what the checkpoint learnt.
    """
    own = [name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")]
    loaded = [name for name in own if name not in fresh]
    if loaded:
        untrained = type(model)(model.config).state_dict()
        model.load_state_dict(model.state_dict() | {name: untrained[name] for name in loaded})


def _facts(
    config: RunConfig,
    accelerator: Accelerator,
    fitted: FitResult,
    evaluation: EvaluationResult | None,
    source: VideoSource,
    label_names: list[str],
) -> dict[str, Any]:
    optimization, world = config.optimization, accelerator.num_processes
    effective = optimization.batch_size * optimization.accumulation * world
    return {
        "model_type": fitted.model.config.model_type,
        "base_model": config.model.checkpoint,
        "num_parameters": fitted.model.num_parameters(),
        "label_names": label_names,
        "data": config.data.data,
        "num_train_videos": source.num_samples,
        "num_bad_train_videos": fitted.bad_videos,
        "num_eval_videos": None if evaluation is None else len(evaluation.ids),
        "epochs": fitted.epochs,
        "steps": fitted.steps,
        "effective_batch": effective,
        "seconds": round(fitted.seconds, 1),
        "hardware": f"{world} x {accelerator.device.type} ({platform.machine()})",
        "metrics": {} if evaluation is None else evaluation.metrics,
        "protocol": {} if evaluation is None else evaluation.protocol,
        "environment": {} if evaluation is None else evaluation.environment,
        "arguments": config.to_dict(),
    }
