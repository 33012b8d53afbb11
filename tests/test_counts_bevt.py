"""Parameters and multiply-accumulates of the BEVT sizes, against those measured on the official code."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

from hf_videovit import BevtConfig, BevtForPreTraining, BevtForVideoClassification
from tests.test_counts import count, gmacs


pytestmark = pytest.mark.slow  # operators are counted one by one

# Size: labels, parameters, those of the encoder, and multiply-accumulates of a clip of 32 frames
ROWS = {
    "tiny": (400, 28_158_070, 27_850_470, 87.76),
    "small": (400, 49_816_678, 49_509_078, 165.68),
    "base": (400, 88_048_984, 87_638_984, 281.33),
    "base-ssv2": (174, 88_834_038, 88_655_688, 320.36),
    "large": (400, 196_953_916, 196_339_116, 603.27),
    "large-384": (400, 199_999_516, 199_384_716, 2106.4),
}
DIVING48_PARAMETERS = 88_704_888
PRETRAINING_PARAMETERS = {"tiny": 41_826_662, "small": 63_485_270, "base": 109_679_048, "large": 239_618_732}
# Of the base model with its decoder and classifier of words.
PRETRAINING_GMACS = {"image": 17.59, "clip": 174.37}
CODEBOOK_PARAMETERS, CODEBOOK_GMACS = 53_786_240, 26.06  # of one 112 x 112 image


def meta(model_class: type, size: str, **fields) -> torch.nn.Module:
    with torch.device("meta"):
        return model_class(BevtConfig.from_size(size, **fields)).eval()


@torch.no_grad()
def forward_gmacs(model: torch.nn.Module, **inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("size", ROWS)
def test_classifiers(size):
    labels, parameters, encoder, expected = ROWS[size]
    model = meta(BevtForVideoClassification, size, num_labels=labels)
    assert count(model) == parameters
    assert count(model.bevt) == encoder
    side = model.config.image_size
    pixel_values = torch.empty(1, 32, 3, side, side, device="meta")
    assert forward_gmacs(model, pixel_values=pixel_values) == pytest.approx(expected, rel=0.005)


def test_diving48():
    assert count(meta(BevtForVideoClassification, "base-ssv2", num_labels=48)) == DIVING48_PARAMETERS


@pytest.mark.parametrize("size", PRETRAINING_PARAMETERS)
def test_pretraining_parameters(size):
    assert count(meta(BevtForPreTraining, size)) == PRETRAINING_PARAMETERS[size]


def test_pretraining_multiply_accumulates():
    model = meta(BevtForPreTraining, "base")
    image = torch.empty(1, 3, 224, 224, device="meta")
    spent = {"image": forward_gmacs(model, image_pixel_values=image), "clip": gmacs(model, 16)}
    assert spent == pytest.approx(PRETRAINING_GMACS, rel=0.005)


def test_tokenizer():
    with torch.device("meta"):
        codebook = FlavaImageCodebook(FlavaImageCodebookConfig())
    assert count(codebook) == CODEBOOK_PARAMETERS
    pixel_values = torch.empty(1, 3, 112, 112, device="meta")
    assert forward_gmacs(codebook, pixel_values=pixel_values) == pytest.approx(CODEBOOK_GMACS, rel=0.005)
