import evaluate
import numpy as np
import pytest

from hf_videovit.training.metrics import METRICS, mean_class_accuracy, metric_path, top_k_accuracy


SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.1, 0.3, 0.6], [0.4, 0.3, 0.3]])
LABELS = np.array([1, 2, 2, 1])


def test_top_k_by_hand():
    assert top_k_accuracy(SCORES, LABELS) == 0.5
    assert top_k_accuracy(SCORES, LABELS, k=2) == 1.0
    assert top_k_accuracy(SCORES, LABELS, k=9) == 1.0


def test_equal_scores_are_not_called_right():
    assert top_k_accuracy(np.zeros((10, 5)), np.arange(10) % 5) == 0.2


def test_mean_class_accuracy_counts_rare_classes_as_much():
    labels = np.array([0] * 9 + [1])
    scores = np.tile([1.0, 0.0, 0.0], (10, 1))
    assert mean_class_accuracy(scores, labels) == 0.5


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        top_k_accuracy(np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(ValueError, match="at least one sample"):
        mean_class_accuracy(np.zeros((0, 3)), np.zeros(0, int))


@pytest.mark.parametrize("name", METRICS)
def test_evaluate_modules_load_offline_and_agree(name, tmp_path):
    module = evaluate.load(metric_path(name), cache_dir=str(tmp_path))
    for scores, label in zip(SCORES.tolist(), LABELS.tolist()):
        module.add(prediction=scores, reference=label)
    result = module.compute()
    assert list(result.values()) == [0.5]
    if name == "top_k_accuracy":
        assert module.compute(predictions=SCORES.tolist(), references=LABELS.tolist(), k=2) == {"top2": 1.0}
    with pytest.raises(ValueError, match="`name` must be one of"):
        metric_path("accuracy")
