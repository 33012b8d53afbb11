"""Semantic segmentation: a label for every pixel of an image."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torchvision.utils import draw_segmentation_masks
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from ...files import loading
from ...modeling.configuration_uniformer_dense import UniFormerSegmenterConfig
from ...modeling.image_processing_uniformer_dense import SIZE_DIVISOR, UniFormerSegmenterImageProcessor
from ...modeling.modeling_uniformer_segmenter import UniFormerForSemanticSegmentation
from ..arguments import AugmentationArguments, ModelArguments, RunConfig
from ..building import attention_options, config_from_scratch, described_config, load_config, ready_to_train
from ..data.loaders import SampleLoader
from ..data.opening import warn_of_remarks
from ..data.processors import ClipProcessor
from ..data.segmentation import IGNORED, IMAGES, SegmentationLoader, SegmentationSource, open_segmentation
from ..data.segmentation_augmentation import SegmentationAugmentation
from ..data.sources import VideoSource
from ..data.streaming import Batch
from ..engine.loop import FitResult
from ..evaluation.semantic_segmentation import SegmentationClaim, SegmentationResult, evaluate_segmentation
from ..fields import check_range, option
from ..tasks import SemanticSegmentationTask, Task
from .common import Method, Rows, RunResult, Sources
from .dense_backbones import changed_backbone, load_backbone, started_backbone
from .passes import Pass, model_pass
from .previewing import PreviewedCopies


logger = logging.get_logger(__name__)

MODEL_TYPE = UniFormerSegmenterConfig.model_type
OTHER_AUGMENTATION = tuple(one.name for one in dataclasses.fields(AugmentationArguments) if one.name != "flip")
OTHER_DATA = ("holdout", "data_config", "video_column", "label_column", "label_separator", "shuffle_buffer")


@dataclass
class SemanticSegmentationArguments:
    """
    Arguments of semantic segmentation.

    Raises:
        ValueError: a value is out of range.
    """

    reduce_labels: bool = option(True, "0 in a mask is a pixel without a label, and 1 the first label, as in ADE20K")
    backbone: dict[str, Any] = option({}, "config fields that override those of the backbone")
    crop_size: list[int] = option([512, 512], "height and width of the random crop, in pixels")
    scale: list[float] = option([0.5, 2.0], "smallest and largest factor of the processor's size")
    most_of_one_label: float = option(0.75, "share of one label from which a crop is drawn again; 1 takes the first")
    brightness: float = option(32.0, "largest change of all values, of 255")
    contrast: list[float] = option([0.5, 1.5], "smallest and largest factor of all values")
    saturation: list[float] = option([0.5, 1.5], "smallest and largest factor of the distance from grey")
    hue: float = option(18.0, "largest change of the hue, in steps of 2 degrees")
    control: Literal["none", "other_masks"] = option(
        "none", "other_masks: train with the mask of another image, as a control that cannot solve the task"
    )

    def __post_init__(self) -> None:
        for name in ("crop_size", "scale", "contrast", "saturation"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"`{name}` must be two numbers, got {getattr(self, name)}")
        check_range("most_of_one_label", self.most_of_one_label, 0.0, 1.0)


class SemanticSegmentation(Method):
    """
    Train a model for semantic segmentation on images and masks, see [`open_segmentation`].

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "semantic_segmentation"
    goal = "classifier"
    arguments_class = SemanticSegmentationArguments
    model_types = (MODEL_TYPE,)
    unread = ("picture_every", "probe", "eval_batch_size", "frozen_layers", *OTHER_DATA, *OTHER_AUGMENTATION)

    train_source: SegmentationSource  # type: ignore[assignment]
    eval_source: SegmentationSource | None  # type: ignore[assignment]
    processor: UniFormerSegmenterImageProcessor  # type: ignore[assignment]

    @property
    def samples(self) -> str:
        """See [`Method.samples`]."""
        return "images"

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for models of semantic segmentation. See [`Method.fits`]."""
        return model_config.get("model_type") == MODEL_TYPE

    def open_sources(self) -> Sources:
        """
        Open images and masks.

        Raises:
            ValueError: `data` is missing, or has no such images.
        """
        data, seed = self.config.data, self.config.run.seed
        if data.data is None:
            raise ValueError("`data` is needed: a folder with images and annotations, or a list of both")
        train = open_segmentation(data.data, data.train_split, root=data.data_root, label_names=data.label_names)
        assert train is not None
        claim = self.claim()
        evaluated = open_segmentation(claim.data, claim.split, root=data.data_root, label_names=train.label_names)
        if evaluated is None and data.eval_data is not None:
            evaluated = claim.open(train.label_names)
        train = train.sample(data.max_train_samples, seed)
        if self.arguments.control == "other_masks":
            train = train.with_masks_of_others(seed)
        evaluated = evaluated and evaluated.sample(claim.max_samples, seed)
        warn_of_remarks("training", train)
        return train, evaluated

    def check_sources(self, train_source: VideoSource, eval_source: VideoSource | None) -> None:
        """
        Refuse samples without masks.

        Args:
            train_source ([`SegmentationSource`]):
                Training images.
            eval_source ([`SegmentationSource`] or `None`):
                Evaluation images.

        Raises:
            ValueError: there are no images, or the sources are others.
        """
        for source in (train_source, eval_source):
            if source is not None and not isinstance(source, SegmentationSource):
                raise ValueError(f"`data` must be images with masks for {self.name}, got a {type(source).__name__}")
        super().check_sources(train_source, eval_source)

    def list_splits(self) -> list[str]:
        """Folders of images; a list has none. See [`Method.list_splits`]."""
        return sorted(one.name for one in Path(str(self.config.data.data)).glob(f"{IMAGES}/*") if one.is_dir())

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """See [`build_segmenter`]."""
        model, processor = build_segmenter(self.config.model, self.train_source.label_names, self.arguments)
        return model, cast(ClipProcessor, processor)

    def describe(self) -> tuple[PreTrainedConfig, ClipProcessor]:
        """See [`describe_segmenter`]."""
        config, processor = describe_segmenter(self.config.model, self.arguments)
        return config, cast(ClipProcessor, processor)

    def begin_model(self) -> None:
        """The labels of images and model must be the same as well. See [`Method.begin_model`]."""
        super().begin_model()
        config = self.model.config
        self.train_source.with_label_names([config.id2label[index] for index in range(config.num_labels)])

    def task(self) -> Task:
        """The loss of the model."""
        return SemanticSegmentationTask(self.model)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented image with its mask."""
        own, size = self.arguments, self.processor.size
        augmentation = SegmentationAugmentation(
            (size["shortest_edge"], size["longest_edge"]),
            tuple(own.scale),
            tuple(own.crop_size),
            own.most_of_one_label,
            self.config.augmentation.flip,
            own.brightness,
            tuple(own.contrast),
            tuple(own.saturation),
            own.hue,
        )
        return SegmentationLoader(
            augmentation, len(self.train_source.label_names), own.reduce_labels, self.config.run.seed
        )

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Normalise; padding becomes 0, as officially. See [`Method.prepare_batch`]."""
        pixels, labels, sizes = (
            rows[name].to(device, non_blocking=True) for name in ("pixel_values", "labels", "sizes")
        )
        height, width = pixels.shape[-2:]
        inside = (torch.arange(height, device=device)[:, None] < sizes[:, 0, None, None]) & (
            torch.arange(width, device=device) < sizes[:, 1, None, None]
        )
        processor = self.processor
        normalised = processor.rescale_and_normalize(
            pixels, True, processor.rescale_factor, True, tuple(processor.image_mean), tuple(processor.image_std)
        )
        return {"pixel_values": normalised * inside[:, None], "labels": labels.long()}

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Mean intersection over union and accuracies. See [`Method.validate`]."""
        result = self.evaluate_segmenter(model, validation=True)
        return result.metrics | {"num_failed": len(result.failed)}

    def evaluate_segmenter(self, model: PreTrainedModel, validation: bool = False) -> SegmentationResult:
        """
        Evaluate a model on the evaluation images, by the protocol of its processor.

        Args:
            model (`PreTrainedModel`):
                The model.
            validation (`bool`, *optional*, defaults to `False`):
                Whether to use the precision of training and to show no progress.

        Returns:
            [`SegmentationResult`]
        """
        assert self.eval_source is not None
        return evaluate_segmentation(
            model,
            self.processor,
            self.eval_source,
            num_workers=self.config.data.num_workers,
            accelerator=self.accelerator,
            mixed_precision=self.accelerator.mixed_precision if validation else None,
            timeout=self.config.data.worker_timeout,
            progress=self.config.run.progress and not validation,
        )

    def claim(self) -> SegmentationClaim:
        """
        Data of the evaluation, for `results.json`.

        Returns:
            [`SegmentationClaim`]
        """
        data = self.config.data
        return SegmentationClaim(
            str(data.eval_data or data.data),
            data.eval_split,
            data.data_root,
            data.max_eval_samples,
            self.config.run.seed,
        )

    def finish(self, fitted: FitResult) -> RunResult:
        """Evaluate, and save a folder that is ready for the Hub. See [`Method.finish`]."""
        evaluation = None if self.eval_source is None else self.evaluate_segmenter(fitted.model)
        if self.accelerator.is_main_process:
            self.save(fitted.model, cast(ClipProcessor, self.processor))
            if evaluation is not None:
                evaluation.save(self.output_dir / "results.json", **dataclasses.asdict(self.claim()))
        self.accelerator.wait_for_everyone()
        facts = self.facts(fitted) | {
            "label_names": list(self.train_source.label_names),
            "num_eval_videos": None if evaluation is None else evaluation.num_images,
            "metrics": {} if evaluation is None else evaluation.metrics,
            "protocol": {} if evaluation is None else evaluation.protocol,
            "environment": {} if evaluation is None else evaluation.environment,
        }
        processor = cast(ClipProcessor, self.processor)
        return RunResult(fitted.model, processor, fitted.history, self.output_dir, facts, evaluation)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of crops. See [`Method.passes`]."""
        config, _ = self.describe()
        if num_labels:
            config.num_labels = num_labels
        pixels = torch.empty(2, 3, *self.arguments.crop_size, device="meta")  # BatchNorm of one place needs two
        clips = self.config.optimization.batch_size
        return [model_pass(AutoModelForSemanticSegmentation, config, {"pixel_values": pixels}, clips)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Crops with the labels drawn over them. See [`Method.preview_batch`]."""
        names, pictures, shares = self.train_source.label_names, [], []
        for image, labels in zip(batch.rows["pixel_values"], batch.rows["labels"]):
            found = [int(one) for one in labels.unique() if one != IGNORED]
            known = max(int((labels != IGNORED).sum()), 1)
            shares.append({names[one]: int((labels == one).sum()) / known for one in found})
            masks = torch.stack([labels == one for one in found]) if found else torch.zeros(0, *labels.shape).bool()
            colours = [label_colour(one) for one in found]
            drawn = draw_segmentation_masks(image, masks, alpha=0.5, colors=colours) if found else image
            pictures.append(drawn[None])
        return PreviewedCopies(torch.stack(pictures), shares)


def label_colour(label: int) -> tuple[int, int, int]:
    """
    A colour that differs from those of the next labels.

    Args:
        label (`int`):
            Index of the label.

    Returns:
        `tuple[int, int, int]`: RGB.
    """
    bits = [(label + 1) >> bit & 1 for bit in range(9)]
    return tuple(sum(bits[3 * place + channel] << (7 - place) for place in range(3)) for channel in range(3))  # type: ignore[return-value]


def describe_segmenter(
    arguments: ModelArguments, own: SemanticSegmentationArguments
) -> tuple[UniFormerSegmenterConfig, UniFormerSegmenterImageProcessor]:
    """
    Configuration and processor of the model that a run starts from. No weights are loaded.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a size from scratch, perhaps with the weights of `image_model` in its backbone.
        own ([`SemanticSegmentationArguments`]):
            `backbone` and `reduce_labels` are read.

    Returns:
        `tuple[UniFormerSegmenterConfig, UniFormerSegmenterImageProcessor]`

    Raises:
        ValueError: the checkpoint is another model, or a field has a value that is not allowed.
    """
    found: Any = described_config(arguments) if arguments.checkpoint is None else load_config(arguments)
    if not isinstance(found, UniFormerSegmenterConfig):
        raise ValueError(f"`checkpoint` must be a model of type {MODEL_TYPE!r}, got {found.model_type!r}")
    if arguments.image_model is not None:
        found.backbone_config = started_backbone(arguments.image_model, found.backbone_config)
    found.backbone_config = changed_backbone(found.backbone_config, own.backbone)
    fields = {"do_reduce_labels": own.reduce_labels, **arguments.processor}
    if arguments.checkpoint is not None:
        with loading("`checkpoint`", arguments.checkpoint):
            return found, AutoImageProcessor.from_pretrained(arguments.checkpoint, **fields)
    divisor = SIZE_DIVISOR if found.decode_head == "fpn" else 1
    return found, UniFormerSegmenterImageProcessor(**{"size_divisor": divisor, **fields})


def build_segmenter(
    arguments: ModelArguments, label_names: Sequence[str], own: SemanticSegmentationArguments
) -> tuple[PreTrainedModel, UniFormerSegmenterImageProcessor]:
    """
    Build the model that a run starts from, and its processor.

    Args:
        arguments ([`ModelArguments`]):
            See [`describe_segmenter`]. The classifiers of a checkpoint are kept if its labels are those of the data.
        label_names (`Sequence[str]`):
            Names of the data's labels.
        own ([`SemanticSegmentationArguments`]):
            `backbone` and `reduce_labels` are read.

    Returns:
        `tuple[PreTrainedModel, UniFormerSegmenterImageProcessor]`: the model in float32, and its processor.

    Raises:
        ValueError: the checkpoint does not fit the arguments.
    """
    if arguments.checkpoint is None:
        config_from_scratch(arguments)  # refuses recipes that need a checkpoint
    config, processor = describe_segmenter(arguments, own)
    theirs = [config.id2label[index] for index in range(config.num_labels)]
    keep = arguments.checkpoint is not None and (
        arguments.head == "keep" or arguments.head == "auto" and theirs == list(label_names)
    )
    if not keep:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
    options = attention_options(arguments)
    if arguments.checkpoint is None:
        model = UniFormerForSemanticSegmentation._from_config(config, **options)
        if arguments.image_model is not None:
            load_backbone(model.backbone, arguments.image_model)
    else:
        with loading("`checkpoint`", arguments.checkpoint):
            model = UniFormerForSemanticSegmentation.from_pretrained(
                arguments.checkpoint,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=not keep,
                **options,
            )
        if not keep:
            _renew_classifiers(model)
    return ready_to_train(arguments, model), processor


@torch.no_grad()
def _renew_classifiers(model: PreTrainedModel) -> None:
    """Initialise the classifiers again: one of the same size may have other labels."""
    fresh = type(model)(model.config)
    for name in ("head", "auxiliary_head"):
        if hasattr(fresh, name):
            getattr(model, name).load_state_dict(getattr(fresh, name).state_dict())


__all__ = [
    "SemanticSegmentation",
    "SemanticSegmentationArguments",
    "build_segmenter",
    "describe_segmenter",
    "label_colour",
]
