"""The recipes of VideoMAE V2 against the numbers of the official scripts, written down here a second time."""

from pathlib import Path

import pytest

import hf_videovit.training
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.building import described_config
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.optimization import scaled_learning_rates
from hf_videovit.training.planning import estimate_memory, measure
from hf_videovit.training.schedules import schedule_steps


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "videomae_v2"

# size: GPUs, batch, learning-rate argument, peak, warm-up, epochs, clip
PRETRAINING = {
    "base": (32, 32, 1e-3, 4e-3, 20, 200, None),
    "large": (48, 32, 1e-3, 6e-3, 30, 300, None),
    "huge": (64, 32, 1e-3, 8e-3, 30, 300, None),
    "giant": (64, 32, 6e-4, 4.8e-3, 30, 300, 0.02),
}
# recipe: GPUs, batch, argument, peak, drop path, head dropout, layer decay, weight decay, warm-up, epochs, clip
FINETUNING = {
    "base_k400": (32, 16, 7e-4, 1.4e-3, 0.1, 0.0, 0.75, 0.05, 5, 90, None),
    "base_k710": (32, 16, 7e-4, 1.4e-3, 0.1, 0.0, 0.75, 0.05, 5, 90, None),
    "base_ssv2": (16, 16, 2e-3, 2e-3, 0.1, 0.0, 0.65, 0.05, 5, 25, None),
    "large_k400": (32, 6, 2e-3, 1.5e-3, 0.2, 0.0, 0.75, 0.05, 5, 35, None),
    "large_ssv2": (32, 6, 5e-4, 3.75e-4, 0.2, 0.0, 0.75, 0.05, 5, 20, None),
    "huge_k400": (32, 4, 1e-3, 5e-4, 0.2, 0.5, 0.8, 0.05, 5, 40, None),
    "huge_k600": (32, 4, 1e-3, 5e-4, 0.2, 0.5, 0.8, 0.05, 5, 40, None),
    "huge_k710": (32, 4, 1e-3, 5e-4, 0.2, 0.5, 0.8, 0.05, 5, 40, None),
    "huge_ssv2": (32, 4, 5e-4, 2.5e-4, 0.2, 0.0, 0.8, 0.05, 5, 20, None),
    "giant_k400": (64, 3, 1e-3, 7.5e-4, 0.2, 0.0, 0.9, 0.1, 5, 30, None),
    "giant_k710": (32, 3, 1e-3, 3.75e-4, 0.3, 0.0, 0.9, 0.1, 5, 35, 5.0),
    "giant_k710_k400": (32, 3, 1e-5, 3.75e-6, 0.25, 0.0, 0.9, 0.1, 1, 3, None),
    "giant_k710_k600": (32, 3, 1e-5, 3.75e-6, 0.25, 0.0, 0.9, 0.1, 1, 3, None),
    "giant_ssv2": (32, 3, 3e-4, 1.125e-4, 0.25, 0.0, 0.9, 0.05, 5, 20, None),
    "giant_k710_ucf101": (8, 3, 1e-3, 9.375e-5, 0.35, 0.5, 0.9, 0.05, 5, 50, None),
    "giant_k710_hmdb51": (8, 3, 5e-4, 4.6875e-5, 0.35, 0.5, 0.9, 0.05, 5, 15, None),
}
LABELS = {"k400": 400, "k600": 600, "k710": 710, "ssv2": 174, "ucf101": 101, "hmdb51": 51}
DISTILLATION = ("small", "base")
ONE_GPU = ("pretrain_small_one_gpu", "finetune_base_one_gpu")


def read(name):
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


def test_every_recipe_is_checked_here_and_says_what_it_promises():
    names = {path.stem for kind in ("pretrain", "finetune", "distill") for path in FOLDER.glob(f"{kind}_*.yaml")}
    assert names == {
        *(f"pretrain_{size}" for size in PRETRAINING),
        *(f"finetune_{name}" for name in FINETUNING),
        *(f"distill_{size}_k710" for size in DISTILLATION),
        *ONE_GPU,
    }
    for name in names:
        assert {"reproduces", "hardware", "processes", "cost", "expected", "departures"} <= read(name).about.keys()
        assert RunConfig.from_dict(read(name).to_dict()) == read(name)


@pytest.mark.parametrize("size", PRETRAINING)
def test_pretraining(size):
    gpus, batch, argument, peak, warmup, epochs, clip = PRETRAINING[size]
    config = read(f"pretrain_{size}")
    optimization, model = config.optimization, described_config(config.model)
    assert (config.about["processes"], optimization.batch_size, optimization.learning_rate) == (gpus, batch, argument)
    rates = scaled_learning_rates(optimization, gpus)
    assert rates.peak == pytest.approx(peak)
    assert rates.final == pytest.approx(1e-5 * gpus * batch / 256)
    assert (optimization.warmup_epochs, optimization.epochs, optimization.clip_grad) == (warmup, epochs, clip)
    assert (optimization.betas, optimization.eps, optimization.weight_decay) == ([0.9, 0.95], 1e-8, 0.05)
    assert (optimization.layer_decay, optimization.accumulation) == (1.0, 1)
    assert (config.augmentation.crop, config.augmentation.num_sample) == ("multi_scale", 4)
    assert (config.augmentation.flip, config.augmentation.rand_augment_ops) == (0.0, 0)
    assert (model.encoder_mask_ratio, model.decoder_mask_ratio, model.decoder_num_hidden_layers) == (0.9, 0.5, 4)
    assert (model.drop_path_rate, model.num_frames, config.model.processor["frame_stride"]) == (0.0, 16, 4)
    assert config.model.gradient_checkpointing == (size in ("huge", "giant"))
    assert config.run.mixed_precision == "fp16"
    steps = schedule_steps(optimization, [1_350_000 // gpus // batch] * gpus)
    assert steps.warmup_steps == warmup * steps.steps_per_epoch
    assert steps.learning_rate(0) == 0
    assert steps.learning_rate(steps.warmup_steps - 1) == pytest.approx(peak)


def check_finetuning(config, row):
    gpus, batch, argument, peak, drop_path, head_dropout, layer_decay, weight_decay, warmup, epochs, clip = row
    optimization, model, augmentation = config.optimization, described_config(config.model), config.augmentation
    assert (config.about["processes"], optimization.batch_size, optimization.learning_rate) == (gpus, batch, argument)
    rates = scaled_learning_rates(optimization, gpus)
    assert rates.peak == pytest.approx(peak)
    assert rates.final == pytest.approx(1e-6 * gpus * batch / 256)
    assert (model.drop_path_rate, model.classifier_dropout) == (drop_path, head_dropout)
    assert (optimization.layer_decay, optimization.weight_decay) == (layer_decay, weight_decay)
    assert (optimization.warmup_epochs, optimization.epochs, optimization.clip_grad) == (warmup, epochs, clip)
    assert (optimization.betas, optimization.eps, optimization.ema_decay) == ([0.9, 0.999], 1e-8, None)
    labels = method_of(config).arguments
    assert (labels.mixup, labels.cutmix, labels.mix_switch) == (0.8, 1.0, 0.5)
    assert (augmentation.rand_augment_ops, augmentation.rand_augment_magnitude) == (4, 7)
    assert (augmentation.crop, augmentation.crop_scale, augmentation.crop_ratio) == (
        "area",
        [0.08, 1.0],
        [3 / 4, 4 / 3],
    )
    assert (augmentation.random_erasing, augmentation.num_sample) == (0.25, 2)


@pytest.mark.parametrize("name", FINETUNING)
def test_finetuning(name):
    config, data = read(f"finetune_{name}"), name.rsplit("_", 1)[-1]
    check_finetuning(config, FINETUNING[name])
    assert config.model.size == name.split("_")[0]
    assert config.model.needs_checkpoint
    assert config.about["num_labels"] == LABELS[data]
    assert config.method["label_smoothing"] == 0.1
    assert config.augmentation.flip == (0.0 if data == "ssv2" else 0.5)
    processor = config.model.processor
    assert (processor["num_frames"], processor["num_crops"]) == (16, 3)
    if data == "ssv2":
        assert (processor["frame_sampling"], processor["num_clips"]) == ("segment", 2)
    else:
        stride = 2 if data == "hmdb51" else 4
        assert (processor["frame_sampling"], processor["frame_stride"], processor["num_clips"]) == ("dense", stride, 5)


@pytest.mark.parametrize("size", DISTILLATION)
def test_distillation_says_that_it_is_a_stand_in(size):
    config = read(f"distill_{size}_k710")
    assert config.about["status"] == "UNVERIFIED"
    assert config.about["reproduces"].startswith("UNVERIFIED substitute")
    assert (config.model.size, config.method["temperature"]) == (size, 1.0)
    assert config.method["teacher"] is not None
    check_finetuning(config, FINETUNING["base_k710"])


@pytest.mark.parametrize("name", ONE_GPU)
def test_one_gpu_is_enough(name):
    config = read(name)
    passes = [(one, measure(one)) for one in method_of(config).passes()]
    assert config.about["processes"] == 1
    assert estimate_memory(config, passes) / 2**30 < 14
