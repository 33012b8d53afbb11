"""Masked autoencoding: reconstruction of the hidden pixels of clips."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import AutoModelForPreTraining, PreTrainedConfig, PreTrainedModel

from ...modeling.layers import kept_indices
from ...modeling.video_processing_base import without_colours
from ...modes import evaluation_mode
from ...pictures.reconstruction import draw_reconstructions, reconstruct_clips
from ..arguments import RunConfig
from ..building import build_pretraining_model
from ..data.augmentation import Augmentation, move_rows
from ..data.loaders import MaskedClipLoader, MaskMaker, Record, SampleLoader, stacked_masks
from ..data.masking import dual_masks
from ..data.processors import ClipProcessor
from ..data.sources import stable_hash
from ..data.streaming import Batch, ClipStream, merge_copies
from ..data.streams import clip_augmentation
from ..engine.loop import FitResult, Observer
from ..tasks import MaskedModelingTask, Task
from .common import PRETRAINING_UNREAD, Method, Rows, RunResult
from .passes import Pass, example_pixels, model_pass
from .previewing import PreviewedCopies, split_by_mask


NUM_DRAWN = 4  # clips in the picture of reconstructions


class MaskedPixels(Method):
    """
    Train a masked autoencoder. Labels are used by probes only.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "masked_pixels"
    goal = "encoder"
    model_types = ("videomae_v2",)
    unread = PRETRAINING_UNREAD

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for VideoMAE V2 models. See [`Method.fits`]."""
        return model_config["model_type"] in cls.model_types

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """Build the model: a checkpoint with its decoder, or a size from scratch."""
        return build_pretraining_model(self.config.model)

    def begin(self, accelerator: Accelerator) -> None:
        """See [`Method.begin`]."""
        super().begin(accelerator)
        self.augmentation = self._augmentation()
        self.masks = masks_of(self.model.config)
        self.held_out = self.pictures = None
        if self.eval_source is not None:
            self.held_out = self.evaluation_stream(MaskedEvaluationLoader(self.processor, self.masks))
            self.pictures = ReconstructionPictures(self.held_out)

    def begin_preview(self) -> None:
        """See [`Method.begin_preview`]."""
        super().begin_preview()
        self.masks = masks_of(self.model_config())

    def task(self) -> Task:
        """The model's own loss."""
        return MaskedModelingTask(self.model)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented clip with its masks."""
        seed, copies = self.config.run.seed, self.config.augmentation.num_sample
        return MaskedClipLoader(self.processor, self._augmentation(), seed, copies, self.masks)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Finish the augmentation and normalise. See [`Method.prepare_batch`]."""
        return prepare_masked(rows, device, self.processor, self.augmentation)

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Metrics of the prediction of hidden pixels. See [`Method.validate`]."""
        assert self.held_out is not None
        return masked_loss(model, self.held_out, self.accelerator)

    def observers(self) -> list[Observer]:
        """Probes, and pictures of reconstructions."""
        every = self.config.run.picture_every
        drawing = [Observer("picture", self._look, epochs=every)] if every and self.pictures is not None else []
        return super().observers() + drawing

    def finish(self, fitted: FitResult) -> RunResult:
        """Save the autoencoder and `reconstructions.png`. See [`Method.finish`]."""
        if self.pictures is None:
            return self.finish_pretraining(fitted)
        return self.finish_pretraining(
            fitted, partial(self.pictures.draw, fitted.model, self.output_dir / "reconstructions.png")
        )

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of clips through encoder and decoder. See [`Method.passes`]."""
        config = self.model_config()
        mask = torch.zeros(1, math.prod(config.token_grid()), dtype=torch.bool, device="meta")
        inputs = {"pixel_values": example_pixels(config), "encoder_mask": mask, "decoder_mask": mask}
        return [model_pass(AutoModelForPreTraining, config, inputs, self.clips_per_pass)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented clips with their visible and their reconstructed patches. See [`Method.preview_batch`]."""
        rows = self._augmentation().finish(merge_copies(batch.rows))
        clips = without_colours(rows["pixel_values"]) if self.processor.do_grayscale else rows["pixel_values"]
        grid = self.model_config().token_grid()
        hidden, left_out = (rows[name].numpy().reshape(-1, *grid) for name in ("encoder_mask", "decoder_mask"))
        masked = [split_by_mask(clip, *masks) for clip, *masks in zip(clips, hidden, hidden & ~left_out)]
        return PreviewedCopies(clips, masked=masked)

    def _augmentation(self) -> Augmentation:
        return clip_augmentation(self.config.augmentation, self.processor)

    def _look(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        if self.accelerator.is_main_process and self.pictures is not None:
            self.pictures.draw(model, self.output_dir / "logs" / "reconstructions" / f"step_{step:08d}.png")
        return {}


def prepare_masked(rows: Rows, device: torch.device, processor: ClipProcessor, augmentation: Augmentation) -> Rows:
    """
    Turn a batch of uint8 clips with masks into the input of the task: finish the augmentation on the device and
    normalise.

    Args:
        rows (`dict[str, torch.Tensor]`):
            Stacked tensors from the loader.
        device (`torch.device`):
            Device of the task.
        processor ([`ClipProcessor`]):
            Normalises the clips.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            The augmentation that the loader uses.

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values`, the masks, and the positions that they leave.

    Raises:
        ValueError: the masks of a batch leave different numbers of tokens.
    """
    masks = merge_copies({name: rows[name] for name in ("encoder_mask", "decoder_mask")})
    indices = {"visible_indices": _left(masks, "encoder_mask"), "decoded_indices": _left(masks, "decoder_mask")}
    indices = {name: value.to(device, non_blocking=True) for name, value in indices.items()}
    rows = augmentation.finish(merge_copies(move_rows(rows, device)))
    return rows | indices | {"pixel_values": processor.normalize_clips(rows["pixel_values"])}


def _left(masks: Rows, name: str) -> torch.Tensor:
    """Positions `(batch, count)` that a mask leaves, found on the CPU: shapes are known without the device."""
    counts = (~masks[name]).sum(dim=1)
    if counts.min() != counts.max() or counts.min() == 0:
        raise ValueError(
            f"`{name}` must leave the same number of tokens (at least 1) in every sample, got {counts.min()} to "
            f"{counts.max()}."
        )
    return kept_indices(masks[name], int(counts[0]))


class MaskedEvaluationLoader:
    """
    Reads the middle of a video as the processor does for validation, with masks that depend on the video's id alone.
    Losses of different epochs and runs are thus comparable.

    Args:
        processor ([`ClipProcessor`]):
            Processor of the model.
        masks (`Callable[[numpy.random.Generator], tuple[np.ndarray, np.ndarray]]`):
            Samples the masks.
    """

    def __init__(self, processor: ClipProcessor, masks: MaskMaker):
        self.processor, self.masks = processor, masks

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        inputs = self.processor(record.sample.video, sampling_mode="validation", return_tensors="pt")
        masks = stacked_masks(self.masks, [stable_hash(record.sample.id)])
        masks = {name: mask[0] for name, mask in masks.items()}
        return {"pixel_values": inputs["pixel_values"][0], **masks}


def masks_of(config: PreTrainedConfig) -> MaskMaker:
    """
    The random masks of a model.

    Args:
        config (`PreTrainedConfig`):
            Configuration of the model.

    Returns:
        `Callable[[numpy.random.Generator], tuple[np.ndarray, np.ndarray]]`: samples the masks of encoder and decoder.
    """
    return partial(dual_masks, config.token_grid(), config.encoder_mask_ratio, config.decoder_mask_ratio)


@torch.inference_mode()
def masked_loss(model: PreTrainedModel, stream: ClipStream, accelerator: Accelerator) -> dict[str, float]:
    """
    Measure the prediction of hidden pixels.

    Args:
        model (`PreTrainedModel`):
            A model for pretraining.
        stream ([`ClipStream`]):
            This process's share of the videos, read by a [`MaskedEvaluationLoader`].
        accelerator (`Accelerator`):
            The processes. Their sums are added.

    Returns:
        `dict[str, float]`: `explained`, the share of the variance of the hidden targets that the predictions explain
        (1 for perfect ones; 0 for the mean of the data, which is the best constant prediction; below 0 for worse ones;
        `nan` if the targets do not vary); and the mean `loss`.
    """
    total = torch.zeros(2, device=model.device)
    variance = _ExplainedVariance(model.config.tubelet_size * model.config.patch_size**2 * model.config.num_channels)
    with evaluation_mode(model):
        for batch in stream.epoch(0):
            rows = {name: value.to(model.device) for name, value in batch.rows.items()}
            with accelerator.autocast():
                outputs = model(**rows)
            total += torch.stack([outputs.loss.float() * len(batch), total.new_tensor(len(batch))])
            hidden = rows["encoder_mask"].bool().gather(1, outputs.decoded_indices)
            targets = model.targets(rows["pixel_values"], outputs.decoded_indices)
            variance.add(outputs.logits[hidden], targets[hidden])
    total = accelerator.reduce(total, "sum")
    loss = (total[0] / total[1]).item() if total[1] else math.nan
    return {"explained": variance.explained(accelerator), "loss": loss}


class _ExplainedVariance:
    """Sums for the explained variance of predictions with several dimensions."""

    def __init__(self, size: int):
        self.count, self.error = 0, 0.0
        # Doubles, which not every accelerator has, because the variance is a difference of large sums.
        self.sums, self.squares = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)

    def add(self, predictions: torch.Tensor, targets: torch.Tensor) -> None:
        """Add predictions and targets of shape `(count, size)`."""
        predictions, targets = predictions.cpu().double(), targets.cpu().double()
        self.count += len(targets)
        self.error += (predictions - targets).square().sum().item()
        self.sums += targets.sum(dim=0)
        self.squares += targets.square().sum(dim=0)

    def explained(self, accelerator: Accelerator) -> float:
        """The share of the variance in all processes, about the mean of each dimension."""
        parts = [(self.count, self.error, self.sums.tolist(), self.squares.tolist())]
        gathered = gather_object(parts) if accelerator.num_processes > 1 else parts
        counts, errors, sums, squares = zip(*gathered)
        count, error = sum(counts), sum(errors)
        total, total_squares = (torch.tensor(rows, dtype=torch.float64).sum(dim=0) for rows in (sums, squares))
        spread = (total_squares - total.square() / max(count, 1)).sum().item()
        return 1 - error / spread if spread > 0 else math.nan


class ReconstructionPictures:
    """
    Pictures of a model's reconstructions of a few held-out videos. Videos and masks are always the same.

    Args:
        stream ([`ClipStream`]):
            The videos, read by a [`MaskedEvaluationLoader`].
    """

    def __init__(self, stream: ClipStream):
        self.stream = stream
        self.rows: dict[str, torch.Tensor] | None = None

    def draw(self, model: PreTrainedModel, path: Path) -> Path | None:
        """
        Draw a picture.

        Args:
            model (`PreTrainedModel`):
                The model.
            path (`Path`):
                File of the picture.

        Returns:
            `Path` or `None`: the file, or `None` if no video can be read.
        """
        if self.rows is None:
            first = next(self.stream.epoch(0), None)
            self.rows = {} if first is None else {name: value[:NUM_DRAWN] for name, value in first.rows.items()}
        if not self.rows:
            return None
        rows = self.rows
        return draw_reconstructions(reconstruct_clips(model, rows["pixel_values"], rows["encoder_mask"]), path)


__all__ = [
    "MaskedEvaluationLoader",
    "MaskedPixels",
    "ReconstructionPictures",
    "masked_loss",
    "masks_of",
    "prepare_masked",
]
