"""
What `hf-videovit prepare --for-training` gains, and what its settings cost:

    python -m benchmarks.prepared
    python -m benchmarks.prepared CLIP.mp4 --rounds 5

The original is decoded by PyAV in as few lines as it takes, by decord, by torchcodec and by our loader; then it is
prepared with each of the settings, and our loader decodes that. Frames are drawn as in training: 16 frames at stride
4, or one of each of 16 segments. All sides read the same frames with one thread, in turns; the best round counts. Time
is that of the processor, so that clips per second are those of a core. With two workers, two processes read at once.
PSNR is that of the RGB frames that were drawn, against those of the original, resized to the same size where it is
smaller. Without a file, a clip of the size, rate and length of Kinetics is made, at its usual bitrate.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from benchmarks._machine import write_csv
from benchmarks.decoding import bare, make_clip
from hf_videovit.modeling import video_decoding_pyav
from hf_videovit.modeling.frame_sampling import sample_clips
from hf_videovit.modeling.video_decoding import available_decoders, decode_video, probe_video
from hf_videovit.training.preparing.encoding import EncodingSettings, encode_clip


CHOSEN = {"short_side": 256, "crf": 17, "keyframe_every": 48, "reencode": True, "references_every": 4}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    *({"keyframe_every": distance} for distance in (1, 16, 24, 96, 250)),
    *({"references_every": distance} for distance in (1, 2, 8, 16)),
    *({"crf": crf} for crf in (14, 16, 19, 20, 23)),
    *({"short_side": side} for side in (224, 160)),
    {"references_every": None, "crf": 18},  # plain `prepare`
)
PLANS = {"dense 16x4": {"frame_sampling": "dense", "frame_stride": 4}, "16 segments": {"frame_sampling": "segment"}}
Side = Callable[[np.ndarray], Any]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=12, help="clips drawn from each video")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "prepared.csv")
    return parser.parse_args()


def ours(path: Path, indices: np.ndarray) -> np.ndarray:
    """Our loader on a file that it sees for the first time."""
    video_decoding_pyav._indices.clear()
    return decode_video(path, indices).frames


def by_decord(path: Path, indices: np.ndarray) -> np.ndarray:
    import decord

    return decord.VideoReader(str(path), num_threads=1).get_batch(indices).asnumpy()


def by_torchcodec(path: Path, indices: np.ndarray) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    return decoder.get_frames_at(indices.tolist()).data.numpy()


def sides_of(original: Path, prepared: dict[str, Path]) -> dict[str, Side]:
    others = {"decord": by_decord, "torchcodec": by_torchcodec}
    installed = {name: other for name, other in others.items() if available_decoders()[name].available}
    sides: dict[str, Side] = {
        "bare PyAV, from the start": partial(bare, original, seek=False),
        "bare PyAV, with a seek": partial(bare, original, seek=True),
        **{name: partial(other, original) for name, other in installed.items()},
        "hf_videovit": partial(ours, original),
    }
    return sides | {name: partial(ours, path) for name, path in prepared.items()}


def draw(original: Path, count: int) -> dict[str, list[np.ndarray]]:
    """Frames of clips as training draws them, by plan."""
    total, rng = probe_video(original).num_frames, np.random.default_rng(0)
    options = {"sampling_mode": "train", "num_frames": 16, "rng": rng}
    return {
        name: [np.unique(sample_clips(total, **options, **plan)[0]) for _ in range(count)]
        for name, plan in PLANS.items()
    }


def processor_seconds(side: Side, clips: list[np.ndarray]) -> float:
    """Of one clip."""
    start = time.process_time()
    for indices in clips:
        side(indices)
    return (time.process_time() - start) / len(clips)


def best_seconds(sides: dict[str, Side], clips: list[np.ndarray], rounds: int, workers: int) -> dict[str, float]:
    """Best time of a clip for each side; rounds go through all sides."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    spawn = multiprocessing.get_context("spawn")
    # torchcodec copies frames with as many threads as torch has, and threads that wait take processor time too
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in range(rounds + 1):  # the first does not count
            for name, side in sides.items():
                found = list(pool.map(processor_seconds, [side] * workers, [clips] * workers))
                times[name].append(sum(found) / workers)
    return {name: min(values[1:]) for name, values in times.items()}


def psnr(original: Path, prepared: Path, clips: list[np.ndarray]) -> float:
    """Of the frames that are drawn, at the prepared size."""
    wanted = np.unique(np.concatenate(clips))
    after = decode_video(prepared, wanted).frames
    before = decode_video(original, wanted).frames
    height, width = after.shape[1:3]
    if before.shape != after.shape:
        frames = (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in before)
        before = np.stack(
            [frame.reformat(width=width, height=height, interpolation="BICUBIC").to_ndarray() for frame in frames]
        )
    return float(10 * np.log10(255**2 / np.square(before.astype(np.float32) - after).mean()))


def measure(original: Path, folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    settings = [EncodingSettings(**{**CHOSEN, **change}) for change in CHANGES]
    names = ["prepared", *(f"prepared: {next(iter(change.items()))}" for change in CHANGES[1:])]
    prepared = {}
    for name, one in zip(names, settings):
        prepared[name] = folder / f"{len(prepared)}.mp4"
        prepared[name].write_bytes(encode_clip(original, one).content)
    described = {name: asdict(one) for name, one in zip(names, settings)}
    sides, rows = sides_of(original, prepared), []
    for plan, clips in draw(original, arguments.clips).items():
        for workers in (1, 2):
            chosen = sides if workers == 1 else {name: side for name, side in sides.items() if ":" not in name}
            seconds = best_seconds(chosen, clips, arguments.rounds, workers)
            fastest_bare = min(time for name, time in seconds.items() if name.startswith("bare"))
            for name, time_of_clip in seconds.items():
                row: dict[str, Any] = {"original": original.name, "plan": plan, "workers": workers, "side": name}
                row |= {"clips_per_second_and_core": round(1 / time_of_clip, 2)}
                row |= {"ratio_to_bare": round(fastest_bare / time_of_clip, 2)}
                if name in prepared:
                    size = prepared[name].stat().st_size / original.stat().st_size
                    row |= {"bytes": round(size, 3), "psnr": round(psnr(original, prepared[name], clips), 2)}
                    row |= {field: described[name][field] for field in CHOSEN if field != "reencode"}
                rows.append(row)
                print(*(f"{field}={value}" for field, value in row.items()), flush=True)
    return rows


def main() -> None:
    arguments = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made_340x256_30fps_10s.mp4"
        for source in arguments.sources or [make_clip(made, crf=14)]:
            rows += measure(source, Path(folder), arguments)
    write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
