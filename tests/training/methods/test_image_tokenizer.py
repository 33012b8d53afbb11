"""Runs that train a tokenizer: on clips and on images, resumed, with a perceptual loss, and used by BEVT."""

import json

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import pretrain
from hf_videovit.training.planning import plan_run
from hf_videovit.training.preview import preview_clips
from hf_videovit.training.words.perceptual import PerceptualDistance
from hf_videovit.training.words.tokenizers import MovingLearnedTokenizer, load_tokenizer


@pytest.fixture
def fields(tiny_fields, tmp_path):
    """Five steps an epoch over 20 clips of 4 frames."""
    config = {"vocab_size": 16, "patch_size": 2, "hidden_size": 8, "num_hidden_layers": 1, "code_size": 4}
    own = {"model_type": "bevt_image_codebook", "picture_every": 0, "learning_rate": 3e-3, "clip_grad": 1.0}
    config |= {"image_size": 32, "num_frames": 4, "subtract_mean_frame": True}
    return tiny_fields | own | {"config": config, "output_dir": str(tmp_path / "tokenizer")}


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **sizes))
    model.save_pretrained(tmp_path / "classifier")
    ViTImageProcessor().save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


def train(fields, **more):
    return pretrain(RunConfig.from_fields(**fields | more))


def validations(result):
    return [line["validation"] for line in result.history if "validation" in line]


def test_a_trained_tokenizer_gives_bevt_its_words(fields, word_fields, tmp_path):
    result = train(fields, epochs=6, picture_every=6)
    first, *_, last = validations(result)
    assert list(last) == ["explained", "perplexity", "used", "loss"]
    assert last["explained"] > max(first["explained"], 0.3)
    assert 1 < last["perplexity"] <= 16
    assert result.picture == tmp_path / "tokenizer" / "reconstructions.png"
    assert result.picture.is_file()
    assert len(list((tmp_path / "tokenizer" / "logs" / "reconstructions").iterdir())) == 1
    assert type(load_tokenizer(tmp_path / "tokenizer")) is MovingLearnedTokenizer
    names = {"tokenizer": str(tmp_path / "tokenizer"), "word_cache": str(tmp_path / "words"), "word_copies": 1}
    run = RunConfig.from_fields(**word_fields | names, method="masked_words")
    assert "words" in plan_run(run, "encoder").others
    assert preview_clips(run, 2)
    pretrained = pretrain(run)
    assert pretrained.picture.is_file()  # in which words are painted
    assert validations(pretrained)[-1]["majority"] > 1 / 16
    assert list((tmp_path / "words").glob("*/*/*.npy"))


def test_a_resumed_run_is_the_uninterrupted_one(fields, tmp_path):
    own = fields | {"num_sample": 2, "ema_decay": 0.5, "eval_every": 0}
    whole = train(own, save_every=0, output_dir=str(tmp_path / "whole"))
    part = own | {"save_steps": 3, "save_every": 0, "keep_checkpoints": 3, "output_dir": str(tmp_path / "part")}
    train(part)
    kept = sorted((tmp_path / "part" / "checkpoints").glob("step_*"))
    for later in kept[1:]:
        for path in sorted(later.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        later.rmdir()
    resumed = train(part, resume=True)
    assert len(kept) > 1
    assert [line["loss"] for line in resumed.history] == [line["loss"] for line in whole.history]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_images_and_a_perceptual_loss(fields, classifier, picture_folder):
    own = {"images": True, "perceptual_model": str(classifier), "data": str(picture_folder), "epochs": 1}
    own["config"] = fields["config"] | {"num_frames": 1, "subtract_mean_frame": False}
    result = train(fields, **own)
    lines = [line for line in result.history if "perceptual_loss" in line]
    for line in lines:
        assert line["loss"] == pytest.approx(
            line["pixel_loss"] + 0.25 * line["commitment_loss"] + line["perceptual_loss"], rel=1e-5
        )
    assert result.facts["num_train_videos"] == 7
    assert not any("network" in name for name in result.model.state_dict())
    run = RunConfig.from_fields(**fields | own, method="image_tokenizer")
    assert list(plan_run(run, "encoder").others) == ["perceptual"]
    (one, *_) = preview_clips(run, 2)
    assert one.after[0].shape == (1, 32, 32, 3)
    with pytest.raises(ValueError, match="`perceptual_weight` is not read"):
        train(fields, perceptual_weight=2.0)
    distance, pixels = PerceptualDistance.load(classifier), 0.1 + 0.8 * torch.rand(2, 3, 24, 24)
    assert distance(pixels, pixels) == 0
    other = pixels.flip(-1).requires_grad_()
    distance(other, pixels).backward()
    assert other.grad.abs().sum() > 0


def test_the_recipe_is_a_tokenizer_for_the_trial():
    from hf_videovit.modeling.configuration_bevt import BevtConfig
    from hf_videovit.training.recipe_files import read_recipe

    trial, own = read_recipe("bevt/digit_motion"), read_recipe("bevt/digit_motion_tokenizer")
    words = own["model"]["config"]
    model = BevtConfig(**trial["model"]["config"])
    assert 2 * words["patch_size"] == model.prediction_patch_size
    assert words["vocab_size"] <= model.vocab_size
    assert own["model"]["processor"] == trial["model"]["processor"]
    assert json.dumps(own["augmentation"]) == json.dumps(trial["augmentation"])
