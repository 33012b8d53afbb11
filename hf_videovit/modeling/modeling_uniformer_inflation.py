"""
Video UniFormers that start from an image UniFormer, as all official ones do. Every kernel is repeated along time and
divided by the number of repetitions, so that a clip of one repeated frame gives the same output as the frame.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel


# Fields that both models must share. The width of a head cannot be read from the weights.
SHARED_FIELDS = ("depths", "hidden_sizes", "intermediate_sizes", "head_dim", "stem", "use_token_pruning", "qkv_bias")
IMAGE_ONLY_FIELDS = ("attention_type", "use_auxiliary_head", "out_features", "out_indices", "stage_names")
# Parts that an image model may lack: attention over time, and the layer scale of the light video models.
FRESH = (".temporal_", ".layer_scale")


class StartsFromImageUniFormer:
    """Mixin of the video models."""

    @classmethod
    def from_image_vit(
        cls, image_model: str | os.PathLike | PreTrainedModel, config: Any = None, **fields: Any
    ) -> Any:
        """
        Make a video model from an image UniFormer. A classifier is newly initialised. The official recipes start from
        the plain ImageNet models, without token labelling and without layer scale.

        Args:
            image_model (`str`, `os.PathLike` or `PreTrainedModel`):
                An image UniFormer, or its folder or Hub id. Convert official files first with
                [`~convert.convert_checkpoint`]; it can also make a video model directly.
            config ([`UniFormerConfig`], *optional*):
                Configuration; it must fit the image model's. By default the image model's, changed by `fields`.
            fields:
                Fields of the configuration, such as `num_labels` or `num_frames`.

        Returns:
            The model in float32 and evaluation mode.

        Raises:
            ValueError: `image_model` is not an image UniFormer, or does not fit the configuration.

        Example:

        ```python
        >>> from hf_videovit import UniFormerConfig, UniFormerForVideoClassification, UniFormerModel

        >>> image_model = UniFormerModel(UniFormerConfig.from_size("small", modality="image"))
        >>> model = UniFormerForVideoClassification.from_image_vit(image_model, num_labels=400)
        >>> model.config.modality
        'video'
        ```"""
        source = _image_base(image_model)
        config = _video_config(source.config, config, fields)
        model: Any = cls(config)  # type: ignore[call-arg]
        base = model.base_model
        base.load_state_dict(_inflated_state(source.state_dict(), base.state_dict()))
        return model.float().eval()


def _image_base(image_model: Any) -> PreTrainedModel:
    """The encoder of an image UniFormer; ValueError for anything else."""
    if isinstance(image_model, str | os.PathLike):
        if os.path.isfile(image_model):
            raise ValueError(
                f"`image_model` must be a folder or a Hub id, got the file {str(image_model)!r}. Convert an official "
                "checkpoint first with `hf-videovit convert`."
            )
        image_model = AutoModel.from_pretrained(image_model, dtype=torch.float32)
    config: Any = getattr(image_model, "config", None)
    if getattr(config, "model_type", None) != "uniformer" or config.modality != "image":
        raise ValueError(
            f"`image_model` must be a UniFormer with `modality='image'`, got {type(image_model).__name__}."
        )
    base = image_model.base_model
    if base.norm is None:
        raise ValueError("`image_model` must have the final norm; a backbone for dense prediction has none.")
    return base


def _video_config(image: PreTrainedConfig, config: Any, fields: Mapping[str, Any]) -> Any:
    """The configuration of the video model: `config`, or the image model's with `fields`."""
    if config is not None and fields:
        raise ValueError(f"Give `config` or fields of it, not both: got {', '.join(fields)}.")
    if config is None:
        known: dict[str, Any] = image.to_dict()
        labels = {"id2label", "label2id"} if {"num_labels", "id2label"} & set(fields) else set()
        own = {name: known[name] for name in known if name not in labels and name not in IMAGE_ONLY_FIELDS}
        return type(image)(**{**own, "modality": "video", **fields})
    if config.modality != "video":
        raise ValueError(f"`config` must have `modality='video'`, got {config.modality!r}.")
    for name in SHARED_FIELDS:
        ours, theirs = getattr(config, name), getattr(image, name)
        if ours != theirs and _list_of(ours) != _list_of(theirs):
            raise ValueError(f"`{name}` must be the image model's, {theirs}, got {ours}.")
    return config


def _list_of(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _inflated_state(image: Mapping[str, torch.Tensor], video: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors for all names of `video`: the image model's, inflated where they lack an axis, or its own."""
    beyond = sorted(set(image) - set(video))
    missing = sorted(name for name in set(video) - set(image) if not any(part in name for part in FRESH))
    if beyond or missing:
        words = f"has {beyond[0]}, which the video model lacks" if beyond else f"lacks {missing[0]}"
        raise ValueError(f"`image_model` {words}: their configurations do not fit.")
    return {name: _inflate(image[name], own.shape) if name in image else own for name, own in video.items()}


def _inflate(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A 2-D kernel as a 3-D one of `shape`; anything else as it is."""
    if tensor.ndim == len(shape):
        return tensor
    return (tensor.unsqueeze(2) / shape[2]).expand(shape)  # (out, in, frames, height, width)


__all__ = ["StartsFromImageUniFormer"]
