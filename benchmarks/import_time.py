"""
What `import hf_videovit` costs beyond torch and transformers, each import in a fresh process:

    python -m benchmarks.import_time
    python -m benchmarks.import_time --repeats 15

`import transformers` alone reads next to nothing: it loads what is used when it is used. So the cost is told twice:
beyond the bare import, and beyond a program that names one of transformers' own video models, its processor and
`pipeline`. Rounds alternate between the rows, so that a busy machine hurts all alike; the median of each counts.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks._machine import write_csv


BARE = "import torch, transformers"
USED = (
    f"{BARE}; transformers.VideoMAEForVideoClassification; transformers.VideoMAEVideoProcessor; transformers.pipeline"
)
# row -> (what has happened before the clock starts, what is timed)
ROWS = {
    "torch and transformers, imported": ("", BARE),
    "torch and transformers, a video model used": ("", USED),
    "hf_videovit after the bare import": (BARE, "import hf_videovit"),
    "hf_videovit after a video model was used": (USED, "import hf_videovit"),
}
TIMED = "{before}\nimport time\nstart = time.perf_counter()\n{timed}\nprint(time.perf_counter() - start)"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "import_time.csv")
    return parser.parse_args()


def seconds(before: str, timed: str) -> float:
    """Time of `timed` in a fresh interpreter that has run `before`."""
    command = [sys.executable, "-c", TIMED.format(before=before, timed=timed)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(repeats: int) -> list[dict[str, object]]:
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    for number in range(repeats + 1):
        for name, statements in ROWS.items():
            elapsed = seconds(*statements)
            if number:  # the first round fills the file cache
                times[name].append(elapsed)
    return [
        {
            "import": name,
            "median_s": round(statistics.median(values), 3),
            "best_s": round(min(values), 3),
            "repeats": repeats,
        }
        for name, values in times.items()
    ]


def main() -> None:
    arguments = parse_arguments()
    rows = measure(arguments.repeats)
    for row in rows:
        print(f"{row['median_s']:7.3f} s  {row['import']}")
    write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
