"""The commands for temporal localisation."""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .bulk import Address, EngineName, Models, describe_model, engine_of, load_film_localizer, read_films
from .common import (
    BatchSize,
    Device,
    Model,
    Videos,
    check_classifier,
    check_films,
    choose_device,
    fail_if,
    given,
    loading,
    print_json,
    screen,
    tracked,
)


commands = typer.Typer()
SUFFIXES = (".json", ".csv", ".png")


@commands.command()
def localize(
    video: Annotated[
        str,
        typer.Argument(
            help="Video file or URL, or features (.npy, .safetensors, .pt); with --engine a folder or pattern too.",
            show_default=False,
        ),
    ],
    model: Model,
    encoder: Annotated[
        str | None, typer.Option(help="For a localiser without one: folder or Hub id of the features' encoder.")
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="X.json, X.csv or X.png; can be repeated. Or folder of --engine."),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Lowest score of a segment.")] = 0.1,
    top_k: Annotated[int | None, typer.Option(min=1, help="Largest number of segments.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frame rate of the video that features are of.")] = None,
    duration: Annotated[
        float | None, typer.Option(help="Its length in seconds. Default: end of the last window.")
    ] = None,
    scores_file: Annotated[
        Path | None,
        typer.Option("--scores", help="JSON of classifier scores, {results: {video: [p, ...]}}, to name segments."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows per forward pass of the encoder.")] = None,
    device: Device = None,
    engine: EngineName = None,
    address: Address = None,
    num_models: Models = None,
) -> None:
    """Find when actions happen in a long video. Prints JSON, or writes JSON, CSV and a picture of the timeline."""
    from transformers import pipeline

    from ..inference.temporal_localization import TASK, load_localizer

    outputs = output or []
    refused = {"--scores": scores_file, "--duration": duration}
    if chosen := engine_of(engine, address, num_models, None, device, refused):
        check_films(model, ("TemporalLocalizer", "TemporalActionLocalization"), "a localiser")
        films = {"threshold": threshold, **given(top_k=top_k, fps=fps, batch_size=batch_size)}
        load = partial(load_film_localizer, model, encoder, chosen.device, films)
        named = {"work": "localize", **describe_model(model), "encoder": encoder, "options": films}
        read_films(video, outputs, load, "segments", chosen, named)
        return
    for path in outputs:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"--output {path} must end in {', '.join(SUFFIXES)}.")
    class_scores = {} if scores_file is None else _class_scores(scores_file, video)
    with loading("--model", model):
        parts = load_localizer(model, encoder)
    find: Any = pipeline(TASK, **parts, device=device)
    options = given(top_k=top_k, fps=fps, duration=duration, batch_size=batch_size)
    segments = find(video, threshold=threshold, **options, **class_scores)
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


@commands.command()
def scores(
    videos: Videos,
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .json file.")],
    truth: Annotated[
        Path | None,
        typer.Option(help="Annotations as JSON, whose classes give the order. Default: that of the classifier."),
    ] = None,
    num_clips: Annotated[int | None, typer.Option(min=1, help="Clips per video. Default: the checkpoint's.")] = None,
    num_crops: Annotated[int | None, typer.Option(min=1, help="Crops per clip. Default: the checkpoint's.")] = None,
    batch_size: BatchSize = 1,
    device: Device = None,
) -> None:
    """
    Write a classifier's scores of whole videos, which name the segments of a localiser.

    Exit code 1 if a file could not be read; the others are still scored. Classes are matched by name.
    """
    from transformers import pipeline

    from ..doctor import find_videos
    from ..folders import refuse_existing
    from ..inference.video_scores import video_scores, write_scores
    from ..training.data.activitynet import read_activitynet

    refuse_existing([output], "--output")
    files = find_videos(videos)
    stems = [Path(file).stem for file in files]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ValueError(f"Two videos are named {twice[0]!r}; files of scores know videos by name.")
    check_classifier(model)
    with loading("--model", model):
        classifier: Any = pipeline("video-classification", model=model, device=choose_device(device))
    names = list(classifier.model.config.id2label.values())
    if truth is not None:
        table = read_activitynet(truth)
        names = [table.class_names[number] for number in sorted(table.class_names)]
    options = given(num_clips=num_clips, num_crops=num_crops, batch_size=batch_size)
    answers = video_scores(classifier, files, names, **options)
    rows = list(zip(files, tracked(answers, "Scoring", len(files)), strict=True))
    results = {Path(file).stem: row for file, row in rows if not isinstance(row, dict)}
    write_scores(output, results, names, model=model)
    screen.print(f"Written: {output}, {len(results)} videos, {len(names)} classes")
    fail_if([file for file, row in rows if isinstance(row, dict)])


def _class_scores(path: Path, video: str) -> dict[str, Any]:
    """Arguments of the pipeline from a file of scores."""
    from ..inference.video_scores import read_scores

    results, names = read_scores(path)
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
