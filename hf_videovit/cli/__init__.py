"""The command line `hf-videovit`. Each command imports its dependencies when it runs."""

import logging
from typing import Annotated, Any

import typer

from . import hub, inspection, models, training


class OneLineErrors(typer.core.TyperGroup):
    """Command group that prints errors of the user as one line, with exit code 2; `--debug` shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        """
        Run a command.

        Args:
            ctx (`click.Context`):
                Context of the command line.

        Returns:
            Result of the command.

        Raises:
            typer.Exit: with exit code 2, for an error of the user.
        """
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"error: {message} (use --debug for the traceback)", err=True)
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
    """Handle the options before the command."""
    if debug:
        logging.getLogger("hf_videovit").setLevel(logging.DEBUG)


def main() -> None:
    """Entry point of the console script."""
    app()
