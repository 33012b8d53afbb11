"""Random crops, colours and flips of clips with boxes."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_videovit.training.data.box_augmentation import BoxAugmentation, shift_colours


def test_boxes_stay_on_their_pixels():
    rng = np.random.default_rng(0)
    for _ in range(20):
        clip = torch.zeros(2, 3, 40, 56, dtype=torch.uint8)
        x, y = rng.integers(0, 40), rng.integers(0, 24)
        clip[..., y : y + 14, x : x + 10] = 255
        box = torch.tensor([[x, y, x + 10, y + 14]]).float()
        changed, moved = BoxAugmentation(crop_size=32, hue=0, saturation=0, value=0)(clip, box, rng)
        assert changed.shape == (2, 3, 32, 32)
        rows, columns = changed[0, 0].nonzero(as_tuple=True)
        if len(rows):
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert moved[0].tolist() == [int(one) for one in expected]
        else:
            assert (moved[0, 2:] - moved[0, :2]).min() == 0


def test_no_shift_changes_nothing_and_colours_survive_the_way_there_and_back():
    clip = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(shift_colours(clip, 0, 0, 0), clip)
    brighter = shift_colours(clip, 0, 0, 1)
    there = shift_colours(brighter, 0, 0, -1).int()
    assert (there - clip.int()).abs().max() <= 4  # 8-bit hues and saturations
    assert (there - clip.int()).abs().float().mean() < 1


def test_hues_turn_as_a_colour_wheel():
    red = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    red[:, 0] = 200
    turned = [shift_colours(red, steps, 0, 0).flatten().tolist() for steps in (30, 60, 120, -60)]
    assert turned == [[200, 200, 0], [0, 200, 0], [0, 0, 200], [0, 0, 200]]


def test_hue_and_value_are_those_of_an_image_library():
    pixels = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    shifted = shift_colours(pixels, 0, 0, -20)
    value = [
        np.asarray(Image.fromarray(one[0].movedim(0, -1).numpy()).convert("HSV"))[..., 2] for one in (pixels, shifted)
    ]
    assert (value[1] == np.clip(value[0].astype(int) - 20, 0, 255)).all()


def test_one_change_for_the_whole_clip():
    frame = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8)
    changed, _ = BoxAugmentation(crop_size=16)(frame.repeat(5, 1, 1, 1), torch.zeros(0, 4), np.random.default_rng(1))
    assert (changed == changed[:1]).all()


@pytest.mark.parametrize("field", [{"crop_size": 0}, {"hue": 91}, {"value": -1}, {"flip": 1.5}])
def test_numbers_that_are_not_allowed_are_refused(field):
    with pytest.raises(ValueError, match=f"`{next(iter(field))}` must be"):
        BoxAugmentation(**field)


def test_a_clip_smaller_than_the_crop_is_refused():
    with pytest.raises(ValueError, match="`crop_size` is 32, but a clip has 16 x 40 pixels"):
        BoxAugmentation(crop_size=32)(torch.zeros(1, 3, 16, 40), torch.zeros(0, 4), np.random.default_rng(0))
