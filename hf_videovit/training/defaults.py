"""
Defaults of a run without a recipe. They follow the model: a checkpoint of a published size is fine-tuned by the recipe
of its family, scaled to the batch, and a small one by settings for small models. Without checkpoint, size and
`config`, a small model is trained from scratch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from transformers import AutoModelForVideoClassification, PreTrainedConfig
from transformers.utils import logging

from .arguments import GROUPS, OptimizationArguments, RunConfig, nested_fields, override, parse_arguments, read_flags
from .building import load_config
from .methods.action_detection import ActionDetection
from .methods.choosing import choose
from .methods.common import Goal, Method
from .recipe_files import read_recipe


logger = logging.get_logger(__name__)

SMALL_MODEL = 5_000_000  # parameters; every published model has more
# Fine-tuning recipes. VideoMAE V2 has one for each width from this one on.
FINE_TUNING = {
    "bevt": "bevt/finetune_base_k400",
    "lstcl": "lstcl/finetune_k400",
    "tubevit": "tubevit/finetune_large_kinetics",
    "uniformer": "uniformer/finetune_small_k400_ucf101_16x4",
    "uniformer_v2": "uniformer_v2/finetune_base_kinetics",
    "videomae_v2": "videomae_v2/finetune_base_k400",
}
WIDE_VIDEOMAE_V2 = {1024: "large", 1280: "huge", 1408: "giant"}
# Recipes with a small model of each family. Those of the second table also pretrain it.
SMALL_MODELS = {
    "bevt": "bevt/small_clips",
    "lstcl": "lstcl/four_actions",
    "tubevit": "tubevit/digit_motion",
    "uniformer": "uniformer/digit_motion",
    "uniformer_v2": "uniformer_v2/digit_motion",
    "videomae_v2": "videomae_v2/own_clips",
}
SMALL_PRETRAINING = SMALL_MODELS | {"videomae_v2": "videomae_v2/four_actions"}
# Supervised training of models of less than 5 million parameters; `docs/training.md` has the figures.
SMALL_TRAINING: dict[str, Any] = {
    "augmentation": {"crop_scale": [0.65, 0.95], "crop_ratio": [0.9, 1.1]},
    "optimization": {
        "learning_rate": 1.2e-3,  # not scaled: at batch 8, the rate of batch 32 divided by 4 learns too slowly
        "min_learning_rate": 0.0,
        "weight_decay": 0.05,
        "clip_grad": 1.0,
    },
}
SMALL_EPOCHS = {"fine-tuning": 20, "from scratch": 40}
SMALL_WARMUP = 0.1  # share of the run
# What a recipe says about its own data and hardware.
OWN_TO_A_RECIPE = {
    "augmentation": ("num_sample",),
    "optimization": (
        "epochs",
        "max_steps",
        "batch_size",
        "accumulation",
        "drop_last",
        "warmup_epochs",
        "warmup_steps",
    ),
}
REGULARISATION = ("drop_path_rate", "classifier_dropout")


def read_run(words: Sequence[str], goal: Goal | None = None, defaults: Mapping[str, Any] | None = None) -> RunConfig:
    """
    Read a run from command-line arguments. Without a recipe, fields that are not given follow the model.

    Args:
        words (`Sequence[str]`):
            See [`parse_arguments`].
        goal (`str`, *optional*):
            `"classifier"` or `"encoder"`, see [`~methods.choosing.choose`].
        defaults (`Mapping[str, Any]`, *optional*):
            See [`parse_arguments`].

    Returns:
        [`RunConfig`]

    Raises:
        ValueError: a flag is unknown, or a value is not allowed.
    """
    config = parse_arguments(words, defaults)
    recipe, given = read_flags(words)
    if recipe is not None:
        return _of_named_method(config, given, goal)
    followed = model_defaults(config, goal)
    unread = choose(config, goal).unread
    for group in followed.keys() & GROUPS.keys():
        followed[group] = {name: value for name, value in followed[group].items() if name not in unread}
    if "learning_rate" in given.get("optimization", {}):  # the rate that is given is the rate of the run
        followed.get("optimization", {}).pop("learning_rate_batch", None)
    values = override(override(followed, nested_fields(defaults or {})), given)
    return RunConfig.from_dict(_with_warmup(values, given.get("optimization", {})))


def _of_named_method(config: RunConfig, given: Mapping[str, Any], goal: Goal | None) -> RunConfig:
    """The run without what its recipe sets for another method than the one on the command line."""
    if "name" not in given.get("method", {}):
        return config
    unread, values = set(choose(config, goal).unread), config.to_dict()
    for group in GROUPS:
        for name in (unread & values[group].keys()) - given.get(group, {}).keys():
            del values[group][name]
    return RunConfig.from_dict(values)


def model_defaults(config: RunConfig, goal: Goal | None = None) -> dict[str, Any]:
    """
    The defaults that follow from the model of a run.

    Args:
        config ([`RunConfig`]):
            The run with the fields that were given.
        goal (`str`, *optional*):
            `"classifier"` or `"encoder"`.

    Returns:
        `dict[str, Any]`: fields by group, and `warmup`, the share of the run that is warm-up; empty for a pretrained
        model that is pretrained further, and for a model from scratch of a given size.
    """
    model = config.model
    method = choose(config, goal)
    if model.checkpoint is not None and method.goal == "classifier":
        known = load_config(model)
        if known.to_dict().get("modality") == "image" or known.model_type not in FINE_TUNING:
            return {}
        if _num_parameters(known) < SMALL_MODEL:
            return _small_training("fine-tuning")
        return _fine_tuning(known, [item.name for item in fields(method.arguments_class)])
    chosen = (model.checkpoint, model.size, model.image_model)
    if any(one is not None for one in chosen) or model.config or model.model_type not in SMALL_MODELS:
        return {}
    logger.warning(
        f"Neither `checkpoint` nor `size` is given: a small {model.model_type} model is trained from scratch. Start "
        "from a checkpoint for better results."
    )
    return _small_model(model.model_type, method)


def _fine_tuning(known: PreTrainedConfig, method_fields: Sequence[str]) -> dict[str, Any]:
    """The recipe of a family without what concerns its own data and hardware. Its rate is for its batch."""
    name = FINE_TUNING[known.model_type]
    if known.model_type == "videomae_v2":
        size = next((size for width, size in WIDE_VIDEOMAE_V2.items() if known.hidden_size <= width), "giant")
        name = name if known.hidden_size < min(WIDE_VIDEOMAE_V2) else f"videomae_v2/finetune_{size}_k400"
    recipe = read_recipe(name)
    optimization = recipe["optimization"]
    batch = optimization["batch_size"] * recipe["about"].get("processes", 1) * optimization.get("accumulation", 1)
    values = {
        group: {field: value for field, value in recipe[group].items() if field not in unwanted}
        for group, unwanted in OWN_TO_A_RECIPE.items()
    }
    values["optimization"].setdefault("learning_rate_batch", batch)
    values["method"] = {name: value for name, value in recipe["method"].items() if name in method_fields}
    theirs, present = recipe["model"].get("config", {}), known.to_dict()
    values["model"] = {"config": {name: theirs[name] for name in REGULARISATION if name in theirs and name in present}}
    length = optimization.get("max_steps") or optimization["epochs"]
    warmup = optimization.get("warmup_steps", 0) if "max_steps" in optimization else optimization["warmup_epochs"]
    return values | {"warmup": warmup / length}


def _small_training(kind: str) -> dict[str, Any]:
    return override(SMALL_TRAINING, {"optimization": {"epochs": SMALL_EPOCHS[kind]}, "warmup": SMALL_WARMUP})


def _small_model(model_type: str, method: type[Method]) -> dict[str, Any]:
    """A small model of a family with the settings to train or pretrain it."""
    if method is ActionDetection:
        recipe = override(read_recipe(f"{model_type}/digit_scenes"), {"model": {"config": {"image_size": 96}}})
        values = _small_training("from scratch")
    elif method.goal == "encoder":
        recipe = read_recipe(SMALL_PRETRAINING[model_type])
        # only contrastive learning needs whole batches, which small data may not fill
        optimization = dict(recipe["optimization"]) | {"drop_last": model_type == "lstcl"}
        warmup = optimization.pop("warmup_epochs") / optimization["epochs"]
        optimization.setdefault("learning_rate_batch", optimization["batch_size"])
        values = {"optimization": optimization, "augmentation": recipe["augmentation"], "warmup": warmup}
    else:
        recipe, values = read_recipe(SMALL_MODELS[model_type]), _small_training("from scratch")
    processor = {name: value for name, value in recipe["model"].get("processor", {}).items() if name != "do_grayscale"}
    return values | {"model": {"config": recipe["model"]["config"], "processor": processor}}


def _with_warmup(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the warm-up in epochs or steps, unless it was given."""
    share = values.pop("warmup", None)
    if share is None or {"warmup_epochs", "warmup_steps"} & given.keys():
        return values
    if given.get("max_steps") is not None:
        return override(values, {"optimization": {"warmup_steps": round(share * int(given["max_steps"]))}})
    epochs = int(values["optimization"].get("epochs", OptimizationArguments.epochs))
    return override(values, {"optimization": {"warmup_epochs": round(share * epochs, 3)}})


def _num_parameters(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        return int(AutoModelForVideoClassification.from_config(config).num_parameters())


__all__ = ["model_defaults", "read_run"]
