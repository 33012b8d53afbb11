"""The benchmarks that no machine here can run in full run in small."""

import csv
import subprocess
import sys

import pytest


pytestmark = pytest.mark.slow


def rows_of(tmp_path, module, *arguments):
    output = tmp_path / "rows.csv"
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with output.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_benchmark_of_a_gpu(tmp_path):
    tiny = ("--tiny", "--device", "cpu", "--workers", "0", "--steps", "1")
    rows = rows_of(tmp_path, "gpu", *tiny, "--part", "masking", "--part", "waits", "--part", "loader")
    assert [(row["part"], row["form"]) for row in rows] == [
        ("masking", "all hidden tokens"),
        ("masking", "dual masking"),
        ("waits", "20 steps"),
        ("loader", "files"),
        ("loader", "prepared shards"),
    ]
    assert float(rows[1]["speed_ratio"]) > 0 and float(rows[3]["clips_per_second"]) > 0
    rows = rows_of(tmp_path, "gpu", *tiny, "--part", "steps", "--seconds", "0")
    assert len(rows) == 7 and {row["note"] for row in rows} == {"left out: no time"}


def test_the_benchmark_of_the_loop(tmp_path):
    bare, engine = rows_of(tmp_path, "engine", "--model", "nano", "--rounds", "1")
    assert (bare["side"], engine["side"]) == ("bare loop", "engine") and float(engine["share_of_bare"]) > 0.5
