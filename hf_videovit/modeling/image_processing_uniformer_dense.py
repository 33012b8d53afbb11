"""The published protocols of UniFormer's detectors and segmenters, in OpenCV's arithmetic as the official loaders."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvF
from transformers import DetrImageProcessor, SegformerImageProcessor
from transformers.image_utils import SizeDict

from .opencv_resize import resize_as_opencv


SIZE_DIVISOR = 32  # of padded or aligned sides: no stage drops pixels


def kept_ratio_size(height: int, width: int, size: SizeDict) -> tuple[int, int]:
    """
    Size of an image that is scaled as far as two bounds allow.

    Args:
        height (`int`):
            Height of the image in pixels.
        width (`int`):
            Width of the image in pixels.
        size (`SizeDict`):
            `shortest_edge` and `longest_edge`, which neither side exceeds; or `height` and `width`.

    Returns:
        `tuple[int, int]`: height and width, rounded to whole pixels.

    Raises:
        ValueError: `size` has other fields.
    """
    if size.height and size.width:
        return size.height, size.width
    if not (size.shortest_edge and size.longest_edge):
        raise ValueError(f"`size` must have 'shortest_edge' and 'longest_edge', or 'height' and 'width', got {size}.")
    factor = min(size.longest_edge / max(height, width), size.shortest_edge / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear; 8-bit images as OpenCV."""
    if image.dtype == torch.uint8:
        return resize_as_opencv(image, *size)
    return tvF.resize(image, list(size), antialias=False)


def _absent(processor: Any) -> Any:
    raise AttributeError("The output of this model has no such form.")


def _scaled_boxes(outputs: Any, target_sizes: Any) -> torch.Tensor:
    """Boxes of all images in pixels of `target_sizes`, or as shares without them."""
    boxes = outputs["pred_boxes"]
    if target_sizes is None:
        return boxes
    if len(target_sizes) != len(boxes):
        raise ValueError(f"`target_sizes` must have one for each of {len(boxes)} images, got {len(target_sizes)}.")
    sides = torch.as_tensor([[int(one) for one in pair] for pair in target_sizes], device=boxes.device)
    return boxes * sides[:, None, [1, 0, 1, 0]].to(boxes.dtype)


def paste_masks(masks: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """
    Masks over boxes as masks over an image.

    Args:
        masks (`torch.Tensor` of shape `(objects, side, side)`):
            Probabilities on a grid over each box.
        boxes (`torch.Tensor` of shape `(objects, 4)`):
            Left, top, right and bottom in pixels of the image.
        height (`int`):
            Height of the image in pixels.
        width (`int`):
            Width of the image in pixels.

    Returns:
        `torch.Tensor` of shape `(objects, height, width)`: probabilities between the centres of the cells, 0 outside.
    """
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    columns = torch.arange(width, dtype=masks.dtype, device=masks.device) + 0.5
    rows = torch.arange(height, dtype=masks.dtype, device=masks.device) + 0.5
    across = (columns - left) / (right - left) * 2 - 1  # (objects, width)
    along = (rows - top) / (bottom - top) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(across[:, None], along[:, :, None]), dim=-1)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


class UniFormerDetectorImageProcessor(DetrImageProcessor):
    """
    The official protocol of detection: the short side to 800 pixels unless the long one would exceed 1333, ImageNet
    normalisation, padding to multiples of 32 at the bottom and on the right. Annotations are those of transformers'
    [`DetrImageProcessor`]: COCO's fields, with `return_segmentation_masks=True` for masks. Boxes become shares of the
    padded images.
    """

    size_divisor = SIZE_DIVISOR
    post_process_panoptic_segmentation = property(_absent)  # pipelines ask which of these a processor has
    post_process_semantic_segmentation = property(_absent)

    def resize(self, image: torch.Tensor, size: SizeDict, **kwargs: Any) -> torch.Tensor:
        """
        Resize images.

        Args:
            image (`torch.Tensor` of shape `(..., height, width)`):
                The images.
            size (`SizeDict`):
                See [`kept_ratio_size`].
            kwargs (`Any`):
                `resample` is not read: always bilinear.

        Returns:
            `torch.Tensor` of shape `(..., new height, new width)`.
        """
        return _resized(image, kept_ratio_size(image.shape[-2], image.shape[-1], size))

    def pad(self, image: torch.Tensor, padded_size: tuple[int, int], **kwargs: Any) -> Any:
        """
        Pad images to at least a size, and to multiples of `size_divisor`.

        Args:
            image (`torch.Tensor` of shape `(..., height, width)`):
                The images.
            padded_size (`tuple[int, int]`):
                Height and width in pixels.
            kwargs (`Any`):
                See [`DetrImageProcessor`].

        Returns:
            `tuple`: images, masks of their pixels, annotations.
        """
        height, width = (-(-side // self.size_divisor) * self.size_divisor for side in padded_size)
        return super().pad(image, (height, width), **kwargs)

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Any = None
    ) -> list[dict[str, torch.Tensor]]:
        """
        Objects in images.

        Args:
            outputs ([`UniFormerDetectorOutput`]):
                Of the model.
            threshold (`float`, *optional*, defaults to 0.5):
                Lowest score. The model itself leaves out scores below `score_threshold` of its configuration.
            target_sizes (`torch.Tensor` or `list[tuple[int, int]]`, *optional*):
                Height and width of each image as it was, in pixels. Without them boxes are shares of the image.

        Returns:
            `list[dict[str, torch.Tensor]]`: for each image `scores`, `labels`, `boxes` (left, top, right, bottom).

        Raises:
            ValueError: another number of images.
        """
        boxes = _scaled_boxes(outputs, target_sizes)
        return [
            {"scores": score[score > threshold], "labels": label[score > threshold], "boxes": box[score > threshold]}
            for score, label, box in zip(outputs["scores"], outputs["pred_labels"], boxes)
        ]

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.0,
        target_sizes: list[tuple[int, int]] | None = None,
        return_binary_maps: bool = False,
    ) -> list[dict[str, Any]]:
        """
        Objects in images with their masks.

        Args:
            outputs ([`UniFormerDetectorOutput`]):
                Of the model.
            threshold (`float`, *optional*, defaults to 0.5):
                Lowest score.
            mask_threshold (`float`, *optional*, defaults to 0.5):
                Lowest probability of a pixel.
            overlap_mask_area_threshold (`float`, *optional*, defaults to 0.0):
                Share of an object's pixels that stronger objects must leave to it. 0 keeps all with any pixel.
            target_sizes (`list[tuple[int, int]]`, *optional*):
                Height and width of each image as it was, in pixels. Masks need them.
            return_binary_maps (`bool`, *optional*, defaults to `False`):
                Whether `segmentation` is a mask of each object, which may overlap: what COCO's metric scores.

        Returns:
            `list[dict[str, Any]]`: for each image `segmentation` of shape `(height, width)`, which holds ids and -1
            elsewhere (or `(objects, height, width)`, see `return_binary_maps`), and `segments_info`, whose entries
            have `id`, `label_id` and `score`. Where objects overlap, the stronger one is in front.

        Raises:
            ValueError: no `target_sizes`, or the model has no masks.
        """
        if target_sizes is None or outputs.get("pred_masks") is None:
            missing = "target_sizes" if target_sizes is None else "outputs.pred_masks"
            raise ValueError(f"`{missing}` is needed for masks, got None.")
        results = []
        images = (
            outputs["scores"],
            outputs["pred_labels"],
            outputs["pred_masks"],
            _scaled_boxes(outputs, target_sizes),
        )
        for scores, labels, masks, boxes, (height, width) in zip(*images, target_sizes):
            kept = scores > threshold
            pasted = paste_masks(masks[kept], boxes[kept], int(height), int(width)) >= mask_threshold
            segmentation, segments = _in_front(pasted, scores[kept], labels[kept], overlap_mask_area_threshold)
            if return_binary_maps:
                segmentation = pasted[[one["id"] - 1 for one in segments]]
            results.append({"segmentation": segmentation, "segments_info": segments})
        return results


def _in_front(
    masks: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, least: float
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Map of ids from masks `(objects, height, width)`, the strongest first, and what each id is."""
    segmentation = torch.full(masks.shape[1:], -1, dtype=torch.int32, device=masks.device)
    segments = []
    for index, (mask, score, label) in enumerate(zip(masks, scores.tolist(), labels.tolist()), start=1):
        free = mask & (segmentation < 0)
        area, seen = int(mask.sum()), int(free.sum())
        if seen and seen >= least * area:
            segmentation[free] = index
            segments.append({"id": index, "label_id": label, "was_fused": False, "score": round(score, 6)})
    return segmentation, segments


class UniFormerSegmenterImageProcessor(SegformerImageProcessor):
    """
    The official protocol of semantic segmentation: the short side to 512 pixels unless the long one would exceed 2048,
    ImageNet normalisation. Maps of labels are resized to the nearest pixel.

    The fields `window_size`, `window_stride`, `flip_test` and `test_scales` are the protocol of an evaluation, which
    [`label_probabilities`] follows. They are saved with the processor; calling the processor does not read them.

    Args:
        size_divisor (`int`, *optional*, defaults to 1):
            Sides are rounded up to its multiples; 32 in the published Semantic FPN.
        window_size (`int`, *optional*):
            Side in pixels of square windows that an image is cut into; 512 officially. By default the image is whole.
        window_stride (`int`, *optional*):
            Pixels from one window to the next; 341 officially. Defaults to two thirds of `window_size`.
        flip_test (`bool`, *optional*, defaults to `False`):
            Whether to average with the mirror image.
        test_scales (`Sequence[float]`, *optional*, defaults to `(1.0,)`):
            Factors of `size` whose probabilities are averaged; officially one, or 0.5 to 1.75 in steps of 0.25.
        kwargs:
            Fields of [`SegformerImageProcessor`].

    Raises:
        ValueError: a value is not allowed.
    """

    size = {"shortest_edge": 512, "longest_edge": 2048}
    default_to_square = False
    size_divisor = 1

    def __init__(
        self,
        size_divisor: int | None = None,
        window_size: int | None = None,
        window_stride: int | None = None,
        flip_test: bool = False,
        test_scales: Sequence[float] = (1.0,),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if size_divisor is not None:
            self.size_divisor = size_divisor
        if window_size is not None and window_stride is None:
            window_stride = max(1, 2 * window_size // 3)
        self.window_size, self.window_stride = window_size, window_stride
        self.flip_test, self.test_scales = flip_test, list(test_scales)
        for name in ("size_divisor", "window_size", "window_stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if window_stride is not None and (window_size is None or window_stride > window_size):
            raise ValueError(f"`window_stride` must not be above `window_size` {window_size}, got {window_stride}.")
        if not self.test_scales or min(self.test_scales) <= 0:
            raise ValueError(f"`test_scales` must be positive numbers, got {self.test_scales}.")

    def views(self, image: Any) -> list[torch.Tensor]:
        """
        An image in every size of `test_scales`.

        Args:
            image (`Any`):
                An image in any form that the processor takes.

        Returns:
            `list[torch.Tensor]` of shapes `(3, height, width)`: normalised.
        """
        bounds = dict(self.size)
        sizes = [{name: int(side * scale) for name, side in bounds.items() if side} for scale in self.test_scales]
        return [self(image, size=size, return_tensors="pt")["pixel_values"][0] for size in sizes]

    def resize(self, image: torch.Tensor, size: SizeDict, resample: Any = None, **kwargs: Any) -> torch.Tensor:
        """
        Resize images or maps of labels.

        Args:
            image (`torch.Tensor` of shape `(..., height, width)`):
                The images.
            size (`SizeDict`):
                See [`kept_ratio_size`].
            resample (`InterpolationMode`, *optional*):
                `NEAREST_EXACT` for maps of labels; all else is bilinear.

        Returns:
            `torch.Tensor` of shape `(..., new height, new width)`.
        """
        height, width = kept_ratio_size(image.shape[-2], image.shape[-1], size)
        aligned = [-(-side // self.size_divisor) * self.size_divisor for side in (height, width)]
        if resample == tvF.InterpolationMode.NEAREST_EXACT:
            return tvF.resize(image, aligned, interpolation=resample)
        return _resized(image, (aligned[0], aligned[1]))


__all__ = [
    "UniFormerDetectorImageProcessor",
    "UniFormerSegmenterImageProcessor",
    "kept_ratio_size",
    "paste_masks",
]
