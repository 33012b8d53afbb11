"""From the features of a video to the input of a localiser, and from its output to segments in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BatchFeature, FeatureExtractionMixin

from .segment_suppression import METHODS, VOTING_WEIGHTS, ScoredSegments, suppress_segments


@dataclass(frozen=True)
class FeatureGrid:
    """
    Where the steps of a sequence of features lie in its video: step `g` at `(g * stride + offset) / fps` seconds.

    Args:
        fps (`float`):
            Frames per second.
        duration (`float`):
            Length of the video in seconds.
        stride (`float`):
            Frames from one step to the next.
        offset (`float`):
            Frame of step 0: usually half a window, because a feature stands at the centre of its window.
        steps (`int`, *optional*):
            Length of the sequence, where it is known.
    """

    fps: float
    duration: float
    stride: float
    offset: float
    steps: int | None = None

    def to_steps(self, seconds: Any) -> np.ndarray:
        """
        Steps of points in time. They may lie outside the sequence.

        Args:
            seconds (`np.ndarray`):
                Times in seconds.

        Returns:
            `np.ndarray`: in float32.
        """
        frames = np.asarray(seconds, np.float32) * np.float32(self.fps)  # float32 as in the official code
        return frames / np.float32(self.stride) - np.float32(self.offset / self.stride)

    def to_seconds(self, steps: np.ndarray) -> np.ndarray:
        """
        Times of steps, clipped to the video.

        Args:
            steps (`np.ndarray`):
                Steps.

        Returns:
            `np.ndarray`: seconds in float32.
        """
        seconds = (steps.astype(np.float32) * np.float32(self.stride) + np.float32(self.offset)) / np.float32(self.fps)
        return seconds.clip(0, np.float32(self.duration))


Videos = Sequence[FeatureGrid | tuple[float, float]]


class TemporalLocalizationProcessor(FeatureExtractionMixin):
    r"""
    Prepares the features of videos for a model such as [`ActionFormerForTemporalActionLocalization`], and turns its
    output into segments. It holds what a localiser must know about its features.

    Args:
        feature_size (`int`, *optional*, defaults to 1408):
            Channels of a feature.
        feature_stride (`float`, *optional*, defaults to 4):
            Frames from one window of the encoder to the next. `None` for features that are spread evenly over the
            whole video.
        feature_window (`float`, *optional*, defaults to 16):
            Frames of a window.
        feature_offset (`float`, *optional*):
            Frame of a video that its first feature stands at. Defaults to half a window; some of OpenTAD's models have
            another. It has no effect on features that are resized or spread over the video.
        feature_fps (`float`, *optional*):
            Frame rate that the features were made at, whatever the video's own.
        feature_description (`dict`, *optional*):
            How the features were made: encoder, revision, pooling, size, normalisation.
        downsample_rate (`int`, *optional*, defaults to 1):
            Every so many features are used.
        resize_to_max_length (`bool`, *optional*, defaults to `False`):
            Whether every sequence is resized linearly to `max_sequence_length` (ActivityNet, FineAction).
        resized_offset (`float`, *optional*, defaults to 0.5):
            Offset in steps of evenly spread or resized features; 0 in OpenTAD.
        max_sequence_length (`int`, *optional*, defaults to 2304):
            Steps of a training sequence.
        pad_to_max_length (`bool`, *optional*, defaults to `False`):
            Whether sequences are padded as in the official code: to `max_sequence_length`, longer ones to a multiple
            of `length_multiple`. Models with another `padding_mode` than `"zeros"` need it.
        length_multiple (`int`, *optional*, defaults to 1):
            See `pad_to_max_length`.
        score_threshold (`float`, *optional*, defaults to 0.001):
            Candidates have a score above it.
        max_candidates (`int`, *optional*, defaults to 2000):
            Largest number of candidates; `None` for all.
        candidates_per_level (`bool`, *optional*, defaults to `True`):
            Whether that number counts for each level of the pyramid; `False` in OpenTAD.
        min_length (`float`, *optional*, defaults to 0.05):
            Candidates are longer, in steps.
        nms_method (`str`, *optional*, defaults to `"soft"`):
            `"soft"`, `"hard"` or `"none"`, see [`suppress_segments`].
        nms_sigma (`float`, *optional*, defaults to 0.5):
            Width of the soft decay.
        iou_threshold (`float`, *optional*, defaults to 0.1):
            For `"hard"`.
        min_score (`float`, *optional*, defaults to 0.001):
            Smallest score after the decay.
        max_segments (`int`, *optional*, defaults to 200):
            Largest number of segments of a video.
        class_agnostic (`bool`, *optional*, defaults to `False`):
            Whether segments of different classes suppress each other.
        voting_threshold (`float`, *optional*, defaults to 0.0):
            With `class_agnostic`, a segment becomes the mean of the candidates that it overlaps by at least this much;
            0 for none.
        voting_weights (`str`, *optional*, defaults to `"overlap"`):
            Weights of that mean: `"overlap"` or `"score"`.
        kwargs (`Any`):
            Fields that transformers stores.

    Raises:
        ValueError: a value is not allowed.

    Example:

    ```python
    >>> import torch
    >>> from hf_videovit import TemporalLocalizationProcessor

    >>> processor = TemporalLocalizationProcessor(feature_size=8)
    >>> batch = processor([torch.randn(50, 8), torch.randn(20, 8)])
    >>> batch["features"].shape, batch["attention_mask"].sum(dim=1).tolist()
    (torch.Size([2, 50, 8]), [50, 20])
    ```"""

    model_input_names = ["features", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1408,
        feature_stride: float | None = 4,
        feature_window: float = 16,
        feature_offset: float | None = None,
        feature_fps: float | None = None,
        feature_description: dict[str, Any] | None = None,
        downsample_rate: int = 1,
        resize_to_max_length: bool = False,
        resized_offset: float = 0.5,
        max_sequence_length: int = 2304,
        pad_to_max_length: bool = False,
        length_multiple: int = 1,
        score_threshold: float = 0.001,
        max_candidates: int | None = 2000,
        candidates_per_level: bool = True,
        min_length: float = 0.05,
        nms_method: str = "soft",
        nms_sigma: float = 0.5,
        iou_threshold: float = 0.1,
        min_score: float = 0.001,
        max_segments: int | None = 200,
        class_agnostic: bool = False,
        voting_threshold: float = 0.0,
        voting_weights: str = "overlap",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.feature_size = feature_size
        self.feature_stride = feature_stride
        self.feature_window = feature_window
        self.feature_offset = feature_offset
        self.feature_fps = feature_fps
        self.feature_description = feature_description
        self.downsample_rate = downsample_rate
        self.resize_to_max_length = resize_to_max_length
        self.resized_offset = resized_offset
        self.max_sequence_length = max_sequence_length
        self.pad_to_max_length = pad_to_max_length
        self.length_multiple = length_multiple
        self.score_threshold = score_threshold
        self.max_candidates = max_candidates
        self.candidates_per_level = candidates_per_level
        self.min_length = min_length
        self.nms_method = nms_method
        self.nms_sigma = nms_sigma
        self.iou_threshold = iou_threshold
        self.min_score = min_score
        self.max_segments = max_segments
        self.class_agnostic = class_agnostic
        self.voting_threshold = voting_threshold
        self.voting_weights = voting_weights
        self._validate()

    def _validate(self) -> None:
        for name, allowed in (("nms_method", METHODS), ("voting_weights", VOTING_WEIGHTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        positive = ("feature_size", "feature_window", "downsample_rate", "max_sequence_length", "length_multiple")
        for name in (*positive, "nms_sigma"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("max_candidates", "max_segments"):
            if getattr(self, name) is not None and getattr(self, name) % 1:
                raise ValueError(f"`{name}` must be a whole number or None, got {getattr(self, name)}.")
        for name in ("feature_stride", "feature_fps", "max_candidates", "max_segments"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive or None, got {getattr(self, name)}.")

    def __call__(self, features: Any, **kwargs: Any) -> BatchFeature:
        """
        Prepare the features of one or more videos: decimation, resizing and padding.

        Args:
            features (`torch.Tensor` or `np.ndarray` of shape `(num_features, feature_size)`, or a list of them):
                Features of each video, of any floating type.
            kwargs (`Any`):
                `return_tensors`, which can only be `"pt"`.

        Returns:
            `BatchFeature`: `features` of shape `(batch_size, steps, feature_size)` in float32 and `attention_mask` of
            shape `(batch_size, steps)`.

        Raises:
            ValueError: a video has no features, or features of another size or that are not finite.
        """
        if kwargs.pop("return_tensors", "pt") != "pt" or kwargs:
            raise ValueError(f"Only `return_tensors='pt'` is supported beside `features`, got {kwargs}.")
        alone = isinstance(features, torch.Tensor | np.ndarray)
        if not alone and not isinstance(features, list | tuple):
            raise ValueError(f"`features` must be an array or a list of arrays, got {features!r}.")
        videos = [features] if alone else list(features)
        return self.pad([self.resample(one) for one in videos])

    def pad(self, sequences: Sequence[torch.Tensor]) -> BatchFeature:
        """
        Pad sequences of [`~TemporalLocalizationProcessor.resample`] to one length.

        Args:
            sequences (`Sequence[torch.Tensor]`, each of shape `(steps, feature_size)`):
                The sequences.

        Returns:
            `BatchFeature`: see [`~TemporalLocalizationProcessor.__call__`].

        Raises:
            ValueError: there are none.
        """
        if not sequences:
            raise ValueError("`features` must hold at least one video, got none.")
        length = self.padded_length(max(len(one) for one in sequences))
        counts = torch.tensor([len(one) for one in sequences])
        return BatchFeature(
            {
                "features": torch.stack([F.pad(one, (0, 0, 0, length - len(one))) for one in sequences]),
                "attention_mask": (torch.arange(length) < counts[:, None]).long(),
            }
        )

    def resample(self, features: torch.Tensor | np.ndarray) -> torch.Tensor:
        """
        Decimate and resize the features of one video.

        Args:
            features (`torch.Tensor` or `np.ndarray` of shape `(num_features, feature_size)`):
                All features of the video.

        Returns:
            `torch.Tensor` of shape `(steps, feature_size)`, in float32.

        Raises:
            ValueError: there are no features, or features of another size or that are not finite.
        """
        try:
            sequence = torch.as_tensor(features)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`features` must be arrays of real numbers: {error}.") from error
        if sequence.is_complex():
            raise ValueError(f"`features` must be arrays of real numbers, got {sequence.dtype}.")
        if sequence.ndim != 2 or not len(sequence) or sequence.shape[1] != self.feature_size:
            raise ValueError(
                f"`features` of a video must have shape (num_features, {self.feature_size}) with at least one row, "
                f"got {tuple(sequence.shape)}. A video shorter than a window has none."
            )
        sequence = sequence.float()
        if not sequence.isfinite().all():
            raise ValueError("`features` must be finite, got NaN or infinity.")
        if self.feature_stride is not None and not self.resize_to_max_length:
            sequence = sequence[:: self.downsample_rate]
        if self.resize_to_max_length and len(sequence) != self.max_sequence_length:
            channels = sequence.T[None]
            resized = F.interpolate(channels, size=self.max_sequence_length, mode="linear", align_corners=False)
            sequence = resized[0].T
        return sequence

    def padded_length(self, steps: int) -> int:
        """
        Length that a sequence is padded to.

        Args:
            steps (`int`):
                Its own length.

        Returns:
            `int`
        """
        if not self.pad_to_max_length:
            return steps
        if steps <= self.max_sequence_length:
            return self.max_sequence_length
        return -(-steps // self.length_multiple) * self.length_multiple

    def grid(self, num_features: int | None, fps: float, duration: float) -> FeatureGrid:
        """
        Where the steps of a video lie in time.

        Args:
            num_features (`int` or `None`):
                Number of its features, before decimation and resizing. `None` will do unless features are resized, or
                spread over the video.
            fps (`float`):
                Its frame rate; `feature_fps` comes first.
            duration (`float`):
                Its length in seconds.

        Returns:
            [`FeatureGrid`]

        Raises:
            ValueError: the frame rate or the duration is not positive, or `num_features` is needed.
        """
        fps = self.feature_fps or fps
        for name, value in (("fps", fps), ("duration", duration)):
            if not np.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        if num_features is None and (self.feature_stride is None) != self.resize_to_max_length:
            raise ValueError("`num_features` is needed: the place of a step depends on the number of features.")
        if self.feature_stride is not None and not self.resize_to_max_length:
            stride = self.feature_stride * self.downsample_rate
            steps = None if num_features is None else -(-num_features // self.downsample_rate)
            offset = self.feature_window / 2 if self.feature_offset is None else self.feature_offset
            return FeatureGrid(fps, duration, stride, offset, steps)
        steps = self.max_sequence_length if self.resize_to_max_length else num_features
        assert steps is not None
        if self.feature_stride is None:
            stride = duration * fps / steps
        else:
            assert num_features is not None
            stride = ((num_features - 1) * self.feature_stride + self.feature_window) / steps
        return FeatureGrid(fps, duration, stride, self.resized_offset * stride, steps)

    def prepare_labels(
        self,
        segments: Any,
        class_labels: Any,
        grid: FeatureGrid,
        min_inside: float | None = None,
    ) -> dict[str, torch.Tensor]:
        """
        Training labels of one video.

        Args:
            segments (`np.ndarray` of shape `(num_segments, 2)`):
                Starts and ends in seconds.
            class_labels (`np.ndarray` of shape `(num_segments,)`):
                Class of each.
            grid ([`FeatureGrid`]):
                See [`~TemporalLocalizationProcessor.grid`].
            min_inside (`float`, *optional*):
                Leave out segments of which less than this share lies within the features, and cut the others at their
                end, as the official code does in training on ActivityNet.

        Returns:
            `dict`: `segments` in steps and `class_labels`, an entry of `labels` of the model.

        Raises:
            ValueError: a number is not finite, a segment ends before it starts, or the numbers of segments and classes
                differ.
        """
        seconds = np.asarray(segments, np.float64).reshape(-1, 2)
        classes = torch.as_tensor(class_labels, dtype=torch.long).reshape(-1)
        if len(seconds) != len(classes):
            raise ValueError(f"`segments` has {len(seconds)} rows and `class_labels` {len(classes)}.")
        if not np.isfinite(seconds).all() or (seconds[:, 1] <= seconds[:, 0]).any():
            raise ValueError(f"`segments` must be finite and end after they start, got {seconds.tolist()}.")
        steps = torch.from_numpy(grid.to_steps(seconds))
        if min_inside is not None:
            if grid.steps is None:
                raise ValueError("`min_inside` needs a `grid` made with `num_features`.")
            end = grid.steps + grid.offset / grid.stride
            share = (steps[:, 1].clamp(max=end) - steps[:, 0]) / (steps[:, 1] - steps[:, 0])
            inside = (steps[:, 0] < end) & (share >= min_inside)
            steps, classes = steps[inside].clamp(max=end), classes[inside]
        return {"segments": steps, "class_labels": classes}

    def post_process_temporal_localization(
        self,
        outputs: Any,
        target_sizes: Videos,
        threshold: float = 0.0,
        class_scores: Sequence[Any] | None = None,
        num_classes_per_video: int = 2,
        **nms: Any,
    ) -> list[dict[str, torch.Tensor]]:
        """
        Segments of each video.

        Args:
            outputs ([`TemporalActionLocalizationOutput`]):
                Of the model.
            target_sizes (`list[tuple[float, float]]` or `list[FeatureGrid]`):
                Frame rate and duration in seconds of each video, or its [`FeatureGrid`], which resized features need.
            threshold (`float`, *optional*, defaults to 0.0):
                Segments with a lower score are left out at the end.
            class_scores (`Sequence[np.ndarray]`, *optional*):
                Probabilities of a classifier of whole videos, `(num_classes,)` for each video: the segments get the
                classes of the video, see [`fuse_class_scores`].
            num_classes_per_video (`int`, *optional*, defaults to 2):
                With `class_scores`, classes that each segment gets.
            nms (`Any`):
                Fields of the processor that replace its own, such as `nms_method`, `max_segments` or `min_score`.

        Returns:
            `list[dict[str, torch.Tensor]]`: for each video `segments` of shape `(num_segments, 2)` in seconds,
            `scores` and `labels`, by falling score.

        Raises:
            ValueError: there is another number of videos, or a name is no field.
        """
        count = len(target_sizes) if hasattr(target_sizes, "__len__") else repr(target_sizes)
        if count != len(outputs.logits):
            raise ValueError(
                f"`target_sizes` must have an entry for each of the {len(outputs.logits)} videos, got {count}."
            )
        processor = self.replaced(**nms)
        grids = [self._grid_of(one) for one in target_sizes]
        results = []
        for index, grid in enumerate(grids):
            found = processor.suppress(processor.candidates(outputs, index))
            found.segments = grid.to_seconds(found.segments)
            if class_scores is not None:
                found = fuse_class_scores(found, class_scores[index], num_classes_per_video).by_score()
            found = found.take(found.scores >= threshold)
            results.append(
                {
                    "segments": torch.from_numpy(found.segments),
                    "scores": torch.from_numpy(found.scores),
                    "labels": torch.from_numpy(found.labels),
                }
            )
        return results

    def _grid_of(self, given: Any) -> FeatureGrid:
        """The grid of a video, from itself or from its frame rate and duration."""
        if isinstance(given, FeatureGrid):
            return given
        try:
            fps, duration = map(float, given)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`target_sizes` must hold (frame rate, duration) of each video, or a FeatureGrid, got {given!r}."
            ) from error
        return self.grid(None, fps, duration)

    def replaced(self, **fields: Any) -> "TemporalLocalizationProcessor":
        """
        A processor with other values of some fields.

        Args:
            fields (`Any`):
                Fields by name.

        Returns:
            [`TemporalLocalizationProcessor`]

        Raises:
            ValueError: a name is no field, or a value is not allowed.
        """
        unknown = [name for name in fields if name not in vars(self)]
        if unknown:
            raise ValueError(f"`{unknown[0]}` is not a field of {type(self).__name__}.")
        return type(self)(**{**self.to_dict(), **fields}) if fields else self

    @torch.no_grad()
    def candidates(self, outputs: Any, index: int) -> ScoredSegments:
        """
        Segments of a video before suppression, in steps: level after level by falling score.

        Args:
            outputs ([`TemporalActionLocalizationOutput`]):
                Of the model.
            index (`int`):
                Number of the video in the batch.

        Returns:
            [`ScoredSegments`]
        """
        # below every threshold beyond the end of the sequence
        scores = outputs.logits[index].float().sigmoid()
        scores = scores.where(outputs.point_mask[index][:, None].bool(), -torch.inf)  # (points, labels)
        offsets, points = outputs.pred_offsets[index].float(), outputs.points
        lengths = points[:, 3].unique_consecutive(return_counts=True)[1].tolist()
        if not self.candidates_per_level:
            lengths = [len(points)]
        parts = []
        for level in zip(*(one.split(lengths) for one in (scores, offsets, points))):
            parts.append(self._candidates_of_level(*level))
        segments, kept, labels = (torch.cat(column).cpu().numpy() for column in zip(*parts))
        return ScoredSegments(segments, kept, labels)

    def _candidates_of_level(
        self, scores: torch.Tensor, offsets: torch.Tensor, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num_labels, flat = scores.shape[1], scores.flatten()
        rows = (flat > self.score_threshold).nonzero().squeeze(1)
        best, order = flat[rows].sort(descending=True, stable=True)
        rows, best = rows[order][: self.max_candidates], best[: self.max_candidates]
        place, labels = rows // num_labels, rows % num_labels
        distances = offsets[place] if offsets.ndim == 2 else offsets[place, labels]  # (candidates, 2)
        position, stride = points[place, 0], points[place, 3]
        segments = torch.stack((position - distances[:, 0] * stride, position + distances[:, 1] * stride), dim=1)
        long_enough = segments[:, 1] - segments[:, 0] > self.min_length
        return segments[long_enough], best[long_enough], labels[long_enough]

    def suppress(self, found: ScoredSegments) -> ScoredSegments:
        """
        Suppress segments by the processor's settings.

        Args:
            found ([`ScoredSegments`]):
                Candidates.

        Returns:
            [`ScoredSegments`]
        """
        return suppress_segments(
            found,
            self.nms_method,
            sigma=self.nms_sigma,
            iou_threshold=self.iou_threshold,
            min_score=self.min_score,
            max_segments=self.max_segments,
            class_agnostic=self.class_agnostic,
            voting_threshold=self.voting_threshold,
            voting_weights=self.voting_weights,
        )


def fuse_class_scores(
    found: ScoredSegments, class_scores: Any, num_classes: int = 2, max_segments: int = 200
) -> ScoredSegments:
    """
    Give segments without classes the classes of their video: for each of its best classes every segment, with the root
    of the product of both scores.

    Args:
        found ([`ScoredSegments`]):
            Segments; their labels do not count.
        class_scores (`np.ndarray` of shape `(num_labels,)`):
            Probability of each class in the whole video, from a classifier.
        num_classes (`int`, *optional*, defaults to 2):
            Number of classes.
        max_segments (`int`, *optional*, defaults to 200):
            Number of segments, the best of them.

    Returns:
        [`ScoredSegments`]: class after class, by falling score within each.

    Raises:
        ValueError: the probabilities are not one row of numbers of at least 0.
    """
    probabilities = np.asarray(class_scores, np.float32)
    if probabilities.ndim != 1 or not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError(f"`class_scores` must be one row of probabilities a video, got shape {probabilities.shape}.")
    best = found.by_score(max_segments)
    classes = np.argsort(-probabilities, kind="stable")[:num_classes]
    return ScoredSegments(
        np.tile(best.segments, (len(classes), 1)),
        np.sqrt(probabilities[classes][:, None] * best.scores[None]).reshape(-1),
        classes.repeat(len(best)),
    )


__all__ = ["FeatureGrid", "TemporalLocalizationProcessor", "fuse_class_scores"]
