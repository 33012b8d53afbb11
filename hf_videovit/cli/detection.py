"""The command for action detection."""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .bulk import Address, EngineName, Models, describe_model, engine_of, load_film_detector, read_films
from .common import BatchSize, Device, Model, check_films, choose_device, given, print_json, screen


commands = typer.Typer()
SUFFIXES = (".json", ".csv", ".mp4")


@commands.command("detect-actions")
def detect_actions(
    video: Annotated[
        str, typer.Argument(help="Video file or URL; with --engine also a folder or pattern.", show_default=False)
    ],
    model: Model,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="X.json, X.csv or X.mp4; can be repeated. Or folder of --engine."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="JSON of people's boxes: {seconds: [[x1, y1, x2, y2], ...]} in pixels.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Folder or Hub id of an object detector that finds the people.")
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between key-frames, with --detector.")] = 1.0,
    threshold: Annotated[float, typer.Option(help="Lowest score of an action.")] = 0.5,
    person_threshold: Annotated[float, typer.Option(help="Lowest score of a detected person.")] = 0.5,
    top_k: Annotated[int | None, typer.Option(min=1, help="Largest number of actions for a person.")] = None,
    batch_size: BatchSize = 1,
    device: Device = None,
    engine: EngineName = None,
    address: Address = None,
    num_models: Models = None,
) -> None:
    """Name what each person in a video does. Prints JSON, or writes JSON, CSV and a film with boxes."""
    from transformers import pipeline

    from ..folders import refuse_foreign
    from ..inference.people import person_timelines
    from ..pictures.films import FILM_MARK, write_labelled_film

    outputs = output or []
    if chosen := engine_of(engine, address, num_models, None, device, {"--boxes": boxes}):
        if detector is None:
            raise ValueError("--engine needs --detector.")
        check_films(model, ("ForActionDetection",), "an action detector")
        films = {"every": every, "person_threshold": person_threshold, "threshold": threshold}
        films |= {"batch_size": batch_size, **given(top_k=top_k)}
        load = partial(load_film_detector, model, detector, chosen.device, films)
        named = {"work": "detect-actions", **describe_model(model), "detector": detector, "options": films}
        read_films(video, outputs, load, "key_frames", chosen, named)
        return
    for path in outputs:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"--output {path} must end in {', '.join(SUFFIXES)}.")
        if path.exists() and Path(video).exists() and path.samefile(video):
            raise ValueError(f"--output {path} is the video itself: give another name.")
        refuse_foreign(path, "--output", {".json": '"key_frames"', ".csv": "person_score"}.get(path.suffix, FILM_MARK))
    if (boxes is None) == (detector is None):
        raise ValueError("Pass either --boxes or --detector.")
    people: dict[str, Any] = {"boxes": read_boxes_by_time(boxes)} if boxes else {"person_detector": detector}
    if detector is not None:
        people |= {"every": every, "person_threshold": person_threshold}
    detect: Any = pipeline("action-detection", model=model, device=choose_device(device))
    complete = detect(video, threshold=0.0, batch_size=batch_size, **people)
    timelines = person_timelines(complete, threshold)
    answers = [_shown(answer, threshold, top_k) for answer in complete]
    for path in outputs:
        if path.suffix == ".json":
            text = json.dumps({"video": video, "key_frames": answers, "timelines": timelines}, indent=2)
            path.write_text(text + "\n", encoding="utf-8")
        elif path.suffix == ".csv":
            write_rows(path, answers)
        else:
            write_labelled_film(video, answers, path)
        screen.print(f"Written: {path}")
    if not outputs:
        print_json({"video": video, "key_frames": answers, "timelines": timelines})


def read_boxes_by_time(path: Path) -> dict[float, Any]:
    """
    Read boxes of people.

    Args:
        path (`Path`):
            A JSON file `{seconds: boxes}`, boxes as for `pipeline("action-detection")`.

    Returns:
        `dict[float, Any]`: boxes by key-frame in seconds.

    Raises:
        ValueError: the file is not such a JSON.
    """
    from ..inference.people import parse_boxes_by_time

    try:
        return parse_boxes_by_time(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"--boxes {path} must be a JSON object {{seconds: boxes}}: {error}") from error


def write_rows(path: Path, answers: list[dict[str, Any]]) -> None:
    """
    Write a row for each person and action.

    Args:
        path (`Path`):
            The .csv file.
        answers (`list[dict]`):
            Of `pipeline("action-detection")`.
    """
    names = ("time", "frame", "person", "xmin", "ymin", "xmax", "ymax", "person_score", "label", "score")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for answer in answers:
            for person in answer["people"]:
                who = (person["person_id"], *(round(value, 2) for value in person["box"].values()))
                for action in person["actions"]:
                    row = (answer["time"], answer["frame"], *who, person["person_score"])
                    writer.writerow((*row, action["label"], action["score"]))


def _shown(answer: dict[str, Any], threshold: float, top_k: int | None) -> dict[str, Any]:
    """An answer with the actions that the caller asked for."""
    people = [
        {**person, "actions": [one for one in person["actions"] if one["score"] >= threshold][:top_k]}
        for person in answer["people"]
    ]
    return {**answer, "people": people}
