"""BEVT's converter: layouts of Swin weights, inflation, other windows, and the tokenizer."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from timm.models import swin_transformer as timm_swin
from torch import nn
from torchvision.models import swin_transformer as torchvision_swin
from torchvision.models.video import swin3d_t
from torchvision.models.video.swin_transformer import SwinTransformer3d
from transformers import SwinConfig, SwinForImageClassification

from hf_videovit import BevtForPreTraining, BevtForVideoClassification, convert_checkpoint
from hf_videovit.convert.codebook import convert_codebook
from hf_videovit.convert.convert_bevt import plan_conversion
from hf_videovit.convert.keys import open_checkpoint


FIXTURES = Path(__file__).parents[1] / "fixtures" / "bevt"
FINE_TUNED, PRETRAINED = (FIXTURES / case / "checkpoint.pth" for case in ("swin3d_classify", "pretrain_joint"))
IMAGE_SWIN = FIXTURES / "inflate" / "checkpoint_2d.pth"
WINDOW = {"window_size": [2, 3, 3]}
TINY = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]}  # in torchvision's words


def weights(path: Path, wrapper: str = "state_dict") -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)[wrapper]


def scrambled(module: nn.Module, scale: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn_like(parameter)
    return module.eval()


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_torchvision_tiny_agrees():
    theirs = scrambled(swin3d_t(), 0.02)
    ours = convert_checkpoint("bevt", theirs.state_dict(), task="video-classification")
    assert ours.config.window_size == [8, 7, 7]
    pixel_values = torch.randn(1, 4, 3, 64, 96)
    close(ours(pixel_values).logits, theirs(pixel_values.transpose(1, 2)))


@torch.no_grad()
def test_torchvision_clips_with_padding_and_shift():
    theirs = scrambled(SwinTransformer3d(patch_size=[2, 4, 4], window_size=[2, 3, 3], num_classes=5, **TINY))
    ours = convert_checkpoint("bevt", theirs.state_dict(), task="video-classification", **WINDOW)
    pixel_values = torch.randn(2, 7, 3, 34, 42)
    close(ours(pixel_values).logits, theirs(pixel_values.transpose(1, 2)))


def image_swins() -> dict[str, nn.Module]:
    """Image Swins of one size by the library that they come from."""
    return {
        "timm": timm_swin.SwinTransformer(img_size=32, patch_size=4, window_size=4, num_classes=3, **TINY),
        "torchvision": torchvision_swin.SwinTransformer(
            patch_size=[4, 4], window_size=[4, 4], num_classes=3, stochastic_depth_prob=0.0, **TINY
        ),
        "transformers": SwinForImageClassification(
            SwinConfig(image_size=32, patch_size=4, window_size=4, num_labels=3, drop_path_rate=0.0, **TINY)
        ),
    }


@torch.no_grad()
@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_image_swins_become_the_model_of_a_still_clip(library, tmp_path):
    """With one frame a token and a window of one frame, an inflated Swin is the Swin."""
    theirs = scrambled(image_swins()[library])
    still = {"tubelet_size": 1, "window_size": [1, 4, 4]}
    ours = convert_checkpoint("bevt", theirs.state_dict(), task="feature-extraction", **still)
    pixels = torch.randn(2, 3, 32, 32)
    if library == "transformers":
        expected = theirs.swin(pixels).last_hidden_state
        theirs.save_pretrained(tmp_path)  # whose names are others than in memory
        read = convert_checkpoint("bevt", tmp_path / "model.safetensors", task="feature-extraction", **still)
        close(read(pixels[:, None]).last_hidden_state, expected)
    elif library == "timm":
        expected = theirs.forward_features(pixels).flatten(1, 2)
    else:
        expected = theirs.norm(theirs.features(pixels)).flatten(1, 2)
    close(ours(pixels[:, None]).last_hidden_state, expected)


@torch.no_grad()
def test_an_inflated_model_sees_a_still_clip_as_the_image():
    """The kernel's frames add up to the image's, so equal frames give the image's patches."""
    model = convert_checkpoint("bevt", IMAGE_SWIN, task="pretraining", vocab_size=16, **WINDOW)
    assert isinstance(model, BevtForPreTraining)
    pixels = torch.randn(1, 3, 96, 96)
    close(model.bevt.embeddings(pixels[:, None].repeat(1, 2, 1, 1, 1)), model.image_embeddings(pixels))


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        ("model", "encoder."),
        ("module", "backbone."),
        ("state_dict", "module.backbone."),
        (None, "module."),
    ],
)
def test_stage_one_files_are_read_whatever_their_prefix(wrapper, prefix, tmp_path):
    state = {f"{prefix}{name}": tensor for name, tensor in weights(IMAGE_SWIN, "model").items()}
    torch.save(state if wrapper is None else {wrapper: state}, tmp_path / "x.pth")
    plan = plan_conversion(open_checkpoint(tmp_path / "x.pth"), task="feature-extraction")
    plan.check()
    assert plan.config.window_size == [8, 3, 3]


@torch.no_grad()
def test_fc_norm_takes_the_place_of_the_final_norm():
    state = dict(weights(IMAGE_SWIN, "model"))
    state |= {f"fc_norm.{kind}": torch.full_like(state[f"norm.{kind}"], 3.0) for kind in ("weight", "bias")}
    model = convert_checkpoint("bevt", state, task="feature-extraction", **WINDOW)
    assert (model.layernorm.weight == 3).all()


@torch.no_grad()
def test_moving_averages_are_taken_unless_refused():
    state = weights(FINE_TUNED)
    averages = {
        f"ema_{name.replace('.', '_')}": tensor + 1 for name, tensor in state.items() if tensor.is_floating_point()
    }
    both = {**state, **averages}
    averaged = convert_checkpoint("bevt", both, task="video-classification", **WINDOW)
    raw = convert_checkpoint("bevt", both, task="video-classification", use_ema=False, **WINDOW)
    close(averaged.classifier.bias, raw.classifier.bias + 1)
    close(raw.classifier.bias, state["cls_head.fc_cls.bias"])
    with pytest.raises(ValueError, match="moving average without its weight"):
        convert_checkpoint("bevt", {**state, "ema_x": torch.ones(1)}, task="video-classification", **WINDOW)


@torch.no_grad()
def test_pretraining_to_classification_keeps_the_norm_and_says_what_is_fresh(caplog):
    model = convert_checkpoint("bevt", PRETRAINED, task="video-classification", num_labels=7, **WINDOW)
    assert isinstance(model, BevtForVideoClassification)
    assert torch.equal(model.bevt.layernorm.weight, weights(PRETRAINED)["backbone.norm.weight"])
    assert model.config.num_labels == 7
    with pytest.raises(ValueError, match="num_labels"):
        convert_checkpoint("bevt", PRETRAINED, task="video-classification", **WINDOW)
    with pytest.raises(ValueError, match="no decoders"):
        convert_checkpoint("bevt", FINE_TUNED, task="pretraining", **WINDOW)


def test_the_window_is_told_by_the_index_or_must_be_given():
    plan = plan_conversion(open_checkpoint(PRETRAINED), task="pretraining")
    assert plan.config.window_size == [2, 3, 3]
    state = {name: tensor for name, tensor in weights(PRETRAINED).items() if "index" not in name}
    with pytest.raises(ValueError, match="`pretrained_window_size` is needed"):
        plan_conversion(open_checkpoint(state), task="pretraining")
    plan = plan_conversion(open_checkpoint(state), task="pretraining", pretrained_window_size=[2, 3, 3])
    assert plan.config.window_size == [2, 3, 3]
    with pytest.raises(ValueError, match="`pretrained_window_size`"):
        plan_conversion(open_checkpoint(state), task="pretraining", pretrained_window_size=[2, 7, 7])


@torch.no_grad()
def test_a_window_that_grows_in_time_keeps_the_scale_of_the_tables():
    """Resized tables stay within the values they come from."""
    source = convert_checkpoint("bevt", PRETRAINED, task="feature-extraction")
    longer = convert_checkpoint("bevt", PRETRAINED, task="feature-extraction", window_size=[4, 3, 3])
    for ours, theirs in zip(longer.encoder.stages, source.encoder.stages):
        table, original = (stage.layers[0].attention.relative_position_bias_table for stage in (ours, theirs))
        assert len(table) == 7 * 25
        assert table.min() >= original.min() - 1e-6
        assert table.max() <= original.max() + 1e-6


def test_what_is_no_swin_is_refused():
    with pytest.raises(ValueError, match="not a Swin checkpoint"):
        convert_checkpoint("bevt", {"x": torch.ones(1)}, task="pretraining")
    state = dict(weights(FINE_TUNED))
    state["backbone.strange"] = torch.ones(1)
    with pytest.raises(ValueError, match="strange"):
        convert_checkpoint("bevt", state, task="video-classification", **WINDOW)


class Encoder(nn.Module):
    """Stands in for the official class, which is not installed here."""


class Conv2d(Encoder):
    """Likewise."""


class Attack:
    def __reduce__(self):
        return Path.touch, (Path("attacked"),)


def pickled_encoder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module as the official file holds it: pickled, of classes of another package."""
    modules = {name: ModuleType(name) for name in ("dall_e", "dall_e.encoder", "dall_e.utils")}
    modules["dall_e.encoder"].Encoder, modules["dall_e.utils"].Conv2d = Encoder, Conv2d
    monkeypatch.setattr(Encoder, "__module__", "dall_e.encoder")
    monkeypatch.setattr(Conv2d, "__module__", "dall_e.utils")
    root = Encoder()
    for name, tensor in torch.load(FIXTURES / "dalle_encoder" / "checkpoint.pth", weights_only=True).items():
        *parents, leaf = name.split(".")
        place = root
        for depth, parent in enumerate(parents):
            if parent not in place._modules:
                last = depth == len(parents) - 1
                place.add_module(parent, Conv2d() if last else nn.Sequential())
            place = place._modules[parent]
        place.register_parameter(leaf, nn.Parameter(tensor))
    with monkeypatch.context() as patched:
        for name, module in modules.items():
            patched.setitem(sys.modules, name, module)
        torch.save(root, path)


@torch.no_grad()
def test_a_pickled_tokenizer_is_read_without_its_package(tmp_path, monkeypatch):
    pickled_encoder(tmp_path / "encoder.pkl", monkeypatch)
    codebook = convert_codebook(tmp_path / "encoder.pkl")
    expected = convert_codebook(FIXTURES / "dalle_encoder" / "checkpoint.pth")
    for (name, ours), theirs in zip(codebook.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not any(parameter.requires_grad for parameter in codebook.parameters())


def test_a_pickled_file_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"blocks.input.w": Attack()}, "encoder.pkl")
    with pytest.raises(ValueError, match=r"could run code.*state_dict"):
        convert_codebook("encoder.pkl")
    Path("broken.pkl").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="cannot be read safely"):
        convert_codebook("broken.pkl")
    assert not Path("attacked").exists()


@torch.no_grad()
def test_the_tokenizer_inside_a_pretraining_checkpoint_is_found():
    codebook = convert_codebook(PRETRAINED)
    assert codebook.config.vocab_size == 64
    with pytest.raises(ValueError, match="has no DALL-E encoder"):
        convert_codebook(FINE_TUNED)
