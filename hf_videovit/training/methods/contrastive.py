"""Contrastive pretraining: match a short clip with a long clip of the same video."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional as F
from transformers import AutoModelForPreTraining, PreTrainedModel

from ...modeling.video_processing_base import without_colours
from ...modes import evaluation_mode
from ..arguments import AugmentationArguments, OptimizationArguments, RunConfig
from ..building import build_pretraining_model
from ..data.augmentation import Augmentation, move_rows, sample_seed
from ..data.loaders import Record, SampleLoader
from ..data.processors import ClipProcessor
from ..data.sources import stable_hash
from ..data.streaming import Batch, ClipStream
from ..data.streams import clip_augmentation
from ..engine.loop import FitResult
from ..tasks import ContrastiveTask, Task
from .common import PRETRAINING_UNREAD, Method, Rows, RunResult
from .passes import Pass, example_pixels, model_pass
from .previewing import PreviewedCopies


LONG = "long_"  # before the names of the second clip's tensors


class ShortLongProcessor(ClipProcessor, Protocol):
    """A processor that samples a short and a long clip of one video, such as [`LstclVideoProcessor`]."""

    def load_short_and_long(self, video: Any, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Decode the two clips.

        Args:
            video (`str`, `Path`, `bytes` or file):
                The video.
            rng (`np.random.Generator`):
                Samples the positions of the clips.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: uint8 clips of shape `(num_frames, num_channels, height, width)`.
        """


class Contrastive(Method):
    """
    Train an encoder by matching short clips with long ones. Labels are used by probes only.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].

    Raises:
        ValueError: `num_sample`, `drop_last` or `batch_size` does not allow comparisons over a batch.
    """

    name = "contrastive"
    goal = "encoder"
    model_types = ("lstcl",)
    unread = (*PRETRAINING_UNREAD, "picture_every")
    changes_accumulation = False
    full_batches = True

    processor: ShortLongProcessor

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for LSTCL models. See [`Method.fits`]."""
        return model_config["model_type"] in cls.model_types

    def __init__(self, config: RunConfig, **given: Any):
        super().__init__(config, **given)
        _check_run(config.augmentation, config.optimization)

    def build(self) -> tuple[PreTrainedModel, Any]:
        """Build the model: a checkpoint with both branches, or a size from scratch."""
        return build_pretraining_model(self.config.model)

    def begin(self, accelerator: Accelerator) -> None:
        """See [`Method.begin`]."""
        super().begin(accelerator)
        self.augmentations = self._augmentations()
        self.held_out = None
        if self.eval_source is not None:
            self.held_out = self.evaluation_stream(ShortLongEvaluationLoader(self.processor))

    def task(self) -> Task:
        """The model's own loss."""
        return ContrastiveTask(self.model)

    def loader(self) -> SampleLoader:
        """The function that reads a short and a long clip, augmented independently."""
        return ShortLongClipLoader(self.processor, self._augmentations(), self.config.run.seed)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Finish the augmentation of both clips and normalise them. See [`Method.prepare_batch`]."""
        finished = finish_pairs(move_rows(rows, device), self.augmentations)
        return {name: self.processor.normalize_clips(clips) for name, clips in finished.items()}

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Share of short clips that match their long clip. See [`Method.validate`]."""
        assert self.held_out is not None
        return matching(model, self.held_out, self.accelerator)

    def finish(self, fitted: FitResult) -> RunResult:
        """Save the model with both branches. See [`Method.finish`]."""
        return self.finish_pretraining(fitted)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of short and long clips, with two pairs for the batch statistics. See [`Method.passes`]."""
        config = self.model_config()
        pixels = example_pixels(config, clips=2)
        inputs = {"pixel_values": pixels, "long_pixel_values": pixels}
        return [model_pass(AutoModelForPreTraining, config, inputs, self.clips_per_pass)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """The augmented short clips, then the long ones. See [`Method.preview_batch`]."""
        clips = torch.cat(list(finish_pairs(batch.rows, self._augmentations()).values()))
        return PreviewedCopies(without_colours(clips) if self.processor.do_grayscale else clips)

    def _augmentations(self) -> dict[str, Augmentation]:
        arguments = self.config.augmentation
        return {
            prefix: clip_augmentation(arguments, self.processor, view=view) for view, prefix in enumerate(("", LONG))
        }


@dataclass
class ShortLongClipLoader:
    """
    Reads a short and a long clip of a video, augmented independently.

    Args:
        processor ([`LstclVideoProcessor`]):
            Samples and decodes the clips.
        augmentations (`dict[str, Augmentation]`):
            Augment the two clips, or prepare them for augmentation on the device, under `""` and `"long_"`.
        seed (`int`):
            Seed of all random choices, together with epoch and sample id.
    """

    processor: ShortLongProcessor
    augmentations: dict[str, Augmentation]
    seed: int

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict`: the tensors of the short clip, such as `pixel_values` of shape `(num_frames, num_channels, height,
            width)`, and those of the long clip under names with the prefix `long_`.
        """
        rows: Rows = {}
        purposes = ("augmentation", "augmentation of the long clip")
        for (prefix, augmentation), clip, purpose in zip(
            self.augmentations.items(), self._decode_both(record), purposes
        ):
            seed = sample_seed(self.seed, record.epoch, record.sample.id, purpose)
            rows |= {prefix + name: value[0] for name, value in augmentation.rows(clip, [seed]).items()}
        return rows

    def decode(self, record: Record) -> torch.Tensor:
        """
        Decode the short clip without augmentation.

        Args:
            record ([`Record`]):
                The sample.

        Returns:
            `torch.Tensor` of shape `(num_frames, num_channels, height, width)`: uint8 frames.
        """
        return self._decode_both(record)[0]

    def _decode_both(self, record: Record) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(sample_seed(self.seed, record.epoch, record.sample.id, "frames"))
        return self.processor.load_short_and_long(record.sample.video, rng)


@dataclass
class ShortLongEvaluationLoader:
    """
    Reads the two clips of a video without augmentation. Their positions depend on the video's id alone.

    Args:
        processor ([`LstclVideoProcessor`]):
            Processor of the model.
    """

    processor: ShortLongProcessor

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(stable_hash(record.sample.id))
        clips = self.processor.load_short_and_long(record.sample.video, rng)
        inputs = [
            self.processor(
                clip,
                sampling_mode="validation",
                do_sample_frames=False,
                input_data_format="channels_first",
                return_tensors="pt",
            )
            for clip in clips
        ]
        return {
            prefix + "pixel_values": one["pixel_values"][0] for prefix, one in zip(("", LONG), inputs, strict=True)
        }


def finish_pairs(rows: Rows, augmentations: dict[str, Augmentation]) -> Rows:
    """
    Finish the augmentation of a batch of pairs.

    Args:
        rows (`dict[str, torch.Tensor]`):
            Stacked tensors from the loader. The names of those of long clips begin with `long_`.
        augmentations (`dict[str, Augmentation]`):
            Augmentation of the short clips under `""`, and of the long clips under `"long_"`.

    Returns:
        `dict[str, torch.Tensor]`: uint8 clips `pixel_values` and `long_pixel_values`.
    """
    finished = {}
    for prefix, augmentation in augmentations.items():
        own = {
            name.removeprefix(LONG): value for name, value in rows.items() if name.startswith(LONG) == (prefix == LONG)
        }
        if "seeds" in own:
            own["seeds"] = own["seeds"].flatten()
        finished[prefix + "pixel_values"] = augmentation.finish(own)["pixel_values"]
    return finished


def _check_run(augmentation: AugmentationArguments, optimization: OptimizationArguments) -> None:
    """Raise `ValueError` for settings with which clips cannot be compared over a batch."""
    if augmentation.num_sample != 1:
        raise ValueError(
            f"`num_sample` must be 1, got {augmentation.num_sample}: copies of a video are not negatives of each other"
        )
    if not optimization.drop_last:
        raise ValueError("`drop_last` must be true: all processes need equally many clips in a step")
    if optimization.batch_size < 2:
        raise ValueError(f"`batch_size` must be at least 2, got {optimization.batch_size}")


@torch.inference_mode()
def matching(model: PreTrainedModel, stream: ClipStream, accelerator: Accelerator) -> dict[str, float]:
    """
    Measure how often short clips match the long clip of their video.

    Args:
        model (`PreTrainedModel`):
            A model for contrastive pretraining.
        stream ([`ClipStream`]):
            This process's share of the videos, read by a [`ShortLongEvaluationLoader`].
        accelerator (`Accelerator`):
            The processes. Their sums are added.

    Returns:
        `dict[str, float]`: `matched`, the share of short clips whose query is nearer to the key of their own video
        than to those of the other videos in this process's share; `chance`, the expected share of random guesses;
        `feature_std`, the spread of the encoder's normalised features, 0 for identical features and 1 for features
        spread evenly over the sphere.
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


__all__ = ["Contrastive", "ShortLongClipLoader", "ShortLongEvaluationLoader", "finish_pairs", "matching"]
