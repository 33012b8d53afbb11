"""The recipes of ActionFormer against the numbers of the official configurations, written down here a second time."""

from pathlib import Path

import pytest

import hf_videovit.training
from hf_videovit.published import published_processor_kwargs
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import choose, method_of
from hf_videovit.training.methods.end_to_end_localization import EndToEndLocalization
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
# recipe: size and pixels of the encoder, first block with an adapter and their number, frames of a window and their
# distance, rate of the adapters, epochs, short side
ADATAD = {
    "adatad_small_thumos14": ("small", 160, 0, 12, 768, 4, 2e-4, 60, 182),
    "adatad_base_thumos14": ("base", 160, 0, 12, 768, 4, 1e-4, 60, 182),
    "adatad_large_thumos14": ("large", 160, 0, 24, 768, 4, 1e-4, 60, 182),
    "adatad_huge_thumos14": ("huge", 160, 0, 32, 768, 4, 1e-4, 60, 182),
    "adatad_giant_thumos14": ("giant", 224, 20, 20, 1536, 2, 1e-4, 50, 256),
}
# sigma, segments, class-agnostic, voting, shortest, candidates
DECODING = {
    "thumos14": (0.5, 200, False, 0.0, 0.05, 2000),
    "activitynet": (0.75, 100, True, 0.9, 0.001, 2000),
    "fineaction": (0.75, 100, True, 0.9, 0.001, 2000),
    "hacs": (0.75, 100, True, 0.7, 0.1, 2000),
    "epic": (0.4, 2000, False, 0.0, 0.05, 5000),
}
PUBLISHED = {"adatad_giant_thumos14": "adatad-giant-224-thumos14"}
DECODED = ("nms_sigma", "max_segments", "voting_threshold", "voting_weights", "min_length", "candidates_per_level")


def test_every_recipe_is_checked_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == RECIPES.keys() | ADATAD.keys() | {"grid_words"}


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


@pytest.mark.parametrize("name", ADATAD)
def test_official_numbers_of_adatad(name):
    run = RunConfig.from_yaml(FOLDER / f"{name}.yaml")
    assert run.method["needs_encoder"] and choose(run) is EndToEndLocalization
    run.method["needs_encoder"] = False  # its sizes are asked for, not its weights
    method = method_of(run)
    config, processor = method.describe()
    encoder, optimization = config.encoder_config, run.optimization
    (frames,) = {one.inputs["pixel_values"].shape[1] for one in method.passes(20)}
    (rate,) = [rule["lr_scale"] for rule in optimization.parameter_rules] or [1.0]
    found = (
        *(method.arguments.encoder_size, encoder.image_size, encoder.adapter_layers[0], len(encoder.adapter_layers)),
        *(frames, config.frame_step, rate * optimization.learning_rate, optimization.epochs),
        method.arguments.short_side,
    )
    assert found == ADATAD[name]
    assert encoder.adapter_layers == list(range(encoder.adapter_layers[0], encoder.num_hidden_layers))
    assert (config.encoder_training, config.feature_source) == ("adapters", "moments")
    localizer = config.localizer_config
    assert (localizer.attention_window, localizer.max_sequence_length, localizer.hidden_size) == (-1, 768, 512)
    published = published_processor_kwargs(PUBLISHED.get(name, name.replace("_", "-")))
    assert {field: getattr(processor, field) for field in DECODED} == {field: published[field] for field in DECODED}
    assert (processor.feature_stride, processor.feature_window, processor.feature_offset) == (4, 4, 0)
    assert (method.arguments.min_inside, method.arguments.window_ratio) == (0.75, [0.9, 1.0])
    assert (optimization.weight_decay, optimization.clip_grad, optimization.warmup_epochs) == (0.05, 1.0, 5)
