"""What is special to UniFormerV2; the common tests are in tests/test_families.py, the official numbers in parity."""

import pytest
import torch
from torch import nn

from hf_videovit import UniFormerV2Config, UniFormerV2ForVideoClassification, UniFormerV2Model
from hf_videovit.modeling.configuration_uniformer_v2 import UNIFORMER_V2_SIZES
from hf_videovit.modeling.modeling_uniformer_v2 import UniFormerV2LayerNorm, UniFormerV2QuickGELU
from hf_videovit.training.optimization import head_parameters, layer_ids, parameter_groups
from tests.families import FAMILIES


FAMILY = next(family for family in FAMILIES if family.name == "uniformer_v2")
MOTION = FAMILY.options["motion"]


def model_of(model_class=UniFormerV2ForVideoClassification, away_from_start=True, **fields):
    torch.manual_seed(0)
    model = model_class(FAMILY.config(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters() if away_from_start else ():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def clips(frames=4, height=32, width=32, channels=3):
    torch.manual_seed(1)
    return torch.randn(2, frames, channels, height, width)


def test_quick_gelu_is_not_gelu():
    values = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(UniFormerV2QuickGELU()(values), values * torch.sigmoid(1.702 * values), rtol=0, atol=0)
    assert (UniFormerV2QuickGELU()(values) - nn.functional.gelu(values)).abs().max() > 0.01


def test_quick_gelu_has_its_gradient():
    values = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(UniFormerV2QuickGELU(), values)


def test_the_towers_norms_are_worked_out_in_float32():
    """In half precision the numbers are those of float32 rounded once; those of the global blocks are plain."""
    norm = UniFormerV2LayerNorm(64)
    nn.init.normal_(norm.weight)
    values = 100 + torch.randn(5, 64)
    half = norm.bfloat16()(values.bfloat16())
    exact = nn.functional.layer_norm(values.bfloat16().float(), (64,), norm.weight.float(), norm.bias.float(), 1e-5)
    assert torch.equal(half, exact.bfloat16())
    model = model_of(UniFormerV2Model)
    of_tower = [name for name, one in model.named_modules() if isinstance(one, UniFormerV2LayerNorm)]
    assert len(of_tower) == 1 + 2 * 2
    assert type(model.layernorm) is type(model.encoder.global_blocks[0].norm_tokens) is nn.LayerNorm


def test_a_fresh_model_is_the_image_tower_alone():
    """All that is new ends in zeros: the query stays zero and the pooled feature is half the mean class token."""
    model = model_of(UniFormerV2Model, away_from_start=False, **MOTION)
    outputs = model(clips())
    for query in outputs.query_states:
        assert not query.any()
    class_tokens = outputs.last_hidden_state.unflatten(1, (2, -1))[:, :, 0]
    torch.testing.assert_close(outputs.fused_state, class_tokens.mean(1) / 2)
    without = UniFormerV2Model(FAMILY.config(**{**MOTION, "num_local_modules": 0})).eval()
    state = model.state_dict()
    without.load_state_dict({name: state[name] for name in without.state_dict()})
    torch.testing.assert_close(without(clips()).last_hidden_state, outputs.last_hidden_state)


def test_local_modules_pass_class_tokens_by():
    """With attention and MLP silent, only patches change, and they change with their neighbours in time."""
    model = model_of(UniFormerV2Model, num_local_modules=2)
    with torch.no_grad():
        for layer in model.encoder.layers:
            for silent in (layer.attention.o_proj, layer.mlp.fc2):
                silent.weight.zero_()
                silent.bias.zero_()
    before, after = (model(clips(), output_hidden_states=True).hidden_states[index] for index in (0, -1))
    before, after = (one.unflatten(1, (4, -1)) for one in (before, after))
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert not torch.isclose(before[:, :, 1:], after[:, :, 1:]).all()


def test_positions_of_global_blocks_do_not_flow_back():
    model = model_of(UniFormerV2Model)
    expected = model(clips()).last_hidden_state
    for block in model.encoder.global_blocks:
        nn.init.normal_(block.dynamic_position.weight)
    changed = model(clips())
    assert torch.equal(changed.last_hidden_state, expected)


def test_queries_follow_the_chosen_blocks():
    model = model_of(UniFormerV2Model, global_layers=[1])
    outputs = model(clips())
    assert [query.shape for query in outputs.query_states] == [(2, 32)]
    model.set_attn_implementation("eager")
    cross = model(clips(), output_attentions=True).cross_attentions
    assert [one.shape for one in cross] == [(2, 2, 1, 4 * 17)]


def test_other_sizes_interpolate_the_table():
    model = model_of(UniFormerV2Model)
    embeddings = model.embeddings
    assert embeddings.positions((4, 4, 4)) is embeddings.position_embedding
    larger = embeddings.positions((4, 8, 6))
    assert larger.shape == (1 + 48, 32)
    assert torch.equal(larger[0], embeddings.position_embedding[0])
    grid = embeddings.position_embedding[1:].view(1, 4, 4, 32).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(8, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(larger[1:], expected.flatten(2).transpose(1, 2)[0])


def test_a_checkpoint_loads_at_another_size(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path)
    larger = UniFormerV2ForVideoClassification.from_pretrained(tmp_path, image_size=64).eval()
    assert (larger.config.image_size, larger.config.position_grid) == (64, [4, 4])
    pixels = clips(height=64, width=64)
    torch.testing.assert_close(larger(pixels).logits, model(pixels).logits)


def test_any_number_of_frames_without_downsampling_and_even_ones_with_it():
    assert model_of()(clips(frames=7)).logits.shape == (2, 5)
    model = model_of(**MOTION)
    assert model(clips(frames=2)).logits.shape == (2, 5)
    with pytest.raises(ValueError, match="even number of frames with `temporal_downsample`, got 5"):
        model(clips(frames=5))


def test_batch_norm_follows_the_mode_and_is_saved(tmp_path):
    model = model_of(**MOTION).train()
    norm = model.uniformer_v2.encoder.layers[0].local1.norm
    before = norm.running_mean.clone()
    model(clips(), labels=torch.tensor([0, 1])).loss.backward()
    assert not torch.equal(norm.running_mean, before)
    assert norm.num_batches_tracked == 1
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).uniformer_v2.encoder.layers[0].local1.norm
    assert torch.equal(loaded.running_mean, norm.running_mean)
    assert loaded.num_batches_tracked == 1


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_frozen_tower_stays_frozen_through_saving(tmp_path):
    model = model_of(freeze_image_tower=True, **MOTION)
    assert model.uniformer_v2.gate is None  # as officially, unless told otherwise
    model.save_pretrained(tmp_path)
    loaded = UniFormerV2ForVideoClassification.from_pretrained(tmp_path)
    for one in (model, loaded):
        kinds = {name.split(".")[2] for name in trained(one) if name.startswith("uniformer_v2.encoder")}
        assert kinds == {"layers", "global_blocks", "query"}
        assert not any(".attention." in name and ".layers." in name for name in trained(one))
        assert not any("embeddings." in name for name in trained(one))
        assert any(".local1." in name for name in trained(one)) and "classifier.weight" in trained(one)
    loaded.set_image_tower_trainable(True)
    assert trained(loaded) == {name for name, _ in loaded.named_parameters()}


def test_gate_and_freezing_are_two_options(tmp_path):
    assert not UniFormerV2Config(freeze_image_tower=True).use_gate
    assert UniFormerV2Config(freeze_image_tower=True, use_gate=True).use_gate
    model_of(freeze_image_tower=True).save_pretrained(tmp_path)
    whole = UniFormerV2ForVideoClassification.from_pretrained(tmp_path, freeze_image_tower=False)
    assert whole.uniformer_v2.gate is None
    assert len(trained(whole)) == len(list(whole.parameters()))


def test_a_new_number_of_labels_keeps_the_norm(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path)
    other = UniFormerV2ForVideoClassification.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    assert other.classifier.weight.shape == (9, 32)
    assert torch.equal(other.uniformer_v2.layernorm.weight, model.uniformer_v2.layernorm.weight)


def test_depths_and_decay():
    model = model_of(**MOTION)
    ids = layer_ids(model)
    assert ids["uniformer_v2.embeddings.class_embedding"] == 0
    assert ids["uniformer_v2.encoder.layers.1.local2.norm.weight"] == 2
    assert ids["uniformer_v2.encoder.global_blocks.0.mlp.fc1.weight"] == ids["uniformer_v2.gate.weight"] == 3
    assert head_parameters(model) == {"classifier.weight", "classifier.bias"}
    decayed = {name for group in parameter_groups(model, 0.05) if group["weight_decay"] for name in group["names"]}
    assert {"uniformer_v2.embeddings.position_embedding", "uniformer_v2.encoder.query.embedding"} <= decayed
    assert not {"uniformer_v2.embeddings.class_embedding", "uniformer_v2.gate.weight"} & decayed


def test_widths_of_local_modules_are_floored_like_floats():
    assert UniFormerV2Config().local_size == 512
    assert UniFormerV2Config(hidden_size=1024, num_attention_heads=16).local_size == 682
    assert UniFormerV2Config(hidden_size=40, num_attention_heads=4).local_size == 26


def test_presets_differ_where_they_should():
    assert UniFormerV2Config().to_dict() == UniFormerV2Config.from_size("base").to_dict()
    assert list(UNIFORMER_V2_SIZES) == [
        *("base", "large", "large-336", "large-336-frozen", "large-untrimmed", "base-motion", "large-motion")
    ]
    frozen = UniFormerV2Config.from_size("large-336-frozen")
    assert (frozen.freeze_image_tower, frozen.use_gate, frozen.position_grid) == (True, False, [24, 24])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 5}, "`num_attention_heads` must divide `hidden_size`, got 5 and 768"),
        ({"global_num_attention_heads": 7}, "`global_num_attention_heads` must divide"),
        ({"num_local_modules": 3}, "`num_local_modules` must be 0, 1 or 2, got 3"),
        ({"local_reduction": 1000.0}, "`local_reduction` must leave at least one"),
        ({"temporal_kernel_size": 2}, "`temporal_kernel_size` must be odd, got 2"),
        ({"temporal_downsample": True, "num_frames": 7}, "`num_frames` must be even .* got 7"),
        ({"global_layers": []}, "`global_layers` must be ascending"),
        ({"global_layers": [3, 2]}, "`global_layers` must be ascending"),
        ({"global_layers": [12]}, "`global_layers` must be ascending indices of the 12 blocks"),
        ({"global_dropout": [0.5]}, "`global_dropout` needs one value for each of the 4"),
        ({"view_merging": "max"}, "`view_merging` must be one of"),
        ({"position_grid": [3]}, "`position_grid` must be two positive ints"),
        ({"image_size": 100}, "`image_size` must be a multiple of `patch_size` \\(16\\), got 100"),
        ({"use_gates": True}, "Did you mean `use_gate`"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        UniFormerV2Config(**fields)


def test_wrong_preset_is_named():
    with pytest.raises(ValueError, match="`size` must be one of .*base-motion.* got 'huge'"):
        UniFormerV2Config.from_size("huge")
