"""Comparison of the segments of two runs."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment


def assert_same_segments(found: Sequence[dict], expected: Sequence[dict], seconds: float = 1e-3) -> None:
    """
    The segments of two runs are the same, one to one, and each run lists them by falling scores. Places are not
    compared: scores of a random model are close to each other, and rounding differs between processors.
    """
    assert len(found) == len(expected)
    values = [
        np.array([[one["segment"]["start"], one["segment"]["end"], one["score"]] for one in segments]).reshape(-1, 3)
        for segments in (found, expected)
    ]
    assert all((np.diff(scores) <= 0).all() for scores in (one[:, 2] for one in values))
    labels = [np.array([one["label"] for one in segments]) for segments in (found, expected)]
    distances = np.abs(values[0][:, None] - values[1]).sum(-1) + 1e6 * (labels[0][:, None] != labels[1])
    first, second = linear_sum_assignment(distances)
    assert labels[0][first].tolist() == labels[1][second].tolist()
    assert values[0][first, :2] == pytest.approx(values[1][second, :2], abs=seconds)
    assert values[0][first, 2] == pytest.approx(values[1][second, 2], abs=1e-4)
