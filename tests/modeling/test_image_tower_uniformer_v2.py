"""UniFormerV2 from image models: CLIP in three layouts, plain ViTs, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from hf_videovit import UniFormerV2Config, UniFormerV2ForVideoClassification, UniFormerV2Model


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "patch_size": 8,
    "image_size": 32,
}
VIT = {"hidden_act": "gelu", "use_pre_layernorm": False, "layer_norm_eps": 1e-12}


def away_from_start(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def clip():
    return away_from_start(CLIPVisionModel(CLIPVisionConfig(**SIZES)))


@pytest.fixture(scope="module")
def vit():
    return away_from_start(ViTModel(ViTConfig(**SIZES), add_pooling_layer=False))


def images():
    torch.manual_seed(1)
    return torch.randn(3, 3, 32, 32)


@torch.no_grad()
def tokens(model, **kwargs):
    """Each image as a clip of one frame."""
    return model(images().unsqueeze(1), **kwargs).last_hidden_state


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_every_frame_is_seen_as_clip_sees_an_image(clip):
    model = UniFormerV2Model.from_image_vit(clip)
    assert not model.training
    with torch.no_grad():
        close(tokens(model), clip(images()).last_hidden_state)
        video = model(images().unsqueeze(0)).last_hidden_state.unflatten(1, (3, -1))[0]
    close(video, tokens(model))


def test_folder_file_and_whole_clip_give_the_same(clip, tmp_path):
    expected = UniFormerV2Model.from_image_vit(clip).state_dict()
    clip.save_pretrained(tmp_path / "folder")
    save_file(clip.state_dict(), tmp_path / "tower.safetensors")
    prefixed = {f"vision_model.{name}": tensor for name, tensor in clip.state_dict().items()}
    text = {"text_model.embeddings.token_embedding.weight": torch.zeros(3, 3), "logit_scale": torch.zeros(())}
    torch.save({"state_dict": {f"module.{k}": v for k, v in (prefixed | text).items()}}, tmp_path / "tower.pt")
    for source in (tmp_path / "folder", tmp_path / "tower.safetensors", str(tmp_path / "tower.pt")):
        given = {} if source == tmp_path / "folder" else {"num_attention_heads": 4}
        state = UniFormerV2Model.from_image_vit(source, **given).state_dict()
        for name in expected:
            if name.startswith(("embeddings.", "encoder.layers.")):
                assert torch.equal(state[name], expected[name]), name


def test_models_around_the_tower_are_read_too(clip):
    whole = CLIPModel(
        CLIPConfig(
            text_config=CLIPTextConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).to_dict(),
            vision_config=clip.config.to_dict(),
        )
    )
    for model in (whole, CLIPVisionModelWithProjection(clip.config)):
        ours = UniFormerV2Model.from_image_vit(model)
        assert torch.equal(ours.embeddings.class_embedding, model.vision_model.embeddings.class_embedding)


def test_half_precision_towers_become_float32(clip):
    half = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    model = UniFormerV2Model.from_image_vit(half, num_attention_heads=4)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_the_patch_kernel_is_the_middle_one_in_time(clip):
    model = UniFormerV2ForVideoClassification.from_image_vit(
        clip, temporal_downsample=True, num_local_modules=2, num_labels=7
    )
    kernel = model.uniformer_v2.embeddings.patch_embeddings.projection.weight
    assert kernel.shape == (32, 3, 3, 8, 8)
    assert torch.equal(kernel[:, :, 1], clip.embeddings.patch_embedding.weight)
    assert not kernel[:, :, ::2].any()
    assert model(torch.randn(1, 4, 3, 32, 32)).logits.shape == (1, 7)


def test_a_frozen_start(clip):
    model = UniFormerV2ForVideoClassification.from_image_vit(clip, freeze_image_tower=True)
    assert model.uniformer_v2.gate is None
    assert not model.uniformer_v2.embeddings.class_embedding.requires_grad
    assert model.classifier.weight.requires_grad


def test_another_size_is_interpolated(clip):
    by_request = UniFormerV2Model.from_image_vit(clip, image_size=48)
    assert by_request.config.position_grid == [4, 4]  # the tower's table, interpolated when used
    baked = UniFormerV2Model.from_image_vit(clip, UniFormerV2Config(**{**SIZES, "image_size": 48}))
    assert baked.embeddings.position_embedding.shape == (1 + 36, 32)
    pixels = torch.randn(1, 2, 3, 48, 48)
    with torch.no_grad():
        close(baked(pixels).last_hidden_state, by_request(pixels).last_hidden_state)


def test_a_plain_vit_is_refused_and_adapted(vit):
    with pytest.raises(
        ValueError, match="hidden_act='gelu', the configuration 'quick_gelu'.*pass `hidden_act='gelu'`"
    ):
        UniFormerV2Model.from_image_vit(vit)
    with pytest.raises(ValueError, match="use_pre_layernorm=False, the configuration True. CLIP has a LayerNorm"):
        UniFormerV2Model.from_image_vit(vit, hidden_act="gelu")
    with pytest.raises(ValueError, match="layer_norm_eps=1e-12"):
        UniFormerV2Model.from_image_vit(vit, hidden_act="gelu", use_pre_layernorm=False)
    model = UniFormerV2Model.from_image_vit(vit, **VIT)
    with torch.no_grad():  # its patch bias is part of our position table; its last norm is left out
        close(tokens(model), vit(images(), output_hidden_states=True).hidden_states[-1])


def test_the_layout_of_timm_and_of_published_vits(vit):
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "layernorm": "norm",
        "layers.": "blocks.",
    }
    timm = {}
    for name, tensor in vit.state_dict().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        timm[name] = tensor
    for name in [name for name in timm if ".q_proj." in name]:
        parts = [timm.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        timm[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    fields = {**VIT, "layer_norm_eps": 1e-6, "num_attention_heads": 4}
    model = UniFormerV2Model.from_image_vit({"model": timm}, **fields)
    with torch.no_grad():
        torch.testing.assert_close(
            tokens(model), vit(images(), output_hidden_states=True).hidden_states[-1], atol=1e-3, rtol=1e-3
        )
    with pytest.raises(ValueError, match="parts that .* does not have: blocks.0.ls1.gamma"):
        UniFormerV2Model.from_image_vit({**timm, "blocks.0.ls1.gamma": torch.ones(32)}, **fields)


def test_a_clip_with_gelu_is_refused_unless_meant(clip):
    gelu = CLIPVisionModel(CLIPVisionConfig(**SIZES, hidden_act="gelu"))
    with pytest.raises(ValueError, match="worse results with an activation that it was not trained with"):
        UniFormerV2Model.from_image_vit(gelu)
    model = UniFormerV2Model.from_image_vit(gelu.eval(), hidden_act="gelu")
    with torch.no_grad():
        close(tokens(model), gelu(images()).last_hidden_state)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 64}, "hidden_size=32, the configuration 64. Sizes must agree"),
        ({"num_hidden_layers": 3}, "num_hidden_layers=2, the configuration 3"),
        ({"patch_size": 16}, "patch_size=8, the configuration 16"),
        ({"num_attention_heads": 8}, "`num_attention_heads` must be 4 for CLIPVisionModel, got 8"),
    ],
)
def test_sizes_must_agree(clip, config, message):
    with pytest.raises(ValueError, match=message):
        UniFormerV2Model.from_image_vit(clip, UniFormerV2Config(**{**SIZES, **config}))


def test_other_sources_are_refused(clip, tmp_path):
    state = clip.state_dict()
    with pytest.raises(
        ValueError, match="`num_attention_heads` must be given for the given state dict: its width of 32"
    ):
        UniFormerV2Model.from_image_vit(state)
    cut = {name: one for name, one in state.items() if "layers.1.self_attn.k" not in name}
    with pytest.raises(ValueError, match="not a complete image ViT: .* tensors are missing"):
        UniFormerV2Model.from_image_vit(cut, num_attention_heads=4)
    with pytest.raises(ValueError, match="holds no image ViT in a known layout"):
        UniFormerV2Model.from_image_vit({"transformer.resblocks.0.ln_1.weight": torch.ones(3)})
    with pytest.raises(ValueError, match="`image_model` must be a model"):
        UniFormerV2Model.from_image_vit(3)
    with pytest.raises(ValueError, match="Give `config` or fields of it \\(num_labels\\), not both"):
        UniFormerV2Model.from_image_vit(clip, UniFormerV2Config(**SIZES), num_labels=3)
    SiglipVisionModel(SiglipVisionConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is of type 'siglip_vision_model'; a UniFormerV2 starts from clip"):
        UniFormerV2Model.from_image_vit(tmp_path)


def test_torchscript_archives_are_not_run(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "ViT-B-16.pt"))
    with pytest.raises(ValueError, match="is a TorchScript archive, as OpenAI publishes CLIP"):
        UniFormerV2Model.from_image_vit(tmp_path / "ViT-B-16.pt")
