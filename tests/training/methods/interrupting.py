"""Runs that are interrupted and resumed, of any method."""

import pytest
import torch

from hf_videovit.training.methods.choosing import finetune, method_of
from hf_videovit.training.methods.running import run
from tests.training.engine.test_two_processes import curve_of


class Interruption(Exception):
    """What ends a run where it validates first."""


def check_that_a_resumed_run_is_the_uninterrupted_one(config_of, folder):
    """`config_of(output_dir=..., **more)` is a run of at least four steps; it stops after the second."""
    whole = finetune(config_of(output_dir=str(folder / "whole"), max_steps=4, save_every=0))
    parts = {"output_dir": str(folder / "parts"), "max_steps": 4, "save_steps": 1, "save_every": 0}
    method = method_of(config_of(**parts))
    calls = []

    def validate(model):
        calls.append(model)
        raise Interruption

    method.validate = validate
    with pytest.raises(Interruption):
        run(method)
    resumed = finetune(config_of(**parts, resume=True))
    assert len(calls) == 1
    assert curve_of(folder / "parts") == curve_of(folder / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
