"""Whole AdaTAD files: an encoder with adapters and a localiser, in OpenTAD's layout, become one model."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoVideoProcessor, pipeline

from hf_videovit import AutoModelForTemporalActionLocalization, VideoTemporalLocalizer, convert_checkpoint
from hf_videovit.convert import convert_to_folder, plan_conversion
from hf_videovit.modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from tests.clips import moving_square_clip, write_clip


FIXTURES = Path(__file__).parents[1] / "fixtures" / "temporal_localization"
ENCODER, HEAD = FIXTURES / "adatad_encoder", FIXTURES / "opentad_forward"
TASK = "temporal-action-localization"
PREFIX = "module.backbone.model.backbone."
WIDTH = 32  # of the encoder


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def head_weights(entry: str = "state_dict_ema") -> dict[str, torch.Tensor]:
    """The localiser for features as wide as the encoder."""
    weights = torch.load(HEAD / "checkpoint.pth", weights_only=True)[entry]
    first = "module.projection.embed.0.conv.weight"
    torch.manual_seed(0)
    return {**weights, first: 0.2 * torch.randn(weights[first].shape[0], WIDTH, 3)}


def whole_file(**entries) -> dict:
    """As OpenTAD saves it: both sets of weights, the encoder inside two wrappers."""
    encoder = torch.load(ENCODER / "checkpoint.pth", weights_only=True)
    averaged = {PREFIX + name: tensor for name, tensor in encoder.items()} | head_weights()
    raw = {name: tensor + 1 if "pos_embed" not in name else tensor for name, tensor in averaged.items()}
    return {"epoch": 59, "state_dict": raw, "state_dict_ema": averaged, "optimizer": {"lr": 0.1}, **entries}


def settings(**more) -> dict:
    """OpenTAD's configuration, as mmengine dumps it."""
    head = config_of(HEAD)["model"]
    encoder = {**config_of(ENCODER)["model"], "total_frames": 48, "norm_cfg": {"type": "LN", "eps": 1e-6}}
    pixels = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    wrapper = {"type": "mmaction.Recognizer3D", "backbone": encoder, "data_preprocessor": pixels}
    head["projection"] |= {"in_channels": WIDTH, "max_seq_len": 48}
    steps = [{"type": "mmaction.Resize", "scale": [-1, 40]}, {"type": "mmaction.CenterCrop", "crop_size": 32}]
    return {
        "window_size": 48,
        "scale_factor": 1,
        "model": {**head, "backbone": wrapper},
        "dataset": {"test": {"feature_stride": 4, "sample_stride": 1, "window_size": 48, "pipeline": steps}},
        "post_processing": {"nms": {"use_soft_nms": True, "sigma": 0.7, "max_seg_num": 2000, "multiclass": True}},
        **more,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("adatad")
    torch.save(whole_file(), place / "epoch_59.pth")
    (place / "config.json").write_text(json.dumps(settings()))
    return convert_to_folder(
        "actionformer",
        place / "epoch_59.pth",
        place / "model",
        task=TASK,
        settings=place / "config.json",
        labels=["a", "b", "c", "d", "e"],
    )


def test_every_tensor_is_used(caplog):
    caplog.set_level(logging.INFO, "hf_videovit")
    for family in ("actionformer", "video_temporal_localizer"):
        plan = plan_conversion(family, whole_file(), task=TASK, settings=settings())
        plan.check()
        used = {piece.source for piece in plan.pieces.values()}
        assert used | set(plan.dropped) == set(plan.checkpoint.shapes) == set(whole_file()["state_dict_ema"])
        assert set(plan.dropped) == {f"{PREFIX}pos_embed"}  # the fixed table
        assert not plan.fresh
    assert "averaged weights are used. Pass entry='state_dict'" in caplog.text


@torch.no_grad()
def test_the_whole_is_its_parts(folder):
    tensors = load_file(ENCODER / "io.safetensors")
    pixels = tensors["pixel_values"].transpose(1, 2)
    model = AutoModelForTemporalActionLocalization.from_pretrained(folder).eval()
    assert type(model) is VideoTemporalLocalizer
    features = model.encode(pixels)
    torch.testing.assert_close(features.transpose(1, 2), tensors["features"], atol=1e-5, rtol=1e-4)
    parts = settings()
    localizer = convert_checkpoint("actionformer", head_weights(), task=TASK, settings={"model": parts["model"]})
    alone = localizer(tensors["features"].transpose(1, 2))
    joined = model(pixels)
    torch.testing.assert_close(joined.logits, alone.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(joined.pred_offsets, alone.pred_offsets, atol=1e-4, rtol=1e-4)
    raw = convert_checkpoint("actionformer", whole_file(), task=TASK, settings=parts, entry="state_dict")
    assert not torch.allclose(raw(pixels).logits, joined.logits, atol=0.1)


def test_what_the_settings_say(folder):
    model = AutoModelForTemporalActionLocalization.from_pretrained(folder)
    config = model.config
    assert (config.feature_source, config.encoder_training) == ("moments", "adapters")
    assert (config.feature_stride, config.frame_step, config.encoder_config.adapter_layers) == (1, 4, [1, 2])
    assert config.id2label[4] == "e" and config.localizer_config.padding_mode == "opentad"
    features = AutoFeatureExtractor.from_pretrained(folder)
    assert (features.feature_stride, features.feature_offset, features.max_sequence_length) == (4, 0, 48)
    assert (features.nms_sigma, features.min_score, features.max_segments) == (0.7, 0, 2000)
    assert features.grid(48, 30.0, 100.0).to_seconds(torch.tensor([15.0]).numpy()) == 2.0  # frame 60
    frames = AutoVideoProcessor.from_pretrained(folder)
    assert (frames.size["shortest_edge"], frames.crop_size["height"]) == (40, 32)
    assert list(frames.image_mean) == pytest.approx([0.485, 0.456, 0.406])


def test_two_frames_for_a_feature():
    doubled = settings(scale_factor=2)
    doubled["model"]["backbone"]["backbone"]["total_frames"] = 96
    plan = plan_conversion("actionformer", whole_file(), task=TASK, settings=doubled)
    assert (plan.config.feature_stride, plan.config.frame_step, plan.processor.feature_stride) == (2, 2, 4)
    del doubled["scale_factor"], doubled["dataset"]
    plan = plan_conversion("actionformer", whole_file(), task=TASK, settings=doubled)
    assert (plan.config.feature_stride, plan.config.frame_step, plan.processor.feature_stride) == (2, 1, 2)


def test_a_film_is_localised(folder, tmp_path):
    film = write_clip(tmp_path / "film.mp4", moving_square_clip(num_frames=400, height=48, width=48), fps=25)
    found = pipeline(TASK, model=str(folder))(str(film), threshold=0.0, top_k=5)
    assert len(found) == 5 and all(0 <= one["segment"]["start"] <= one["segment"]["end"] <= 16 for one in found)


def test_fields_of_the_parts_instead_of_settings(folder):
    encoder = {"num_attention_heads": 4}
    localizer = {"num_attention_heads": 4, "attention_window": 5, "max_sequence_length": 48}
    options = {"image_size": 32, "frame_step": 4, "encoder_config": encoder, "localizer_config": localizer}
    model = convert_checkpoint("actionformer", whole_file(), task=TASK, **options)
    expected = AutoModelForTemporalActionLocalization.from_pretrained(folder)
    assert model.config.encoder_config.to_dict() == expected.config.encoder_config.to_dict()
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())
    again = convert_checkpoint("actionformer", whole_file(), task=TASK, config=expected.config)
    assert again.config.frame_step == 4
    with pytest.raises(ValueError, match="`num_attention_heads` is a field of both parts"):
        convert_checkpoint("actionformer", whole_file(), task=TASK, num_attention_heads=4)
    with pytest.raises(ValueError, match="`hidden_siz` is not a field"):
        convert_checkpoint("actionformer", whole_file(), task=TASK, settings=settings(), hidden_siz=4)


@pytest.mark.parametrize("name", ["blocks.2.adapter.gamma", "blocks.0.attn.q_bias", "fc_norm.bias"])
def test_faults_are_named_as_in_the_file(name):
    weights = whole_file()["state_dict_ema"]
    rest = {one: tensor for one, tensor in weights.items() if one != PREFIX + name}
    cases = [(rest, "missing from the checkpoint")]
    for new in (f"{PREFIX}new", "module.neck.new"):
        cases.append(({**weights, new: torch.ones(3)}, f"1 left over .*{new.replace('.', '[.]')}"))
    for file, message in cases:
        with pytest.raises(ValueError, match=message):
            convert_checkpoint("actionformer", file, task=TASK, settings=settings())


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="not an AdaTAD checkpoint with its encoder"):
        convert_checkpoint("video_temporal_localizer", head_weights(), task=TASK, settings=settings())
    spread = settings(dataset={"test": {"resize_length": 48}})
    with pytest.raises(ValueError, match="spread a fixed number of frames over a whole video"):
        convert_checkpoint("actionformer", whole_file(), task=TASK, settings=spread)
    uneven = settings(scale_factor=3)
    with pytest.raises(ValueError, match="a whole number of frames for a feature, got 4 / 3"):
        convert_checkpoint("actionformer", whole_file(), task=TASK, settings=uneven)
    with pytest.raises(ValueError, match="Convert it as the family 'actionformer'"):
        convert_checkpoint("videomae_v2", whole_file(), task="feature-extraction")


def test_the_place_of_the_first_feature():
    processor = TemporalLocalizationProcessor(feature_stride=4, feature_window=16)
    assert processor.grid(10, 30.0, 9.0).offset == 8
    processor = TemporalLocalizationProcessor(feature_stride=4, feature_window=16, feature_offset=2)
    grid = processor.grid(10, 30.0, 9.0)
    assert grid.to_seconds(grid.to_steps([3.2])) == pytest.approx(3.2)
    assert grid.offset == 2
