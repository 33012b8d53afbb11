"""The model and processor that a run starts from: a checkpoint, or a size of a family from scratch."""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
from transformers.utils import logging

from ..files import loading
from ..modeling.configuration_tubevit import TubeViTConfig, checked_dataset
from ..modeling.modeling_tubevit import TubeViTForJointClassification, TubeViTModel
from .arguments import ModelArguments
from .data.processors import ClipProcessor
from .fields import suggestion
from .optimization import HasLayerTable, freeze_layers, head_parameters


logger = logging.get_logger(__name__)

MULTI_LABEL = "multi_label_classification"
FAMILIES = (
    "actionformer",
    "bevt",
    "bevt_image_codebook",
    "lstcl",
    "tubevit",
    "uniformer",
    "uniformer_segmenter",
    "uniformer_v2",
    "videomae_v2",
)
VIDEOS, IMAGES = "videos", "images"  # the data sets of a model that is trained on both


def build_model(
    arguments: ModelArguments, label_names: Sequence[str], multi_label: bool = False
) -> tuple[PreTrainedModel, ClipProcessor]:
    """
    Build the classifier of videos that a run starts from, and its processor.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a family and size from scratch.
        label_names (`Sequence[str]`):
            Names of the data's labels.
        multi_label (`bool`, *optional*, defaults to `False`):
            Whether a clip has any number of labels.

    Returns:
        `tuple[PreTrainedModel, ClipProcessor]`: the model in float32, and its processor. The model's labels are those
        of the checkpoint if its head is kept, else those of the data.

    Raises:
        ValueError: the checkpoint does not fit the arguments or the data, or the data has too few labels.
    """
    if arguments.checkpoint is None:
        config = config_from_scratch(arguments)
        _name_labels(config, label_names, multi_label)
        if arguments.image_model is None:
            model = AutoModelForVideoClassification.from_config(config, **attention_options(arguments))
        else:
            model = _start_from_image_model(arguments, config)
        processor = _processor_from_scratch(config, arguments.processor)
    else:
        config = load_config(arguments)
        model = _load_classifier(arguments, config, label_names, multi_label)
        processor = _load_processor(arguments, config)
    return ready_to_train(arguments, model), _checked_frames(processor, model)


def build_joint_model(
    arguments: ModelArguments,
    video_labels: Sequence[str],
    image_labels: Sequence[str],
    multi_label: bool = False,
) -> tuple[TubeViTForJointClassification, ClipProcessor]:
    """
    Build the model that joint training on videos and images starts from, and its processor.

    Args:
        arguments ([`ModelArguments`]):
            A TubeViT checkpoint with any head, or a size from scratch.
        video_labels (`Sequence[str]`):
            Names of the labels of videos.
        image_labels (`Sequence[str]`):
            Names of the labels of images.
        multi_label (`bool`, *optional*, defaults to `False`):
            Whether a video has any number of labels.

    Returns:
        `tuple[TubeViTForJointClassification, ClipProcessor]`: a model with one classifier for `"videos"` and one for
        `"images"`, and its processor. The classifiers are those of the checkpoint if it is such a model with the same
        labels, else new.

    Raises:
        ValueError: the model is not a TubeViT.
    """
    kind = MULTI_LABEL if multi_label else None
    datasets: dict[str, dict[str, Any]] = {
        VIDEOS: {"labels": list(video_labels), "problem_type": kind},
        IMAGES: {"labels": list(image_labels)},
    }
    if arguments.checkpoint is None:
        config: Any = config_from_scratch(arguments)
        processor = _processor_from_scratch(config, arguments.processor)
    else:
        config = load_config(arguments)
        processor = _load_processor(arguments, config)
    if not isinstance(config, TubeViTConfig):
        raise ValueError(f"`image_data` is supported by TubeViT only, got a model of type {config.model_type!r}")
    theirs, config.datasets = config.datasets, {name: checked_dataset(name, one) for name, one in datasets.items()}
    model = TubeViTForJointClassification._from_config(config, **attention_options(arguments))
    if arguments.checkpoint is not None and theirs == config.datasets and arguments.head != "new":
        model = TubeViTForJointClassification.from_pretrained(
            arguments.checkpoint, config=config, dtype=torch.float32, **attention_options(arguments)
        )
    elif arguments.checkpoint is not None:
        base = TubeViTModel.from_pretrained(arguments.checkpoint, config=config, dtype=torch.float32)
        model.tubevit.load_state_dict(base.state_dict())
    return ready_to_train(arguments, model), _checked_frames(processor, model)  # type: ignore[return-value]


def build_pretraining_model(arguments: ModelArguments) -> tuple[PreTrainedModel, ClipProcessor]:
    """
    Build the model that pretraining starts from, and its processor.

    Args:
        arguments ([`ModelArguments`]):
            A pretraining checkpoint, or a family and size from scratch.

    Returns:
        `tuple[PreTrainedModel, ClipProcessor]`: the model in float32 with its decoder, and its processor.

    Raises:
        ValueError: the checkpoint has no pretraining weights, or the processor's normalisation is not the one that the
            model undoes in its targets.
    """
    if arguments.checkpoint is None:
        config = config_from_scratch(arguments)
        model = AutoModelForPreTraining.from_config(config, **attention_options(arguments))
        processor = _processor_from_scratch(config, arguments.processor)
    else:
        config = load_config(arguments)
        with loading("`checkpoint`", arguments.checkpoint):
            model, info = AutoModelForPreTraining.from_pretrained(
                arguments.checkpoint,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                **attention_options(arguments),
            )
        if info["missing_keys"]:
            raise ValueError(
                f"`checkpoint` {arguments.checkpoint!r} is not a pretraining checkpoint: it lacks "
                f"{', '.join(sorted(info['missing_keys'])[:8])}"
            )
        processor = _load_processor(arguments, config)
    fields = config.to_dict()
    for name in ("image_mean", "image_std"):
        if name in fields and list(getattr(processor, name)) != list(fields[name]):
            raise ValueError(
                f"`{name}` of the processor ({getattr(processor, name)}) and of the model's config "
                f"({fields[name]}) must be the same: the targets undo the normalisation"
            )
    return ready_to_train(arguments, model), _checked_frames(processor, model)


def describe_inputs(arguments: ModelArguments) -> tuple[PreTrainedConfig, ClipProcessor]:
    """
    Configuration and processor of the model that a run starts from. No weights are loaded.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a family and size from scratch.

    Returns:
        `tuple[PreTrainedConfig, ClipProcessor]`
    """
    if arguments.checkpoint is None:
        config = described_config(arguments)
        return config, _processor_from_scratch(config, arguments.processor)
    config = load_config(arguments)
    return config, _load_processor(arguments, config)


def load_config(arguments: ModelArguments) -> PreTrainedConfig:
    """
    Configuration of the checkpoint that a run starts from, with the fields of the run.

    Args:
        arguments ([`ModelArguments`]):
            `checkpoint` and `config` are read.

    Returns:
        `PreTrainedConfig`

    Raises:
        ValueError: there is no such checkpoint, or a field has a value that is not allowed.
    """
    with loading("`checkpoint`", str(arguments.checkpoint)):
        return AutoConfig.from_pretrained(arguments.checkpoint, **arguments.config)


def load_teacher(arguments: ModelArguments, checkpoint: str, processor: ClipProcessor) -> PreTrainedModel:
    """
    Load the teacher of knowledge distillation.

    Args:
        arguments ([`ModelArguments`]):
            Arguments of the student. The teacher uses the same implementation of attention.
        checkpoint (`str`):
            Folder or Hub id of the teacher.
        processor ([`ClipProcessor`]):
            Processor of the student. Both models see its clips.

    Returns:
        `PreTrainedModel`: the teacher in float32.

    Raises:
        ValueError: the teacher's own processor normalises differently.
    """
    with loading("`teacher`", checkpoint):
        teacher = AutoModelForVideoClassification.from_pretrained(
            checkpoint, dtype=torch.float32, **attention_options(arguments)
        )
        theirs = AutoVideoProcessor.from_pretrained(checkpoint)
    for name in ("image_mean", "image_std", "do_grayscale"):
        taught, seen = (getattr(one, name, False) for one in (theirs, processor))
        if not np.array_equal(taught, seen):
            raise ValueError(
                f"`teacher` {checkpoint!r} was trained with `{name}` {taught}, the student's processor has {seen}"
            )
    return teacher


def config_from_scratch(arguments: ModelArguments) -> PreTrainedConfig:
    """
    Configuration of a model that is trained from scratch.

    Args:
        arguments ([`ModelArguments`]):
            Family, size and fields of the configuration.

    Returns:
        `PreTrainedConfig`

    Raises:
        ValueError: the arguments require a checkpoint (`needs_checkpoint`).
    """
    require_checkpoint(arguments)
    return described_config(arguments)


def require_checkpoint(arguments: ModelArguments) -> None:
    """
    Refuse a run that lacks the model that it starts from.

    Args:
        arguments ([`ModelArguments`]):
            What the run starts from.

    Raises:
        ValueError: `needs_checkpoint` is set, and there is no `checkpoint` or `image_model`.
    """
    if arguments.needs_checkpoint and arguments.checkpoint is None and arguments.image_model is None:
        raise ValueError(
            "`checkpoint` is needed: this recipe starts from a trained model, which `hf-videovit recipes NAME` names; "
            "a classifier of images goes to `image_model`; set `needs_checkpoint` to false to train from scratch"
        )


def described_config(arguments: ModelArguments) -> PreTrainedConfig:
    """
    Configuration of a family and size, whether or not the run needs a checkpoint.

    Args:
        arguments ([`ModelArguments`]):
            Family, size and fields of the configuration.

    Returns:
        `PreTrainedConfig`

    Raises:
        ValueError: the family or size is unknown, or a field has a value that is not allowed.
    """
    if arguments.model_type not in CONFIG_MAPPING:
        raise ValueError(f"Unknown `model_type` {arguments.model_type!r}{suggestion(arguments.model_type, FAMILIES)}")
    config_class = CONFIG_MAPPING[arguments.model_type]
    try:
        if arguments.size is None:
            return config_class(**arguments.config)
        return config_class.from_size(arguments.size, **arguments.config)
    except StrictDataclassFieldValidationError as error:
        fault = " ".join(str(error).split()).removeprefix("Validation error for field ")
        raise ValueError(f"`config` {fault}") from error


@runtime_checkable
class StartsFromImages(Protocol):
    """A class of video models that can start from an image model."""

    def from_image_vit(self, image_model: Any, config: Any) -> PreTrainedModel:
        """
        Build a model with the weights of an image model, as far as it has them.

        Args:
            image_model (`str` or `PreTrainedModel`):
                The image model, or its folder or Hub id.
            config (`PreTrainedConfig`):
                Configuration of the video model.

        Returns:
            `PreTrainedModel`
        """


def _start_from_image_model(arguments: ModelArguments, config: PreTrainedConfig) -> PreTrainedModel:
    model_class: Any = MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING[type(config)]
    if not isinstance(model_class, StartsFromImages):
        raise ValueError(
            f"`image_model` is not supported by {config.model_type}: give `checkpoint` instead, or neither of them"
        )
    model = model_class.from_image_vit(arguments.image_model, config=config)
    if arguments.attn_implementation is not None:
        model.set_attn_implementation(arguments.attn_implementation)
    return model


def ready_to_train(arguments: ModelArguments, model: PreTrainedModel) -> PreTrainedModel:
    """
    A model in float32, with frozen layers and recomputed activations where the run asks for them.

    Args:
        arguments ([`ModelArguments`]):
            `frozen_layers` and `gradient_checkpointing` are read.
        model (`PreTrainedModel`):
            The model, which is changed.

    Returns:
        `PreTrainedModel`: the same model.

    Raises:
        ValueError: the model has fewer blocks than `frozen_layers`.
    """
    model = model.float()
    if arguments.frozen_layers is not None:
        freeze_layers(model, arguments.frozen_layers)
    if arguments.gradient_checkpointing:
        with warnings.catch_warnings():  # the new name is missing in some supported versions of transformers
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable()
    return model


def _checked_frames(processor: ClipProcessor, model: PreTrainedModel) -> ClipProcessor:
    frames = processor.num_frames or processor.published_num_frames
    if frames != model.config.num_frames:
        logger.warning(f"The processor samples {frames} frames, the model expects {model.config.num_frames}.")
    return processor


def _name_labels(config: PreTrainedConfig, label_names: Sequence[str], multi_label: bool) -> None:
    least = 1 if multi_label else 2
    if len(label_names) < least:
        raise ValueError(f"A classifier needs at least {least} labels, the data has {list(label_names)}")
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = MULTI_LABEL if multi_label else "single_label_classification"


def attention_options(arguments: ModelArguments) -> dict[str, Any]:
    """
    The implementation of attention, as the auto classes take it.

    Args:
        arguments ([`ModelArguments`]):
            `attn_implementation` is read.

    Returns:
        `dict[str, Any]`: empty where the model's default is kept.
    """
    return {} if arguments.attn_implementation is None else {"attn_implementation": arguments.attn_implementation}


def _processor_from_scratch(config: PreTrainedConfig, overrides: dict[str, Any]) -> ClipProcessor:
    """The family's processor, sized like the model."""
    sides = config.image_size
    height, width = (sides, sides) if isinstance(sides, int) else sides
    fields = {
        "num_frames": config.num_frames,
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
    }
    registered = VIDEO_PROCESSOR_MAPPING[type(config)]
    processor_class = registered["torchvision"] if isinstance(registered, dict) else registered
    return processor_class(**(fields | overrides))


def _load_processor(arguments: ModelArguments, config: PreTrainedConfig) -> ClipProcessor:
    if arguments.checkpoint is None:
        raise ValueError("`checkpoint` is needed to load a processor")
    try:
        return AutoVideoProcessor.from_pretrained(arguments.checkpoint, **arguments.processor)
    except OSError as error:
        if "not a valid JSON" in str(error):  # a damaged protocol must not be replaced by another one
            raise ValueError(f"`checkpoint` {arguments.checkpoint!r}: {error}") from error
        logger.warning(f"{arguments.checkpoint} has no video processor; the default processor of its family is used.")
        return _processor_from_scratch(config, arguments.processor)


def _load_classifier(
    arguments: ModelArguments, config: PreTrainedConfig, label_names: Sequence[str], multi_label: bool
) -> PreTrainedModel:
    """A checkpoint as a classifier; with a new head where its labels are not the data's."""
    theirs = [config.id2label[index] for index in sorted(config.id2label)]
    same_kind = (config.problem_type == MULTI_LABEL) == multi_label
    if arguments.head == "keep" and not same_kind:
        kinds = ("any number of labels", "one label")[:: 1 if multi_label else -1]
        raise ValueError(
            f"`head` must not be 'keep': a clip of the data has {kinds[0]}, the checkpoint's head predicts {kinds[1]}"
        )
    keep = arguments.head == "keep" or arguments.head == "auto" and same_kind and set(theirs) == set(label_names)
    if not keep:
        _name_labels(config, label_names, multi_label)
    with loading("`checkpoint`", str(arguments.checkpoint)):
        model, info = AutoModelForVideoClassification.from_pretrained(
            arguments.checkpoint,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=not keep,
            output_loading_info=True,
            **attention_options(arguments),
        )
    missing = set(info["missing_keys"])
    has_table = isinstance(model, HasLayerTable)
    allowed = head_parameters(model) if has_table and not keep else set()
    if missing - allowed:
        raise ValueError(
            f"`checkpoint` {arguments.checkpoint!r} lacks {', '.join(sorted(missing - allowed)[:8])} of "
            f"{type(model).__name__}" + ("; set `head` to new for a new head" if keep else "")
        )
    others = sorted({name for name, *_ in info["mismatched_keys"]} - allowed)
    if others:
        raise ValueError(
            f"`checkpoint` {arguments.checkpoint!r} has other shapes than its config.json and `config` say: "
            f"{', '.join(others[:8])}"
        )
    if not keep:
        logger.warning(f"The head for {len(theirs)} labels is replaced by a new one for {len(label_names)} labels.")
        _renew_head(model, missing | {name for name, *_ in info["mismatched_keys"]})
    return model


def _renew_head(model: PreTrainedModel, fresh: set[str]) -> None:
    """
    Initialise the head again where it was loaded: a head of the same size may have other labels. The norm before it
    (`fc_norm`) keeps the weights of the checkpoint.
    """
    own = [name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")]
    loaded = [name for name in own if name not in fresh]
    if loaded:
        untrained = type(model)(model.config).state_dict()
        model.load_state_dict(model.state_dict() | {name: untrained[name] for name in loaded})
