"""
Odd and damaged files against what ffmpeg says of them (tests/media/odd/README.md), and every form of source.

`HF_VIDEOVIT_ODD_MEDIA` names a larger folder of the same form to run over instead.
"""

import io
import json
import os
import signal
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from hf_videovit.modeling.video_decoding import (
    DecodedVideo,
    VideoDecodingError,
    VideoLimits,
    available_decoders,
    decode_video,
    probe_video,
)

from ..clips import write_clip


MEDIA = Path(os.environ.get("HF_VIDEOVIT_ODD_MEDIA", Path(__file__).parents[1] / "media" / "odd"))
EXPECTED = json.loads((MEDIA / "expected.json").read_text(encoding="utf-8"))
HEALTHY = sorted(name for name, truth in EXPECTED.items() if truth["decodable"] == "full")
PARTIAL = sorted(name for name, truth in EXPECTED.items() if truth["decodable"] == "partial")
UNREADABLE = sorted(name for name, truth in EXPECTED.items() if truth["decodable"] == "none")
DECODERS = [name for name, info in available_decoders().items() if info.available]
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
@pytest.mark.parametrize("decoder", [name for name in DECODERS if name != "pyav"])
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


@pytest.mark.parametrize("name", PARTIAL)
def test_damaged_files_are_refused_or_salvaged(name):
    truth = EXPECTED[name]
    salvaged = decode_video(MEDIA / name, policy="salvage")
    assert abs(len(salvaged.frames) - truth["frames"]) <= 1
    assert salvaged.frames.shape[1:] == (truth["display_height"], truth["display_width"], 3)
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
    ],
    ids=["pixels", "duration", "frames", "bytes"],
)
@pytest.mark.parametrize("isolate", [False, True])
def test_limits_are_errors_of_their_own(limits, isolate):
    with pytest.raises(VideoDecodingError) as caught:
        decode_video(MEDIA / "gen_h264_faststart.mp4", [0], limits=limits, isolate=isolate)
    assert caught.value.kind == "limit"


def test_what_a_checkout_may_lose(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    for name in ("absent.mp4", "dangling.mp4", "folder.mp4"):
        with pytest.raises(VideoDecodingError) as caught:
            decode_video(tmp_path / name)
        assert caught.value.kind in {"missing", "undecodable"} and name in str(caught.value)


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
    for url, options, kind in (
        (f"{server}/absent.mp4", {}, "missing"),
        (f"{server}/gen_hevc.mp4", {"limits": VideoLimits(max_bytes=1000)}, "limit"),
        (f"{server}/bad_html_error_page.mp4", {}, "undecodable"),
    ):
        with pytest.raises(VideoDecodingError) as caught:
            decode_video(url, [0], **options)
        assert caught.value.kind == kind


def test_urls_are_refused_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(VideoDecodingError, match="(?i)offline"):
        decode_video("http://127.0.0.1:9/clip.mp4")


class Clips(torch.utils.data.Dataset):
    """Paths only: nothing open crosses a process."""

    names = ("gen_hevc.mp4", "gen_vp9.webm", "gen_mpeg4.avi", "gen_edit_list.mp4")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> int:
        return int(decode_video(MEDIA / self.names[index], [9, 40]).frames.sum())


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_decode_what_the_parent_does(context):
    here = [Clips()[index] for index in range(4)]
    there = DataLoader(Clips(), num_workers=2, multiprocessing_context=context, batch_size=None, timeout=120)
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


@pytest.mark.parametrize("name", ["gen_rot90.mp4", "gen_vp9.webm", "bad_missing_moov.mp4", "bad_zeroed_middle.mp4"])
def test_the_isolated_decoder_says_what_the_other_says(name):
    apart, here = (outcome(MEDIA / name, [3, 0, 60], isolate=isolate) for isolate in (True, False))
    if isinstance(here, str):
        assert apart == here
    else:
        np.testing.assert_array_equal(apart.frames, here.frames)
        assert apart.metadata.total_num_frames == here.metadata.total_num_frames


def test_a_killed_child_is_an_error_and_the_next_call_works():
    from hf_videovit.modeling import video_decoding_isolation as isolation

    decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True)
    child = isolation.DecodingProcess.ask
    ask = isolation.DecodingProcess.ask

    def killed(self, *words, **request):
        os.kill(self.pid, signal.SIGKILL)
        return child(self, *words, **request)

    isolation.DecodingProcess.ask = killed
    try:
        with pytest.raises(VideoDecodingError) as caught:
            decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True)
    finally:
        isolation.DecodingProcess.ask = ask
    assert caught.value.kind == "undecodable"
    assert decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True).frames.shape == (1, 136, 320, 3)


def test_a_stopped_child_runs_out_of_time():
    from hf_videovit.modeling import video_decoding_isolation as isolation

    ask = isolation.DecodingProcess.ask

    def stopped(self, *words, **request):
        os.kill(self.pid, signal.SIGSTOP)
        return ask(self, *words, **request)

    isolation.DecodingProcess.ask = stopped
    try:
        with pytest.raises(VideoDecodingError) as caught:
            decode_video(MEDIA / "gen_hevc.mp4", [0], isolate=True, timeout=1.0)
    finally:
        isolation.DecodingProcess.ask = ask
    assert caught.value.kind == "timeout"


@pytest.fixture(scope="module")
def clip_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "noise.mp4"
    write_clip(path, np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8))
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), policy=st.sampled_from(["strict", "salvage"]))
def test_any_damage_gives_frames_or_a_clean_error(clip_bytes, data, policy):
    content = bytearray(clip_bytes)
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    decoded = outcome(content, lambda metadata: [0, metadata.total_num_frames - 1], policy=policy, timeout=20)
    if isinstance(decoded, str):
        assert decoded in KINDS
    else:
        assert decoded.frames.dtype == np.uint8 and decoded.frames.shape == (2, *decoded.frames.shape[1:3], 3)
