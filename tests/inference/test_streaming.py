"""Streams: the answers of windows, one by one, and a source that does not wait."""

import json
import time

import numpy as np
import pytest
import torch
from transformers import pipeline
from typer.testing import CliRunner

from hf_videovit import VideoMAEV2VideoProcessor
from hf_videovit.cli import app
from hf_videovit.inference.streaming import (
    FileSource,
    LiveSource,
    StreamingClassifier,
    in_real_time,
    is_live,
    latency_summary,
)
from hf_videovit.inference.timeline import load_views, score_views
from hf_videovit.modeling.video_decoding_types import VideoDecodingError
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES
from tests.saved_model import save_tiny_classifier


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return str(write_clip(path, moving_square_clip(height=40, width=56, num_frames=40), fps=10))


def tiny_pipeline(folder, **processor):
    return pipeline("video-classification", model=str(save_tiny_classifier(folder, **processor)))


def family_pipeline(family, folder):
    head = next(head for head in family.heads if head.auto_class.__name__ == "AutoModelForVideoClassification")
    torch.manual_seed(0)
    head.model_class(family.config(**head.fields)).save_pretrained(folder)
    family.processor_class(**{**family.processor, "num_clips": 2, "num_crops": 3}).save_pretrained(folder)
    return pipeline("video-classification", model=str(folder))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_answer_is_that_of_the_window_as_a_video(family, film, tmp_path):
    classifier = family_pipeline(family, tmp_path)
    stream = StreamingClassifier(classifier, fps=10.0, seconds=1.6, every=7, top_k=100)
    answers = list(stream.classify(FileSource(film, classifier.video_processor)))
    assert [one.frame for one in answers] == [15, 22, 29, 36]
    for answer in answers:
        assert answer.seconds == pytest.approx(answer.frame / 10)
        window = (answer.frame - 15, answer.frame + 1)
        expected = score_views(classifier, load_views(classifier.video_processor, film, window).pixel_values)
        found = {one["label"]: one["score"] for one in answer.predictions}
        assert found == pytest.approx(expected, abs=1e-6)


def test_each_frame_is_processed_once(film, tmp_path, monkeypatch):
    classifier = tiny_pipeline(tmp_path, frame_stride=2)
    stream = StreamingClassifier(classifier, fps=10.0, every=2)
    assert stream.window == 7  # 4 frames, 2 apart
    processed = []
    real = type(classifier.video_processor).preprocess
    monkeypatch.setattr(
        type(classifier.video_processor),
        "preprocess",
        lambda self, videos, **options: processed.append(1) or real(self, videos, **options),
    )
    answers = list(stream.classify(FileSource(film, VideoMAEV2VideoProcessor())))
    assert len(answers) == 17  # at frames 6, 8, ..., 38
    assert len(processed) == 20  # frames 0, 2, ..., 38, not 4 for each answer


def test_a_stream_shorter_than_a_window_has_one_answer(tmp_path):
    classifier = tiny_pipeline(tmp_path)
    stream = StreamingClassifier(classifier, fps=10.0, seconds=2.0)
    frames = moving_square_clip(height=40, width=56, num_frames=5)
    assert [stream.push(frame) for frame in frames] == [None] * 5
    assert stream.finish().frame == 4
    assert stream.finish() is None
    assert StreamingClassifier(classifier, fps=10.0).finish() is None


def test_the_default_window_is_a_clip_of_the_protocol(tmp_path):
    dense = tiny_pipeline(tmp_path / "dense", frame_stride=3)
    assert StreamingClassifier(dense, fps=25.0).window == 10
    spread = tiny_pipeline(tmp_path / "spread", frame_sampling="segment")
    assert StreamingClassifier(spread, fps=25.0).window == 50
    assert StreamingClassifier(spread, fps=1.0).window == 4  # no fewer than the frames of a clip


@pytest.mark.slow
def test_a_slow_model_skips_windows_and_stays_up_to_date(film, tmp_path, monkeypatch):
    classifier = tiny_pipeline(tmp_path)
    real = classifier.forward

    def slow(inputs):
        time.sleep(0.35)
        return real(inputs)

    monkeypatch.setattr(classifier, "forward", slow)
    stream = StreamingClassifier(classifier, fps=10.0, seconds=0.4, every=1)
    answers = list(stream.follow(in_real_time(FileSource(film, VideoMAEV2VideoProcessor()))))
    frames = [one.frame for one in answers]
    assert frames == sorted(set(frames)) and frames[-1] == 39  # the last window is answered
    assert answers[-1].skipped == 37 - len(answers) > 15
    assert max(one.latency for one in answers) < 4  # a queue would be 9 s behind at the end
    assert "windows skipped" in latency_summary(answers)


def test_errors_of_a_stream_reach_its_user(tmp_path):
    classifier = tiny_pipeline(tmp_path)

    def broken():
        for index, frame in enumerate(moving_square_clip(height=40, width=56, num_frames=5)):
            yield index / 10, frame
        raise OSError("unplugged")

    answers = StreamingClassifier(classifier, fps=10.0, seconds=0.4).follow(broken())
    assert next(answers).frame == 4
    with pytest.raises(OSError, match="unplugged"):
        next(answers)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"fps": 0.0}, "fps"), ({"every": 0}, "every"), ({"seconds": -1.0}, "seconds"), ({"top_k": 0}, "top_k")],
)
def test_wrong_arguments_are_named(tmp_path, options, name):
    classifier = tiny_pipeline(tmp_path)
    with pytest.raises(ValueError, match=f"`{name}` must be above 0"):
        StreamingClassifier(classifier, **{"fps": 10.0, **options})
    stream = StreamingClassifier(classifier, fps=10.0)
    for frame in (np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(ValueError, match="`frame` must be"):
            stream.push(frame)


def test_live_sources(film):
    assert is_live("rtsp://camera/1") and is_live("camera:0") and not is_live("film.mp4")
    source = LiveSource(film)
    found = list(source)
    assert source.fps == 10 and len(found) == 40 and found[7][0] == pytest.approx(0.7)
    assert np.abs(found[7][1].astype(int) - next(iter(FileSource(film, VideoMAEV2VideoProcessor())))[1]).mean() > 1
    expected = [frame for _, frame in FileSource(film, VideoMAEV2VideoProcessor())][7]
    assert np.abs(found[7][1].astype(int) - expected).mean() < 3
    for missing in ("rtsp://127.0.0.1:9/none", "camera:99"):
        with pytest.raises(VideoDecodingError, match="cannot be opened"):
            LiveSource(missing, timeout=2.0)


def test_the_command_watches(film, tmp_path):
    model = save_tiny_classifier(tmp_path / "model")
    words = ["watch", film, "--model", str(model), "--seconds", "1", "--every", "10"]
    result = CliRunner().invoke(app, [*words, "--json", "--top-k", "2"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["frame"] for row in rows] == [9, 19, 29, 39] and len(rows[0]["predictions"]) == 2
    assert "4 answers, 0 windows skipped" in result.stderr
    gone = CliRunner().invoke(app, ["watch", "gone.mp4", "--model", str(model)])
    assert gone.exit_code == 2 and "gone.mp4" in gone.output


@pytest.mark.slow
def test_the_command_plays_a_film(film, tmp_path):
    model = save_tiny_classifier(tmp_path / "model")
    start = time.perf_counter()
    result = CliRunner().invoke(app, ["watch", film, "--model", str(model), "--seconds", "1", "--live"])
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].split()[:2] == ["3.90", "s"]
    assert time.perf_counter() - start > 3.8
