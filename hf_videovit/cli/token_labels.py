"""The command `prepare token-labels`: dense labels of images by a teacher."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import AsJson, Device, choose_device, fail_if, print_json, screen


commands = typer.Typer()


@commands.command("prepare token-labels")
def prepare_token_labels(
    teacher: Annotated[
        str,
        typer.Option(
            help="Classifier of images: folder or Hub id; or timm:NAME or timm:FOLDER, such as timm:dm_nfnet_f6."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Images: train/CLASS/*.jpg, CLASS/*.jpg, or a list of files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New or interrupted folder.")],
    train_split: Annotated[str, typer.Option(help="The split to label.")] = "train",
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the teacher's input in pixels. Default: that of its processor.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Classes kept of each place.")] = 5,
    same_order: Annotated[
        bool, typer.Option(help="The teacher's classes are those of the data in the same order, under other names.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="timm:NAME: its safetensors file.")] = None,
    download: Annotated[bool, typer.Option(help="timm:NAME: download weights that are not in the cache.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 8,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Numbers of the teacher.")
    ] = "float32",
    device: Device = None,
    overwrite: Annotated[bool, typer.Option(help="Replace labels in OUTPUT that were made in another way.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Let a teacher label the places of images, for token labelling. The exit code is 1 if images cannot be read.

    The teacher's head scores each place of its last feature map. An interrupted run goes on with the same command.
    """
    import torch

    from ..inference.dense_scores import open_teacher
    from ..training.data.images import open_images
    from ..training.preparing import token_labels

    images, _ = open_images(data, train_split)
    opened = open_teacher(
        teacher,
        size=size,
        device=choose_device(device),
        dtype=getattr(torch, dtype),
        weights=weights,
        download=download,
    )
    made_with = {"teacher": teacher, "weights": weights and str(weights), "size": list(opened.size), "dtype": dtype}
    found = token_labels.prepare_token_labels(
        images,
        output,
        opened,
        opened.label_names,
        made_with,
        top_k=top_k,
        same_order=same_order,
        batch_size=batch_size,
        overwrite=overwrite,
        progress=screen.is_terminal,
    )
    if as_json:
        print_json(asdict(found) | {"folder": str(found.folder)})
    else:
        for name, reason in list(found.failures.items())[:20]:
            typer.echo(f"{name}: {reason}", err=True)
        gone = f" ({found.resumed} were done)" if found.resumed else ""
        typer.echo(f"{found.num_images} images, {found.grid[0]} x {found.grid[1]} places -> {found.folder}{gone}")
        if found.agreement is not None:
            typer.echo(f"the teacher agrees with the labels of {100 * found.agreement:.1f} % of the images")
    fail_if(list(found.failures))
