"""An index of videos: kept up to date, searched by an example, and a page that plays what is found."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_videovit import get_video_features
from hf_videovit.cli import app
from hf_videovit.inference import search
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier, tiny_classifier, tiny_processor


pytest.importorskip("faiss", reason="hf_videovit[search] is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier"))


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("right", "up", "left")):
        write_clip(tmp_path / "clips" / f"{name}.mp4", moving_square_clip(name, num_frames=10, seed=number))
    frames = tmp_path / "clips" / "frames"
    frames.mkdir()
    for number, frame in enumerate(moving_square_clip("down", num_frames=10, seed=9)):
        Image.fromarray(frame).save(frames / f"{number}.png")
    return tmp_path / "clips"


def run(*words, code=0):
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done


def names(paths):
    return sorted(os.path.basename(path) for path in paths)


def test_the_index_follows_the_folder(model, folder, tmp_path, monkeypatch):
    words = ["index", folder, "--output", tmp_path / "index", "--model", model, "--device", "cpu", "--json"]
    changes = json.loads(run(*words).stdout)
    assert names(changes["added"]) == ["frames", "left.mp4", "right.mp4", "up.mp4"]
    embedded = []
    original = search.iter_video_features
    monkeypatch.setattr(
        search,
        "iter_video_features",
        lambda model, processor, videos, **options: (
            embedded.extend(videos) or original(model, processor, videos, **options)
        ),
    )
    assert names(json.loads(run(*words).stdout)["kept"]) == names(changes["added"]) and not embedded
    write_clip(folder / "new.mp4", moving_square_clip(num_frames=10, seed=5))
    write_clip(folder / "up.mp4", moving_square_clip(num_frames=10, seed=6))
    (folder / "left.mp4").unlink()
    (folder / "broken.mp4").write_bytes(b"no video")
    changes = json.loads(run(*words, code=1).stdout)
    assert names(embedded) == ["broken.mp4", "new.mp4", "up.mp4"]
    assert {name: names(changes[name]) for name in changes} == {
        "added": ["new.mp4"],
        "changed": ["up.mp4"],
        "removed": ["left.mp4"],
        "kept": ["frames", "right.mp4"],
        "failed": ["broken.mp4"],
    }
    table = search._read_table(tmp_path / "index").to_pydict()
    assert names(table["video"]) == ["frames", "new.mp4", "right.mp4", "up.mp4"]
    expected = get_video_features(tiny_classifier(), tiny_processor(), table["video"]).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(table["features"], expected, atol=1e-5)


def test_a_clip_finds_itself_first_and_scores_are_cosines(model, folder, tmp_path):
    run("index", folder, "-o", tmp_path / "index", "-m", model, "--device", "cpu")
    copy = shutil.copy(folder / "up.mp4", tmp_path / "example.mp4")
    done = run("search", tmp_path / "index", copy, "-k", 9, "--device", "cpu", "--json")
    hits = json.loads(done.stdout)
    assert len(hits) == 4 and hits[0]["video"] == str(folder / "up.mp4")
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    features = get_video_features(tiny_classifier(), tiny_processor(), [copy, *(hit["video"] for hit in hits)]).numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose([hit["score"] for hit in hits], features[1:] @ features[0], atol=1e-5)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert len(json.loads(run("search", tmp_path / "index", copy, "-k", 2, "--json").stdout)) == 2


def test_a_run_that_ends_early_keeps_what_it_made(model, folder, tmp_path, monkeypatch):
    def two_of_them(made, total):
        for count, features in enumerate(made):
            if count == 2:
                raise KeyboardInterrupt
            yield features

    videos = sorted(str(path) for path in folder.iterdir())
    options = {"name": model, "progress": two_of_them}
    with pytest.raises(KeyboardInterrupt):
        search.update_index(tiny_classifier(), tiny_processor(), videos, tmp_path / "index", **options)
    changes = search.update_index(tiny_classifier(), tiny_processor(), videos, tmp_path / "index", name=model)
    assert (len(changes.kept), len(changes.added)) == (2, 2)


def test_the_page_plays_files_and_holds_what_browsers_cannot_play(model, folder, tmp_path):
    run("index", folder, "-o", tmp_path / "index", "-m", model, "--device", "cpu")
    page = tmp_path / "found" / "hits.html"
    run("search", tmp_path / "index", folder / "frames", "--page", page)
    text = page.read_text(encoding="utf-8")
    sources = re.findall(r'<video src="([^"]+)"', text)
    assert len(sources) == 5
    assert sum(source.startswith("data:video/mp4;base64,") for source in sources) == 2  # the example and itself
    assert (folder / "up.mp4").as_uri() in sources
    assert "1. 1.000" in text and "<script" not in text
    run("search", tmp_path / "index", folder / "up.mp4", "--page", page)  # its own page is replaced
    (tmp_path / "mine.html").write_text("mine")
    for name, told in (("mine.html", "no earlier call wrote it"), ("x.txt", "must end in .html")):
        assert told in run("search", tmp_path / "index", folder / "up.mp4", "--page", tmp_path / name, code=2).stderr


def test_another_model_or_folder_is_refused(model, folder, tmp_path):
    run("index", folder / "up.mp4", "-o", tmp_path / "index", "-m", model)
    other = save_tiny_classifier(tmp_path / "other", seed=1)
    assert "which differ in weights" in run("index", folder, "-o", tmp_path / "index", "-m", other, code=2).stderr
    assert "other weights" in run("search", tmp_path / "index", folder / "up.mp4", "-m", other, code=2).stderr
    words = ["index", folder, "-o", tmp_path / "index", "-m", model, "--pooling", "mean"]
    assert "which differ in pooling" in run(*words, code=2).stderr
    assert "is no index" in run("search", folder, folder / "up.mp4", code=2).stderr
    with pytest.raises(ValueError, match=r"must have shape \(32,\), as in the index, got \(3,\)"):
        search.search_index(tmp_path / "index", np.ones(3))
    with pytest.raises(ValueError, match="on this machine, got 'http://x/a.mp4'"):
        search.update_index(tiny_classifier(), tiny_processor(), ["http://x/a.mp4"], tmp_path / "i", name=model)
