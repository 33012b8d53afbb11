"""
Mistakes that a test must notice.

    python -m tests.mutations            # all of `mutations.yaml`
    python -m tests.mutations -k loop    # those with the word in their name, file or test

Each is made in a temporary copy of the tree, one at a time, and the test that is named with it runs there. Prints
`killed` (the test failed), `survived` (it passed) or `stale` (the text to change does not occur exactly once, or the
test could not be run), and exits with 1 unless all were killed. The tests must pass without a mistake first.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml


ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".yaml")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "outputs")
PASSED, FAILED = 0, 1  # exit codes of pytest


@dataclass(frozen=True)
class Mutation:
    """
    A mistake.

    Args:
        name (`str`):
            What the wrong program does.
        file (`str`):
            Where, from the root of the checkout.
        old (`str`):
            Text of the file, which occurs once.
        new (`str`):
            What stands there instead.
        test (`str`):
            The pytest node that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


def read_mutations(word: str = "") -> list[Mutation]:
    """Those of `mutations.yaml` that have a word in their name, file or test."""
    mutations = [Mutation(**fields) for fields in yaml.safe_load(LIST.read_text(encoding="utf-8"))]
    return [one for one in mutations if any(word in text for text in (one.name, one.file, one.test))]


def is_stale(mutation: Mutation, root: Path = ROOT) -> bool:
    """Whether the text to change does not occur exactly once, or stays as it is."""
    path = root / mutation.file
    occurs_once = path.is_file() and path.read_text(encoding="utf-8").count(mutation.old) == 1
    return not occurs_once or mutation.old == mutation.new


def outcome(mutation: Mutation, copy: Path) -> str:
    """`killed`, `survived` or `stale`, tried in a copy of the tree, which is as before afterwards."""
    if is_stale(mutation, copy):
        return "stale"
    path = copy / mutation.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        return {PASSED: "survived", FAILED: "killed"}.get(run_tests([mutation.test], copy), "stale")
    finally:
        path.write_text(text, encoding="utf-8")


def run_tests(nodes: Sequence[str], copy: Path) -> int:
    """Pytest's exit code in a copy of the tree."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",  # the cache tells files by second and size, which a mutation may keep
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *nodes]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode


def main(words: Sequence[str], root: Path = ROOT, mutations: Sequence[Mutation] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.strip().splitlines()[0])
    parser.add_argument("-k", dest="word", default="", metavar="WORD", help="only those with the word")
    word = parser.parse_args(words).word
    mutations = read_mutations(word) if mutations is None else mutations
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / root.name
        shutil.copytree(root, copy, symlinks=True, ignore=LEFT_OUT)
        if run_tests(sorted({one.test for one in mutations}), copy) != PASSED:
            print("the tests do not pass without a mistake")
            return 1
        for mutation in mutations:
            outcomes.append(outcome(mutation, copy))
            print(f"{outcomes[-1]:8} {mutation.name} ({mutation.file}; {mutation.test})", flush=True)
    counts = {kind: outcomes.count(kind) for kind in ("killed", "survived", "stale")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 0 if counts["killed"] == len(mutations) > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
