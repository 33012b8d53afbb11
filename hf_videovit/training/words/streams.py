"""Batches for masked visual words: clips and images with masks and cached words."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from transformers import PreTrainedConfig

from ...modeling.configuration_base import frame_size
from ...modeling.video_processing_base import without_colours
from ..arguments import RunConfig
from ..data.augmentation import Augmentation
from ..data.bad_videos import BadVideoLedger
from ..data.block_masking import BlockMasks
from ..data.images import image_reader, open_images
from ..data.joint import IMAGE_PLACE, PASSES, JointStream
from ..data.loaders import Record, TrainingClipLoader
from ..data.opening import load_sources
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource, stable_hash
from ..data.streaming import Batch, BatchStream, ClipStream, merge_copies
from ..data.streams import clip_augmentation, evaluation_stream, training_stream
from ..fields import check_minimum, check_range, option
from .cache import WordCache
from .tokenizers import VisualTokenizer, find_words


PUBLISHED_PLACES = 14 * 14  # words of an image for which the published size of blocks was chosen
PREFIXES = ("", "image_")  # of the names of rows: clips, images
Rows = dict[str, torch.Tensor]
Sources = tuple[VideoSource, VideoSource | None]


@dataclass
class WordArguments:
    """The tokenizer whose words are predicted, their cache, and the images that are trained on with the clips."""

    tokenizer: str | None = option(
        None,
        "frozen tokenizer whose words are predicted: folder or Hub id of a BevtImageCodebook or FlavaImageCodebook",
    )
    word_cache: str | None = option(None, "folder that caches the tokenizer's words for later epochs and runs")
    word_copies: int = option(
        4,
        "augmented copies of each sample that the epochs cycle through when words are cached; 1 keeps one crop",
    )
    image_data: str | None = option(None, "image files to train on in addition: a folder of classes or a list")
    image_batch_size: int | None = option(None, "images in a batch; none means batch_size")
    image_jitter: float = option(0.0, "largest change of brightness, contrast and saturation of the images")

    def __post_init__(self) -> None:
        check_minimum(self, word_copies=1, image_batch_size=1)
        check_range("image_jitter", self.image_jitter, 0.0, 1.0)


def masks_for(config: PreTrainedConfig) -> BlockMasks:
    """
    The masks of a model. The default configuration gives the published masks. The block size is scaled with the number
    of words.

    Args:
        config (`PreTrainedConfig`):
            Configuration of the model.

    Returns:
        [`BlockMasks`]: the masks.
    """
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


class RandomMasks:
    """
    Makes the random mask of a sample: `(frames, height, width)` for a clip, `(height, width)` for an image.

    Args:
        config (`PreTrainedConfig`):
            Configuration of the model.
        images (`bool`):
            Whether samples are images.
    """

    def __init__(self, config: PreTrainedConfig, images: bool):
        self.masks, self.frames = masks_for(config), None if images else config.num_frames // config.tubelet_size

    def __call__(self, seed: int) -> torch.Tensor:
        """
        Make a mask.

        Args:
            seed (`int`):
                Seed of the mask.

        Returns:
            `torch.Tensor`: bool, `True` where hidden.
        """
        rng = random.Random(seed)
        mask = self.masks.image(rng) if self.frames is None else self.masks.clip(self.frames, rng)
        return torch.from_numpy(mask)


class WordClipLoader(TrainingClipLoader):
    """
    Reads one clip, or one image as a clip of one frame, with a mask for each augmented copy.

    Args:
        processor ([`ClipProcessor`]):
            Samples and decodes frames.
        augmentation ([`ClipAugmentation`]):
            Augments the uint8 frames.
        seed (`int`):
            Seed of all random numbers, together with epoch and sample id.
        num_sample (`int`):
            Augmented copies of each clip.
        masks ([`RandomMasks`]):
            Makes the masks, new ones in every epoch.
        cache ([`WordCache`], *optional*):
            Cache of words. With it, the epochs cycle through `word_copies` random choices of frames and augmentation.
        word_copies (`int`, *optional*, defaults to 1):
            Length of that cycle.
    """

    def __init__(
        self,
        processor: ClipProcessor,
        augmentation: Augmentation,
        seed: int,
        num_sample: int,
        masks: RandomMasks,
        cache: WordCache | None = None,
        word_copies: int = 1,
    ):
        super().__init__(processor, augmentation, seed, num_sample)
        self.masks, self.cache, self.word_copies = masks, cache, word_copies

    def clips(self, record: Record) -> Rows:
        """
        Read and augment a clip. With a cache there are only `word_copies` different results per sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_sample, num_frames, num_channels, height, width)`.
        """
        if self.cache is not None:  # the number of a pass through the images is PASSES * epoch of the clips + pass
            record = replace(record, epoch=sum(divmod(record.epoch, PASSES)) % self.word_copies)
        rows = super().clips(record)
        if self.processor.do_grayscale:  # here, so that tokenizer and model see the same pixels
            rows["pixel_values"] = without_colours(rows["pixel_values"]).contiguous()
        return rows

    def __call__(self, record: Record) -> Rows:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_sample, num_frames, num_channels, height, width)`, and `mask`,
            bool of shape `(num_sample, frames, height, width)` or, for images, `(num_sample, height, width)`; with a
            cache also the rows of [`WordCache.rows`].
        """
        seeds = [self.seed_of(record, "masks", copy) for copy in range(self.num_sample)]
        return _with_known(
            {**self.clips(record), "mask": torch.stack([self.masks(seed) for seed in seeds])}, self.cache
        )


class WordEvaluationLoader:
    """
    Reads the middle of a video, or an image, with a mask that depends on the sample id only. The rows are those of
    [`WordClipLoader`].

    Args:
        processor ([`ClipProcessor`]):
            Samples and decodes frames.
        masks ([`RandomMasks`]):
            Makes the masks.
        cache ([`WordCache`], *optional*):
            Cache of words.
    """

    def __init__(self, processor: ClipProcessor, masks: RandomMasks, cache: WordCache | None = None):
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
        return _with_known(rows, self.cache)


def _with_known(rows: Rows, cache: WordCache | None) -> Rows:
    """Add the rows of a cache."""
    return rows if cache is None else rows | cache.rows(rows["pixel_values"])


class PairedStream(JointStream):
    """
    Batches of videos, each with a batch of images. An epoch is a pass through the videos. In every epoch, and whenever
    all images have been used, the images start again in a new order. The names of their rows start with `image_`.

    Args:
        videos ([`ClipStream`]):
            Batches of videos.
        images ([`ClipStream`]):
            Batches of images, with `drop_last`.
    """

    def __init__(self, videos: ClipStream, images: ClipStream):
        super().__init__(videos, images, ratio=1.0)

    def num_batches(self, rank: int | None = None) -> int | None:
        """
        Number of batches in an epoch.

        Args:
            rank (`int`, *optional*):
                Number of the process; this one by default.

        Returns:
            `int` or `None`: `None` if unknown.
        """
        return self.videos.num_batches(rank)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Number of the epoch.
            start (`int`, *optional*, defaults to 0):
                Position to resume at: `position` after the last batch.

        Returns:
            `Iterator[Batch]`: the batches.
        """
        images_seen, videos_seen = divmod(start, IMAGE_PLACE)
        images = self._image_batches(epoch, images_seen)
        self.position = start
        for batch in self.videos.epoch(epoch, videos_seen):
            found = next(images)
            self.position = self._images_seen * IMAGE_PLACE + self.videos.position
            yield _paired(batch, found) if len(found) else Batch({}, [], [])

    def example(self) -> Batch | None:
        """See [`~BatchStream.example`]."""
        videos, images = self.videos.example(), self.images.example()
        return None if videos is None or images is None else _paired(videos, images)


def _paired(videos: Batch, images: Batch) -> Batch:
    rows = videos.rows | {f"image_{name}": value for name, value in images.rows.items()}
    return Batch(rows, videos.ids, videos.positions)


class ImageStream:
    """
    Batches of images only, for stage 1. The names of their rows start with `image_`.

    Args:
        images ([`ClipStream`]):
            The images.
    """

    def __init__(self, images: ClipStream):
        self.images, self.source, self.sources = images, images.source, images.sources
        self.rank, self.world, self.position = images.rank, images.world, 0

    def num_batches(self, rank: int | None = None) -> int | None:
        """
        Number of batches in an epoch.

        Args:
            rank (`int`, *optional*):
                Number of the process; this one by default.

        Returns:
            `int` or `None`: `None` if unknown.
        """
        return self.images.num_batches(rank)

    def num_read(self, position: int) -> int:
        """
        Number of images before a position.

        Args:
            position (`int`):
                A position of the stream.
        """
        return self.images.num_read(position)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Number of the epoch.
            start (`int`, *optional*, defaults to 0):
                Position to resume at.

        Returns:
            `Iterator[Batch]`: the batches.
        """
        self.position = start
        for batch in self.images.epoch(epoch, start):
            self.position = self.images.position
            yield _named_as_images(batch)

    def example(self) -> Batch | None:
        """See [`~BatchStream.example`]."""
        batch = self.images.example()
        return None if batch is None else _named_as_images(batch)


def _named_as_images(batch: Batch) -> Batch:
    return Batch({f"image_{name}": value for name, value in batch.rows.items()}, batch.ids, batch.positions)


def masked_places(masks: torch.Tensor) -> torch.Tensor:
    """
    Positions of hidden patches. They are found on the CPU, so that the model's shapes are known without its device.

    Args:
        masks (`torch.BoolTensor` of shape `(batch_size, ...)`):
            `True` = hidden.

    Returns:
        `torch.LongTensor` of shape `(num_masked,)`: positions in the flattened masks.

    Raises:
        ValueError: a mask hides nothing.
    """
    if not masks.flatten(1).any(dim=1).all():
        raise ValueError("`masks` must hide at least 1 place of every sample, got a sample without.")
    return masks.flatten().nonzero().squeeze(1)


class WordRows:
    """
    Turns a batch of uint8 frames into the input of the task, on the device: normalised pixels, masks, and the original
    frames for the tokenizer. With a cache it adds the words, and finds and caches those that are missing.

    Args:
        processor ([`ClipProcessor`]):
            Normalises the frames.
        tokenizer ([`VisualTokenizer`], *optional*):
            Finds the words that are not in the cache.
        cache ([`WordCache`], *optional*):
            The cache that the loaders use.
    """

    def __init__(
        self, processor: ClipProcessor, tokenizer: VisualTokenizer | None = None, cache: WordCache | None = None
    ):
        self.processor, self.tokenizer, self.cache = processor, tokenizer, cache
        self.num_known, self.num_found = 0, 0

    def __call__(self, rows: Rows, device: torch.device) -> Rows:
        """
        Make the input of the task.

        Args:
            rows (`dict[str, torch.Tensor]`):
                Rows of a batch.
            device (`torch.device`):
                Device of the model.

        Returns:
            `dict`: `frames`, `pixel_values`, `mask`, `masked_places` and, with a cache, `labels`, and the same for
            images with the prefix `image_`.
        """
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
                f"{prefix}masked_places": masked_places(rows[f"{prefix}mask"]).to(device, non_blocking=True),
            }
        words = self.words(rows, device)
        return batch | {f"{prefix}labels": found[:, 0] if prefix else found for prefix, found in words.items()}

    def words(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """
        Words of the clips and images of a batch with rows of a cache. Missing words are found and cached.

        Args:
            rows (`dict[str, torch.Tensor]`):
                Rows of a batch.
            device (`torch.device`):
                Device of the model.

        Returns:
            `dict[str, torch.Tensor]`: words of shape `(num_clips, num_frames, rows, columns)` by the prefix of their
            rows, one of `PREFIXES`.
        """
        words = {prefix: rows[f"{prefix}words"].clone() for prefix in PREFIXES if f"{prefix}words" in rows}
        missing = {prefix: torch.nonzero(~rows[f"{prefix}known"]).flatten() for prefix in words}
        incomplete = [prefix for prefix in words if len(missing[prefix])]
        self.num_found += sum(len(missing[prefix]) for prefix in incomplete)
        self.num_known += sum(len(words[prefix]) - len(missing[prefix]) for prefix in words)
        if incomplete and self.tokenizer is not None and self.cache is not None:
            frames = [rows[f"{prefix}pixel_values"][missing[prefix]].to(device) for prefix in incomplete]
            for prefix, found in zip(incomplete, find_words(self.tokenizer, *frames)):
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
            Configuration of the model. `video_stream` and `image_stream` tell whether it is trained on clips, images
            or both.
        processor ([`ClipProcessor`]):
            Processor of the model.
        tokenizer ([`VisualTokenizer`], *optional*):
            The tokenizer; needed with a `word_cache`.

    Raises:
        ValueError: `image_data` is missing.
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
                raise ValueError("`image_data` is needed: the model is also trained on images (`image_stream`)")
            self.sources["image"] = open_images(place)

    @property
    def main_source(self) -> VideoSource:
        """The source whose samples make an epoch."""
        return next(iter(self.sources.values()))[0]

    def loader(self, images: bool) -> WordClipLoader:
        """
        The loader of the training samples.

        Args:
            images (`bool`):
                Whether samples are images.
        """
        augmentation = self.config.augmentation
        jitter = self.arguments.image_jitter if images else 0.0
        return WordClipLoader(
            image_reader(self.processor) if images else self.processor,
            clip_augmentation(augmentation, self.processor, jitter=jitter),
            self.config.run.seed,
            1 if images else augmentation.num_sample,
            RandomMasks(self.model_config, images),
            self.cache,
            self.arguments.word_copies,
        )

    def clips_of(
        self, kind: str, accelerator: Accelerator, ledger: BadVideoLedger, drop_last: bool | None = None
    ) -> ClipStream:
        """
        The training batches of one kind, for this process.

        Args:
            kind (`str`):
                `"video"` or `"image"`.
            accelerator (`Accelerator`):
                Number of this process and of all processes.
            ledger ([`BadVideoLedger`]):
                Records unreadable files.
            drop_last (`bool`, *optional*):
                Whether an incomplete last batch is left out; the setting of the run by default.

        Returns:
            [`ClipStream`]: the batches.
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
            accumulation=optimization.accumulation,
            drop_last=optimization.drop_last if drop_last is None else drop_last,
        )

    def stream(self, accelerator: Accelerator, ledger: BadVideoLedger) -> BatchStream:
        """
        The training batches of this process.

        Args:
            accelerator (`Accelerator`):
                Number of this process and of all processes.
            ledger ([`BadVideoLedger`]):
                Records unreadable files.

        Returns:
            [`BatchStream`]: the batches.
        """
        if "image" not in self.sources:
            return self.clips_of("video", accelerator, ledger)
        if "video" not in self.sources:
            return ImageStream(self.clips_of("image", accelerator, ledger))
        return PairedStream(
            self.clips_of("video", accelerator, ledger), self.clips_of("image", accelerator, ledger, drop_last=True)
        )

    def held_out(self, accelerator: Accelerator, ledger: BadVideoLedger) -> dict[str, ClipStream]:
        """
        The validation batches of this process.

        Args:
            accelerator (`Accelerator`):
                Number of this process and of all processes.
            ledger ([`BadVideoLedger`]):
                Records unreadable files.

        Returns:
            `dict[str, ClipStream]`: batches by kind, `"video"` or `"image"`.
        """
        streams = {}
        for kind, (_, source) in self.sources.items():
            if source is None:
                continue
            reader = image_reader(self.processor) if kind == "image" else self.processor
            streams[kind] = evaluation_stream(
                self.config.data,
                source,
                WordEvaluationLoader(reader, RandomMasks(self.model_config, kind == "image"), self.cache),
                accelerator,
                batch_size=self.config.eval_batch_size,
                on_bad_video=ledger.add,
            )
        return streams


__all__ = [
    "ImageStream",
    "PairedStream",
    "RandomMasks",
    "WordArguments",
    "WordClipLoader",
    "WordData",
    "WordEvaluationLoader",
    "WordRows",
    "masked_places",
    "masks_for",
]
