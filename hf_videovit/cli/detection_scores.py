"""`evaluate --task action-detection`: scores of action detectors."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from ..files import loading
from .common import fail_if, print_json, screen


GROUND_TRUTH = "ground-truth"


def evaluate_detector(
    model: str,
    annotations: Path | None,
    boxes: str | None,
    videos: Path | None,
    output: Path | None,
    predictions: Path | None,
    *,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """
    Evaluate an action detector and print its scores.

    Args:
        model (`str`):
            Folder or Hub id.
        annotations (`Path` or `None`):
            Key-frames as JSON lines.
        boxes (`str` or `None`):
            JSON lines with detected people, or `"ground-truth"`.
        videos (`Path` or `None`):
            Folder of the videos. Defaults to that of the annotations.
        output (`Path` or `None`):
            Result file (.json).
        predictions (`Path` or `None`):
            Predictions as AVA's csv.
        device (`str`):
            Device of the model.
        as_json (`bool`):
            Whether to print JSON.
        options:
            Of [`evaluate_action_detection`].

    Raises:
        ValueError: a file is missing, or the model is not an action detector.
    """
    from transformers import AutoConfig, AutoVideoProcessor

    from ..auto import AutoModelForActionDetection
    from ..training.evaluation.action_detection import evaluate_action_detection
    from ..training.evaluation.detection_receipts import DetectionClaim
    from ..training.evaluation.held_out import EvaluationClips, count_trained_on

    if annotations is None or boxes is None:
        missing = "--annotations" if annotations is None else "--boxes"
        raise ValueError(f"{missing} is needed with --task action-detection; --boxes is a file or {GROUND_TRUTH}")
    with loading("--model", model):
        config = AutoConfig.from_pretrained(model)
        if getattr(config, "detection_config", None) is None:
            raise ValueError(f"--model {model} is not an action detector: its configuration has no detection_config")
        detector = AutoModelForActionDetection.from_pretrained(model).to(device)
        processor = AutoVideoProcessor.from_pretrained(model)
    claim = DetectionClaim(
        str(annotations),
        None if videos is None else str(videos),
        None if boxes == GROUND_TRUTH else boxes,
        options["person_threshold"],
        None if options["excluded"] is None else str(options["excluded"]),
        options["offset"],
    )
    truth, people = claim.open([detector.config.id2label[index] for index in range(detector.config.num_labels)])
    if told := EvaluationClips(truth, trained_on=count_trained_on(model, truth)).told():
        screen.print(told)
    for part in (truth, people):
        for remark in () if part is None else part.remarks:
            screen.print(remark)
    result = evaluate_action_detection(
        detector, processor, truth, people=people, progress=screen.is_terminal, **options
    )
    if output is not None:
        result.save(output, model=model, **asdict(claim))
    if predictions is not None:
        result.save_csv(predictions, options["offset"])
    if as_json:
        print_json(result.to_dict())
    else:
        Console().print(result.table())
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        typer.echo(f"{len(result.rows)} key-frames, {result.boxes}; {result.seconds:.1f} s")
    fail_if([failure["id"] for failure in result.failed])


__all__ = ["evaluate_detector"]
