import json

import pytest
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.training.evaluation.receipts import reproduce
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier


NAMES = ("right", "left", "down", "up")


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    """A model with the results of `hf-videovit evaluate` in its folder, and the clips."""
    base = tmp_path_factory.mktemp("receipts")
    model, clips = save_tiny_classifier(base / "model"), base / "clips"
    for name in NAMES:
        for index in range(2):
            write_clip(clips / "val" / name / f"{index}.mp4", moving_square_clip(name, seed=index))
    words = ["evaluate", "--model", str(model), "--data", str(clips), "--output", str(model / "results.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return model, clips


def test_a_true_claim_is_confirmed(claimed):
    model, _ = claimed
    done = reproduce(model)
    assert done.confirmed and done.same_videos and set(done.differences.values()) == {0.0}
    assert not done.changed_protocol
    shown = CliRunner().invoke(app, ["reproduce", str(model)])
    assert shown.exit_code == 0 and "not confirmed" not in shown.output and "confirmed" in shown.output


def test_claims_that_do_not_come_out_are_told_apart(claimed, tmp_path):
    model, clips = claimed
    results = json.loads((model / "results.json").read_text())
    other = save_tiny_classifier(tmp_path / "model", num_clips=2)
    false = {**results, "metrics": {**results["metrics"], "top1": results["metrics"]["top1"] + 0.125}}
    (other / "results.json").write_text(json.dumps(false))
    done = reproduce(other)
    assert not done.confirmed and done.changed_protocol == {"num_clips": (1, 2)}
    (other / "results.json").write_text(json.dumps({**results, "manifest_sha256": "0" * 64}))
    assert reproduce(other).same_videos is False
    shown = CliRunner().invoke(app, ["reproduce", str(other), "--data", str(clips)])
    assert shown.exit_code == 1 and "not confirmed" in shown.output
    assert "differ from those of results.json" in shown.output


def test_a_folder_without_a_claim_is_refused(tmp_path):
    model = save_tiny_classifier(tmp_path / "model")
    with pytest.raises(ValueError, match="has no results.json"):
        reproduce(model)
    (model / "results.json").write_text(json.dumps({"metrics": {}}))
    with pytest.raises(ValueError, match="`data` is needed"):
        reproduce(model)
