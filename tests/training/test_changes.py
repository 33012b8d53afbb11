"""Settings that differ from the defaults and from the recipe; a score is expected only with the recipe's settings."""

import pytest

from hf_videovit.training.arguments import RunConfig, parse_arguments
from hf_videovit.training.changes import changed_settings
from hf_videovit.training.recipe_files import read_recipe, recipe_names


RECIPE = "videomae_v2/finetune_base_k400"


def test_settings_are_compared_group_by_group():
    run = RunConfig.from_fields(learning_rate=0.5, data="clips", seed=0).to_dict()
    assert changed_settings(RunConfig().to_dict(), run) == {
        "data.data": "clips",
        "optimization.learning_rate": 0.5,
    }


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--data", "clips", "--output_dir", "out", "--num_workers", "4", "--checkpoint", "model", "--seed", "3"],
        ["--compile", "--mixed_precision", "bf16", "--save_every", "2"],
    ],
    ids=" ".join,
)
def test_a_score_is_expected_with_the_settings_of_the_recipe(words):
    assert RECIPE in recipe_names()
    assert parse_arguments(["--recipe", RECIPE, *words]).about == read_recipe(RECIPE)["about"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--epochs", "1"], "epochs"),
        (["--learning_rate", "0.5", "--batch_size", "3"], "batch_size, learning_rate"),
        (["--config.drop_path_rate", "0.9"], "config"),
        (["--max_train_samples", "10"], "max_train_samples"),
        (["--flip", "0.25"], "flip"),
    ],
)
def test_none_is_expected_with_others(words, named):
    about = parse_arguments(["--recipe", RECIPE, "--data", "clips", *words]).about
    assert not about.keys() & {"expected", "reproduces", "cost"} and "hardware" in about
    assert (about["recipe"], set(about["changed"].split(", "))) == (RECIPE, set(named.split(", ")))


def test_a_saved_run_that_is_repeated_says_the_same(tmp_path):
    first = RunConfig.from_yaml(RECIPE, {"epochs": 1, "output_dir": "out"})
    first.save(tmp_path / "run.yaml")
    assert RunConfig.from_yaml(tmp_path / "run.yaml").about == first.about
