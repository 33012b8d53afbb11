"""Frames, times and orientation as the `ffmpeg` command line gives them, for every decoder."""

import shutil
import struct
import subprocess
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hf_videovit.modeling import video_decoding_pyav
from hf_videovit.modeling.video_decoding import (
    VideoDecodingError,
    VideoLimits,
    available_decoders,
    decode_video,
    probe_video,
)

from ..clips import moving_square_clip, write_clip


DECODERS = [
    pytest.param(name, marks=pytest.mark.skipif(not info.available, reason=f"{name}: {info.reason}"))
    for name, info in available_decoders().items()
]
HEIGHT, WIDTH = 120, 160
# a, b, c, d of a display matrix: (x, y) goes to (a * x + c * y, b * x + d * y), then back into the picture.
MATRICES = {
    "identity": (1, 0, 0, 1),
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "rotate 180": (-1, 0, 0, -1),
    "rotate 90 clockwise": (0, 1, -1, 0),
    "rotate 90 counter-clockwise": (0, -1, 1, 0),
    "transpose": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}


def levels_clip(num_frames: int = 48) -> np.ndarray:
    """A grey level of its own for each frame, and a white corner at the top left."""
    frames = np.empty((num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[:] = 16 + (7 * index) % 200
        frame[: HEIGHT // 4, : WIDTH // 2] = 255
    return frames


def encode(path: Path, frames: np.ndarray, codec: str = "libx264", **settings: Any) -> Path:
    """Encode RGB frames. `settings`: `pix_fmt`, `options`, `times` in milliseconds, `rate`, `muxer`, `b_frames`."""
    times = settings.get("times")
    with av.open(str(path), "w", options=settings.get("muxer", {})) as container:
        stream = container.add_stream(codec, rate=Fraction(settings.get("rate", 25)))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = settings.get("pix_fmt", "yuv420p")
        stream.options = settings.get("options", {})
        stream.codec_context.thread_count = 1
        stream.codec_context.max_b_frames = settings.get("b_frames", 0)
        if times is not None:
            stream.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_matrix(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A copy of an MP4 with another display matrix in its track header."""
    content = source.read_bytes()
    at = content.find(b"tkhd") + 44
    a, b, c, d = (number << 16 for number in matrix)
    target.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])
    return target


def as_displayed(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Every pixel moved where the matrix sends it."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    a, b, c, d = matrix
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    shown = np.empty((y.max() + 1, x.max() + 1, *picture.shape[2:]), dtype=picture.dtype)
    shown[y, x] = picture
    return shown


def corner(matrix: tuple[int, int, int, int]) -> np.ndarray:
    return as_displayed(levels_clip(1)[0], matrix)[::8, ::8, 0] > 200


def seen_corner(frame: np.ndarray) -> np.ndarray:
    return frame[::8, ::8, 0] > 230


# ---------------------------------------------------------------------- orientation


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", MATRICES)
def test_the_whole_display_matrix_is_followed(tmp_path, name, decoder):
    matrix = MATRICES[name]
    plain = encode(tmp_path / "plain.mp4", levels_clip(), options={"g": "12"})
    turned = with_matrix(plain, tmp_path / "turned.mp4", matrix)
    expected = as_displayed(decode_video(plain, [40, 3]).frames.transpose(1, 2, 3, 0), matrix).transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(decode_video(turned, [40, 3], decoder=decoder).frames, expected)
    assert (seen_corner(expected[1]) == corner(matrix)).all()
    if decoder == "pyav":
        np.testing.assert_array_equal(decode_video(turned, [40, 3], isolate=True).frames, expected)
        probe = probe_video(turned)
        assert (probe.height, probe.width) == expected.shape[1:3]
        picture = np.rot90(decode_video(plain, [3]).frames[0], k=probe.rotation // 90)
        np.testing.assert_array_equal(picture[:, ::-1] if probe.mirrored else picture, expected[1])


def orientation_message(rotation: int, hflip: bool, vflip: bool) -> bytes:
    """A length-prefixed NAL unit of H.264 with a display orientation message (ITU-T H.264, D.1.27)."""
    bits = f"0{int(hflip)}{int(vflip)}{rotation * 65536 // 360:016b}1" + "0" + "100"
    payload = int(bits, 2).to_bytes(3, "big")
    unit = bytes([6, 47, len(payload)]) + payload + b"\x80"
    return len(unit).to_bytes(4, "big") + unit


def turning_clip(path: Path, messages: dict[int, bytes]) -> Path:
    """A clip in which each frame from a given one on carries an orientation message."""
    plain = encode(path.with_name("plain.mp4"), levels_clip(), options={"g": "12", "preset": "veryfast"})
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            message = next((found for start, found in reversed(messages.items()) if number >= start), b"")
            turned = av.Packet(message + bytes(packet))
            turned.pts, turned.dts, turned.time_base = packet.pts, packet.dts, packet.time_base
            turned.is_keyframe, turned.duration, turned.stream = packet.is_keyframe, packet.duration, copied
            target.mux(turned)
    return path


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("messages", "first", "last"),
    [
        ({24: orientation_message(180, False, False)}, "identity", "rotate 180"),
        ({0: orientation_message(0, True, False)}, "hflip", "hflip"),
        ({0: orientation_message(0, False, True), 24: b""}, "vflip", "identity"),
        ({0: orientation_message(0, True, False), 24: orientation_message(180, False, False)}, "hflip", "rotate 180"),
    ],
)
def test_frames_that_say_themselves_how_they_are_turned(tmp_path, decoder, messages, first, last):
    path = turning_clip(tmp_path / "turning.mp4", messages)
    whole = decode_video(path, decoder=decoder).frames
    for index, frame in enumerate(whole):
        assert (seen_corner(frame) == corner(MATRICES[first if index < 24 else last])).all(), index
    for index in (47, 24, 23, 0):
        video_decoding_pyav._indices.clear()
        np.testing.assert_array_equal(decode_video(path, [index], decoder=decoder).frames[0], whole[index])


@pytest.mark.parametrize("order", [(0, 40), (40, 0)])
def test_the_shape_of_frames_is_that_of_the_first_whatever_was_read_before(tmp_path, order):
    for start, shape in ((0, (WIDTH, HEIGHT)), (24, (HEIGHT, WIDTH))):
        path = turning_clip(tmp_path / f"{start}.mp4", {start: orientation_message(90, False, False)})
        for index in order:
            assert decode_video(path, [index]).frames.shape == (1, *shape, 3)
        probe = probe_video(path)
        assert (probe.height, probe.width) == shape


# ---------------------------------------------------------------------- rates


def recorded_times(num_frames: int) -> list[int]:
    steps = np.random.default_rng(0).integers(25, 45, num_frames - 1)
    return [0, *np.cumsum(steps).tolist()]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_the_rate_of_a_browser_recording_is_that_of_its_times(tmp_path, codec, decoder):
    times = recorded_times(30)
    options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "b": "2M"}
    muxer = {"live": "1"}
    path = tmp_path / "recording.webm"
    encode(path, levels_clip(30), codec, options=options, muxer=muxer, times=times, rate=1000)
    true_rate = 29 / (times[-1] / 1000)
    probe, decoded = probe_video(path), decode_video(path, decoder=decoder)
    assert probe.fps == pytest.approx(true_rate, rel=0.01)
    assert decoded.metadata.fps == pytest.approx(true_rate, rel=0.01)
    assert probe.duration == pytest.approx(times[-1] / 1000, abs=0.1)
    np.testing.assert_allclose(decoded.timestamps, np.array(times) / 1000, atol=0.002)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts", ".flv"])
def test_uneven_times_give_the_mean_rate(tmp_path, suffix):
    times = [40 * index if index < 15 else 600 + 200 * (index - 15) for index in range(30)]
    path = encode(tmp_path / f"uneven{suffix}", levels_clip(30), times=times, rate=25, options={"tune": "zerolatency"})
    assert probe_video(path).fps == pytest.approx(29 / (times[-1] / 1000), rel=0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24), Fraction(15, 2)])
def test_a_declared_rate_that_agrees_with_rounded_times_is_kept_exactly(tmp_path, suffix, rate):
    path = encode(tmp_path / f"even{suffix}", levels_clip(40), rate=rate, options={"tune": "zerolatency"})
    assert probe_video(path).fps == pytest.approx(float(rate), rel=1e-6)


# ---------------------------------------------------------------------- the same frames from all decoders

AWKWARD = {
    **{
        f"mpeg4 with B-frames in {suffix}": (suffix, "mpeg4", {"b_frames": 2, "options": {"g": "12", "qscale": "2"}})
        for suffix in ("mp4", "mkv", "mov", "avi")
    },
    **{
        f"h264 with intra refresh in {suffix}": (
            suffix,
            "libx264",
            {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
        )
        for suffix in ("mp4", "mkv", "flv")
    },
    "h264 with open groups": (
        "mkv",
        "libx264",
        {"b_frames": 3, "options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    ),
    "h264 of 10 bits": ("mp4", "libx264", {"pix_fmt": "yuv420p10le", "options": {"g": "12"}}),
    "h264 4:2:2": ("mkv", "libx264", {"pix_fmt": "yuv422p", "options": {"g": "12"}}),
    "interlaced h264": ("mp4", "libx264", {"options": {"flags": "+ildct+ilme", "g": "12"}}),
    "interlaced mpeg4": ("mkv", "mpeg4", {"options": {"flags": "+ildct+ilme", "g": "12"}}),
    "mjpeg with an odd height": ("mov", "mjpeg", {"pix_fmt": "yuvj420p", "odd": True}),
}


def awkward_clip(folder: Path, name: str) -> Path:
    suffix, codec, settings = AWKWARD[name]
    frames = moving_square_clip(num_frames=48, height=120, width=160, seed=3)
    return encode(folder / f"clip.{suffix}", frames[:, : 119 if settings.get("odd") else 120], codec, **settings)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", AWKWARD)
def test_the_same_indices_give_the_same_frames_whichever_decoder_reads_them(tmp_path, name, decoder):
    path = awkward_clip(tmp_path, name)
    with av.open(str(path)) as container:
        converter = video_decoding_pyav._Converter()
        truth = [converter.rgb(frame, frame.height, frame.width) for frame in container.decode(video=0)]
    for indices in ([15], [47, 2], [30, 31, 33], [11, 12, 13]):
        decoded = decode_video(path, indices, decoder=decoder)
        np.testing.assert_array_equal(decoded.frames, np.stack([truth[index] for index in indices]))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command line is not installed")
@pytest.mark.parametrize("name", AWKWARD)
def test_frames_are_those_of_the_command_line(tmp_path, name):
    path = awkward_clip(tmp_path, name)
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    frames = decode_video(path).frames
    np.testing.assert_array_equal(frames, np.frombuffer(raw, dtype=np.uint8).reshape(frames.shape))


def test_fields_are_not_converted_apart(tmp_path):
    """Equal planes give equal colours, whether or not a frame says that it is interlaced."""
    frames = np.random.default_rng(0).integers(0, 256, (4, HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    frames = frames.repeat(4, axis=1).repeat(4, axis=2)
    plain = encode(tmp_path / "plain.mp4", frames, options={"qp": "0"})
    fields = encode(tmp_path / "fields.mp4", frames, options={"qp": "0", "flags": "+ildct+ilme"})
    with av.open(str(fields)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    np.testing.assert_array_equal(decode_video(fields).frames, decode_video(plain).frames)


def test_the_faster_conversion_gives_the_same_pixels(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=4, height=96, width=130))
    fast = decode_video(path).frames
    monkeypatch.setattr(video_decoding_pyav, "PLAIN_FORMATS", ())
    np.testing.assert_array_equal(decode_video(path).frames, fast)


# ---------------------------------------------------------------------- time


@pytest.mark.slow
def test_waiting_for_the_video_of_another_thread_counts_as_time(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=4))
    decode_video(path, [0], isolate=True)  # the child is running
    entered, leave = threading.Event(), threading.Event()

    def hold(metadata: Any) -> list[int]:
        entered.set()
        leave.wait(30)
        return [0]

    thread = threading.Thread(target=decode_video, args=(path, hold), kwargs={"isolate": True})
    thread.start()
    try:
        assert entered.wait(30)
        for read in (lambda: decode_video(path, [0], isolate=True, timeout=0.3), lambda: _probe(path, 0.3)):
            started = time.monotonic()
            with pytest.raises(VideoDecodingError, match="another thread") as caught:
                read()
            assert caught.value.kind == "timeout"
            assert time.monotonic() - started < 5
    finally:
        leave.set()
        thread.join()
    assert len(decode_video(path, [0], isolate=True).frames) == 1


def _probe(path: Path, timeout: float) -> Any:
    return probe_video(path, isolate=True, timeout=timeout, limits=VideoLimits())
