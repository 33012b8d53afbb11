"""Commands for training and for the steps around it: train, pretrain, preview, probe, prepare, generate."""

from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import loading
from .bulk import Address, MakingEngine
from .common import (
    AsJson,
    BatchSize,
    Device,
    ListFields,
    ShowPlan,
    fail_if,
    given,
    load_encoder,
    parse_label_names,
    print_json,
    screen,
)


if TYPE_CHECKING:
    from ..training.methods.common import Goal
    from ..training.preparing.encoding import EncodingSettings
    from ..training.preparing.key_frames import PreparedKeyFrames

commands = typer.Typer()
GENERATED = ("digit-motion", "digit-stills", "digit-scenes", "digit-pictures", "people-scenes")
# Methods that read features, images or parts of long films
WITHOUT_CLIPS = (
    *("action_detection", "end_to_end_localization", "image_classification", "semantic_segmentation"),
    "temporal_localization",
)


@commands.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Fine-tune a model: --recipe NAME or FILE, and any of its fields as --field value (--fields lists them).",
)
def train(
    ctx: typer.Context,
    list_fields: ListFields = False,
    plan: ShowPlan = False,
) -> Path | None:
    """Same arguments as examples/finetune.py; `accelerate launch -m hf_videovit train` for several devices."""
    return _run(ctx.args, list_fields, plan, "classifier")


@commands.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Pretrain a model without labels by its family's method. Recipe and fields as for `train`.",
)
def pretrain(
    ctx: typer.Context,
    list_fields: ListFields = False,
    plan: ShowPlan = False,
) -> Path | None:
    """Same arguments as examples/pretrain_*.py; `accelerate launch -m hf_videovit pretrain` for several devices."""
    return _run(ctx.args, list_fields, plan, "encoder")


@commands.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Draw training clips or images before and after augmentation, with targets and masks. Fields as for `train`.",
)
def preview(
    ctx: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="File of the picture.")] = Path("preview.png"),
    num_clips: Annotated[int, typer.Option("--clips", min=1, help="Number of clips or images in the picture.")] = 4,
) -> None:
    """No weights are loaded, and nothing is trained."""
    from ..training.defaults import read_run
    from ..training.preview import draw_preview, target_text

    for clip in draw_preview(read_run(ctx.args), output, num_clips):
        targets = ", ".join(target_text(target) for target in clip.labels)
        typer.echo(f"{clip.id}: {targets}" if targets else clip.id)
    typer.echo(f"drawn in {output}")


@commands.command()
def probe(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of any model.")],
    data: Annotated[str, typer.Option(help="Labelled videos: folder of classes, list, shards or data set repo id.")],
    kinds: Annotated[str, typer.Option("--probe", help="knn, linear or attentive, comma-separated.")] = "knn,linear",
    eval_data: Annotated[str | None, typer.Option(help="Evaluation clips. Defaults to the other split.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="Largest number of training clips.")] = None,
    batch_size: BatchSize = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Number of decoding processes.")] = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Score a model's frozen features on labelled videos. The exit code is 1 if some could not be read."""
    from ..training.arguments import RunConfig
    from ..training.data.opening import load_sources, require_labels
    from ..training.evaluation.held_out import count_trained_on
    from ..training.evaluation.probes import probe_model

    config = RunConfig.from_fields(
        probe=kinds, data=data, eval_data=eval_data, max_train_samples=max_samples, num_workers=num_workers
    )
    train_source, eval_source = load_sources(config.data, config.run.seed)
    if eval_source is None:
        raise ValueError(f"--data {data} has no evaluation clips: give --eval-data.")
    require_labels(train_source, f"--data {data}", "or give a list with labels")
    require_labels(eval_source, f"--eval-data {eval_data or data}", "or give a list with labels")
    if trained_on := count_trained_on(model, eval_source):
        typer.echo(
            f"the model was trained on {trained_on} of the {eval_source.num_samples} evaluation clips, so the scores "
            "are too high",
            err=True,
        )
    encoder, processor = load_encoder(model, device)
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
        print_json({"metrics": result.metrics, "num_train": result.num_train, "num_eval": result.num_eval})
    else:
        for name, value in result.metrics.items():
            typer.echo(f"{name}: {100 * value:.2f} %")
        typer.echo(f"scored on {result.num_eval} videos, probes trained on {result.num_train}")
    fail_if(result.failed)


@commands.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Annotations: a folder of classes, a list, or an official layout.")],
    output: Annotated[Path, typer.Argument(help="New or interrupted folder; for action detection a .jsonl file.")],
    layout: Annotated[
        str,
        typer.Option(
            help="auto, generic, kinetics, ssv2, ucf101, hmdb51 or diving48; for action detection ava, ava-kinetics, "
            "cvat or coco, for detected people slowfast, alphaction or fair, or people to run --detector."
        ),
    ] = "auto",
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos. Defaults to the annotations' own.")
    ] = None,
    format: Annotated[str, typer.Option(help="tar (WebDataset), parquet or folder.")] = "tar",
    for_training: Annotated[
        str | None,
        typer.Option(help="Recipe of the run: encode all clips so that it decodes them fast, with the same frames."),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            min=0, help="Largest shorter side of the frames; 0 for no limit. Defaults to 256 or the recipe's."
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(min=0, max=51, help="Quality of H.264; lower is better. Defaults to 18, for training to 17."),
    ] = None,
    keyframe_every: Annotated[
        int | None, typer.Option(min=1, help="Largest distance of keyframes, in frames. Defaults to 48.")
    ] = None,
    references_every: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="Distance of frames that others need, in frames. Defaults to the recipe's."),
    ] = None,
    reencode: Annotated[bool, typer.Option(help="Encode all clips, also those that could be copied.")] = False,
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Number of clips in a shard.")] = 128,
    split_number: Annotated[int, typer.Option(min=1, max=3, help="Official split of UCF101 and HMDB51.")] = 1,
    holdout: Annotated[float, typer.Option(help="Share of the clips for `val` if there are no splits.")] = 0.0,
    labels: Annotated[
        str | None,
        typer.Option(help="Order of the labels: k400, ssv2, ..., or a .json, .txt or .pbtxt file of names."),
    ] = None,
    label_separator: Annotated[str | None, typer.Option(help="Separator of several labels in a list.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the clips.")] = 0,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: 1; on Ray all free cores.")
    ] = None,
    engine: MakingEngine = "local",
    address: Address = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another preparation in OUTPUT.")] = False,
    offset: Annotated[
        float, typer.Option(help="ava, detected people: timestamp of the start of the videos, in seconds.")
    ] = 0.0,
    every: Annotated[float, typer.Option(help="cvat, people: distance of the key-frames, in seconds.")] = 1.0,
    person_label: Annotated[
        str, typer.Option(help="cvat, coco: label of people that is no action; '' if there is none.")
    ] = "person",
    movies: Annotated[Path | None, typer.Option(help="alphaction: list of the movies, one in a line.")] = None,
    detector: Annotated[
        str | None, typer.Option(help="people: folder or Hub id of an object detector that finds the people.")
    ] = None,
    person_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="people, slowfast, alphaction, fair: lowest score of a person.")
    ] = 0.5,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """
    Turn a data set as it is published into training data. The exit code is 1 if clips are missing or damaged.

    Annotations of action detection become JSON lines; their videos stay as they are. With --layout people, SOURCE is a
    video, a folder of videos, or JSON lines whose key-frames are used; an interrupted run goes on.
    """
    from ..bulk.engines import Engine
    from ..published import published_labels
    from ..training.preparing.key_frames import DETECTION_LAYOUTS, prepare_key_frames
    from ..training.preparing.writing import prepare as prepare_data

    if (detector is not None) != (layout == "people"):
        raise ValueError("--detector must be given with --layout people, and only there")
    of_clips = {
        "--for-training": for_training,
        "--short-side": short_side,
        "--crf": crf,
        "--keyframe-every": keyframe_every,
        "--references-every": references_every,
        "--reencode": reencode or None,
        "--engine ray": engine == "ray" or None,
        "--address": address,
    }
    wrong = [name for name, value in of_clips.items() if value is not None]
    if wrong and layout in ("people", *DETECTION_LAYOUTS):
        raise ValueError(f"{wrong[0]} is for clips that are written; --layout {layout} leaves videos as they are")
    if detector is not None:
        _find_people(source, output, videos, detector, device, every, person_threshold, overwrite, as_json)
        return
    names = parse_label_names(labels)
    if layout in DETECTION_LAYOUTS:
        label_names = published_labels(names) if isinstance(names, str) else names
        found = prepare_key_frames(
            source,
            output,
            layout,
            videos,
            label_names,
            offset,
            every,
            person_label or None,
            num_workers or 1,
            overwrite,
            movies,
            person_threshold,
        )
        _report_key_frames(found, as_json)
        return
    columns = given(label_separator=label_separator)
    result = prepare_data(
        source,
        output,
        layout=layout,
        videos=videos,
        format=format,
        encoding=_encoding(for_training, short_side, crf, keyframe_every, references_every, reencode),
        clips_per_shard=clips_per_shard,
        split_number=split_number,
        holdout=holdout,
        label_names=published_labels(names) if isinstance(names, str) else names,
        seed=seed,
        num_workers=num_workers,
        engine=Engine(engine, address),
        overwrite=overwrite,
        progress=screen.is_terminal,
        **columns,
    )
    if as_json:
        facts = {"folder": str(result.folder), "videos": result.videos, "num_labels": len(result.label_names)}
        print_json(facts | {"failures": result.failures, "duplicates": result.duplicates, "psnr": result.psnr})
    else:
        for failure in result.failures[:20]:
            typer.echo(f"{failure['split']}/{failure['id']}: {failure['error']}", err=True)
        if result.duplicates:
            typer.echo(f"{len(result.duplicates)} clips are duplicates (listed in prepared.json)", err=True)
        counts = ", ".join(f"{count} {split}" for split, count in result.videos.items())
        typer.echo(f"{counts}; {len(result.label_names)} labels -> {result.folder}")
        if result.psnr:
            worst = min(result.psnr, key=result.psnr.__getitem__)
            typer.echo(
                f"PSNR of {len(result.psnr)} encoded clips: median {median(result.psnr.values()):.1f} dB, lowest "
                f"{result.psnr[worst]:.1f} dB ({worst})"
            )
    fail_if([failure["source"] for failure in result.failures])


@commands.command()
def generate(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(GENERATED)}.")],
    output: Annotated[Path, typer.Argument(help="Folder that receives a folder of the data set.")],
    clips: Annotated[
        Path | None, typer.Option(help="people-scenes: folder train/ACTION/ and val/ACTION/ of clips of four actions.")
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="digit-motion: motion, identity (of the digit), appearance, both, speed, count, binding or change."
        ),
    ] = "motion",
    size: Annotated[
        int | None,
        typer.Option(min=16, help="digit-motion, digit-stills: side of the frames in pixels; 64 by default."),
    ] = None,
    num_train: Annotated[int | None, typer.Option("--train", min=1, help="Size of the train split.")] = None,
    num_eval: Annotated[int | None, typer.Option("--val", min=1, help="Size of the other split.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data set.")] = 0,
) -> Path:
    """
    Write a labelled data set that is made here: digits that move, stills of them, scenes of four for action detection,
    or pictures with boxes, masks and keypoints.
    """
    from ..training.preparing.action_scenes import build_digit_scenes, build_people_scenes
    from ..training.preparing.digit_motion import build_digit_motion
    from ..training.preparing.digit_pictures import build_digit_pictures
    from ..training.preparing.digit_stills import build_digit_stills

    if kind not in GENERATED:
        raise ValueError(f"`kind` must be one of {', '.join(GENERATED)}, got {kind!r}")
    if (clips is not None) != (kind == "people-scenes"):
        raise ValueError("--clips must be given for people-scenes, and only there.")
    if kind != "digit-motion" and labels != "motion":
        raise ValueError(f"--labels is for digit-motion only, got {labels!r} for {kind}")
    if size is not None and kind not in ("digit-motion", "digit-stills"):
        raise ValueError(f"--size is for digit-motion and digit-stills only, got {size} for {kind}")
    counts, sizes = given(num_train=num_train, num_test=num_eval), given(size=size)
    if kind == "digit-motion":
        folder = build_digit_motion(output, labels, seed=seed, **counts, **sizes)
    elif kind == "digit-stills":
        folder = build_digit_stills(output, seed=seed, **counts, **sizes)
    elif kind == "digit-pictures":
        folder = build_digit_pictures(output, seed=seed, **given(num_train=num_train, num_val=num_eval))
    elif clips is None:
        folder = build_digit_scenes(output, seed=seed, **given(num_train=num_train, num_val=num_eval))
    else:
        folder = build_people_scenes(output, clips, seed=seed, **given(num_train=num_train, num_val=num_eval))
    typer.echo(str(folder))
    return folder


def _encoding(
    recipe: str | None,
    short_side: int | None,
    crf: int | None,
    keyframe_every: int | None,
    references_every: int | None,
    reencode: bool,
) -> "EncodingSettings":
    """How to encode clips: as asked for, and for the rest as the recipe of a run needs them."""
    from ..training.preparing.encoding import EncodingSettings

    fields: dict[str, Any] = given(crf=crf, keyframe_every=keyframe_every, references_every=references_every)
    if short_side is not None:
        fields["short_side"] = short_side or None
    if recipe is None:
        return EncodingSettings(reencode=reencode or references_every is not None, **fields)
    from ..training.arguments import RunConfig
    from ..training.building import describe_inputs
    from ..training.preparing.for_training import training_encoding
    from ..training.recipe_files import read_recipe

    config = RunConfig.from_dict(read_recipe(recipe))
    if config.method.get("name") in WITHOUT_CLIPS:
        raise ValueError(f"--for-training {recipe} trains on no clips: its method is {config.method['name']}")
    _, processor = describe_inputs(config.model)
    resized = config.augmentation.crop in ("short_side", "center")
    return training_encoding(processor, tuple(config.augmentation.crop_short_side) if resized else (), **fields)


def _find_people(
    source: Path,
    output: Path,
    videos: Path | None,
    detector: str,
    device: str | None,
    every: float,
    threshold: float,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run a detector of people over videos, and print what it found. Exit code 1 if videos are missing or damaged."""
    from dataclasses import asdict
    from functools import partial

    from ..doctor import find_videos
    from ..inference.people import detect_people, person_detector
    from ..training.data.key_frames import read_key_frames
    from ..training.preparing.people import find_people

    wanted: dict[str, list[float] | None] = {}
    if source.suffix == ".jsonl":
        for row in read_key_frames(source).rows:
            times = wanted.setdefault(str((videos or source.parent) / row.video), [])
            assert times is not None
            times.append(row.time)
    else:
        wanted = dict.fromkeys(find_videos([str(source)]))
    if not wanted:
        raise ValueError(f"SOURCE {source} has no videos")
    with loading("--detector", detector):
        people = person_detector(detector, device)
    found = find_people(
        wanted,
        output,
        partial(detect_people, people, threshold=threshold),
        {"detector": detector, "person_threshold": threshold},
        every=every,
        overwrite=overwrite,
        progress=screen.is_terminal,
    )
    if as_json:
        print_json(asdict(found) | {"file": str(found.file)})
    else:
        for video in found.missing[:20]:
            typer.echo(f"missing: {video}", err=True)
        for video, reason in list(found.damaged.items())[:20]:
            typer.echo(f"damaged: {video}: {reason}", err=True)
        gone = f" ({found.resumed} videos were done)" if found.resumed else ""
        typer.echo(f"{found.num_key_frames} key-frames, {found.num_people} people -> {found.file}{gone}")
    fail_if([*found.missing, *found.damaged], "missing or damaged")


def _report_key_frames(found: "PreparedKeyFrames", as_json: bool) -> None:
    """Print what was prepared. Exit code 1 if videos are missing or damaged."""
    from ..training.data.key_frames import video_name

    counts_by_name = Counter({video_name(name): count for name, count in found.missing.items()})
    broken = set(map(video_name, found.damaged))
    lost = [name for name in found.missing if video_name(name) not in broken]
    counts = {"key_frames": found.num_key_frames, "people": found.num_people, "num_labels": len(found.label_names)}
    if as_json:
        lists = {"missing": found.missing, "damaged": found.damaged, "skipped": found.skipped}
        print_json({"file": str(found.file), **counts, **lists})
    else:
        for video in lost[:20]:
            typer.echo(f"missing: {video} ({found.missing[video]} annotations)", err=True)
        for video, reason in list(found.damaged.items())[:20]:
            typer.echo(f"damaged: {video} ({counts_by_name[video_name(video)]} annotations): {reason}", err=True)
        for reason, count in found.skipped.items():
            typer.echo(f"left out: {count} {reason}", err=True)
        if found.skipped:
            typer.echo("`hf-videovit doctor` names the lines of the annotations", err=True)
        numbers = f"{found.num_key_frames} key-frames, {found.num_people} people, {len(found.label_names)} labels"
        typer.echo(f"{numbers} -> {found.file}")
    fail_if([*lost, *found.damaged], "missing or damaged")


def _run(words: list[str], list_fields: bool, plan: bool, goal: "Goal") -> Path | None:
    """Start a run, or print its fields or its plan; the folder of the run."""
    from ..training.methods.choosing import describe_fields
    from .running import run_words

    if list_fields:
        typer.echo(describe_fields())
        return None
    return run_words(words, goal, plan=plan)
