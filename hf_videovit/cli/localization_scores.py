"""`evaluate --task temporal-localization`: scores of localisers, and of files of predictions."""

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
    predictions: Path | None,
    output: Path | None,
    *,
    split: str | None,
    protocol: str,
    metric: str,
    scores: Path | None,
    feature_name: str,
    fps: float | None,
    allow_missing: bool,
    batch_size: int,
    num_workers: int,
    device: str,
    as_json: bool,
) -> None:
    """
    Evaluate a localiser on features, or a file of predictions, and print the scores.

    Args:
        model (`str` or `None`):
            Folder or Hub id; `None` to score the file `predictions`.
        truth (`Path` or `None`):
            Annotations.
        features (`Path` or `None`):
            Features of the videos.
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
        result = _scored_file(truth, predictions, split, protocol, metric)
        claim: dict[str, Any] = {"predictions": str(predictions)}
    else:
        if features is None:
            raise ValueError("--features is needed with --model: the folder of the videos' features")
        if metric == "actionformer":
            raise ValueError("--metric actionformer is for files of predictions: leave out --model")
        refuse_foreign(predictions, "--predictions", '"results"')
        result = _evaluated(
            model,
            truth,
            features,
            {"split": split, "feature_name": feature_name, "fps": fps, "allow_missing": allow_missing},
            {"protocol": protocol, "batch_size": batch_size, "num_workers": num_workers},
            scores,
            device,
        )
        claim = {"model": model, "features": str(features)}
        if predictions is not None:
            result.save_predictions(predictions)
    if output is not None:
        result.save(output, data=str(truth), split=split, **claim)
    if as_json:
        print_json(result.to_dict())
    else:
        Console().print(result.table())
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        videos = len(result.predictions) + len(result.missing)
        told = "predictions" if model is None else "features"
        typer.echo(f"{result.num_truth} segments in {videos} videos, {len(result.missing)} of them without {told}")
    fail_if([failure["id"] for failure in result.failed])


def _scored_file(truth: Path, predictions: Path | None, split: str | None, protocol: str, metric: str) -> Any:
    from ..training.evaluation.temporal_localization import score_predictions

    if predictions is None:
        raise ValueError("--model or --predictions is needed with --task temporal-localization")
    result = score_predictions(truth, predictions, subset=split, protocol=protocol, metric=metric)
    if unknown := result.protocol["unknown_videos"]:
        screen.print(f"{unknown} predicted videos are not in the truth: their predictions count as wrong")
    return result


def _evaluated(
    model: str,
    truth: Path,
    features: Path,
    reading: dict[str, Any],
    settings: dict[str, Any],
    scores: Path | None,
    device: str,
) -> Any:
    from transformers import AutoFeatureExtractor

    from ..auto import AutoModelForTemporalActionLocalization
    from ..feature_files import check_description, open_features
    from ..training.data.activitynet import read_class_scores
    from ..training.data.segment_files import evaluation_subset, read_segments
    from ..training.data.segment_source import join_features
    from ..training.evaluation.temporal_localization import evaluate_temporal_localization

    with loading("--model", model):
        localizer = AutoModelForTemporalActionLocalization.from_pretrained(model).to(device)
        processor = AutoFeatureExtractor.from_pretrained(model)
    annotations = read_segments(truth)
    name = reading["split"] or evaluation_subset(annotations.subsets, None)
    folder = open_features(features)
    check_description(processor.feature_description, folder.description, f"--features {str(features)!r}")
    source = join_features(
        annotations.videos if name is None else annotations.subset(name),
        annotations.label_names,
        folder,
        form=reading["feature_name"],
        fps=reading["fps"] or processor.feature_fps,
        needs_duration=processor.feature_stride is None,
        remarks=annotations.remarks,
    )
    if source.missing and not reading["allow_missing"]:
        raise ValueError(
            f"{len(source.missing)} videos of the truth have no features, such as {source.missing[0].name!r}: a score "
            "without them is of another set. --allow-missing counts their segments as missed"
        )
    for remark in source.remarks:
        screen.print(remark)
    if scores is None:
        names = [localizer.config.id2label[index] for index in range(localizer.config.num_labels)]
        if len(names) == 1 and names != source.label_names:
            source = source.as_one_class(names[0])
        class_scores = None
    else:
        class_scores = read_class_scores(scores, source.label_names)
    return evaluate_temporal_localization(
        localizer, processor, source, class_scores=class_scores, progress=screen.is_terminal, **settings
    )


__all__ = ["evaluate_localizer"]
