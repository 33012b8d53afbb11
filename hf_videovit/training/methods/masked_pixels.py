"""Masked pretraining from a run's description to a folder that fine-tuning starts from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ...modes import evaluation_mode
from ...pictures.reconstruction import draw_reconstructions, reconstruct_clips
from ..arguments import RunConfig
from ..building import build_pretraining_model
from ..data.augmentation import Augmentation
from ..data.masking import dual_masks
from ..data.opening import load_sources
from ..data.sources import VideoSource, stable_hash
from ..data.streaming import (
    BadVideo,
    Batch,
    ClipStream,
    MaskedClipLoader,
    MaskMaker,
    Record,
    merge_copies,
    stacked_masks,
)
from ..data.streams import clip_augmentation, training_ledger, training_stream
from ..engine.loop import Observer, fit
from ..evaluation.probes import online_probe
from ..tasks import MaskedModelingTask
from .common import make_accelerator, run_facts, save_model


logger = logging.get_logger(__name__)

NUM_DRAWN = 4  # clips in the picture of reconstructions


@dataclass
class PretrainResult:
    """
    What pretraining leaves behind.

    Args:
        model (`PreTrainedModel`):
            The trained model with its decoder, in evaluation mode, also saved in `output_dir`.
        processor ([`ClipVideoProcessor`]):
            Its processor, also saved there.
        history (`list[dict]`):
            Lines of the training log.
        output_dir (`Path`):
            The folder: `model.checkpoint` of a fine-tuning run.
        picture (`Path` or `None`):
            Reconstructions of videos that were held out.
        facts (`dict`):
            What a model card states.
    """

    model: PreTrainedModel
    processor: Any
    history: list[dict[str, Any]]
    output_dir: Path
    picture: Path | None
    facts: dict[str, Any]


class NormalizedRows:
    """
    Makes the task's input of a batch of uint8 clips, on the device.

    Args:
        processor ([`ClipVideoProcessor`]):
            Normalises.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`], *optional*):
            What the workers' loader has, too, if it leaves anything to do.
    """

    def __init__(self, processor: Any, augmentation: Augmentation | None = None):
        self.processor, self.augmentation = processor, augmentation

    def __call__(self, rows: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
        rows = {name: value.to(device, non_blocking=True) for name, value in merge_copies(rows).items()}
        rows = rows if self.augmentation is None else self.augmentation.finish(rows)
        return rows | {"pixel_values": self.processor.normalize_clips(rows["pixel_values"])}


class MaskedEvaluationLoader:
    """
    Reads the middle of a video as the processor does for validation, with masks that depend on its id alone: losses of
    different epochs and runs compare.

    Args:
        processor ([`ClipVideoProcessor`]):
            The model's.
        masks (`Callable[[numpy.random.Generator], tuple[np.ndarray, np.ndarray]]`):
            Draws the masks.
    """

    def __init__(self, processor: Any, masks: MaskMaker):
        self.processor, self.masks = processor, masks

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        inputs = self.processor(record.sample.video, sampling_mode="validation", return_tensors="pt")
        masks = stacked_masks(self.masks, [stable_hash(record.sample.id)])
        masks = {name: mask[0] for name, mask in masks.items()}
        return {"pixel_values": inputs["pixel_values"][0], **masks}


def pretrain(
    config: RunConfig,
    *,
    model: PreTrainedModel | None = None,
    processor: Any = None,
    train_source: VideoSource | None = None,
    eval_source: VideoSource | None = None,
    accelerator: Accelerator | None = None,
) -> PretrainResult:
    """
    Train a masked autoencoder and save it; with `model.tokenizer` a model of masked visual words, see
    [`~word_pretraining.pretrain_words`]. Labels, where there are any, are not looked at.

    Args:
        config ([`RunConfig`]):
            The run.
        model (`PreTrainedModel`, *optional*):
            A model for pretraining; built from `config.model` by default.
        processor ([`ClipVideoProcessor`], *optional*):
            Its processor; likewise.
        train_source ([`VideoSource`], *optional*):
            Videos to train on; opened from `config.data` by default, together with `eval_source`.
        eval_source ([`VideoSource`], *optional*):
            Videos on which the reconstruction is judged.
        accelerator (`Accelerator`, *optional*):
            Processes and devices; made from `config.run` by default.

    Returns:
        [`PretrainResult`]; `output_dir` holds config, weights, processor, `run.yaml` and `reconstructions.png`, and
        beside them the run's records in `checkpoints` and `logs`.
    """
    if config.model.tokenizer is not None:
        from .masked_words import pretrain_words

        if train_source is not None or eval_source is not None:
            raise ValueError("`tokenizer` goes with sources that the run opens itself")
        return pretrain_words(config, model=model, processor=processor, accelerator=accelerator)
    accelerator = accelerator or make_accelerator(config.run)
    torch.manual_seed(config.run.seed)
    if train_source is None:
        train_source, eval_source = load_sources(config.data, config.run.seed)
    if model is None or processor is None:
        built_model, built_processor = build_pretraining_model(config.model)
        model, processor = model or built_model, processor or built_processor
    masks = mask_maker(model)
    ledger = training_ledger(config, accelerator)
    augmentation = clip_augmentation(config, processor)
    load = MaskedClipLoader(processor, augmentation, config.run.seed, config.augmentation.num_sample, masks)
    held_out = None if eval_source is None else _evaluation_stream(config, accelerator, eval_source, processor, masks)
    pictures = None if held_out is None else ReconstructionPictures(config, accelerator, held_out)
    picture = None if pictures is None else pictures.observer()
    probe = online_probe(config, processor, accelerator, train_source, eval_source)
    fitted = fit(
        MaskedModelingTask(model),
        training_stream(config, accelerator, train_source, load, ledger),
        config,
        accelerator=accelerator,
        prepare_batch=NormalizedRows(processor, augmentation),
        ledger=ledger,
        validate=None if held_out is None else partial(masked_loss, stream=held_out, accelerator=accelerator),
        observers=[observer for observer in (probe, picture) if observer is not None],
    )
    output_dir, path = Path(config.run.output_dir), None
    if accelerator.is_main_process:
        save_model(output_dir, config, fitted.model, processor)
        if pictures is not None:
            path = pictures.draw(fitted.model, output_dir / "reconstructions.png")
    accelerator.wait_for_everyone()
    facts = run_facts(config, accelerator, fitted, train_source) | {"outcomes": outcomes(fitted.history)}
    return PretrainResult(fitted.model, processor, fitted.history, output_dir, path, facts)


def mask_maker(model: PreTrainedModel) -> MaskMaker:
    """The masks that a model's configuration asks for, as a function of a random generator."""
    return masks_of(model.config)


def masks_of(config: PreTrainedConfig) -> MaskMaker:
    """The masks that a configuration asks for, as a function of a random generator."""
    return partial(dual_masks, config.token_grid(), config.encoder_mask_ratio, config.decoder_mask_ratio)


@torch.inference_mode()
def masked_loss(model: PreTrainedModel, stream: ClipStream, accelerator: Accelerator) -> dict[str, float]:
    """
    How well hidden pixels are predicted.

    Args:
        model (`PreTrainedModel`):
            A model for pretraining.
        stream ([`ClipStream`]):
            This process's share of the videos, read by a [`MaskedEvaluationLoader`].
        accelerator (`Accelerator`):
            Adds up the processes' shares.

    Returns:
        `dict[str, float]`: `explained`, the share of the (patch-normalised) pixels' variance that is predicted: 0 is
        what a model that learnt nothing gets, 1 is perfect; and the mean `loss`.
    """
    total = torch.zeros(2, device=model.device)
    with evaluation_mode(model):
        for batch in stream.epoch(0):
            rows = {name: value.to(model.device) for name, value in batch.rows.items()}
            with accelerator.autocast():
                loss = model(**rows).loss
            total += torch.stack([loss.float() * len(batch), total.new_tensor(len(batch))])
    total = accelerator.reduce(total, "sum")
    loss = (total[0] / total[1]).item() if total[1] else math.nan
    return {"explained": 1 - loss, "loss": loss}


def _evaluation_stream(
    config: RunConfig, accelerator: Accelerator, source: VideoSource, processor: Any, masks: MaskMaker
) -> ClipStream:
    return ClipStream(
        source,
        MaskedEvaluationLoader(processor, masks),
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


class ReconstructionPictures:
    """
    Pictures of what a model reconstructs of a few videos that were held out, always the same with the same masks.

    Args:
        config ([`RunConfig`]):
            `picture_every` says how often the run draws one, into `logs/reconstructions`.
        accelerator (`Accelerator`):
            Its first process draws.
        stream ([`ClipStream`]):
            The videos, read by a [`MaskedEvaluationLoader`].
    """

    def __init__(self, config: RunConfig, accelerator: Accelerator, stream: ClipStream):
        self.config, self.accelerator, self.stream = config, accelerator, stream
        self.rows: dict[str, torch.Tensor] | None = None

    def observer(self) -> Observer | None:
        """What the loop calls, if the run wants pictures on its way."""
        if not self.config.run.picture_every:
            return None
        return Observer("picture", self._look, epochs=self.config.run.picture_every)

    def _look(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        if self.accelerator.is_main_process:
            self.draw(model, Path(self.config.run.output_dir) / "logs" / "reconstructions" / f"step_{step:08d}.png")
        return {}

    def draw(self, model: PreTrainedModel, path: Path) -> Path | None:
        """Draw; nothing where none of the videos can be read."""
        if self.rows is None:
            batches: Iterator[Batch] = self.stream.epoch(0)
            first = next(batches, None)
            self.rows = {} if first is None else {name: value[:NUM_DRAWN] for name, value in first.rows.items()}
        if not self.rows:
            return None
        rows = self.rows
        return draw_reconstructions(reconstruct_clips(model, rows["pixel_values"], rows["encoder_mask"]), path)


def outcomes(history: list[dict[str, Any]]) -> dict[str, str]:
    """
    What a card says of pretraining's result, by words: the last validation and the last probes.

    Args:
        history (`list[dict]`):
            Lines of the training log.
    """
    found: dict[str, str] = {}
    for kind, words in (("validation", "validation"), ("probe", "videos recognised from frozen features")):
        lines = [line[kind] for line in history if kind in line]
        for name, value in (lines[-1] if lines else {}).items():
            found[f"{words}: {name}"] = f"{100 * value:.1f} %" if kind == "probe" else f"{value:.4g}"
    return found
