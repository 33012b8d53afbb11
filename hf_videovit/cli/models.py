"""Commands for checkpoints and videos: convert, classify, embed, evaluate."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..files import loading, parse_yaml
from ..folders import refuse_foreign
from .bulk import Address, Decoders, EngineName, Models, engine_of
from .common import (
    AsJson,
    BatchSize,
    Cpu,
    Device,
    Model,
    Videos,
    check_classifier,
    choose_device,
    fail_if,
    given,
    load_classifier,
    load_encoder,
    make_table,
    parse_label_names,
    print_json,
    screen,
    tracked,
)


commands = typer.Typer()

Task = Literal[
    "video-classification",
    "action-detection",
    "temporal-localization",
    "semantic-segmentation",
    "object-detection",
    "keypoint-detection",
]
Metric = Literal["ava", "mmaction2", "default", "activitynet", "actionformer"]
METRICS: dict[str, tuple[Metric, ...]] = {
    "action-detection": ("ava", "mmaction2"),
    "temporal-localization": ("default", "activitynet", "actionformer"),
}
Overlaps = Literal["activitynet", "hacs", "fineaction", "thumos14", "epic", "ego4d", "multithumos", "charades"]


@commands.command()
def convert(
    checkpoint: Annotated[
        Path | None, typer.Option(help="Official .pth, .bin or .safetensors file, or a folder.")
    ] = None,
    from_hub: Annotated[
        str | None, typer.Option(help="Repo on the Hub to convert instead; its code is not run.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch or commit of --from-hub.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="New folder for the model.")] = None,
    published: Annotated[str | None, typer.Option(help="Name of a published checkpoint; see --list.")] = None,
    model_type: Annotated[str | None, typer.Option(help="Family, if --published is not given.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of the model, such as video-classification.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="k400, k600, k700, k710, or a .json or .txt file of names.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16, or keep (as in the file).")] = "float32",
    entry: Annotated[
        str | None, typer.Option(help="Entry of the file that has the weights, such as model_ema.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE of the configuration.")] = None,
    list_names: Annotated[bool, typer.Option("--list", help="List the published checkpoints and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert an official checkpoint to a model folder: weights, configuration, processor with the protocol, card."""
    from ..convert import convert_to_folder
    from ..hub.cards import write_converted_card
    from ..hub.fetching import fetch_weights
    from ..published import published_entry

    if list_names:
        _print_published(as_json)
        return
    if (checkpoint is None) == (from_hub is None) or output is None:
        raise ValueError("Pass --output and either --checkpoint or --from-hub (or --list).")
    if checkpoint is None:
        checkpoint = fetch_weights(str(from_hub), revision)
    known = None if published is None else published_entry(published)
    if known is not None and not checkpoint.exists():
        raise ValueError(f"--checkpoint {checkpoint} does not exist: {_way_to(known)}.")
    if known is not None:
        model_type, task = model_type or known.model_type, task or known.task
    if model_type is None or task is None:
        raise ValueError("Pass --published NAME, or --model-type and --task.")
    options = {**_settings(settings), **given(labels=parse_label_names(labels), entry=entry, published=published)}
    convert_to_folder(model_type, checkpoint, output, task=task, dtype=None if dtype == "keep" else dtype, **options)
    unchanged = known is not None and task == known.task and not labels and not settings
    card = write_converted_card(output, from_hub or checkpoint.name, published=published if unchanged else None)
    if as_json:
        print_json({"folder": str(output), "card": str(card), "model_type": model_type, "task": task})
    else:
        typer.echo(f"{from_hub or checkpoint} -> {output}")


@commands.command()
def classify(
    videos: Videos,
    model: Model,
    top_k: Annotated[int, typer.Option(min=1, help="Labels to show per video.")] = 5,
    batch_size: BatchSize = 1,
    device: Device = None,
    num_clips: Annotated[int | None, typer.Option(min=1, help="Clips per video. Default: the checkpoint's.")] = None,
    num_crops: Annotated[int | None, typer.Option(min=1, help="Crops per clip. Default: the checkpoint's.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="--engine: folder of the results.")] = None,
    engine: EngineName = None,
    address: Address = None,
    num_workers: Decoders = None,
    num_models: Models = None,
    as_json: AsJson = False,
) -> None:
    """Classify videos. Exit code 1 if a file could not be read; the others are still classified."""
    from ..doctor import find_videos

    overrides = given(num_clips=num_clips, num_crops=num_crops)
    if chosen := engine_of(engine, address, num_models, num_workers, device):
        from .bulk import classify_in_bulk

        classify_in_bulk(
            videos, model, output, chosen, top_k=top_k, views=overrides, batch_size=batch_size, as_json=as_json
        )
        return
    if output is not None:
        raise ValueError("--output is the folder of --engine; without one, results are printed.")
    files = find_videos(videos)
    classifier = load_classifier(model, device)
    results = classifier((file for file in files), batch_size=batch_size, top_k=top_k, on_error="report", **overrides)
    rows = list(zip(files, tracked(results, "Classifying", len(files)), strict=True))
    if as_json:
        print_json([_classified(file, result) for file, result in rows])
    else:
        Console().print(_classification_table(rows))
    fail_if([file for file, result in rows if isinstance(result, dict)])


@commands.command()
def embed(
    videos: Videos,
    model: Model,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="X.safetensors, X.npy, a folder for .npy files, or that of --engine."),
    ],
    pooling: Annotated[str, typer.Option(help="default, mean, first or tokens.")] = "default",
    window: Annotated[int | None, typer.Option(min=1, help="Frames per window; see --stride.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Compute one feature per window, with this distance in frames.")
    ] = None,
    squash: Annotated[
        bool, typer.Option(help="With windows: resize as for the published localisation features.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Windows into a folder: store as float32 or float16.")] = "float32",
    plan: Annotated[bool, typer.Option(help="Windows into a folder: state the cost and stop.")] = False,
    batch_size: BatchSize = 1,
    device: Device = None,
    engine: EngineName = None,
    address: Address = None,
    num_workers: Decoders = None,
    num_models: Models = None,
    as_json: AsJson = False,
) -> None:
    """
    Save features of videos. Exit code 1 if a file could not be read; the others are still saved.

    Windows into a folder make a set of features for temporal localisation, with a description and a list of the
    videos. The cost is stated first. A run that was stopped continues.
    """
    from ..doctor import find_videos
    from ..folders import refuse_existing
    from ..inference.features import feature_files, iter_video_features, save_features
    from ..modeling.video_decoding import VideoDecodingError

    windowed = window is not None or stride is not None
    refused = {"--plan": plan, "--dtype": dtype != "float32", f"--output {output}": bool(output.suffix)}
    if chosen := engine_of(engine, address, num_models, num_workers, device, refused):
        from .bulk import embed_in_bulk

        films = {"window": window, "stride": stride, "squash": squash} if windowed else None
        options: dict[str, Any] = {"pooling": pooling, "windows": films, "batch_size": batch_size}
        embed_in_bulk(videos, model, output, chosen, **options, as_json=as_json)
        return
    files = find_videos(videos)
    if windowed and output.suffix not in (".safetensors", ".npy"):
        from .feature_sets import embed_windows

        settings = {"window": window, "stride": stride, "squash": squash, "pooling": pooling, "dtype": dtype}
        embed_windows(files, model, output, settings, batch_size=batch_size, device=device, plan=plan, as_json=as_json)
        return
    if plan or dtype != "float32":
        raise ValueError("--plan and --dtype are for features of windows (--stride) into a folder")
    refuse_existing(feature_files(files, output), "output")
    encoder, processor = load_encoder(model, device)
    options = {
        "pooling": pooling,
        "window": window,
        "stride": stride,
        "squash": squash,
        "batch_size": batch_size,
    }
    one_file = output.suffix in (".safetensors", ".npy")
    features: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    results = iter_video_features(encoder, processor, files, on_error="return", **options)
    for file, feature in zip(files, tracked(results, "Embedding", len(files))):
        if isinstance(feature, VideoDecodingError):
            rows.append({"file": file, "error": str(feature)})
            continue
        rows.append({"file": file, "shape": list(feature.shape)})
        if one_file:
            features[file] = feature
        else:
            save_features({file: feature}, output)
    if features:
        notes = {"model": model, **{name: str(value) for name, value in options.items()}}
        save_features(features, output, metadata=notes)
    failed = [row["file"] for row in rows if "error" in row]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            words = row.get("error") or f"{row['file']}: {'x'.join(map(str, row['shape']))}"  # errors name their file
            typer.echo(words, err="error" in row)
        typer.echo(f"{len(rows) - len(failed)} of {len(rows)} videos -> {output}")
    fail_if(failed)


@commands.command()
def evaluate(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Folder or Hub id of a model.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Labelled videos: folder of classes, list, shards or data set repo id. semantic-segmentation: folder "
            "with images and annotations, or a list of both. object-detection, keypoint-detection: COCO's JSON, or a "
            "folder with annotations/."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split. Default: the first of val, validation, test.")] = None,
    all_clips: Annotated[
        bool, typer.Option("--all-clips", help="Score all clips of the data, also those that were trained on.")
    ] = False,
    task: Annotated[Task, typer.Option(help="What the model does.")] = "video-classification",
    annotations: Annotated[
        Path | None, typer.Option(help="action-detection: key-frames as JSON lines, as `prepare` writes them.")
    ] = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            help="action-detection: JSON lines with detected people; keypoint-detection: COCO's results with them; or "
            "ground-truth for an upper bound."
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the videos or images that --data or --annotations names. Default: that of the file. "
            "temporal-localization: in place of --features, for a model with its encoder."
        ),
    ] = None,
    person_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="action-detection: lowest score of a detected person.")
    ] = 0.8,
    excluded: Annotated[
        Path | None,
        typer.Option(
            help="action-detection: csv of video,timestamp of key-frames to leave out; temporal-localization: file "
            "with names of videos to leave out."
        ),
    ] = None,
    offset: Annotated[
        float, typer.Option(help="action-detection: timestamp of a video's start in csv files; 900 for AVA's cuts.")
    ] = 0.0,
    metric: Annotated[
        Metric | None,
        typer.Option(
            help="action-detection: ava, or mmaction2's variant; temporal-localization: default, activitynet (copies "
            "of annotations count) or actionformer (classes without truth are renumbered)."
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="temporal-localization: a file with segments; ActivityNet's JSON, a list, ...")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="temporal-localization: folder with the features of the videos.")
    ] = None,
    feature_name: Annotated[
        str, typer.Option(help="temporal-localization: name of a video's features, such as v_{video}.")
    ] = "{video}",
    fps: Annotated[float | None, typer.Option(help="temporal-localization: frame rate where no file has it.")] = None,
    protocol: Annotated[
        Overlaps, typer.Option(help="temporal-localization: data set whose overlaps are averaged over.")
    ] = "activitynet",
    scores: Annotated[
        Path | None, typer.Option(help="temporal-localization: classes of whole videos, as `scores` writes them.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="temporal-localization: count videos without features as missed.")
    ] = False,
    batch_size: BatchSize = 1,
    num_workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 0,
    device: Device = None,
    cpu: Cpu = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result to this .json file.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write one row per video to this .jsonl file; action-detection: AVA's .csv; temporal-localization: "
            "ActivityNet's .json, which is scored where --model is left out; objects and poses: COCO's .json; "
            "--engine: folder of a row per video."
        ),
    ] = None,
    engine: EngineName = None,
    address: Address = None,
    num_models: Models = None,
    as_json: AsJson = False,
) -> str | None:
    """Evaluate a model on labelled videos with its own protocol. Exit code 1 if some could not be read."""
    if metric is not None and metric not in METRICS.get(task, ()):
        allowed = ", ".join(METRICS.get(task, ())) or "none"
        raise ValueError(f"--metric {metric} is not for --task {task}, which has {allowed}")
    detection = {"annotations": annotations, "boxes": boxes}
    localization = {"truth": truth, "features": features, "fps": fps, "scores": scores, "allow-missing": allow_missing}
    others: dict[str, dict[str, Any]] = {
        "video-classification": detection | localization | {"excluded": excluded},
        "action-detection": localization | {"data": data},
        "temporal-localization": detection | {"data": data},
        "semantic-segmentation": detection | localization | {"excluded": excluded, "predictions": predictions},
        "object-detection": detection | localization | {"excluded": excluded},
        "keypoint-detection": {"annotations": annotations} | localization | {"excluded": excluded},
    }
    if unread := [f"--{name}" for name, value in others[task].items() if value]:
        raise ValueError(f"{', '.join(unread)} is not read with --task {task}: leave it out")
    chosen = engine_of(engine, address, num_models, num_workers or None, "cpu" if cpu else device)
    if chosen is not None and task != "video-classification":
        raise ValueError(f"--engine is for --task video-classification, got {task}.")
    if task == "temporal-localization":
        from .localization_scores import evaluate_localizer

        evaluate_localizer(
            model,
            truth,
            features,
            videos,
            predictions,
            output,
            split=split,
            protocol=protocol,
            metric=metric or "default",
            scores=scores,
            excluded=excluded,
            feature_name=feature_name,
            fps=fps,
            allow_missing=allow_missing,
            batch_size=batch_size,
            num_workers=num_workers,
            device=choose_device(device, cpu),
            as_json=as_json,
        )
        return None
    if model is None:
        raise ValueError("--model is needed: a folder or Hub id")
    running: dict[str, Any] = {}
    if task != "video-classification":  # whose engine may run on other machines
        running = {"num_workers": num_workers, "device": choose_device(device, cpu), "as_json": as_json}
    if task in ("object-detection", "keypoint-detection"):
        from .object_scores import evaluate_objects

        evaluate_objects(
            model, task, data, split, boxes, videos, output, predictions, batch_size=batch_size, **running
        )
        return None
    if task == "action-detection":
        from .detection_scores import evaluate_detector

        own: dict[str, Any] = {
            "person_threshold": person_threshold,
            "excluded": excluded,
            "offset": offset,
            "metric": metric or "ava",
            "batch_size": batch_size,
        }
        evaluate_detector(model, annotations, boxes, videos, output, predictions, **running, **own)
        return None
    if task == "semantic-segmentation":
        from .segmentation_scores import score_segmenter

        score_segmenter(model, data, split, videos, output, **running)
        return None
    if data is None:
        raise ValueError("--data is needed: labelled videos")
    refuse_foreign(output, "--output", '"manifest_sha256"')
    if chosen is None:
        refuse_foreign(predictions, "--predictions", '"probability"')
    from transformers import AutoModelForVideoClassification, AutoVideoProcessor

    from ..training.arguments import DataArguments
    from ..training.evaluation.held_out import HELD_OUT, open_clips, read_claim
    from .bulk import evaluation_by

    check_classifier(model)
    elsewhere = chosen is not None and chosen.name == "ray"  # this machine may not have the device
    with loading("--model", model):
        classifier = AutoModelForVideoClassification.from_pretrained(model)
        classifier = classifier.to("cpu" if elsewhere else choose_device(device, cpu))
        processor = AutoVideoProcessor.from_pretrained(model)
    claim = read_claim(model)
    reading = claim.get("reading", {}) if data == claim.get("data") else {}
    if videos is not None:
        reading = {**reading, "data_root": str(videos)}
    clips = open_clips(model, claim, DataArguments(eval_data=data, eval_split=split, **reading), all_clips=all_clips)
    if told := clips.told():
        typer.echo(told, err=True)
    result = evaluation_by(chosen, model, predictions)(
        classifier,
        processor,
        clips.source,
        batch_size=batch_size,
        num_workers=num_workers,
        progress=screen.is_terminal,
    )
    if output is not None:
        known = {HELD_OUT: claim[HELD_OUT], "all_clips": all_clips} if HELD_OUT in claim else {}
        result.save(output, model=model, data=data, split=split, **known)
    if predictions is not None and chosen is None:
        result.save_predictions(predictions)
    if as_json:
        print_json(result.to_dict())
    else:
        if result.labels is not None:
            Console().print(result.table())
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        typer.echo(f"{len(result.ids)} videos in {result.seconds:.1f} s")
    fail_if([failure["id"] for failure in result.failed])
    if not only_guesses(result):
        return None
    if not as_json:
        typer.echo("top1 is not better than guessing: the model has not learnt these classes")
    return shlex.join(["hf-videovit", "train", "--checkpoint", model, "--data", data, "--output_dir", "NEW"])


def only_guesses(result: Any) -> bool:
    """
    Tell a classifier that has learnt nothing.

    Args:
        result ([`EvaluationResult`]):
            Its evaluation.

    Returns:
        `bool`: whether chance, or always the most frequent class, would be right as often.
    """
    if "top1" not in result.metrics:
        return False
    counts = [row["videos"] for row in result.per_class()]
    return result.metrics["top1"] <= max(1 / len(result.label_names), max(counts) / sum(counts))


def _way_to(entry: Any) -> str:
    """How to get the file of a published checkpoint."""
    if entry.file.address is not None:
        return f"`hf-videovit models {entry.name} --download` gets it"
    return f"`hf-videovit models {entry.name}` tells whether it can be had, and where"


def _settings(settings: list[str] | None) -> dict[str, Any]:
    """Fields and values of `--set FIELD=VALUE`, values read as YAML."""
    fields = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--set needs FIELD=VALUE, got {setting!r}.")
        fields[name] = parse_yaml(value, f"--set {setting!r}")
    return fields


def _print_published(as_json: bool) -> None:
    from ..published import list_published, published_entry

    entries = [published_entry(name) for name in list_published()]
    if as_json:
        print_json([{"name": one.name, "task": one.task, "file": one.file.path} for one in entries])
        return
    table = Table(Column("Name", no_wrap=True), "Summary", "File", box=None, pad_edge=False)
    for one in entries:
        listed = one.file.availability == "listed" and one.file.repository is not None
        where = f"{one.file.repository}/{one.file.path}" if listed else one.file.url or one.file.availability
        table.add_row(one.name, escape(one.summary), escape(where))
    Console().print(table)


def _classified(file: str, result: Any) -> dict[str, Any]:
    return {"file": file, **result} if isinstance(result, dict) else {"file": file, "predictions": result}


def _classification_table(rows: list[tuple[str, Any]]) -> Table:
    table = make_table("File", "Label", "Score")
    for file, result in rows:
        if isinstance(result, dict):
            table.add_row(escape(file), f"[red]not read:[/red] {escape(result['error'])}", "")
            continue
        for rank, entry in enumerate(result):
            table.add_row(escape(file) if rank == 0 else "", escape(entry["label"]), f"{entry['score']:.3f}")
    return table
