"""
Images and videos trained together: batches of either kind in turn from two streams, one encoder, a classifier each.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from ..arguments import RunConfig
from ..building import IMAGES, VIDEOS, build_joint_model
from ..data.augmentation import Augmentation, BatchMixing
from ..data.images import image_processor, image_reader, open_images
from ..data.joint import JointStream
from ..data.opening import load_sources
from ..data.sources import VideoList, VideoSource
from ..data.streaming import TrainingClipLoader
from ..data.streams import clip_augmentation, training_ledger, training_stream
from ..engine.loop import FitResult, fit
from ..evaluation.evaluation import EvaluationResult, evaluate_model
from ..tasks import JointClassificationTask
from .classification import ClassificationBatch, FinetuneResult, classifier_facts
from .common import make_accelerator, save_model


class JointBatch:
    """
    Makes the task's input of a batch of either kind. A clip of one frame is an image, and loses that axis.

    Args:
        processor ([`ClipVideoProcessor`]):
            Normalises both.
        videos ([`BatchMixing`]), images ([`BatchMixing`]):
            Mix samples and labels of each kind.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`], *optional*):
            What the workers' loaders have, too.
    """

    def __init__(
        self,
        processor: Any,
        videos: BatchMixing,
        images: BatchMixing,
        augmentation: Augmentation | None = None,
    ):
        self.videos = ClassificationBatch(processor, videos, augmentation)
        self.images = ClassificationBatch(processor, images, augmentation)

    def __call__(self, rows: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
        pixels = rows["pixel_values"] if "pixel_values" in rows else rows["frames"]
        if pixels.shape[2] > 1:  # (batch, copies, frames, ...)
            return self.videos(rows, device)
        batch = self.images(rows, device)
        return {**batch, "pixel_values": batch["pixel_values"][:, 0]}


def finetune_jointly(
    config: RunConfig,
    *,
    accelerator: Accelerator | None = None,
) -> FinetuneResult:
    """
    Train one encoder on videos and images, evaluate the videos' classifier and save everything.

    Args:
        config ([`RunConfig`]):
            The run; `data.image_data` names the images.
        accelerator (`Accelerator`, *optional*):
            Processes and devices; made from `config.run` by default.

    Returns:
        [`FinetuneResult`] of the videos' classifier, which `output_dir` holds; `output_dir/joint` holds the model with
        both, `output_dir/images` the images' with its processor. The images' scores stand among the facts.
    """
    accelerator = accelerator or make_accelerator(config.run)
    torch.manual_seed(config.run.seed)
    video_sources = load_sources(config.data, config.run.seed)
    image_sources = open_images(str(config.data.image_data), config.data.image_split)
    train, held_out = video_sources
    model, processor = build_joint_model(
        config.model, train.label_names, image_sources[0].label_names, train.multi_label
    )
    fitted = _fit(config, accelerator, model, processor, video_sources, image_sources)
    classifier = fitted.model.single(VIDEOS)
    evaluation = None
    if held_out is not None:
        evaluation = _evaluate(config, accelerator, classifier, processor, held_out)
    image_scores = {}
    if image_sources[1] is not None:
        image_scores = _image_scores(config, accelerator, fitted.model, processor, image_sources[1])
    facts = classifier_facts(config, accelerator, fitted, evaluation, train, train.label_names)
    facts |= {"image_data": config.data.image_data, "image_metrics": image_scores}
    if accelerator.is_main_process:
        _save(config, fitted.model, processor, evaluation, image_scores)
    accelerator.wait_for_everyone()
    output_dir = Path(config.run.output_dir)
    return FinetuneResult(
        classifier, processor, evaluation, fitted.history, output_dir, list(train.label_names), facts
    )


def _fit(
    config: RunConfig,
    accelerator: Accelerator,
    model: Any,
    processor: Any,
    videos: tuple[VideoSource, VideoSource | None],
    images: tuple[VideoList, VideoList | None],
) -> FitResult:
    data, run = config.data, config.run
    ledger = training_ledger(config, accelerator)
    num_labels = {name: fields["num_labels"] for name, fields in model.config.datasets.items()}
    names = [*videos[0].label_names, *images[0].label_names]
    augmentation = clip_augmentation(config, processor, names)
    copies, hot = config.augmentation.num_sample, num_labels[VIDEOS] if videos[0].multi_label else None
    load_video = TrainingClipLoader(processor, augmentation, run.seed, copies, hot)
    load_image = TrainingClipLoader(image_reader(processor), augmentation, run.seed, copies)
    image_batch = data.image_batch_size or config.optimization.batch_size
    stream = JointStream(
        training_stream(config, accelerator, videos[0], load_video, ledger),
        training_stream(config, accelerator, images[0], load_image, ledger, image_batch, drop_last=True),
        data.image_ratio,
    )

    def validate(weights: Any) -> dict[str, float]:
        scores: dict[str, float] = {}
        if videos[1] is not None:
            single = weights.single(VIDEOS)
            result = _evaluate(config, accelerator, single, processor, videos[1], "validation")
            scores = result.metrics | {"num_failed": len(result.failed)}
        if images[1] is not None:
            scores |= _image_scores(config, accelerator, weights, processor, images[1])
        return scores

    mix_videos, mix_images = (BatchMixing(config.augmentation, num_labels[name]) for name in (VIDEOS, IMAGES))
    smoothing = config.augmentation.label_smoothing
    return fit(
        JointClassificationTask(model, VIDEOS, IMAGES, smoothing, data.image_loss_weight),
        stream,
        config,
        accelerator=accelerator,
        prepare_batch=JointBatch(processor, mix_videos, mix_images, augmentation),
        ledger=ledger,
        validate=validate if videos[1] is not None or images[1] is not None else None,
    )


def _evaluate(
    config: RunConfig,
    accelerator: Accelerator,
    model: PreTrainedModel,
    processor: Any,
    source: VideoSource,
    sampling_mode: str | None = None,
) -> EvaluationResult:
    return evaluate_model(
        model,
        processor,
        source,
        batch_size=config.run.eval_batch_size or config.optimization.batch_size,
        num_workers=config.data.num_workers,
        sampling_mode=sampling_mode,
        accelerator=accelerator,
        mixed_precision=accelerator.mixed_precision if sampling_mode else None,
        timeout=config.data.worker_timeout,
        progress=config.run.progress and sampling_mode is None,
    )


def _image_scores(
    config: RunConfig, accelerator: Accelerator, model: Any, processor: Any, source: VideoSource
) -> dict[str, float]:
    """Accuracy of the images' classifier, its names led by `image_`."""
    reader = image_reader(processor)
    result = _evaluate(config, accelerator, model.single(IMAGES), reader, source, "validation")
    return {f"image_{name}": value for name, value in result.metrics.items()}


def _save(
    config: RunConfig,
    model: Any,
    processor: Any,
    evaluation: EvaluationResult | None,
    image_scores: dict[str, float],
) -> None:
    output_dir = Path(config.run.output_dir)
    save_model(output_dir, config, model.single(VIDEOS), processor)
    model.save_pretrained(output_dir / "joint")
    processor.save_pretrained(output_dir / "joint")
    model.single(IMAGES, images=True).save_pretrained(output_dir / "images")
    image_processor(processor).save_pretrained(output_dir / "images")
    if evaluation is not None:
        data = config.data.eval_data or config.data.data
        evaluation.save(output_dir / "results.json", seed=config.run.seed, data=data, image_metrics=image_scores)


__all__ = ["JointBatch", "finetune_jointly"]
