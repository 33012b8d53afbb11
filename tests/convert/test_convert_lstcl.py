"""Layouts that become LSTCL's encoder: TimeSformer's, transformers' ports, MoCo v3's, image ViTs."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from transformers import TimesformerConfig, TimesformerForVideoClassification

from hf_videovit import (
    LstclConfig,
    LstclForPreTraining,
    LstclForVideoClassification,
    convert_checkpoint,
)
from hf_videovit.convert.convert_lstcl import resize_positions
from tests.parity.lstcl import MOCO_NAMES, official


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "patch_size": 8,
    "image_size": 32,
}


def official_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A pretraining model's state in MoCo v3's layout; of a classifier in TimeSformer's."""
    state = {official(name, MOCO_NAMES): value for name, value in model.state_dict().items()}
    if isinstance(model, LstclForPreTraining):
        return {f"module.{name}": value for name, value in state.items()}
    state = {name.removeprefix("base_encoder."): value for name, value in state.items()}
    return {f"model.{name.replace('classifier.', 'head.')}": value for name, value in state.items()}


def trained(model_class: type, **fields) -> torch.nn.Module:
    torch.manual_seed(0)
    model = model_class(LstclConfig(**{**SMALL, "num_frames": 4, "num_labels": 5, **fields}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def logits(model: torch.nn.Module, clips: torch.Tensor) -> torch.Tensor:
    return model(clips).logits


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time", "space_only"])
def test_timesformer(attention_type):
    model = trained(LstclForVideoClassification, attention_type=attention_type)
    state = {"model_state": official_state(model), "epoch": 3}
    if attention_type == "space_only":  # no times, so nothing says that the head is not one of images
        converted = convert_checkpoint(
            "lstcl", state, task="feature-extraction", num_attention_heads=4, num_frames=4, attention_type="space_only"
        )
        clips = torch.randn(2, 4, 3, 32, 32)
        assert torch.equal(converted(clips).pooler_output, model.lstcl(clips).pooler_output)
        return
    converted = convert_checkpoint("lstcl", state, task="video-classification", num_attention_heads=4)
    assert converted.config.attention_type == attention_type
    assert converted.config.image_size == 32 and converted.config.num_frames == 4
    clips = torch.randn(2, 4, 3, 32, 32)
    assert torch.equal(logits(converted, clips), logits(model, clips))


def test_transformers_port_gives_the_same_logits():
    torch.manual_seed(0)
    theirs = TimesformerForVideoClassification(TimesformerConfig(**SMALL, num_frames=4, num_labels=5)).eval()
    converted = convert_checkpoint("lstcl", theirs.state_dict(), task="video-classification", num_attention_heads=4)
    clips = torch.randn(2, 4, 3, 32, 32)
    torch.testing.assert_close(logits(converted, clips), logits(theirs, clips), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", ["pretraining", "feature-extraction", "video-classification"])
def test_moco_v3(task):
    model = trained(LstclForPreTraining, projection_size=8, projection_hidden_size=12, prediction_hidden_size=20)
    fields = {"num_labels": 3} if task == "video-classification" else {}
    converted = convert_checkpoint(
        "lstcl", {"state_dict": official_state(model)}, task=task, num_attention_heads=4, **fields
    )
    encoder = converted if task == "feature-extraction" else converted.lstcl
    clips = torch.randn(2, 4, 3, 32, 32)
    assert torch.equal(encoder(clips).pooler_output, model.lstcl(clips).pooler_output)
    if task == "pretraining":
        for name, value in model.state_dict().items():
            assert torch.equal(converted.state_dict()[name], value), name


def test_an_image_vit_starts_as_one_of_frames():
    """Attention over time is a copy of that over space, behind a projection of zero: frames do not see each other."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_ratio=1.5, num_classes=9
    ).eval()
    model = convert_checkpoint(
        "lstcl", vit.state_dict(), task="feature-extraction", num_attention_heads=4, num_frames=3
    )
    frames = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        feature = model(frames[:, None].expand(-1, 3, -1, -1, -1)).pooler_output
        torch.testing.assert_close(feature, vit.forward_features(frames)[:, 0], atol=1e-5, rtol=1e-5)
    layer = model.backbone.encoder.layers[1]
    assert torch.equal(layer.temporal_attention.qkv.weight, layer.attention.qkv.weight)
    assert torch.equal(layer.temporal_norm.bias, layer.norm1.bias)
    assert not layer.temporal_fc.weight.any() and not layer.temporal_fc.bias.any()
    assert not model.backbone.embeddings.time_embeddings.any()


def test_pretraining_goes_on_from_an_encoder():
    """The target branch is a copy of the online one, heads included."""
    state = {"model_state": official_state(trained(LstclForVideoClassification))}
    model = convert_checkpoint("lstcl", state, task="pretraining", num_attention_heads=4, framework="byol")
    for online, target in ((model.lstcl, model.target.lstcl), (model.projector, model.target.projector)):
        for name, value in online.state_dict().items():
            assert torch.equal(target.state_dict()[name], value), name


def test_tables_of_other_sizes():
    """Positions are resized as a square; the same clip of the same frames gives the same answer as resized at once."""
    model = trained(LstclForVideoClassification)
    state = {"model_state": official_state(model)}
    converted = convert_checkpoint(
        "lstcl",
        state,
        task="video-classification",
        num_attention_heads=4,
        num_frames=6,
        image_size=[40, 48],
        position_grid=[5, 6],
    )
    embeddings = converted.lstcl.backbone.embeddings
    assert embeddings.position_embeddings.shape[1] == 31 and embeddings.time_embeddings.shape[1] == 6
    clips = torch.randn(2, 6, 3, 40, 48)
    assert torch.equal(logits(converted, clips), logits(model, clips))
    table = torch.cat((torch.zeros(1, 1, 1), torch.arange(4.0).view(1, 4, 1)), dim=1)
    assert resize_positions(table, (2, 4), "nearest")[0, 1:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"model.blocks.1.norm1.weight": None}, {}, "missing from the checkpoint"),
        ({"model.extra": torch.zeros(2)}, {}, "left over"),
        ({"model.pos_embed": torch.zeros(1, 14, 32)}, {}, "image_size"),
        ({"model.cls_token": None}, {}, "is not a TimeSformer"),
        ({}, {"num_labels": 4}, "5 classes, but 4 are given"),
        ({}, {"num_attention_heads": None}, "num_attention_heads"),
        ({}, {"attention_type": "joint_space_time"}, "attention_type"),
        ({}, {"hidden_sise": 3}, "hidden_size"),
        ({}, {"labels": ["a", "a", "b", "c", "d"]}, "twice"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_refused(change, options, message):
    state = {**official_state(trained(LstclForVideoClassification)), **change}
    state = {name: value for name, value in state.items() if value is not None}
    options = {name: value for name, value in {"num_attention_heads": 4, **options}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        convert_checkpoint("lstcl", {"model_state": state}, task="video-classification", **options)


def test_classes_are_named():
    state = {"model_state": official_state(trained(LstclForVideoClassification))}
    names = ["push", "pull", "lift", "drop", "turn"]
    model = convert_checkpoint("lstcl", state, task="video-classification", num_attention_heads=4, labels=names)
    assert list(model.config.id2label.values()) == names
    state = {name: value for name, value in state["model_state"].items() if ".head." not in name}
    with pytest.raises(ValueError, match="num_labels"):
        convert_checkpoint("lstcl", state, task="video-classification", num_attention_heads=4)
