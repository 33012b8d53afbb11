"""A model is scored on the clips that its training held out, wherever they are now."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.evaluation.receipts import reproduce
from hf_videovit.training.methods.choosing import finetune
from tests.clips import STEPS, moving_square_clip, write_clip


def write_clips(folder, count=5, first_seed=0):
    for label in STEPS:
        for index in range(count):
            frames = moving_square_clip(label, num_frames=12, height=32, width=32, seed=first_seed + index)
            write_clip(folder / label / f"{index}.mp4", frames)
    return folder


def evaluate(model, data, *words):
    """Result of `hf-videovit evaluate --json` and what it says besides."""
    words = ["evaluate", "--model", str(model), "--data", str(data), "--cpu", "--json", *map(str, words)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def train(tiny_fields):
    def train(data, **fields):
        short = {"epochs": 1, "eval_every": 0, "save_every": 0}
        return finetune(RunConfig.from_fields(**tiny_fields | {"data": str(data)} | short | fields)).output_dir

    return train


def results_of(model):
    return json.loads((model / "results.json").read_text())


@pytest.mark.parametrize("layout", ["classes", "train only", "list"])
def test_exactly_the_held_out_clips_are_scored_by_default(train, tmp_path, layout):
    data, fields = tmp_path / "clips", {}
    folder = write_clips(data / "train" if layout == "train only" else data)
    if layout == "list":
        rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(folder.rglob("*.mp4"))]
        data = tmp_path / "clips.csv"
        data.write_text("\n".join(["where,what", *rows]))
        fields = {"video_column": "where", "label_column": "what"}
    model = train(data, **fields)
    results = results_of(model)
    assert results["num_videos"] == len(results["held_out"]) == 4
    assert reproduce(model).confirmed
    scored, said = evaluate(model, data)
    assert scored["metrics"] == results["metrics"] and scored["manifest_sha256"] == results["manifest_sha256"]
    assert "scored on the 4 clips that training held out" in said
    split = ("--split", "train") if layout == "train only" else ()
    scored, said = evaluate(model, data, "--all-clips", *split)
    assert scored["num_videos"] == 20 and "16 of the 20 clips were trained on" in said


def test_a_moved_folder_and_new_clips_do_not_matter(train, tmp_path):
    model = train(write_clips(tmp_path / "clips"))
    shutil.move(tmp_path / "clips", tmp_path / "moved")
    write_clip(tmp_path / "moved" / "up" / "new.mp4", moving_square_clip("up", seed=9))
    done = reproduce(model, data=str(tmp_path / "moved"))
    assert done.confirmed and done.same_videos
    assert evaluate(model, tmp_path / "moved")[0]["metrics"] == results_of(model)["metrics"]


def test_clips_are_known_under_other_names(train, tmp_path):
    model = train(write_clips(tmp_path / "clips"))
    (tmp_path / "clips.csv").write_text(
        "video,label\n" + "".join(f"{path},{path.parent.name}\n" for path in (tmp_path / "clips").rglob("*.mp4"))
    )
    assert evaluate(model, tmp_path / "clips.csv")[0]["metrics"] == results_of(model)["metrics"]
    for path in list((tmp_path / "clips").rglob("*.mp4")):
        path.rename(path.with_name(f"renamed_{path.name}"))
    scored, said = evaluate(model, tmp_path / "clips")
    assert scored["metrics"] == results_of(model)["metrics"] and "scored on the 4 clips" in said
    assert "16 of the 20 clips were trained on" in evaluate(model, tmp_path / "clips", "--all-clips")[1]
    words = ["probe", model, "--data", tmp_path / "clips", "--eval-data", tmp_path / "clips", "--probe", "knn"]
    done = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])
    assert "the model was trained on 16 of the 20 evaluation clips" in done.stderr


def test_a_copy_of_a_held_out_clip_is_scored_once(train, tmp_path):
    model = train(write_clips(tmp_path / "clips"))
    name = next(iter(results_of(model)["held_out"]))
    shutil.copy(tmp_path / "clips" / name, (tmp_path / "clips" / name).with_name("0_copy.mp4"))
    done = reproduce(model)
    assert done.confirmed and done.same_videos


def test_parts_of_one_film_are_told_apart(train, tmp_path):
    film = write_clip(tmp_path / "film.mp4", moving_square_clip("up", num_frames=60, height=32, width=32), fps=10)
    rows = [f"{film.name},{('up', 'down')[number % 2]},{number / 2},{number / 2 + 0.5}\n" for number in range(10)]
    (tmp_path / "clips.csv").write_text("video,label,start,end\n" + "".join(rows))
    model = train(tmp_path / "clips.csv")
    assert reproduce(model).confirmed and len(set(results_of(model)["held_out"].values())) == 2
    assert "8 of the 10 clips were trained on" in evaluate(model, tmp_path / "clips.csv", "--all-clips")[1]


def test_other_clips_of_the_same_names_are_all_scored(train, tmp_path):
    model = train(write_clips(tmp_path / "clips"))
    scored, said = evaluate(model, write_clips(tmp_path / "other", first_seed=50))
    assert scored["num_videos"] == 20 and "clips" not in said


def test_a_folder_of_held_out_clips_alone(train, tmp_path):
    model = train(write_clips(tmp_path / "clips"))
    for name in results_of(model)["held_out"]:
        (tmp_path / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "clips" / name, tmp_path / "test" / name)
    scored, said = evaluate(model, tmp_path / "test")
    assert scored["metrics"] == results_of(model)["metrics"] and "clips" not in said


def test_held_out_clips_that_are_gone_make_another_claim(train, tmp_path):
    model = train(write_clips(tmp_path / "clips"))
    (tmp_path / "clips" / next(iter(results_of(model)["held_out"]))).unlink()
    assert evaluate(model, tmp_path / "clips")[0]["num_videos"] == 3
    assert reproduce(model).same_videos is False


def test_a_result_written_over_that_of_training_keeps_the_clips(train, tmp_path):
    model = train(write_clips(tmp_path / "clips"))
    claimed = results_of(model)
    for words, count in (((), 4), (("--all-clips",), 20), ((), 4)):
        evaluate(model, tmp_path / "clips", "--output", model / "results.json", *words)
        assert results_of(model)["num_videos"] == count
        assert results_of(model)["held_out"] == claimed["held_out"]
        done = reproduce(model)
        assert done.confirmed and done.same_videos and done.clips.trained_on == (16 if count == 20 else 0)
    assert results_of(model)["metrics"] == claimed["metrics"]


def test_a_training_split_is_said_to_be_one(train, clip_folder):
    model = train(clip_folder)
    assert "held_out" not in results_of(model)
    assert "clips" not in evaluate(model, clip_folder)[1]
    assert (
        "20 of the 20 clips were trained on, so the scores are too high"
        in evaluate(model, clip_folder, "--split", "train")[1]
    )
    assert "20 of the 20 clips were trained on" in evaluate(model, clip_folder / "train")[1]


@pytest.mark.parametrize("fields", [{"max_eval_samples": 3, "seed": 5}, {"eval_split": "val", "max_eval_samples": 3}])
@pytest.mark.parametrize("layout", ["classes", "splits"])
def test_a_choice_of_clips_is_repeated(train, clip_folder, tmp_path, layout, fields):
    if layout == "classes":
        fields = {name: value for name, value in fields.items() if name != "eval_split"}
    model = train(clip_folder if layout == "splits" else write_clips(tmp_path / "clips"), **fields)
    assert results_of(model)["num_videos"] == 3
    done = reproduce(model)
    assert done.confirmed and done.same_videos
