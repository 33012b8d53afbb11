"""Faults of key-frames that are found when they are opened or read."""

import json

import pytest
import torch

from hf_videovit.training.data.key_frame_source import WholeFrameLoader, open_key_frames
from hf_videovit.training.data.loaders import Record
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import tiny_processor


ROW = {"video": "v.mp4", "time": 0.4, "width": 64, "height": 48, "boxes": [[4, 4, 20, 30]], "labels": [["sit"]]}


@pytest.fixture
def opened(tmp_path):
    """Open a good row, an empty line and a changed row."""
    write_clip(tmp_path / "v.mp4", moving_square_clip(num_frames=20), fps=10)

    def run(change, name="a.jsonl", **options):
        text = json.dumps(ROW | {"time": 0.0}) + "\n\n" + json.dumps(ROW | change) + "\n"
        (tmp_path / name).write_text(text)
        return open_key_frames(tmp_path / name, **options)

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [["fly"]]}, r"a\.jsonl, line 3: labels fly are not among the 1 label names"),
        ({"time": 0.0}, r"a\.jsonl, line 3: the key-frame .*v\.mp4@0 is on an earlier line"),
        ({"boxes": [[0.1, 0.1, 0.4, 0.5]]}, r"a\.jsonl, line 3: `boxes` must be pixels, these are shares"),
        ({"boxes": [[4, 4], [20, 30]]}, r"a\.jsonl, line 3: `boxes` must have 4 numbers for each person"),
        ({"boxes": [[4, 4, 20]]}, r"a\.jsonl, line 3: `boxes` must have 4 numbers for each person"),
        ({"height": 0}, r"a\.jsonl, line 3: `width` and `height` must be those of the frame"),
    ],
)
def test_a_fault_is_named_with_file_and_line(opened, change, message):
    with pytest.raises(ValueError, match=message):
        opened(change, label_names=["sit"])


def test_other_formats_are_to_be_prepared(opened):
    with pytest.raises(ValueError, match=r"a\.csv' must be JSON lines of key-frames; `hf-videovit prepare`"):
        opened({}, "a.csv")


def test_a_key_frame_outside_its_video_is_named(opened):
    source = opened({"time": 9.0})
    samples = list(source.share(0, 1, None, 0))
    load = WholeFrameLoader(tiny_processor(do_center_crop=False))
    assert isinstance(load(Record(samples[0], 0, 0))["boxes"], torch.Tensor)
    with pytest.raises(ValueError, match=r"Key-frame .*v\.mp4@9: .*must lie between.*hf-videovit doctor"):
        load(Record(samples[1], 0, 1))
