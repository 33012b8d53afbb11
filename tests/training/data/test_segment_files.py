"""Annotations of segments in the files of their data sets, and the features that belong to them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hf_videovit.feature_files import check_description, open_features, read_manifest
from hf_videovit.training.data.activitynet import read_class_scores
from hf_videovit.training.data.segment_files import evaluation_subset, find_subset, read_segments, stem_of
from hf_videovit.training.data.segment_source import OPEN_END, join_features


def test_a_list_with_a_segment_in_each_row(tmp_path):
    path = tmp_path / "segments.csv"
    path.write_text(
        "video,label,start,end,split,fps,video_duration\n"
        "a.mp4,run,1.5,0:03,train,25,60\n"
        "a.mp4,jump,1.5,3,train,25,60\n"
        "a.mp4,jump,1.5002,3,train,25,60\n"
        "b.mov,jump,0,2.5,val,,\n"
        "c.mp4,,,,train,,\n"
    )
    found = read_segments(path)
    assert found.label_names == ["jump", "run"] and found.subsets == ["train", "val"]
    first, second, third = found.videos
    assert (first.name, first.fps, first.duration, first.subset) == ("a", 25.0, 60.0, "train")
    assert first.segments.tolist() == [[1.5, 3], [1.5, 3]] and first.labels == ("run", "jump")
    assert (second.fps, second.duration, second.labels) == (None, None, ("jump",))
    assert third.name == "c" and third.segments.shape == (0, 2)
    assert [video.name for video in found.subset("training")] == ["a", "c"]


@pytest.mark.parametrize(
    ("header", "row", "segment"),
    [
        ("file,action,start_frame,end_frame,fps", "a.mp4,run,50,100,25", [2.0, 4.0]),
        ("clip,class,t_start,t_end", "a.mp4,run,2,4", [2.0, 4.0]),
        ("video,label,start,duration", "a.mp4,run,2,2", [2.0, 4.0]),
        ("video,label,start_ms,end_ms", "a.mp4,run,2000,4000", [2.0, 4.0]),
    ],
)
def test_columns_of_start_and_end(tmp_path, header, row, segment):
    path = tmp_path / "segments.csv"
    columns = header.replace("action", "label")
    path.write_text(f"{columns}\n{row}\n")
    (video,) = read_segments(path).videos
    assert video.segments.tolist() == [segment] and video.labels == ("run",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("video,label\na.mp4,run", "columns of the video, the label, the start and the end"),
        ("video,label,start,end\na.mp4,run,3,2", "row 1: `end` of a part must be after"),
        ("video,label,start,end\na.mp4,run,1,2\na.mp4,run,,", "row 2: a segment needs a label, a start and an end"),
        ("video,label,start,end\na.mp4,,1,2", "row 1: a segment needs a label, a start and an end"),
        ("video,label,start,end\na.mp4,run,1,nan", "row 1: a segment needs a label, a start and an end"),
        ("video,label,start_frame,end_frame\na.mp4,run,1,2", "a column `fps` is needed"),
        ("video,label,start,end,split\na.mp4,run,1,2,train\na.mp4,run,3,4,val", "row 2: the rows of 'a' differ"),
    ],
)
def test_faulty_rows(tmp_path, rows, message):
    (tmp_path / "segments.csv").write_text(rows + "\n")
    with pytest.raises(ValueError, match=message):
        read_segments(tmp_path / "segments.csv")


def test_text_files_of_thumos14(tmp_path):
    (tmp_path / "CliffDiving_val.txt").write_text(
        "video_validation_0000051  67.5 71.9 \nvideo_validation_0000052 1 2\n"
    )
    (tmp_path / "Diving_val.txt").write_text("video_validation_0000051  67.5 71.9 \n\n")
    (tmp_path / "Diving_test.txt").write_text("video_test_0000004  0.2 1.1 \n")
    (tmp_path / "Ambiguous_val.txt").write_text("video_validation_0000053 5 6\n")
    found = read_segments(tmp_path)
    assert found.label_names == ["CliffDiving", "Diving"] and found.subsets == ["test", "validation"]
    assert found.remarks == ["1 segments of the class Ambiguous are left out"]
    videos = {video.name: video for video in found.videos}
    assert videos["video_validation_0000051"].labels == ("CliffDiving", "Diving")
    assert len(videos["video_validation_0000053"].segments) == 0
    assert videos["video_test_0000004"].subset == "test"
    (tmp_path / "Diving_val.txt").write_text("video_validation_0000051 67.5\n")
    with pytest.raises(ValueError, match="line 1: must be video, start and end"):
        read_segments(tmp_path)


def test_activitynet_with_negatives_and_gaps_in_the_numbers(tmp_path):
    entries = {
        "a": {"subset": "training", "duration": 9, "annotations": [{"segment": [1, 2], "label": "x", "label_id": 2}]},
        "b": {"subset": "validation", "duration": 5, "fps": 25, "annotations": []},
    }
    (tmp_path / "truth.json").write_text(json.dumps({"database": entries}))
    found = read_segments(tmp_path / "truth.json")
    assert found.label_names == ["unused 0", "unused 1", "x"]
    assert [len(video.segments) for video in found.videos] == [1, 0]
    assert (found.videos[0].fps, found.videos[1].fps, found.videos[1].duration) == (None, 25.0, 5.0)
    entries["b"]["annotations"] = [{"segment": [1, 2], "label": "Ambiguous", "label_id": 0}]
    (tmp_path / "truth.json").write_text(json.dumps({"database": entries}))
    found = read_segments(tmp_path / "truth.json")
    assert len(found.videos[1].segments) == 0 and len(found.remarks) == 1
    entries["a.mp4"] = entries["a"]
    (tmp_path / "truth.json").write_text(json.dumps({"database": entries}))
    with pytest.raises(ValueError, match="several videos of one name: 'a'"):
        read_segments(tmp_path / "truth.json")


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ("start,end", "nan,2", "row 1: a segment needs a label, a start and an end"),
        ("start,end", ",2", "row 1: a segment needs a label, a start and an end"),
        ("end", "2", "a start and an end"),
        ("start,end,fps", "1,2,0", "row 1: `fps` must be a positive number, got '0'"),
        ("start,end,fps", "1,2,fast", "row 1: `fps` must be a positive number, got 'fast'"),
        ("start,end,video_duration", "1,2,-4", "row 1: `video_duration` must be a positive number"),
    ],
)
def test_rows_that_say_no_segment_are_refused(columns, row, message, tmp_path):
    (tmp_path / "s.csv").write_text(f"video,label,{columns}\na.mp4,run,{row}\n")
    with pytest.raises(ValueError, match=message):
        read_segments(tmp_path / "s.csv")


def test_segments_after_the_end_of_their_video_are_remarked(tmp_path):
    """Such as frames in a column of seconds. The length is that of the annotation or of the features' list."""
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.float32))
    (tmp_path / "manifest.jsonl").write_text('{"video": "a", "fps": 30, "duration": 8.0}\n')
    (tmp_path / "s.csv").write_text("video,label,start,end\na,run,7,9\na,run,50,75\na,run,100,125\n")
    found = read_segments(tmp_path / "s.csv")
    (remark,) = join_features(found.videos, found.label_names, open_features(tmp_path)).remarks
    assert remark.startswith("2 segments start after the end of their video: 'a' has one at 50 s and a length of 8 s")


def test_the_list_of_features_has_possible_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.float32))
    (tmp_path / "s.csv").write_text("video,label,start,end\na,run,1,2\n")
    found = read_segments(tmp_path / "s.csv")
    for row, message in (
        ('"fps": "x", "duration": 8', "`fps` of a"),
        ('"fps": 30, "duration": -1', "`duration` of a"),
    ):
        (tmp_path / "manifest.jsonl").write_text(f'{{"video": "a", {row}}}\n')
        with pytest.raises(ValueError, match=f"manifest.jsonl: {message} must be a positive number"):
            join_features(found.videos, found.label_names, open_features(tmp_path))


def test_damaged_features_are_no_pickles(tmp_path):
    np.save(tmp_path / "cut.npy", np.zeros((300, 40), np.float32))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    np.save(tmp_path / "objects.npy", np.array([{1: 2}], object))
    torch.save(Path("x"), tmp_path / "path.pt")
    files = open_features(tmp_path).files
    with pytest.raises(ValueError, match="cut.npy cannot be read: mmap"):
        files["cut"].read()
    for name in ("objects", "path"):
        with pytest.raises(ValueError, match="cannot be read without unpickling, which may run code") as error:
            files[name].read()
        assert "\n" not in str(error.value)


def test_pickled_features_are_named(tmp_path):
    (tmp_path / "all.pkl").write_bytes(b"")
    for path in (tmp_path, tmp_path / "all.pkl"):
        with pytest.raises(ValueError, match="A pickle may run code: convert it"):
            open_features(path)


def test_names_of_subsets_and_videos():
    subsets = ["validation", "test"]
    assert find_subset("VAL", subsets) == "validation" and find_subset("train", subsets) is None
    assert evaluation_subset(subsets, "validation") == "test"
    assert evaluation_subset(["training", "Validation"], "training") == "Validation"
    assert [stem_of(name) for name in ("a.mp4", "v_1.5", "b/c.MKV")] == ["a", "v_1.5", "b/c"]


def test_missing_features_are_counted_and_facts_come_from_the_manifest(tmp_path):
    features = tmp_path / "features"
    features.mkdir()
    np.save(features / "v_a.npy", np.zeros((3, 4), np.float32))
    (features / "manifest.jsonl").write_text('{"video": "a", "fps": 30, "duration": 8.0}\n{"video": "z", "fp')
    (tmp_path / "s.csv").write_text("video,label,start,end\na.mp4,run,1,2\nb.mp4,run,1,2\nb.mp4,run,3,4\n")
    found = read_segments(tmp_path / "s.csv")
    folder = open_features(features)
    source = join_features(found.videos, found.label_names, folder, form="v_{video}")
    assert [(row.name, row.fps, row.duration) for row in source.rows] == [("a", 30.0, 8.0)]
    assert source.remarks == ("1 of 2 videos with 2 segments have no features",)
    assert [row["video"] for row in read_manifest(features)] == ["a"]
    (features / "manifest.jsonl").unlink()
    folder = open_features(features)
    with pytest.raises(ValueError, match="The frame rate of 'a' is unknown"):
        join_features(found.videos, found.label_names, folder, form="v_{video}")
    (row,) = join_features(found.videos, found.label_names, folder, form="v_{video}", fps=25).rows
    assert row.duration == OPEN_END
    with pytest.raises(ValueError, match="The duration of 'a' is unknown"):
        join_features(found.videos, ["run"], folder, form="v_{video}", fps=25, needs_duration=True)


def test_files_of_features_that_cannot_be_read(tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    torch.save({"features": torch.zeros(2, 3), "model": torch.nn.Linear(2, 2)}, tmp_path / "code.pt")
    np.save(tmp_path / "flat.npy", np.zeros(4))
    (tmp_path / "empty.npy").write_bytes(b"")
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)}, tmp_path / "two.safetensors")
    folder = open_features(tmp_path)
    for name, message in (
        ("pickled", "unpickling"),
        ("code", "unpickling"),
        ("flat", "must have shape"),
        ("empty", "cannot be read"),
        ("two", "it holds a, b, not 'features'"),
    ):
        with pytest.raises(ValueError, match=message):
            folder.files[name].read()
    np.save(tmp_path / "two.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match="are both features of 'two'"):
        open_features(tmp_path)
    with pytest.raises(ValueError, match="is neither"):
        open_features(tmp_path / "gone")


def test_a_description_is_compared_where_both_sides_have_it():
    known = {"encoder": "a", "window": 16, "dtype": "float32"}
    check_description(known, {"encoder": "a", "stride": 4, "dtype": "float16"}, "`features`")
    check_description(None, known, "`features`")
    with pytest.raises(ValueError, match="`window` 8, but the localiser was trained on `window` 16"):
        check_description(known, {"window": 8}, "`features`")


def test_class_scores_are_matched_by_name(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"results": {"a": [0.1, 0.2, 0.7]}, "class": ["x", "y", "z"]}))
    assert read_class_scores(path, ["z", "x"]) == {"a": [0.7, 0.1]}
    path.write_text(json.dumps({"results": {"a": [0.1, 0.9]}}))
    assert read_class_scores(path, ["p", "q"]) == {"a": [0.1, 0.9]}
    with pytest.raises(ValueError, match="must have 3 scores"):
        read_class_scores(path, ["p", "q", "r"])
    with pytest.raises(ValueError, match="pickle"):
        read_class_scores(tmp_path / "scores.pkl", ["p"])
