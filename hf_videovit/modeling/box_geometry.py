"""
Boxes around people on their way through resizing, cropping and flipping.

Two conventions: the lower right corner of an `"exclusive"` box lies just outside (torchvision, COCO), that of an
`"inclusive"` one is the last pixel inside (the official VideoMAE code). Users see exclusive boxes only.
"""

from collections.abc import Sequence

import torch


BOX_FORMATS = ("xyxy", "xywh", "cxcywh")


def to_corners(
    boxes: torch.Tensor, size: Sequence[int], box_format: str, normalized: bool, convention: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Boxes as people give them to corners inside the frame. Boxes without area inside the frame are left out.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`):
            Boxes with exclusive corners.
        size (`Sequence[int]`):
            Height and width of the frame in pixels.
        box_format (`str`):
            `"xyxy"` (corners), `"xywh"` (corner, width, height) or `"cxcywh"` (centre, width, height).
        normalized (`bool`):
            Whether numbers are shares of width and height; pixels otherwise.
        convention (`str`):
            Of the corners that are returned: `"exclusive"` or `"inclusive"`.

    Returns:
        `tuple`: corners `(num_kept, 4)` in pixels, and the rows that are kept.

    Raises:
        ValueError: `box_format` is unknown, a number is not finite, or shares lie outside 0 to 1.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"`box_format` must be one of {BOX_FORMATS}, got {box_format!r}.")
    if not boxes.isfinite().all():
        raise ValueError("`boxes` must be finite numbers, got NaN or infinity.")
    if normalized and boxes.numel() and not (boxes.min() >= 0 and boxes.max() <= 1):
        raise ValueError(
            f"`boxes` must lie between 0 and 1 with `normalized=True`, got {boxes.min():g} to {boxes.max():g}."
        )
    height, width = size
    if normalized:
        boxes = boxes * boxes.new_tensor((width, height, width, height))
    if box_format == "cxcywh":
        boxes = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), dim=1)
    offset = 1 if convention == "inclusive" else 0
    extents = boxes[:, 2:] - boxes[:, :2] if box_format == "xyxy" else boxes[:, 2:]
    corners = torch.cat((boxes[:, :2], boxes[:, :2] + (extents - offset).clamp(min=0)), dim=1)
    limits = boxes.new_tensor((width - offset, height - offset)).repeat(2)
    corners = corners.clamp(min=0).minimum(limits)
    kept = (corners[:, 2:] > corners[:, :2]).all(dim=1).nonzero().flatten()
    return corners[kept], kept


def scale_boxes(boxes: torch.Tensor, size: Sequence[int], new_size: Sequence[int]) -> torch.Tensor:
    """
    Boxes of a frame after resizing it.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`):
            Corners in pixels.
        size (`Sequence[int]`):
            Height and width before.
        new_size (`Sequence[int]`):
            Height and width after.

    Returns:
        `torch.Tensor` of shape `(num_boxes, 4)`.
    """
    return boxes * boxes.new_tensor((new_size[1] / size[1], new_size[0] / size[0])).repeat(2)


def crop_boxes(boxes: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    """
    Boxes of a frame after cropping it. Boxes outside the crop keep a place at its edge, without area.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`):
            Corners in pixels.
        top, left (`int`):
            First row and column of the crop.
        height, width (`int`):
            Size of the crop.

    Returns:
        `torch.Tensor` of shape `(num_boxes, 4)`.
    """
    moved = boxes - boxes.new_tensor((left, top)).repeat(2)
    return moved.clamp(min=0).minimum(boxes.new_tensor((width, height)).repeat(2))


def flip_boxes(boxes: torch.Tensor, width: int, convention: str) -> torch.Tensor:
    """
    Boxes of a frame after mirroring left and right.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`):
            Corners in pixels.
        width (`int`):
            Width of the frame.
        convention (`str`):
            `"exclusive"` or `"inclusive"`.

    Returns:
        `torch.Tensor` of shape `(num_boxes, 4)`.
    """
    edge = width - (1 if convention == "inclusive" else 0)
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack((edge - x2, y1, edge - x1, y2), dim=1)


def restore_boxes(
    boxes: torch.Tensor, size: Sequence[int], original_size: Sequence[int], convention: str
) -> torch.Tensor:
    """
    Boxes of a resized frame as people see them: exclusive corners on the original frame.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 4)`):
            Corners in pixels of the resized frame.
        size (`Sequence[int]`):
            Its height and width.
        original_size (`Sequence[int]`):
            Height and width of the original frame.
        convention (`str`):
            Of `boxes`: `"exclusive"` or `"inclusive"`.

    Returns:
        `torch.Tensor` of shape `(num_boxes, 4)`.
    """
    corners = scale_boxes(boxes, size, original_size)
    if convention == "inclusive":
        corners = corners + corners.new_tensor((0, 0, 1, 1))
    return corners.clamp(min=0).minimum(corners.new_tensor((original_size[1], original_size[0])).repeat(2))


__all__ = ["BOX_FORMATS", "crop_boxes", "flip_boxes", "restore_boxes", "scale_boxes", "to_corners"]
