"""Layers that adapters of PEFT change by default, one row a family."""

from types import ModuleType

from torch import nn
from transformers import PreTrainedModel


# Every linear layer of the blocks. Heads and embeddings stay as they are; PEFT's `modules_to_save` trains a new head.
ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")
FUSED_ATTENTION_AND_MLP = ("qkv", "o_proj", "fc1", "fc2")
LORA_TARGETS: dict[str, tuple[str, ...]] = {
    "actionformer": ATTENTION_AND_MLP,
    "bevt": FUSED_ATTENTION_AND_MLP,
    "lstcl": (*FUSED_ATTENTION_AND_MLP, "q_proj", "k_proj", "v_proj", "temporal_fc"),  # any encoder
    "tubevit": ATTENTION_AND_MLP,
    "uniformer": (*FUSED_ATTENTION_AND_MLP, "mixer.conv1", "mixer.conv2"),
    "uniformer_v2": (*ATTENTION_AND_MLP, "down", "up"),
    "videomae_v2": ATTENTION_AND_MLP,
}
OF_LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"


def lora_targets(model: PreTrainedModel) -> list[str]:
    """
    Layers that an adapter of PEFT changes by default: the linear layers of attention and MLPs.

    `LoraConfig` without `target_modules` takes them too, for all names of the family.

    Args:
        model (`PreTrainedModel`):
            A model of one of the families.

    Returns:
        `list[str]`: ends of the layers' names that the model has, for `target_modules`.

    Raises:
        ValueError: the model is of another family.

    Example:

    ```python
    >>> from peft import LoraConfig, get_peft_model

    >>> from hf_videovit import lora_targets

    >>> config = LoraConfig(r=16, target_modules=lora_targets(model), modules_to_save=["classifier"])
    >>> model = get_peft_model(model, config)
    ```"""
    kind = model.config.model_type
    if kind not in LORA_TARGETS:
        raise ValueError(f"`model` must be of one of the families {', '.join(LORA_TARGETS)}, got {kind!r}.")
    names = [f".{name}" for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [end for end in LORA_TARGETS[kind] if any(name.endswith(f".{end}") for name in names)]


def extend_defaults(constants: ModuleType) -> None:
    """
    Add the families to the tables of PEFT that have the same layers as that of LoRA.

    Args:
        constants (`ModuleType`):
            The module `peft.utils.constants`.
    """
    of_lora = vars(constants)[OF_LORA]
    tables = [table for name, table in vars(constants).items() if name.endswith("_TARGET_MODULES_MAPPING")]
    for table in [table for table in tables if table == of_lora]:
        table.update({kind: list(ends) for kind, ends in LORA_TARGETS.items()})


__all__ = ["LORA_TARGETS", "extend_defaults", "lora_targets"]
