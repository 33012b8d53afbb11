"""Contrastive pretraining from a run's description to a folder that fine-tuning starts from."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import logging

from ...modes import evaluation_mode
from ..arguments import RunConfig
from ..building import build_pretraining_model
from ..data.augmentation import Augmentation, sample_seed
from ..data.opening import load_sources
from ..data.sources import VideoSource, stable_hash
from ..data.streaming import BadVideo, ClipStream, Record
from ..data.streams import clip_augmentation, training_ledger, training_stream
from ..engine.loop import fit
from ..evaluation.probes import online_probe
from ..tasks import ContrastiveTask
from .common import make_accelerator, run_facts, save_model
from .masked_pixels import PretrainResult, outcomes


logger = logging.get_logger(__name__)

LONG = "long_"  # before the names of the second clip's tensors


@dataclass
class ShortLongClipLoader:
    """
    Reads a short and a long clip of a video, each augmented on its own.

    Args:
        processor ([`LstclVideoProcessor`]):
            Samples and decodes.
        short, long ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            Augment the two clips, or pack them for the accelerator.
        seed (`int`):
            With epoch and sample id, the source of every draw.
    """

    processor: Any
    short: Augmentation
    long: Augmentation
    seed: int

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict`: the augmentation's rows of the short clip, such as `pixel_values` of shape `(num_frames,
            num_channels, height, width)`, and those of the long one under names with `long_` in front.
        """
        seeds = [
            sample_seed(self.seed, record.epoch, record.sample.id, purpose)
            for purpose in ("frames", "augmentation", "augmentation of the long clip")
        ]
        short, long = self.processor.load_short_and_long(record.sample.video, np.random.default_rng(seeds[0]))
        rows = {name: value[0] for name, value in self.short.rows(short, seeds[1:2]).items()}
        return rows | {LONG + name: value[0] for name, value in self.long.rows(long, seeds[2:]).items()}


@dataclass
class ShortLongEvaluationLoader:
    """
    Reads the two clips of a video without augmentation, at places that depend on its id alone.

    Args:
        processor ([`LstclVideoProcessor`]):
            The model's.
    """

    processor: Any

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(stable_hash(record.sample.id))
        clips = self.processor.load_short_and_long(record.sample.video, rng)
        inputs = [
            self.processor(clip, sampling_mode="validation", do_sample_frames=False, return_tensors="pt")
            for clip in clips
        ]
        return {
            prefix + "pixel_values": one["pixel_values"][0] for prefix, one in zip(("", LONG), inputs, strict=True)
        }


class NormalizedPairs:
    """
    Makes the task's input of a batch of pairs of uint8 clips, on the device.

    Args:
        processor ([`LstclVideoProcessor`]):
            Normalises.
        short, long ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            What the workers' loader has, too.
    """

    def __init__(self, processor: Any, short: Augmentation, long: Augmentation):
        self.processor, self.augmentations = processor, {"": short, LONG: long}

    def __call__(self, rows: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
        prepared = {}
        for prefix, augmentation in self.augmentations.items():
            own = {
                name.removeprefix(LONG): value.to(device, non_blocking=True)
                for name, value in rows.items()
                if name.startswith(LONG) == (prefix == LONG)
            }
            if "seeds" in own:
                own["seeds"] = own["seeds"].flatten()
            clips = augmentation.finish(own)["pixel_values"]
            prepared[prefix + "pixel_values"] = self.processor.normalize_clips(clips)
        return prepared


def pretrain_contrastive(
    config: RunConfig,
    *,
    model: PreTrainedModel | None = None,
    processor: Any = None,
    train_source: VideoSource | None = None,
    eval_source: VideoSource | None = None,
    accelerator: Accelerator | None = None,
) -> PretrainResult:
    """
    Train an encoder by matching short clips with long ones, and save it. Labels, where there are any, are not looked
    at.

    Args:
        config ([`RunConfig`]):
            The run.
        model (`PreTrainedModel`, *optional*):
            A model for contrastive pretraining; built from `config.model` by default.
        processor ([`LstclVideoProcessor`], *optional*):
            Its processor; likewise.
        train_source ([`VideoSource`], *optional*):
            Videos to train on; opened from `config.data` by default, together with `eval_source`.
        eval_source ([`VideoSource`], *optional*):
            Videos on which the matching is judged.
        accelerator (`Accelerator`, *optional*):
            Processes and devices; made from `config.run` by default.

    Returns:
        [`PretrainResult`]; `output_dir` holds config, weights with both branches, processor and `run.yaml`, and beside
        them the run's records in `checkpoints` and `logs`.
    """
    check_run(config)
    accelerator = accelerator or make_accelerator(config.run)
    torch.manual_seed(config.run.seed)
    if train_source is None:
        train_source, eval_source = load_sources(config.data, config.run.seed)
    if model is None or processor is None:
        built_model, built_processor = build_pretraining_model(config.model)
        model, processor = model or built_model, processor or built_processor
    ledger = training_ledger(config, accelerator)
    short, long = (clip_augmentation(config, processor, view=view) for view in (0, 1))
    load = ShortLongClipLoader(processor, short, long, config.run.seed)
    validate = None
    if eval_source is not None:
        held_out = _evaluation_stream(config, accelerator, eval_source, processor)
        validate = partial(matching, stream=held_out, accelerator=accelerator)
    probe = online_probe(config, processor, accelerator, train_source, eval_source)
    fitted = fit(
        ContrastiveTask(model),
        training_stream(config, accelerator, train_source, load, ledger),
        config,
        accelerator=accelerator,
        prepare_batch=NormalizedPairs(processor, short, long),
        ledger=ledger,
        validate=validate,
        observers=[] if probe is None else [probe],
    )
    output_dir = Path(config.run.output_dir)
    if accelerator.is_main_process:
        save_model(output_dir, config, fitted.model, processor)
    accelerator.wait_for_everyone()
    facts = run_facts(config, accelerator, fitted, train_source) | {"outcomes": outcomes(fitted.history)}
    return PretrainResult(fitted.model, processor, fitted.history, output_dir, None, facts)


def check_run(config: RunConfig) -> None:
    """ValueError for settings that the comparison of whole batches does not allow."""
    if config.augmentation.num_sample != 1:
        raise ValueError(
            f"`num_sample` must be 1, got {config.augmentation.num_sample}: other copies of a video are no negatives"
        )
    if not config.optimization.drop_last:
        raise ValueError("`drop_last` must be true: all processes bring as many clips to a step")
    if config.optimization.batch_size < 2:
        raise ValueError(f"`batch_size` must be at least 2, got {config.optimization.batch_size}")


@torch.inference_mode()
def matching(model: PreTrainedModel, stream: ClipStream, accelerator: Accelerator) -> dict[str, float]:
    """
    How well short clips find the long clip of their video.

    Args:
        model (`PreTrainedModel`):
            A model for contrastive pretraining.
        stream ([`ClipStream`]):
            This process's share of the videos, read by a [`ShortLongEvaluationLoader`].
        accelerator (`Accelerator`):
            Adds up the processes' shares.

    Returns:
        `dict[str, float]`: `matched`, the share of short clips whose query is nearer to the key of their own video
        than to those of the others in this process's share; `chance`, what guessing gets; `feature_std`, the spread of
        the encoder's normalised features, 0 where all are the same and 1 where they lie anywhere.
    """
    queries, keys, features = [], [], []
    with evaluation_mode(model):
        for batch in stream.epoch(0):
            rows = {name: value.to(model.device) for name, value in batch.rows.items()}
            with accelerator.autocast():
                outputs = model(**rows)
            queries.append(F.normalize(outputs.short_query.float(), dim=1))
            keys.append(F.normalize(outputs.long_key.float(), dim=1))
            features.append(F.normalize(outputs.features.float(), dim=1))
    found = torch.zeros(4, device=model.device)
    if queries:
        nearest = (torch.cat(queries) @ torch.cat(keys).T).argmax(dim=1)  # (clips,)
        own = torch.arange(len(nearest), device=nearest.device)
        spread = torch.cat(features).std(dim=0, unbiased=False).mean() * features[0].shape[1] ** 0.5
        found = torch.stack([(nearest == own).sum(), own.new_tensor(len(own)), own.new_tensor(1), spread * len(own)])
    matched, clips, shares, spread = accelerator.reduce(found, "sum").tolist()
    if not clips:
        return {"matched": math.nan, "chance": math.nan, "feature_std": math.nan}
    return {"matched": matched / clips, "chance": shares / clips, "feature_std": spread / clips}


def _evaluation_stream(config: RunConfig, accelerator: Accelerator, source: VideoSource, processor: Any) -> ClipStream:
    return ClipStream(
        source,
        ShortLongEvaluationLoader(processor),
        config.run.eval_batch_size or config.optimization.batch_size,
        seed=None,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        num_workers=config.data.num_workers,
        timeout=config.data.worker_timeout,
        on_bad_video=_report,
    )


def _report(video: BadVideo) -> None:
    logger.warning(f"Video {video.id!r} cannot be read and is left out of the validation: {video.reason}")
