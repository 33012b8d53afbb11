"""Without a recipe, the fields of a run follow the model that it starts from."""

import pytest
import torch
from transformers import AutoConfig

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.training.arguments import OptimizationArguments, parse_arguments
from hf_videovit.training.defaults import (
    FINE_TUNING,
    SMALL_MODELS,
    SMALL_PRETRAINING,
    model_defaults,
    read_run,
)
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.planning import measure, plan_run
from hf_videovit.training.recipe_files import read_recipe as recipe
from hf_videovit.training.schedules import scaled_learning_rates
from tests.saved_model import save_tiny_classifier


SIZES = {
    "bevt": "base",
    "lstcl": "timesformer",
    "tubevit": "large",
    "uniformer": "small",
    "uniformer_v2": "base",
    "videomae_v2": "base",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return str(save_tiny_classifier(tmp_path_factory.mktemp("small") / "model"))


def checkpoint_of(folder, model_type, size):
    """A checkpoint of a published size, without weights: only its configuration is read."""
    type(AutoConfig.for_model(model_type)).from_size(size).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("model_type", FINE_TUNING)
@pytest.mark.parametrize(("batch_size", "processes"), [(8, 1), (4, 2), (64, 4)])
def test_published_checkpoints_have_the_rate_of_their_recipe_at_any_batch(tmp_path, model_type, batch_size, processes):
    config = read_run(["--checkpoint", checkpoint_of(tmp_path, model_type, SIZES[model_type])], "classifier")
    config.optimization.batch_size = batch_size
    official = recipe(FINE_TUNING[model_type])
    fields = official["optimization"]
    whole = OptimizationArguments(**fields)
    theirs = scaled_learning_rates(whole, official["about"]["processes"]).peak
    batch = fields["batch_size"] * official["about"]["processes"]
    ours = scaled_learning_rates(config.optimization, processes).peak
    assert ours == pytest.approx(theirs * batch_size * processes / batch)
    for name in ("weight_decay", "layer_decay", "betas", "clip_grad"):
        assert getattr(config.optimization, name) == getattr(whole, name)
    for name, value in official["augmentation"].items():
        assert name == "num_sample" or getattr(config.augmentation, name) == value
    assert {name: value for name, value in official["method"].items() if name != "name"} == config.method


@pytest.mark.parametrize(
    ("size", "rate", "decay"), [("base", 7e-4, 0.75), ("large", 2e-3, 0.75), ("huge", 1e-3, 0.8), ("giant", 1e-3, 0.9)]
)
def test_every_width_of_videomae_v2_has_its_own_recipe(tmp_path, size, rate, decay):
    fields = read_run(["--checkpoint", checkpoint_of(tmp_path, "videomae_v2", size)], "classifier").optimization
    assert (fields.learning_rate, fields.learning_rate_batch, fields.layer_decay) == (rate, 256, decay)
    assert scaled_learning_rates(fields, 1).peak == pytest.approx(rate * 8 / 256)
    assert 0 < fields.warmup_epochs < fields.epochs / 4


def test_what_is_given_counts(tmp_path):
    checkpoint = checkpoint_of(tmp_path, "videomae_v2", "base")
    words = ["--learning_rate", "1e-4", "--mixup", "0", "--layer_decay=0.9", "--warmup_steps", "7"]
    config = read_run(["--checkpoint", checkpoint, *words, "--config.drop_path_rate", "0.3"], "classifier")
    fields = config.optimization
    assert (fields.learning_rate, fields.layer_decay, fields.warmup_steps, fields.warmup_epochs) == (1e-4, 0.9, 7, 0.0)
    assert scaled_learning_rates(fields, 1).peak == 1e-4  # a rate that is given is not scaled
    mixing = method_of(config, "classifier").arguments
    assert (mixing.mixup, mixing.cutmix) == (0, 1.0)
    assert config.model.config["drop_path_rate"] == 0.3
    steps = read_run(["--checkpoint", checkpoint, "--max_steps", "180"], "classifier").optimization
    assert steps.warmup_steps == 10  # 5 of 90 epochs


def test_a_recipe_decides_alone(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("optimization:\n  epochs: 3\n")
    words = ["--recipe", str(path), "--checkpoint", checkpoint_of(tmp_path, "videomae_v2", "base")]
    assert read_run(words, "classifier") == parse_arguments(words)


def test_small_checkpoints_have_settings_for_small_models(small):
    config = read_run(["--checkpoint", small], "classifier")
    assert scaled_learning_rates(config.optimization, 1).peak == 1.2e-3
    assert config.optimization.layer_decay == 1.0
    assert (config.optimization.epochs, config.optimization.warmup_epochs) == (20, 2.0)


@pytest.mark.parametrize("model_type", SMALL_MODELS)
@pytest.mark.parametrize("goal", ["classifier", "encoder"])
def test_without_checkpoint_and_size_a_small_model_is_trained(caplog, model_type, goal):
    if (
        goal == "encoder"
        and SMALL_PRETRAINING[model_type] == SMALL_MODELS[model_type]
        and model_type not in ("bevt", "lstcl")
    ):
        pytest.skip(f"{model_type} has no pretraining")
    config = read_run(["--model_type", model_type], goal)
    assert "is trained from scratch" in caplog.text
    cost = measure(method_of(config, goal).passes(4)[0])
    assert cost.num_parameters < 5_000_000
    assert config.optimization.warmup_epochs > 0


@pytest.mark.parametrize("words", [["--size", "small"], ["--config.hidden_size", "48"]])
def test_a_size_that_is_given_is_kept(words):
    assert read_run(words, "classifier") == parse_arguments(words)


def test_distillation_takes_only_fields_that_it_has(tmp_path):
    words = ["--checkpoint", checkpoint_of(tmp_path, "videomae_v2", "base"), "--teacher", "some/teacher"]
    config = read_run(words, "classifier")
    assert "label_smoothing" not in config.method
    assert config.method["mixup"] == 0.8


def test_pretraining_further_has_no_defaults_of_fine_tuning(small):
    assert model_defaults(parse_arguments(["--checkpoint", small]), "encoder") == {}


def test_plan_shows_the_start_and_the_rates(tmp_path):
    words = ["--checkpoint", checkpoint_of(tmp_path, "videomae_v2", "base")]
    config = read_run(words, "classifier")
    config.about |= {"num_videos": 100, "num_labels": 4}
    plan = plan_run(config, "classifier", device=torch.device("cpu"))
    rows = dict(plan.rows())
    assert rows["starts from"] == str(tmp_path)
    assert rows["layer decay"] == "0.75"
    assert rows["highest learning rate"] == "2.187e-05"
    assert "rand_augment_ops 4" in rows["augmentation"]
    assert "mixup 0.8" in rows["fields of the method"]


@pytest.mark.parametrize("name", ["bevt/small_clips", "bevt/digit_motion", "videomae_v2/four_actions"])
def test_a_recipe_that_pretrains_also_trains_a_classifier(name):
    """Fields of the recipe that the method of the command does not read are left out; those of the command are not."""
    words = ["--recipe", name, "--method", "classification", "--data", "clips"]
    config = read_run(words, "classifier")
    assert method_of(config, "classifier").name == "classification"
    assert config.optimization == read_run(["--recipe", name], "encoder").optimization
    with pytest.raises(ValueError, match="`picture_every` is not read by the method `classification`, got 5"):
        method_of(read_run([*words, "--picture_every", "5"], "classifier"), "classifier")
