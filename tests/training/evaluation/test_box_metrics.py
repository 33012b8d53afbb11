"""AVA's frame metric: the official numbers, and the rules one by one."""

import json
import math
from pathlib import Path

import evaluate
import numpy as np
import pytest

from hf_videovit.training.data.ava import read_boxes, read_excluded, read_labels
from hf_videovit.training.data.boxes import BoxTable
from hf_videovit.training.evaluation.metrics import metric_path
from hf_videovit.training.evaluation.metrics.boxes import frame_average_precision


FIXTURES = Path(__file__).parents[2] / "fixtures" / "action_detection"
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def table(*rows):
    """Rows of key, box, label and, for predictions, score."""
    keys, boxes, labels, *scores = zip(*rows)
    columns = [np.array(keys), np.array(boxes, dtype=float), np.array(labels)]
    return BoxTable(*columns, *(np.array(column, dtype=float) for column in scores))


def mean(truth, predictions, **options):
    return frame_average_precision(truth, predictions, labels=[1, 2, 3], **options).mean


@pytest.mark.parametrize("case", sorted(path.name for path in FIXTURES.glob("metric_*")))
def test_official_figures(case):
    folder = FIXTURES / case
    expected = json.loads((folder / "config.json").read_text())
    result = frame_average_precision(
        read_boxes(folder / "ground_truth.csv", scored=False),
        read_boxes(folder / "predictions.csv", scored=True),
        list(read_labels(folder / "action_list.pbtxt")),
        read_excluded(folder / "excluded.csv"),
    )
    assert result.mean == pytest.approx(expected["mAP"], abs=1e-9)
    for label, value in expected["average_precision"].items():
        found = result.average_precision[int(label)]
        assert math.isnan(found) if value is None else found == pytest.approx(value, abs=1e-9), label
    assert {str(label): count for label, count in result.num_boxes.items()} == expected["num_ground_truth"]


def test_a_person_is_found_once_and_there_is_no_second_choice():
    truth = table(("a", (0.0, 0.0, 1.0, 1.0), 1), ("a", (0.0, 0.0, 1.0, 0.6), 1))
    twice = table(("a", (0.0, 0.0, 1.0, 1.0), 1, 0.9), ("a", (0.0, 0.0, 1.0, 0.9), 1, 0.8))
    # the second overlaps the free box by 0.67, and the taken one by 0.9
    assert mean(truth, twice) == 0.5


def test_a_prediction_on_a_frame_without_truth_is_wrong():
    truth = table(("a", LEFT, 1))
    predictions = table(("b", LEFT, 1, 0.9), ("a", LEFT, 1, 0.8))
    assert mean(truth, predictions) == 0.5
    assert mean(truth, predictions, protocol="mmaction2") == 1.0


def test_labels_that_are_never_predicted_count_as_zero():
    truth, predictions = table(("a", LEFT, 1), ("a", LEFT, 2)), table(("a", LEFT, 1, 0.9))
    assert mean(truth, predictions) == 0.5
    assert mean(truth, predictions, protocol="mmaction2") == 1.0


def test_excluded_frames_leave_both_sides():
    truth = table(("a", LEFT, 1), ("b", LEFT, 1))
    predictions = table(("a", LEFT, 1, 0.9), ("b", RIGHT, 1, 0.95))
    assert mean(truth, predictions, excluded=["b"]) == 1.0


def test_the_order_of_rows_matters_for_equal_scores_only():
    rng = np.random.default_rng(0)
    low = rng.random((200, 2)) * 0.5
    boxes = np.concatenate((low, low + 0.3), axis=1)
    keys, labels = rng.integers(0, 9, 200), rng.integers(1, 4, 200)
    truth = BoxTable(keys[:60], boxes[:60], labels[:60])
    predictions = BoxTable(keys, boxes + 0.02 * rng.standard_normal((200, 4)), labels, rng.permutation(200) / 200)
    order = rng.permutation(200)
    assert mean(truth, predictions) == pytest.approx(mean(truth, predictions.select(order)), abs=1e-12)
    assert 0 < mean(truth, predictions) < 1


def test_the_module_gives_the_function_s_figure(tmp_path):
    module = evaluate.load(metric_path("frame_mean_average_precision"), cache_dir=str(tmp_path))
    references = [{"boxes": [LEFT, RIGHT], "labels": [1, 2]}, {"boxes": [], "labels": []}]
    predictions = [
        {"boxes": [LEFT, LEFT], "labels": [1, 2], "scores": [0.9, 0.8]},
        {"boxes": [RIGHT], "labels": [1], "scores": [0.95]},
    ]
    (value,) = module.compute(predictions=predictions, references=references).values()
    assert value == 0.25  # label 1 is found after a mistake, label 2 is not found


def test_bad_input_is_refused():
    truth, predictions = table(("a", LEFT, 1)), table(("a", LEFT, 1, np.nan))
    with pytest.raises(ValueError, match="`predictions` must have scores"):
        mean(truth, predictions)
    with pytest.raises(ValueError, match="`protocol` must be one of ava, mmaction2, got 'coco'"):
        mean(truth, table(("a", LEFT, 1, 0.5)), protocol="coco")
    with pytest.raises(ValueError, match=r"`boxes` must be \(2, 4\)"):
        BoxTable(np.arange(2), np.zeros((1, 4)), np.arange(2))


def test_a_file_of_another_layout_is_named(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("video,902,0,0,1,1,12,0\nvideo,902,0,0,1\n")
    with pytest.raises(ValueError, match=r"boxes.csv is not a csv of video, timestamp"):
        read_boxes(path, scored=False)
