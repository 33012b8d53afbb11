"""
Tools for pose estimation: target heatmaps for training, flip test, and keypoints from heatmaps.

Two geometries are in use. In the official geometry of UniFormer, cell `x` of a heatmap is at pixel `4 x`. In the
unbiased geometry ([Huang et al., 2020](https://huggingface.co/papers/1911.07524)), the first and last cells are at the
first and last pixels. transformers' `VitPoseImageProcessor.post_process_pose_estimation` assumes the unbiased
geometry. Official UniFormer checkpoints were trained with the other one. For them it returns keypoints up to three
pixels of the crop too far right and low: use [`decode_heatmaps`] instead.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, VitPoseImageProcessor


Size = tuple[int, int]
TRUNCATION = 3  # a target ends at this many standard deviations
QUARTER = 0.25  # of a cell: shift of a peak towards its larger neighbour
BOX_PADDING = 1.25  # of a person's box before cropping, as in `VitPoseImageProcessor`


def flip_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """
    Pairs of keypoints that a horizontal flip exchanges: their names differ in `left` and `right`.

    Args:
        names (`Sequence[str]`):
            Names of all keypoints in order, such as `list(config.id2label.values())`.

    Returns:
        `list[tuple[int, int]]`: indices of the left and the right one.

    Raises:
        ValueError: a name has no counterpart, or no name contains `left`.

    Example:

    ```python
    >>> from hf_videovit.dense.pose import flip_pairs

    >>> flip_pairs(["nose", "left_eye", "right_eye"])
    [(1, 2)]
    ```"""
    index = {name: number for number, name in enumerate(names)}
    pairs = []
    for name in names:
        for side, other in (("left", "right"), ("right", "left")):
            if side in name and name.replace(side, other) not in index:
                raise ValueError(f"`names` has {name!r} but no {name.replace(side, other)!r}.")
        if "left" in name:
            pairs.append((index[name], index[name.replace("left", "right")]))
    if not pairs:
        raise ValueError(f"`names` must say which keypoints are left and right, got {list(names)}.")
    return pairs


def unflip_heatmaps(heatmaps: torch.Tensor, pairs: Sequence[tuple[int, int]], *, shift: bool = True) -> torch.Tensor:
    """
    Convert the heatmaps of a flipped image to those of the image itself.

    Args:
        heatmaps (`torch.Tensor` of shape `(batch_size, num_keypoints, height, width)`):
            Output for the flipped image.
        pairs (`Sequence[tuple[int, int]]`):
            Keypoints to exchange; see [`flip_pairs`].
        shift (`bool`, *optional*, defaults to `True`):
            Whether to shift the heatmaps one cell to the right, keeping the first column. In the official geometry
            cell 0 is at pixel 0 and the last cell at the fourth pixel from the end, so a flip is off by three quarters
            of a cell. A model trained in the unbiased geometry needs no shift.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_keypoints, height, width)`.

    Raises:
        ValueError: `pairs` contains an unknown keypoint, or one twice.
    """
    flat = [index for pair in pairs for index in pair]
    if len(set(flat)) != len(flat) or not all(0 <= index < heatmaps.shape[1] for index in flat):
        raise ValueError(
            f"`pairs` must contain each of {heatmaps.shape[1]} keypoints at most once, got {list(pairs)}."
        )
    order = list(range(heatmaps.shape[1]))
    for left, right in pairs:
        order[left], order[right] = right, left
    heatmaps = heatmaps[:, order].flip(-1)
    return torch.cat((heatmaps[..., :1], heatmaps[..., :-1]), dim=-1) if shift else heatmaps


@torch.no_grad()
def flip_test(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    pairs: Sequence[tuple[int, int]] | None = None,
    *,
    shift: bool = True,
) -> torch.Tensor:
    """
    Mean of the heatmaps of images and of their flipped copies, the protocol of the published numbers.

    Args:
        model (`PreTrainedModel`):
            Pose estimator whose output has `heatmaps`.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Normalised crops.
        pairs (`Sequence[tuple[int, int]]`, *optional*):
            Keypoints that a flip exchanges. Defaults to the pairs of the names in the model's configuration.
        shift (`bool`, *optional*, defaults to `True`):
            See [`unflip_heatmaps`].

    Returns:
        `torch.Tensor` of shape `(batch_size, num_keypoints, height / 4, width / 4)`.

    Raises:
        ValueError: `pairs` does not fit, or is needed because the configuration has no names with left and right.
    """
    if pairs is None:
        pairs = flip_pairs([model.config.id2label[index] for index in range(model.config.num_labels)])
    heatmaps = model(pixel_values).heatmaps
    mirrored = unflip_heatmaps(model(pixel_values.flip(-1)).heatmaps, pairs, shift=shift)
    return (heatmaps + mirrored) / 2


def estimate_poses(
    model: PreTrainedModel,
    processor: VitPoseImageProcessor,
    images: Sequence[Any],
    boxes: Sequence[Sequence[Sequence[float]]],
    *,
    flip: bool = True,
    unbiased: bool = False,
) -> list[list[dict[str, torch.Tensor]]]:
    """
    Keypoints of persons with known boxes, by the official protocol: crop, flip test, decoding.

    Args:
        model (`PreTrainedModel`):
            Pose estimator whose output has `heatmaps`, in evaluation mode.
        processor (`VitPoseImageProcessor`):
            Crops the images to the size that the model was trained with.
        images (`Sequence`):
            Images in RGB, in any form that the processor accepts.
        boxes (`Sequence[Sequence[Sequence[float]]]`):
            Left, top, width and height in pixels of each person in each image.
        flip (`bool`, *optional*, defaults to `True`):
            Whether to average with the flipped crops, see [`flip_test`].
        unbiased (`bool`, *optional*, defaults to `False`):
            Whether the model was trained in the unbiased geometry, see the module.

    Returns:
        `list[list[dict]]`: for each image and person, `keypoints` of shape `(num_keypoints, 2)`, x and y in pixels of
        the image, and `scores` of shape `(num_keypoints,)`.

    Raises:
        ValueError: the numbers of images and of lists of boxes differ; or as in [`flip_test`].
    """
    if len(images) != len(boxes):
        raise ValueError(f"`boxes` must have one list for each of {len(images)} images, got {len(boxes)}.")
    flat = [box for persons in boxes for box in persons]
    if not flat:
        return [[] for _ in images]
    plain = [[list(map(float, box)) for box in persons] for persons in boxes]
    crops = processor(list(images), boxes=plain, return_tensors="pt").pixel_values.to(model.device)
    size = tuple(crops.shape[-2:])
    with torch.no_grad():
        heatmaps = flip_test(model, crops, shift=not unbiased) if flip else model(crops).heatmaps
    keypoints, scores = decode_heatmaps(heatmaps.cpu(), size, unbiased=unbiased)
    keypoints = keypoints_in_image(keypoints, torch.tensor(flat), size)
    persons = iter([{"keypoints": one, "scores": score} for one, score in zip(keypoints, scores, strict=True)])
    return [[next(persons) for _ in one] for one in boxes]


def _cells_per_pixel(heatmap_size: Size, image_size: Size, unbiased: bool, like: torch.Tensor) -> torch.Tensor:
    """Factors of x and y."""
    less = int(unbiased)
    factors = [(cells - less) / (pixels - less) for cells, pixels in zip(heatmap_size[::-1], image_size[::-1])]
    return torch.tensor(factors, dtype=like.dtype).to(like.device, non_blocking=True)


def encode_heatmaps(
    keypoints: torch.Tensor,
    visible: torch.Tensor,
    image_size: Size,
    *,
    sigma: float = 2.0,
    stride: int = 4,
    unbiased: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Target heatmaps: a Gaussian with a peak of 1 around each keypoint, zero beyond three standard deviations.

    Args:
        keypoints (`torch.Tensor` of shape `(batch_size, num_keypoints, 2)`):
            x and y in pixels of the crop; the centre of the first pixel is 0.
        visible (`torch.Tensor` of shape `(batch_size, num_keypoints)`):
            Weight of each keypoint; 0 or `False` if it is not labelled.
        image_size (`tuple[int, int]`):
            Height and width of the crop.
        sigma (`float`, *optional*, defaults to 2.0):
            Standard deviation in cells. Official: 2 at 256 x 192, 3 at 384 x 288 and 448 x 320.
        stride (`int`, *optional*, defaults to 4):
            Pixels per cell.
        unbiased (`bool`, *optional*, defaults to `False`):
            Whether to use the unbiased geometry, see the module. The official one also rounds the peak to a cell.

    Returns:
        `tuple`: `labels` of shape `(batch_size, num_keypoints, height / stride, width / stride)`, and
        `keypoint_weights` of shape `(batch_size, num_keypoints)`, which are also 0 if no part of a target is on the
        map.

    Raises:
        ValueError: `sigma` is not positive, or a shape does not fit.
    """
    if sigma <= 0:
        raise ValueError(f"`sigma` must be positive, got {sigma}.")
    if keypoints.ndim != 3 or keypoints.shape[-1] != 2 or visible.shape != keypoints.shape[:2]:
        raise ValueError(
            "`keypoints` must have shape (batch_size, num_keypoints, 2) and `visible` (batch_size, num_keypoints), "
            f"got {tuple(keypoints.shape)} and {tuple(visible.shape)}."
        )
    heatmap_size = (image_size[0] // stride, image_size[1] // stride)
    peaks = keypoints.float() * _cells_per_pixel(heatmap_size, image_size, unbiased, keypoints.float())
    peaks = peaks if unbiased else (peaks + 0.5).trunc()
    reach = TRUNCATION * sigma
    labels, on_map = torch.ones(1, device=keypoints.device), torch.ones_like(visible, dtype=torch.bool)
    for peak, cells, shape in ((peaks[..., 0], heatmap_size[1], (1, -1)), (peaks[..., 1], heatmap_size[0], (-1, 1))):
        distances = torch.arange(cells, device=peaks.device) - peak[..., None]  # (batch, keypoints, cells)
        bell = torch.exp(-(distances**2) / (2 * sigma**2)) * (distances.abs() <= reach)
        labels = labels * bell.unflatten(-1, shape)
        on_map = on_map & (peak - reach < cells) & (peak + reach + 1 >= 0)
    weights = visible.float() * on_map
    return labels * (weights > 0)[..., None, None], weights


def decode_heatmaps(
    heatmaps: torch.Tensor, image_size: Size, *, unbiased: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Keypoints by the official post-processing: the highest cell, shifted by a quarter of a cell towards its larger
    neighbour along each axis unless it is at the edge.

    Args:
        heatmaps (`torch.Tensor` of shape `(batch_size, num_keypoints, height, width)`):
            Output of a model or of [`flip_test`].
        image_size (`tuple[int, int]`):
            Height and width of the crop in pixels.
        unbiased (`bool`, *optional*, defaults to `False`):
            Whether the model was trained in the unbiased geometry, see the module.

    Returns:
        `tuple`: x and y in pixels of the crop, of shape `(batch_size, num_keypoints, 2)`, and the heights of the peaks
        as scores, of shape `(batch_size, num_keypoints)`.
    """
    height, width = heatmaps.shape[-2:]
    scores, flat = heatmaps.float().flatten(2).max(dim=-1)
    column, row = flat % width, flat // width
    padded = torch.nn.functional.pad(heatmaps.float(), (1, 1, 1, 1)).flatten(2)

    def neighbour(right: int, down: int) -> torch.Tensor:
        return padded.gather(2, ((row + 1 + down) * (width + 2) + column + 1 + right)[..., None])[..., 0]

    # the official code also leaves the second row and column alone
    inside = (column > 1) & (column < width - 1) & (row > 1) & (row < height - 1)
    differences = torch.stack((neighbour(1, 0) - neighbour(-1, 0), neighbour(0, 1) - neighbour(0, -1)), dim=-1)
    cells = torch.stack((column, row), dim=-1) + QUARTER * differences.sign() * inside[..., None]
    return cells / _cells_per_pixel((height, width), image_size, unbiased, cells), scores


def keypoints_in_image(keypoints: torch.Tensor, boxes: torch.Tensor, image_size: Size) -> torch.Tensor:
    """
    Undo the crop of transformers' `VitPoseImageProcessor`.

    Args:
        keypoints (`torch.Tensor` of shape `(num_boxes, num_keypoints, 2)`):
            x and y in pixels of the crop.
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`):
            Left, top, width and height of the persons, as given to the processor.
        image_size (`tuple[int, int]`):
            Height and width of the crop.

    Returns:
        `torch.Tensor` of shape `(num_boxes, num_keypoints, 2)`: x and y in pixels of the image.
    """
    height, width = image_size
    boxes = boxes.to(keypoints)
    sides = boxes[:, 2:]
    # the box grows to the shape of the crop, then by a quarter
    wide = torch.maximum(sides[:, 0], sides[:, 1] * width / height)
    grown = BOX_PADDING * torch.stack((wide, wide * height / width), dim=-1)
    last = keypoints.new_tensor([width - 1, height - 1])
    return (keypoints / last - 0.5) * grown[:, None] + (boxes[:, :2] + sides / 2)[:, None]


__all__ = [
    "decode_heatmaps",
    "encode_heatmaps",
    "estimate_poses",
    "flip_pairs",
    "flip_test",
    "keypoints_in_image",
    "unflip_heatmaps",
]
