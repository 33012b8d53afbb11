"""Tokens, parameters and multiply-accumulates of the TubeViT sizes, against the paper's own numbers worked out."""

import pytest
import torch

from hf_videovit import TubeViTConfig, TubeViTForVideoClassification
from hf_videovit.modeling.configuration_tubevit import TABLE_14_ROWS
from tests.test_counts import count, gmacs


pytestmark = pytest.mark.slow  # operators are counted one by one

# 600 classes, 3 tubes with space-to-depth, attention pooling without MLP; and with one, and with a scalar score
PARAMETERS = {
    "tiny": (6_267_048, 6_563_304, 6_118_824),
    "base": (90_536_856, 95_260_824, 88_174_488),
    "large": (310_667_608, 319_063_384, 306_469_208),
    "huge": (641_436_440, 654_552_600, 634_877_720),
}
MILLIONS = {"tiny": 6.3, "base": 90.5, "large": 310.7}  # as stated for the spec's reading of the paper
TUBE_MILLIONS = {"base": 2.07, "large": 2.75, "huge": 3.44}
GMACS = {"base": (52.2, 127.7), "large": (178.8, 426.9), "huge": (365.4, 858.6)}  # 32 and 64 frames of 224 x 224
# Tokens of each tube: by tubes, then by input (frames, height, width).
TOKENS = {
    "main": {
        (32, 224, 224): [98, 147, 98, 196],
        (64, 224, 224): [196, 392, 196, 392],
        (128, 224, 224): [392, 931, 392, 784],
        (32, 256, 256): [128, 192, 128, 256],
        (32, 320, 320): [200, 300, 200, 400],
        (16, 224, 224): [49, 0, 49, 196],
        (1, 224, 224): [0, 0, 0, 196],
    },
    "core": {(32, 224, 224): [392, 392]},
    "patches": {(32, 224, 224): [392]},
    "charades": {(128, 224, 224): [392, 784, 288, 784]},
}
TOTALS = {
    "main": {
        (32, 224, 224): 539,
        (64, 224, 224): 1176,
        (128, 224, 224): 2499,
        (32, 256, 256): 704,
        (32, 320, 320): 1100,
        (16, 224, 224): 294,
        (1, 224, 224): 196,
    },
    "core": {(32, 224, 224): 784},
    "patches": {(32, 224, 224): 392},
    "charades": {(128, 224, 224): 2248},
}
TABLE_14_TOTALS = dict(zip(TABLE_14_ROWS, (833, 833, 833, 779, 882, 882, 882), strict=True))


def meta(size: str, **fields) -> TubeViTForVideoClassification:
    with torch.device("meta"):
        return TubeViTForVideoClassification(TubeViTConfig.from_size(size, num_labels=600, **fields)).eval()


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name):
    config = TubeViTConfig(tubes=name)
    for size, counts in TOKENS[name].items():
        assert config.token_counts(size) == counts
        assert config.num_tokens(size) == TOTALS[name][size]


def test_tokens_of_table_14():
    for row, total in TABLE_14_TOTALS.items():
        assert TubeViTConfig(tubes=row).num_tokens((32, 224, 224)) == total


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters(size):
    for pooling, parameters in zip(("attention", "attention_mlp", "score"), PARAMETERS[size], strict=True):
        assert count(meta(size, pooling_type=pooling)) == parameters
    if size in MILLIONS:
        assert round(PARAMETERS[size][0] / 1e6, 1) == MILLIONS[size]
    if size in TUBE_MILLIONS:
        added = count(meta(size).tubevit.embeddings.tubes[:3])
        assert round(added / 1e6, 2) == TUBE_MILLIONS[size]


@pytest.mark.parametrize("size", GMACS)
def test_multiply_accumulates(size):
    model = meta(size)
    for frames, expected in zip((32, 64), GMACS[size], strict=True):
        assert gmacs(model, frames) == pytest.approx(expected, rel=0.005)
        tokeniser = gmacs(model.tubevit.embeddings, frames)
        assert tokeniser < min(1.6, 0.03 * expected)
