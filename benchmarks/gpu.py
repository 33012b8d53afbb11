"""
Training on one GPU, in less than 8 minutes:

    python -m benchmarks.gpu                    # results/gpu_<card>.csv
    python -m benchmarks.gpu --tiny --device cpu --output gpu.csv    # whether it runs

`steps`: VideoMAE V2 B, L and g in training on clips from memory (bf16, fused AdamW), eager and compiled, B also with
matrix products in FP8 by torchao: clips a second, peak memory, and the share of the card's peak rate (MFU, counting a
backward pass as two forward passes) and of its measured rate for one large product in bf16.
`masking`: a pretraining step of B with the dual masking of VideoMAE V2 and with a decoder that sees all hidden tokens.
`loader`: pretraining of B through the engine, with the loader, from files of the kind of Kinetics (340x256, 10 s,
H.264) and from shards that `hf-videovit prepare --for-training` writes of them.
`waits`: how often the host waited for the device in 20 steps of the engine, outside logging.

A row is written as soon as it is measured. Batches are halved while they do not fit. What does not start before
`--seconds` have passed is left out, and so is what is not installed; rows say so.
"""

import argparse
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._comparison import memory_kilobytes
from benchmarks._machine import write_csv
from benchmarks.decoding import make_clip
from hf_videovit import (
    VideoMAEV2Config,
    VideoMAEV2ForPreTraining,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2VideoProcessor,
)
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine import loop
from hf_videovit.training.methods.choosing import pretrain
from hf_videovit.training.preparing.for_training import training_encoding
from hf_videovit.training.preparing.writing import prepare


PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}  # dense bf16
SIZES: dict[str, dict[str, int]] = {
    "B": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "L": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "g": {"hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 16, "intermediate_size": 6144},
}
BATCHES = {"B": 96, "L": 48, "g": 16}
CLIP = {"image_size": 224, "num_frames": 16, "patch_size": 16}
TINY_CLIP = {"image_size": 32, "num_frames": 4, "patch_size": 8}
TINY_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY_DECODER = {"decoder_hidden_size": 32, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 64}
Rows = Iterator[dict[str, Any]]


def matrix_product(device: str, dtype: torch.dtype, size: int) -> tuple[Callable[[], torch.Tensor], int]:
    """One bare matrix product and its multiply-accumulates."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: left @ right, size**3


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", choices=[*PARTS], action="append", help="all by default")
    parser.add_argument("--seconds", type=float, default=420.0, help="nothing new is started after this time")
    parser.add_argument("--steps", type=int, default=10, help="that are timed, after 3 that are not")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tiny", action="store_true", help="models and clips of a few kilobytes")
    parser.add_argument("--output", type=Path, help="results/gpu_<card>.csv by default")
    return parser.parse_args()


@dataclass
class Bench:
    """What the parts share: the card, and whether everything is tiny."""

    arguments: argparse.Namespace
    started: float

    def __post_init__(self) -> None:
        self.device = torch.device(self.arguments.device)
        cuda = self.device.type == "cuda"
        self.card = torch.cuda.get_device_name(self.device) if cuda else "cpu"
        self.peak = next((rate for name, rate in PEAKS.items() if name in self.card), None)
        product, macs = matrix_product(str(self.device), torch.bfloat16, 256 if self.arguments.tiny else 8192)
        self.measured = 2 * macs / self.seconds(product)
        self.clip = TINY_CLIP if self.arguments.tiny else CLIP

    @property
    def late(self) -> bool:
        return time.perf_counter() - self.started > self.arguments.seconds

    def size(self, name: str) -> dict[str, int]:
        return TINY_SIZE if self.arguments.tiny else SIZES[name]

    def config(self, name: str) -> VideoMAEV2Config:
        clip = self.clip | ({"patch_size": 14} if name == "g" and not self.arguments.tiny else {})
        decoder = TINY_DECODER if self.arguments.tiny else {}
        return VideoMAEV2Config(**self.size(name), **clip, **decoder, num_labels=400)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, step: Callable[[], object]) -> float:
        """Of one call, after three that do not count."""
        for _ in range(3):
            step()
        self.wait()
        start = time.perf_counter()
        for _ in range(self.arguments.steps):
            step()
        self.wait()
        return (time.perf_counter() - start) / self.arguments.steps

    def measure(self, make: Callable[[int], Callable[[], object]], batch_size: int) -> dict[str, Any]:
        """Time and peak memory of a step with the largest batch that fits, starting from one size."""
        while True:
            try:
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(self.device)
                seconds = self.seconds(make(batch_size))
                break
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                batch_size //= 2
        cuda = self.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(self.device) if cuda else 1024 * memory_kilobytes("VmHWM")
        found = {"batch_size": batch_size, "ms_per_step": round(1000 * seconds, 3)}
        found |= {"clips_per_second": round(batch_size / seconds, 1), "peak_gigabytes": round(memory / 1e9, 2)}
        return found


def forward_flops(model_class: type[nn.Module], config: VideoMAEV2Config) -> int:
    """Of one clip, counted without computing."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        side = config.image_size
        model_class(config).to("meta")(torch.empty(1, config.num_frames, 3, side, side))
    return counter.get_total_flops()


def training_step(bench: Bench, config: VideoMAEV2Config, form: str, batch_size: int) -> Callable[[], None]:
    """A step of classification in mixed precision."""
    torch.manual_seed(0)
    model = VideoMAEV2ForVideoClassification(config).to(bench.device).train()
    if form.endswith("fp8"):
        from torchao.float8 import convert_to_float8_training

        inner = lambda module, name: isinstance(module, nn.Linear) and name != "classifier"  # noqa: E731
        convert_to_float8_training(model, module_filter_fn=inner)
    if form.startswith("compiled"):
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    side = config.image_size
    clips = torch.randn(batch_size, config.num_frames, 3, side, side, device=bench.device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=bench.device)

    def step() -> None:
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            loss = model(pixel_values=clips, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def steps_part(bench: Bench) -> Rows:
    """Training steps of the three sizes."""
    forms = [("B", "eager"), ("L", "eager"), ("g", "eager"), ("B", "compiled"), ("L", "compiled")]
    for name, form in [*forms, ("B", "compiled, fp8"), ("g", "compiled")]:
        config = bench.config(name)
        row = {"part": "steps", "model": name, "form": form}
        if bench.late:
            yield row | {"note": "left out: no time"}
            continue
        try:
            found = bench.measure(
                partial(training_step, bench, config, form), 2 if bench.arguments.tiny else BATCHES[name]
            )
        except (ImportError, RuntimeError, AssertionError) as error:
            yield row | {"note": f"left out: {str(error).splitlines()[0][:120]}"}
            continue
        rate = 3 * forward_flops(VideoMAEV2ForVideoClassification, config) * found["clips_per_second"]
        mfu = "" if bench.peak is None else round(rate / bench.peak, 3)
        yield row | found | {"mfu": mfu, "share_of_product_rate": round(rate / bench.measured, 3)}


def masking_step(bench: Bench, config: VideoMAEV2Config, dual: bool, batch_size: int) -> Callable[[], None]:
    """A step of pretraining whose decoder sees half of all tokens, or all that are hidden."""
    torch.manual_seed(0)
    model = VideoMAEV2ForPreTraining(config).to(bench.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    side, length = config.image_size, torch.Size(config.token_grid()).numel()
    clips = torch.randn(batch_size, config.num_frames, 3, side, side, device=bench.device)
    order = torch.rand(batch_size, length, device=bench.device).argsort(dim=1)
    visible = order[:, : length // 10].sort(dim=1).values
    hidden = torch.ones(batch_size, length, dtype=torch.bool, device=bench.device).scatter(1, visible, False)
    decoded = order[:, length // 2 :] if dual else order[:, length // 10 :]
    decoded = decoded.sort(dim=1).values

    def step() -> None:
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            loss = model(clips, hidden, visible_indices=visible, decoded_indices=decoded).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def masking_part(bench: Bench) -> Rows:
    """What dual masking saves."""
    config, batch_size = bench.config("B"), 2 if bench.arguments.tiny else 128
    found: dict[str, dict[str, Any]] = {}
    for form, dual in (("all hidden tokens", False), ("dual masking", True)):
        found[form] = bench.measure(partial(masking_step, bench, config, dual), batch_size)
        batch_size = found[form]["batch_size"]  # both sides with the same
        first = found["all hidden tokens"]
        gain = {
            "speed_ratio": round(first["ms_per_step"] / found[form]["ms_per_step"], 3),
            "memory_ratio": round(found[form]["peak_gigabytes"] / max(first["peak_gigabytes"], 1e-9), 3),
        }
        yield {"part": "masking", "model": "B", "form": form} | found[form] | gain


def engine_run(bench: Bench, data: Path, output: Path, **more: Any) -> list[dict[str, Any]]:
    """Lines of the log of a pretraining run of B."""
    tiny, copies = bench.arguments.tiny, 1 if bench.arguments.tiny else 4
    config = bench.size("B") | bench.clip | {"encoder_mask_ratio": 0.75 if tiny else 0.9}
    config |= TINY_DECODER if tiny else {}
    fields = {"data": str(data), "output_dir": str(output), "overwrite": True, "config": config}
    fields |= {"num_workers": bench.arguments.workers, "progress": False, "curves": False, "save_every": 0}
    fields |= {
        "batch_size": 4 if tiny else 32,
        "num_sample": copies,
        "crop": "multi_scale",
        "cpu": bench.card == "cpu",
    }
    fields |= {"processor": {"frame_stride": 1 if tiny else 4}, "eval_every": 0, "picture_every": 0, "holdout": 0.0}
    fields |= {"mixed_precision": "no" if bench.card == "cpu" else "bf16", "log_every": 10, "max_steps": 40}
    history = pretrain(RunConfig.from_fields(**fields | more)).history
    return [line for line in history if "clips_per_second" in line]


def loader_part(bench: Bench, folder: Path) -> Rows:
    """Pretraining with everything that a real run has."""
    clips = write_clips(bench, folder / "files")
    encoding = training_encoding(VideoMAEV2VideoProcessor(frame_stride=1 if bench.arguments.tiny else 4))
    workers = max(1, bench.arguments.workers)
    prepare(clips, folder / "shards", encoding=encoding, num_workers=workers, clips_per_shard=16)
    for form, data in (("files", clips), ("prepared shards", folder / "shards")):
        lines = engine_run(bench, data, folder / "out")[1:]  # the first has the workers' start
        copies = 1 if bench.arguments.tiny else 4
        videos = sorted(line["clips_per_second"] for line in lines)[len(lines) // 2]
        waited = sorted(line["data_wait"] for line in lines)[len(lines) // 2]
        row = {"part": "loader", "model": "B", "form": form, "workers": bench.arguments.workers}
        yield row | {"videos_per_second": videos, "clips_per_second": round(copies * videos, 1), "data_wait": waited}


def write_clips(bench: Bench, folder: Path) -> Path:
    """A folder of two classes; every file is a copy of the same clip, which the decoder does not know."""
    count, length = (8, 30) if bench.arguments.tiny else (512, 300)
    for label in ("one", "other"):
        (folder / "train" / label).mkdir(parents=True)
    first = make_clip(folder / "train" / "one" / "clip_0.mp4", num_frames=length)
    for index in range(1, count):
        shutil.copy(first, folder / "train" / ("one", "other")[index % 2] / f"clip_{index}.mp4")
    return folder


def waits_part(bench: Bench, folder: Path) -> Rows:
    """Warnings of CUDA's own watch over waiting hosts."""
    row = {"part": "waits", "model": "B", "form": "20 steps"}
    if bench.device.type != "cuda":
        yield row | {"note": "left out: a CPU is not waited for"}
        return
    found = count_waits(lambda: engine_run(bench, write_clips(bench, folder / "waits"), folder / "out", max_steps=20))
    yield row | {"waits": len(found), "note": "; ".join(sorted(set(found)))[:300]}


def count_waits(run: Callable[[], object]) -> list[str]:
    """Where the host waited for the device in a run's steps after the first, outside logging."""
    after_step, log_window, found = loop._Run._after_step, loop._Run._log_window, []

    def watched(self: Any, *arguments: Any) -> None:
        after_step(self, *arguments)
        torch.cuda.set_sync_debug_mode("warn")

    def logged(self: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")
        log_window(self)
        torch.cuda.set_sync_debug_mode("warn")

    try:
        loop._Run._after_step, loop._Run._log_window = watched, logged  # type: ignore[method-assign]
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
        found = [f"{one.filename}:{one.lineno}" for one in seen if "synchroniz" in str(one.message)]
    finally:
        loop._Run._after_step, loop._Run._log_window = after_step, log_window  # type: ignore[method-assign]
        torch.cuda.set_sync_debug_mode("default")
    return found


PARTS: dict[str, Callable[..., Rows]] = {
    "steps": steps_part,
    "masking": masking_part,
    "waits": waits_part,
    "loader": loader_part,
}


def main() -> None:
    arguments = parse_arguments()
    bench = Bench(arguments, time.perf_counter())
    name = re.sub(r"[^a-z0-9]+", "_", bench.card.lower()).strip("_")
    output = arguments.output or Path(__file__).parent / "results" / f"gpu_{name}.csv"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.part or PARTS:
            needs_folder = part in ("loader", "waits")
            for row in PARTS[part](bench, Path(folder)) if needs_folder else PARTS[part](bench):
                rows.append({"card": bench.card} | row)
                print(*(f"{key}={value}" for key, value in rows[-1].items() if value != ""), flush=True)
                write_csv(output, rows)
    print(f"{time.perf_counter() - bench.started:.0f} s; written to {output}")


if __name__ == "__main__":
    main()
