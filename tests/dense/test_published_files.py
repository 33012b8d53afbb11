"""Official files of published detectors and segmenters convert whole by their name. Only names and shapes are read."""

import pytest
import torch
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging
from typer.testing import CliRunner

from hf_videovit import UniFormerBackbone, published_config
from hf_videovit.cli import app
from hf_videovit.convert import plan_conversion
from hf_videovit.published import OBJECTS, published_entry
from tests.dense import official_dense
from tests.parity.uniformer import official_layout


CHANNELS = [64, 128, 320, 512]
FILES = {
    "uniformer-small-coco-mask-rcnn-1x": official_dense.detector_heads(
        CHANNELS, labels=80, stages=1, width=256, hidden=1024, masks=4
    ),
    "uniformer-small-ade20k-fpn-h14": official_dense.fpn_heads(CHANNELS, labels=150, pyramid=256, width=128),
    "uniformer-small-ade20k-upernet": official_dense.upernet_heads(CHANNELS, labels=150, width=512, auxiliary=256),
}


def official_file(name: str) -> dict:
    """A file of full size, whose numbers are not set."""
    with torch.device("meta"):
        names = official_layout(UniFormerBackbone(published_config(name).backbone_config).state_dict())
    shapes = {f"backbone.{one.replace('norms.stage', 'norm')}": names[one].shape for one in names} | FILES[name]
    return {"state_dict": {one: torch.empty(shape) for one, shape in shapes.items()}}


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_converts_whole_by_its_name(name):
    entry, file = published_entry(name), official_file(name)
    plan = plan_conversion("uniformer", file, task=entry.task, published=name)
    expected = published_config(name)
    assert plan.config.to_dict() == expected.to_dict()
    used = {piece.source for piece in plan.pieces.values()}
    assert used | {one for one in file["state_dict"] if one.endswith("num_batches_tracked")} >= set(file["state_dict"])
    with torch.device("meta"):
        model = plan.model_class(plan.config)
    assert set(model.state_dict()) - set(plan.pieces) <= {
        one for one in model.state_dict() if one.endswith("num_batches_tracked")
    }
    assert sum(one.numel() for one in model.parameters()) == entry.parameters
    size = 800 if entry.task == "object-detection" else 512
    assert plan.processor.size["shortest_edge"] == size
    backbone = plan_conversion("uniformer", file, task="backbone", published=name)
    assert backbone.config.attention_type == expected.backbone_config.attention_type
    other = "semantic-segmentation" if entry.task == "object-detection" else "object-detection"
    with pytest.raises(ValueError, match=f"is a checkpoint for task='{entry.task}'"):
        plan_conversion("uniformer", file, task=other, published=name)


def test_what_shapes_do_not_show_is_named():
    """Windows of a segmenter, also of its backbone alone; detectors start with those of the authors."""
    file = official_file("uniformer-small-ade20k-upernet")
    for task in ("semantic-segmentation", "backbone"):
        with CaptureLogger(logging.get_logger("hf_videovit.convert.published_sizes")) as told:
            plan_conversion("uniformer", file, task=task, head_dim=64)
        assert "attention_type 'global' ('hybrid'" in told.out and "Pass `published`" in told.out
    with CaptureLogger(logging.get_logger("hf_videovit.convert.published_sizes")) as told:
        plan_conversion("uniformer", official_file("uniformer-small-coco-mask-rcnn-1x"), task=OBJECTS, head_dim=64)
    assert not told.out


def test_the_command_line_says_how_a_detector_is_converted():
    name = "uniformer-base-coco-cascade-mask-rcnn-3x"
    told = CliRunner().invoke(app, ["models", name]).stdout
    words = " ".join(told.split())
    assert f"hf-videovit convert --published {name} --checkpoint FILE --output {name}" in words
    assert "short side 800 pixels, long side at most 1333; sides padded to multiples of 32" in words
    assert "hybrid attention with windows of 14" in words and "53.8" in words and "46.4" in words
    listed = CliRunner().invoke(app, ["models", "--task", "object-detection", "--data", "coco"]).stdout
    assert listed.count("uniformer-") == 8
