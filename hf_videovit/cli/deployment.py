"""Commands for deployment: export, serve, watch."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .common import AsJson, Device, Model, Videos, check_classifier, load_classifier, print_json


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
    from ..inference.serving import LIMITS, ServingOptions
    from ..inference.serving import serve as run_server

    check_classifier(model)
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
