"""Clips with any number of labels, from the file to the pipeline."""

import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForVideoClassification, pipeline

from hf_videovit.hub.cards import write_model_card
from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_model
from hf_videovit.training.data.augmentation import BatchMixing, MixingArguments
from hf_videovit.training.data.loaders import label_tensor
from hf_videovit.training.data.opening import match_labels, open_source
from hf_videovit.training.data.sources import VideoList, manifest_hash
from hf_videovit.training.evaluation.evaluation import evaluate_model
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.tasks import ClassificationTask
from tests.clips import STEPS


NAMES = ["down", "horizontal", "left", "right", "up", "vertical"]
AXES = {"left": "horizontal", "right": "horizontal", "up": "vertical", "down": "vertical"}


def labels_of(clip):
    direction = clip.parent.name
    return [] if clip.name == "clip 0.mp4" else [direction, AXES[direction]]


def named(source):
    return [[source.label_names[label] for label in sample.label] for sample in source]


@pytest.fixture(scope="module")
def lists(clip_folder, tmp_path_factory):
    """`train.jsonl` and `val.jsonl`: each clip has a direction and its axis, the first of each class has no label."""
    folder = tmp_path_factory.mktemp("lists")
    for split in ("train", "val"):
        clips = sorted((clip_folder / split).rglob("*.mp4"))
        rows = [json.dumps({"video": str(clip), "labels": labels_of(clip)}) for clip in clips]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    return folder


def write_shards(folder, clips, kind):
    folder.mkdir()
    if kind == "parquet":
        rows = [{"video": {"path": one.name, "bytes": one.read_bytes()}, "labels": labels_of(one)} for one in clips]
        pq.write_table(pa.Table.from_pylist(rows), folder / "train-0.parquet")
        return
    with tarfile.open(folder / "train-0.tar", "w") as archive:
        for index, clip in enumerate(clips):
            text = json.dumps({"label": labels_of(clip)}) if kind == "tar" else " + ".join(labels_of(clip))
            (folder / "label").write_text(text)
            archive.add(clip, f"{index:03d}.mp4")
            archive.add(folder / "label", f"{index:03d}.{'json' if kind == 'tar' else 'txt'}")


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "tar", "tar with a separator"])
def test_every_form_of_data_may_have_several_labels(clip_folder, tmp_path, kind):
    clips = sorted((clip_folder / "val").rglob("*.mp4"))[::-1]
    options = {}
    if kind in ("csv", "json", "jsonl"):
        rows = [{"file": str(clip), "labels": labels_of(clip)} for clip in clips]
        lines = ["file,labels", *(f"{row['file']},{'|'.join(row['labels'])}" for row in rows)]
        text = {"csv": "\n".join(lines), "json": json.dumps(rows), "jsonl": "\n".join(map(json.dumps, rows))}[kind]
        (tmp_path / f"clips.{kind}").write_text(text)
        source = open_source(tmp_path / f"clips.{kind}", label_separator="|" if kind == "csv" else None)
    else:
        write_shards(tmp_path / "train", clips, kind)
        options = {"label_separator": "+"} if "separator" in kind else {}
        source = open_source(tmp_path, "train", **options)
    assert source.multi_label and source.label_names == NAMES
    assert named(source) == [labels_of(clip) for clip in clips]
    turned = match_labels(source, dict(enumerate([*NAMES[::-1], "more"])))
    assert turned.multi_label and named(turned) == named(source)


def test_labels_may_be_numbers_and_are_counted_once(tmp_path):
    (tmp_path / "clips.json").write_text(json.dumps([{"file": "a", "label": [1, 0, 1]}, {"file": "b", "label": []}]))
    source = open_source(tmp_path / "clips.json", label_names=["jump", "fall"])
    assert [sample.label for sample in source] == [(1, 0), ()]
    with pytest.raises(ValueError, match="Label 1 is out of range for 1 `label_names`"):
        open_source(tmp_path / "clips.json", label_names=["jump"])


def test_holding_out_goes_by_the_rarest_label():
    names = [f"{index}.mp4" for index in range(40)]
    labels = [(0,) if index % 4 else (0, 1) for index in range(40)]
    rest, held_out = VideoList(names, names, labels, ["common", "rare"]).split(0.2)
    assert held_out.label_counts() == {"common": 8, "rare": 2}
    assert rest.label_counts() == {"common": 32, "rare": 8}
    assert rest.multi_label and rest[0].label in ((0,), (0, 1))


def test_manifest_hash_knows_every_label():
    names = ["a", "b"]
    hashes = {manifest_hash([("x", label)], names) for label in (None, 0, 1, (0, 1), (1, 0))}
    assert len(hashes) == 5
    assert manifest_hash([("x", 0), ("y", 1)], names) == manifest_hash([("y", 1), ("x", 0)], names)


def test_label_tensors():
    assert label_tensor((2, 0), 3).tolist() == [1, 0, 1]
    assert label_tensor(1, 3).tolist() == [0, 1, 0]
    assert label_tensor((), 2).tolist() == [0, 0]
    assert label_tensor(None, 2).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="`label` must be one index"):
        label_tensor((0, 1))


def tiny_model(tiny_fields, names=NAMES, multi_label=True, **arguments):
    arguments = ModelArguments(config=tiny_fields["config"], processor=tiny_fields["processor"], **arguments)
    return build_model(arguments, names, multi_label)


def test_the_task_has_the_models_own_loss_also_of_mixed_clips(tiny_fields):
    torch.manual_seed(0)
    model, _ = tiny_model(tiny_fields)
    model.eval()
    clips, labels = torch.randn(4, 4, 3, 32, 32), (torch.rand(4, 6) > 0.5).float()
    outputs = ClassificationTask(model)({"pixel_values": clips, "labels": labels})
    assert outputs["loss"].item() == pytest.approx(model(pixel_values=clips, labels=labels).loss.item())
    mixed, soft = BatchMixing(MixingArguments(mixup=0.8, cutmix=1.0), 6)(clips, labels)
    assert soft.shape == (4, 6) and soft.min() >= 0 and soft.max() <= 1
    smoothed = ClassificationTask(model, 0.2)({"pixel_values": mixed, "labels": soft})["loss"].item()
    logits = model(pixel_values=mixed).logits
    assert smoothed == pytest.approx(F.binary_cross_entropy_with_logits(logits, 0.8 * soft + 0.1).item())


def test_views_are_merged_as_probabilities_of_each_label(tiny_fields):
    model, _ = tiny_model(tiny_fields)
    model.config.view_merging = "softmax_mean"
    views = torch.randn(2, 3, 4, 3, 32, 32)
    with torch.no_grad():
        merged = model.eval()(pixel_values=views).logits.sigmoid()
        single = torch.stack([model(pixel_values=views[:, view]).logits.sigmoid() for view in range(3)]).mean(dim=0)
    torch.testing.assert_close(merged, single)


def test_finetuned_from_lists_to_the_pipeline(tiny_fields, lists):
    fields = tiny_fields | {
        "data": str(lists),
        "mixup": 0.8,
        "label_smoothing": 0.1,
        "num_sample": 2,
        "keep_best": True,
    }
    result = finetune(RunConfig.from_fields(**fields))
    folder = result.output_dir
    model = AutoModelForVideoClassification.from_pretrained(folder)
    assert model.config.problem_type == "multi_label_classification"
    assert result.facts["label_names"] == NAMES == list(model.config.id2label.values())
    saved = json.loads((folder / "results.json").read_text())
    assert set(saved["metrics"]) == {"mAP", "mAP_weighted"}
    assert {row["label"]: row["videos"] for row in saved["per_class"]}["horizontal"] == 2
    assert [set(row) for row in saved["per_class"]] == [{"label", "videos", "average_precision"}] * 6
    assert np.mean([row["average_precision"] for row in saved["per_class"]]) == pytest.approx(saved["metrics"]["mAP"])
    assert any("mAP" in line.get("validation", {}) for line in result.history), result.history
    assert result.evaluation.labels.sum(axis=1).tolist() == [0, 2] * 4
    classify = pipeline("video-classification", model=str(folder))
    for name, probabilities in zip(result.evaluation.ids, result.evaluation.probabilities):
        scores = {row["label"]: row["score"] for row in classify(name, top_k=None)}
        assert scores == pytest.approx(dict(zip(NAMES, map(float, probabilities))), abs=1e-6)
    rows = result.evaluation.predictions()
    assert all(isinstance(row["prediction"], list) and len(row["label"]) in (0, 2) for row in rows)
    with pytest.raises(ValueError, match="Multi-label data has no confusion matrix"):
        result.evaluation.save_confusion_matrix(folder / "confusion.csv")
    card = write_model_card(folder, facts=result.facts).read_text()
    assert "mean average precision" in card and "any number of 6 labels" in card


def test_heads_of_another_kind_are_not_kept(tiny_fields, lists, tmp_path):
    model, processor = tiny_model(tiny_fields, multi_label=False)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    fields = tiny_fields | {"config": {}}
    started, _ = tiny_model(fields, checkpoint=str(tmp_path))
    assert started.config.problem_type == "multi_label_classification"
    assert not torch.equal(started.classifier.weight, model.classifier.weight)
    with pytest.raises(ValueError, match="has any number of labels, the checkpoint's head predicts one label"):
        tiny_model(fields, checkpoint=str(tmp_path), head="keep")
    with pytest.raises(ValueError, match="`problem_type` of the model must be 'multi_label_classification'"):
        evaluate_model(model, processor, open_source(lists, "val"))
    kept, _ = tiny_model(fields, multi_label=False, checkpoint=str(tmp_path))
    assert torch.equal(kept.classifier.weight, model.classifier.weight)


def test_one_label_a_clip_can_be_asked_of_a_multi_label_model(tiny_fields, clip_folder):
    model, processor = tiny_model(tiny_fields, sorted(STEPS))
    result = evaluate_model(model, processor, open_source(clip_folder, "val"))
    assert result.labels.sum(axis=1).tolist() == [1] * 8
    assert set(result.metrics) == {"mAP", "mAP_weighted"}
