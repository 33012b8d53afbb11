"""COCO's metrics of boxes, masks and keypoints, by pycocotools; and the share of correct keypoints."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ...data.coco_images import ObjectSource, coco_masks


IouType = Literal["bbox", "segm", "keypoints"]
SIZES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
POSES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
# Standard deviations of COCO's 17 keypoints, over the root of the area.
COCO_SIGMAS = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
OTHER_SIGMA = 0.05  # of keypoints of other sets


def keypoint_sigmas(names: Sequence[str], given: Sequence[float] | None = None) -> list[float]:
    """
    The standard deviations of the object keypoint similarity.

    Args:
        names (`Sequence[str]`):
            Names of the keypoints.
        given (`Sequence[float]`, *optional*):
            The values. By default COCO's for 17 keypoints that begin with the nose, else 0.05 each.

    Returns:
        `list[float]`: one a keypoint.

    Raises:
        ValueError: another number of values.
    """
    if given:
        if len(given) != len(names):
            raise ValueError(f"`sigmas` must be one for each of {len(names)} keypoints, got {len(given)}")
        return list(given)
    if len(names) == len(COCO_SIGMAS) and names[0] == "nose":
        return [one / 1000 for one in COCO_SIGMAS]
    return [OTHER_SIGMA] * len(names)


def coco_metrics(
    truth: ObjectSource,
    predictions: Sequence[Mapping[str, Any]],
    kind: IouType,
    sigmas: Sequence[float] | None = None,
) -> tuple[dict[str, float], dict[str, float | None]]:
    """
    COCO's metrics.

    Args:
        truth ([`ObjectSource`]):
            One sample an image. Images without predictions count.
        predictions (`Sequence[Mapping]`):
            COCO's results: `image_id`, `category_id`, `score` and `bbox`, `segmentation` or `keypoints`.
        kind (`str`):
            `"bbox"`, `"segm"` or `"keypoints"`.
        sigmas (`Sequence[float]`, *optional*):
            See [`keypoint_sigmas`]; needed for keypoints.

    Returns:
        `tuple[dict, dict]`: metrics by name, from 0 to 1, without those of sizes that do not occur; and the average
        precision of each category by name, `None` where there is no object.
    """
    coco_masks()  # names what is missing
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference = _indexed(truth, [entry for index in range(len(truth)) for entry in truth.row(index)[1]])
        found = _indexed(truth, [])
        if predictions:
            found = reference.loadRes([dict(one) for one in predictions])
        scorer = COCOeval(reference, found, kind)
        scorer.params.imgIds = truth.image_ids
        if sigmas is not None:
            scorer.params.kpt_oks_sigmas = np.array(sigmas)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    names = POSES if kind == "keypoints" else SIZES
    metrics = {name: float(value) for name, value in zip(names, scorer.stats) if value >= 0}
    precisions = scorer.eval["precision"][:, :, :, 0, -1]  # overlaps, recalls, categories
    by_id = dict(zip(scorer.params.catIds, np.moveaxis(precisions, 2, 0)))
    per_class = {}
    for category in truth.categories:
        known = by_id.get(category["id"], np.array([-1.0]))
        per_class[str(category["name"])] = float(known.mean()) if known.size and known.min() >= 0 else None
    return metrics, per_class


def _indexed(truth: ObjectSource, annotations: Sequence[dict[str, Any]]) -> Any:
    """pycocotools' index of annotations, with numbers of their own and the fields that it needs."""
    from pycocotools.coco import COCO

    entries = []
    for number, entry in enumerate(annotations, start=1):
        points = np.array(entry.get("keypoints", ()), dtype=float).reshape(-1, 3)
        counted = {"num_keypoints": int((points[:, 2] > 0).sum())} if len(points) else {}
        entries.append({**counted, **entry, "id": number})
    index = COCO()
    index.dataset = {
        "images": list({image["id"]: image for image, _ in map(truth.row, range(len(truth)))}.values()),
        "annotations": entries,
        "categories": [one for one in truth.categories if one["id"] is not None],
        "info": {},
    }
    index.createIndex()
    return index


def correct_keypoints(found: np.ndarray, truth: np.ndarray, sides: np.ndarray, threshold: float) -> float:
    """
    Share of labelled keypoints that are found (PCK).

    Args:
        found (`np.ndarray` of shape `(people, num_keypoints, 2)`):
            Predicted x and y in pixels; `nan` where there is no prediction.
        truth (`np.ndarray` of shape `(people, num_keypoints, 3)`):
            x, y and visibility, 0 for those without a label.
        sides (`np.ndarray` of shape `(people,)`):
            Longer side of each box in pixels.
        threshold (`float`):
            Largest distance as a share of that side.

    Returns:
        `float`: from 0 to 1; `nan` if no keypoint is labelled.
    """
    labelled = truth[..., 2] > 0
    near = np.linalg.norm(found - truth[..., :2], axis=-1) <= threshold * sides[:, None]
    return float(near[labelled].mean()) if labelled.any() else float("nan")


__all__ = ["IouType", "coco_metrics", "correct_keypoints", "keypoint_sigmas"]
