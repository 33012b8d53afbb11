"""The recipes of UniFormerV2 against the numbers of the official scripts, written down here a second time."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

import hf_videovit.training
from hf_videovit import UniFormerV2ForVideoClassification
from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_model, described_config
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.optimization import scaled_learning_rates
from hf_videovit.training.schedules import schedule_steps
from tests.families import FAMILIES


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "uniformer_v2"
CLIP = {
    "base": "openai/clip-vit-base-patch16",
    "large": "openai/clip-vit-large-patch14",
    "large-336": "openai/clip-vit-large-patch14-336",
}
# recipe: preset, frames, starts from CLIP, total batch, nodes of 8 GPUs, peak, epochs, warm-up, clips x crops,
# gradient checkpointing
RECIPES = {
    "finetune_base_kinetics": ("base", 8, True, 256, 1, 1e-5, 55, 5, (4, 3), False),
    "finetune_base_k710": ("base", 8, True, 256, 1, 1e-5, 55, 5, (4, 3), False),
    "finetune_large_k710": ("large", 8, True, 128 * 4, 4, 1e-5, 40, 5, (4, 3), False),
    "finetune_large_336_k710": ("large-336", 8, True, 64 * 4, 4, 5e-6, 40, 5, (4, 3), True),
    "frozen_large_336_k710": ("large-336-frozen", 8, True, 128 * 4, 4, 8e-4, 50, 0, (3, 1), False),
    "frozen_large_336_kinetics": ("large-336-frozen", 8, True, 256 * 2, 2, 8e-4, 50, 0, (3, 1), False),
    "frozen_large_336_k710_kinetics_8f": ("large-336-frozen", 8, False, 256 * 2, 2, 5e-5, 5, 1, (3, 1), False),
    "frozen_large_336_k710_kinetics_32f": ("large-336-frozen", 32, False, 128 * 2, 2, 5e-5, 5, 1, (3, 1), False),
    "finetune_base_k710_kinetics_8f": ("base", 8, False, 256, 1, 2e-6, 5, 1, (4, 3), False),
    "finetune_large_k710_kinetics_8f": ("large", 8, False, 128 * 2, 2, 1.5e-6, 5, 1, (4, 3), False),
    "finetune_large_k710_kinetics_16f": ("large", 16, False, 64 * 4, 4, 1.5e-6, 5, 1, (4, 3), False),
    "finetune_large_k710_kinetics_32f": ("large", 32, False, 32 * 4, 4, 1.5e-6, 5, 1, (4, 3), False),
    "finetune_large_336_k710_kinetics_32f": ("large-336", 32, False, 32 * 4, 4, 1.5e-6, 5, 1, (4, 3), True),
    "finetune_large_336_k710_kinetics_64f": ("large-336", 64, False, 16 * 8, 8, 1.5e-6, 5, 1, (4, 3), True),
    "finetune_base_k710_k400_mit": ("base", 8, False, 256 * 2, 2, 2e-5, 24, 5, (4, 3), False),
    "finetune_large_k710_k400_mit": ("large", 8, False, 128 * 4, 4, 1e-5, 18, 5, (4, 3), False),
    "finetune_large_336_k710_k400_mit": ("large-336", 8, False, 128 * 4, 4, 1e-5, 18, 5, (4, 3), True),
    "finetune_base_something_16f": ("base-motion", 16, True, 128, 1, 4e-5, 22, 5, (1, 3), False),
    "finetune_base_something_32f": ("base-motion", 32, True, 64 * 2, 2, 4e-5, 22, 5, (1, 3), False),
    "finetune_large_something_16f": ("large-motion", 16, True, 64 * 2, 2, 2e-5, 22, 5, (1, 3), True),
    "finetune_large_something_32f": ("large-motion", 32, True, 32 * 4, 4, 2e-5, 22, 5, (1, 3), True),
    "finetune_large_k710_k400_untrimmed_16f": ("large-untrimmed", 16, False, 32 * 2, 2, 5e-6, 20, 5, (10, 3), True),
    "finetune_large_k710_k400_untrimmed_32f": ("large-untrimmed", 32, False, 16 * 4, 4, 5e-6, 20, 5, (10, 3), True),
}
# preset: drop path of blocks and global blocks, local modules, downsampling, global blocks, gate, pixels
PRESETS = {
    "base": (0.0, 0.0, 0, False, list(range(8, 12)), True, 224),
    "large": (0.0, 0.0, 0, False, list(range(20, 24)), True, 224),
    "large-336": (0.0, 0.0, 0, False, list(range(20, 24)), True, 336),
    "large-336-frozen": (0.0, 0.0, 0, False, list(range(20, 24)), False, 336),
    "large-untrimmed": (0.2, 0.4, 0, False, list(range(20, 24)), True, 224),
    "base-motion": (0.2, 0.4, 2, True, list(range(4, 12)), True, 224),
    "large-motion": (0.2, 0.4, 2, True, list(range(8, 24)), True, 224),
}


def read(name):
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


def test_every_recipe_is_checked_here_and_says_what_it_promises():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*RECIPES, "digit_motion", "digit_scenes"}
    for name in RECIPES:
        assert {"reproduces", "hardware", "processes", "cost", "expected", "departures"} <= read(name).about.keys()
        assert RunConfig.from_dict(read(name).to_dict()) == read(name)


@pytest.mark.parametrize("name", RECIPES)
def test_optimisation(name):
    _, _, _, total, nodes, peak, epochs, warmup, _, _ = RECIPES[name]
    config = read(name)
    optimization, gpus = config.optimization, config.about["processes"]
    assert (gpus, optimization.batch_size * gpus * optimization.accumulation) == (8 * nodes, total)
    rates = scaled_learning_rates(optimization, gpus)
    assert (rates.peak, rates.final) == (peak, 1e-6)  # used as listed, whatever the batch
    assert (optimization.epochs, optimization.warmup_epochs, optimization.clip_grad) == (epochs, warmup, 20.0)
    assert (optimization.betas, optimization.eps, optimization.weight_decay) == ([0.9, 0.999], 1e-8, 0.05)
    assert (optimization.layer_decay, optimization.ema_decay) == (1.0, None)
    assert (config.run.mixed_precision, config.run.seed, config.run.keep_best) == ("fp16", 6666, True)
    steps = schedule_steps(optimization, [240_000 // gpus // optimization.batch_size] * gpus)
    assert steps.warmup_steps == warmup * steps.steps_per_epoch


@pytest.mark.parametrize("name", RECIPES)
def test_model_and_protocol(name):
    preset, frames, from_clip, *_, views, checkpointing = RECIPES[name]
    drop_path, global_drop_path, local, downsamples, layers, gate, side = PRESETS[preset]
    arguments, model = read(name).model, described_config(read(name).model)
    assert (arguments.size, arguments.gradient_checkpointing) == (preset, checkpointing)
    tower = preset.removesuffix("-frozen").removesuffix("-untrimmed").removesuffix("-motion")
    assert (arguments.image_model, arguments.needs_checkpoint) == (CLIP[tower] if from_clip else None, not from_clip)
    assert (model.drop_path_rate, model.global_drop_path_rate) == (drop_path, global_drop_path)
    assert (model.num_local_modules, model.temporal_downsample, model.global_layers) == (local, downsamples, layers)
    assert (model.use_gate, model.freeze_image_tower, model.image_size) == (gate, not gate, side)
    assert (set(model.global_dropouts), model.classifier_dropout, model.num_frames) == ({0.5}, 0.5, frames)
    processor = arguments.processor
    assert (processor["num_frames"], processor["frame_sampling"]) == (frames, "sparse")
    assert (processor["num_clips"], processor["num_crops"]) == views
    if not from_clip:  # the checkpoint's fields would otherwise stay
        assert arguments.config["num_frames"] == frames
        assert processor.get("crop_size", {"height": 224})["height"] == side
        assert arguments.config.get("freeze_image_tower", False) == (not gate)
        assert arguments.config.get("drop_path_rate", 0.0) == drop_path


@pytest.mark.parametrize("name", RECIPES)
def test_augmentation(name):
    augmentation, something = read(name).augmentation, "something" in name
    assert (augmentation.rand_augment_ops, augmentation.rand_augment_magnitude) == (4, 7)
    assert (augmentation.crop_scale, augmentation.crop_ratio) == ([0.08, 1.0], [3 / 4, 4 / 3])
    assert (augmentation.flip, augmentation.num_sample) == ((0.0, 2) if something else (0.5, 1))
    labels = method_of(read(name)).arguments
    assert (augmentation.random_erasing, labels.mixup, labels.cutmix, labels.label_smoothing) == (0.0,) * 4


@pytest.fixture
def image_tower(tmp_path):
    config = CLIPVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        patch_size=8,
        image_size=32,
    )
    model = CLIPVisionModel(config)
    model.save_pretrained(tmp_path / "clip")
    return model


def test_a_run_starts_from_an_image_model(image_tower, tmp_path):
    tiny = next(family for family in FAMILIES if family.name == "uniformer_v2").tiny
    arguments = {"model_type": "uniformer_v2", "config": tiny, "image_model": str(tmp_path / "clip")}
    model, processor = build_model(ModelArguments(**arguments), ["a", "b"])
    assert isinstance(model, UniFormerV2ForVideoClassification)
    assert model.config.id2label == {0: "a", 1: "b"}
    assert processor.num_frames == 4
    ours = model.uniformer_v2.encoder.layers[1].mlp.fc1.weight
    assert torch.equal(ours, image_tower.encoder.layers[1].mlp.fc1.weight)


def test_what_cannot_start_from_an_image_model_says_so(tmp_path):
    with pytest.raises(ValueError, match="`image_model` is not supported by videomae_v2"):
        build_model(ModelArguments(model_type="videomae_v2", size="small", image_model="x"), ["a", "b"])
    with pytest.raises(ValueError, match="Set either `checkpoint` or `image_model`"):
        ModelArguments(checkpoint="x", image_model="y")
