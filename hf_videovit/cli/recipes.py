"""The command that lists recipes."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from ..files import read_text
from ..training.recipe_files import SUFFIXES, find_recipe, read_recipe, recipe_names
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
        typer.Argument(help="A family, or a recipe to read all about it.", autocompletion=_start, show_default=False),
    ] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print the file of one recipe, to start from.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the recipes for `--recipe` with what they reproduce, what they cost, and the score to expect."""
    one = name is not None and ("/" in name or name.endswith(SUFFIXES))
    abouts = {each: read_recipe(each).get("about", {}) for each in ([name] if name and one else recipe_names(name))}
    if as_json:
        print_json(abouts)
        return
    if as_yaml:
        if name is None or not one:
            raise ValueError("--yaml needs the name of one recipe, such as videomae_v2/own_clips.")
        typer.echo(read_text(find_recipe(name), "`recipe`"), nl=False)
        return
    console = Console()
    for each, about in abouts.items():
        console.print(f"[bold]{escape(each)}[/bold]")
        for field, text in about.items():
            if one or field in LISTED:
                line = str(text) if field == "reproduces" else f"{field.replace('_', ' ')}: {text}"
                console.print(Padding(escape(" ".join(line.split())), (0, 0, 0, 2)), highlight=False)
    if not one:
        how = "`hf-videovit recipes NAME` says all about a recipe, with --yaml its settings; `--recipe NAME` runs it"
        console.print(how, highlight=False)
