"""Runs on folders of pictures: the same losses, scores and predictions as on files with the same frames."""

import json

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune
from tests.clips import STEPS, moving_square_clip


def write_exactly(path, frames, fps):
    """A file of exactly these frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same videos at 10 frames a second as files, as folders of pictures, and as folders without their rate."""
    root = tmp_path_factory.mktemp("forms")
    lines: dict[str, list[str]] = {"files": [], "folders": [], "rateless": []}
    for name in lines:
        (root / name).mkdir()
    for split, count in (("train", 3), ("val", 2)):
        for number, direction in enumerate(list(STEPS) * count):
            frames = moving_square_clip(
                direction, num_frames=16, height=32, width=32, seed=number + 50 * (split == "val")
            )
            name = f"{split}{number}"
            write_exactly(root / "files" / f"{name}.mkv", frames, 10)
            (root / "folders" / name).mkdir()
            for place, frame in enumerate(frames):
                Image.fromarray(frame).save(root / "folders" / name / f"{place}.png")
            (root / "rateless" / name).symlink_to(root / "folders" / name)
            for form, rate in (("files", ""), ("folders", "10"), ("rateless", "")):
                lines[form].append(f"{name},{direction},{split},{number % 3 / 10},1.5,{rate}")
    for form, rows in lines.items():
        (root / form / "list.csv").write_text("\n".join(["video,label,split,start,end,fps", *rows, ""]))
    return root


def trained(roots, form, fields, tmp_path):
    output = tmp_path / form
    finetune(RunConfig.from_fields(**fields | {"data": str(roots / form / "list.csv"), "output_dir": str(output)}))
    logged = map(json.loads, (output / "logs" / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in logged if "loss" in row]


def test_training_takes_the_frames_of_files(roots, tiny_fields, tmp_path):
    fields = tiny_fields | {"epochs": 1, "eval_every": 0}
    losses = {form: trained(roots, form, fields, tmp_path) for form in ("files", "folders", "rateless")}
    assert len(losses["files"]) == 3 and np.isfinite(losses["files"]).all()
    assert losses["folders"] == losses["files"]
    assert losses["rateless"] != losses["files"]  # at 25 frames a second the parts are others


def test_evaluation_and_predictions_are_those_of_files(roots, tiny_fields, tmp_path):
    trained(roots, "files", tiny_fields | {"epochs": 1, "eval_every": 0}, tmp_path)
    model, scores, labels = str(tmp_path / "files"), {}, {}
    for form in ("files", "folders"):
        rows = tmp_path / f"{form}.jsonl"
        words = ["evaluate", "--model", model, "--data", str(roots / form / "list.csv"), "--predictions", str(rows)]
        done = CliRunner().invoke(app, [*words, "--cpu", "--num-workers", "0", "--json"])
        assert done.exit_code == 0, done.stderr
        scores[form] = rows.read_text()
        video = roots / form / ("val3.mkv" if form == "files" else "val3")
        done = CliRunner().invoke(app, ["classify", str(video), "--model", model, "--device", "cpu", "--json"])
        assert done.exit_code == 0, done.stderr
        labels[form] = [(one["label"], one["score"]) for one in json.loads(done.stdout)[0]["predictions"]]
    assert scores["folders"] == scores["files"] and len(scores["files"].splitlines()) == 8
    assert labels["folders"] == labels["files"] and len(labels["files"]) > 1


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_picture_is_a_damaged_video(roots, tiny_fields, tmp_path, num_workers):
    root = tmp_path / "clips"
    for number, direction in enumerate(list(STEPS) * 2):
        folder = root / direction / f"clip{number}"
        folder.mkdir(parents=True)
        for place, frame in enumerate(moving_square_clip(direction, num_frames=8, height=32, width=32, seed=number)):
            Image.fromarray(frame).save(folder / f"{place}.png")
    for place in range(8):
        (root / "up" / "clip3" / f"{place}.png").write_bytes(b"no picture")
    fields = {"data": str(root), "holdout": 0, "epochs": 1, "bad_video_limit": 0.5, "num_workers": num_workers}
    finetune(RunConfig.from_fields(**tiny_fields | fields))
    (ledger,) = (tmp_path / "output" / "logs").glob("bad_videos*.jsonl")
    (row,) = map(json.loads, ledger.read_text().splitlines())
    assert row["id"] == "up/clip3" and "'0.png'" in row["reason"]
