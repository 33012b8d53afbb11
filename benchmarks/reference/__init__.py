"""
The structure of the official implementations, written plainly: which operations, in which order, on which layout of
memory, without what this package saves. Each module names its parameters as the official checkpoints do, so that
`convert_checkpoint` makes our model of the same weights.

Clips are `(batch, channels, frames, height, width)`, as the official code takes them. Dropout is left out: it is zero
in what is compared.
"""

from .timesformer import TimeSformer
from .tubevit import PlainTubeViT
from .uniformer import UniFormer
from .uniformer_v2 import UniFormerV2
from .video_swin import DividedSwin, VideoSwin, VideoSwinPretraining
from .videomae_v2 import VideoMAEV2, VideoMAEV2Pretraining


__all__ = [
    "DividedSwin",
    "PlainTubeViT",
    "TimeSformer",
    "UniFormer",
    "UniFormerV2",
    "VideoMAEV2",
    "VideoMAEV2Pretraining",
    "VideoSwin",
    "VideoSwinPretraining",
]
