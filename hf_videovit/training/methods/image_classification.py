"""Classification of images, which the loop reads as clips of one frame."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from ...modeling.configuration_base import frame_size
from ..arguments import ModelArguments, RunConfig
from ..building import config_from_scratch
from ..data.images import ImageFileUniFormerVideoProcessor, open_images
from ..data.processors import ClipProcessor
from ..tasks import Task, TokenLabelTask
from .classification import Classification
from .common import Pass, Sources, example_pixels, model_pass


# Fields of the data that a folder or list of image files does not have.
VIDEO_DATA = (
    *("eval_data", "eval_split", "data_config", "data_root", "video_column", "label_column", "label_names"),
    *("label_separator", "shuffle_buffer", "max_train_samples", "max_eval_samples"),
)


class ImageClassification(Classification):
    """Train a classifier of images, with token labels where the model has a head for them."""

    name = "image_classification"
    unread = (*Classification.unread, "image_model", *VIDEO_DATA)

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """The method of a classifier of images."""
        return model_config.get("modality") == "image"

    def open_sources(self) -> Sources:
        """The image files to train on, and those to evaluate on."""
        data = self.config.data
        if data.data is None:
            raise ValueError("`data` is needed: a folder of classes or a list of image files")
        return open_images(data.data, data.train_split)

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """See [`build_image_model`]."""
        return build_image_model(self.config.model, self.train_source.label_names)

    def describe(self) -> tuple[PreTrainedConfig, ClipProcessor]:
        """Configuration and reader of the images."""
        config = self.model_config()
        return config, read_images_of(config, self.config.model.processor)

    def task(self) -> Task:
        """Cross-entropy of the image, and of every token where the model has a head for them."""
        if self.model.config.to_dict().get("use_auxiliary_head"):
            arguments = self.arguments
            return TokenLabelTask(self.model, arguments.label_smoothing, arguments.mix_probability)
        return super().task()

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The images' pass."""
        config = self.model_config(num_labels)
        inputs = {"pixel_values": example_pixels(config, frames=1)}
        return [model_pass(AutoModelForImageClassification, config, inputs, self.clips_per_pass)]


def build_image_model(arguments: ModelArguments, label_names: Any) -> tuple[PreTrainedModel, ClipProcessor]:
    """
    The image classifier that a run starts from, and what reads its images.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, whose classifier is kept where its labels are the data's, or a size from scratch.
        label_names (`Sequence[str]`):
            Names of the data's labels.

    Raises:
        ValueError: If there are fewer than two labels.
    """
    names = list(label_names)
    if arguments.checkpoint is None:
        config = _name_labels(config_from_scratch(arguments), names)
        model = AutoModelForImageClassification.from_config(config)
    else:
        config = AutoConfig.from_pretrained(arguments.checkpoint, **arguments.config)
        kept = [config.id2label[index] for index in sorted(config.id2label)] == names and arguments.head != "new"
        model = AutoModelForImageClassification.from_pretrained(
            arguments.checkpoint, config=_name_labels(config, names), dtype=torch.float32, ignore_mismatched_sizes=True
        )
        if not kept:
            _renew_heads(model)
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.float(), read_images_of(config, arguments.processor)


def read_images_of(config: PreTrainedConfig, overrides: dict[str, Any]) -> ImageFileUniFormerVideoProcessor:
    """
    What reads image files for a model of images.

    Args:
        config (`PreTrainedConfig`):
            The model's; gives the size.
        overrides (`dict`):
            Fields of the processor that are set otherwise.
    """
    side = min(frame_size(config.image_size))
    fields = {
        "num_frames": 1,
        "frame_sampling": "uniform",
        "size": {"shortest_edge": 256 * side // 224},
        "crop_size": {"height": side, "width": side},
    }
    return ImageFileUniFormerVideoProcessor(**fields | overrides)


def _name_labels(config: PreTrainedConfig, names: list[str]) -> PreTrainedConfig:
    if len(names) < 2:
        raise ValueError(f"A classifier needs at least 2 labels, the data has {names}")
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    return config


@torch.no_grad()
def _renew_heads(model: PreTrainedModel) -> None:
    """All classifiers start anew: a head of the same size but of other labels fits without being right."""
    fresh = type(model)(model.config)
    for name, module in fresh.named_children():
        if name != model.base_model_prefix and module is not None:
            getattr(model, name).load_state_dict(module.state_dict())


__all__ = ["ImageClassification", "build_image_model", "read_images_of"]
