"""Fine-tuning from a run's description to a folder that is ready for the Hub: what scripts and command share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from ..arguments import RunConfig
from ..building import MULTI_LABEL, build_model, load_teacher
from ..data.augmentation import Augmentation, BatchMixing
from ..data.opening import load_sources, match_labels
from ..data.sources import VideoSource
from ..data.streaming import TrainingClipLoader, merge_copies
from ..data.streams import clip_augmentation, training_ledger, training_stream
from ..engine.loop import FitResult, fit
from ..evaluation.evaluation import EvaluationResult, evaluate_model
from ..evaluation.probes import online_probe
from ..tasks import ClassificationTask, DistillationTask, Task, TokenLabelTask
from .common import make_accelerator, run_facts, save_model
from .image_classification import finetune_images, trains_images


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
    if config.data.image_data is not None:
        from .joint import finetune_jointly

        if any(one is not None for one in (model, processor, train_source, eval_source)):
            raise ValueError("`image_data` goes with models and sources that the run opens itself")
        return finetune_jointly(config, accelerator=accelerator)
    if model is None and trains_images(config.model):
        return finetune_images(config, accelerator=accelerator)
    accelerator = accelerator or make_accelerator(config.run)
    torch.manual_seed(config.run.seed)
    if train_source is None:
        train_source, eval_source = load_sources(config.data, config.run.seed)
    if model is None and not train_source.label_names:
        raise ValueError(f"`data` {config.data.data!r} has no labels to learn: give `label_column`, or pretrain on it")
    if model is None or processor is None:
        built_model, built_processor = build_model(config.model, train_source.label_names, train_source.multi_label)
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
    facts = classifier_facts(config, accelerator, fitted, evaluation, train_source, label_names)
    output_dir = Path(config.run.output_dir)
    if accelerator.is_main_process:
        save_model(output_dir, config, fitted.model, processor)
        if evaluation is not None:
            data = config.data.eval_data or config.data.data
            evaluation.save(output_dir / "results.json", seed=config.run.seed, data=data)
    accelerator.wait_for_everyone()
    return FinetuneResult(fitted.model, processor, evaluation, fitted.history, output_dir, label_names, facts)


class ClassificationBatch:
    """
    Makes the task's input of a batch of uint8 clips, on the device: what the workers left of the augmentation, then
    normalisation, then mixing.

    Args:
        processor ([`ClipVideoProcessor`]):
            Normalises.
        mixing ([`BatchMixing`]):
            Mixes clips and labels.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`], *optional*):
            What the workers' loader has, too, if it leaves anything to do.
    """

    def __init__(self, processor: Any, mixing: BatchMixing, augmentation: Augmentation | None = None):
        self.processor, self.mixing, self.augmentation = processor, mixing, augmentation

    def __call__(self, rows: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
        rows = {name: value.to(device, non_blocking=True) for name, value in merge_copies(rows).items()}
        rows = rows if self.augmentation is None else self.augmentation.finish(rows)
        clips, labels = rows["pixel_values"], rows["labels"]
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
    ledger = training_ledger(config, accelerator)
    augmentation = clip_augmentation(config, processor, train_source.label_names)
    mixing = BatchMixing(config.augmentation, model.config.num_labels)
    num_labels = model.config.num_labels if model.config.problem_type == MULTI_LABEL else None
    load = TrainingClipLoader(processor, augmentation, run.seed, config.augmentation.num_sample, num_labels)
    stream = training_stream(config, accelerator, train_source, load, ledger)

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

    probe = online_probe(config, processor, accelerator, train_source, eval_source)
    return fit(
        _task(config, model, processor),
        stream,
        config,
        accelerator=accelerator,
        prepare_batch=ClassificationBatch(processor, mixing, augmentation),
        ledger=ledger,
        validate=None if eval_source is None else validate,
        observers=[] if probe is None else [probe],
    )


def _task(config: RunConfig, model: PreTrainedModel, processor: Any) -> Task:
    if model.config.to_dict().get("use_auxiliary_head"):
        return TokenLabelTask(model, config.augmentation.label_smoothing, config.augmentation.mix_probability)
    if config.model.teacher is None:
        return ClassificationTask(model, config.augmentation.label_smoothing)
    if model.config.problem_type == MULTI_LABEL:
        raise ValueError("`teacher` must be left out for multi-label data: distillation compares one label a clip")
    return DistillationTask(model, load_teacher(config.model, processor), config.model.temperature)


def classifier_facts(
    config: RunConfig,
    accelerator: Accelerator,
    fitted: FitResult,
    evaluation: EvaluationResult | None,
    source: VideoSource,
    label_names: list[str],
) -> dict[str, Any]:
    """What a model card states of a classifier's run."""
    return run_facts(config, accelerator, fitted, source) | {
        "label_names": label_names,
        "num_eval_videos": None if evaluation is None else len(evaluation.ids),
        "metrics": {} if evaluation is None else evaluation.metrics,
        "protocol": {} if evaluation is None else evaluation.protocol,
        "environment": {} if evaluation is None else evaluation.environment,
    }
