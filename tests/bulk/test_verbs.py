"""Commands with an engine give what they give without one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

from hf_videovit.bulk.parts import LEDGER_FILE, read_rows
from hf_videovit.cli import app
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import LABELS, save_tiny_classifier, save_tiny_detector, save_tiny_localizer


ENGINES = ["local", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Clips of six classes, two of them damaged."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate(LABELS):
        write_clip(folder / name / f"{name}.mp4", moving_square_clip("right", seed=seed))
    (folder / LABELS[0] / "empty.mp4").write_bytes(b"")
    whole = (folder / LABELS[1] / f"{LABELS[1]}.mp4").read_bytes()
    (folder / LABELS[1] / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code in (0, 1), result.stderr
    return json.loads(result.stdout)


def bad_names(folder):
    lines = (Path(folder) / LEDGER_FILE).read_text().splitlines()
    return sorted(Path(json.loads(line)["id"]).name for line in lines)


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_embed(model, videos, tmp_path, engine):
    run("embed", videos, "--model", model, "--output", tmp_path / "plain.safetensors", "--device", "cpu")
    options = ("--model", model, "--output", tmp_path / "bulk", "--device", "cpu", "--engine", engine)
    facts = run_json("embed", videos, *options)
    expected = load_file(tmp_path / "plain.safetensors")
    found = {row["id"]: np.array(row["features"], np.float32) for row in read_rows(tmp_path / "bulk")}
    assert found.keys() == expected.keys() and len(found) == 6
    for name, features in expected.items():
        np.testing.assert_array_equal(found[name], features)
    assert facts["rows"] == 6 and len(facts["failed"]) == 2
    assert bad_names(tmp_path / "bulk") == ["cut.mp4", "empty.mp4"]
    again = run_json("embed", videos, *options[:-1], "local")  # what one engine wrote, another does not do again
    assert (again["rows"], again["rows_kept"]) == (6, 6)


def test_embed_windows(model, videos, tmp_path):
    windows = ("--model", model, "--stride", 4, "--pooling", "mean", "--device", "cpu")
    file = videos / LABELS[2]
    run("embed", file, *windows, "--output", tmp_path / "plain.safetensors")
    run("embed", file, *windows, "--output", tmp_path / "bulk", "--engine", "local")
    [row] = read_rows(tmp_path / "bulk")
    np.testing.assert_array_equal(
        np.array(row["features"], np.float32), load_file(tmp_path / "plain.safetensors")[row["id"]]
    )


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_classify(model, videos, tmp_path, engine):
    options = ("--model", model, "--device", "cpu", "--top-k", 3, "--num-clips", 2)
    plain = run_json("classify", videos, *options)
    run("classify", videos, *options, "--output", tmp_path / "bulk", "--engine", engine)
    found = {row["id"]: row["predictions"] for row in read_rows(tmp_path / "bulk")}
    assert found == {row["file"]: row["predictions"] for row in plain if "error" not in row}
    assert bad_names(tmp_path / "bulk") == ["cut.mp4", "empty.mp4"]


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_evaluate(model, videos, tmp_path, engine):
    plain = run_json("evaluate", "--model", model, "--data", videos, "--cpu")
    output = tmp_path / "results.json"
    options = ("--model", model, "--data", videos, "--cpu", "--predictions", tmp_path / "rows", "--output", output)
    found = run_json("evaluate", *options, "--engine", engine)
    for name in ("metrics", "per_class", "num_videos", "num_failed", "protocol", "manifest_sha256"):
        assert found[name] == plain[name], name
    for name in ("id", "label", "reason", "kind"):
        assert [one[name] for one in found["failed"]] == [one[name] for one in plain["failed"]]
    assert json.loads(output.read_text())["metrics"] == plain["metrics"]


def test_evaluate_loads_the_model_once_on_this_machine(model, videos, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_videovit.cli.bulk.load_scorer", None)
    options = ("--model", model, "--data", videos, "--predictions", tmp_path / "rows")
    assert run_json("evaluate", *options, "--cpu", "--engine", "local")["num_videos"] == 6


def test_evaluate_on_a_device_of_other_machines(model, videos, tmp_path, monkeypatch):
    def reached(load, classifier, processor, source, folder, engine, **options):
        raise ValueError(f"reached with {classifier.device}, {engine.device} and {load.args[1]}")

    monkeypatch.setattr("hf_videovit.training.evaluation.bulk.evaluate_with_engine", reached)
    options = ("--model", model, "--data", videos, "--predictions", tmp_path / "rows", "--device", "cuda:7")
    result = run("evaluate", *options, "--engine", "ray")
    assert "reached with cpu, cuda:7 and cuda:7" in result.stderr


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_doctor(videos, tmp_path, engine):
    plain = run_json("doctor", videos)["videos"]
    run("doctor", videos, "--report", tmp_path / "bulk", "--engine", engine)
    found = {row.pop("id"): row for row in read_rows(tmp_path / "bulk")}
    assert found.keys() == {row["path"] for row in plain}
    for row in plain:
        assert {**found[row["path"]], "seconds": 0} == {**row, "seconds": 0}
    assert bad_names(tmp_path / "bulk") == ["cut.mp4", "empty.mp4"]


@pytest.mark.slow
def test_prepare_on_ray(cluster, videos, tmp_path):
    options = ("--clips-per-shard", 2, "--reencode", "--short-side", 32)
    run("prepare", videos, tmp_path / "plain", *options)
    result = run("prepare", videos, tmp_path / "ray", *options, "--engine", "ray")
    assert result.exit_code == 1  # the damaged ones
    files = {path.name for path in (tmp_path / "plain").iterdir() if not path.name.startswith(".")}
    assert len(files) == 7
    for name in files:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


def test_embed_from_shards(model, videos, tmp_path):
    """The videos of tars have the same features, under the names that they have there."""
    run("prepare", videos, tmp_path / "tars", "--clips-per-shard", 2)
    shards = [str(path) for path in sorted((tmp_path / "tars").glob("*.tar"))]
    run("embed", *shards, "--model", model, "--output", tmp_path / "a", "--device", "cpu", "--engine", "local")
    run("embed", videos, "--model", model, "--output", tmp_path / "b", "--device", "cpu", "--engine", "local")
    first, second = ([row["features"] for row in read_rows(tmp_path / name)] for name in "ab")
    assert len(first) == 6
    np.testing.assert_array_equal(sorted(first), sorted(second))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("classify", "{videos}", "--model", "{model}", "--engine", "local"), "--engine needs --output"),
        (("classify", "{videos}", "--model", "{model}", "--address", "auto"), "--address needs --engine ray"),
        (("classify", "{videos}", "--model", "{model}", "--output", "x"), "--output is the folder of --engine"),
        (("doctor", "{videos}", "--engine", "local"), "--engine needs --report"),
        (
            ("evaluate", "--model", "{model}", "--data", "{videos}", "--engine", "local"),
            "--engine needs --predictions",
        ),
        (
            ("embed", "{videos}", "--model", "{model}", "-o", "x.npy", "--engine", "local"),
            "--output x.npy cannot be given with --engine",
        ),
        (("embed", "{videos}", "--model", "{model}", "-o", "x", "--engine", "local", "--plan"), "--plan cannot be"),
    ],
)
def test_options_that_do_not_go_together(model, videos, words, message):
    result = run(*(word.format(model=model, videos=videos) for word in words))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_another_model_is_refused(model, videos, tmp_path):
    file = videos / LABELS[2]
    run("classify", file, "--model", model, "--output", tmp_path / "out", "--engine", "local")
    other = save_tiny_classifier(tmp_path / "other", seed=1)
    result = run("classify", file, "--model", other, "--output", tmp_path / "out", "--engine", "local")
    assert result.exit_code == 2 and "made in another way: model" in result.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [(["localize"], "a localiser"), (["detect-actions", "--detector", "any"], "an action detector")],
)
def test_a_model_of_another_kind_is_refused_before_it_is_loaded(model, videos, tmp_path, words, what):
    out = tmp_path / "out"
    result = run(words[0], videos, *words[1:], "--model", model, "--output", out, "--engine", "ray")
    assert result.exit_code == 2 and not out.exists()
    assert f"--model must be {what}, {model} is VideoMAEV2ForVideoClassification." in result.stderr


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_localize(videos, tmp_path, engine):
    model = save_tiny_localizer(tmp_path / "model")
    films = tmp_path / "films"
    films.mkdir()
    film = write_clip(films / "film.mp4", moving_square_clip("right", num_frames=40))
    (films / "empty.mp4").write_bytes(b"")
    options = ("--model", model, "--threshold", 0.0, "--top-k", 3, "--device", "cpu")
    plain = json.loads(run("localize", film, *options).stdout)["segments"]
    result = run("localize", films, *options, "--output", tmp_path / "bulk", "--engine", engine)
    assert result.exit_code == 1, result.stderr
    [row] = read_rows(tmp_path / "bulk")
    assert len(plain) == 3
    assert row == {"id": str(film), "segments": plain}
    assert bad_names(tmp_path / "bulk") == ["empty.mp4"]


def test_detect_actions(videos, tmp_path, monkeypatch):
    def one_person(images):
        return [(torch.tensor([[4.0, 4.0, 30.0, 30.0]]), torch.tensor([0.9])) for _ in images]

    # first the module that imports the name from the other, else it would keep the stand-in
    monkeypatch.setattr("hf_videovit.inference.action_detection.person_detector", lambda given, device: one_person)
    monkeypatch.setattr("hf_videovit.inference.people.person_detector", lambda name, device: one_person)
    model, film = save_tiny_detector(tmp_path / "model"), videos / LABELS[2] / f"{LABELS[2]}.mp4"
    options = ("--model", model, "--detector", "any", "--threshold", 0.2, "--top-k", 2, "--every", 0.3)
    plain = json.loads(run("detect-actions", film, *options, "--device", "cpu").stdout)["key_frames"]
    words = (*options, "--device", "cpu", "--output", tmp_path / "bulk", "--engine", "local")
    result = run("detect-actions", videos / LABELS[2], *words)
    assert result.exit_code == 0, result.stderr
    [row] = read_rows(tmp_path / "bulk")
    assert len(plain) > 1
    assert row == {"id": str(film), "key_frames": plain}
