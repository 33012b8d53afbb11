"""The recipes of this package by name, such as `videomae_v2/own_clips`, and recipes of others by their path."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import parse_yaml, read_text


RECIPES = Path(__file__).parent / "recipes"
SUFFIXES = (".yaml", ".yml")


def recipe_names(family: str | None = None) -> list[str]:
    """
    Names of the recipes of this package.

    Args:
        family (`str`, *optional*):
            A family, such as `"videomae_v2"`. All by default.

    Returns:
        `list[str]`: the names, sorted.

    Raises:
        ValueError: there is no such family.
    """
    families = _families()
    if family is not None and family not in families:
        raise ValueError(f"`family` must be one of {', '.join(families)}, got {family!r}{_nearest(family, families)}")
    names = (path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))
    return sorted(name for name in names if family in (None, name.partition("/")[0]))


def find_recipe(recipe: str | Path) -> Path:
    """
    Find a recipe. A file of this path comes before a recipe of this name.

    Args:
        recipe (`str` or `Path`):
            Path of a YAML file, or name of a recipe of this package, with or without `.yaml`.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: there is neither; similar names are named.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    wanted, names = str(recipe).replace("\\", "/").removesuffix(".yaml"), recipe_names()
    if wanted in names:
        return RECIPES / f"{wanted}.yaml"
    listed = f"; `hf-videovit recipes{f' {wanted}' if wanted in _families() else ''}` lists the names"
    near = "" if wanted in _families() else _nearest(wanted, names)
    raise ValueError(f"`recipe` {str(recipe)!r} is neither a file nor the name of a recipe{near or listed}")


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """
    Read a recipe.

    Args:
        recipe (`str` or `Path`):
            See [`find_recipe`].

    Returns:
        `dict[str, Any]`: its groups of fields, and `about`.

    Raises:
        ValueError: there is no such recipe, or the file has no groups of fields.
    """
    path = find_recipe(recipe)
    values = parse_yaml(read_text(path, "`recipe`"), f"`recipe` {str(recipe)!r}")
    if values is None:
        raise ValueError(f"Recipe {recipe} is empty: leave out `recipe` for the defaults, which follow the model")
    if not isinstance(values, Mapping):
        raise ValueError(f"Recipe {recipe} must contain groups of fields, got {type(values).__name__}")
    return dict(values)


def recipe_name(recipe: str | Path) -> str:
    """
    The name of a recipe, without folders of this machine.

    Args:
        recipe (`str` or `Path`):
            As for [`find_recipe`].

    Returns:
        `str`: the name of a recipe of this package, or that of another file.

    Raises:
        ValueError: there is no such recipe.
    """
    path = find_recipe(recipe).resolve()
    if path.is_relative_to(RECIPES.resolve()):
        return path.relative_to(RECIPES.resolve()).with_suffix("").as_posix()
    return path.name


def _families() -> list[str]:
    return sorted(folder.name for folder in RECIPES.iterdir() if folder.is_dir())


def _nearest(wanted: str, names: list[str]) -> str:
    """The end of an error message: names like the one that is wanted, in this order of what is alike."""
    ends = {name: name.rpartition("/")[2] for name in names}
    end, tail = wanted.rpartition("/")[2], "/".join(wanted.split("/")[-2:])
    near = (
        [tail]
        if tail in names
        else []  # of a path
        or [name for name in names if ends[name] == end]
        or difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
        or [name for name in names if ends[name] in difflib.get_close_matches(end, ends.values(), n=1, cutoff=0.6)]
    )
    return f"; did you mean {' or '.join(f'`{name}`' for name in near[:3])}?" if near else ""


__all__ = ["RECIPES", "find_recipe", "read_recipe", "recipe_names"]
