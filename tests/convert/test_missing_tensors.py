"""A tensor that a file lacks is named as the file itself would name it."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_videovit.convert import plan_conversion
from hf_videovit.convert.spelling import spell_missing
from tests.convert.test_convert_bevt import image_swins
from tests.convert.test_convert_tubevit import flax_arrays, timm_vit, transformers_vit


FIXTURES = Path(__file__).parents[1] / "fixtures"
CLASSIFICATION, PRETRAINING = "video-classification", "pretraining"
HEADS = {"num_attention_heads": 2}
CLIP = {"image_size": 16, "num_frames": 4, **HEADS}
# Family, folder of a fixture, task, fields, and how many of those left out the model does not need.
FILES = [
    ("videomae_v2", "finetune", CLASSIFICATION, CLIP, 0),
    ("videomae_v2", "pretrain", PRETRAINING, {**CLIP, "decoder_num_attention_heads": 2}, 0),
    ("uniformer_v2", "classify", CLASSIFICATION, HEADS, 1),  # a gate, which some published models lack
    ("uniformer_v2", "mmaction_layout", CLASSIFICATION, HEADS, 1),
    ("uniformer", "video_classify", CLASSIFICATION, {"head_dim": 8}, 0),
    ("uniformer", "mmaction_layout", CLASSIFICATION, {"head_dim": 8}, 0),
    ("uniformer", "backbone", "backbone", {"head_dim": 8}, 0),
    ("uniformer", "image_light", "image-classification", {"head_dim": 8}, 0),
    ("bevt", "swin3d_classify", CLASSIFICATION, {}, 1),  # indices of windows, of which the first tell the size
    ("lstcl", "timesformer_classify", CLASSIFICATION, HEADS, 0),
    ("lstcl", "moco_v3_loss", PRETRAINING, HEADS, 0),
]


def weights(family: str, case: str) -> dict[str, torch.Tensor]:
    content = torch.load(FIXTURES / family / case / "checkpoint.pth", weights_only=True)
    return next(
        (content[name] for name in ("model", "module", "state_dict", "model_state") if name in content), content
    )


def first_and_last_of_each_kind(names: Iterable[str]) -> set[str]:
    """Of names that differ in their numbers only."""
    kinds = [(re.sub(r"\d+", "#", name), name) for name in names]
    return {*dict(kinds).values(), *dict(reversed(kinds)).values()}


@pytest.mark.slow  # a conversion for each tensor
@pytest.mark.parametrize(("family", "case", "task", "fields", "not_needed"), FILES, ids=lambda value: str(value)[:20])
def test_every_kind_of_tensor_is_missed_by_its_own_name(family, case, task, fields, not_needed):
    """Or refused in words that name it, where it tells the kind of file."""
    state = weights(family, case)
    plan_conversion(family, state, task=task, **fields).check()
    unnoticed, otherwise = [], []
    names = first_and_last_of_each_kind(state)
    for name in names:
        without = {other: tensor for other, tensor in state.items() if other != name}
        try:
            plan_conversion(family, without, task=task, **fields).check()
        except ValueError as error:
            if found := re.search(r"\d+ missing from the checkpoint: (\S+) \(", str(error)):
                assert found[1] == name
            else:
                otherwise.append(name)
        else:
            unnoticed.append(name)
    assert len(unnoticed) == not_needed
    assert len(otherwise) <= 13 and len(otherwise) < len(names) / 6


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_names_of_the_file_come_first(prefix):
    """With their prefix, and once for the three of ours that are one of theirs."""
    state = {f"{prefix}{name}": tensor for name, tensor in weights("videomae_v2", "finetune").items()}
    for name in ("blocks.1.attn.qkv.weight", "fc_norm.bias", "fc_norm.weight"):
        del state[prefix + name]
    with pytest.raises(ValueError) as error:
        plan_conversion("videomae_v2", state, task=CLASSIFICATION, **CLIP).check()
    own = "videomae_v2.encoder.layers.1.attention"
    for words in (
        "3 missing from the checkpoint: ",
        f"{prefix}blocks.1.attn.qkv.weight ({own}.q_proj.weight, {own}.k_proj.weight, {own}.v_proj.weight)",
        f"{prefix}fc_norm.weight (videomae_v2.fc_norm.weight)",
        f"{prefix}fc_norm.bias (videomae_v2.fc_norm.bias)",
    ):
        assert words in str(error.value)
    assert "left over" not in str(error.value)


def test_what_the_model_lacks_is_not_left_over():
    """A file with both norms: it has a place for each, but the model has only one of them."""
    state = weights("videomae_v2", "finetune")
    width = len(state["fc_norm.bias"])
    state |= {"norm.weight": torch.ones(width), "norm.bias": torch.ones(width)}
    with pytest.raises(ValueError) as error:
        plan_conversion("videomae_v2", state, task=CLASSIFICATION, **CLIP).check()
    assert "2 without a place in VideoMAEV2ForVideoClassification: fc_norm.weight (videomae_v2.fc_norm.weight)" in str(
        error.value
    )
    assert "left over" not in str(error.value)


def test_files_of_other_libraries_are_named_as_they_are():
    """torchvision's names, which become the official ones before anything is compared."""
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    model = SwinTransformer3d(
        patch_size=[2, 4, 4], embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=[2, 3, 3], num_classes=5
    )
    for name in ("features.2.1.attn.proj.bias", "features.0.0.mlp.3.weight", "features.1.norm.weight", "norm.bias"):
        state = {other: tensor for other, tensor in model.state_dict().items() if other != name}
        with pytest.raises(ValueError, match=rf"1 missing from the checkpoint: {re.escape(name)} \("):
            plan_conversion("bevt", state, task=CLASSIFICATION, window_size=[2, 3, 3]).check()
    state = model.state_dict() | {"features.0.0.strange": torch.ones(1)}
    with pytest.raises(ValueError, match=r"1 left over in the checkpoint: features\.0\.0\.strange"):
        plan_conversion("bevt", state, task=CLASSIFICATION, window_size=[2, 3, 3]).check()


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("transformers", ("layers.1.attention.q_proj.weight", "layers.0.layernorm_after.bias", "layernorm.weight")),
        ("timm", ("blocks.1.attn.qkv.bias", "blocks.0.mlp.fc2.weight", "norm.bias")),
        ("augreg", ("Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel", "Transformer/encoder_norm/scale")),
        ("big_vision", ("params/Transformer/encoderblock_0/LayerNorm_1/bias", "params/Transformer/encoder_norm/bias")),
    ],
)
def test_files_of_image_vits(layout, names):
    made = {"transformers": transformers_vit, "timm": timm_vit}
    state = made[layout]().state_dict() if layout in made else flax_arrays(timm_vit(), layout)
    for name in names:
        assert name in state
        without = {other: torch.as_tensor(value) for other, value in state.items() if other != name}
        with pytest.raises(ValueError, match=rf"1 missing from the checkpoint: {re.escape(name)} \("):
            plan_conversion("tubevit", without, task="feature-extraction", num_attention_heads=3).check()


@pytest.mark.parametrize("part", ["query", "key", "value"])
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_a_third_of_transformers_attention(part, kind, tmp_path):
    model = image_swins()["transformers"]
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = f"swin.encoder.layers.1.blocks.0.attention.self.{part}.{kind}"
    del state[name]
    with pytest.raises(ValueError, match=rf"is not complete: {re.escape(name)} missing from the checkpoint"):
        plan_conversion("bevt", state, task="feature-extraction")


@pytest.mark.parametrize(
    ("name", "sources", "expected"),
    [
        (
            "layers.1.a.bias",
            {"layers.0.a.bias": "Block_0/x", "layers.0.b": "Block_0/y", "layers.1.b": "Block_1/y"},
            "Block_1/x",
        ),
        ("layers.1.fc1.w", {"layers.0.fc1.w": "l.1.0.w", "layers.0.b": "l.1.b", "layers.1.b": "l.2.b"}, "l.2.0.w"),
        ("b.0.q.bias", {"a.0.q.bias": "e.0.q_bias", "a.0.n": "e.0.n", "b.0.n": "d.0.n"}, "d.0.q_bias"),
        ("x.running_var", {"x.weight": "net.x.weight"}, "net.x.running_var"),
        ("norm.weight", {"stem.weight": "net.first.weight"}, "net.last.weight"),
        ("q.weight", {"q.bias": "qv.bias", "v.bias": "qv.bias"}, None),
        ("other", {"stem.weight": "net.first.weight"}, None),
    ],
)
def test_spelling(name, sources, expected):
    assert spell_missing(name, sources, {"stem": "first", "norm": "last"}) == expected
