"""The command line `hf-videovit`. Commands import what they need when they run."""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table


class OneLineErrors(typer.core.TyperGroup):
    """Turns what a user can cause into one line and exit code 2; `--debug` shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"error: {message} (--debug shows where)", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Video transformers: convert official checkpoints, classify and embed videos, train and evaluate.",
)
screen = Console(stderr=True)

Model = Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a model.")]
Videos = Annotated[list[str], typer.Argument(help="Video files, folders, glob patterns or URLs.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="Device such as cpu or cuda:0; by default an accelerator if any.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Videos that go through the model together.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
ListFields = Annotated[bool, typer.Option("--fields", help="List the fields and their defaults.")]
ShowPlan = Annotated[bool, typer.Option("--plan", help="Show size, steps, memory and time; run nothing.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE of the configuration; may be repeated.")
]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Options that stand before the command."""
    if debug:
        logging.getLogger("hf_videovit").setLevel(logging.DEBUG)


@app.command()
def convert(
    checkpoint: Annotated[Path | None, typer.Option(help="Official .pth, .bin or .safetensors, or a folder.")] = None,
    from_hub: Annotated[str | None, typer.Option(help="Repo on the Hub to read instead; its code is not run.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch or commit of --from-hub.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="New folder for the model.")] = None,
    published: Annotated[str | None, typer.Option(help="Name of a published checkpoint; see --list.")] = None,
    model_type: Annotated[str | None, typer.Option(help="Family, where --published is not given.")] = None,
    task: Annotated[str | None, typer.Option(help="What the model is for, as video-classification.")] = None,
    labels: Annotated[str | None, typer.Option(help="k400, k600, k700, k710, or a .json or .txt of names.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16; keep leaves the file's.")] = "float32",
    entry: Annotated[str | None, typer.Option(help="Entry of the file with the weights, as model_ema.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE of the configuration.")] = None,
    list_names: Annotated[bool, typer.Option("--list", help="List the published checkpoints and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a model folder of an official checkpoint: weights, configuration, processor with its protocol, card."""
    from .convert import convert_to_folder
    from .hub.cards import write_converted_card
    from .hub.fetching import fetch_weights
    from .published import published_entry

    if list_names:
        _print_published(as_json)
        return
    if (checkpoint is None) == (from_hub is None) or output is None:
        raise ValueError("--output and one of --checkpoint and --from-hub are needed (or --list).")
    if checkpoint is None:
        checkpoint = fetch_weights(str(from_hub), revision)
    known = None if published is None else published_entry(published)
    if known is not None:
        model_type, task = model_type or known.model_type, task or known.task
    if model_type is None or task is None:
        raise ValueError("Give --published NAME, or --model-type and --task.")
    options = {**_settings(settings), **_given(labels=_label_names(labels), entry=entry, published=published)}
    convert_to_folder(model_type, checkpoint, output, task=task, dtype=None if dtype == "keep" else dtype, **options)
    unchanged = known is not None and task == known.task and not labels and not settings
    card = write_converted_card(output, from_hub or checkpoint.name, published=published if unchanged else None)
    if as_json:
        _print_json({"folder": str(output), "card": str(card), "model_type": model_type, "task": task})
    else:
        typer.echo(f"{from_hub or checkpoint} -> {output}")


@app.command()
def classify(
    videos: Videos,
    model: Model,
    top_k: Annotated[int, typer.Option(min=1, help="Labels to show for each video.")] = 5,
    batch_size: BatchSize = 1,
    device: Device = None,
    num_clips: Annotated[int | None, typer.Option(min=1, help="Clips a video instead of the checkpoint's.")] = None,
    num_crops: Annotated[int | None, typer.Option(min=1, help="Crops a clip instead of the checkpoint's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Name what happens in videos. Exit code 1 if a file could not be read; the others are classified all the same."""
    from transformers import pipeline

    from .doctor import find_videos

    files = find_videos(videos)
    _check_classifier(model)
    classifier: Any = pipeline("video-classification", model=model, device=device)
    overrides = _given(num_clips=num_clips, num_crops=num_crops)
    results = classifier((file for file in files), batch_size=batch_size, top_k=top_k, on_error="report", **overrides)
    rows = list(zip(files, _tracked(results, "Classifying", len(files)), strict=True))
    if as_json:
        _print_json([_classified(file, result) for file, result in rows])
    else:
        Console().print(_classification_table(rows))
    _fail_if([file for file, result in rows if isinstance(result, dict)])


@app.command()
def embed(
    videos: Videos,
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="X.safetensors, X.npy, or a folder of .npy files.")],
    pooling: Annotated[str, typer.Option(help="default, mean, first or tokens.")] = "default",
    window: Annotated[int | None, typer.Option(min=1, help="Frames of a window; see --stride.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="A feature for every window, so many frames apart.")
    ] = None,
    squash: Annotated[bool, typer.Option(help="With windows: the published localisation features' resize.")] = False,
    batch_size: BatchSize = 1,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Save features of videos. Exit code 1 if a file could not be read; the others are saved all the same."""
    from .doctor import find_videos
    from .features import iter_video_features, save_features
    from .modeling.video_decoding import VideoDecodingError

    encoder, processor = _load_encoder(model, device)
    options: dict[str, Any] = {
        "pooling": pooling,
        "window": window,
        "stride": stride,
        "squash": squash,
        "batch_size": batch_size,
    }
    one_file = output.suffix in (".safetensors", ".npy")
    features: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    files = find_videos(videos)
    results = iter_video_features(encoder, processor, files, on_error="return", **options)
    for file, feature in zip(files, _tracked(results, "Embedding", len(files))):
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
        _print_json(rows)
    else:
        for row in rows:
            typer.echo(f"{row['file']}: {row.get('error') or 'x'.join(map(str, row['shape']))}", err="error" in row)
        typer.echo(f"{len(rows) - len(failed)} of {len(rows)} videos -> {output}")
    _fail_if(failed)


@app.command()
def evaluate(
    model: Model,
    data: Annotated[str, typer.Option(help="Folder of classes, list, shards or data set repo id, with labels.")],
    split: Annotated[str | None, typer.Option(help="Split; by default the first of val, validation, test.")] = None,
    batch_size: BatchSize = 1,
    num_workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 0,
    device: Device = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result to this .json file.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Write a row a video to this .jsonl file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on labelled videos by its own protocol. Exit code 1 if some could not be read."""
    from transformers import AutoModelForVideoClassification, AutoVideoProcessor

    from .training.arguments import DataArguments
    from .training.evaluation import evaluate_model
    from .training.opening import load_evaluation_source

    _check_classifier(model)
    classifier = AutoModelForVideoClassification.from_pretrained(model).to(_device(device))
    result = evaluate_model(
        classifier,
        AutoVideoProcessor.from_pretrained(model),
        load_evaluation_source(DataArguments(eval_data=data, eval_split=split)),
        batch_size=batch_size,
        num_workers=num_workers,
        progress=screen.is_terminal,
    )
    if output is not None:
        result.save(output, model=model, data=data, split=split)
    if predictions is not None:
        result.save_predictions(predictions)
    if as_json:
        _print_json(result.to_dict())
    else:
        if result.labels is not None:
            Console().print(result.table())
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        typer.echo(f"{len(result.ids)} videos in {result.seconds:.1f} s")
    _fail_if([failure["id"] for failure in result.failed])


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Fine-tune a model: --recipe FILE.yaml, and any of its fields as --field value (--fields lists them).",
)
def train(
    ctx: typer.Context,
    list_fields: ListFields = False,
    plan: ShowPlan = False,
) -> None:
    """Same arguments as examples/finetune.py; `accelerate launch` that script for several devices."""
    from .hub.publishing import check_access, finish_run
    from .training.finetuning import finetune

    config = _run_config(ctx.args, list_fields, plan, "classification")
    if config is None:
        return
    if config.run.push_to_hub:
        check_access(config.run.push_to_hub)
    result = finetune(config)
    published = finish_run(result.output_dir, config.run, result.facts)
    for name, value in ({} if result.evaluation is None else result.evaluation.metrics).items():
        typer.echo(f"{name}: {100 * value:.2f} %")
    typer.echo(f"saved in {result.output_dir}{f', published as {published.url}' if published else ''}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Pretrain a model without labels, as its family does; recipe and fields as for `train`.",
)
def pretrain(
    ctx: typer.Context,
    list_fields: ListFields = False,
    plan: ShowPlan = False,
) -> None:
    """Same arguments as examples/pretrain_*.py; `accelerate launch` the family's script for several devices."""
    from .hub.publishing import check_access, finish_run
    from .training.building import pretraining_task
    from .training.contrastive import pretrain_contrastive
    from .training.pretraining import pretrain as pretrain_masked
    from .training.word_pretraining import pretrain_words

    config = _run_config(ctx.args, list_fields, plan, None)
    if config is None:
        return
    if config.run.push_to_hub:
        check_access(config.run.push_to_hub)
    methods: dict[str, Any] = {"contrastive": pretrain_contrastive, "masked_words": pretrain_words}
    result = methods.get(pretraining_task(config.model), pretrain_masked)(config)
    published = finish_run(result.output_dir, config.run, result.facts)
    for name, value in result.facts["outcomes"].items():
        typer.echo(f"{name}: {value}")
    typer.echo(f"saved in {result.output_dir}{f', published as {published.url}' if published else ''}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Draw what training sees: clips before and after augmentation, targets, masks; fields as for `train`.",
)
def preview(
    ctx: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path("preview.png"),
    task: Annotated[
        str | None, typer.Option(help="classification, masked_modeling or masked_words; by default the recipe's.")
    ] = None,
    num_clips: Annotated[int, typer.Option("--clips", min=1, help="Clips in the picture.")] = 4,
) -> None:
    """No weights are loaded, and nothing is trained."""
    from .training.arguments import parse_arguments
    from .training.preview import draw_preview, target_text

    for clip in draw_preview(parse_arguments(ctx.args), output, task, num_clips):
        targets = ", ".join(target_text(target) for target in clip.labels)
        typer.echo(f"{clip.id}: {targets}" if targets else clip.id)
    typer.echo(f"drawn in {output}")


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of any model.")],
    data: Annotated[str, typer.Option(help="Folder of classes, list, shards or data set repo id, with labels.")],
    kinds: Annotated[str, typer.Option("--probe", help="knn, linear, attentive; several with commas.")] = "knn,linear",
    eval_data: Annotated[str | None, typer.Option(help="Other clips to score; by default the other split.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="Learn from at most so many clips.")] = None,
    batch_size: BatchSize = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Score a model's frozen features on labelled videos. Exit code 1 if some could not be read."""
    from .training.arguments import RunConfig
    from .training.opening import load_sources
    from .training.probes import probe_model

    config = RunConfig.from_fields(
        probe=kinds, data=data, eval_data=eval_data, max_train_samples=max_samples, num_workers=num_workers
    )
    train_source, eval_source = load_sources(config.data, config.run.seed)
    if eval_source is None:
        raise ValueError(f"--data {data} has no clips to score: give --eval-data.")
    encoder, processor = _load_encoder(model, device)
    result = probe_model(
        encoder,
        processor,
        train_source,
        eval_source,
        config.probe,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    if as_json:
        _print_json({"metrics": result.metrics, "num_train": result.num_train, "num_eval": result.num_eval})
    else:
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        typer.echo(f"{result.num_eval} videos by what {result.num_train} teach")
    _fail_if(result.failed)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Annotations: a folder of classes, a list, or an official layout.")],
    output: Annotated[Path, typer.Argument(help="New folder, or one in which this preparation was interrupted.")],
    layout: Annotated[str, typer.Option(help="auto, generic, kinetics, ssv2, ucf101, hmdb51 or diving48.")] = "auto",
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos, if not that of the annotations.")] = None,
    format: Annotated[str, typer.Option(help="tar (WebDataset), parquet or folder.")] = "tar",
    short_side: Annotated[int, typer.Option(min=0, help="Shorter side of the frames at most; 0 keeps it.")] = 256,
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality of H.264; smaller is better.")] = 18,
    reencode: Annotated[bool, typer.Option(help="Encode also what could stay as it is.")] = False,
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Clips of a shard.")] = 128,
    split_number: Annotated[int, typer.Option(min=1, max=3, help="Official split of UCF101 and HMDB51.")] = 1,
    holdout: Annotated[float, typer.Option(help="Share that becomes `val`, where there are no splits.")] = 0.0,
    labels: Annotated[str | None, typer.Option(help="Order: k400, ssv2, ..., or a .json or .txt of names.")] = None,
    label_separator: Annotated[str | None, typer.Option(help="Stands between several labels in a list.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the clips.")] = 0,
    num_workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace another preparation in OUTPUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make data that trains of a data set as it is published. Exit code 1 if clips are missing or damaged."""
    from .published import published_labels
    from .training.encoding import EncodingSettings
    from .training.preparing import prepare as prepare_data

    names = _label_names(labels)
    columns = _given(label_separator=label_separator)
    result = prepare_data(
        source,
        output,
        layout=layout,
        videos=videos,
        format=format,
        encoding=EncodingSettings(short_side or None, crf, reencode=reencode),
        clips_per_shard=clips_per_shard,
        split_number=split_number,
        holdout=holdout,
        label_names=published_labels(names) if isinstance(names, str) else names,
        seed=seed,
        num_workers=num_workers,
        overwrite=overwrite,
        progress=screen.is_terminal,
        **columns,
    )
    if as_json:
        facts = {"folder": str(result.folder), "videos": result.videos, "num_labels": len(result.label_names)}
        _print_json(facts | {"failures": result.failures, "duplicates": result.duplicates})
    else:
        for failure in result.failures[:20]:
            typer.echo(f"{failure['split']}/{failure['id']}: {failure['error']}", err=True)
        if result.duplicates:
            typer.echo(f"{len(result.duplicates)} clips are there more than once (prepared.json lists them)", err=True)
        counts = ", ".join(f"{count} {split}" for split, count in result.videos.items())
        typer.echo(f"{counts}; {len(result.label_names)} labels -> {result.folder}")
    _fail_if([failure["source"] for failure in result.failures])


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained or converted model.")],
    repo_id: Annotated[str, typer.Option(help="Repo on the Hub, as owner/name; made if it is not there.")],
    private: Annotated[bool, typer.Option(help="Make a new repo private.")] = False,
    branch: Annotated[str, typer.Option(help="Branch, made if it is not there.")] = "main",
    pull_request: Annotated[bool, typer.Option(help="Open a pull request instead of committing.")] = False,
    with_code: Annotated[bool, typer.Option(help="Send the code too, for trust_remote_code.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be sent.")] = False,
    overwrite_card: Annotated[bool, typer.Option(help="Replace a card that a person edited.")] = False,
    max_shard_size: Annotated[str, typer.Option(help="Divide larger weights.")] = "5GB",
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Publish with hf_videovit",
    as_json: AsJson = False,
) -> None:
    """Send a model with its processor, card and results to the Hub, in one commit. Go on after an interruption."""
    from .hub.publishing import publish as send

    done = send(
        folder,
        repo_id,
        private=private,
        revision=branch,
        create_pr=pull_request,
        with_code=with_code,
        dry_run=dry_run,
        overwrite_card=overwrite_card,
        max_shard_size=max_shard_size,
        message=message,
    )
    if as_json:
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in done.files]
        _print_json({"repo_id": done.repo_id, "url": done.url, "files": files, "deleted": list(done.deleted)})
        return
    table = _table("file", "bytes", "sha256")
    for file in done.files:
        table.add_row(file.path, f"{file.size:,}", file.sha256[:12])
    Console().print(table)
    for path in done.deleted:
        typer.echo(f"removed from the repo: {path}")
    where = f"would go to {done.repo_id} ({done.revision})" if dry_run else f"-> {done.url}"
    typer.echo(f"{len(done.files)} files, {done.size / 1e6:.1f} MB {where}")


@app.command()
def reproduce(
    folder: Annotated[Path, typer.Argument(help="Folder of a model with results.json.")],
    data: Annotated[str | None, typer.Option(help="Where the videos are; by default as results.json says.")] = None,
    split: Annotated[str | None, typer.Option(help="Split; by default that of results.json.")] = None,
    batch_size: BatchSize = 1,
    num_workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 0,
    device: Device = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Difference in points that counts as the same.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run the evaluation again that a model's card claims. Exit code 1 if it does not come out."""
    from .training.receipts import reproduce as run_again

    _check_classifier(str(folder))
    done = run_again(
        folder,
        data=data,
        split=split,
        batch_size=batch_size,
        num_workers=num_workers,
        device=_device(device),
        tolerance=tolerance / 100 + 1e-9,
        progress=screen.is_terminal,
    )
    if as_json:
        facts = {"confirmed": done.confirmed, "same_videos": done.same_videos, "claimed": dict(done.claimed)}
        changes = {name: list(values) for name, values in done.changed_protocol.items()}
        _print_json({**facts, "measured": dict(done.measured), "changed_protocol": changes})
    else:
        table = _table("metric", "claimed", "measured", "difference")
        for name, difference in done.differences.items():
            measured = done.measured.get(name, float("nan"))
            table.add_row(
                name, f"{100 * done.claimed[name]:.2f} %", f"{100 * measured:.2f} %", f"{100 * difference:+.2f}"
            )
        Console().print(table)
        if done.same_videos is False:
            typer.echo("The videos or their labels are not those of the claim.")
        for name, (claimed, present) in done.changed_protocol.items():
            typer.echo(f"{name}: {claimed} then, {present} now")
        typer.echo("confirmed" if done.confirmed else "not confirmed")
    if not done.confirmed:
        raise typer.Exit(1)


@app.command()
def visualize(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")],
    video: Annotated[str | None, typer.Option(help="A clip, for the map of the pooling's attention.")] = None,
    num_filters: Annotated[int, typer.Option(min=1, help="Filters of each tube.")] = 8,
) -> None:
    """Draw a TubeViT: its kernels, where each tube looks, and which places of a clip its pooling weighs."""
    from .tube_pictures import draw_kernels, draw_token_map, draw_video_pooling

    encoder, processor = _load_encoder(model, None)
    drawn = [
        draw_kernels(encoder, output / "kernels.png", num_filters),
        draw_token_map(encoder.config, output / "tokens.png"),
    ]
    if video is not None:
        drawn.append(draw_video_pooling(encoder, processor, video, output / "pooling.png"))
    for path in drawn:
        typer.echo(f"drawn in {path}")


@app.command()
def doctor(
    videos: Annotated[list[str] | None, typer.Argument(help="Video files or folders to check.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write every check to this .csv or .json file.")] = None,
    decoder: Annotated[str, typer.Option(help="auto, pyav, decord or torchcodec.")] = "auto",
    num_workers: Annotated[int, typer.Option(min=1, help="Processes that check files.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Report on this machine; with paths, decode every video. Exit code 1 if one is not wholly readable."""
    from dataclasses import asdict

    from .doctor import check_videos, environment_report, find_videos, write_report

    if report is not None and report.suffix not in (".csv", ".json"):
        raise ValueError(f"--report must end in .csv or .json, got {str(report)!r}.")
    environment = environment_report()
    files = find_videos(videos or [])
    checks = sorted(
        _tracked(check_videos(files, decoder=decoder, num_workers=num_workers), "Checking", len(files)),
        key=lambda check: check.path,
    )
    if report is not None:
        write_report(checks, report)
    if as_json:
        _print_json({"environment": environment, "videos": [asdict(check) for check in checks]})
    else:
        _print_environment(environment)
        if checks:
            _print_checks(checks)
    _fail_if([check.path for check in checks if check.status != "ok"], "not wholly readable")


def _run_config(words: list[str], list_fields: bool, plan: bool, task: str | None) -> Any:
    """
    The run that the words describe; none where only its fields or its plan were asked for, and are shown. `task`: by
    default the model's way of pretraining.
    """
    import rich

    from .training.arguments import describe_arguments, parse_arguments
    from .training.building import pretraining_task
    from .training.planning import plan_run

    if list_fields:
        typer.echo(describe_arguments())
        return None
    config = parse_arguments(words)
    if plan:
        rich.print(plan_run(config, task or pretraining_task(config.model)))  # type: ignore[arg-type]  # a literal
        return None
    return config


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _settings(settings: list[str] | None) -> dict[str, Any]:
    """Fields and values of `--set FIELD=VALUE`, values read as YAML."""
    import yaml

    fields = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--set needs FIELD=VALUE, got {setting!r}.")
        fields[name] = yaml.safe_load(value)
    return fields


def _label_names(labels: str | None) -> str | list[str] | None:
    """The name of a list, or the names in a file: a JSON list, or one name a line."""
    if labels is None or Path(labels).suffix not in (".json", ".txt"):
        return labels
    text = Path(labels).read_text(encoding="utf-8")
    names = json.loads(text) if Path(labels).suffix == ".json" else text.splitlines()
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"--labels {labels} must hold a list of names.")
    return names


def _print_published(as_json: bool) -> None:
    from .published import list_published, published_entry

    entries = [published_entry(name) for name in list_published()]
    if as_json:
        _print_json([{"name": one.name, "task": one.task, "file": one.file.path} for one in entries])
        return
    table = Table(Column("Name", no_wrap=True), "Summary", "File", box=None, pad_edge=False)
    for one in entries:
        listed = one.file.availability == "listed" and one.file.repository is not None
        where = f"{one.file.repository}/{one.file.path}" if listed else one.file.url or one.file.availability
        table.add_row(one.name, escape(one.summary), escape(where))
    Console().print(table)


def _check_classifier(model: str) -> None:
    architecture = _architecture(model)
    if not architecture.endswith("Classification"):
        raise ValueError(
            f"--model {model} holds {architecture or 'an unknown model'}, which has no classifier; "
            "fine-tune it first (`hf-videovit train`), or use `hf-videovit embed`."
        )


def _architecture(model: str) -> str:
    from transformers import AutoConfig

    return (AutoConfig.from_pretrained(model).architectures or [""])[0]


def _device(device: str | None) -> str:
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def _load_encoder(model: str, device: str | None) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoModelForPreTraining, AutoVideoProcessor

    # A pre-training checkpoint has a norm on every token instead of the pooled one that AutoModel would make up.
    loader = AutoModelForPreTraining if _architecture(model).endswith("ForPreTraining") else AutoModel
    return loader.from_pretrained(model).to(_device(device)), AutoVideoProcessor.from_pretrained(model)


def _classified(file: str, result: Any) -> dict[str, Any]:
    return {"file": file, **result} if isinstance(result, dict) else {"file": file, "predictions": result}


def _table(*columns: str) -> Table:
    return Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False)


def _classification_table(rows: list[tuple[str, Any]]) -> Table:
    table = _table("File", "Label", "Score")
    for file, result in rows:
        if isinstance(result, dict):
            table.add_row(escape(file), f"[red]not read:[/red] {escape(result['error'])}", "")
            continue
        for rank, entry in enumerate(result):
            table.add_row(escape(file) if rank == 0 else "", escape(entry["label"]), f"{entry['score']:.3f}")
    return table


def _print_environment(environment: dict[str, Any]) -> None:
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    table.add_row("python", f"{environment['python']} on {environment['platform']}")
    for name, version in environment["packages"].items():
        table.add_row(name, version or "[dim]not installed[/dim]")
    for name, info in environment["decoders"].items():
        state = f"FFmpeg {info['ffmpeg'] or 'unknown'}" if info["available"] else f"[dim]{info['reason']}[/dim]"
        table.add_row(f"decoder {name}", state)
    devices = ", ".join(f"{device['name']} ({device['memory_gb']} GB)" for device in environment["accelerators"])
    table.add_row("accelerator", devices or "none: the CPU computes")
    table.add_row("memory", f"{environment['memory_gb']} GB")
    table.add_row("cores", str(environment["cpu_cores"]))
    console = Console()
    console.print(table)
    for warning in environment["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {warning}")


def _print_checks(checks: list[Any]) -> None:
    console = Console()
    table = _table("File", "State", "Frames", "Reason")
    troubled = [check for check in checks if check.status != "ok"]
    for check in troubled:
        counts = f"{check.decoded_frames}/{check.num_frames}"
        table.add_row(escape(check.path), check.status, counts, escape(check.reason))
    if troubled:
        console.print(table)
    console.print(f"{len(checks) - len(troubled)} of {len(checks)} videos are wholly readable")


def _tracked(items: Iterable[Any], title: str, total: int | None = None) -> Iterator[Any]:
    """`items` under a progress bar on standard error, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        yield from progress.track(items, description=title, total=total)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _fail_if(failed: list[str], state: str = "could not be read") -> None:
    if failed:
        shown = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        typer.echo(f"{len(failed)} file(s) {state}: {shown}", err=True)
        raise typer.Exit(1)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
