"""The command line `hf-videovit`. Each command imports its dependencies when it runs."""

import logging
from typing import Annotated, Any

import typer

from ..processes import start_tracker
from . import deployment, detection, hub, inspection, localization, models, training
from .errors import explain


# Typer prints these errors itself. Newer versions carry their own copy of click, so the class has no fixed place.
WRONG_USE: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class OneLineErrors(typer.core.TyperGroup):
    """Command group that prints errors as one line, with exit code 2; `--debug` shows the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """
        Parse the command line. `--debug` may stand anywhere.

        Args:
            ctx (`click.Context`):
                Context of the command line.
            args (`list[str]`):
                Its words.

        Returns:
            `list[str]`: words that are left for the command.
        """
        debug = ["--debug"] if "--debug" in args else []
        return super().parse_args(ctx, debug + [word for word in args if word != "--debug"])

    def invoke(self, ctx: Any) -> Any:
        """
        Run a command.

        Args:
            ctx (`click.Context`):
                Context of the command line.

        Returns:
            Result of the command.

        Raises:
            typer.Exit: with exit code 2, for an error.
        """
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, WRONG_USE):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {explain(error)} (use --debug for the traceback)", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Video transformers: convert official checkpoints, classify and embed videos, train and evaluate.",
)
for part in (
    models,
    deployment,
    detection,
    localization,
    training,
    hub,
    inspection,
):  # the order of `hf-videovit --help`
    app.add_typer(part.commands)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Handle the options before the command."""
    if debug:
        logging.getLogger("hf_videovit").setLevel(logging.DEBUG)


def main() -> None:
    """Entry point of the console script."""
    start_tracker()
    app()
