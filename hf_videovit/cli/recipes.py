"""The command that lists recipes."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from ..training.recipe_files import SUFFIXES, read_recipe, recipe_names
from .common import AsJson, print_json


commands = typer.Typer()
LISTED = ("reproduces", "hardware", "cost", "expected")


def _start(typed: str) -> list[str]:
    """Completions: families, and names once a family is typed."""
    names = recipe_names()
    return [name for name in names if name.startswith(typed)] if "/" in typed else _families(names, typed)


def _families(names: list[str], typed: str) -> list[str]:
    return sorted({name.partition("/")[0] for name in names if name.startswith(typed)})


@commands.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="A family, or one recipe to show it whole.", autocompletion=_start, show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the recipes for `--recipe` with what they reproduce, what they cost, and the score to expect."""
    one = name is not None and ("/" in name or name.endswith(SUFFIXES))
    abouts = {each: read_recipe(each).get("about", {}) for each in ([name] if name and one else recipe_names(name))}
    if as_json:
        print_json(abouts)
        return
    console = Console()
    for each, about in abouts.items():
        console.print(f"[bold]{escape(each)}[/bold]")
        for field, text in about.items():
            if one or field in LISTED:
                line = str(text) if field == "reproduces" else f"{field.replace('_', ' ')}: {text}"
                console.print(Padding(escape(" ".join(line.split())), (0, 0, 0, 2)), highlight=False)
    if not one:
        console.print("`hf-videovit recipes NAME` shows a recipe whole; `--recipe NAME` runs it", highlight=False)
