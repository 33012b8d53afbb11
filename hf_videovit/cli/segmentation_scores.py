"""`evaluate --task semantic-segmentation`: scores of models that give every pixel a label."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from ..files import loading
from ..folders import refuse_foreign
from .common import fail_if, print_json, read_architecture, screen


def score_segmenter(
    model: str,
    data: str | None,
    split: str | None,
    root: Path | None,
    output: Path | None,
    *,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """
    Evaluate a model for semantic segmentation and print its scores.

    Args:
        model (`str`):
            Folder or Hub id.
        data (`str` or `None`):
            Images and masks, see [`open_segmentation`].
        split (`str` or `None`):
            The split. Defaults to the first of val, validation and so on.
        root (`Path` or `None`):
            Folder that the paths of a list are relative to.
        output (`Path` or `None`):
            Result file (.json).
        device (`str`):
            Device of the model.
        as_json (`bool`):
            Whether to print JSON.
        options:
            Of [`evaluate_segmentation`].

    Raises:
        ValueError: the data is missing, or the model is another one.
    """
    from ..training.evaluation.semantic_segmentation import SegmentationClaim, evaluate_segmenter

    if data is None:
        raise ValueError("--data is needed: a folder with images and annotations, or a list of both")
    refuse_foreign(output, "--output", '"manifest_sha256"')
    architecture = read_architecture(model)
    if not architecture.endswith("ForSemanticSegmentation"):
        raise ValueError(f"--model {model} is {architecture or 'an unknown model'}, which does not label pixels")
    claim = SegmentationClaim(data, split, None if root is None else str(root))
    with loading("--model", model):
        result, _ = evaluate_segmenter(model, claim, device=device, progress=screen.is_terminal, **options)
    if output is not None:
        result.save(output, model=model, **asdict(claim))
    if as_json:
        print_json(result.to_dict())
    else:
        Console().print(result.table())
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        typer.echo(f"{result.num_images} images in {result.seconds:.1f} s")
    fail_if([failure["id"] for failure in result.failed])


__all__ = ["score_segmenter"]
