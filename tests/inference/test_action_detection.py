"""`pipeline("action-detection")`, the people in its answers, and the films and files made of them."""

import csv
import json

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoVideoProcessor, pipeline
from typer.testing import CliRunner

import hf_videovit
from hf_videovit.cli import app
from hf_videovit.inference.people import link_people, person_detector, person_timelines
from hf_videovit.pictures.films import draw_people, write_labelled_film
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES, Case


BOXES = {0.2: [[4, 4, 20, 30], [30, 8, 50, 36]], 0.6: [[6, 4, 22, 30]], 1.0: []}


def detector_case(name="videomae_v2"):
    family = next(family for family in FAMILIES if family.name == name)
    return next(Case(family, head) for head in family.heads if "ActionDetection" in head.model_class.__name__)


@pytest.fixture(scope="module", params=[family.name for family in FAMILIES])
def folder(request, tmp_path_factory):
    """A tiny detector with its processor, and a clip."""
    case, path = detector_case(request.param), tmp_path_factory.mktemp("detector")
    case.model().save_pretrained(path)
    fields = {**case.family.processor, "do_center_crop": False, "pad_multiple": 32}
    case.family.processor_class(**fields).save_pretrained(path)
    write_clip(path / "clip.mp4", moving_square_clip(height=40, width=56, num_frames=40), fps=25)
    return path


@pytest.fixture
def one_folder(tmp_path):
    case = detector_case()
    case.model().save_pretrained(tmp_path)
    fields = {**case.family.processor, "do_center_crop": False}
    case.family.processor_class(**fields).save_pretrained(tmp_path)
    write_clip(tmp_path / "clip.mp4", moving_square_clip(height=40, width=56, num_frames=40), fps=25)
    return tmp_path


def test_the_pipeline_is_the_model_with_its_processor(folder):
    detect = pipeline("action-detection", model=str(folder))
    video = str(folder / "clip.mp4")
    answers = detect(video, boxes=BOXES, threshold=0.0, batch_size=2)
    assert [answer["time"] for answer in answers] == sorted(BOXES)
    assert [answer["frame"] for answer in answers] == [5, 15, 25]
    assert [len(answer["people"]) for answer in answers] == [2, 1, 0]
    model = hf_videovit.AutoModelForActionDetection.from_pretrained(folder)
    processor = AutoVideoProcessor.from_pretrained(folder)
    inputs = processor(video, key_frame=0.6, boxes=[BOXES[0.6]], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**{name: inputs[name] for name in ("pixel_values", "boxes", "box_mask", "sizes")})
    expected = outputs.probabilities[0, 0].tolist()
    found = {one["label"]: one["score"] for one in answers[1]["people"][0]["actions"]}
    assert found == pytest.approx({model.config.id2label[index]: value for index, value in enumerate(expected)})
    assert list(answers[1]["people"][0]["box"].values()) == pytest.approx(BOXES[0.6][0], abs=1e-3)
    scores = [one["score"] for one in answers[1]["people"][0]["actions"]]
    assert scores == sorted(scores, reverse=True)


def test_the_number_of_clips_in_a_pass_changes_nothing(folder):
    detect = pipeline("action-detection", model=str(folder))
    one, many = (detect(str(folder / "clip.mp4"), boxes=BOXES, threshold=0.0, batch_size=size) for size in (1, 8))
    for first, second in zip(one, many):
        for a, b in zip(first["people"], second["people"]):
            # by label: near-tied scores may change places between passes of other sizes
            scores = [{action["label"]: action["score"] for action in person["actions"]} for person in (a, b)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_people_are_found_by_a_detector_at_every_step(one_folder):
    seen = []

    def two_people(images):
        seen.extend(images)
        return [(np.array([[2, 2, 20, 30], [30, 5, 50, 36]]), np.array([0.9, 0.3])) for _ in images]

    detect = pipeline("action-detection", model=str(one_folder))
    answers = detect(str(one_folder / "clip.mp4"), person_detector=two_people, every=0.4, threshold=0.0, top_k=2)
    assert [answer["time"] for answer in answers] == pytest.approx([0.0, 0.4, 0.8, 1.2])
    assert len(seen) == 4
    assert seen[0].size == (56, 40)
    assert all([person["person_score"] for person in one["people"]] == [pytest.approx(0.9)] for one in answers)
    assert all(len(person["actions"]) == 2 for one in answers for person in one["people"])
    assert {person["person_id"] for one in answers for person in one["people"]} == {0}


def test_a_detector_of_transformers_is_asked_for_people_by_name():
    class Pipeline:
        task = "object-detection"

        def __init__(self, labels):
            self.model = type("Model", (), {"config": type("Config", (), {"id2label": dict(enumerate(labels))})})

        def __call__(self, images, threshold):
            box = {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
            return [[{"label": "Person", "score": 0.7, "box": box}, {"label": "dog", "score": 0.9, "box": box}]] * len(
                images
            )

    ((boxes, scores),) = person_detector(Pipeline(["N/A", "Person", "dog"]))([None])
    assert (boxes, scores) == ([[1, 2, 3, 4]], [0.7])
    with pytest.raises(ValueError, match='must have a label "person", got a model with cat, dog'):
        person_detector(Pipeline(["cat", "dog"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give either `boxes` or `person_detector`, got neither"),
        ({"boxes": BOXES, "person_detector": len}, "got both"),
        ({"boxes": {9.0: [[0, 0, 9, 9]]}}, "`key_frames` must lie between 0 and 1.6 seconds"),
        ({"boxes": BOXES, "threshold": 1.5}, "`threshold` must be between 0 and 1"),
        ({"boxes": BOXES, "every": 0}, "`every` must be a positive number"),
        ({"boxes": BOXES, "batch_size": 0}, "`batch_size` must be at least 1"),
        ({"person_detector": lambda images: []}, "`person_detector` must answer for each of 1 images, got 0"),
        ({"boxes": {0.2: ([[0, 0, 9, 9]], [0.1, 0.2])}}, "`scores` must be one for each of 1 boxes"),
        ({"boxes": {0.2: [[0, 0, 9]]}}, r"`boxes` must have shape \(num_boxes, 4\), got \(1, 3\)"),
        ({"boxes": {0.2: [0, 0, 9, 9]}}, r"`boxes` must have shape \(num_boxes, 4\), got \(4,\)"),
    ],
)
def test_bad_arguments_are_refused(one_folder, arguments, message):
    detect = pipeline("action-detection", model=str(one_folder))
    with pytest.raises(ValueError, match=message):
        detect(str(one_folder / "clip.mp4"), **arguments)


def test_a_saved_pipeline_keeps_its_processor(one_folder, tmp_path):
    pipeline("action-detection", model=str(one_folder)).save_pretrained(tmp_path / "copy")
    assert not AutoVideoProcessor.from_pretrained(tmp_path / "copy").do_center_crop


# People

walks = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200), st.integers(-6, 6)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(walks, st.randoms(use_true_random=False))
def test_people_who_walk_apart_keep_their_numbers(starts, random):
    """Whatever the order in which boxes come."""
    lanes = [(x, 300 * lane, step) for lane, (x, _, step) in enumerate(starts)]
    truth, boxes = [], []
    for time in range(6):
        people = [
            (lane, [x + step * time, y, x + step * time + 40, y + 90]) for lane, (x, y, step) in enumerate(lanes)
        ]
        random.shuffle(people)
        truth.append([lane for lane, _ in people])
        boxes.append(torch.tensor([box for _, box in people], dtype=torch.float32))
    numbers = link_people(boxes)
    pairs = {(lane, number) for row, found in zip(truth, numbers) for lane, number in zip(row, found)}
    assert len(pairs) == len(lanes)
    assert numbers[0] == list(range(len(lanes)))


def test_a_person_may_be_hidden_for_two_key_frames_and_no_longer():
    here, nobody = torch.tensor([[0.0, 0, 40, 90]]), torch.zeros(0, 4)
    assert link_people([here, nobody, nobody, here]) == [[0], [], [], [0]]
    assert link_people([here, nobody, nobody, nobody, here]) == [[0], [], [], [], [1]]


def test_the_sum_of_overlaps_decides_not_the_first_best():
    first = torch.tensor([[0.0, 0, 30, 10], [18.0, 0, 48, 10]])
    second = torch.tensor([[10.0, 0, 40, 10], [28.0, 0, 58, 10]])  # the largest overlap is that of 1 with the left one
    assert link_people([first, second]) == [[0, 1], [0, 1]]


def answer(time, **scores):
    actions = [{"label": label, "score": score} for label, score in scores.items()]
    return {"time": time, "frame": 0, "people": [{"box": {}, "person_score": 1.0, "person_id": 0, "actions": actions}]}


def test_an_action_begins_at_the_threshold_and_ends_below_a_share_of_it():
    scores = [0.1, 0.9, 0.9, 0.9, 0.4, 0.3, 0.5, 0.1, 0.1]
    (interval,) = person_timelines([answer(0.5 * index, walk=score) for index, score in enumerate(scores)])
    averages = [np.mean(scores[max(index - 2, 0) : index + 1]) for index in range(len(scores))]
    begin = next(index for index, value in enumerate(averages) if value >= 0.5)
    end = next(index for index, value in enumerate(averages) if index > begin and value < 0.35)
    assert (interval["person"], interval["label"]) == (0, "walk")
    assert (interval["start"], interval["end"]) == (0.5 * begin, 0.5 * end)
    assert interval["score"] == pytest.approx(np.mean(averages[begin:end]))


def test_what_never_reaches_the_threshold_is_no_action():
    assert person_timelines([answer(index, sit=0.49) for index in range(5)]) == []


# Films and files


def test_a_film_has_the_video_s_frames_and_times_with_boxes_on_them(one_folder):
    answers = pipeline("action-detection", model=str(one_folder))(str(one_folder / "clip.mp4"), boxes=BOXES)
    path = write_labelled_film(one_folder / "clip.mp4", answers, one_folder / "film.mp4")
    with av.open(str(one_folder / "clip.mp4")) as plain, av.open(str(path)) as film:
        before, after = (list(one.decode(video=0)) for one in (plain, film))
    assert len(after) == len(before)
    assert [frame.time for frame in after] == pytest.approx([frame.time for frame in before], abs=1e-3)
    changed = [
        np.abs(one.to_ndarray(format="rgb24").astype(int) - other.to_ndarray(format="rgb24")).max() > 60
        for one, other in zip(before, after)
    ]
    assert all(changed[:20])  # up to halfway between 0.6 and 1.0 seconds
    assert not any(changed[21:])


def test_boxes_are_drawn_where_they_are():
    person = {"box": {"xmin": 10, "ymin": 20, "xmax": 40, "ymax": 60}, "person_id": 0, "actions": []}
    drawn = draw_people(np.zeros((80, 64, 3), np.uint8), [person])
    rows, columns = np.nonzero(drawn.any(axis=-1))
    assert (rows.min(), columns.min(), rows.max(), columns.max()) == (20, 10, 60, 40)
    assert not drawn[30:50, 20:30].any()


def test_the_command_writes_all_three(one_folder):
    (one_folder / "boxes.json").write_text(json.dumps({str(time): boxes for time, boxes in BOXES.items()}))
    outputs = [one_folder / f"out.{kind}" for kind in ("json", "csv", "mp4")]
    words = ["detect-actions", str(one_folder / "clip.mp4"), "--model", str(one_folder)]
    words += ["--boxes", str(one_folder / "boxes.json"), "--threshold", "0.1", "--top-k", "2"]
    result = CliRunner().invoke(app, [*words, *(word for path in outputs for word in ("--output", str(path)))])
    assert result.exit_code == 0, result.output
    said = json.loads(outputs[0].read_text())
    rows = list(csv.DictReader(outputs[1].open()))
    assert len(rows) == sum(len(person["actions"]) for one in said["key_frames"] for person in one["people"]) > 0
    assert {row["label"] for row in rows} <= set(detector_case().config().id2label.values())
    assert outputs[2].stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "film.avi", "--boxes", "x.json"], "must end in .json, .csv, .mp4"),
        ([], "Pass either --boxes or --detector"),
    ],
)
def test_the_command_refuses(one_folder, words, message):
    result = CliRunner().invoke(app, ["detect-actions", "clip.mp4", "--model", str(one_folder), *words])
    assert result.exit_code == 2
    assert message in result.output


def test_the_card_of_a_detector_says_how_to_use_it(one_folder):
    from hf_videovit.hub.cards import write_model_card
    from tests.card_rules import problems

    text = write_model_card(one_folder, summary="A test.").read_text(encoding="utf-8")
    assert problems(text) == []
    assert 'pipeline("action-detection"' in text
    assert "pipeline_tag" not in text
    assert "VideoMAEV2ForActionDetection" in text
