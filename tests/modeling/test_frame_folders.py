"""Folders of pictures are videos: their order, rate and damage, and every place that takes videos."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hf_videovit import VideoDecodingError
from hf_videovit.cli import app
from hf_videovit.doctor import check_video, find_videos
from hf_videovit.modeling import video_decoding_folders, video_decoding_sources
from hf_videovit.modeling.video_decoding import VideoLimits, decode_in_chunks, decode_video, opened_once, probe_video
from hf_videovit.modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor
from hf_videovit.training.data.images import open_images
from hf_videovit.training.data.opening import list_splits, open_source
from hf_videovit.training.data.twins import shared_clips
from hf_videovit.training.preparing.encoding import EncodingSettings, encode_clip
from hf_videovit.training.preparing.writing import prepare
from hf_videovit.video_files import visible_videos

from ..clips import moving_square_clip, write_clip


def write_frames(folder, frames, form="img_{}.png", start=1, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start):
        Image.fromarray(frame).save(folder / form.format(number), **options)
    return folder


def frames_of(count=12, **options):
    return moving_square_clip(num_frames=count, height=24, width=32, **options)


@pytest.fixture
def clip(tmp_path):
    return write_frames(tmp_path / "clip1", frames_of())


def reason(path, **options):
    with pytest.raises(VideoDecodingError) as caught:
        decode_video(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("form", ["img_{}.png", "{}.bmp", "{:05d}.PNG", "a 2 b {} c.tif", "frame.{:03d}.png"])
@pytest.mark.parametrize("isolate", [False, True])
def test_pictures_are_frames_in_natural_order(tmp_path, form, isolate):
    frames = frames_of()
    folder = write_frames(tmp_path / "clip", frames, form, start=0)
    (folder / ".hidden_7.png").write_bytes(b"")
    (folder / "notes.json").write_text("{}")
    decoded = decode_video(folder, isolate=isolate)
    np.testing.assert_array_equal(decoded.frames, frames)
    np.testing.assert_allclose(decoded.timestamps, np.arange(12) / 25)
    assert decoded.metadata.fps == 25 and decoded.metadata.video_backend == "pillow"
    again = decode_video(str(folder), [[9, 2], [2, 11]], isolate=isolate)
    np.testing.assert_array_equal(again.frames, frames[[[9, 2], [2, 11]]])


def test_jpeg_is_as_pillow_reads_it(tmp_path):
    folder = write_frames(tmp_path / "clip", frames_of(3), "{}.jpg", quality=90)
    expected = [np.asarray(Image.open(folder / f"{number}.jpg")) for number in (1, 2, 3)]
    np.testing.assert_array_equal(decode_video(folder).frames, expected)
    probe = probe_video(folder)
    assert (probe.num_frames, probe.height, probe.width, probe.codec) == (3, 24, 32, "jpeg")


def test_the_rate_is_given_or_25_and_said(clip, monkeypatch):
    said = []
    monkeypatch.setattr(video_decoding_sources.logger, "warning_once", said.append)
    assert probe_video(clip).fps == 25
    assert "25 frames a second are assumed" in said[0] and "--folder-fps" in said[0]
    said.clear()
    source = {"path": str(clip), "fps": 12.5}
    assert probe_video(source).duration == 12 / 12.5
    assert decode_video(source, [3]).timestamps.tolist() == [3 / 12.5]
    with opened_once(source) as opened:
        assert probe_video(opened).fps == 12.5
    monkeypatch.setenv("HF_VIDEOVIT_FOLDER_FPS", "30")
    assert (probe_video(clip).fps, probe_video(source).fps) == (30, 12.5)
    assert probe_video(clip, isolate=True).fps == 30
    assert not said
    with pytest.raises(ValueError, match=r"`fps` of a folder of pictures must be a positive number, got 0\."):
        probe_video({"path": str(clip), "fps": 0})
    monkeypatch.setenv("HF_VIDEOVIT_FOLDER_FPS", "fast")
    with pytest.raises(ValueError, match="HF_VIDEOVIT_FOLDER_FPS must be a positive number, got fast"):
        probe_video(clip)


def test_parts_and_chunks(clip):
    part = decode_video({"path": str(clip), "start": 0.2, "end": 0.4, "fps": 10})
    np.testing.assert_array_equal(part.frames, frames_of()[2:4])
    numbered = {"path": clip, "start_frame": 4, "end_frame": 7}
    assert len(decode_video(numbered).frames) == probe_video(numbered).num_frames == 3
    assert np.concatenate([chunk.frames for chunk in decode_in_chunks(clip, 1)]).shape[0] == 12


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("number", [1, 5, 12])
@pytest.mark.parametrize("fault", ["cut", "empty", "text", "size", "deep"])
def test_a_bad_picture_is_named_or_left_out(clip, fault, number, isolate):
    path = clip / f"img_{number}.png"
    if fault == "size":
        Image.new("RGB", (32, 22)).save(path)
    elif fault == "deep":
        Image.fromarray(np.full((24, 32), 40_000, np.uint16)).save(path)
    else:
        content = path.read_bytes()
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no picture"}[fault])
    told = reason(clip, isolate=isolate)
    # of two sizes, that of the first picture counts
    assert f"img_{2 if (fault, number) == ('size', 1) else number}.png" in told
    assert {"size": "one size", "deep": "more than 8 bits"}.get(fault, "damaged") in told
    saved = decode_video(clip, policy="salvage", isolate=isolate)
    left = 1 if (fault, number) == ("size", 1) else 11
    assert saved.frames.shape[0] == saved.metadata.total_num_frames == left
    assert saved.damaged_packets == 12 - left
    if number == 5:
        np.testing.assert_array_equal(decode_video(clip, [0, 3, 11]).frames, frames_of()[[0, 3, 11]])
        check = check_video(clip)
        assert (check.status, check.decoded_frames, check.num_frames) == ("partial", 11, 12)


def test_what_is_no_folder_of_frames(tmp_path, clip):
    (tmp_path / "empty").mkdir()
    assert "a folder without pictures (.jpg" in reason(tmp_path / "empty")
    write_frames(clip, frames_of(2), "flow_x_{}.png")
    assert "'flow_x_#.png', 'img_#.png'" in reason(clip)
    unnumbered = write_frames(tmp_path / "photos", frames_of(1), "cover.png")
    assert "'cover.png'" in reason(unnumbered)
    for path in unnumbered.iterdir():
        path.replace(unnumbered / "1.png").write_bytes(b"")
    with pytest.raises(VideoDecodingError, match="'1.png' is damaged|no frame decodes"):
        decode_video(unnumbered, policy="salvage")


def test_limits_hold(clip):
    for limits, told in (
        (VideoLimits(max_frames=11), "more than 11 frames"),
        (VideoLimits(max_pixels=100), "'img_1.png' has 32x24 pixels, allowed are 100"),
        (VideoLimits(max_bytes=10), "allowed are 10"),
        (VideoLimits(max_decoded_bytes=10), "allowed are 10"),
        (VideoLimits(max_duration=0.1), "allowed are 0"),
    ):
        with pytest.raises(VideoDecodingError, match=told) as caught:
            decode_video(clip, limits=limits)
        assert caught.value.kind == "limit"
    with pytest.raises(VideoDecodingError, match="too long"):
        decode_video(clip, timeout=1e-9)


def test_pictures_are_upright_and_of_three_channels(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    exif = Image.Exif()
    exif[video_decoding_folders.ORIENTATION_TAG] = 6
    picture = Image.fromarray(frames_of(1)[0])
    picture.save(folder / "1.png", exif=exif)
    picture.rotate(-90, expand=True).save(folder / "2.png")
    picture.rotate(-90, expand=True).convert("L").save(folder / "3.png")
    frames = decode_video(folder).frames
    assert frames.shape == (3, 32, 24, 3)
    np.testing.assert_array_equal(frames[0], frames[1])


def test_a_picture_that_is_added_is_seen(clip):
    assert probe_video(clip).num_frames == 12
    write_frames(clip, frames_of(1), start=13)
    os.utime(clip, (1, 1))  # clocks of file systems may be coarse
    assert probe_video(clip).num_frames == 13


def test_the_processor_samples_them_as_it_samples_a_file(tmp_path, clip):
    processor = VideoMAEV2VideoProcessor(num_frames=4, frame_stride=2, crop_size=16, size={"shortest_edge": 16})
    expected = processor(frames_of(), return_tensors="pt", do_sample_frames=True)["pixel_values"]
    several = processor([clip, str(clip)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(several, expected.repeat(2, 1, 1, 1, 1), rtol=0, atol=0)


# ---------------------------------------------------------------------- folders of videos


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Two classes with folders of pictures, files, and pictures that are no frames."""
    root = tmp_path_factory.mktemp("classes")
    for number, name in enumerate(("run", "jump")):
        write_frames(root / name / "b clip", frames_of(4, seed=number))
        write_frames(root / name / "inner" / "clip.2", frames_of(4, seed=10 + number))
    write_clip(root / "run" / "a.mp4", frames_of(4))
    write_frames(root / "run", frames_of(2), "thumb{}.png")
    return root


def test_folders_of_classes(classes):
    source = open_source(classes)
    videos = {sample.id: source.label_names[sample.label] for sample in source}
    ids = [f"{name}/{clip}" for name in ("jump", "run") for clip in ("b clip", "inner/clip.2")]
    assert videos == {name: name.split("/")[0] for name in (*ids, "run/a.mp4")}
    assert "4 folders of pictures are videos" in " ".join(source.remarks)
    assert "2 files have no suffix of a video and are left out: '.png'" in " ".join(source.remarks)
    assert sorted(os.path.relpath(one, classes) for one in find_videos([classes])) == sorted(videos)
    assert all(decode_video(sample.video).frames.shape[0] == 4 for sample in source)


def test_unlabelled_folders_and_splits(tmp_path):
    for name in ("one", "two"):
        write_frames(tmp_path / "plain" / name, frames_of(2))
    assert [sample.id for sample in open_source(tmp_path / "plain")] == ["one", "two"]
    for split in ("train", "val"):
        for name in ("run", "jump"):
            write_frames(tmp_path / "splits" / split / name / f"{split}1", frames_of(2, seed=len(split) * len(name)))
    assert list_splits(tmp_path / "splits") == ["train", "val"]
    train, held_out = (open_source(tmp_path / "splits", split) for split in ("train", "val"))
    assert [sample.id for sample in train] == ["jump/train1", "run/train1"]
    assert not shared_clips(train, held_out)


def test_pictures_of_an_image_data_set_stay_pictures(tmp_path):
    for name in ("cat", "dog"):
        write_frames(tmp_path / name, frames_of(2), "{}.png")
    train, _ = open_images(tmp_path)
    assert [sample.id for sample in train] == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]


def test_lists_and_copies(tmp_path):
    write_frames(tmp_path / "clips" / "one", frames_of(3))
    write_frames(tmp_path / "copies" / "other", frames_of(3))
    write_frames(tmp_path / "clips" / "two", frames_of(3, seed=5))
    (tmp_path / "list.csv").write_text("video,label\nclips/one,run\nclips/two,jump\n")
    source = open_source(tmp_path / "list.csv")
    assert not source.remarks and [len(decode_video(sample.video).frames) for sample in source] == [3, 3]
    assert shared_clips(source, open_source(tmp_path / "copies")) == ["other"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_list_has_the_rate_of_each_folder(tmp_path, suffix):
    write_frames(tmp_path / "slow", frames_of(12))
    write_frames(tmp_path / "fast", frames_of(12, seed=5))
    write_frames(tmp_path / "unknown", frames_of(12, seed=6))
    write_clip(tmp_path / "file.mp4", frames_of(12, seed=7))
    rows = [("slow", "run", "5"), ("fast", "jump", "50"), ("unknown", "jump", ""), ("file.mp4", "run", "5")]
    path = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        path.write_text("video,label,fps\n" + "".join(",".join(row) + "\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(dict(zip(("video", "label", "fps"), row))) + "\n" for row in rows))
    source = open_source(path)
    assert not source.remarks
    assert [probe_video(sample.video).fps for sample in source] == [5, 50, 25, 25]
    assert [sample.id for sample in source] == ["slow", "fast", "unknown", "file.mp4"]
    assert [isinstance(sample.video, dict) for sample in source] == [True, True, False, False]
    assert [probe_video(video).fps for video in source.select([1, 0]).videos()] == [50, 5]
    other = tmp_path / "other.csv"
    other.write_text("video,label,fps\nslow,run,25\n")
    assert open_source(other).fingerprint() != open_source(path).select([0]).fingerprint()
    assert shared_clips(open_source(other), source) == ["slow"]  # pictures are the same at any rate


def test_a_rate_in_a_list_goes_with_a_part(tmp_path):
    write_frames(tmp_path / "clip", frames_of(12))
    (tmp_path / "list.csv").write_text("video,label,start,end,fps\nclip,run,0.2,0.4,10\nclip,run,0.4,0.6,20\n")
    source = open_source(tmp_path / "list.csv")
    decoded = [decode_video(sample.video).frames for sample in source]
    np.testing.assert_array_equal(decoded[0], frames_of()[2:4])
    np.testing.assert_array_equal(decoded[1], frames_of()[8:12])


@pytest.mark.parametrize("rate", ["0", "-3", "nan", "inf", "fast"])
def test_a_rate_in_a_list_is_a_positive_number(tmp_path, rate):
    write_frames(tmp_path / "clip", frames_of(2))
    (tmp_path / "list.csv").write_text(f"video,label,fps\nclip,run,5\nclip,jump,{rate}\n")
    with pytest.raises(
        ValueError, match=f"row 2: `fps` of a folder of pictures must be a positive number, got {rate}"
    ):
        open_source(tmp_path / "list.csv")


def test_parquet_files_have_the_rate_of_each_folder(tmp_path):
    write_frames(tmp_path / "slow", frames_of(4))
    write_clip(tmp_path / "file.mp4", frames_of(4))
    rows = [{"video": "slow", "label": "run", "fps": 5.0}, {"video": "file.mp4", "label": "run", "fps": 5.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-0.parquet")
    source = open_source(tmp_path / "train-0.parquet")
    assert [probe_video(sample.video).fps for sample in source] == [5, 25]


def test_lists_with_rates_are_prepared_at_them(tmp_path):
    write_frames(tmp_path / "clips" / "slow", frames_of(12))
    write_frames(tmp_path / "clips" / "fast", frames_of(12, seed=5))
    (tmp_path / "list.csv").write_text("video,label,fps\nclips/slow,run,5\nclips/fast,jump,50\n")
    for out, encoding in (("plain", EncodingSettings()), ("fast", EncodingSettings(references_every=4))):
        prepare(tmp_path / "list.csv", tmp_path / out, encoding=encoding)
        rows = map(json.loads, (tmp_path / out / "manifest.jsonl").read_text().splitlines())
        assert {row["id"]: row["fps"] for row in rows} == {"clips/slow": 5, "clips/fast": 50}


def test_find_videos_takes_folders_of_frames_themselves(tmp_path, clip):
    assert find_videos([clip]) == [str(clip)]
    assert find_videos([str(tmp_path / "cl*")]) == [str(clip)]
    assert visible_videos(tmp_path) == [clip]
    write_frames(tmp_path / "cover", frames_of(1), "cover.png")
    assert visible_videos(tmp_path) == [clip]
    with pytest.raises(ValueError, match="folders of numbered pictures"):
        find_videos([tmp_path / "cover"])


def test_they_are_encoded_at_their_rate(clip, monkeypatch):
    monkeypatch.setenv("HF_VIDEOVIT_FOLDER_FPS", "10")
    encoded = encode_clip(clip, EncodingSettings())
    assert (encoded.probe.num_frames, encoded.probe.fps, encoded.kept) == (12, 10, False)
    assert encoded.psnr is not None and encoded.psnr > 30


def test_commands_take_the_rate_before_and_after_the_verb(clip):
    for words in (["--folder-fps", "5", "doctor", clip], ["doctor", clip, "--folder-fps=5"]):
        done = CliRunner().invoke(app, [*map(str, words), "--json"])
        (found,) = json.loads(done.stdout)["videos"]
        assert (found["fps"], found["status"]) == (5, "ok")
    assert os.environ.get("HF_VIDEOVIT_FOLDER_FPS") is None
    done = CliRunner().invoke(app, ["doctor", str(clip), "--folder-fps", "0"])
    assert "--folder-fps must be a positive number" in done.stderr
