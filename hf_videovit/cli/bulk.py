"""The options of the engines, and the parts of commands that use them: embed, classify, evaluate, doctor."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import choose_device, fail_if, load_classifier, load_encoder, print_json


if TYPE_CHECKING:
    from ..bulk.engines import BulkResult, Engine
    from ..bulk.work import Work


EngineName = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(
        help="Write a folder of parquet files, on this machine (local) or with Ray (ray); a stopped run continues."
    ),
]
Address = Annotated[
    str | None, typer.Option(help="--engine ray: address of a running cluster. Default: one on this machine.")
]
MakingEngine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Make the shards on this machine (local) or with Ray (ray)."),
]
Decoders = Annotated[int | None, typer.Option("--num-workers", min=1, help="--engine: number of decoding processes.")]
Models = Annotated[int | None, typer.Option("--num-models", min=1, help="--engine ray: number of models.")]
SHARDS = (".tar", ".parquet")


def engine_of(
    name: str | None,
    address: str | None,
    num_models: int | None = None,
    num_workers: int | None = None,
    device: str | None = "cpu",
    refused: Mapping[str, Any] | None = None,
) -> "Engine | None":
    """
    The engine that a command was asked for.

    Args:
        name (`str` or `None`):
            Value of `--engine`.
        address (`str` or `None`):
            Value of `--address`.
        num_models (`int`, *optional*):
            Value of `--num-models`.
        num_workers (`int`, *optional*):
            Value of `--num-workers`.
        device (`str` or `None`, *optional*, defaults to `"cpu"`):
            Value of `--device`. A given one need not be of this machine.
        refused (`Mapping`, *optional*):
            Values of options, by name, that cannot be given with an engine.

    Returns:
        [`Engine`] or `None`: nothing without `--engine`.

    Raises:
        ValueError: options do not go together.
    """
    from ..bulk.engines import Engine

    if name is None:
        for option, value in (("--address", address), ("--num-models", num_models)):
            if value is not None:
                raise ValueError(f"{option} needs --engine ray.")
        return None
    if given := [option for option, value in (refused or {}).items() if value]:
        raise ValueError(f"{', '.join(given)} cannot be given with --engine: results are a folder of parquet files.")
    return Engine(name, address, num_workers, num_models, device or choose_device(None))  # type: ignore[arg-type]


def open_samples(videos: Sequence[str]) -> tuple[Any, int | None]:
    """
    The videos of a command: files, or tars and parquet files of them.

    Args:
        videos (`Sequence[str]`):
            Paths, folders, patterns or URLs.

    Returns:
        `tuple[VideoSource, int | None]`: the videos, and the number of shares that they have by nature.

    Raises:
        ValueError: shards and single videos are given together, or nothing is found.
    """
    from ..doctor import find_videos
    from ..training.data.shards import shard_source
    from ..training.data.sources import VideoList

    files = find_videos(videos)
    shards = [file for file in files if Path(file).suffix in SHARDS]
    if shards and len(shards) < len(files):
        raise ValueError(f"Give videos and shards in two runs; shards here: {', '.join(shards[:3])}.")
    if shards:
        source = shard_source(shards)
        return source, source.num_shards
    return VideoList(files, files, [None] * len(files), []), None


def describe_model(model: str) -> dict[str, Any]:
    """
    The files or the revision of a model that results depend on.

    Args:
        model (`str`):
            Folder or Hub id.

    Returns:
        `dict[str, Any]`: hashes of the files of a folder; name and revision of a model on the Hub.
    """
    from transformers import AutoConfig

    from ..folders import file_hash

    folder = Path(model)
    if not folder.is_dir():
        return {"model": model, "revision": getattr(AutoConfig.from_pretrained(model), "_commit_hash", None)}
    files = [*folder.glob("*.json"), *folder.glob("*.safetensors")]
    kept = sorted(file for file in files if file.name.endswith((".safetensors", "config.json")))
    return {"model": {file.name: file_hash(file)[:16] for file in kept}}


def report(result: "BulkResult", as_json: bool) -> None:
    """
    Print what was done. Exit code 1 if files could not be read.

    Args:
        result ([`BulkResult`]):
            The result.
        as_json (`bool`):
            Whether to print JSON.

    Raises:
        typer.Exit: files could not be read.
    """
    facts = {"folder": str(result.folder), "rows": result.num_rows, "rows_kept": result.num_kept}
    if as_json:
        print_json(facts | {"failed": result.failed})
    else:
        for row in result.failed[:20]:
            typer.echo(f"{row['id']}: {row['error']}", err=True)
        before = f" ({result.num_kept} were there before)" if result.num_kept else ""
        typer.echo(f"{result.num_rows} videos{before} -> {result.folder}")
    fail_if([row["id"] for row in result.failed])


def _run(
    work: "Work", videos: Sequence[str], output: Path, description: Mapping[str, Any], engine: "Engine", as_json: bool
) -> None:
    from ..bulk.engines import run_work

    source, shares = open_samples(videos)
    report(run_work(work, source, output, description=description, engine=engine, num_shares=shares), as_json)


def embed_in_bulk(
    videos: Sequence[str],
    model: str,
    output: Path,
    engine: "Engine",
    *,
    pooling: str,
    windows: Mapping[str, Any] | None,
    batch_size: int,
    as_json: bool,
) -> None:
    """
    The features of `embed` by an engine.

    Args:
        videos (`Sequence[str]`):
            Paths, folders, patterns or URLs.
        model (`str`):
            Folder or Hub id.
        output (`Path`):
            Folder of the results.
        engine ([`Engine`]):
            Where it runs.
        pooling (`str`):
            See [`get_video_features`].
        windows (`Mapping` or `None`):
            `window`, `stride`, `squash` for features of windows.
        batch_size (`int`):
            Videos or windows in a forward pass.
        as_json (`bool`):
            Whether to print JSON.
    """
    from transformers import AutoVideoProcessor

    from ..files import loading
    from ..inference.bulk import embedding_work

    with loading("--model", model):
        processor = AutoVideoProcessor.from_pretrained(model)
    load = functools.partial(load_encoder, model, engine.device)
    work = embedding_work(load, processor, pooling=pooling, windows=windows, batch_size=batch_size)
    description = {"work": "embed", **describe_model(model), "pooling": pooling, "windows": windows}
    _run(work, videos, output, description, engine, as_json)


def classify_in_bulk(
    videos: Sequence[str],
    model: str,
    output: Path | None,
    engine: "Engine",
    *,
    top_k: int,
    views: Mapping[str, int],
    batch_size: int,
    as_json: bool,
) -> None:
    """
    The classes of `classify` by an engine.

    Args:
        videos (`Sequence[str]`):
            Paths, folders, patterns or URLs.
        model (`str`):
            Folder or Hub id.
        output (`Path` or `None`):
            Folder of the results.
        engine ([`Engine`]):
            Where it runs.
        top_k (`int`):
            Labels of a video.
        views (`Mapping`):
            Clips and crops, if they are not the checkpoint's.
        batch_size (`int`):
            Videos in a forward pass.
        as_json (`bool`):
            Whether to print JSON.

    Raises:
        ValueError: there is no folder for the results.
    """
    from transformers import AutoVideoProcessor

    from ..files import loading
    from ..inference.bulk import classification_work
    from .common import check_classifier

    if output is None:
        raise ValueError("--engine needs --output, the folder of the results.")
    check_classifier(model)
    with loading("--model", model):
        processor = AutoVideoProcessor.from_pretrained(model)
    load = functools.partial(load_classifier, model, engine.device)
    work = classification_work(load, processor, top_k=top_k, views=views, batch_size=batch_size)
    description = {"work": "classify", **describe_model(model), "top_k": top_k, "views": dict(views)}
    _run(work, videos, output, description, engine, as_json)


def load_scorer(model: str, device: str) -> Any:
    """
    Load a classifier for an evaluation.

    Args:
        model (`str`):
            Folder or Hub id.
        device (`str`):
            Its device.

    Returns:
        `PreTrainedModel`
    """
    from transformers import AutoModelForVideoClassification

    return AutoModelForVideoClassification.from_pretrained(model).to(choose_device(device))


def evaluation_by(engine: "Engine | None", model: str, predictions: Path | None) -> Callable[..., Any]:
    """
    How a classifier is evaluated.

    Args:
        engine ([`Engine`] or `None`):
            Where it runs; in this process without one.
        model (`str`):
            Folder or Hub id.
        predictions (`Path` or `None`):
            Folder of the rows, for an engine.

    Returns:
        `Callable`: takes model, processor and source, and the options of [`evaluate_model`].

    Raises:
        ValueError: there is no folder for the rows.
    """
    from ..training.evaluation.bulk import evaluate_with_engine
    from ..training.evaluation.evaluation import evaluate_model

    if engine is None:
        return evaluate_model
    if predictions is None:
        raise ValueError("--engine needs --predictions, the folder of a row for each video.")
    folder, chosen = predictions, engine

    def evaluate(classifier: Any, processor: Any, source: Any, *, batch_size: int, **_: Any) -> Any:
        def load() -> Any:
            return classifier

        loader = functools.partial(load_scorer, model, chosen.device) if chosen.name == "ray" else load
        description = {"work": "evaluate", **describe_model(model)}
        return evaluate_with_engine(
            loader, classifier, processor, source, folder, chosen, batch_size=batch_size, description=description
        )

    return evaluate


def check_in_bulk(
    videos: Sequence[str], report_folder: Path | None, engine: "Engine", decoder: str, as_json: bool
) -> None:
    """
    The checks of `doctor` by an engine. Damaged videos have a row as well.

    Args:
        videos (`Sequence[str]`):
            Paths, folders, patterns or URLs.
        report_folder (`Path` or `None`):
            Folder of the results.
        engine ([`Engine`]):
            Where it runs.
        decoder (`str`):
            Decoder to read with.
        as_json (`bool`):
            Whether to print JSON.

    Raises:
        ValueError: there is no folder for the results.
    """
    from ..doctor import checking_work

    if report_folder is None:
        raise ValueError("--engine needs --report, the folder of the results.")
    _run(checking_work(decoder), videos, report_folder, {"work": "doctor", "decoder": decoder}, engine, as_json)


def load_film_localizer(
    model: str, encoder: str | None, device: str, options: Mapping[str, Any]
) -> Callable[..., Any]:
    """
    Load a localiser for films.

    Args:
        model (`str`):
            Folder or Hub id.
        encoder (`str` or `None`):
            That of the encoder, for a localiser without one.
        device (`str`):
            Device of both.
        options (`Mapping`):
            Arguments of the pipeline.

    Returns:
        `Callable`: takes a path and returns segments.
    """
    from transformers import pipeline

    from ..inference.temporal_localization import TASK, load_localizer

    find: Any = pipeline(TASK, **load_localizer(model, encoder), device=device)  # type: ignore[call-overload]
    return functools.partial(find, **options)


def load_film_detector(model: str, detector: str, device: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """
    Load an action detector for films.

    Args:
        model (`str`):
            Folder or Hub id.
        detector (`str`):
            That of the detector of people.
        device (`str`):
            Device of both.
        options (`Mapping`):
            Arguments of the pipeline.

    Returns:
        `Callable`: takes a path and returns key-frames.
    """
    from transformers import pipeline

    from ..inference.people import person_detector

    detect: Any = pipeline("action-detection", model=model, device=device)  # type: ignore[call-overload]
    return functools.partial(detect, person_detector=person_detector(detector, device), **options)


def read_films(
    videos: str,
    output: Sequence[Path],
    load: Callable[[], Callable[[str], Any]],
    column: str,
    engine: "Engine",
    description: Mapping[str, Any],
) -> None:
    """
    The answers of `localize` and `detect-actions` by an engine.

    Args:
        videos (`str`):
            A path, folder, pattern or URL.
        output (`Sequence[Path]`):
            The folder of the results.
        load (`Callable`):
            Loads the model; takes no arguments.
        column (`str`):
            See [`film_work`].
        engine ([`Engine`]):
            Where it runs.
        description (`Mapping`):
            See [`run_work`].

    Raises:
        ValueError: there is not one folder.
    """
    from ..inference.bulk import film_work

    if len(output) != 1:
        raise ValueError(f"--engine needs one --output, the folder of the results, got {len(output)}.")
    _run(film_work(load, column), [videos], output[0], description, engine, False)
