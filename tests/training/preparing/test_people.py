"""People found by a detector, and in the files of others, become JSON lines that an evaluation takes."""

import json
from functools import partial

import numpy as np
import pytest
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.inference.people import detect_people
from hf_videovit.training.data.key_frames import read_key_frames
from hf_videovit.training.preparing.key_frames import prepare_key_frames
from hf_videovit.training.preparing.people import find_people
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_detector


@pytest.fixture
def videos(tmp_path):
    """Two videos of 2 seconds."""
    return [
        str(write_clip(tmp_path / "v" / f"{name}.mp4", moving_square_clip(num_frames=20), fps=10)) for name in "ab"
    ]


class Detector:
    """Two people in each image; stops at a number of images."""

    def __init__(self, stop_after=None):
        self.seen, self.stop_after = [], stop_after

    def __call__(self, images):
        self.seen += images
        if self.stop_after is not None and len(self.seen) > self.stop_after:
            raise KeyboardInterrupt
        return [(np.array([[1, 2, 20, 30], [5, 5, 9, 9]]), np.array([0.9, 0.3])) for _ in images]


def run(videos, output, detector, **options):
    return find_people(videos, output, partial(detect_people, detector, threshold=0.5), {"detector": "x"}, **options)


def test_key_frames_every_so_many_seconds(videos, tmp_path):
    found = run(dict.fromkeys(videos), tmp_path / "out" / "p.jsonl", Detector(), every=0.5)
    rows = read_key_frames(found.file).rows
    assert [row.video for row in rows] == ["../v/a.mp4"] * 4 + ["../v/b.mp4"] * 4
    assert [row.time for row in rows[:4]] == [0.0, 0.5, 1.0, 1.5] and [row.frame for row in rows[:4]] == [0, 5, 10, 15]
    assert all(row.boxes.tolist() == [[1, 2, 20, 30]] and row.scores.tolist() == [pytest.approx(0.9)] for row in rows)
    assert (found.num_key_frames, found.num_people, found.resumed) == (8, 8, 0)
    assert not list(tmp_path.glob("out/*.parts"))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_given_key_frames_keep_their_times(videos, tmp_path, batch_size):
    wanted = {videos[0]: [0.37, 1.2, 0.41]}
    rows = read_key_frames(run(wanted, tmp_path / "p.jsonl", Detector(), batch_size=batch_size).file).rows
    assert [(row.time, row.frame) for row in rows] == [(0.37, 4), (1.2, 12), (0.41, 4)]


def test_an_interrupted_run_goes_on_after_its_last_video(videos, tmp_path):
    whole = run(dict.fromkeys(videos), tmp_path / "whole.jsonl", Detector()).file.read_text()
    with pytest.raises(KeyboardInterrupt):
        run(dict.fromkeys(videos), tmp_path / "p.jsonl", Detector(stop_after=3), batch_size=2)
    assert not (tmp_path / "p.jsonl").exists()
    with pytest.raises(ValueError, match="p.jsonl.parts is an interrupted run with other every"):
        run(dict.fromkeys(videos), tmp_path / "p.jsonl", Detector(), every=0.2)
    second = Detector()
    found = run(dict.fromkeys(videos), tmp_path / "p.jsonl", second)
    assert (found.resumed, len(second.seen)) == (1, 2)
    assert found.file.read_text() == whole


def test_missing_and_damaged_videos_are_listed(videos, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 99)
    listed = dict.fromkeys([str(tmp_path / "bad.mp4"), str(tmp_path / "gone.mp4"), *videos])
    found = run(listed, tmp_path / "p.jsonl", Detector())
    assert found.missing == [str(tmp_path / "gone.mp4")] and list(found.damaged) == [str(tmp_path / "bad.mp4")]
    assert found.num_key_frames == 4
    with pytest.raises(ValueError, match="has no readable video with a key-frame, of 1"):
        run({"gone.mp4": None}, tmp_path / "q.jsonl", Detector())


def test_files_are_replaced_only_if_asked_and_if_they_are_key_frames(videos, tmp_path):
    run(dict.fromkeys(videos), tmp_path / "p.jsonl", Detector())
    with pytest.raises(ValueError, match="exists: choose another name, or set `overwrite`"):
        run(dict.fromkeys(videos), tmp_path / "p.jsonl", Detector())
    assert run({videos[0]: [0.0]}, tmp_path / "p.jsonl", Detector(), overwrite=True).num_key_frames == 1
    (tmp_path / "notes.jsonl").write_text("my notes\n")
    with pytest.raises(ValueError, match="notes.jsonl, line 1"):
        run(dict.fromkeys(videos), tmp_path / "notes.jsonl", Detector(), overwrite=True)
    for change, message in (({"every": 0}, "`every`"), ({"batch_size": 0}, "`batch_size`")):
        with pytest.raises(ValueError, match=message):
            run(dict.fromkeys(videos), tmp_path / "q.jsonl", Detector(), **change)


def test_the_command_s_people_are_evaluated(videos, tmp_path):
    """A detector of transformers, the key-frames of annotations, and `evaluate --boxes`."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = YolosConfig(**sizes, image_size=[32, 32], patch_size=16, num_detection_tokens=3, id2label={0: "person"})
    YolosForObjectDetection(config).save_pretrained(tmp_path / "yolos")
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(tmp_path / "yolos")
    row = {"video": "v/a.mp4", "width": 56, "height": 40, "boxes": [[1, 2, 20, 30]], "labels": [["right"]]}
    lines = [json.dumps(row | {"time": time}) for time in (0.4, 0.83)]
    (tmp_path / "val.jsonl").write_text("\n".join(lines) + "\n")
    words = ["prepare", tmp_path / "val.jsonl", tmp_path / "people.jsonl", "--layout", "people"]
    words += ["--detector", tmp_path / "yolos", "--person-threshold", 0]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0 and "2 key-frames, 6 people" in done.output, done.output
    model = save_tiny_detector(tmp_path / "model")
    words = ["evaluate", "--model", model, "--task", "action-detection", "--annotations", tmp_path / "val.jsonl"]
    words += ["--boxes", tmp_path / "people.jsonl", "--person-threshold", 0, "--json"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["num_boxes"] == 6


@pytest.mark.parametrize("words", [["--layout", "people"], ["--layout", "ava", "--detector", "x"]])
def test_a_detector_belongs_to_its_layout(tmp_path, words):
    done = CliRunner().invoke(app, ["prepare", str(tmp_path), str(tmp_path / "p.jsonl"), *words])
    assert done.exit_code == 2 and "--detector must be given with --layout people" in " ".join(done.output.split())


PEOPLE = [(0.1, 0.2, 0.5, 0.6, 0.95), (0.2, 0.2, 0.9, 0.8, 0.4)]


def write_people(path, layout):
    """Two people on a key-frame of `a`, one of `gone`, in the layout."""
    if layout == "slowfast":
        lines = [f"a,0901,{','.join(map(str, box))},,{score}" for *box, score in PEOPLE]
        path.write_text("\n".join([*lines, "gone,0901,0.1,0.1,0.5,0.5,,0.9"]) + "\n")
    elif layout == "fair":
        import pickle  # noqa: TID251  (to write what must be read)

        content = {"a,0901": np.array(PEOPLE), "gone,0901": np.array(PEOPLE[:1])}
        path.write_bytes(pickle.dumps(content))
    else:
        entries = []
        for movie in (0, 1):
            for x1, y1, x2, y2, score in PEOPLE[: 2 - movie]:
                box = [x1 * 64, y1 * 64, (x2 - x1) * 64, (y2 - y1) * 64]
                entries.append({"image_id": 10000 * movie + 901, "category_id": 1, "bbox": box, "score": score})
        path.write_text(json.dumps(entries))


@pytest.mark.parametrize("layout", ["slowfast", "fair", "alphaction"])
def test_people_of_others_are_those_above_the_threshold(videos, tmp_path, layout):
    (tmp_path / "movies.txt").write_text("a.mp4\ngone.mkv\n")
    source = tmp_path / f"people{ {'slowfast': '.csv', 'fair': '.pkl', 'alphaction': '.json'}[layout] }"
    write_people(source, layout)
    options = {"videos": tmp_path / "v", "offset": 900.0}
    options |= {"movies": tmp_path / "movies.txt"} if layout == "alphaction" else {}
    found = prepare_key_frames(source, tmp_path / "p.jsonl", layout, **options)
    (row,) = read_key_frames(found.file).rows
    assert (row.video, row.time, row.frame) == ("v/a.mp4", 1.0, 10)
    width, height = row.width, row.height
    np.testing.assert_allclose(row.boxes, [[0.1 * width, 0.2 * height, 0.5 * width, 0.6 * height]], atol=1e-4)
    assert row.scores.tolist() == [0.95] and row.labels == ((),)
    assert found.missing == {"gone": 1} and not (tmp_path / "labels.json").exists()
    found = prepare_key_frames(source, tmp_path / "q.jsonl", layout, person_threshold=0.3, **options)
    assert found.num_people == 2


def test_numbers_of_movies_need_their_list(videos, tmp_path):
    write_people(tmp_path / "p.json", "alphaction")
    with pytest.raises(ValueError, match="`movies` is needed for alphaction"):
        prepare_key_frames(tmp_path / "p.json", tmp_path / "p.jsonl", "alphaction", tmp_path / "v")
