"""What `doctor` says of a machine and of videos."""

import csv
import json
import os
import re
from dataclasses import asdict

import numpy as np
import pytest
from transformers.video_utils import VideoMetadata

from hf_videovit import doctor
from hf_videovit.doctor import check_video, check_videos, environment_report, find_videos, write_report
from hf_videovit.modeling.video_decoding import DecodedVideo, DecoderInfo, available_decoders
from tests.clips import moving_square_clip, write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in ("b", "a"):
        write_clip(folder / "sub" / f"{name}.mp4", moving_square_clip(num_frames=20))
    whole = (folder / "sub" / "a.mp4").read_bytes()
    (folder / "cut.MP4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.webm").write_bytes(b"")
    (folder / "notes.txt").write_text("no video")
    return folder


def test_environment_report_is_plain_and_complete():
    report = json.loads(json.dumps(environment_report()))
    assert report["packages"]["torch"]
    assert set(report["decoders"]) == {"pyav", "decord", "torchcodec"}
    assert any(decoder["available"] for decoder in report["decoders"].values())
    assert report["cpu_cores"] >= 1
    assert report["memory_gb"] is None or report["memory_gb"] > 0


@pytest.mark.parametrize(
    ("ffmpeg", "warned"),
    [
        ("4.1", True),
        ("n4.4.2-static", True),
        ("4 (libavcodec 58.35.100)", True),
        ("8.0.1", True),
        ("8.1", False),
        ("9", False),
        (None, False),
    ],
)
def test_an_old_ffmpeg_is_named(monkeypatch, ffmpeg, warned):
    decoders = {"decord": DecoderInfo(True, "1.0", ffmpeg), "torchcodec": DecoderInfo(False, None, "4.1")}
    warnings = doctor._decoder_warnings({name: asdict(info) for name, info in decoders.items()})
    assert bool(warnings) is warned
    assert not warned or f"decord decodes with FFmpeg {ffmpeg}, which is older than 8.1" in warnings[0]


def test_no_decoder_is_a_warning():
    assert "no video decoder works" in doctor._decoder_warnings({"pyav": asdict(DecoderInfo(False))})[0]


def broken(frames, backend):
    """What `decode_video` answers where a decoder gives `frames`, or raises where that is an error."""

    def decode(clip, decoder):
        if isinstance(frames, Exception):
            raise frames
        return DecodedVideo(frames, VideoMetadata(total_num_frames=len(frames), video_backend=backend or decoder))

    return decode


@pytest.mark.parametrize(
    ("frames", "backend", "reason"),
    [
        (TypeError("no such argument"), None, r"fails on a small clip \(TypeError: no such argument\)"),
        (np.zeros((5, 128, 160, 3), dtype=np.uint8), None, "returns wrong frames of a small clip"),
        (np.zeros((4, 128, 160, 3), dtype=np.uint8), None, "returns wrong frames of a small clip"),
        (np.zeros((5, 128, 160, 3), dtype=np.uint8), "another", "fails on a small clip that PyAV decodes"),
    ],
)
def test_a_decoder_that_fails_on_a_clip_is_not_available(monkeypatch, frames, backend, reason):
    monkeypatch.setattr(doctor, "decode_video", broken(frames, backend))
    report = environment_report()
    assert not any(decoder["available"] for decoder in report["decoders"].values())
    assert re.fullmatch(reason, report["decoders"]["pyav"]["reason"])
    assert "no video decoder works" in report["warnings"][0]
    version = report["decoders"]["pyav"]["version"]
    assert report["warnings"][1].startswith(f"pyav {version} is installed but cannot be used: ")


def test_every_decoder_that_can_be_imported_decodes_the_clip():
    for name, info in available_decoders().items():
        assert environment_report()["decoders"][name]["available"] is info.available


def test_find_videos(folder, monkeypatch):
    found = [os.path.relpath(path, folder) for path in find_videos([folder])]
    assert found == ["cut.MP4", "empty.webm", "sub/a.mp4", "sub/b.mp4"]
    monkeypatch.chdir(folder)
    assert find_videos(["sub/*.mp4"]) == ["sub/a.mp4", "sub/b.mp4"]
    assert find_videos(["sub/b.mp4", "sub"]) == ["sub/b.mp4", "sub/a.mp4"]
    assert find_videos(["notes.txt", "missing.mp4", "https://host/x.mp4"]) == [
        "notes.txt",
        "missing.mp4",
        "https://host/x.mp4",
    ]
    assert find_videos([]) == []
    with pytest.raises(ValueError, match=r"No file matches the pattern '\*\.mkv'"):
        find_videos(["*.mkv"])


def test_a_folder_without_videos_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="No video in folder"):
        find_videos([tmp_path])


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path, monkeypatch):
    write_clip(tmp_path / "take[1].mp4", moving_square_clip(num_frames=2))
    monkeypatch.chdir(tmp_path)
    assert find_videos(["take[1].mp4"]) == ["take[1].mp4"]


def test_check_video(folder):
    good = check_video(folder / "sub" / "a.mp4")
    assert (good.status, good.num_frames, good.decoded_frames) == ("ok", 20, 20)
    assert (good.width, good.height, good.kind, good.reason) == (64, 64, "", "")
    assert good.bytes == (folder / "sub" / "a.mp4").stat().st_size
    for name in ("cut.MP4", "empty.webm", "missing.mp4"):
        bad = check_video(folder / name)
        assert bad.status == "bad"
        assert bad.kind
        assert bad.reason
        assert bad.decoded_frames == 0
    assert check_video(folder / "missing.mp4").kind == "missing"


def test_large_videos_are_read_in_pieces(folder, monkeypatch):
    monkeypatch.setattr(doctor, "CHUNK_BYTES", 1)
    assert check_video(folder / "sub" / "a.mp4").decoded_frames == 20


@pytest.mark.slow
def test_workers_find_the_same(folder):
    paths = find_videos([folder])
    alone = {check.path: check.status for check in check_videos(paths)}
    assert {check.path: check.status for check in check_videos(paths, num_workers=2)} == alone
    with pytest.raises(ValueError, match="`num_workers` must be at least 1, got 0"):
        list(check_videos(paths, num_workers=0))


def test_reports(folder, tmp_path):
    checks = list(check_videos(find_videos([folder])))
    rows = json.loads(write_report(checks, tmp_path / "report.json").read_text())
    with write_report(checks, tmp_path / "report.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == [row["status"] for row in table] == ["bad", "bad", "ok", "ok"]
    assert table[2]["decoded_frames"] == "20"
    with pytest.raises(ValueError, match=r"must end in \.csv or \.json"):
        write_report(checks, tmp_path / "report.txt")
