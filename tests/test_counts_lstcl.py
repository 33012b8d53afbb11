"""Parameters and multiply-accumulates of LSTCL's encoders and heads, against those counted on the official codes."""

import pytest
import torch

from hf_videovit import LstclConfig, LstclForPreTraining, LstclForVideoClassification
from tests.test_counts import check_multiply_accumulates, count


pytestmark = pytest.mark.slow  # operators are counted one by one

# Parameters with 400 classes, and in millions as the official code or the spec's arithmetic has them.
PARAMETERS = {
    "timesformer": (121_566_352, 121.57),
    "timesformer-hr": (122_024_080, 122.02),
    "timesformer-l": (121_633_936, 121.63),
    "swin-tiny": (28_158_070, 28.2),
    "swin-base": (88_048_984, 88.0),
    "swin-tiny-divided": (38_641_354, 38.6),
    "swin-base-divided": (122_136_392, 122.1),
}
GMACS = {  # of a view, by size and frames
    ("timesformer", 8): 196.1,
    ("timesformer", 16): 392,
    ("timesformer", 32): 786,
    ("timesformer-hr", 16): 1703,
    ("timesformer-l", 96): 2380,
    ("swin-base", 32): 281.6,
}
HEADS = {
    "moco_v3": (20_987_904, 2_105_344),
    "byol": (4_202_752, 2_105_600),
    "simsiam": (2_755_584, 2_100_224),
}


def classifier(size: str, **fields) -> LstclForVideoClassification:
    with torch.device("meta"):
        config = LstclConfig.from_size(size, num_labels=400, **fields)
        return LstclForVideoClassification(config).eval().requires_grad_(False)


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters(size):
    exact, millions = PARAMETERS[size]
    assert count(classifier(size)) == exact
    digits = len(str(millions).partition(".")[2])
    assert round(exact / 1e6, digits) == millions


def test_parameters_of_other_designs():
    assert count(classifier("timesformer", num_frames=16)) == 121_572_496
    assert count(classifier("timesformer", num_frames=32)) == 121_584_784
    assert count(classifier("swin-base", window_size=[16, 7, 7])) == 89_065_688
    for size, exact in (("swin-tiny", 27_826_954), ("swin-base", 87_153_224)):  # windows within frames alone
        assert count(classifier(size, window_size=[1, 7, 7], tubelet_size=1)) == exact


@pytest.mark.parametrize(("size", "frames"), GMACS, ids=str)
def test_multiply_accumulates(size, frames):
    model = classifier(size)
    side = model.config.image_size
    check_multiply_accumulates(model, (frames, 3, side, side), GMACS[size, frames])


@pytest.mark.parametrize("framework", HEADS)
def test_parameters_of_the_heads(framework):
    with torch.device("meta"):
        model = LstclForPreTraining(LstclConfig(framework=framework))
    assert (count(model.projector), count(model.predictor)) == HEADS[framework]
    targets = 0 if model.target is None else count(model.target)
    online = count(model.lstcl) + count(model.projector)
    assert targets == (0 if framework == "simsiam" else online)
