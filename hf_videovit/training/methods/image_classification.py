"""Classification of images, which are read as clips of one frame."""

from typing import Any

import torch
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from ...modeling.configuration_base import frame_size
from ..arguments import ModelArguments, RunConfig
from ..building import attention_options, config_from_scratch, load_config, ready_to_train
from ..data.images import ImageFileUniFormerVideoProcessor, open_images
from ..data.processors import ClipProcessor
from ..tasks import Task, TokenLabelTask
from .classification import Classification
from .common import Pass, Sources, example_pixels, model_pass


# Fields of the data that do not apply to a folder or list of image files.
VIDEO_DATA = (
    *("eval_data", "eval_split", "holdout", "data_config", "data_root", "video_column", "label_column", "label_names"),
    *("label_separator", "shuffle_buffer", "max_train_samples", "max_eval_samples"),
)


class ImageClassification(Classification):
    """
    Train a classifier of images, with token labels if the model has a head for them.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "image_classification"
    unread = (*Classification.unread, "image_model", *VIDEO_DATA)

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for classifiers of images. See [`Method.fits`]."""
        return model_config.get("modality") == "image"

    def open_sources(self) -> Sources:
        """
        Open the training images and, if there are any, the evaluation images.

        Raises:
            ValueError: `data` is missing.
        """
        data = self.config.data
        if data.data is None:
            raise ValueError("`data` is needed: a folder of classes or a list of image files")
        return open_images(data.data, data.train_split)

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """See [`build_image_model`]."""
        return build_image_model(self.config.model, self.train_source.label_names)

    def describe(self) -> tuple[PreTrainedConfig, ClipProcessor]:
        """Configuration of the model, and the processor that reads image files. No weights are loaded."""
        config = self.model_config()
        return config, _image_file_processor(config, self.config.model.processor)

    def task(self) -> Task:
        """Cross-entropy of the image, and of every token if the model has a head for tokens."""
        if self.model.config.to_dict().get("use_auxiliary_head"):
            arguments = self.arguments
            return TokenLabelTask(self.model, arguments.label_smoothing, arguments.mix_probability)
        return super().task()

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of images. See [`Method.passes`]."""
        config = self.model_config(num_labels)
        inputs = {"pixel_values": example_pixels(config, frames=1)}
        return [model_pass(AutoModelForImageClassification, config, inputs, self.clips_per_pass)]


def build_image_model(arguments: ModelArguments, label_names: Any) -> tuple[PreTrainedModel, ClipProcessor]:
    """
    Build the image classifier that a run starts from, and the processor that reads its image files.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, whose head is kept if its labels are those of the data, or a size from scratch.
        label_names (`Sequence[str]`):
            Names of the data's labels.

    Returns:
        `tuple[PreTrainedModel, ClipProcessor]`

    Raises:
        ValueError: there are fewer than two labels, or the checkpoint is not one of a model of images.
    """
    names = list(label_names)
    if arguments.checkpoint is None:
        config = _name_labels(config_from_scratch(arguments), names)
        model = AutoModelForImageClassification.from_config(config, **attention_options(arguments))
    else:
        config = load_config(arguments)
        kept = [config.id2label[index] for index in sorted(config.id2label)] == names and arguments.head != "new"
        model = _load_image_classifier(arguments, _name_labels(config, names))
        if not kept:
            _renew_heads(model)
    return ready_to_train(arguments, model), _image_file_processor(config, arguments.processor)


def _image_file_processor(config: PreTrainedConfig, overrides: dict[str, Any]) -> ImageFileUniFormerVideoProcessor:
    """The processor that reads image files at the model's size."""
    side = min(frame_size(config.image_size))
    fields = {
        "num_frames": 1,
        "frame_sampling": "uniform",
        "size": {"shortest_edge": 256 * side // 224},
        "crop_size": {"height": side, "width": side},
    }
    return ImageFileUniFormerVideoProcessor(**fields | overrides)


def _load_image_classifier(arguments: ModelArguments, config: PreTrainedConfig) -> PreTrainedModel:
    """A checkpoint as a classifier of images. Only its heads may be missing or of another size."""
    model, info = AutoModelForImageClassification.from_pretrained(
        arguments.checkpoint,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **attention_options(arguments),
    )
    unfit = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    unfit = {name for name in unfit if name.startswith(f"{model.base_model_prefix}.")}
    if unfit:
        raise ValueError(
            f"`checkpoint` {arguments.checkpoint!r} lacks {', '.join(sorted(unfit)[:8])} of {type(model).__name__} "
            "or has them in another shape"
        )
    return model


def _name_labels(config: PreTrainedConfig, names: list[str]) -> PreTrainedConfig:
    if len(names) < 2:
        raise ValueError(f"A classifier needs at least 2 labels, the data has {names}")
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    return config


@torch.no_grad()
def _renew_heads(model: PreTrainedModel) -> None:
    """Initialise all heads again: a head of the same size may have other labels."""
    fresh = type(model)(model.config)
    for name, module in fresh.named_children():
        if name != model.base_model_prefix and module is not None:
            getattr(model, name).load_state_dict(module.state_dict())


__all__ = ["ImageClassification", "build_image_model"]
