import numpy as np
import pytest
import torch
from torch import nn

from hf_videovit.modeling.configuration_videomae_v2 import VideoMAEV2Config
from hf_videovit.modeling.modeling_videomae_v2 import VideoMAEV2ForPreTraining, VideoMAEV2ForVideoClassification
from hf_videovit.training.arguments import OptimizationArguments
from hf_videovit.training.optimization import (
    build_optimizer,
    head_parameters,
    layer_ids,
    parameter_groups,
    scaled_learning_rates,
    set_learning_rate,
)
from hf_videovit.training.schedules import cosine_with_warmup, poly_with_warmup, schedule_steps


FIELDS = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "num_frames": 4,
    "decoder_hidden_size": 8,
    "decoder_num_attention_heads": 2,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 16,
}


def test_layer_decay_follows_the_official_table():
    model = VideoMAEV2ForVideoClassification(VideoMAEV2Config(**FIELDS))
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scale["videomae_v2.embeddings.patch_embeddings.projection.weight"] == 0.5**4
    for block in range(3):
        assert scale[f"videomae_v2.encoder.layers.{block}.attention.q_proj.weight"] == 0.5 ** (3 - block)
    assert scale["videomae_v2.fc_norm.weight"] == scale["classifier.weight"] == 1.0
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decay["classifier.weight"] == 0.05
    assert decay["classifier.bias"] == decay["videomae_v2.fc_norm.weight"] == 0.0
    assert set(scale) == {name for name, _ in model.named_parameters()}
    assert head_parameters(model) == {name for name, depth in layer_ids(model).items() if depth == 4}


def test_mask_token_and_attention_scale_do_not_decay():
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**FIELDS, use_cosine_attention=True))
    groups = parameter_groups(model, weight_decay=0.05)
    free = {name for group in groups if group["weight_decay"] == 0 for name in group["names"]}
    assert "mask_token" in free
    assert "videomae_v2.encoder.layers.0.attention.scale" in free
    assert "encoder_to_decoder.weight" not in free


def test_frozen_parameters_are_left_out_and_other_models_are_welcome():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    model[0].weight.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1)
    assert [group["names"] for group in groups] == [["0.bias", "1.weight", "1.bias"]]
    with pytest.raises(ValueError, match="`layer_decay` needs a model with `layer_groups\\(\\)`, Sequential has none"):
        parameter_groups(model, weight_decay=0.1, layer_decay=0.9)


def test_learning_rate_reaches_each_group_with_its_factor():
    model = VideoMAEV2ForVideoClassification(VideoMAEV2Config(**FIELDS))
    optimizer = build_optimizer(parameter_groups(model, 0.05, 0.5), OptimizationArguments(betas=[0.9, 0.95]))
    set_learning_rate(optimizer, 1.0, 3.0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5**depth for depth in range(5)}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


def test_a_constant_rate_keeps_its_factor_and_the_others_their_schedule():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    rules = [{"match": "^1", "lr_scale": 10.0, "constant": True}]
    groups = parameter_groups(model, 0.1, rules=rules)
    optimizer = build_optimizer(groups, OptimizationArguments())
    set_learning_rate(optimizer, 0.25, 1.0)
    rates = {name: new["lr"] for old, new in zip(groups, optimizer.param_groups) for name in old["names"]}
    assert rates == {"0.weight": 0.25, "0.bias": 0.25, "1.weight": 10.0, "1.bias": 10.0}


def test_a_constant_rate_warms_up_and_stays_at_the_peak():
    arguments = OptimizationArguments(epochs=5, warmup_steps=4, learning_rate=0.5, min_learning_rate=0.0)
    schedule = schedule_steps(arguments, [2])
    scheduled = [schedule.learning_rate(step) for step in range(10)]
    constant = [schedule.constant_rate(step) for step in range(10)]
    assert constant[:4] == scheduled[:4] and constant[4:] == [0.5] * 6
    assert scheduled[-1] < 0.05


@pytest.mark.parametrize(
    ("gpus", "batch", "rate", "peak"), [(32, 16, 7e-4, 1.4e-3), (32, 6, 2e-3, 1.5e-3), (32, 3, 1e-3, 3.75e-4)]
)
def test_batch_rule_gives_the_official_peaks(gpus, batch, rate, peak):
    arguments = OptimizationArguments(learning_rate=rate, batch_size=batch, learning_rate_batch=256)
    assert scaled_learning_rates(arguments, gpus).peak == pytest.approx(peak)
    halved = OptimizationArguments(learning_rate=rate, batch_size=batch, accumulation=2, learning_rate_batch=256)
    assert scaled_learning_rates(halved, gpus // 2) == scaled_learning_rates(arguments, gpus)


def test_schedule_is_the_official_one():
    total, warmup, peak, final = 50, 10, 1e-3, 1e-5
    official = np.concatenate(
        [
            np.linspace(0, peak, warmup),
            final + 0.5 * (peak - final) * (1 + np.cos(np.pi * np.arange(total - warmup) / (total - warmup))),
        ]
    )
    ours = [cosine_with_warmup(step, total, warmup, peak, final) for step in range(total)]
    np.testing.assert_allclose(ours, official, rtol=1e-12)
    assert ours[warmup - 1] == ours[warmup] == peak
    assert cosine_with_warmup(total + 5, total, warmup, peak, final) == final
    with pytest.raises(ValueError, match="`warmup_steps` must be between 0 and `total_steps` \\(5\\), got 6"):
        cosine_with_warmup(0, 5, 6, peak, final)


def test_a_polynomial_falls_from_the_first_step_and_the_warm_up_multiplies_it():
    arguments = OptimizationArguments(
        max_steps=10, warmup_steps=4, learning_rate=1.0, min_learning_rate=0.0, schedule="poly"
    )
    schedule = schedule_steps(arguments, [None])
    rates = [schedule.learning_rate(step) for step in range(12)]
    assert rates == pytest.approx([0, 0.9 / 4, 0.8 / 2, 0.7 * 3 / 4, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0])
    assert poly_with_warmup(5, 10, 0, 1.0, 0.5, power=2) == pytest.approx(0.5 + 0.5 * 0.25)


def test_optimizer_groups_hold_every_parameter_once():
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**FIELDS))
    optimizer = build_optimizer(parameter_groups(model, 0.05, 0.9), OptimizationArguments())
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(map(id, held))) == len(list(model.parameters()))
    assert all(isinstance(parameter, torch.nn.Parameter) for parameter in held)
