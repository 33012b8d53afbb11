"""What every result says of the machine it was measured on."""

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers


def machine_description() -> str:
    """Processor, cores and memory, accelerator, versions."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    parts = [names[0] if names else platform.machine() or "unknown processor", f"{os.cpu_count()} cores"]
    parts += [f"{memory[0] / 2**20:.0f} GB"] if memory else []
    parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    parts += [platform.system(), f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return ", ".join([*parts, f"transformers {transformers.__version__}"])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows`, each with the description of this machine unless it has one already."""
    names = [*dict.fromkeys(name for row in rows for name in row if name != "machine"), "machine"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({"machine": machine_description(), **row} for row in rows)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
