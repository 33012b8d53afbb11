import tempfile
from pathlib import Path

import evaluate
import numpy as np
import pytest

from hf_videovit.training.evaluation import metrics
from hf_videovit.training.evaluation.metrics import (
    METRICS,
    average_precisions,
    compute_metric,
    confusion_matrix,
    mean_average_precision,
    mean_class_accuracy,
    metric_path,
    reported,
    score,
    top_k_accuracy,
)


SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.1, 0.3, 0.6], [0.4, 0.3, 0.3]])
LABELS = np.array([1, 2, 2, 1])
REPORTED = sorted({row.module for row in (*reported.SINGLE_LABEL.values(), *reported.MULTI_LABEL.values())})


def test_top_k_by_hand():
    assert top_k_accuracy(SCORES, LABELS) == 0.5
    assert top_k_accuracy(SCORES, LABELS, k=2) == 1.0
    assert top_k_accuracy(SCORES, LABELS, k=9) == 1.0


def test_equal_scores_are_not_called_right():
    assert top_k_accuracy(np.zeros((10, 5)), np.arange(10) % 5) == 0.2
    assert top_k_accuracy(np.zeros((3, 5)), np.array([0, 0, 4])) == 2 / 3  # the first class is named


def test_mean_class_accuracy_counts_rare_classes_as_much():
    labels = np.array([0] * 9 + [1])
    scores = np.tile([1.0, 0.0, 0.0], (10, 1))
    assert mean_class_accuracy(scores, labels) == 0.5


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        top_k_accuracy(np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(ValueError, match="at least one sample"):
        mean_class_accuracy(np.zeros((0, 3)), np.zeros(0, int))


def test_mean_average_precision_by_hand():
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.9, 0.0], [0.7, 0.5, 0.0], [0.6, 0.2, 0.0]])
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    first = (1 / 1 + 2 / 3) / 2  # ranks 1 and 3
    second = (1 / 1 + 2 / 3) / 2
    assert mean_average_precision(scores, labels) == pytest.approx((first + second) / 2)
    assert mean_average_precision(labels.astype(float), labels) == 1.0


def test_equal_scores_give_the_share_of_the_class_whatever_the_order():
    labels = np.array([[1], [0], [0], [1], [0]])
    for order in (np.arange(5), np.arange(5)[::-1]):
        assert mean_average_precision(np.zeros((5, 1)), labels[order]) == pytest.approx(0.4)


def test_weighted_mean_average_precision_counts_samples():
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    scores = np.array([[0.9, 0.8], [0.8, 0.1], [0.7, 0.2], [0.1, 0.5]])
    assert average_precisions(scores, labels).tolist() == [1.0, 0.5]
    assert mean_average_precision(scores, labels) == 0.75
    assert mean_average_precision(scores, labels, "weighted") == pytest.approx(0.875)
    assert np.isnan(average_precisions(scores[:3], labels[:3])[1])
    with pytest.raises(ValueError, match="`average` must be one of macro, weighted"):
        mean_average_precision(scores, labels, "micro")


def test_mean_average_precision_refuses_class_indices():
    for labels in (LABELS, np.full((4, 3), 2)):
        with pytest.raises(ValueError, match="labels of zeros and ones"):
            mean_average_precision(SCORES, labels)
    with pytest.raises(ValueError, match="at least one label"):
        mean_average_precision(SCORES, np.zeros((4, 3)))


def test_confusion_matrix_by_hand():
    assert confusion_matrix(SCORES, LABELS).tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert np.trace(confusion_matrix(SCORES, LABELS)) / 4 == top_k_accuracy(SCORES, LABELS)


def module_inputs(name):
    references = np.eye(3, dtype=int)[LABELS] if name == "mean_average_precision" else LABELS
    expected = mean_average_precision(SCORES, references) if name == "mean_average_precision" else 0.5
    return references, expected


@pytest.mark.parametrize("name", REPORTED)
def test_evaluate_loads_each_module_by_its_folder(name, tmp_path):
    module = evaluate.load(metric_path(name), cache_dir=str(tmp_path))
    references, expected = module_inputs(name)
    for scores, label in zip(SCORES.tolist(), references.tolist()):
        module.add(prediction=scores, reference=label)
    assert list(module.compute().values()) == [pytest.approx(expected)]
    if name == "top_k_accuracy":
        assert module.compute(predictions=SCORES.tolist(), references=LABELS.tolist(), k=2) == {"top2": 1.0}


@pytest.mark.parametrize("name", REPORTED)
def test_a_metric_is_computed_without_leaving_a_file(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    references, expected = module_inputs(name)
    assert compute_metric(name, SCORES, references) == pytest.approx(expected)
    assert list(tmp_path.iterdir()) == []


def test_every_module_is_reported_and_every_reported_one_exists():
    folders = {path.parent.name for path in Path(metrics.__file__).parent.glob("*/*.py") if path.stem != "__init__"}
    assert folders == set(METRICS)
    assert set(REPORTED) | {"frame_mean_average_precision", "segment_mean_average_precision"} == folders
    for call in (metric_path, lambda name: compute_metric(name, SCORES, LABELS)):
        with pytest.raises(ValueError, match="`name` must be one of .* got 'accuracy'"):
            call("accuracy")


def test_reported_values_are_those_of_the_functions_to_the_last_bit():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((2500, 7)).astype(np.float32), rng.integers(0, 7, 2500)  # three batches
    several = rng.integers(0, 2, (2500, 7))
    assert score(scores, labels) == {
        "top1": top_k_accuracy(scores, labels),
        "mean_class_accuracy": mean_class_accuracy(scores, labels),
        "top5": top_k_accuracy(scores, labels, 5),
    }
    assert score(scores, several) == {
        "mAP": mean_average_precision(scores, several),
        "mAP_weighted": mean_average_precision(scores, several, "weighted"),
    }
    assert list(score(scores[:, :5], labels % 5)) == ["top1", "mean_class_accuracy"]
    assert score(scores, np.zeros_like(several)) == {}
