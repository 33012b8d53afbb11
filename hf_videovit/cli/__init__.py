"""The command line `hf-videovit`. Commands import what they need when they run."""

import logging
from typing import Annotated, Any

import typer

from . import hub, inspection, models, training


class OneLineErrors(typer.core.TyperGroup):
    """Turns what a user can cause into one line and exit code 2; `--debug` shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"error: {message} (--debug shows where)", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Video transformers: convert official checkpoints, classify and embed videos, train and evaluate.",
)
for part in (models, training, hub, inspection):  # the order of `hf-videovit --help`
    app.add_typer(part.commands)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Options that stand before the command."""
    if debug:
        logging.getLogger("hf_videovit").setLevel(logging.DEBUG)


def main() -> None:
    """The console script."""
    app()
