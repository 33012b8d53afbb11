"""An image ViT becomes a TubeViT: with its own positions and class token it answers for images as before."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from hf_videovit import TubeViTForImageClassification, TubeViTModel, convert_checkpoint
from hf_videovit.convert import convert_to_folder
from hf_videovit.convert.convert_tubevit import inflated
from hf_videovit.modeling.configuration_tubevit import Tube


KEPT = {"image_position_grid": [2, 3], "use_class_token": True, "num_attention_heads": 3}
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def transformers_vit(model_class: type = ViTModel, **fields) -> torch.nn.Module:
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=(32, 48),
        **fields,
    )
    return randomised(model_class(config))


def timm_vit(**fields) -> torch.nn.Module:
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 40 / 24, "num_classes": 4}
    return randomised(VisionTransformer(img_size=(32, 48), **{**sizes, **fields}))


def flax_arrays(model: torch.nn.Module, layout: str) -> dict[str, np.ndarray]:
    """A timm model in the layout of AugReg's or of big_vision's files, written down independently of the converter."""
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    second = {"augreg": ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")}.get(
        layout, ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
    )
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    arrays["Transformer/posembed_input/pos_embedding" if layout == "augreg" else "pos_embedding"] = state["pos_embed"]
    for index in range(2):
        block, ours = f"Transformer/encoderblock_{index}", f"blocks.{index}"
        for theirs, name in (("LayerNorm_0", "norm1"), (second[1], "norm2")):
            arrays[f"{block}/{theirs}/scale"] = state[f"{ours}.{name}.weight"]
            arrays[f"{block}/{theirs}/bias"] = state[f"{ours}.{name}.bias"]
        weights, biases = (np.split(state[f"{ours}.attn.qkv.{kind}"], 3) for kind in ("weight", "bias"))
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{block}/{second[0]}/{name}/kernel"] = weight.T.reshape(24, 3, 8)
            arrays[f"{block}/{second[0]}/{name}/bias"] = bias.reshape(3, 8)
        arrays[f"{block}/{second[0]}/out/kernel"] = state[f"{ours}.attn.proj.weight"].T.reshape(3, 8, 24)
        arrays[f"{block}/{second[0]}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for number in (0, 1):
            arrays[f"{block}/{second[2]}/Dense_{number}/kernel"] = state[f"{ours}.mlp.fc{number + 1}.weight"].T
            arrays[f"{block}/{second[2]}/Dense_{number}/bias"] = state[f"{ours}.mlp.fc{number + 1}.bias"]
    return arrays if layout == "augreg" else {f"params/{name}": array for name, array in arrays.items()}


@torch.no_grad()
def assert_same_answers(model: torch.nn.Module, expected: torch.Tensor) -> None:
    torch.testing.assert_close(model(IMAGES).last_hidden_state, expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("source", ["folder", "state dict"])
def test_transformers_vit_answers_as_before(source, tmp_path):
    vit = transformers_vit()
    vit.save_pretrained(tmp_path)
    fields = {} if source == "folder" else {"layer_norm_eps": 1e-12}
    checkpoint = tmp_path if source == "folder" else vit.state_dict()
    model = convert_checkpoint("tubevit", checkpoint, task="feature-extraction", **KEPT, **fields)
    assert isinstance(model, TubeViTModel)
    assert model.config.layer_norm_eps == 1e-12
    assert_same_answers(model, vit(IMAGES).last_hidden_state)


@torch.no_grad()
def test_timm_vit_answers_as_before(tmp_path):
    vit = timm_vit()
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    model = convert_checkpoint("tubevit", tmp_path / "vit.pth", task="feature-extraction", **KEPT)
    assert model.config.layer_norm_eps == 1e-6
    assert_same_answers(model, vit.forward_features(IMAGES))


@torch.no_grad()
def test_timm_vit_whose_class_token_has_no_position():
    vit = timm_vit(no_embed_class=True)
    model = convert_checkpoint("tubevit", vit.state_dict(), task="feature-extraction", **KEPT)
    assert_same_answers(model, vit.forward_features(IMAGES))


@torch.no_grad()
@pytest.mark.parametrize("layout", ["augreg", "big_vision"])
def test_npz_answers_as_before(layout, tmp_path):
    vit, path = timm_vit(), tmp_path / "vit.npz"
    np.savez(path, **flax_arrays(vit, layout))
    fields = {name: value for name, value in KEPT.items() if name != "num_attention_heads"}  # the file shows them
    model = convert_checkpoint("tubevit", path, task="feature-extraction", **fields)
    assert_same_answers(model, vit.forward_features(IMAGES))


def test_timm_reads_the_same_from_these_files(tmp_path):
    """The layout that the test above writes is the one that timm knows."""
    vit, path = timm_vit(), tmp_path / "vit.npz"
    np.savez(path, **flax_arrays(vit, "augreg"))
    other = timm_vit()
    torch.nn.init.zeros_(other.blocks[0].mlp.fc1.weight)
    other.load_pretrained(str(path))
    for name, tensor in vit.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


@pytest.mark.parametrize("size", ["bfloat16", "objects"])
def test_types_of_arrays(size, tmp_path):
    arrays = flax_arrays(timm_vit(), "big_vision")
    if size == "objects":
        arrays["params/cls"] = np.array([{"a": 1}], dtype=object)
        np.savez(tmp_path / "vit.npz", **arrays)
        with pytest.raises(ValueError, match="cannot be read as numpy arrays"):
            convert_checkpoint("tubevit", tmp_path / "vit.npz", task="feature-extraction")
        return
    halves = {name: torch.tensor(array).bfloat16() for name, array in arrays.items()}
    np.savez(tmp_path / "vit.npz", **{name: one.view(torch.int16).numpy().view("V2") for name, one in halves.items()})
    model = convert_checkpoint("tubevit", tmp_path / "vit.npz", task="feature-extraction")
    expected = halves["params/Transformer/encoder_norm/scale"].float()
    assert torch.equal(model.layernorm.weight.detach(), expected)


def test_as_in_the_paper_positions_and_class_token_are_left_behind():
    vit = timm_vit()
    model = convert_checkpoint("tubevit", vit.state_dict(), task="feature-extraction", num_attention_heads=3)
    tubes = model.embeddings.tubes
    assert torch.equal(tubes[3].weight[:, :, 0], vit.patch_embed.proj.weight)
    assert torch.equal(tubes[3].bias, vit.patch_embed.proj.bias)
    assert model.embeddings.class_token is None
    assert model.embeddings.image_positions is None
    for tube in tubes[:3]:  # fan-in
        assert tube.bias.abs().max() == 0
        assert tube.weight.std().item() == pytest.approx(tube.weight[0].numel() ** -0.5, rel=0.1)
    assert torch.equal(model.encoder.layers[1].attention.k_proj.weight, vit.blocks[1].attn.qkv.weight[24:48])


def test_inflated_tubes_answer_a_still_clip_like_the_resized_patch():
    vit = timm_vit()
    model = convert_checkpoint(
        "tubevit", vit.state_dict(), task="feature-extraction", num_attention_heads=3, tube_init="inflate"
    )
    tubes = [{"kernel": [8, 16, 16], "stride": [16, 16, 16]}, {"kernel": [1, 16, 16], "stride": [16, 16, 16]}]
    still = convert_checkpoint(
        "tubevit",
        vit.state_dict(),
        task="feature-extraction",
        num_attention_heads=3,
        tube_init="inflate",
        tubes=tubes,
    )
    clip = IMAGES[:, None].expand(-1, 8, -1, -1, -1)
    tokens = still.embeddings.tokens(clip)
    torch.testing.assert_close(tokens[:, :6], tokens[:, 6:], atol=1e-5, rtol=1e-5)
    # of the tubes with space-to-depth the first channels
    first = model.embeddings.tubes[0]
    assert first.weight.shape == (12, 3, 8, 8, 8)
    expected = torch.nn.functional.interpolate(vit.patch_embed.proj.weight[:12], (8, 8), mode="bilinear") / 8
    torch.testing.assert_close(first.weight[:, :, 3], expected)
    assert torch.equal(first.bias, vit.patch_embed.proj.bias[:12])


def test_interpolated_kernels_can_be_inflated():
    vit = timm_vit()
    fields = {"num_attention_heads": 3, "tube_kernels": "interpolated"}
    model = convert_checkpoint("tubevit", vit.state_dict(), task="feature-extraction", tube_init="inflate", **fields)
    patch = inflated(Tube((8, 8, 8), (8, 8, 8)), 24)(vit.patch_embed.proj.weight)
    assert torch.equal(model.embeddings.shared_kernel.weight, patch)
    fresh = convert_checkpoint("tubevit", vit.state_dict(), task="feature-extraction", **fields)
    assert not torch.equal(fresh.embeddings.shared_kernel.weight, patch)


def test_classifiers_start_fresh(tmp_path):
    vit = transformers_vit(ViTForImageClassification, num_labels=3)
    fields = {"num_attention_heads": 3, "num_frames": 8, "image_size": [32, 48]}
    with pytest.raises(ValueError, match="for a new classifier"):
        convert_checkpoint("tubevit", vit.state_dict(), task="video-classification", **fields)
    video = convert_checkpoint("tubevit", vit.state_dict(), task="video-classification", labels=["a", "b"], **fields)
    assert video.config.id2label == {0: "a", 1: "b"}
    vit.save_pretrained(tmp_path / "vit")
    convert_to_folder(
        "tubevit", tmp_path / "vit", tmp_path / "image", task="image-classification", num_labels=5, **fields
    )
    image = TubeViTForImageClassification.from_pretrained(tmp_path / "image").eval()
    assert image(IMAGES).logits.shape == (2, 5)
    assert (tmp_path / "image" / "preprocessor_config.json").is_file()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "pretraining"}, "`task` of a tubevit"),
        ({"tube_init": "zero"}, "`tube_init` must be one of"),
        ({"published": "tubevit-base-k600"}, "authors of TubeViT released none"),
        ({"image_position_grid": [3, 3]}, "`image_position_grid` must be the height and width of the 6 learnt"),
        ({"hidden_size": 48}, "`hidden_size` is 48, but"),
        ({"num_attention_heads": None}, "`num_attention_heads` is needed"),
        ({"labels": ["a"]}, "`labels` is only supported with task="),
        ({"gate_layr": 1}, "Did you mean `gate_layer`"),
    ],
)
def test_impossible_conversions(fields, message):
    arguments = {"task": "feature-extraction", "num_attention_heads": 3, **fields}
    with pytest.raises(ValueError, match=message):
        convert_checkpoint("tubevit", timm_vit().state_dict(), **arguments)


def test_models_that_are_no_plain_vit():
    state = timm_vit(init_values=0.1).state_dict()
    with pytest.raises(ValueError, match=r"is not a plain ViT: it has .*ls1.gamma"):
        convert_checkpoint("tubevit", state, task="feature-extraction", num_attention_heads=3)
    with pytest.raises(ValueError, match="there is no patch embedding"):
        convert_checkpoint("tubevit", {"a.weight": torch.ones(2)}, task="feature-extraction")
    without = {name: tensor for name, tensor in timm_vit().state_dict().items() if name != "cls_token"}
    with pytest.raises(ValueError, match="has no class token"):
        convert_checkpoint("tubevit", without, task="feature-extraction", num_attention_heads=3, use_class_token=True)
    lacking = {name: one for name, one in timm_vit().state_dict().items() if name != "blocks.1.norm1.bias"}
    with pytest.raises(ValueError, match="missing from the checkpoint"):
        convert_checkpoint("tubevit", lacking, task="feature-extraction", num_attention_heads=3)
