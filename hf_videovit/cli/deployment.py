"""Commands for deployment: export, serve, watch."""

import contextlib
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .common import AsJson, Device, Model, check_classifier, load_classifier, print_json, read_architecture


commands = typer.Typer()

Format = Literal["torch", "aoti", "onnx", "openvino", "executorch"]
Precision = Literal["float32", "bfloat16", "float16", "int8", "int4"]


@commands.command()
def export(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a classifier or an encoder.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the export.")],
    to: Annotated[Format, typer.Option(help="Kind of file.")] = "onnx",
    dtype: Annotated[
        Precision, typer.Option(help="Number format; docs/deploy.md has those of each kind.")
    ] = "float32",
    calibrate: Annotated[
        list[str] | None, typer.Option("--calibrate", help="Videos or folders to compare and quantise on; repeatable.")
    ] = None,
    dynamic: Annotated[str, typer.Option(help="Axes that may vary: batch, frames, size, or none.")] = "batch",
    with_processing: Annotated[
        bool, typer.Option("--with-processing", help="Resize, crop and normalise in the graph.")
    ] = False,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip. Default: the processor's.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side of a crop, pixels. Default: the processor's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export a model to a file of another runtime, and compare both."""
    from ..inference.exporting import export_model

    read_architecture(model)  # names what is missing
    axes = [] if dynamic.strip() == "none" else [name.strip() for name in dynamic.split(",")]
    with contextlib.redirect_stdout(sys.stderr):  # the runtimes' own reports
        report = export_model(
            model,
            output,
            _find_samples(model, calibrate) if calibrate else (),
            to=to,
            dtype=dtype,
            dynamic=axes,
            with_processing=with_processing,
            frames=frames,
            size=size,
        )
    if as_json:
        print_json(report)
        return
    times, memory = report["milliseconds"], report["peak_megabytes"]
    synthetic = "one synthetic clip (--calibrate compares on yours)"
    on = f"{report['videos']} of your videos" if report["videos"] else synthetic
    agreement = report["top1_agreement"]
    agrees = "" if agreement is None else f", the first label agrees in {100 * agreement:.1f} %"
    typer.echo(
        f"{model} -> {output} ({to}, {dtype}, {report['megabytes']} MB)\n"
        f"answers differ by at most {report['max_difference']:.2g} on {on}{agrees}\n"
        f"{times['export']} ms a video, {times['torch']} ms in torch ({report['speedup']} x as fast); "
        f"{memory['export']} MB of memory, {memory['torch']} MB in torch"
    )


def _find_samples(model: str, paths: list[str]) -> list[Any]:
    """The videos that paths name, or the images for an image classifier."""
    from PIL import Image

    from ..doctor import find_videos

    if "ForImage" not in read_architecture(model):
        return find_videos(paths)
    return [
        Image.open(file).convert("RGB") for file in find_videos(paths, suffixes=list(Image.registered_extensions()))
    ]


@commands.command()
def serve(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a classifier, or an export.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8000,
    batch_size: Annotated[int, typer.Option(min=1, help="Videos per forward pass, at most.")] = 8,
    batch_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for more videos. 0: what came while the last batch ran.")
    ] = 0.0,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests held; one more gets status 503.")] = 32,
    max_megabytes: Annotated[float, typer.Option(help="Size of a request; a larger one gets status 413.")] = 32.0,
    max_seconds: Annotated[float, typer.Option(help="Length of a video.")] = 600.0,
    max_pixels: Annotated[int, typer.Option(help="Pixels of a frame.")] = 4096 * 2304,
    timeout: Annotated[float, typer.Option(help="Seconds for a request.")] = 60.0,
    decoding_timeout: Annotated[float, typer.Option(help="Seconds for decoding a video.")] = 10.0,
    isolate: Annotated[bool, typer.Option(help="Decode in a process that can be ended.")] = True,
    num_workers: Annotated[int, typer.Option(min=1, help="Processes with a copy of the model each.")] = 1,
    top_k: Annotated[int, typer.Option(min=1, help="Labels in an answer.")] = 5,
    device: Device = None,
) -> None:
    """
    Classify videos over HTTP: POST /predict takes the bytes of a video, and /docs shows how.

    SIGTERM or Ctrl-C ends it once the requests that it has taken are answered.
    """
    from ..inference.exported_model import is_export, read_runtime
    from ..inference.serving import LIMITS, ServingOptions
    from ..inference.serving import serve as run_server

    check_classifier(model)
    if is_export(model):
        read_runtime(model)
    limits = dataclasses.replace(
        LIMITS, max_bytes=int(max_megabytes * 2**20), max_duration=max_seconds, max_pixels=max_pixels
    )
    options = ServingOptions(
        batch_size=batch_size,
        batch_timeout=batch_timeout,
        max_requests=max_requests,
        num_workers=num_workers,
        top_k=top_k,
        timeout=timeout,
        limits=limits,
        decoding_timeout=decoding_timeout,
        isolate=isolate,
    )
    load = partial(load_classifier, model, device)  # chosen in the workers: a look at the device takes memory of it
    run_server(load, options, host, port, ready=lambda address: typer.echo(f"{model}: {address}/predict"))


@commands.command()
def watch(
    source: Annotated[
        str, typer.Argument(help="A video file, camera:NUMBER, or an address such as rtsp://.", show_default=False)
    ],
    model: Model,
    every: Annotated[
        int | None, typer.Option(min=1, help="Frames between two answers. Default: a quarter of a window.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a window. Default: a clip of the protocol.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Play a file at its own speed, as a camera would.")] = False,
    fps: Annotated[float | None, typer.Option(help="Rate of a source that states a wrong one.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels in an answer.")] = 1,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """
    Classify a stream while it runs: every few frames, the label of the last ones.

    A camera or network stream does not wait: where the model is slower, windows are skipped and counted. A file is
    read as fast as the model answers. Ctrl-C ends it.
    """
    from ..inference.streaming import (
        FileSource,
        LiveSource,
        StreamingClassifier,
        in_real_time,
        is_live,
        latency_summary,
    )

    classifier = load_classifier(model, device)
    real_time = live or is_live(source)
    opened = LiveSource(source) if is_live(source) else FileSource(source, classifier.video_processor)
    frames = in_real_time(opened) if live and not is_live(source) else opened
    stream = StreamingClassifier(classifier, fps=fps or opened.fps, every=every, seconds=seconds, top_k=top_k)
    answers = []
    try:
        for answer in stream.follow(frames) if real_time else stream.classify(frames):
            answers.append(answer)
            _print_answer(answer, as_json)
    except KeyboardInterrupt:
        pass
    typer.echo(latency_summary(answers), err=True)


def _print_answer(answer: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(answer)))
        return
    labels = ", ".join(f"{one['label']} {one['score']:.3f}" for one in answer.predictions)
    typer.echo(f"{answer.seconds:9.2f} s  {labels}")
