"""
Compare fixture directories of the official codes with this package.

    python -m tests.parity DIR [DIR ...]

A directory is one case (`config.json`, `io.safetensors`, `checkpoint.pth`, ...) or holds such directories. Everything
about a case is read from its files. One line a tensor: `case tensor max_abs_diff tolerance ok|FAIL`; models run with
eager and sdpa attention, each as converted and after a save/load round trip. Exits with 1 if a comparison fails, or if
a tensor of `io.safetensors` was neither compared nor is among those that need no comparison, for the reason printed.
If nothing was compared, it exits with 1.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from transformers.utils import logging

from .action_detection import ActionDetectionAdapter
from .bevt import BevtAdapter
from .compare import Fixture, Report
from .lstcl import LstclAdapter
from .temporal_localization import TemporalLocalizationAdapter
from .tubevit import TubeViTAdapter
from .uniformer import UniFormerAdapter
from .uniformer_v2 import UniFormerV2Adapter
from .videomae_v2 import VideoMAEV2Adapter


# One adapter a family or task, by the name of the directory that its cases lie in; a case that lies elsewhere goes to
# the first adapter that recognises its files.
ADAPTERS = {
    "action_detection": ActionDetectionAdapter,
    "bevt": BevtAdapter,
    "lstcl": LstclAdapter,
    "temporal_localization": TemporalLocalizationAdapter,
    "tubevit": TubeViTAdapter,
    "uniformer": UniFormerAdapter,
    "uniformer_v2": UniFormerV2Adapter,
    "videomae_v2": VideoMAEV2Adapter,
}


def run(directory: Path) -> Iterator[Report]:
    """The reports of one case, one a mode."""
    fixture = Fixture(directory)
    names = [fixture.family] if fixture.family in ADAPTERS else list(ADAPTERS)
    adapters = [adapter for adapter in (ADAPTERS[name](fixture) for name in names) if adapter.recognises()]
    if not adapters:
        raise ValueError(f"No adapter for {directory}; families: {sorted(ADAPTERS)}.")
    adapter = adapters[0]
    for mode in adapter.modes():
        report = Report(fixture, mode.name, mode.tolerance)
        adapter.run(report, mode)
        report.finish(adapter.reasons())
        yield report


def cases(directories: list[Path]) -> Iterator[Path]:
    """Case directories among and below those given."""
    for directory in directories:
        below = sorted({path.parent for pattern in ("io.safetensors", "*.json") for path in directory.rglob(pattern)})
        yield from below or [directory]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__.strip().splitlines()[0])
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    failures = compared = 0
    for directory in cases(parser.parse_args(words).directories):
        try:
            for report in run(directory):
                print(*report.lines, sep="\n")
                failures += report.failures
                compared += len(report.lines)
        except Exception as error:  # a case that cannot run is a failure, and the others still run
            print(f"{directory} {type(error).__name__}: {error} FAIL")
            failures += 1
    print(f"{compared} comparisons, {failures} failed")
    return 1 if failures or not compared else 0


if __name__ == "__main__":
    logging.disable_progress_bar()
    sys.exit(main(sys.argv[1:]))
