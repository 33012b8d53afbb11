"""What is special to UniFormer: checks of the configuration, token pruning, MixToken, windows, odd sizes."""

import pytest
import torch
from torch.nn import functional as F
from transformers.utils import output_capturing

from hf_videovit import (
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerForVideoClassification,
    UniFormerModel,
)
from hf_videovit.modeling.modeling_uniformer_maps import (
    apply_batch_norm,
    merge_windows,
    mix_tokens,
    partition_windows,
    pool_scores,
)


TINY = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "head_dim": 8, "num_labels": 5, "image_size": 64}
LIGHT = {"use_token_pruning": True, "stem": "conv_first"}


def config(**fields) -> UniFormerConfig:
    return UniFormerConfig(**{**TINY, **fields})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"depths": [1, 1, 1]}, "depths"),
        ({"modality": "sound"}, "modality"),
        ({"hidden_size": 32}, "hidden_sizes"),
        ({"head_dim": 64}, "head_dim"),
        ({"head_dim": 0}, "head_dim"),
        ({"stem": "conv"}, "stem"),
        ({"attention_type": "window"}, "attention_type"),
        ({"modality": "image", "use_split_attention": True}, "use_split_attention"),
        ({"use_auxiliary_head": True}, "use_auxiliary_head"),
        ({"prune_ratios": [[1.0, 0.5], [0.5]]}, "use_token_pruning"),
        ({**LIGHT, "prune_ratios": [[0.5, 0.5], [0.5]]}, r"prune_ratios\[0\]\[0\]"),
        ({**LIGHT, "trade_offs": [[1.0], [0.5]]}, "trade_offs"),
        ({**LIGHT, "use_split_attention": True}, "use_token_pruning"),
        ({"layer_scale_in_conv_blocks": True}, "layer_scale_init_value"),
        ({"drop_path_rat": 0.1}, "drop_path_rate"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        config(**fields)


def test_a_head_of_the_other_modality_is_refused():
    for model_class in (UniFormerForImageClassification, UniFormerBackbone):
        with pytest.raises(ValueError, match="`modality` must be 'image'"):
            model_class(config())
    with pytest.raises(ValueError, match="`modality` must be 'video'"):
        UniFormerForVideoClassification(config(modality="image"))


@pytest.mark.parametrize(("frames", "kept"), [(1, 1), (2, 1), (5, 3), (16, 8)])
def test_an_odd_number_of_frames_is_halved_and_rounded_up(frames, kept):
    model = UniFormerModel(config()).eval()
    hidden_states = model(torch.randn(1, frames, 3, 64, 64), output_hidden_states=True).hidden_states
    assert [one.shape[2] for one in hidden_states] == [kept] * 5


@pytest.mark.skipif(
    not hasattr(output_capturing, "select_hidden_states"), reason="this transformers keeps all hidden states or none"
)
def test_hidden_states_are_counted_from_the_last_stage():
    """There are five: the stem's and one a stage."""
    model = UniFormerModel(config()).eval()
    clip = torch.randn(1, 2, 3, 64, 64)
    every = model(clip, output_hidden_states=True).hidden_states
    some = model(clip, output_hidden_states=[-1, -3]).hidden_states
    assert [one is not None for one in some] == [False, False, True, False, True]
    assert torch.equal(some[4], every[4]) and torch.equal(some[2], every[2])


def test_a_map_without_tokens_is_refused():
    model = UniFormerModel(config(modality="image")).eval()
    with pytest.raises(ValueError, match="at least 32 pixels"):
        model(torch.randn(1, 3, 31, 64))
    assert model(torch.randn(1, 3, 32, 63)).last_hidden_state.shape == (1, 1, 32)


def test_windows_come_back_and_are_padded_with_zeros_after_the_norm():
    maps = torch.randn(2, 5, 7, 3) + 1
    windows = partition_windows(maps, 4)
    assert windows.shape == (2 * 2 * 2, 16, 3)
    assert (windows == 0).all(dim=-1).sum() == 2 * (8 * 8 - 5 * 7)
    assert torch.equal(merge_windows(windows, 4, maps.shape), maps)


def test_one_window_that_fits_is_global_attention():
    torch.manual_seed(0)
    fields = {"modality": "image", "out_indices": [3, 4]}
    whole = UniFormerBackbone(config(**fields)).eval()
    windowed = UniFormerBackbone(config(**fields, attention_type="window", window_size=4)).eval()
    windowed.load_state_dict(whole.state_dict())
    pixels = torch.randn(1, 3, 64, 64)  # 4 x 4 tokens in stage 3
    torch.testing.assert_close(windowed(pixels).feature_maps, whole(pixels).feature_maps)
    wide = torch.randn(1, 3, 64, 128)
    assert not torch.allclose(windowed(wide).feature_maps[0], whole(wide).feature_maps[0], atol=1e-4)


def test_hybrid_attention_is_global_in_every_fourth_block():
    model = UniFormerModel(config(modality="image", depths=[1, 1, 9, 1], attention_type="hybrid"))
    windows = [block.window_size for block in model.stages[2].blocks]
    assert windows == [14, 14, 14, None, 14, 14, 14, None, 14]
    assert model.stages[3].blocks[0].window_size is None


def pruned(model: UniFormerForImageClassification) -> torch.nn.Module:
    return model.uniformer.stages[2].blocks[1]


def test_pruning_keeps_the_order_of_tokens_and_moves_all_dropped_ones_alike():
    torch.manual_seed(0)
    block = pruned(UniFormerForImageClassification(config(modality="image", **LIGHT)).eval())
    torch.nn.init.zeros_(block.position.weight)
    torch.nn.init.zeros_(block.position.bias)
    maps, class_token = torch.randn(2, 4, 4, 24), torch.randn(2, 1, 24)
    scores = torch.rand(2, 16)
    out, _, new_scores = block(maps, class_token, scores)
    change = (out - maps).flatten(1, 2)
    for sample in range(2):
        order = scores[sample].argsort(descending=True)
        kept, dropped = order[:8], order[8:]
        torch.testing.assert_close(change[sample, dropped], change[sample, dropped[:1]].expand(8, -1))
        assert not torch.allclose(change[sample, kept[0]], change[sample, kept[1]])
        assert torch.equal(new_scores[sample, dropped], scores[sample, dropped])
        assert not torch.equal(new_scores[sample, kept], scores[sample, kept])


def test_models_in_turn_share_no_state():
    """The official code keeps scores and order in globals of the module."""
    torch.manual_seed(0)
    first, second = (UniFormerForImageClassification(config(modality="image", **LIGHT)).eval() for _ in range(2))
    pixels = torch.randn(2, 3, 64, 96)
    alone = first(pixels).logits
    second(torch.randn(3, 3, 96, 64))
    assert torch.equal(first(pixels).logits, alone)


def test_scores_keep_their_sum_from_stage_to_stage():
    scores = torch.rand(2, 3 * 4 * 6)
    pooled = pool_scores(scores, (3, 4, 6))
    assert pooled.shape == (2, 3 * 2 * 3)
    torch.testing.assert_close(pooled.sum(1), scores.sum(1))
    corner = scores.view(2, 3, 4, 6)[:, 0, :2, :2].mean((1, 2))
    next_to_it = scores.view(2, 3, 4, 6)[:, 0, :2, 2:4].mean((1, 2))
    torch.testing.assert_close(pooled[:, 0] / pooled[:, 1], corner / next_to_it)


def test_a_light_model_trains_on_both_heads_and_answers_with_one():
    torch.manual_seed(0)
    model = UniFormerForVideoClassification(config(**LIGHT))
    pixels, labels = torch.randn(2, 4, 3, 64, 64), torch.tensor([0, 3])
    outputs = model.train()(pixels, labels=labels)
    losses = [F.cross_entropy(one, labels) for one in (outputs.logits, outputs.class_token_logits)]
    torch.testing.assert_close(outputs.loss, sum(losses) / 2)
    outputs = model.eval()(pixels, labels=labels)
    assert outputs.class_token_logits is None
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, labels))


@pytest.fixture
def token_labelled() -> UniFormerForImageClassification:
    torch.manual_seed(0)
    return UniFormerForImageClassification(config(modality="image", use_auxiliary_head=True))


def test_evaluation_adds_half_of_the_largest_token_logit(token_labelled):
    model = token_labelled.eval()
    pixels = torch.randn(2, 3, 64, 96)
    tokens = model.uniformer(pixels).last_hidden_state
    best = model.auxiliary_classifier(tokens).amax(1)
    torch.testing.assert_close(model(pixels).logits, model.classifier(tokens.mean(1)) + 0.5 * best)


def test_mix_token_loss(token_labelled):
    """The box of stage 1 in stage 4, labels by its share, token logits moved back before their labels are compared."""
    model, box = token_labelled.train(), (9, 0, 31, 17)  # rows 1 to 3 and columns 0 to 2 of 4 x 4
    pixels, labels = torch.randn(2, 3, 128, 128), torch.tensor([1, 4])
    token_labels = torch.rand(2, 16, 5).softmax(-1)
    outputs = model(pixels, labels=labels, token_labels=token_labels, mix_box=box)
    share = 2 * 2 / 16
    soft = F.one_hot(labels, 5).float()
    whole = F.cross_entropy(outputs.logits, (1 - share) * soft + share * soft.flip(0))
    mixed = model.uniformer(pixels, mix_box=box).last_hidden_state
    back = model.auxiliary_classifier(mixed).view(2, 4, 4, 5).clone()
    back[:, 1:3, 0:2] = back[:, 1:3, 0:2].flip(0)
    dense = F.cross_entropy(back.view(32, 5), token_labels.view(32, 5))
    torch.testing.assert_close(outputs.loss, whole + dense)


def test_mixing_takes_the_reversed_batch_inside_the_box():
    maps = torch.randn(3, 2, 4, 5)
    mixed = mix_tokens(maps, (1, 2, 3, 5))
    expected = maps.clone()
    expected[:, :, 1:3, 2:5] = maps.flip(0)[:, :, 1:3, 2:5]
    assert torch.equal(mixed, expected)
    assert mix_tokens(maps, None) is maps
    with pytest.raises(ValueError, match="`mix_box`"):
        mix_tokens(maps, (0, 0, 5, 5))


def test_arguments_that_a_model_cannot_use_are_refused(token_labelled):
    pixels = torch.randn(2, 3, 64, 64)
    plain = UniFormerForImageClassification(config(modality="image"))
    with pytest.raises(ValueError, match="`mix_box` needs"):
        plain(pixels, mix_box=(0, 0, 1, 1))
    with pytest.raises(ValueError, match="`token_labels` needs"):
        plain(pixels, token_labels=torch.rand(2, 4, 5))
    with pytest.raises(ValueError, match="training mode"):
        token_labelled.eval()(pixels, mix_box=(0, 0, 1, 1))
    with pytest.raises(ValueError, match="`token_labels` must have shape"):
        token_labelled.train()(pixels, labels=torch.tensor([0, 1]), token_labels=torch.rand(2, 3, 5))


def test_split_attention_starts_without_attention_over_time():
    block = UniFormerModel(config(use_split_attention=True)).stages[2].blocks[0]
    assert not block.temporal_attention.qkv.weight.any()
    assert (block.temporal_attention.o_proj.weight == 1).all()
    context, _ = block.temporal_attention(torch.randn(2, 4, 24))
    assert not context.any()


def test_gradient_checkpointing_updates_batch_norms_once():
    torch.manual_seed(0)
    pixels, labels = torch.randn(2, 4, 3, 64, 64), torch.tensor([0, 1])
    model = UniFormerForVideoClassification(config())
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = []
    for checkpointing in (False, True):
        model.load_state_dict(start)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()(pixels, labels=labels).loss.backward()
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items() if "running" in name})
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name


def test_batch_norms_can_be_synchronised():
    """Two axes are all that a BatchNorm sees, so torch's conversion for several processes keeps the meaning."""
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(UniFormerModel(config())).eval()
    assert model(torch.randn(1, 4, 3, 64, 64)).last_hidden_state.shape == (1, 8, 32)
    norm, maps = torch.nn.BatchNorm1d(3).train(), torch.randn(2, 4, 5, 3)
    expected = F.batch_norm(maps.permute(0, 3, 1, 2), None, None, training=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(apply_batch_norm(norm, maps), expected)


def test_layer_groups_and_decay_cover_every_parameter():
    for fields in ({}, LIGHT):
        model = UniFormerForVideoClassification(config(**fields))
        groups = model.layer_groups()
        assert len(groups) == 2 + sum(model.config.depths)
        names = [name for name, _ in model.named_parameters()]
        assert all(any(name.startswith(group) for name in names) for group in groups)
        assert model.no_weight_decay() == set()


def test_a_video_model_starts_from_an_image_model(tmp_path):
    fields = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "head_dim": 8, "image_size": 64}
    image = UniFormerModel(UniFormerConfig(**fields, modality="image", attention_type="window")).eval()
    image.save_pretrained(tmp_path)
    for source in (image, str(tmp_path)):
        video = UniFormerModel.from_image_vit(source, num_frames=8)
        assert (video.config.modality, video.config.num_frames) == ("video", 8)
        with torch.no_grad():
            ours = video(torch.zeros(1, 4, 3, 64, 64), output_hidden_states=True).hidden_states[0]
            theirs = image(torch.zeros(1, 3, 64, 64), output_hidden_states=True).hidden_states[0]
        torch.testing.assert_close(ours[:, :, 1], theirs)  # away from the clip's ends a still clip is the image
    split = UniFormerForVideoClassification.from_image_vit(image, num_labels=3, use_split_attention=True)
    assert (split.uniformer.stages[2].blocks[0].temporal_attention.o_proj.weight == 1).all()
    with pytest.raises(ValueError, match="`image_model` must be a UniFormer with `modality='image'`"):
        UniFormerModel.from_image_vit(video)
    with pytest.raises(ValueError, match="Give `config` or fields of it, not both"):
        UniFormerModel.from_image_vit(image, video.config, num_frames=4)
    with pytest.raises(ValueError, match="must be a folder or a Hub id, got the file"):
        UniFormerModel.from_image_vit(tmp_path / "model.safetensors")
    scaled = UniFormerModel(UniFormerConfig(**fields, modality="image", layer_scale_init_value=0.1))
    with pytest.raises(ValueError, match="which the video model lacks"):
        UniFormerModel.from_image_vit(scaled, layer_scale_init_value=0.0)
