"""Training of action detection on generated scenes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoVideoProcessor

from hf_videovit import AutoModelForActionDetection, VideoMAEV2Config, VideoMAEV2ForVideoClassification
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.box_augmentation import BoxAugmentation
from hf_videovit.training.data.key_frame_source import KeyFrameClipLoader, open_key_frames
from hf_videovit.training.data.key_frames import read_key_frames, write_key_frames
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.data.streaming import Batch
from hf_videovit.training.defaults import read_run
from hf_videovit.training.evaluation.action_detection import evaluate_action_detection
from hf_videovit.training.methods.choosing import finetune, method_of
from hf_videovit.training.planning import plan_run
from hf_videovit.training.preparing.action_scenes import build_digit_scenes
from hf_videovit.training.tasks import ActionDetectionTask
from tests.training.engine.test_two_processes import curve_of, launch


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """7 and 3 scenes of four digits."""
    return build_digit_scenes(tmp_path_factory.mktemp("scenes"), num_train=7, num_val=3)


@pytest.fixture
def detection_fields(tiny_fields, scenes) -> dict:
    own = {"method": "action_detection", "data": str(scenes), "epochs": 2}
    config = tiny_fields["config"] | {"image_size": [96, 128], "drop_path_rate": 0.0}
    fields = {name: value for name, value in tiny_fields.items() if name != "crop_scale"}
    return fields | own | {"config": config, "processor": {"frame_stride": 3, "size": {"shortest_edge": 96}}}


def uneven(scenes, folder):
    """The training key-frames with 4, 1, 3, 0, 2, 4 and 1 people, and one of a video that does not exist."""
    rows = read_key_frames(scenes / "train.jsonl").rows
    kept = [row.select(range(count)) for row, count in zip(rows, (4, 1, 3, 0, 2, 4, 1))]
    kept.append(replace(rows[0], video="gone.mp4"))
    folder.mkdir(exist_ok=True)
    (folder / "labels.json").write_bytes((scenes / "labels.json").read_bytes())
    return write_key_frames(folder / "train.jsonl", kept)


def test_a_run_saves_a_detector_whose_scores_can_be_reproduced(detection_fields, scenes):
    fields = detection_fields | {"keep_best": True, "best_metric": "mAP", "max_eval_samples": 2}
    result = finetune(RunConfig.from_fields(**fields))
    folder = result.output_dir
    saved = json.loads((folder / "results.json").read_text())
    assert saved["metrics"] == result.evaluation.metrics and 0 < saved["metrics"]["mAP"] <= 1
    assert "upper bound" in saved["boxes"] and (saved["num_key_frames"], saved["num_boxes"]) == (2, 8)
    assert [row["label"] for row in saved["per_class"]] == ["right", "left", "down", "up"]
    lines = (folder / "predictions.csv").read_text().splitlines()
    assert len(lines) == 2 * 4 * 4 and {line.split(",")[6] for line in lines} == {"1", "2", "3", "4"}
    validations = [line["validation"]["mAP"] for line in result.history if "validation" in line]
    assert len(validations) == 2
    model = AutoModelForActionDetection.from_pretrained(folder)
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert (processor.do_center_crop, processor.pad_multiple) == (False, 16)
    truth = open_key_frames(scenes / "val.jsonl").sample(2, 0)
    again = evaluate_action_detection(model, processor, truth)
    assert again.metrics["mAP"] == pytest.approx(max(validations), abs=1e-6)


def test_people_less_key_frames_and_missing_videos_are_left_out_and_listed(detection_fields, scenes, tmp_path):
    path = uneven(scenes, tmp_path / "uneven")
    fields = detection_fields | {"data": str(path), "data_root": str(scenes), "epochs": 1}
    method = method_of(RunConfig.from_fields(**fields))
    train, evaluated = method.checked_sources()
    assert (train.num_samples, evaluated) == (6, None)
    assert train.missing == {"gone.mp4": 1}
    assert any("1 training key-frames without people" in remark for remark in train.remarks)
    result = finetune(RunConfig.from_fields(**fields))
    listed = json.loads((result.output_dir / "logs" / "missing_videos.json").read_text())
    assert listed["train"] == {"gone.mp4": 1}
    assert result.facts["num_train_videos"] == 6


def test_excluded_key_frames_are_left_out(detection_fields, tmp_path):
    (tmp_path / "excluded.csv").write_text("000002,0900\n000004,0900\n000005,0901\n")
    own = {"train_excluded": str(tmp_path / "excluded.csv"), "offset": 900.0}
    train, _ = method_of(RunConfig.from_fields(**detection_fields | own)).checked_sources()
    assert [row.video.rpartition("/")[2][:6] for row in train.rows] == [
        "000000",
        "000001",
        "000003",
        "000005",
        "000006",
    ]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_go_with_the_pixels_and_labels_with_the_boxes(scenes, detection_fields, flip):
    source = open_key_frames(scenes / "train.jsonl")
    method = method_of(RunConfig.from_fields(**detection_fields))
    _, processor = method.describe()
    sample = next(source.share(0, 1, None, 0))
    record = Record(sample, 0, 0)
    augmentation = BoxAugmentation((96, 128), 0, 0, 0, flip)
    rows = KeyFrameClipLoader(processor, augmentation, source.label_names, 0, 6)(record)
    expected = torch.from_numpy(sample.row.boxes).float()
    if flip:
        expected = torch.stack([128 - expected[:, 2], expected[:, 1], 128 - expected[:, 0], expected[:, 3]], dim=1)
    torch.testing.assert_close(rows["boxes"][:4], expected)
    assert rows["box_mask"].tolist() == [True] * 4 + [False] * 2
    names = [[source.label_names[index] for index in row.nonzero().flatten()] for row in rows["labels"][:4]]
    assert names == list(map(list, sample.row.labels))
    assert not rows["labels"][4:].any()
    few = KeyFrameClipLoader(processor, augmentation, source.label_names, 0, 2)(record)
    for box, label in zip(few["boxes"], few["labels"]):
        place = (rows["boxes"][:4] == box).all(dim=1).nonzero().item()
        assert torch.equal(rows["labels"][place], label)


def test_a_classifier_becomes_a_detector(detection_fields, scenes, tmp_path):
    config = VideoMAEV2Config(**detection_fields["config"], num_labels=7)
    classifier = VideoMAEV2ForVideoClassification(config)
    classifier.save_pretrained(tmp_path / "classifier")
    fields = detection_fields | {"checkpoint": str(tmp_path / "classifier"), "config": {}}
    method = method_of(RunConfig.from_fields(**fields))
    method.train_source, _ = method.checked_sources()
    model, processor = method.build()
    assert list(model.config.id2label.values()) == ["right", "left", "down", "up"]
    assert model.config.problem_type == "multi_label_classification" and not processor.do_center_crop
    theirs = classifier.state_dict()
    shared = [name for name in model.state_dict() if ".layers." in name or ".layer." in name or "blocks" in name]
    assert shared and all(torch.equal(model.state_dict()[name], theirs[name]) for name in shared)


def test_unlabelled_data_and_other_sources_are_refused(detection_fields, scenes, tmp_path):
    rows = read_key_frames(scenes / "train.jsonl").rows
    bare = write_key_frames(tmp_path / "train.jsonl", [replace(row, labels=((),) * 4) for row in rows])
    fields = detection_fields | {"data": str(bare), "data_root": str(scenes), "label_names": ["a", "b"]}
    with pytest.raises(ValueError, match="has no labels"):
        method_of(RunConfig.from_fields(**fields)).checked_sources()
    with pytest.raises(ValueError, match="train.jsonl"):
        method_of(RunConfig.from_fields(**detection_fields | {"data": str(scenes / "train")})).checked_sources()
    with pytest.raises(ValueError, match="`person_threshold` is not read"):
        method_of(RunConfig.from_fields(**detection_fields | {"person_threshold": 0.5}))
    with pytest.raises(ValueError, match="`crop_scale` is not read"):
        method_of(RunConfig.from_fields(**detection_fields | {"crop_scale": [0.5, 1.0]}))


def test_plan_and_preview(detection_fields):
    config = RunConfig.from_fields(**detection_fields)
    plan_run(config, "classifier")
    shown = next(method_of(config).preview(2))
    assert shown.before.shape == (4, 96, 128, 3) and shown.after[0].shape == (4, 96, 128, 3)
    yellow = (shown.after[0] == [255, 255, 0]).all(axis=-1)
    assert yellow[0].sum() > 50 and set(shown.labels[0]) == {"right", "left", "down", "up"}


@pytest.mark.parametrize(
    ("reduction", "skips"), [("sum_over_boxes", False), ("mean", False), ("mean_over_boxes", True)]
)
def test_the_loss_does_not_depend_on_how_a_batch_is_divided(detection_fields, reduction, skips):
    """Clips with 3, 1, 0 and 2 boxes at once, or as two batches weighted by `count`."""
    torch.manual_seed(0)
    config = VideoMAEV2Config(
        **detection_fields["config"],
        num_labels=5,
        detection_config={
            "loss_reduction": reduction,
            "ignore_unlabelled_boxes": skips,
            "box_jitter": [0.0, 0.0, 0.0, 0.0],
            "head_init_std": 1.0,
        },
    )
    task = ActionDetectionTask(AutoModelForActionDetection.from_config(config)).eval()
    boxes = torch.rand(4, 3, 4) * 40
    boxes[..., 2:] += 45
    rows = {"pixel_values": torch.randn(4, 4, 3, 96, 128), "boxes": boxes}
    rows["box_mask"] = torch.arange(3) < torch.tensor([3, 1, 0, 2])[:, None]
    rows["labels"] = (torch.rand(4, 3, 5) > 0.5).float() * rows["box_mask"][..., None]
    rows["labels"][0, 1] = 0

    def part(start, end):
        batch = {name: value[start:end] for name, value in rows.items()}
        loss = task(batch)["loss"]
        return loss, task.count(Batch(batch, ["id"] * (end - start), list(range(end - start))))

    whole, count = part(0, 4)
    (first, some), (second, others) = part(0, 1), part(1, 4)
    assert some + others == count == {"sum_over_boxes": 4, "mean": 6, "mean_over_boxes": 5}[reduction]
    torch.testing.assert_close((first * some + second * others) / count, whole)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["sum_over_boxes", "mean"])
def test_two_processes_train_like_one_with_uneven_boxes(detection_fields, scenes, tmp_path, reduction):
    path = uneven(scenes, tmp_path / "uneven")
    head = {"loss_reduction": reduction, "box_jitter": [0.0] * 4, "head_init_std": 0.5}
    fields = detection_fields | {"data": str(path), "data_root": str(scenes), "eval_data": str(scenes / "val.jsonl")}
    fields |= {"batch_size": 2, "config": fields["config"] | {"detection_config": head}}
    two = RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "two")})
    two.save(tmp_path / "recipe.yaml")
    launch("finetune.py", "--recipe", tmp_path / "recipe.yaml")
    alone = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "one"), "batch_size": 4}))
    for key, tolerance in (("loss", 1e-5), ("grad_norm", 1e-4)):
        assert curve_of(tmp_path / "two", key) == pytest.approx(curve_of(alone.output_dir, key), rel=tolerance)
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["num_key_frames"] == 3 and results["environment"]["processes"] == 2
    assert results["metrics"]["mAP"] == pytest.approx(alone.evaluation.metrics["mAP"], abs=1e-4)


def test_a_box_outside_the_crop_stays_at_its_edge():
    clip = torch.zeros(1, 3, 40, 80, dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0.0, 5.0, 5.0], [70.0, 30.0, 80.0, 40.0]])
    cropped, moved = BoxAugmentation((40, 30), 0, 0, 0, 0.0)(clip, boxes, np.random.default_rng(1))
    assert cropped.shape[-2:] == (40, 30)
    assert moved.min() >= 0 and moved[:, 2].max() <= 30


def test_controls_see_no_boxes_or_no_motion(detection_fields, scenes):
    fields = detection_fields
    whole = method_of(RunConfig.from_fields(**fields | {"control": "whole_frame"}))
    whole.train_source, _ = whole.checked_sources()
    model, _ = whole.build()
    boxes, sizes = torch.tensor([[[8.0, 9.0, 30.0, 40.0], [90.0, 50.0, 110.0, 70.0]]]), torch.tensor([[96, 128]])
    for mode in (model.train(), model.eval()):
        read = mode.proposals(boxes, sizes)
        torch.testing.assert_close(read, torch.tensor([[[0.0, 0.0, 128.0, 96.0]] * 2]), atol=3.0, rtol=0.0)
    still = method_of(RunConfig.from_fields(**fields | {"control": "one_frame"}))
    _, processor = still.describe()
    video = next(iter(open_key_frames(scenes / "val.jsonl"))).row
    clip = processor.load_key_frames(video.video, [video.time])[0]
    assert len(clip) == 4 and all(torch.equal(frame, clip[0]) for frame in clip)
    moving = method_of(RunConfig.from_fields(**fields)).describe()[1].load_key_frames(video.video, [video.time])[0]
    assert not torch.equal(moving[0], moving[-1])


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_run_without_a_recipe(detection_fields, scenes, tmp_path, checkpoint):
    words = ["--method", "action_detection", "--data", str(scenes), "--output_dir", str(tmp_path / "out")]
    if checkpoint:
        VideoMAEV2ForVideoClassification(VideoMAEV2Config.from_size("small")).save_pretrained(tmp_path / "start")
        words += ["--checkpoint", str(tmp_path / "start")]
    config = read_run(words, "classifier")
    method = method_of(config, "classifier")
    assert method.name == "action_detection" and method.describe()[0].detection_config is not None
