"""An encoder and a localiser in one model. transformers' common tests: tests/hf_common."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from hf_videovit import (
    ActionFormerConfig,
    ActionFormerForTemporalActionLocalization,
    AutoModelForTemporalActionLocalization,
    VideoMAEV2ForVideoClassification,
    VideoTemporalLocalizer,
    VideoTemporalLocalizerConfig,
    convert_checkpoint,
)
from tests.families import FAMILIES, clips


ADATAD = Path(__file__).parents[1] / "fixtures/temporal_localization/adatad_encoder"
NAMES = {0: "wave", 1: "walk", 2: "sit"}
LABELS = [{"segments": torch.tensor([[1.0, 4.0]]), "class_labels": torch.tensor([1])}]


def encoder_config(name: str = "videomae_v2", **fields):
    return next(family for family in FAMILIES if family.name == name).config(**fields)


def localizer_config(encoder, **fields) -> ActionFormerConfig:
    return ActionFormerConfig(
        feature_size=encoder.hidden_size,
        hidden_size=16,
        head_hidden_size=16,
        num_branch_layers=1,
        attention_window=5,
        id2label=NAMES,
        label2id={name: index for index, name in NAMES.items()},
        **fields,
    )


def joined(encoder=None, localizer=None, **fields) -> VideoTemporalLocalizer:
    torch.manual_seed(0)
    encoder = encoder or encoder_config()
    config = VideoTemporalLocalizerConfig(
        encoder_config=encoder,
        localizer_config=localizer or localizer_config(encoder),
        **{"feature_stride": 2, **fields},
    )
    return VideoTemporalLocalizer(config).eval()


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@torch.no_grad()
def test_every_family_is_an_encoder(name, tmp_path):
    encoder = encoder_config(name)
    model = joined(encoder)
    video = clips(encoder, 2, num_frames=3 * encoder.num_frames)
    outputs = model(video)
    windows = [video[:, start : start + encoder.num_frames] for start in range(0, 2 * encoder.num_frames + 1, 2)]
    expected = torch.stack([model.encoder(pixel_values=one).pooler_output for one in windows], dim=1)
    torch.testing.assert_close(model.encode(video), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs.logits, model.localizer(expected).logits, atol=1e-5, rtol=1e-4)
    model.save_pretrained(tmp_path)
    for auto in (AutoModelForTemporalActionLocalization, AutoModel):
        loaded = auto.from_pretrained(tmp_path).eval()
        assert type(loaded) is VideoTemporalLocalizer and loaded.config.id2label == NAMES
        assert torch.equal(loaded(video).logits, outputs.logits)


def test_trained_parts_are_joined(tmp_path):
    classifier = VideoMAEV2ForVideoClassification(encoder_config())
    localizer = ActionFormerForTemporalActionLocalization(localizer_config(classifier.config))
    classifier.save_pretrained(tmp_path / "encoder")
    localizer.save_pretrained(tmp_path / "localizer")
    paths = (tmp_path / "encoder", str(tmp_path / "localizer"))
    for parts in (paths, (classifier, localizer)):
        model = VideoTemporalLocalizer.from_encoder_localizer_pretrained(*parts, feature_stride=3)
        assert (model.config.feature_window, model.config.feature_stride, model.training) == (4, 3, False)
        weights = model.state_dict()
        for prefix, part in (("encoder.", classifier.base_model), ("localizer.", localizer)):
            assert all(torch.equal(weights[prefix + name], value) for name, value in part.state_dict().items())
    saved = tmp_path / "joined"
    model.save_pretrained(saved)
    stored = json.loads((saved / "config.json").read_text())
    assert (stored["encoder_config"]["model_type"], stored["localizer_config"]["model_type"]) == (
        "videomae_v2",
        "actionformer",
    )


def test_joined_parts_keep_fast_attention():
    parts = joined().config.encoder_config, joined().config.localizer_config
    assert [part._attn_implementation for part in parts] == ["sdpa", "sdpa"]


def test_what_is_trained_of_the_encoder():
    encoder = encoder_config(adapter_layers=[1])
    video = clips(encoder, 1, num_frames=24)
    for training in ("frozen", "adapters", "full"):
        model = joined(encoder, encoder_training=training).train()
        assert model.encoder.training is (training != "frozen")
        model(video, labels=LABELS).loss.backward()
        with_gradient = {name for name, one in model.encoder.named_parameters() if one.grad is not None}
        expected = {
            name
            for name, _ in model.encoder.named_parameters()
            if training == "full" or training == "adapters" and ".adapter." in name
        }
        assert with_gradient == expected
        assert all(one.grad is not None for name, one in model.localizer.named_parameters())


def test_the_choice_is_kept_and_can_be_changed(tmp_path):
    joined().save_pretrained(tmp_path)
    frozen = VideoTemporalLocalizer.from_pretrained(tmp_path)
    assert not any(one.requires_grad for one in frozen.encoder.parameters())
    full = VideoTemporalLocalizer.from_pretrained(tmp_path, encoder_training="full")
    assert all(one.requires_grad for one in full.encoder.parameters())


def test_both_parts_learn_together():
    encoder = encoder_config()
    model = joined(encoder, localizer_config(encoder, loss_normalizer=3.0), encoder_training="full").train()
    video = clips(encoder, 1, num_frames=24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(video, labels=LABELS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("windows_at_once", [1, 3, 100])
@torch.no_grad()
def test_windows_at_once_and_padding_change_nothing(windows_at_once):
    model = joined()
    video = clips(model.config.encoder_config, 2, num_frames=20)
    expected = model(video)
    model.config.windows_at_once = windows_at_once
    mask = torch.zeros(2, 16, dtype=torch.long)
    mask[:, :9] = 1
    padded = model(video, mask)
    lengths = (8 + 1, 5), (16, 8)
    for short, long in zip(expected.logits.split(lengths[0], dim=1), padded.logits.split(lengths[1], dim=1)):
        torch.testing.assert_close(long[:, : short.shape[1]], short, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_moments_are_those_of_adatad():
    settings = json.loads((ADATAD / "config.json").read_text())
    tensors = load_file(ADATAD / "io.safetensors")
    encoder = convert_checkpoint(
        "videomae_v2",
        ADATAD / "checkpoint.pth",
        task="feature-extraction",
        image_size=settings["model"]["img_size"],
        num_frames=settings["model"]["num_frames"],
        num_attention_heads=settings["model"]["num_heads"],
    )
    localizer = ActionFormerForTemporalActionLocalization(localizer_config(encoder.config))
    model = VideoTemporalLocalizer.from_encoder_localizer_pretrained(encoder, localizer, feature_source="moments")
    features = model.encode(tensors["pixel_values"].transpose(1, 2))
    torch.testing.assert_close(features.transpose(1, 2), tensors["features"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "first"])
@torch.no_grad()
def test_pooling(pooling):
    model = joined(pooling=pooling)
    video = clips(model.config.encoder_config, 1)
    tokens = model.encoder(video).last_hidden_state
    expected = tokens.mean(dim=1) if pooling == "mean" else tokens[:, 0]
    torch.testing.assert_close(model.encode(video)[:, 0], expected)


@torch.no_grad()
def test_half_precision():
    model = joined()
    video = clips(model.config.encoder_config, 1, num_frames=16)
    half = joined().to(torch.bfloat16)(video.to(torch.bfloat16))
    assert half.logits.dtype == torch.bfloat16
    assert (half.logits.sigmoid() - model(video).logits.sigmoid()).abs().max() < 0.01


@pytest.mark.slow
@torch.no_grad()
def test_compiles_as_one_graph():
    model = joined()
    video = clips(model.config.encoder_config, 1, num_frames=16)
    expected = model(video)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(video).logits, expected.logits)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feature_source": "frames"}, "`feature_source` must be one of .*got 'frames'"),
        ({"pooling": "max"}, "`pooling` must be one of"),
        ({"encoder_training": "head"}, "`encoder_training` must be one of"),
        ({"feature_source": "moments"}, "`feature_source` 'moments' needs an encoder with adapters"),
        ({"encoder_training": "adapters"}, "`encoder_training` 'adapters' needs an encoder with adapters"),
        ({"feature_stride": -1}, "`feature_stride` must be at least 1, got -1"),
        ({"windows_at_once": 0}, "`windows_at_once` must be at least 1, got 0"),
        ({"featur_stride": 3}, "Did you mean `feature_stride`"),
        ({"localizer": ActionFormerConfig(feature_size=7)}, "encoder's size .32., got `feature_size` 7"),
        ({"localizer": encoder_config()}, "`localizer_config` must be that of an ActionFormer, got 'videomae_v2'"),
    ],
)
def test_refused_configurations(fields, message):
    with pytest.raises(ValueError, match=message):
        joined(**fields)
    with pytest.raises(ValueError, match="`encoder_config` needs a known `model_type`, got None"):
        VideoTemporalLocalizerConfig(localizer_config=localizer_config(encoder_config()))


def test_refused_inputs():
    model = joined()
    config = model.config.encoder_config
    with pytest.raises(ValueError, match="at least the 4 frames of a window, got 3"):
        model(clips(config, 1, num_frames=3))
    with pytest.raises(ValueError, match="a column for each of the 3 features, got 2"):
        model(clips(config, 1, num_frames=8), torch.ones(1, 2))
    with pytest.raises(ValueError, match="`pixel_values` must have shape"):
        model(clips(config, 1)[0])
    moments = joined(encoder_config(adapter_layers=[0]), feature_source="moments", feature_stride=8)
    with pytest.raises(ValueError, match="a multiple of 8 frames"):
        moments(clips(config, 1, num_frames=12))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_joined_models_keep_their_attention(implementation):
    """The base class of configurations clears the choice of nested ones, which would then be eager in silence."""
    encoder = AutoModel.from_config(encoder_config(), attn_implementation=implementation)
    localizer = ActionFormerForTemporalActionLocalization._from_config(
        localizer_config(encoder.config), attn_implementation=implementation
    )
    model = VideoTemporalLocalizer.from_encoder_localizer_pretrained(encoder, localizer, feature_stride=2)
    chosen = {part.config._attn_implementation for part in model.modules() if hasattr(part, "config")} - {None}
    parts = (model.encoder, model.localizer)
    assert all(part.config._attn_implementation == implementation for part in parts) and implementation in chosen
    model.set_attn_implementation("eager")
    assert {part.config._attn_implementation for part in parts} == {"eager"}
