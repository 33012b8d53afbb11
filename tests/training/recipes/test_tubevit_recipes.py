"""The recipes of TubeViT against the numbers of the paper's table, written down here a second time."""

from pathlib import Path

import pytest
import torch

import hf_videovit.training
from hf_videovit import TubeViTForVideoClassification
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.building import build_joint_model, described_config
from hf_videovit.training.optimization import freeze_layers, scaled_learning_rates
from hf_videovit.training.schedules import schedule_steps


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "tubevit"
# recipe: size, frames, frames a second, batch, steps, peak, weight decay, blocks that stay, gate, needs weights
RECIPES = {
    "joint_base_kinetics": ("base", 64, 15, 256, 300_000, 5e-5, 1e-3, None, 0, False),
    "joint_large_kinetics": ("large", 64, 15, 256, 300_000, 1e-5, 1e-5, None, 0, False),
    "finetune_large_kinetics": ("large", 64, 15, 256, 300_000, 1e-5, 1e-5, None, 0, False),
    "finetune_large_ssv2": ("large", 32, 24, 256, 300_000, 2e-5, 1e-5, None, 0, True),
    "finetune_large_charades": ("large", 128, 6, 64, 300_000, 1e-3, 1e-5, None, 0, True),
    "finetune_large_charades_interpolated": ("large", 128, 6, 64, 300_000, 1e-3, 1e-5, None, 0, True),
    "scaled_huge_head": ("huge", 64, 15, 256, 300_000, 1e-5, 1e-5, 32, 0, True),
    "scaled_huge_last4": ("huge", 64, 15, 256, 300_000, 1e-5, 1e-5, 28, 0, True),
    "scaled_huge_last8": ("huge", 64, 15, 256, 300_000, 1e-5, 1e-5, 24, 0, True),
    "scaled_huge_last8_gate": ("huge", 64, 15, 256, 300_000, 1e-5, 1e-5, 24, 24, True),
    "scaled_huge_full": ("huge", 64, 15, 256, 300_000, 1e-5, 1e-5, None, 0, True),
    "scaled_base_head": ("base", 64, 15, 256, 50_000, 5e-5, 1e-3, 12, 0, True),
    "scaled_base_last1": ("base", 64, 15, 256, 50_000, 5e-5, 1e-3, 11, 0, True),
    "scaled_base_last4": ("base", 64, 15, 256, 50_000, 5e-5, 1e-3, 8, 0, True),
    "scaled_base_full": ("base", 64, 15, 256, 50_000, 5e-5, 1e-3, None, 0, True),
}
# mixup, dropout, label smoothing, mirrored
REGULARISATION = {"charades": (0.0, 0.2, 0.1, 0.5), "ssv2": (0.3, 0.3, 0.3, 0.0), "": (0.0, 0.0, 0.0, 0.5)}


def read(name: str) -> RunConfig:
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


def test_every_recipe_is_checked_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {
        *RECIPES,
        "digit_identity_joint",
        "digit_motion",
        "digit_scenes",
    }
    for name in RECIPES:
        assert RunConfig.from_dict(read(name).to_dict()) == read(name)


@pytest.mark.parametrize("name", RECIPES)
def test_numbers_of_the_paper(name):
    size, frames, rate, batch, steps, peak, decay, frozen, gate, needs_weights = RECIPES[name]
    config, processes = read(name), read(name).about["processes"]
    model, optimization, processor = config.model, config.optimization, config.model.processor
    assert (model.size, model.frozen_layers, model.needs_checkpoint) == (size, frozen, needs_weights)
    described = described_config(model)
    assert (described.num_frames, described.gate_layer) == (frames, gate)
    assert (processor["num_frames"], processor["frame_rate"]) == (frames, rate)
    assert (processor["num_clips"], processor["num_crops"]) == (4, 3)
    assert optimization.batch_size * processes * optimization.accumulation == batch
    rates = scaled_learning_rates(optimization, processes)
    assert (rates.peak, rates.final, optimization.weight_decay) == (peak, 0.0, decay)
    counted = schedule_steps(optimization, [1000] * processes)
    assert (counted.total_steps, counted.warmup_steps) == (steps, 10_000)
    augmentation = config.augmentation
    assert (augmentation.rand_augment_ops, augmentation.rand_augment_magnitude) == (2, 10)
    kind = next(kind for kind in REGULARISATION if kind in name)
    mixup, smoothing = (config.method.get(name, 0.0) for name in ("mixup", "label_smoothing"))
    found = (mixup, described.hidden_dropout_prob, smoothing, augmentation.flip)
    assert found == REGULARISATION[kind]


def test_enlarged_tubes():
    config = described_config(read("finetune_large_charades_interpolated").model)
    assert config.num_tokens((128, 224, 224)) == 2248


def test_joint_recipes_build_a_model_of_two_heads():
    with torch.device("meta"):
        model, _ = build_joint_model(read("joint_base_kinetics").model, ["a", "b"], ["c", "d", "e"])
    assert {name: head.out_features for name, head in model.classifiers.items()} == {"videos": 2, "images": 3}


def test_what_trains_beside_a_frozen_image_model():
    recipe = read("scaled_huge_last8_gate").model
    with torch.device("meta"):
        model = TubeViTForVideoClassification(described_config(recipe))
    freeze_layers(model, recipe.frozen_layers)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    blocks = {int(name.split(".")[3]) for name in trained if name.startswith("tubevit.encoder.layers.")}
    assert blocks == set(range(24, 32))
    assert "tubevit.encoder.gate.alpha" in trained
    assert not any(name.startswith("tubevit.embeddings.") for name in trained)
    assert any(name.startswith("tubevit.pooler.") for name in trained)
