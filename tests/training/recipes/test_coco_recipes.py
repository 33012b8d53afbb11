"""Recipes of detectors and pose models on COCO: every value that the authors state."""

from pathlib import Path

import pytest

import hf_videovit.training
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.schedules import schedule_steps


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "uniformer"
DETECTORS = {  # detector, size, epochs: drop path, box and mask AP
    ("mask_rcnn", "xxs", 12): (0.0, "42.8", "39.2"),
    ("mask_rcnn", "xs", 12): (0.15, "44.6", "40.9"),
    ("mask_rcnn", "small", 12): (0.2, "45.6", "41.6"),
    ("mask_rcnn", "base", 12): (0.3, "47.4", "43.1"),
    ("mask_rcnn", "small", 36): (0.1, "48.2", "43.4"),
    ("mask_rcnn", "base", 36): (0.3, "50.3", "44.8"),
    ("cascade", "small", 36): (0.2, "52.1", "45.2"),
    ("cascade", "base", 36): (0.4, "53.8", "46.4"),
}
POSES = {  # size, height, width: rate, drop path, sigma, batch of a process, AP
    ("small", 256, 192): (2e-3, 0.2, 2, 128, "74.0"),
    ("small", 384, 288): (2e-3, 0.2, 3, 128, "75.9"),
    ("small", 448, 320): (1e-3, 0.2, 3, 64, "76.2"),
    ("base", 256, 192): (2e-3, 0.4, 2, 128, "75.0"),
    ("base", 384, 288): (5e-4, 0.5, 3, 32, "76.7"),
    ("base", 448, 320): (5e-4, 0.55, 3, 32, "77.4"),
}
DETECTION_NAMES = {
    f"train_{kind}_{size}_coco_{epochs // 12}x": (kind, size, epochs) for kind, size, epochs in DETECTORS
}
POSE_NAMES = {f"train_pose_{size}_coco_{height}x{width}": (size, height, width) for size, height, width in POSES}
COCO = {*DETECTION_NAMES, *POSE_NAMES}


def read(name):
    return RunConfig.from_yaml(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", DETECTION_NAMES)
def test_detectors(name):
    kind, size, epochs = key = DETECTION_NAMES[name]
    drop_path, *scores = DETECTORS[key]
    config, method = read(name), method_of(read(name))
    model, processor = method.describe()
    optimization = config.optimization
    assert all(score in config.about["expected"] for score in scores)
    assert optimization.batch_size * config.about["processes"] == 16 and optimization.epochs == epochs
    assert (optimization.learning_rate, optimization.weight_decay, optimization.warmup_steps) == (1e-4, 0.05, 500)
    assert (config.run.mixed_precision, config.augmentation.flip) == ("fp16", 0.5)
    assert model.num_box_stages == (3 if kind == "cascade" else 1)
    backbone = model.backbone_config
    assert (backbone.drop_path_rate, config.model.size) == (drop_path, size)
    if not backbone.use_token_pruning:
        assert (backbone.attention_type, backbone.window_size) == ("hybrid", 14)
    assert dict(processor.size) | {"divisor": processor.size_divisor} == {
        "shortest_edge": 800,
        "longest_edge": 1333,
        "divisor": 32,
    }
    assert bool(method.arguments.short_sides) == (epochs == 36)
    # rates of the first step after a milestone and of the one before
    schedule = schedule_steps(optimization, [100] * 8)
    first, second = ((8, 11), (27, 33))[epochs == 36]
    rates = [schedule.learning_rate(100 * epoch + offset) for epoch in (first, second) for offset in (-1, 0)]
    assert rates == pytest.approx([1e-4, 1e-5, 1e-5, 1e-6])
    assert schedule.learning_rate(250) == pytest.approx(1e-4 * 250 / 499)


@pytest.mark.parametrize("name", POSE_NAMES)
def test_pose_models(name):
    size, height, width = key = POSE_NAMES[name]
    rate, drop_path, sigma, batch, score = POSES[key]
    config, method = read(name), method_of(read(name))
    model, processor = method.describe()
    optimization = config.optimization
    assert score in config.about["expected"] and (optimization.epochs, optimization.batch_size) == (210, batch)
    assert (optimization.learning_rate, optimization.weight_decay) == (rate, 0.01)
    assert (optimization.milestones, optimization.warmup_steps) == ([170, 200], 500)
    assert (method.arguments.sigma, method.arguments.flip_test, config.augmentation.flip) == (sigma, True, 0.5)
    assert (model.drop_path_rate, list(model.image_size), config.model.size) == (drop_path, [height, width], size)
    assert processor.size == {"height": height, "width": width}


def test_milestones_are_refused_where_they_say_nothing():
    with pytest.raises(ValueError, match="`milestones` must be increasing epochs"):
        RunConfig.from_fields(schedule="milestones")
    with pytest.raises(ValueError, match="`milestones` must be increasing epochs"):
        RunConfig.from_fields(milestones=[3])
    config = RunConfig.from_fields(schedule="milestones", milestones=[1], max_steps=9)
    with pytest.raises(ValueError, match="`milestones` need an epoch of known length"):
        schedule_steps(config.optimization, [None])
