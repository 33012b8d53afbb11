"""Temporal localisation from films: an encoder, or its adapters, and a localiser that are trained together."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoVideoProcessor, PreTrainedConfig, PreTrainedModel

from ...auto import AutoModelForTemporalActionLocalization
from ...files import loading
from ...films import check_windows
from ...modeling.configuration_video_temporal_localizer import VideoTemporalLocalizerConfig
from ...modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from ...modeling.modeling_video_temporal_localizer import MODEL_CLASSES, VideoTemporalLocalizer
from ..arguments import ModelArguments, RunConfig
from ..building import attention_options, config_from_scratch, describe_inputs, ready_to_train
from ..data.film_source import FilmWindowLoader, FrameWindows, join_films
from ..data.loaders import SampleLoader
from ..data.segment_files import read_segments
from ..data.streams import clip_augmentation, keep_directions
from ..fields import check_minimum, option
from .common import Rows, Sources
from .passes import Pass, example_pixels, model_pass
from .temporal_localization import (
    OTHER_DATA,
    FeatureFacts,
    LocalizationArguments,
    TemporalLocalization,
    build_localizer,
    describe_localizer,
)


ON_DEVICE = ("num_sample", "augment_on_device", "device_area")
WHOLE_MODEL = VideoTemporalLocalizerConfig.model_type


@dataclass
class EndToEndLocalizationArguments(LocalizationArguments):
    """
    Arguments of temporal localisation from films.

    Raises:
        ValueError: a value is out of range.
    """

    encoder: str | None = option(None, "folder or Hub id of the encoder to start from, with its processor")
    encoder_type: str = option("videomae_v2", "family of an encoder from scratch")
    encoder_size: str | None = option(None, "published size of an encoder from scratch")
    needs_encoder: bool = option(False, "refuse an encoder from scratch, because the recipe continues a trained one")
    encoder_config: dict[str, Any] = option({}, "config fields that override those of the encoder, as adapter_layers")
    encoder_processor: dict[str, Any] = option({}, "attributes that override those of the encoder's processor")
    encoder_training: Literal["frozen", "adapters", "full"] = option(
        "frozen", "what is trained of the encoder: nothing, its adapters, or all"
    )
    feature_source: Literal["windows", "moments"] = option(
        "windows", "a feature is a window of frames, or a moment of a whole part of a film (AdaTAD)"
    )
    feature_window: int | None = option(None, "frames of a window; none means those of the encoder, or of a moment")
    feature_stride: int | None = option(None, "frames from one feature to the next; none means no overlap")
    frame_step: int = option(1, "every so many frames of a film are read")
    pooling: Literal["default", "mean", "first"] = option("default", "how the tokens of a window become a feature")
    windows_at_once: int = option(8, "windows in a forward pass of the encoder")
    short_side: int | None = option(
        None, "short side that training frames are resized to before augmentation; none keeps their size"
    )
    video_name: str = option("{video}", "how files are named after videos, such as v_{video}")
    missing_videos: Literal["refuse", "count"] = option(
        "refuse", "evaluation videos without a file: refuse to start, or count their segments as missed"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_minimum(self, feature_window=1, feature_stride=1, frame_step=1, windows_at_once=1, short_side=1)
        if "{video}" not in self.video_name:
            raise ValueError(f"`video_name` must contain {{video}}, got {self.video_name!r}")


CHAIN = ("feature_source", "feature_window", "feature_stride", "frame_step", "pooling", "windows_at_once")
OF_ENCODER = (*CHAIN, "encoder_training", "encoder", "encoder_size", "encoder_config", "encoder_processor")


class EndToEndLocalization(TemporalLocalization):
    """
    Train a localiser together with its encoder, on films. `data` is a file with segments, see [`read_segments`], and
    `data_root` the folder of the videos.

    Args:
        config ([`RunConfig`]):
            The run. `checkpoint` is a localiser, or a model with both.
        given:
            See [`Method`].
    """

    name = "end_to_end_localization"
    arguments_class = EndToEndLocalizationArguments
    unread = (
        *("picture_every", "image_model", "probe", "lora", *ON_DEVICE),
        *(name for name in OTHER_DATA if name != "data_root"),
    )
    model_types = ("actionformer", WHOLE_MODEL)
    files, missing_field = "files", "missing_videos"

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """Whether an encoder is named, or in the model. See [`Method.fits`]."""
        named = {"encoder", "encoder_size", "encoder_type"} & config.method.keys()
        return (
            model_config["model_type"] == WHOLE_MODEL or bool(named) and model_config["model_type"] == "actionformer"
        )

    def open_sources(self) -> Sources:
        """
        Read the annotations, and find their videos.

        Raises:
            ValueError: `data` or `data_root` is missing or cannot be used, or evaluation videos have no file.
        """
        data, own = self.config.data, self.arguments
        if data.data is None or data.data_root is None:
            raise ValueError("`data` (a file with segments) and `data_root` (the folder of the videos) are needed")
        annotations = read_segments(data.data, own.excluded_videos)
        videos, held_out, names = self._subsets(annotations)
        train = join_films(videos, names, data.data_root, form=own.video_name, remarks=annotations.remarks)
        evaluated = None if held_out is None else join_films(held_out, names, data.data_root, form=own.video_name)
        return self._chosen(train, evaluated)

    @property
    def _has_whole_model(self) -> bool:
        """Whether the run starts from an encoder and a localiser in one model."""
        checkpoint = self.config.model.checkpoint
        if checkpoint is None:
            return False
        with loading("`checkpoint`", checkpoint):
            return AutoConfig.from_pretrained(checkpoint).model_type == WHOLE_MODEL

    @property
    def encoder_arguments(self) -> ModelArguments:
        """The encoder to start from."""
        own = self.arguments
        return ModelArguments(
            checkpoint=own.encoder,
            model_type=own.encoder_type,
            size=own.encoder_size,
            needs_checkpoint=own.needs_encoder,
            config=own.encoder_config,
            processor=own.encoder_processor,
            attn_implementation=self.config.model.attn_implementation,
        )

    def describe(self) -> tuple[PreTrainedConfig, TemporalLocalizationProcessor]:  # type: ignore[override]
        """Configuration and processor of the whole model. See [`Method.describe`]."""
        arguments = self.config.model
        if self._has_whole_model:
            self._refuse_encoder()
            checkpoint = str(arguments.checkpoint)
            with loading("`checkpoint`", checkpoint):
                config = AutoConfig.from_pretrained(checkpoint, **arguments.config)
                processor = AutoFeatureExtractor.from_pretrained(checkpoint).replaced(**arguments.processor)
                self.video_processor = AutoVideoProcessor.from_pretrained(checkpoint)
        else:
            encoder_config, self.video_processor = describe_inputs(self.encoder_arguments)
            localizer_config, processor = describe_localizer(arguments, self._facts_of(encoder_config))
            config = self._joined_config(encoder_config, localizer_config)
        self._check(config, processor)
        return config, processor

    def _refuse_encoder(self) -> None:
        own, default = self.arguments, self.arguments_class()
        for name in OF_ENCODER:
            if getattr(own, name) != getattr(default, name):
                raise ValueError(
                    f"`{name}` is not read, got {getattr(own, name)!r}: `checkpoint` {self.config.model.checkpoint!r} "
                    f"has an encoder. Set its fields in `config`"
                )

    def _joined_config(self, encoder: Any, localizer: Any) -> VideoTemporalLocalizerConfig:
        own = self.arguments
        fields = {name: getattr(own, name) for name in (*CHAIN, "encoder_training")}
        return VideoTemporalLocalizerConfig(encoder_config=encoder, localizer_config=localizer, **fields)

    def _facts_of(self, encoder: Any) -> FeatureFacts:
        """Facts about the features that the encoder will make, which the localiser keeps."""
        own = self.arguments
        window = own.feature_window or (encoder.num_frames if own.feature_source == "windows" else None)
        stride = own.feature_stride or window or 1
        name = Path(own.encoder or own.encoder_type).name
        description = {
            "encoder": name if own.encoder_training == "frozen" else f"{name}, trained with the localiser",
            "feature_size": encoder.hidden_size,
            "window": (window or stride) * own.frame_step,
            "stride": stride * own.frame_step,
        }
        return FeatureFacts(encoder.hidden_size, description)

    def _check(self, config: Any, processor: TemporalLocalizationProcessor) -> None:
        if config.squash_frames:
            raise ValueError(
                "`squash_frames` must be false in training: make features with `embed`, and train on them"
            )
        if processor.resize_to_max_length or processor.feature_stride is None or processor.downsample_rate != 1:
            raise ValueError(
                "`processor` must neither resize nor thin out features (`resize_to_max_length`, `feature_stride`, "
                "`downsample_rate`): a training sample is a part of a film"
            )
        check_windows(config, processor)
        windows = FrameWindows(config, processor.max_sequence_length)
        frames = windows.steps * config.feature_stride
        if config.feature_source == "moments" and frames % windows.multiple:
            raise ValueError(
                f"`max_sequence_length` times `feature_stride` must be a multiple of {windows.multiple} frames, got "
                f"{frames}"
            )

    def build(self) -> tuple[PreTrainedModel, TemporalLocalizationProcessor]:  # type: ignore[override]
        """The model that the run starts from. See [`Method.build`]."""
        arguments, names = self.config.model, self.train_source.label_names
        if self._has_whole_model:
            config, processor = self.describe()
            if {config.id2label[index] for index in range(config.num_labels)} != set(names):
                raise ValueError(
                    f"`checkpoint` {arguments.checkpoint!r} has other classes than the data. Start from its parts: "
                    "`encoder`, and a localiser as `checkpoint`"
                )
            model = AutoModelForTemporalActionLocalization.from_pretrained(
                arguments.checkpoint, config=config, dtype=torch.float32, **attention_options(arguments)
            )
            return ready_to_train(arguments, model).train(), processor
        encoder = self._encoder()
        plain = replace(arguments, frozen_layers=None, gradient_checkpointing=False)
        localizer, processor = build_localizer(plain, names, self._facts_of(encoder.config))
        config = self._joined_config(encoder.config, localizer.config)
        self._check(config, processor)
        model = VideoTemporalLocalizer(config, encoder, localizer)  # type: ignore[arg-type]
        if arguments.attn_implementation is not None:
            model.set_attn_implementation(arguments.attn_implementation)
        return ready_to_train(arguments, model).train(), processor

    def _encoder(self) -> PreTrainedModel:
        """The encoder; adapters that its checkpoint lacks are new, and change nothing at the start."""
        arguments = self.encoder_arguments
        if arguments.checkpoint is None:
            config_from_scratch(arguments)  # refuses recipes that need a trained encoder
        config, self.video_processor = describe_inputs(arguments)
        encoder_class = MODEL_CLASSES.get(config.model_type)
        if encoder_class is None:
            raise ValueError(f"`encoder` must be of one of {', '.join(MODEL_CLASSES)}, got {config.model_type!r}")
        options = attention_options(arguments)
        if arguments.checkpoint is None:
            return encoder_class._from_config(config, **options)
        with loading("`encoder`", arguments.checkpoint):
            encoder, info = encoder_class.from_pretrained(
                arguments.checkpoint, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
        missing = sorted(name for name in info["missing_keys"] if ".adapter." not in name)
        if missing:
            raise ValueError(f"`encoder` {arguments.checkpoint!r} lacks {', '.join(missing[:8])}")
        return encoder

    def loader(self) -> SampleLoader:
        """The function that reads the frames of a window of a film."""
        own, names = self.arguments, self.train_source.label_names
        augmentation: Any = clip_augmentation(keep_directions(self.config.augmentation, names), self.video_processor)
        return FilmWindowLoader(
            self.processor,
            self.video_processor,
            FrameWindows(self.model.config, self.processor.max_sequence_length),
            augmentation,
            names,
            self.config.run.seed,
            self.max_segments,
            own.min_inside,
            own.window_ratio,
            own.short_side,
        )

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """
        Leave out frames, steps and places that no film of the batch has, and normalise on the device. See
        [`Method.prepare_batch`].
        """
        windows = FrameWindows(self.model.config, rows["attention_mask"].shape[1])
        longest = int(rows["attention_mask"].sum(dim=1).max())
        frames = rows["frames"][:, : windows.frames_of(longest)].to(device, non_blocking=True)
        longest = windows.steps if self.processor.pad_to_max_length else windows.steps_of(frames.shape[1])
        segments = max(int((rows["class_labels"] >= 0).sum(dim=1).max()), 1)
        batch = {"attention_mask": rows["attention_mask"][:, :longest]}
        batch |= {name: rows[name][:, :segments] for name in ("segments", "class_labels")}
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        return {"pixel_values": self.video_processor.normalize_clips(frames)} | batch

    def _claimed_files(self) -> dict[str, Any]:
        return {"videos_folder": self.config.data.data_root, "feature_name": self.arguments.video_name}

    def save(self, model: PreTrainedModel, processor: Any, folder: Path | None = None) -> None:
        """
        Save the model with the processors of both parts, as the pipeline opens it.

        Args:
            model (`PreTrainedModel`):
                The model.
            processor ([`TemporalLocalizationProcessor`]):
                The localiser's processor.
            folder (`Path`, *optional*):
                Defaults to `output_dir`.
        """
        super().save(model, processor, folder)
        self.video_processor.save_pretrained(folder or self.output_dir)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of a window of a film. See [`Method.passes`]."""
        config, processor = self.describe()
        if num_labels:
            config.localizer_config.num_labels = num_labels
        frames = FrameWindows(config, processor.max_sequence_length).frames_of(processor.max_sequence_length)
        pixels = example_pixels(config.encoder_config, 1, frames)
        samples = self.config.optimization.batch_size
        return [
            model_pass(AutoModelForTemporalActionLocalization, config, {"pixel_values": pixels}, samples, name="film")
        ]


__all__ = ["EndToEndLocalization", "EndToEndLocalizationArguments"]
