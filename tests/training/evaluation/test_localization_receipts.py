"""Receipts of localisers: what training and `evaluate` claim comes out again, on features and on films."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from hf_videovit import VideoMAEV2Model
from hf_videovit.cli import app
from hf_videovit.feature_files import DESCRIPTION_FILE
from hf_videovit.hub.publishing import public_results
from hf_videovit.inference.temporal_localization import load_localizer, save_localizer
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.evaluation.receipts import reproduce
from hf_videovit.training.methods.choosing import finetune
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES
from tests.training.methods.test_temporal_localization import write_videos


SMALL = {"hidden_size": 16, "head_hidden_size": 16, "num_attention_heads": 2, "num_branch_layers": 1}
FIELDS = {
    "method": "temporal_localization",
    "model_type": "actionformer",
    "config": SMALL | {"attention_window": 5, "max_sequence_length": 40, "drop_path_rate": 0.0},
    "train_split": "training",
    "protocol": "thumos14",
    "cpu": True,
    "num_workers": 0,
    "progress": False,
    "curves": False,
    "epochs": 6,
    "batch_size": 4,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A localiser with the results that its training wrote, and the data."""
    base = tmp_path_factory.mktemp("receipts")
    data = write_videos(base / "set")
    own = {"data": str(data / "truth.json"), "features": str(data / "features"), "output_dir": str(base / "run")}
    return finetune(RunConfig.from_fields(**FIELDS | own | {"max_eval_samples": 3})).output_dir, data


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """A localiser with an encoder, and films of two of three annotated videos."""
    base = tmp_path_factory.mktemp("whole")
    family = next(one for one in FAMILIES if one.name == "videomae_v2")
    encoder = VideoMAEV2Model(family.config())
    encoder.save_pretrained(base / "encoder")
    family.processor_class(**family.processor).save_pretrained(base / "encoder")
    data = write_videos(base / "set", (("training", 4), ("validation", 3)))
    size = family.config().hidden_size
    for path in (data / "features").glob("*.npy"):
        np.save(path, np.pad(np.load(path), ((0, 0), (0, size - np.load(path).shape[1]))))
    description = {"feature_size": size, "window": family.config().num_frames, "stride": 2, "fps": None}
    (data / "features" / DESCRIPTION_FILE).write_text(json.dumps(description))
    own = {"data": str(data / "truth.json"), "features": str(data / "features"), "output_dir": str(base / "run")}
    run = finetune(RunConfig.from_fields(**FIELDS | own | {"epochs": 1})).output_dir
    model = save_localizer(base / "model", **load_localizer(run, base / "encoder"))
    shutil.copy(run / "results.json", model)
    for index in range(2):
        clip = moving_square_clip(height=40, width=56, num_frames=80, seed=index)
        write_clip(data / "films" / f"validation_{index}.mp4", clip, fps=10)
    return model, data


def copy_with(trained, target, **changes):
    """The model in another folder, with a changed claim."""
    shutil.copytree(trained[0], target)
    results = json.loads((target / "results.json").read_text())
    (target / "results.json").write_text(json.dumps(results | changes))
    return target


def command(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


def test_what_training_claims_is_confirmed(trained):
    done = reproduce(trained[0])
    assert done.confirmed and done.same_videos and not done.changed_protocol
    assert {"mAP", "mAP@0.5", "recall@1x"} <= set(done.claimed) and done.claimed["mAP"] > 0
    assert len(done.result.predictions) == 3
    code, shown = command("reproduce", trained[0])
    assert code == 0 and "confirmed" in shown and "not confirmed" not in shown


def test_a_run_without_the_videos_that_are_gone_claims_that(trained, tmp_path):
    data = trained[1]
    (tmp_path / "gone.txt").write_text("training_0\nvalidation_1\n")
    own = {"data": str(data / "truth.json"), "features": str(data / "features"), "output_dir": str(tmp_path / "run")}
    result = finetune(
        RunConfig.from_fields(**FIELDS | own | {"epochs": 1, "excluded_videos": str(tmp_path / "gone.txt")})
    )
    assert "validation_1" not in result.evaluation.predictions and "validation_0" in result.evaluation.predictions
    everything = finetune(RunConfig.from_fields(**FIELDS | own | {"epochs": 1, "output_dir": str(tmp_path / "all")}))
    assert result.facts["num_train_videos"] == everything.facts["num_train_videos"] - 1
    again = reproduce(result.output_dir)
    assert again.confirmed and again.same_videos


def test_what_evaluate_claims_is_confirmed(trained, tmp_path):
    model = copy_with(trained, tmp_path / "model")
    (model / "results.json").unlink()
    words = ["evaluate", "--model", model, "--task", "temporal-localization", "--protocol", "thumos14"]
    words += ["--truth", trained[1] / "truth.json", "--features", trained[1] / "features", "--split", "validation"]
    words += ["--output", model / "results.json", "--predictions", tmp_path / "found.json"]
    code, shown = command(*words)
    assert code == 0 and "mAP: " in shown, shown
    assert len(json.loads((tmp_path / "found.json").read_text())["results"]) == 4
    assert reproduce(model).confirmed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metrics": {"mAP": 0.999}}, "not confirmed"),
        ({"manifest_sha256": "0" * 64}, "videos or their labels differ"),
        ({"max_samples": None}, "videos or their labels differ"),
        ({"split": "training"}, "videos or their labels differ"),
        ({"protocol": {"overlaps": "thumos14", "nms_sigma": 0.3}}, "nms_sigma: 0.3 then, 0.5 now"),
    ],
)
def test_a_changed_claim_is_told_apart(trained, tmp_path, change, expected):
    model = copy_with(trained, tmp_path / "model", **change)
    code, shown = command("reproduce", model)
    assert code == (0 if "protocol" in change else 1) and expected in shown


def test_data_that_have_moved(trained, tmp_path):
    """As on the Hub, whose receipts name no folders."""
    results = public_results(json.loads((trained[0] / "results.json").read_text()))
    assert results["features"] == "features" and results["data"] == "truth.json"
    model = copy_with(trained, tmp_path / "model", **results)
    with pytest.raises(ValueError, match="`data` is needed: 'truth.json', which results.json names"):
        reproduce(model)
    moved = shutil.copytree(trained[1], tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="`features` is needed: 'features'"):
        reproduce(model, data=str(moved / "truth.json"))
    assert reproduce(model, data=str(moved / "truth.json"), features=str(moved / "features")).confirmed
    described = json.loads((moved / "features" / DESCRIPTION_FILE).read_text())
    (moved / "features" / DESCRIPTION_FILE).write_text(json.dumps(described | {"encoder": "another"}))
    with pytest.raises(ValueError, match="encoder"):
        reproduce(model, data=str(moved / "truth.json"), features=str(moved / "features"))


def test_changed_truth_is_noticed(trained, tmp_path):
    moved = shutil.copytree(trained[1], tmp_path / "elsewhere")
    truth = json.loads((moved / "truth.json").read_text())
    truth["database"]["validation_0"]["annotations"][0]["segment"][1] += 0.5
    truth["database"]["validation_1"]["annotations"][0]["segment"][1] += 0.5
    (moved / "truth.json").write_text(json.dumps(truth))
    done = reproduce(trained[0], data=str(moved / "truth.json"))
    assert done.same_videos is False and not done.confirmed


def test_options_of_other_models_are_refused(trained):
    with pytest.raises(ValueError, match="`boxes` is for action detectors"):
        reproduce(trained[0], boxes="x.jsonl")
    with pytest.raises(ValueError, match="has no encoder. Pass `features`"):
        reproduce(trained[0], videos=str(trained[1]))
    words = [
        "evaluate",
        "--model",
        trained[0],
        "--task",
        "temporal-localization",
        "--truth",
        trained[1] / "truth.json",
    ]
    code, shown = command(*words)
    assert code != 0 and "--features is needed" in shown
    code, shown = command(*words, "--videos", trained[1])
    assert code != 0 and "Traceback" not in shown


def test_a_model_with_its_encoder_on_features_and_on_films(whole, tmp_path):
    """The copied receipt names features; `evaluate --videos` writes one that names films."""
    model, data = whole
    assert reproduce(model).confirmed
    words = ["evaluate", "--model", model, "--task", "temporal-localization", "--protocol", "thumos14"]
    words += ["--truth", data / "truth.json", "--videos", data / "films", "--output", model / "results.json"]
    code, shown = command(*words)
    assert code != 0 and "1 videos of the truth have no file, such as 'validation_2'" in shown
    code, shown = command(*words, "--allow-missing")
    assert code == 0 and "in 3 videos, 1 of them without features" in shown, shown
    saved = json.loads((model / "results.json").read_text())
    assert saved["videos_folder"] == str(data / "films") and saved["features"] is None
    assert saved["missing_features"] == ["validation_2"]
    done = reproduce(model)
    assert done.confirmed and done.same_videos
    moved = shutil.copytree(data / "films", tmp_path / "films")
    assert reproduce(model, videos=str(moved)).confirmed
    (moved / "validation_0.mp4").write_bytes(b"damaged")
    damaged = reproduce(model, videos=str(moved))
    assert [one["id"] for one in damaged.result.failed] == ["validation_0"]
    again = reproduce(model, features=str(data / "features"))
    assert len(again.result.predictions) == 3 and again.same_videos
