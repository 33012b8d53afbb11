"""
Odd and damaged files against what ffmpeg says of them (tests/media/odd/README.md), and every form of source.

`HF_VIDEOVIT_ODD_MEDIA` names a larger folder of the same form to run over instead.
"""

import argparse
import copy
import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from hf_videovit.modeling import video_decoding, video_decoding_isolation, video_decoding_pyav
from hf_videovit.modeling.video_decoding import (
    DecodedVideo,
    DecoderInfo,
    VideoDecodingError,
    VideoLimits,
    available_decoders,
    decode_video,
    probe_video,
    source_name,
)

from ..clips import moving_square_clip, write_clip


ROOT = Path(__file__).parents[2]
MEDIA = Path(os.environ.get("HF_VIDEOVIT_ODD_MEDIA", Path(__file__).parents[1] / "media" / "odd"))
EXPECTED = json.loads((MEDIA / "expected.json").read_text(encoding="utf-8"))
HEALTHY = sorted(name for name, truth in EXPECTED.items() if truth["decodable"] == "full")
PARTIAL = sorted(name for name, truth in EXPECTED.items() if truth["decodable"] == "partial")
UNREADABLE = sorted(name for name, truth in EXPECTED.items() if truth["decodable"] == "none")
OTHER_DECODERS = [
    pytest.param(name, marks=pytest.mark.skipif(not info.available, reason=f"{name}: {info.reason}"))
    for name, info in available_decoders().items()
    if name != "pyav"
]
KINDS = {"missing", "no_video_stream", "empty", "undecodable", "timeout", "limit"}


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """Mean grey level of 8 x 8 blocks, as `expected.json` holds them."""
    grey = frame.mean(axis=-1)
    rows, columns = (np.linspace(0, side, 9).astype(int) for side in grey.shape)
    blocks = [
        [grey[top:bottom, left:right] for left, right in zip(columns, columns[1:])]
        for top, bottom in zip(rows, rows[1:])
    ]
    return np.array([[block.mean() for block in row] for row in blocks])


def difference(frame: np.ndarray, probe: dict) -> float:
    """Largest difference of a block's grey level; of the mean colour for a frame too small for blocks."""
    if probe["thumb8x8_gray"] is None:
        return float(np.abs(frame.mean(axis=(0, 1)) - probe["mean_rgb"]).max())
    return float(np.abs(thumbnail(frame) - np.array(probe["thumb8x8_gray"])).max())


def grey_levels(truth: dict) -> float:
    """How far a right frame may be off: 10-bit and full-range files are scaled in other ways."""
    return 6.0 if "10" in (truth.get("pix_fmt") or "") or (truth.get("pix_fmt") or "").startswith("yuvj") else 3.0


def outcome(source: Any, indices: Any = None, **options: Any) -> DecodedVideo | str:
    """The decoded video, or the kind of error."""
    try:
        return decode_video(source, indices, **options)
    except VideoDecodingError as error:
        return error.kind


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_files_give_the_right_frames_in_any_order(name):
    truth = EXPECTED[name]
    probes = truth["probes"][::-1] + truth["probes"][:1]
    decoded = decode_video(MEDIA / name, [probe["index"] for probe in probes])
    assert decoded.metadata.total_num_frames == truth["frames"]
    assert decoded.frames.shape[1:] == (truth["display_height"], truth["display_width"], 3)
    assert decoded.damaged_packets == 0
    worst = max(difference(frame, probe) for frame, probe in zip(decoded.frames, probes, strict=True))
    assert worst <= grey_levels(truth)


@pytest.mark.parametrize("name", HEALTHY)
def test_probes_of_healthy_files(name):
    truth, probe = EXPECTED[name], probe_video(MEDIA / name)
    assert probe.num_frames == truth["frames"]
    assert (probe.height, probe.width) == (truth["display_height"], truth["display_width"])
    assert probe.rotation == truth["rotation_ccw"] % 360
    if probe.timestamps is not None:
        assert len(probe.timestamps) == truth["frames"] and (np.diff(probe.timestamps) > 0).all()
        if "first_pts" in truth:
            ends = [truth["first_pts"], truth["last_pts"]]
            np.testing.assert_allclose(probe.timestamps[[0, -1]], ends, atol=2e-3)
    decoded = decode_video(MEDIA / name, [truth["probes"][-1]["index"]])
    if truth["probes"][-1]["pts"] is not None:
        np.testing.assert_allclose(decoded.timestamps, [truth["probes"][-1]["pts"]], atol=2e-3)


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("decoder", OTHER_DECODERS)
def test_every_decoder_gives_the_same_frames(name, decoder):
    truth = EXPECTED[name]
    indices = [probe["index"] for probe in truth["probes"]][::-1]
    expected = decode_video(MEDIA / name, indices, decoder="pyav")
    decoded = decode_video(MEDIA / name, indices, decoder=decoder)
    assert decoded.metadata.total_num_frames == expected.metadata.total_num_frames
    assert decoded.frames.shape == expected.frames.shape
    gap = np.abs(decoded.frames.astype(int) - expected.frames.astype(int))
    even = truth["width"] % 2 == 0 and truth["height"] % 2 == 0
    if even and truth["pix_fmt"] == "yuv420p" and truth["codec"] in ("h264", "hevc", "vp9", "mpeg4"):
        assert gap.max() == 0
    else:  # other software scalers, the same frame
        assert 10 * np.log10(255**2 / max((gap**2).mean(), 1e-9)) > 25


def test_a_tag_that_is_not_utf8_keeps_no_video_from_opening(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=3), title="the title")
    expected = decode_video(path).frames
    content = path.read_bytes()
    assert content.count(b"the title") == 1
    path.write_bytes(content.replace(b"the title", "un été là".encode("latin-1")))
    np.testing.assert_array_equal(decode_video(path).frames, expected)


def test_a_pyav_without_an_argument_is_no_fault_of_the_video(monkeypatch):
    monkeypatch.setattr(video_decoding_pyav, "TAG_ERRORS", {"no_such_argument": "replace"})
    with pytest.raises(ImportError, match="PyAV .* cannot be used: .*no_such_argument"):
        decode_video(MEDIA / "gen_hevc.mp4", [0])


def test_a_child_without_pyav_is_no_fault_of_the_video(tmp_path, monkeypatch):
    (tmp_path / "av.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(video_decoding_isolation, "_child", None)
    with pytest.raises(ImportError, match="needs PyAV"):
        decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True)
    video_decoding_isolation._child.kill()


@pytest.mark.parametrize("name", PARTIAL)
def test_damaged_files_are_refused_or_salvaged(name):
    truth = EXPECTED[name]
    salvaged = decode_video(MEDIA / name, policy="salvage")
    assert len(salvaged.frames) == salvaged.metadata.total_num_frames == truth["frames"]
    assert salvaged.frames.shape[1:] == (truth["display_height"], truth["display_width"], 3)
    for probe in truth["probes"]:
        assert difference(salvaged.frames[probe["index"]], probe) <= grey_levels(truth)
    strict = outcome(MEDIA / name)
    assert strict == "undecodable" or (strict.damaged_packets == 0 and len(strict.frames) == truth["frames"])


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("policy", ["strict", "salvage"])
def test_files_without_a_frame_are_clear_errors(name, policy):
    with pytest.raises(VideoDecodingError) as caught:
        decode_video(MEDIA / name, [0], policy=policy)
    error = caught.value
    assert error.kind in KINDS - {"missing", "timeout"}
    assert name in str(error) and error.reason
    assert "/build" not in str(error) and ".cpp" not in str(error)


@pytest.mark.parametrize("name", ["gen_hevc.mp4", "bad_missing_moov.mp4", "bad_audio_only.mp4", "gen_vp9.webm"])
def test_bytes_and_files_say_the_same(name):
    content = (MEDIA / name).read_bytes()
    forms = [
        MEDIA / name,
        str(MEDIA / name),
        content,
        io.BytesIO(content),
        {"path": None, "bytes": content},
        {"path": str(MEDIA / name)},
    ]
    results = [outcome(form, [5, 0, 5]) for form in forms]
    if isinstance(results[0], str):
        assert set(results) == {results[0]}
    else:
        assert all(np.array_equal(result.frames, results[0].frames) for result in results)


def test_arrays_and_pictures_go_through_unread():
    frames = np.random.default_rng(0).integers(0, 255, (6, 20, 24, 3), dtype=np.uint8)
    forms = [frames, torch.from_numpy(frames).permute(0, 3, 1, 2), [Image.fromarray(frame) for frame in frames]]
    for form in forms:
        decoded = decode_video(form, [5, 0, 0])
        np.testing.assert_array_equal(decoded.frames, frames[[5, 0, 0]])
        assert decoded.metadata.frames_indices == [5, 0, 0] and decoded.metadata.video_backend is None
    with pytest.raises(ValueError, match="channel"):
        decode_video(np.zeros((6, 3, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        decode_video(frames / 255)


def test_pictures_of_other_kinds_become_rgb():
    grey = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9, 1)
    transparent = np.concatenate([grey, grey, grey, grey], axis=-1)
    for form in (grey, np.moveaxis(grey, -1, 1), transparent, [Image.fromarray(frame[..., 0]) for frame in grey]):
        np.testing.assert_array_equal(decode_video(form).frames, grey.repeat(3, axis=-1))
    probe = probe_video(grey)
    assert (probe.num_frames, probe.height, probe.width, probe.fps) == (3, 8, 9, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((6, 20, 24), np.uint8), "4 axes"),
        (np.zeros((0, 20, 24, 3), np.uint8), "4 axes"),
        (np.zeros((6, 20, 24, 5), np.uint8), "channels"),
        (torch.zeros(6, 3, 20, 24), "uint8"),
        ([], "list"),
        (["a.mp4"], "list"),
        ([np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], "one shape"),
        (io.StringIO("text"), "binary mode"),
        ({}, "'bytes' or 'path'"),
        (12, "`source` must be"),
        (None, "`source` must be"),
        ("s3://bucket/clip.mp4", "http://, https:// or hf://"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_video_is_a_value_error(source, message):
    with pytest.raises(ValueError, match=message):
        decode_video(source)


def test_file_objects_are_read_from_their_start_and_left_where_they_were():
    content = (MEDIA / "gen_hevc.mp4").read_bytes()
    expected = decode_video(content, [4]).frames
    file = io.BytesIO(content)
    file.seek(17)
    np.testing.assert_array_equal(decode_video(file, [4]).frames, expected)
    assert file.tell() == 17 and not file.closed

    class Stream(io.RawIOBase):
        """What cannot be sought, such as a response."""

        def __init__(self):
            self.rest = io.BytesIO(content)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            return self.rest.readinto(buffer)

    np.testing.assert_array_equal(decode_video(io.BufferedReader(Stream()), [4]).frames, expected)


@pytest.mark.parametrize("name", ["ünï çödé.mp4", "100% %03d.mp4", "-i.mp4", "http:clip.mp4", "a|b.mp4", "no suffix"])
def test_names_mean_nothing(tmp_path, name, monkeypatch):
    (tmp_path / name).write_bytes((MEDIA / "gen_2_frames.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    for source in (name, tmp_path / name):
        assert len(decode_video(source).frames) == 2


def test_a_plan_sees_the_counted_frames_of_an_edit_list():
    seen = []

    def plan(metadata):
        seen.append(metadata.total_num_frames)
        return np.array([[0, 1], [70, 71]])

    decoded = decode_video(MEDIA / "gen_edit_list.mp4", plan)
    assert seen == [72] and decoded.metadata.frames_indices == [0, 1, 70, 71]


def test_probe_tells_display_size_rotation_and_rate():
    probe = probe_video(MEDIA / "gen_rot90.mp4")
    assert (probe.height, probe.width, probe.num_frames) == (320, 136, 100)
    assert probe.rotation % 360 == 90 and probe.fps == pytest.approx(25) and probe.codec == "h264"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": [100]}, "`indices` must lie in 0..99, got 100"),
        ({"indices": [-1]}, "`indices` must lie in 0..99, got -1"),
        ({"indices": []}, "at least one"),
        ({"indices": [0.5]}, "must be integers"),
        ({"decoder": "ffmpeg"}, "`decoder` must be one of .*'ffmpeg'"),
        ({"policy": "lenient"}, "`policy` must be one of .*'lenient'"),
        ({"num_threads": -1}, "`num_threads` must be at least 0"),
        ({"timeout": 0}, "`timeout` must be positive"),
        ({"isolate": True, "decoder": "decord"}, "`isolate=True` decodes with PyAV"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        decode_video(MEDIA / "gen_h264_faststart.mp4", **{"indices": [0], **arguments})


@pytest.mark.parametrize(
    "limits",
    [
        VideoLimits(max_pixels=100),
        VideoLimits(max_duration=0.5),
        VideoLimits(max_frames=10),
        VideoLimits(max_bytes=500),
        VideoLimits(max_decoded_bytes=320 * 136 * 3 - 1),
    ],
    ids=["pixels", "duration", "frames", "bytes", "decoded bytes"],
)
@pytest.mark.parametrize("isolate", [False, True])
def test_limits_are_errors_of_their_own(limits, isolate):
    with pytest.raises(VideoDecodingError) as caught:
        decode_video(MEDIA / "gen_h264_faststart.mp4", [0], limits=limits, isolate=isolate)
    assert caught.value.kind == "limit"


def test_what_a_checkout_may_lose(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    for name in ("absent.mp4", "dangling.mp4", "folder.mp4", "folder.mp4/clip.mp4"):
        with pytest.raises(VideoDecodingError) as caught:
            decode_video(tmp_path / name)
        assert caught.value.kind == "missing" and name in str(caught.value)
    with pytest.raises(VideoDecodingError, match="null") as caught:
        decode_video("zero\0.mp4")
    assert caught.value.kind == "missing"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoDecodingError, match="pipe, not a file"):
        decode_video(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_a_decoding_error(tmp_path):
    path = tmp_path / "secret.mp4"
    path.write_bytes((MEDIA / "gen_1_frame.mp4").read_bytes())
    path.chmod(0)
    with pytest.raises(VideoDecodingError, match="secret"):
        decode_video(path)


def test_a_file_cannot_make_the_decoder_open_another(tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes((MEDIA / "gen_1_frame.mp4").read_bytes())
    playlists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile {secret}\n",
        "renamed.mp4": f"ffconcat version 1.0\nfile {secret}\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        for source in (tmp_path / name, text.encode()):
            with pytest.raises(VideoDecodingError):
                decode_video(source)


@pytest.fixture
def server():
    """The media over HTTP on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=MEDIA)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_urls_are_read_whole_and_limited(server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    expected = decode_video(MEDIA / "gen_hevc.mp4", [3]).frames
    np.testing.assert_array_equal(decode_video(f"{server}/gen_hevc.mp4", [3]).frames, expected)
    np.testing.assert_array_equal(decode_video(f"{server}/gen_hevc.mp4", [3], isolate=True).frames, expected)
    for url, options, kind in (
        (f"{server}/absent.mp4", {}, "missing"),
        ("http://127.0.0.1:9/closed.mp4", {}, "missing"),
        (f"{server}/gen_hevc.mp4", {"limits": VideoLimits(max_bytes=1000)}, "limit"),
        (f"{server}/bad_html_error_page.mp4", {}, "undecodable"),
    ):
        with pytest.raises(VideoDecodingError) as caught:
            decode_video(url, [0], **options)
        assert caught.value.kind == kind


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/clip.mp4", "hf://datasets/someone/clips/clip.mp4"])
def test_urls_are_refused_offline(monkeypatch, url):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(VideoDecodingError, match="(?i)offline"):
        decode_video(url)


def test_a_server_that_goes_silent_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(VideoDecodingError) as caught:
        decode_video(f"http://127.0.0.1:{silent.getsockname()[1]}/clip.mp4", timeout=0.5)
    assert caught.value.kind == "timeout"


def test_hub_urls_go_through_the_hub_file_system(monkeypatch):
    asked = []

    class FileSystem:
        def __init__(self, token):
            asked.append(token)

        def open(self, url, mode, block_size):
            asked.append(url)
            if "absent" in url:
                raise FileNotFoundError(url)
            return open(MEDIA / "gen_2_frames.mp4", mode)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfFileSystem", FileSystem)
    url = "hf://datasets/someone/clips/clip.mp4"
    assert len(decode_video(url, token="mine").frames) == 2
    assert asked == ["mine", url]
    with pytest.raises(VideoDecodingError, match="no such file on the Hub") as caught:
        decode_video("hf://datasets/someone/clips/absent.mp4")
    assert caught.value.kind == "missing"


def test_names_in_messages_tell_no_secrets():
    assert (
        source_name("https://me:secret@host.org/a/clip.mp4?signature=secret#secret") == "https://host.org/a/clip.mp4"
    )
    assert source_name(b"0" * 12_000) == "<bytes, 12 kB>"
    assert source_name({"path": None, "bytes": b"0"}) == "<bytes, 1 B>"
    assert source_name(np.zeros((2, 3, 4, 3))) == "<ndarray of shape (2, 3, 4, 3)>"


class Clips(torch.utils.data.Dataset):
    """Paths only: nothing open crosses a process."""

    names = ("gen_hevc.mp4", "gen_vp9.webm", "gen_mpeg4.avi", "gen_edit_list.mp4")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> int:
        return int(decode_video(MEDIA / self.names[index], [9, 40]).frames.sum())


class IsolatedClips(Clips):
    """The same, in a child process of whoever asks."""

    def __getitem__(self, index: int) -> int:
        return int(decode_video(MEDIA / self.names[index], [9, 40], isolate=True).frames.sum())


@pytest.mark.parametrize(
    ("clips", "context"),
    [(Clips, "fork"), pytest.param(Clips, "spawn", marks=pytest.mark.slow), (IsolatedClips, "fork")],
    ids=["fork", "spawn", "isolated"],
)
def test_workers_decode_what_the_parent_does(clips, context):
    here = [clips()[index] for index in range(4)]
    there = DataLoader(clips(), num_workers=2, multiprocessing_context=context, batch_size=None)
    assert [int(value) for value in there] == here


def test_threads_do_not_disturb_each_other():
    expected = {name: int(decode_video(MEDIA / name, [9, 40]).frames.sum()) for name in Clips.names}
    wrong = []

    def work(name: str):
        for _ in range(3):
            if int(decode_video(MEDIA / name, [9, 40]).frames.sum()) != expected[name]:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in Clips.names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")
def test_nothing_stays_open():
    names = ("gen_hevc.mp4", "bad_missing_moov.mp4", "bad_truncated_faststart.mp4")
    before = len(os.listdir("/proc/self/fd"))
    for name in names * 10:
        outcome(MEDIA / name, [0])
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.parametrize(
    "name", ["gen_hevc.mp4", "gen_rot90.mp4", "bad_missing_moov.mp4", "bad_truncated_faststart.mp4"]
)
@pytest.mark.parametrize("policy", ["strict", "salvage"])
def test_nothing_waits_for_the_garbage_collector(name, policy):
    """A circle of references would hold the decoder and its frames until the collector comes, which may be long."""
    gc.collect()
    gc.disable()
    try:
        outcome(MEDIA / name, [3, 0], policy=policy)
        kinds = (video_decoding_pyav.PyAVReader, av.container.InputContainer, av.VideoFrame, av.Packet)
        assert not [thing for thing in gc.get_objects() if type(thing) in kinds]
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["gen_rot90.mp4", "gen_vp9.webm", "bad_missing_moov.mp4", "bad_zeroed_middle.mp4"])
def test_the_isolated_decoder_says_what_the_other_says(name):
    apart, here = (outcome(MEDIA / name, [3, 0, 60], isolate=isolate) for isolate in (True, False))
    if isinstance(here, str):
        assert apart == here
    else:
        np.testing.assert_array_equal(apart.frames, here.frames)
        assert apart.metadata.total_num_frames == here.metadata.total_num_frames


def signalling(number: int):
    """A plan that, once the child has the file open, sends it a signal."""

    def plan(metadata) -> list[int]:
        os.kill(video_decoding_isolation._child.pid, number)
        return [0]

    return plan


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "kind"), [("SIGSEGV", "undecodable"), ("SIGSTOP", "timeout")])
def test_a_child_that_crashes_or_hangs_is_an_error_and_the_next_call_works(name, kind):
    plan = signalling(getattr(signal, name))
    timeout = 3.0 if kind == "timeout" else None
    with pytest.raises(VideoDecodingError) as caught:
        decode_video(MEDIA / "gen_hevc.mp4", plan, isolate=True, timeout=timeout)
    assert caught.value.kind == kind
    assert decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True).frames.shape == (1, 136, 320, 3)


def test_a_child_may_take_for_ever():
    decoded = decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True, timeout=float("inf"))
    assert decoded.frames.shape == (1, 136, 320, 3)


def test_the_child_lives_on_and_needs_neither_torch_nor_transformers():
    decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True)
    child = video_decoding_isolation._child
    with pytest.raises(ValueError, match="out of the plan"):
        decode_video(MEDIA / "gen_hevc.mp4", partial(_raise, ValueError("out of the plan")), isolate=True)
    assert probe_video((MEDIA / "gen_rot90.mp4").read_bytes(), isolate=True).height == 320
    assert video_decoding_isolation._child is child and child.alive()
    maps = Path(f"/proc/{child.pid}/maps")
    if maps.is_file():
        assert "libtorch" not in maps.read_text()


def _raise(error: Exception, metadata) -> None:
    raise error


def test_time_runs_out_without_isolation_too():
    with pytest.raises(VideoDecodingError) as caught:
        decode_video(MEDIA / "gen_long_2000_frames.mp4", timeout=0.005)
    assert caught.value.kind == "timeout"


def test_errors_survive_the_way_from_a_worker():
    error = VideoDecodingError("clip.mp4", "pyav", "no frame decodes", "empty")
    twin = copy.copy(error)  # as pickling does
    assert str(twin) == str(error) == "clip.mp4: no frame decodes [decoder: pyav]"
    assert (twin.source, twin.decoder, twin.reason, twin.kind) == ("clip.mp4", "pyav", "no frame decodes", "empty")


def test_nvdec_is_torchcodec_on_the_device(monkeypatch):
    """The way of the arguments; no device decodes here."""
    name, asked = "gen_h264_all_intra.mp4", []
    path, truth = MEDIA / name, decode_video(MEDIA / name, [2, 5])

    class Decoder:
        metadata = argparse.Namespace(num_frames=EXPECTED[name]["frames"])

        def __init__(self, source, **options):
            asked.append((source, options))

        def get_frames_at(self, positions):
            times = torch.tensor(truth.timestamps)
            return argparse.Namespace(data=torch.from_numpy(255 - truth.frames), pts_seconds=times)

    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", ModuleType("torchcodec.decoders"))
    monkeypatch.setattr(sys.modules["torchcodec.decoders"], "VideoDecoder", Decoder, raising=False)
    monkeypatch.setattr(video_decoding, "_inspect_nvdec", lambda: DecoderInfo(True, "1"))
    np.testing.assert_array_equal(decode_video(path, [2, 5], decoder="nvdec").frames, 255 - truth.frames)
    assert [(source, options["device"]) for source, options in asked] == [(str(path), "cuda")]
    other = MEDIA / "gen_mpeg4.avi"  # left to PyAV
    np.testing.assert_array_equal(decode_video(other, [1], decoder="nvdec").frames, decode_video(other, [1]).frames)
    assert len(asked) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_nvdec_without_a_device_is_named():
    with pytest.raises(ValueError, match="`decoder='nvdec'` is not available"):
        decode_video(MEDIA / "gen_h264_all_intra.mp4", [0], decoder="nvdec")


def test_a_decoder_that_cannot_be_relied_on_is_replaced_with_one_warning(caplog):
    if not available_decoders()["decord"].available:
        pytest.skip("decord is not installed")
    video_decoding._warned.clear()
    for _ in range(3):
        decoded = decode_video(MEDIA / "gen_edit_list.mp4", [71], decoder="decord")
        assert decoded.metadata.video_backend == "pyav"
    assert [record.message for record in caplog.records if "instead of decord" in record.message] == [
        f"{MEDIA / 'gen_edit_list.mp4'}: an edit list or a start other than 0: decoded with PyAV instead of decord."
    ]


@pytest.mark.parametrize(
    ("size", "left"), [((96, 128), True), ((128, 144), True), ((128, 78), True), ((112, 80), False)]
)
def test_widths_that_decord_takes_wrongly_are_left_to_pyav(tmp_path, size, left):
    width, height = size
    path = write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=8, height=height, width=width))
    with video_decoding_pyav.PyAVReader(str(path), "clip", limits=VideoLimits()) as reader:
        doubt = video_decoding._decord_doubt(reader)
    assert doubt == (f"{width} pixels wide" if left else None)


def test_frames_of_other_times_are_not_believed():
    """Whatever another decoder gives is held against the times of the index."""
    name, positions = "gen_hevc.mp4", [3, 10]
    with video_decoding_pyav.PyAVReader(str(MEDIA / name), name, limits=VideoLimits()) as reader:
        frames, index = reader.read(positions).frames, reader.index
        starts = index.times[positions] * index.time_base
        right = video_decoding._agreeing(frames, starts, reader, positions)
        np.testing.assert_array_equal(right.timestamps, starts)
        for shift in (np.array([0, 1]), -0.6):  # in frames
            with pytest.raises(video_decoding._Doubt, match="other times"):
                video_decoding._agreeing(frames, starts + shift / index.fps, reader, positions)
        with pytest.raises(video_decoding._Doubt, match="shape"):
            video_decoding._agreeing(frames[:1], starts, reader, positions)


def test_damage_prints_nothing(capfd):
    for name in (*PARTIAL, *UNREADABLE):
        outcome(MEDIA / name, policy="salvage")
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """200 frames in groups of about ten, B-frames between."""
    path = tmp_path_factory.mktemp("groups") / "groups.mp4"
    frames = moving_square_clip("right", num_frames=200, height=48, width=64, seed=3)
    options = {"g": "12", "bf": "3", "crf": "20", "preset": "fast", "x264-params": "scenecut=0:min-keyint=12"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.options = 48, 64, "yuv420p", options
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kept_bytes", [2**26, 0], ids=["packets kept", "file sought"])
def test_seeking_gives_the_frames_that_reading_through_gives(long_clip, monkeypatch, kept_bytes):
    monkeypatch.setattr(video_decoding_pyav, "KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(video_decoding_pyav, "_indices", {})
    truth = decode_video(long_clip).frames
    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 16) * 5:
        indices = generator.integers(0, 200, size)
        np.testing.assert_array_equal(decode_video(long_clip, indices).frames, truth[indices])
    with video_decoding_pyav.PyAVReader(str(long_clip), "clip", limits=VideoLimits()) as reader:
        decoded = []
        decode = reader._decode
        reader._decode = lambda: (decoded.append(frame.pts) or frame for frame in decode())
        reader.read([10, 150])
    assert len(decoded) < 40  # of 151: the way between was not decoded


def test_open_groups_are_entered_early_enough():
    name = "gen_h264_open_gop.mp4"
    with video_decoding_pyav.PyAVReader(str(MEDIA / name), name, limits=VideoLimits()) as reader:
        assert [clean for _, _, clean, _ in reader.index.keyframes] == [True, False, False, False, False]
    truth = decode_video(MEDIA / name).frames
    for index in (70, 85, 90, 99):
        np.testing.assert_array_equal(decode_video(MEDIA / name, [index]).frames[0], truth[index])


def test_frames_that_are_never_shown_are_not_counted(tmp_path):
    """A recording that starts in the middle of a group: what stands before the first keyframe does not decode."""
    whole = (MEDIA / "gen_start_offset.ts").read_bytes()
    tables, late = whole[: 188 * 3], whole[188 * 20 :]
    truth = decode_video(whole).frames[-75:]
    for policy in ("strict", "salvage"):
        decoded = decode_video(tables + late, policy=policy)
        assert decoded.metadata.total_num_frames == 75 and decoded.damaged_packets == 0
        np.testing.assert_array_equal(decoded.frames, truth)
        np.testing.assert_array_equal(decode_video(tables + late, [40], policy=policy).frames[0], truth[40])
    path = tmp_path / "late.ts"
    path.write_bytes(tables + late)
    decode_video(path)
    assert probe_video(path).num_frames == 75  # known from then on


def test_salvage_plans_on_what_decodes():
    seen = []

    def plan(metadata) -> list[int]:
        seen.append(metadata.total_num_frames)
        return [0, 60, metadata.total_num_frames - 1]

    decoded = decode_video(MEDIA / "bad_zeroed_middle.mp4", plan, policy="salvage")
    assert seen == [100, 84] and decoded.metadata.frames_indices == [0, 60, 83]
    assert decoded.metadata.total_num_frames == 84 and decoded.damaged_packets > 0
    clamped = decode_video(MEDIA / "bad_zeroed_middle.mp4", [50, 95], policy="salvage")
    assert clamped.metadata.frames_indices == [50, 83]
    with pytest.raises(VideoDecodingError, match="damaged at frame 46 of 100"):
        decode_video(MEDIA / "bad_zeroed_middle.mp4", [0, 50])
    truth = decode_video(MEDIA / "gen_h264_faststart.mp4", [0, 40, 99]).frames
    for indices in ([0, 40], [0, 99]):  # before the damage, and on both sides of it: it is not in the way
        frames = decode_video(MEDIA / "bad_zeroed_middle.mp4", indices).frames
        np.testing.assert_array_equal(frames, truth[[[0, 40, 99].index(index) for index in indices]])


def test_a_probe_is_kept_until_the_file_changes(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes((MEDIA / "gen_1_frame.mp4").read_bytes())
    assert probe_video(path).num_frames == 1
    path.write_bytes((MEDIA / "gen_2_frames.mp4").read_bytes())
    assert probe_video(path).num_frames == 2


CONTENTS = {
    suffix: (MEDIA / name).read_bytes()
    for suffix, name in {
        "mp4": "gen_all_black.mp4",
        "webm": "real_vp9_alpha.webm",
        "avi": "real_ffv1_bgr0.avi",
    }.items()
}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), policy=st.sampled_from(["strict", "salvage"]), suffix=st.sampled_from(sorted(CONTENTS)))
def test_any_damage_gives_frames_or_a_clean_error(data, policy, suffix):
    content = bytearray(CONTENTS[suffix])
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    decoded = outcome(content, lambda metadata: [0, metadata.total_num_frames - 1], policy=policy, timeout=20)
    if isinstance(decoded, str):
        assert decoded in KINDS - {"missing", "timeout"}
    else:
        assert decoded.frames.dtype == np.uint8 and decoded.frames.shape == (2, *decoded.frames.shape[1:3], 3)


@pytest.mark.parametrize("array", [False, True])
def test_frames_come_back_in_the_shape_of_the_indices(array, tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, moving_square_clip("up", num_frames=8))
    whole = decode_video(path)
    indices = np.array([[5, 1, 5], [0, 2, 7]])
    for asked in (indices, lambda metadata: indices):
        found = decode_video(whole.frames if array else path, asked)
        assert found.frames.shape == (2, 3, *whole.frames.shape[1:])
        assert np.array_equal(found.frames, whole.frames[indices])
        assert found.metadata.frames_indices == [5, 1, 5, 0, 2, 7]
        if not array:
            assert np.array_equal(found.timestamps, whole.timestamps[indices])


@pytest.mark.slow
def test_the_isolated_decoder_runs_nothing_of_the_working_directory(tmp_path):
    """A file named like a module that the child imports must stay a file, however the parent was started."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in (
        "json",
        "importlib",
        "sys",
        "types",
        "threading",
        "signal",
        "fractions",
        "numpy",
        "av",
        "dataclasses",
    ):
        (folder / f"{name}.py").write_text("open('was_run', 'w').close()")
    write_clip(folder / "clip.mp4", moving_square_clip("up", num_frames=4))
    script = (
        "import os, sys\n"
        "from hf_videovit.modeling.video_decoding import decode_video\n"
        f"os.chdir({str(folder)!r})\n"
        "sys.path[:0] = ['', os.getcwd(), '.']\n"
        "assert len(decode_video('clip.mp4', [0, 3], isolate=True).frames) == 2\n"
    )
    outcome = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert not (folder / "was_run").exists()
