"""Videos that are encoded to be decoded fast: the same frames for the same seeds, and an index that is checked."""

import base64
import io
import json
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hf_videovit.modeling import video_decoding_index
from hf_videovit.modeling.frame_sampling import FRAME_SAMPLINGS
from hf_videovit.modeling.video_decoding import DEFAULT_LIMITS, decode_video, probe_video
from hf_videovit.modeling.video_decoding_index import STORED, stored_packets
from hf_videovit.modeling.video_decoding_pyav import PyAVReader
from hf_videovit.modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor
from hf_videovit.training.data.opening import open_source
from hf_videovit.training.preparing.encoding import EncodingSettings, encode_clip, to_yuv420
from hf_videovit.training.preparing.for_training import training_encoding
from hf_videovit.training.preparing.writing import prepare
from tests.clips import moving_square_clip, write_clip


MEDIA = Path(__file__).parents[2] / "media" / "odd"
SMALL = {"height": 32, "width": 32}
SETTINGS = EncodingSettings(short_side=48, crf=17, keyframe_every=24, reencode=True, references_every=4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> tuple[Path, Path]:
    """A clip and what it is prepared to."""
    folder = tmp_path_factory.mktemp("clips")
    original = write_clip(folder / "clip.mp4", moving_square_clip(num_frames=130, height=48, width=64, seed=2))
    encoded = encode_clip(original, SETTINGS)
    (folder / "prepared.mp4").write_bytes(encoded.content)
    return original, folder / "prepared.mp4"


def test_psnr_is_that_of_the_luma_of_all_frames(clips):
    original, _ = clips
    before = to_yuv420(decode_video(original, np.arange(130)).frames)[:, :48]
    for crf in (17, 35):
        encoded = encode_clip(original, replace(SETTINGS, crf=crf))
        with av.open(io.BytesIO(encoded.content)) as container:
            after = np.stack([frame.to_ndarray()[:48] for frame in container.decode(video=0)])
        error = np.square(before.astype(float) - after).mean()
        assert encoded.psnr == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)


def reader(video: Path | bytes) -> PyAVReader:
    file = io.BytesIO(video) if isinstance(video, bytes) else str(video)
    return PyAVReader(file, "clip", limits=DEFAULT_LIMITS)


def with_comment(path: Path, comment: str) -> bytes:
    file = io.BytesIO()
    with av.open(str(path)) as source, av.open(file, "w", format="mp4") as target:
        target.metadata["comment"] = comment
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()


def packed(facts: object) -> str:
    return STORED + base64.b64encode(zlib.compress(json.dumps(facts).encode())).decode()


@pytest.mark.parametrize("frame_sampling", FRAME_SAMPLINGS)
@pytest.mark.parametrize("sampling_mode", ["train", "validation", "test"])
def test_a_seed_draws_the_same_frames_as_of_the_original(clips, frame_sampling, sampling_mode):
    processor = VideoMAEV2VideoProcessor(
        num_frames=8, frame_sampling=frame_sampling, frame_stride=4, num_clips=2, sampling_mode=sampling_mode
    )
    before, after = (processor.load_clips(path, rng=np.random.default_rng(5)) for path in clips)
    assert before[1].frames_indices == after[1].frames_indices
    assert before[1].total_num_frames == after[1].total_num_frames and before[1].fps == after[1].fps
    error = (before[0].float() - after[0].float()).square().mean().item()
    assert 10 * np.log10(255**2 / error) > 36


@pytest.mark.parametrize("isolate", [False, True])
def test_any_frames_are_those_of_reading_through(clips, isolate):
    with av.open(str(clips[1])) as container:
        truth = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    generator = np.random.default_rng(0)
    for plan in [[129], [0], [3, 90], np.arange(130), *(generator.integers(0, 130, 7) for _ in range(8))]:
        decoded = decode_video(clips[1], plan, isolate=isolate)
        np.testing.assert_array_equal(decoded.frames, truth[plan])
    assert np.abs(decode_video(clips[0]).timestamps - decode_video(clips[1]).timestamps).max() < 1e-4


def test_the_stored_index_is_that_of_the_packets(clips):
    with reader(clips[1]) as stored:
        assert stored.index.stored and not stored._kept
        listed = PyAVReader(str(clips[1]), "clip", limits=DEFAULT_LIMITS, trust_stored=False)
        with listed:
            for name in ("num_frames", "keyframes", "fps", "duration", "size", "unit_prefix"):
                assert getattr(stored.index, name) == getattr(listed.index, name), name
            np.testing.assert_array_equal(stored.index.times, listed.index.times)
        reading = stored.read([50, 54, 58])
        assert not reading.problem and stored._left_out and min(stored._left_out) >= stored.index.times[48]


@pytest.mark.parametrize("rate", ["24000/1001", "60000/1001", "30000/1001", "15/2", "irregular"])
def test_the_rate_is_exactly_that_of_the_original(tmp_path, rate):
    frames = moving_square_clip(num_frames=48, height=48, width=64)
    steps = np.random.default_rng(0).choice([20, 33, 66, 200], 48)
    times = (np.cumsum(steps) - steps[0]).tolist() if rate == "irregular" else None
    original = tmp_path / "clip.mp4"
    with av.open(str(original), "w") as container:
        stream = container.add_stream("libx264", rate=25 if times else Fraction(rate))
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    before, after = probe_video(original), probe_video(encode_clip(original, SETTINGS).content)
    assert (after.num_frames, after.fps) == (before.num_frames, before.fps) == (48, before.fps)
    assert before.fps == (47_000 / times[-1] if times else float(Fraction(rate)))


@pytest.mark.parametrize(
    ("change", "trusted"),
    [
        ({"times": lambda times: [0, *[value + 1 for value in times[1:]]]}, True),
        ({"keyframes": lambda keyframes: [0, 7, 31, 60]}, True),
        ({"keyframes": lambda keyframes: [0]}, True),
        ({"times": lambda times: times[:-1]}, False),
        ({"times": lambda times: [0, -4, *times[2:]]}, False),
        ({"times": lambda times: "abc"}, False),
        ({"keyframes": lambda keyframes: [5, 24]}, False),
        ({"keyframes": lambda keyframes: [0, 4000]}, False),
        ({"last_duration": lambda value: None}, False),
        ({"fps": lambda value: None}, True),
        ({"fps": lambda value: 0}, False),
        ({"fps": lambda value: 1e400}, False),
        ({"fps": lambda value: "fast"}, False),
    ],
)
def test_a_wrong_index_gives_the_same_frames(clips, change, trusted):
    comment = av.open(str(clips[1])).metadata["comment"]
    facts = json.loads(zlib.decompress(base64.b64decode(comment.removeprefix(STORED))))
    content = with_comment(clips[1], packed({**facts, **{name: edit(facts[name]) for name, edit in change.items()}}))
    with reader(content) as opened:
        assert opened.index.stored == trusted
    truth = decode_video(clips[1]).frames
    if "times" not in change:
        assert probe_video(content).fps == 25
    for plan in ([70, 74, 78], [129], [2, 40, 120]):
        np.testing.assert_array_equal(decode_video(content, plan).frames, truth[plan])


@pytest.mark.parametrize("comment", ["", "a film", STORED, STORED + "?", packed([]), packed(3), packed({"times": 0})])
def test_comments_that_are_no_index(comment):
    assert stored_packets(comment, 10) is None


def test_a_stored_rate_that_the_times_do_not_give_is_not_used(clips):
    comment = av.open(str(clips[1])).metadata["comment"]
    facts = json.loads(zlib.decompress(base64.b64decode(comment.removeprefix(STORED))))
    assert facts["fps"] == 25
    content = with_comment(clips[1], packed({**facts, "fps": 24.0}))
    with reader(content) as opened:
        assert opened.index.stored and opened.index.fps == 25


def test_an_index_that_unpacks_to_too_much_is_left_alone(monkeypatch):
    comment = packed({"times": [1] * 10_000, "keyframes": [0], "last_duration": 1})
    found = stored_packets(comment, 10_000)
    assert found is not None and found.count == 10_000
    monkeypatch.setattr(video_decoding_index, "MOST_UNPACKED", 10_000)
    assert stored_packets(comment, 10_000) is None


@pytest.mark.parametrize("name", ["gen_vfr.mp4", "gen_rot90.mp4", "gen_mpeg4.avi", "gen_anim.gif", "gen_odd_dims.avi"])
def test_odd_videos_keep_their_frames_and_times(name):
    before, written = probe_video(MEDIA / name), encode_clip(MEDIA / name, SETTINGS)
    with reader(written.content) as opened:
        assert opened.index.stored and opened.num_frames == before.num_frames
    assert (written.probe.height > written.probe.width) == (before.height > before.width)
    if before.timestamps is not None:
        times = [one.timestamps - one.timestamps[0] for one in (before, written.probe)]
        np.testing.assert_allclose(*times, atol=1e-4)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_the_shortest_videos(tmp_path, num_frames):
    path = write_clip(tmp_path / "short.mp4", moving_square_clip(num_frames=num_frames, height=32, width=32))
    assert len(decode_video(encode_clip(path, SETTINGS).content).frames) == num_frames


def test_the_folder_is_a_data_source_with_ids_and_labels(tmp_path):
    for index in range(4):
        frames = moving_square_clip(num_frames=30, height=32, width=48, seed=index)
        write_clip(tmp_path / "raw" / ("train", "val")[index // 2] / ("left", "right")[index % 2] / "a.mp4", frames)
    (tmp_path / "raw" / "train" / "left" / "broken.mp4").write_bytes(b"no video")
    before = {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*.mp4")}
    result = prepare(tmp_path / "raw", tmp_path / "out", format="folder", encoding=SETTINGS)
    assert result.videos == {"train": 2, "val": 2} and [row["kind"] for row in result.failures] == ["undecodable"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    named = {(row["split"], row["id"], row["label"]) for row in rows}
    parts = [path.relative_to(tmp_path / "raw").parts for path in before]
    assert named == {(split, f"{label}/{name}", label) for split, label, name in parts}
    for split in ("train", "val"):
        source = open_source(tmp_path / "out", split)
        assert sorted(source.label_names[one.label] for one in source) == ["left", "right"]
        for sample in source:
            with reader(Path(sample.video)) as opened:
                assert opened.index.stored and opened.num_frames == 30
    assert {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*.mp4")} == before
    summary = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert summary["encoding"]["references_every"] == 4


@pytest.mark.parametrize(
    ("fields", "sides", "expected"),
    [
        ({"frame_sampling": "dense", "frame_stride": 4}, (), (256, 4)),
        ({"frame_sampling": "dense", "frame_stride": 1}, (), (256, 1)),
        ({"frame_sampling": "dense_cyclic", "frame_stride": 3}, (), (256, 2)),
        ({"frame_sampling": "span", "frame_stride": 16}, (256, 320), (320, 8)),
        ({"frame_sampling": "segment", "crop_size": SMALL, "size": {"shortest_edge": 32}}, (), (38, 4)),
        ({"frame_sampling": "uniform", "size": {"height": 300, "width": 310}}, (), (300, 4)),
    ],
)
def test_the_settings_follow_the_run(fields, sides, expected):
    settings = training_encoding(VideoMAEV2VideoProcessor(**fields), sides)
    assert (settings.short_side, settings.references_every) == expected and settings.reencode
    assert training_encoding(VideoMAEV2VideoProcessor(**fields), crf=30).crf == 30


@pytest.mark.parametrize("value", [0, 17])
def test_distances_that_are_not_allowed(value):
    with pytest.raises(ValueError, match="`references_every` must be between 1 and 16"):
        EncodingSettings(references_every=value)
