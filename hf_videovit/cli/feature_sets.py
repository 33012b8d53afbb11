"""The part of `embed` that writes a set of features of windows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from .common import fail_if, load_encoder, print_json, tracked


def embed_windows(
    files: Sequence[str],
    model: str,
    output: Path,
    settings: Mapping[str, Any],
    *,
    batch_size: int,
    device: str | None,
    plan: bool,
    as_json: bool,
) -> None:
    """
    State the cost, make the features, and print the rows of the manifest.

    Args:
        files (`Sequence[str]`):
            The videos.
        model (`str`):
            Folder or Hub id of the encoder.
        output (`Path`):
            Folder of the features.
        settings (`Mapping[str, Any]`):
            Fields of [`FeatureSettings`]; without a window that of the model is taken, without a stride the window.
        batch_size (`int`):
            Windows in a forward pass.
        device (`str` or `None`):
            Value of `--device`.
        plan (`bool`):
            Whether to stop after stating the cost.
        as_json (`bool`):
            Whether to print JSON.
    """
    from ..inference.feature_sets import FeatureSettings, make_features, plan_features

    encoder, processor = load_encoder(model, device)
    window = settings["window"] or encoder.config.num_frames
    chosen = FeatureSettings(**{**settings, "window": window, "stride": settings["stride"] or window})
    cost = plan_features(encoder, processor, files, output, chosen, batch_size=batch_size)
    typer.echo(str(cost), err=True)
    if plan:
        return
    made = make_features(encoder, processor, cost, output, chosen, name=model, batch_size=batch_size)
    rows = [*cost.kept, *tracked(made, "Embedding", len(cost.rows))]
    failed = [row["file"] for row in rows if "error" in row]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            words = (
                row.get("error") or f"{row['file']}: {row['windows']}x{cost.feature_size}"
            )  # errors name their file
            typer.echo(words, err="error" in row)
        typer.echo(f"{len(rows) - len(failed)} of {len(rows)} videos -> {output}")
        if short := [row["video"] for row in rows if row.get("windows") == 0]:
            names = ", ".join(short[:8]) + (", ..." if len(short) > 8 else "")
            typer.echo(f"{len(short)} videos are shorter than a window and have no features: {names}", err=True)
    fail_if(failed)


__all__ = ["embed_windows"]
