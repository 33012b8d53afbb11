"""`evaluate --task temporal-localization`: files of predictions, and localisers on features."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoFeatureExtractor
from typer.testing import CliRunner

from hf_videovit.auto import AutoModelForTemporalActionLocalization
from hf_videovit.cli import app
from hf_videovit.training.evaluation.localization_receipts import LocalizationClaim
from hf_videovit.training.evaluation.temporal_localization import score_predictions
from tests.saved_model import LABELS, save_tiny_localizer


FIXTURES = Path(__file__).parents[2] / "fixtures" / "temporal_localization"
TASK = ("--task", "temporal-localization")


def evaluate(*words):
    return CliRunner().invoke(app, ["evaluate", *TASK, *map(str, words)])


@pytest.mark.parametrize(("protocol", "case"), [("thumos14", "thumos"), ("activitynet", "anet"), ("hacs", "anet")])
def test_a_file_of_predictions_scores_as_with_the_official_tools(protocol, case, tmp_path):
    folder = FIXTURES / "evaluate_rules"
    config = json.loads((folder / "config.json").read_text())
    expected = config["cases"][case]
    words = ["--truth", folder / "truth.json", "--predictions", folder / "predictions.json", "--protocol", protocol]
    result = evaluate(*words, "--split", config["subset"], "--json", "--output", tmp_path / "result.json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == {k: v for k, v in json.loads((tmp_path / "result.json").read_text()).items() if k in found}
    assert found["metrics"]["mAP"] == pytest.approx(expected["average_map"], abs=1e-9)
    overlaps = [value for name, value in found["metrics"].items() if name.startswith("mAP@")]
    assert overlaps == pytest.approx(expected["map"], abs=1e-9)
    middle = int(np.abs(np.array(expected["tiou"]) - 0.5).argmin())
    recall = [found["metrics"]["recall@1x"], found["metrics"]["recall@5x"]]
    assert recall == pytest.approx(expected["recall_at_kx"][middle], abs=1e-9)
    assert found["num_segments"] == expected["num_truth"]


def test_classes_without_truth():
    folder = FIXTURES / "evaluate_absent_labels"
    config = json.loads((folder / "config.json").read_text())
    found = {
        metric: score_predictions(
            folder / "truth.json", folder / "predictions.json", subset=config["subset"], metric=metric
        ).metrics["mAP@0.5"]
        for metric in ("default", "actionformer")
    }
    assert found["default"] == pytest.approx(config["cases"]["half"]["map"][0])
    assert found["actionformer"] == pytest.approx(config["official_with_the_fault"]["map"][0])


def files(tmp_path, results, annotations=None):
    database = annotations or {
        name: {"subset": "validation", "duration": 10, "annotations": [{"segment": [1, 4], "label": "run"}]}
        for name in ("a", "b")
    }
    (tmp_path / "truth.json").write_text(json.dumps({"database": database}))
    (tmp_path / "found.json").write_text(json.dumps({"results": results}))
    return tmp_path / "truth.json", tmp_path / "found.json"


RIGHT = [{"segment": [1, 4], "label": "run", "score": 0.9}]


def test_videos_without_predictions_are_missed_and_counted(tmp_path):
    truth, found = files(tmp_path, {"a": RIGHT, "elsewhere": [{**RIGHT[0], "score": 0.5}]})
    result = evaluate("--truth", truth, "--predictions", found)
    assert "mAP: 50.00 %" in result.stdout and "2 segments in 2 videos, 1 of them without predictions" in result.stdout
    assert "1 predicted videos are not in the truth" in result.stderr
    nothing = score_predictions(*files(tmp_path, {}))
    assert nothing.metrics["mAP"] == 0 and nothing.missing == ["a", "b"]
    with pytest.raises(ValueError, match="are of other videos than `truth`: 'v_a', not 'a'"):
        score_predictions(*files(tmp_path, {"v_a": RIGHT}))


def test_vanished_videos_are_left_out_of_truth_and_predictions(tmp_path):
    truth, found = files(tmp_path, {"a": RIGHT, "b": [{"segment": [7, 9], "label": "run", "score": 0.95}]})
    (tmp_path / "gone.txt").write_text("b.mp4\n\nelsewhere\n")
    (tmp_path / "gone.json").write_text('["b"]')
    assert score_predictions(truth, found).metrics["mAP"] < 0.5
    for name, metric in (("gone.txt", "default"), ("gone.json", "default"), ("gone.txt", "activitynet")):
        result = score_predictions(truth, found, metric=metric, excluded=tmp_path / name)
        assert (result.metrics["mAP"], result.num_truth, sorted(result.predictions)) == (1.0, 1, ["a"])
    said = evaluate("--truth", truth, "--predictions", found, "--excluded", tmp_path / "gone.txt", "--json")
    assert json.loads(said.stdout)["videos"] == ["a"]
    for content, message in (("\n", "has no names"), ("a\nb\n", "names all videos")):
        (tmp_path / "gone.txt").write_text(content)
        with pytest.raises(ValueError, match=message):
            score_predictions(truth, found, excluded=tmp_path / "gone.txt")
    with pytest.raises(ValueError, match="does not exist"):
        score_predictions(truth, found, excluded=tmp_path / "other.txt")


def test_copies_of_annotations(tmp_path):
    """Once by default, as in ActionFormer's code; each in ActivityNet's toolkit, which then misses one."""
    twice = [{"segment": [1, 4], "label": "run"}, {"segment": [1, 4.0004], "label": "run"}]
    database = {"a": {"subset": "validation", "duration": 10, "annotations": twice}}
    paths = files(tmp_path, {"a": RIGHT}, database)
    assert score_predictions(*paths).metrics["mAP"] == 1
    with_copies = score_predictions(*paths, metric="activitynet")
    assert with_copies.num_truth == 2 and with_copies.metrics["mAP"] == pytest.approx(0.5)


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    """A localiser of features, features of two of three videos, and annotations."""
    folder = tmp_path_factory.mktemp("localizer")
    save_tiny_localizer(folder / "whole")
    from hf_videovit.inference.temporal_localization import load_localizer

    parts = load_localizer(folder / "whole")
    parts["model"].localizer.save_pretrained(folder / "model")
    parts["feature_extractor"].save_pretrained(folder / "model")
    (folder / "features").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(folder / "features" / f"{name}.npy", rng.normal(size=(50, 32)).astype(np.float32))
    database = {
        name: {
            "subset": "test" if name == "c" else "validation",
            "fps": 10.0,
            "duration": 10.0,
            "annotations": [{"segment": [1 + index, 3 + index], "label": label} for index, label in enumerate(LABELS)],
        }
        for name in "abc"
    }
    (folder / "truth.json").write_text(json.dumps({"database": database}))
    return folder


def test_a_localiser_is_evaluated_like_its_file_of_predictions(localizer, tmp_path):
    words = ["--truth", localizer / "truth.json", "--json"]
    own = ["--model", localizer / "model", "--features", localizer / "features"]
    result = evaluate(*words, *own, "--predictions", tmp_path / "found.json", "--batch-size", 2)
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)["metrics"]
    assert metrics["recall@5x"] > 0
    again = evaluate(*words, "--predictions", tmp_path / "found.json")
    assert json.loads(again.stdout)["metrics"] == pytest.approx(metrics)
    model = AutoModelForTemporalActionLocalization.from_pretrained(localizer / "model").eval()
    processor = AutoFeatureExtractor.from_pretrained(localizer / "model")
    features = np.load(localizer / "features" / "a.npy")
    (found,) = processor.post_process_temporal_localization(
        model(**processor(features)), [processor.grid(len(features), 10.0, 10.0)]
    )
    written = json.loads((tmp_path / "found.json").read_text())["results"]["a"]
    assert written[0]["score"] == pytest.approx(float(found["scores"][0]), abs=1e-5)
    assert len(written) == len(found["scores"])


def test_a_smaller_set_is_refused(localizer):
    words = ["--truth", localizer / "truth.json", "--model", localizer / "model", "--features", localizer / "features"]
    refused = evaluate(*words, "--split", "test")
    assert refused.exit_code == 2
    mixed = evaluate(*words, "--split", "everything")
    assert mixed.exit_code == 2 and "no subset 'everything'" in mixed.output
    database = json.loads((localizer / "truth.json").read_text())["database"]
    database["c"]["subset"] = "validation"
    path = localizer / "three.json"
    path.write_text(json.dumps({"database": database}))
    words[1] = path
    refused = evaluate(*words)
    assert refused.exit_code == 2 and "1 videos of the truth have no features, such as 'c'" in refused.output
    counted = evaluate(*words, "--allow-missing", "--json")
    assert counted.exit_code == 0, counted.output
    found = json.loads(counted.stdout)
    assert found["missing_features"] == ["c"] and found["num_segments"] == 3 * len(LABELS)


def test_a_localiser_is_evaluated_without_the_videos_that_are_gone(localizer, tmp_path):
    (tmp_path / "gone.txt").write_text("a")
    words = ["--truth", localizer / "truth.json", "--model", localizer / "model", "--features", localizer / "features"]
    result = evaluate(*words, "--excluded", tmp_path / "gone.txt", "--output", tmp_path / "results.json")
    assert result.exit_code == 0 and "1 videos are left out, of the 1" in " ".join(result.stderr.split())
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["videos"] == ["b"] and saved["excluded"] == str(tmp_path / "gone.txt")
    assert LocalizationClaim.read(saved).excluded == str(tmp_path / "gone.txt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--truth is needed"),
        (("--truth", "t.json"), "--model or --predictions is needed"),
        (("--truth", "t.json", "--model", "m"), "--features is needed"),
        (("--truth", "t.json", "--metric", "ava"), "--metric ava is not for --task temporal-localization"),
        (("--truth", "t.json", "--data", "d"), "--data is not read with --task temporal-localization"),
        (("--truth", "gone.json", "--predictions", "p.json"), "gone.json"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, message):
    result = evaluate(*words)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_options_of_localisation_are_not_ignored_elsewhere():
    result = CliRunner().invoke(app, ["evaluate", "--model", "m", "--data", "d", "--truth", "t.json"])
    assert result.exit_code == 2 and "--truth is not read with --task video-classification" in result.output
    result = CliRunner().invoke(app, ["evaluate", "--data", "d"])
    assert result.exit_code == 2 and "--model is needed" in result.output
