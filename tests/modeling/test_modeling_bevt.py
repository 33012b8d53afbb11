"""What is special to BEVT: windows, two streams, other windows, the copies for the tokenizer."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_videovit import (
    BevtConfig,
    BevtForPreTraining,
    BevtForVideoClassification,
    BevtImageProcessor,
    BevtVideoProcessor,
)
from hf_videovit.modeling.backbone_video_swin import MASKED_SCORE, SwinWindows, masked_parts, relative_position_index
from hf_videovit.modeling.frame_sampling import sample_clips
from hf_videovit.modeling.word_pixels import lanczos_weights, resize_for_words, word_pixels
from tests.families import FAMILIES, Case, masked_words_inputs


FAMILY = next(family for family in FAMILIES if family.name == "bevt")
CPU = torch.device("cpu")


def make(model_class, **fields):
    head = next(head for head in FAMILY.heads if head.model_class is model_class)
    return Case(FAMILY, head).model(**fields)


def test_each_token_stands_in_one_window_and_cut_parts_do_not_see_each_other():
    """Against the regions as the paper draws them: -100 where two places of a rolled window come from other ends."""
    grid, window, shift = (3, 7, 5), (2, 3, 3), (1, 1, 1)
    windows = SwinWindows(window, shift, masked_parts(grid, window, shift, CPU), torch.empty(0))
    numbers = 1 + torch.arange(2 * 105).view(2, *grid, 1)  # padding is 0
    tokens = windows.split(numbers)
    assert tokens.shape == (2, 2, 3, 2, 18, 1)
    assert tokens[tokens > 0].sort().values.equal(numbers.flatten())
    assert windows.join(tokens, grid).equal(numbers)
    seen, places = torch.zeros(2, 2, 3, 2, dtype=torch.long), tokens[..., 0] - 1
    for where, mask in windows.parts:
        seen[where] += 1
        for row in places[where].flatten(0, 3):
            real, row = row >= 0, row % 105
            position = torch.stack((row // 35, row // 5 % 7, row % 5), -1)
            spread = (position[real][:, None] - position[real][None]).abs()
            far = (spread >= torch.tensor(window)).any(-1)
            if mask is None:
                assert not far.any()
            else:
                assert torch.equal(mask[real][:, real], far * MASKED_SCORE)
    assert (seen == 1).all()


def test_windows_of_parts_stand_where_they_were_cut_out():
    windows = SwinWindows((1, 2, 2), (0, 1, 1), masked_parts((2, 4, 6), (1, 2, 2), (0, 1, 1), CPU), torch.empty(0))
    numbers = torch.arange(3 * 2 * 2 * 3).view(3, 2, 2, 3)
    parts = [numbers[where].flatten() for where, _ in windows.parts]
    assert len(parts) == 4
    assert windows.gather(parts, numbers.shape).equal(numbers.flatten())


def test_a_clipped_window_takes_the_first_places_of_the_full_one():
    full = relative_position_index((2, 3, 3), 18, CPU)
    assert torch.equal(relative_position_index((2, 3, 3), 4, CPU), full[:4, :4])
    assert full[0, 0] == 1 * 25 + 2 * 5 + 2
    assert full.min() == 0
    assert full.max() == 3 * 25 - 1


@torch.no_grad()
def test_hidden_patches_have_no_say():
    model = make(BevtForPreTraining)
    inputs = masked_words_inputs(model.config, 1)
    changed = dict(inputs)
    for prefix in ("", "image_"):
        mask, name = inputs[f"{prefix}mask"], f"{prefix}pixel_values"
        fine = mask.repeat_interleave(4, -1).repeat_interleave(4, -2)
        fine = fine.repeat_interleave(2, 1)[:, :, None] if not prefix else fine[:, None]
        changed[name] = torch.where(fine, torch.randn_like(inputs[name]), inputs[name])
    one, other = model(**inputs), model(**changed)
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.image_logits, other.image_logits)
    assert not torch.allclose(one.logits, model(pixel_values=inputs["pixel_values"]).logits)


@torch.no_grad()
def test_scores_at_hidden_places_alone_are_the_same():
    model = make(BevtForPreTraining)
    inputs = masked_words_inputs(model.config, 2)
    whole, sparse = model(**inputs), model(**inputs, masked_only=True)
    places = inputs["mask"].repeat_interleave(2, 1).flatten(1)
    torch.testing.assert_close(sparse.logits, whole.logits[places])
    for name in ("loss", "video_accuracy", "image_accuracy"):
        torch.testing.assert_close(sparse[name], whole[name])


def test_inputs_that_do_not_fit_are_refused():
    model, clips = make(BevtForPreTraining), make(BevtForPreTraining, image_stream=False)
    inputs = masked_words_inputs(model.config, 1)
    with pytest.raises(ValueError, match="got neither"):
        model()
    with pytest.raises(ValueError, match="no `image_stream`"):
        clips(image_pixel_values=inputs["image_pixel_values"])
    with pytest.raises(ValueError, match="`image_pixel_values` must have .* multiples"):
        model(image_pixel_values=torch.zeros(1, 3, 24, 32))
    with pytest.raises(ValueError, match="`pixel_values` must have .* multiples"):
        model(pixel_values=torch.zeros(1, 3, 3, 32, 32))
    with pytest.raises(ValueError, match=r"`image_mask` must have shape \(1, 8, 8\)"):
        model(image_pixel_values=inputs["image_pixel_values"], image_mask=torch.zeros(1, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="need a mask"):
        model(pixel_values=inputs["pixel_values"], labels=inputs["labels"])
    with pytest.raises(ValueError, match="`labels` must have one word"):
        model(pixel_values=inputs["pixel_values"], mask=inputs["mask"], labels=inputs["labels"][:, :2])


@torch.no_grad()
def test_stage_two_goes_on_from_stage_one():
    stage_one = make(BevtForPreTraining, video_stream=False)
    joint = BevtForPreTraining.from_image_stream(stage_one).eval()
    inputs = masked_words_inputs(joint.config, 1)
    image = {name: value for name, value in inputs.items() if name.startswith("image_")}
    assert torch.equal(joint(**image).image_logits, stage_one(**image).image_logits)
    pixels = image["image_pixel_values"]
    still = joint.bevt.embeddings(pixels[:, None].repeat(1, 2, 1, 1, 1))
    torch.testing.assert_close(still, joint.image_embeddings(pixels))
    assert joint(**inputs).loss.isfinite()
    with pytest.raises(ValueError, match="`source` must have an image stream"):
        BevtForPreTraining.from_image_stream(make(BevtForPreTraining, image_stream=False))


@torch.no_grad()
def test_windows_can_be_resized(tmp_path):
    model = make(BevtForVideoClassification)
    model.resize_windows([4, 3, 2])
    assert model.config.window_size == model.bevt.config.window_size == [4, 3, 2]
    clip = torch.randn(1, 8, 3, 32, 32)
    expected = model(clip).logits
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(BevtForVideoClassification.from_pretrained(tmp_path).eval()(clip).logits, expected)
    with pytest.raises(ValueError, match="`window_size`"):
        model.resize_windows([4, 3])


def test_configurations_that_cannot_be_are_refused():
    for fields, message in (
        ({"depths": [2, 2]}, "`hidden_sizes` must have a positive int for each stage"),
        ({"num_attention_heads": [4, 8]}, "`num_attention_heads` must have a positive int for each stage"),
        ({"num_attention_heads": [3, 8, 16, 32]}, "`num_attention_heads` must divide"),
        ({"hidden_sizes": [128, 256, 512, 512]}, "`hidden_sizes` must double"),
        ({"intermediate_sizes": [0, 1, 1, 1]}, "`intermediate_sizes` must have a positive int"),
        ({"window_size": [8, 7]}, "`window_size`"),
        ({"image_stream": False, "video_stream": False}, "One of `image_stream`"),
        ({"image_loss_weight": -1.0}, "`image_loss_weight`"),
        ({"mask_ratio": 1.0}, "`mask_ratio`"),
        ({"shortest_tube": 0.9, "longest_tube": 0.5}, "`shortest_tube` must be at most `longest_tube`"),
        ({"hidden_size": 8}, "`hidden_size` follows from"),
        ({"patch_sise": 4}, "patch_sise"),
    ):
        with pytest.raises(ValueError, match=message):
            BevtConfig(**fields)
    with pytest.raises(ValueError, match="`size` must be one of"):
        BevtConfig.from_size("huge")


# What the tokenizer sees


def test_small_copies_keep_flat_pictures_and_have_whole_grey_levels():
    flat = torch.full((1, 3, 32, 48), 77.0)
    assert torch.equal(resize_for_words(flat, (16, 24)), torch.full((1, 3, 16, 24), 77.0))
    noise = torch.randint(0, 256, (2, 3, 32, 32))
    small = word_pixels(noise, (16, 16))
    levels = (small - 0.1) / 0.8 * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert small.min() >= 0.1 - 1e-6
    assert small.max() <= 0.9 + 1e-6
    assert torch.equal(resize_for_words(noise, (32, 32)), noise.float())


def test_half_size_is_eight_neighbours_weighed_alike_from_both_sides():
    weights = lanczos_weights(32, 16)
    torch.testing.assert_close(weights.sum(1), torch.ones(16))
    middle = weights[8, 13:21]
    assert (middle != 0).all()
    torch.testing.assert_close(middle, middle.flip(0))
    assert weights[8].count_nonzero() == 8


def test_processors_give_the_copies_of_the_very_crops():
    fields = {"num_frames": 4, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = BevtVideoProcessor(**fields)
    video = np.random.default_rng(0).integers(0, 256, (12, 40, 56, 3), dtype=np.uint8)
    both = processor(video, return_word_pixels=True, return_tensors="pt")
    assert both["word_pixel_values"].shape == (1, 4, 3, 16, 16)
    plain = processor(video, return_tensors="pt")
    torch.testing.assert_close(both["pixel_values"], plain["pixel_values"])
    assert "word_pixel_values" not in plain
    grey = processor(video, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(both["word_pixel_values"], word_pixels(grey, (16, 16)))
    images = BevtImageProcessor(size=fields["size"], crop_size=fields["crop_size"], return_word_pixels=True)
    batch = images([Image.fromarray(video[0]), Image.fromarray(video[1])], return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert batch["word_pixel_values"].shape == (2, 3, 16, 16)
    assert (batch["word_pixel_values"] - 0.5).abs().max() <= 0.4 + 1e-6


@pytest.mark.parametrize("total", [1, 5, 12, 63, 300])
def test_a_cyclic_clip_has_its_stride_and_begins_where_it_can(total):
    clip = sample_clips(
        total,
        frame_sampling="dense_cyclic",
        sampling_mode="train",
        num_frames=8,
        frame_stride=2,
        rng=np.random.default_rng(0),
    )[0]
    assert clip.shape == (8,)
    assert ((np.diff(clip) % total) == 2 % total).all()
    assert clip[0] + 16 <= total or clip[0] == 0


@pytest.mark.parametrize("masked_only", [False, True])
@pytest.mark.parametrize("stream", ["", "image_"])
def test_a_mask_that_hides_nothing_is_refused(stream, masked_only):
    """Its loss would be 0 whatever the model answers."""
    model = make(BevtForPreTraining)
    inputs = masked_words_inputs(model.config, 2)
    inputs[f"{stream}mask"][1] = False
    with pytest.raises(ValueError, match=f"`{stream}mask` must hide at least 1 place of every sample"):
        model(**inputs, masked_only=masked_only)
    without_labels = {name: value for name, value in inputs.items() if "labels" not in name}
    assert model(**without_labels).loss is None


def test_words_and_masks_of_other_batches_are_refused():
    model = make(BevtForPreTraining)
    inputs = masked_words_inputs(model.config, 2)
    for name in ("mask", "image_mask"):
        with pytest.raises(ValueError, match=f"`{name}` must have shape"):
            model(**{**inputs, name: inputs[name][:1]})
    for name in ("labels", "image_labels"):
        for wrong in (inputs[name][:1], inputs[name].flatten(), inputs[name].flatten().view(1, -1)):
            with pytest.raises(ValueError, match=f"`{name}` must have one word for each of .* 2 samples"):
                model(**{**inputs, name: wrong})


@pytest.mark.parametrize("masked_only", [False, True])
def test_words_of_minus_100_do_not_count(masked_only):
    """The same as if their places were not masked in the loss, though they are hidden from the encoder."""
    model = make(BevtForPreTraining, image_stream=False)
    inputs = masked_words_inputs(model.config, 2)
    inputs["mask"][:] = True
    logits = model(**inputs).logits.flatten(0, 1)
    inputs["labels"][:, 1:] = -100
    kept = inputs["labels"].flatten() != -100
    expected = torch.nn.functional.cross_entropy(logits[kept], inputs["labels"].flatten()[kept])
    outputs = model(**inputs, masked_only=masked_only)
    torch.testing.assert_close(outputs.loss, expected)
    hits = logits[kept].argmax(-1) == inputs["labels"].flatten()[kept]
    torch.testing.assert_close(outputs.video_accuracy, hits.float().mean())
