"""Options of the official dense recipes for a UniFormer backbone, alone or inside a detector or segmenter."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..modeling.configuration_uniformer import ATTENTION_TYPES
from ..modeling.modeling_uniformer import UniFormerModel, is_windowed


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def set_attention_type(model: nn.Module, attention_type: str, window_size: int | None = None) -> None:
    """
    Change the attention of stage 3, at any time: all modes share their weights. The published segmentation models
    "w32", "h32" and "global" share one set of weights, tested in three modes.

    Args:
        model (`nn.Module`):
            A UniFormer, or any model with one inside.
        attention_type (`str`):
            `"global"`, `"window"` or `"hybrid"`.
        window_size (`int`, *optional*):
            Side of a window in tokens of 16 pixels. Unchanged by default.

    Raises:
        ValueError: the type or size is not allowed, or `model` has no UniFormer with windows.
    """
    if attention_type not in ATTENTION_TYPES:
        raise ValueError(f"`attention_type` must be one of {ATTENTION_TYPES}, got {attention_type!r}.")
    if window_size is not None and window_size < 1:
        raise ValueError(f"`window_size` must be at least 1, got {window_size}.")
    found = [module for module in model.modules() if isinstance(module, UniFormerModel)]
    if not found or any(one.config.modality != "image" or one.config.use_token_pruning for one in found):
        raise ValueError("`model` must contain a UniFormer for images without token pruning; no other has windows.")
    for one in found:
        size = window_size or one.config.window_size
        blocks: Any = one.stages[2].blocks
        for index, block in enumerate(blocks):
            block.window_size = size if is_windowed(attention_type, index) else None
    for config in _configurations(model):
        config.attention_type, config.window_size = attention_type, window_size or config.window_size


def _configurations(model: nn.Module) -> list[Any]:
    """Every UniFormer configuration in a model, including the copy that an outer model saves."""
    owned = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    nested = [vars(config)["backbone_config"] for config in owned if vars(config).get("backbone_config") is not None]
    return [config for config in (*owned, *nested) if config.model_type == UniFormerModel.config_class.model_type]


def freeze_batch_norms(model: nn.Module) -> int:
    """
    Fix the running statistics and the scale of every BatchNorm, also in training mode. The authors recommend this for
    dense tasks, whose batches are small.

    Args:
        model (`nn.Module`):
            Usually a backbone. The heads of UperNet have new BatchNorms that must be trained.

    Returns:
        `int`: number of frozen BatchNorms.
    """
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    for norm in norms:
        norm.requires_grad_(False).eval()
        norm.register_forward_pre_hook(_stay_in_evaluation)
    return len(norms)


def _stay_in_evaluation(module: nn.Module, inputs: Any) -> None:
    """Hook that undoes `train()` of an outer model."""
    module.eval()


__all__ = ["freeze_batch_norms", "set_attention_type"]
