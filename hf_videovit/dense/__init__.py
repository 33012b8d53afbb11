"""Detection, segmentation and pose estimation on UniFormer backbones."""

from .detection import FeaturePyramid, freeze_batch_norms, mask_rcnn, set_attention_type
from .pose import decode_heatmaps, encode_heatmaps, estimate_poses, flip_test
from .segmentation import SegmentationFolder, mean_iou


__all__ = [
    "FeaturePyramid",
    "SegmentationFolder",
    "decode_heatmaps",
    "encode_heatmaps",
    "estimate_poses",
    "flip_test",
    "freeze_batch_norms",
    "mask_rcnn",
    "mean_iou",
    "set_attention_type",
]
