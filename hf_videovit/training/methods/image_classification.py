"""Training image classifiers on image files, which the loop reads as clips of one frame."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

from ...modeling.configuration_base import frame_size
from ...modeling.image_processing_uniformer import UniFormerImageProcessor
from ...modeling.video_processing_uniformer import UniFormerVideoProcessor
from ..arguments import ModelArguments, RunConfig
from ..building import config_from_scratch
from ..data.images import ImageFileMixin, open_images
from ..data.opening import load_sources
from ..data.sources import VideoSource
from .common import make_accelerator


class ImageFileUniFormerVideoProcessor(ImageFileMixin, UniFormerVideoProcessor):
    """Reads image files as [`UniFormerImageProcessor`] does, and is saved as that."""

    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    resample = PILImageResampling.BICUBIC
    antialias = True

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """The image processor of the same size."""
        image_processor = UniFormerImageProcessor(size=dict(self.size), crop_size=dict(self.crop_size))
        return image_processor.save_pretrained(save_directory, *args, **kwargs)


def trains_images(arguments: ModelArguments) -> bool:
    """Whether the model of a run is one for images."""
    if "modality" in arguments.config or arguments.checkpoint is None:
        return arguments.config.get("modality") == "image"
    return AutoConfig.from_pretrained(arguments.checkpoint).to_dict().get("modality") == "image"


def open_run_data(config: RunConfig) -> tuple[VideoSource, VideoSource | None]:
    """
    The files to train on and those to evaluate on: images for an image model, else videos.

    Args:
        config ([`RunConfig`]):
            The run.
    """
    if not trains_images(config.model):
        return load_sources(config.data, config.run.seed)
    if config.data.data is None:
        raise ValueError("`data` is needed: a folder of classes or a list of image files")
    return open_images(config.data.data, config.data.train_split)


def finetune_images(config: RunConfig, *, accelerator: Accelerator | None = None) -> Any:
    """
    Train an image classifier, evaluate it and save it.

    Args:
        config ([`RunConfig`]):
            The run; `data.data` holds image files.
        accelerator (`Accelerator`, *optional*):
            Processes and devices; made from `config.run` by default.

    Returns:
        [`FinetuneResult`]; `output_dir` holds an image processor.
    """
    from .classification import finetune

    accelerator = accelerator or make_accelerator(config.run)
    torch.manual_seed(config.run.seed)
    train, held_out = open_run_data(config)
    model, reader = build_image_model(config.model, train.label_names)
    return finetune(
        config, model=model, processor=reader, train_source=train, eval_source=held_out, accelerator=accelerator
    )


def build_image_model(arguments: ModelArguments, label_names: Any) -> tuple[PreTrainedModel, Any]:
    """
    The image classifier that a run starts from, and what reads its images.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, whose classifier is kept where its labels are the data's, or a size from scratch.
        label_names (`Sequence[str]`):
            Names of the data's labels.
    """
    if arguments.image_model is not None:
        raise ValueError("`image_model` starts a video model; an image model goes on from `checkpoint`")
    names = list(label_names)
    if arguments.checkpoint is None:
        config = name_labels(config_from_scratch(arguments), names)
        model = AutoModelForImageClassification.from_config(config)
    else:
        config = AutoConfig.from_pretrained(arguments.checkpoint, **arguments.config)
        kept = [config.id2label[index] for index in sorted(config.id2label)] == names and arguments.head != "new"
        model = AutoModelForImageClassification.from_pretrained(
            arguments.checkpoint, config=name_labels(config, names), dtype=torch.float32, ignore_mismatched_sizes=True
        )
        if not kept:
            renew_heads(model)
    side = min(frame_size(config.image_size))
    reader = ImageFileUniFormerVideoProcessor(
        **{
            "num_frames": 1,
            "frame_sampling": "uniform",
            "size": {"shortest_edge": 256 * side // 224},
            "crop_size": {"height": side, "width": side},
        }
        | arguments.processor
    )
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.float(), reader


def name_labels(config: PreTrainedConfig, names: list[str]) -> PreTrainedConfig:
    if len(names) < 2:
        raise ValueError(f"A classifier needs at least 2 labels, the data has {names}")
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    return config


@torch.no_grad()
def renew_heads(model: PreTrainedModel) -> None:
    """All classifiers start anew: a head of the same size but of other labels fits without being right."""
    fresh = type(model)(model.config)
    for name, module in fresh.named_children():
        if name != model.base_model_prefix and module is not None:
            getattr(model, name).load_state_dict(module.state_dict())


__all__ = [
    "ImageFileUniFormerVideoProcessor",
    "build_image_model",
    "finetune_images",
    "open_run_data",
    "trains_images",
]
