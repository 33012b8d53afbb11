"""Data and settings in the `results.json` of an action detector, and the same evaluation again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transformers import AutoVideoProcessor

from ...auto import AutoModelForActionDetection
from ..data.key_frame_source import KeyFrameSource, find_key_frames, open_key_frames
from .action_detection import ActionDetectionResult, evaluate_action_detection
from .claims import Claim
from .held_out import EvaluationClips, count_trained_on


@dataclass(frozen=True)
class DetectionClaim(Claim):
    """
    The data and settings of an evaluation of action detection, as `results.json` records them.

    Args:
        data (`str`):
            The annotations (JSON lines).
        data_root (`str`, *optional*):
            Folder of the videos. Defaults to that of the annotations.
        people (`str`, *optional*):
            JSON lines with the detected people; `None` for annotated boxes.
        person_threshold (`float`, *optional*, defaults to 0.8):
            Lowest score of a detected person.
        excluded (`str`, *optional*):
            csv of video and timestamp of key-frames that are left out.
        offset (`float`, *optional*, defaults to 0.0):
            Timestamp of the start of each video in `excluded`, in seconds.
        max_samples (`int`, *optional*):
            Largest number of key-frames; more are sampled by `seed`.
        seed (`int`, *optional*, defaults to 0):
            Seed of the run.
    """

    files: ClassVar[tuple[tuple[str, str], ...]] = (("data", "data"), ("people", "boxes"), ("excluded", "excluded"))

    data: str
    data_root: str | None = None
    people: str | None = None
    person_threshold: float = 0.8
    excluded: str | None = None
    offset: float = 0.0
    max_samples: int | None = None
    seed: int = 0

    def open(self, label_names: Sequence[str]) -> tuple[KeyFrameSource, KeyFrameSource | None]:
        """
        Open the key-frames.

        Args:
            label_names (`Sequence[str]`):
                Labels of the model.

        Returns:
            `tuple`: the annotations, and the detected people if there are any.

        Raises:
            ValueError: a file has no key-frames, or other labels.
        """
        path = find_key_frames(self.data, None if os.path.isdir(self.data) else "train")
        if path is None:
            raise ValueError(f"`data` {self.data!r} has no file of key-frames to evaluate on, such as val.jsonl")
        root = path.parent if self.data_root is None else self.data_root
        truth = open_key_frames(path, root, label_names)
        people = None if self.people is None else open_key_frames(self.people, root, label_names)
        if self.max_samples is not None:
            truth = truth.sample(self.max_samples, self.seed)
            people = people and people.on_key_frames_of(truth)
        return truth, people


def evaluate_again(
    folder: str | os.PathLike,
    claim: DetectionClaim,
    metric: str = "ava",
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[ActionDetectionResult, EvaluationClips]:
    """
    Do the evaluation of a claim.

    Args:
        folder (`str` or `os.PathLike`):
            A folder with a saved action detector and its processor.
        claim ([`DetectionClaim`]):
            Data and settings.
        metric (`str`, *optional*, defaults to `"ava"`):
            See [`evaluate_action_detection`].
        batch_size (`int`, *optional*, defaults to 1):
            Clips in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of decoding processes.
        device (`str`, *optional*, defaults to `"cpu"`):
            Device of the model.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        `tuple`: the result, and the key-frames that were scored.
    """
    model = AutoModelForActionDetection.from_pretrained(folder).to(device)
    processor = AutoVideoProcessor.from_pretrained(folder)
    truth, people = claim.open([model.config.id2label[index] for index in range(model.config.num_labels)])
    result = evaluate_action_detection(
        model,
        processor,
        truth,
        people=people,
        person_threshold=claim.person_threshold,
        excluded=claim.excluded,
        offset=claim.offset,
        metric=metric,
        batch_size=batch_size,
        num_workers=num_workers,
        progress=progress,
    )
    return result, EvaluationClips(truth, trained_on=count_trained_on(str(folder), truth))


__all__ = ["DetectionClaim", "evaluate_again"]
