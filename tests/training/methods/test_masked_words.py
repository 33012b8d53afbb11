"""Masked visual words: tokenizers, masks, both streams in one step, runs of one and two processes."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_videovit import BevtConfig, BevtForPreTraining, BevtForVideoClassification
from hf_videovit.convert.codebook import convert_codebook
from hf_videovit.modeling.word_pixels import word_pixels
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.block_masking import BlockMasks
from hf_videovit.training.data.folders import folder_source
from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.data.streaming import ClipStream
from hf_videovit.training.methods.choosing import finetune, pretrain
from hf_videovit.training.tasks import MaskedWordsTask
from hf_videovit.training.words.streams import PairedStream, RandomMasks, masks_for
from hf_videovit.training.words.tokenizers import (
    CodebookTokenizer,
    MovingPatchTokenizer,
    PatchTokenizer,
    find_words,
    load_tokenizer,
)
from tests.families import FAMILIES, masked_words_inputs
from tests.training.engine.test_many_processes import curve, do_runs


CODEBOOK = Path(__file__).parents[2] / "fixtures" / "bevt" / "dalle_encoder" / "checkpoint.pth"
TINY = next(family for family in FAMILIES if family.name == "bevt").tiny


def task_of(model=None, **fields):
    torch.manual_seed(0)
    model = model or BevtForPreTraining(BevtConfig(**TINY | fields))
    return MaskedWordsTask(model, PatchTokenizer(0.1 + 0.8 * torch.rand(24, 3, 2, 2)))


# Tokenizers


def test_patches_are_named_by_the_nearest_and_painted_back():
    torch.manual_seed(0)
    tokenizer = PatchTokenizer(torch.rand(5, 3, 4, 4))
    words = torch.randint(5, (2, 3, 6))
    pixels = tokenizer.paint(words)
    assert pixels.shape == (2, 3, 12, 24)
    assert torch.equal(tokenizer(pixels + 0.001 * torch.randn_like(pixels)), words)


def test_typical_patches_are_found(tmp_path):
    torch.manual_seed(0)
    kinds = torch.rand(6, 3, 2, 2)
    pixels = PatchTokenizer(kinds).paint(torch.randint(6, (4, 8, 8)))
    tokenizer = PatchTokenizer.fit(pixels, 6, 2)
    gaps = torch.cdist(tokenizer.patches.flatten(1), kinds.flatten(1)).min(1)
    assert gaps.values.max() < 1e-5
    assert len(set(gaps.indices.tolist())) == 6
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(load_tokenizer(tmp_path)(pixels), tokenizer(pixels))
    assert PatchTokenizer.fit(pixels, 40, 2).vocab_size == 6  # there are no more


def test_words_of_what_moves_are_blind_to_what_stands_still(tmp_path):
    torch.manual_seed(0)
    moving = torch.full((2, 4, 3, 32, 32), 128)
    for frame in range(4):
        moving[:, frame, :, 8 * frame : 8 * frame + 8, :8] += 40
    backdrop = torch.randint(-40, 40, (2, 1, 3, 32, 32))
    tokenizer = MovingPatchTokenizer(torch.tensor([0.47, 0.5, 0.6]).view(3, 1, 1, 1).expand(3, 3, 4, 4))
    (words,) = find_words(tokenizer, moving)
    expected = torch.ones(2, 4, 4, 4, dtype=torch.long)  # like the mean frame
    expected[..., 0] = 0  # darker, where the light was in another frame
    expected[:, range(4), range(4), 0] = 2
    assert torch.equal(words, expected)
    assert torch.equal(find_words(tokenizer, moving + backdrop)[0], words)
    plain = PatchTokenizer(tokenizer.patches)
    assert not torch.equal(find_words(plain, moving + backdrop)[0], find_words(plain, moving)[0])
    images = torch.randint(0, 200, (2, 3, 32, 32))
    assert torch.equal(find_words(tokenizer, images + 30)[0], find_words(tokenizer, images)[0])
    assert torch.equal(find_words(tokenizer, images[:, None])[0][:, 0], find_words(tokenizer, images)[0])
    tokenizer.save_pretrained(tmp_path)
    assert type(load_tokenizer(tmp_path)) is MovingPatchTokenizer
    assert torch.equal(find_words(load_tokenizer(tmp_path), moving)[0], words)


def test_the_codebook_names_patches_of_eight(tmp_path):
    codebook = convert_codebook(CODEBOOK)
    codebook.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    pixels = 0.1 + 0.8 * torch.rand(5, 3, 16, 24)
    assert isinstance(tokenizer, CodebookTokenizer)
    assert tokenizer(pixels).shape == (5, 2, 3)
    tokenizer.images_at_once = 2
    assert torch.equal(tokenizer(pixels), codebook.get_codebook_indices(pixels))
    BevtConfig(**TINY).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="FlavaImageCodebook"):
        load_tokenizer(tmp_path / "other")


def test_a_tokenizer_that_does_not_fit_the_model_is_refused():
    model = BevtForPreTraining(BevtConfig(**TINY))
    with pytest.raises(ValueError, match="patches of 2 pixels"):
        MaskedWordsTask(model, CodebookTokenizer(convert_codebook(CODEBOOK)))
    with pytest.raises(ValueError, match="at most the model's 24 words"):
        MaskedWordsTask(model, PatchTokenizer(torch.rand(25, 3, 2, 2)))


# Masks


def test_masks_have_the_official_statistics():
    """Over 20 000 draws the official code: 97.54, 69.4 % at 98; tubes 37.3 %, 44.4 % of them over the end."""
    rng, masks = random.Random(0), BlockMasks()
    counts = np.array([masks.image(rng).sum() for _ in range(2000)])
    assert counts.max() == 98
    assert counts.min() >= 80
    assert counts.mean() == pytest.approx(97.54, abs=0.1)
    assert (counts == 98).mean() == pytest.approx(0.694, abs=0.04)
    tubes = np.stack([masks.clip(8, rng) for _ in range(2000)])
    assert tubes.mean() == pytest.approx(0.373, abs=0.005)
    hidden = tubes.any(axis=(2, 3))
    lengths = hidden.sum(1)
    assert np.bincount(lengths, minlength=9)[4:] / 2000 == pytest.approx([0.2] * 5, abs=0.04)
    wrapped = hidden[:, 0] & hidden[:, -1] & (lengths < 8)
    assert wrapped.mean() == pytest.approx(0.444, abs=0.04)
    for tube in tubes[:50]:
        shown = tube[tube.any(axis=(1, 2))]
        assert (shown == shown[0]).all()


def test_masks_of_small_grids_and_bad_settings():
    masks = masks_for(BevtConfig(**TINY))
    assert (masks.height, masks.width, masks.smallest_block) == (8, 8, 5)
    assert 20 <= masks.image(random.Random(0)).sum() <= 32
    assert RandomMasks(BevtConfig(**TINY), images=False)(0).shape == (2, 8, 8)
    assert RandomMasks(BevtConfig(**TINY), images=True)(0).shape == (8, 8)
    tight = BlockMasks(8, 8, 0.85, smallest_block=5)
    for seed in (9132, 12687, 13195):  # no block fits in any attempt
        assert tight.image(random.Random(seed)).sum() == 1
    short = RandomMasks(BevtConfig(**TINY, mask_ratio=0.8, shortest_tube=0.5, longest_tube=0.5), images=False)
    shown = [short(seed).flatten(1).sum(1) for seed in range(20)]
    assert all(sorted(counts.tolist())[0] == 0 and 32 < max(counts) <= 51 for counts in shown)
    for fields in ({"ratio": 1.0}, {"height": 1}, {"smallest_block": 0}, {"shortest_tube": 0.9, "longest_tube": 0.5}):
        with pytest.raises(ValueError, match=f"`{next(iter(fields))}`"):
            BlockMasks(**fields)


# The task


def test_words_are_those_of_the_very_frames():
    task = task_of()
    frames, pictures = torch.randint(0, 256, (2, 4, 3, 32, 32)), torch.randint(0, 256, (3, 3, 32, 32))
    inputs = task.with_words({"frames": frames, "image_frames": pictures})
    assert inputs["labels"].shape == (2, 4, 8, 8)
    assert torch.equal(inputs["image_labels"], task.tokenizer(word_pixels(pictures, (16, 16))))
    assert torch.equal(inputs["labels"][1, 2], task.tokenizer(word_pixels(frames[1, 2:3], (16, 16)))[0])


def test_the_loss_of_a_step_is_the_sum_and_the_tokenizer_no_part_of_the_task():
    task = task_of(video_loss_weight=0.5)
    inputs = masked_words_inputs(task.model.config, 2)
    terms = task(inputs)
    torch.testing.assert_close(terms["loss"], 0.5 * terms["video_loss"] + terms["image_loss"])
    assert all(name.startswith("model.") for name in task.state_dict())
    with pytest.raises(ValueError, match="`tokenizer` is needed"):
        MaskedWordsTask(task.model)({"frames": torch.zeros(1, 4, 3, 32, 32)})


# Streams


def numbered(sign):
    return lambda record: {"number": torch.tensor([sign * int(record.sample.id)])}


def paired(num_videos=10, num_images=7, rank=0, world=1):
    def stream(count, sign, size, **options):
        source = SampleList([Sample(str(index + 1), "", None) for index in range(count)])
        return ClipStream(source, numbered(sign), size, 0, rank=rank, world=world, **options)

    return PairedStream(stream(num_videos, 1, 4), stream(num_images, -1, 3, drop_last=True))


def test_every_step_sees_both_and_images_begin_anew():
    stream = paired()
    batches = list(stream.epoch(0))
    assert len(batches) == stream.num_batches() == 3
    assert sorted(int(n) for batch in batches for n in batch.rows["number"]) == list(range(1, 11))
    images = [batch.rows["image_number"].flatten().tolist() for batch in batches]
    assert all(len(row) == 3 and min(row) < 0 for row in images)
    assert not set(images[0]) & set(images[1])  # a pass of two batches, then the next pass
    assert images != [batch.rows["image_number"].flatten().tolist() for batch in stream.epoch(1)]


def test_a_paired_epoch_goes_on_from_any_batch():
    stream = paired()
    places, expected = [], []
    for batch in stream.epoch(2):
        places.append(stream.position)
        expected.append(batch.rows["image_number"].tolist())
    for index, place in enumerate(places):
        found = [batch.rows["image_number"].tolist() for batch in stream.epoch(2, place)]
        assert found == expected[index + 1 :]
    assert stream.num_read(places[0]) == 4 + 3


# Runs


def test_a_joint_run_leaves_what_fine_tuning_starts_from(word_fields, tmp_path):
    result = pretrain(RunConfig.from_fields(**word_fields | {"picture_every": 1}))
    folder = result.output_dir
    last = next(line["validation"] for line in reversed(result.history) if "validation" in line)
    assert {"accuracy", "majority", "loss", "image_accuracy", "image_majority", "image_loss"} <= set(last)
    assert 0 < last["majority"] <= 1
    assert {"video_loss", "image_loss", "video_accuracy", "image_accuracy"} <= set(result.history[0])
    assert Image.open(folder / "words.png").size[1] > 0
    assert list((folder / "logs" / "words").glob("*.png"))
    fields = word_fields | {"checkpoint": str(folder), "output_dir": str(tmp_path / "classifier"), "config": {}}
    for name in ("image_data", "image_batch_size", "tokenizer", "model_type", "picture_every"):
        fields.pop(name)
    tuned = finetune(RunConfig.from_fields(**fields))
    assert isinstance(tuned.model, BevtForVideoClassification)


def test_stage_one_sees_images_alone(word_fields, picture_folder):
    fields = word_fields | {"config": TINY | {"video_stream": False}, "data": str(picture_folder), "batch_size": 3}
    fields.pop("image_data")
    result = pretrain(RunConfig.from_fields(**fields))
    assert result.model.video_decoder is None
    last = next(line["validation"] for line in reversed(result.history) if "validation" in line)
    assert {"accuracy", "majority", "loss"} <= set(last)
    assert (result.output_dir / "words.png").is_file()


def test_what_a_run_lacks_is_said(word_fields):
    for name in ("tokenizer", "image_data"):
        with pytest.raises(ValueError, match=f"`{name}` is needed"):
            pretrain(RunConfig.from_fields(**{key: v for key, v in word_fields.items() if key != name}))


@pytest.mark.slow
def test_two_processes_learn_as_one(word_fields, tmp_path):
    """15 clips and 7 pictures, which neither two processes nor batches divide; a step sees the same samples."""
    fields = word_fields | {"max_train_samples": 15, "eval_every": 0, "save_every": 0, "epochs": 2}
    alone = fields | {"batch_size": 4, "image_batch_size": 2, "output_dir": str(tmp_path / "alone")}
    shared = fields | {"batch_size": 2, "image_batch_size": 1, "output_dir": str(tmp_path / "shared")}
    answers = do_runs(tmp_path, [{"world": 1, "fields": alone}, {"world": 2, "fields": shared}])
    assert [answer["statuses"] for answer in answers] == [[0], [0, 0]], answers[-1]["said"]
    one, two = curve(tmp_path / "alone"), curve(tmp_path / "shared")
    assert [line[0] for line in one] == [line[0] for line in two] == list(range(1, 9))
    # a process averages over its own hidden places, so sums differ a little
    assert [line[1] for line in two] == pytest.approx([line[1] for line in one], rel=0.05)


def test_unlabelled_pictures_are_a_source(picture_folder):
    assert folder_source(picture_folder / "train", None, (".png",)).num_samples == 7
