"""Supervised classification of clips, and knowledge distillation from a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForVideoClassification, PreTrainedModel
from transformers.utils import logging

from ...files import loading
from ...modeling.video_processing_base import ClipVideoProcessor, without_colours
from ..arguments import RunConfig
from ..building import MULTI_LABEL, build_model, load_config, load_teacher
from ..data.augmentation import Augmentation, BatchMixing, MixingArguments, move_rows, seeded_torch
from ..data.loaders import SampleLoader, TrainingClipLoader
from ..data.opening import match_labels, require_labels, told
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource, stable_hash
from ..data.streaming import Batch, merge_copies
from ..data.streams import clip_augmentation, keep_directions
from ..engine.loop import FitResult
from ..evaluation.evaluation import EvaluationResult
from ..evaluation.hardest import draw_hardest_clips, video_losses
from ..evaluation.held_out import claim_of, save_training_clips
from ..fields import check_range, option
from ..tasks import ClassificationTask, DistillationTask, Task
from .common import Method, Rows, RunResult
from .passes import Pass, example_pixels, model_pass
from .previewing import PreviewedCopies


logger = logging.get_logger(__name__)


@dataclass
class LabelArguments(MixingArguments):
    """
    Arguments of supervised classification.

    Raises:
        ValueError: `label_smoothing` is not between 0 and 1.
    """

    label_smoothing: float = option(0.0, "share of the target that is spread over all labels")
    flip_labels: Literal["alike", "any"] = option(
        "alike", "alike: mirror only if no label name differs from another in left and right; any: as set by `flip`"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("label_smoothing", self.label_smoothing, 0.0, 1.0)


class Classification(Method):
    """
    Train a classifier of clips with one label each, or with any number of labels.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "classification"
    goal = "classifier"
    arguments_class: ClassVar[type] = LabelArguments
    unread: ClassVar[tuple[str, ...]] = ("picture_every",)

    num_hot_labels: int | None = None  # number of labels of multi-label data

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for every classifier that no other method takes. See [`Method.fits`]."""
        return True

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """
        Build the classifier: a checkpoint, with a new head if its labels differ from the data's, or a size from
        scratch.
        """
        source = self.train_source
        return build_model(self.config.model, source.label_names, source.multi_label)

    def begin(self, accelerator: Accelerator) -> None:
        """Match the labels of videos and model as well. See [`Method.begin`]."""
        super().begin(accelerator)
        self.prepare_labels()

    def check_sources(self, train_source: VideoSource, eval_source: VideoSource | None) -> None:
        """
        Refuse videos without labels, with a single label, or with labels that a kept head lacks.

        Args:
            train_source ([`VideoSource`]):
                Training videos.
            eval_source ([`VideoSource`] or `None`):
                Evaluation videos.

        Raises:
            ValueError: a classifier cannot be trained on them.
        """
        super().check_sources(train_source, eval_source)
        data, names = self.config.data, train_source.label_names
        require_labels(train_source, f"`data` {data.data!r}", "or use `pretrain`, which needs none")
        model = self.config.model
        kept = model.checkpoint is not None and model.head == "keep"
        least = 1 if train_source.multi_label else 2
        if not kept and len(names) < least:
            count = "two labels" if least == 2 else "one label"
            raise ValueError(f"`data` must have at least {count} for {self.name}, got {names}{told(train_source)}")
        if eval_source is not None:
            place = data.eval_data or data.data
            require_labels(eval_source, f"`eval_data` {place!r}", "or set `holdout` and leave out `eval_split`")
        if kept:
            match_labels(train_source, load_config(model).id2label)

    def prepare_labels(self) -> None:
        """Map the videos' labels to those of the model, and build augmentation and mixing."""
        config = self.model.config
        self.train_source = match_labels(self.train_source, config.id2label)
        self.augmentation = self._augmentation(self.train_source.label_names)
        self.mixing = BatchMixing(self.arguments, config.num_labels)
        self.num_hot_labels = config.num_labels if config.problem_type == MULTI_LABEL else None

    def begin_preview(self) -> None:
        """See [`Method.begin_preview`]."""
        super().begin_preview()
        if self.train_source.multi_label:
            self.num_hot_labels = len(self.train_source.label_names)

    def task(self) -> Task:
        """Cross-entropy, or binary cross-entropy for multi-label data."""
        return ClassificationTask(self.model, self.arguments.label_smoothing)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented clip with its label."""
        return self._loader(self.processor, self._augmentation(self.train_source.label_names), self.num_hot_labels)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Finish the augmentation, normalise and mix. See [`Method.prepare_batch`]."""
        return prepare_labelled(rows, device, self.processor, self.augmentation, self.mixing)

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Metrics of the quick protocol. See [`Method.validate`]."""
        assert self.eval_source is not None
        result = self.evaluate(model, self.processor, self.eval_source, validation=True)
        losses = video_losses(result)
        known = losses[np.isfinite(losses)]
        loss = {"loss": float(known.mean())} if len(known) else {}
        return result.metrics | loss | {"num_failed": len(result.failed)}

    def finish(self, fitted: FitResult) -> RunResult:
        """Evaluate by the full protocol, and save a folder that is ready for the Hub. See [`Method.finish`]."""
        evaluation = None
        if self.eval_source is not None:
            evaluation = self.evaluate(fitted.model, self.processor, self.eval_source)
        if self.accelerator.is_main_process:
            self.save(fitted.model, self.processor)
            self.save_evaluation(evaluation)
            self._draw_hardest(evaluation)
        self.accelerator.wait_for_everyone()
        facts = self.classifier_facts(fitted, fitted.model, evaluation)
        return RunResult(fitted.model, self.processor, fitted.history, self.output_dir, facts, evaluation)

    def _draw_hardest(self, evaluation: EvaluationResult | None) -> None:
        """Draw the clips with the highest loss. Shards are not read once more for it, and images have no clips."""
        source, processor = self.eval_source, self.processor
        if not self.config.run.curves or evaluation is None or source is None or source.reads_ahead:
            return
        if not isinstance(processor, ClipVideoProcessor):
            return
        try:
            draw_hardest_clips(evaluation, source, processor, self.output_dir / "logs" / "hardest_clips.png")
        except ImportError:
            logger.warning("The hardest clips are not drawn: matplotlib is not installed (hf_videovit[train])")

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of clips. See [`Method.passes`]."""
        config = self.model_config(num_labels)
        inputs = {"pixel_values": example_pixels(config)}
        return [model_pass(AutoModelForVideoClassification, config, inputs, self.clips_per_pass)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented and mixed clips with their targets. See [`Method.preview_batch`]."""
        names = list(self.train_source.label_names)
        if len(names) < 2:
            raise ValueError(f"`data` must have at least two labels for {self.name}, got {names}")
        rows = self._finished(batch, names)
        mixing = BatchMixing(self.arguments, len(names))
        return PreviewedCopies(*mixed_clips(mixing, self.processor, names, rows, self.config.run.seed))

    # Shared with joint training.

    def _finished(self, batch: Batch, label_names: Sequence[str]) -> Rows:
        """Augmented uint8 clips with their labels, ordered by copy."""
        rows = self._augmentation(label_names).finish(merge_copies(batch.rows))
        if self.processor.do_grayscale:
            rows["pixel_values"] = without_colours(rows["pixel_values"])
        return rows

    def save_evaluation(self, evaluation: EvaluationResult | None, **more: Any) -> None:
        """
        Write `results.json` if there is an evaluation, and record the clips that were trained on.

        Args:
            evaluation ([`EvaluationResult`] or `None`):
                The evaluation.
            more:
                Further plain values to write.
        """
        if evaluation is not None:
            claim = claim_of(self.config.data, self.config.run.seed, self.eval_source)
            evaluation.save(self.output_dir / "results.json", **claim, **more)
        save_training_clips(self.train_source, self.output_dir)

    def classifier_facts(
        self, fitted: FitResult, classifier: PreTrainedModel, evaluation: EvaluationResult | None
    ) -> dict[str, Any]:
        """
        Facts about a classifier's run for the model card.

        Args:
            fitted ([`FitResult`]):
                Result of the training loop.
            classifier (`PreTrainedModel`):
                The classifier of videos.
            evaluation ([`EvaluationResult`] or `None`):
                Its evaluation.

        Returns:
            `dict[str, Any]`: plain values.
        """
        id2label = classifier.config.id2label
        return (
            self.facts(fitted)
            | {
                "label_names": [id2label[index] for index in range(classifier.config.num_labels)],
                "num_eval_videos": None if evaluation is None else len(evaluation.ids),
                "metrics": {} if evaluation is None else evaluation.metrics,
                "protocol": {} if evaluation is None else evaluation.protocol,
            }
            | ({} if evaluation is None else {"environment": evaluation.environment})
        )

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
    """
    Arguments of knowledge distillation.

    Raises:
        ValueError: `temperature` is not above 0.
    """

    teacher: str | None = option(None, "folder or Hub id of the classifier whose predictions replace the labels")
    temperature: float = option(1.0, "divides the logits of teacher and student before the softmax")
    flip_labels: Literal["alike", "any"] = option(
        "alike", "alike: mirror only if no label name differs from another in left and right; any: as set by `flip`"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}")


class Distillation(Classification):
    """
    Train a classifier on the predictions of another classifier.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].

    Raises:
        ValueError: `teacher` is missing.
    """

    name = "distillation"
    arguments_class = DistillationArguments

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for runs with a teacher. See [`Method.fits`]."""
        return config.method.get("teacher") is not None

    def __init__(self, config: RunConfig, **given: Any):
        super().__init__(config, **given)
        if self.arguments.teacher is None:
            raise ValueError("`teacher` is needed: the folder or Hub id of a classifier")

    def task(self) -> Task:
        """
        The divergence between student and teacher.

        Raises:
            ValueError: the data is multi-label.
        """
        if self.model.config.problem_type == MULTI_LABEL:
            raise ValueError("`teacher` is not supported with multi-label data")
        teacher = load_teacher(self.config.model, self.arguments.teacher, self.processor)
        return DistillationTask(self.model, teacher, self.arguments.temperature)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of clips through the student, and through the teacher. See [`Method.passes`]."""
        with loading("`teacher`", self.arguments.teacher):
            config = AutoConfig.from_pretrained(self.arguments.teacher)
        inputs = {"pixel_values": example_pixels(config)}
        taught = model_pass(AutoModelForVideoClassification, config, inputs, self.clips_per_pass, name="teacher")
        return [*super().passes(num_labels), Pass(**(vars(taught) | {"trained": False}))]


def prepare_labelled(
    rows: Rows, device: torch.device, processor: ClipProcessor, augmentation: Augmentation, mixing: BatchMixing
) -> Rows:
    """
    Turn a batch of labelled uint8 clips into the input of the task: finish the augmentation on the device, normalise
    and mix.

    Args:
        rows (`dict[str, torch.Tensor]`):
            Stacked tensors from the loader.
        device (`torch.device`):
            Device of the task.
        processor ([`ClipProcessor`]):
            Normalises the clips.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            The augmentation that the loader uses.
        mixing ([`BatchMixing`]):
            Mixes clips and labels.

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values` and `labels`.
    """
    rows = augmentation.finish(merge_copies(move_rows(rows, device)))
    pixel_values, labels = mixing(processor.normalize_clips(rows["pixel_values"]), rows["labels"])
    return {"pixel_values": pixel_values, "labels": labels}


def mixed_clips(
    mixing: BatchMixing, processor: ClipProcessor, names: Sequence[str], rows: Rows, seed: int
) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """
    Mix clips and targets as in the first step of a run.

    Args:
        mixing ([`BatchMixing`]):
            Mixes clips and labels.
        processor ([`ClipProcessor`]):
            Normalises the clips.
        names (`Sequence[str]`):
            Names of the labels.
        rows (`dict[str, torch.Tensor]`):
            uint8 `pixel_values` and `labels`.
        seed (`int`):
            Seed of the run.

    Returns:
        `tuple[torch.Tensor, list[dict[str, float]]]`: uint8 clips, and for each the shares of its labels by name.
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
