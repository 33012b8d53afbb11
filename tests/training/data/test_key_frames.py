"""Key-frames go through every format and come back; what a format cannot say is counted or refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from hf_videovit.published import ava_rows, published_labels
from hf_videovit.training.data.ava_csv import (
    ava_labels,
    format_timestamp,
    read_ava,
    read_ava_kinetics,
    read_slowfast,
    write_ava,
)
from hf_videovit.training.data.coco import read_coco, write_coco
from hf_videovit.training.data.cvat import read_cvat, write_cvat
from hf_videovit.training.data.key_frames import KeyFrame, read_key_frames, video_name, write_key_frames
from hf_videovit.training.data.proposals import read_alphaction_people, write_alphaction


FIXTURES = Path(__file__).parents[2] / "fixtures" / "action_detection"
CLIENT, POSTPROCESS = FIXTURES / "client_formats", FIXTURES / "postprocess"
MOVIES = {name: tuple(size) for name, size in json.loads((POSTPROCESS / "config.json").read_text())["videos"].items()}
NUMBERS = {name: number for number, name in ava_labels().items()}


def facts(rows, tolerance=1e-9):
    """Rows as plain values, with boxes on a grid of `tolerance`."""
    decimals = round(-math.log10(tolerance))
    return [
        (
            row.video,
            round(row.time, 6),
            row.frame,
            row.width,
            row.height,
            (row.boxes.round(decimals) + 0.0).tolist(),
            row.labels,
            row.person_ids,
        )
        for row in rows
    ]


# ---------------------------------------------------------------------- official and hand-made files


def test_cvat_and_coco_mean_the_same_rows():
    wanted = facts(read_key_frames(CLIENT / "rows.jsonl").rows, 1e-6)
    cvat = read_cvat(CLIENT / "annotations.xml", fps=25, every=10, video="shop_floor.mp4")
    assert facts(cvat.rows, 1e-6) == wanted
    assert cvat.skipped == {"tracks that are no people": 1}
    assert facts(read_coco(CLIENT / "coco.json").rows, 1e-6) == wanted


def test_ava_becomes_the_coco_of_alphaction(tmp_path):
    read = read_ava(POSTPROCESS / "annotations.csv", MOVIES)
    assert [row.time for row in read.rows[:3]] == [902, 903, 1798]
    write_alphaction(tmp_path / "coco.json", read.rows, list(MOVIES), NUMBERS)
    got, wanted = (
        json.loads(path.read_text()) for path in (tmp_path / "coco.json", POSTPROCESS / "annotations_coco.json")
    )
    for entry in (*got["annotations"], *wanted["annotations"]):
        entry["action_ids"] = sorted(entry["action_ids"])
        entry["area"] = round(entry["area"], 4)
    assert got == wanted


def test_detected_people_are_those_of_the_official_code():
    tensors = load_file(POSTPROCESS / "io.safetensors")
    config = json.loads((POSTPROCESS / "config.json").read_text())
    found = read_alphaction_people(POSTPROCESS / "detected_people.json", list(MOVIES), MOVIES)
    assert [f"{row.video},{format_timestamp(row.time)}" for row in found.rows] == config["clip_keys"]
    inclusive = np.concatenate([row.boxes for row in found.rows]) - [0, 0, 1, 1]
    np.testing.assert_allclose(inclusive, tensors["person_boxes"], atol=2e-5)
    np.testing.assert_allclose(np.concatenate([row.scores for row in found.rows]), tensors["person_scores"], atol=1e-6)
    assert found.skipped == {"scores below 0.8": 6}


def test_results_are_written_line_by_line_as_official(tmp_path):
    read = read_ava(POSTPROCESS / "result.csv", MOVIES, scored=True)
    write_ava(tmp_path / "result.csv", read.rows, NUMBERS)
    assert (tmp_path / "result.csv").read_text() == (POSTPROCESS / "result.csv").read_text()


def test_labels_of_ava_are_those_of_the_official_files():
    official = json.loads((FIXTURES / "label_map" / "label_map.json").read_text())
    assert {str(number): name for number, name in ava_labels().items()} == official["names"]
    assert [row + 1 for row in ava_rows("evaluated")] == official["evaluated"]
    for group, (first, last) in official["groups"].items():
        assert ava_rows(group) == list(range(first - 1, last))
    assert published_labels("ava")[ava_rows("person_movement")[-1]] == "walk"
    with pytest.raises(ValueError, match="`name` must be one of evaluated"):
        ava_rows("groups")


# ---------------------------------------------------------------------- round trips


@st.composite
def recordings(draw, scored=False):
    """Key-frames of one video, every 5 frames at 25 fps; people come and go."""
    names = ["run", "wave", "phone & talk", "größer"]
    width, height = draw(st.sampled_from([(640, 360), (97, 1001)]))
    rows = []
    first = draw(st.integers(0, 8))
    for frame in sorted({first, first + 1} | draw(st.sets(st.integers(0, 8), max_size=3))):
        people = draw(st.lists(st.integers(0, 4), unique=True, min_size=1, max_size=4))
        boxes, labels, scores = [], [], []
        for _ in people:
            x, y = draw(st.floats(0, width - 10)), draw(st.floats(0, height - 10))
            boxes.append([x, y, draw(st.floats(x + 5, width)), draw(st.floats(y + 5, height))])
            labels.append(tuple(sorted(draw(st.sets(st.sampled_from(names), min_size=1)))))
            scores.append(tuple(draw(st.integers(0, 100000)) / 100000 for _ in labels[-1]))
        label_scores = tuple(scores) if scored else None
        ids = tuple(sorted(people))
        boxes = np.array(boxes).round(3)
        assume(len(np.unique(boxes, axis=0)) == len(boxes))  # AVA's predictions tell people apart by their boxes
        row = KeyFrame(
            "a.mp4", frame / 5, width, height, boxes, tuple(labels), ids, frame * 5, label_scores=label_scores
        )
        rows.append(row)
    return rows


FILES = settings(max_examples=20, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("formats")


@FILES
@given(rows=recordings())
def test_cvat_keeps_everything(folder, rows):
    """Also that a person who leaves between two key-frames is away: tracks end, nothing is drawn in between."""
    write_cvat(folder / "a.xml", rows)
    back = read_cvat(folder / "a.xml", 25, every=5)
    assert facts(back.rows, 1e-4) == facts(rows, 1e-4)


@FILES
@given(rows=recordings())
def test_coco_keeps_everything(folder, rows):
    write_coco(folder / "a.json", rows, fps=25)
    assert facts(read_coco(folder / "a.json").rows, 1e-4) == facts(rows, 1e-4)


@FILES
@given(rows=recordings(scored=True))
def test_json_lines_keep_everything(folder, rows):
    write_key_frames(folder / "a.jsonl", rows)
    back = read_key_frames(folder / "a.jsonl").rows
    assert facts(back, 1e-6) == facts(rows, 1e-6)
    assert [row.label_scores for row in back] == [row.label_scores for row in rows]


@FILES
@given(rows=recordings(scored=True), offset=st.sampled_from([0, 900]))
def test_ava_keeps_boxes_to_5_decimals_and_scores(folder, rows, offset):
    numbers = {name: place for place, name in enumerate(["run", "wave", "phone & talk", "größer"], start=1)}
    write_ava(folder / "a.csv", rows, numbers, offset)
    sizes = {"a": (rows[0].width, rows[0].height)}
    back = read_ava(folder / "a.csv", sizes, {place: name for name, place in numbers.items()}, offset, scored=True)
    assert len(back.rows) == len(rows)
    for one, other in zip(back.rows, rows):
        assert one.time == pytest.approx(other.time, abs=1e-6) and one.labels == other.labels
        assert one.label_scores == other.label_scores
        shares = np.tile([one.width, one.height], 2)
        np.testing.assert_allclose(one.boxes / shares, other.boxes / shares, atol=0.51e-5)


@FILES
@given(rows=recordings(scored=True), threshold=st.floats(0, 1))
def test_a_threshold_decides_predictions(rows, threshold):
    for row in rows:
        decided = row.above(threshold)
        assert decided.label_scores is None and len(decided.boxes) == len(row.boxes)
        for kept, names, scores in zip(decided.labels, row.labels, row.label_scores):
            assert kept == tuple(name for name, score in zip(names, scores) if score >= threshold)


# ---------------------------------------------------------------------- csv files


def test_people_of_ava_are_told_apart_by_person_and_box(tmp_path):
    """Rows of a person need not be neighbours; without numbers, equal boxes are one person."""
    path = tmp_path / "a.csv"
    path.write_text(
        "v,0902,0.1,0.1,0.5,0.5,1,0\nv,0902,0.2,0.2,0.6,0.6,2,1\nv,0902,0.1,0.1,0.5,0.5,3,0\n"
        "v,0902,0.1,0.1,0.5,0.5,4,7\nw,0902,0.1,0.1,0.5,0.5,5,0\nv,902,0.2,0.2,0.6,0.6,6,1\n"
    )
    found = read_ava(path, {"v": (100, 200), "w": (10, 10)}, {n: str(n) for n in range(1, 81)})
    assert [(row.video, row.labels, row.person_ids) for row in found.rows] == [
        ("v", (("1", "3"), ("2", "6"), ("4",)), (0, 1, 7)),
        ("w", (("5",),), (0,)),
    ]
    np.testing.assert_allclose(found.rows[0].boxes[1], [20, 40, 60, 120])


def test_missing_videos_and_boxes_without_area_are_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "v,0902,-0.1,0.1,1.5,0.5,1,0\nv,0902,0.5,0.1,0.5,0.5,1,1\ngone,0902,0.1,0.1,0.5,0.5,1,0\n"
        "gone,0903,0.1,0.1,0.5,0.5,1,0\n"
    )
    found = read_ava(path, {"v": (100, 200)})
    assert found.missing == {"gone": 2} and found.skipped == {"boxes without area": 1}
    np.testing.assert_allclose(found.rows[0].boxes, [[0, 20, 100, 100]])  # clipped to the frame


def test_ava_kinetics_counts_from_the_start_of_its_clip(tmp_path):
    """Rows without a box are shorter; a key-frame must lie inside a clip; two clips of one video stay apart."""
    path = tmp_path / "ak.csv"
    path.write_text(
        "abc,12.5,0.1,0.1,0.5,0.5,12\nabc,12.5,0.1,0.1,0.5,0.5,1\nempty,3.0\nabc,25.25,0.1,0.1,0.5,0.5,80\n"
        "abc,99.0,0.1,0.1,0.5,0.5,80\nlost_1,5.0,0.1,0.1,0.5,0.5,3\n"
    )
    sizes = {"abc_000010_000020": (100, 100), "abc_000020_000030": (50, 50), "other": (5, 5)}
    found = read_ava_kinetics(path, sizes)
    assert [(row.video, row.time, row.labels[0], row.person_ids) for row in found.rows] == [
        ("abc_000010_000020", 2.5, ("bend/bow (at the waist)", "stand"), (None,)),
        ("abc_000020_000030", 5.25, ("watch (a person)",), (None,)),
    ]
    assert found.skipped == {"rows without a box": 1, "timestamps outside the clip": 1}
    assert found.missing == {"lost_1": 1}


def test_people_of_slowfast_have_scores_and_may_lack_labels(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("v,0902,0.1,0.1,0.5,0.5,,0.95\nv,0902,0.2,0.2,0.5,0.5,12,0.9\nv,0902,0.3,0.3,0.5,0.5,,0.5\n")
    (row,) = read_slowfast(path, {"v": (10, 10)}, threshold=0.8).rows
    assert row.labels == ((), ("stand",)) and row.scores.tolist() == [0.95, 0.9] and row.label_scores is None


def test_labels_without_a_name_are_refused_with_their_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("v,0902,0.1,0.1,0.5,0.5,80,0\nv,0902,0.1,0.1,0.5,0.5,81,0\n")
    with pytest.raises(ValueError, match=r"label 81 \(row 2\).*1 to 80"):
        read_ava(path, {"v": (10, 10)})
    with pytest.raises(ValueError, match="`label_numbers` lacks fly"):
        write_ava(tmp_path / "b.csv", [KeyFrame("v", 0, 9, 9, np.ones((1, 4)), (("fly",),), (0,))], NUMBERS)


@pytest.mark.parametrize(
    ("seconds", "text"), [(902, "0902"), (1798.0, "1798"), (0, "0000"), (12.5, "12.5"), (2 / 3, "0.666667")]
)
def test_timestamps_have_four_digits(seconds, text):
    assert format_timestamp(seconds) == text


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b/c.mp4", "c"), ("-5KQ66BBWC4.mkv", "-5KQ66BBWC4"), ("v1.2", "v1.2"), ("x\\y.MP4", "y"), ("plain", "plain")],
)
def test_names_of_videos_lose_folder_and_suffix_only(path, name):
    assert video_name(path) == name


# ---------------------------------------------------------------------- CVAT, COCO, JSON lines


def cvat_text(tracks, meta=""):
    size = "<original_size><width>100</width><height>50</height></original_size>"
    return f"<annotations><meta><task><size>60</size>{meta}{size}</task></meta>{tracks}</annotations>"


def box(frame, x=10.0, outside=0, attributes=""):
    corners = f'xtl="{x}" ytl="1" xbr="{x + 10}" ybr="20"'
    return f'<box frame="{frame}" outside="{outside}" keyframe="1" {corners}>{attributes}</box>'


def test_boxes_between_two_of_a_track_lie_on_a_line(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(cvat_text(f'<track id="3" label="person">{box(0)}{box(8, 26.0)}{box(9, outside=1)}</track>'))
    rows = read_cvat(path, 25, 2, "v.mp4").rows
    assert [row.frame for row in rows] == [0, 2, 4, 6, 8]
    assert [row.boxes[0, 0] for row in rows] == [10, 14, 18, 22, 26]


def test_selects_are_actions_by_value_and_numbers_are_not(tmp_path):
    attributes = (
        '<attribute name="doing">walking</attribute><attribute name="holding">none</attribute>'
        '<attribute name="age">31</attribute><attribute name="note">tall</attribute>'
        '<attribute name="phone">true</attribute>'
    )
    kinds = "".join(
        f"<attribute><name>{name}</name><input_type>{kind}</input_type></attribute>"
        for name, kind in (("doing", "select"), ("age", "number"), ("note", "text"), ("phone", "checkbox"))
    )
    meta = f"<labels><label><name>person</name><attributes>{kinds}</attributes></label></labels>"
    path = tmp_path / "a.xml"
    path.write_text(cvat_text(f'<track id="0" label="person">{box(0, attributes=attributes)}</track>', meta))
    (row,) = read_cvat(path, 25, 1, "v.mp4").rows
    assert row.labels == (("phone", "walking"),)


def test_tracks_may_be_labelled_by_their_action(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(cvat_text(f'<track id="0" label="running">{box(0)}</track>'))
    with pytest.raises(ValueError, match="no track is labelled 'person', but running"):
        read_cvat(path, 25, 1, "v.mp4")
    (row,) = read_cvat(path, 25, 1, "v.mp4", person_label=None).rows
    assert row.labels == (("running",),)


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB + cvat_text("&b;"), "declares a document type"),
        ('<!DOCTYPE x SYSTEM "file:///etc/hostname">' + cvat_text(""), "declares a document type"),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>' + cvat_text("&e;"), "declares a document type"),
        ("<annotations>", "is not XML"),
        ("<html></html>", "start with <annotations>"),
        (cvat_text('<image id="0" name="a.jpg"></image>'), "CVAT for images"),
        (cvat_text('<track id="0" label="person"><box frame="0" xtl="1"/></track>'), "line 1: <box> lacks 'ytl'"),
        ("<annotations><meta/></annotations>", "original_size"),
        (cvat_text(f'<track id="0" label="person">{box(0)}{box(0)}</track>'), "two boxes on one frame"),
    ],
)
def test_files_that_are_not_cvat_are_refused(tmp_path, text, reason):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_cvat(path, 25, 1, "v.mp4")


def test_coco_from_cvat_has_its_actions_in_attributes(tmp_path):
    """No videos, no track_id of its own, one annotation a person; crowds and strangers are counted."""
    attributes = {"occluded": True, "walking": True, "phone": False, "track_id": 4}
    entry = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "attributes": attributes}
    content = {
        "images": [{"id": 1, "frame_id": 50, "width": 9, "height": 9, "file_name": "clip/000050.jpg"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [entry, {**entry, "iscrowd": 1}, {**entry, "image_id": 7}, {**entry, "category_id": 7}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="give `fps`"):
        read_coco(path)
    found = read_coco(path, fps=25)
    (row,) = found.rows
    assert (row.video, row.time, row.labels, row.person_ids) == ("clip", 2.0, (("walking",),), (4,))
    assert found.skipped == {"crowds": 1, "annotations of unknown images": 1, "annotations of unknown categories": 1}


def test_exports_refuse_what_they_cannot_say(tmp_path):
    row = KeyFrame("v", 0, 9, 9, np.array([[0.0, 0, 5, 5]]), (("run",),), (0,), 0, label_scores=((0.7,),))
    with pytest.raises(ValueError, match="choose labels"):
        write_cvat(tmp_path / "a.xml", [row])
    with pytest.raises(ValueError, match="one video"):
        write_cvat(tmp_path / "a.xml", [])
    for write in (write_cvat, write_coco):
        with pytest.raises(ValueError, match="`label_names` lacks run"):
            write(tmp_path / "a", [row.above(0.5)], ["walk"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"boxes": [[0, 0, 1]]}, "line 2"),
        ({"boxes": [[0, 0, 1, float("nan")]]}, "finite"),
        ({"labels": [["run"], ["walk"]]}, "`labels` must have one entry for each of 1 boxes, got 2"),
        ({"labels": ["run"]}, "list of names"),
        ({"label_scores": [[0.1, 0.2]]}, "one number for each of `labels`"),
        ({"time": None}, "line 2"),
        ({"video": ...}, "'video' is missing"),
    ],
)
def test_json_lines_name_the_line_that_is_wrong(tmp_path, change, reason):
    row = {"video": "v", "time": 1, "width": 9, "height": 9, "boxes": [[0, 0, 1, 1]], "labels": [["run"]]}
    wrong = {name: value for name, value in {**row, **change}.items() if value is not ...}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(wrong) + "\n")
    with pytest.raises(ValueError, match="line 2") as raised:
        read_key_frames(path)
    assert reason in str(raised.value)
