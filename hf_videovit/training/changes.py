"""Settings of a run that differ from the defaults, and from those of its recipe."""

from collections.abc import Mapping
from typing import Any


PROMISES = ("reproduces", "cost", "expected")  # entries of `about` that hold only with the settings of the recipe
# Fields that decide on the result, of the groups whose other fields do not: what is read from where, hardware, output.
DECISIVE = {
    "data": ("max_train_samples", "max_eval_samples"),
    "run": ("best_metric", "keep_best", "patience"),
    "probe": (),
}
HARDWARE = {"model": ("compile", "gradient_checkpointing", "attn_implementation"), "method": ("word_cache",)}


def changed_settings(base: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """
    Settings of a run that differ from other settings.

    Args:
        base (`Mapping[str, Any]`):
            Fields and values by group, such as the defaults.
        run (`Mapping[str, Any]`):
            Those of the run.

    Returns:
        `dict[str, Any]`: values of the run by `group.field`, in its order.
    """
    return {
        f"{group}.{name}": value
        for group, members in run.items()
        if group != "about"
        for name, value in members.items()
        if name not in base.get(group, {}) or base[group][name] != value
    }


def recipe_notes(recipe: str, base: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """
    The notes of a recipe, as they hold for a run.

    Args:
        recipe (`str`):
            Name of the recipe.
        base (`Mapping[str, Any]`):
            The run that the recipe describes: fields and values by group, and `about`.
        run (`Mapping[str, Any]`):
            The run.

    Returns:
        `dict[str, Any]`: `about`. If settings that decide on the result differ, the expected score, the cost and what
        the recipe reproduces are left out, and the recipe and these settings are named.
    """
    about = dict(run["about"])
    changed = [name.partition(".")[2] for name in changed_settings(base, run) if _decides(name, base)]
    if not changed or not about.keys() & PROMISES:
        return about
    kept = {name: value for name, value in about.items() if name not in PROMISES}
    return {"recipe": recipe, "changed": ", ".join(changed)} | kept


def _decides(setting: str, base: Mapping[str, Any]) -> bool:
    group, _, name = setting.partition(".")
    if group in DECISIVE:
        return name in DECISIVE[group]
    if name in HARDWARE.get(group, ()):
        return False
    # a recipe leaves out the files that it starts from
    given_by_user = group == "method" or name in ("checkpoint", "image_model")
    return not (given_by_user and name != "name" and base.get(group, {}).get(name) is None)


__all__ = ["changed_settings", "recipe_notes"]
