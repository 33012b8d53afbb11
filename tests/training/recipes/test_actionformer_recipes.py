"""The recipes of ActionFormer against the numbers of the official configurations, written down here a second time."""

from pathlib import Path

import pytest

import hf_videovit.training
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.methods.temporal_localization import FeatureFacts, describe_localizer


FOLDER = Path(hf_videovit.training.__file__).parent / "recipes" / "actionformer"

# recipe: input, window, stride, length, resized, width, windows, absolute positions, lr, epochs, warm-up, batch, first
# normaliser, weight of the offsets, smoothing, share inside
LOCAL = [7, 7, 7, 7, 7, -1]
WIDE = [25, 25, 25, 25, 25, -1]
RECIPES = {
    "thumos14_i3d": (2048, 16, 4, 2304, False, 512, 19, False, 1e-4, 30, 5, 2, 100, 1, 0.0, 0.5),
    "thumos14_videomae_v2_giant": (1408, 16, 4, 2304, False, 512, 19, False, 1e-4, 45, 5, 2, 100, 1, 0.0, 0.5),
    "activitynet_tsp": (512, 16, 16, 192, True, 256, LOCAL, True, 1e-3, 10, 5, 16, 200, 2, 0.1, 0.5),
    "activitynet_i3d": (2048, 16, 16, 192, True, 256, LOCAL, True, 1e-3, 10, 5, 16, 200, 2, 0.1, 0.5),
    "activitynet_internvideo": (1280, 16, 16, 768, False, 256, WIDE, True, 1e-3, 10, 5, 8, 400, 1, 0.1, 0.5),
    "fineaction_videomae_v2_giant": (1408, 16, None, 192, True, 256, LOCAL, True, 1e-3, 20, 5, 16, 200, 2, 0.1, 0.5),
    "hacs_internvideo": (2560, 16, 16, 2304, False, 256, WIDE, True, 1e-3, 20, 5, 16, 400, 1, 0.1, 0.5),
    "epic_verb": (2304, 32, 16, 2304, False, 512, 9, False, 1e-4, 16, 5, 2, 250, 1, 0.0, 0.3),
    "epic_noun": (2304, 32, 16, 2304, False, 512, 9, False, 1e-4, 16, 5, 2, 250, 1, 0.1, 0.3),
}
# sigma, segments, class-agnostic, voting, shortest, candidates
DECODING = {
    "thumos14": (0.5, 200, False, 0.0, 0.05, 2000),
    "activitynet": (0.75, 100, True, 0.9, 0.001, 2000),
    "fineaction": (0.75, 100, True, 0.9, 0.001, 2000),
    "hacs": (0.75, 100, True, 0.7, 0.1, 2000),
    "epic": (0.4, 2000, False, 0.0, 0.05, 5000),
}


def test_every_recipe_is_checked_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == RECIPES.keys() | {"grid_words"}


@pytest.mark.parametrize("name", RECIPES)
def test_official_numbers(name):
    run = RunConfig.from_yaml(FOLDER / f"{name}.yaml")
    config, processor = describe_localizer(run.model, FeatureFacts())
    method, optimization = method_of(run).arguments, run.optimization
    found = (
        *(config.feature_size, processor.feature_window, processor.feature_stride, config.max_sequence_length),
        *(processor.resize_to_max_length, config.hidden_size, config.attention_window),
        *(config.use_absolute_positions, optimization.learning_rate),
        *(optimization.epochs - optimization.warmup_epochs, optimization.warmup_epochs, optimization.batch_size),
        *(config.loss_normalizer, config.regression_loss_weight, config.label_smoothing, method.min_inside),
    )
    assert found == RECIPES[name]
    assert processor.max_sequence_length == config.max_sequence_length
    decoding = (
        *(processor.nms_sigma, processor.max_segments, processor.class_agnostic, processor.voting_threshold),
        *(processor.min_length, processor.max_candidates),
    )
    assert decoding == DECODING[name.split("_")[0]]
    assert (method.one_class is not None) == processor.class_agnostic
    assert (optimization.weight_decay, optimization.clip_grad, optimization.min_learning_rate) == (0.05, 1.0, 1e-8)
    assert (optimization.ema_decay, config.drop_path_rate, config.num_attention_heads) == (0.999, 0.1, 4)
    assert method.window_ratio == [0.9, 1.0] and optimization.drop_last


@pytest.mark.parametrize("name", ["epic_verb", "epic_noun"])
def test_ranges_of_epic_overlap(name):
    run = RunConfig.from_yaml(FOLDER / f"{name}.yaml")
    config, _ = describe_localizer(run.model, FeatureFacts())
    assert config.regression_ranges[:3] == [[0, 4], [2, 8], [4, 16]]
