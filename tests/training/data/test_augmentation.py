import pytest
import torch
from transformers.image_utils import PILImageResampling

from hf_videovit import VideoMAEV2VideoProcessor
from hf_videovit.training.arguments import AugmentationArguments, RunConfig
from hf_videovit.training.data.augmentation import (
    BatchMixing,
    ClipAugmentation,
    DeviceAugmentation,
    MixingArguments,
    mirrored_labels,
    sample_seed,
    seeded_torch,
)
from hf_videovit.training.data.sources import Sample, SampleList
from hf_videovit.training.data.streaming import merge_copies
from hf_videovit.training.data.streams import clip_augmentation
from hf_videovit.training.methods.classification import Classification


STRONG = {"crop_scale": [0.3, 1.0], "flip": 0.5, "rand_augment_ops": 4, "rand_augment_magnitude": 7}


def still_clip(num_frames=4, side=40):
    """The same noisy frame over and over: whatever is drawn for each frame anew shows."""
    frame = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return frame.expand(num_frames, -1, -1, -1).clone()


@pytest.mark.parametrize("seed", range(8))
def test_one_draw_for_all_frames(seed):
    augmented = ClipAugmentation(AugmentationArguments(**STRONG), (32, 24))(still_clip(), seed)
    assert augmented.shape == (4, 3, 32, 24)
    assert augmented.dtype == torch.uint8
    assert (augmented == augmented[:1]).all()


def test_draws_depend_on_the_seed_alone_and_leave_the_global_generator_as_it_was():
    augment = ClipAugmentation(AugmentationArguments(**STRONG, random_erasing=0.5), (32, 32))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(still_clip(), 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment(still_clip(), 5), first)
    assert not torch.equal(augment(still_clip(), 6), first)


def test_sample_seeds_differ_by_epoch_sample_and_purpose():
    seeds = {
        sample_seed(seed, epoch, name, stream)
        for seed in (0, 1)
        for epoch in (0, 1)
        for name in ("a.mp4", "b.mp4")
        for stream in ("augmentation", "frames")
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_erasing_takes_one_box_in_all_frames_and_fills_each_anew():
    augment = ClipAugmentation(
        AugmentationArguments(crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0], random_erasing=1.0), (40, 40)
    )
    clip = still_clip()
    erased = augment(clip, 3) != clip
    box = erased.any(dim=0).any(dim=0)
    rows, columns = box.any(dim=1).nonzero().flatten(), box.any(dim=0).nonzero().flatten()
    area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    assert 0.01 < area / 40**2 < 0.36
    inside = augment(clip, 3)[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert not torch.equal(inside[0], inside[1])
    assert not erased[:, :, : rows[0]].any()


@pytest.mark.parametrize("shift", [0, 3])
def test_crops_about_the_middle(shift):
    """Of a frame whose pixels say where they are."""
    fields = {"crop": "center", "crop_short_side": [40, 40], "crop_shift": shift}
    ramps = torch.stack(
        [torch.arange(40)[:, None].expand(40, 60), torch.arange(60).expand(40, 60), torch.zeros(40, 60)]
    )
    clip = ramps.to(torch.uint8).expand(2, -1, -1, -1)
    augmentation = ClipAugmentation(AugmentationArguments(**fields), (16, 20))
    crops = [augmentation(clip, seed) for seed in range(200)]
    corners = {(int(crop[0, 0, 0, 0]), int(crop[0, 1, 0, 0])) for crop in crops}
    places = {(12 + down, 20 + across) for down in range(-shift, shift + 1) for across in range(-shift, shift + 1)}
    assert corners <= places and len(corners) > len(places) / 2
    assert all(torch.equal(crop[0], crop[1]) and crop.shape == (2, 3, 16, 20) for crop in crops)


def test_no_further_from_the_middle_than_the_frame_reaches():
    fields = {"crop": "center", "crop_short_side": [17, 17], "crop_shift": 8}
    clip = torch.arange(17)[:, None].expand(2, 3, 17, 17).to(torch.uint8)
    augmentation = ClipAugmentation(AugmentationArguments(**fields), (16, 16))
    assert {int(augmentation(clip, seed)[0, 0, 0, 0]) for seed in range(30)} == {0, 1}


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("resample", [PILImageResampling.BILINEAR, PILImageResampling.BICUBIC])
def test_a_crop_at_the_middle_is_what_evaluation_sees(antialias, resample):
    sizes = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    processor = VideoMAEV2VideoProcessor(**sizes, antialias=antialias, resample=resample, resize_as_opencv=False)
    config = RunConfig.from_fields(crop="center", crop_short_side=[40, 40])
    clip = torch.randint(0, 256, (2, 3, 97, 131), dtype=torch.uint8)
    seen = processor(clip, do_sample_frames=False, do_rescale=False, do_normalize=False, return_tensors="pt")
    trained_on = clip_augmentation(config.augmentation, processor)(clip, seed=0)
    assert torch.equal(trained_on.float(), seen["pixel_values"][0].float())


@pytest.mark.parametrize("view", [0, 1])
def test_a_run_changes_no_colours_unless_asked(view):
    clip = still_clip()
    processor = VideoMAEV2VideoProcessor(size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40})
    config = RunConfig.from_fields(crop="center", crop_short_side=[40, 40])
    assert torch.equal(clip_augmentation(config.augmentation, processor, view=view)(clip, seed=0), clip)


def test_flip_is_off_by_default():
    arguments = AugmentationArguments(crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0])
    augment = ClipAugmentation(arguments, (40, 40))
    assert all(torch.equal(augment(still_clip(), seed), still_clip()) for seed in range(10))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_gives_soft_labels_that_say_what_was_mixed(mixup, cutmix):
    pixel_values = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 3, 8, 8).clone()
    mixing = BatchMixing(MixingArguments(mixup=mixup, cutmix=cutmix), num_labels=4)
    with seeded_torch(0):
        mixed, labels = mixing(pixel_values, torch.arange(4))
    assert type(mixed) is torch.Tensor
    assert labels.shape == (4, 4)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(4))
    # The mean pixel of each clip is its number, so it must be the labels' mean as well.
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3, 4)), labels @ torch.arange(4.0))


def test_without_mixing_labels_stay_hard():
    pixel_values, labels = torch.zeros(2, 2, 3, 8, 8), torch.tensor([0, 1])
    for arguments in (MixingArguments(), MixingArguments(mixup=0.8, mix_probability=0.0)):
        mixed, same = BatchMixing(arguments, 2)(pixel_values, labels)
        assert mixed is pixel_values
        assert same is labels


DRASTIC = {"flip": 0.5, "rand_augment_ops": 2, "random_erasing": 1.0, "crop_scale": [0.3, 1.0]}


def packed(augmentation, clips, seeds):
    """Clips as workers hand them on, one batch, copies merged."""
    rows = [augmentation.rows(clip, own) for clip, own in zip(clips, seeds)]
    return merge_copies({name: torch.stack([row[name] for row in rows]) for name in rows[0]})


@pytest.mark.parametrize("crop", ["area", "multi_scale", "center"])
def test_the_device_does_what_the_workers_would_have_done(crop):
    """To the last bit on one and the same device, with clips of several shapes and copies of each."""
    augmentation = ClipAugmentation(
        AugmentationArguments(crop=crop, crop_short_side=[18, 20], crop_shift=1, **DRASTIC), (16, 16)
    )
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 32), (32, 24), (20, 20)]
    clips = [torch.randint(256, (4, 3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]
    seeds = [[11, 12], [21, 22], [31, 32]]
    rows = packed(DeviceAugmentation(augmentation, 800), clips, seeds)
    assert rows["frames"].dtype == torch.uint8
    found = DeviceAugmentation(augmentation, 800).finish(rows | {"labels": torch.arange(6)})
    expected = packed(augmentation, clips, seeds)
    assert torch.equal(found["pixel_values"], expected["pixel_values"])
    assert set(found) == {"pixel_values", "labels"}


def crop_boxes(augment, seeds):
    """Centre and side, down and across, of the crops, and whether they are mirrored; read off two ramps of grey."""
    boxes = []
    for seed in seeds:
        pixels = augment(seed)[0].float() / 255  # (channels, height, width)
        down, across = pixels[0].mean(dim=1), pixels[1].mean(dim=0)
        width = across[-1] - across[0]
        boxes.append([down.mean(), across.mean(), down[-1] - down[0], width.abs(), (width < 0).float()])
    return torch.tensor(boxes)


def test_large_frames_are_shrunk_and_cropped_alike_on_average():
    arguments = AugmentationArguments(crop_scale=[0.2, 0.6], flip=0.5)
    augmentation = ClipAugmentation(arguments, (16, 16))
    down, across = torch.meshgrid(torch.linspace(0, 255, 120), torch.linspace(0, 255, 160), indexing="ij")
    clip = torch.stack([down, across, torch.zeros_like(down)]).round().to(torch.uint8)[None]
    device = DeviceAugmentation(augmentation, 30 * 40)
    rows = device.rows(clip, [1])
    assert rows["frame_size"].tolist() == [[30, 40]]
    assert rows["frames"].shape == (1, 1, 3, 1200)

    def on_device(seed):
        return device.finish(packed(device, [clip], [[seed]]))["pixel_values"][0]

    shrunk, whole = (crop_boxes(augment, range(400)) for augment in (on_device, lambda seed: augmentation(clip, seed)))
    assert torch.allclose(shrunk.mean(dim=0), whole.mean(dim=0), atol=0.03)
    assert torch.allclose(shrunk.std(dim=0), whole.std(dim=0), atol=0.03)
    assert torch.equal(shrunk[:, 4], whole[:, 4])  # what does not depend on the size is the very same


def test_labels_that_are_mirror_images():
    labels = ["Pulling [something] from left to right", "Pulling [something] from right to left", "Turning right"]
    assert mirrored_labels(labels) == [(labels[0], labels[1])]
    assert mirrored_labels(["left", "right", "up"]) == [("left", "right")]
    assert mirrored_labels(["Move_Left", "move_right", "brightness", "leftover"]) == [("Move_Left", "move_right")]
    assert mirrored_labels(["clapping", "turning left", "a copyright"]) == []


def test_clips_are_not_mirrored_where_labels_tell_left_from_right():
    processor = VideoMAEV2VideoProcessor()
    for names, flip_labels, flip in (
        (["up", "down"], "alike", 0.5),
        (["left", "right"], "alike", 0.0),
        (["left", "right"], "any", 0.5),
    ):
        config = RunConfig.from_fields(flip=0.5, flip_labels=flip_labels)
        source = SampleList([Sample("clip", "clip.mp4", 0)], names)
        method = Classification(config, processor=processor, train_source=source)
        method.begin_preview()
        assert method.loader().augmentation.arguments.flip == flip
    packing = clip_augmentation(AugmentationArguments(augment_on_device=True), processor)
    assert isinstance(packing, DeviceAugmentation)
    assert packing.area == 2 * 224 * 224
