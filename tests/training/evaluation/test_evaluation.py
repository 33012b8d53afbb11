import copy
import csv
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from hf_videovit import VideoMAEV2Config, VideoMAEV2ForVideoClassification, VideoMAEV2VideoProcessor
from hf_videovit.training.data.opening import open_source
from hf_videovit.training.data.sources import Sample, manifest_hash
from hf_videovit.training.evaluation.evaluation import evaluate_model
from hf_videovit.training.evaluation.metrics import score
from tests.clips import STEPS


NAMES = ["up", "left", "down", "right"]  # not the data's order


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = VideoMAEV2Config(**fields, image_size=32, num_frames=4, classifier_init_scale=1.0)
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: index for index, name in enumerate(NAMES)}
    return VideoMAEV2ForVideoClassification(config).eval()


def make_processor(**fields):
    fields = {"num_frames": 4, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}} | fields
    return VideoMAEV2VideoProcessor(frame_stride=2, **fields)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("views", [{}, {"num_clips": 2, "num_crops": 3, "size": {"shortest_edge": 40}}])
def test_logits_are_those_of_a_direct_call_to_the_last_bit(model, clip_folder, num_workers, views):
    processor = make_processor(**views)
    result = evaluate_model(model, processor, open_source(clip_folder, "val"), num_workers=num_workers)
    for name, logits in zip(result.ids, result.logits):
        with torch.no_grad():
            direct = model(**processor(str(clip_folder / "val" / name), return_tensors="pt")).logits[0]
        assert np.array_equal(logits, direct.numpy())


def test_pipeline_gives_the_same_scores(model, clip_folder, tmp_path):
    from transformers import pipeline

    model.save_pretrained(tmp_path)
    make_processor(num_clips=2).save_pretrained(tmp_path)
    classify = pipeline("video-classification", model=str(tmp_path))
    result = evaluate_model(model, make_processor(num_clips=2), open_source(clip_folder, "val"))
    for name, probabilities in zip(result.ids, result.probabilities):
        scores = {row["label"]: row["score"] for row in classify(str(clip_folder / "val" / name), top_k=4)}
        assert scores == {label: float(score) for label, score in zip(NAMES, probabilities)}


def test_batches_change_logits_only_within_float_error(model, clip_folder):
    source = open_source(clip_folder, "val")
    single, batched = (evaluate_model(model, make_processor(), source, batch_size=size) for size in (1, 3))
    assert single.ids == batched.ids
    np.testing.assert_allclose(single.logits, batched.logits, atol=1e-5)


def test_a_model_in_training_is_asked_without_dropout_and_goes_on_training(model, clip_folder):
    source = open_source(clip_folder, "val")
    expected = evaluate_model(model, make_processor(), source)
    trained = VideoMAEV2ForVideoClassification(copy.deepcopy(model.config)).train()
    trained.load_state_dict(model.state_dict())
    for module in trained.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda module, inputs: nn.functional.dropout(inputs[0], 0.5, module.training)
            )
    assert np.array_equal(evaluate_model(trained, make_processor(), source).logits, expected.logits)
    assert all(module.training for module in trained.modules())


def test_scores_with_more_than_five_classes_have_top5():
    logits = np.tile(np.arange(7.0), (4, 1))  # class 6 comes first, class 0 last
    metrics = score(logits, np.array([6, 2, 1, 0]))
    assert metrics == {"top1": 1 / 4, "top5": 2 / 4, "mean_class_accuracy": 1 / 4}
    assert "top5" not in score(logits[:, :5], np.array([4, 2, 1, 0]))


def test_labels_are_the_models_own_matched_by_name(model, clip_folder):
    result = evaluate_model(model, make_processor(), open_source(clip_folder, "val"))
    assert [NAMES[label] for label in result.labels] == [name.split("/")[0] for name in result.ids]
    right = result.logits.argmax(axis=1) == result.labels
    assert result.metrics["top1"] == right.mean()
    assert set(result.metrics) == {"top1", "mean_class_accuracy"}


def test_labels_of_another_data_set_are_refused(model, clip_folder, tmp_path):
    (tmp_path / "sideways").mkdir()
    clip = next((clip_folder / "val" / "up").iterdir())
    (tmp_path / "sideways" / "a.mp4").write_bytes(clip.read_bytes())
    with pytest.raises(ValueError, match="'sideways'; the model has 'up', 'left', 'down', 'right'"):
        evaluate_model(model, make_processor(), open_source(tmp_path))


def test_unreadable_videos_are_reported_and_never_replaced(model, clip_folder, tmp_path):
    clips = sorted((clip_folder / "val" / "up").iterdir())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clips[0].read_bytes()[:200])
    samples = [("good", str(clips[0]), 0), ("broken", str(broken), 0), ("gone", str(tmp_path / "no.mp4"), 1)]
    result = evaluate_model(model, make_processor(), samples, batch_size=2)
    assert result.ids == ["good"]
    assert [failure["id"] for failure in result.failed] == ["broken", "gone"]
    assert result.failed[1]["kind"] == "missing"
    assert all(failure["reason"] for failure in result.failed)


def test_result_file_says_how_and_with_what(model, clip_folder, tmp_path):
    result = evaluate_model(model, make_processor(num_clips=2), open_source(clip_folder, "val"))
    result.save(tmp_path / "results.json", seed=3)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["seed"] == 3
    assert saved["metrics"] == result.metrics
    assert (saved["num_videos"], saved["num_failed"]) == (8, 0)
    assert {key: saved["protocol"][key] for key in ("num_clips", "num_crops", "num_frames", "view_merging")} == {
        "num_clips": 2,
        "num_crops": 1,
        "num_frames": 4,
        "view_merging": "softmax_mean",
    }
    assert saved["environment"]["decoders"]["pyav"]["ffmpeg"]
    decoder = saved["environment"]["decoder"]
    assert decoder == {"name": "pyav", "policy": "strict", **saved["environment"]["decoders"]["pyav"]}
    assert saved["environment"]["command"]
    assert Image.open(tmp_path / "results_confusion.png").size[0] > 100
    assert saved["environment"]["packages"]["transformers"]
    assert len(saved["manifest_sha256"]) == 64
    result.save_predictions(tmp_path / "predictions.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == result.ids
    assert all(row["prediction"] in STEPS and row["label"] in STEPS for row in rows)


def test_result_says_what_each_class_is_taken_for(model, clip_folder, tmp_path):
    result = evaluate_model(model, make_processor(), open_source(clip_folder, "val"))
    result.save(tmp_path / "results.json")
    saved = json.loads((tmp_path / "results.json").read_text())
    result.save_confusion_matrix(tmp_path / "confusion.csv")
    header, *rows = list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines()))
    assert header[1:] == [row[0] for row in rows] == NAMES
    matrix = np.array([row[1:] for row in rows], int)
    assert matrix.sum(axis=1).tolist() == [2, 2, 2, 2]
    assert np.trace(matrix) / 8 == result.metrics["top1"]
    assert [row["label"] for row in saved["per_class"]] == NAMES
    assert np.mean([row["accuracy"] for row in saved["per_class"]]) == result.metrics["mean_class_accuracy"]
    for row, counts in zip(saved["per_class"], matrix):
        taken_for = None if row["taken_for"] is None else NAMES.index(row["taken_for"])
        assert taken_for is None and row["accuracy"] == 1 or counts[taken_for] > 0
    assert score(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1, 0], [1, 1]]))["mAP"] == 1.0


def test_table_of_classes_has_the_worst_first(model, clip_folder):
    result = evaluate_model(model, make_processor(), open_source(clip_folder, "val"))
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(result.table(max_classes=3))
    lines = console.export_text().splitlines()
    shares = [float(line.rpartition(" %")[0].split()[-1]) for line in lines if " %" in line]
    assert len(shares) == 3 and shares == sorted(shares)
    assert "the 3 worst of 4 classes" in lines[-1]


def test_results_do_not_depend_on_how_the_data_is_stored(model, clip_folder, tmp_path):
    """Shards of uneven size, as one process and as two read them, and the same labels in another order."""
    processor = make_processor()
    for index, clips in enumerate(np.array_split(sorted((clip_folder / "val").rglob("*.mp4")), [5])):
        with tarfile.open(tmp_path / f"{index}.tar", "w") as archive:
            for number, clip in enumerate(clips):
                (tmp_path / "label").write_text(clip.parent.name)
                archive.add(clip, f"{number}.mp4")
                archive.add(tmp_path / "label", f"{number}.txt")
    source = open_source(tmp_path / "*.tar")
    assert [source.share_size(rank, 2) for rank in (0, 1)] == [5, 3]
    places = {}
    for rank in (0, 1):
        for position, sample in enumerate(source.share(rank, 2, None, 0)):
            places[source.place(position, rank, 2)] = sample.id
    alone = evaluate_model(model, processor, source)
    assert [places[place] for place in range(8)] == alone.ids
    other = evaluate_model(model, processor, open_source(tmp_path / "*.tar", label_names=sorted(STEPS)[::-1]))
    assert other.manifest == alone.manifest
    listed = evaluate_model(model, processor, open_source(clip_folder, "val"))
    assert np.array_equal(listed.logits, alone.logits) and listed.metrics == alone.metrics


def test_unreadable_videos_count_in_the_manifest_and_keep_their_label(model, clip_folder, tmp_path):
    good = next((clip_folder / "val" / "up").iterdir())
    samples = [("good", str(good), 0), ("gone", str(tmp_path / "no.mp4"), 1)]
    result = evaluate_model(model, make_processor(), samples)
    assert result.failed[0]["label"] == ["left"]
    assert result.manifest == manifest_hash([("good", 0), ("gone", 1)], NAMES)
    assert result.manifest != evaluate_model(model, make_processor(), samples[:1]).manifest


def test_videos_without_a_label_among_others_are_not_scored(model, clip_folder):
    clips = sorted((clip_folder / "val").rglob("*.mp4"))
    samples = [(clip.name + clip.parent.name, str(clip), NAMES.index(clip.parent.name)) for clip in clips]
    scored = evaluate_model(model, make_processor(), samples)
    with_others = evaluate_model(model, make_processor(), [*samples, ("unlabelled", str(clips[0]), None)])
    assert with_others.metrics == scored.metrics
    assert with_others.per_class() == scored.per_class()
    assert "label" not in with_others.predictions()[-1]


def test_videos_without_labels_are_answered_but_not_scored(model, clip_folder):
    clips = sorted((clip_folder / "val" / "up").iterdir())
    result = evaluate_model(model, make_processor(), [Sample(clip.name, clip.read_bytes(), None) for clip in clips])
    assert result.labels is None
    assert result.metrics == {}
    assert [row["id"] for row in result.predictions()] == [clip.name for clip in clips]
    with pytest.raises(ValueError, match="label of sample 'a' must be from 0 to 3, got 4"):
        evaluate_model(model, make_processor(), [("a", clips[0], 4)])
