"""The recipes of UniFormer against the numbers of the official scripts, written down here a second time."""

from pathlib import Path

import pytest
import torch

import hf_videovit.training
from hf_videovit import UniFormerConfig, UniFormerForImageClassification, UniFormerForVideoClassification
from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_model, described_config
from hf_videovit.training.finetuning import finetune
from hf_videovit.training.optimization import scaled_learning_rates
from tests.families import FAMILIES


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "uniformer"
TINY = next(family for family in FAMILIES if family.name == "uniformer").tiny
KINETICS = {  # size, data, frames, stride: total batch, peak for one node, epochs, warm-up, drop path
    ("small", "k400", 8, 8): (128, 4e-4, 100, 10, 0.1),
    ("small", "k400", 16, 4): (32, 1e-4, 110, 10, 0.1),
    ("small", "k400", 16, 8): (32, 1e-4, 110, 10, 0.1),
    ("small", "k400", 32, 4): (32, 1e-4, 110, 10, 0.1),
    ("small", "k600", 16, 4): (96, 3e-4, 110, 10, 0.1),
    ("small", "k600", 16, 8): (32, 1e-4, 110, 10, 0.1),
    ("base", "k400", 8, 8): (64, 2e-4, 100, 10, 0.3),
    ("base", "k400", 16, 4): (40, 1.25e-4, 110, 10, 0.3),
    ("base", "k400", 16, 8): (40, 1.25e-4, 110, 10, 0.3),
    ("base", "k400", 32, 4): (32, 1e-4, 110, 10, 0.3),
    ("base", "k600", 16, 4): (40, 1.25e-4, 110, 10, 0.3),
    ("base", "k600", 16, 8): (32, 1.25e-4, 110, 10, 0.3),
    ("base", "k600", 32, 4): (32 * 4, 1e-4 * 4, 110, 10, 0.3),
}
SOMETHING = {  # size, start, data, frames: likewise
    **{("small", start, "ssv1", 16): (32, 2e-4, 60, 5, 0.2) for start in ("k400", "k600")},
    ("small", "k400", "ssv1", 32): (32, 2e-4, 60, 5, 0.2),
    ("small", "k600", "ssv1", 32): (32, 2e-4, 60, 5, 0.3),
    **{("small", start, "ssv2", 16): (32, 2e-4, 50, 5, 0.3) for start in ("k400", "k600")},
    **{("small", start, "ssv2", 32): (32, 2e-4, 50, 5, 0.3) for start in ("k400", "k600")},
    ("base", "k400", "ssv1", 16): (40, 2.5e-4, 60, 5, 0.6),
    ("base", "k600", "ssv1", 16): (40, 2.5e-4, 60, 5, 0.5),
    ("base", "k400", "ssv2", 16): (40, 2.5e-4, 50, 5, 0.4),
    ("base", "k600", "ssv2", 16): (40, 2.5e-4, 50, 5, 0.5),
    **{("base", start, "ssv1", 32): (32, 2e-4, 60, 5, 0.6) for start in ("k400", "k600")},
    **{("base", start, "ssv2", 32): (32, 2e-4, 50, 5, 0.5) for start in ("k400", "k600")},
}
SMALL_SETS = dict.fromkeys(("ucf101", "hmdb51"), (128, 5e-05, 25, 5, 0.2))
LIGHT = {  # size, frames, pixels: likewise, then weight decay
    ("xxs", 4, 128): (256, 4e-4, 110, 10, 0.05, 0.1),
    ("xxs", 4, 160): (256, 4e-4, 110, 10, 0.05, 0.1),
    ("xxs", 8, 128): (256, 4e-4, 110, 10, 0.05, 0.1),
    ("xxs", 8, 160): (256, 4e-4, 110, 10, 0.05, 0.1),
    ("xxs", 16, 128): (256, 8e-4, 110, 10, 0.05, 0.1),
    ("xxs", 16, 160): (256, 8e-4, 110, 10, 0.05, 0.1),
    ("xxs", 32, 160): (256, 8e-4, 110, 10, 0.05, 0.1),
    ("xs", 32, 192): (128, 4e-4, 110, 10, 0.1, 0.05),
}
LAYER_SCALE = [("xxs", 4, 128), ("xxs", 4, 160), ("xxs", 8, 128)]
VIDEO = {
    **{f"train_{size}_{data}_{frames}x{stride}": row for (size, data, frames, stride), row in KINETICS.items()},
    **{f"finetune_{size}_{start}_{data}_{frames}f": row for (size, start, data, frames), row in SOMETHING.items()},
    **{f"finetune_small_k400_{data}_16x4": row for data, row in SMALL_SETS.items()},
    **{f"train_{size}_k400_{frames}f_{side}": row[:5] for (size, frames, side), row in LIGHT.items()},
}


def read(name):
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


def test_every_recipe_is_checked_here_and_says_what_it_promises():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*VIDEO, "digit_motion"}
    for name in VIDEO:
        promises = {"reproduces", "starts_from", "hardware", "processes", "cost", "expected", "departures"}
        assert promises <= read(name).about.keys()
        assert RunConfig.from_dict(read(name).to_dict()) == read(name)


@pytest.mark.parametrize("name", VIDEO)
def test_optimisation_of_video_recipes(name):
    total, peak, epochs, warmup, drop_path = VIDEO[name]
    config = read(name)
    optimization, gpus = config.optimization, config.about["processes"]
    assert (gpus, optimization.batch_size * gpus) == (8 * max(1, total // 32 if "k600_32" in name else 1), total)
    rates = scaled_learning_rates(optimization, gpus)
    assert (rates.peak, rates.final) == (peak, 1e-6)
    assert (optimization.epochs, optimization.warmup_epochs, optimization.clip_grad) == (epochs, warmup, 20.0)
    assert (optimization.betas, optimization.layer_decay, optimization.ema_decay) == ([0.9, 0.999], 1.0, None)
    assert described_config(config.model).drop_path_rate == drop_path
    augmentation = config.augmentation
    assert (augmentation.mixup, augmentation.cutmix, augmentation.mix_switch) == (0.8, 1.0, 0.5)
    assert (augmentation.label_smoothing, augmentation.random_erasing, augmentation.num_sample) == (0.1, 0.25, 2)
    assert (augmentation.crop_scale, augmentation.crop_ratio) == ([0.08, 1.0], [3 / 4, 4 / 3])
    assert augmentation.flip == (0.0 if "_ssv" in name else 0.5)
    weak = "xxs" in name or "ucf" in name or "hmdb" in name
    strength = (augmentation.rand_augment_ops, augmentation.rand_augment_magnitude)
    assert strength == ((2, 5) if weak else (4, 7))
    if "train_x" not in name:
        assert (optimization.weight_decay, config.run.mixed_precision) == (0.05, "fp16")


def protocol(name):
    """Frames, sampling, stride, clips, crops."""
    config = read(name)
    processor, model = config.model.processor, described_config(config.model)
    assert config.model.needs_checkpoint
    assert (model.modality, model.num_frames) == ("video", processor["num_frames"])
    return tuple(
        processor.get(key) for key in ("num_frames", "frame_sampling", "frame_stride", "num_clips", "num_crops")
    )


def test_protocols_of_video_recipes():
    for size, data, frames, stride in KINETICS:
        assert protocol(f"train_{size}_{data}_{frames}x{stride}") == (frames, "span", stride, 4, 1)
    for size, start, data, frames in SOMETHING:
        assert protocol(f"finetune_{size}_{start}_{data}_{frames}f") == (frames, "sparse", None, 1, 3)
    for data in SMALL_SETS:
        assert protocol(f"finetune_small_k400_{data}_16x4") == (16, "span", 4, 5, 3)


@pytest.mark.parametrize(("size", "frames", "side"), LIGHT)
def test_light_video_recipes(size, frames, side):
    name = f"train_{size}_k400_{frames}f_{side}"
    config = read(name)
    model = described_config(config.model)
    assert protocol(name) == (frames, "sparse", None, 1, 1)
    assert (model.image_size, config.model.processor["crop_size"]["width"]) == (side, side)
    assert (config.optimization.weight_decay, config.run.mixed_precision) == (LIGHT[size, frames, side][5], "no")
    scaled = (size, frames, side) in LAYER_SCALE
    assert (model.layer_scale_init_value, model.layer_scale_in_conv_blocks) == (0.1 if scaled else 0.0, scaled)


@pytest.fixture
def image_folder(tmp_path):
    config = UniFormerConfig(**TINY | {"modality": "image", "image_size": 32}, num_labels=7)
    model = UniFormerForImageClassification(config)
    model.save_pretrained(tmp_path / "image")
    return model, str(tmp_path / "image")


def test_a_run_starts_from_an_image_model(image_folder, tiny_fields):
    image, folder = image_folder
    fields = tiny_fields | {
        "model_type": "uniformer",
        "image_model": folder,
        "needs_checkpoint": True,
        "config": TINY | {"image_size": 32},
        "processor": {"frame_sampling": "uniform"},
        "learning_rate": 0.0,
        "epochs": 1,
    }
    result = finetune(RunConfig.from_fields(**fields))
    assert isinstance(result.model, UniFormerForVideoClassification)
    assert result.model.config.num_labels == 4
    ours, theirs = (model.uniformer.stages[0].blocks[0].mixer.depthwise.weight for model in (result.model, image))
    torch.testing.assert_close(ours.sum(2), theirs)  # a rate of zero leaves all weights as they started


def test_the_configuration_must_be_that_of_the_image_model(image_folder):
    _, folder = image_folder
    for fields, message in (
        ({"head_dim": 4}, "`head_dim` must be the image model's, 8, got 4"),
        ({"depths": [1, 1, 1, 1]}, "`depths` must be the image model's"),
    ):
        arguments = ModelArguments(model_type="uniformer", image_model=folder, config=TINY | fields)
        with pytest.raises(ValueError, match=message):
            build_model(arguments, ["a", "b"])
