"""Models in FiftyOne, with its database: labels, logits, embeddings, and lists of its data sets."""

import csv

import numpy as np
import pytest
from transformers import pipeline

from hf_videovit import get_video_features
from hf_videovit.training.data.opening import list_splits, open_source
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import (
    save_tiny_classifier,
    save_tiny_detector,
    save_tiny_localizer,
    tiny_classifier,
    tiny_config,
    tiny_processor,
)


pytestmark = pytest.mark.slow
fo = pytest.importorskip("fiftyone", reason="hf_videovit[fiftyone] is not installed")
LABELS = ("right", "left")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three clips with the truth, and one without, in FiftyOne's own database."""
    root = tmp_path_factory.mktemp("videos")
    samples = []
    for number in range(4):
        frames = moving_square_clip(LABELS[number % 2], num_frames=20, height=48, width=64, seed=number)
        sample = fo.Sample(str(write_clip(root / f"{number}.mp4", frames)), tags=["train" if number < 2 else "test"])
        sample["ground_truth"] = fo.Classification(label=LABELS[number % 2]) if number < 3 else None
        samples.append(sample)
    found = fo.Dataset()
    found.add_samples(samples, progress=False)
    yield found
    found.delete()


def model_of(folder, **options):
    from hf_videovit.inference.fiftyone_model import FiftyOneModel

    return FiftyOneModel(str(folder), device="cpu", **options)


def apply(model, samples, field, **options):
    samples.apply_model(model, label_field=field, skip_failures=False, progress=False, **options)


def test_classes_and_features_are_those_of_the_package(dataset, tmp_path):
    model = model_of(save_tiny_classifier(tmp_path / "model", num_clips=2), pooling="mean")
    apply(model, dataset, "prediction", store_logits=True)
    dataset.compute_embeddings(model, embeddings_field="embedding", skip_failures=False, progress=False)
    dataset.reload()
    paths = dataset.values("filepath")
    best = [found[0] for found in pipeline("video-classification", model=str(tmp_path / "model"), device="cpu")(paths)]
    assert dataset.values("prediction.label") == [one["label"] for one in best]
    assert dataset.values("prediction.confidence") == pytest.approx([one["score"] for one in best], abs=1e-5)
    processor = tiny_processor(num_clips=2)
    logits = tiny_classifier()(pixel_values=processor(paths[0], return_tensors="pt")["pixel_values"]).logits
    np.testing.assert_allclose(dataset.first().prediction.logits, logits[0].detach(), atol=1e-5)
    expected = get_video_features(tiny_classifier(), processor, paths, pooling="mean")
    np.testing.assert_allclose(np.stack(dataset.values("embedding")), expected, atol=1e-5)

    clips = dataset.limit(1).to_clips([[[5, 16]]], other_fields=["ground_truth"])
    embedded = clips.compute_embeddings(model, skip_failures=False, progress=False)
    part = {"path": paths[0], "start_frame": 4, "end_frame": 16}
    expected = get_video_features(tiny_classifier(), processor, [part], pooling="mean")
    np.testing.assert_allclose(embedded, expected, atol=1e-5)


def test_several_labels_and_no_labels(dataset, tmp_path):
    config = {"problem_type": "multi_label_classification"}
    model = model_of(save_tiny_classifier(tmp_path / "several", config=config), top_k=3)
    apply(model, dataset, "several", confidence_thresh=0.5)
    answers = pipeline("video-classification", model=str(tmp_path / "several"), device="cpu", top_k=3)(
        dataset.values("filepath")
    )
    expected = [[one["label"] for one in found if one["score"] >= 0.5] for found in answers]
    assert any(expected) and dataset.values("several.classifications.label") == expected

    tiny_classifier().base_model.save_pretrained(tmp_path / "encoder")
    tiny_processor().save_pretrained(tmp_path / "encoder")
    encoder = model_of(tmp_path / "encoder")
    embedded = dataset.compute_embeddings(encoder, skip_failures=False, progress=False)
    assert embedded.shape == (4, tiny_config().hidden_size)
    with pytest.raises(ValueError, match="an encoder without labels: use `compute_embeddings`"):
        apply(encoder, dataset, "nothing")
    with pytest.raises(ValueError, match="`options` must be empty for an encoder, got top_k"):
        model_of(tmp_path / "encoder", top_k=1)


def test_segments_and_people(dataset, tmp_path):
    path = dataset.first().filepath
    apply(model_of(save_tiny_localizer(tmp_path / "localizer"), top_k=4), dataset, "segments")
    answers = pipeline("temporal-action-localization", model=str(tmp_path / "localizer"), device="cpu")(path, top_k=4)
    found = dataset.first().segments.detections
    assert len(answers) == 4 and [one.label for one in found] == [one["label"] for one in answers]
    for one, answer in zip(found, answers):
        first, last = one.support
        assert 1 <= first <= last <= 20
        assert first - 1 == pytest.approx(max(answer["segment"]["start"] * 25, 0), abs=1)
        assert last == pytest.approx(min(answer["segment"]["end"] * 25, 20), abs=1)

    boxes = {0.2: [[16, 12, 48, 36]], 0.4: []}
    detector = model_of(save_tiny_detector(tmp_path / "detector"), boxes=boxes, threshold=0.0)
    apply(detector, dataset, "actions")
    frames = dataset.first().frames
    assert sorted(frames) == [6, 11] and not frames[11].actions.detections
    people = frames[6].actions.detections
    answer = pipeline("action-detection", model=str(tmp_path / "detector"), device="cpu")(
        path, boxes=boxes, threshold=0.0
    )
    assert [(one.label, one.confidence) for one in people] == [
        (one["label"], pytest.approx(one["score"], abs=1e-5)) for one in answer[0]["people"][0]["actions"]
    ]
    assert people[0].bounding_box == pytest.approx([0.25, 0.25, 0.5, 0.5], abs=1e-3)
    with pytest.raises(ValueError, match="must be whole videos for action-detection, got frames 5-16"):
        apply(detector, dataset.limit(1).to_clips([[[5, 16]]]), "parts")


def test_a_data_set_is_a_list_for_training(dataset, tmp_path):
    from hf_videovit.inference.fiftyone_model import save_list

    path = save_list(dataset, tmp_path / "clips.csv")
    assert list_splits(path) == ["test", "train"]
    source = open_source(path, "train")
    assert [sample.video for sample in source.share(0, 1, None, 0)] == dataset.values("filepath")[:2]
    assert [source.label_names[sample.label] for sample in source.share(0, 1, None, 0)] == ["right", "left"]
    assert open_source(path, "test").num_samples == 1  # the fourth clip has no label

    sample = dataset.first()
    sample["events"] = fo.TemporalDetections(
        detections=[fo.TemporalDetection(label="a", support=[1, 8]), fo.TemporalDetection(label="b", support=[9, 20])]
    )
    sample.save()
    dataset.untag_samples("train")
    parts = save_list(dataset.to_clips("events"), tmp_path / "parts.csv", label_field="events")
    with parts.open(newline="") as file:
        assert [list(row.values())[1:] for row in csv.DictReader(file)] == [["a", "0", "8"], ["b", "8", "20"]]
    assert [sample.video for sample in open_source(parts).share(0, 1, None, 0)][1] == {
        "path": sample.filepath,
        "start_frame": 8,
        "end_frame": 20,
    }

    with pytest.raises(ValueError, match="`path` must be a new file NAME.csv"):
        save_list(dataset, path)
    with pytest.raises(ValueError, match="`label_field` must be a field with a Classification, got 'other'"):
        save_list(dataset, tmp_path / "other.csv", label_field="other")
