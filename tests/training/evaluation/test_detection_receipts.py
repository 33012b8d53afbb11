"""Receipts of action detectors: what training and `evaluate` claim comes out again, and what was changed is named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.hub.cards import write_model_card
from hf_videovit.hub.publishing import eval_entries, public_results
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.key_frames import read_key_frames, write_key_frames
from hf_videovit.training.evaluation.receipts import reproduce
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.preparing.action_scenes import build_digit_scenes
from tests.card_rules import problems


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
FIELDS = {
    "method": "action_detection",
    "config": SIZES | {"image_size": [96, 128], "patch_size": 16, "num_frames": 4, "drop_path_rate": 0.0},
    "processor": {"frame_stride": 3, "size": {"shortest_edge": 96}},
    "cpu": True,
    "num_workers": 0,
    "progress": False,
    "curves": False,
    "batch_size": 4,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A detector with the results that its training wrote, and the scenes."""
    base = tmp_path_factory.mktemp("receipts")
    scenes = build_digit_scenes(base, num_train=3, num_val=4)
    people = [
        replace(row, scores=np.array([0.95, 0.9, 0.85, 0.3])) for row in read_key_frames(scenes / "val.jsonl").rows
    ]
    write_key_frames(base / "detected.jsonl", [replace(row, labels=((),) * 4) for row in people])
    own = {"data": str(scenes), "output_dir": str(base / "run"), "epochs": 1, "max_eval_samples": 3}
    detected = {"people": str(base / "detected.jsonl"), "data_root": str(scenes)}
    return finetune(RunConfig.from_fields(**FIELDS | own | detected)).output_dir, scenes


def copy_with(trained, target, **changes):
    """The model in another folder, with a changed claim."""
    shutil.copytree(trained[0], target)
    results = json.loads((target / "results.json").read_text())
    (target / "results.json").write_text(json.dumps(results | changes))
    return target


def test_what_training_claims_is_confirmed(trained):
    done = reproduce(trained[0], batch_size=2)
    assert done.confirmed and done.same_videos and not done.changed_protocol
    assert set(done.differences.values()) == {0.0} and set(done.claimed) == {"mAP"}
    assert [len(row.boxes) for row in done.result.rows] == [3, 3, 3]
    shown = CliRunner().invoke(app, ["reproduce", str(trained[0])])
    assert shown.exit_code == 0 and "not confirmed" not in shown.output and "confirmed" in shown.output


def test_what_evaluate_claims_is_confirmed(trained, tmp_path):
    model = copy_with(trained, tmp_path / "model")
    (model / "results.json").unlink()
    words = ["evaluate", "--model", str(model), "--task", "action-detection", "--boxes", "ground-truth"]
    words += ["--annotations", str(trained[1] / "val.jsonl"), "--output", str(model / "results.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "trained on" not in done.output
    assert reproduce(model).confirmed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metrics": {"mAP": 0.999}}, "-"),
        ({"manifest_sha256": "0" * 64}, "key-frames, labels or boxes differ"),
        ({"person_threshold": 0.88}, "boxes: detected people with a score of at least 0.8 then"),
        ({"people": None}, "ground truth: an upper bound now"),
        ({"max_samples": None}, "key-frames, labels or boxes differ"),
    ],
)
def test_a_changed_claim_is_told_apart(trained, tmp_path, change, expected):
    model = copy_with(trained, tmp_path / "model", **change)
    assert not reproduce(model).confirmed
    shown = CliRunner().invoke(app, ["reproduce", str(model)])
    assert shown.exit_code == 1 and "not confirmed" in shown.output
    assert expected in " ".join(shown.output.split())


@pytest.mark.parametrize("what", ["label", "box", "score"])
def test_other_annotations_or_boxes_are_not_those_of_the_claim(trained, tmp_path, what):
    scenes = trained[1]
    source = trained[0].parent / "detected.jsonl" if what == "score" else scenes / "val.jsonl"
    rows = read_key_frames(source).rows
    changed = []
    for row in rows:
        if what == "label":
            row = replace(row, labels=(row.labels[1], row.labels[0], *row.labels[2:]))
        elif what == "box":
            row = replace(row, boxes=row.boxes + 1)
        else:
            row = replace(row, scores=row.scores * [1, 0.95, 1, 1])
        changed.append(row)
    path = write_key_frames(tmp_path / "changed.jsonl", changed)
    place = {"boxes": str(path)} if what == "score" else {"data": str(path), "videos": str(scenes)}
    assert reproduce(trained[0], **place).same_videos is False


def test_a_moved_data_set_is_the_same(trained, tmp_path):
    scenes = tmp_path / "elsewhere"
    shutil.copytree(trained[1], scenes)
    model = copy_with(trained, tmp_path / "model", data="gone.jsonl", data_root=None, people="gone too")
    with pytest.raises(ValueError, match="`data` is needed: 'gone.jsonl', which results.json names"):
        reproduce(model)
    with pytest.raises(ValueError, match="`boxes` is needed: 'gone too'"):
        reproduce(model, data=str(scenes))
    boxes = shutil.copy(trained[0].parent / "detected.jsonl", tmp_path / "boxes.jsonl")
    assert reproduce(model, data=str(scenes), boxes=str(boxes)).confirmed
    with pytest.raises(ValueError, match="`split` is not for action detection"):
        reproduce(model, data=str(scenes), split="val")


def test_key_frames_that_were_trained_on_are_counted(trained, tmp_path):
    scenes = tmp_path / "elsewhere"
    shutil.copytree(trained[1], scenes)
    words = ["evaluate", "--model", str(trained[0]), "--task", "action-detection", "--boxes", "ground-truth"]
    done = CliRunner().invoke(app, [*words, "--annotations", str(scenes / "train.jsonl")])
    assert done.exit_code == 0 and "3 of the 3 clips were trained on" in " ".join(done.output.split())


def test_the_card_says_which_boxes_were_scored(trained):
    text = write_model_card(trained[0], summary="A test.").read_text()
    assert problems(text) == []
    assert "3 key-frames, boxes: detected people with a score of at least 0.8" in text


def test_published_results_name_no_folders(trained):
    results = json.loads((trained[0] / "results.json").read_text())
    results["missing_videos"] = {"/films/of/mine/a.mp4": 3}
    public = json.dumps(public_results(results))
    assert str(trained[1]) not in public and "/films/of/mine" not in public and '"a.mp4": 3' in public
    assert eval_entries(results | {"data": "data/val.jsonl"}) == []
