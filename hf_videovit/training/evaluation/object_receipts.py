"""The evaluation that the `results.json` of a detector of objects or a pose model reports, done again."""

import os
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoImageProcessor

from ...files import loading
from ...modeling.modeling_uniformer_detector import UniFormerForObjectDetection
from ...modeling.modeling_uniformer_pose import UniFormerForPoseEstimation
from .held_out import EvaluationClips
from .object_detection import evaluate_object_detection
from .object_results import ObjectClaim, ObjectResult
from .pose import evaluate_pose


MODELS: dict[str, Any] = {
    "object-detection": UniFormerForObjectDetection,
    "keypoint-detection": UniFormerForPoseEstimation,
}


def object_task(folder: str | os.PathLike) -> str | None:
    """
    The task of a model, if it is one of objects in images.

    Args:
        folder (`str` or `os.PathLike`):
            Folder or Hub id.

    Returns:
        `str` or `None`: `"object-detection"` or `"keypoint-detection"`.
    """
    architectures = AutoConfig.from_pretrained(folder).architectures or []
    return next((task for task, one in MODELS.items() if one.__name__ in architectures), None)


def evaluate_object_claim(
    folder: str | os.PathLike,
    claim: ObjectClaim,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[ObjectResult, EvaluationClips]:
    """
    Do the evaluation of a claim.

    Args:
        folder (`str` or `os.PathLike`):
            Folder or Hub id of a detector or a pose model with its processor.
        claim ([`ObjectClaim`]):
            Data and settings.
        batch_size (`int`, *optional*, defaults to 1):
            Images or crops in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of reading processes.
        device (`str`, *optional*, defaults to `"cpu"`):
            Device of the model.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        `tuple`: the result, and the images that were scored.

    Raises:
        ValueError: the model is another, or the data do not fit.
    """
    with loading("`folder`", folder):
        task = object_task(folder)
        if task is None:
            raise ValueError(f"{str(folder)!r} is neither a detector of objects nor a pose model")
        model = MODELS[task].from_pretrained(folder).to(device)
        processor = AutoImageProcessor.from_pretrained(folder)
    pose = task == "keypoint-detection"
    truth = claim.open([model.config.id2label[index] for index in range(model.config.num_labels)], pose)
    running: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "progress": progress}
    if not pose:
        return evaluate_object_detection(model, processor, truth, **running), EvaluationClips(truth)
    settings: Mapping[str, Any] = {
        "found_people": claim.people,
        "flip": claim.flip_test,
        "pck_threshold": claim.pck_threshold,
        "sigmas": claim.sigmas,
    }
    return evaluate_pose(model, processor, truth, **settings, **running), EvaluationClips(truth)


__all__ = ["MODELS", "evaluate_object_claim", "object_task"]
