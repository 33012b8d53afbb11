"""Faults of annotations of segments, as `hf-videovit doctor` names them."""

import json

import pytest
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.training.data.segment_checks import check_segments, is_segment_file
from tests.clips import moving_square_clip, write_clip


def entry(*segments, **fields) -> dict:
    annotations = [{"segment": list(segment), "label": "run"} for segment in segments]
    return {"subset": "training", "duration": 10.0, "annotations": annotations, **fields}


def file_of(folder, **videos):
    path = folder / "truth.json"
    path.write_text(json.dumps({"version": "1", "database": videos}))
    return path


def test_a_right_file_has_no_faults(tmp_path):
    path = file_of(tmp_path, a=entry((0, 2), (3, 10.03)), b=entry((1, 2)))
    assert is_segment_file(path) and check_segments(path) == []


@pytest.mark.parametrize(
    ("video", "level", "message"),
    [
        (entry((12, 20)), "error", "1 videos with a segment that starts after their end (frames in place"),
        (entry((8, 12)), "warning", "1 videos with a segment that ends after their end: 'bad'"),
        (entry((-1, 2)), "warning", "starts before 0: 'bad'"),
        (entry(), "warning", "1 videos without segments, which are negative examples: 'bad'"),
        (entry((1, 2), (4, 5), (1, 2.0004)), "warning", "there twice, which counts once: 'bad'"),
        (entry((1, 2), duration=None), "warning", "1 videos without a duration: 'bad'"),
        (entry((3, 1)), "error", "segment"),
        ({"annotations": [{"segment": [1, 2]}]}, "error", "needs a `label`"),
    ],
)
def test_faults_are_named(tmp_path, video, level, message):
    found = check_segments(file_of(tmp_path, good=entry((0, 2)), bad=video))
    assert [one.level for one in found] == [level] and message in str(found[0]), found


def test_films_are_compared(tmp_path):
    path = file_of(tmp_path, a=entry((0, 2)), b=entry((0, 2), duration=2.0), c=entry((0, 2)))
    write_clip(tmp_path / "films" / "a.mp4", moving_square_clip(num_frames=20), fps=10)
    write_clip(tmp_path / "films" / "b.mp4", moving_square_clip(num_frames=20), fps=10)
    done = CliRunner().invoke(app, ["doctor", str(path), "--videos", str(tmp_path / "films")])
    assert done.exit_code == 1
    assert "error: 1 videos that are not in the folder: 'c'" in done.output
    assert "warning: 1 videos whose film is more than 1 s longer or shorter: 'a'" in done.output
    done = CliRunner().invoke(app, ["doctor", str(path)])
    assert done.exit_code == 0 and "no faults" in done.output


def test_other_files_are_other_annotations(tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert not is_segment_file(tmp_path / "coco.json")
    (tmp_path / "list.json").write_text("[]")
    assert not is_segment_file(tmp_path / "list.json")
    assert not is_segment_file(tmp_path / "rows.csv")
    (tmp_path / "cut.json").write_text('{"database": {')
    assert not is_segment_file(tmp_path / "cut.json")  # the general check says that it is damaged
    assert CliRunner().invoke(app, ["doctor", str(tmp_path / "cut.json")]).exit_code == 1
    assert check_segments(file_of(tmp_path, a=entry()))[0].level == "error"
