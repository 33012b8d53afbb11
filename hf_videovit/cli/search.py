"""Commands for search by an example clip: index, search."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..folders import refuse_foreign
from .common import AsJson, BatchSize, Device, Model, Videos, fail_if, load_encoder, make_table, print_json, tracked


commands = typer.Typer()

SHORT_SIDE = 256  # of copies in the page


@commands.command()
def index(
    videos: Videos,
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the index; an earlier one is updated.")],
    pooling: Annotated[str, typer.Option(help="default, mean or first.")] = "default",
    batch_size: BatchSize = 1,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """
    Index videos for `search`. Exit code 1 if a file could not be read; the others are still indexed.

    Called again, it embeds new and changed videos only, and removes those that are gone.
    """
    from dataclasses import asdict

    from ..doctor import find_videos
    from ..inference.search import update_index

    files = find_videos(videos)
    encoder, processor = load_encoder(model, device)
    changes = update_index(
        encoder,
        processor,
        files,
        output,
        name=model,
        pooling=pooling,
        batch_size=batch_size,
        progress=lambda made, total: tracked(made, "Embedding", total),
    )
    if as_json:
        print_json(asdict(changes))
    else:
        for reason in changes.failed.values():
            typer.echo(reason, err=True)
        typer.echo(f"{changes} -> {output}")
    fail_if(list(changes.failed))


@commands.command()
def search(
    index: Annotated[Path, typer.Argument(help="Folder that `index` wrote.", show_default=False)],
    clip: Annotated[str, typer.Argument(help="The example: a video.", show_default=False)],
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Number of videos to find.")] = 5,
    page: Annotated[Path | None, typer.Option(help="Write a page (.html) that plays what is found.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the model of the index is now. Default: as recorded.")
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Find the indexed videos that are most like a clip."""
    from dataclasses import asdict

    from ..inference.feature_sets import weights_hash
    from ..inference.features import get_video_features
    from ..inference.search import describe_index, search_index
    from ..inference.search_page import PAGE_MARK

    refuse_foreign(page, "--page", PAGE_MARK)
    known = describe_index(index)
    encoder, processor = load_encoder(model or known["model"], device)
    if weights_hash(encoder) != known["weights"]:
        raise ValueError(
            f"--model {model or known['model']} has other weights than the index {str(index)!r} is made of."
        )
    features: Any = get_video_features(encoder, processor, [clip], pooling=known["pooling"])
    hits = search_index(index, features[0], top_k)
    if page is not None:
        _write_page(clip, hits, page)
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    table = make_table("Score", "Video")
    for hit in hits:
        table.add_row(f"{hit.score:.3f}", hit.video)
    _print(table)
    if page is not None:
        typer.echo(f"the page is {page}")


def _write_page(clip: str, hits: list[Any], page: Path) -> None:
    from ..inference.search_page import write_search_page
    from ..training.preparing.encoding import EncodingSettings, encode_clip

    settings = EncodingSettings(short_side=SHORT_SIDE, reencode=True)
    write_search_page(clip, hits, page, encode=lambda video: encode_clip(video, settings).content)


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
