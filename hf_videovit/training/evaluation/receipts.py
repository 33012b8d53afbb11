"""
Whether a model is as good as its folder says: the evaluation behind `results.json`, run again.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from ..arguments import DataArguments
from ..data.opening import load_evaluation_source
from .evaluation import EvaluationResult, describe_protocol, evaluate_model


@dataclass(frozen=True)
class Reproduction:
    """
    What was claimed beside what came out.

    Args:
        claimed (`Mapping[str, float]`):
            The metrics of `results.json`.
        measured (`Mapping[str, float]`):
            The same metrics, measured now.
        same_videos (`bool` or `None`):
            Whether the videos and their labels are those of the claim, by the hash of their list; `None` where the
            claim names none.
        changed_protocol (`Mapping[str, tuple]`):
            Settings of frames, clips, crops and normalisation that differ: claimed and present value.
        result ([`EvaluationResult`]):
            The evaluation.
        tolerance (`float`):
            Largest difference of a metric that counts as the same.
    """

    claimed: Mapping[str, float]
    measured: Mapping[str, float]
    same_videos: bool | None
    changed_protocol: Mapping[str, tuple[Any, Any]]
    result: EvaluationResult
    tolerance: float = 0.0

    @property
    def differences(self) -> dict[str, float]:
        """Measured minus claimed, of each metric that was claimed; `nan` for one that could not be measured."""
        return {name: self.measured.get(name, float("nan")) - value for name, value in self.claimed.items()}

    @property
    def confirmed(self) -> bool:
        """Whether every metric came out as claimed, on the same videos."""
        close = all(abs(difference) <= self.tolerance for difference in self.differences.values())
        return close and self.same_videos is not False


def reproduce(
    folder: str | os.PathLike,
    *,
    data: str | None = None,
    split: str | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    device: str = "cpu",
    tolerance: float = 1e-9,
    progress: bool = False,
) -> Reproduction:
    """
    Run the evaluation that a model's `results.json` claims, and compare.

    Args:
        folder (`str` or `os.PathLike`):
            A folder with a saved classifier, its processor and `results.json`.
        data (`str`, *optional*):
            Where the videos are now. Defaults to what `results.json` names; a published one names no folders.
        split (`str`, *optional*):
            Split of the data. Likewise.
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Decoding processes.
        device (`str`, *optional*, defaults to `"cpu"`):
            Where the model computes. Another device than that of the claim changes the last digits of the scores.
        tolerance (`float`, *optional*, defaults to 1e-9):
            Largest difference of a metric (as a share of one) that counts as the same.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a bar.

    Returns:
        [`Reproduction`]

    Raises:
        ValueError: the folder claims nothing, or its data is not found.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise ValueError(f"`folder` {str(folder)!r} holds no results.json: it claims nothing that could be checked")
    claim = json.loads(path.read_text(encoding="utf-8"))
    data = data or claim.get("data")
    if data is None:
        raise ValueError(f"`data` is needed: {str(path)!r} does not say what was measured")
    arguments = DataArguments(eval_data=data, eval_split=split or claim.get("split"))
    arguments.max_eval_samples = claim.get("max_samples")
    model = AutoModelForVideoClassification.from_pretrained(folder).to(device)
    processor = AutoVideoProcessor.from_pretrained(folder)
    result = evaluate_model(
        model,
        processor,
        load_evaluation_source(arguments, claim.get("seed", 0)),
        batch_size=batch_size,
        num_workers=num_workers,
        sampling_mode=claim.get("protocol", {}).get("sampling_mode"),
        progress=progress,
    )
    claimed_hash = claim.get("manifest_sha256")
    return Reproduction(
        claim["metrics"],
        result.metrics,
        None if claimed_hash is None else claimed_hash == result.manifest,
        _changes(claim.get("protocol", {}), describe_protocol(model, processor)),
        result,
        tolerance,
    )


def _changes(claimed: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (value, present[name])
        for name, value in claimed.items()
        if name in present and name != "sampling_mode" and present[name] != value
    }
