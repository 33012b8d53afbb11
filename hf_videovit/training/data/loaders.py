"""From a sample to tensors, in the decoding workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .augmentation import Augmentation, sample_seed
from .processors import ClipProcessor
from .sources import Label, Sample, label_indices


@dataclass(frozen=True)
class Record:
    """
    A sample to read.

    Args:
        sample ([`Sample`]):
            The sample.
        epoch (`int`):
            The epoch.
        position (`int`):
            Position of the sample in the order of the epoch; in an evaluation, in the share of the process.
    """

    sample: Sample
    epoch: int
    position: int


SampleLoader = Callable[[Record], dict[str, torch.Tensor]]


class TrainingClipLoader:
    """
    Reads a training video. The processor samples the frames for training, and the augmentation is applied `num_sample`
    times (repeated augmentation, because decoding costs more than augmenting).

    Args:
        processor ([`ClipProcessor`]):
            Samples and decodes frames.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            Augments the uint8 clip, or packs it for the accelerator.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample id.
        num_sample (`int`, *optional*, defaults to 1):
            Augmented copies of the decoded clip.
        num_labels (`int`, *optional*):
            Number of labels of a multi-label model.
    """

    def __init__(
        self,
        processor: ClipProcessor,
        augmentation: Augmentation,
        seed: int,
        num_sample: int = 1,
        num_labels: int | None = None,
    ):
        self.processor, self.augmentation, self.seed, self.num_sample = processor, augmentation, seed, num_sample
        self.num_labels = num_labels
        self.sampling_mode = "train"

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: the rows of the augmentation, such as `pixel_values` of shape
            `(num_sample, num_frames, num_channels, height, width)`, and `labels` of shape `(num_sample,)`, or zeros
            and ones of shape `(num_sample, num_labels)`.

        Raises:
            ValueError: the sample has no label.
        """
        if record.sample.label is None:
            raise ValueError(f"Sample {record.sample.id!r} has no label")
        label = label_tensor(record.sample.label, self.num_labels)
        return {**self.clips(record), "labels": torch.stack([label] * self.num_sample)}

    def clips(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Decode and augment a clip.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict[str, torch.Tensor]`: the rows of the augmentation.
        """
        seeds = [self.seed_of(record, "augmentation", copy) for copy in range(self.num_sample)]
        return self.augmentation.rows(self.decode(record), seeds)

    def decode(self, record: Record) -> torch.Tensor:
        """
        Decode a clip.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `torch.Tensor` of shape `(num_frames, num_channels, height, width)`: uint8 frames before augmentation.
        """
        rng = np.random.default_rng(self.seed_of(record, "frames"))
        clips, _ = self.processor.load_clips(record.sample.video, sampling_mode=self.sampling_mode, rng=rng)
        return clips[0]

    def seed_of(self, record: Record, purpose: str, copy: int = 0) -> int:
        """
        Seed of the random numbers of one copy. The first copies do not depend on the number of copies.

        Args:
            record ([`Record`]):
                The sample and its epoch.
            purpose (`str`):
                Name of the purpose. Purposes have independent random numbers.
            copy (`int`, *optional*, defaults to 0):
                Number of the copy.

        Returns:
            `int`: the seed.
        """
        return sample_seed(self.seed, record.epoch, record.sample.id, f"{purpose}/{copy}" if copy else purpose)


def label_tensor(label: Label, num_labels: int | None = None) -> torch.Tensor:
    """
    A label as a tensor for the loss.

    Args:
        label (`int`, `tuple[int, ...]` or `None`):
            One or several indices, or `None` for an unlabelled sample.
        num_labels (`int`, *optional*):
            Number of labels of a multi-label model.

    Returns:
        `torch.Tensor`: an index, or zeros and ones of shape `(num_labels,)`; -1 everywhere if there is no label.

    Raises:
        ValueError: the label has several indices and the model is not multi-label.
    """
    if num_labels is None:
        if isinstance(label, tuple):
            raise ValueError(f"`label` must be one index for a model with one label per clip, got {label}")
        return torch.tensor(-1 if label is None else label)
    hot = torch.full((num_labels,), 0.0 if label is not None else -1.0)
    hot[list(label_indices(label))] = 1.0
    return hot


class MaskedClipLoader(TrainingClipLoader):
    """
    Reads a clip for masked modelling. Dense clips have an exact stride; segment and uniform clips are sampled as in
    training. Each augmented copy has its own masks.

    Args:
        processor ([`ClipProcessor`]):
            Samples and decodes frames.
        augmentation ([`ClipAugmentation`] or [`DeviceAugmentation`]):
            Augments the uint8 clip, or packs it for the accelerator.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample id.
        num_sample (`int`):
            Augmented copies of the decoded clip.
        masks (`Callable[[numpy.random.Generator], tuple[np.ndarray, np.ndarray]]`):
            Makes the encoder mask and the decoder mask of one copy.
    """

    def __init__(
        self, processor: ClipProcessor, augmentation: Augmentation, seed: int, num_sample: int, masks: "MaskMaker"
    ):
        super().__init__(processor, augmentation, seed, num_sample)
        self.sampling_mode = "pretrain" if processor.frame_sampling == "dense" else "train"
        self.masks = masks

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: the rows of the augmentation, such as `pixel_values` of shape
            `(num_sample, num_frames, num_channels, height, width)`; `encoder_mask` and `decoder_mask`, bool of shape
            `(num_sample, sequence_length)`.
        """
        seeds = [self.seed_of(record, "masks", copy) for copy in range(self.num_sample)]
        return {**self.clips(record), **stacked_masks(self.masks, seeds)}


MaskMaker = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def stacked_masks(masks: MaskMaker, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
    """
    Masks of several samples, under the names of the arguments of the model.

    Args:
        masks (`Callable[[numpy.random.Generator], tuple[np.ndarray, np.ndarray]]`):
            Makes the encoder mask and the decoder mask of one sample.
        seeds (`Sequence[int]`):
            Seed of each sample.

    Returns:
        `dict[str, torch.Tensor]`: `encoder_mask` and `decoder_mask`, bool of shape `(num_samples, sequence_length)`.
    """
    pairs = [masks(np.random.default_rng(seed)) for seed in seeds]
    encoder, decoder = (torch.from_numpy(np.stack(parts)) for parts in zip(*pairs))
    return {"encoder_mask": encoder, "decoder_mask": decoder}
