"""Data and settings in the `results.json` of a localiser, and the same evaluation again."""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import AutoConfig, AutoFeatureExtractor, pipeline

from ...auto import AutoModelForTemporalActionLocalization
from ...feature_files import check_description, open_features
from ...modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from ..data.activitynet import read_class_scores
from ..data.film_source import join_films
from ..data.segment_files import read_segments
from ..data.segment_source import SegmentSource, join_features
from .claims import Claim
from .held_out import EvaluationClips
from .temporal_localization import LocalizationResult, evaluate_films, evaluate_temporal_localization


TASK = "temporal-action-localization"
WITH_ENCODER = "video_temporal_localizer"
MODEL_TYPES = ("actionformer", WITH_ENCODER)


@dataclass(frozen=True)
class LocalizationClaim(Claim):
    """
    The data and settings of an evaluation of temporal localisation, as `results.json` records them.

    Args:
        data (`str`):
            The annotations, see [`read_segments`].
        split (`str`, *optional*):
            Subset of the annotations; `None` for all videos.
        features (`str`, *optional*):
            Features of the videos, for a localiser without an encoder.
        videos_folder (`str`, *optional*):
            Folder of the videos, for a model with its encoder.
        feature_name (`str`, *optional*, defaults to `"{video}"`):
            How files of features or videos are named after videos.
        fps (`float`, *optional*):
            Frame rate of videos for which neither annotations nor features name one.
        one_class (`str`, *optional*):
            Name of the class that all segments are taken for.
        class_scores (`str`, *optional*):
            JSON with scores of a classifier of whole videos.
        excluded (`str`, *optional*):
            File with names of videos to leave out.
        max_samples (`int`, *optional*):
            Largest number of videos; more are sampled by `seed`.
        seed (`int`, *optional*, defaults to 0):
            Seed of the run.
    """

    files: ClassVar[tuple[tuple[str, str], ...]] = (
        *(("data", "data"), ("features", "features"), ("videos_folder", "videos")),
        *(("class_scores", "class_scores"), ("excluded", "excluded")),
    )

    data: str
    split: str | None = None
    features: str | None = None
    videos_folder: str | None = None
    feature_name: str = "{video}"
    fps: float | None = None
    one_class: str | None = None
    class_scores: str | None = None
    excluded: str | None = None
    max_samples: int | None = None
    seed: int = 0

    def open(self, processor: TemporalLocalizationProcessor) -> SegmentSource:
        """
        Open the videos or their features.

        Args:
            processor ([`TemporalLocalizationProcessor`]):
                Processor of the model.

        Returns:
            [`SegmentSource`]

        Raises:
            ValueError: neither is named, the features were made in another way, or no video is found.
        """
        annotations = read_segments(self.data, self.excluded)
        videos = annotations.videos if self.split is None else annotations.subset(self.split)
        names = annotations.label_names
        if self.videos_folder is not None:
            source = join_films(videos, names, self.videos_folder, form=self.feature_name, remarks=annotations.remarks)
        elif self.features is not None:
            folder = open_features(self.features)
            check_description(processor.feature_description, folder.description, f"`features` {self.features!r}")
            source = join_features(
                videos,
                names,
                folder,
                form=self.feature_name,
                fps=self.fps or processor.feature_fps,
                needs_duration=processor.feature_stride is None,
                remarks=annotations.remarks,
            )
        else:
            raise ValueError("`features` is needed (for a model with its encoder: `videos`)")
        if self.max_samples is not None:
            source = source.sample(self.max_samples, self.seed)
        if self.one_class is not None and self.class_scores is None:
            source = source.as_one_class(self.one_class)
        return source


def is_localizer(folder: str | os.PathLike) -> bool:
    """
    Whether a folder holds a localiser, with or without an encoder.

    Args:
        folder (`str` or `os.PathLike`):
            Folder or Hub id.

    Returns:
        `bool`
    """
    return AutoConfig.from_pretrained(folder).model_type in MODEL_TYPES


def evaluate_localization_claim(
    folder: str | os.PathLike,
    claim: LocalizationClaim,
    overlaps: str = "activitynet",
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[LocalizationResult, EvaluationClips]:
    """
    Do the evaluation of a claim: on features, or on videos if the model has its encoder and `features` are not named.

    Args:
        folder (`str` or `os.PathLike`):
            A folder with a saved localiser and its processors.
        claim ([`LocalizationClaim`]):
            Data and settings.
        overlaps (`str`, *optional*, defaults to `"activitynet"`):
            See `protocol` of [`evaluate_temporal_localization`].
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass of the localiser, or windows in one of the encoder.
        num_workers (`int`, *optional*, defaults to 0):
            Number of processes that read features.
        device (`str`, *optional*, defaults to `"cpu"`):
            Device of the model.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        `tuple`: the result, and the videos that were scored.

    Raises:
        ValueError: the data cannot be used, or videos are given to a model without an encoder.
    """
    if claim.videos_folder is not None and AutoConfig.from_pretrained(folder).model_type != WITH_ENCODER:
        raise ValueError(f"`videos` must be None: {str(folder)!r} has no encoder. Pass `features`.")
    processor = AutoFeatureExtractor.from_pretrained(folder)
    source = claim.open(processor)
    scores = None if claim.class_scores is None else read_class_scores(claim.class_scores, source.label_names)
    shared: dict[str, Any] = {"protocol": overlaps, "class_scores": scores, "progress": progress}
    if claim.videos_folder is not None:
        localize = pipeline(TASK, model=os.fspath(folder), device=device)
        result = evaluate_films(localize, source, batch_size=batch_size, **shared)
    else:
        model = AutoModelForTemporalActionLocalization.from_pretrained(folder).to(device)
        localizer: Any = getattr(model, "localizer", model)
        result = evaluate_temporal_localization(
            localizer, processor, source, batch_size=batch_size, num_workers=num_workers, **shared
        )
    return result, EvaluationClips(source)


__all__ = ["LocalizationClaim", "evaluate_localization_claim", "is_localizer"]
