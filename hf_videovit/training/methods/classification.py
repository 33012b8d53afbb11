"""Supervised classification of clips, and learning from a teacher's answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForVideoClassification, PreTrainedModel

from ...modeling.video_processing_base import without_colours
from ..arguments import RunConfig, check_range, option
from ..building import MULTI_LABEL, build_model, load_teacher
from ..data.augmentation import Augmentation, BatchMixing, MixingArguments, seeded_torch
from ..data.opening import match_labels
from ..data.processors import ClipProcessor
from ..data.sources import stable_hash
from ..data.streaming import Batch, SampleLoader, TrainingClipLoader, merge_copies
from ..data.streams import clip_augmentation, keep_directions
from ..engine.loop import FitResult
from ..evaluation.evaluation import EvaluationResult
from ..tasks import ClassificationTask, DistillationTask, Task
from .common import Method, Pass, Rows, RunResult, example_pixels, model_pass
from .previewing import PreviewedCopies


@dataclass
class LabelArguments(MixingArguments):
    """How labels are learned."""

    label_smoothing: float = option(0.0, "share of the target spread over all labels")
    flip_labels: Literal["alike", "any"] = option(
        "alike", "mirror only where left and right make no difference to the labels' names, or always as `flip` says"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("label_smoothing", self.label_smoothing, 0.0, 1.0)


class Classification(Method):
    """Train a classifier of clips with one label each, or with any number of them."""

    name = "classification"
    goal = "classifier"
    arguments_class: ClassVar[type] = LabelArguments
    unread: ClassVar[tuple[str, ...]] = ("picture_every",)

    num_hot_labels: int | None = None  # where a clip has any number of labels: their number

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """The method of every classifier that no other method claims."""
        return True

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """A checkpoint, with a new head where its labels are not the data's; or a size from scratch."""
        source = self.train_source
        if not source.label_names:
            raise ValueError(
                f"`data` {self.config.data.data!r} has no labels to learn: give `label_column`, or pretrain on it"
            )
        return build_model(self.config.model, source.label_names, source.multi_label)

    def begin(self, accelerator: Accelerator) -> None:
        """See [`Method`]; the videos' labels then index the model's."""
        super().begin(accelerator)
        self.prepare_labels()

    def prepare_labels(self) -> None:
        """Give the videos the model's labels, and set up what depends on them."""
        config = self.model.config
        self.train_source = match_labels(self.train_source, config.id2label)
        self.augmentation = self._augmentation(self.train_source.label_names)
        self.mixing = BatchMixing(self.arguments, config.num_labels)
        self.num_hot_labels = config.num_labels if config.problem_type == MULTI_LABEL else None

    def begin_preview(self) -> None:
        """See [`Method`]."""
        super().begin_preview()
        if self.train_source.multi_label:
            self.num_hot_labels = len(self.train_source.label_names)

    def task(self) -> Task:
        """Cross-entropy, or binary cross-entropy for any number of labels."""
        return ClassificationTask(self.model, self.arguments.label_smoothing)

    def loader(self) -> SampleLoader:
        """Reads one augmented clip with its label."""
        return self._loader(self.processor, self._augmentation(self.train_source.label_names), self.num_hot_labels)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Finish the augmentation, normalise, mix."""
        return prepare_labelled(rows, device, self.processor, self.augmentation, self.mixing)

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Scores of the quick protocol."""
        assert self.eval_source is not None
        result = self.evaluate(model, self.processor, self.eval_source, validation=True)
        return result.metrics | {"num_failed": len(result.failed)}

    def finish(self, fitted: FitResult) -> RunResult:
        """Scores of the full protocol, and a folder that is ready for the Hub."""
        evaluation = None
        if self.eval_source is not None:
            evaluation = self.evaluate(fitted.model, self.processor, self.eval_source)
        if self.accelerator.is_main_process:
            self.save(fitted.model, self.processor)
            self.save_evaluation(evaluation)
        self.accelerator.wait_for_everyone()
        facts = self.classifier_facts(fitted, fitted.model, evaluation)
        return RunResult(fitted.model, self.processor, fitted.history, self.output_dir, facts, evaluation)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The clips' pass."""
        config = self.model_config(num_labels)
        inputs = {"pixel_values": example_pixels(config)}
        return [model_pass(AutoModelForVideoClassification, config, inputs, self.clips_per_pass)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented and mixed clips with their targets."""
        names = list(self.train_source.label_names)
        if len(names) < 2:
            raise ValueError(f"`data` must have at least two labels for {self.name}, it has {names}")
        rows = self._finished(batch, names)
        mixing = BatchMixing(self.arguments, len(names))
        return PreviewedCopies(*mixed_clips(mixing, self.processor, names, rows, self.config.run.seed))

    # Shared with joint training.

    def _finished(self, batch: Batch, label_names: Sequence[str]) -> Rows:
        """Augmented uint8 clips with their labels, all first copies first."""
        rows = self._augmentation(label_names).finish(merge_copies(batch.rows))
        if self.processor.do_grayscale:
            rows["pixel_values"] = without_colours(rows["pixel_values"])
        return rows

    def save_evaluation(self, evaluation: EvaluationResult | None, **more: Any) -> None:
        """Write `results.json`."""
        if evaluation is not None:
            data = self.config.data.eval_data or self.config.data.data
            evaluation.save(self.output_dir / "results.json", seed=self.config.run.seed, data=data, **more)

    def classifier_facts(
        self, fitted: FitResult, classifier: PreTrainedModel, evaluation: EvaluationResult | None
    ) -> dict[str, Any]:
        """What a model card states of a classifier's run."""
        id2label = classifier.config.id2label
        return self.facts(fitted) | {
            "label_names": [id2label[index] for index in range(classifier.config.num_labels)],
            "num_eval_videos": None if evaluation is None else len(evaluation.ids),
            "metrics": {} if evaluation is None else evaluation.metrics,
            "protocol": {} if evaluation is None else evaluation.protocol,
            "environment": {} if evaluation is None else evaluation.environment,
        }

    def _augmentation(self, label_names: Sequence[str]) -> Augmentation:
        arguments = self.config.augmentation
        if self.arguments.flip_labels == "alike":
            arguments = keep_directions(arguments, label_names)
        return clip_augmentation(arguments, self.processor)

    def _loader(
        self, processor: ClipProcessor, augmentation: Augmentation, num_labels: int | None = None
    ) -> TrainingClipLoader:
        seed, copies = self.config.run.seed, self.config.augmentation.num_sample
        return TrainingClipLoader(processor, augmentation, seed, copies, num_labels)


@dataclass
class DistillationArguments(MixingArguments):
    """Whose answers are learned, and how."""

    teacher: str | None = option(None, "folder or Hub id of a classifier whose answers are learned instead of labels")
    temperature: float = option(1.0, "softens the answers of teacher and student alike; 1 leaves them as they are")
    flip_labels: Literal["alike", "any"] = option(
        "alike", "mirror only where left and right make no difference to the labels' names, or always as `flip` says"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}")


class Distillation(Classification):
    """Train a classifier on another classifier's answers."""

    name = "distillation"
    arguments_class = DistillationArguments

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """The method of a run with a teacher."""
        return config.method.get("teacher") is not None

    def __init__(self, config: RunConfig, **given: Any):
        super().__init__(config, **given)
        if self.arguments.teacher is None:
            raise ValueError("`teacher` is needed: a folder or Hub id of the classifier whose answers are learned")

    def task(self) -> Task:
        """The divergence between student and teacher."""
        if self.model.config.problem_type == MULTI_LABEL:
            raise ValueError("`teacher` must be left out for multi-label data: distillation compares one label a clip")
        teacher = load_teacher(self.config.model, self.arguments.teacher, self.processor)
        return DistillationTask(self.model, teacher, self.arguments.temperature)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The clips' pass through the student, and through the teacher."""
        config = AutoConfig.from_pretrained(self.arguments.teacher)
        inputs = {"pixel_values": example_pixels(config)}
        taught = model_pass(AutoModelForVideoClassification, config, inputs, self.clips_per_pass, name="teacher")
        return [*super().passes(num_labels), Pass(**(vars(taught) | {"trained": False}))]


def prepare_labelled(
    rows: Rows, device: torch.device, processor: ClipProcessor, augmentation: Augmentation, mixing: BatchMixing
) -> Rows:
    """
    The task's input of a batch of labelled uint8 clips, on the device: what the workers left of the augmentation, then
    normalisation, then mixing.

    Args:
        rows (`dict[str, torch.Tensor]`):
            The loader's tensors, stacked.
        device (`torch.device`):
            Where the task computes.
        processor ([`ClipVideoProcessor`]):
            Normalises.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            The augmentation that the workers' loader has.
        mixing ([`BatchMixing`]):
            Mixes clips and labels.
    """
    rows = {name: value.to(device, non_blocking=True) for name, value in merge_copies(rows).items()}
    rows = augmentation.finish(rows)
    pixel_values, labels = mixing(processor.normalize_clips(rows["pixel_values"]), rows["labels"])
    return {"pixel_values": pixel_values, "labels": labels}


def mixed_clips(
    mixing: BatchMixing, processor: ClipProcessor, names: Sequence[str], rows: Rows, seed: int
) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """
    Clips and targets as the first step of a run would mix them.

    Args:
        mixing ([`BatchMixing`]):
            The run's.
        processor ([`ClipVideoProcessor`]):
            Normalises.
        names (`Sequence[str]`):
            The labels' names.
        rows (`dict[str, torch.Tensor]`):
            uint8 `pixel_values` and `labels`.
        seed (`int`):
            The run's.

    Returns:
        `tuple[torch.Tensor, list[dict[str, float]]]`: uint8 clips, and of each the shares of its labels by name.
    """
    with seeded_torch(stable_hash(f"{seed}/0/0") >> 1):
        pixels, labels = mixing(processor.normalize_clips(rows["pixel_values"]), rows["labels"])
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (processor.image_mean, processor.image_std))
    if processor.do_normalize:
        pixels = pixels * std + mean
    if labels.ndim == 1:
        return rows["pixel_values"], [{names[int(label)]: 1.0} for label in labels]
    targets = [{names[index]: share for index, share in enumerate(row) if share > 0} for row in labels.tolist()]
    return (pixels / processor.rescale_factor).round().clamp(0, 255).to(torch.uint8), targets


__all__ = [
    "Classification",
    "Distillation",
    "DistillationArguments",
    "LabelArguments",
    "mixed_clips",
    "prepare_labelled",
]
