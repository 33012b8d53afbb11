"""
What `import hf_videovit` costs beyond torch and transformers, each import in a fresh process:

    python -m benchmarks.import_time
    python -m benchmarks.import_time --repeats 15

Rounds alternate between the statements, so that a busy machine hurts all alike; the median of each counts. As
transformers imports most of itself on first use, the second line is the yardstick: naming one of its own video models.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks._machine import write_csv


BASELINE = "import torch, transformers"
STATEMENTS = {
    "torch, transformers": BASELINE,
    "torch, transformers used (a model class and a video processor)": (
        f"{BASELINE}; transformers.VideoMAEForVideoClassification; transformers.VideoMAEVideoProcessor; "
        "transformers.pipeline"
    ),
    "torch, transformers, hf_videovit": f"{BASELINE}; import hf_videovit",
}
TIMED = "import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "import_time.csv")
    return parser.parse_args()


def seconds(statement: str) -> float:
    """Time of the imports in a fresh interpreter, its own start not counted."""
    command = [sys.executable, "-c", TIMED.format(statement=statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_seconds(package: str) -> float:
    """Time spent in the package's own modules, without what they import."""
    command = [sys.executable, "-X", "importtime", "-c", f"{BASELINE}; import {package}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    rows = [line.removeprefix("import time:").split("|") for line in lines]
    return sum(int(row[0]) for row in rows if row[-1].strip().split(".")[0] == package) / 1e6


def measure(repeats: int) -> list[dict[str, object]]:
    """One row a statement: median, best, and the median cost beyond the baseline."""
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(repeats + 1):
        for name, statement in STATEMENTS.items():
            elapsed = seconds(statement)
            if number:  # the first round fills the file cache
                times[name].append(elapsed)
    baseline = statistics.median(next(iter(times.values())))
    return [
        {
            "imports": name,
            "median_s": round(statistics.median(values), 3),
            "best_s": round(min(values), 3),
            "beyond_torch_transformers_s": round(statistics.median(values) - baseline, 3),
            "repeats": repeats,
        }
        for name, values in times.items()
    ]


def main() -> None:
    arguments = parse_arguments()
    rows = measure(arguments.repeats)
    for row in rows:
        print(f"{row['median_s']:7.3f} s  +{row['beyond_torch_transformers_s']:.3f} s  {row['imports']}")
    rows[-1]["own_modules_s"] = round(statistics.median(own_seconds("hf_videovit") for _ in range(3)), 3)
    print(f"of which in hf_videovit's own modules: {rows[-1]['own_modules_s']:.3f} s")
    write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
