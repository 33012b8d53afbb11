"""
Peak memory and time of converting a checkpoint of the giant's layout (a billion parameters), made up on the spot:

    python -m benchmarks.conversion
    python -m benchmarks.conversion --size base

Each conversion runs in a process of its own; its peak resident memory is what the operating system reports. The aim
is at most 1.3 times the file plus 1 GB. Needs about 10 GB of disk for the giant; the files are removed.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks._machine import write_csv
from hf_videovit import VideoMAEV2Config
from hf_videovit.convert import convert_checkpoint, convert_to_folder


DTYPES = {"float16": torch.float16, "float32": torch.float32}
# How the file is stored, what is made of it, and whether as a folder or in memory.
CASES = (
    ("float16", "float32", "folder"),
    ("float16", "float16", "folder"),
    ("float32", "float32", "folder"),
    ("float16", "float16", "memory"),
    ("float32", "float32", "memory"),
)
ALLOWED_SHARE, ALLOWED_BYTES = 1.3, 10**9


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="giant", help="published size")
    parser.add_argument("--folder", type=Path, help="where the files go for the time being")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "conversion.csv")
    parser.add_argument("--make", nargs=2, metavar=("FILE", "DTYPE"), help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=4, metavar=("FILE", "DTYPE", "KIND", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def official_tensors(size: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A state dict of the official fine-tuned layout with the names, shapes and bytes of a real one."""
    config = VideoMAEV2Config.from_size(size)
    width, hidden = config.hidden_size, config.intermediate_size
    block = {
        **{f"{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
        "attn.q_bias": (width,),
        "attn.v_bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, 2, config.patch_size, config.patch_size),
        "patch_embed.proj.bias": (width,),
        **{f"blocks.{i}.{name}": shape for i in range(config.num_hidden_layers) for name, shape in block.items()},
        "fc_norm.weight": (width,),
        "fc_norm.bias": (width,),
        "head.weight": (710, width),
        "head.bias": (710,),
    }
    return {name: torch.rand(shape).to(dtype) for name, shape in shapes.items()}


def convert_one(file: str, dtype: str, kind: str, folder: str) -> None:
    """In a process of its own: convert, and print the peak of its memory in bytes and the seconds."""
    start = time.perf_counter()
    if kind == "folder":
        convert_to_folder("videomae_v2", file, folder, task="video-classification", dtype=dtype)
    else:
        convert_checkpoint("videomae_v2", file, task="video-classification", dtype=dtype)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{peak} {time.perf_counter() - start}")


def run(size: str, *words: str) -> str:
    """What this script prints in a process of its own. A child's peak starts from its parent's: keep that small."""
    command = [sys.executable, "-m", "benchmarks.conversion", "--size", size, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def measure(size: str, file: Path, stored: str, dtype: str, kind: str, folder: Path) -> dict[str, object]:
    """One row: a conversion in a fresh process."""
    peak, seconds = run(size, "--one", str(file), dtype, kind, str(folder)).split()
    file_bytes = file.stat().st_size
    allowed = ALLOWED_SHARE * file_bytes + ALLOWED_BYTES
    return {
        "size": size,
        "stored": stored,
        "converted_to": dtype,
        "kind": kind,
        "file_gb": round(file_bytes / 1e9, 3),
        "peak_gb": round(int(peak) / 1e9, 3),
        "allowed_gb": round(allowed / 1e9, 3),
        "within": int(peak) <= allowed,
        "seconds": round(float(seconds), 1),
    }


def main() -> None:
    arguments = parse_arguments()
    if arguments.one is not None:
        convert_one(*arguments.one)
        return
    if arguments.make is not None:
        file, dtype = arguments.make
        torch.save({"module": official_tensors(arguments.size, DTYPES[dtype])}, file)
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        for stored in DTYPES:
            checkpoint = Path(temporary) / f"{stored}.pth"
            run(arguments.size, "--make", str(checkpoint), stored)
            for _, target, kind in (case for case in CASES if case[0] == stored):
                with tempfile.TemporaryDirectory(dir=temporary) as made:
                    rows.append(measure(arguments.size, checkpoint, stored, target, kind, Path(made)))
                print(rows[-1])
            checkpoint.unlink()
    write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
