"""The command line `hf-videovit`. Each command imports its dependencies when it runs."""

import logging
import os
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from .. import __version__
from ..processes import start_tracker
from . import (
    checkpoints,
    deployment,
    detection,
    examples,
    explaining,
    hub,
    info,
    inspection,
    localization,
    models,
    recipes,
    search,
    token_labels,
    training,
)
from .common import screen
from .errors import explain
from .following import followed


# Typer prints these errors itself. Newer versions carry their own copy of click, so the class has no fixed place.
WRONG_USE: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


FOLDER_FPS = "HF_VIDEOVIT_FOLDER_FPS"  # read where folders of pictures are opened, in other processes too
# They may stand before and after the command, up to `--`.
EVERYWHERE = ("--debug", "--quiet", "-q", "--verbose", "-v")
# What other libraries read before they show progress, and how much they say.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}


class OneLineErrors(typer.core.TyperGroup):
    """Command group that prints errors as one line, with exit code 2; `--debug` shows the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """
        Parse the command line. The options of all commands may stand anywhere.

        Args:
            ctx (`click.Context`):
                Context of the command line.
            args (`list[str]`):
                Its words.

        Returns:
            `list[str]`: words that are left for the command.
        """
        end = args.index("--") if "--" in args else len(args)
        moved: list[str] = []
        left: list[str] = []
        words = iter(args[:end])
        for word in words:
            if word == "--folder-fps":
                moved += [word, *islice(words, 1)]
            else:
                (moved if word in EVERYWHERE or word.startswith("--folder-fps=") else left).append(word)
        # without another word, it is the help that is asked for
        return super().parse_args(ctx, [*moved, *left, *args[end:]] if left or end < len(args) else [])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """
        Find a command, whose name may have two words: `prepare token-labels`.

        Args:
            ctx (`click.Context`):
                Context of the command line.
            args (`list[str]`):
                Words of the command line, from the command on.

        Returns:
            `tuple`: name, command and the words after it.
        """
        return super().resolve_command(ctx, [two, *args[2:]] if (two := " ".join(args[:2])) in self.commands else args)

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
    explaining,
    search,
    deployment,
    detection,
    localization,
    training,
    token_labels,
    checkpoints,
    recipes,
    examples,
    hub,
    info,
    inspection,
):  # the order of `hf-videovit --help`
    for command in part.commands.registered_commands:
        assert command.callback is not None
        command.callback = followed(command.name or command.callback.__name__, command.callback)
    app.add_typer(part.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-videovit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print what the package does.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print every detail, and the traceback of an error.")] = False,
    folder_fps: Annotated[
        float | None, typer.Option(help="Frame rate of videos that are folders of pictures. Default: 25.")
    ] = None,
) -> None:
    """Handle the options of all commands, which may stand before and after the command."""
    if quiet and (verbose or debug):
        raise ValueError(f"--quiet and {'--debug' if debug else '--verbose'} exclude each other.")
    logger = logging.getLogger("hf_videovit")
    before = logger.level, screen.quiet, {name: os.environ.get(name) for name in (*QUIET, FOLDER_FPS)}
    ctx.call_on_close(lambda: _restore(*before))
    if verbose or debug:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        ctx.call_on_close(lambda: logger.removeHandler(handler))
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
    if folder_fps is not None:
        if not 0 < folder_fps < float("inf"):
            raise ValueError(f"--folder-fps must be a positive number, got {folder_fps}.")
        os.environ[FOLDER_FPS] = str(folder_fps)
    if quiet:
        logger.setLevel(logging.ERROR)
        screen.quiet = True
        os.environ.update(QUIET)


def _restore(level: int, quiet: bool, environment: Mapping[str, str | None]) -> None:
    """Programs that call several commands get back what they had set."""
    logging.getLogger("hf_videovit").setLevel(level)
    screen.quiet = quiet
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def main() -> None:
    """Entry point of the console script."""
    start_tracker()
    app()
