"""The command that checks a machine, videos and annotations."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..folders import refuse_foreign
from .bulk import Address, EngineName, check_in_bulk, engine_of
from .common import AsJson, fail_if, make_table, parse_label_names, print_json, tracked


commands = typer.Typer()


@commands.command()
def doctor(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos or folders, or annotations: of people (.csv, .jsonl, .json, .xml, .pkl) or segments (.json)."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write all checks of videos to this .csv or .json file, or folder of --engine.")
    ] = None,
    decoder: Annotated[str, typer.Option(help="auto, pyav, decord, torchcodec or nvdec.")] = "auto",
    num_workers: Annotated[int, typer.Option(min=1, help="Number of checking processes.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(help="Annotations whose key-frames the predictions or detected people should have.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Labels of annotations: ava, or a .json, .txt or .pbtxt.")] = None,
    offset: Annotated[float, typer.Option(help="Timestamp of the start of annotated videos, in seconds.")] = 0.0,
    movies: Annotated[
        Path | None, typer.Option(help="List of movies that AlphAction's boxes are numbered by.")
    ] = None,
    video_folder: Annotated[
        Path | None, typer.Option("--videos", help="Folder of annotated videos, to check timestamps against.")
    ] = None,
    engine: EngineName = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """
    Report on this machine; with paths, decode every video or check annotations.

    The exit code is 1 if a video is not completely readable or annotations have errors.
    """
    from dataclasses import asdict

    from ..doctor import check_videos, environment_report, find_videos, write_report
    from ..training.data.annotation_checks import is_annotation_file

    annotations = [path for path in videos or [] if Path(path).is_file() and is_annotation_file(path)]
    if annotations:
        if len(annotations) < len(videos or []):
            raise ValueError("Check videos and annotations in two runs; annotations here: " + ", ".join(annotations))
        faulty = _check_annotations(annotations, truth, labels, offset, movies, video_folder, as_json)
        fail_if(faulty, "with errors")
        return
    if truth is not None:
        raise ValueError("--truth needs an annotation file to compare: .csv, .jsonl, .json, .xml or .pkl.")
    if chosen := engine_of(engine, address, None, num_workers):
        check_in_bulk(videos or [], report, chosen, decoder, as_json)
        return
    if report is not None and report.suffix not in (".csv", ".json"):
        raise ValueError(f"--report must end in .csv or .json, got {str(report)!r}.")
    refuse_foreign(report, "--report", "decoded_frames")
    environment = environment_report()
    files = find_videos(videos or [])
    checks = sorted(
        tracked(check_videos(files, decoder=decoder, num_workers=num_workers), "Checking", len(files)),
        key=lambda check: check.path,
    )
    if report is not None:
        write_report(checks, report)
    if as_json:
        print_json({"environment": environment, "videos": [asdict(check) for check in checks]})
    else:
        _print_environment(environment)
        if checks:
            _print_checks(checks)
    fail_if([check.path for check in checks if check.status != "ok"], "not completely readable")


def _check_annotations(
    paths: list[str],
    truth: Path | None,
    labels: str | None,
    offset: float,
    movies: Path | None,
    video_folder: Path | None,
    as_json: bool,
) -> list[str]:
    """Print the faults of annotation files, and return those that have errors."""
    from dataclasses import asdict

    from ..doctor import find_videos
    from ..modeling.video_decoding import VideoDecodingError, probe_video
    from ..published import published_labels
    from ..training.data.annotation_checks import check_annotations
    from ..training.data.key_frames import video_name
    from ..training.data.proposals import read_movies
    from ..training.data.segment_checks import check_segments, is_segment_file

    names = parse_label_names(labels)
    names = published_labels(names) if isinstance(names, str) else names
    durations: dict[str, float] = {}
    for video in [] if video_folder is None else find_videos([str(video_folder)]):
        with suppress(VideoDecodingError):
            durations[video_name(video)] = probe_video(video).duration or float("inf")
    lengths = None if video_folder is None else durations
    found = {}
    for path in paths:
        if is_segment_file(path):
            found[path] = check_segments(path, durations=lengths)
            continue
        found[path] = check_annotations(
            path,
            truth=truth,
            labels=None if names is None else dict(enumerate(names, start=1)),
            durations=lengths,
            offset=offset,
            movies=None if movies is None else read_movies(movies),
        )
    if as_json:
        print_json({"annotations": {path: [asdict(one) for one in findings] for path, findings in found.items()}})
    else:
        for path, findings in found.items():
            typer.echo(f"{path}: {len(findings) or 'no'} faults")
            for finding in findings:
                typer.echo(f"  {finding}")
    return [path for path, findings in found.items() if any(one.level == "error" for one in findings)]


def _print_environment(environment: dict[str, Any]) -> None:
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    table.add_row("python", f"{environment['python']} on {environment['platform']}")
    for name, version in environment["packages"].items():
        table.add_row(name, version or "[dim]not installed[/dim]")
    for name, info in environment["decoders"].items():
        state = f"FFmpeg {info['ffmpeg'] or 'unknown'}" if info["available"] else f"[dim]{info['reason']}[/dim]"
        table.add_row(f"decoder {name}", state)
    devices = ", ".join(f"{device['name']} ({device['memory_gb']} GB)" for device in environment["accelerators"])
    table.add_row("accelerator", devices or "none (CPU)")
    table.add_row("memory", f"{environment['memory_gb']} GB")
    table.add_row("cores", str(environment["cpu_cores"]))
    console = Console()
    console.print(table)
    for warning in environment["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {warning}")


def _print_checks(checks: list[Any]) -> None:
    console = Console()
    table = make_table("File", "State", "Frames", "Reason")
    troubled = [check for check in checks if check.status != "ok"]
    for check in troubled:
        counts = f"{check.decoded_frames}/{check.num_frames}"
        table.add_row(escape(check.path), check.status, counts, escape(check.reason))
    if troubled:
        console.print(table)
    console.print(f"{len(checks) - len(troubled)} of {len(checks)} videos are completely readable")
