"""
AdaTAD: a file of OpenTAD with an encoder of VideoMAE (V2) that has adapters, and a localiser on its features. It
becomes one [`VideoTemporalLocalizer`]; its parts are planned by the converters of their families.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedConfig

from ..modeling.configuration_actionformer import ActionFormerConfig
from ..modeling.configuration_video_temporal_localizer import VideoTemporalLocalizerConfig
from ..modeling.configuration_videomae_v2 import VideoMAEV2Config
from ..modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from ..modeling.modeling_video_temporal_localizer import VideoTemporalLocalizer
from ..modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor
from ..published import published_entry, published_processor_kwargs
from ..published.localizers import frame_processor_fields
from . import convert_actionformer, convert_videomae_v2
from .fields import known_config, make_config
from .keys import Checkpoint, shorten
from .kinds import OPENTAD_ENCODER, holds_encoder
from .localizer_settings import read_settings
from .plan import Conversion, Piece


TASK = "temporal-action-localization"
MODEL_CLASSES: dict[str, Any] = {TASK: VideoTemporalLocalizer}
# Settings of the encoder, and ours.
ENCODER_FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "embed_dims": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_frames": "num_frames",
    "tubelet_size": "tubelet_size",
    "drop_path_rate": "drop_path_rate",
}
Fields = dict[str, Any]


def plan_conversion(
    checkpoint: Checkpoint,
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    settings: str | os.PathLike | Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Conversion:
    """
    Plan the conversion of an AdaTAD checkpoint.

    Args:
        checkpoint ([`Checkpoint`]):
            The opened file.
        task (`str`):
            See [`~convert.convert_checkpoint`].
        config ([`PreTrainedConfig`], *optional*):
            See [`~convert.convert_checkpoint`].
        labels (`str` or `Sequence[str]`, *optional*):
            See [`~convert.convert_checkpoint`].
        published (`str`, *optional*):
            See [`~convert.convert_checkpoint`].
        settings (`str` or `os.PathLike` or `Mapping[str, Any]`, *optional*):
            OpenTAD's configuration of the checkpoint as JSON or YAML (mmengine's `Config.dump`): `model`, and where
            they are there `dataset`, `post_processing` and `scale_factor`.
        overrides (`Any`):
            Fields of [`VideoTemporalLocalizerConfig`], of the encoder or of the localiser. Those that both parts have
            belong into `encoder_config` or `localizer_config`, as dictionaries.

    Returns:
        [`Conversion`]

    Raises:
        ValueError: the file is not such a checkpoint, contradicts an argument, or settings are needed.
    """
    if not holds_encoder(checkpoint):
        raise ValueError(
            f"{checkpoint.name} is not an AdaTAD checkpoint with its encoder. It starts with "
            f"{shorten(list(checkpoint.shapes)[:5])}. A localiser alone is of the family 'actionformer'."
        )
    given = known_config(VideoTemporalLocalizerConfig, config, published)
    if published is not None and settings is not None:
        raise ValueError("Pass `settings` or `published`, not both.")
    known = read_settings(settings) if settings is not None else {}
    own, of_encoder, of_localizer = _sorted_fields(overrides)
    encoder_part, localizer_part = _parts(checkpoint)
    encoder = convert_videomae_v2.plan_conversion(
        encoder_part,
        task="feature-extraction",
        config=getattr(given, "encoder_config", None),
        **{**_encoder_fields(known), **of_encoder},
    )
    localizer = convert_actionformer.plan_conversion(
        localizer_part,
        task=TASK,
        config=getattr(given, "localizer_config", None),
        labels=labels,
        settings=settings,
        **of_localizer,
    )
    frames = _frames(known, encoder.config, localizer.config) if given is None else _frames_of(given)
    whole = {"feature_source": "moments", "encoder_training": "adapters", **frames, **own}
    joined = make_config(
        VideoTemporalLocalizerConfig,
        {"encoder_config": encoder.config, "localizer_config": localizer.config, **whole},
    )
    plan = Conversion(checkpoint, joined, MODEL_CLASSES[task], {})
    _join(plan, {"encoder.": encoder, "localizer.": localizer})
    plan.processor = _feature_processor(localizer.processor, joined, published)
    plan.video_processor = _video_processor(encoder.processor, known, published)
    return plan


def _parts(checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """The encoder's tensors by their names in it, and the localiser's."""
    inner = {name: match[1] for name in checkpoint.shapes if (match := OPENTAD_ENCODER.fullmatch(name))}
    outer = {name: name for name in checkpoint.shapes if name not in inner}
    return _part(checkpoint, inner), _part(checkpoint, outer)


def _part(checkpoint: Checkpoint, names: dict[str, str]) -> Checkpoint:
    sources = {ours: theirs for theirs, ours in names.items()}
    if len(sources) < len(names):
        raise ValueError(f"{checkpoint.name} has tensors of its encoder twice, with and without a wrapper's prefix.")
    return replace(
        checkpoint,
        shapes={name: checkpoint.shapes[source] for name, source in sources.items()},
        read=lambda name: checkpoint.read(sources[name]),
        config={},
        file_names=sources,
    )


def _sorted_fields(overrides: Fields) -> tuple[Fields, Fields, Fields]:
    """Fields of the whole, of the encoder and of the localiser. ValueError for one that could be of either part."""
    overrides = {**overrides}
    parts = {name: dict(overrides.pop(name, {})) for name in ("encoder_config", "localizer_config")}
    own: Fields = {}
    for name, value in overrides.items():
        in_encoder, in_localizer = (
            name in fields.__dataclass_fields__ for fields in (VideoMAEV2Config, ActionFormerConfig)
        )
        if name in VideoTemporalLocalizerConfig.__annotations__:
            own[name] = value
        elif name in ("num_labels", "id2label", "label2id") or (in_localizer and not in_encoder):
            parts["localizer_config"][name] = value
        elif in_localizer and in_encoder:
            raise ValueError(f"`{name}` is a field of both parts. Pass it in `encoder_config` or `localizer_config`.")
        else:
            parts["encoder_config"][name] = value
    return own, parts["encoder_config"], parts["localizer_config"]


def _encoder_fields(settings: Mapping[str, Any]) -> Fields:
    """Fields of the encoder in OpenTAD's settings."""
    wrapper = settings.get("model", settings).get("backbone", {})
    section = wrapper.get("backbone", wrapper)
    fields = {ours: section[theirs] for theirs, ours in ENCODER_FIELDS.items() if theirs in section}
    if "eps" in section.get("norm_cfg", {}):
        fields["layer_norm_eps"] = section["norm_cfg"]["eps"]
    if "adapter_index" in section:
        fields["adapter_layers"] = list(section["adapter_index"])
    return fields


def _frames(settings: Mapping[str, Any], encoder: VideoMAEV2Config, localizer: ActionFormerConfig) -> Fields:
    """Frames of a feature, and their distance in the video. `scale_factor` is OpenTAD's word for the former."""
    wrapper = settings.get("model", {}).get("backbone", {})
    frames = wrapper.get("backbone", wrapper).get("total_frames")
    default = frames / localizer.max_sequence_length if frames else 1
    scale = settings.get("scale_factor", default)
    dataset = _test_section(settings)
    if "resize_length" in dataset:
        raise ValueError(
            "`settings` has `resize_length`: models that spread a fixed number of frames over a whole video "
            "(ActivityNet) are not supported."
        )
    stride = dataset.get("feature_stride", scale) * dataset.get("sample_stride", 1)
    if scale < 1 or scale % 1 or stride % scale:
        raise ValueError(f"`settings` must have a whole number of frames for a feature, got {stride:g} / {scale:g}.")
    return {"feature_stride": int(scale), "frame_step": int(stride // scale)}


def _frames_of(config: Any) -> Fields:
    names = ("feature_source", "feature_window", "feature_stride", "frame_step", "encoder_training", "windows_at_once")
    return {name: getattr(config, name) for name in names}


def _test_section(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    dataset = settings.get("dataset", {})
    return dataset.get("test") or dataset.get("val") or {}


def _join(plan: Conversion, parts: Mapping[str, Conversion]) -> None:
    """Fill in the pieces of both parts, under the file's names."""
    for prefix, part in parts.items():
        names = part.checkpoint.file_names
        for ours, piece in part.pieces.items():
            plan.pieces[prefix + ours] = Piece(names[piece.source], piece.transform)
        plan.dropped |= {names[source]: reason for source, reason in part.dropped.items()}
        plan.fresh |= {prefix + ours: reason for ours, reason in part.fresh.items()}
        plan.official_names |= {prefix + ours: theirs for ours, theirs in part.official_names.items()}


def _feature_processor(
    processor: TemporalLocalizationProcessor, config: Any, published: str | None
) -> TemporalLocalizationProcessor:
    """Processor of features: a feature stands at the first of its frames."""
    fields = processor.to_dict()
    fields |= {} if published is None else published_processor_kwargs(published)
    stride = config.feature_stride * config.frame_step
    if fields["feature_offset"] is None:
        fields["feature_offset"] = 0.0
    fields |= {"feature_stride": stride, "feature_window": config.feature_window * config.frame_step}
    return TemporalLocalizationProcessor(**{**fields, "downsample_rate": 1})


def _video_processor(
    processor: VideoMAEV2VideoProcessor, settings: Mapping[str, Any], published: str | None
) -> VideoMAEV2VideoProcessor:
    """Processor of frames: the crop of the tests and the normalisation of the settings."""
    fields = processor.to_dict()
    if published is not None:
        return VideoMAEV2VideoProcessor(**{**fields, **frame_processor_fields(published_entry(published).protocol)})
    normalisation = settings.get("model", {}).get("backbone", {}).get("data_preprocessor", {})
    for theirs, ours in (("mean", "image_mean"), ("std", "image_std")):
        if theirs in normalisation:
            fields[ours] = [value / 255 for value in normalisation[theirs]]
    for step in _test_section(settings).get("pipeline", []):
        if step.get("type") == "mmaction.Resize" and min(step["scale"]) == -1:
            fields["size"] = {"shortest_edge": max(step["scale"])}
        if step.get("type") == "mmaction.CenterCrop":
            fields["crop_size"] = {"height": step["crop_size"], "width": step["crop_size"]}
    return VideoMAEV2VideoProcessor(**fields)


__all__ = ["plan_conversion"]
