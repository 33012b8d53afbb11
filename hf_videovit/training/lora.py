"""A run that trains a LoRA adapter of PEFT instead of all weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedModel

from ..adapters import lora_targets
from .fields import suggestion


if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "adapter"  # folder of the adapter in the folder of a run


def add_adapter(model: PreTrainedModel, fields: Mapping[str, Any]) -> "PeftModel":
    """
    Add an adapter to a model, in place. The adapter and the head are trained; the other weights are frozen.

    Args:
        model (`PreTrainedModel`):
            The model.
        fields (`Mapping[str, Any]`):
            Fields of `peft.LoraConfig`. `target_modules` defaults to [`lora_targets`], `modules_to_save` to the
            modules above the encoder.

    Returns:
        `PeftModel`: the model in PEFT's wrapper, which saves and merges the adapter.

    Raises:
        ValueError: PEFT is not installed, or does not take a field.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("`lora` needs PEFT: pip install 'hf_videovit[lora]'") from error
    known = set(LoraConfig.__dataclass_fields__)
    for name in fields:
        if name not in known:
            raise ValueError(f"`lora` has no field `{name}`{suggestion(name, sorted(known))}")
    head = [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]
    chosen = {"target_modules": lora_targets(model), "modules_to_save": head or None} | dict(fields)
    try:
        return get_peft_model(model, LoraConfig(**chosen))  # type: ignore[return-value]
    except (TypeError, ValueError) as error:
        raise ValueError(f"`lora` {dict(fields)!r}: {error}") from error


def merge_adapter(adapted: "PeftModel", trained: PreTrainedModel, folder: Path | None = None) -> PreTrainedModel:
    """
    Merge a trained adapter into the weights of its model.

    Args:
        adapted (`PeftModel`):
            The result of [`add_adapter`].
        trained (`PreTrainedModel`):
            The trained weights: the model that the adapter was added to, or a copy of it with other weights, such as
            their moving average. It is changed.
        folder (`Path`, *optional*):
            Folder to save the adapter to, as `peft.PeftModel.from_pretrained` reads it, with the configuration of the
            model.

    Returns:
        `PreTrainedModel`: a model without adapters.
    """
    adapted.base_model.model = trained
    if folder is not None:
        config: PreTrainedConfig = trained.config
        adapted.save_pretrained(str(folder))
        config.save_pretrained(folder)
    return adapted.merge_and_unload()  # type: ignore[operator,return-value]


__all__ = ["ADAPTER", "add_adapter", "merge_adapter"]
