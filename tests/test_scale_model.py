"""The model of training on many GPUs: what binds, and that the documentation states what it says."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale_model import CLUSTERS, TRAININGS, gather_seconds, markdown, predict


HARDWARE, TRAINING = CLUSTERS[0], TRAININGS[0]
DOCS = Path(__file__).parents[1] / "docs" / "scale.md"


@pytest.mark.parametrize(
    ("training", "hardware", "binding"),
    [
        ({"utilisation": 0.01}, {}, "gpus"),
        ({"decode_seconds": 1.0}, {}, "decoders"),
        ({"bytes_per_clip": 1e9}, {}, "storage"),
        ({"overlap": 0.0}, {"node_bytes": 1e9}, "network"),
    ],
)
def test_the_slowest_part_binds(training, hardware, binding):
    row = predict(replace(TRAINING, **training), replace(HARDWARE, **hardware), 64)
    assert row["binds"] == binding
    assert row["clips_per_second"] == row[f"{binding}_clips_per_second"]


def test_nodes_multiply_what_each_has_and_storage_ends():
    rates = [predict(TRAINING, HARDWARE, 8 * nodes) for nodes in (1, 2, 4, 128)]
    assert [
        row["decoders_clips_per_second"] / rates[0]["decoders_clips_per_second"] for row in rates
    ] == pytest.approx([1, 2, 4, 128], rel=1e-3)
    assert rates[-1]["storage_clips_per_second"] == HARDWARE.total_storage / TRAINING.bytes_per_clip


def test_rings():
    """One GPU gathers nothing. Inside a node only its links count; many nodes send nearly all bytes twice."""
    content = TRAINING.parameters * TRAINING.gradient_bytes
    slow = replace(HARDWARE, node_bytes=1e6, latency=0.0)
    assert gather_seconds(TRAINING, slow, 1) == 0
    assert gather_seconds(TRAINING, slow, 8) == pytest.approx(2 * 7 / 8 * content / slow.gpu_bytes)
    assert gather_seconds(TRAINING, slow, 8192) == pytest.approx(2 * content / slow.node_bytes, rel=0.01)


def test_the_documentation_states_the_predictions():
    assert markdown() in DOCS.read_text(encoding="utf-8")
