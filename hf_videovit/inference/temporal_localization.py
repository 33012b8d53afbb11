"""`pipeline("temporal-action-localization")`: when actions happen in a video of any length."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

from ..auto import AutoModelForTemporalActionLocalization
from ..feature_files import FEATURE_SUFFIXES, FeatureFile, check_description, read_description
from ..films import FilmLocalizer, check_windows
from ..modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor, fuse_class_scores
from ..modeling.modeling_actionformer import ActionFormerForTemporalActionLocalization, ActionFormerModel
from ..modeling.modeling_video_temporal_localizer import VideoTemporalLocalizer
from ..modeling.segment_suppression import ScoredSegments
from ..modeling.video_decoding import VideoDecodingError
from ..modeling.video_processing_base import ClipVideoProcessor, is_one_video
from .feature_sets import weights_hash
from .pipeline import refuse_unknown, video_of_row


TASK = "temporal-action-localization"
ON_ERROR = ("raise", "report")


class TemporalActionLocalizationPipeline(Pipeline):
    """
    Segments of actions in a video, or in its features.

    A video is read once, a few windows of frames at a time. The localiser sees the features of up to `steps_at_once`
    steps; a longer video is cut into such parts that overlap by half, whose candidates are pooled before suppression.
    Only the candidates and the features grow with the length of the video, not the frames in memory.

    Args:
        fps (`float`, *optional*):
            Frame rate of the video that features are of, or of a video given as frames. Needed for both unless the
            processor has `feature_fps`.
        duration (`float`, *optional*):
            Length in seconds of the video that features are of. By default to the end of the last window.
        threshold (`float`, *optional*, defaults to 0.1):
            Lowest score of a segment.
        top_k (`int`, *optional*):
            Largest number of segments.
        class_scores (`Sequence[float]`, *optional*):
            Probabilities of a classifier of whole videos: each segment gets the best classes of its video. See
            [`fuse_class_scores`].
        class_names (`Sequence[str]`, *optional*):
            Names of these classes. By default those of the model.
        steps_at_once (`int`, *optional*):
            Steps in a forward pass of the localiser. Defaults to 16,384; with `feature_source="moments"` to the
            localiser's `max_sequence_length`.
        on_error (`str`, *optional*, defaults to `"raise"`):
            `"raise"`, or `"report"`: the answer for a video that cannot be read is `{"error": message}`.
        batch_size (`int`, *optional*):
            Windows in a forward pass of the encoder. Defaults to `config.windows_at_once`.

    Raises:
        ValueError: the processor is not that of a localiser, or an argument is not allowed.

    Example:

    ```python
    >>> import hf_videovit
    >>> from transformers import pipeline

    >>> localize = pipeline("temporal-action-localization", model="path/to/model")
    >>> localize("film.mp4", top_k=20, threshold=0.1)
    >>> localize("film.npy", fps=30.0)  # features
    ```"""

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = None  # a localiser of features has none
    _load_feature_extractor = True
    _load_tokenizer = False

    model: Any
    feature_extractor: Any
    video_processor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.feature_extractor, TemporalLocalizationProcessor):
            raise ValueError(
                "`feature_extractor` must be the TemporalLocalizationProcessor of a localiser, got "
                f"{type(self.feature_extractor).__name__}."
            )
        if isinstance(self.model, VideoTemporalLocalizer):
            if not isinstance(self.video_processor, ClipVideoProcessor):
                raise ValueError(
                    "`video_processor` must be the encoder's, which belongs into the folder of the model, got "
                    f"{type(self.video_processor).__name__}."
                )
            check_windows(self.model.config, self.feature_extractor)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        fps: float | None = None,
        duration: float | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        class_scores: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        steps_at_once: int | None = None,
        windows_at_once: int | None = None,
        on_error: str | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        refuse_unknown(self, unknown)
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be between 0 and 1, got {threshold}.")
        for name, number in (("fps", fps), ("duration", duration)):
            if number is not None and not 0 < number < math.inf:
                raise ValueError(f"`{name}` must be positive, got {number}.")
        for name, value in (("top_k", top_k), ("batch_size", windows_at_once)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if steps_at_once is not None and steps_at_once < 2:
            raise ValueError(f"`steps_at_once` must be at least 2, got {steps_at_once}.")
        if on_error is not None and on_error not in ON_ERROR:
            raise ValueError(f"`on_error` must be one of {ON_ERROR}, got {on_error!r}.")
        forward = {
            "fps": fps,
            "duration": duration,
            "steps_at_once": steps_at_once,
            "windows_at_once": windows_at_once,
            "on_error": on_error,
        }
        after = {"threshold": threshold, "top_k": top_k, "class_scores": class_scores, "class_names": class_names}
        return tuple({k: v for k, v in one.items() if v is not None} for one in ({}, forward, after))  # type: ignore[return-value]

    def __call__(self, inputs: Any, batch_size: int | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """
        Answer for one video or several.

        Args:
            inputs:
                A path, URL, bytes or file object of a video, frames `(T, H, W, C)`, features `(num_features,
                feature_size)` or the path of such an array (.npy, .safetensors, .pt), or a list of these.
            batch_size (`int`, *optional*):
                Windows in a forward pass of the encoder.
            kwargs:
                The arguments of the class, for this call only.

        Returns:
            `list[dict]`: `label`, `score` and `segment` (`start` and `end` in seconds) of each segment, best first.
            For a list of videos, a list of these.

        Raises:
            ValueError: an argument is not allowed or needed, or the model has no encoder for a video.
            VideoDecodingError: a video cannot be read.
        """
        localize: Any = super().__call__
        if is_one_video(inputs) or _is_features(inputs):
            return localize(inputs, windows_at_once=batch_size, **kwargs)
        return [localize(video, windows_at_once=batch_size, **kwargs) for video in inputs]

    def preprocess(self, video: Any) -> dict[str, Any]:  # type: ignore[override]
        """
        Read features, or pass on a video, which is read while it is encoded.

        Args:
            video:
                One video or its features.

        Returns:
            `dict[str, Any]`: `features` or `video`.

        Raises:
            ValueError: the features cannot be read, or the model has no encoder for a video.
        """
        if _is_features(video):
            if isinstance(video, str | os.PathLike):
                described = read_description(Path(video).parent)
                check_description(self.feature_extractor.feature_description, described, f"{str(video)!r}")
            return {"features": read_features(video)}
        if not isinstance(self.model, VideoTemporalLocalizer):
            raise ValueError(
                "`inputs` must be features: this model is a localiser without an encoder. Join it with the encoder "
                "that its features come from; see `VideoTemporalLocalizer` and `load_localizer`."
            )
        return {"video": video_of_row(video)}

    def _forward(  # type: ignore[override]
        self,
        model_inputs: dict[str, Any],
        fps: float | None = None,
        duration: float | None = None,
        steps_at_once: int | None = None,
        windows_at_once: int | None = None,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        parts = (self.model, self.feature_extractor, self.video_processor)
        film_localizer = FilmLocalizer(*parts, steps_at_once, windows_at_once)
        if "features" in model_inputs:
            return {"found": film_localizer.of_features(model_inputs["features"], fps, duration)}
        try:
            return {"found": film_localizer.of_film(model_inputs["video"], fps)}
        except (VideoDecodingError, OSError) as error:
            if on_error == "raise":
                raise
            return {"error": str(error)}

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: dict[str, Any],
        threshold: float = 0.1,
        top_k: int | None = None,
        class_scores: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Any:
        """
        Segments as people read them.

        Args:
            model_outputs (`dict[str, Any]`):
                Of the forward pass.
            threshold (`float`, *optional*, defaults to 0.1):
                Lowest score.
            top_k (`int`, *optional*):
                Largest number of segments.
            class_scores (`Sequence[float]`, *optional*):
                See the class.
            class_names (`Sequence[str]`, *optional*):
                See the class.

        Returns:
            `list[dict]`: see [`__call__`]; or `{"error": message}`.

        Raises:
            ValueError: there are other numbers of class scores and names.
        """
        if "error" in model_outputs:
            return model_outputs
        found: ScoredSegments = model_outputs["found"]
        names: Any = self.model.config.id2label if class_names is None else list(class_names)
        if class_scores is not None:
            if len(class_scores) != len(names):
                raise ValueError(
                    f"`class_scores` must be probabilities of the {len(names)} classes, got {len(class_scores)}. Pass "
                    "the classifier's `class_names`."
                )
            found = fuse_class_scores(found, class_scores)
        found = found.by_score()
        found = found.take(found.scores >= threshold)
        rows = zip(found.segments[:top_k].tolist(), found.scores.tolist(), found.labels.tolist())
        return [
            {"label": names[label], "score": score, "segment": {"start": start, "end": end}}
            for (start, end), score, label in rows
        ]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """
        Save the model and its processors.

        Args:
            save_directory:
                Folder.
            kwargs:
                Arguments of the base method.
        """
        super().save_pretrained(save_directory, **kwargs)
        if self.video_processor is not None:
            self.video_processor.save_pretrained(save_directory, **kwargs)


def read_features(features: Any) -> torch.Tensor:
    """
    Features of one video.

    Args:
        features (`str`, `os.PathLike`, `np.ndarray` or `torch.Tensor`):
            The array, or the path of its file; see [`~feature_files.FeatureFile`].

    Returns:
        `torch.Tensor` of shape `(num_features, feature_size)`.

    Raises:
        ValueError: the file cannot be read or has no such array.
    """
    if isinstance(features, str | os.PathLike):
        return FeatureFile(Path(features)).read()
    return torch.as_tensor(features)


def load_localizer(
    model: str | os.PathLike, encoder: str | os.PathLike | None = None, **fields: Any
) -> dict[str, Any]:
    """
    Load a model and its processors for `pipeline("temporal-action-localization")`.

    Args:
        model (`str` or `os.PathLike`):
            Folder or Hub id of a localiser, with or without an encoder.
        encoder (`str` or `os.PathLike`, *optional*):
            For a localiser without one: folder or Hub id of the encoder that its features come from, with its
            processor.
        fields (`Any`):
            Fields of [`VideoTemporalLocalizerConfig`]. By default windows and strides are those of the localiser's
            processor, and pooling and frames as it describes its features.

    Returns:
        `dict[str, Any]`: `model`, `feature_extractor` and `video_processor`, arguments of `pipeline` or of
        [`save_localizer`].

    Raises:
        ValueError: the model is no localiser, it has an encoder and another is given, or the parts do not fit.
    """
    whole, alone = (one.config_class.model_type for one in (VideoTemporalLocalizer, ActionFormerModel))
    kind = AutoConfig.from_pretrained(model).model_type
    if kind not in (whole, alone):
        raise ValueError(f"`model` must be a localiser, {str(model)!r} is a model of type {kind}.")
    if encoder is not None and (other := AutoConfig.from_pretrained(encoder).model_type) in (whole, alone):
        raise ValueError(f"`encoder` must be an encoder of videos, {str(encoder)!r} is a localiser ({other}).")
    has_encoder = kind == whole
    processor = AutoFeatureExtractor.from_pretrained(model)
    if has_encoder and encoder is not None:
        raise ValueError(f"`encoder` must be None: {str(model)!r} has its own, got {str(encoder)!r}.")
    loaded = AutoModelForTemporalActionLocalization.from_pretrained(model)
    parts = {"model": loaded, "feature_extractor": processor, "video_processor": None}
    if has_encoder:
        return {**parts, "video_processor": AutoVideoProcessor.from_pretrained(model)}
    if encoder is None:
        return parts
    return join_localizer(encoder, loaded, processor, AutoVideoProcessor.from_pretrained(encoder), **fields)


def join_localizer(
    encoder: Any,
    localizer: ActionFormerForTemporalActionLocalization,
    feature_extractor: TemporalLocalizationProcessor,
    video_processor: ClipVideoProcessor,
    **fields: Any,
) -> dict[str, Any]:
    """
    Join an encoder and a localiser, whose processor says how the features of its training were made.

    Args:
        encoder (`str`, `os.PathLike` or [`PreTrainedModel`]):
            Folder or Hub id of a model of any family, or a model.
        localizer ([`ActionFormerForTemporalActionLocalization`]):
            The localiser.
        feature_extractor ([`TemporalLocalizationProcessor`]):
            Its processor.
        video_processor ([`ClipVideoProcessor`]):
            The encoder's processor.
        fields (`Any`):
            Fields of [`VideoTemporalLocalizerConfig`] that replace those of the processor.

    Returns:
        `dict[str, Any]`: `model`, `feature_extractor` and `video_processor`.

    Raises:
        ValueError: the parts do not fit.
    """
    described = feature_extractor.feature_description or {}
    known: dict[str, Any] = {"squash_frames": str(described.get("frames", "")).startswith("squashed")}
    if "pooling" in described:
        known["pooling"] = described["pooling"]
    if feature_extractor.feature_stride is not None and "frame_step" not in fields:
        known |= {"feature_stride": int(feature_extractor.feature_stride)}
        known |= {"feature_window": int(feature_extractor.feature_window)}
    model = VideoTemporalLocalizer.from_encoder_localizer_pretrained(encoder, localizer, **{**known, **fields})
    check_windows(model.config, feature_extractor)
    if "weights" in described and described["weights"] != weights_hash(model.encoder):
        raise ValueError(
            f"`encoder` has other weights than that of the features ({described.get('encoder')!r}) that the localiser "
            "was trained on"
        )
    return {"model": model, "feature_extractor": feature_extractor, "video_processor": video_processor}


def save_localizer(
    folder: str | os.PathLike,
    model: Any,
    feature_extractor: TemporalLocalizationProcessor,
    video_processor: ClipVideoProcessor | None = None,
) -> Path:
    """
    Save a localiser and its processors in one folder.

    Args:
        folder (`str` or `os.PathLike`):
            New or empty folder.
        model ([`PreTrainedModel`]):
            The localiser.
        feature_extractor ([`TemporalLocalizationProcessor`]):
            Its processor.
        video_processor ([`ClipVideoProcessor`], *optional*):
            The processor of its encoder, if it has one.

    Returns:
        `Path`: the folder.
    """
    for part in (model, feature_extractor, video_processor):
        if part is not None:
            part.save_pretrained(folder)
    return Path(folder)


def register_temporal_localization() -> None:
    """Register [`TemporalActionLocalizationPipeline`] for `pipeline("temporal-action-localization")`."""
    # not by `register_pipeline`, which would make `save_pretrained` copy this file into the saved folder
    PIPELINE_REGISTRY.supported_tasks[TASK] = {
        "impl": TemporalActionLocalizationPipeline,
        "pt": (AutoModelForTemporalActionLocalization,),
        "type": "multimodal",
    }


def _is_features(value: Any) -> bool:
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim == 2
    return isinstance(value, str | os.PathLike) and Path(value).suffix.lower() in FEATURE_SUFFIXES


__all__ = [
    "TemporalActionLocalizationPipeline",
    "join_localizer",
    "load_localizer",
    "read_features",
    "register_temporal_localization",
    "save_localizer",
]
