"""The backbone of a detector or segmenter that is trained: changed fields, and the weights of an image model."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ...files import loading
from ...modeling.configuration_uniformer import UniFormerConfig
from ...modeling.modeling_uniformer import UniFormerBackbone


logger = logging.get_logger(__name__)

# Fields that say how a backbone is used. The weights of an image model fit any of their values.
OF_THE_RUN = ("attention_type", "window_size", "drop_path_rate")


def changed_backbone(config: PreTrainedConfig, fields: dict[str, Any]) -> PreTrainedConfig:
    """
    A backbone's configuration with other values.

    Args:
        config (`PreTrainedConfig`):
            The configuration.
        fields (`dict[str, Any]`):
            Values by name.

    Returns:
        `PreTrainedConfig`

    Raises:
        ValueError: a field does not exist, or its value is not allowed.
    """
    if not fields:
        return config
    known = config.to_dict()
    if unknown := [name for name in fields if name not in known]:
        raise ValueError(f"`backbone` has no field {unknown[0]!r} in a configuration of type {config.model_type!r}")
    return type(config).from_dict(known | fields)


def started_backbone(image_model: str, config: PreTrainedConfig) -> PreTrainedConfig:
    """
    Configuration of a backbone with the weights of an image model: that of the image model, used as `config` says.

    Args:
        image_model (`str`):
            Folder or Hub id of a UniFormer for images.
        config (`PreTrainedConfig`):
            Configuration of the run's backbone.

    Returns:
        `PreTrainedConfig`: it returns the maps of four stages.

    Raises:
        ValueError: the image model is another kind of model.
    """
    with loading("`image_model`", image_model):
        theirs = AutoConfig.from_pretrained(image_model)
    if not isinstance(theirs, UniFormerConfig) or theirs.modality != "image":
        raise ValueError(f"`image_model` must be a UniFormer for images, got a {theirs.model_type!r}")
    kept = {name: getattr(config, name) for name in OF_THE_RUN if hasattr(config, name)}
    if theirs.use_token_pruning:
        kept.pop("attention_type", None)
    places = {"out_indices": [1, 2, 3, 4], "out_features": None}
    return UniFormerConfig.from_dict(theirs.to_dict() | kept | places)


def load_backbone(backbone: PreTrainedModel, image_model: str) -> None:
    """
    Give a backbone the weights of an image model. The norms of its four maps start new.

    Args:
        backbone (`PreTrainedModel`):
            The backbone, which is changed.
        image_model (`str`):
            Folder or Hub id of a UniFormer for images.

    Raises:
        ValueError: the image model lacks weights, or has them in another shape.
    """
    with loading("`image_model`", image_model):
        found, info = UniFormerBackbone.from_pretrained(
            image_model, config=backbone.config, dtype=torch.float32, output_loading_info=True
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("norms."))
    if missing:
        raise ValueError(f"`image_model` {image_model!r} lacks {', '.join(missing[:8])} of the backbone")
    backbone.load_state_dict(found.state_dict())


__all__ = ["changed_backbone", "load_backbone", "started_backbone"]
