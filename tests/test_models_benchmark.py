"""The comparison of models: its sides compute the same function, and its page is that of its results."""

from typing import Any

import pytest
import torch

from benchmarks import _model_sides as sides
from benchmarks._model_page import page
from benchmarks.models import CHOICES, PAGE, read_rows
from hf_videovit import BevtConfig, LstclConfig, TubeViTConfig, UniFormerConfig, UniFormerV2Config, VideoMAEV2Config


SMALL_VIT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
SMALL_SWIN = {
    "hidden_sizes": [16, 32],
    "depths": [2, 2],
    "num_attention_heads": [2, 4],
    "window_size": [2, 3, 3],
}
PYRAMID = {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 2, 1], "head_dim": 32}
STILL = {"num_labels": 7, "drop_path_rate": 0.0}
MAE = VideoMAEV2Config(**SMALL_VIT, **STILL, num_frames=4, image_size=64, patch_size=16)
# Frames, rows and columns that no window divides: padding, clipped windows and every part of the mask occur.
GRIDS = [(5, 28, 36), (4, 24, 24), (2, 12, 20)]
TUBES = [
    {"kernel": [4, 8, 8], "stride": [4, 16, 16], "offset": [0, 0, 0], "space_to_depth": [2, 1, 1]},
    {"kernel": [1, 16, 16], "stride": [4, 16, 16], "offset": [0, 0, 0]},
]
CASES = {
    "VideoMAE V2": (sides.videomae_v2, MAE, (4, 3, 64, 64)),
    "VideoMAE V2 pretraining": (sides.videomae_v2_pretraining, MAE, (4, 3, 64, 64)),
    **{
        f"Video Swin of {grid}": (
            sides.bevt,
            BevtConfig(**SMALL_SWIN, **STILL, classifier_dropout=0.0, image_stream=False),
            (grid[0], 3, *grid[1:]),
        )
        for grid in GRIDS
    },
    "Video Swin pretraining": (
        sides.bevt_pretraining,
        BevtConfig(
            **{
                **SMALL_SWIN,
                "hidden_sizes": [8, 16, 32, 64],
                "depths": [1, 2, 2, 1],
                "num_attention_heads": [2, 4, 4, 4],
            },
            **STILL,
            image_stream=False,
            num_frames=4,
            image_size=64,
            vocab_size=11,
        ),
        (4, 3, 64, 64),
    ),
    "TimeSformer": (
        sides.timesformer,
        LstclConfig(**SMALL_VIT, **STILL, num_frames=3, image_size=64, patch_size=16),
        (3, 3, 64, 64),
    ),
    "divided Swin": (
        sides.divided_swin,
        LstclConfig(
            **{**SMALL_SWIN, "window_size": [1, 3, 3]},
            **STILL,
            backbone="video_swin",
            temporal_attention="divided",
            num_frames=3,
            image_size=40,
        ),
        (3, 3, 40, 40),
    ),
    "TubeViT": (
        sides.tubevit,
        TubeViTConfig(**SMALL_VIT, **STILL, classifier_dropout=0.0, tubes=TUBES, num_frames=8, image_size=32),
        (8, 3, 32, 32),
    ),
    "UniFormer of clips": (
        sides.uniformer,
        UniFormerConfig(**PYRAMID, **STILL, classifier_dropout=0.0, modality="video", num_frames=5, image_size=64),
        (5, 3, 64, 64),
    ),
    "UniFormer of images": (
        sides.uniformer,
        UniFormerConfig(**PYRAMID, **STILL, classifier_dropout=0.0, modality="image", image_size=64),
        (3, 64, 64),
    ),
    **{
        f"UniFormerV2 with {modules} local modules": (
            sides.uniformer_v2,
            UniFormerV2Config(
                **SMALL_VIT,
                **STILL,
                classifier_dropout=0.0,
                global_dropout=0.0,
                global_layers=[1, 2],
                num_local_modules=modules,
                temporal_downsample=modules > 0,
                num_frames=4,
                image_size=48,
                patch_size=16,
            ),
            (4, 3, 48, 48),
        )
        for modules in (0, 2)
    },
}


def made(case: str, training: bool) -> dict[str, sides.Side]:
    make, config, shape = CASES[case]
    torch.manual_seed(0)
    compared = {name: side for name, side in make(config, torch.randn(2, *shape)).items() if side.same_weights}
    for side in compared.values():
        side.model.train(training)
    return compared


@pytest.mark.parametrize("case", CASES)
def test_both_sides_are_one_function(case: str):
    """The comparison is of one function done in two ways: answers in evaluation, loss and gradients in training."""
    with torch.no_grad():
        ours, official = (side.answers() for side in made(case, training=False).values())
    torch.testing.assert_close(ours, official, rtol=1e-4, atol=1e-5)
    losses, norms = [], []
    for side in made(case, training=True).values():
        loss = side.loss()
        loss.backward()
        losses.append(loss.detach())
        gradients = [one.grad for one in side.model.parameters() if one.grad is not None]
        norms.append(torch.stack([one.square().sum() for one in gradients]).sum().sqrt())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("task", sides.TASKS.values(), ids=lambda task: task.name)
def test_tasks_are_of_published_sizes(task: sides.Task):
    """A misspelt field or size would show only after minutes of measuring."""
    config: Any = task.config(attn_implementation="sdpa")
    assert config.num_labels == sides.LABELS
    assert config.drop_path_rate == 0


def test_page_is_that_of_the_results():
    """Figures on the page are those of the file; `python -m benchmarks.models --page` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page(read_rows(), read_rows(CHOICES))


def test_other_libraries_do_the_work():
    """Models of other libraries are of our sizes: their parameters are ours but for what they lack."""
    make, config, shape = CASES["VideoMAE V2"]
    made = make(config, torch.randn(1, *shape))
    counts = {name: sum(one.numel() for one in side.model.parameters()) for name, side in made.items()}
    assert len(set(counts.values())) == 1, counts
