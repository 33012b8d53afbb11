"""
Parameters and multiply-accumulates of the published sizes, against those measured on the official code. All of it runs
on the meta device: shapes only.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_videovit import (
    UniFormerV2Config,
    UniFormerV2ForVideoClassification,
    VideoMAEV2Config,
    VideoMAEV2ForPreTraining,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2Model,
)


# encoder with its final norm, 400-class model, 710-class model, pre-training model
PARAMETERS = {
    "small": (21_879_936, 22_033_936, 22_153_286, 24_029_376),
    "base": (86_227_200, 86_534_800, 86_773_190, 94_210_944),
    "large": (303_860_736, 304_270_736, 304_588_486, 317_782_016),
    "huge": (631_607_040, 632_119_440, 632_516_550, 645_659_392),
    "giant": (1_011_610_752, 1_012_174_352, 1_012_611_142, 1_026_306_560),
}
# The decoder alone, in millions.
DECODER_MILLIONS = {"small": 2.08, "base": 7.69, "large": 13.40, "huge": 13.40, "giant": 13.97}
# One clip of 16 x 224 x 224: classification; pre-training by decoder mask ratio, where 0 is VideoMAE V1.
GMACS = {"small": 56.88, "base": 180.34, "large": 596.83, "huge": 1190.99, "giant": 2542.79}
PRETRAINING_GMACS = {
    "small": {0.0: 11.54, 0.25: 10.02, 0.5: 7.84, 0.75: 6.13},
    "base": {0.0: 35.44, 0.25: 31.59, 0.5: 25.84, 0.75: 21.03},
    "large": {0.0: 83.03, 0.25: 77.17, 0.5: 68.27, 0.75: 60.63},
    "huge": {0.0: 136.86, 0.25: 130.99, 0.5: 122.09, 0.75: 114.45},
    "giant": {0.0: 263.96, 0.25: 255.00, 0.5: 241.61, 0.75: 230.38},
}
every_size = pytest.mark.parametrize("size", PARAMETERS)


def meta(model_class: type, size: str, **fields) -> torch.nn.Module:
    with torch.device("meta"):
        model = model_class(VideoMAEV2Config.from_size(size, **fields))
    return model.to("meta").eval()  # the position tables are always made on the CPU


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def gmacs(model: torch.nn.Module, num_frames: int = 16, **inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, num_frames, 3, 224, 224, device="meta"), **inputs)
    return counter.get_total_flops() / 2e9


@every_size
def test_parameters(size):
    encoder, with_400, with_710, pretraining = PARAMETERS[size]
    assert count(meta(VideoMAEV2Model, size)) == encoder
    assert count(meta(VideoMAEV2ForVideoClassification, size, num_labels=400)) == with_400
    assert count(meta(VideoMAEV2ForVideoClassification, size, num_labels=710)) == with_710
    model = meta(VideoMAEV2ForPreTraining, size)
    assert count(model) == pretraining
    assert count(model.videomae_v2) == encoder
    assert round(count(model.decoder) / 1e6, 2) == DECODER_MILLIONS[size]


@every_size
def test_multiply_accumulates(size):
    model = meta(VideoMAEV2ForVideoClassification, size, num_labels=400)
    assert gmacs(model) == pytest.approx(GMACS[size], rel=0.005)


@every_size
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75])
def test_multiply_accumulates_of_pretraining(size, ratio):
    model = meta(VideoMAEV2ForPreTraining, size, decoder_mask_ratio=ratio)
    tokens = (1, torch.Size(model.config.token_grid()).numel())
    masks = {"encoder_mask": torch.empty(tokens, dtype=torch.bool, device="meta")}
    if ratio:
        masks["decoder_mask"] = torch.empty(tokens, dtype=torch.bool, device="meta")
    assert gmacs(model, **masks) == pytest.approx(PRETRAINING_GMACS[size][ratio], rel=0.005)


# UniFormerV2: parameters by number of classes, and multiply-accumulates of one view by frames.
UNIFORMER_V2_PARAMETERS = {
    "base": {400: 114_552_208, 600: 114_706_008, 700: 114_782_908, 710: 114_790_598, 339: 114_505_299},
    "large": {
        400: 354_099_600,
        600: 354_304_600,
        700: 354_407_100,
        710: 354_417_350,
        339: 354_037_075,
        200: 353_894_600,
    },
    "large-336": {400: 354_427_280, 600: 354_632_280, 700: 354_734_780, 710: 354_745_030, 339: 354_364_755},
    "large-336-frozen": {classes: count - 1024 for classes, count in ((400, 354_427_280), (710, 354_745_030))},
    "large-untrimmed": {200: 353_894_600},
    "base-motion": {174: 162_992_814},
    "large-motion": {174: 573_949_966},
}
UNIFORMER_V2_GMACS = {
    "base": {8: 148.10, 16: 296.19, 32: 592.35, 64: 1184.67},
    "large": {8: 665.63, 16: 1331.21, 32: 2662.39, 64: 5324.73},
    "large-336": {8: 1566.98, 16: 3133.93, 32: 6267.81, 64: 12535.58},
    "base-motion": {16: 187.21, 32: 374.37},
    "large-motion": {16: 858.20, 32: 1716.23},
}


def uniformer_v2(size: str, num_labels: int) -> torch.nn.Module:
    with torch.device("meta"):
        return UniFormerV2ForVideoClassification(UniFormerV2Config.from_size(size, num_labels=num_labels)).eval()


@pytest.mark.parametrize("size", UNIFORMER_V2_PARAMETERS)
def test_parameters_of_uniformer_v2(size):
    for num_labels, expected in UNIFORMER_V2_PARAMETERS[size].items():
        assert count(uniformer_v2(size, num_labels)) == expected


@torch.no_grad()
@pytest.mark.parametrize("size", UNIFORMER_V2_GMACS)
def test_multiply_accumulates_of_uniformer_v2(size):
    model = uniformer_v2(size, max(UNIFORMER_V2_PARAMETERS[size]) if "motion" in size else 400)
    for frames, expected in UNIFORMER_V2_GMACS[size].items():
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, frames, 3, *2 * [model.config.image_size], device="meta"))
        assert counter.get_total_flops() / 2e9 == pytest.approx(expected, rel=0.005)
