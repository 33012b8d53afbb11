"""What is special to VideoMAE V2. Forward, gradients, saving, compilation and export: tests/test_families.py."""

import pytest
import torch

from hf_videovit import (
    VideoMAEV2Config,
    VideoMAEV2ForPreTraining,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2Model,
)
from hf_videovit.modeling.layers import sinusoid_table


TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "patch_size": 4,
    "image_size": 16,
    "num_frames": 4,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "encoder_mask_ratio": 0.75,
    "num_labels": 5,
}


def masks(batch: int = 2) -> dict[str, torch.Tensor]:
    """Tube and checkerboard masks for the tiny grid of 2 x 4 x 4 tokens."""
    encoder = torch.ones(batch, 2, 16, dtype=torch.bool)
    for sample, row in enumerate(encoder):
        row[:, sample : sample + 4] = False
    decoder = (torch.arange(32) % 2 == 0).expand(batch, 32)
    return {"encoder_mask": encoder.flatten(1), "decoder_mask": decoder}


def test_keys_have_no_bias_and_queries_and_values_do():
    layer = VideoMAEV2Model(VideoMAEV2Config(**TINY)).encoder.layers[0].attention
    assert layer.k_proj.bias is None and layer.q_proj.bias is not None and layer.v_proj.bias is not None


@torch.no_grad()
def test_pooled_features_are_the_norm_of_the_mean():
    """
    Its statistics are those of a norm, which a mean of norms has not; it points where the mean of the tokens points;
    and the tokens have passed no norm.
    """
    model = VideoMAEV2Model(VideoMAEV2Config(**TINY)).eval()
    outputs = model(torch.randn(2, 4, 3, 16, 16))
    torch.testing.assert_close(outputs.pooler_output.mean(-1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.pooler_output.var(-1, unbiased=False), torch.ones(2), atol=1e-2, rtol=0)
    mean = outputs.last_hidden_state.sum(1) / outputs.last_hidden_state.shape[1]
    direction = torch.nn.functional.cosine_similarity(mean - mean.mean(-1, keepdim=True), outputs.pooler_output)
    torch.testing.assert_close(direction, torch.ones(2))
    assert (outputs.last_hidden_state.var(-1, unbiased=False) - 1).abs().max() > 0.1
    assert model.layernorm is None


def test_first_token_pooling_normalises_tokens():
    model = VideoMAEV2Model(VideoMAEV2Config(**TINY, use_mean_pooling=False)).eval()
    outputs = model(torch.randn(2, 4, 3, 16, 16))
    assert model.fc_norm is None
    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state[:, 0])


def test_masked_encoder_equals_the_encoder_on_the_visible_tokens():
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY)).eval().videomae_v2
    pixel_values, mask = torch.randn(2, 4, 3, 16, 16), masks()["encoder_mask"]
    tokens = model.embeddings(pixel_values, (2, 4, 4))
    alone = model.layernorm(model.encoder(tokens[~mask].view(2, 8, -1), (2, 16)))
    torch.testing.assert_close(model(pixel_values, mask).last_hidden_state, alone)


def test_loss_counts_only_what_the_encoder_did_not_see():
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY)).eval()
    pixel_values, both = torch.randn(2, 4, 3, 16, 16), masks()
    outputs = model(pixel_values, **both)
    decoded = ~both["decoder_mask"]
    target = model.targets(pixel_values)[decoded].view(2, 16, -1)
    total, count = 0.0, 0
    for sample in range(2):  # the loop of the docstring
        for position, prediction in zip(decoded[sample].nonzero()[:, 0], outputs.logits[sample], strict=True):
            if both["encoder_mask"][sample, position]:
                index = (outputs.decoded_indices[sample] == position).nonzero()[0, 0]
                total += (prediction - target[sample, index]).square().mean().item()
                count += 1
    assert outputs.loss.item() == pytest.approx(total / count, rel=1e-5)


def test_without_a_decoder_mask_every_hidden_token_is_reconstructed():
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY)).eval()
    pixel_values, mask = torch.randn(2, 4, 3, 16, 16), masks()["encoder_mask"]
    implicit = model(pixel_values, mask)
    explicit = model(pixel_values, mask, ~mask)
    assert implicit.logits.shape[1] == 24
    torch.testing.assert_close(implicit.loss, explicit.loss)


def test_targets_have_zero_mean_and_unit_deviation_a_channel():
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY))
    target = model.targets(torch.randn(2, 4, 3, 16, 16)).view(2, 32, -1, 3)
    torch.testing.assert_close(target.mean(2), torch.zeros(2, 32, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.std(2), torch.ones(2, 32, 3), atol=1e-4, rtol=0)


def test_raw_targets_are_the_pixels_before_normalisation():
    config = VideoMAEV2Config(**TINY)
    pixels = torch.rand(1, 4, 3, 16, 16)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (config.image_mean, config.image_std))
    target = VideoMAEV2ForPreTraining(config).targets((pixels - mean) / std, normalize=False)
    first = pixels[0, :2, :, :4, :4].permute(0, 2, 3, 1).flatten()  # tubelet frames, rows, columns, channels
    torch.testing.assert_close(target[0, 0], first, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_numbers_of_channels_train(channels):
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY, num_channels=channels))
    loss = model(torch.randn(2, 4, channels, 16, 16), **masks()).loss
    loss.backward()
    assert torch.isfinite(loss)


def test_a_checkpoint_keeps_the_table_it_was_trained_with(tmp_path):
    model = VideoMAEV2ForVideoClassification(VideoMAEV2Config(**TINY))
    model.save_pretrained(tmp_path)
    larger = VideoMAEV2ForVideoClassification.from_pretrained(tmp_path, image_size=32)
    assert larger.config.position_grid == [2, 4, 4]
    table = larger.videomae_v2.embeddings.position_embeddings.table
    torch.testing.assert_close(table, sinusoid_table(32, 24), atol=0, rtol=0)
    assert larger.eval()(torch.randn(1, 4, 3, 32, 32)).logits.shape == (1, 5)


def test_a_pretraining_checkpoint_leaves_the_classifier_norm_fresh(tmp_path):
    pretrained = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY))
    torch.nn.init.constant_(pretrained.videomae_v2.layernorm.weight, 3.0)
    pretrained.save_pretrained(tmp_path)
    model, info = VideoMAEV2ForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {
        "videomae_v2.fc_norm.weight",
        "videomae_v2.fc_norm.bias",
        "classifier.weight",
        "classifier.bias",
    }
    assert (model.videomae_v2.fc_norm.weight == 1).all()
    assert model.videomae_v2.encoder.layers[0].mlp.fc1.weight.equal(
        pretrained.videomae_v2.encoder.layers[0].mlp.fc1.weight
    )


def test_initialisation_follows_the_official_constructors():
    torch.manual_seed(0)
    config = VideoMAEV2Config(hidden_size=192, num_attention_heads=3, intermediate_size=768, num_hidden_layers=1)
    classifier = VideoMAEV2ForVideoClassification(config)
    assert classifier.classifier.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.2)
    assert classifier.videomae_v2.encoder.layers[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    pretraining = VideoMAEV2ForPreTraining(config)
    query = pretraining.videomae_v2.encoder.layers[0].attention.q_proj.weight
    assert query.abs().max().item() == pytest.approx((6 / (4 * 192)) ** 0.5, rel=0.01)
    assert pretraining.mask_token.abs().max() <= 0.02


def test_cosine_attention_caps_its_temperature():
    model = VideoMAEV2Model(VideoMAEV2Config(**TINY, use_cosine_attention=True)).eval()
    pixel_values = torch.randn(1, 4, 3, 16, 16)
    results = []
    for scale in (4.6052, 9.0):
        torch.nn.init.constant_(model.encoder.layers[0].attention.scale, scale)
        results.append(model(pixel_values).last_hidden_state)
    torch.testing.assert_close(*results)


def test_parameters_fall_into_depth_groups():
    model = VideoMAEV2ForVideoClassification(VideoMAEV2Config(**TINY, use_cosine_attention=True))
    groups = model.layer_groups()
    depth = {
        name: next(index for index, prefixes in enumerate(groups) if name.startswith(prefixes))
        for name, _ in model.named_parameters()
    }
    assert depth["videomae_v2.embeddings.patch_embeddings.projection.weight"] == 0
    assert depth["videomae_v2.encoder.layers.1.mlp.fc1.weight"] == 2
    assert depth["videomae_v2.fc_norm.weight"] == depth["classifier.weight"] == 3
    assert model.no_weight_decay() == {f"videomae_v2.encoder.layers.{index}.attention.scale" for index in range(2)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 25}, "`num_attention_heads` must divide `hidden_size`, got 2 and 25"),
        ({"decoder_hidden_size": 17}, "`decoder_num_attention_heads` must divide"),
        ({"image_size": 18}, "`image_size` .18. of `patch_size` .4."),
        ({"num_frames": 5}, "`num_frames` .5. must be a multiple of `tubelet_size`"),
        ({"view_merging": "max"}, "`view_merging` must be one of .*'max'"),
        ({"encoder_mask_ratio": 1.0}, "`encoder_mask_ratio` must be between 0 and 1"),
        ({"decoder_mask_ratio": 1.0}, "`decoder_mask_ratio` must be in"),
        ({"image_mean": [0.5]}, "`image_mean` needs 3 values"),
        ({"position_grid": [2, 4]}, "`position_grid` must be three positive ints"),
        ({"num_hiden_layers": 3}, "`num_hiden_layers` is not a field .* Did you mean `num_hidden_layers`"),
    ],
)
def test_wrong_configurations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        VideoMAEV2Config(**{**TINY, **fields})


def test_unknown_size_is_named():
    with pytest.raises(ValueError, match="`size` must be one of .*'tiny'"):
        VideoMAEV2Config.from_size("tiny")


def test_wrong_inputs_are_named():
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY))
    both = masks()
    with pytest.raises(ValueError, match="with 3 channels, got .2, 4, 1, 16, 16."):
        model(torch.randn(2, 4, 1, 16, 16), **both)
    with pytest.raises(ValueError, match="5 frames of 16 x 16 pixels"):
        model(torch.randn(2, 5, 3, 16, 16), **both)
    with pytest.raises(ValueError, match="`encoder_mask` must have shape .batch_size, 32."):
        model(torch.randn(2, 4, 3, 16, 16), both["encoder_mask"][:, :5])
    uneven = both["encoder_mask"].clone()
    uneven[0, 0] = True
    with pytest.raises(ValueError, match="`encoder_mask` must leave the same number of tokens .* got 7 to 8"):
        model(torch.randn(2, 4, 3, 16, 16), uneven)


def masks_that_do_not_fit() -> list:
    both = masks()
    encoder, decoder = both["encoder_mask"], both["decoder_mask"]
    nothing, everything = torch.zeros_like(encoder), torch.ones_like(encoder)
    return [
        (nothing, decoder, "`encoder_mask` must hide at least 1 of 32 tokens of every sample, got 0"),
        (nothing, None, "`encoder_mask` must hide at least 1 of 32 tokens"),
        (everything, decoder, "`encoder_mask` must leave the same number of tokens .at least 1. .* got 0 to 0"),
        (everything, None, "`encoder_mask` must leave the same number of tokens"),
        (encoder, everything, "`decoder_mask` must leave the same number of tokens .* got 0 to 0"),
        (encoder, encoder, "`decoder_mask` must leave at least 1 token that `encoder_mask` hides"),
        (encoder[:1], decoder, r"`encoder_mask` must have shape .* 2 clips .*, got \(1, 32\)"),
        (encoder.repeat(2, 1), decoder, r"`encoder_mask` must have shape .* 2 clips .*, got \(4, 32\)"),
        (encoder[0], decoder, r"`encoder_mask` must have shape .*, got \(32,\)"),
        (encoder, decoder[:1], r"`decoder_mask` must have shape .* 2 clips .*, got \(1, 32\)"),
        (encoder, decoder[:, :-1], r"`decoder_mask` must have shape .*, got \(2, 31\)"),
    ]


@pytest.mark.parametrize(("encoder_mask", "decoder_mask", "message"), masks_that_do_not_fit())
def test_masks_that_do_not_fit_are_refused(encoder_mask, decoder_mask, message):
    model = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY))
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 4, 3, 16, 16), encoder_mask, decoder_mask)


def test_one_sample_without_a_token_that_counts_is_refused():
    encoder, decoder = (mask.clone() for mask in masks().values())
    decoder[1] = encoder[1]  # reconstructs what is visible, and nothing else
    decoder[0] = torch.arange(32) >= 8  # as many tokens, of which the encoder sees four
    with pytest.raises(ValueError, match="`decoder_mask` must leave at least 1 token that `encoder_mask` hides"):
        VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY))(torch.randn(2, 4, 3, 16, 16), encoder, decoder)


def test_the_encoder_takes_masks_of_its_clips_only():
    model, pixel_values, mask = VideoMAEV2Model(VideoMAEV2Config(**TINY)), torch.randn(2, 4, 3, 16, 16), masks()
    with pytest.raises(ValueError, match="`encoder_mask` must have shape .* for 2 clips"):
        model(pixel_values, mask["encoder_mask"][:1])
    with pytest.raises(ValueError, match="Give `encoder_mask` or `visible_indices`, got both"):
        model(pixel_values, mask["encoder_mask"], torch.zeros(2, 1, dtype=torch.long))


def test_numbers_as_masks_hide_where_they_are_not_zero():
    model, both = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY)).eval(), masks()
    pixel_values = torch.randn(2, 4, 3, 16, 16)
    numbers = {name: 0.5 * mask.float() for name, mask in both.items()}
    torch.testing.assert_close(model(pixel_values, **numbers).logits, model(pixel_values, **both).logits)


@pytest.mark.parametrize("with_decoder_mask", [True, False])
def test_a_forward_pass_reads_the_device_once(with_decoder_mask, monkeypatch):
    """Each number that leaves the device makes the host wait for it."""
    model, both = VideoMAEV2ForPreTraining(VideoMAEV2Config(**TINY)).eval(), masks()
    if not with_decoder_mask:
        del both["decoder_mask"]
    reads = []
    for name in ("tolist", "item", "__int__", "__bool__", "__float__", "__index__", "cpu", "numpy", "new_tensor"):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, original=original, name=name):
            reads.append(name)
            return original(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)
    model(torch.randn(2, 4, 3, 16, 16), **both)
    assert reads == ["tolist"]


def test_another_size_says_that_the_table_is_interpolated(tmp_path, caplog):
    """The official code makes a new table; which of the two a checkpoint was trained with, its file does not show."""
    saved = VideoMAEV2Model(VideoMAEV2Config(**TINY))
    saved.save_pretrained(tmp_path)
    pixel_values = torch.randn(1, 4, 3, 24, 24)
    with caplog.at_level("WARNING"):
        kept = saved.eval()(pixel_values).pooler_output
    assert "position table of (2, 4, 4) tokens (frames, height, width) is interpolated to (2, 6, 6)" in caplog.text
    assert "pass `position_grid=[2, 6, 6]` to `from_pretrained`" in caplog.text
    caplog.clear()
    renewed = VideoMAEV2Model.from_pretrained(tmp_path, position_grid=[2, 6, 6]).eval()
    built = VideoMAEV2Model(VideoMAEV2Config(**{**TINY, "image_size": 24})).eval()
    built.load_state_dict(saved.state_dict())
    with caplog.at_level("WARNING"):
        features = renewed(pixel_values).pooler_output
        saved(torch.randn(1, 4, 3, 16, 16))  # its own size
        saved(torch.randn(1, 8, 3, 16, 16))  # another length, which the official code refuses
    assert "position table" not in caplog.text
    torch.testing.assert_close(features, built(pixel_values).pooler_output)
    assert (features - kept).abs().max() > 1e-2


def adapted(**fields) -> VideoMAEV2Model:
    torch.manual_seed(0)
    return VideoMAEV2Model(VideoMAEV2Config(**TINY, adapter_layers=[1], **fields)).eval()


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_chunks_are_clips(tmp_path):
    plain = VideoMAEV2Model(VideoMAEV2Config(**TINY)).eval()
    plain.save_pretrained(tmp_path)
    model = VideoMAEV2Model.from_pretrained(tmp_path, adapter_layers=[0, 1]).eval()
    video = torch.randn(2, 12, 3, 16, 16)
    tokens = model(video).last_hidden_state
    clips = [plain(clip).last_hidden_state for clip in video.split(4, dim=1)]
    torch.testing.assert_close(tokens, torch.cat(clips, dim=1))
    assert model.encoder.layers[0].adapter.down_proj.out_features == TINY["hidden_size"] // 4


@torch.no_grad()
def test_adapters_see_across_chunks_within_a_video():
    model = adapted()
    model.encoder.layers[1].adapter.up_proj.weight.normal_()
    video = torch.randn(2, 8, 3, 16, 16)
    other = video.clone()
    other[0, 4:] += 1
    before, after = (model(one).last_hidden_state.unflatten(1, (4, 16)) for one in (video, other))
    changed = (before - after).abs().amax(dim=(2, 3)) > 1e-6
    # a convolution of 3 steps reaches the last step of the first chunk, and no other video
    assert changed.tolist() == [[False, True, True, True], [False] * 4]


def test_what_adapters_do_not_take():
    with pytest.raises(ValueError, match=r"multiple of `config.num_frames` \(4\).*got 6"):
        adapted()(torch.randn(1, 6, 3, 16, 16))
    with pytest.raises(ValueError, match="`encoder_mask`.*adapters"):
        adapted()(torch.randn(2, 4, 3, 16, 16), encoder_mask=masks()["encoder_mask"])
    for layers in ([2], [-1], [0, 0]):
        with pytest.raises(ValueError, match="`adapter_layers` must be different numbers from 0 to 1"):
            VideoMAEV2Config(**TINY, adapter_layers=layers)
    with pytest.raises(ValueError, match="`adapter_hidden_size` must be at least 1, got 0"):
        adapted(adapter_hidden_size=0)
