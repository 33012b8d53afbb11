"""UniFormer under transformers' UperNet, and the switches of the dense recipes."""

import pytest
import torch
from transformers import UperNetConfig, UperNetForSemanticSegmentation

from hf_videovit import (
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerModel,
)
from hf_videovit.dense import freeze_batch_norms, set_attention_type


TINY = {
    "modality": "image",
    "depths": [1, 1, 4, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "head_dim": 8,
    "out_indices": [1, 2, 3, 4],
    "window_size": 2,
}
UPERNET = {"hidden_size": 16, "auxiliary_channels": 8, "num_labels": 4}


def tiny_backbone(**fields) -> UniFormerBackbone:
    torch.manual_seed(0)
    return UniFormerBackbone(UniFormerConfig(**{**TINY, **fields}))


def upernet(**fields) -> UperNetForSemanticSegmentation:
    torch.manual_seed(0)
    backbone_config = UniFormerConfig(**{**TINY, **fields})
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone_config, **UPERNET)).eval()


def test_upernet_takes_the_backbone_by_its_configuration():
    model = upernet()
    assert isinstance(model.backbone, UniFormerBackbone)
    assert model.backbone.channels == [8, 16, 24, 32]
    assert model.auxiliary_head.convs[0].conv.in_channels == 24  # on stage 3, as in the official code
    assert (model.config.pool_scales, model.config.auxiliary_loss_weight) == ((1, 2, 3, 6), 0.4)


def test_upernet_initialises_the_backbone_in_its_own_way():
    model, alone = upernet(), tiny_backbone()
    for name, parameter in model.backbone.named_parameters():
        expected = dict(alone.named_parameters())[name]
        assert parameter.std().item() == pytest.approx(expected.std().item(), rel=0.5, abs=1e-3), name


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 101)])
@pytest.mark.parametrize("attention_type", ["global", "window", "hybrid"])
def test_upernet_segments_images_of_any_size(size, attention_type):
    model = upernet(attention_type=attention_type)
    outputs = model(torch.randn(2, 3, *size), labels=torch.randint(0, 4, (2, *size)))
    assert outputs.logits.shape == (2, 4, *size)
    assert outputs.loss.isfinite()


def test_upernet_trains_the_whole_backbone():
    model = upernet(attention_type="hybrid").train()
    labels = torch.randint(0, 4, (2, 64, 96))
    labels[:, :8] = model.config.loss_ignore_index
    model(torch.randn(2, 3, 64, 96), labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_upernet_comes_back_from_a_folder(tmp_path):
    model, pixels = upernet(attention_type="hybrid", window_size=3), torch.randn(1, 3, 64, 96)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    loaded, report = UperNetForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert isinstance(loaded.config.backbone_config, UniFormerConfig)
    assert [one.window_size for one in loaded.backbone.uniformer.stages[2].blocks] == [3, 3, 3, None]
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)


def test_upernet_takes_the_weights_of_a_backbone():
    backbone = tiny_backbone()
    model = upernet()
    report = model.backbone.load_state_dict(backbone.state_dict())
    assert not report.missing_keys and not report.unexpected_keys


@torch.no_grad()
def test_attention_changes_at_run_time(tmp_path):
    """One set of weights in the three modes, in an outer model and after saving it."""
    model, pixels = upernet(), torch.randn(1, 3, 96, 64)
    for attention_type in ("window", "hybrid", "global"):
        set_attention_type(model, attention_type, window_size=3)
        other = upernet(attention_type=attention_type, window_size=3)
        other.load_state_dict(model.state_dict())
        expected = other(pixels).logits
        assert torch.equal(model(pixels).logits, expected)
        model.save_pretrained(tmp_path / attention_type)
        loaded = UperNetForSemanticSegmentation.from_pretrained(tmp_path / attention_type)
        windows = [block.window_size for block in loaded.backbone.uniformer.stages[2].blocks]
        assert windows == [block.window_size for block in other.backbone.uniformer.stages[2].blocks]
        torch.testing.assert_close(loaded(pixels).logits, expected)
    assert not torch.equal(other(pixels).logits, upernet(attention_type="window")(pixels).logits)


def test_attention_that_cannot_change_is_refused():
    light = UniFormerModel(UniFormerConfig(**TINY, use_token_pruning=True, stem="conv_first"))
    for model, arguments, named in (
        (tiny_backbone(), ("windows",), "`attention_type`"),
        (tiny_backbone(), ("window", 0), "`window_size`"),
        (torch.nn.Linear(2, 2), ("window",), "`model`"),
        (light, ("window",), "`model`"),
    ):
        with pytest.raises(ValueError, match=named):
            set_attention_type(model, *arguments)


def test_frozen_batch_norms_stay_frozen_in_training():
    model = upernet()
    count = freeze_batch_norms(model.backbone)
    assert count == 4  # two in each convolution block
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    model(torch.randn(2, 3, 64, 64), labels=torch.randint(0, 4, (2, 64, 64))).loss.backward()
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            assert torch.equal(value, before[name]) == name.startswith("backbone."), name
    assert model.backbone.uniformer.stages[0].blocks[0].norm1.weight.grad is None


@torch.no_grad()
def test_a_trained_classifier_starts_a_segmenter(tmp_path):
    """An own ImageNet model of this package, not a converted one: its folder loads into the backbone."""
    classifier = UniFormerForImageClassification(UniFormerConfig(**TINY))
    classifier.save_pretrained(tmp_path)
    backbone, report = UniFormerBackbone.from_pretrained(tmp_path, out_indices=[1, 2, 3, 4], output_loading_info=True)
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"norms"}
    assert torch.equal(
        backbone.uniformer.stages[3].blocks[0].mlp.fc1.weight, classifier.uniformer.stages[3].blocks[0].mlp.fc1.weight
    )
