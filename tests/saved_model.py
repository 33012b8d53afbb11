"""A tiny VideoMAE V2 with its processor, in memory or in a folder."""

from pathlib import Path

import torch

from hf_videovit import (
    ActionFormerConfig,
    ActionFormerForTemporalActionLocalization,
    TemporalLocalizationProcessor,
    VideoMAEV2Config,
    VideoMAEV2ForActionDetection,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2Model,
    VideoMAEV2VideoProcessor,
)
from hf_videovit.inference.temporal_localization import join_localizer, save_localizer


LABELS = ("right", "left", "down", "up", "still", "other")


def tiny_config(**fields) -> VideoMAEV2Config:
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "patch_size": 8,
        "image_size": 32,
        "num_frames": 4,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
    }
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: index for index, name in enumerate(LABELS)}}
    return VideoMAEV2Config(**{**sizes, **names, **fields})


def tiny_processor(**fields) -> VideoMAEV2VideoProcessor:
    protocol = {
        "num_frames": 4,
        "frame_stride": 2,
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
    }
    return VideoMAEV2VideoProcessor(**{**protocol, **fields})


def tiny_classifier(seed: int = 0, **fields) -> VideoMAEV2ForVideoClassification:
    """A classifier whose scores differ from video to video (the published start is close to zero)."""
    torch.manual_seed(seed)
    model = VideoMAEV2ForVideoClassification(tiny_config(**fields)).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model


def save_tiny_classifier(folder: str | Path, *, seed: int = 0, config: dict | None = None, **processor) -> Path:
    """Save a tiny classifier with its processor; `processor` are fields of it."""
    tiny_classifier(seed, **(config or {})).save_pretrained(folder)
    tiny_processor(**processor).save_pretrained(folder)
    return Path(folder)


def save_tiny_detector(folder: str | Path, *, seed: int = 0) -> Path:
    """Save a tiny action detector with its processor."""
    torch.manual_seed(seed)
    model = VideoMAEV2ForActionDetection(tiny_config()).eval()
    torch.nn.init.normal_(model.action_head.classifier.weight)
    model.save_pretrained(folder)
    tiny_processor(do_center_crop=False).save_pretrained(folder)
    return Path(folder)


def save_tiny_localizer(folder: str | Path, *, seed: int = 0) -> Path:
    """Save a tiny encoder and localiser with their processors, in one folder; windows every 2 frames."""
    torch.manual_seed(seed)
    encoder = VideoMAEV2Model(tiny_config()).eval()
    width = encoder.config.hidden_size
    config = ActionFormerConfig(
        feature_size=width,
        hidden_size=16,
        head_hidden_size=16,
        num_branch_layers=2,
        attention_window=5,
        classifier_prior=0.3,
        id2label=encoder.config.id2label,
        label2id=encoder.config.label2id,
    )
    localizer = ActionFormerForTemporalActionLocalization(config).eval()
    torch.nn.init.normal_(localizer.classification_head.classifier.weight, std=0.3)
    torch.nn.init.constant_(localizer.offset_head.offsets.bias, 1.0)
    processor = TemporalLocalizationProcessor(
        feature_size=width, feature_stride=2, feature_window=encoder.config.num_frames
    )
    return save_localizer(folder, **join_localizer(encoder, localizer, processor, tiny_processor()))
