"""Pose estimation: keypoints of a person whose box is known."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torchvision.utils import draw_keypoints
from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel, VitPoseImageProcessor

from ...dense.backbones import freeze_batch_norms
from ...dense.pose import flip_pairs
from ...files import loading
from ...modeling.configuration_base import frame_size
from ...modeling.configuration_uniformer import UniFormerConfig
from ...modeling.modeling_uniformer_pose import UniFormerForPoseEstimation
from ..arguments import RunConfig
from ..building import described_config, load_config
from ..data.coco_images import ObjectSource, people
from ..data.loaders import SampleLoader
from ..data.pose_loading import PoseAugmentation, PoseLoader
from ..data.sources import VideoSource
from ..data.streaming import Batch
from ..evaluation.object_results import ObjectResult, check_keypoints
from ..evaluation.pose import evaluate_pose
from ..fields import check_range, option
from ..tasks import PoseTask, Task
from .common import Rows
from .objects import ObjectMethod, named_model
from .passes import Pass
from .previewing import PreviewedCopies


RENEWED = r"^head\.projection\."  # parameters that depend on the keypoints
MAY_LACK = r"^(head|norm)\."  # what an image classifier lacks
DOT = 2  # pixels: radius of a drawn keypoint


@dataclass
class PoseArguments:
    """
    Arguments of pose estimation.

    Raises:
        ValueError: a value is out of range.
    """

    people: str | None = option(
        None, "COCO's results with the detected people of the evaluation; none means annotated boxes, an upper bound"
    )
    sigma: float = option(2.0, "standard deviation of a target in cells; officially 2 at 256 x 192, else 3")
    scale_factor: float = option(0.5, "standard deviation and largest change of the factor of a crop's size")
    rotation: float = option(
        40.0, "standard deviation of the angle of a crop in degrees; twice as much is the largest"
    )
    rotation_probability: float = option(0.6, "probability of a rotation")
    flip_test: bool = option(True, "evaluate the mean of a crop and of its flipped copy")
    pck_threshold: float = option(0.1, "distance of a correct keypoint as a share of the box's longer side")
    sigmas: list[float] = option(
        [], "deviations of the keypoint similarity; empty for COCO's 17 keypoints or 0.05 each"
    )
    frozen_batch_norms: bool = option(False, "keep the statistics and weights of the encoder's BatchNorms")
    control: Literal["none", "other_images"] = option(
        "none", "other_images: train with the pixels of another image, as a control that cannot solve the task"
    )

    def __post_init__(self) -> None:
        check_range("sigma", self.sigma, 0.1, 100.0)
        check_range("scale_factor", self.scale_factor, 0.0, 0.9)
        check_range("rotation", self.rotation, 0.0, 90.0)
        check_range("rotation_probability", self.rotation_probability, 0.0, 1.0)
        check_range("pck_threshold", self.pck_threshold, 0.001, 1.0)


class Pose(ObjectMethod):
    """
    Train a pose model on people with keypoints in COCO's format, see [`find_objects`]. `checkpoint` is a pose model,
    or a UniFormer that classifies images.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "pose"
    arguments_class = PoseArguments
    model_types = (UniFormerConfig.model_type,)
    kind = "keypoints"
    unread = (*ObjectMethod.unread, "image_model")

    processor: VitPoseImageProcessor

    @property
    def samples(self) -> str:
        """See [`Method.samples`]."""
        return "persons"

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """False: a run names this method. See [`Method.fits`]."""
        return False

    def training_samples(self, source: ObjectSource) -> ObjectSource:
        """People with keypoints. See [`ObjectMethod.training_samples`]."""
        return people(source)

    @property
    def keypoints(self) -> list[str]:
        """Names of the data's keypoints."""
        return [str(one) for one in self.train_source.categories[0]["keypoints"]]

    def check_sources(self, train_source: VideoSource, eval_source: VideoSource | None) -> None:
        """
        Refuse data that differ in their keypoints as well. See [`ObjectMethod.check_sources`].

        Args:
            train_source ([`ObjectSource`]):
                Training samples.
            eval_source ([`ObjectSource`] or `None`):
                Evaluation images.

        Raises:
            ValueError: there is nothing to learn, or the sources are others.
        """
        super().check_sources(train_source, eval_source)
        if isinstance(train_source, ObjectSource) and isinstance(eval_source, ObjectSource):
            check_keypoints(eval_source, [str(one) for one in train_source.categories[0]["keypoints"]])

    def build(self) -> tuple[PreTrainedModel, Any]:
        """
        The model that the run starts from, and its processor.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        arguments = self.config.model
        config, processor = self.describe()
        model: Any = named_model(
            arguments, UniFormerForPoseEstimation, config, self.keypoints, renewed=RENEWED, may_lack=MAY_LACK
        )
        if self.arguments.frozen_batch_norms:
            freeze_batch_norms(model.uniformer)
        return model, processor

    def describe(self) -> tuple[PreTrainedConfig, Any]:
        """Configuration and processor of the model. No weights are loaded. See [`Method.describe`]."""
        arguments = self.config.model
        config: Any = load_config(arguments) if arguments.checkpoint else described_config(arguments)
        height, width = frame_size(config.image_size)
        own = {"size": {"height": height, "width": width}, **arguments.processor}
        posed = UniFormerForPoseEstimation.__name__ in (config.architectures or ())
        if posed and "image_size" not in arguments.config:
            with loading("`checkpoint`", str(arguments.checkpoint)):
                return config, AutoImageProcessor.from_pretrained(arguments.checkpoint, **arguments.processor)
        return config, VitPoseImageProcessor(**own)

    def begin_model(self) -> None:
        """The keypoints of data and model must be the same as well. See [`Method.begin_model`]."""
        super().begin_model()
        config = self.model.config
        check_keypoints(self.train_source, [config.id2label[index] for index in range(config.num_labels)])

    def task(self) -> Task:
        """The loss of the heatmaps."""
        return PoseTask(self.model, self.arguments.sigma)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented crop with its keypoints."""
        own, names, flip = self.arguments, self.keypoints, self.config.augmentation.flip
        size = (self.processor.size["height"], self.processor.size["width"])
        augmentation = PoseAugmentation(
            size,
            flip,
            tuple(flip_pairs(names)) if flip else (),
            own.scale_factor,
            own.rotation,
            own.rotation_probability,
        )
        return PoseLoader(augmentation, len(names), self.config.run.seed)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Normalise. See [`Method.prepare_batch`]."""
        return self.to_device(rows, device)

    def evaluate_objects(self, model: PreTrainedModel, validation: bool = False) -> ObjectResult:
        """See [`evaluate_pose`] and [`ObjectMethod.evaluate_objects`]."""
        assert self.eval_source is not None
        own = self.arguments
        return evaluate_pose(
            model,
            self.processor,
            self.eval_source,
            found_people=own.people,
            flip=own.flip_test,
            pck_threshold=own.pck_threshold,
            sigmas=own.sigmas or None,
            **self.evaluation_options(validation),
        )

    def claimed_settings(self) -> dict[str, Any]:
        """See [`ObjectMethod.claimed_settings`]."""
        own = self.arguments
        names = ("people", "flip_test", "pck_threshold")
        return {name: getattr(own, name) for name in names} | {"sigmas": own.sigmas or None}

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of crops. See [`Method.passes`]."""
        config, processor = self.describe()
        if num_labels:
            config.num_labels = num_labels
        pixels = torch.empty(1, 3, processor.size["height"], processor.size["width"], device="meta")
        clips = self.config.optimization.batch_size
        return [Pass("clip", lambda: UniFormerForPoseEstimation(config), {"pixel_values": pixels}, 1, clips)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented crops with their skeletons drawn. See [`Method.preview_batch`]."""
        category = self.train_source.categories[0]
        edges = [(first - 1, second - 1) for first, second in category.get("skeleton", ())]
        pictures = []
        for image, points, visible in zip(*(batch.rows[name] for name in ("pixel_values", "keypoints", "visible"))):
            drawn = draw_keypoints(
                image, points[None], edges or None, colors="yellow", radius=DOT, visibility=visible.bool()[None]
            )
            pictures.append(drawn[None])
        return PreviewedCopies(torch.stack(pictures))


__all__ = ["Pose", "PoseArguments"]
