"""Classification of videos and images with a shared encoder, trained on alternating batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForImageClassification, PreTrainedModel

from ..arguments import RunConfig
from ..building import IMAGES, VIDEOS, build_joint_model
from ..data.augmentation import BatchMixing
from ..data.images import image_processor, image_reader, open_images
from ..data.joint import JointStream, count_image_batches
from ..data.loaders import SampleLoader
from ..data.processors import ClipProcessor
from ..data.streaming import Batch, BatchStream, count_batches
from ..engine.loop import FitResult, Observer
from ..fields import check_minimum, option
from ..tasks import JointClassificationTask, Task
from .classification import Classification, LabelArguments, mixed_clips, prepare_labelled
from .common import Rows, RunResult, Sources
from .passes import Pass, example_pixels, model_pass
from .previewing import PreviewedClip, PreviewedCopies


@dataclass
class JointArguments(LabelArguments):
    """
    Arguments of joint training on videos and images.

    Raises:
        ValueError: a number is too small.
    """

    image_data: str | None = option(None, "image files to train on as well: a folder of classes or a list")
    image_ratio: float = option(1.0, "batches of images per batch of videos")
    image_batch_size: int | None = option(None, "images in a batch; defaults to batch_size")
    image_loss_weight: float = option(1.0, "factor of the loss of images")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_minimum(self, image_batch_size=1, image_loss_weight=0)
        if self.image_ratio <= 0:
            raise ValueError(f"`image_ratio` must be above 0, got {self.image_ratio}")


class JointClassification(Classification):
    """
    Train a shared encoder on videos and images, with a classifier for each. The classifier of videos is saved in
    `output_dir`, that of images with its processor in `output_dir/images`, and the model with both in
    `output_dir/joint`.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            Not supported: the run opens its sources and builds its model itself.

    Raises:
        ValueError: `image_data` is missing, or a model or source is given.
    """

    name = "joint_classification"
    arguments_class: ClassVar[type] = JointArguments
    unread = (*Classification.unread, "image_model", "probe", "probe_data")
    changes_accumulation = False

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for runs with `image_data`. See [`Method.fits`]."""
        return config.method.get("image_data") is not None

    def __init__(self, config: RunConfig, **given: Any):
        super().__init__(config, **given)
        if self.arguments.image_data is None:
            raise ValueError("`image_data` is needed: a folder of classes or a list of image files")
        if any(one is not None for one in given.values()):
            raise ValueError(f"`{self.name}` opens its sources and builds its model itself, got {sorted(given)}")

    def open_sources(self) -> Sources:
        """Open the videos, and the images as `image_sources`."""
        self.image_sources = open_images(self.arguments.image_data)
        return super().open_sources()

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """Build a TubeViT with two classifiers."""
        videos, images = self.train_source, self.image_sources[0]
        return build_joint_model(self.config.model, videos.label_names, images.label_names, videos.multi_label)

    def prepare_labels(self) -> None:
        """Build augmentation and mixing. Each classifier has the labels of its data, in their order."""
        num_labels = {name: fields["num_labels"] for name, fields in self.model.config.datasets.items()}
        self.augmentation = self._augmentation(self._all_labels())
        self.mixing = BatchMixing(self.arguments, num_labels[VIDEOS])
        self.image_mixing = BatchMixing(self.arguments, num_labels[IMAGES])
        self.num_hot_labels = num_labels[VIDEOS] if self.train_source.multi_label else None

    def task(self) -> Task:
        """Cross-entropy of each batch by the classifier of its kind."""
        weight = self.arguments.image_loss_weight
        return JointClassificationTask(self.model, VIDEOS, IMAGES, self.arguments.label_smoothing, weight)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented clip with its label."""
        return self._loader(self.processor, self._augmentation(self._all_labels()), self.num_hot_labels)

    def _image_loader(self) -> SampleLoader:
        """The function that reads an augmented image with its label, as a clip of one frame."""
        return self._loader(image_reader(self.processor), self._augmentation(self._all_labels()))

    def stream(self) -> BatchStream:
        """Alternating batches of videos and of images."""
        batch_size = self.arguments.image_batch_size
        images = self.training_stream(self.image_sources[0], self._image_loader(), batch_size, 1, drop_last=True)
        videos = self.training_stream(self.train_source, self.loader(), accumulation=1)
        return JointStream(videos, images, self.arguments.image_ratio)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """
        Finish the augmentation, normalise and mix. Clips of one frame become images. See [`Method.prepare_batch`].
        """
        pixels = rows["pixel_values"] if "pixel_values" in rows else rows["frames"]
        if pixels.shape[2] > 1:  # (batch, copies, frames, ...)
            return super().prepare_batch(rows, device)
        batch = prepare_labelled(rows, device, self.processor, self.augmentation, self.image_mixing)
        return {**batch, "pixel_values": batch["pixel_values"][:, 0]}

    @property
    def can_validate(self) -> bool:
        """Whether there are videos or images to validate on."""
        return self.eval_source is not None or self.image_sources[1] is not None

    def validate(self, model: Any) -> dict[str, float]:
        """Metrics of both classifiers by the quick protocol, prefixed `image_` for images. See [`Method.validate`]."""
        scores = {} if self.eval_source is None else super().validate(model.single(VIDEOS))
        return scores | self._image_scores(model)

    def observers(self) -> list[Observer]:
        """No observers."""
        return []

    def finish(self, fitted: FitResult) -> RunResult:
        """Evaluate the classifier of videos by the full protocol, and save three folders. See [`Method.finish`]."""
        model: Any = fitted.model
        classifier = model.single(VIDEOS)
        evaluation = None
        if self.eval_source is not None:
            evaluation = self.evaluate(classifier, self.processor, self.eval_source)
        image_scores = self._image_scores(model)
        facts = self.classifier_facts(fitted, classifier, evaluation)
        facts |= {"image_data": self.arguments.image_data, "image_metrics": image_scores}
        if self.accelerator.is_main_process:
            self.save(classifier, self.processor)
            _save(model, self.processor, self.output_dir / "joint")
            _save(model.single(IMAGES, images=True), image_processor(self.processor), self.output_dir / "images")
            self.save_evaluation(evaluation, image_metrics=image_scores)
        self.accelerator.wait_for_everyone()
        return RunResult(classifier, self.processor, fitted.history, self.output_dir, facts, evaluation)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The clips' pass and, in other batches, the images'. See [`Method.passes`]."""
        config, ratio = self.model_config(num_labels), self.arguments.image_ratio
        inputs = {"pixel_values": example_pixels(config, frames=1)[:, 0]}
        samples = self.arguments.image_batch_size or self.config.optimization.batch_size
        samples *= self.config.augmentation.num_sample
        images = model_pass(AutoModelForImageClassification, config, inputs, samples, name="image")
        clips = replace(super().passes(num_labels)[0], share=1 / (1 + ratio))
        return [clips, replace(images, share=ratio / (1 + ratio))]

    def num_batches(self, num_samples: int, rank: int, processes: int) -> int:
        """Batches of videos and of images. See [`Method.num_batches`]."""
        optimization = self.config.optimization
        size, drop_last = optimization.batch_size * processes, optimization.drop_last
        videos = count_batches(num_samples, size, drop_last)
        return videos + count_image_batches(num_samples, size, drop_last, self.arguments.image_ratio)

    def preview(self, num_clips: int) -> Iterator[PreviewedClip]:
        """The first clips, then the first images. See [`Method.preview`]."""
        yield from super().preview(num_clips)
        yield from self.preview_source(self.image_sources[0], self._image_loader(), num_clips)

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented and mixed clips or images with their targets. See [`Method.preview_batch`]."""
        is_image = next(iter(batch.rows.values())).shape[2] == 1
        source = self.image_sources[0] if is_image else self.train_source
        names = list(source.label_names)
        rows = self._finished(batch, self._all_labels())
        return PreviewedCopies(
            *mixed_clips(BatchMixing(self.arguments, len(names)), self.processor, names, rows, self.config.run.seed)
        )

    def _all_labels(self) -> list[str]:
        return [*self.train_source.label_names, *self.image_sources[0].label_names]

    def _image_scores(self, model: Any) -> dict[str, float]:
        source = self.image_sources[1]
        if source is None:
            return {}
        result = self.evaluate(model.single(IMAGES), image_reader(self.processor), source, validation=True)
        return {f"image_{name}": value for name, value in result.metrics.items()}


def _save(model: PreTrainedModel, processor: ClipProcessor, folder: Path) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


__all__ = ["JointArguments", "JointClassification"]
