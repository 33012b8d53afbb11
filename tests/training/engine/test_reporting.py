"""What a run tells: lines, trackers, the screen, curves."""

import io
import json
import os
import sys

import pytest
from accelerate import Accelerator
from rich.console import Console

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine.reporting import LiveTable, PlainLines, RunReport, curves_of, flat_values, make_screen
from tests.training.engine.test_loop import run


LINES = [
    {"step": 1, "epoch": 0, "loss": 2.0, "clips_per_second": 5.5, "bad_videos": 1},
    {"step": 1, "epoch": 0, "probe": {"knn": 0.25}},
    {"step": 2, "epoch": 1, "loss": float("nan"), "validation": {"top1": 0.5}},
]


def test_names_of_values():
    assert flat_values(LINES[2])["validation/top1"] == 0.5
    assert list(curves_of(LINES)) == [
        "train/loss",
        "train/clips_per_second",
        "train/bad_videos",
        "probe/knn",
        "validation/top1",
    ]
    assert curves_of(LINES)["train/loss"] == [(1, 2.0)]


def test_plain_lines_where_there_is_no_terminal():
    console = Console(file=io.StringIO())
    screen = make_screen(20, console)
    assert isinstance(screen, PlainLines)
    with screen.open(0):
        for line in LINES:
            screen.show(line)
            screen.advance(line["step"])
    assert console.file.getvalue().splitlines() == [
        "step 1/20  epoch 0  loss 2  clips per second 5.5  bad videos 1",
        "step 1/20  epoch 0  probe knn 0.25",
        "step 2/20  epoch 1  loss nan  validation top1 0.5",
    ]


def test_a_live_table_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    screen = make_screen(20, console)
    assert isinstance(screen, LiveTable)
    streams = sys.stdout, sys.stderr
    with screen.open(0):
        for line in LINES:
            screen.show(line)
            screen.advance(line["step"])
        child = os.fork()
        if child == 0:  # a decoding worker: writes where its parent wrote before
            os._exit(0 if (sys.stdout, sys.stderr) == streams else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert (sys.stdout, sys.stderr) == streams
    text = console.file.getvalue()
    for word in ("2/20", "validation top1", "probe knn", "0.25", "bad videos"):
        assert word in text
    assert screen.first["loss"] == "2"
    assert screen.latest["loss"] == "nan"


def test_a_run_without_a_terminal_says_how_it_goes(tmp_path, capsys):
    run(tmp_path, progress=True, epochs=1, log_every=3, validate=lambda model: {"top1": 0.5})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 3/6", "step 6/6", "step 6/6"]
    assert "loss" in lines[0]
    assert lines[2].endswith("validation top1 0.5")


def test_curves_are_drawn_at_the_end(tmp_path):
    run(tmp_path, curves=True, epochs=1)
    assert (tmp_path / "logs" / "curves.png").stat().st_size > 1000


def tensorboard_scalars(folder):
    """All that a viewer shows, by name: what a later file purges is gone."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_shows_one_run_although_it_was_taken_up_again(tmp_path):
    pytest.importorskip("tensorboard")
    fields = {"trackers": ["tensorboard"], "save_steps": 4, "epochs": 2}
    with pytest.raises(ZeroDivisionError):  # after step 6, two steps after the last checkpoint
        run(tmp_path, validate=lambda model: 1 / 0, **fields)
    result, _ = run(tmp_path, validate=lambda model: {"top1": 0.25}, resume=True, **fields)
    shown = tensorboard_scalars(tmp_path / "logs" / "hf_videovit")
    assert [step for step, _ in shown["train/loss"]] == list(range(1, 13))
    assert [value for _, value in shown["train/loss"]] == pytest.approx(
        [line["loss"] for line in result.history if "loss" in line]
    )
    assert shown["validation/top1"] == [(6, 0.25), (12, 0.25)]
    settings = next((tmp_path / "logs" / "hf_videovit").rglob("hparams.yml")).read_text()
    assert "optimization.batch_size: 4" in settings


def test_trackio_gets_the_run(tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    started, told, ended = [], [], []

    class Run:
        def log(self, values, step=None, **options):
            told.append((step, values))

        def finish(self):
            ended.append(True)

    monkeypatch.setattr(trackio, "init", lambda **options: started.append(options) or Run())
    monkeypatch.setattr(trackio, "config", {}, raising=False)
    monkeypatch.setattr(
        "accelerate.tracking.TrackioTracker.store_init_configuration", lambda self, values: started.append(values)
    )
    run(tmp_path / "out", epochs=1, trackers=["trackio"], tracker_project="mine")
    assert (started[0]["project"], started[0]["resume"]) == ("mine", "allow")
    assert started[0]["name"].startswith("out-")
    assert started[1]["optimization.batch_size"] == 4
    assert [step for step, _ in told] == list(range(1, 7))
    assert told[0][1]["train/learning_rate"] > 0
    assert ended == [True]
    run(tmp_path / "out", epochs=2, trackers=["trackio"], tracker_project="mine", resume=True)
    assert started[2]["name"] == started[0]["name"]
    assert len(started) == 3  # settings are told once


def test_a_tracker_that_is_not_there_is_an_error_and_ones_own_stay_open(tmp_path):
    with pytest.raises(ValueError, match="Unsupported logging capability: tensorbord"):
        run(tmp_path / "a", trackers=["tensorbord"])
    with pytest.raises(ValueError, match="`trackers` includes clearml, which is not installed"):
        run(tmp_path / "b", trackers=["clearml"])

    class Own:
        name = "own"

        def __init__(self):
            self.values = []

        def log(self, values, step=None, **options):
            self.values.append((step, values))

    accelerator, own = Accelerator(cpu=True), Own()
    accelerator.trackers = [own]
    report = RunReport(RunConfig.from_fields(output_dir=str(tmp_path), progress=False), accelerator, 5)
    with report.open(0):
        report.write({"step": 1, "epoch": 0, "loss": 0.5})
    assert accelerator.trackers == [own]
    assert own.values == [(1, {"epoch": 0, "train/loss": 0.5})]
    assert json.loads((tmp_path / "logs" / "metrics.jsonl").read_text())["loss"] == 0.5
