"""Frames that no other frame needs are not decoded unless they are wanted, and all wanted frames stay the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hf_videovit.modeling import video_decoding_pyav
from hf_videovit.modeling.video_decoding import VideoDecodingError, VideoLimits, decode_video
from hf_videovit.modeling.video_decoding_pyav import PyAVReader

from ..clips import moving_square_clip


NUM_FRAMES = 90
X264 = {"g": "250", "bf": "3", "crf": "24", "preset": "fast"}
STREAMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "one group": ("libx264", ".mp4", X264 | {"x264-params": "b-pyramid=none:b-adapt=0:scenecut=0"}),
    "pyramid": ("libx264", ".mp4", X264 | {"bf": "7", "x264-params": "b-pyramid=normal:b-adapt=0:scenecut=0"}),
    "open groups": ("libx264", ".mp4", X264 | {"g": "20", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}),
    "matroska": ("libx264", ".mkv", X264 | {"g": "30"}),
    "flash": ("libx264", ".flv", X264 | {"g": "30"}),
    "weighted": ("libx264", ".mp4", X264 | {"x264-params": "weightp=2:weightb=1:direct=temporal:b-adapt=0"}),
    "hevc": ("libx265", ".mp4", {"x265-params": "log-level=none:keyint=40:bframes=4:b-adapt=0", "preset": "fast"}),
}


def write(path: Path, codec: str, options: dict[str, str], num_frames: int = NUM_FRAMES) -> Path:
    frames = moving_square_clip("right", num_frames=num_frames, height=48, width=64, seed=3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.options = 48, 64, "yuv420p", options
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def reading_through(path: Path) -> np.ndarray:
    """All frames, by a decoder that leaves nothing out."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def decoded_when(path: Path, positions: list[int]) -> tuple[int, Any]:
    """How many frames come out of the decoder for some, and the reading."""
    with PyAVReader(str(path), path.name, limits=VideoLimits()) as reader:
        count, decode = [0], reader._decode

        def counting() -> Any:
            for frame in decode():
                count[0] += 1
                yield frame

        reader._decode = counting  # type: ignore[method-assign]
        reading = reader.read(positions)
    return count[0], reading


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Callable[[str], Path]:
    written: dict[str, Path] = {}

    def made(name: str) -> Path:
        if name not in written:
            codec, suffix, options = STREAMS[name]
            if codec not in av.codecs_available:
                pytest.skip(f"this PyAV has no {codec}")
            written[name] = write(tmp_path_factory.mktemp("streams") / f"clip{suffix}", codec, options)
        return written[name]

    return made


@pytest.mark.parametrize("kept_bytes", [2**26, 0], ids=["packets kept", "file sought"])
@pytest.mark.parametrize("name", STREAMS)
def test_the_frames_are_those_of_reading_through(stream, name, kept_bytes, monkeypatch):
    monkeypatch.setattr(video_decoding_pyav, "KEPT_BYTES", kept_bytes)
    path = stream(name)
    truth = reading_through(path)
    generator = np.random.default_rng(1)
    plans = [np.arange(start, NUM_FRAMES, step) for start in range(4) for step in (3, 4, 16)]
    plans += [np.sort(generator.choice(NUM_FRAMES, size, replace=False)) for size in (1, 2, 8)]
    for plan in [*plans, np.arange(NUM_FRAMES), np.array([NUM_FRAMES - 1])]:
        np.testing.assert_array_equal(decode_video(path, plan).frames, truth[plan])


@pytest.mark.parametrize("name", STREAMS)
def test_fewer_frames_are_decoded(stream, name):
    wanted = list(range(1, NUM_FRAMES, 16))
    count, reading = decoded_when(stream(name), wanted)
    assert not reading.problem and len(reading.frames) == len(wanted)
    assert count < 0.75 * wanted[-1]


def test_nothing_is_left_out_of_fields(tmp_path):
    """A packet may hold half a frame."""
    options = X264 | {"x264-params": "tff=1:b-adapt=0", "flags": "+ildct+ilme"}
    path = write(tmp_path / "fields.mp4", "libx264", options, 40)
    with PyAVReader(str(path), "fields", limits=VideoLimits()) as reader:
        assert reader.index.unit_prefix == 0


def test_damage_in_a_frame_that_is_left_out_is_met_by_those_who_want_it(tmp_path):
    codec, suffix, options = STREAMS["one group"]
    path = write(tmp_path / f"clip{suffix}", codec, options)
    truth = reading_through(path)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        free = next(packet for packet in packets[10:] if not bytes(packet)[4] & 0x60)
        place = bytes(path.read_bytes()).index(bytes(free))
        step = packets[1].duration
        number = round(free.pts / step) - round(min(packet.pts for packet in packets) / step)
    content = bytearray(path.read_bytes())
    content[place + 5 : place + len(bytes(free))] = bytes([0xFF]) * (len(bytes(free)) - 5)
    path.write_bytes(content)
    others = [number - 1, number + 1]
    np.testing.assert_array_equal(decode_video(path, others).frames, truth[others])
    with pytest.raises(VideoDecodingError, match="damaged"):
        decode_video(path, [number])
