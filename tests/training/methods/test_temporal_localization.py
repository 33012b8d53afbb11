"""Training of localisers on sequences of features in which each class is a direction."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor

from hf_videovit import AutoModelForTemporalActionLocalization
from hf_videovit.feature_files import DESCRIPTION_FILE, open_features
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.data.segment_files import read_segments
from hf_videovit.training.data.segment_source import SegmentFeatureLoader, SegmentSource, join_features
from hf_videovit.training.evaluation.temporal_localization import evaluate_temporal_localization
from hf_videovit.training.methods.choosing import choose, finetune, method_of
from hf_videovit.training.optimization import parameter_groups
from hf_videovit.training.planning import plan_run
from hf_videovit.training.schedules import fitting_ema_decay
from tests.training.engine.test_two_processes import curve_of, launch


FPS, WINDOW, STRIDE, SIZE = 10.0, 4, 2, 6
CLASSES = ("jump", "run")
DESCRIPTION = {"encoder": "made here", "feature_size": SIZE, "window": WINDOW, "stride": STRIDE, "fps": None}


def write_videos(folder, counts=(("training", 11), ("validation", 4))):
    """Videos of 30 to 60 steps with up to two segments of two classes; every fifth has none."""
    rng, database = np.random.default_rng(0), {}
    (folder / "features").mkdir(parents=True)
    for subset, count in counts:
        for index in range(count):
            steps = int(rng.integers(30, 60))
            features = rng.normal(size=(steps, SIZE)) * 0.1
            annotations = []
            for place in range(0 if index % 5 == 4 else 1 + index % 2):
                start = 4 + 14 * place + int(rng.integers(0, 4))
                end, label = start + int(rng.integers(4, 9)), int(rng.integers(0, 2))
                features[start : end + 1, label] += 2
                seconds = [(step * STRIDE + WINDOW / 2) / FPS for step in (start, end)]
                annotations.append({"segment": seconds, "label": CLASSES[label], "label_id": label})
            name = f"{subset}_{index}"
            np.save(folder / "features" / f"{name}.npy", features.astype(np.float32))
            duration = ((steps - 1) * STRIDE + WINDOW) / FPS
            database[name] = {"subset": subset, "duration": duration, "fps": FPS, "annotations": annotations}
    (folder / "features" / DESCRIPTION_FILE).write_text(json.dumps(DESCRIPTION))
    (folder / "truth.json").write_text(json.dumps({"version": "1", "database": database}))
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("videos") / "set")


@pytest.fixture
def fields(videos, tmp_path) -> dict:
    return {
        "method": "temporal_localization",
        "model_type": "actionformer",
        "data": str(videos / "truth.json"),
        "features": str(videos / "features"),
        "output_dir": str(tmp_path / "output"),
        "cpu": True,
        "num_workers": 0,
        "progress": False,
        "curves": False,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "log_every": 1,
        "config": {
            "hidden_size": 16,
            "head_hidden_size": 16,
            "num_attention_heads": 2,
            "num_branch_layers": 2,
            "attention_window": 5,
            "max_sequence_length": 40,
            "drop_path_rate": 0.0,
        },
    }


def test_a_run_learns_and_saves_a_localiser_whose_scores_can_be_reproduced(fields, videos):
    more = {"epochs": 30, "learning_rate": 1e-2, "eval_every": 15, "keep_best": True, "train_split": "training"}
    result = finetune(RunConfig.from_fields(**fields | more))
    folder = result.output_dir
    saved = json.loads((folder / "results.json").read_text())
    assert saved["metrics"] == result.evaluation.metrics and saved["metrics"]["mAP@0.5"] > 0.5
    assert (saved["num_videos"], saved["num_failed"], saved["missing_features"]) == (4, 0, [])
    best = max(line["validation"]["mAP"] for line in result.history if "validation" in line)
    model = AutoModelForTemporalActionLocalization.from_pretrained(folder).eval()
    processor = AutoFeatureExtractor.from_pretrained(folder)
    assert processor.feature_description == DESCRIPTION and processor.feature_stride == STRIDE
    assert [model.config.id2label[index] for index in range(2)] == list(CLASSES)
    assert model.loss_normalizer != 100  # counted in training and saved
    annotations = read_segments(videos / "truth.json")
    source = join_features(annotations.subset("val"), annotations.label_names, open_features(videos / "features"))
    again = evaluate_temporal_localization(model, processor, source, batch_size=3)
    assert again.metrics["mAP"] == pytest.approx(best, abs=1e-6)
    written = json.loads((folder / "predictions.json").read_text())["results"]
    assert set(written) == {row.name for row in source.rows} and written["validation_0"][0]["label"] in CLASSES


def test_stopping_and_resuming_changes_nothing(fields, tmp_path):
    """The normaliser of the loss included, which the official code forgets."""
    fields = fields | {"epochs": 4, "ema_decay": 0.9, "save_every": 2}
    whole = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "whole")}))
    kept = sorted((tmp_path / "whole" / "checkpoints").glob("step_*"))
    assert len(kept) == 2
    last = kept[-1]
    for file in sorted(last.iterdir()):
        file.unlink()
    last.rmdir()
    again = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "whole"), "resume": True}))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=0)


def test_a_smaller_evaluation_set_is_refused_or_counted(fields, videos, tmp_path):
    folder = tmp_path / "fewer"
    folder.mkdir()
    for file in (videos / "features").iterdir():
        if file.stem not in ("training_0", "validation_1"):
            (folder / file.name).write_bytes(file.read_bytes())
    fields = fields | {"features": str(folder), "epochs": 1}
    with pytest.raises(ValueError, match="1 of 4 evaluation videos have no features: 'validation_1'"):
        method_of(RunConfig.from_fields(**fields)).checked_sources()
    result = finetune(RunConfig.from_fields(**fields, missing_features="count"))
    assert result.facts["num_train_videos"] == 10
    assert result.evaluation.missing == ["validation_1"]
    truth = read_segments(videos / "truth.json").subset("validation")
    assert result.evaluation.num_truth == sum(len(video.segments) for video in truth)
    listed = json.loads((result.output_dir / "logs" / "missing_features.json").read_text())
    assert listed == {"train": ["training_0"], "eval": ["validation_1"]}
    plan = plan_run(RunConfig.from_fields(**fields | {"missing_features": "count"}), "classifier")
    assert any("1 of 11 videos" in remark for remark in plan.data.remarks)


def test_windows_hold_the_segments_of_the_official_rule(fields, videos):
    """Every segment of a training window lies on its features: the direction of its class is in them."""
    method = method_of(RunConfig.from_fields(**fields))
    method.train_source, _ = method.checked_sources()
    _, method.processor = method.build()
    loader, lengths = method.loader(), set()
    for epoch in range(4):
        for sample in method.train_source.share(0, 1, None, 0):
            rows = loader(Record(sample, epoch, 0))
            steps = int(rows["attention_mask"].sum())
            lengths.add(steps)
            assert rows["features"].shape == (40, SIZE) and not rows["features"][steps:].any()
            kept = rows["class_labels"] >= 0
            assert (rows["class_labels"][~kept] == -100).all()
            for (start, end), label in zip(rows["segments"][kept], rows["class_labels"][kept]):
                middle = int(((start + end) / 2).round().clamp(0, steps - 1))
                assert rows["features"][middle, label] > 1
    assert len(lengths) > 5 and max(lengths) == 40
    whole = SegmentFeatureLoader(method.processor, CLASSES, 0, 2)
    sample = next(method.train_source.share(0, 1, None, 0))
    first, second = (whole(Record(sample, epoch, 0)) for epoch in (0, 1))
    assert torch.equal(first["features"], second["features"]) or first["attention_mask"].sum() == 40


def test_a_batch_is_cut_to_its_longest_sequence_unless_padding_is_part_of_the_model(fields):
    method = method_of(RunConfig.from_fields(**fields))
    method.train_source, _ = method.checked_sources()
    _, method.processor = method.build()
    rows = {"features": torch.ones(2, 40, SIZE), "attention_mask": torch.zeros(2, 40, dtype=torch.long)}
    rows["attention_mask"][0, :7], rows["attention_mask"][1, :9] = 1, 1
    rows |= {"segments": torch.zeros(2, 3, 2), "class_labels": torch.tensor([[0, -100, -100], [1, 0, -100]])}
    batch = method.prepare_batch(rows, torch.device("cpu"))
    assert batch["features"].shape == (2, 9, SIZE) and batch["segments"].shape == (2, 2, 2)
    method.processor.pad_to_max_length = True
    assert method.prepare_batch(rows, torch.device("cpu"))["features"].shape == (2, 40, SIZE)


def test_one_class_with_and_without_a_classifier(fields, videos, tmp_path):
    scores = {f"validation_{index}": [0.1, 0.9] if index else [1.0, 0.0] for index in range(4)}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"results": scores, "classes": ["run", "jump"]}))
    own = fields | {"one_class": "action", "epochs": 1}
    result = finetune(RunConfig.from_fields(**own))
    assert result.evaluation.label_names == ["action"] and len(result.evaluation.per_class) == 1
    own |= {"class_scores": str(path), "output_dir": str(tmp_path / "named")}
    named = finetune(RunConfig.from_fields(**own)).evaluation
    assert named.label_names == list(CLASSES)
    best = {video: int(found["labels"][0]) for video, found in named.predictions.items()}
    assert best == {"validation_0": 1, "validation_1": 0, "validation_2": 0, "validation_3": 0}
    with pytest.raises(ValueError, match="`class_scores` is not read"):
        method_of(RunConfig.from_fields(**fields, class_scores=str(path)))


def test_a_checkpoint_keeps_its_classifier_only_for_the_same_classes(fields, videos, tmp_path):
    first = finetune(RunConfig.from_fields(**fields | {"epochs": 1}))
    own = fields | {"checkpoint": str(first.output_dir), "config": {}, "output_dir": str(tmp_path / "second")}
    method = method_of(RunConfig.from_fields(**own))
    method.train_source, _ = method.checked_sources()
    model, processor = method.build()
    theirs = first.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())
    method.train_source = SegmentSource(method.train_source.rows[:0], ["a", "b"])
    other, _ = method.build()
    fresh = {name for name, value in other.state_dict().items() if not torch.equal(value, theirs[name])}
    assert fresh == {"classification_head.classifier.weight", "classification_head.classifier.bias"}
    assert list(other.config.id2label.values()) == ["a", "b"]


def test_features_of_another_encoder_are_refused(fields, videos, tmp_path):
    first = finetune(RunConfig.from_fields(**fields | {"epochs": 1}))
    own = fields | {"checkpoint": str(first.output_dir), "config": {}, "output_dir": str(tmp_path / "second")}
    for number, (change, message) in enumerate(
        [
            ({"stride": 4}, "`stride` 4, but the localiser was trained on `stride` 2"),
            ({"encoder": "b"}, "`encoder` 'b'"),
        ]
    ):
        folder = tmp_path / f"other_{number}"
        folder.mkdir()
        for file in (videos / "features").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / DESCRIPTION_FILE).write_text(json.dumps(DESCRIPTION | change))
        method = method_of(RunConfig.from_fields(**own | {"features": str(folder)}))
        method.train_source, _ = method.checked_sources()
        with pytest.raises(ValueError, match=message):
            method.build()
    wide = tmp_path / "wide"
    wide.mkdir()
    for file in (videos / "features").glob("*.npy"):
        np.save(wide / file.name, np.zeros((20, SIZE + 1), np.float32))
    method = method_of(RunConfig.from_fields(**own | {"features": str(wide)}))
    method.train_source, _ = method.checked_sources()
    with pytest.raises(ValueError, match="have size 7, the localiser takes 6"):
        method.build()
    scratch = method_of(RunConfig.from_fields(**fields | {"features": str(wide)}))
    scratch.train_source, _ = scratch.checked_sources()
    with pytest.raises(ValueError, match="Set `feature_stride` in `processor`"):
        scratch.build()


def test_unreadable_features_are_listed_and_missed(fields, videos, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in (videos / "features").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    np.save(folder / "training_1.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "validation_2.npy", np.full((30, SIZE), np.nan, np.float32))
    result = finetune(RunConfig.from_fields(**fields | {"features": str(folder), "epochs": 1, "bad_video_limit": 0.5}))
    assert [one["id"] for one in result.evaluation.failed] == ["validation_2"]
    assert "finite" in result.evaluation.failed[0]["reason"]
    (bad,) = (result.output_dir / "logs" / "bad_videos.rank0.jsonl").read_text().splitlines()
    assert json.loads(bad)["id"] == "training_1" and "unpickling" in bad


def test_wrong_runs_are_refused(fields, videos, tmp_path):
    for more, message in (
        ({"features": None}, "`features` \\(a folder\\) are needed"),
        ({"train_split": "test"}, "no subset 'test', only"),
        ({"feature_name": "v_{video}"}, "No video has features"),
        ({"crop_scale": [0.5, 1.0]}, "`crop_scale` is not read"),
        ({"window_ratio": [1.0, 0.5]}, "`window_ratio` must be"),
        ({"feature_name": "video"}, "`feature_name` must contain"),
    ):
        with pytest.raises(ValueError, match=message):
            method_of(RunConfig.from_fields(**fields | more)).checked_sources()
    with pytest.raises(ValueError, match="no frames to show"):
        list(method_of(RunConfig.from_fields(**fields)).preview(1))


def test_plan(fields):
    config = RunConfig.from_fields(**fields)
    assert choose(RunConfig.from_fields(model_type="actionformer"), "classifier").name == "temporal_localization"
    plan = plan_run(config, "classifier")
    assert (plan.num_videos, plan.steps_per_epoch, plan.data.num_eval) == (11, 3, 4)
    assert plan.data.splits == ("training", "validation") and plan.data.classes.keys() == set(CLASSES)
    assert plan.forward_macs > 0 and plan.num_parameters > 1000


def test_no_norm_or_scale_decays(fields):
    method = method_of(RunConfig.from_fields(**fields))
    method.train_source, _ = method.checked_sources()
    model, _ = method.build()
    decayed = {name for group in parameter_groups(model, 0.05) if group["weight_decay"] for name in group["names"]}
    shapes = {name: value.ndim for name, value in model.named_parameters()}
    assert decayed == {name for name, ndim in shapes.items() if ndim > 1}
    assert not any("norm" in name or "gamma" in name or "scale" in name for name in decayed)


@pytest.mark.parametrize(("steps", "expected"), [(3500, 0.999), (592, 0.05 ** (1 / 592)), (10, 0.05**0.1)])
def test_the_decay_of_the_average_fits_the_run(steps, expected):
    optimization = RunConfig.from_fields(ema_decay=0.999, ema_start_share=0.05).optimization
    assert fitting_ema_decay(optimization, steps) == pytest.approx(expected)
    assert fitting_ema_decay(RunConfig.from_fields(ema_decay=0.999).optimization, steps) == 0.999


def test_an_average_of_the_start_is_warned_of(fields, caplog):
    finetune(RunConfig.from_fields(**fields | {"epochs": 1, "ema_decay": 0.999}))
    assert "`ema_decay` 0.999 is too large for a run of 3 steps: 100% of the averaged weights" in caplog.text


@pytest.mark.slow
def test_two_processes_train_like_one_with_twice_the_batch(fields, tmp_path):
    """Both count the positives of both in the normaliser of the loss."""
    fields = fields | {"max_train_samples": 8}
    halved = fields | {"batch_size": 2, "config": fields["config"] | {"loss_normalizer": 50.0}}
    RunConfig.from_fields(**halved | {"output_dir": str(tmp_path / "two")}).save(tmp_path / "recipe.yaml")
    launch("finetune.py", "--recipe", tmp_path / "recipe.yaml")
    alone = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "one")}))
    for key, tolerance in (("loss", 1e-5), ("grad_norm", 1e-4)):
        assert curve_of(tmp_path / "two", key) == pytest.approx(curve_of(alone.output_dir, key), rel=tolerance)
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["num_videos"] == 4 and results["environment"]["processes"] == 2
    assert results["metrics"]["mAP"] == pytest.approx(alone.evaluation.metrics["mAP"], abs=1e-4)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "one file"])
def test_features_in_other_files(fields, videos, tmp_path, kind):
    folder = tmp_path / "others"
    folder.mkdir()
    tensors = {file.stem: torch.from_numpy(np.load(file)).half() for file in (videos / "features").glob("*.npy")}
    for name, value in tensors.items():
        if kind == "safetensors":
            save_file({"features": value}, folder / f"{name}.safetensors")
        elif kind == "pt":
            torch.save(value, folder / f"{name}.pt")
    path = folder
    if kind == "one file":
        path = folder / "all.safetensors"
        save_file(tensors, path, metadata={"description": json.dumps(DESCRIPTION)})
    else:
        (folder / DESCRIPTION_FILE).write_text(json.dumps(DESCRIPTION))
    method = method_of(RunConfig.from_fields(**fields | {"features": str(path)}))
    train, evaluated = method.checked_sources()
    assert (train.num_samples, evaluated.num_samples) == (11, 4)
    for row in train.rows:
        torch.testing.assert_close(row.file.read(), tensors[row.name])
        assert row.file.shape() == tuple(tensors[row.name].shape)
    assert method.describe()[1].feature_description == DESCRIPTION
