"""Contrastive pretraining: clips, colours, schedules, and runs that learn and resume."""

import json

import numpy as np
import pytest
import torch
from transformers.video_utils import VideoMetadata

from hf_videovit import LstclConfig, LstclForPreTraining, LstclModel, LstclVideoProcessor
from hf_videovit.modeling.frame_sampling import FRAME_SAMPLINGS, sample_clips
from hf_videovit.training.arguments import AugmentationArguments, RunConfig
from hf_videovit.training.data.augmentation import ClipAugmentation, DeviceAugmentation
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.methods.choosing import finetune, pretrain
from hf_videovit.training.methods.contrastive import (
    ShortLongClipLoader,
    finish_pairs,
    matching,
)
from hf_videovit.training.schedules import cosine_to_one, cosine_with_warmup
from hf_videovit.training.tasks import ContrastiveTask
from tests.families import FAMILIES


TINY = next(family for family in FAMILIES if family.name == "lstcl").tiny
SIZES = {"num_frames": 4, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def metadata(total: int, fps: float | None = None) -> VideoMetadata:
    return VideoMetadata(total_num_frames=total, fps=fps)


def processor(**fields) -> LstclVideoProcessor:
    return LstclVideoProcessor(**{**SIZES, "frame_stride": 4, "short_frame_stride": 1, **fields})


def draws(one: LstclVideoProcessor, video: VideoMetadata, count: int = 200) -> list[tuple[np.ndarray, np.ndarray]]:
    return [one.sample_short_and_long(video, np.random.default_rng(seed)) for seed in range(count)]


# Clips


def test_spans_as_the_official_loader_has_them():
    """8 x 32 reaches from the first to the last of 256 frames: 36.4 apart, not 32."""
    one = LstclVideoProcessor()
    indices = one.sample_frames(metadata(1000), sampling_mode="test")
    assert indices.tolist() == [0, 36, 72, 109, 145, 182, 218, 255]
    assert one.sample_frames(metadata(1000, 60.0)).tolist() == [0, 73, 146, 219, 292, 365, 438, 511]
    assert LstclVideoProcessor(stride_fps=0).sample_frames(metadata(1000, 60.0)).tolist() == indices.tolist()
    assert one.sample_frames(metadata(100)).tolist() == [0, 36, 72, 99, 99, 99, 99, 99]  # the last frame, again
    starts = one.sample_frames(metadata(256 + 300), num_clips=3)[:, 0]
    assert starts.tolist() == [0, 100, 200]
    assert one.sample_frames(metadata(356), sampling_mode="validation")[0] == 50


def test_short_and_long_clips():
    for short, long in draws(processor(), metadata(64)):
        assert np.ptp(short) in (3, 4) and np.ptp(long) in (15, 16)
        assert short.min() >= 0 and short.max() < 64 and long.max() < 64
    outside = [
        short.min() < long.min() or short.max() > long.max() for short, long in draws(processor(), metadata(64))
    ]
    assert any(outside) and not all(outside)
    for short, long in draws(processor(short_inside_long=True), metadata(64)):
        assert long.min() <= short.min() and short.max() <= long.max() + 1
    for short, long in draws(processor(short_num_frames=2, num_frames=6), metadata(64), 3):
        assert (len(short), len(long)) == (2, 6)
    for short, long in draws(processor(), metadata(3), 20):  # too short for either
        assert short.tolist() == [0, 1, 2, 2] and long.max() == 2 and np.all(np.diff(long) >= 0)


@pytest.mark.parametrize("total", [3, 41, 256, 300])
@pytest.mark.parametrize("mode", ["train", "validation", "test"])
def test_a_sampling_word_means_the_same_as_everywhere(mode, total):
    """At the video's own rate; `stride_fps` is this processor's alone."""
    fields = {"sampling_mode": mode, "num_clips": 3 if mode == "test" else 1}
    for sampling in FRAME_SAMPLINGS:
        one = processor(frame_sampling=sampling, num_frames=4, stride_fps=0)
        rngs = [np.random.default_rng(0) for _ in range(2)]
        indices = one.sample_frames(metadata(total), rng=rngs[0], **fields)
        expected = sample_clips(total, frame_sampling=sampling, num_frames=4, frame_stride=4, rng=rngs[1], **fields)
        assert indices.reshape(-1, 4).tolist() == expected.tolist(), sampling


def test_the_clip_of_something_something_is_that_of_the_official_loader():
    """Middles of segments, as a second way of working them out has them."""
    one = LstclVideoProcessor(frame_sampling="sparse_middle")
    for total in (8, 41, 90, 222):
        edges = [int(np.round((total - 1) / 8 * index)) for index in range(9)]
        expected = [(low + high) // 2 for low, high in zip(edges, edges[1:])]
        assert one.sample_frames(metadata(total)).tolist() == expected


@pytest.mark.parametrize("sampling", ["dense", "dense_cyclic", "span"])
def test_pretraining_samples_as_evaluation_does(sampling):
    fields = {"frame_sampling": sampling, "frame_stride": 4, "num_frames": 4}
    expected = np.diff(processor(**fields).sample_frames(metadata(64), sampling_mode="validation"))
    for short, long in draws(processor(**fields), metadata(64)):
        assert np.diff(long).tolist() == expected.tolist()
        assert np.ptp(short) in (3, 4) and short.min() >= 0 and short.max() < 64
    inside = draws(processor(**fields, short_inside_long=True), metadata(64))
    assert all(long.min() <= short.min() and short.max() <= long.max() for short, long in inside)
    assert len({tuple(short - long.min()) for short, long in inside}) > 1


def test_exact_strides_where_spread_frames_have_uneven_ones():
    fields = {"num_frames": 8, "frame_stride": 2, "stride_fps": 0}
    (_, uneven), *_ = draws(processor(**fields), metadata(16))
    assert uneven.tolist() == [0, 2, 4, 6, 8, 10, 12, 15]
    for short, long in draws(processor(**fields, frame_sampling="dense_cyclic"), metadata(16)):
        assert set(np.diff(long)) == {2} and set(np.diff(short)) == {1}


@pytest.mark.parametrize("sampling", ["segment", "sparse", "sparse_middle", "uniform"])
def test_segments_of_the_whole_and_of_a_quarter(sampling):
    for short, long in draws(processor(frame_sampling=sampling), metadata(64)):
        assert all(16 * part - 1 <= frame <= 16 * (part + 1) for part, frame in enumerate(long))
        assert np.ptp(short) < 16 and np.all(np.diff(short) >= 0)


@pytest.mark.parametrize("fields", [{"short_frame_stride": 0}, {"short_num_frames": 0}, {"stride_fps": -1.0}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        LstclVideoProcessor(**fields)


# Augmentation


def changed(clip: torch.Tensor, view: int = 0, **fields) -> torch.Tensor:
    arguments = AugmentationArguments(crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0], **fields)
    return ClipAugmentation(arguments, (32, 32), view=view)(clip, seed=5)


def test_colour_changes_are_one_for_all_frames():
    clip = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8).expand(4, -1, -1, -1)
    everything = {"color_jitter": [0.6, 0.6, 0.6, 0.15], "color_jitter_probability": 1.0, "blur": [1.0]}
    result = changed(clip, **everything)
    assert result.dtype == torch.uint8 and not torch.equal(result, clip)
    assert all(torch.equal(frame, result[0]) for frame in result)
    grey = changed(clip, grayscale=0.999)
    assert torch.equal(grey[:, 0], grey[:, 2])
    inverted = changed(clip, solarize=[1.0])
    assert torch.equal(inverted, torch.where(clip >= 128, 255 - clip, clip))


def test_colours_that_evaluation_has_are_seen_in_training():
    with pytest.raises(ValueError, match="`grayscale` 1.0 .* `do_grayscale` true"):
        AugmentationArguments(grayscale=1.0)


def test_blur_does_not_cross_frames():
    clip = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    clip[1] = 255
    assert torch.equal(changed(clip, blur=[1.0]), clip)


def test_views_may_be_blurred_and_solarized_differently():
    clip = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    fields = {"blur": [1.0, 0.0], "solarize": [0.0, 1.0]}
    assert not torch.equal(changed(clip, **fields), clip)
    assert torch.equal(changed(clip, view=1, **fields), torch.where(clip >= 128, 255 - clip, clip))


@pytest.mark.parametrize(
    "fields", [{"color_jitter": [0.4]}, {"blur": [0.1, 0.2, 0.3]}, {"solarize": [1.2]}, {"blur_sigma": [2.0, 1.0]}]
)
def test_bad_augmentation_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        AugmentationArguments(**fields)


# Loader


def videos(count: int = 12, frames: int = 24) -> list[Sample]:
    """Clips whose colour is their own."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(count):
        base = rng.integers(40, 200, (1, 1, 1, 3))
        video = (base + rng.integers(-30, 30, (frames, 40, 40, 1))).clip(0, 255).astype(np.uint8)
        samples.append(Sample(f"clip{index}", video, index % 2))
    return samples


def loader(on_device: bool) -> ShortLongClipLoader:
    views = [ClipAugmentation(AugmentationArguments(flip=0.5), (32, 32), view=view) for view in (0, 1)]
    if on_device:
        views = [DeviceAugmentation(view, 40 * 40) for view in views]
    return ShortLongClipLoader(processor(), dict(zip(("", "long_"), views)), seed=3)


def test_pairs_are_the_same_on_the_device():
    one = processor()
    batches = []
    for on_device in (False, True):
        load = loader(on_device)
        rows = [load(Record(sample, 0, 0)) for sample in videos(3)]
        stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        pairs = finish_pairs(stacked, load.augmentations)
        batches.append({name: one.normalize_clips(clips) for name, clips in pairs.items()})
    assert batches[0].keys() == {"pixel_values", "long_pixel_values"}
    for name, value in batches[0].items():
        assert value.shape == (3, 4, 3, 32, 32)
        assert torch.equal(value, batches[1][name])
    assert not torch.equal(batches[0]["pixel_values"], batches[0]["long_pixel_values"])


def test_draws_depend_on_seed_epoch_and_id_alone():
    load = loader(False)
    first, again = (load(Record(videos()[0], 0, position)) for position in (0, 7))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = load(Record(videos()[0], 1, 0))
    assert not torch.equal(first["pixel_values"], other["pixel_values"])


# Task and schedules


def test_momentum_ends_at_exactly_one():
    assert cosine_to_one(0, 100, 0.99) == pytest.approx(0.99)
    assert cosine_to_one(50, 100, 0.99) == pytest.approx(0.995)
    assert cosine_to_one(100, 100, 0.99) == 1.0
    assert cosine_with_warmup(5, 100, 10, 1.0, 0.0, peak_after_warmup=True) == 0.5
    assert cosine_with_warmup(10, 100, 10, 1.0, 0.0, peak_after_warmup=True) == 1.0


def test_the_target_moves_once_a_step():
    torch.manual_seed(0)
    model = LstclForPreTraining(LstclConfig(**TINY, framework="byol"))
    with torch.no_grad():
        model.lstcl.backbone.layernorm.weight.add_(1.0)
    task = ContrastiveTask(model).train()
    batch = {name: torch.randn(3, 4, 3, 32, 32) for name in ("pixel_values", "long_pixel_values")}
    moved = model.target.lstcl.backbone.layernorm.weight
    expected = 1.0
    for step in (0, 1):
        task.begin_step(step, 4)
        for _ in range(3):  # passes that add up their gradients
            outputs = task(batch)
        momentum = cosine_to_one(step, 4, 0.996)
        expected = momentum * expected + (1 - momentum) * 2.0
        torch.testing.assert_close(moved, torch.full_like(moved, expected))
    assert outputs.keys() == {"loss", "feature_std", "alignment"}


def test_collapse_is_seen():
    model = LstclForPreTraining(LstclConfig(**TINY))
    task = ContrastiveTask(model).train()
    same = torch.randn(1, 4, 3, 32, 32).expand(4, -1, -1, -1, -1)
    assert task({"pixel_values": same, "long_pixel_values": same})["feature_std"] < 1e-3


# Runs


def run_fields(folder) -> dict:
    return {
        "model_type": "lstcl",
        "config": {**TINY, "initializer_range": 0.1},
        "processor": {**SIZES, "frame_stride": 4, "short_frame_stride": 1, "stride_fps": 0},
        "crop_scale": [0.7, 1.0],
        "batch_size": 6,
        "drop_last": True,
        "epochs": 2,
        "learning_rate": 3e-3,
        "num_workers": 0,
        "output_dir": str(folder),
        "log_every": 1,
        "cpu": True,
        "progress": False,
        "curves": False,
    }


def run_config(folder, **fields) -> RunConfig:
    return RunConfig.from_fields(**{**run_fields(folder), **fields})


def curve(history) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in history if "loss" in line]


@pytest.mark.parametrize("framework", ["moco_v3", "byol", "simsiam"])
def test_a_run_learns_and_fine_tuning_goes_on(framework, tmp_path):
    source = SampleList(videos(), ["a", "b"])
    config = run_config(tmp_path / "run", epochs=8, **{"config.framework": framework}, save_every=0)
    result = pretrain(config, train_source=source, eval_source=source)
    losses = [loss for _, loss in curve(result.history)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    lines = [line for line in result.history if "feature_std" in line]
    assert all(0 <= line["feature_std"] <= 1.01 and -1 <= line["alignment"] <= 1 for line in lines)
    assert result.history[-1]["validation"]["matched"] >= 1 / 12
    encoder = LstclModel.from_pretrained(tmp_path / "run")
    assert torch.equal(
        encoder.backbone.embeddings.position_embeddings, result.model.lstcl.backbone.embeddings.position_embeddings
    )
    if framework == "moco_v3":
        tuned = finetune(
            run_config(tmp_path / "tuned", checkpoint=str(tmp_path / "run"), config={}, epochs=1, save_every=0),
            train_source=source,
        )
        assert tuned.model.config.num_labels == 2


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    source = SampleList(videos(), ["a", "b"])
    fields = {"config.framework": "byol", "accumulation": 2, "batch_size": 3, "max_steps": 6}
    whole = pretrain(run_config(tmp_path / "whole", **fields), train_source=source)

    class Killed(Exception):
        pass

    class Dying(SampleList):
        def steps(self, rank, world, seed, epoch, *place):
            if epoch == 2:
                raise Killed
            return super().steps(rank, world, seed, epoch, *place)

    with pytest.raises(Killed):
        pretrain(run_config(tmp_path / "parts", **fields), train_source=Dying(videos(), ["a", "b"]))
    resumed = pretrain(run_config(tmp_path / "parts", **fields, resume=True), train_source=source)
    assert curve(resumed.history) == curve(whole.history)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_what_a_comparison_of_batches_cannot_do_is_refused(tmp_path):
    for fields, name in (({"num_sample": 2}, "num_sample"), ({"drop_last": False}, "drop_last")):
        with pytest.raises(ValueError, match=name):
            pretrain(run_config(tmp_path, **fields))


def test_matching_counts_the_nearest(tmp_path):
    class Model(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, pixel_values, long_pixel_values):
            eye = torch.eye(4)
            return type("Answer", (), {"short_query": eye, "long_key": eye[[0, 1, 3, 2]], "features": eye})

    class Stream:
        def epoch(self, number):
            rows = {"pixel_values": torch.zeros(4), "long_pixel_values": torch.zeros(4)}
            yield type("Batch", (), {"rows": rows})

    from accelerate import Accelerator

    answer = matching(Model(), Stream(), Accelerator(cpu=True))
    assert answer["matched"] == 0.5 and answer["chance"] == 0.25
    json.dumps(answer)
