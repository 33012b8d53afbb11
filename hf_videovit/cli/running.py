"""Training from the command line, shared by `train`, `pretrain` and the example scripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich
import typer

from ..hub.publishing import check_access, finish_run
from ..training.defaults import read_run
from ..training.engine.run_folder import RunFolder
from ..training.methods.choosing import describe_fields, method_of
from ..training.methods.common import Goal, RunResult
from ..training.methods.running import make_accelerator, run
from ..training.planning import plan_run


def run_script(words: Sequence[str], goal: Goal, help: str | None, defaults: Mapping[str, Any] | None = None) -> None:
    """
    Run an example script: `--help` prints its description and every field, `--plan` prints the plan of the run,
    otherwise the model is trained.

    Args:
        words (`Sequence[str]`):
            Arguments of the command line.
        goal (`str`):
            `"classifier"` or `"encoder"`.
        help (`str`):
            Description of the script.
        defaults (`Mapping[str, Any]`, *optional*):
            Default values of fields; the recipe and flags override them.
    """
    if {"-h", "--help"} & set(words):
        typer.echo(f"{help}\n{describe_fields()}")
        return
    run_words([word for word in words if word != "--plan"], goal, plan="--plan" in words, defaults=defaults)


def run_words(
    words: Sequence[str], goal: Goal, *, plan: bool = False, defaults: Mapping[str, Any] | None = None
) -> Path | None:
    """
    Train a model, write its card, and publish it if `push_to_hub` is set.

    Args:
        words (`Sequence[str]`):
            A recipe and fields, see [`parse_arguments`].
        goal (`str`):
            `"classifier"` or `"encoder"`.
        plan (`bool`, *optional*, defaults to `False`):
            Print the plan of the run instead.
        defaults (`Mapping[str, Any]`, *optional*):
            Default values of fields; the recipe and flags override them.

    Returns:
        `Path` or `None`: folder of the run, in the first process.

    Raises:
        ValueError: a field does not exist, has a value that is not allowed, or is not read by the method.
    """
    config = read_run(words, goal, defaults)
    if plan:
        rich.print(plan_run(config, goal))
        return None
    method = method_of(config, goal)
    if config.run.push_to_hub:  # checked before the run, which would otherwise end without a place for its result
        check_access(config.run.push_to_hub)
    accelerator = make_accelerator(config.run)
    result = run(method, accelerator)
    if accelerator.is_main_process:
        published = finish_run(result.output_dir, config.run, result.facts)
        RunFolder(result.output_dir).record_results()
        _report(result, published)
    accelerator.end_training()
    return result.output_dir if accelerator.is_main_process else None


def _report(result: RunResult, published: Any) -> None:
    scores = {} if result.evaluation is None else result.evaluation.metrics
    for name, value in scores.items():
        typer.echo(f"{name}: {100 * value:.2f} %")
    for name, text in result.facts.get("outcomes", {}).items():
        typer.echo(f"{name}: {text}")
    typer.echo(f"saved in {result.output_dir}{f', published as {published.url}' if published else ''}")


__all__ = ["run_script", "run_words"]
