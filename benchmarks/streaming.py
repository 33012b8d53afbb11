"""
Classification of a live source, in torch and in OpenVINO: latency of the answers and windows that are skipped.

    python -m benchmarks.streaming
    python -m benchmarks.streaming --models UniFormer-S --threads 1 --seconds 30

A file of 25 frames a second (340 x 256 pixels) is played at its own speed, as `hf-videovit watch FILE --live` does.
Models are of full size with random weights. An answer is due every 8 or 16 frames; where a model is slower, windows
are skipped. Latency is the time from the arrival of a window's last frame to its answer. The first rows say what
frames cost without a model, per answer: each decoded and processed once, against every window decoded afresh.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForVideoClassification, pipeline
from transformers.modeling_outputs import ImageClassifierOutput

from benchmarks._machine import write_csv
from benchmarks._runtimes import BASELINE, SIDES, make_side
from benchmarks.decoding import make_clip
from benchmarks.deploy import MODELS, SIZE
from hf_videovit import UniFormerVideoProcessor, VideoMAEV2VideoProcessor
from hf_videovit.inference.streaming import FileSource, StreamAnswer, StreamingClassifier, in_real_time
from hf_videovit.modeling.video_decoding import decode_video


FPS = 25
EVERY = (8, 16)
PROCESSORS = {"UniFormer-S": UniFormerVideoProcessor, "VideoMAE V2-S": VideoMAEV2VideoProcessor}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=PROCESSORS, default=list(PROCESSORS))
    sides = [BASELINE, "OpenVINO float32", "OpenVINO bfloat16", "OpenVINO int8"]
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=sides)
    parser.add_argument("--seconds", type=int, default=12, help="length of the source")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the model")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "streaming.csv")
    return parser.parse_args()


def percentiles(values: list[float]) -> dict[str, float]:
    """In milliseconds."""
    half, most = np.percentile(values, (50, 95))
    return {"latency_p50_ms": round(1e3 * half, 1), "latency_p95_ms": round(1e3 * most, 1)}


def follow(classifier: Any, video: Path, every: int) -> dict[str, Any]:
    """Answers to a source that does not wait."""
    source = FileSource(str(video), classifier.video_processor)
    stream = StreamingClassifier(classifier, fps=source.fps, every=every)
    answers: list[StreamAnswer] = list(stream.follow(in_real_time(source)))
    skipped = answers[-1].skipped
    facts = {"every": every, "window_frames": stream.window, "answers": len(answers), "windows_skipped": skipped}
    share = skipped / (len(answers) + skipped)
    return {**facts, "share_skipped": round(share, 3), **percentiles([one.latency for one in answers])}


def measure_model(name: str, video: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every side of a model at every distance of answers."""
    torch.manual_seed(0)
    model: Any = AutoModelForVideoClassification.from_config(MODELS[name]()).eval()
    clips = torch.randn(2, model.config.num_frames, 3, SIZE, SIZE)
    calls = {side: make_side(side, model, clips, [clips[:1]]).open(arguments.threads) for side in arguments.sides}
    classifier = pipeline("video-classification", model=model, video_processor=PROCESSORS[name]())
    rows = []
    for side, call in calls.items():
        call(clips[:1])
        model.forward = lambda pixel_values, call=call: ImageClassifierOutput(logits=call(pixel_values))
        for every in EVERY:
            rows.append(
                {"model": name, "side": side, "threads": arguments.threads, **follow(classifier, video, every)}
            )
            print(*rows[-1].values(), sep="  ", flush=True)
    return rows


class _NoModel:
    """What the stream takes for a classifier, without one."""

    def __init__(self, video_processor: Any):
        self.video_processor = video_processor

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs

    def postprocess(self, outputs: dict[str, Any], top_k: int) -> list[dict[str, Any]]:
        return []


def measure_frames(video: Path) -> list[dict[str, Any]]:
    """What frames cost without a model, per answer."""
    processor = VideoMAEV2VideoProcessor()
    rows = []
    for every in EVERY:
        source = FileSource(str(video), processor)
        stream = StreamingClassifier(_NoModel(processor), fps=source.fps, every=every)
        start = time.perf_counter()
        answers = list(stream.classify(source))
        once = (time.perf_counter() - start) / len(answers)
        start = time.perf_counter()
        for answer in answers:
            first = answer.frame + 1 - stream.window
            frames = decode_video(video, first + stream.indices[0]).frames
            processor([torch.from_numpy(frames)], do_sample_frames=False, return_tensors="pt")
        afresh = (time.perf_counter() - start) / len(answers)
        for side, seconds in (("frames decoded once", once), ("windows decoded afresh", afresh)):
            row = {"model": "none", "side": side, "threads": torch.get_num_threads(), "every": every}
            row |= {"window_frames": stream.window, "answers": len(answers)}
            rows.append({**row, "milliseconds_per_answer": round(1e3 * seconds, 1)})
            print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        video = make_clip(Path(folder) / "source.mp4", fps=FPS, num_frames=FPS * arguments.seconds)
        rows = measure_frames(video)
        for name in arguments.models:
            rows += measure_model(name, video, arguments)
    write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
