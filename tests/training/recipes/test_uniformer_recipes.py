"""The recipes of UniFormer against the numbers of the official scripts, written down here a second time."""

from pathlib import Path

import pytest
import torch

import hf_videovit.training
from hf_videovit import (
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerForVideoClassification,
)
from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_model, described_config
from hf_videovit.training.methods.choosing import finetune, method_of
from hf_videovit.training.optimization import scaled_learning_rates
from tests.families import FAMILIES
from tests.training.recipes.test_coco_recipes import COCO


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


IMAGE = {  # size, pixels, total batch, peak, final, epochs, warm-up, drop path, EMA, width of heads
    **{
        f"train_{size}_in1k": (size, 224, 1024, peak, 1e-5, 300, 5, drop_path, 0.99996, head_dim)
        for size, peak, drop_path, head_dim in (
            ("small", 1e-3, 0.1, 64),
            ("small_plus", 1e-3, 0.1, 32),
            ("base", 8e-4, 0.3, 64),
            ("base_ls", 8e-4, 0.3, 64),
        )
    },
    "train_small_plus_dim64_in1k": ("small_plus", 224, 1024, 1e-3, 1e-5, 300, 5, 0.1, 0.99996, 64),
    **{
        f"train_{size}_in1k_{side}": (size, side, 512 * 8, peak, 1e-5, 600, 30, drop_path, 0.9999, head_dim)
        for size, sides, peak, drop_path, head_dim in (
            ("xxs", (128, 160, 192, 224), 4e-4 * 8, 0.0, 28),
            ("xs", (192, 224), 5e-4 * 8, 0.1, 32),
        )
        for side in sides
    },
    **{
        f"train_{size}{words}_tl_224": (size, 224, 1024, peak, 1e-5, 300, 5, drop_path, 0.99992, head_dim)
        for size, words, peak, drop_path, head_dim in (
            ("small", "", 1.6e-3, 0.1, 32),
            ("small_plus", "", 1.6e-3, 0.1, 32),
            ("base", "", 1.6e-3, 0.3, 32),
            ("large", "", 1.2e-3, 0.4, 64),
            ("small", "_dim64", 1.6e-3, 0.1, 64),
            ("small_plus", "_dim64", 1.6e-3, 0.1, 64),
            ("base", "_dim64", 1.6e-3, 0.3, 64),
        )
    },
    **{
        f"finetune_{size}_tl_384": (size, 384, batch, 5e-6, 5e-6, 50, 0, drop_path, None, head_dim)
        for size, batch, drop_path, head_dim in (
            ("small", 512, 0.1, 32),
            ("small_plus", 512, 0.1, 32),
            ("base", 512, 0.3, 32),
            ("large", 256, 0.3, 64),
        )
    },
}

ADE20K = {  # decoder, size: steps, peak, schedule, warm-up, weight decay, drop path
    **{
        ("upernet", size): (160_000, 6e-5, "poly", 1500, 0.01, rate) for size, rate in (("small", 0.25), ("base", 0.4))
    },
    **{
        ("fpn", size): (80_000, 2e-4, "cosine", None, 1e-4, rate)
        for size, rate in (("small", 0.1), ("base", 0.2), ("xs", 0.1), ("xxs", 0))
    },
}
SEGMENTATION = {f"train_{decoder}_{size}_ade20k": (decoder, row) for (decoder, size), row in ADE20K.items()}


def read(name):
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


def test_every_recipe_is_checked_here_and_says_what_it_promises():
    digits = {f"digit_pictures_{task}" for task in ("detection", "pose", "segmentation")}
    ours = {"digit_motion", "digit_scenes", *digits}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*VIDEO, *IMAGE, *SEGMENTATION, *COCO, *ours}
    for name in (*VIDEO, *IMAGE, *SEGMENTATION, *COCO):
        promises = {"reproduces", "hardware", "processes", "cost", "expected", "departures"}
        promises |= {"starts_from"} if read(name).model.needs_checkpoint else set()
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
    labels = method_of(config).arguments
    assert (labels.mixup, labels.cutmix, labels.mix_switch) == (0.8, 1.0, 0.5)
    assert (labels.label_smoothing, augmentation.random_erasing, augmentation.num_sample) == (0.1, 0.25, 2)
    assert (augmentation.crop_scale, augmentation.crop_ratio) == ([0.08, 1.0], [3 / 4, 4 / 3])
    assert augmentation.flip == (0.0 if "_ssv" in name else 0.5)
    weak = "xxs" in name or "ucf" in name or "hmdb" in name
    strength = (augmentation.rand_augment_ops, augmentation.rand_augment_magnitude)
    assert strength == ((2, 5) if weak else (4, 7))
    if "train_x" not in name:
        assert (optimization.weight_decay, config.run.mixed_precision) == (0.05, "fp16")


@pytest.mark.parametrize("name", SEGMENTATION)
def test_recipes_of_segmentation(name):
    decoder, (steps, peak, schedule, warmup, decay, drop_path) = SEGMENTATION[name]
    config, method = read(name), method_of(read(name))
    optimization, own = config.optimization, method.arguments
    model, processor = method.describe()
    assert optimization.batch_size * config.about["processes"] == 16
    assert (optimization.max_steps, optimization.schedule, optimization.warmup_steps) == (steps, schedule, warmup)
    assert (optimization.learning_rate, optimization.min_learning_rate) == (peak, 0.0)
    assert (optimization.weight_decay, config.run.mixed_precision, config.augmentation.flip) == (decay, "fp16", 0.5)
    assert (model.decode_head, model.backbone_config.drop_path_rate) == (decoder, drop_path)
    assert (own.crop_size, own.scale, own.most_of_one_label) == ([512, 512], [0.5, 2.0], 0.75)
    assert processor.size == {"shortest_edge": 512, "longest_edge": 2048}
    assert (processor.size_divisor, processor.do_reduce_labels) == (32 if decoder == "fpn" else 1, True)


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


@pytest.mark.parametrize("name", IMAGE)
def test_image_recipes(name):
    size, side, total, peak, final, epochs, warmup, drop_path, ema, head_dim = IMAGE[name]
    config = read(name)
    model, optimization, augmentation = described_config(config.model), config.optimization, config.augmentation
    labelled, light = "_tl_" in name, size in ("xxs", "xs")
    assert (config.model.size, model.modality, model.image_size) == (size, "image", side)
    assert (model.head_dim, model.drop_path_rate, model.use_auxiliary_head) == (head_dim, drop_path, labelled)
    assert optimization.batch_size * config.about["processes"] == total
    rates = scaled_learning_rates(optimization, config.about["processes"])
    assert (rates.peak, rates.final) == (pytest.approx(peak), final)
    assert (optimization.epochs, optimization.warmup_epochs, optimization.ema_decay) == (epochs, warmup, ema)
    decay = {"xxs": 0.1}.get(size, 0.05)
    assert optimization.weight_decay == (1e-8 if side == 384 else decay)
    assert config.run.mixed_precision == ("no" if light else "fp16")
    assert (method_of(config).arguments.mixup, augmentation.num_sample) == (
        0.0 if labelled else 0.2 if size == "xxs" else 0.8,
        1,
    )
    assert config.model.needs_checkpoint == (side == 384)


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
