"""`evaluate --task object-detection` and `--task keypoint-detection`: scores on images in COCO's format."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from ..files import loading
from .common import fail_if, print_json, read_architecture, screen
from .detection_scores import GROUND_TRUTH


def evaluate_objects(
    model: str,
    task: str,
    data: str | None,
    split: str | None,
    boxes: str | None,
    images: Path | None,
    output: Path | None,
    predictions: Path | None,
    *,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """
    Evaluate a detector of objects or a pose model and print its scores.

    Args:
        model (`str`):
            Folder or Hub id.
        task (`str`):
            `"object-detection"` or `"keypoint-detection"`.
        data (`str` or `None`):
            COCO's JSON, or a folder with `annotations/instances_val.json`.
        split (`str` or `None`):
            Split of a folder. Defaults to the first to evaluate on.
        boxes (`str` or `None`):
            Pose estimation: COCO's results with detected people, or `"ground-truth"`.
        images (`Path` or `None`):
            Folder of the images.
        output (`Path` or `None`):
            Result file (.json).
        predictions (`Path` or `None`):
            COCO's results (.json).
        device (`str`):
            Device of the model.
        as_json (`bool`):
            Whether to print JSON.
        options:
            Of [`evaluate_object_claim`].

    Raises:
        ValueError: a file is missing, or the model is of another task.
    """
    from ..training.data.coco_images import find_objects
    from ..training.evaluation.held_out import read_claim
    from ..training.evaluation.object_receipts import evaluate_object_claim, object_task
    from ..training.evaluation.object_results import ObjectClaim

    if data is None:
        raise ValueError(f"--data is needed with --task {task}: COCO's JSON, or a folder with annotations/")
    if task == "keypoint-detection" and boxes is None:
        raise ValueError(f"--boxes is needed with --task {task}: COCO's results, or {GROUND_TRUTH}")
    with loading("--model", model):
        own = object_task(model)
    if own != task:
        what = read_architecture(model) or "another model"
        raise ValueError(f"--model {model} is {what}, which --task {task} does not score")
    pose = task == "keypoint-detection"
    wanted = split or ("train" if Path(data).is_file() else None)
    found = find_objects(data, wanted, "keypoints" if pose else "instances", images)
    if found is None:
        raise ValueError(f"--data {data} has no split to evaluate on")
    file, folder = map(str, found)
    known = read_claim(model) if Path(model).is_dir() else {}
    settings = {name: known[name] for name in ("flip_test", "pck_threshold", "sigmas") if name in known}
    claim = ObjectClaim(file, folder, **settings)
    if boxes not in (None, GROUND_TRUTH):
        claim = replace(claim, people=boxes)
    result, _ = evaluate_object_claim(model, claim, device=device, progress=screen.is_terminal, **options)
    if output is not None:
        result.save(output, model=model, **asdict(claim))
    if predictions is not None:
        result.save_predictions(predictions)
    if as_json:
        print_json(result.to_dict())
    else:
        Console().print(result.table())
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        people = f", {result.boxes}" if result.boxes else ""
        typer.echo(f"{result.num_images} images, {len(result.predictions)} answers{people}; {result.seconds:.1f} s")
    fail_if([failure["id"] for failure in result.failed])


__all__ = ["evaluate_objects"]
