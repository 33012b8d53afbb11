"""Plans say what the data is, and refuse what training refuses."""

import pytest
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.planning import plan_run
from tests.clips import moving_square_clip, write_clip


TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TINY |= {"image_size": 32, "num_frames": 4}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("plans")
    for name, count in (("left", 5), ("right", 10)):
        for number in range(count):
            write_clip(root / "labelled" / name / f"{number}.mp4", moving_square_clip(name, num_frames=6, seed=number))
    for number in range(5):
        write_clip(root / "flat" / f"{number}.mp4", moving_square_clip(num_frames=6, seed=number))
        write_clip(root / "outer" / "a" / f"{number % 2}" / f"{number}.mp4", moving_square_clip(num_frames=6))
    (root / "labelled" / "up").mkdir()
    (root / "unlabelled.csv").write_text("video\n" + "".join(f"flat/{number}.mp4\n" for number in range(5)))
    (root / "one.csv").write_text("video,label\n" + "".join(f"flat/{number}.mp4,run\n" for number in range(5)))
    (root / "blank.csv").write_text("video,label\nflat/0.mp4,run\nflat/1.mp4,\nflat/2.mp4,jump\n")
    return root


def config_of(root, data, **fields):
    place = {"data": str(root / data), "output_dir": str(root / "out")}
    return RunConfig.from_fields(config=TINY, num_workers=0, max_steps=1, **place, **fields)


def shown(plan):
    return dict(row for row in plan.rows() if row[0] != "note"), [text for name, text in plan.rows() if name == "note"]


def test_plan_shows_classes_counts_and_what_is_left_out(clips):
    plan = plan_run(config_of(clips, "labelled"))
    assert plan.data.classes == {"left": (4, 1), "right": (8, 2)}
    rows, notes = shown(plan)
    assert rows["splits"] == "none"
    assert rows["training clips"] == "12"
    assert rows["evaluation clips"] == "3 held out of the training clips (`holdout` 0.2)"
    assert rows["classes"] == "2"
    assert rows["  right"] == "8 to train on, 2 to evaluate on"
    assert notes == ["Folders without videos are no classes and are left out: 'up'"]


def test_plan_shows_rows_without_labels_and_pretraining_without_classes(clips):
    assert (
        "1 rows have no label in column 'label' and are left out: rows 2"
        in plan_run(config_of(clips, "blank.csv")).data.remarks
    )
    rows, _ = shown(plan_run(config_of(clips, "flat"), "encoder"))
    assert rows["classes"] == "none: the clips have no labels"
    assert rows["evaluation clips"].startswith("1 held out")
    rows, _ = shown(
        plan_run(config_of(clips, "labelled", eval_data=str(clips / "labelled" / "left"), holdout=0.0), "encoder")
    )
    assert rows["evaluation clips"] == f"5 from {clips / 'labelled' / 'left'}"


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        ("flat", {}, "flat' has no labels: put the videos into a folder for each class"),
        ("unlabelled.csv", {}, "unlabelled.csv' has no labels"),
        ("one.csv", {}, r"`data` must have at least two labels for classification, got \['run'\]"),
        (
            "outer",
            {},
            r"got \['a'\] \(Videos in subfolders have the class of the outermost folder: 'a' \('0', '1'\)\)",
        ),
        ("labelled", {"eval_data": "unlabelled.csv"}, "`eval_data` .*unlabelled.csv' has no labels"),
        ("labelled", {"eval_data": "one.csv"}, "one.csv' have labels that the training clips lack: 'run'"),
    ],
)
def test_plans_and_runs_refuse_the_same_data(clips, data, fields, message):
    config = config_of(clips, data, **{name: str(clips / value) for name, value in fields.items()})
    for start in (plan_run, finetune):
        with pytest.raises(ValueError, match=message):
            start(config)


def test_probes_without_labels_are_refused_by_the_plan(clips):
    with pytest.raises(ValueError, match=r"`probe` \['knn'\] needs labelled training and evaluation clips"):
        plan_run(config_of(clips, "flat", probe=["knn"]), "encoder")


def test_commands_do_not_pass_over_missing_labels(clips, tmp_path):
    model = tmp_path / "model"
    finetune(config_of(clips, "labelled")).model.save_pretrained(model)
    (clips / "out" / "video_preprocessor_config.json").rename(model / "video_preprocessor_config.json")
    for words in (["evaluate", "--model", str(model)], ["probe", str(model)]):
        for data in ("flat", "unlabelled.csv"):
            done = CliRunner().invoke(app, [*words, "--data", str(clips / data)])
            assert done.exit_code == 2
            assert "has no labels" in done.stderr
