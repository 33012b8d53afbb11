"""The small shared parts, each against a plain second way of working it out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedConfig

from hf_videovit.modeling.layers import (
    classification_loss,
    drop_path_rates,
    gather_tokens,
    interpolate_positions,
    kept_indices,
    merge_views,
    scale_to_step,
    sinusoid_table,
)


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
        (torch.zeros(2), "regression", r"`labels` of a regression must have shape \(2, 4\), got \(2,\)"),
        (torch.zeros(4, 2), "regression", r"`labels` of a regression must have shape \(2, 4\), got \(4, 2\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, problem_type, message):
    with pytest.raises(ValueError, match=message):
        loss_of(labels, torch.randn(2, 4), problem_type)


@pytest.mark.parametrize("labels", [torch.tensor([0, 0]), torch.ones(2, 1)], ids=["indices", "shares"])
def test_one_class_has_no_cross_entropy(labels):
    """It would be 0 whatever the logits are."""
    with pytest.raises(ValueError, match="`num_labels` must be at least 2 for classification, got 1"):
        loss_of(labels, torch.randn(2, 1))
    loss = loss_of(torch.ones(2, 1), torch.tensor([[0.0], [2.0]]), "multi_label_classification")
    assert loss.item() == pytest.approx((0.693147 + 0.126928) / 2, rel=1e-5)


def test_ignored_labels_do_not_count():
    logits, labels = torch.randn(4, 3), torch.tensor([1, -100, 2, -100])
    torch.testing.assert_close(loss_of(labels, logits), loss_of(labels[::2], logits[::2]))


def test_passes_of_a_step_add_up_to_its_mean():
    logits, labels = torch.randn(6, 3), torch.tensor([1, -100, 2, 0, 0, -100])
    parts = [slice(0, 1), slice(1, 2), slice(2, 6)]
    losses = [scale_to_step(loss_of(labels[part], logits[part]), labels[part], 4) for part in parts]
    torch.testing.assert_close(sum(losses), loss_of(labels, logits))
    assert scale_to_step(losses[0], labels, None) is losses[0]
