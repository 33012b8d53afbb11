"""A trained small model's tubes before a large frozen ViT."""

import pytest
import torch

from hf_videovit import (
    TubeViTConfig,
    TubeViTForJointClassification,
    TubeViTForVideoClassification,
    TubeViTModel,
    resize_tubes,
    scale_up,
)
from hf_videovit.convert.scaling_tubevit import widening_factors
from hf_videovit.training.optimization import freeze_layers, parameter_groups


CLIP = torch.randn(2, 32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LARGE = {"hidden_size": 40, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 32}


def models(large_width: int = 40, **small_fields):
    torch.manual_seed(0)
    datasets = {"a": {"num_labels": 2}}
    small = TubeViTForJointClassification(TubeViTConfig(**SMALL, datasets=datasets, **small_fields)).eval()
    large = TubeViTModel(TubeViTConfig(**{**LARGE, "hidden_size": large_width})).eval()
    return small, large


@torch.no_grad()
def test_features_of_images_stay_what_they_were_to_the_last_bit():
    small, large = models()
    model = scale_up(small, large, gate_layer=3, num_labels=5)
    images = CLIP[:, 0]
    assert torch.equal(model.tubevit(images).last_hidden_state, large(images).last_hidden_state)


@torch.no_grad()
def test_a_fresh_gate_leaves_features_of_clips_to_the_last_bit_and_an_open_one_does_not():
    small, large = models()
    gated, plain = (scale_up(small, large, gate_layer=layer, labels=["x", "y"]) for layer in (3, 0))
    expected = plain.tubevit(CLIP).last_hidden_state
    assert torch.equal(gated.tubevit(CLIP).last_hidden_state, expected)
    gated.tubevit.encoder.gate.alpha += 0.1
    assert not torch.equal(gated.tubevit(CLIP).last_hidden_state, expected)
    assert gated.config.id2label == {0: "x", 1: "y"}


@torch.no_grad()
@pytest.mark.parametrize(("width", "factors"), [(24, (1, 1, 1)), (40, (2, 1, 1)), (96, (1, 2, 2)), (160, (2, 2, 2))])
def test_widened_tokens_join_neighbouring_windows_of_the_small_kernels(width, factors):
    small, large = models(width)
    model = scale_up(small, large, gate_layer=0, num_labels=2)
    assert widening_factors(24, width, None) == factors
    tubes = model.config.tube_list
    assert tubes[0].space_to_depth == tuple(one * two for one, two in zip((2, 1, 1), factors))
    assert tubes[0].window_stride == tuple(one // two for one, two in zip((8, 32, 32), factors))
    assert torch.equal(model.tubevit.embeddings.tubes[0].weight, small.tubevit.embeddings.tubes[0].weight)
    assert torch.equal(model.tubevit.embeddings.tubes[3].weight, large.embeddings.tubes[3].weight)
    tokens = model.tubevit.embeddings.tokens(CLIP)
    assert tokens.shape == (2, model.config.num_tokens((32, 64, 64)), width)
    # the first window of the first token is the small model's
    weight, bias = small.tubevit.embeddings.tubes[0].weight, small.tubevit.embeddings.tubes[0].bias
    first = torch.einsum("cithw,btihw->bc", weight, CLIP[:, :8, :, :8, :8]) + bias
    torch.testing.assert_close(tokens[:, 0, :12], first, atol=1e-5, rtol=1e-5)


def test_only_what_the_paper_trains_is_trained():
    small, large = models()
    model = scale_up(small, large, gate_layer=3, num_labels=5)
    freeze_layers(model, 3)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    above = ("classifier.", "tubevit.pooler.", "tubevit.layernorm.", "tubevit.encoder.gate.")
    assert trained == {
        name for name, _ in model.named_parameters() if name.startswith((*above, "tubevit.encoder.layers.3."))
    }
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=0.01)
    for _ in range(2):
        model(CLIP, labels=torch.tensor([0, 4])).loss.backward()
        optimizer.step()
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained
    with pytest.raises(ValueError, match="`frozen_layers` must be at most 4"):
        freeze_layers(model, 5)


def test_interpolated_kernels_are_taken_as_they_are_used():
    small, large = models(tube_kernels="interpolated")
    model = scale_up(small, large, gate_layer=0, num_labels=2)
    embeddings = small.tubevit.embeddings
    expected = embeddings.tubes[1].resized(embeddings.shared_kernel.weight)
    assert torch.equal(model.tubevit.embeddings.tubes[1].weight, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate_layer": 5, "num_labels": 2}, "`gate_layer` must be between"),
        ({"gate_layer": 1}, "Pass either `labels` or `num_labels`"),
        ({"gate_layer": 1, "num_labels": 2, "widening": [1, 1, 1]}, "`widening` must be three numbers"),
        ({"gate_layer": 1, "num_labels": 2, "widening": [3, 1, 1]}, "`stride` of a tube must be divisible"),
    ],
)
def test_impossible_models(arguments, message):
    with pytest.raises(ValueError, match=message):
        scale_up(*models(), **arguments)


def test_models_that_do_not_go_together():
    small, large = models()
    with pytest.raises(ValueError, match="`small` needs a tube of several frames"):
        scale_up(TubeViTModel(TubeViTConfig(**SMALL, tubes="patches")), large, gate_layer=0, num_labels=2)
    with pytest.raises(ValueError, match="the defaults reach 8 times"):
        scale_up(small, TubeViTModel(TubeViTConfig(**{**LARGE, "hidden_size": 256})), gate_layer=0, num_labels=2)


@torch.no_grad()
def test_kernels_of_other_sizes_go_on_from_trained_ones():
    torch.manual_seed(0)
    model = TubeViTForVideoClassification(TubeViTConfig(**SMALL, num_labels=3)).eval()
    same = resize_tubes(model, "main")
    assert torch.equal(same(CLIP).logits, model(CLIP).logits)
    longer = resize_tubes(model, "charades")
    assert longer.config.tube_list[1].kernel == (32, 8, 8)
    first, old = longer.tubevit.embeddings.tubes[0], model.tubevit.embeddings.tubes[0]
    assert first.weight.shape == (24, 3, 16, 16, 16)
    assert torch.equal(first.weight[:12], first.weight[12:])  # the old tube joined two windows of 12 channels
    expected = torch.nn.functional.interpolate(old.weight, (16, 16, 16), mode="trilinear")
    torch.testing.assert_close(first.weight[:12], expected)
    assert torch.equal(longer.tubevit.embeddings.tubes[3].weight, model.tubevit.embeddings.tubes[3].weight)
    with pytest.raises(ValueError, match="`tubes` must have"):
        resize_tubes(model, "core")
