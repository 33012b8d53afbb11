"""What is special to UniFormer's pose estimator; the rest is in the common suites."""

import pytest
import torch

from hf_videovit import UniFormerBackbone, UniFormerConfig, UniFormerForPoseEstimation


TINY = {
    "modality": "image",
    "depths": [1, 1, 2, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "head_dim": 8,
    "num_labels": 3,
    "pose_hidden_sizes": [8, 12, 8],
}


def estimator(**fields) -> UniFormerForPoseEstimation:
    torch.manual_seed(0)
    return UniFormerForPoseEstimation(UniFormerConfig(**{**TINY, **fields})).eval()


def test_the_head_of_the_specification():
    model = UniFormerForPoseEstimation(UniFormerConfig(**{**TINY, "pose_hidden_sizes": [256, 256, 256]}))
    deconvolutions = [one for one in model.head.layers if isinstance(one, torch.nn.ConvTranspose2d)]
    assert [(one.in_channels, one.out_channels) for one in deconvolutions] == [(32, 256), (256, 256), (256, 256)]
    for one in deconvolutions:
        assert (one.kernel_size, one.stride, one.padding, one.bias) == ((4, 4), (2, 2), (1, 1), None)
        assert one.weight.std().item() == pytest.approx(1e-3, rel=0.1)
    assert model.head.projection.kernel_size == (1, 1)
    assert model.head.projection.weight.std().item() == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize(
    ("size", "heatmaps"),
    [((64, 64), (16, 16)), ((96, 64), (24, 16)), ((448, 320), (112, 80)), ((70, 101), (16, 24))],
)
@torch.no_grad()
def test_heatmaps_are_a_quarter_of_the_image(size, heatmaps):
    assert estimator()(torch.randn(1, 3, *size)).heatmaps.shape == (1, 3, *heatmaps)


@torch.no_grad()
def test_it_looks_at_the_last_map_of_the_backbone():
    model, pixels = estimator(), torch.randn(2, 3, 64, 96)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    backbone = UniFormerBackbone(UniFormerConfig(**TINY)).eval()
    backbone.uniformer.load_state_dict(model.uniformer.state_dict())
    backbone.norms["stage4"].load_state_dict(model.norm.state_dict())
    (maps,) = backbone(pixels).feature_maps
    torch.testing.assert_close(model.head(maps), model(pixels).heatmaps)


def test_weights_silence_keypoints_without_a_label():
    """Against the loss as it is defined, a loop over keypoints."""
    model, pixels = estimator(), torch.randn(2, 3, 64, 64)
    labels, weights = torch.rand(2, 3, 16, 16), torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 0.0]])
    outputs = model(pixels, labels=labels, keypoint_weights=weights)
    expected = 0.0
    for index in range(3):
        weight = weights[:, index, None, None]
        expected = expected + ((weight * outputs.heatmaps[:, index] - weight * labels[:, index]) ** 2).mean() / 3
    torch.testing.assert_close(outputs.loss, expected)
    spoilt = torch.where(weights[..., None, None] == 0, 9.0, labels)
    torch.testing.assert_close(model(pixels, labels=spoilt, keypoint_weights=weights).loss, outputs.loss)
    ones = model(pixels, labels=labels, keypoint_weights=torch.ones(2, 3)).loss
    torch.testing.assert_close(model(pixels, labels=labels).loss, ones)


def test_what_does_not_fit_is_refused():
    model, pixels = estimator(), torch.randn(1, 3, 64, 64)
    labels = torch.rand(1, 3, 16, 16)
    for arguments, named in (
        ({"labels": labels[:, :2]}, "`labels`"),
        ({"labels": labels, "keypoint_weights": torch.ones(1, 3, 1)}, "`keypoint_weights`"),
        ({"keypoint_weights": torch.ones(1, 3)}, "`keypoint_weights`"),
    ):
        with pytest.raises(ValueError, match=named):
            model(pixels, **arguments)
    with pytest.raises(ValueError, match="`modality`"):
        UniFormerForPoseEstimation(UniFormerConfig(**{**TINY, "modality": "video"}))
    for sizes in ([], [8, 0]):
        with pytest.raises(ValueError, match="`pose_hidden_sizes`"):
            UniFormerConfig(**{**TINY, "pose_hidden_sizes": sizes})
