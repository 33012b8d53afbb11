"""Features by windows and timelines read videos as the processor says, and fetch each one once."""

import io
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_videovit import films, get_video_features
from hf_videovit.doctor import check_video
from hf_videovit.inference.explaining import explain_video
from hf_videovit.inference.streaming import FileSource
from hf_videovit.inference.timeline import scores_over_time
from hf_videovit.modeling import video_decoding, video_decoding_pyav
from hf_videovit.modeling.video_decoding import (
    VideoDecodingError,
    VideoLimits,
    decode_in_chunks,
    decode_video,
    probe_video,
)
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier, tiny_classifier, tiny_processor


MEDIA = Path(__file__).parents[1] / "media" / "odd"
DAMAGED = [
    "bad_zeroed_middle.mp4",
    "bad_truncated_faststart.mp4",
    "bad_truncated.webm",
    "bad_truncated.avi",
    "bad_bitflip_mdat.mp4",
    "bad_ts_dropped_packets.ts",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return str(write_clip(folder / "clip.mp4", moving_square_clip(num_frames=50, width=96)))


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks for each of the small clips here: 16 frames."""
    monkeypatch.setattr(films, "CHUNK_BYTES", 1)


@pytest.fixture
def served(clip, monkeypatch):
    """The clip's folder over HTTP on loopback, and how often each file was asked for."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked: Counter[str] = Counter()

    class Counting(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked[self.path] += 1
            super().do_GET()

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=Path(clip).parent)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/clip.mp4", asked
        http.shutdown()


def test_a_url_is_downloaded_once_for_all_windows(served, clip, small_chunks):
    url, asked = served
    expected = get_video_features(tiny_classifier(), tiny_processor(), clip, stride=4)[0]
    torch.testing.assert_close(get_video_features(tiny_classifier(), tiny_processor(), url, stride=4)[0], expected)
    assert asked == {"/clip.mp4": 1}
    assert not video_decoding_pyav._indices.keys() & {None}


def test_a_url_is_downloaded_once_for_a_timeline_an_explanation_and_a_check(served, tmp_path):
    url, asked = served
    classifier = pipeline("video-classification", model=str(save_tiny_classifier(tmp_path)))
    assert len(scores_over_time(classifier, url, num_windows=3)) == 3
    assert asked == {"/clip.mp4": 1}
    explain_video(classifier, url, steps=1)
    assert asked == {"/clip.mp4": 2}
    assert check_video(url).decoded_frames == 50
    assert asked == {"/clip.mp4": 3}


def test_a_file_that_cannot_be_wound_back_is_read_once(clip, small_chunks):
    class Stream(io.RawIOBase):
        def __init__(self):
            self.file = io.BytesIO(Path(clip).read_bytes())

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.file.readinto(buffer)

    expected = get_video_features(tiny_classifier(), tiny_processor(), clip, stride=4)[0]
    with Stream() as stream:
        found = get_video_features(tiny_classifier(), tiny_processor(), [stream], stride=4)[0]
    torch.testing.assert_close(found, expected)


def test_windows_are_decoded_in_a_child_process_where_the_processor_says_so(clip, small_chunks, monkeypatch):
    expected = get_video_features(tiny_classifier(), tiny_processor(), clip, stride=4)[0]
    monkeypatch.setattr(video_decoding, "PyAVReader", None)  # nothing is decoded here
    processor = tiny_processor(isolate_decoding=True)
    torch.testing.assert_close(get_video_features(tiny_classifier(), processor, clip, stride=4)[0], expected)


@pytest.mark.parametrize("limits", [VideoLimits(max_frames=10), VideoLimits(max_bytes=100)], ids=["frames", "bytes"])
def test_limits_of_the_processor_hold_wherever_it_reads(clip, limits, tmp_path):
    classifier = pipeline("video-classification", model=str(save_tiny_classifier(tmp_path)), device="cpu")
    processor = classifier.video_processor
    processor.decoding_limits = limits
    for read in (
        processor,
        classifier,
        lambda video: get_video_features(classifier.model, processor, video),
        lambda video: get_video_features(classifier.model, processor, video, stride=4),
        lambda video: scores_over_time(classifier, video),
        lambda video: explain_video(classifier, video, steps=1),
        lambda video: FileSource(video, processor),
    ):
        with pytest.raises(VideoDecodingError) as found:
            read(clip)
        assert found.value.kind == "limit"


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_videos_give_windows_as_the_policy_says(name, small_chunks):
    path, model = MEDIA / name, tiny_classifier()
    if name != "bad_truncated.webm":  # cut between two frames
        with pytest.raises(VideoDecodingError, match="damaged"):
            get_video_features(model, tiny_processor(), path, stride=8)
    whole = decode_video(path, policy="salvage").frames
    processor = tiny_processor(decoding_policy="salvage")
    windows = get_video_features(model, processor, path, stride=8)[0]
    torch.testing.assert_close(windows, get_video_features(model, tiny_processor(), whole, stride=8)[0])


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("name", [*DAMAGED, "gen_edit_list.mp4", "gen_vfr.mp4", "gen_rot90.mp4"])
def test_chunks_are_the_frames_of_the_whole_video(name, isolate):
    whole = decode_video(MEDIA / name, policy="salvage")
    chunks = list(decode_in_chunks(MEDIA / name, 1, policy="salvage", isolate=isolate))
    assert all(len(chunk.frames) == 16 for chunk in chunks[:-1])
    np.testing.assert_array_equal(np.concatenate([chunk.frames for chunk in chunks]), whole.frames)


# ---------------------------------------------------------------------- decoders of torchcodec


@pytest.fixture
def decoders(clip):
    """A decoder that `datasets` made, from a path and from bytes, and one that a user made."""
    try:
        from torchcodec.decoders import VideoDecoder

        VideoDecoder(clip)  # newer releases look for FFmpeg only now
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be used: {str(error).splitlines()[0]}")
    content = Path(clip).read_bytes()
    made = [VideoDecoder(clip), VideoDecoder(content), VideoDecoder(clip, dimension_order="NHWC")]
    made[0]._hf_encoded = {"path": clip, "bytes": None}
    made[1]._hf_encoded = {"path": None, "bytes": content}
    return [*made, VideoDecoder(clip)]


def test_decoders_are_videos_for_processor_features_and_windows(decoders, clip):
    model, processor = tiny_classifier(), tiny_processor(num_clips=2)
    views = processor(clip, return_tensors="pt")["pixel_values"]
    features = get_video_features(model, processor, clip)
    windows = get_video_features(model, processor, clip, stride=4)[0]
    for decoder in decoders:
        torch.testing.assert_close(processor(decoder, return_tensors="pt")["pixel_values"], views)
        torch.testing.assert_close(get_video_features(model, processor, decoder), features)
        torch.testing.assert_close(get_video_features(model, processor, decoder, stride=4)[0], windows)
        assert (probe_video(decoder).num_frames, probe_video(decoder).width) == (50, 96)
    torch.testing.assert_close(
        processor(decoders, return_tensors="pt")["pixel_values"], views.repeat(4, 1, 1, 1, 1, 1)
    )
    rows = [{"video": decoder, "label": 0} for decoder in decoders]
    torch.testing.assert_close(get_video_features(model, processor, rows), features.repeat(4, 1))


def test_decoders_and_rows_of_them_are_classified(decoders, clip, tmp_path):
    classifier = pipeline("video-classification", model=str(save_tiny_classifier(tmp_path)))
    expected = classifier(clip)
    for decoder in decoders:
        assert classifier(decoder) == classifier({"video": decoder}) == expected
    assert classifier(decoders) == [expected] * len(decoders)
    assert len(scores_over_time(classifier, decoders[-1], num_windows=3)) == 3


def test_a_decoder_without_its_file_cannot_be_isolated(decoders, clip):
    processor = tiny_processor(isolate_decoding=True)
    expected = processor(clip, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(processor(decoders[0], return_tensors="pt")["pixel_values"], expected)
    with pytest.raises(ValueError, match="decode=False"):
        processor(decoders[-1], return_tensors="pt")


@pytest.mark.parametrize("part", [{"start": 0.4, "end": 1.6}, {"start_frame": 10, "end_frame": 40}])
def test_windows_and_timelines_of_a_part_stay_inside_it(clip, part, small_chunks, tmp_path):
    model, source = tiny_classifier(), {"path": clip, **part}
    inside = decode_video(clip).frames[10:40]
    np.testing.assert_array_equal(np.concatenate([chunk.frames for chunk in decode_in_chunks(source, 1)]), inside)
    windows = get_video_features(model, tiny_processor(), source, stride=4)[0]
    torch.testing.assert_close(windows, get_video_features(model, tiny_processor(), inside, stride=4)[0])
    probe = probe_video(source)
    assert (probe.num_frames, len(probe.timestamps)) == (30, 30)
    assert probe.duration == pytest.approx(1.2)
    classifier = pipeline("video-classification", model=str(save_tiny_classifier(tmp_path)))
    spans = scores_over_time(classifier, source, num_windows=3)
    assert (spans[0].first, spans[-1].end) == (0, 30)
