"""Every family as a backbone for frames in memory."""

import pytest
import torch
from transformers import AutoModel, AutoVideoProcessor

from hf_videovit.inference.video_backbone import ONE_STAGE, VideoBackbone
from tests.clips import moving_square_clip, write_clip
from tests.families import Case, cases
from tests.saved_model import save_tiny_classifier, tiny_processor


DETECTORS = [case for case in cases(options=False) if str(case).endswith("ActionDetection")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier")


def frames_of(count=4, **options):
    return torch.from_numpy(moving_square_clip(num_frames=count, **options)).movedim(-1, 1)[None]


@pytest.mark.parametrize("case", DETECTORS, ids=str)
def test_every_family_gives_a_map(case: Case):
    model = case.model(detection_config=ONE_STAGE)
    config = model.config
    side = config.image_size
    processor = tiny_processor(
        num_frames=config.num_frames, size={"height": side, "width": side}, do_center_crop=False
    )
    backbone = VideoBackbone(model, processor)
    frames = torch.rand(2, 5, 3, 40, 56)
    (feature_map,) = backbone(frames).feature_maps
    assert feature_map.shape[:2] == (2, backbone.channels[0]) and feature_map.ndim == 5
    assert feature_map.shape[-2:] == (side // model.feature_stride,) * 2
    feature_map.sum().backward()
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in backbone.parameters())
    assert not any("action_head" in name for name, _ in backbone.named_parameters())


def test_the_map_is_the_encoders_last_state(folder):
    backbone = VideoBackbone.from_pretrained(folder).eval()
    frames = frames_of(batch := 4)
    with torch.no_grad():
        (feature_map,) = backbone(frames).feature_maps
        pixel_values = backbone.process(frames)
        tokens = AutoModel.from_pretrained(folder).eval()(pixel_values=pixel_values).last_hidden_state
    assert feature_map.shape == (1, 32, batch // 2, 4, 4)
    assert feature_map.flatten(2).shape == tokens.transpose(1, 2).shape
    torch.testing.assert_close(feature_map.mean((2, 3, 4)), backbone(frames).feature_maps[0].mean((2, 3, 4)))


def test_frames_in_memory_are_pixels_of_files(folder, tmp_path):
    """Floats, uint8 and a file give the same input, whatever the number of frames."""
    backbone, processor = VideoBackbone.from_pretrained(folder), AutoVideoProcessor.from_pretrained(folder)
    path = write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=8))
    decoded, _ = processor.load_clips(path, frame_sampling="dense")
    expected = processor(path, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(backbone.process(decoded), expected, rtol=0, atol=0)
    torch.testing.assert_close(backbone.process(decoded / 255), expected, rtol=0, atol=0)
    still = backbone.process(decoded[:, 0])
    torch.testing.assert_close(still, expected[:, :1].expand_as(expected), rtol=0, atol=0)
    seven = backbone.process(decoded[:, [0, 0, 1, 1, 2, 3, 3]])
    torch.testing.assert_close(seven, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (torch.zeros(2, 4, 1, 8, 8), "must have shape"),
        (torch.full((1, 4, 3, 8, 8), 1.5), "from 0 to 1"),
        (torch.zeros(1, 4, 3, 8, 8, dtype=torch.int64), "uint8 or floats"),
    ],
)
def test_other_frames_are_refused(folder, frames, told):
    with pytest.raises(ValueError, match=told):
        VideoBackbone.from_pretrained(folder)(frames)
