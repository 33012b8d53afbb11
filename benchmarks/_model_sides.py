"""The tasks of the comparison of models: for each, our model, the official structure, and other libraries' models."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.video.swin_transformer import PatchEmbed3d, SwinTransformer3d
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)

from benchmarks import reference
from hf_videovit import (
    BevtConfig,
    LstclConfig,
    LstclForVideoClassification,
    TubeViTConfig,
    TubeViTForVideoClassification,
    UniFormerConfig,
    UniFormerV2Config,
    VideoMAEV2Config,
    convert_checkpoint,
)
from hf_videovit.modeling import layers
from hf_videovit.training.data.masking import running_cell_mask, tube_mask
from hf_videovit.training.words.streams import RandomMasks
from hf_videovit.training.words.tokenizers import CodebookTokenizer


OURS, OFFICIAL, WHOLE = "hf_videovit", "official structure", "hf_videovit, not in parts"
PHASES = ("forward", "training step")
LABELS = 400


@dataclass
class Side:
    """
    One side of a comparison.

    Args:
        model (`nn.Module`):
            The model.
        answers (`Callable`):
            What it answers on the task's input.
        loss (`Callable`):
            Its loss on the task's input.
        same_weights (`bool`, *optional*, defaults to `True`):
            Whether it has our model's weights, so that it must give our answers.
        phases (`tuple[str, ...]`, *optional*):
            What is measured of it.
    """

    model: nn.Module
    answers: Callable[[], torch.Tensor]
    loss: Callable[[], torch.Tensor]
    same_weights: bool = True
    phases: tuple[str, ...] = PHASES


Sides = dict[str, Side]


@dataclass(frozen=True)
class Task:
    """
    What is compared.

    Args:
        name (`str`):
            Model and input.
        make (`Callable`):
            Makes the sides from the configuration and the input; ours, then the official structure, then others.
        config (`Callable`):
            Makes the configuration, given fields that every task sets.
        shape (`tuple[int, ...]`):
            Shape of a sample of the input.
        phases (`tuple[str, ...]`, *optional*):
            What is measured.
        repeats (`int`, *optional*, defaults to 1):
            Rounds of a quick task for each one asked for.
        samples (`int`, *optional*, defaults to 1):
            Samples of the input for each one asked for.
    """

    name: str
    make: Callable[[Any, torch.Tensor], Sides]
    config: Callable[..., Any]
    shape: tuple[int, ...]
    phases: tuple[str, ...] = PHASES
    repeats: int = 1
    samples: int = 1

    def sides(self, arguments: argparse.Namespace) -> Sides:
        """
        All sides.

        Args:
            arguments (`argparse.Namespace`):
                The command line.
        """
        torch.manual_seed(0)
        device, dtype = arguments.device, getattr(torch, arguments.dtype)
        pixels = torch.randn(self.samples * arguments.batch_size, *self.shape, device=device, dtype=dtype)
        sides = self.make(self.config(attn_implementation=arguments.attention), pixels)
        for side in sides.values():
            side.model.to(device, dtype)
        first = {OURS: sides.pop(OURS), OFFICIAL: sides.pop(OFFICIAL)}
        return {**first, WHOLE: not_in_parts(first[OURS]), **sides}


def not_in_parts(side: Side) -> Side:
    """Our model with MLPs and attention over all tokens at once; see `apply_mlp`."""

    def answers() -> torch.Tensor:
        with patch.object(layers, "TOKENS_AT_ONCE", sys.maxsize):
            return side.answers()

    return Side(side.model, answers, side.loss, phases=PHASES[:1])


def classifier(model: nn.Module, pixels: torch.Tensor, same_weights: bool = True, hub: bool = True) -> Side:
    """Side of a classifier; `hub` tells transformers' models, which return objects, from those that return logits."""
    labels = torch.arange(len(pixels), device=pixels.device) % 2

    def answers() -> torch.Tensor:
        return model(pixels).logits if hub else model(pixels)

    return Side(model, answers, lambda: F.cross_entropy(answers(), labels), same_weights)


def shuffled(model: nn.Module) -> nn.Module:
    """Parameters that start at zero or one moved away, so that a part that is left out or wrong shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def converted(family: str, official: nn.Module, config: Any, task: str = "video-classification") -> Any:
    """Our model of the weights of an official one."""
    model = convert_checkpoint(family, official.state_dict(), task=task, config=config)
    model.set_attn_implementation(config._attn_implementation)
    return model


def videomae_v2(config: VideoMAEV2Config, clips: torch.Tensor) -> Sides:
    official = shuffled(reference.VideoMAEV2(config))
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size")
    fields = {name: getattr(config, name) for name in (*names, "patch_size", "num_frames", "num_labels")}
    theirs = VideoMAEConfig(layer_norm_eps=1e-6, attn_implementation=config._attn_implementation, **fields)
    return {
        OURS: classifier(converted("videomae_v2", official, config), clips),
        OFFICIAL: classifier(official, clips.transpose(1, 2), hub=False),
        "transformers VideoMAE": classifier(VideoMAEForVideoClassification(theirs), clips, same_weights=False),
    }


def videomae_v2_pretraining(config: VideoMAEV2Config, clips: torch.Tensor) -> Sides:
    official = shuffled(reference.VideoMAEV2Pretraining(config))
    ours = converted("videomae_v2", official, config, "pretraining")
    grid, batch = config.token_grid(), len(clips)
    hidden = torch.from_numpy(tube_mask(grid, 0.9)).flatten().bool().to(clips.device).expand(batch, -1)
    skipped = torch.from_numpy(running_cell_mask(grid, 0.5)).flatten().bool().to(clips.device).expand(batch, -1)

    def loss(*masks: torch.Tensor) -> Callable[[], torch.Tensor]:
        return lambda: ours(clips, *masks).loss

    def official_loss() -> torch.Tensor:
        return official(clips.transpose(1, 2), hidden, skipped)

    return {
        OURS: Side(ours, loss(hidden, skipped), loss(hidden, skipped)),
        OFFICIAL: Side(official, official_loss, official_loss),
        "hf_videovit, every hidden token": Side(ours, loss(hidden), loss(hidden), same_weights=False),
    }


def bevt(config: BevtConfig, clips: torch.Tensor) -> Sides:
    official = shuffled(reference.VideoSwin(config))
    theirs = SwinTransformer3d(
        patch_size=[config.tubelet_size, config.patch_size, config.patch_size],
        embed_dim=config.hidden_sizes[0],
        depths=list(config.depths),
        num_heads=list(config.num_attention_heads),
        window_size=list(config.window_size),
        stochastic_depth_prob=0.0,
        num_classes=config.num_labels,
        patch_embed=PatchEmbed3d,
    )
    return {
        OURS: classifier(converted("bevt", official, config), clips),
        OFFICIAL: classifier(official, clips.transpose(1, 2), hub=False),
        "torchvision SwinTransformer3d": classifier(theirs, clips.transpose(1, 2), same_weights=False, hub=False),
    }


def bevt_pretraining(config: BevtConfig, clips: torch.Tensor) -> Sides:
    official = shuffled(reference.VideoSwinPretraining(config))
    ours = converted("bevt", official, config, "pretraining")
    draw = RandomMasks(config, images=False)
    mask = torch.stack([draw(seed) for seed in range(len(clips))]).to(clips.device)
    frames, height, width = clips.shape[1], *mask.shape[2:]
    words = torch.randint(config.vocab_size, (len(clips), frames, height, width), device=clips.device)
    tokenizer = CodebookTokenizer(FlavaImageCodebook(FlavaImageCodebookConfig()).to(clips.device, clips.dtype))
    small = F.interpolate(clips.flatten(0, 1), size=(8 * height, 8 * width))

    def loss() -> torch.Tensor:
        return ours(clips, mask=mask, labels=words, masked_only=True).loss

    def official_loss() -> torch.Tensor:
        return official(clips.transpose(1, 2), mask, words)

    def tokens() -> torch.Tensor:
        return tokenizer(small)

    return {
        OURS: Side(ours, loss, loss),
        OFFICIAL: Side(official, official_loss, official_loss),
        "its words by transformers' FlavaImageCodebook": Side(nn.Identity(), tokens, tokens, False, PHASES[:1]),
    }


def timesformer(config: LstclConfig, clips: torch.Tensor) -> Sides:
    official = shuffled(reference.TimeSformer(config))
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size")
    fields = {name: getattr(config, name) for name in (*names, "patch_size", "num_frames", "num_labels")}
    theirs = TimesformerConfig(**fields)  # one way of attention
    return {
        OURS: classifier(converted("lstcl", official, config), clips),
        OFFICIAL: classifier(official, clips.transpose(1, 2), hub=False),
        "transformers TimeSformer": classifier(TimesformerForVideoClassification(theirs), clips, same_weights=False),
    }


def divided_swin(config: LstclConfig, clips: torch.Tensor) -> Sides:
    plain = reference.DividedSwin(config)
    shuffled(plain)
    ours = LstclForVideoClassification(config)
    ours.load_state_dict(plain.our_state())
    return {OURS: classifier(ours, clips), OFFICIAL: classifier(plain, clips.transpose(1, 2), hub=False)}


def tubevit(config: TubeViTConfig, clips: torch.Tensor) -> Sides:
    plain = reference.PlainTubeViT(config)
    shuffled(plain)
    ours = TubeViTForVideoClassification(config)
    ours.load_state_dict(plain.our_state())
    size = (clips.shape[1], *clips.shape[3:])
    tokens = sum(config.token_counts(size))
    rows = max(side for side in range(1, 33) if tokens % side == 0)  # an image of as many patches
    image_size = (16 * rows, 16 * tokens // rows)
    image = timm.create_model(
        "vit_base_patch16_224",
        img_size=image_size,
        class_token=False,
        global_pool="avg",
        num_classes=config.num_labels,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
    )
    images = torch.randn(len(clips), 3, *image_size, device=clips.device, dtype=clips.dtype)
    return {
        OURS: classifier(ours, clips),
        OFFICIAL: classifier(plain, clips.transpose(1, 2), hub=False),
        "timm ViT of as many tokens": classifier(image, images, same_weights=False, hub=False),
    }


def uniformer(config: UniFormerConfig, pixels: torch.Tensor) -> Sides:
    official = shuffled(reference.UniFormer(config))
    task = f"{config.modality}-classification"
    official_pixels = pixels.transpose(1, 2) if config.modality == "video" else pixels
    return {
        OURS: classifier(converted("uniformer", official, config, task), pixels),
        OFFICIAL: classifier(official, official_pixels, hub=False),
    }


def uniformer_v2(config: UniFormerV2Config, clips: torch.Tensor) -> Sides:
    official = shuffled(reference.UniFormerV2(config))
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size")
    fields = {name: getattr(config, name) for name in (*names, "patch_size")}
    tower = CLIPVisionModel(CLIPVisionConfig(**fields, attn_implementation=config._attn_implementation))
    frames = clips.flatten(0, 1)

    def features() -> torch.Tensor:
        return tower(frames).pooler_output

    return {
        OURS: classifier(converted("uniformer_v2", official, config), clips),
        OFFICIAL: classifier(official, clips.transpose(1, 2), hub=False),
        "transformers CLIPVisionModel": Side(tower, features, lambda: features().square().mean(), False),
    }


def _sized(config_class: Any, size: str, **fields: Any) -> Callable[..., Any]:
    """Makes a configuration of a size, with nothing dropped at random."""
    return lambda **more: config_class.from_size(size, num_labels=LABELS, **{**fields, **more})


STILL = {"drop_path_rate": 0.0}  # no stochastic depth
STILL_HEAD = {**STILL, "classifier_dropout": 0.0}
FORWARD = PHASES[:1]
MAE, TIME = VideoMAEV2Config, LstclConfig
_TASKS = (
    Task("VideoMAE V2-B, 16 x 224", videomae_v2, _sized(MAE, "base", **STILL), (16, 3, 224, 224)),
    Task(
        "VideoMAE V2-B pretraining, 16 x 224", videomae_v2_pretraining, _sized(MAE, "base", **STILL), (16, 3, 224, 224)
    ),
    Task("BEVT Swin-B, 16 x 224", bevt, _sized(BevtConfig, "base", **STILL_HEAD), (16, 3, 224, 224)),
    Task(
        "BEVT Swin-B pretraining, 16 x 224",
        bevt_pretraining,
        _sized(BevtConfig, "base", num_frames=16, image_stream=False, **STILL),
        (16, 3, 224, 224),
    ),
    Task("LSTCL TimeSformer-B, 8 x 224", timesformer, _sized(TIME, "timesformer", **STILL), (8, 3, 224, 224)),
    Task("LSTCL Swin-B divided, 8 x 224", divided_swin, _sized(TIME, "swin-base-divided", **STILL), (8, 3, 224, 224)),
    Task("TubeViT-B, 32 x 224", tubevit, _sized(TubeViTConfig, "base", **STILL_HEAD), (32, 3, 224, 224)),
    Task(
        "UniFormer-S, 16 x 224",
        uniformer,
        _sized(UniFormerConfig, "small", num_frames=16, **STILL_HEAD),
        (16, 3, 224, 224),
    ),
    Task(
        "UniFormer-B, 16 x 224",
        uniformer,
        _sized(UniFormerConfig, "base", num_frames=16, **STILL_HEAD),
        (16, 3, 224, 224),
    ),
    Task(
        "UniFormer-S, image of 224",
        uniformer,
        _sized(UniFormerConfig, "small", modality="image", **STILL_HEAD),
        (3, 224, 224),
        repeats=8,
    ),
    Task(
        "UniFormer-S, 8 images of 224",
        uniformer,
        _sized(UniFormerConfig, "small", modality="image", **STILL_HEAD),
        (3, 224, 224),
        samples=8,
    ),
    Task(
        "UniFormerV2-B, 8 x 224",
        uniformer_v2,
        _sized(UniFormerV2Config, "base", global_dropout=0.0, **STILL_HEAD),
        (8, 3, 224, 224),
    ),
    Task("VideoMAE V2-S, 16 x 224", videomae_v2, _sized(MAE, "small", **STILL), (16, 3, 224, 224), FORWARD),
    Task("VideoMAE V2-L, 16 x 224", videomae_v2, _sized(MAE, "large", **STILL), (16, 3, 224, 224), FORWARD),
)
TASKS = {task.name: task for task in _TASKS}
