"""`evaluate --task temporal-localization`: scores of localisers, and of files of predictions."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from ..files import loading
from ..folders import refuse_foreign
from .common import fail_if, print_json, screen


def evaluate_localizer(
    model: str | None,
    truth: Path | None,
    features: Path | None,
    videos: Path | None,
    predictions: Path | None,
    output: Path | None,
    *,
    split: str | None,
    protocol: str,
    metric: str,
    scores: Path | None,
    excluded: Path | None,
    feature_name: str,
    fps: float | None,
    allow_missing: bool,
    batch_size: int,
    num_workers: int,
    device: str,
    as_json: bool,
) -> None:
    """
    Evaluate a localiser on features or, with its encoder, on videos, or a file of predictions; print the scores.

    Args:
        model (`str` or `None`):
            Folder or Hub id; `None` to score the file `predictions`.
        truth (`Path` or `None`):
            Annotations.
        features (`Path` or `None`):
            Features of the videos.
        videos (`Path` or `None`):
            Folder of the videos, in place of features.
        predictions (`Path` or `None`):
            Without a model the file that is scored, with a model the file to write.
        output (`Path` or `None`):
            Result file (.json).
        split (`str` or `None`):
            Subset of the annotations. Defaults to validation or test.
        protocol (`str`):
            Overlaps, by the name of a data set.
        metric (`str`):
            See [`score_predictions`].
        scores (`Path` or `None`):
            Scores of a classifier of whole videos.
        excluded (`Path` or `None`):
            File with names of videos to leave out.
        feature_name (`str`):
            Name of the features of a video, with `{video}`.
        fps (`float` or `None`):
            Frame rate of videos for which neither annotations nor features name one.
        allow_missing (`bool`):
            Whether segments of videos without features count as missed. Otherwise they are an error.
        batch_size (`int`):
            Videos in a forward pass.
        num_workers (`int`):
            Number of reading processes.
        device (`str`):
            Device of the model.
        as_json (`bool`):
            Whether to print JSON.

    Raises:
        ValueError: an option is missing, a file has another form, or videos are missing.
    """
    if truth is None:
        raise ValueError("--truth is needed with --task temporal-localization: a file with segments")
    refuse_foreign(output, "--output", '"per_class"')
    if model is None:
        left_out = None if excluded is None else str(excluded)
        result = _scored_file(truth, predictions, split, protocol, metric, left_out)
        claim: dict[str, Any] = {"data": str(truth), "split": split, "excluded": left_out}
        claim["predictions"] = str(predictions)
    else:
        if (features is None) == (videos is None):
            raise ValueError("--features is needed with --model: the folder of the videos' features; or --videos")
        if metric != "default":
            raise ValueError(f"--metric {metric} is for files of predictions: leave out --model")
        refuse_foreign(predictions, "--predictions", '"results"')
        options = {"features": features, "videos_folder": videos, "class_scores": scores, "excluded": excluded}
        named = {name: None if path is None else str(path) for name, path in options.items()}
        settings = {"batch_size": batch_size, "num_workers": num_workers, "device": device}
        result, receipt = _evaluated(
            model,
            {"data": str(truth), "split": split, "feature_name": feature_name, "fps": fps, **named},
            protocol,
            allow_missing,
            settings,
        )
        claim = {"model": model, **asdict(receipt)}
        if predictions is not None:
            result.save_predictions(predictions)
    if output is not None:
        result.save(output, **claim)
    if as_json:
        print_json(result.to_dict())
    else:
        Console().print(result.table())
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        total = len(result.predictions) + len(result.missing)
        told = "predictions" if model is None else "features"
        typer.echo(f"{result.num_truth} segments in {total} videos, {len(result.missing)} of them without {told}")
    fail_if([failure["id"] for failure in result.failed])


def _scored_file(
    truth: Path, predictions: Path | None, split: str | None, protocol: str, metric: str, excluded: str | None
) -> Any:
    from ..training.evaluation.temporal_localization import score_predictions

    if predictions is None:
        raise ValueError("--model or --predictions is needed with --task temporal-localization")
    result = score_predictions(truth, predictions, subset=split, protocol=protocol, metric=metric, excluded=excluded)
    if unknown := result.protocol["unknown_videos"]:
        screen.print(f"{unknown} predicted videos are not in the truth: their predictions count as wrong")
    return result


def _evaluated(
    model: str, options: dict[str, Any], protocol: str, allow_missing: bool, settings: dict[str, Any]
) -> tuple[Any, Any]:
    """The result, and the claim that repeats it."""
    from transformers import AutoConfig, AutoFeatureExtractor

    from ..training.data.segment_files import evaluation_subset, read_segments
    from ..training.evaluation.localization_receipts import LocalizationClaim, evaluate_localization_claim

    with loading("--model", model):
        config = AutoConfig.from_pretrained(model)
        processor = AutoFeatureExtractor.from_pretrained(model)
    options["split"] = options["split"] or evaluation_subset(read_segments(options["data"]).subsets, None)
    claim = LocalizationClaim(**options)
    source = claim.open(processor)
    if source.missing and not allow_missing:
        what = "features" if claim.videos_folder is None else "file"
        raise ValueError(
            f"{len(source.missing)} videos of the truth have no {what}, such as {source.missing[0].name!r}: a score "
            "without them is of another set. --allow-missing counts their segments as missed"
        )
    for remark in source.remarks:
        screen.print(remark)
    names = [config.id2label[index] for index in range(config.num_labels)]
    if claim.class_scores is None and len(names) == 1 and names != source.label_names:
        claim = replace(claim, one_class=names[0])
    result, _ = evaluate_localization_claim(model, claim, protocol, progress=screen.is_terminal, **settings)
    return result, claim


__all__ = ["evaluate_localizer"]
