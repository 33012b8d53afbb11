"""
Action detectors on VideoMAE V2: the layouts of VideoMAE-Action-Detection and InternVideo (one), and of mmaction2. The
weights of the encoder are those of other checkpoints; this file knows the heads and their protocols.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from ..modeling.configuration_action_detection import ActionDetectionConfig
from ..modeling.configuration_base import frame_size
from ..modeling.configuration_videomae_v2 import VideoMAEV2Config
from ..modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor
from ..published import ava_rows, published_labels
from .fields import class_names, default_names
from .keys import Checkpoint


TASK = "action-detection"
# Official names (of mmaction2 after `MMACTION2_NAMES`) and ours.
HEAD_NAMES = {
    "head.weight": "action_head.classifier.weight",
    "head.bias": "action_head.classifier.bias",
    "hidden_head.weight": "action_head.layers.0.weight",
    "hidden_head.bias": "action_head.layers.0.bias",
}
# mmaction2's names of the head and those above; the two-layer head first.
MMACTION2_HEAD_NAMES = (
    ("roi_head.bbox_head.fc_cls.0.", "hidden_head."),
    ("roi_head.bbox_head.fc_cls.2.", "head."),
    ("roi_head.bbox_head.fc_cls.", "head."),
)
# The published ViT-g, whose patches have 14 pixels, reads boxes at 1/16, too: InternVideo's code never changed it.
OFFICIAL_HEAD: dict[str, Any] = {"roi_aligned": False, "roi_scale": 1 / 16, "box_convention": "inclusive"}
MMACTION2_HEAD: dict[str, Any] = {
    "roi_size": 8,
    "roi_scale": 1 / 16,
    "roi_dropout": 0.5,
    "box_enlargement": [0.0, 0.0],
    "box_jitter": [0.0] * 4,
    "ignore_unlabelled_boxes": True,
    "loss_reduction": "mean",
}
OFFICIAL_PIXELS = {"image_mean": [122.7717, 115.9465, 102.9801], "image_std": [57.375] * 3, "rescale_factor": 1.0}
AVA_LABELS = 80
SHORT_SIDES = {224: 256}  # of a frame in evaluation, by the side of the crops in training


def detection_fields(
    fields: dict[str, Any],
    config: PreTrainedConfig | None,
    names: list[str] | None,
    shapes: dict[str, tuple[int, ...]],
    mmaction2: bool,
) -> dict[str, Any]:
    """
    Options of the head: those of the layout, and the caller's in their place.

    Args:
        fields (`dict[str, Any]`):
            Fields of the configuration that the caller passed.
        config ([`PreTrainedConfig`]):
            Configuration that the caller passed, or that of the published checkpoint that the caller named.
        names (`list[str]`):
            Names of the labels, if they are known. Of AVA's 80, 60 are evaluated.
        shapes (`dict[str, tuple[int, ...]]`):
            Shapes by official name.
        mmaction2 (`bool`):
            Whether the checkpoint has mmaction2's layout.

    Returns:
        `dict[str, Any]`: `detection_config`, as a dictionary.
    """
    head = dict(MMACTION2_HEAD if mmaction2 else OFFICIAL_HEAD)
    for given in (getattr(config, "detection_config", None), fields.get("detection_config")):
        head |= given if isinstance(given, dict) else {} if given is None else given.to_diff_dict()
    if "hidden_head.weight" in shapes:
        head["head_hidden_sizes"] = [shapes["hidden_head.weight"][0]]
    if mmaction2 and fields.get("problem_type") == "single_label_classification":
        head.setdefault("background_label", 0)
    if names == published_labels("ava") and head.get("evaluated_labels") is None:
        head["evaluated_labels"] = ava_rows("evaluated")
    return head


def class_rows(
    shapes: dict[str, tuple[int, ...]],
    labels: str | Sequence[str] | None,
    given: dict[str, Any],
    mmaction2: bool,
    checkpoint: Checkpoint,
) -> tuple[list[int] | None, list[str] | None]:
    """
    Rows of the head that are labels, and their names. The first row of mmaction2's heads is a background that
    multi-label heads never use.

    Args:
        shapes (`dict[str, tuple[int, ...]]`):
            Shapes by official name.
        labels (`str` or `Sequence[str]`):
            See [`~convert.convert_checkpoint`].
        given (`dict[str, Any]`):
            Fields of the configuration that the caller passed.
        mmaction2 (`bool`):
            Whether the checkpoint has mmaction2's layout.
        checkpoint ([`Checkpoint`]):
            The opened file.

    Returns:
        `tuple`: the rows (`None` for all), and the names (`None` to keep those of the caller).

    Raises:
        ValueError: the file has no head for boxes, or the number of names is not that of the labels.
    """
    if "head.weight" not in shapes:
        raise ValueError(
            f"{checkpoint.name} has no head, so it is no action-detection checkpoint. To train one from its encoder, "
            f"convert it with task='feature-extraction' or 'pretraining' and load it with "
            "VideoMAEV2ForActionDetection.from_pretrained."
        )
    count, rows = shapes["head.weight"][0], None
    if mmaction2 and given.get("problem_type") != "single_label_classification":
        rows = list(range(1, count))
        count -= 1
    names = class_names(labels)
    if names is None:
        return rows, default_names(count, given, checkpoint, ["ava"] if count == AVA_LABELS else [])
    if len(names) != count:
        raise ValueError(f"`labels` has {len(names)} names, but {checkpoint.name} scores {count} labels.")
    return rows, names


def detection_processor(config: VideoMAEV2Config, mmaction2: bool) -> VideoMAEV2VideoProcessor:
    """
    Processor with the protocol of the layout.

    Args:
        config ([`VideoMAEV2Config`]):
            Configuration of the detector.
        mmaction2 (`bool`):
            Whether the checkpoint has mmaction2's layout.

    Returns:
        [`VideoMAEV2VideoProcessor`]
    """
    head = config.detection_config
    assert isinstance(head, ActionDetectionConfig)
    side = min(frame_size(config.image_size))
    pixels = {} if mmaction2 else OFFICIAL_PIXELS
    return VideoMAEV2VideoProcessor(
        num_frames=config.num_frames,
        frame_stride=4,
        sampling_fps=30 if mmaction2 else 25,
        read_key_frame=mmaction2,
        size={"shortest_edge": SHORT_SIDES.get(side, side)},
        crop_size={"height": side, "width": side},
        do_center_crop=False,
        pad_multiple=config.patch_size if mmaction2 else 16,
        box_convention=head.box_convention,
        use_person_score=not mmaction2,
        **pixels,
    )
