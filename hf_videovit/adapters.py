"""Layers that adapters of PEFT change by default, one row a family."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

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
PEFT_DEFAULTS = "peft.utils.constants"
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


def _extend_defaults(constants: ModuleType) -> None:
    """Add the families to the tables of PEFT that have the same layers as that of LoRA."""
    of_lora = vars(constants)[OF_LORA]
    tables = [table for name, table in vars(constants).items() if name.endswith("_TARGET_MODULES_MAPPING")]
    for table in [table for table in tables if table == of_lora]:
        table.update({kind: list(ends) for kind, ends in LORA_TARGETS.items()})


class _AfterImport(MetaPathFinder):
    """Adds the families once PEFT is imported. Importing it here would take seconds that most users do not need."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PEFT_DEFAULTS:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_extend(module: ModuleType) -> None:
            execute(module)
            _extend_defaults(module)

        loader.exec_module = execute_and_extend
        return spec


def register_lora_targets() -> None:
    """Make PEFT know the default layers of every family, now or when it is imported."""
    if PEFT_DEFAULTS in sys.modules:
        _extend_defaults(sys.modules[PEFT_DEFAULTS])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


__all__ = ["LORA_TARGETS", "lora_targets", "register_lora_targets"]
