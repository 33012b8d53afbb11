"""The table of the published checkpoints: complete, as the documentation has it, with what the models cost."""

from pathlib import Path

import pytest

from hf_videovit.hub.model_table import count_checkpoint, render_table
from hf_videovit.published import list_published, published_entry


PAGE = Path(__file__).parents[2] / "docs" / "models.md"
SAMPLE = (
    "uniformer-xxs-k400-16f-160",
    "uniformer-small-in1k",
    "uniformer-small-coco-pose-256x192",
    "video-swin-tiny-k400",
    "uniformer-v2-base-k400-8f",
    "actionformer-thumos14-i3d",
    "videomae-small-k400-ava",
)


def test_the_page_is_rendered_from_the_entries():
    assert PAGE.read_text(encoding="utf-8") == render_table(), "python -m hf_videovit.hub.model_table"


def test_every_checkpoint_is_counted():
    entries = [published_entry(name) for name in list_published()]
    assert all(entry.parameters for entry in entries)
    uncounted = {entry.task for entry in entries if entry.gmacs is None}
    assert uncounted == {"temporal-action-localization"}


@pytest.mark.parametrize("name", [one for one in SAMPLE if one in list_published()])
def test_counts_are_those_of_the_models(name):
    entry = published_entry(name)
    assert count_checkpoint(name) == {"parameters": entry.parameters, "gmacs": entry.gmacs}
