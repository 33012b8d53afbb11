"""Classification of images, which are read as clips of one frame."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from ...modeling.configuration_base import frame_size
from ...modeling.modeling_uniformer_maps import last_map_side
from ..arguments import ModelArguments, RunConfig
from ..building import attention_options, config_from_scratch, load_config, ready_to_train
from ..data.augmentation import ClipAugmentation, move_rows
from ..data.images import ImageFileUniFormerVideoProcessor, open_images
from ..data.loaders import SampleLoader
from ..data.processors import ClipProcessor
from ..data.streaming import merge_copies
from ..data.token_labels import TokenLabelFolder, TokenLabelLoader, crop_token_labels
from ..fields import option
from ..tasks import Task, TokenLabelTask
from .classification import Classification, LabelArguments
from .common import Rows, Sources
from .passes import Pass, example_pixels, model_pass


# Fields of the data that do not apply to a folder or list of image files.
VIDEO_DATA = (
    *("eval_data", "eval_split", "holdout", "data_config", "data_root", "video_column", "label_column", "label_names"),
    *("label_separator", "shuffle_buffer", "max_train_samples", "max_eval_samples"),
)


@dataclass
class ImageArguments(LabelArguments):
    """
    Arguments of the classification of images.

    Raises:
        ValueError: token labels are given with mixup or cutmix.
    """

    token_labels: str | None = option(
        None,
        "folder of `hf-videovit prepare token-labels`, for models with `use_auxiliary_head`; otherwise each token has "
        "the label of its image",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.token_labels is not None and (self.mixup or self.cutmix):
            raise ValueError(
                f"`mixup` and `cutmix` must be 0 with `token_labels`, got {self.mixup} and {self.cutmix}: MixToken "
                "mixes the images"
            )


class ImageClassification(Classification):
    """
    Train a classifier of images, with token labels if the model has a head for them.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].

    Raises:
        ValueError: `token_labels` is given with an augmentation that cannot be followed.
    """

    name = "image_classification"
    arguments_class = ImageArguments
    unread = (*Classification.unread, "image_model", *VIDEO_DATA)

    @property
    def samples(self) -> str:
        """See [`Method.samples`]."""
        return "images"

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for classifiers of images. See [`Method.fits`]."""
        return model_config.get("modality") == "image"

    def __init__(self, config: RunConfig, **given: Any):
        super().__init__(config, **given)
        augmentation = config.augmentation
        if self.arguments.token_labels is None:
            return
        if augmentation.crop != "area":
            raise ValueError(f"`crop` must be 'area' with `token_labels`, got {augmentation.crop!r}")
        if augmentation.augment_on_device:
            raise ValueError(
                "`augment_on_device` must be false with `token_labels`, which follow the crop of an image"
            )

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
        """
        Cross-entropy of the image, and of every token if the model has a head for tokens.

        Raises:
            ValueError: there are token labels, and the model has no such head.
        """
        if self.model.config.to_dict().get("use_auxiliary_head"):
            arguments = self.arguments
            return TokenLabelTask(self.model, arguments.label_smoothing, arguments.mix_probability)
        if self.arguments.token_labels is not None:
            raise ValueError("`token_labels` needs a model with `use_auxiliary_head: true`")
        return super().task()

    def loader(self) -> SampleLoader:
        """The function that reads an augmented image with its label, and the labels of its places if there are any."""
        folder = self.arguments.token_labels
        if folder is None:
            return super().loader()
        names = list(self.train_source.label_names)
        augmentation = self._augmentation(names)
        assert isinstance(augmentation, ClipAugmentation)
        seed, copies = self.config.run.seed, self.config.augmentation.num_sample
        return TokenLabelLoader(TokenLabelFolder(folder, names), self.processor, augmentation, seed, copies)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Crop token labels like their images, and smooth them like the labels. See [`Method.prepare_batch`]."""
        dense = {name: rows[name] for name in rows if name.startswith("token_")}
        batch = super().prepare_batch({name: rows[name] for name in rows if name not in dense}, device)
        if not dense:
            return batch
        dense, config = merge_copies(move_rows(dense, device)), self.model.config
        height, width = (last_map_side(side, config.stem) for side in batch["pixel_values"].shape[-2:])
        maps = (dense["token_scores"], dense["token_classes"], dense["token_regions"])
        labels = crop_token_labels(*maps, (height, width), config.num_labels)
        smoothing = self.arguments.label_smoothing
        return batch | {"token_labels": labels * (1 - smoothing) + smoothing / config.num_labels}

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
