"""Pictures of tubes: the right pixels, and the command that draws them all."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import VideoMAEConfig, VideoMAEModel
from typer.testing import CliRunner

from hf_videovit import (
    TubeViTConfig,
    TubeViTForVideoClassification,
    TubeViTModel,
    TubeViTVideoProcessor,
)
from hf_videovit.cli import app
from hf_videovit.modeling.configuration_tubevit import Tube
from hf_videovit.pictures.tubes import draw_kernels, draw_token_map, kernel_images, spread
from tests.families import FAMILIES
from tests.saved_model import save_tiny_classifier


TINY = next(family for family in FAMILIES if family.name == "tubevit").tiny
SIZE = (8, 32, 32)


def tiny(model_class=TubeViTModel, **fields):
    torch.manual_seed(0)
    return model_class(TubeViTConfig(**{**TINY, **fields})).eval()


def test_every_token_reaches_the_pixels_of_its_windows():
    tube = Tube((2, 2, 2), (4, 8, 8), (0, 1, 0), (2, 1, 2))
    values = np.zeros(tube.grid(SIZE), np.float32)
    values[1, 0, 2] = 3
    seen = spread(tube, values, SIZE)
    expected = np.zeros(SIZE, np.float32)
    for frame in (4, 6):
        for column in (16, 20):
            expected[frame : frame + 2, 1:3, column : column + 2] = 3
    np.testing.assert_array_equal(seen, expected)


def test_windows_are_those_of_the_convolution():
    """The gradient of a token is nonzero exactly where the map says."""
    model = tiny()
    for module in model.embeddings.tubes:
        pixels = torch.randn(1, 3, *SIZE, requires_grad=True)
        tokens = module(pixels)
        tokens[0, -1].sum().backward()
        touched = pixels.grad.abs().sum(dim=(0, 1)).numpy() > 0
        values = np.zeros(module.tube.grid(SIZE), np.float32)
        values.flat[-1] = 1
        np.testing.assert_array_equal(touched, spread(module.tube, values, SIZE) > 0)


def test_filters_are_sorted_by_norm_and_scaled_alone():
    weight = torch.randn(4, 3, 2, 4, 4) * torch.tensor([1.0, 8.0, 2.0, 4.0]).view(-1, 1, 1, 1, 1)
    images = kernel_images(weight, 3)
    assert [image.shape for image in images] == [(2, 4, 4, 3)] * 3
    assert all((image.min(), image.max()) == (0, 255) for image in images)
    strongest = weight[1].permute(1, 2, 3, 0).numpy()
    assert np.unravel_index(images[0].argmax(), images[0].shape) == np.unravel_index(
        strongest.argmax(), strongest.shape
    )


def test_pictures_of_every_kind_of_kernel(tmp_path):
    for kernels in ("independent", "interpolated"):
        path = draw_kernels(tiny(tube_kernels=kernels), tmp_path / f"{kernels}.png", num_filters=2)
        assert Image.open(path).width > 32
    small = draw_token_map(TubeViTConfig(**TINY), tmp_path / "small.png")
    large = draw_token_map(TubeViTConfig(**TINY), tmp_path / "large.png", (8, 64, 64))
    assert Image.open(small).height < Image.open(large).height


def test_what_cannot_be_drawn(tmp_path):
    other = VideoMAEModel(VideoMAEConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match="`model` must be a TubeViT, got VideoMAEModel"):
        draw_kernels(other, tmp_path / "x.png")
    with pytest.raises(ValueError, match="`num_filters` must be at least 1, got 0"):
        draw_kernels(tiny(), tmp_path / "x.png", 0)
    with pytest.raises(ValueError, match="`size` must be frames, height and width"):
        draw_token_map(TubeViTConfig(**TINY), tmp_path / "x.png", (8, 32))


def test_the_command_draws_them_all(tmp_path):
    folder = tmp_path / "model"
    tiny(TubeViTForVideoClassification).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    TubeViTVideoProcessor(num_frames=8, frame_stride=1, size={"shortest_edge": 32}, crop_size=crop).save_pretrained(
        folder
    )
    arguments = ["explain", "--model", str(folder), "--output", str(tmp_path / "drawn")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"kernels.png", "tokens.png"}
    other = save_tiny_classifier(tmp_path / "other")
    result = CliRunner().invoke(app, ["explain", "--model", str(other), "--output", str(tmp_path / "drawn")])
    assert result.exit_code == 2 and "VIDEO is needed" in result.output
