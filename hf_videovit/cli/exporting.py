"""Command for deployment: export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import AsJson, Videos, check_classifier, print_json


commands = typer.Typer()

Format = Literal["torch", "onnx", "openvino"]
Precision = Literal["float32", "float16", "int8"]


@commands.command()
def export(
    videos: Videos,
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a classifier.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the export.")],
    to: Annotated[Format, typer.Option(help="Kind of file.")] = "onnx",
    dtype: Annotated[Precision, typer.Option(help="float16: openvino; int8: onnx.")] = "float32",
    fixed_batch: Annotated[bool, typer.Option("--fixed-batch", help="One size of batch only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a classifier to a file of another runtime, and compare both on the given videos."""
    from ..doctor import find_videos
    from ..inference.exporting import export_classifier

    files = find_videos(videos)
    check_classifier(model)
    report = export_classifier(model, output, files, to=to, dtype=dtype, dynamic_batch=not fixed_batch)
    if as_json:
        print_json(report)
        return
    times = report["milliseconds"]
    typer.echo(
        f"{model} -> {output} ({to}, {dtype}, {report['megabytes']} MB)\n"
        f"logits differ by at most {report['max_difference']:.2g} on {report['clips']} videos, the first label agrees "
        f"in {100 * report['top1_agreement']:.1f} %\n"
        f"{times['export']} ms a video, {times['torch']} ms in torch ({report['speedup']} x)"
    )
