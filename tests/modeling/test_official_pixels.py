"""Pixels of the official loaders: OpenCV's arithmetic, TimeSformer's transforms, torchvision's centre of an image."""

import math
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import v2

from hf_videovit import (
    BevtImageProcessor,
    BevtVideoProcessor,
    LstclVideoProcessor,
    TubeViTImageProcessor,
    UniFormerImageProcessor,
    VideoMAEV2VideoProcessor,
)
from hf_videovit.modeling.opencv_resize import resize_as_opencv
from hf_videovit.published import list_published, published_processor_kwargs


# Height and width before and after, and the checksum of what `cv2.resize(frame, (width, height))` gives in
# opencv-python-headless 4.10.0.84 and 5.0.0.93, with and without optimised code.
OPENCV = [
    (256, 340, 224, 297, 4287448691),
    (360, 640, 224, 398, 2671343060),
    (240, 320, 224, 298, 3383501425),
    (100, 140, 224, 313, 2316544440),
    (448, 448, 224, 224, 3241336057),
    (448, 300, 224, 224, 239493987),
    (610, 140, 975, 224, 2435315170),
    (33, 7, 13, 1, 3615908762),
    (1, 9, 4, 5, 2518264015),
    (64, 64, 63, 65, 3421661391),
]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width", "new_height", "new_width", "checksum"), OPENCV)
def test_every_pixel_is_that_of_opencv(height, width, new_height, new_width, checksum):
    frame = torch.from_numpy(noise(height, width)).permute(2, 0, 1)
    resized = resize_as_opencv(frame, new_height, new_width)
    assert resized.shape == (3, new_height, new_width)
    assert zlib.crc32(resized.permute(1, 2, 0).numpy().tobytes()) == checksum
    clip = resize_as_opencv(frame.expand(2, 3, 3, height, width), new_height, new_width)
    assert torch.equal(clip, resized.expand_as(clip))


def test_only_8_bit_frames_have_opencvs_arithmetic():
    with pytest.raises(ValueError, match="`frames` must be uint8, got torch.float32"):
        resize_as_opencv(torch.rand(3, 8, 8), 4, 4)


@pytest.mark.parametrize("processor_class", [VideoMAEV2VideoProcessor, BevtVideoProcessor])
def test_processors_of_opencvs_families_resize_as_it_does(processor_class, tmp_path):
    video = np.stack([noise(100, 140)] * 2)
    options = {"do_sample_frames": False, "do_center_crop": False, "return_tensors": "pt"}
    options |= {"do_rescale": False, "do_normalize": False}
    processor_class(size={"height": 224, "width": 313}).save_pretrained(tmp_path)
    processor = processor_class.from_pretrained(tmp_path)
    assert processor.resize_as_opencv
    resized = processor(video, **options)["pixel_values"][0, 0].permute(1, 2, 0).to(torch.uint8)
    assert zlib.crc32(resized.contiguous().numpy().tobytes()) == OPENCV[3][4]
    frames = torch.from_numpy(video).permute(0, 3, 1, 2)
    for changed in ({"resize_as_opencv": False}, {"antialias": True}, {"resample": 3}, {"round_resized": False}):
        fields = {"antialias": False, "resample": 2, **changed}
        mode = v2.InterpolationMode.BICUBIC if fields["resample"] == 3 else v2.InterpolationMode.BILINEAR
        given = frames.float() if "round_resized" in changed else frames
        expected = v2.functional.resize(given, [224, 313], mode, antialias=fields["antialias"])
        found = processor(video, **options, **changed)["pixel_values"][0]
        torch.testing.assert_close(found.float(), expected.float(), atol=1e-3, rtol=0)


def timesformer_views(video: np.ndarray, size: int) -> list[torch.Tensor]:
    """Left, middle and right (top, middle and bottom) as facebookresearch/TimeSformer makes them, `(T, C, H, W)`."""
    frames = (torch.from_numpy(video).float() / 255 - 0.45) / 0.225
    frames = frames.permute(0, 3, 1, 2)
    height, width = frames.shape[-2:]
    if width < height:
        height, width = math.floor((float(height) / width) * size), size
    elif height < width:
        height, width = size, math.floor((float(width) / height) * size)
    else:
        height = width = size
    frames = F.interpolate(frames, size=(height, width), mode="bilinear", align_corners=False)
    views = []
    for index in range(3):
        top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
        if height > width:
            top = (0, top, height - size)[index]
        else:
            left = (0, left, width - size)[index]
        views.append(frames[..., top : top + size, left : left + size])
    return views


@pytest.mark.parametrize(("height", "width"), [(256, 340), (340, 256), (140, 610), (610, 140), (224, 333), (180, 321)])
@pytest.mark.parametrize("name", ["the class", "timesformer-base-k400"])
def test_views_of_timesformer_are_the_official_ones(height, width, name):
    fields = {} if name == "the class" else published_processor_kwargs(name)
    processor = LstclVideoProcessor(**{**fields, "num_frames": 2})
    video = np.stack([noise(height, width), noise(height, width)[::-1]])
    options = {"do_sample_frames": False, "return_tensors": "pt"}
    expected = timesformer_views(video, 224)
    views = processor(video, **options, num_crops=3)["pixel_values"][0]
    assert views.shape == (3, 2, 3, 224, 224)
    for view, official in zip(views, expected, strict=True):
        torch.testing.assert_close(view, official, atol=2e-5, rtol=0)
    centre = processor(video, **options, num_crops=1)["pixel_values"][0]
    torch.testing.assert_close(centre, expected[1], atol=2e-5, rtol=0)


def test_every_published_timesformer_has_these_pixels():
    names = list_published("lstcl")
    assert names
    for name in names:
        processor = LstclVideoProcessor(**published_processor_kwargs(name))
        assert (processor.round_resized, processor.crop_rounding, processor.antialias) == (False, "up", False), name


@pytest.mark.parametrize("processor_class", [UniFormerImageProcessor, TubeViTImageProcessor, BevtImageProcessor])
@pytest.mark.parametrize(("height", "width"), [(9, 16), (45, 80), (40, 71), (71, 40), (37, 43), (33, 32), (20, 64)])
def test_the_centre_of_an_image_is_torchvisions(processor_class, height, width):
    """Half pixels to the even one: also where the image is smaller than the crop, and padded."""
    image = noise(height, width)
    processor = processor_class(do_resize=False, crop_size={"height": 32, "width": 32})
    found = processor(Image.fromarray(image), do_rescale=False, do_normalize=False, return_tensors="pt")
    expected = v2.functional.center_crop(torch.from_numpy(image).permute(2, 0, 1), [32, 32])
    assert torch.equal(found["pixel_values"][0].to(torch.uint8), expected)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (427, 640), (333, 500), (500, 333), (256, 257)])
def test_an_image_of_uniformer_passes_through_the_official_transforms(height, width):
    """Sizes and places; the interpolation itself is compared on images, where libraries differ by a grey level."""
    ramp = np.add.outer(np.arange(height) * 100 // height, np.arange(width) * 150 // width).astype(np.uint8)
    image = Image.fromarray(np.repeat(ramp[..., None], 3, axis=2))
    official = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()])
    found = UniFormerImageProcessor()(image, do_rescale=False, do_normalize=False, return_tensors="pt")
    assert (found["pixel_values"][0].int() - official(image).int()).abs().max() <= 1
