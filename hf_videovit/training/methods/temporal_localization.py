"""Temporal localisation: when actions happen in long videos, from the features of their windows."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
from transformers import AutoFeatureExtractor, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ...auto import AutoModelForTemporalActionLocalization
from ...feature_files import FeatureFolder, check_description, open_features
from ...files import loading
from ...modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from ...published.localizers import feature_processor_fields
from ..arguments import AugmentationArguments, ModelArguments, RunConfig
from ..building import attention_options, config_from_scratch, described_config, load_config, ready_to_train
from ..data.activitynet import read_class_scores
from ..data.loaders import SampleLoader
from ..data.opening import warn_of_remarks
from ..data.segment_files import AnnotatedVideo, SegmentAnnotations, evaluation_subset, find_subset, read_segments
from ..data.segment_source import SegmentFeatureLoader, SegmentSource, join_features
from ..data.sources import VideoSource, preview
from ..data.streaming import Batch
from ..engine.loop import FitResult
from ..evaluation.localization_receipts import LocalizationClaim
from ..evaluation.temporal_localization import LocalizationResult, evaluate_temporal_localization
from ..fields import check_range, option
from ..tasks import Task, TemporalLocalizationTask
from .common import Method, Rows, RunResult, Sources
from .passes import Pass, model_pass
from .previewing import PreviewedClip, PreviewedCopies


logger = logging.get_logger(__name__)

AUGMENTATION = tuple(one.name for one in dataclasses.fields(AugmentationArguments))
OTHER_DATA = (
    *("holdout", "data_config", "data_root", "video_column", "label_column", "label_separator"),
    *("label_names", "shuffle_buffer"),
)
FROM_DESCRIPTION = {"feature_size": "feature_size", "feature_window": "window", "feature_stride": "stride"}
Protocol = Literal["activitynet", "charades", "ego4d", "epic", "fineaction", "hacs", "multithumos", "thumos14"]


@dataclass
class LocalizationArguments:
    """
    Arguments of temporal localisation, on features and on films.

    Raises:
        ValueError: a value is out of range.
    """

    window_ratio: list[float] = option(
        [0.9, 1.0],
        "shares of a sequence between which the length of its random window lies; empty for whole sequences",
    )
    min_inside: float = option(0.5, "smallest share of a segment that lies inside the window in which it is learnt")
    protocol: Protocol = option(
        "activitynet",
        "data set whose overlaps mAP is averaged over: .5 to .95 (activitynet, fineaction, hacs), .3 to .7 "
        "(thumos14), .1 to .5 (ego4d, epic), .1 to .9 (charades, multithumos)",
    )
    excluded_videos: str | None = option(
        None, "file with names of videos to leave out, one a line: those that have vanished or are wrong"
    )
    one_class: str | None = option(None, "train on one class of this name for all segments, as on ActivityNet")
    class_scores: str | None = option(
        None, "JSON with scores of a classifier of whole videos, which names the segments of `one_class`"
    )

    def __post_init__(self) -> None:
        check_range("min_inside", self.min_inside, 0.01, 1.0)
        ratio = self.window_ratio
        if ratio and not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1] <= 1):
            raise ValueError(f"`window_ratio` must be two increasing shares of at most 1, or empty, got {ratio}")


@dataclass
class TemporalLocalizationArguments(LocalizationArguments):
    """
    Arguments of temporal localisation on features.

    Raises:
        ValueError: a value is out of range.
    """

    features: str | None = option(
        None, "folder with the features of each video (.npy, .safetensors, .pt), or a .safetensors file with all"
    )
    eval_features: str | None = option(None, "features of the evaluation videos; none means `features`")
    feature_name: str = option("{video}", "how files of features are named after videos, such as v_{video}")
    fps: float | None = option(None, "frame rate of videos for which neither annotations nor features name one")
    missing_features: Literal["refuse", "count"] = option(
        "refuse",
        "evaluation videos without features: refuse to start, or count their segments as missed. They are never left "
        "out of a score in silence",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"`fps` must be positive, got {self.fps}")
        if "{video}" not in self.feature_name:
            raise ValueError(f"`feature_name` must contain {{video}}, got {self.feature_name!r}")


class TemporalLocalization(Method):
    """
    Train a localiser on features. `data` is a file with segments, see [`read_segments`].

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "temporal_localization"
    goal = "classifier"
    arguments_class: ClassVar[type] = TemporalLocalizationArguments
    unread = ("picture_every", "image_model", "probe", *OTHER_DATA, *AUGMENTATION)
    model_types: ClassVar[tuple[str, ...]] = ("actionformer",)
    files: ClassVar[str] = "features"  # what is read of a video
    missing_field: ClassVar[str] = "missing_features"

    train_source: SegmentSource  # type: ignore[assignment]
    eval_source: SegmentSource | None  # type: ignore[assignment]
    processor: TemporalLocalizationProcessor  # type: ignore[assignment]
    folder: FeatureFolder | None = None  # of the training features, once they are open
    video_processor: Any = None  # of the encoder, if one is trained

    def switched_off(self) -> dict[str, str]:
        """See [`Method.switched_off`]."""
        off = super().switched_off()
        if self.arguments.one_class is None:
            off["class_scores"] = "`one_class` is needed for it"
        return off

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """Whether the model is a localiser. See [`Method.fits`]."""
        return model_config["model_type"] in cls.model_types

    def open_sources(self) -> Sources:
        """
        Read the annotations, and find the features of their videos.

        Raises:
            ValueError: `data` or `features` is missing or cannot be used, or evaluation videos have no features.
        """
        own = self.arguments
        if self.config.data.data is None or own.features is None:
            raise ValueError("`data` (a file with segments) and `features` (a folder) are needed")
        annotations = read_segments(self.config.data.data, own.excluded_videos)
        videos, held_out, names = self._subsets(annotations)
        self.folder = open_features(own.features)
        others = self.folder if own.eval_features is None else open_features(own.eval_features)
        check_description(self.folder.description, others.description, f"`eval_features` {own.eval_features!r}")
        train = self._joined(videos, names, self.folder, annotations.remarks)
        evaluated = None if held_out is None else self._joined(held_out, names, others, ())
        return self._chosen(train, evaluated)

    def _chosen(self, train: SegmentSource, evaluated: SegmentSource | None) -> Sources:
        """The videos of the run, with the classes that it trains; none may be missing in silence."""
        data, own, seed = self.config.data, self.arguments, self.config.run.seed
        files, missing = self.files, self.missing_field
        if evaluated is not None and evaluated.missing and getattr(own, missing) == "refuse":
            total = len(evaluated.missing) + len(evaluated.rows)
            raise ValueError(
                f"{len(evaluated.missing)} of {total} evaluation videos have no {files}: "
                f"{preview([video.name for video in evaluated.missing])}. A score without them is of another "
                f"set. Make them, or set `{missing}` to count: their segments are then missed"
            )
        if data.max_train_samples is not None:
            train = train.sample(data.max_train_samples, seed)
        if evaluated is not None and data.max_eval_samples is not None:
            evaluated = evaluated.sample(data.max_eval_samples, seed)
        warn_of_remarks("training", train)
        warn_of_remarks("evaluation", evaluated)
        if own.one_class is not None:
            train = train.as_one_class(own.one_class)
            if evaluated is not None and own.class_scores is None:
                evaluated = evaluated.as_one_class(own.one_class)
        return train, evaluated

    def _subsets(
        self, annotations: SegmentAnnotations
    ) -> tuple[list[AnnotatedVideo], list[AnnotatedVideo] | None, list[str]]:
        """Videos to train on, videos to evaluate on, and the names of the classes of both."""
        data, names = self.config.data, annotations.label_names
        subsets = annotations.subsets
        training = annotations.subset(data.train_split) if subsets else annotations.videos
        if data.eval_data is not None:
            others = read_segments(data.eval_data, self.arguments.excluded_videos)
            names = names + [name for name in others.label_names if name not in names]
            split = data.eval_split or evaluation_subset(others.subsets, None)
            return training, others.videos if split is None else others.subset(split), names
        split = data.eval_split or evaluation_subset(subsets, find_subset(data.train_split, subsets))
        return training, None if split is None else annotations.subset(split), names

    def _joined(
        self, videos: Sequence[AnnotatedVideo], names: Sequence[str], folder: FeatureFolder, remarks: Sequence[str]
    ) -> SegmentSource:
        own, fields = self.arguments, self.config.model.processor
        return join_features(
            videos,
            names,
            folder,
            form=own.feature_name,
            fps=own.fps or fields.get("feature_fps"),
            needs_duration="feature_stride" in fields and fields["feature_stride"] is None,
            remarks=remarks,
        )

    def check_sources(self, train_source: VideoSource, eval_source: VideoSource | None) -> None:
        """
        Refuse videos that nothing can be learnt from.

        Args:
            train_source ([`SegmentSource`]):
                Training videos.
            eval_source ([`SegmentSource`] or `None`):
                Evaluation videos.

        Raises:
            ValueError: there are no segments, or the sources are others.
        """
        super().check_sources(train_source, eval_source)
        for source in (train_source, eval_source):
            if source is not None and not isinstance(source, SegmentSource):
                raise ValueError(f"`data` must be videos with segments for {self.name}, got a {type(source).__name__}")
        if not cast(SegmentSource, train_source).num_segments:
            raise ValueError(f"`data` {self.config.data.data!r} has no segments to train on")

    def list_splits(self) -> list[str]:
        """The subsets of the annotations. See [`Method.list_splits`]."""
        return read_segments(str(self.config.data.data)).subsets

    def build(self) -> tuple[PreTrainedModel, TemporalLocalizationProcessor]:  # type: ignore[override]
        """The localiser that the run starts from. See [`build_localizer`]."""
        own = self.arguments
        return build_localizer(self.config.model, self.train_source.label_names, self._facts(), own.features)

    def describe(self) -> tuple[PreTrainedConfig, TemporalLocalizationProcessor]:  # type: ignore[override]
        """See [`describe_localizer`]."""
        return describe_localizer(self.config.model, self._facts(), self.arguments.features)

    def _facts(self) -> "FeatureFacts":
        """Facts about the features: none before they are open."""
        if self.folder is None:
            return FeatureFacts()
        rows = self.train_source.rows if hasattr(self, "train_source") else ()
        file: Any = rows[0].file if rows else next(iter(self.folder.files.values()))
        return FeatureFacts(file.shape()[1], self.folder.description)

    def begin_model(self) -> None:
        """Match the classes of data and model as well. See [`Method.begin_model`]."""
        super().begin_model()
        config = self.model.config
        self.train_source = self.train_source.with_label_names([config.id2label[i] for i in range(config.num_labels)])
        if self.accelerator.is_main_process:
            self._list_missing()

    def _list_missing(self) -> None:
        """Write the videos without features, or without a file, to the run's logs."""
        sources = {"train": self.train_source, "eval": self.eval_source}
        named = {split: [one.name for one in source.missing] for split, source in sources.items() if source}
        if any(named.values()):
            folder = self.output_dir / "logs"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{self.missing_field}.json"
            path.write_text(json.dumps(named, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            logger.warning(f"The videos without {self.files} are listed in {path}.")

    def task(self) -> Task:
        """The loss of the localiser."""
        return TemporalLocalizationTask(self.model)

    def loader(self) -> SampleLoader:
        """The function that reads the features of a video."""
        own = self.arguments
        return SegmentFeatureLoader(
            self.processor,
            self.train_source.label_names,
            self.config.run.seed,
            self.max_segments,
            own.min_inside,
            own.window_ratio,
        )

    @property
    def max_segments(self) -> int:
        """The largest number of segments in a training video, at least 1."""
        return max(1, *(len(row.segments) for row in self.train_source.rows))

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Leave out steps and places that no video of the batch has. See [`Method.prepare_batch`]."""
        longest = int(rows["attention_mask"].sum(dim=1).max())
        if self.processor.pad_to_max_length:
            longest = rows["attention_mask"].shape[1]
        segments = max(int((rows["class_labels"] >= 0).sum(dim=1).max()), 1)
        batch = {name: rows[name][:, :longest] for name in ("features", "attention_mask")}
        batch |= {name: rows[name][:, :segments] for name in ("segments", "class_labels")}
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """ActivityNet's metric. See [`Method.validate`]."""
        result = self.evaluate_localizer(model, validation=True)
        return result.metrics | {"num_failed": len(result.failed)}

    def evaluate_localizer(self, model: PreTrainedModel, validation: bool = False) -> LocalizationResult:
        """
        Evaluate a localiser on the evaluation videos.

        Args:
            model (`PreTrainedModel`):
                The localiser.
            validation (`bool`, *optional*, defaults to `False`):
                Whether to use the precision of training and to show no progress.

        Returns:
            [`LocalizationResult`]
        """
        assert self.eval_source is not None
        own, data = self.arguments, self.config.data
        scores = None
        if own.class_scores is not None:
            scores = read_class_scores(own.class_scores, self.eval_source.label_names)
        return evaluate_temporal_localization(
            model,
            self.processor,
            self.eval_source,
            protocol=own.protocol,
            class_scores=scores,
            batch_size=self.config.eval_batch_size,
            num_workers=data.num_workers,
            accelerator=self.accelerator,
            mixed_precision=self.accelerator.mixed_precision if validation else None,
            timeout=data.worker_timeout,
            progress=self.config.run.progress and not validation,
            video_processor=self.video_processor,
        )

    def claim(self) -> LocalizationClaim:
        """
        Data and settings of the evaluation, for `results.json`.

        Returns:
            [`LocalizationClaim`]
        """
        own, data = self.arguments, self.config.data
        path = str(data.eval_data or data.data)
        subsets = read_segments(path).subsets
        training = None if data.eval_data is not None else find_subset(data.train_split, subsets)
        return LocalizationClaim(
            path,
            data.eval_split or evaluation_subset(subsets, training),
            one_class=own.one_class,
            class_scores=own.class_scores,
            excluded=own.excluded_videos,
            max_samples=data.max_eval_samples,
            seed=self.config.run.seed,
            **self._claimed_files(),
        )

    def _claimed_files(self) -> dict[str, Any]:
        """Where the features of the evaluation are, as fields of the claim."""
        own = self.arguments
        fps = own.fps or self.config.model.processor.get("feature_fps")
        return {"features": own.eval_features or own.features, "feature_name": own.feature_name, "fps": fps}

    def finish(self, fitted: FitResult) -> RunResult:
        """Evaluate, and save a folder that is ready for the Hub. See [`Method.finish`]."""
        evaluation = None if self.eval_source is None else self.evaluate_localizer(fitted.model)
        if self.accelerator.is_main_process:
            self.save(fitted.model, self.processor)  # type: ignore[arg-type]
            if evaluation is not None:
                evaluation.save(self.output_dir / "results.json", **dataclasses.asdict(self.claim()))
                evaluation.save_predictions(self.output_dir / "predictions.json")
        self.accelerator.wait_for_everyone()
        id2label = fitted.model.config.id2label
        facts = self.facts(fitted) | {
            "label_names": [id2label[index] for index in range(fitted.model.config.num_labels)],
            "num_eval_videos": None if evaluation is None else len(evaluation.predictions),
            "metrics": {} if evaluation is None else evaluation.metrics,
            "protocol": {} if evaluation is None else evaluation.protocol,
            "environment": {} if evaluation is None else evaluation.environment,
        }
        return RunResult(
            fitted.model,
            self.processor,  # type: ignore[arg-type]
            fitted.history,
            self.output_dir,
            facts,
            evaluation,
        )

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of sequences of the longest length. See [`Method.passes`]."""
        config, processor = self.describe()
        if num_labels:
            config.num_labels = num_labels
        features = torch.empty(1, processor.max_sequence_length, processor.feature_size, device="meta")
        sequences = self.config.optimization.batch_size
        auto_class = AutoModelForTemporalActionLocalization
        return [model_pass(auto_class, config, {"features": features}, sequences, name="sequence")]

    def preview(self, num_clips: int) -> Iterator[PreviewedClip]:
        """
        Sequences of features have no picture.

        Args:
            num_clips (`int`):
                Number of clips.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"`{self.name}` trains on features, which have no frames to show")

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """
        See [`~TemporalLocalization.preview`].

        Args:
            batch ([`Batch`]):
                A batch from the workers.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"`{self.name}` trains on features, which have no frames to show")


@dataclass(frozen=True)
class FeatureFacts:
    """
    Facts about the features of the training, as far as they are known.

    Args:
        feature_size (`int`, *optional*):
            Channels.
        description (`dict`, *optional*):
            See [`describe_features`].
    """

    feature_size: int | None = None
    description: Mapping[str, Any] | None = field(default=None)


def describe_localizer(
    arguments: ModelArguments, facts: FeatureFacts, where: str | None = None
) -> tuple[PreTrainedConfig, TemporalLocalizationProcessor]:
    """
    Configuration and processor of the localiser that a run starts from. No weights are loaded.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a size from scratch. Without `feature_size` in `config`, that of the features is taken.
        facts ([`FeatureFacts`]):
            What is known about the features.
        where (`str`, *optional*):
            Name of the features, for messages.

    Returns:
        `tuple[PreTrainedConfig, TemporalLocalizationProcessor]`

    Raises:
        ValueError: the features do not fit, or window and stride are unknown.
    """
    description = facts.description or {}
    fields: dict[str, Any] = {}
    if arguments.checkpoint is None:
        own = arguments.config
        if facts.feature_size is not None and "feature_size" not in own:
            own = {"feature_size": facts.feature_size} | own
        config: Any = described_config(dataclasses.replace(arguments, config=own))
        fields |= {name: description[key] for name, key in FROM_DESCRIPTION.items() if key in description}
        fields |= {"feature_fps": description.get("fps"), "feature_description": dict(description) or None}
        fields |= feature_processor_fields(config) | arguments.processor
        unknown = [name for name in ("feature_stride", "feature_window") if name not in fields]
        if facts.feature_size is not None and unknown and fields.get("feature_stride", 0) is not None:
            raise ValueError(
                f"Set `{unknown[0]}` in `processor`: {where!r} does not say how its features were made (features.json)"
            )
        processor = TemporalLocalizationProcessor(**fields)
    else:
        config = load_config(arguments)
        with loading("`checkpoint`", arguments.checkpoint):
            processor = AutoFeatureExtractor.from_pretrained(arguments.checkpoint)
        processor = processor.replaced(**arguments.processor)
        check_description(processor.feature_description, facts.description, f"`features` {where!r}")
    if facts.feature_size is not None and facts.feature_size != processor.feature_size:
        raise ValueError(
            f"`features` {where!r} have size {facts.feature_size}, the localiser takes {processor.feature_size}: they "
            "are of another encoder"
        )
    return config, processor


def build_localizer(
    arguments: ModelArguments, label_names: Sequence[str], facts: FeatureFacts, where: str | None = None
) -> tuple[PreTrainedModel, TemporalLocalizationProcessor]:
    """
    Build the localiser that a run starts from, and its processor.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a size from scratch. The classifier of a checkpoint is kept if its classes are the same.
        label_names (`Sequence[str]`):
            Names of the data's classes.
        facts ([`FeatureFacts`]):
            What is known about the features.
        where (`str`, *optional*):
            Name of the features, for messages.

    Returns:
        `tuple[PreTrainedModel, TemporalLocalizationProcessor]`: the model in float32, and its processor.

    Raises:
        ValueError: the checkpoint does not fit the arguments or the data.
    """
    if arguments.checkpoint is None:
        config_from_scratch(arguments)  # refuses recipes that need a checkpoint
    config, processor = describe_localizer(arguments, facts, where)
    theirs = {config.id2label[index] for index in range(config.num_labels)}
    keep = arguments.head == "keep" or arguments.head == "auto" and theirs == set(label_names)
    keep = keep and arguments.checkpoint is not None
    if not keep:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
    if arguments.checkpoint is None:
        model = AutoModelForTemporalActionLocalization.from_config(config, **attention_options(arguments))
    else:
        model = _load_localizer(arguments, config, keep)
    return ready_to_train(arguments, model), processor


def _load_localizer(arguments: ModelArguments, config: PreTrainedConfig, keep: bool) -> PreTrainedModel:
    """A checkpoint as a localiser, with a new classifier unless it is kept."""
    with loading("`checkpoint`", str(arguments.checkpoint)):
        model, info = AutoModelForTemporalActionLocalization.from_pretrained(
            arguments.checkpoint,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=not keep,
            output_loading_info=True,
            **attention_options(arguments),
        )
    if info["missing_keys"]:
        raise ValueError(
            f"`checkpoint` {arguments.checkpoint!r} lacks {', '.join(sorted(info['missing_keys'])[:8])} of "
            f"{type(model).__name__}"
        )
    if not keep:
        fresh = type(model)(config).state_dict()
        own = model.state_dict()
        for name in own:
            if ".classifier." in name:
                own[name].copy_(fresh[name])
    return model


__all__ = [
    "FeatureFacts",
    "LocalizationArguments",
    "TemporalLocalization",
    "TemporalLocalizationArguments",
    "build_localizer",
    "describe_localizer",
]
