"""What the commands share: kinds of options, output for people and machines, exit codes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table


screen = Console(stderr=True)

Model = Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a model.")]
Videos = Annotated[list[str], typer.Argument(help="Video files, folders, glob patterns or URLs.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="Device such as cpu or cuda:0; by default an accelerator if any.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Videos that go through the model together.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
ListFields = Annotated[bool, typer.Option("--fields", help="List the fields and their defaults.")]
ShowPlan = Annotated[bool, typer.Option("--plan", help="Show size, steps, memory and time; run nothing.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE of the configuration; may be repeated.")
]


def given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def read_label_names(labels: str | None) -> str | list[str] | None:
    """The name of a list, or the names in a file: a JSON list, or one name a line."""
    if labels is None or Path(labels).suffix not in (".json", ".txt"):
        return labels
    text = Path(labels).read_text(encoding="utf-8")
    names = json.loads(text) if Path(labels).suffix == ".json" else text.splitlines()
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"--labels {labels} must hold a list of names.")
    return names


def check_classifier(model: str) -> None:
    architecture = _architecture(model)
    if not architecture.endswith("Classification"):
        raise ValueError(
            f"--model {model} holds {architecture or 'an unknown model'}, which has no classifier; "
            "fine-tune it first (`hf-videovit train`), or use `hf-videovit embed`."
        )


def _architecture(model: str) -> str:
    from transformers import AutoConfig

    return (AutoConfig.from_pretrained(model).architectures or [""])[0]


def choose_device(device: str | None) -> str:
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def load_encoder(model: str, device: str | None) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoModelForPreTraining, AutoVideoProcessor

    # A pre-training checkpoint has a norm on every token instead of the pooled one that AutoModel would make up.
    loader = AutoModelForPreTraining if _architecture(model).endswith("ForPreTraining") else AutoModel
    return loader.from_pretrained(model).to(choose_device(device)), AutoVideoProcessor.from_pretrained(model)


def make_table(*columns: str) -> Table:
    return Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False)


def tracked(items: Iterable[Any], title: str, total: int | None = None) -> Iterator[Any]:
    """`items` under a progress bar on standard error, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        yield from progress.track(items, description=title, total=total)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def fail_if(failed: list[str], state: str = "could not be read") -> None:
    if failed:
        shown = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        typer.echo(f"{len(failed)} file(s) {state}: {shown}", err=True)
        raise typer.Exit(1)
