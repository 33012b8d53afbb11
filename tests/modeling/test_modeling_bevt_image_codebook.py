"""The tokenizer that is trained: nearest words, gradients past them, moving averages, restarts, saved words."""

import copy

import pytest
import torch

from hf_videovit import BevtImageCodebook, BevtImageCodebookConfig
from hf_videovit.modeling import modeling_bevt_image_codebook
from hf_videovit.training.words.cache import tokenizer_fingerprint
from hf_videovit.training.words.tokenizers import find_words, load_tokenizer
from tests.two_processes import followed_vectors, run_in_processes


TINY = {"vocab_size": 12, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 1, "code_size": 4, "image_size": 32}


def tokenizer(seed=0, **fields):
    torch.manual_seed(seed)
    return BevtImageCodebook(BevtImageCodebookConfig(**TINY | fields)).eval()


def pictures(count=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.8 * torch.rand(count, 3, 16, 24, generator=generator)


def trained(steps=60, **fields):
    model = tokenizer(**fields).train()
    for _ in range(steps):
        model(pictures())
    return model.eval()


def test_words_are_the_nearest_vectors(monkeypatch):
    model, pixels = trained(), pictures()
    monkeypatch.setattr(modeling_bevt_image_codebook, "ROWS_AT_ONCE", 5)  # 6 x 4 x 6 vectors in parts
    latents = model.norm(model.encoder((pixels - 0.5) / 0.8)).movedim(1, -1)  # (6, 4, 6, 4)
    gaps = (latents[..., None, :] - model.codebook.vectors).square().sum(-1)
    words = model.find_words(pixels)
    assert torch.equal(words, gaps.argmin(-1))
    assert len(words.unique()) > 4
    outputs = model(pixels)
    assert torch.equal(outputs.words, words)
    assert torch.allclose(model.paint(words), outputs.reconstruction.clamp(0.1, 0.9), atol=1e-6)
    share = words.flatten().bincount(minlength=12) / words.numel()
    assert outputs.perplexity == pytest.approx(torch.special.entr(share).sum().exp().item())
    for wrong in (pixels[:, :, :15], pixels[:, :1], pixels[0]):
        with pytest.raises(ValueError, match=r"`pixel_values` must have shape \(num_images, 3,"):
            model.find_words(wrong)
    for name, value in (("patch_size", 6), ("vocab_size", 1), ("codebook_decay", 1.0), ("image_size", 36)):
        with pytest.raises(Exception, match=f"`{name}`"):
            BevtImageCodebookConfig(**TINY | {name: value})


def test_the_gradient_of_the_pixels_passes_by_the_words():
    model, pixels = trained(), pictures()
    seen = {}
    model.norm.register_forward_hook(lambda module, inputs, output: seen.update(latents=output))
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.update(vectors=inputs[0]))
    loss = model(pixels).pixel_loss
    into_encoder, of_vectors = torch.autograd.grad(loss, [seen["latents"], seen["vectors"]], retain_graph=True)
    assert torch.equal(into_encoder, of_vectors)
    loss.backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0
    assert not any(name.startswith("codebook") for name, _ in model.named_parameters())


def test_vectors_follow_what_they_stand_for_and_start_again_where_unused():
    model = tokenizer(codebook_decay=0.5, restart_share=0.1)
    codebook = model.codebook
    rows = torch.randn(200, 4)
    codebook.vectors[:6] = rows[:6]
    codebook.vectors[6:] = 1e3  # far from everything
    codebook.counts.fill_(20.0)
    codebook.sums.copy_(20 * codebook.vectors)
    words = codebook.nearest(rows)
    assert words.max() < 6
    before, of_first = copy.deepcopy(codebook), rows[words == 0]
    codebook.follow(rows, words)
    mean = (20 * before.vectors[0] + of_first.sum(0)) / (20 + len(of_first))
    assert torch.allclose(codebook.vectors[0], mean, atol=1e-5)
    assert torch.allclose(codebook.vectors[6:], before.vectors[6:])  # 10 of usually 16.7: in use until lately
    for _ in range(3):
        codebook.follow(rows, codebook.nearest(rows))
    assert (codebook.vectors[6:].unsqueeze(1) == rows).all(-1).any(-1).all()  # vectors of the batch
    assert len(codebook.nearest(rows).unique()) > 9
    kept = copy.deepcopy(codebook.state_dict())
    codebook.follow(rows * torch.inf, codebook.nearest(rows))
    assert all(torch.equal(value, kept[name]) for name, value in codebook.state_dict().items())


def test_words_are_the_same_after_saving_and_from_the_meta_device(tmp_path):
    model, clips = trained(), torch.randint(0, 256, (2, 3, 3, 32, 48), dtype=torch.uint8)
    words = model.find_words(pictures())
    model.save_pretrained(tmp_path / "plain")
    plain = load_tokenizer(tmp_path / "plain")
    assert (plain.vocab_size, plain.patch_size) == (12, 4)
    plain.images_at_once = 4
    assert torch.equal(plain(pictures()), words)
    with torch.device("meta"):
        empty = BevtImageCodebook(model.config)
    empty.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(empty.eval().find_words(pictures()), words)

    model.config.subtract_mean_frame = True
    model.save_pretrained(tmp_path / "moving")
    moving = load_tokenizer(tmp_path / "moving")
    assert tokenizer_fingerprint(moving) != tokenizer_fingerprint(plain)
    backdrop = torch.randint(0, 100, (2, 1, 3, 32, 48), dtype=torch.uint8)
    still = clips // 4 + 50
    assert torch.equal(find_words(moving, still + backdrop * 0 + 20)[0], find_words(moving, still)[0])
    assert not torch.equal(find_words(plain, still + backdrop)[0], find_words(plain, still)[0])


@pytest.mark.slow
def test_processes_keep_one_codebook():
    """The vectors of two processes are those of one that sees both batches; unused words restart in both alike."""
    state, rows = trained().state_dict(), torch.randn(2, 40, 4)
    alone = followed_vectors(0, 1, TINY, state, rows)
    first, second = run_in_processes("followed_vectors", 2, {"fields": TINY, "state": state, "rows": rows})
    assert torch.allclose(first["vectors"], alone["vectors"], atol=1e-6)
    assert torch.equal(first["vectors"], second["vectors"])
    assert torch.equal(first["restarted"], second["restarted"])
    assert (first["restarted"][:, None] == rows[0]).all(-1).any(-1).sum() > 6  # vectors of the first process
