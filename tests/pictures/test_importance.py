"""Pictures of importance: bright where it is, grey elsewhere, a film at the times of the frames."""

import numpy as np
import pytest
from PIL import Image

from hf_videovit.modeling.video_decoding import decode_video, probe_video
from hf_videovit.pictures.importance import draw_importance, enlarged, heat_over, write_importance_film


def frames_and_blocks(count=5, side=64):
    """Grey frames, and a decisive place: frame 3, third row, second column of 4 x 4."""
    blocks = np.zeros((count, 4, 4))
    blocks[3, 2, 1], blocks[1, 0, 0] = 2.0, -5.0
    return np.full((count, side, side, 3), 128, np.uint8), blocks


def colourfulness(picture):
    return np.ptp(np.asarray(picture).astype(int), axis=-1)


def test_the_heat_is_where_the_importance_is():
    pictures, blocks = frames_and_blocks()
    hot = heat_over(pictures[3], blocks[3], 2.0)
    row, column = np.unravel_index(colourfulness(hot).argmax(), hot.shape[:2])
    assert 32 <= row < 48 and 16 <= column < 32
    assert colourfulness(hot)[:16].max() == 0  # far away it is grey
    against = heat_over(pictures[1], blocks[1], 2.0)
    assert colourfulness(against).max() == 0 and against.max() < 128  # what speaks against is not coloured
    np.testing.assert_array_equal(heat_over(pictures[0], blocks[0], 0.0), heat_over(pictures[0], blocks[0], 2.0))


def test_the_sheet_has_every_frame_and_its_heat(tmp_path):
    pictures, blocks = frames_and_blocks(11)
    path = draw_importance(pictures, blocks, [f"{index} s" for index in range(11)], tmp_path / "new" / "sheet.png")
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (2 * (2 * 128 + 20 + 2 * 4), 8 * (128 + 4), 3)
    row, column = np.unravel_index(colourfulness(sheet).argmax(), sheet.shape[:2])
    assert column // 132 == 3 and 132 <= row < 260
    assert (colourfulness(sheet).max(axis=0) > 50).nonzero()[0].max() < 4 * 132  # of no other frame
    fewer = np.asarray(Image.open(draw_importance(pictures, blocks, [""] * 11, path, max_frames=2)))
    assert fewer.shape[1] == 2 * 132


def test_the_film_shows_each_frame_at_its_time(tmp_path):
    pictures, blocks = frames_and_blocks(side=129)
    seconds = [1.0, 1.5, 2.0, 3.5, 4.0]
    path = write_importance_film(pictures, blocks, seconds, tmp_path / "film.mp4")
    probe = probe_video(str(path))
    assert np.asarray(probe.timestamps) - probe.timestamps[0] == pytest.approx([0, 0.5, 1.0, 2.5, 3.0], abs=1e-3)
    shown = decode_video(str(path)).frames
    assert shown.shape == (5, 128, 258, 3)
    strength = [colourfulness(frame[:, 129:]).mean() for frame in shown]
    assert int(np.argmax(strength)) == 3 and colourfulness(shown[3][:, :120]).max() < 20


def test_small_pictures_are_enlarged_and_none_is_an_error(tmp_path):
    assert enlarged(np.zeros((32, 48, 3), np.uint8)).shape == (128, 192, 3)
    assert enlarged(np.zeros((224, 200, 3), np.uint8)).shape == (224, 200, 3)
    with pytest.raises(ValueError, match="`pictures` must hold at least one frame"):
        draw_importance([], [], [], tmp_path / "x.png")
    with pytest.raises(ValueError, match="`pictures` must hold at least one frame"):
        write_importance_film([], [], [], tmp_path / "x.mp4")
