"""Each fault that users reported is named with its line, and files without it pass."""

import json
import pickle  # noqa: TID251  (to write what must be read or refused)
from pathlib import Path

import numpy as np
import pytest

from hf_videovit.training.data.annotation_checks import check_annotations, is_annotation_file


FIXTURES = Path(__file__).parents[2] / "fixtures" / "action_detection"
CLIENT, POSTPROCESS = FIXTURES / "client_formats", FIXTURES / "postprocess"
GOOD = [
    "abcdefghijk,0902,0.1,0.1,0.5,0.5,1,0",
    "abcdefghijk,0902,0.1,0.1,0.5,0.5,80,0",
    "abcdefghijk,0903,0.2,0.2,0.6,0.6,12,1",
    "abcdefghijk,0904,0.2,0.2,0.6,0.6,12,1",
]


@pytest.fixture
def check(tmp_path):
    """Check text as a file; keyword arguments as for `check_annotations`, a truth as lines."""

    def run(lines, name="a.csv", truth=None, **options):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        if truth is not None:
            (tmp_path / "truth.csv").write_text("\n".join(truth) + "\n")
            options["truth"] = tmp_path / "truth.csv"
        return check_annotations(tmp_path / name, **options)

    return run


@pytest.mark.parametrize(
    "path",
    [
        *(POSTPROCESS / name for name in ("annotations.csv", "result.csv", "detected_people.json")),
        *(CLIENT / name for name in ("annotations.xml", "coco.json", "rows.jsonl")),
        FIXTURES / "metric_random" / "ground_truth.csv",
        FIXTURES / "metric_ties" / "predictions.csv",
    ],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_good_files_have_no_faults(path):
    assert check_annotations(path) == []


def test_good_lines_have_no_faults(check):
    assert check(GOOD) == []
    kinetics = ["abc,12.5,0.1,0.1,0.5,0.5,12", "nobody,3.0", "nobody,4.0,,,,,"]
    assert check(kinetics) == []
    slowfast = ["v,0902,0.1,0.1,0.5,0.5,,0.95", "v,0902,0.2,0.1,0.5,0.5,-1,0.95"]
    assert check(slowfast) == []


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("abcdefghijk,0902,0.1,0.1,0.5,0.5,0,5", "error", "label 0: labels count from 1"),
        ("abcdefghijk,0902,0.1,0.1,0.5,0.5,81,5", "error", "not among AVA's 80"),
        ("abcdefghijk,0902,0.1,0.1,0.5,0.5,-3,5", "error", "labels below 0"),
        ("abcdefghijk,0902,0.1,0.1,0.5,0.5,1.5,5", "error", "labels must be whole numbers"),
        ("abcdefghijk,0902,0.1,0.1,0.5,0.5,walk,5", "error", "are no numbers"),
        ("abcdefghijk,0902,nan,0.1,0.5,0.5,1,5", "error", "not finite"),
        ("abcdefghijk,0902,0.1,0.1,1.7,0.5,1,5", "warning", "outside the frame"),
        ("abcdefghijk,0902,0.1,0.1,0.1,0.5,1,5", "warning", "without area"),
        ("abcdefghijk,-5,0.1,0.1,0.5,0.5,1,5", "error", "timestamps below 0"),
        ("abcdefghijk,0902,0.1,0.1,0.5,0.5", "error", "must have 8 columns"),
        ("abcdefghijk;0902;0.1;0.1;0.5;0.5;1;0", "error", "must have 8 columns"),
        (GOOD[0], "warning", "repeat an earlier one"),
        ("abcdefghijk,0902,0.3,0.1,0.5,0.5,1,0", "warning", "one person with several boxes"),
    ],
)
def test_a_fault_has_its_line(check, line, level, message):
    lines = [*GOOD, line, GOOD[2].replace("0903", "0909")]
    (finding,) = check(lines)
    assert finding.level == level and message in finding.message
    assert (finding.count, finding.lines) == (1, (5,)) and str(finding).endswith("(1; line 5)")


def test_faults_of_whole_files(check):
    """Boxes in pixels, x, y, width and height, a header, numbers from 0: one finding, not one a row."""
    pixels = [line.replace("0.", "10") for line in GOOD]
    (finding,) = check(pixels)
    assert "pixels where shares" in finding.message and finding.lines == (1, 2, 3, 4)
    (finding,) = check([line.replace("0.5,0.5", "0.05,0.4").replace("0.6,0.6", "0.1,0.1") for line in GOOD])
    assert "x, y, width, height" in finding.message and finding.level == "error"
    (finding,) = check(["video,time,x1,y1,x2,y2,label,person", *GOOD])
    assert "header" in finding.message and finding.lines == (1,)
    (finding,) = check([f"v,0902,0.1,0.1,0.5,0.5,{label},{label}" for label in range(3)], labels={1: "a", 2: "b"})
    assert "these count from 0" in finding.message
    (finding,) = check(["", ""])
    assert finding.message == "it has no boxes"


def test_many_lines_are_counted_and_the_first_are_named(check):
    (finding,) = check([f"v,{902 + index:04d},0.1,0.1,0.5,0.5,99,0" for index in range(50)])
    assert finding.count == 50 and finding.lines == tuple(range(1, 11))
    assert str(finding).endswith("(50; line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)")


def test_timestamps_without_offset(check):
    cut = [line.replace("090", "000") for line in GOOD]
    (finding,) = check(cut)
    assert finding.level == "warning" and "offset of 900" in finding.message
    (finding,) = check(GOOD, durations={"abcdefghijk": 60.0})
    assert finding.level == "error" and "fit an offset of 900" in finding.message and finding.count == 4
    assert check(GOOD, durations={"abcdefghijk": 60.0}, offset=900) == []
    (finding,) = check(GOOD, durations={"other": 60.0})
    assert "videos that are not there" in finding.message


# ---------------------------------------------------------------------- predictions and detected people


def scored(lines):
    return [f"{line.rpartition(',')[0]},0.5" for line in lines]


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda line: line.replace("ijk,", "ijk.mp4,"), "differ by a folder or a suffix"),
        (lambda line: "frames/" + line, "differ by a folder or a suffix"),
        (lambda line: line.replace(",090", ",000"), "timestamps of 900 seconds more"),
        (lambda line: line.replace(",090", ",095"), "the videos are the same, the timestamps are not"),
        (lambda line: line.replace("abc", "xyz"), "'xyzdefghijk,0902' against 'abcdefghijk,0902'"),
    ],
)
def test_no_key_frame_in_common_is_an_error(check, change, hint):
    findings = check([change(line) for line in scored(GOOD)], truth=GOOD)
    assert findings[0].level == "error" and "no key-frame in common" in findings[0].message
    assert hint in findings[0].message


def test_few_key_frames_in_common_are_a_warning(check):
    truth = [GOOD[0].replace("0902", f"{902 + index:04d}") for index in range(20)]
    predictions = scored(truth)
    assert check(predictions, truth=truth) == []
    assert check(predictions[:18], truth=truth) == []  # 90 %
    (finding,) = check(predictions[:17], truth=truth)
    assert finding.level == "warning" and "15.0 % of the truth's key-frames are not here" in finding.message
    strangers = [line.replace("abc", "new") for line in predictions[:3]]
    (finding,) = check([*predictions, *strangers], truth=truth)
    assert "13.0 % of the key-frames are not in the truth" in finding.message and finding.lines == (21, 22, 23)


def test_predictions_need_scores(check):
    people = [line.rpartition(",")[0] + f",{number}" for number, line in enumerate(GOOD)]
    assert any("people) where scores" in finding.message for finding in check(people, truth=GOOD))
    narrow = [line.rpartition(",")[0] for line in GOOD]
    assert any("score in the eighth" in finding.message for finding in check(narrow, truth=GOOD))
    wrong = [*scored(GOOD), GOOD[0].rpartition(",")[0] + ",high", GOOD[0].rpartition(",")[0] + ",7.5"]
    messages = {finding.message: finding.lines for finding in check(wrong, truth=GOOD)}
    assert messages["scores outside 0 to 1"] == (6,) and messages["scores that are no numbers"] == (5,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({("v", 902): np.zeros((1, 5))}, "keys must be text like 'video,0902'"),
        ({"v,0902": np.full((1, 4), 0.5)}, "5 columns: 4 corners and a score"),
        ({"v,0902": np.array([[10.0, 10, 90, 90, 0.9]])}, "pixels where shares"),
        ([1], "dictionary of key-frames, not a list"),
        ({"v,0902": {1}}, "it cannot be read"),
    ],
)
def test_pickles(tmp_path, content, message):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"v,0903": np.array([[0.1, 0.1, 0.5, 0.5, 0.9]])}))
    assert check_annotations(path) == []
    path.write_bytes(pickle.dumps(content))
    findings = check_annotations(path)
    assert findings[0].level == "error" and message in findings[0].message


def test_people_of_alphaction_are_compared_by_their_movies(tmp_path):
    movies = ["-5KQ66BBWC4", "0f39OWEqJ24"]
    truth = POSTPROCESS / "annotations.csv"
    (finding,) = check_annotations(POSTPROCESS / "detected_people.json", truth=truth, movies=movies)
    assert finding.level == "warning" and "'0f39OWEqJ24,0903'" in finding.message
    findings = check_annotations(POSTPROCESS / "detected_people.json", truth=truth, movies=movies[:1])
    assert findings[0].message == "movies that are not in the list" and findings[0].lines == (11, 12, 13)


# ---------------------------------------------------------------------- JSON lines, COCO, CVAT

ROW = {"video": "v.mp4", "time": 1.0, "width": 90, "height": 60, "boxes": [[1, 1, 50, 50]], "labels": [["run"]]}


@pytest.mark.parametrize(
    ("change", "level", "message"),
    [
        ({"boxes": [[1, 1, 50]]}, "error", "boxes of 4 numbers"),
        ({"width": None}, "error", "rows need video, time, width"),
        ({"labels": [["run"], []]}, "error", "`labels` must have one entry for each box"),
        ({"labels": [[3]]}, "error", "list of names"),
        ({"labels": [["fly"]]}, "error", "not among those given"),
        ({"boxes": [[1, 1, 95, 50]]}, "warning", "outside the frame"),
        ({"boxes": [[5, 1, 5, 50]]}, "warning", "without area"),
        ({"time": 1.0}, "error", "an earlier line has already"),
        ({"time": -1.0}, "error", "timestamps below 0"),
    ],
)
def test_json_lines(check, change, level, message):
    rows = [{**ROW, "time": float(second)} for second in (1, 2, 3, 4, 5)]
    wrong = {**ROW, "time": 9.0, **change}
    (finding,) = check(map(json.dumps, [*rows, wrong]), "a.jsonl", labels={1: "run"})
    assert finding.level == level and message in finding.message and finding.lines == (6,)


def test_shares_where_pixels_are_meant(check):
    (finding,) = check([json.dumps({**ROW, "boxes": [[0.1, 0.1, 0.5, 0.9]]})], "a.jsonl")
    assert finding.level == "error" and "shares of width and height where pixels" in finding.message


def test_coco(tmp_path):
    content = json.loads((CLIENT / "coco.json").read_text())
    first, second, third, fourth, fifth = content["annotations"][:5]
    first["image_id"], second["category_id"], third["bbox"], fourth["bbox"][2] = 99, 99, [], 900
    del fifth["track_id"]
    del content["images"][4]["frame_id"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = {finding.message: finding.lines for finding in check_annotations(tmp_path / "a.json")}
    assert found["annotations of unknown images"] == (1,)
    assert found["annotations of unknown categories"] == (2,)
    assert found["annotations without a box"] == (3,)
    assert found["boxes that reach outside the frame, which are clipped"] == (4,)
    assert next(lines for message, lines in found.items() if "without track_id" in message) == (5,)
    assert found["images without frame_id or time"] == (12, 13, 14, 15)


def test_cvat(tmp_path):
    text = (CLIENT / "annotations.xml").read_text()
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if 'frame="10"' in line)
    lines[place] = lines[place].replace('xbr="344.30"', 'xbr="944.30"')
    path = tmp_path / "a.xml"
    path.write_text("\n".join(lines).replace("<size>60</size>", "<size>57</size>"))
    found = {finding.message: finding.lines for finding in check_annotations(path)}
    assert found["boxes that reach outside the frame, which are clipped"] == (place + 1,)
    (late,) = found["boxes after the last of 57 frames"]
    assert 'frame="57"' in lines[late - 1]
    path.write_text(text.replace('label="person"', 'label="worker"').replace(">true<", ">false<"))
    messages = " ".join(finding.message for finding in check_annotations(path))
    assert (
        "no track is labelled person, but worker (2), forklift (1)" in messages and "nobody does anything" in messages
    )


def test_files_that_cannot_be_read_are_errors(check):
    for name, text in (("a.json", "{"), ("a.xml", "<a"), ("a.pkl", "junk"), ("b.json", "{}"), ("c.json", "3")):
        (finding,) = check([text], name)
        assert finding.level == "error" and "it cannot be read" in finding.message
    assert is_annotation_file("a.CSV") and not is_annotation_file("a.mp4")
    with pytest.raises(ValueError, match=r"`path` must end in \.csv"):
        check_annotations("a.txt")


@pytest.mark.parametrize("offset", [0, 900])
def test_csv_is_compared_with_json_lines_by_name_and_timestamp(check, tmp_path, offset):
    """JSON lines name files and times in them, AVA's csv names without suffix and timestamps of the film."""
    truth = tmp_path / "val.jsonl"
    row = {"width": 640, "height": 360, "boxes": [[64, 36, 320, 180]], "labels": [["sit"]]}
    rows = [row | {"video": f"val/{name}.mp4", "time": time} for name, time in (("a", 0.48), ("b", 3.0))]
    truth.write_text("".join(json.dumps(one) + "\n" for one in rows))
    lines = [f"a,{offset:04d},0.1,0.1,0.5,0.5,1,0.5", f"b,{offset + 3:04d},0.1,0.1,0.5,0.5,1,0.5"]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    assert check_annotations(tmp_path / "p.csv", truth=truth, offset=offset) == []
    findings = check_annotations(tmp_path / "p.csv", truth=truth, offset=offset + 1)
    assert any("no key-frame in common" in finding.message for finding in findings)


PIXELS = {"video": "v.mp4", "time": 0.4, "width": 64, "height": 48, "boxes": [[4, 4, 20, 30]], "labels": [["sit"]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[0.1, 0.1, 0.2, 0.3]]}, "boxes as shares of width and height where pixels are meant"),
        ({"boxes": [[200, 4, 220, 30]]}, "boxes outside the frame"),
        ({"boxes": [[-20, 4, -2, 30]]}, "boxes outside the frame"),
        ({"width": 0}, "frames without width and height"),
        ({"boxes": [[4, 4], [20, 30]]}, "rows need"),
    ],
)
def test_one_faulty_row_among_good_ones_is_an_error_with_its_line(check, change, message):
    rows = [PIXELS | {"time": float(index)} for index in range(9)] + [PIXELS | change]
    findings = check([json.dumps(row) for row in rows], "a.jsonl")
    assert [(one.level, one.lines) for one in findings if message in one.message] == [("error", (10,))]


def test_one_row_in_pixels_among_shares_is_an_error(check):
    (finding,) = check([*GOOD, "abcdefghijk,0905,10,12,50,60,12,1"])
    assert (finding.level, finding.lines) == ("error", (5,)) and "boxes in pixels" in finding.message


def test_coco_names_its_videos_by_file_name_or_name(tmp_path):
    content = json.loads((CLIENT / "coco.json").read_text())
    for video in content["videos"]:
        video["name"] = video.pop("file_name", None) or video["name"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    known = {Path(video["name"]).stem: 1e6 for video in content["videos"]}
    assert check_annotations(tmp_path / "a.json", durations=known) == []


@pytest.mark.parametrize("box", [["a", 1, 2, 3], [0.1, 0.1, 0.2, 0.3], None])
def test_odd_boxes_of_coco_are_counted(tmp_path, box):
    from hf_videovit.training.data.coco import read_coco

    content = json.loads((CLIENT / "coco.json").read_text())
    before = len(content["annotations"])
    content["annotations"].append(content["annotations"][0] | {"id": 99, "bbox": box})
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert sum(read_coco(tmp_path / "a.json", 30.0).skipped.values()) == 1 and before
