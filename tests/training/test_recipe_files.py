"""Recipes of the package have names; those of others have paths."""

import json

import pytest
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.training.arguments import RunConfig, parse_arguments
from hf_videovit.training.recipe_files import RECIPES, find_recipe, read_recipe, recipe_names


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_every_file_has_a_name_and_says_what_it_is():
    assert [RECIPES / f"{name}.yaml" for name in recipe_names()] == sorted(RECIPES.rglob("*.yaml"))
    for name in recipe_names():
        assert find_recipe(name) == find_recipe(f"{name}.yaml") == find_recipe(RECIPES / f"{name}.yaml")
        assert {"reproduces", "hardware", "cost", "expected", "departures"} <= read_recipe(name)["about"].keys()


def test_names_of_a_family():
    assert recipe_names("uniformer")
    assert all(name.startswith("uniformer/") for name in recipe_names("uniformer"))
    with pytest.raises(ValueError, match=r"actionformer, bevt, .*got 'tubevitt'; did you mean `tubevit`\?"):
        recipe_names("tubevitt")


def test_a_name_is_read_where_a_path_is():
    by_path = RunConfig.from_yaml(RECIPES / "videomae_v2" / "own_clips.yaml")
    assert RunConfig.from_yaml("videomae_v2/own_clips") == by_path
    assert parse_arguments(["--recipe", "videomae_v2/own_clips"]) == by_path
    assert parse_arguments(["--recipe=videomae_v2/own_clips", "--epochs", "3"]).optimization.epochs == 3


def test_a_file_comes_before_a_name(tmp_path):
    own = tmp_path / "videomae_v2" / "own_clips"
    own.parent.mkdir()
    own.write_text("optimization:\n  epochs: 77\n")
    assert parse_arguments(["--recipe", "videomae_v2/own_clips"]).optimization.epochs == 77


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("videomae_v2/own_clip", "`videomae_v2/own_clips`"),
        ("own_clips", "`videomae_v2/own_clips`"),
        ("own-clips.yaml", "`videomae_v2/own_clips`"),
        ("videomaev2/own_clips", "`videomae_v2/own_clips`"),
        ("uniformer/finetune_base_kinetics", "`uniformer_v2/finetune_base_kinetics`"),
        ("hf_videovit/training/recipes/bevt/small_clips.yaml", "`bevt/small_clips`?"),
        ("digit_motion", "`bevt/digit_motion` or `lstcl/digit_motion`"),
        ("nothing-like-it", "`hf-videovit recipes` lists the names"),
        ("videomae_v2", "; `hf-videovit recipes videomae_v2` lists the names"),
        ("../videomae_v2/own_clips", "`videomae_v2/own_clips`?"),
    ],
)
def test_the_nearest_name_is_named(wanted, named):
    with pytest.raises(ValueError, match="is neither a file nor the name of a recipe") as caught:
        find_recipe(wanted)
    assert named in str(caught.value)


@pytest.mark.parametrize("command", ["train", "pretrain", "preview"])
def test_commands_take_names(command):
    done = run(command, "--recipe", "videomae_v2/own_clip", "--data", "clips")
    assert done.exit_code == 2
    assert "did you mean `videomae_v2/own_clips`?" in done.stderr


def test_recipes_are_listed():
    everything = json.loads(run("recipes", "--json").stdout)
    assert list(everything) == recipe_names()
    assert everything["videomae_v2/own_clips"] == read_recipe("videomae_v2/own_clips")["about"]
    assert list(json.loads(run("recipes", "lstcl", "--json").stdout)) == recipe_names("lstcl")
    shown = run("recipes", "lstcl").stdout
    assert all(name in shown for name in recipe_names("lstcl"))
    whole = " ".join(run("recipes", "videomae_v2/own_clips").stdout.split())
    assert all(key in whole for key in ("hardware: ", "departures: ", "Fine-tune a published checkpoint instead"))
    assert "did you mean `lstcl`?" in run("recipes", "lstc").stderr


def test_names_of_recipes_are_completed():
    environment = {"_HF_VIDEOVIT_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    for typed, offered in (("tube", ["tubevit"]), ("bevt/sm", ["bevt/small_clips"])):
        words = {"COMP_WORDS": f"hf-videovit recipes {typed}"}
        done = CliRunner().invoke(app, [], prog_name="hf-videovit", env=environment | words)
        assert done.stdout.split() == offered
