"""Checkpoints of tasks that a converter does not support: recognised by their names, refused with what they are."""

import re
from dataclasses import replace

from .keys import Checkpoint


FEATURES = "feature-extraction"
DETECTION_TASK = "action-detection"
LOCALISATION_TASK = "temporal-action-localization"
# Tasks on images, whose detectors are others than those of actions.
DENSE = ("backbone", "keypoint-detection", "object-detection", "semantic-segmentation")
# Names that only one kind of checkpoint has, whatever wraps the model, and that kind in words.
LOCALISATION = (
    (
        re.compile(r"(?:.+\.)?(?:cls_head\.cls_head|reg_head\.offset_head)\.conv\.weight"),
        "ActionFormer, TriDet or a relative",
    ),
    (re.compile(r"(?:.+\.)?rpn_head\.(?:cls|reg|start|end|offset)_.+"), "OpenTAD"),
)
ADAPTERS = re.compile(r"(?:.+\.)?blocks\.\d+\.adapter\..+")
# OpenTAD's wrapper of an encoder, around MMAction2's, and the localiser beside it.
OPENTAD_WRAPPERS = r"(?:_orig_mod\.|module\.)*"
OPENTAD_ENCODER = re.compile(OPENTAD_WRAPPERS + r"backbone\.(?:model\.)?(?:backbone\.)?(.+)")
OPENTAD_HEAD = re.compile(OPENTAD_WRAPPERS + r"(?:projection|rpn_head)\..+")
# Heads that classify boxes. Those of detectors of objects also move the boxes (`fc_reg`) or propose them (`rpn_head`).
DETECTION = (
    (re.compile(r"(?:.+\.)?roi_head\.bbox_head\.fc_cls\..+"), "MMAction2"),
    (re.compile(r"(?:.+\.)?roi_heads\.action\..+"), "AlphAction"),
    (re.compile(r"(?:.+\.)?head\.(?:hr2o|conv1|conv2)\..+"), "InternVideo, with relations between actors"),
)
UNSUPPORTED_DETECTORS = tuple(layout for _, layout in DETECTION if layout != "MMAction2")
OBJECTS = re.compile(r"(?:.+\.)?(?:rpn_head|roi_head\.bbox_head(?:\.\d+)?\.fc_reg)\..+")
DETECTION_HEAD = re.compile(r"(?:.+\.)?roi_heads?\..+")


def refuse_other_kinds(checkpoint: Checkpoint, task: str) -> None:
    """
    Check that a file is of the task of the new model.

    Args:
        checkpoint ([`~convert.keys.Checkpoint`]):
            The opened file.
        task (`str`):
            Task of the new model.

    Raises:
        ValueError: the file is of temporal action localisation and `task` is not, or of action detection and `task`
            is a classifier's or pretraining.
    """
    for pattern, source in LOCALISATION if task != LOCALISATION_TASK else ():
        if name := _first(pattern, checkpoint):
            raise ValueError(
                f"{checkpoint.name} is a temporal-localisation checkpoint ({source}): `{name}` finds actions in a "
                f"sequence of features. Convert it as the family 'actionformer', with task={LOCALISATION_TASK!r}."
            )
    alone = not any(_first(pattern, checkpoint) for pattern, _ in LOCALISATION)
    if alone and task != FEATURES and (name := _first(ADAPTERS, checkpoint)):
        raise ValueError(
            f"{checkpoint.name} is the encoder of a temporal-localisation model (AdaTAD): `{name}` is part of an "
            f"adapter. Convert it as the family 'videomae_v2', with task={FEATURES!r}."
        )
    layout, name = _detection(checkpoint)
    if layout in UNSUPPORTED_DETECTORS and task == DETECTION_TASK:
        raise ValueError(
            f"{checkpoint.name} is an action-detection checkpoint ({layout}): `{name}` is part of a head that no "
            f"model here has. Its encoder can be converted, with task={FEATURES!r}."
        )
    if name and task not in (FEATURES, DETECTION_TASK, *DENSE):
        raise ValueError(
            f"{checkpoint.name} is an action-detection checkpoint ({layout}): `{name}` is part of a classifier of "
            f"boxes around people, not of videos, so it cannot be converted with task={task!r}. Use "
            f"task={DETECTION_TASK!r}, or task={FEATURES!r} for its encoder."
        )


def holds_encoder(checkpoint: Checkpoint) -> bool:
    """
    Whether a file of OpenTAD has an encoder beside the localiser.

    Args:
        checkpoint ([`~convert.keys.Checkpoint`]):
            The opened file.

    Returns:
        `bool`
    """
    found = (OPENTAD_ENCODER.fullmatch(name) for name in checkpoint.shapes)
    of_encoder = any(match and match[1].startswith(("patch_embed.", "blocks.")) for match in found)
    return of_encoder and any(OPENTAD_HEAD.fullmatch(name) for name in checkpoint.shapes)


def without_box_classifier(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, str]]:
    """
    Leave out the head of an action detector.

    Args:
        checkpoint ([`~convert.keys.Checkpoint`]):
            The opened file.

    Returns:
        `tuple[Checkpoint, dict[str, str]]`: the other weights, and the names that are left out, each with the reason.
    """
    if not _detection(checkpoint)[1]:
        return checkpoint, {}
    head = [name for name in checkpoint.shapes if DETECTION_HEAD.fullmatch(name)]
    shapes = {name: shape for name, shape in checkpoint.shapes.items() if name not in head}
    return replace(checkpoint, shapes=shapes), dict.fromkeys(head, "features need no classifier of boxes")


def _detection(checkpoint: Checkpoint) -> tuple[str, str]:
    """Layout of an action detector and a name of its head; empty for any other file."""
    if _first(OBJECTS, checkpoint):
        return "", ""
    return next(((source, name) for pattern, source in DETECTION if (name := _first(pattern, checkpoint))), ("", ""))


def _first(pattern: re.Pattern[str], checkpoint: Checkpoint) -> str:
    return next((name for name in checkpoint.shapes if pattern.fullmatch(name)), "")
