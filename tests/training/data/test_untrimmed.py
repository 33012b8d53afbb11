"""ActivityNet's annotations as data for classification: segments to train on, whole videos to evaluate on."""

import json

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_videovit.published import published_processor_kwargs
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.opening import load_sources
from hf_videovit.training.defaults import read_run
from hf_videovit.training.methods.choosing import finetune
from tests.clips import STEPS, moving_square_clip, write_clip
from tests.families import FAMILIES


LABELS = list(STEPS)[:2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos of 6 s; the second half of each is the labelled segment."""
    root = tmp_path_factory.mktemp("untrimmed")
    database = {}
    for index in range(6):
        label = LABELS[index % 2]
        segment = [{"segment": [3.0, 6.0], "label": label}]
        more = [{"segment": [0.0, 0.5], "label": LABELS[1 - index % 2]}] if index == 4 else []
        subset = "training" if index < 4 else "validation"
        database[f"film{index}"] = {"subset": subset, "duration": 6.0, "annotations": more + segment}
        frames = np.concatenate(
            [np.zeros((30, 48, 56, 3), np.uint8), moving_square_clip(label, num_frames=30, height=48, width=56)]
        )
        write_clip(root / f"v_film{index}.mp4", frames, fps=10)
    database["unlabelled"] = {"subset": "testing", "duration": 6.0, "annotations": []}
    (root / "activity_net.json").write_text(json.dumps({"version": "1.3", "database": database}))
    return root


def test_segments_train_and_whole_videos_are_evaluated(folder):
    config = RunConfig.from_fields(data=str(folder / "activity_net.json"))
    train, evaluated = load_sources(config.data, 0)
    assert train.label_names == evaluated.label_names == sorted(LABELS)
    parts = [sample.video for sample in train.share(0, 1, None, 0)]
    assert sorted((part["start"], part["end"]) for part in parts) == [(3.0, 6.0)] * 4
    whole = list(evaluated.share(0, 1, None, 0))
    assert [sample.video for sample in whole] == [str(folder / f"v_film{index}.mp4") for index in (4, 5)]
    assert [evaluated.label_names[sample.label] for sample in whole] == [LABELS[0], LABELS[1]]  # most seconds


def test_the_protocol_is_ten_clips_of_three_crops_over_the_whole_video():
    """UniFormerV2 on ActivityNet and HACS: 16 frames x 10 x 3, probabilities averaged."""
    for data in ("activitynet", "hacs"):
        for frames in (16, 32):
            protocol = published_processor_kwargs(f"uniformer-v2-large-{data}-{frames}f")
            assert (protocol["num_clips"], protocol["num_crops"], protocol["num_frames"]) == (10, 3, frames)
            assert protocol["frame_sampling"] == "sparse"
    recipe = read_run(["--recipe", "uniformer_v2/finetune_large_k710_k400_untrimmed_16f"])
    assert recipe.model.processor["num_clips"] == 10 and recipe.model.processor["num_crops"] == 3


def test_from_annotations_to_scores_of_whole_videos(folder, tmp_path):
    family = next(family for family in FAMILIES if family.name == "uniformer_v2")
    fields = {
        "model_type": "uniformer_v2",
        "config": dict(family.tiny),
        "processor": {"frame_sampling": "sparse", "num_clips": 10, "num_crops": 3},
        "data": str(folder / "activity_net.json"),
        "output_dir": str(tmp_path / "out"),
        "epochs": 1,
        "batch_size": 2,
        "num_workers": 0,
    }
    result = finetune(RunConfig.from_fields(**fields, cpu=True, progress=False, curves=False))
    assert result.evaluation.protocol["num_clips"] == 10 and len(result.evaluation.ids) == 2
    classify = pipeline("video-classification", model=str(tmp_path / "out"))
    scores = {row["label"]: row["score"] for row in classify(str(folder / "v_film4.mp4"), top_k=None)}
    (index,) = [number for number, name in enumerate(result.evaluation.ids) if "film4" in name]
    names = [result.model.config.id2label[number] for number in range(2)]
    probabilities = torch.as_tensor(result.evaluation.probabilities[index]).tolist()
    assert dict(zip(names, probabilities)) == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("annotation", [{"label": "run"}, {"label": "run", "segment": [4, 1]}, {"segment": [1, 2]}])
def test_other_forms_are_refused(tmp_path, annotation):
    database = {"film": {"subset": "training", "annotations": [annotation]}}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"database": database}))
    with pytest.raises(ValueError, match="film"):
        load_sources(RunConfig.from_fields(data=str(path)).data, 0)
