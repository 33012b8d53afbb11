"""Training of detectors of objects and of pose models on generated pictures."""

import json

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import pipeline
from typer.testing import CliRunner

from hf_videovit import (
    UniFormerDetectorConfig,
    UniFormerDetectorImageProcessor,
    UniFormerForImageClassification,
    UniFormerForObjectDetection,
    UniFormerForPoseEstimation,
)
from hf_videovit.cli import app
from hf_videovit.inference.people import detect_people, person_detector
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.defaults import read_run
from hf_videovit.training.evaluation.receipts import reproduce
from hf_videovit.training.methods.choosing import finetune, method_of
from hf_videovit.training.planning import plan_run
from hf_videovit.training.preparing.digit_pictures import build_digit_pictures
from tests.training.engine.test_two_processes import curve_of, launch
from tests.training.methods.interrupting import check_that_a_resumed_run_is_the_uninterrupted_one


BACKBONE = {
    "model_type": "uniformer",
    "modality": "image",
    "image_size": 64,
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "head_dim": 8,
    "drop_path_rate": 0.0,
    "out_indices": [1, 2, 3, 4],
}
SMALL = {
    "detector": {
        "backbone_config": BACKBONE,
        "pyramid_size": 16,
        "anchor_scale": 4.0,
        "proposals_before_nms": [20, 10],
        "num_proposals": 16,
        "box_hidden_size": 16,
        "mask_convolutions": 1,
        "score_threshold": 0.0,
    },
    "pose": {name: value for name, value in BACKBONE.items() if name not in ("model_type", "out_indices")}
    | {"pose_hidden_sizes": [8, 8, 8], "image_size": [64, 64]},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = build_digit_pictures(tmp_path_factory.mktemp("pictures"), num_train=7, num_val=3)
    # of the first training picture nothing can be read
    (folder / "images" / "training" / "000000.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def fields(pictures, tmp_path):
    return {
        "data": str(pictures),
        "output_dir": str(tmp_path / "output"),
        "cpu": True,
        "num_workers": 0,
        "progress": False,
        "curves": False,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "log_every": 1,
        "bad_video_limit": 0.9,
        "flip": 0.5,
    }


def of_detection(fields):
    processor = {"size": {"shortest_edge": 96, "longest_edge": 128}}
    own = {"model_type": "uniformer_detector", "config": SMALL["detector"], "processor": processor}
    return fields | own | {"short_sides": [64, 96]}


def of_pose(fields):
    return fields | {"method": "pose", "model_type": "uniformer", "config": SMALL["pose"]}


def detection(fields, **more):
    return RunConfig.from_fields(**of_detection(fields) | more)


def pose(fields, **more):
    return RunConfig.from_fields(**of_pose(fields) | more)


def test_a_run_saves_a_detector_whose_scores_can_be_reproduced(fields, pictures, tmp_path):
    result = finetune(detection(fields, ema_decay=0.5))
    folder = result.output_dir
    saved = json.loads((folder / "results.json").read_text())
    assert saved["metrics"] == result.evaluation.metrics and {"box_AP", "mask_AP50"} <= saved["metrics"].keys()
    assert saved["data"] == str(pictures / "annotations" / "instances_validation.json") and saved["num_images"] == 3
    assert result.facts["num_bad_train_videos"] == 2  # once an epoch
    listed = (folder / "logs" / "bad_videos.rank0.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["000000.png"] * 2
    answers = json.loads((folder / "predictions.json").read_text())
    assert answers and all({"bbox", "segmentation", "score"} <= one.keys() for one in answers)
    validation = [line["validation"] for line in result.history if "validation" in line][-1]
    assert {name: validation[name] for name in saved["metrics"]} == pytest.approx(saved["metrics"])
    model = UniFormerForObjectDetection.from_pretrained(folder)
    assert [model.config.id2label[index] for index in range(4)] == ["0", "1", "2", "3"]
    again = reproduce(folder)
    assert again.confirmed and again.same_videos, (again.claimed, again.measured)
    words = ["evaluate", "--task", "object-detection", "--model", str(folder), "--data", str(pictures), "--cpu"]
    shown = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(shown.stdout)["metrics"] == pytest.approx(saved["metrics"]), shown.output
    # other labels: only what depends on them starts new
    other = build_digit_pictures(tmp_path, num_train=2, num_val=1, digits=(5, 6))
    method = method_of(detection({**fields, "data": str(other)}, checkpoint=str(folder), config={}))
    method.begin(Accelerator(cpu=True))
    ours, theirs = method.model.state_dict(), model.state_dict()
    fresh = {name for name, value in ours.items() if value.shape != theirs[name].shape}
    assert {name.split(".")[-2] for name in fresh} == {"classifier", "box"}
    assert all(
        torch.equal(ours[name], theirs[name]) for name in ours if ".classifier" not in name and ".box." not in name
    )


def test_a_picture_that_cannot_be_read_counts_as_missed(fields, pictures, tmp_path):
    config = detection(fields, eval_data=str(pictures), eval_split="train", max_train_samples=3, epochs=1)
    result = finetune(config)
    assert [one["id"] for one in result.evaluation.failed] == ["000000.png"] and result.evaluation.num_images == 7


def test_every_parameter_learns_and_previews_show_objects(fields):
    method = method_of(detection(fields))
    method.begin(Accelerator(cpu=True))
    task = method.task().train()
    batch = next(method.stream().epoch(0))
    outputs = task(method.prepare_batch(batch.rows, torch.device("cpu")))
    parts = [value for name, value in outputs.items() if name != "loss"]
    torch.testing.assert_close(outputs["loss"], torch.stack(parts).sum())
    outputs["loss"].backward()
    assert [name for name, value in task.named_parameters() if value.grad is None] == []
    previewed = list(method_of(detection(fields, flip=0.0)).preview(2))
    for one in previewed:
        assert sum(one.labels[0].values()) >= 1 and one.after[0].shape[-1] == 3
        assert (one.after[0] == [255, 255, 0]).all(-1).any()  # a yellow box


def test_a_run_saves_a_pose_model_whose_scores_can_be_reproduced(fields, pictures, tmp_path):
    result = finetune(pose(fields, rotation=20.0))
    folder = result.output_dir
    saved = json.loads((folder / "results.json").read_text())
    assert {"AP", "PCK"} <= saved["metrics"].keys() and "upper bound" in saved["boxes"]
    assert reproduce(folder).confirmed
    model = UniFormerForPoseEstimation.from_pretrained(folder)
    assert model.config.id2label[1] == "top_left" and saved["protocol"]["flip_test"]
    truth = json.loads((pictures / "annotations" / "keypoints_validation.json").read_text())
    found = [{"image_id": one["image_id"], "bbox": one["bbox"], "score": 0.5} for one in truth["annotations"]]
    (tmp_path / "people.json").write_text(json.dumps(found))
    words = ["evaluate", "--task", "keypoint-detection", "--model", str(folder), "--data", str(pictures), "--cpu"]
    shown = CliRunner().invoke(app, [*words, "--boxes", str(tmp_path / "people.json"), "--json"])
    answer = json.loads(shown.stdout)
    assert answer["boxes"] == "detected people" and "PCK" not in answer["metrics"]
    assert answer["metrics"]["AP"] == pytest.approx(saved["metrics"]["AP"])
    previewed = next(iter(method_of(pose(fields)).preview(1)))
    assert (previewed.after[0] == [255, 255, 0]).all(-1).any()
    wrong = {
        "keypoint-detection": "--boxes is needed",
        "object-detection": "UniFormerForPoseEstimation, which --task object-detection does not score",
        "semantic-segmentation": "UniFormerForPoseEstimation, which does not label pixels",
    }
    for task, message in wrong.items():
        refused = CliRunner().invoke(
            app, ["evaluate", "--model", str(folder), "--data", str(pictures), "--task", task]
        )
        assert refused.exit_code == 2 and message in " ".join(refused.output.split())
    nowhere = ["evaluate", "--model", "nowhere", "--data", str(pictures), "--task", "object-detection"]
    assert "there is no such folder" in " ".join(CliRunner().invoke(app, nowhere).output.split())


def test_a_pose_model_starts_from_a_classifier_of_images(fields, tmp_path):
    config = method_of(pose(fields)).describe()[0]
    classifier = UniFormerForImageClassification(config)
    classifier.save_pretrained(tmp_path / "start")
    method = method_of(pose(fields, checkpoint=str(tmp_path / "start"), config={"image_size": [64, 32]}))
    method.begin(Accelerator(cpu=True))
    assert method.processor.size == {"height": 64, "width": 32} and method.model.config.num_labels == 5
    theirs = classifier.uniformer.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in method.model.uniformer.state_dict().items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": None}, "`data` is needed"),
        ({"data": "nowhere"}, "`data` 'nowhere' does not exist"),
        ({"short_sides": [0]}, "`short_sides` must be positive"),
        ({"crop_scale": [0.5, 1.0]}, "`crop_scale` is not read by the method `object_detection`"),
    ],
)
def test_bad_fields_are_refused(fields, more, message):
    with pytest.raises(ValueError, match=message):
        method_of(detection(fields, **more)).checked_sources()


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(fields, pictures, tmp_path):
    fields = fields | {"batch_size": 2, "short_sides": [96], "flip": 0.0}
    detection(fields, output_dir=str(tmp_path / "two")).save(tmp_path / "recipe.yaml")
    launch("finetune.py", "--recipe", tmp_path / "recipe.yaml")
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert two["environment"]["processes"] == 2 and two["num_images"] == 3
    assert len(curve_of(tmp_path / "two")) == 4
    again = reproduce(tmp_path / "two")
    assert again.confirmed, (again.claimed, again.measured)


@pytest.mark.slow
@pytest.mark.parametrize("task", [detection, pose])
def test_a_resumed_run_is_the_uninterrupted_one(task, fields, tmp_path):
    check_that_a_resumed_run_is_the_uninterrupted_one(lambda **more: task(fields | more), tmp_path)


@pytest.mark.parametrize("name", ["detection", "pose"])
def test_plans_of_the_recipes_of_digits(name, pictures, tmp_path):
    words = ["--recipe", f"uniformer/digit_pictures_{name}", "--data", str(pictures), "--output_dir", str(tmp_path)]
    plan = plan_run(read_run(words, "classifier"), "classifier")
    assert plan.total_steps > 0
    assert (plan.data.splits, plan.data.evaluated_on) == (("training", "validation"), "of 'validation'")
    samples = {"detection": "images", "pose": "persons"}[name]
    rows = dict(plan.rows())
    assert {f"training {samples}", f"evaluation {samples}", f"{samples} per step"} <= rows.keys()
    assert not [row for row in plan.rows() if "clip" in " ".join(row)]


def test_a_saved_detector_is_a_detector_of_people(pictures, tmp_path):
    """`detect-actions` and `prepare` take a folder for `--detector`: one of ours with the label "person" as well."""
    torch.manual_seed(0)
    config = UniFormerDetectorConfig(**SMALL["detector"], id2label={0: "dog", 1: "person"})
    UniFormerForObjectDetection(config).save_pretrained(tmp_path)
    UniFormerDetectorImageProcessor(size={"shortest_edge": 96, "longest_edge": 128}).save_pretrained(tmp_path)
    image = Image.open(pictures / "images" / "validation" / "000000.png")
    ((boxes, scores),) = detect_people(person_detector(str(tmp_path)), [image], threshold=0.0)
    answers = [
        one
        for one in pipeline("object-detection", model=str(tmp_path))(image, threshold=0.0)
        if one["label"] == "person"
    ]
    assert len(boxes) == len(answers) > 0 and scores.tolist() == pytest.approx([one["score"] for one in answers])
    assert [list(map(int, box)) for box in boxes.tolist()] == [list(one["box"].values()) for one in answers]
    assert (boxes >= 0).all() and (boxes <= torch.tensor([128, 96, 128, 96])).all()
