"""Reproduction of the scores in a model's `results.json`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForVideoClassification, AutoVideoProcessor

from ...files import loading
from ...modeling.configuration_uniformer_dense import UniFormerSegmenterConfig
from ..arguments import DataArguments
from .action_detection import ActionDetectionResult
from .detection_receipts import DetectionClaim, evaluate_again
from .evaluation import EvaluationResult, describe_protocol, evaluate_model
from .held_out import HELD_OUT, EvaluationClips, open_clips, read_claim
from .localization_receipts import LocalizationClaim, evaluate_localization_claim, is_localizer
from .object_receipts import evaluate_object_claim, object_task
from .object_results import ObjectClaim, ObjectResult
from .semantic_segmentation import SegmentationClaim, SegmentationResult, evaluate_segmenter
from .temporal_localization import LocalizationResult


Result = EvaluationResult | ActionDetectionResult | LocalizationResult | SegmentationResult | ObjectResult


@dataclass(frozen=True)
class Reproduction:
    """
    Claimed and measured scores of a model.

    Args:
        claimed (`Mapping[str, float]`):
            Metrics of `results.json`.
        measured (`Mapping[str, float]`):
            The same metrics, measured now.
        same_videos (`bool` or `None`):
            Whether videos and labels, and for action detection the boxes, are those of the claim, by the hash of their
            list; `None` if the claim has no hash.
        changed_protocol (`Mapping[str, tuple]`):
            Settings of frames, clips, crops and normalisation that differ: claimed and present value by name.
        result ([`EvaluationResult`] or the result of another task):
            The evaluation.
        clips ([`EvaluationClips`]):
            The clips that were scored.
        tolerance (`float`, *optional*, defaults to 0.0):
            Largest accepted difference of a metric.
    """

    claimed: Mapping[str, float]
    measured: Mapping[str, float]
    same_videos: bool | None
    changed_protocol: Mapping[str, tuple[Any, Any]]
    result: Result
    clips: EvaluationClips
    tolerance: float = 0.0

    @property
    def differences(self) -> dict[str, float]:
        """Measured minus claimed value of each claimed metric; `nan` if it could not be measured."""
        return {name: self.measured.get(name, float("nan")) - value for name, value in self.claimed.items()}

    @property
    def confirmed(self) -> bool:
        """Whether every metric was measured as claimed, on the same videos."""
        close = all(abs(difference) <= self.tolerance for difference in self.differences.values())
        return close and self.same_videos is not False


def reproduce(
    folder: str | os.PathLike,
    *,
    data: str | None = None,
    split: str | None = None,
    videos: str | None = None,
    features: str | None = None,
    boxes: str | None = None,
    excluded: str | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    device: str = "cpu",
    tolerance: float = 1e-9,
    progress: bool = False,
) -> Reproduction:
    """
    Repeat the evaluation of a model's `results.json` and compare the scores.

    Args:
        folder (`str` or `os.PathLike`):
            A folder with a saved classifier, action detector, localiser, detector of objects or pose model, its
            processor and `results.json`.
        data (`str`, *optional*):
            The videos; for action detection and temporal localisation the annotations. Defaults to the data named in
            `results.json`; published files name no folders.
        split (`str`, *optional*):
            Split of the data. Defaults to the split named in `results.json`. Not for action detection.
        videos (`str`, *optional*):
            For action detection and localisers with an encoder: folder of the videos, if it is not that of
            `results.json`; for objects and poses: folder of the images.
        features (`str`, *optional*):
            For temporal localisation: features of the videos, if they are not those of `results.json`.
        boxes (`str`, *optional*):
            For action detection: file of the detected people, if it is not that of `results.json`.
        excluded (`str`, *optional*):
            For action detection: csv of key-frames that are left out; for temporal localisation: names of videos that
            are left out. If it is not that of `results.json`.
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of decoding processes.
        device (`str`, *optional*, defaults to `"cpu"`):
            Device of the model. A device other than that of the claim changes the last digits of the scores.
        tolerance (`float`, *optional*, defaults to 1e-9):
            Largest accepted difference of a metric, where metrics are between 0 and 1.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`Reproduction`]

    Raises:
        ValueError: the folder has no `results.json`, `data` is needed, or an argument is for other models.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise ValueError(f"`folder` {str(folder)!r} has no results.json, so there are no scores to reproduce")
    claim = read_claim(str(folder))
    data = data or claim.get("data")
    if data is None:
        raise ValueError(f"`data` is needed: {str(path)!r} does not name its data")
    if not claim.get("metrics"):
        raise ValueError(f"`folder`: {str(path)!r} has no `metrics`, so there are no scores to reproduce")
    running: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "progress": progress}
    if is_localizer(folder):
        _refuse_given(folder, "action detectors", boxes=boxes)
        moved = {"data": data, "split": split, "features": features, "videos_folder": videos, "excluded": excluded}
        return _localized(folder, claim, moved, device, tolerance, running)
    _refuse_given(folder, "localisers", features=features)
    if object_task(folder) is not None:
        _refuse_given(folder, "action detectors", split=split, excluded=excluded)
        objects = ObjectClaim.read(claim, data=data, data_root=videos, people=boxes)
        found, images = evaluate_object_claim(folder, objects, device=device, **running)
        return _compared(claim, found, images, found.protocol, tolerance)
    moved = {"data_root": videos, "people": boxes, "excluded": excluded}
    config = AutoConfig.from_pretrained(folder)
    if isinstance(config, UniFormerSegmenterConfig):
        _refuse_given(folder, "action detectors", boxes=boxes, excluded=excluded)
        segmentation = SegmentationClaim.read(claim, data=data, split=split, data_root=videos)
        running.pop("batch_size")
        scored, source = evaluate_segmenter(folder, segmentation, device=device, **running)
        return _compared(claim, scored, EvaluationClips(source), scored.protocol, tolerance)
    if getattr(config, "detection_config", None) is None:
        _refuse_given(folder, "action detectors", videos=videos, boxes=boxes, excluded=excluded)
        return _classified(folder, claim, data, split, device, tolerance, running)
    if split is not None:
        raise ValueError("`split` is not for action detection: `data` names the file of the annotations")
    detection = DetectionClaim.read(claim, data=data, **moved)
    metric = claim.get("protocol", {}).get("metric", "ava")
    result, clips = evaluate_again(folder, detection, metric, device=device, **running)
    return _compared(claim, result, clips, result.protocol, tolerance)


def _localized(
    folder: str | os.PathLike,
    claim: Mapping[str, Any],
    moved: Mapping[str, str | None],
    device: str,
    tolerance: float,
    running: Mapping[str, Any],
) -> Reproduction:
    known = dict(claim)
    for name, other in (("features", "videos_folder"), ("videos_folder", "features")):
        if moved[name] is not None and moved[other] is None:
            known[other] = None  # the caller's choice between both
    found = LocalizationClaim.read(known, **moved)
    overlaps = claim.get("protocol", {}).get("overlaps", "activitynet")
    result, scored = evaluate_localization_claim(folder, found, overlaps, device=device, **running)
    return _compared(claim, result, scored, result.protocol, tolerance)


def _refuse_given(folder: str | os.PathLike, kind: str, **options: str | None) -> None:
    """ValueError for an option of other models."""
    if given := [name for name, value in options.items() if value is not None]:
        raise ValueError(f"`{given[0]}` is for {kind}, and {str(folder)!r} is none")


def _classified(
    folder: str | os.PathLike,
    claim: Mapping[str, Any],
    data: str,
    split: str | None,
    device: str,
    tolerance: float,
    running: Mapping[str, Any],
) -> Reproduction:
    held_out = claim.get(HELD_OUT)
    arguments = DataArguments(
        eval_data=data,
        eval_split=split or (None if held_out else claim.get("split")),
        max_eval_samples=None if held_out else claim.get("max_samples"),
        **claim.get("reading", {}),
    )
    clips = open_clips(str(folder), claim, arguments, all_clips=claim.get("all_clips", False))
    with loading("`folder`", folder):
        model = AutoModelForVideoClassification.from_pretrained(folder).to(device)
        processor = AutoVideoProcessor.from_pretrained(folder)
    result = evaluate_model(
        model,
        processor,
        clips.source,
        sampling_mode=claim.get("protocol", {}).get("sampling_mode"),
        **running,
    )
    return _compared(claim, result, clips, describe_protocol(model, processor), tolerance)


def _compared(
    claim: Mapping[str, Any],
    result: Result,
    clips: EvaluationClips,
    protocol: Mapping[str, Any],
    tolerance: float,
) -> Reproduction:
    claimed_hash = claim.get("manifest_sha256")
    return Reproduction(
        claim["metrics"],
        result.metrics,
        None if claimed_hash is None else claimed_hash == result.manifest,
        _changes(claim.get("protocol", {}), protocol),
        result,
        clips,
        tolerance,
    )


def _changes(claimed: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (value, present[name])
        for name, value in claimed.items()
        if name in present and name != "sampling_mode" and present[name] != value
    }
