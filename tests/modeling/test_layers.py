"""The small shared parts, each against a plain second way of working it out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from hf_videovit.modeling import layers
from hf_videovit.modeling.layers import (
    DropPath,
    classification_loss,
    drop_path_rates,
    feed_forward,
    gather_tokens,
    interpolate_positions,
    is_hooked,
    kept_indices,
    merge_views,
    product_of_projections,
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


@pytest.fixture(params=["whole", "in pieces"])
def _pieces(request, monkeypatch):
    if request.param == "in pieces":
        monkeypatch.setattr(layers, "LARGEST_PIECE", 5 * 12 * 4)  # five rows of twelve channels


def block(bias: bool = True) -> tuple[nn.Linear, nn.Module, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(6, 12, bias=bias), ACT2FN["gelu"], nn.Linear(12, 5, bias=bias)


def plainly(hidden: torch.Tensor, first: nn.Module, activation: nn.Module, second: nn.Module) -> torch.Tensor:
    return second(activation(first(hidden)))


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("bias", [True, False])
def test_a_block_gives_what_its_layers_give(bias):
    parts = block(bias)
    hidden = torch.randn(3, 4, 6, requires_grad=True)
    expected = plainly(hidden, *parts)
    weights = torch.randn_like(expected)
    inputs = [hidden, *parts[0].parameters(), *parts[2].parameters()]
    gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    for training in (True, False):
        out = feed_forward(hidden, *parts, training=training)
        torch.testing.assert_close(out, expected)
        for one, other in zip(gradients, torch.autograd.grad((out * weights).sum(), inputs), strict=True):
            torch.testing.assert_close(other, one)
    before = hidden.detach().clone()
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(hidden, *parts, training=False), expected)
    assert torch.equal(hidden, before)


def test_activations_are_not_kept_in_training():
    first, activation, second = nn.Linear(6, 64), ACT2FN["gelu"], nn.Linear(64, 4)
    hidden = torch.randn(32, 6, requires_grad=True)
    kept, kept_plainly = (
        saved_bytes(lambda training=training: feed_forward(hidden, first, activation, second, training))
        for training in (True, False)
    )
    assert kept_plainly - kept == 32 * 64 * 4


@pytest.mark.parametrize("training", [True, False])
def test_a_counter_of_operations_sees_every_layer(training):
    """Such a counter hooks every call of a module."""
    parts, hidden = block(), torch.randn(2, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        feed_forward(hidden, *parts, training=training).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * (6 * 12 + 12 * 5)  # one product, and for each of its factors


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("gradients", [True, False])
def test_hooks_are_called_once_and_keep_what_they_saw(number, gradients):
    parts, seen = block(), []
    parts[number].register_forward_hook(lambda module, args, output: seen.append(output))
    hidden = torch.randn(2, 6)
    with torch.set_grad_enabled(gradients):
        feed_forward(hidden, *parts, training=True)
    (output,) = seen
    expected = hidden
    for part in parts[: number + 1]:
        expected = part.forward(expected)
    torch.testing.assert_close(output, expected)


def test_a_frozen_layer_gets_no_gradient():
    first, activation, second = block()
    second.requires_grad_(False)
    hidden = torch.randn(2, 6, requires_grad=True)
    feed_forward(hidden, first, activation, second, training=True).sum().backward()
    assert hidden.grad is not None and second.weight.grad is None and second.bias.grad is None


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("number", [0, 2])
def test_layers_that_are_more_than_a_product_are_called(number, gradients):
    parts, hidden = list(block()), torch.randn(2, 6)
    parts[number] = ScaledLinear(parts[number].in_features, parts[number].out_features)
    with torch.set_grad_enabled(gradients):
        expected = plainly(hidden, *parts)
        assert torch.equal(feed_forward(hidden, *parts, training=True), expected)
        offloaded = list(block())
        offloaded[number].forward = lambda rows: rows.new_ones(2, offloaded[number].out_features)
        expected = plainly(hidden, *offloaded)
        assert torch.equal(feed_forward(hidden, *offloaded, training=True), expected)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_another_activation(activation, gradients):
    first, _, second = block()
    hidden = torch.randn(2, 6)
    with torch.set_grad_enabled(gradients):
        expected = plainly(hidden, first, ACT2FN[activation], second)
        assert torch.equal(feed_forward(hidden, first, ACT2FN[activation], second, training=True), expected)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("gradients", [True, False])
def test_a_block_under_autocast(gradients):
    parts, hidden = block(), torch.randn(3, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.set_grad_enabled(gradients):
        out, expected = feed_forward(hidden, *parts, training=True), plainly(hidden, *parts)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected)
    if gradients:
        results = []
        for value in (out, expected):
            results.append(torch.autograd.grad(value.float().sum(), [*parts[0].parameters(), *parts[2].parameters()]))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, atol=0.05, rtol=0.02)


def test_a_block_under_functional_transforms():
    parts, hidden = block(), torch.randn(3, 6)
    gradient = torch.func.grad(lambda rows: feed_forward(rows, *parts, training=True).sum())(hidden)
    torch.testing.assert_close(gradient, torch.func.grad(lambda rows: plainly(rows, *parts).sum())(hidden))


@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    rows=st.integers(1, 12),
    biases=st.tuples(st.booleans(), st.booleans()),
)
def test_two_projections_as_one(sizes, rows, biases):
    before, middle, after = sizes
    first, second = nn.Linear(before, middle, bias=biases[0]), nn.Linear(middle, after, bias=biases[1])
    hidden = torch.randn(rows, before)
    product = product_of_projections(first, second, rows)
    spent, instead = rows * middle * (before + after), before * after * (rows + middle)
    assert (product is not None) == (instead < spent)
    if product is not None:
        weight, bias = product
        out = nn.functional.linear(hidden, weight, bias) + (second.bias if biases[1] else 0)
        torch.testing.assert_close(out, second(first(hidden)), atol=1e-5, rtol=1e-5)


def test_projections_that_are_more_than_a_product_are_not_made_one():
    plain = nn.Linear(4, 4)
    assert product_of_projections(plain, plain, 100) is not None
    hooked = nn.Linear(4, 4)
    hooked.register_forward_hook(lambda *_: None)
    for other in (ScaledLinear(4, 4), hooked):
        assert product_of_projections(plain, other, 100) is None
        assert product_of_projections(other, plain, 100) is None
    with FlopCounterMode(display=False):
        assert product_of_projections(plain, plain, 100) is None


def test_who_watches_a_module():
    layer = nn.Linear(2, 2)
    assert not is_hooked(layer)
    for register in (
        layer.register_forward_hook,
        layer.register_forward_pre_hook,
        layer.register_full_backward_hook,
        layer.register_full_backward_pre_hook,
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
        nn.modules.module.register_module_full_backward_hook,
        nn.modules.module.register_module_full_backward_pre_hook,
    ):
        handle = register(lambda *_: None)
        assert is_hooked(layer)
        handle.remove()
        assert not is_hooked(layer)
