"""Annotations become JSON lines whose videos are there, with sizes, frames and times of the videos themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.published import published_labels
from hf_videovit.training.data.key_frames import read_key_frames
from hf_videovit.training.preparing.digit_motion import write_clip
from hf_videovit.training.preparing.key_frames import prepare_key_frames


CLIENT = Path(__file__).parents[2] / "fixtures" / "action_detection" / "client_formats"


@pytest.fixture
def videos(tmp_path):
    """`v.mp4`, 3 seconds of 96x64 at 25 fps, in a folder below."""
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    write_clip(tmp_path / "videos" / "deep" / "v.mp4", np.zeros((75, 64, 96, 3), np.uint8))
    return tmp_path / "videos"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    write_clip(folder / "shop_floor.mp4", np.zeros((60, 360, 640, 3), np.uint8))
    return folder


def test_ava(videos, tmp_path):
    lines = ["v,0901,0.25,0.5,0.5,1.0,12,0", "v,0902,0.25,0.5,0.5,1.0,80,3", "v,0910,0.25,0.5,0.5,1.0,80,3"]
    (tmp_path / "a.csv").write_text("\n".join([*lines, "gone,0902,0.1,0.1,0.5,0.5,12,0"]) + "\n")
    found = prepare_key_frames(tmp_path / "a.csv", tmp_path / "out" / "val.jsonl", "ava", videos, offset=900)
    assert (found.num_key_frames, found.num_people, found.missing) == (2, 2, {"gone": 1})
    assert found.skipped == {"key-frames outside the video": 1}
    assert found.label_names == json.loads((tmp_path / "out" / "labels.json").read_text()) == published_labels("ava")
    first, second = read_key_frames(found.file).rows
    assert (first.video, first.time, first.frame, first.width, first.height) == ("../videos/deep/v.mp4", 1, 25, 96, 64)
    assert (second.frame, second.labels, second.person_ids) == (50, (("watch (a person)",),), (3,))
    np.testing.assert_allclose(first.boxes, [[24, 32, 48, 64]])
    assert (found.file.parent / first.video).is_file()


def test_ava_kinetics(videos, tmp_path):
    (videos / "deep" / "v.mp4").rename(videos / "abc_d_000010_000013.mp4")
    (tmp_path / "ak.csv").write_text("abc_d,11.5,0.25,0.5,0.5,1.0,12\nabc_d,99.5,0.25,0.5,0.5,1.0,12\nnobody,4.0\n")
    found = prepare_key_frames(tmp_path / "ak.csv", tmp_path / "ak.jsonl", "ava-kinetics", videos)
    (row,) = read_key_frames(found.file).rows
    assert (row.video, row.time, row.person_ids) == ("videos/abc_d_000010_000013.mp4", 1.5, (None,))
    assert row.frame in (37, 38)  # 1.5 s lies between them
    assert found.skipped == {"rows without a box": 1, "timestamps outside the clip": 1}


@pytest.mark.parametrize(("layout", "file"), [("cvat", "annotations.xml"), ("coco", "coco.json")])
def test_cvat_and_coco_get_the_times_of_their_video(shop, tmp_path, layout, file):
    """Both find the film: CVAT's file does not name it, so it is the only one given."""
    videos = shop / "shop_floor.mp4" if layout == "cvat" else shop
    found = prepare_key_frames(CLIENT / file, tmp_path / "shop.jsonl", layout, videos, every=0.4)
    rows, wanted = read_key_frames(found.file).rows, read_key_frames(CLIENT / "rows.jsonl").rows
    assert [(row.frame, row.time, row.labels) for row in rows] == [(row.frame, row.time, row.labels) for row in wanted]
    np.testing.assert_allclose([row.boxes for row in rows], [row.boxes for row in wanted], atol=0.01)
    assert found.label_names == ["carrying", "phone", "walking"]


def test_splits_share_the_order_of_labels(shop, tmp_path):
    options = {"layout": "coco", "videos": shop}
    names = ["walking", "carrying", "phone", "looking at shelf"]
    prepare_key_frames(CLIENT / "coco.json", tmp_path / "train.jsonl", label_names=names, **options)
    assert prepare_key_frames(CLIENT / "coco.json", tmp_path / "val.jsonl", **options).label_names == names
    with pytest.raises(ValueError, match="other labels than `label_names`"):
        prepare_key_frames(CLIENT / "coco.json", tmp_path / "c.jsonl", label_names=names[::-1], **options)
    (tmp_path / "labels.json").write_text('["walking"]')
    with pytest.raises(ValueError, match="of another split, lacks carrying, phone"):
        prepare_key_frames(CLIENT / "coco.json", tmp_path / "c.jsonl", **options)


def test_only_preparations_are_replaced(shop, tmp_path):
    output, options = tmp_path / "a.jsonl", {"layout": "coco", "videos": shop}
    prepare_key_frames(CLIENT / "coco.json", output, **options)
    with pytest.raises(ValueError, match="exists: choose another name"):
        prepare_key_frames(CLIENT / "coco.json", output, **options)
    assert prepare_key_frames(CLIENT / "coco.json", output, overwrite=True, **options).num_key_frames == 5
    output.write_text("my notes\n")
    with pytest.raises(ValueError, match="has no key-frames and is not replaced"):
        prepare_key_frames(CLIENT / "coco.json", output, overwrite=True, **options)
    assert output.read_text() == "my notes\n"
    (tmp_path / "labels.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="no list of label names, and is not replaced"):
        prepare_key_frames(CLIENT / "coco.json", tmp_path / "b.jsonl", overwrite=True, **options)
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layout": "voc"}, "`layout` must be one of ava"),
        ({"output": "out"}, r"`output` must end in \.jsonl"),
        ({"source": "no.csv"}, "`source` 'no.csv' does not exist"),
        ({"videos": "nowhere"}, "`videos` 'nowhere' does not exist"),
        ({"offset": 0.0}, "No key-frame.*key-frames outside the video: 1"),
        ({"label_names": ["run"]}, "label 12 .row 1. has no name"),
    ],
)
def test_wrong_arguments_are_named(videos, tmp_path, change, reason):
    (tmp_path / "a.csv").write_text("v,0901,0.25,0.5,0.5,1.0,12,0\n")
    arguments = {"source": tmp_path / "a.csv", "output": tmp_path / "a.jsonl", "layout": "ava", "videos": videos}
    with pytest.raises(ValueError, match=reason):
        prepare_key_frames(**{**arguments, "offset": 900, **change})
    assert not (tmp_path / "a.jsonl").exists()


def test_damaged_videos_are_listed(videos, tmp_path):
    (videos / "bad.mp4").write_bytes(b"nothing" * 100)
    (tmp_path / "a.csv").write_text("v,0001,0.2,0.5,0.5,1.0,12,0\nbad,0001,0.2,0.5,0.5,1.0,12,0\n")
    found = prepare_key_frames(tmp_path / "a.csv", tmp_path / "a.jsonl", "ava", videos)
    assert list(found.damaged) == ["bad.mp4"] and found.missing == {"bad": 1} and found.num_key_frames == 1


# ---------------------------------------------------------------------- commands


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_prepare_and_doctor_on_the_command_line(videos, tmp_path):
    lines = ["v,0901,0.25,0.5,0.5,1.0,12,0", "gone,0902,0.1,0.1,0.5,0.5,12,0"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    words = ["prepare", tmp_path / "a.csv", tmp_path / "a.jsonl", "--layout", "ava", "--videos", videos]
    result = run(*words, "--offset", 900)
    assert result.exit_code == 1 and "1 key-frames, 1 people, 80 labels" in result.output
    assert "missing: gone (1 annotations)" in result.output
    assert run(*words, "--offset", 900).exit_code == 2  # a.jsonl is there
    report = json.loads(run(*words, "--offset", 900, "--overwrite", "--json").stdout)
    assert report["missing"] == {"gone": 1} and report["key_frames"] == 1
    assert run("doctor", tmp_path / "a.jsonl").exit_code == 0
    (tmp_path / "b.csv").write_text("v,0901,25,50,50,100,12,0.5\n")
    result = run("doctor", tmp_path / "b.csv", "--truth", tmp_path / "a.csv")
    assert result.exit_code == 1 and "pixels where shares" in result.output and "line 1" in result.output
    result = run("doctor", tmp_path / "a.csv", "--videos", videos, "--json")
    (findings,) = json.loads(result.stdout)["annotations"].values()
    assert any("fit an offset of 900" in finding["message"] for finding in findings)
    assert run("doctor", tmp_path / "a.csv", videos).exit_code == 2
    assert run("doctor", videos, "--truth", tmp_path / "a.csv").exit_code == 2


def test_a_damaged_video_is_counted_once(videos, tmp_path):
    (videos / "bad.mp4").write_bytes(b"nothing" * 100)
    (tmp_path / "a.csv").write_text("v,0001,0.2,0.5,0.5,1.0,12,0\nbad,0001,0.2,0.5,0.5,1.0,12,0\n")
    result = run("prepare", tmp_path / "a.csv", tmp_path / "a.jsonl", "--layout", "ava", "--videos", videos)
    assert result.exit_code == 1 and "damaged: bad.mp4 (1 annotations)" in result.output
    assert "1 file(s) missing or damaged: bad.mp4" in " ".join(result.output.split())


def test_what_leaves_nothing_says_where_to_look(videos, tmp_path):
    (tmp_path / "a.csv").write_text("v,0901,0.2,0.5,0.5,1.0,12,0\n")
    with pytest.raises(
        ValueError, match=r"outside the video: 1\)\. `hf-videovit doctor .*a\.csv --videos .*names lines"
    ):
        prepare_key_frames(tmp_path / "a.csv", tmp_path / "a.jsonl", "ava", videos)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfev,0001\n")
    with pytest.raises(ValueError, match=r"b\.csv is not a csv in UTF-8"):
        prepare_key_frames(tmp_path / "b.csv", tmp_path / "a.jsonl", "ava", videos)
