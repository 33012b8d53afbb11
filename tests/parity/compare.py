"""A fixture directory, and the lines that comparing it prints."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file


@dataclass(frozen=True)
class Tolerance:
    """`|actual - expected| <= absolute + relative * |expected|`."""

    absolute: float = 1e-5
    relative: float = 1e-4

    def __str__(self) -> str:
        return f"{self.absolute:.0e}+{self.relative:.0e}*|x|"


EAGER, SDPA, EXACT = Tolerance(), Tolerance(absolute=2e-5), Tolerance(0.0, 0.0)
PIXELS = Tolerance(1e-5, 0.0)


@dataclass(frozen=True)
class Mode:
    """How a case runs: attention implementation, and whether the model was saved and loaded before."""

    name: str
    attention: str = "eager"
    reloaded: bool = False
    tolerance: Tolerance = EAGER


MODEL_MODES = (
    Mode("eager"),
    Mode("sdpa", "sdpa", tolerance=SDPA),
    Mode("eager,reloaded", "eager", reloaded=True),
    Mode("sdpa,reloaded", "sdpa", reloaded=True, tolerance=SDPA),
)
DATA_MODES = (Mode("data"),)


class Fixture:
    """One directory: `config.json`, `io.safetensors` and whatever other files it holds, read when asked for."""

    def __init__(self, directory: Path):
        if not directory.is_dir():
            raise ValueError(f"No such fixture directory: {directory}")
        self.directory = directory
        self.family, self.case = directory.resolve().parent.name, directory.resolve().name
        self.config: dict[str, Any] = self.json("config.json") if self.has("config.json") else {}
        self.tensors = load_file(directory / "io.safetensors") if self.has("io.safetensors") else {}

    def has(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def path(self, name: str) -> Path:
        return self.directory / name

    def json(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text(encoding="utf-8"))


@dataclass
class Report:
    """The comparisons of one fixture in one mode."""

    fixture: Fixture
    mode: str
    tolerance: Tolerance = EAGER
    lines: list[str] = field(default_factory=list)
    failures: int = 0
    seen: set[str] = field(default_factory=set)

    @property
    def label(self) -> str:
        return f"{self.fixture.family}/{self.fixture.case}[{self.mode}]"

    def add(self, name: str, difference: float, tolerance: Tolerance | str, passed: bool):
        self.lines.append(f"{self.label} {name} {difference:.3e} {tolerance} {'ok' if passed else 'FAIL'}")
        self.failures += not passed

    def compare(self, name: str, actual: Any, tolerance: Tolerance | None = None, expected: Any = None):
        """
        Compare `actual` with the tensor `name` of the fixture, which may lack it, or with `expected` under that name.
        """
        if expected is None and name not in self.fixture.tensors:
            return
        tolerance = tolerance or self.tolerance
        self.seen.add(name)
        expected = self.fixture.tensors[name] if expected is None else expected
        values = (value.copy() if isinstance(value, np.ndarray) else value for value in (actual, expected))
        actual, expected = (torch.as_tensor(value).detach().double() for value in values)
        if actual.numel() == expected.numel() == 1:  # a loss, stored as one number or as an array of one
            actual, expected = actual.reshape(()), expected.reshape(())
        if actual.shape != expected.shape:
            self.lines.append(f"{self.label} {name} shape {tuple(actual.shape)} for {tuple(expected.shape)} FAIL")
            self.failures += 1
            return
        gap = (actual - expected).abs()
        # written so that a NaN on either side fails
        passed = bool((gap <= tolerance.absolute + tolerance.relative * expected.abs()).all())
        self.add(name, gap.max().item() if gap.numel() else 0.0, tolerance, passed)

    def compare_gradient(self, name: str, actual: torch.Tensor, relative: float = 1e-4):
        """As [`compare`], the tolerance relative to the gradient's largest entry."""
        largest = self.fixture.tensors[name].abs().max().item()
        self.compare(name, actual, Tolerance(relative * largest, relative))

    def equal(self, name: str, actual: Any, expected: Any):
        """Whole-number or text data that must agree exactly."""
        actual, expected = np.asarray(actual), np.asarray(expected)
        passed = actual.shape == expected.shape and bool((actual == expected).all())
        self.add(name, 0.0 if passed else float("inf"), "exact", passed)

    def differs(self, name: str, actual: float, true_name: str, other: float):
        """
        `name` is what a known mistake gives: work it out too, and check that our value of `true_name` is as far from
        it as the fixture's own.
        """
        self.compare(name, actual)
        if {name, true_name} <= self.fixture.tensors.keys():
            expected = abs(self.fixture.tensors[name].item() - self.fixture.tensors[true_name].item())
            gap = abs(actual - other)
            self.add(f"{name}(must-differ)", gap, f">={expected / 2:.0e}", gap >= expected / 2)

    def finish(self, reasons: dict[str, str]):
        """Fail for each tensor that was not compared and has no reason."""
        for name in sorted(set(self.fixture.tensors) - self.seen):
            if name in reasons:
                self.lines.append(f"{self.label} {name} not compared: {reasons[name]}")
            else:
                self.lines.append(f"{self.label} {name} not compared FAIL")
                self.failures += 1


def compare_views(
    report: Report, config: dict[str, Any], tensors: dict[str, torch.Tensor], processor_class: Any
) -> None:
    """Crops of recorded frames, resized, cut and normalised by a processor."""
    for record in config["spatial"] or ():
        frames, size, names = tensors[record["input"]], record["size"], record["outputs"]
        processor = processor_class(
            num_frames=len(frames),
            size={"shortest_edge": size},
            crop_size=size,
            num_crops=len(names),
            image_mean=config["mean"],
            image_std=config["std"],
        )
        views = processor(frames, return_tensors="pt").pixel_values[0]  # (crops, frames, channels, size, size)
        for name, view in zip(names, views if len(names) > 1 else [views]):
            report.compare(name, view.transpose(0, 1), PIXELS)


def numbered(tensors: dict[str, torch.Tensor], prefix: str) -> Iterator[tuple[int, str]]:
    """Names `prefix.0`, `prefix.1`, ... that a fixture holds, with their numbers."""
    for name in tensors:
        head, _, number = name.rpartition(".")
        if head == prefix and number.isdigit():
            yield int(number), name
