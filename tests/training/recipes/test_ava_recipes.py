"""The recipes of action detection against the numbers of the official scripts, written down here a second time."""

from pathlib import Path

import pytest

import hf_videovit.training
from hf_videovit.convert.detectors import MMACTION2_HEAD, OFFICIAL_HEAD, OFFICIAL_PIXELS, detection_processor
from hf_videovit.modeling.configuration_videomae_v2 import VideoMAEV2Config
from hf_videovit.published import ava_rows
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.action_detection import describe_detector
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.optimization import scaled_learning_rates


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "videomae_v2"

# recipe: size, GPUs, batch, argument, peak, layer decay, epochs, warm-up, recomputed activations
AVA = {
    "ava_small": ("small", 16, 8, 1e-3, 5e-4, 0.6, 30, 5, False),
    "ava_small_k400": ("small", 16, 8, 5e-4, 2.5e-4, 0.6, 30, 5, False),
    "ava_base": ("base", 32, 4, 2.5e-4, 1.25e-4, 0.75, 30, 5, False),
    "ava_base_k400": ("base", 32, 4, 5e-4, 2.5e-4, 0.75, 30, 5, False),
    "ava_large": ("large", 32, 4, 2.5e-4, 1.25e-4, 0.75, 30, 5, True),
    "ava_large_k400": ("large", 32, 4, 5e-4, 2.5e-4, 0.8, 20, 5, True),
    "ava_huge": ("huge", 64, 2, 5e-4, 2.5e-4, 0.8, 20, 5, True),
    "ava_large_k700": ("large", 32, 4, 2.5e-4, 1.25e-4, 0.75, 30, 2, False),
    "ava_kinetics_large_k700": ("large", 64, 8, 2.5e-4, 5e-4, 0.75, 30, 2, False),
    "ava_kinetics_huge_k710": ("huge", 32, 4, 2.5e-4, 1.25e-4, 0.75, 30, 2, False),
    "ava_giant_k710": ("giant", 32, 4, 5e-4, 2.5e-4, 0.9, 20, 2, False),
    "ava_kinetics_base_mmaction2": ("base", 8, 8, 1.25e-4, 1.25e-4, 0.75, 20, 5, False),
    "ava_kinetics_large_mmaction2": ("large", 32, 4, 2.5e-4, 2.5e-4, 0.8, 20, 5, False),
}


def read(name):
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


def test_every_recipe_is_checked_here():
    assert {path.stem for path in FOLDER.glob("ava_*.yaml")} == AVA.keys()


@pytest.mark.parametrize("name", AVA)
def test_official_numbers(name):
    size, gpus, batch, argument, peak, layer_decay, epochs, warmup, recomputed = AVA[name]
    config, optimization = read(name), read(name).optimization
    assert (config.model.size, config.about["processes"], optimization.batch_size) == (size, gpus, batch)
    assert (optimization.learning_rate, optimization.layer_decay) == (argument, layer_decay)
    assert scaled_learning_rates(optimization, gpus).peak == pytest.approx(peak)
    assert (optimization.epochs, optimization.warmup_epochs) == (epochs, warmup)
    assert (optimization.weight_decay, optimization.betas) == (0.05, [0.9, 0.999])
    assert config.model.gradient_checkpointing == recomputed
    assert config.model.needs_checkpoint and config.model.config["drop_path_rate"] == 0.2
    assert config.augmentation.flip == 0.5
    assert optimization.clip_grad == (40.0 if "mmaction2" in name else None)


@pytest.mark.parametrize("name", AVA)
def test_head_and_protocol_are_those_of_the_converted_files(name):
    mmaction2, config = "mmaction2" in name, read(name)
    described, processor = describe_detector(config.model)
    head = described.detection_config
    for field, value in (MMACTION2_HEAD if mmaction2 else OFFICIAL_HEAD).items():
        assert getattr(head, field) == value, field
    assert head.evaluated_labels == ava_rows("evaluated")
    official = VideoMAEV2Config.from_size(config.model.size, detection_config=head.to_dict())
    expected = detection_processor(official, mmaction2)
    fields = ("num_frames", "frame_stride", "sampling_fps", "read_key_frame", "size", "do_center_crop", "pad_multiple")
    for field in (*fields, "box_convention", "use_person_score"):
        assert getattr(processor, field) == getattr(expected, field), field
    if not mmaction2:
        for field, value in OFFICIAL_PIXELS.items():
            assert (
                list(map(float, getattr(processor, field))) == value
                if isinstance(value, list)
                else (getattr(processor, field) == value)
            )
    own = method_of(config).arguments
    assert (own.hue, own.saturation, own.value) == ((0, 0, 0) if mmaction2 else (10, 26, 26))
    assert own.metric == ("mmaction2" if mmaction2 else "ava")
