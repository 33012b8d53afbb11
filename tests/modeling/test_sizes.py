"""What neither the shapes nor the number of parameters of a published size shows: its attention heads."""

import pytest

from hf_videovit import LstclConfig, TubeViTConfig, UniFormerV2Config, VideoMAEV2Config
from hf_videovit.modeling.configuration_uniformer_v2 import UNIFORMER_V2_SIZES


# Width and heads of the encoder and of the decoder: modeling_pretrain.py of OpenGVLab/VideoMAEv2.
VIDEOMAE_V2 = {
    "small": (384, 6, 192, 3),
    "base": (768, 12, 384, 6),
    "large": (1024, 16, 512, 8),
    "huge": (1280, 16, 512, 8),
    "giant": (1408, 16, 512, 8),
}
TUBEVIT = {"tiny": 3, "base": 12, "large": 16, "huge": 16}  # the standard ViTs


@pytest.mark.parametrize("size", VIDEOMAE_V2)
def test_heads_of_videomae_v2(size):
    config = VideoMAEV2Config.from_size(size)
    encoder = (config.hidden_size, config.num_attention_heads)
    decoder = (config.decoder_hidden_size, config.decoder_num_attention_heads)
    assert (*encoder, *decoder) == VIDEOMAE_V2[size]


@pytest.mark.parametrize("size", TUBEVIT)
def test_heads_of_tubevit(size):
    assert TubeViTConfig.from_size(size).num_attention_heads == TUBEVIT[size]


@pytest.mark.parametrize("size", UNIFORMER_V2_SIZES)
def test_heads_of_uniformer_v2_have_64_channels(size):
    """As those of CLIP's towers, in both kinds of blocks."""
    config = UniFormerV2Config.from_size(size)
    assert config.hidden_size == 64 * config.num_attention_heads == 64 * config.global_num_attention_heads


@pytest.mark.parametrize("size", ["timesformer", "timesformer-hr", "timesformer-l"])
def test_heads_of_timesformer(size):
    config = LstclConfig.from_size(size)
    assert (config.hidden_size, config.num_attention_heads) == (768, 12)
