"""The command that copies the example scripts and notebooks."""

import ast
import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .common import make_table


commands = typer.Typer()

PACKAGE = Path(__file__).parents[1]
# An installed package has them inside, a checkout beside the package.
PLACES = (PACKAGE / "examples", PACKAGE.parent / "examples")
LEFT = shutil.ignore_patterns("__pycache__", "*.pyc", ".ipynb_checkpoints")


@commands.command()
def examples(
    copy_to: Annotated[
        Path | None, typer.Argument(help="New folder for them, such as examples.", show_default=False)
    ] = None,
) -> None:
    """Copy the example scripts and notebooks to a folder; without a folder, list them."""
    folder = next((path for path in PLACES if path.is_dir()), None)
    if folder is None:
        raise ValueError(f"This installation has no scripts in {PLACES[0]}: install the wheel of the package.")
    scripts, notebooks = sorted(folder.glob("*.py")), sorted(folder.glob("notebooks/*.ipynb"))
    if copy_to is None:
        table = make_table("Script", "Purpose")
        for script in scripts:
            text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
            table.add_row(script.name, " ".join(text.partition("\n\n")[0].split()))
        for notebook in notebooks:
            title = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"][0]
            table.add_row(f"notebooks/{notebook.name}", title.strip("# \n"))
        Console().print(table)
        return
    if copy_to.exists() and (not copy_to.is_dir() or any(copy_to.iterdir())):
        raise ValueError(f"COPY_TO {copy_to} must be a new or empty folder.")
    shutil.copytree(folder, copy_to, ignore=LEFT, dirs_exist_ok=True)
    typer.echo(f"{len(scripts)} scripts and {len(notebooks)} notebooks -> {copy_to}")
