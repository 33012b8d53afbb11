"""The small shared parts, each against a plain second way of working it out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig

from hf_videovit.modeling.layers import (
    DropPath,
    classification_loss,
    drop_path_rates,
    gather_tokens,
    interpolate_positions,
    kept_indices,
    merge_views,
    project_activated,
    sinusoid_table,
)


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 3, 2))
    assert ((out == 0) | (out == 1 / 0.75)).all()
    assert (out.flatten(1).amin(1) == out.flatten(1).amax(1)).all()
    assert out.mean() == pytest.approx(1.0, abs=0.05)
    assert (layer.eval()(torch.ones(2, 3)) == 1).all()


def test_drop_path_rates_grow_from_zero():
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]


def test_sinusoid_table_is_exact_far_from_the_origin():
    table = sinusoid_table(11552, 8)
    position, channel = torch.tensor(11551.0, dtype=torch.float64), 2
    angle = position / 10000 ** (2 * (channel // 2) / 8)
    assert table[-1, channel] == angle.sin().float() and table[-1, channel + 1] == angle.cos().float()


def test_positions_are_untouched_at_their_own_grid_and_linear_in_time():
    table = torch.arange(2 * 2 * 2, dtype=torch.float32).view(8, 1).expand(8, 3)
    assert interpolate_positions(table, (2, 2, 2), (2, 2, 2)) is table
    longer = interpolate_positions(table, (2, 2, 2), (4, 2, 2))
    expected = torch.tensor([0.0, 1.0, 3.0, 4.0])  # half-pixel centres between 0 and 4, ends held
    torch.testing.assert_close(longer.view(4, 2, 2, 3)[:, 0, 0, 0], expected)
    assert interpolate_positions(table, (2, 2, 2), (2, 3, 5)).shape == (30, 3)


def test_positions_in_space_equal_a_frame_by_frame_resize():
    table = torch.randn(3 * 4 * 4, 6)
    resized = interpolate_positions(table, (3, 4, 4), (3, 6, 8)).view(3, 6, 8, 6)
    for frame, grid in enumerate(table.view(3, 4, 4, 6)):
        alone = torch.nn.functional.interpolate(grid.permute(2, 0, 1)[None], size=(6, 8), mode="bicubic")
        torch.testing.assert_close(resized[frame], alone[0].permute(1, 2, 0))


@given(data=st.data(), length=st.integers(2, 30), batch=st.integers(1, 4))
def test_gathering_by_index_equals_boolean_selection(data, length, batch):
    kept = data.draw(st.integers(1, length))
    mask = torch.ones(batch, length, dtype=torch.bool)
    for row in mask:
        row[torch.randperm(length)[:kept]] = False
    tokens = torch.randn(batch, length, 5)
    torch.testing.assert_close(gather_tokens(tokens, kept_indices(mask, kept)), tokens[~mask].view(batch, kept, 5))


def test_merged_views_have_the_mean_probability():
    logits = torch.randn(3, 4, 7) * 5
    merged = merge_views(logits, "softmax_mean", None)
    torch.testing.assert_close(merged.softmax(-1), logits.softmax(-1).mean(1))
    merged = merge_views(logits, "softmax_mean", "multi_label_classification")
    torch.testing.assert_close(merged.sigmoid(), logits.sigmoid().mean(1))
    torch.testing.assert_close(merge_views(logits, "logits_mean", None), logits.mean(1))
    torch.testing.assert_close(merge_views(logits, "softmax_mean", "regression"), logits.mean(1))
    assert merge_views(logits[:, :1], "softmax_mean", None).equal(logits[:, 0])


def loss_of(labels: torch.Tensor, logits: torch.Tensor, problem_type: str | None = None) -> torch.Tensor:
    return classification_loss(labels, logits, PreTrainedConfig(problem_type=problem_type))


def test_losses_by_kind_of_label():
    logits = torch.randn(4, 3)
    hard = torch.tensor([0, 2, 1, 1])
    soft = torch.nn.functional.one_hot(hard, 3).float()
    torch.testing.assert_close(loss_of(hard, logits), loss_of(soft, logits))
    mixed = torch.rand(4, 3).softmax(-1)
    torch.testing.assert_close(loss_of(mixed, logits), -(mixed * logits.log_softmax(-1)).sum(-1).mean())
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, soft)
    torch.testing.assert_close(loss_of(soft, logits, "multi_label_classification"), expected)
    torch.testing.assert_close(loss_of(torch.ones(4), logits[:, :1], "regression"), (logits[:, 0] - 1).square().mean())


def test_the_loss_does_not_write_into_the_configuration():
    config = PreTrainedConfig()
    classification_loss(torch.rand(2, 3), torch.randn(2, 3), config)
    assert config.problem_type is None


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (torch.zeros(3, dtype=torch.long), None, r"`labels` must have shape \(2,\), got \(3,\)"),
        (torch.rand(2, 5), None, r"Soft `labels` must have shape \(2, 4\)"),
        (torch.zeros(2, dtype=torch.long), "multi_label_classification", r"problem must have shape \(2, 4\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, problem_type, message):
    with pytest.raises(ValueError, match=message):
        loss_of(labels, torch.randn(2, 4), problem_type)


# Projections of activations


class ScaledLinear(nn.Linear):
    """Stands for an adapted or quantised layer: more than a matrix product."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(hidden_states)


def saved_bytes(function) -> int:
    """What a forward pass keeps for the backward one, parameters and inputs included."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(storages.values())


@pytest.mark.parametrize("bias", [True, False])
def test_activations_computed_again_give_the_same_gradients(bias):
    torch.manual_seed(0)
    projection, activation = nn.Linear(12, 5, bias=bias), nn.GELU()
    hidden = torch.randn(3, 4, 12, requires_grad=True)
    again = project_activated(hidden, activation, projection, training=True)
    expected = projection(activation(hidden))
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
    weights = torch.randn_like(expected)
    inputs = [hidden, *projection.parameters()]
    for one, other in zip(
        torch.autograd.grad((expected * weights).sum(), inputs), torch.autograd.grad((again * weights).sum(), inputs)
    ):
        torch.testing.assert_close(other, one)


def test_activations_are_not_kept_in_training():
    projection, activation = nn.Linear(64, 4), nn.GELU()
    hidden = torch.randn(32, 64, requires_grad=True)
    kept, kept_plainly = (
        saved_bytes(lambda training=training: project_activated(hidden, activation, projection, training))
        for training in (True, False)
    )
    assert kept_plainly - kept == hidden.nbytes


def test_a_counter_of_operations_sees_a_training_step():
    """Such a counter hooks every call of a module, those inside a backward pass included."""
    projection, activation = nn.Linear(12, 5), nn.GELU()
    hidden = torch.randn(2, 12, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        project_activated(hidden, activation, projection, training=True).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * 12 * 5  # one product, forward and for each of its factors


def test_hooks_on_the_activation_are_called_once():
    hidden, activation, calls = torch.randn(2, 6, requires_grad=True), nn.GELU(), []
    activation.register_forward_hook(lambda *_: calls.append(1))
    project_activated(hidden, activation, nn.Linear(6, 4), training=True).sum().backward()
    assert calls == [1]


def test_a_frozen_projection_gets_no_gradient():
    projection = nn.Linear(6, 4).requires_grad_(False)
    hidden = torch.randn(2, 6, requires_grad=True)
    project_activated(hidden, nn.GELU(), projection, training=True).sum().backward()
    assert hidden.grad is not None and projection.weight.grad is None and projection.bias.grad is None


def test_layers_that_are_more_than_a_product_are_called():
    hidden, activation = torch.randn(2, 6, requires_grad=True), nn.GELU()
    scaled = ScaledLinear(6, 4)
    expected = scaled(activation(hidden))
    assert torch.equal(project_activated(hidden, activation, scaled, training=True), expected)
    hooked, calls = nn.Linear(6, 4), []
    hooked.register_forward_hook(lambda *_: calls.append(1))
    project_activated(hidden, activation, hooked, training=True)
    assert calls
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert project_activated(hidden, activation, nn.Linear(6, 4), training=True).dtype == torch.bfloat16
