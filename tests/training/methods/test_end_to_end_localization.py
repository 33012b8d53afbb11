"""Training of an encoder and a localiser together, on films in which squares move in two directions."""

import json
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers import AutoVideoProcessor, pipeline

from hf_videovit import VideoTemporalLocalizer
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data import film_source
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.evaluation.localization_receipts import LocalizationClaim, evaluate_localization_claim
from hf_videovit.training.methods.choosing import choose, finetune, method_of
from tests.clips import moving_square_clip, write_clip
from tests.families import FAMILIES, Case


FPS, STILL, MOVING = 25, 12, 16


def film(direction: str, before: int) -> np.ndarray:
    """A square that stands still, moves, and stands still."""
    moving = moving_square_clip(direction, height=40, width=40, num_frames=MOVING)
    return np.concatenate([moving[:1].repeat(before, 0), moving, moving[-1:].repeat(STILL, 0)])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder, database = tmp_path_factory.mktemp("films"), {}
    for index in range(6):
        label, before = ("left", "right")[index % 2], 8 + 2 * index
        write_clip(folder / "videos" / f"film_{index}.mp4", film(label, before), fps=FPS)
        segment = [before / FPS, (before + MOVING) / FPS]
        subset = "training" if index < 4 else "validation"
        database[f"film_{index}"] = {"subset": subset, "annotations": [{"segment": segment, "label": label}]}
    (folder / "truth.json").write_text(json.dumps({"version": "1", "database": database}))
    family = next(family for family in FAMILIES if family.name == "videomae_v2")
    Case(family, family.heads[0]).model().base_model.save_pretrained(folder / "encoder")
    family.processor_class(**family.processor).save_pretrained(folder / "encoder")
    return folder


@pytest.fixture
def fields(films, tmp_path) -> dict:
    return {
        "model_type": "actionformer",
        "encoder": str(films / "encoder"),
        "data": str(films / "truth.json"),
        "data_root": str(films / "videos"),
        "train_split": "training",
        "output_dir": str(tmp_path / "output"),
        "cpu": True,
        "num_workers": 0,
        "progress": False,
        "curves": False,
        "epochs": 2,
        "batch_size": 2,
        "learning_rate": 3e-3,
        "log_every": 1,
        "crop_scale": [0.8, 1.0],
        "config": {
            "hidden_size": 16,
            "head_hidden_size": 16,
            "num_attention_heads": 2,
            "num_branch_layers": 2,
            "attention_window": 5,
            "max_sequence_length": 16,
            "drop_path_rate": 0.0,
            "loss_normalizer": 5.0,
        },
    }


def adapted(fields: dict) -> dict:
    adapters = {"encoder_config": {"adapter_layers": [1]}, "encoder_training": "adapters"}
    rules = [{"match": r"\.adapter\.", "lr_scale": 2.0}]
    return fields | adapters | {"feature_source": "moments", "feature_stride": 2, "parameter_rules": rules}


def changed(model, films) -> set[str]:
    start = VideoTemporalLocalizer.from_encoder_localizer_pretrained(films / "encoder", model.localizer).encoder
    before = start.state_dict()
    after = model.encoder.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name].cpu())}


def test_adapters_learn_and_the_pipeline_opens_the_result(fields, films, precision):
    more = {"epochs": 12, "gradient_checkpointing": True, "mixed_precision": "bf16", "ema_decay": 0.5}
    more |= {"eval_every": 12, "color_jitter": [0.1, 0.1, 0.1, 0.0]}
    result = finetune(RunConfig.from_fields(**adapted(fields) | more))
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert not changed(result.model, films)
    up = [one for name, one in result.model.encoder.named_parameters() if name.endswith("adapter.up_proj.weight")]
    assert up and all(one.abs().max() > 0 for one in up)  # zero at the start
    localize = pipeline("temporal-action-localization", model=str(result.output_dir))
    found = localize(str(films / "videos" / "film_4.mp4"), threshold=0.0)
    saved = json.loads((result.output_dir / "predictions.json").read_text())["results"]["film_4"]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in saved], abs=1e-3)
    assert {one["label"] for one in found} <= {"left", "right"}
    receipt = json.loads((result.output_dir / "results.json").read_text())
    assert result.evaluation.metrics == receipt["metrics"]
    claim = LocalizationClaim.read(receipt)
    again, _ = evaluate_localization_claim(result.output_dir, claim, "activitynet")
    assert again.metrics == pytest.approx(receipt["metrics"], abs=1e-3)


@pytest.mark.parametrize("training", ["frozen", "full"])
def test_windows_of_an_encoder(fields, films, training):
    """Another size of the windows' overlap and every second frame; a frozen encoder is the one of the start."""
    fields |= {"feature_stride": 2, "frame_step": 2, "encoder_training": training, "epochs": 1}
    result = finetune(RunConfig.from_fields(**fields))
    assert bool(changed(result.model, films)) is (training == "full")
    processor = result.processor
    assert (processor.feature_stride, processor.feature_window) == (4, 2 * result.model.encoder.config.num_frames)
    again = RunConfig.from_fields(
        **{name: value for name, value in fields.items() if name not in ("encoder", "config", "model_type")}
        | {"checkpoint": str(result.output_dir), "output_dir": str(result.output_dir / "again")}
    )
    with pytest.raises(ValueError, match="`feature_stride` is not read|`encoder_training` is not read"):
        method_of(again).describe()


def test_stopping_and_resuming_changes_nothing(fields, tmp_path):
    fields = adapted(fields) | {"epochs": 3, "eval_every": 0, "output_dir": str(tmp_path / "whole"), "ema_decay": 0.9}
    whole = finetune(RunConfig.from_fields(**fields))
    expected = {name: value.clone() for name, value in whole.model.state_dict().items()}
    shutil.rmtree(sorted((tmp_path / "whole" / "checkpoints").glob("step_*"))[-1])
    again = finetune(RunConfig.from_fields(**fields | {"resume": True}))
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_a_sample_is_bytes_and_its_segments_are_where_the_square_moves(fields, films):
    config = RunConfig.from_fields(**fields | {"feature_stride": 1, "crop": "center", "crop_short_side": [40, 40]})
    config.method["window_ratio"] = []
    assert choose(config).name == "end_to_end_localization"
    method = method_of(config)
    method.train_source, method.eval_source = method.checked_sources()
    method.model, method.processor = method.build()
    (sample,) = [one for one in method.train_source.share(0, 1, None, 0) if one.id == "film_0"]
    method.processor.max_sequence_length = 60
    row = method.loader()(Record(sample, 0, 0))
    assert row["frames"].dtype == torch.uint8
    window = method.model.encoder.config.num_frames
    steps = 8 + MOVING + STILL - window + 1
    assert row["attention_mask"].sum() == steps and len(row["frames"]) == 60 - 1 + window
    assert row["segments"][0].tolist() == pytest.approx([8 - window / 2, 8 + MOVING - window / 2], abs=1e-4)
    batch = method.prepare_batch({name: value[None] for name, value in row.items()}, torch.device("cpu"))
    assert batch["pixel_values"].shape[1] == steps - 1 + window and batch["attention_mask"].shape[1] == steps
    processor = AutoVideoProcessor.from_pretrained(films / "encoder")
    assert torch.equal(batch["pixel_values"], processor.normalize_clips(row["frames"][None, : steps - 1 + window]))


def test_films_are_decoded_in_isolation_where_the_processor_asks_for_it(fields, monkeypatch):
    method = method_of(RunConfig.from_fields(**fields | {"encoder_processor": {"isolate_decoding": True}}))
    method.train_source, method.eval_source = method.checked_sources()
    method.model, method.processor = method.build()
    readers = [Mock(wraps=getattr(film_source, name)) for name in ("probe_video", "decode_video")]
    for name, reader in zip(("probe_video", "decode_video"), readers):
        monkeypatch.setattr(film_source, name, reader)
    method.loader()(Record(next(iter(method.train_source.share(0, 1, None, 0))), 0, 0))
    for reader in readers:
        assert reader.called and all(call.kwargs["isolate"] for call in reader.call_args_list)


def test_refused_runs(fields, films, tmp_path):
    with pytest.raises(ValueError, match="`data_root` \\(the folder of the videos\\) are needed"):
        method_of(RunConfig.from_fields(**fields | {"data_root": None})).checked_sources()
    fewer = shutil.copytree(films / "videos", tmp_path / "fewer")
    (fewer / "film_5.mp4").unlink()
    with pytest.raises(ValueError, match="1 of 2 evaluation videos have no files"):
        method_of(RunConfig.from_fields(**fields | {"data_root": str(fewer)})).checked_sources()
    config = adapted(fields)
    config["config"] = config["config"] | {"max_sequence_length": 15}
    with pytest.raises(ValueError, match="must be a multiple of"):
        method_of(RunConfig.from_fields(**config)).describe()
    with pytest.raises(ValueError, match="`encoder_training` 'adapters' needs an encoder with adapters"):
        method_of(RunConfig.from_fields(**fields | {"encoder_training": "adapters"})).describe()
