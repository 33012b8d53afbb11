"""
What starting costs, each start in a fresh process:

    python -m benchmarks.import_time
    python -m benchmarks.import_time --repeats 15

`import hf_videovit` stands beside the import of torch and transformers alone. Both load a model when it is named, so
that the cost is told once more for programs that name a video model, its processor and `pipeline`: transformers' own
VideoMAE, and VideoMAE V2. The command line is timed as a whole process: its help, and one completion of a shell.
Rounds alternate between the rows, so that a busy machine hurts all alike; the median of each counts. `ratio` is that
of a row to the row before it where both do the same thing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._machine import write_csv


BARE = "import torch, transformers"
OURS = f"{BARE}, hf_videovit"
USED = "{}.{}ForVideoClassification; {}.{}VideoProcessor; transformers.pipeline"
# row -> statements that are timed
IMPORTS = {
    "torch, transformers": BARE,
    "torch, transformers, hf_videovit": OURS,
    "VideoMAE of transformers used": f"{BARE}; {USED.format(*('transformers', 'VideoMAE') * 2)}",
    "VideoMAE V2 of hf_videovit used": f"{OURS}; {USED.format(*('hf_videovit', 'VideoMAEV2') * 2)}",
}
COMPLETION = {"_HF_VIDEOVIT_COMPLETE": "complete_bash", "COMP_WORDS": "hf-videovit cla", "COMP_CWORD": "1"}
# row -> words and environment of a command line
COMMANDS: dict[str, tuple[list[str], dict[str, str]]] = {
    "hf-videovit --help": (["--help"], {}),
    "hf-videovit cla<TAB>": ([], COMPLETION),
}
COMPARED = {"torch, transformers, hf_videovit", "VideoMAE V2 of hf_videovit used"}
TIMED = "import time\nstart = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"
# as the console script does, whose name is that of the variable of completion
SCRIPT = "import sys; sys.argv[0] = 'hf-videovit'; from hf_videovit.cli import main; main()"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "import_time.csv")
    return parser.parse_args()


def seconds_of_import(statements: str) -> float:
    """Time of statements in a fresh interpreter, without its own start."""
    command = [sys.executable, "-c", TIMED.format(statements)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def seconds_of_command(words: list[str], environment: dict[str, str]) -> float:
    """Time of a command line from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, "-c", SCRIPT, *words]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment).stdout
    elapsed = time.perf_counter() - start
    assert "classify" in shown
    return elapsed


def measure(repeats: int) -> list[dict[str, object]]:
    times: dict[str, list[float]] = {name: [] for name in (*IMPORTS, *COMMANDS)}
    for number in range(repeats + 1):
        elapsed = {name: seconds_of_import(statements) for name, statements in IMPORTS.items()}
        elapsed |= {name: seconds_of_command(*parts) for name, parts in COMMANDS.items()}
        if number:  # the first round fills the file cache
            for name, seconds in elapsed.items():
                times[name].append(seconds)
    rows: list[dict[str, object]] = []
    before = 0.0
    for name, values in times.items():
        median = statistics.median(values)
        ratio = round(median / before, 3) if name in COMPARED else ""
        facts = {"median_s": round(median, 3), "best_s": round(min(values), 3), "ratio": ratio, "repeats": repeats}
        rows.append({"start": name, **facts})
        before = median
    return rows


def main() -> None:
    arguments = parse_arguments()
    rows = measure(arguments.repeats)
    for row in rows:
        ratio = f" ({row['ratio']} x)" if row["ratio"] else ""
        print(f"{row['median_s']:7.3f} s  {row['start']}{ratio}")
    write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
