"""Shared parts of the commands: types of options, output for people and machines, exit codes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from ..files import loading, parse_json, read_text


screen = Console(stderr=True)

Model = Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a model.")]
Videos = Annotated[list[str], typer.Argument(help="Video files, folders, glob patterns or URLs.", show_default=False)]
Device = Annotated[
    str | None, typer.Option(help="Device, such as cpu or cuda:0. Default: an accelerator if there is one.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is an accelerator.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Videos per forward pass.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]
ListFields = Annotated[bool, typer.Option("--fields", help="List the fields and their defaults.")]
ShowPlan = Annotated[bool, typer.Option("--plan", help="Show size, steps, memory and time without running.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE of the configuration. Can be repeated.")
]


def given(**options: Any) -> dict[str, Any]:
    """
    Drop options that were not given.

    Args:
        options (`Any`):
            Values by name.

    Returns:
        `dict[str, Any]`: those that are not `None`.
    """
    return {name: value for name, value in options.items() if value is not None}


def parse_label_names(labels: str | None) -> str | list[str] | None:
    """
    Read the value of `--labels`.

    Args:
        labels (`str`):
            Name of a label list, or a file of names: a JSON list, one name per line (.txt), or AVA's .pbtxt.

    Returns:
        `str`, `list[str]` or `None`: the name of the list, the names in the file, or nothing.

    Raises:
        ValueError: the file has no list of names.
    """
    if labels is None or Path(labels).suffix not in (".json", ".txt", ".pbtxt"):
        return labels
    if Path(labels).suffix == ".pbtxt":
        from ..training.data.ava import read_labels

        numbered = read_labels(labels)
        if sorted(numbered) != list(range(1, len(numbered) + 1)):
            raise ValueError(f"--labels {labels} does not number its labels from 1 to {len(numbered)}.")
        return [numbered[number] for number in sorted(numbered)]
    text = read_text(labels, "--labels")
    names = parse_json(text, f"--labels {labels}") if Path(labels).suffix == ".json" else text.splitlines()
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"--labels {labels} must contain a list of names.")
    return names


# What a model that is no classifier is for, by the end of its class's name; the last for all others.
INSTEAD = {
    "ForActionDetection": "use `hf-videovit detect-actions`, or `evaluate --task action-detection`",
    "ForTemporalActionLocalization": "use `hf-videovit localize`, or `evaluate --task temporal-localization`",
    "VideoTemporalLocalizer": "use `hf-videovit localize`, or `evaluate --task temporal-localization`",
    "ForSemanticSegmentation": "use `evaluate --task semantic-segmentation`",
    "": "fine-tune it first (`hf-videovit train`), or use `hf-videovit embed`",
}


def check_classifier(model: str) -> None:
    """
    Check that a model is a classifier.

    Args:
        model (`str`):
            Folder or Hub id.

    Raises:
        ValueError: the model has no classifier.
    """
    architecture = read_architecture(model)
    if not architecture.endswith("Classification"):
        advice = next((text for ending, text in INSTEAD.items() if architecture.endswith(ending)), INSTEAD[""])
        raise ValueError(
            f"--model {model} is {architecture or 'an unknown model'}, which has no classifier of videos; {advice}."
        )


def check_films(model: str, endings: tuple[str, ...], what: str) -> None:
    """
    Check what a model for films is, before processes that load it are started.

    Args:
        model (`str`):
            Folder or Hub id.
        endings (`tuple[str, ...]`):
            How the names of suitable classes end.
        what (`str`):
            What such a model is, for the message.

    Raises:
        ValueError: the model is of another class.
    """
    architecture = read_architecture(model)
    if not architecture.endswith(endings):
        raise ValueError(f"--model must be {what}, {model} is {architecture or 'an unknown model'}.")


def check_shown(model: str) -> None:
    """
    Check that a model is one that the demo page shows.

    Args:
        model (`str`):
            Folder or Hub id.

    Raises:
        ValueError: the model is neither a classifier nor an action detector nor a localiser.
    """
    if not read_architecture(model).endswith(
        ("ForActionDetection", "TemporalLocalizer", "TemporalActionLocalization")
    ):
        check_classifier(model)


def read_architecture(model: str) -> str:
    """
    Read which model class a checkpoint is of.

    Args:
        model (`str`):
            Folder or Hub id.

    Returns:
        `str`: its name, empty if the configuration has none.
    """
    from transformers import AutoConfig

    with loading("--model", model):
        return (AutoConfig.from_pretrained(model).architectures or [""])[0]


def choose_device(device: str | None, cpu: bool = False) -> str:
    """
    Choose the device of a command.

    Args:
        device (`str`):
            Value of `--device`.
        cpu (`bool`, *optional*, defaults to `False`):
            Value of `--cpu`.

    Returns:
        `str`: the given device, or the accelerator if there is one, or `"cpu"`.

    Raises:
        ValueError: there is no such device, or both options are given.
    """
    import torch

    if cpu and device not in (None, "cpu"):
        raise ValueError(f"--device {device} and --cpu exclude each other.")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    chosen = "cpu" if cpu else device or str(accelerator or "cpu")
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = "cpu" if accelerator is None else f"cpu or {accelerator}"
        raise ValueError(f"--device must be a device of this machine ({there}), got {chosen!r}.") from error
    return chosen


def load_classifier(model: str, device: str | None) -> Any:
    """
    Load a classifier or an export of one.

    Args:
        model (`str`):
            Folder or Hub id.
        device (`str` or `None`):
            As for [`choose_device`].

    Returns:
        [`~pipeline.ClipClassificationPipeline`]

    Raises:
        ValueError: the model is no classifier, or cannot be loaded.
    """
    from transformers import AutoVideoProcessor, pipeline

    from ..inference.exported_model import export_report, is_export, load_export

    check_classifier(model)
    with loading("--model", model):
        processor = AutoVideoProcessor.from_pretrained(model)  # pipelines do not say which file is damaged
        if is_export(model):
            if device is not None and choose_device(device) != "cpu":
                raise ValueError(f"--device must be cpu for an export, got {device!r}.")
            opened: Any = load_export(model)
            report = export_report(model)
            if report.get("with_processing"):
                processor.frame_size = tuple(report["input_shape"][-2:])
            return pipeline("video-classification", model=opened, video_processor=processor)
        return pipeline("video-classification", model=model, device=choose_device(device))


def load_encoder(model: str, device: str | None) -> tuple[Any, Any]:
    """
    Load the encoder of a model and its processor.

    Args:
        model (`str`):
            Folder or Hub id.
        device (`str`):
            Value of `--device`.

    Returns:
        `tuple`: the model and its video processor.

    Raises:
        ValueError: the model is a localiser of features, or cannot be loaded.
    """
    from transformers import AutoModel, AutoModelForPreTraining, AutoVideoProcessor

    name = read_architecture(model)
    if name.startswith("ActionFormer"):
        raise ValueError(f"--model {model} is {name}: give the encoder that its features come from.")
    # a pretraining checkpoint has a norm on every token; AutoModel would add an untrained norm after pooling
    loader = AutoModelForPreTraining if name.endswith("ForPreTraining") else AutoModel
    with loading("--model", model):
        return loader.from_pretrained(model).to(choose_device(device)), AutoVideoProcessor.from_pretrained(model)


def make_table(*columns: str) -> Table:
    """
    Table for the terminal, without borders.

    Args:
        columns (`str`):
            Headings.

    Returns:
        [`Table`]
    """
    return Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False)


def tracked(items: Iterable[Any], title: str, total: int | None = None) -> Iterator[Any]:
    """
    Show a progress bar on standard error, if that is a terminal.

    Args:
        items (`Iterable[Any]`):
            Items to iterate over.
        title (`str`):
            Text beside the bar.
        total (`int`, *optional*):
            Number of items, if it is known.

    Yields:
        Each item.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        yield from progress.track(items, description=title, total=total)


def print_json(value: Any) -> None:
    """
    Print a value as JSON on standard output.

    Args:
        value (`Any`):
            Any value that JSON supports.
    """
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def fail_if(failed: list[str], state: str = "could not be read") -> None:
    """
    End the command with exit code 1 if any file failed.

    Args:
        failed (`list[str]`):
            Names of the files.
        state (`str`, *optional*, defaults to `"could not be read"`):
            Reason, for the message.

    Raises:
        typer.Exit: `failed` is not empty.
    """
    if failed:
        shown = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        typer.echo(f"{len(failed)} file(s) {state}: {shown}", err=True)
        raise typer.Exit(1)
