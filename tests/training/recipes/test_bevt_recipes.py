"""The recipes of BEVT against the numbers of the official configurations, written down here a second time."""

from pathlib import Path

import pytest
import torch

import hf_videovit.training
from hf_videovit import BevtConfig, BevtForPreTraining, BevtForVideoClassification
from hf_videovit.training.arguments import OptimizationArguments, RunConfig
from hf_videovit.training.optimization import parameter_groups, scaled_learning_rates


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "bevt"
# recipe: processes, clips and images of a process's step, peak, epochs, warm-up, decay, drop path, gradient norm
RECIPES = {
    "pretrain_base": (32, 8, 64, 5e-4, 150, 10, 0.05, 0.3, 3.0),
    "finetune_base_k400": (8, 8, None, 3e-4, 60, 2.5, 0.001, 0.3, 40.0),
    "finetune_base_ssv2": (8, 8, None, 5e-4, 60, 2.5, 0.05, 0.4, None),
}
MULTIPLIERS = {  # on Kinetics-400: learning rate as a power of 0.9, and whether it decays
    "classifier.weight": (0, True),
    "classifier.bias": (0, True),
    "bevt.layernorm.weight": (1, False),
    "bevt.encoder.stages.3.layers.1.norm1.weight": (1, True),
    "bevt.encoder.stages.3.layers.0.mlp.fc1.bias": (2, True),
    "bevt.encoder.stages.2.merging.reduction.weight": (3, True),
    "bevt.encoder.stages.2.layers.17.attention.qkv.weight": (4, True),
    "bevt.encoder.stages.2.layers.0.attention.qkv.bias": (21, True),
    "bevt.encoder.stages.1.merging.norm.weight": (22, True),
    "bevt.encoder.stages.1.layers.1.norm2.bias": (23, True),
    "bevt.encoder.stages.1.layers.0.norm2.bias": (24, True),
    "bevt.encoder.stages.0.merging.norm.weight": (25, True),
    "bevt.encoder.stages.0.layers.1.mlp.fc2.weight": (26, True),
    "bevt.encoder.stages.0.layers.0.mlp.fc2.weight": (27, True),
    "bevt.embeddings.projection.weight": (28, True),
    "bevt.embeddings.norm.bias": (28, True),
    "bevt.encoder.stages.0.layers.0.attention.relative_position_bias_table": (0, False),
}


def recipe(name: str) -> RunConfig:
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


def resolved(name: str, model_class: type, size: str = "base") -> dict[str, tuple[float, float]]:
    """Factor of the learning rate and weight decay of each parameter."""
    arguments = recipe(name).optimization
    with torch.device("meta"):
        model = model_class(BevtConfig.from_size(size))
    groups = parameter_groups(model, arguments.weight_decay, arguments.layer_decay, rules=arguments.parameter_rules)
    return {one: (group["lr_scale"], group["weight_decay"]) for group in groups for one in group["names"]}


@pytest.mark.parametrize("name", RECIPES)
def test_official_numbers(name):
    processes, clips, images, peak, epochs, warmup, decay, drop_path, clip_grad = RECIPES[name]
    config, arguments = recipe(name), recipe(name).optimization
    assert config.about["processes"] == processes
    assert arguments.batch_size * arguments.accumulation == clips
    if images is not None:
        assert config.method["image_batch_size"] * arguments.accumulation == images
    assert scaled_learning_rates(arguments, processes).peak == peak
    assert (arguments.epochs, arguments.warmup_epochs, arguments.weight_decay) == (epochs, warmup, decay)
    assert (arguments.min_learning_rate, arguments.clip_grad) == (0.0, clip_grad)
    assert config.model.config["drop_path_rate"] == drop_path


def test_groups_of_kinetics():
    found = resolved("finetune_base_k400", BevtForVideoClassification)
    for name, (power, decays) in MULTIPLIERS.items():
        assert found[name] == (pytest.approx(0.9**power), 0.001 if decays else 0.0), name
    without = {name for name, (_, decay) in found.items() if decay == 0}
    assert all(name.startswith("bevt.layernorm.") or name.endswith("bias_table") for name in without)


def test_groups_of_something_something():
    found = resolved("finetune_base_ssv2", BevtForVideoClassification, "base-ssv2")
    for name, value in found.items():
        if name.endswith("bias_table"):
            assert value == (1.0, 0.0)
        else:
            assert value == (0.1 if name.startswith("bevt.") else 1.0, 0.05), name


def test_groups_of_pretraining():
    found = resolved("pretrain_base", BevtForPreTraining)
    for name, value in found.items():
        assert value == (1.0, 0.0 if "norm" in name or name.endswith("bias_table") else 0.05), name
    assert found["mask_token"][1] == found["token_classifier.bias"][1] == 0.05


def test_rules_that_say_nothing_or_fit_nothing_are_refused():
    for rule in ({"match": "x"}, {"lr_scale": 1.0}, {"lr_scale": 1.0, "decay": True}, {"match": "x", "lr": 1.0}):
        with pytest.raises(ValueError, match="`parameter_rules` need"):
            OptimizationArguments(parameter_rules=[rule])
    with pytest.raises(ValueError, match=r"`parameter_rules` \['videomae'\] apply to no parameter"):
        parameter_groups(torch.nn.Linear(2, 2), 0.1, rules=[{"match": "videomae", "decay": False}])
    rules = RunConfig.from_fields(parameter_rules=[{"match": "bias", "lr_scale": "0.5"}]).optimization.parameter_rules
    assert rules == [{"match": "bias", "lr_scale": 0.5}]
