"""The command that lists the published checkpoints, shows one whole, and downloads its file."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table

from .common import AsJson, print_json, screen


commands = typer.Typer()
METRIC_WORDS = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "mean_average_precision": "mAP",
    "box_average_precision": "box AP",
    "mask_average_precision": "mask AP",
    "keypoint_average_precision": "AP",
    "mean_iou": "mIoU",
}
LICENCE_WORDS = {"apache-2.0": "apache", "cc-by-nc-4.0": "by-nc", "not stated": "-"}
LEGEND = (
    "M: parameters in millions; GMACs of a view; score with ?: from memory, not verified; licence of the weights: "
    "apache = apache-2.0, by-nc = cc-by-nc-4.0, - = not stated; "
)


def _start(typed: str) -> list[str]:
    """Completions of a name."""
    from ..published import list_published

    return [name for name in list_published() if name.startswith(typed)]


@commands.command()
def models(
    name: Annotated[
        str | None,
        typer.Argument(help="A checkpoint, to show it whole.", autocompletion=_start, show_default=False),
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only one family, such as videomae_v2.")] = None,
    data: Annotated[str | None, typer.Option(help="Only of a data set, such as k400 or 'AVA 2.2'.")] = None,
    task: Annotated[str | None, typer.Option(help="Only of a task, such as video-classification.")] = None,
    size: Annotated[str | None, typer.Option(help="Only of a size, such as base.")] = None,
    licence: Annotated[str | None, typer.Option(help="Only of a licence of the weights, such as mit.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Download the file of NAME, and check it.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the download.")] = Path(),
    as_json: AsJson = False,
) -> str | None:
    """List the published checkpoints; with NAME show all that is known of one, and how to get and convert it."""
    from ..published import list_published, published_entry

    choices = {"model_type": family, "data": data, "task": task, "size": size, "licence": licence}
    if name is None:
        if download:
            raise ValueError("--download needs the NAME of a checkpoint.")
        try:
            entries = [published_entry(one) for one in list_published(**choices)]
        except ValueError as error:
            raise ValueError(re.sub("^`([a-z_]+)`", lambda found: _option(found[1]), str(error))) from error
        if as_json:
            print_json([_facts(entry) for entry in entries])
        else:
            _print_list(entries, data)
        return None
    if given := [option for option, value in choices.items() if value is not None]:
        raise ValueError(f"NAME and {_option(given[0])} exclude each other.")
    entry = published_entry(name)
    if download:
        return _download(entry, output, as_json)
    if as_json:
        print_json(_facts(entry))
    else:
        _print_entry(entry)
    return None


def _option(argument: str) -> str:
    """The option for an argument of `list_published`."""
    return f"--{argument.replace('model_type', 'family')}"


def _facts(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from ..published.selection import data_of, file_word, weights_licence

    more = {"data": data_of(entry), "licence": weights_licence(entry), "available": file_word(entry)}
    return asdict(entry) | more | {"url": entry.file.address or entry.file.url}


def _print_list(entries: list[Any], data: str | None) -> None:
    """A table for each task, data set and metric."""
    from ..published.selection import FILE_LEGEND, data_of, main_result

    groups: dict[str, list[Any]] = {}
    for entry in entries:
        best = main_result(entry, data)
        known = ", ".join([*data_of(entry), "no score"][:2]) if best is None else best.data
        metric = "" if best is None else f", {METRIC_WORDS[best.metric]}"
        groups.setdefault(f"{entry.task}, {known}{metric}", []).append(entry)
    console = Console()
    for title, members in sorted(groups.items()):
        console.print(f"[bold]{escape(title)}[/bold]", highlight=False)
        console.print(_table(members, data), highlight=False)
        console.print()
    console.print(f"[dim]{len(entries)} checkpoints. {LEGEND}{FILE_LEGEND}[/dim]", highlight=False)


def _table(entries: list[Any], data: str | None) -> Table:
    from ..hub.model_table import gigas, millions
    from ..published.selection import file_word, main_result, weights_licence

    right = {"justify": "right", "no_wrap": True}
    numbers = (Column(title, **right) for title in ("score", "M", "GMACs"))  # type: ignore[arg-type]
    ends = (Column(title, no_wrap=True) for title in ("licence", "file"))
    table = Table(Column("name", overflow="fold"), *numbers, *ends, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    ordered = sorted(entries, key=lambda entry: -(best.value if (best := main_result(entry, data)) else 0))
    for entry in ordered:
        best, licence = main_result(entry, data), weights_licence(entry)
        table.add_row(
            entry.name,
            "-" if best is None else f"{best.value:.1f}" + ("?" if best.kind == "recalled-unverified" else ""),
            millions(entry.parameters).removesuffix("M"),
            gigas(entry.gmacs),
            LICENCE_WORDS.get(licence, licence),
            file_word(entry),
        )
    return table


def _print_entry(entry: Any) -> None:
    console = Console()
    console.print(f"[bold]{entry.name}[/bold]", highlight=False)
    console.print(Padding(escape(entry.summary), (0, 0, 1, 0)), highlight=False)
    table = Table(Column("", no_wrap=True), Column("", overflow="fold"), box=None, show_header=False, pad_edge=False)
    for title, text in _entry_rows(entry):
        table.add_row(title, escape(text))
    console.print(table, highlight=False)
    if entry.results:
        results = Table("data", "metric", Column("%", justify="right"), "views", "source", box=None, pad_edge=False)
        for one in entry.results:
            source = one.source + (", from memory, not verified" if one.kind == "recalled-unverified" else "")
            words = METRIC_WORDS[one.metric].removesuffix(" %")
            results.add_row(*map(escape, (one.data, words, f"{one.value:.1f}", one.views or "", source)))
        console.print(Padding(results, (1, 0, 0, 0)), highlight=False)
    for note in entry.notes:
        console.print(Padding(escape(f"- {note}"), (1, 0, 0, 0)), highlight=False)
    typer.echo("")
    for line in how_to_get(entry):  # not wrapped, so that it can be copied
        typer.echo(line)


def _entry_rows(entry: Any) -> list[tuple[str, str]]:
    from ..hub.model_table import gigas, millions
    from ..published.selection import weights_licence

    file, protocol = entry.file, entry.protocol
    named = f", names: {entry.labels}" if entry.labels else ", names are not part of this package"
    classes = "none" if entry.num_labels is None else f"{entry.num_labels}{named}"
    size = file.size or (f"{file.bytes:,} bytes" if file.bytes else "size not stated")
    facts = [part for part in (file.path, size, file.dtype, file.sha256 and f"SHA-256 {file.sha256}") if part]
    frames = f"{protocol.num_frames} frames, {protocol.frame_sampling}"
    views = f"{protocol.num_clips} clips x {protocol.num_crops} crops of {protocol.image_size} pixels"
    licences = "; ".join(f"{one.covers}: {one.licence} ({one.source})" for one in entry.licences)
    rows = [
        ("family, size", f"{entry.model_type}, {entry.size}"),
        ("task", entry.task),
        ("classes", classes),
        ("parameters", f"{entry.parameters:,} ({millions(entry.parameters)})" if entry.parameters else "not counted"),
        ("GMACs of a view", gigas(entry.gmacs)),
        ("protocol", f"{frames}; {views}"),
        ("licence", licences or weights_licence(entry)),
        ("file", "; ".join([file.availability, *facts])),
    ]
    if entry.task in ("object-detection", "semantic-segmentation"):
        rows = [(title, _dense_protocol(entry) if title == "protocol" else text) for title, text in rows]
    images = ("image-classification", "keypoint-detection", "temporal-action-localization")
    return [row for row in rows if row[0] != "protocol" or entry.task not in images]


def _dense_protocol(entry: Any) -> str:
    """Sizes of the images, and attention of stage 3."""
    fields, backbone = entry.protocol.processor, entry.config["backbone_config"]
    size, divisor = fields["size"], fields.get("size_divisor")
    words = f"short side {size['shortest_edge']} pixels, long side at most {size['longest_edge']}"
    how = "padded" if entry.task == "object-detection" else "rounded up"
    words += f"; sides {how} to multiples of {divisor}" if divisor else ""
    kind = backbone.get("attention_type")
    window = f" with windows of {backbone['window_size']}" if kind == "hybrid" else ""
    return words + (f"; {kind} attention{window}" if kind else "")


def how_to_get(entry: Any) -> list[str]:
    """
    Where the file of a checkpoint is, and the lines that get and convert it.

    Args:
        entry ([`PublishedCheckpoint`]):
            The checkpoint.

    Returns:
        `list[str]`: lines of text and commands.
    """
    file = entry.file
    line = f"hf-videovit convert --published {entry.name} --checkpoint {file.name} --output {entry.name}"
    if file.address is not None:
        return [
            f"URL: {file.address}",
            "Get and convert it:",
            f"  hf-videovit models {entry.name} --download",
            f"  {line}",
        ]
    if file.availability == "never released":
        return ["The authors released no weights."]
    if file.url is not None:
        return [f"URL: {file.url}", "Get it there with a browser, and convert it:", f"  {line}"]
    state = {"not listed": "is not listed by its authors", "dead link": "is no longer online"}
    return [f"The file {state[file.availability]}. If you have it, convert it:", f"  {line}"]


def _download(entry: Any, folder: Path, as_json: bool) -> str | None:
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from ..hub.downloading import download_published

    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        bar = progress.add_task(entry.name, total=None)
        done = download_published(entry, folder, lambda have, total: progress.update(bar, completed=have, total=total))
    if as_json:
        print_json({"file": str(done.path), "bytes": done.size, "checked": done.checked})
        return None
    typer.echo(f"{done.path}: {done.size:,} bytes, checked by {done.checked}")
    line = how_to_get(entry)[-1].strip().replace(f"--checkpoint {entry.file.name}", f"--checkpoint {done.path}")
    return line
