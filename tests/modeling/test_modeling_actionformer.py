"""ActionFormer: padding, windows, long sequences, losses, and what every model must do."""

import copy

import pytest
import torch
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode

from hf_videovit import (
    ActionFormerConfig,
    ActionFormerForTemporalActionLocalization,
    ActionFormerModel,
    AutoModelForTemporalActionLocalization,
)
from hf_videovit.modeling.modeling_actionformer_blocks import ActionFormerAttention
from hf_videovit.modeling.modeling_actionformer_losses import make_points
from hf_videovit.training.optimization import parameter_groups


TINY = {
    "feature_size": 6,
    "hidden_size": 16,
    "num_embedding_layers": 2,
    "num_stem_layers": 1,
    "num_branch_layers": 3,
    "num_attention_heads": 2,
    "attention_window": 5,
    "max_sequence_length": 32,
    "head_hidden_size": 12,
    "drop_path_rate": 0.0,
    "num_labels": 3,
}
OPTIONS = {
    "plain": {},
    "global": {"attention_window": [7, 4, -1, 1], "use_absolute_positions": True},
    "relative": {"use_relative_positions": True, "attention_window": [3, 5, 7, -1]},
    "fpn": {"neck_type": "fpn", "neck_hidden_size": 20, "neck_start_level": 1, "head_kernel_size": 5},
    "no_norms": {"use_embedding_norm": False, "use_neck_norm": False, "use_head_norm": False},
    "streams": {"feature_size": [2, 4], "feature_projection_sizes": [8, 4], "layer_scale_init_value": 0},
    "conv": {"block_type": "conv"},
    "sgp": {"block_type": "sgp", "sgp_window_size": [1, 3, 3, 5], "sgp_window_ratio": 1.5, "sgp_init_std": 0.3},
    "trident": {"block_type": "sgp", "sgp_downsampling": "mean", "num_bins": 4, "iou_weight_power": 0.2},
}
every_option = pytest.mark.parametrize("fields", OPTIONS.values(), ids=OPTIONS)
# The same options, as many at a time as one model can have: graphs are slow to make.
TOGETHER = {
    "attention": {**OPTIONS["relative"], **OPTIONS["fpn"], "layer_scale_init_value": 0},
    "global": {**OPTIONS["global"], **OPTIONS["no_norms"], **OPTIONS["streams"]},
    "conv": OPTIONS["conv"],
    "sgp": OPTIONS["sgp"],
    "trident": OPTIONS["trident"],
}
options_together = pytest.mark.parametrize("fields", TOGETHER.values(), ids=TOGETHER)


def model_of(seed: int = 0, **fields) -> ActionFormerForTemporalActionLocalization:
    """A model in evaluation mode whose parameters are all away from their initial values."""
    torch.manual_seed(seed)
    model = ActionFormerForTemporalActionLocalization(ActionFormerConfig(**{**TINY, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        model.offset_head.offsets.bias += 1  # offsets of 0 have no gradient
    return model


def sequence(steps: int, batch_size: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch_size, steps, 6, generator=torch.Generator().manual_seed(seed))


def labels_of(batch_size: int = 2) -> list[dict[str, torch.Tensor]]:
    first = {"segments": torch.tensor([[2.0, 6.5], [3.0, 18.0], [2.0, 6.5]]), "class_labels": torch.tensor([0, 1, 2])}
    none = {"segments": torch.zeros(0, 2), "class_labels": torch.zeros(0, dtype=torch.long)}
    return [first, none, first][:batch_size]


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def padded(features: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A sequence in a longer tensor whose other steps hold garbage."""
    longer = torch.full((1, steps, features.shape[2]), 7.0)
    longer[:, : features.shape[1]] = features
    return longer, (torch.arange(steps) < features.shape[1]).long()[None]


def of_sequence(outputs, steps: int, config: ActionFormerConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and offsets of the points of a sequence, whatever it was padded to."""
    mask = outputs.point_mask.bool()
    lengths = [-(-steps // 2**level) for level in range(config.neck_start_level, config.num_levels)]
    assert int(mask.sum()) == sum(lengths)
    return outputs.logits[mask], outputs.pred_offsets[mask]


# Padding


@every_option
@pytest.mark.parametrize("steps", [1, 13, 32, 45])
@torch.no_grad()
def test_padding_never_changes_a_result(fields, steps):
    """Odd lengths, lengths that fill the table of positions, and longer ones."""
    model = model_of(**fields)
    features = sequence(steps)
    alone = of_sequence(model(features), steps, model.config)
    for length in (steps + 1, steps + 30):
        found = of_sequence(model(*padded(features, length)), steps, model.config)
        for actual, expected in zip(found, alone):
            close(actual, expected)


@pytest.mark.parametrize("mode", ["actionformer", "opentad"])
@torch.no_grad()
def test_in_the_official_modes_the_presence_of_padding_counts_and_not_its_amount(mode):
    model = model_of(padding_mode=mode)
    features = sequence(41)
    alone, some, more = (
        of_sequence(model(*padded(features, length)), 41, model.config)[0] for length in (56, 64, 128)
    )
    close(some, more)
    close(alone, more)
    filled = of_sequence(model(features), 41, model.config)[0]
    assert (filled - more).abs().max() > 1e-2


@torch.no_grad()
def test_padded_points_hold_zeros():
    model = model_of(padding_mode="actionformer")
    outputs = model(*padded(sequence(20), 32))
    hidden = ~outputs.point_mask.bool()
    assert hidden.any()
    assert not outputs.logits[hidden].any()
    assert not outputs.pred_offsets[hidden].any()


# Attention


@pytest.mark.parametrize("window", [2, 3, 4, 5, 19, 33])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("steps", [7, 64, 150])
@torch.no_grad()
def test_windows_are_a_band_of_dense_attention(window, stride, steps):
    config = ActionFormerConfig(**{**TINY, "attention_window": 5})
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    attention = ActionFormerAttention(config, window, stride).eval()
    dense = copy.deepcopy(attention)
    hidden_states = torch.randn(2, steps, 16)
    mask = torch.ones(2, -(-steps // stride), 1, dtype=torch.bool)
    mask[1, mask.shape[1] // 2 + 1 :] = False

    def attend_densely(query, key, value, seen, **kwargs):
        places = torch.arange(query.shape[2])
        band = (places[:, None] - places).abs() <= window // 2
        scores = (query * attention.scaling) @ key.transpose(-1, -2)
        allowed = band & (seen[:, None, None] | torch.eye(len(places), dtype=torch.bool))
        return (scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ value).transpose(1, 2), None

    dense._attend_in_windows = attend_densely
    found, _ = attention(hidden_states, mask)
    close(found * mask, dense(hidden_states, mask)[0] * mask)


def test_probabilities_of_a_window_stand_in_its_columns():
    model = model_of(attention_window=3, num_branch_layers=0).actionformer
    model.set_attn_implementation("eager")
    with torch.no_grad():
        (probabilities,) = model(sequence(100), output_attentions=True).attentions
    assert probabilities.shape == (1, 2, 100, 3)
    assert not probabilities[:, :, 0, 0].any()  # no step before the first
    assert not probabilities[:, :, -1, 2].any()
    assert (probabilities[:, :, 1:-1] > 0).all()
    close(probabilities.sum(-1), torch.ones(1, 2, 100))


class Largest(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor):
                self.size = max(self.size, one.numel())
        return result


@torch.no_grad()
def test_memory_grows_with_the_steps_and_not_with_their_square():
    model = model_of(attention_window=19)
    sizes = {}
    for steps in (1_000, 8_000):
        with Largest() as largest:
            assert model(sequence(steps)).logits.isfinite().all()
        sizes[steps] = largest.size
    assert sizes[8_000] <= 9 * sizes[1_000]


# Points and losses


def test_points_are_made_for_any_length():
    config = ActionFormerConfig(**{**TINY, "num_branch_layers": 2})
    points = make_points([3, 2, 1], config)
    assert points.tolist() == [
        [0, 0, 4, 1],
        [1, 0, 4, 1],
        [2, 0, 4, 1],
        [0, 4, 8, 2],
        [2, 4, 8, 2],
        [0, 8, 10_000, 4],
    ]


def test_the_count_of_positives_is_updated_before_it_is_used():
    model = model_of(loss_normalizer=10, loss_normalizer_momentum=0.75)
    features, labels = sequence(24, 2), labels_of()
    before = model(features, labels=labels)
    assert model.loss_normalizer == 10  # not in evaluation
    model.train()
    losses = model(features, labels=labels).loss_dict
    count = (float(model.loss_normalizer) - 7.5) / 0.25
    assert count == round(count) and count > 1
    close(losses["regression"] * model.loss_normalizer, before.loss_dict["regression"] * 10)
    state = model.state_dict()
    assert state["loss_normalizer"] == model.loss_normalizer


def test_a_batch_without_segments_trains_the_classifier_only():
    model = model_of().train()
    none = {"segments": [], "class_labels": []}
    outputs = model(sequence(24, 2), labels=[none, none])
    outputs.loss.backward()
    assert outputs.loss_dict["regression"] == 0
    assert model.classification_head.classifier.weight.grad.abs().sum() > 0
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())


def test_losses_can_be_balanced():
    model = model_of(regression_loss_weight=0)
    outputs = model(sequence(24, 2), labels=labels_of())
    close(outputs.loss, 2 * outputs.loss_dict["classification"])


def test_ignored_is_what_lies_beyond_the_end():
    model = model_of()
    features, mask = padded(sequence(20), 32)
    labels = [{"segments": [[21.0, 27.0]], "class_labels": [1]}]
    outputs = model(features, mask, labels=labels)
    assert outputs.loss_dict["regression"] == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([{"segments": [[3.0, 3.0]], "class_labels": [0]}], "end after they start"),
        ([{"segments": [[float("nan"), 3.0]], "class_labels": [0]}], "finite"),
        ([{"segments": [[1.0, 3.0]], "class_labels": [3]}], "from 0 to 2"),
        ([{"segments": [[1.0, 3.0]], "class_labels": [0, 1]}], "1 segments and 2 classes"),
        ([], "each of the 1 videos"),
    ],
)
def test_wrong_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=f"`labels`.*{message}"):
        model_of()(sequence(24), labels=labels)


@pytest.mark.parametrize(
    ("features", "mask", "message"),
    [
        (torch.randn(1, 4, 5), None, r"\(batch_size, steps, 6\).*encoder"),
        (torch.randn(4, 6), None, "`features`"),
        (torch.randn(1, 0, 6), None, "at least one step"),
        (torch.ones(1, 4, 6, dtype=torch.long), None, "floating-point"),
        (torch.randn(1, 4, 6), torch.ones(1, 5), "`attention_mask` must have shape"),
    ],
)
def test_wrong_inputs_are_refused(features, mask, message):
    with pytest.raises(ValueError, match=message):
        model_of()(features, mask)


def test_training_beyond_the_table_of_positions_is_refused():
    model = model_of(use_absolute_positions=True)
    assert model(sequence(40)).logits.isfinite().all()
    with pytest.raises(ValueError, match="at most 32 steps"):
        model.train()(sequence(40))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"attention_window": [5, 5]}, "attention_window"),
        ({"attention_window": 0}, "attention_window"),
        ({"attention_window": 4, "use_relative_positions": True}, "attention_window"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"regression_ranges": [[0, 4], [4, 8]]}, "regression_ranges"),
        ({"regression_ranges": [[0, 4], [4, 8], [8, 4], [8, 16]]}, "regression_ranges"),
        ({"neck_hidden_size": 8}, "neck_hidden_size"),
        ({"neck_start_level": 4}, "neck_start_level"),
        ({"feature_size": [3, 3]}, "feature_projection_sizes"),
        ({"feature_size": [3, 3], "feature_projection_sizes": [4]}, "feature_projection_sizes"),
        ({"head_kernel_size": 2}, "head_kernel_size"),
        ({"padding_mode": "none"}, "padding_mode"),
        ({"block_type": "sgp", "sgp_window_size": 2}, "sgp_window_size"),
        ({"center_sampling_radius": 0}, "center_sampling_radius"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"num_bins": 0}, "num_bins"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"head_hidden_size": 0}, "head_hidden_size"),
        ({"atention_window": 9}, "Did you mean `attention_window`"),
    ],
)
def test_wrong_configurations_are_refused(fields, name):
    with pytest.raises(Exception, match=name):
        ActionFormerConfig(**{**TINY, **fields})


def test_a_localiser_needs_a_class():
    with pytest.raises(ValueError, match="`num_labels` must be at least 1, got 0"):
        ActionFormerForTemporalActionLocalization(ActionFormerConfig(**{**TINY, "num_labels": 0}))


@pytest.mark.parametrize(
    ("size", "fields", "count"),
    [
        ("thumos14", {}, 28_268_572),
        ("thumos14", {"feature_size": 2048}, 29_251_612),
        ("activitynet", {"feature_size": 512}, 6_943_497),
        ("activitynet", {"num_labels": 200}, 7_784_656),
        ("epic-verb", {}, 29_763_177),
    ],
)
def test_sizes_are_the_official_ones(size, fields, count):
    with torch.device("meta"):
        model = ActionFormerForTemporalActionLocalization(ActionFormerConfig.from_size(size, **fields))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_a_fresh_classifier_starts_with_the_prior():
    torch.manual_seed(0)
    model = ActionFormerForTemporalActionLocalization(ActionFormerConfig(**TINY, empty_labels=[1]))
    bias = model.classification_head.classifier.bias
    close(bias.sigmoid(), torch.tensor([0.01, 1e-6, 0.01]))
    assert {float(layer.branch1[0].gamma.max()) for layer in model.actionformer.layers} == {float(torch.tensor(1e-4))}


def test_weight_decay_is_for_convolutions_and_linear_layers():
    model = model_of(use_relative_positions=True)
    decayed = {
        name for group in parameter_groups(model, 0.05, 1.0) if group["weight_decay"] > 0 for name in group["names"]
    }
    for name, parameter in model.named_parameters():
        assert (name in decayed) == (parameter.ndim > 1 and "relative" not in name), name


# What every model must do


@every_option
def test_backward_reaches_every_parameter(fields):
    model = model_of(**fields, max_sequence_length=64).train()
    segments = [[2.0, 6.5], [10.0, 18.0], [20.0, 40.0], [1.0, 44.0]]  # one for the range of each level
    model(sequence(48), labels=[{"segments": segments, "class_labels": [0, 1, 2, 0]}]).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@every_option
def test_save_and_load_keep_every_parameter_and_buffer(fields, tmp_path):
    model = model_of(**fields)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForTemporalActionLocalization.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is ActionFormerForTemporalActionLocalization
    assert not any(report.values()), report
    before, after = (dict(one.named_buffers()) | dict(one.named_parameters()) for one in (model, loaded))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    before, after = ({**one.config.to_dict(), "_name_or_path": ""} for one in (model, loaded))
    assert before == after


def test_heads_on_a_saved_pyramid_are_those_of_a_new_model(tmp_path):
    ActionFormerModel(ActionFormerConfig(**TINY, loss_normalizer=250)).save_pretrained(tmp_path)
    model = ActionFormerForTemporalActionLocalization.from_pretrained(tmp_path)
    assert model.loss_normalizer == 250
    close(model.classification_head.classifier.bias.sigmoid(), torch.full((3,), 0.01))
    assert all(float(one.scale) == 1 for one in model.offset_head.scales)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_half_precision(dtype, tmp_path):
    model = model_of(use_absolute_positions=True)
    model.save_pretrained(tmp_path)
    half = ActionFormerForTemporalActionLocalization.from_pretrained(tmp_path, dtype=dtype).eval()
    expected, found = model(*padded(sequence(24), 30)).logits, half(*padded(sequence(24), 30)).logits
    assert found.dtype == dtype
    assert (found.float() - expected).norm() / expected.norm() < 0.05


@every_option
@torch.no_grad()
def test_sdpa_equals_eager(fields):
    model = model_of(**fields)
    expected = model(*padded(sequence(70), 80)).logits
    model.set_attn_implementation("eager")
    close(model(*padded(sequence(70), 80)).logits, expected)


def test_gradient_checkpointing_changes_nothing():
    results = []
    for checkpointing in (False, True):
        model = model_of(drop_path_rate=0.5).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(2)
        loss = model(sequence(24, 2), labels=labels_of()).loss
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for plain, checkpointed in zip(*results):
        close(checkpointed, plain)


@pytest.mark.slow
@options_together
def test_compiles_as_one_graph(fields):
    torch.compiler.reset()
    model = model_of(**fields)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    inputs = padded(sequence(24), 32)
    with torch.no_grad():
        close(compiled(*inputs).logits, model(*inputs).logits)
    loss = compiled.train()(*inputs, labels=labels_of(1)).loss
    close(loss, model.train()(*inputs, labels=labels_of(1)).loss)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in compiled.parameters())


@pytest.mark.slow
@options_together
def test_exports_with_any_batch_size(fields):
    model = model_of(**fields)
    names = ("features", "attention_mask")
    inputs = dict(zip(names, (torch.cat((one, one)) for one in padded(sequence(24), 32))))
    program = torch.export.export(model, (), inputs, dynamic_shapes={name: {0: Dim.DYNAMIC} for name in names})
    larger = {name: torch.cat((value, value.flip(0), value)) for name, value in inputs.items()}
    with torch.no_grad():
        found, expected = program.module()(**larger), model(**larger)
    close(found.logits, expected.logits)
    close(found.pred_offsets, expected.pred_offsets)


@pytest.mark.parametrize("fields", [{}, {"num_head_layers": 1}, {"padding_mode": "opentad"}])
def test_what_training_computes_again_changes_nothing(fields):
    """Activations are recomputed in training mode; without stochastic depth both modes have the same gradients."""
    model = model_of(drop_path_rate=0.0, **fields)
    features, mask = padded(sequence(17), 24)
    found = []
    for training in (True, False):
        model.train(training).zero_grad()
        outputs = model(features, mask)
        (outputs.logits.square().sum() + outputs.pred_offsets.sum()).backward()
        found.append({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)
