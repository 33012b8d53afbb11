"""Words kept on disk: the same as fresh ones, of one tokenizer alone, whole or not there."""

import os
import runpy
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.methods.choosing import pretrain
from hf_videovit.training.methods.masked_words import MaskedWords, cache_words
from hf_videovit.training.words.cache import WordCache, tokenizer_fingerprint
from hf_videovit.training.words.streams import WordArguments, WordRows
from hf_videovit.training.words.tokenizers import MovingPatchTokenizer, PatchTokenizer, find_words, load_tokenizer


WHERE = torch.device("cpu")


def make_tokenizer(seed=0):
    return PatchTokenizer(0.1 + 0.8 * torch.rand(24, 3, 2, 2, generator=torch.Generator().manual_seed(seed)))


def some_clips(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 2, 3, 32, 32), dtype=torch.uint8, generator=generator)


def losses(result):
    return [line["loss"] for line in result.history if "loss" in line]


def last_validation(result):
    return [line["validation"] for line in result.history if "validation" in line][-1]


def words_kept(folder):
    return sorted(folder.glob("*/*/*.npy"))


@pytest.fixture
def refused(monkeypatch):
    """A tokenizer that must not be asked."""

    def refuse():
        def forward(self, pixels):
            raise AssertionError("the tokenizer was asked")

        monkeypatch.setattr(PatchTokenizer, "forward", forward)

    return refuse


def test_a_run_with_kept_words_is_the_run_with_fresh_ones(word_fields, tmp_path, refused):
    """With a copy for every pass through clips and images all draws are those of a run without a cache."""
    fields = word_fields | {"epochs": 1, "save_every": 0, "num_sample": 2, "batch_size": 4}
    kept = fields | {"word_cache": str(tmp_path / "words"), "word_copies": 3}

    def run(number, fields):
        return pretrain(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / str(number))}))

    fresh, first = run(0, fields), run(1, kept)
    assert losses(first) == losses(fresh)
    assert last_validation(first) == last_validation(fresh)
    count = len(words_kept(tmp_path / "words"))
    assert count >= 2 * 20 + 8 + 2 * 6 + 3  # augmented copies of clips, held-out clips, two passes of images and more
    refused()
    again = run(2, kept | {"picture_every": 0})
    assert losses(again) == losses(fresh)
    assert len(words_kept(tmp_path / "words")) == count


def test_words_can_be_found_beforehand(word_fields, tmp_path, refused):
    fields = word_fields | {"word_cache": str(tmp_path / "words"), "word_copies": 2, "eval_every": 0, "epochs": 3}
    config = RunConfig.from_fields(**fields)
    done = cache_words(config)
    assert done["found"] + done["known"] == 2 * (20 + 7) + 8 + 3
    assert len(words_kept(tmp_path / "words")) == done["found"]
    refused()
    assert cache_words(config) == {"found": 0, "known": sum(done.values())}
    config.data.num_workers = 1
    assert len(losses(pretrain(config))) == 15
    with pytest.raises(ValueError, match="`word_cache` is needed"):
        cache_words(replace(config, method=config.method | {"word_cache": None}))


def test_the_script_plans_keeps_words_and_writes_a_card(word_fields, tmp_path, monkeypatch, capsys, refused):
    RunConfig.from_fields(**word_fields, word_cache=str(tmp_path / "words")).save(tmp_path / "recipe.yaml")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pretrain_bevt.py", "--recipe", str(tmp_path / "recipe.yaml"), *words])
        runpy.run_path(str(Path(__file__).parents[3] / "examples" / "pretrain_bevt.py"), run_name="__main__")
        return capsys.readouterr().out

    assert "forward pass, image" in run("--plan")
    assert not (tmp_path / "words").exists()
    assert "clips and images computed" in run("--cache_words")
    refused()
    assert "saved in" in run("--picture_every", "0", "--eval_every", "0")
    assert "bevt" in (Path(word_fields["output_dir"]) / "README.md").read_text()


@pytest.mark.parametrize(("moving", "expected"), [([], PatchTokenizer), (["--moving"], MovingPatchTokenizer)])
def test_the_script_makes_words_and_images_of_clips(word_fields, tmp_path, monkeypatch, moving, expected):
    RunConfig.from_fields(**word_fields | {"output_dir": str(tmp_path)}).save(tmp_path / "recipe.yaml")
    words = ["--recipe", str(tmp_path / "recipe.yaml"), "--prepare", "8", *moving]
    monkeypatch.setattr(sys, "argv", ["pretrain_bevt.py", *words])
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "pretrain_bevt.py"), run_name="__main__")
    tokenizer = load_tokenizer(tmp_path / "words")
    assert type(tokenizer) is expected and 2 <= tokenizer.vocab_size <= 8
    both = {tokenizer_fingerprint(one(tokenizer.patches)) for one in (PatchTokenizer, MovingPatchTokenizer)}
    assert len(both) == 2
    assert list((tmp_path / "images" / "train").glob("*.png"))


def words_of(config, tokenizer):
    method = MaskedWords(config)
    model_config, method.processor = method.describe()
    return method.open_words(model_config, tokenizer)


def test_epochs_take_the_copies_in_turn_under_new_masks(word_fields, tmp_path):
    fields = word_fields | {"word_cache": str(tmp_path), "word_copies": 2, "crop_scale": [0.2, 0.9]}
    config = RunConfig.from_fields(**fields)
    tokenizer = load_tokenizer(config.method["tokenizer"])
    data = words_of(config, tokenizer)
    sample = next(iter(data.sources["video"][0]))
    load = data.loader(images=False)
    rows = [load(Record(sample, epoch, 0)) for epoch in (0, 1, 2)]
    assert torch.equal(rows[0]["pixel_values"], rows[2]["pixel_values"])
    assert not torch.equal(rows[0]["pixel_values"], rows[1]["pixel_values"])
    assert not torch.equal(rows[0]["mask"], rows[2]["mask"])
    sample = next(iter(data.sources["image"][0]))
    load = data.loader(images=True)
    # passes 0 and 1 beside the clips' first epoch, 0 beside their second
    keys = [load(Record(sample, epoch, 0))["word_key"].tolist() for epoch in (0, 1, 1000)]
    assert keys[0] != keys[1] == keys[2]


def test_words_are_of_grey_frames_where_the_model_sees_grey_ones(word_fields):
    config = RunConfig.from_fields(**word_fields | {"processor": {**word_fields["processor"], "do_grayscale": True}})
    data = words_of(config, load_tokenizer(config.method["tokenizer"]))
    for kind in ("video", "image"):
        sample = next(iter(data.sources[kind][0]))
        frames = data.loader(images=kind == "image")(Record(sample, 0, 0))["pixel_values"]
        assert frames.unique().numel() > 2
        assert frames[..., 0, :, :].equal(frames[..., 2, :, :])


def test_only_the_very_pixels_and_the_very_tokenizer_know_words(tmp_path):
    clips, tokenizer = some_clips(), make_tokenizer()
    cache = WordCache(tmp_path, tokenizer)
    rows = {"pixel_values": clips} | cache.rows(clips)
    assert not rows["known"].any()
    found = WordRows(None, tokenizer, cache).words(rows, WHERE)[""]
    assert torch.equal(found, find_words(tokenizer, clips)[0])
    known = WordCache(tmp_path, make_tokenizer()).rows(clips)
    assert known["known"].all()
    assert torch.equal(known["words"], found)
    changed = clips.clone()
    changed[1, 0, 0, 0, 0] ^= 1
    assert cache.rows(changed)["known"].tolist() == [True, False, True]
    assert not WordCache(tmp_path, make_tokenizer(1)).rows(clips)["known"].any()
    with torch.no_grad():
        tokenizer.patches[3, 0, 0, 0] += 1e-6
    assert not WordCache(tmp_path, tokenizer).rows(clips)["known"].any()


def test_a_batch_asks_only_for_what_is_missing(tmp_path):
    clips, tokenizer = some_clips(), make_tokenizer()
    cache = WordCache(tmp_path, tokenizer)
    wrong = torch.full((2, 8, 8), 23)
    cache.write(cache.key(clips[1]), wrong)  # told apart from what the tokenizer says
    prepare = WordRows(None, tokenizer, cache)
    words = prepare.words({"pixel_values": clips} | cache.rows(clips), WHERE)[""]
    assert torch.equal(words[1], wrong)
    expected = find_words(tokenizer, clips)[0]
    assert torch.equal(words[[0, 2]], expected[[0, 2]])
    assert (prepare.num_known, prepare.num_found) == (1, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_process_killed_while_it_writes_leaves_no_half_file(tmp_path):
    cache, words = WordCache(tmp_path, make_tokenizer()), torch.arange(128).view(2, 8, 8)
    key = cache.key(some_clips(1)[0])
    child = os.fork()
    if child == 0:

        def die(file, *args, **kwargs):
            file.write(b"\x93NUMPY half of a file")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        np.save = die
        cache.write(key, words)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert list(tmp_path.rglob("*.partial"))  # it had begun
    assert words_kept(tmp_path) == []
    assert cache.read(key, (2, 8, 8)) is None
    cache.write(key, words)
    assert torch.equal(cache.read(key, (2, 8, 8)), words)


def test_a_damaged_file_is_made_anew(tmp_path):
    cache, words = WordCache(tmp_path, make_tokenizer()), torch.arange(70000, 70128).view(2, 8, 8)
    key = cache.key(some_clips(1)[0])
    cache.write(key, words)
    assert torch.equal(cache.read(key, (2, 8, 8)), words)
    assert cache.read(key, (2, 4, 4)) is None
    cache.path(key).write_bytes(cache.path(key).read_bytes()[:40])
    assert cache.read(key, (2, 8, 8)) is None


def test_a_tokenizer_without_weights_cannot_be_kept(tmp_path):
    class Callable:
        vocab_size, patch_size = 8, 2

    with pytest.raises(ValueError, match="`word_cache` needs a tokenizer that is a torch module.* got Callable"):
        WordCache(tmp_path, Callable())
    one, other = make_tokenizer(), make_tokenizer()
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(one.to(torch.float64))
    with pytest.raises(ValueError, match="`word_copies`"):
        WordArguments(word_copies=0)
