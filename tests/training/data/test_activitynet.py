"""ActivityNet's files, and random windows of sequences of features."""

import json
import random

import numpy as np
import pytest
import torch

from hf_videovit.training.data.activitynet import read_activitynet, read_predictions, write_predictions
from hf_videovit.training.data.feature_sequences import crop_sequence, random_window


def annotated(*annotations, **entry):
    return {"subset": "training", "duration": 30.0, "annotations": list(annotations), **entry}


def segment(start, end, label, **more):
    return {"segment": [start, end], "label": label, **more}


DATABASE = {
    "database": {
        "a": annotated(segment(1.0, 2.0, "run"), segment(1.0005, 2.0, "run"), segment(1.0, 2.0, "jump"), fps=25),
        "b": annotated(segment(3.0, 5.0, "dive"), subset="Validation"),
        "c": annotated(segment(4.0, 4.0005, "run")),
        "d": {"subset": "training", "duration": 8.0},
    }
}


def test_classes_do_not_depend_on_the_subset():
    training, validation = read_activitynet(DATABASE, "training"), read_activitynet(DATABASE, "VALIDATION")
    names = {0: "dive", 1: "jump", 2: "run"}
    assert training.class_names == validation.class_names == names
    assert [names[label] for label in training.labels] == ["run", "jump"]  # copies and shortest ones are gone
    assert validation.labels.tolist() == [0]
    assert set(training.durations) == {"a", "c", "d"}
    assert training.frame_rates == {"a": 25}
    assert len(read_activitynet(DATABASE, "training", tolerance=None)) == 4


def test_numbers_of_classes_are_those_of_the_file():
    numbered = {"database": {"a": annotated(segment(1, 2, "run", label_id=7), segment(3, 4, "dive", label_id=1))}}
    assert read_activitynet(numbered).labels.tolist() == [7, 1]
    numbered["database"]["b"] = annotated(segment(1, 2, "run", label_id=6))
    with pytest.raises(ValueError, match="'run' has several numbers"):
        read_activitynet(numbered)
    numbered["database"]["b"] = annotated(segment(1, 2, "run"))
    with pytest.raises(ValueError, match="in all annotations or in none"):
        read_activitynet(numbered)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"results": {}}, "no `database`"),
        ({"database": {"a": annotated({"label": "run", "segment": [1]})}}, "must be two numbers"),
        ({"database": {"a": annotated({"label": "run"})}}, "must be two numbers, got None"),
        ({"database": {"a": annotated(segment(5, 2, "run"))}}, "end after it starts"),
        ({"database": {"a": annotated(segment(float("nan"), 2, "run"))}}, "finite"),
        ({"database": {"a": None}}, "a must be a mapping with a list of `annotations`, got None"),
        ({"database": {"a": annotated() | {"annotations": "x"}}}, "a must be a mapping with a list"),
        ({"database": {"a": annotated({"segment": [1, 2]})}}, "an annotation of a needs a `label`"),
        ({"database": {"a": annotated([1, 2])}}, "an annotation of a needs a `label`"),
        ({"database": {"a": annotated() | {"duration": 0}}}, "`duration` of a must be a positive number, got 0"),
        ({"database": {"a": annotated() | {"duration": float("nan")}}}, "`duration` of a must be a positive number"),
        ({"database": {"a": annotated() | {"fps": "fast"}}}, "`fps` of a must be a positive number, got 'fast'"),
    ],
)
def test_wrong_annotations_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_activitynet(content)


def test_an_unknown_subset_and_a_broken_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`subset` must be one of training, validation, got 'test'"):
        read_activitynet(DATABASE, "test")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_activitynet(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json must hold a mapping"):
        read_predictions(tmp_path / "x.json")


def test_a_byte_order_mark_and_empty_fields(tmp_path):
    entry = annotated(segment(1, 2, "run")) | {"fps": None, "duration": None}
    (tmp_path / "x.json").write_text(json.dumps({"database": {"a": entry}}), encoding="utf-8-sig")
    table = read_activitynet(tmp_path / "x.json")
    assert len(table) == 1 and table.frame_rates == {} and table.durations == {"a": np.inf}


def test_predictions_come_back_from_the_file(tmp_path):
    names = {0: "dive", 1: "jump"}
    found = {
        "segments": torch.tensor([[1.0, 2.5], [3.0, 4.0]]),
        "scores": torch.tensor([0.75, 0.5]),
        "labels": torch.tensor([1, 0]),
    }
    none = {"segments": torch.zeros(0, 2), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
    write_predictions(tmp_path / "p.json", {"v": found, "w": none}, names)
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["results"]["v"][0] == {"segment": [1.0, 2.5], "label": "jump", "score": 0.75}
    assert set(content) == {"version", "results", "external_data"}
    table = read_predictions(tmp_path / "p.json", names)
    assert table.videos.tolist() == ["v", "v"]
    assert table.labels.tolist() == [1, 0]
    np.testing.assert_allclose(table.segments, found["segments"])
    np.testing.assert_allclose(table.scores, found["scores"])


def test_predictions_of_other_classes_get_numbers_of_their_own():
    content = {"results": {"v": [{"segment": [0, 1], "score": 1, "label": label} for label in ("fly", "run", "swim")]}}
    assert read_predictions(content, {3: "run"}).labels.tolist() == [4, 3, 5]
    content = {"results": {"v": [{"segment": [0, 1], "score": 1, "label_id": 3}]}}
    assert read_predictions(content).labels.tolist() == [3]
    assert len(read_predictions({"results": {}})) == 0
    with pytest.raises(ValueError, match="neither `label` nor `label_id`"):
        read_predictions({"results": {"v": [{"segment": [0, 1], "score": 1}]}})
    with pytest.raises(ValueError, match="scores must be finite"):
        read_predictions({"results": {"v": [{"segment": [0, 1], "score": float("nan"), "label": "run"}]}})


LABELS = {"segments": torch.tensor([[2.0, 6.0], [8.0, 20.0]]), "class_labels": torch.tensor([0, 1])}


def test_a_window_keeps_the_segments_of_which_enough_lies_inside():
    features = torch.arange(30.0)[:, None]
    window, labels = crop_sequence(features, LABELS, 4, 10, min_inside=0.5)
    assert window[:, 0].tolist() == list(range(4, 14))
    assert labels["segments"].tolist() == [[0, 2], [4, 10]]
    _, labels = crop_sequence(features, LABELS, 4, 10, min_inside=0.6, offset=1)
    assert labels["segments"].tolist() == [[-1, 2]]
    assert labels["class_labels"].tolist() == [0]


def test_a_random_window_holds_a_segment():
    features = torch.arange(400.0)[:, None]
    for seed in range(20):
        window, labels = random_window(features, LABELS, 32, random.Random(seed))
        assert len(window) == 32
        assert len(labels["segments"])
    none = {"segments": torch.zeros(0, 2), "class_labels": torch.zeros(0, dtype=torch.long)}
    draws = random.Random(0)
    window, labels = random_window(features, none, 32, draws)
    assert len(window) == 32
    assert not len(labels["segments"])
    assert draws.random() != random.Random(0).random()


def test_short_sequences_stay_or_are_cut_to_a_share():
    features = torch.arange(30.0)[:, None]
    assert random_window(features, LABELS, 32, random.Random(0))[0] is features
    lengths = {len(random_window(features, LABELS, 32, random.Random(s), crop_ratio=(0.5, 1.0))[0]) for s in range(99)}
    assert min(lengths) == 15
    assert max(lengths) == 30
