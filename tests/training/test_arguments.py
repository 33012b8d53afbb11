import dataclasses

import pytest
import yaml

from hf_videovit.training.arguments import (
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    OptimizationArguments,
    RunArguments,
    RunConfig,
    parse_arguments,
)
from hf_videovit.training.methods.choosing import describe_fields, method_of


GROUPS = (ModelArguments, DataArguments, AugmentationArguments, OptimizationArguments, RunArguments)


def test_field_names_are_unique_over_all_groups_so_that_plain_flags_are_unambiguous():
    names = [item.name for group in GROUPS for item in dataclasses.fields(group)]
    assert len(names) == len(set(names))


def test_flags_reach_their_field_in_every_spelling():
    words = "--learning_rate 1e-3 --optimization.epochs=5 --config.hidden_size 192 --compile --no_progress"
    words += " --data my/clips --betas 0.9,0.95 --data.num-workers 0 --mixed_precision no --model.head new"
    config = parse_arguments(words.split())
    assert config.optimization.learning_rate == 1e-3
    assert config.optimization.epochs == 5
    assert config.optimization.betas == [0.9, 0.95]
    assert config.model.config == {"hidden_size": 192}
    assert config.model.compile
    assert not config.run.progress
    assert config.data.data == "my/clips"
    assert config.data.num_workers == 0
    assert config.run.mixed_precision == "no"
    assert config.model.head == "new"


def test_flag_overrides_recipe_which_overrides_default(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("about: {reproduces: nothing}\noptimization: {learning_rate: 1e-4, epochs: 7}\n")
    config = parse_arguments(["--recipe", str(recipe), "--epochs", "3"], defaults={"epochs": 9, "batch_size": 2})
    assert (config.optimization.learning_rate, config.optimization.epochs, config.optimization.batch_size) == (
        1e-4,
        3,
        2,
    )
    # what a recipe reproduces holds only for its own settings
    assert config.about == {"recipe": "recipe.yaml", "changed": "epochs, batch_size"}


def test_saved_run_reads_back_equal(tmp_path):
    config = RunConfig.from_fields(data="clips", config={"hidden_size": 64}, clip_grad=5.0, processor={"size": 32})
    config.save(tmp_path / "run.yaml")
    assert RunConfig.from_yaml(tmp_path / "run.yaml") == config
    assert yaml.safe_load((tmp_path / "run.yaml").read_text()) == config.to_dict()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lerning_rate", "1"], "did you mean `learning_rate`"),
        (["--optimisation.epochs", "1"], "did you mean `optimization`"),
        (["--optimization.epoch", "1"], "did you mean `epochs`"),
        (["--epochs", "1.5"], "`epochs` must be a whole number, got '1.5'"),
        (["--epochs", "0"], "`epochs` must be at least 1"),
        (["--head", "ne"], "`head` must be one of auto, keep, new"),
        (["--flip", "2"], "`flip` must be between 0.0 and 1.0, got 2.0"),
        (["--crop_scale", "1,0.5"], "`crop_scale` must be two positive numbers in increasing order"),
        (["--compile", "perhaps"], "`compile` must be true or false"),
        (["clips"], "Expected a flag"),
    ],
)
def test_wrong_flag_is_an_error_that_helps(words, message):
    with pytest.raises(ValueError, match=message):
        method_of(parse_arguments(words))


def test_help_names_every_field():
    text = describe_fields()
    assert all(f"--{item.name} " in text for group in GROUPS for item in dataclasses.fields(group))


def test_fields_of_a_method_end_with_it(tmp_path):
    """A recipe that pretrains also fine-tunes: `--method` of the command leaves nothing of the recipe's method."""
    (tmp_path / "recipe.yaml").write_text(
        "method: {name: masked_words, image_batch_size: 3}\noptimization: {epochs: 7}\n"
    )
    words = ["--recipe", str(tmp_path / "recipe.yaml")]
    assert parse_arguments([*words, "--method", "classification"]).method == {"name": "classification"}
    assert parse_arguments([*words, "--method", "classification"]).optimization.epochs == 7
    assert parse_arguments([*words, "--method", "masked_words"]).method["image_batch_size"] == 3
    assert parse_arguments([*words, "--image_data", "images"]).method == {
        "name": "masked_words",
        "image_batch_size": 3,
        "image_data": "images",
    }
    (tmp_path / "recipe.yaml").write_text("method: {image_batch_size: 3}\n")
    assert parse_arguments([*words, "--method", "masked_words"]).method["image_batch_size"] == 3
