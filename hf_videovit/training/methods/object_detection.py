"""Detection of objects in images, with masks: Mask R-CNN and Cascade Mask R-CNN."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks
from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel

from ...dense.backbones import freeze_batch_norms
from ...files import loading
from ...modeling.configuration_uniformer_dense import UniFormerDetectorConfig
from ...modeling.image_processing_uniformer_dense import UniFormerDetectorImageProcessor
from ...modeling.modeling_region_heads import BOX_SIDE, MASK_SIDE, SAMPLED_REGIONS
from ...modeling.modeling_uniformer_detector import UniFormerForObjectDetection
from ..arguments import RunConfig
from ..building import described_config
from ..data.coco_images import ObjectSource, learnable
from ..data.loaders import SampleLoader
from ..data.object_loading import ObjectAugmentation, ObjectLoader
from ..data.streaming import Batch
from ..evaluation.object_detection import evaluate_object_detection
from ..evaluation.object_results import ObjectResult
from ..fields import option
from ..tasks import ObjectDetectionTask, Task
from .common import Rows
from .dense_backbones import changed_backbone, load_backbone, started_backbone
from .objects import ObjectMethod, checkpoint_config, named_model
from .passes import Pass
from .previewing import PreviewedCopies


MODEL_TYPE = UniFormerDetectorConfig.model_type
# Parameters that depend on the labels.
RENEWED = r"^heads\.(box_heads\.\d+\.(classifier|box)|mask_heads\.\d+\.classifier)\."
PLAN_SIZE = (800, 1280)  # pixels; the size of the published costs


@dataclass
class ObjectDetectionArguments:
    """
    Arguments of object detection.

    Raises:
        ValueError: a value is out of range.
    """

    backbone: dict[str, Any] = option({}, "config fields that override those of the backbone")
    short_sides: list[int] = option(
        [], "lengths of which one at random is the short side in training; empty for that of the processor"
    )
    frozen_batch_norms: bool = option(False, "keep the statistics and weights of the backbone's BatchNorms")
    control: Literal["none", "other_images"] = option(
        "none", "other_images: train with the pixels of another image, as a control that cannot solve the task"
    )

    def __post_init__(self) -> None:
        if any(side < 1 for side in self.short_sides):
            raise ValueError(f"`short_sides` must be positive lengths in pixels, got {self.short_sides}")


class _Layers(UniFormerForObjectDetection):
    """The layers of a detector, without the choice of regions, which depends on the pixels."""

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:  # type: ignore[override]
        model: Any = self
        maps = model.pyramid(model.backbone(pixel_values).feature_maps)
        logits, deltas = model.proposals(maps)
        outputs = [*logits, *deltas]
        most, share = SAMPLED_REGIONS
        regions = min(most, model.config.num_proposals)
        for heads, number, side in (
            (model.heads.box_heads, regions, BOX_SIDE),
            (model.heads.mask_heads, int(share * regions), MASK_SIDE),
        ):
            read = maps[0].new_zeros(len(pixel_values) * number, maps[0].shape[1], side, side)
            for head in heads:
                found = head(read)
                outputs += found if isinstance(found, tuple) else [found]
        return outputs


class ObjectDetection(ObjectMethod):
    """
    Train a detector on images with boxes and masks in COCO's format, see [`find_objects`].

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "object_detection"
    arguments_class = ObjectDetectionArguments
    model_types = (MODEL_TYPE,)
    kind = "instances"

    processor: UniFormerDetectorImageProcessor

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """Whether the model is a detector of objects. See [`Method.fits`]."""
        return model_config.get("model_type") == MODEL_TYPE

    def training_samples(self, source: ObjectSource) -> ObjectSource:
        """Images with objects. See [`ObjectMethod.training_samples`]."""
        return learnable(source)

    def build(self) -> tuple[PreTrainedModel, Any]:
        """
        The detector that the run starts from, and its processor.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        arguments = self.config.model
        config, processor = self.describe()
        model: Any = named_model(
            arguments, UniFormerForObjectDetection, config, self.train_source.label_names, renewed=RENEWED
        )
        if arguments.image_model is not None:
            load_backbone(model.backbone, arguments.image_model)
        if self.arguments.frozen_batch_norms:
            freeze_batch_norms(model.backbone)
        return model, processor

    def describe(self) -> tuple[PreTrainedConfig, Any]:
        """Configuration and processor of the detector. No weights are loaded. See [`Method.describe`]."""
        arguments, own = self.config.model, self.arguments
        if arguments.checkpoint is not None:
            config: Any = checkpoint_config(arguments.checkpoint, MODEL_TYPE, arguments.config)
            with loading("`checkpoint`", arguments.checkpoint):
                processor = AutoImageProcessor.from_pretrained(arguments.checkpoint, **arguments.processor)
        else:
            config = described_config(arguments)
            processor = UniFormerDetectorImageProcessor(**arguments.processor)
        if arguments.image_model is not None:
            config.backbone_config = started_backbone(arguments.image_model, config.backbone_config)
        config.backbone_config = changed_backbone(config.backbone_config, own.backbone)
        return config, processor

    def begin_model(self) -> None:
        """Match the labels of data and model as well. See [`Method.begin_model`]."""
        super().begin_model()
        config = self.model.config
        self.train_source = self.train_source.with_label_names([config.id2label[i] for i in range(config.num_labels)])

    def task(self) -> Task:
        """The losses of the detector."""
        return ObjectDetectionTask(self.model)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented image with its objects."""
        size = self.processor.size
        shortest, longest = (size["shortest_edge"], size["longest_edge"])
        augmentation = ObjectAugmentation(
            tuple(self.arguments.short_sides) or (shortest,),
            longest,
            self.config.augmentation.flip,
            self.processor.size_divisor,
        )
        config = self.model.config if hasattr(self, "model") else self.describe()[0]
        return ObjectLoader(augmentation, self.train_source.labels, self.config.run.seed, config.use_masks)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Normalise; padding becomes 0, as in the processor. See [`Method.prepare_batch`]."""
        batch = self.to_device(rows, device)
        height, width = batch["pixel_values"].shape[-2:]
        inside = (torch.arange(height, device=device)[:, None] < batch["sizes"][:, 0, None, None]) & (
            torch.arange(width, device=device) < batch["sizes"][:, 1, None, None]
        )
        return batch | {"pixel_values": batch["pixel_values"] * inside[:, None]}

    def evaluate_objects(self, model: PreTrainedModel, validation: bool = False) -> ObjectResult:
        """See [`evaluate_object_detection`] and [`ObjectMethod.evaluate_objects`]."""
        assert self.eval_source is not None
        return evaluate_object_detection(
            model, self.processor, self.eval_source, **self.evaluation_options(validation)
        )

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """
        The pass of images of 800 x 1280 pixels, or of the processor's size if it is smaller, with as many regions as
        are sampled at most. See [`Method.passes`].
        """
        config, processor = self.describe()
        if num_labels:
            config.num_labels = num_labels
        short = min(processor.size["shortest_edge"], PLAN_SIZE[0])
        long = min(processor.size["longest_edge"], PLAN_SIZE[1])
        pixels = torch.empty(1, 3, short, long, device="meta")
        clips = self.config.optimization.batch_size
        return [Pass("clip", lambda: _Layers(config), {"pixel_values": pixels}, 1, clips)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented images with boxes and masks drawn. See [`Method.preview_batch`]."""
        names, pictures, targets = self.train_source.label_names, [], []
        for index, image in enumerate(batch.rows["pixel_values"]):
            labels = batch.rows["class_labels"][index]
            known = labels >= 0
            shown = [names[label] for label in labels[known].tolist()]
            if "masks" in batch.rows:
                image = draw_segmentation_masks(image, batch.rows["masks"][index][known].bool(), alpha=0.5)
            boxes = batch.rows["boxes"][index][known]
            solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            pictures.append(draw_bounding_boxes(image, boxes[solid], colors="yellow")[None])
            targets.append({name: float(shown.count(name)) for name in dict.fromkeys(shown)})
        return PreviewedCopies(torch.stack(pictures), targets)


__all__ = ["ObjectDetection", "ObjectDetectionArguments"]
