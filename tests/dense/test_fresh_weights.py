"""
Weights of fresh dense models have the spread of MMDetection's and MMSegmentation's. transformers does not initialise
modules without parameters of their own in packages other than itself, so each layer must say how it starts.
"""

import math

import pytest
import torch
from torch import nn

from hf_videovit import (
    UniFormerDetectorConfig,
    UniFormerForObjectDetection,
    UniFormerForSemanticSegmentation,
    UniFormerSegmenterConfig,
)


BACKBONE = {
    "model_type": "uniformer",
    "modality": "image",
    "image_size": 64,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 2, 1],
    "head_dim": 8,
    "out_indices": [1, 2, 3, 4],
}


def xavier(weight):
    return math.sqrt(2 / sum(nn.init._calculate_fan_in_and_fan_out(weight)))


def kaiming(weight):
    return math.sqrt(2 / nn.init._calculate_fan_in_and_fan_out(weight)[1])


DETECTOR = {
    "pyramid": xavier,
    "proposals": lambda weight: 0.01,
    "box_heads.0.convolutions": kaiming,
    "box_heads.0.layers": xavier,
    "box_heads.0.classifier": lambda weight: 0.01,
    "box_heads.0.box": lambda weight: 0.001,
    "mask_heads": kaiming,
}
SEGMENTER = {
    "pyramid": xavier,
    "decoder.levels": kaiming,
    "auxiliary.convolution": kaiming,
    "head.classifier": lambda weight: 0.01,
}


def detector():
    return UniFormerForObjectDetection(UniFormerDetectorConfig(backbone_config=BACKBONE, box_convolutions=1))


def segmenter():
    return UniFormerForSemanticSegmentation(UniFormerSegmenterConfig(backbone_config=BACKBONE, decode_head="fpn"))


@pytest.mark.parametrize(("build", "expected"), [(detector, DETECTOR), (segmenter, SEGMENTER)])
def test_each_layer_starts_as_the_official_one(build, expected):
    torch.manual_seed(0)
    seen = set()
    for name, layer in build().named_modules():
        if name.startswith("backbone") or not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        (part,) = (part for part in expected if part in name)
        seen.add(part)
        spread = layer.weight.pow(2).mean().sqrt().item()
        # three standard errors, and at least 3 %
        near = max(0.03, 3 / math.sqrt(2 * layer.weight.numel()))
        assert spread == pytest.approx(expected[part](layer.weight), rel=near), name
    assert seen == set(expected)
