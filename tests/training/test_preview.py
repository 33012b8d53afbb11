"""The picture of what training sees shows what training sees."""

import numpy as np
import pytest
from PIL import Image

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.building import describe_inputs
from hf_videovit.training.data.augmentation import sample_seed
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.data.opening import load_sources
from hf_videovit.training.data.streams import clip_augmentation
from hf_videovit.training.methods.masked_words import MaskedWords
from hf_videovit.training.preview import draw_preview, preview_clips, target_text


def test_clips_are_those_of_the_run(tiny_fields):
    config = RunConfig.from_fields(**tiny_fields, num_sample=2, random_erasing=0.5)
    clips = preview_clips(config, num_clips=3)
    source, _ = load_sources(config.data, config.run.seed)
    samples = list(source.share(0, 1, config.run.seed, 0))[:3]
    _, processor = describe_inputs(config.model)
    augment = clip_augmentation(config.augmentation, processor)
    assert [clip.id for clip in clips] == [sample.id for sample in samples]
    for clip, sample in zip(clips, samples):
        rng = np.random.default_rng(sample_seed(0, 0, sample.id, "frames"))
        decoded, _ = processor.load_clips(sample.video, sampling_mode="train", rng=rng)
        assert np.array_equal(clip.before, decoded[0].permute(0, 2, 3, 1))
        for copy, purpose in enumerate(["augmentation", "augmentation/1"]):
            expected = augment(decoded[0], sample_seed(0, 0, sample.id, purpose))
            assert np.array_equal(clip.after[copy], expected.permute(0, 2, 3, 1))
        assert clip.labels == [{source.label_names[sample.label]: 1.0}] * 2
        assert clip.masked == []


def test_clips_are_shown_without_colours_where_the_model_sees_none(tiny_fields):
    processor = {**tiny_fields.get("processor", {}), "do_grayscale": True}
    (clip,) = preview_clips(RunConfig.from_fields(**tiny_fields | {"processor": processor}), num_clips=1)
    assert np.ptp(clip.after[0]) > 0 and np.array_equal(clip.after[0][..., 0], clip.after[0][..., 2])


@pytest.mark.parametrize("device", [False, True])
def test_mixed_clips_show_their_shares(tiny_fields, device):
    fields = {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "augment_on_device": device}
    mixed = preview_clips(RunConfig.from_fields(**tiny_fields, **fields), num_clips=4)
    plain = preview_clips(RunConfig.from_fields(**tiny_fields), num_clips=4)
    assert all(sum(clip.labels[0].values()) == pytest.approx(1.0) for clip in mixed)
    assert any(len(clip.labels[0]) == 2 for clip in mixed)
    for one, other in zip(mixed, plain):
        assert not np.array_equal(one.after[0], other.after[0])
        assert np.array_equal(one.before, other.before)


def test_masks_leave_what_the_encoder_sees_and_what_is_reconstructed(tiny_fields, tmp_path):
    tiny_fields["config"] |= {"encoder_mask_ratio": 0.5, "decoder_mask_ratio": 0.5}
    config = RunConfig.from_fields(**tiny_fields, method="masked_pixels")
    clips = draw_preview(config, tmp_path / "new" / "preview.png", num_clips=2)
    for clip in clips:
        assert clip.labels == []
        seen, wanted = ((part != 128).any(axis=-1) for part in clip.masked[0])
        assert seen.mean() == pytest.approx(0.5, abs=0.02)
        assert 0.2 < wanted.mean() < 0.4  # half of the hidden ones, as far as two frames of 2 x 2 can be halved
        assert not (seen & wanted).any()
        assert np.array_equal(clip.masked[0][0][seen], clip.after[0][seen])
    picture = np.asarray(Image.open(tmp_path / "new" / "preview.png"))
    assert (picture == 128).all(axis=-1).sum() > 2 * 4 * 32 * 32


def test_hidden_words_are_shown_of_clips_and_of_images(word_fields, tmp_path):
    config = RunConfig.from_fields(**word_fields, num_sample=2, method="masked_words")
    clips = draw_preview(config, tmp_path / "preview.png", num_clips=2)
    assert [len(clip.after) for clip in clips] == [2, 2, 1, 1]
    assert [clip.after[0].shape for clip in clips] == [(4, 32, 32, 3)] * 2 + [(1, 32, 32, 3)] * 2
    method = MaskedWords(config)
    method.begin_preview()
    data = method.data
    sample = next(iter(data.sources["video"][0].share(0, 1, config.run.seed, 0)))
    rows = data.loader(images=False)(Record(sample, 0, 0))
    for copy, mask in enumerate(rows["mask"]):
        hidden = mask.repeat_interleave(2, 0).repeat_interleave(4, 1).repeat_interleave(4, 2).numpy()
        seen, wanted = clips[0].masked[copy]
        assert np.array_equal(clips[0].after[copy], rows["pixel_values"][copy].permute(0, 2, 3, 1))
        assert np.array_equal(seen, np.where(hidden[..., None], 128, clips[0].after[copy]))
        assert np.array_equal(wanted, np.where(hidden[..., None], clips[0].after[copy], 128))
    for clip in clips[2:]:
        assert 0.2 < (clip.masked[0][0] == 128).all(axis=-1).mean() <= 0.55
    config.model.config["video_stream"] = False
    config.data.data = config.method["image_data"]
    assert [clip.after[0].shape[0] for clip in preview_clips(config, num_clips=2)] == [1, 1]


def test_a_small_clip_is_enlarged(tiny_fields, tmp_path):
    clips = draw_preview(RunConfig.from_fields(**tiny_fields, mixup=0.8), tmp_path / "preview.png", num_clips=2)
    assert len(clips) == 2
    assert Image.open(tmp_path / "preview.png").size[0] >= 4 * 96


def test_what_cannot_be_shown(tiny_fields):
    config = RunConfig.from_fields(**tiny_fields)
    config.data.label_names = None
    source, _ = load_sources(config.data, 0)
    source = source.with_label_names(source.label_names)
    source.label_names = source.label_names[:1]
    with pytest.raises(ValueError, match="`data` must have at least two labels"):
        preview_clips(config, train_source=source)


def test_targets_in_words():
    assert target_text({"jump": 1.0}) == "jump"
    assert target_text({"fall": 0.3, "jump": 0.7}) == "0.70 jump + 0.30 fall"
