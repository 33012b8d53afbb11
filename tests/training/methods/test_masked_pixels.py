"""Masked pretraining: tasks against fixtures, data, and a run that fine-tuning goes on from."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from hf_videovit import VideoMAEV2Config, VideoMAEV2ForPreTraining, convert_checkpoint
from hf_videovit.pictures.reconstruction import reconstruct_clips, tubelets_to_frames
from hf_videovit.training.arguments import AugmentationArguments, ModelArguments, RunConfig
from hf_videovit.training.building import build_pretraining_model
from hf_videovit.training.data.augmentation import ClipAugmentation, MultiScaleCrop, seeded_torch
from hf_videovit.training.data.folders import folder_source
from hf_videovit.training.data.loaders import MaskedClipLoader, Record, TrainingClipLoader
from hf_videovit.training.data.sources import Sample
from hf_videovit.training.data.streaming import Batch, merge_copies
from hf_videovit.training.methods.choosing import finetune, pretrain
from hf_videovit.training.methods.masked_pixels import masked_loss, masks_of
from hf_videovit.training.tasks import MaskedModelingTask


FIXTURE = Path(__file__).parents[2] / "fixtures" / "videomae_v2" / "pretrain"
HEADS = {"num_attention_heads": 3, "decoder_num_attention_heads": 2}
DECODER = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}


def tiny_model(**fields):
    torch.manual_seed(0)
    encoder = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    sizes = {"image_size": 32, "patch_size": 8, "num_frames": 4, "encoder_mask_ratio": 0.75}
    return VideoMAEV2ForPreTraining(VideoMAEV2Config(**encoder, **DECODER, **sizes | fields))


def make_loader(num_sample, model=None):
    model = model or tiny_model()
    _, processor = build_pretraining_model(ModelArguments(config=model.config.to_dict()))
    augment = ClipAugmentation(AugmentationArguments(crop="multi_scale"), (32, 32))
    return MaskedClipLoader(processor, augment, 0, num_sample, masks_of(model.config))


def record(epoch=0, name="clip"):
    video = np.random.default_rng(0).integers(0, 256, (40, 48, 40, 3), dtype=np.uint8)
    return Record(Sample(name, video, 3), epoch, 0)


def test_multi_scale_crop_by_hand():
    crop = MultiScaleCrop((224, 224))
    pairs = crop.crops(256, 340)
    assert len(pairs) == 10
    assert set(pairs) >= {(256, 256), (256, 224), (192, 224), (192, 168), (168, 168)}
    assert (256, 192) not in pairs
    with seeded_torch(0):
        boxes = {crop.random_box(256, 340) for _ in range(5000)}
    assert {box[2:] for box in boxes} == set(pairs)
    # All 13 places of the smallest crop, which is 168 x 168 and has steps of 22 and 43 pixels.
    corners = {(22 * down, 43 * right) for down, right in itertools.product((0, 2, 4), repeat=2)}
    corners |= {(22 * down, 43 * right) for down, right in itertools.product((1, 3), repeat=2)}
    assert {box[:2] for box in boxes if box[2:] == (168, 168)} == corners
    assert len(corners) == 13


def test_multi_scale_crop_snaps_and_fits_small_frames():
    assert MultiScaleCrop((224, 224)).crops(225, 300)[0] == (224, 224)
    assert MultiScaleCrop((224, 224))(torch.zeros(2, 3, 222, 300, dtype=torch.uint8)).shape == (2, 3, 224, 224)


def test_copies_share_frames_not_draws_and_do_not_depend_on_their_number():
    one, four = make_loader(1)(record()), make_loader(4)(record())
    assert four["pixel_values"].shape == (4, 4, 3, 32, 32)
    for name, value in one.items():
        assert torch.equal(four[name][:1], value)
    assert len({copy.numpy().tobytes() for copy in four["pixel_values"]}) == 4
    assert len({mask.numpy().tobytes() for mask in four["encoder_mask"]}) > 1
    again = make_loader(4)(record())
    assert all(torch.equal(value, again[name]) for name, value in four.items())
    other = make_loader(4)(record(epoch=1))
    assert not torch.equal(other["encoder_mask"], four["encoder_mask"])
    assert (four["encoder_mask"].sum(dim=1) == 2 * 12).all()
    assert (four["decoder_mask"].sum(dim=1) == 2 * 8).all()


def test_labels_are_copied_with_the_clips_and_neighbours_are_different_videos():
    base = make_loader(1)
    rows = TrainingClipLoader(base.processor, base.augmentation, 0, 3)(record())
    assert rows["labels"].tolist() == [3, 3, 3]
    stacked = {"labels": torch.tensor([[0, 0, 0], [1, 1, 1]]), "pixel_values": torch.arange(6.0).view(2, 3, 1)}
    merged = merge_copies(stacked)
    assert merged["labels"].tolist() == [0, 1, 0, 1, 0, 1]
    assert merged["pixel_values"].flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_task_has_the_loss_and_gradients_of_the_official_code():
    tensors = load_file(FIXTURE / "io.safetensors")
    model = convert_checkpoint(
        "videomae_v2", FIXTURE / "checkpoint.pth", task="pretraining", image_size=32, num_frames=8, **HEADS
    )
    masks = {name: tensors[name].bool() for name in ("encoder_mask", "decoder_mask")}
    outputs = MaskedModelingTask(model)({"pixel_values": tensors["pixel_values"].transpose(1, 2), **masks})
    torch.testing.assert_close(outputs["loss"], tensors["loss"].squeeze(), rtol=1e-4, atol=1e-5)
    outputs["loss"].backward()
    gradient, expected = model.mask_token.grad, tensors["grad.mask_token"]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert set(outputs) == {"loss", "feature_std"}


def test_reconstruction_undoes_the_patch_normalisation():
    model = tiny_model()
    pixel_values = torch.randn(2, 4, 3, 32, 32)
    mask = torch.zeros(2, 32, dtype=torch.bool)
    mask[:, ::2] = True
    true = model.targets(pixel_values)
    model._decode = lambda encoded, visible, decoded, grid, **kwargs: true[torch.arange(2)[:, None], decoded]
    found = reconstruct_clips(model, pixel_values, mask)
    np.testing.assert_allclose(found.reconstructed.astype(int), found.original, atol=1)
    hidden = (found.visible == 128).all(axis=-1)
    assert hidden.mean() == pytest.approx(0.5, abs=0.01)
    assert (found.visible == found.original)[~hidden].all()
    pixels = pixel_values * torch.tensor(model.config.image_std).view(3, 1, 1)
    pixels = (pixels + torch.tensor(model.config.image_mean).view(3, 1, 1)).clamp(0, 1)
    expected = (pixels * 255).round().permute(0, 1, 3, 4, 2).numpy()
    np.testing.assert_allclose(found.original.astype(int), expected, atol=1)
    assert tubelets_to_frames(torch.ones(1, 32, 128, 3), (1, 4, 3, 32, 32), model.config).min() == 255


class Clips:
    """A stream of given batches."""

    def __init__(self, parts):
        self.parts = parts

    def epoch(self, epoch):
        for part in self.parts:
            rows = {name: torch.stack([row[name] for row in part]) for name in part[0]}
            yield Batch(rows, [str(index) for index in range(len(part))], list(range(len(part))))


@pytest.fixture
def held_out():
    """Clips of different brightness in batches of 3, with different masks."""
    rng = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(5):
        pixels = 0.3 * torch.randn(4, 3, 32, 32, generator=rng) + torch.randn(1, 3, 1, 1, generator=rng)
        mask = torch.ones(32, dtype=torch.bool)
        mask[torch.randperm(32, generator=rng)[:8]] = False
        rows.append({"pixel_values": pixels, "encoder_mask": mask})
    return Clips([rows[:3], rows[3:]])


def all_targets(model, held_out):
    return torch.cat(
        [model.targets(batch.rows["pixel_values"])[batch.rows["encoder_mask"]] for batch in held_out.epoch(0)]
    )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("kind", "explained"), [("mean", 0.0), ("exact", 1.0), ("half", 0.75), ("zero", None), ("noise", None)]
)
def test_explained_is_the_share_of_the_variance_of_the_targets(held_out, normalize, kind, explained):
    model = tiny_model(normalize_targets=normalize)
    targets = all_targets(model, held_out).double()
    mean = targets.mean(dim=0)
    parts = iter(held_out.epoch(0))

    def predict(encoded, visible, decoded, grid, **kwargs):
        true = model.targets(next(parts).rows["pixel_values"], decoded)
        noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
        return {
            "mean": mean.float().expand_as(true),
            "exact": true,
            "half": (mean.float() + true) / 2,
            "zero": torch.zeros_like(true),
            "noise": noise,
        }[kind]

    model._decode = predict
    found = masked_loss(model, held_out, Accelerator(cpu=True))
    if kind == "zero":
        explained = 1 - targets.square().sum() / (targets - mean).square().sum()
        assert explained < 0
    if kind == "noise":
        assert found["explained"] < -0.5
    else:
        assert found["explained"] == pytest.approx(float(explained), abs=1e-5)


def test_explained_of_targets_that_do_not_vary_is_not_a_number(held_out):
    model = tiny_model(normalize_targets=False)
    model.targets = lambda pixels, indices=None: torch.ones(len(pixels), indices.shape[1], 2 * 8 * 8 * 3)
    assert math.isnan(masked_loss(model, held_out, Accelerator(cpu=True))["explained"])


def test_a_run_and_what_fine_tuning_makes_of_it(pretraining_fields, tiny_fields, tmp_path):
    folder = tmp_path / "pretrained"
    result = pretrain(RunConfig.from_fields(**pretraining_fields | {"output_dir": str(folder)}))
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert len(losses) == 10
    assert all(np.isfinite(losses))
    validation = [line["validation"] for line in result.history if "validation" in line][-1]
    assert validation["explained"] < 1
    assert Image.open(folder / "reconstructions.png").size == (4 * 34, 4 * (3 * 34 + 4))
    assert result.facts["num_sample"] == 2
    assert json.loads(json.dumps(result.facts)) == result.facts
    fields = tiny_fields | {"checkpoint": str(folder), "config": {"drop_path_rate": 0.1}, "needs_checkpoint": True}
    tuned = finetune(
        RunConfig.from_fields(
            **fields | {"epochs": 1, "learning_rate": 0.0, "min_learning_rate": 0.0, "output_dir": str(tmp_path / "t")}
        )
    )
    weights = load_file(folder / "model.safetensors")
    layer = "videomae_v2.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(tuned.model.state_dict()[layer], weights[layer])
    assert tuned.processor.num_frames == 4


@pytest.mark.parametrize(("num_workers", "on_device"), [(0, False), (1, False), (1, True)])
def test_the_same_masks_and_losses_with_workers_and_after_a_stop(pretraining_fields, tmp_path, num_workers, on_device):
    """Frames as small as these are not shrunk, so augmenting them on the same device leaves every bit as it is."""
    fields = pretraining_fields | {"eval_every": 0, "save_steps": 2, "holdout": 0.0, "picture_every": 0}
    fields |= {"flip": 0.5, "rand_augment_ops": 1, "random_erasing": 0.5}
    whole = pretrain(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "whole")}))
    fields |= {"num_workers": num_workers, "augment_on_device": on_device, "output_dir": str(tmp_path / "part")}
    part = RunConfig.from_fields(**fields)
    from hf_videovit.training.engine import loop as engine

    after_step = engine._Run._after_step

    def stop(self, *arguments):
        after_step(self, *arguments)
        if self.progress.step == 7:
            raise KeyboardInterrupt

    engine._Run._after_step = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            pretrain(part)
    finally:
        engine._Run._after_step = after_step
    part.run.resume = True
    resumed = pretrain(part)
    assert [line["loss"] for line in resumed.history] == [line["loss"] for line in whole.history]


def test_unlabelled_folder_and_what_is_refused(clip_folder):
    source = folder_source(clip_folder / "train" / "up")
    assert (len(source), source.label_names, source[0].label) == (5, [], None)
    with pytest.raises(ValueError, match="`image_mean` of the processor"):
        build_pretraining_model(ModelArguments(size="small", processor={"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(ValueError, match="`checkpoint` is needed: this recipe starts from"):
        build_pretraining_model(ModelArguments(size="small", needs_checkpoint=True))
    with pytest.raises(ValueError, match="`num_sample` must be at least 1"):
        AugmentationArguments(num_sample=0)


def test_probes_and_pictures_show_whether_a_run_learns_and_change_nothing(pretraining_fields):
    alone = pretrain(RunConfig.from_fields(**pretraining_fields, picture_every=0))
    fields = pretraining_fields | {"overwrite": True, "probe": ["knn", "linear"], "probe_steps": 3, "picture_every": 1}
    watched = pretrain(RunConfig.from_fields(**fields))
    weights = [list(result.model.state_dict().values()) for result in (alone, watched)]
    assert all(torch.equal(one, other) for one, other in zip(*weights))
    probes = [line for line in watched.history if "probe" in line]
    assert [line["step"] for line in probes] == [0, 3, 5, 6, 9, 10]
    assert all(set(line["probe"]) == {"knn", "linear", "majority"} for line in probes)
    drawn = sorted(path.name for path in (watched.output_dir / "logs" / "reconstructions").iterdir())
    assert drawn == ["step_00000005.png", "step_00000010.png"]
    outcomes = watched.facts["outcomes"]
    assert outcomes["videos recognised from frozen features: majority"] == "25.0 %"
    assert set(outcomes) >= {"validation: explained", "videos recognised from frozen features: knn"}
