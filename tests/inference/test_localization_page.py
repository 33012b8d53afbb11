"""The command, the page and the documentation of temporal localisation."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from transformers import pipeline
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.hub.cards import write_model_card
from hf_videovit.inference.demo import build_demo, serve_demo
from hf_videovit.inference.temporal_localization import load_localizer
from hf_videovit.inference.video_scores import order_scores, read_scores, write_scores
from tests.card_rules import problems
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import LABELS, save_tiny_classifier, save_tiny_localizer
from tests.segments import assert_same_segments


ROOT = Path(__file__).parents[2]
TASK = "temporal-action-localization"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A localiser with its encoder; both apart; a film and its features."""
    path = tmp_path_factory.mktemp("film")
    save_tiny_localizer(path / "localizer")
    write_clip(path / "film.mp4", moving_square_clip(height=40, width=56, num_frames=120), fps=25)
    parts = load_localizer(path / "localizer")
    for name, model, processor in (
        ("encoder", parts["model"].encoder, parts["video_processor"]),
        ("features_localizer", parts["model"].localizer, parts["feature_extractor"]),
    ):
        model.save_pretrained(path / name)
        processor.save_pretrained(path / name)
    np.save(path / "film.npy", np.random.default_rng(0).normal(size=(59, 32)).astype(np.float32))
    return path


def run(*words):
    return CliRunner().invoke(app, ["localize", *map(str, words)])


def test_the_command_writes_all_three(folder, tmp_path):
    outputs = [tmp_path / f"out.{kind}" for kind in ("json", "csv", "png")]
    words = [word for path in outputs for word in ("--output", path)]
    result = run(folder / "film.mp4", "--model", folder / "localizer", "--top-k", 9, *words)
    assert result.exit_code == 0, result.output
    said = json.loads(outputs[0].read_text())["segments"]
    expected = pipeline(TASK, model=str(folder / "localizer"))(str(folder / "film.mp4"), top_k=9)
    assert said == expected and len(said) == 9
    rows = list(csv.DictReader(outputs[1].open()))
    assert [float(row["start"]) for row in rows] == pytest.approx([one["segment"]["start"] for one in said], abs=1e-3)
    assert {row["label"] for row in rows} <= set(LABELS)
    assert Image.open(outputs[2]).width == 1200


def test_the_command_joins_an_encoder_and_takes_features(folder, tmp_path):
    whole = run(folder / "film.mp4", "--model", folder / "localizer", "--batch-size", 3)
    apart = run(
        folder / "film.mp4",
        "--model",
        folder / "features_localizer",
        "--encoder",
        folder / "encoder",
        "--batch-size",
        3,
    )
    assert whole.exit_code == apart.exit_code == 0
    found, expected = (json.loads(one.stdout)["segments"] for one in (apart, whole))
    assert_same_segments(found, expected, seconds=1e-4)
    words = ["--model", folder / "features_localizer", "--fps", 25, "--output", tmp_path / "timeline.png"]
    result = run(folder / "film.npy", *words)
    assert result.exit_code == 0 and Image.open(tmp_path / "timeline.png").width == 1200


def test_names_from_a_classifier(folder, tmp_path):
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"results": {"film": [0.9, 0.1, 0.0]}, "classes": ["run", "jump", "rest"]}))
    result = run(folder / "film.mp4", "--model", folder / "localizer", "--scores", scores, "--threshold", 0)
    assert result.exit_code == 0, result.output
    assert {one["label"] for one in json.loads(result.stdout)["segments"]} == {"run", "jump"}
    scores.write_text(json.dumps({"results": {"other": [1.0]}}))
    result = run(folder / "film.mp4", "--model", folder / "localizer", "--scores", scores)
    assert result.exit_code == 2 and "no scores of 'film'" in result.output
    scores.write_text("[]")
    result = run(folder / "film.mp4", "--model", folder / "localizer", "--scores", scores)
    assert result.exit_code == 2 and "must be a JSON object with `results`" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("film.mp4", "--model", "localizer", "--output", "x.txt"), "must end in .json, .csv, .png"),
        (("film.mp4", "--model", "features_localizer"), "a localiser without an encoder"),
        (("film.npy", "--model", "features_localizer"), "`fps` is needed"),
        (("film.mp4", "--model", "localizer", "--encoder", "encoder"), "has its own"),
    ],
)
def test_the_command_refuses(folder, words, message, monkeypatch):
    monkeypatch.chdir(folder)
    result = run(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_the_page_shows_a_timeline_and_a_table(folder):
    page = build_demo(str(folder / "localizer"))
    try:
        client = Client(serve_demo(page, wait=False), verbose=False)
        picture, table = client.predict(handle_file(folder / "film.mp4"), 0.2, api_name="/localize")
        expected = pipeline(TASK, model=str(folder / "localizer"))(str(folder / "film.mp4"), threshold=0.2, top_k=20)
        assert table["headers"] == ["start", "end", "action", "score"]
        assert sorted(float(row[3]) for row in table["data"]) == pytest.approx(
            sorted(one["score"] for one in expected), abs=1e-4
        )
        starts = [float(row[0]) for row in table["data"]]
        assert starts == sorted(starts) and len(starts) > 0
        assert Image.open(picture).width == 1200
        with pytest.raises(AppError, match="No film"):
            client.predict(None, 0.2, api_name="/localize")
    finally:
        page.close()
    with pytest.raises(ValueError, match="must have an encoder"):
        build_demo(str(folder / "features_localizer"))


def test_the_card_says_how_to_use_a_localiser(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    whole = write_model_card(tmp_path / "localizer", summary="A test.").read_text(encoding="utf-8")
    assert problems(whole) == []
    assert 'pipeline("temporal-action-localization"' in whole and "VideoTemporalLocalizer" in whole
    assert "videomae_v2, " in whole and "windows of 4 frames, 2 apart" in whole
    apart = write_model_card(tmp_path / "features_localizer", summary="A test.").read_text(encoding="utf-8")
    assert problems(apart) == []
    assert 'np.load("film.npy")' in apart and "reads features, not frames" in apart


def test_scores_of_a_classifier_name_segments(folder, tmp_path):
    save_tiny_classifier(tmp_path / "classifier")
    for name in ("film", "other"):
        shutil.copy(folder / "film.mp4", tmp_path / f"{name}.mp4")
    names = [name.upper() for name in reversed(LABELS[:4])]
    annotations = [{"segment": [0.0, 1.0], "label": name, "label_id": index} for index, name in enumerate(names)]
    truth = {"database": {"film": {"subset": "test", "duration": 4.8, "fps": 25, "annotations": annotations}}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    words = ["scores", tmp_path / "film.mp4", tmp_path / "other.mp4", "--model", tmp_path / "classifier"]
    command = [*words, "--truth", tmp_path / "truth.json", "--num-clips", 2, "--output", tmp_path / "scores.json"]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    rows, classes = read_scores(tmp_path / "scores.json")
    classify = pipeline("video-classification", model=str(tmp_path / "classifier"))
    expected = {one["label"]: one["score"] for one in classify(str(tmp_path / "film.mp4"), top_k=None, num_clips=2)}
    assert classes == names and set(rows) == {"film", "other"}
    assert rows["film"] == pytest.approx([expected[label] for label in reversed(LABELS[:4])], abs=1e-6)
    words = [folder / "film.mp4", "--model", folder / "localizer", "--scores", tmp_path / "scores.json"]
    named = json.loads(run(*words, "--threshold", 0).stdout)["segments"]
    assert {one["label"] for one in named} == {names[index] for index in np.argsort(-rows["film"])[:2]}
    again = CliRunner().invoke(app, [str(word) for word in command])
    assert again.exit_code == 2 and "scores.json" in again.output


def test_classes_are_matched_by_name(tmp_path):
    scores = {"Long Jump": 0.7, "high-jump": 0.3}
    assert order_scores(scores, ["HighJump", "long_jump"]) == [0.3, 0.7]
    with pytest.raises(ValueError, match="1 of 2 are not, such as 'Diving'"):
        order_scores(scores, ["HighJump", "Diving"])
    with pytest.raises(ValueError, match="differ in spelling only"):
        order_scores({"a b": 0.1, "A_b": 0.9}, ["ab"])
    path = write_scores(tmp_path / "x.json", {"a": [0.1, 0.9]}, ["x", "y"])
    rows, names = read_scores(path)
    assert names == ["x", "y"] and rows["a"].tolist() == [0.1, 0.9]
    write_scores(path, {"a": [0.1, 0.9], "b": [0.2]}, ["x", "y"])
    with pytest.raises(ValueError, match=r"as many scores of each video as classes, got \[1, 2\]"):
        read_scores(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="must be a JSON object"):
        read_scores(path)
