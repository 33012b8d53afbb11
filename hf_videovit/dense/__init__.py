"""Tools for pose estimation, and options of the official dense recipes."""

from .backbones import freeze_batch_norms, set_attention_type
from .pose import decode_heatmaps, encode_heatmaps, estimate_poses, flip_test


__all__ = [
    "decode_heatmaps",
    "encode_heatmaps",
    "estimate_poses",
    "flip_test",
    "freeze_batch_norms",
    "set_attention_type",
]
