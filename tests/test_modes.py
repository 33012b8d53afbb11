"""Evaluation mode is lent: nothing of it stays."""

import pytest
from torch import nn

from hf_videovit.modes import evaluation_mode


def test_every_part_of_a_model_gets_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model[1].eval()
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_the_mode_comes_back_after_an_error():
    model = nn.Dropout()
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        _ = 1 / 0
    assert model.training
