"""Batches for masked visual words: clips and images with their masks, and with the words that are known."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from transformers import PreTrainedConfig

from ...modeling.configuration_base import frame_size
from ...modeling.video_processing_base import without_colours
from ..arguments import RunConfig, check_minimum, check_range, option
from ..data.augmentation import Augmentation
from ..data.block_masking import BlockMasks
from ..data.images import image_reader, open_images
from ..data.joint import IMAGE_PLACE, PASSES, JointStream
from ..data.opening import load_sources
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource, stable_hash
from ..data.streaming import (
    BadVideoLedger,
    Batch,
    BatchStream,
    ClipStream,
    Record,
    TrainingClipLoader,
    merge_copies,
)
from ..data.streams import clip_augmentation, evaluation_stream, training_stream
from .cache import WordCache
from .tokenizers import VisualTokenizer, find_words


PUBLISHED_PLACES = 14 * 14  # of an image, for which the published size of blocks was chosen
PREFIXES = ("", "image_")  # before the names of clips' and of images' rows
Rows = dict[str, torch.Tensor]
Sources = tuple[VideoSource, VideoSource | None]


@dataclass
class WordArguments:
    """The tokenizer whose words are predicted, where they are kept, and the images beside the clips."""

    tokenizer: str | None = option(
        None, "frozen tokenizer whose words are predicted: folder or Hub id of a FlavaImageCodebook"
    )
    word_cache: str | None = option(None, "folder that keeps the tokenizer's words for later epochs and runs")
    word_copies: int = option(
        4,
        "augmented copies of each sample that the epochs take in turn where words are kept; 1 is always the same crop",
    )
    image_data: str | None = option(None, "image files to train on as well: a folder of classes or a list")
    image_batch_size: int | None = option(None, "images in a batch; none takes batch_size")
    image_jitter: float = option(0.0, "largest change of brightness, contrast and saturation of the images")

    def __post_init__(self) -> None:
        check_minimum(self, word_copies=1, image_batch_size=1)
        check_range("image_jitter", self.image_jitter, 0.0, 1.0)


def masks_for(config: PreTrainedConfig) -> BlockMasks:
    """The masks of a configuration, by default the published ones; blocks are scaled with the grid of words."""
    height, width = frame_size(config.image_size)
    rows, columns = height // config.prediction_patch_size, width // config.prediction_patch_size
    smallest = max(round(BlockMasks.smallest_block * rows * columns / PUBLISHED_PLACES), 1)
    return BlockMasks(
        rows,
        columns,
        config.mask_ratio,
        smallest,
        shortest_tube=config.shortest_tube,
        longest_tube=config.longest_tube,
    )


class MaskDraws:
    """
    Draws the mask of one sample: `(frames, height, width)` of a clip, `(height, width)` of an image.

    Args:
        config (`PreTrainedConfig`):
            The model's.
        images (`bool`):
            Whether samples are images.
    """

    def __init__(self, config: PreTrainedConfig, images: bool):
        self.masks, self.frames = masks_for(config), None if images else config.num_frames // config.tubelet_size

    def __call__(self, seed: int) -> torch.Tensor:
        rng = random.Random(seed)
        drawn = self.masks.image(rng) if self.frames is None else self.masks.clip(self.frames, rng)
        return torch.from_numpy(drawn)


class WordClipLoader(TrainingClipLoader):
    """
    Reads one clip, or one image as a clip of one frame, with a mask for each augmented copy.

    Args:
        processor ([`ClipVideoProcessor`]):
            Samples and decodes.
        augmentation ([`ClipAugmentation`]):
            Augments the uint8 frames.
        seed (`int`):
            With epoch and sample id, the source of every draw.
        num_sample (`int`):
            Augmented copies.
        masks ([`MaskDraws`]):
            Draws the masks, anew in every epoch.
        cache ([`WordCache`], *optional*):
            Words that are known. Epochs then take `word_copies` draws of frames and augmentation in turn.
        word_copies (`int`, *optional*, defaults to 1):
            How many.
    """

    def __init__(
        self,
        processor: ClipProcessor,
        augmentation: Augmentation,
        seed: int,
        num_sample: int,
        masks: MaskDraws,
        cache: WordCache | None = None,
        word_copies: int = 1,
    ):
        super().__init__(processor, augmentation, seed, num_sample)
        self.masks, self.cache, self.word_copies = masks, cache, word_copies

    def clips(self, record: Record) -> Rows:
        """The augmented copies, of which there are `word_copies` at most where words are kept."""
        if self.cache is not None:  # passes through the images are numbered from PASSES times the clips' epoch
            record = replace(record, epoch=sum(divmod(record.epoch, PASSES)) % self.word_copies)
        rows = super().clips(record)
        if self.processor.do_grayscale:  # here, so that the tokenizer sees what the model does
            rows["pixel_values"] = without_colours(rows["pixel_values"]).contiguous()
        return rows

    def __call__(self, record: Record) -> Rows:
        """
        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_sample, num_frames, num_channels, height, width)`, and `mask`,
            bool of shape `(num_sample, frames, height, width)` or, of images, `(num_sample, height, width)`; with a
            cache also what [`WordCache.rows`] says.
        """
        seeds = [self.seed_of(record, "masks", copy) for copy in range(self.num_sample)]
        return with_known(
            {**self.clips(record), "mask": torch.stack([self.masks(seed) for seed in seeds])}, self.cache
        )


class WordEvaluationLoader:
    """Reads the middle of a video, or an image, with a mask that depends on its id alone; rows as in training."""

    def __init__(self, processor: ClipProcessor, masks: MaskDraws, cache: WordCache | None = None):
        self.processor, self.masks, self.cache = processor, masks, cache

    def __call__(self, record: Record) -> Rows:
        frames = self.processor(
            record.sample.video,
            sampling_mode="validation",
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )["pixel_values"]
        rows = {"pixel_values": frames, "mask": self.masks(stable_hash(record.sample.id))[None]}
        return with_known(rows, self.cache)


def with_known(rows: Rows, cache: WordCache | None) -> Rows:
    """Rows with the words that a cache knows."""
    return rows if cache is None else rows | cache.rows(rows["pixel_values"])


class PairedStream(JointStream):
    """
    Batches of videos, each with a batch of images. An epoch is one of the videos; for each the images begin in a new
    order, and once more when they run out. `image_` stands before the names of the images' rows.

    Args:
        videos ([`ClipStream`]):
            Batches of videos.
        images ([`ClipStream`]):
            Batches of images, with `drop_last`.
    """

    def __init__(self, videos: ClipStream, images: ClipStream):
        super().__init__(videos, images, ratio=1.0)

    def num_batches(self, rank: int | None = None) -> int | None:
        """Batches of videos in an epoch."""
        return self.videos.num_batches(rank)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """See [`JointStream`]."""
        images_seen, videos_seen = divmod(start, IMAGE_PLACE)
        images = self._image_batches(epoch, images_seen)
        self.position = start
        for batch in self.videos.epoch(epoch, videos_seen):
            found = next(images)
            self.position = self._images_seen * IMAGE_PLACE + self.videos.position
            rows = batch.rows | {f"image_{name}": value for name, value in found.rows.items()}
            yield Batch(rows, batch.ids, batch.positions)


class ImageStream:
    """
    Batches of images alone under the names of images' rows; for stage 1.

    Args:
        images ([`ClipStream`]):
            The images.
    """

    def __init__(self, images: ClipStream):
        self.images, self.source = images, images.source
        self.rank, self.world, self.position = images.rank, images.world, 0

    def num_batches(self, rank: int | None = None) -> int | None:
        """Batches an epoch of a process."""
        return self.images.num_batches(rank)

    def num_read(self, position: int) -> int:
        """Images that stand before a position."""
        return position

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a position on."""
        self.position = start
        for batch in self.images.epoch(epoch, start):
            self.position = self.images.position
            yield Batch({f"image_{name}": value for name, value in batch.rows.items()}, batch.ids, batch.positions)


class WordRows:
    """
    Makes the task's input of a batch of uint8 frames, on the device: normalised pixels, masks, and the frames as they
    are for the tokenizer. With a cache also the words: those that it knows, and the others, found and kept.

    Args:
        processor ([`ClipVideoProcessor`]):
            Normalises.
        tokenizer ([`VisualTokenizer`], *optional*):
            Finds the words that `cache` does not know.
        cache ([`WordCache`], *optional*):
            What the loaders have, too.
    """

    def __init__(
        self, processor: ClipProcessor, tokenizer: VisualTokenizer | None = None, cache: WordCache | None = None
    ):
        self.processor, self.tokenizer, self.cache = processor, tokenizer, cache
        self.num_known, self.num_found = 0, 0

    def __call__(self, rows: Rows, device: torch.device) -> Rows:
        rows = merge_copies(rows)
        batch: Rows = {}
        for prefix in PREFIXES:
            if f"{prefix}pixel_values" not in rows:
                continue
            frames = rows[f"{prefix}pixel_values"].to(device, non_blocking=True)
            frames = frames[:, 0] if prefix else frames  # an image is a clip of one frame
            batch |= {
                f"{prefix}frames": frames,
                f"{prefix}pixel_values": self.processor.normalize_clips(frames),
                f"{prefix}mask": rows[f"{prefix}mask"].to(device, non_blocking=True),
            }
        words = self.words(rows, device)
        return batch | {f"{prefix}labels": found[:, 0] if prefix else found for prefix, found in words.items()}

    def words(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """
        Words of the clips and, under the prefix of their rows, the images of a batch whose rows say what is known:
        `(num_clips, num_frames, rows, columns)`.
        """
        words = {prefix: rows[f"{prefix}words"].clone() for prefix in PREFIXES if f"{prefix}words" in rows}
        missing = {prefix: torch.nonzero(~rows[f"{prefix}known"]).flatten() for prefix in words}
        asked = [prefix for prefix in words if len(missing[prefix])]
        self.num_found += sum(len(missing[prefix]) for prefix in asked)
        self.num_known += sum(len(words[prefix]) - len(missing[prefix]) for prefix in words)
        if asked and self.tokenizer is not None and self.cache is not None:
            frames = [rows[f"{prefix}pixel_values"][missing[prefix]].to(device) for prefix in asked]
            for prefix, found in zip(asked, find_words(self.tokenizer, *frames)):
                words[prefix][missing[prefix]] = found.cpu()
                for index in missing[prefix].tolist():
                    self.cache.write(bytes(rows[f"{prefix}word_key"][index].tolist()), words[prefix][index])
        return {prefix: found.to(device, non_blocking=True) for prefix, found in words.items()}


class WordData:
    """
    The clips and images of a run, and their batches.

    Args:
        config ([`RunConfig`]):
            The run.
        arguments ([`WordArguments`]):
            The method's own fields.
        model_config (`PreTrainedConfig`):
            The model's; says whether it learns from clips, from images, or from both.
        processor ([`ClipVideoProcessor`]):
            Its processor.
        tokenizer ([`VisualTokenizer`], *optional*):
            Needed with a `word_cache`.
    """

    def __init__(
        self,
        config: RunConfig,
        arguments: WordArguments,
        model_config: PreTrainedConfig,
        processor: ClipProcessor,
        tokenizer: VisualTokenizer | None = None,
    ):
        self.config, self.arguments = config, arguments
        self.model_config, self.processor = model_config, processor
        folder = arguments.word_cache
        self.cache = None if folder is None or tokenizer is None else WordCache(folder, tokenizer)
        self.prepare = WordRows(processor, tokenizer, self.cache)
        self.sources: dict[str, Sources] = {}
        if model_config.video_stream:
            self.sources["video"] = load_sources(config.data, config.run.seed)
        if model_config.image_stream:
            place = arguments.image_data or (None if model_config.video_stream else config.data.data)
            if place is None:
                raise ValueError("`image_data` is needed: the model learns from images too (`image_stream`)")
            self.sources["image"] = open_images(place)

    @property
    def main_source(self) -> VideoSource:
        """The source whose samples make an epoch."""
        return next(iter(self.sources.values()))[0]

    def loader(self, images: bool) -> WordClipLoader:
        """Reads the training samples."""
        augmentation = self.config.augmentation
        jitter = self.arguments.image_jitter if images else 0.0
        return WordClipLoader(
            image_reader(self.processor) if images else self.processor,
            clip_augmentation(augmentation, self.processor, jitter=jitter),
            self.config.run.seed,
            1 if images else augmentation.num_sample,
            MaskDraws(self.model_config, images),
            self.cache,
            self.arguments.word_copies,
        )

    def clips_of(
        self, kind: str, accelerator: Accelerator, ledger: BadVideoLedger, drop_last: bool | None = None
    ) -> ClipStream:
        """
        This process's training samples of one kind.

        Args:
            kind (`str`):
                `"video"` or `"image"`.
            accelerator (`Accelerator`):
                The run's processes.
            ledger ([`BadVideoLedger`]):
                Lists unreadable files.
            drop_last (`bool`, *optional*):
                Whether an incomplete last batch is left out; the run's setting by default.
        """
        optimization = self.config.optimization
        paired = kind == "image" and "video" in self.sources
        batch_size = self.arguments.image_batch_size if paired else None
        return training_stream(
            self.config.data,
            self.sources[kind][0],
            self.loader(images=kind == "image"),
            ledger,
            accelerator,
            seed=self.config.run.seed,
            batch_size=batch_size or optimization.batch_size,
            drop_last=optimization.drop_last if drop_last is None else drop_last,
        )

    def stream(self, accelerator: Accelerator, ledger: BadVideoLedger) -> BatchStream:
        """This process's training batches."""
        if "image" not in self.sources:
            return self.clips_of("video", accelerator, ledger)
        if "video" not in self.sources:
            return ImageStream(self.clips_of("image", accelerator, ledger))
        return PairedStream(
            self.clips_of("video", accelerator, ledger), self.clips_of("image", accelerator, ledger, drop_last=True)
        )

    def held_out(self, accelerator: Accelerator, ledger: BadVideoLedger) -> dict[str, ClipStream]:
        """This process's share of the samples to validate on, by kind."""
        streams = {}
        for kind, (_, source) in self.sources.items():
            if source is None:
                continue
            reader = image_reader(self.processor) if kind == "image" else self.processor
            streams[kind] = evaluation_stream(
                self.config.data,
                source,
                WordEvaluationLoader(reader, MaskDraws(self.model_config, kind == "image"), self.cache),
                accelerator,
                batch_size=self.config.eval_batch_size,
                on_bad_video=ledger.add,
            )
        return streams


__all__ = [
    "ImageStream",
    "MaskDraws",
    "PairedStream",
    "WordArguments",
    "WordClipLoader",
    "WordData",
    "WordEvaluationLoader",
    "WordRows",
    "masks_for",
]
