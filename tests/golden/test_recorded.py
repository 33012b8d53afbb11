"""Twenty steps of each task against what they once gave; `recorded.py` says how to record them again."""

import shutil

import pytest
import torch

from tests.golden.recorded import CASES, FOLDER, NUM_STEPS, recorded, run_case


def first_draw() -> float:
    """What torch draws first for a weight; releases before the recording's draw others from the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.init.trunc_normal_(torch.empty(4))[0].item()


def check(name, found):
    expected = recorded(name)
    assert len(expected) == len(found) == NUM_STEPS
    for number, (then, now) in enumerate(zip(expected, found), start=1):
        hint = f"step {number} of {name}; if this is meant: python -m tests.golden.recorded {name}"
        assert now["loss"] == pytest.approx(then["loss"], rel=1e-4), hint
        assert now["grad_norm"] == pytest.approx(then["grad_norm"], rel=1e-3), hint


same_draws = pytest.mark.skipif(
    first_draw() != pytest.approx(1.540996), reason="this torch draws other weights from the seed"
)


@same_draws
@pytest.mark.parametrize("name", sorted(CASES))
def test_steps_are_what_they_were(name):
    check(name, run_case(name))


@same_draws
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_steps_are_the_same():
    """
    Of the case whose model draws no random numbers, since a compiled model draws others, and whose targets are not
    divided by the contrast of patches, some of which have none but rounding.
    """
    check("distillation", run_case("distillation", compile=True))


def test_nothing_is_recorded_that_no_case_runs():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(CASES)
