"""From clips to a folder that answers."""

import json

import pytest
import torch
import yaml
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

from hf_videovit import VideoMAEV2Config, VideoMAEV2ForPreTraining, VideoMAEV2ForVideoClassification
from hf_videovit.training.arguments import ModelArguments, RunConfig
from hf_videovit.training.building import build_model
from hf_videovit.training.data.opening import open_source
from hf_videovit.training.methods.choosing import finetune, method_of
from tests.clips import STEPS


NAMES = sorted(STEPS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A saved classifier of the four directions with a head that would give itself away."""
    torch.manual_seed(0)
    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    arguments = ModelArguments(config={**fields, "image_size": 32, "num_frames": 4}, processor={"frame_stride": 2})
    model, processor = build_model(arguments, NAMES)
    torch.nn.init.constant_(model.classifier.weight, 7.0)
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_the_output_folder_answers_like_the_evaluation(tiny_fields, clip_folder):
    config = RunConfig.from_fields(
        **tiny_fields, mixup=0.8, cutmix=1.0, label_smoothing=0.1, rand_augment_ops=1, random_erasing=0.25
    )
    result = finetune(config)
    folder = result.output_dir
    assert result.facts["label_names"] == NAMES
    saved = json.loads((folder / "results.json").read_text())
    assert saved["metrics"] == result.evaluation.metrics
    assert saved["num_videos"] == 8
    assert RunConfig.from_yaml(folder / "run.yaml") == method_of(config).config
    assert {"config.json", "model.safetensors", "video_preprocessor_config.json"} <= {f.name for f in folder.iterdir()}
    classify = pipeline("video-classification", model=str(folder))
    for name, probabilities in zip(result.evaluation.ids, result.evaluation.probabilities):
        scores = {row["label"]: row["score"] for row in classify(str(clip_folder / "val" / name), top_k=4)}
        assert scores == pytest.approx({label: float(p) for label, p in zip(NAMES, probabilities)}, abs=1e-6)
    assert result.facts["steps"] == 10
    assert result.facts["num_train_videos"] == 20
    assert json.loads(json.dumps(result.facts)) == result.facts


def test_evaluation_has_a_batch_of_its_own(tiny_fields, monkeypatch):
    sizes = []
    forward = VideoMAEV2ForVideoClassification.forward

    def watched(self, pixel_values=None, **kwargs):
        if not self.training:
            sizes.append(len(pixel_values))
        return forward(self, pixel_values=pixel_values, **kwargs)

    monkeypatch.setattr(VideoMAEV2ForVideoClassification, "forward", watched)
    finetune(RunConfig.from_fields(**tiny_fields, eval_batch_size=3, eval_every=0))
    assert sizes == [3, 3, 2]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_same_run_twice_gives_the_same_weights(tiny_fields, tmp_path, num_workers):
    fields = tiny_fields | {"num_workers": num_workers, "mixup": 0.8, "eval_every": 0, "save_every": 0}
    runs = [finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / name)})) for name in "ab"]
    first, second = (run.model.state_dict() for run in runs)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert [line["loss"] for line in runs[0].history] == [line["loss"] for line in runs[1].history]


def test_a_damaged_video_goes_into_the_ledger_and_the_run_goes_on(tiny_fields, clip_folder, tmp_path):
    source = open_source(clip_folder, "train")
    lines = ["file,label"] + [f"{sample.video},{source.label_names[sample.label]}" for sample in source]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "train.csv").write_text("\n".join([*lines, f"{tmp_path}/broken.mp4,up", f"{tmp_path}/gone.mp4,up"]))
    (tmp_path / "val.csv").write_text("\n".join([*lines[:4], f"{tmp_path}/gone.mp4,up", lines[-1]]))
    fields = tiny_fields | {"data": str(tmp_path), "bad_video_limit": 0.1, "epochs": 1}
    result = finetune(RunConfig.from_fields(**fields))
    ledger = (result.output_dir / "logs" / "bad_videos.rank0.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"].rsplit("/", 1)[-1] for line in ledger} == {"broken.mp4", "gone.mp4"}
    assert result.facts["num_bad_train_videos"] == 2
    assert len(result.evaluation.ids) == 4
    assert [failure["id"].rsplit("/", 1)[-1] for failure in result.evaluation.failed] == ["gone.mp4"]


def test_a_checkpoint_with_the_same_labels_keeps_its_head(checkpoint):
    model, processor = build_model(ModelArguments(checkpoint=str(checkpoint)), reversed(NAMES))
    assert [model.config.id2label[index] for index in range(4)] == NAMES
    assert (model.classifier.weight == 7).all()
    assert processor.frame_stride == 2


def test_other_labels_start_a_new_head_even_of_the_same_size(checkpoint):
    arguments = ModelArguments(checkpoint=str(checkpoint), config={"drop_path_rate": 0.2}, processor={"num_clips": 3})
    others = ["jump", "run", "sit", "walk"]
    model, processor = build_model(arguments, others)
    assert [model.config.id2label[index] for index in range(4)] == others
    assert (model.classifier.weight.abs() < 1).all()
    assert (model.config.drop_path_rate, processor.num_clips) == (0.2, 3)
    kept = AutoModelForVideoClassification.from_pretrained(checkpoint).videomae_v2.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.videomae_v2.state_dict().items())
    bigger, _ = build_model(arguments, [*others, "swim"])
    assert bigger.classifier.weight.shape == (5, 32)


def test_kept_head_refuses_labels_it_does_not_have(checkpoint, tiny_fields, tmp_path):
    (tmp_path / "data" / "jump").mkdir(parents=True)
    (tmp_path / "data" / "jump" / "a.mp4").touch()
    fields = tiny_fields | {
        "data": str(tmp_path / "data"),
        "checkpoint": str(checkpoint),
        "head": "keep",
        "holdout": 0,
    }
    with pytest.raises(ValueError, match="'jump'; the model has 'down', 'left', 'right', 'up'"):
        finetune(RunConfig.from_fields(**fields | {"config": {}}))


def test_a_pretraining_checkpoint_starts_a_classifier(tmp_path):
    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    fields |= {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
    pretrained = VideoMAEV2ForPreTraining(VideoMAEV2Config(**fields, image_size=32, num_frames=4))
    pretrained.save_pretrained(tmp_path)
    model, processor = build_model(ModelArguments(checkpoint=str(tmp_path)), NAMES)
    theirs, ours = pretrained.videomae_v2.encoder.state_dict(), model.videomae_v2.encoder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (processor.num_frames, processor.crop_size["height"]) == (4, 32)
    with pytest.raises(ValueError, match="lacks classifier.bias.*set `head` to new"):
        build_model(ModelArguments(checkpoint=str(tmp_path), head="keep"), NAMES)


def test_published_size_from_scratch_and_mismatch_is_told(caplog):
    arguments = ModelArguments(
        size="small", config={"num_hidden_layers": 1, "num_frames": 8}, processor={"num_frames": 4, "antialias": True}
    )
    with caplog.at_level("WARNING"):
        model, processor = build_model(arguments, ["a", "b"])
    assert (model.config.hidden_size, model.config.num_frames) == (384, 8)
    assert (processor.num_frames, processor.antialias) == (4, True)
    with pytest.raises(ValueError, match="needs at least 2 labels"):
        build_model(arguments, ["a"])


def test_saved_processor_is_the_one_that_evaluated(tiny_fields):
    fields = tiny_fields | {"processor": {"frame_stride": 2, "num_clips": 2}, "epochs": 1}
    result = finetune(RunConfig.from_fields(**fields))
    processor = AutoVideoProcessor.from_pretrained(result.output_dir)
    assert (processor.num_clips, processor.num_frames) == (2, 4)
    assert json.loads((result.output_dir / "results.json").read_text())["protocol"]["num_clips"] == 2
    assert yaml.safe_load((result.output_dir / "run.yaml").read_text())["model"]["processor"]["num_clips"] == 2
