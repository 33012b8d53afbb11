"""The command for temporal localisation."""

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Device, Model, given, print_json, screen


commands = typer.Typer()
SUFFIXES = (".json", ".csv", ".png")


@commands.command()
def localize(
    video: Annotated[
        str, typer.Argument(help="Video file or URL, or its features (.npy, .safetensors, .pt).", show_default=False)
    ],
    model: Model,
    encoder: Annotated[
        str | None, typer.Option(help="For a localiser without one: folder or Hub id of the features' encoder.")
    ] = None,
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help="X.json, X.csv or X.png; can be repeated.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Lowest score of a segment.")] = 0.1,
    top_k: Annotated[int | None, typer.Option(min=1, help="Largest number of segments.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frame rate of the video that features are of.")] = None,
    duration: Annotated[
        float | None, typer.Option(help="Its length in seconds. Default: end of the last window.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="JSON of classifier scores, {results: {video: [p, ...]}}, to name segments.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows per forward pass of the encoder.")] = None,
    device: Device = None,
) -> None:
    """Find when actions happen in a long video. Prints JSON, or writes JSON, CSV and a picture of the timeline."""
    from transformers import pipeline

    from ..inference.temporal_localization import TASK, load_localizer

    outputs = output or []
    for path in outputs:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"--output {path} must end in {', '.join(SUFFIXES)}.")
    named = {} if scores is None else read_class_scores(scores, video)
    find: Any = pipeline(TASK, **load_localizer(model, encoder), device=device)
    options = given(top_k=top_k, fps=fps, duration=duration, batch_size=batch_size)
    segments = find(video, threshold=threshold, **options, **named)
    for path in outputs:
        if path.suffix == ".json":
            text = json.dumps({"video": video, "segments": segments}, indent=2, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")
        elif path.suffix == ".csv":
            write_segments(path, segments)
        else:
            _draw(video, segments, path, duration)
        screen.print(f"Written: {path}")
    if not outputs:
        print_json({"video": video, "segments": segments})


def read_class_scores(path: Path, video: str) -> dict[str, Any]:
    """
    Read a classifier's scores of a video.

    Args:
        path (`Path`):
            JSON file `{"results": {video: [p, ...]}}`, with the names of the classes as `classes` or `class`.
        video (`str`):
            The video; its name without suffix is looked up.

    Returns:
        `dict[str, Any]`: `class_scores`, and `class_names` where the file has them: arguments of the pipeline.

    Raises:
        ValueError: the file is not such a JSON, or lacks the video.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results, names = content["results"], content.get("classes", content.get("class"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--scores {path} must be a JSON object with `results` by video: {error!r}") from error
    name = Path(video).stem
    if name not in results:
        raise ValueError(f"--scores {path} has no scores of {name!r}; it has {len(results)} other videos.")
    return given(class_scores=results[name], class_names=names)


def write_segments(path: Path, segments: list[dict[str, Any]]) -> None:
    """
    Write a row for each segment.

    Args:
        path (`Path`):
            The .csv file.
        segments (`list[dict]`):
            Of `pipeline("temporal-action-localization")`.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("start", "end", "label", "score"))
        for one in segments:
            start, end = (round(one["segment"][name], 3) for name in ("start", "end"))
            writer.writerow((start, end, one["label"], one["score"]))


def _draw(video: str, segments: list[dict[str, Any]], path: Path, duration: float | None) -> None:
    from ..feature_files import FEATURE_SUFFIXES
    from ..pictures.segments import draw_segments, draw_timeline

    if Path(video).suffix.lower() not in FEATURE_SUFFIXES:
        draw_timeline(video, segments, path)
        return
    end = duration or max((one["segment"]["end"] for one in segments), default=0.0)
    if not end:
        raise ValueError(f"--output {path} of features without segments needs --duration.")
    draw_segments(segments, end, path)
