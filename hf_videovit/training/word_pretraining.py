"""Pretraining on masked visual words: clips, images, or batches of both at every step."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedConfig, PreTrainedModel

from ..reconstruction import Reconstruction, draw_reconstructions
from .arguments import RunConfig
from .augmentation import ClipAugmentation
from .block_masking import BlockMasks
from .building import build_pretraining_model
from .engine import Observer, fit
from .images import image_reader, open_images
from .joint import IMAGE_PLACE, JointStream
from .opening import load_sources
from .pretraining import NUM_DRAWN, PretrainResult, outcomes
from .probes import online_probe
from .runs import make_accelerator, run_facts, save_model, training_ledger, training_stream
from .sources import VideoSource, stable_hash
from .streaming import Batch, ClipStream, Record, TrainingClipLoader, merge_copies
from .tasks import MaskedWordsTask
from .visual_words import PaintsWords, VisualTokenizer, load_tokenizer


PUBLISHED_PLACES = 14 * 14  # of an image, for which the published size of blocks was chosen
HIDDEN_GREY = 127.5
Rows = dict[str, torch.Tensor]
Sources = tuple[VideoSource, VideoSource | None]


def masks_for(config: PreTrainedConfig) -> BlockMasks:
    """The published masks, blocks scaled with the grid of words."""
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    rows, columns = height // config.prediction_patch_size, width // config.prediction_patch_size
    smallest = max(round(BlockMasks.smallest_block * rows * columns / PUBLISHED_PLACES), 1)
    return BlockMasks(rows, columns, smallest_block=smallest)


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
            Draws the masks.
    """

    def __init__(self, processor: Any, augmentation: ClipAugmentation, seed: int, num_sample: int, masks: MaskDraws):
        super().__init__(processor, augmentation, seed, num_sample)
        self.masks = masks

    def __call__(self, record: Record) -> Rows:
        """
        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_sample, num_frames, num_channels, height, width)`, and `mask`,
            bool of shape `(num_sample, frames, height, width)` or, of images, `(num_sample, height, width)`.
        """
        seeds = [self.seed_of(record, "masks", copy) for copy in range(self.num_sample)]
        return {**self.clips(record), "mask": torch.stack([self.masks(seed) for seed in seeds])}


class WordEvaluationLoader:
    """Reads the middle of a video, or an image, with a mask that depends on its id alone; rows as in training."""

    def __init__(self, processor: Any, masks: MaskDraws):
        self.processor, self.masks = processor, masks

    def __call__(self, record: Record) -> Rows:
        frames = self.processor(
            record.sample.video,
            sampling_mode="validation",
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )["pixel_values"]
        return {"pixel_values": frames, "mask": self.masks(stable_hash(record.sample.id))[None]}


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
    are for the tokenizer.

    Args:
        processor ([`ClipVideoProcessor`]):
            Normalises.
    """

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, rows: Rows, device: torch.device) -> Rows:
        rows = {name: value.to(device, non_blocking=True) for name, value in merge_copies(rows).items()}
        batch: Rows = {}
        for prefix in ("", "image_"):
            if f"{prefix}pixel_values" not in rows:
                continue
            frames = rows[f"{prefix}pixel_values"]
            frames = frames[:, 0] if prefix else frames  # an image is a clip of one frame
            batch |= {
                f"{prefix}frames": frames,
                f"{prefix}pixel_values": self.processor.normalize_clips(frames),
                f"{prefix}mask": rows[f"{prefix}mask"],
            }
        return batch


def pretrain_words(
    config: RunConfig,
    *,
    model: PreTrainedModel | None = None,
    processor: Any = None,
    tokenizer: VisualTokenizer | None = None,
    accelerator: Accelerator | None = None,
) -> PretrainResult:
    """
    Train a model to predict the visual words of hidden patches, and save it. Labels, where there are any, are not
    looked at.

    Args:
        config ([`RunConfig`]):
            The run. `data.data` names the videos, `data.image_data` the images, `model.tokenizer` the tokenizer. A
            model with an image stream alone is trained on images only.
        model (`PreTrainedModel`, *optional*):
            A model such as [`BevtForPreTraining`]; built from `config.model` by default.
        processor ([`ClipVideoProcessor`], *optional*):
            Its processor; likewise.
        tokenizer ([`VisualTokenizer`], *optional*):
            Likewise.
        accelerator (`Accelerator`, *optional*):
            Processes and devices; made from `config.run` by default.

    Returns:
        [`PretrainResult`]; `output_dir` holds config, weights, processor, `run.yaml`, and `words.png`, a picture of
        what is predicted of clips that were held out.
    """
    if config.augmentation.augment_on_device:
        raise ValueError("`augment_on_device` does not go with masked visual words")
    accelerator = accelerator or make_accelerator(config.run)
    torch.manual_seed(config.run.seed)
    if model is None or processor is None:
        built_model, built_processor = build_pretraining_model(config.model)
        model, processor = model or built_model, processor or built_processor
    if tokenizer is None:
        if config.model.tokenizer is None:
            raise ValueError("`tokenizer` is needed: a folder or Hub id of the tokenizer whose words are predicted")
        tokenizer = load_tokenizer(config.model.tokenizer)
    run = _WordRun(config, accelerator, model, processor, MaskedWordsTask(model, tokenizer))
    fitted = run.fit()
    output_dir, picture = Path(config.run.output_dir), None
    if accelerator.is_main_process:
        save_model(output_dir, config, fitted.model, processor)
        picture = run.draw(fitted.model, output_dir / "words.png")
    accelerator.wait_for_everyone()
    facts = run_facts(config, accelerator, fitted, run.main_source) | {"outcomes": outcomes(fitted.history)}
    return PretrainResult(fitted.model, processor, fitted.history, output_dir, picture, facts)


class _WordRun:
    """The streams and observers of one run."""

    def __init__(
        self,
        config: RunConfig,
        accelerator: Accelerator,
        model: PreTrainedModel,
        processor: Any,
        task: MaskedWordsTask,
    ):
        self.config, self.accelerator, self.task = config, accelerator, task
        self.model_config, self.processor = model.config, processor
        self.prepare = WordRows(processor)
        self.ledger = training_ledger(config, accelerator)
        self.videos: Sources | None = None
        self.images: Sources | None = None
        if model.config.video_stream:
            self.videos = load_sources(config.data, config.run.seed)
        if model.config.image_stream:
            place = config.data.image_data or (None if model.config.video_stream else config.data.data)
            if place is None:
                raise ValueError("`image_data` is needed: the model learns from images too (`image_stream`)")
            self.images = open_images(place, config.data.image_split)
        self.held_out = {
            kind: self._held_out(sources[1], images=kind == "image")
            for kind, sources in (("video", self.videos), ("image", self.images))
            if sources is not None and sources[1] is not None
        }

    @property
    def main_source(self) -> VideoSource:
        sources = self.videos or self.images
        if sources is None:
            raise ValueError("the model has no stream")
        return sources[0]

    def fit(self) -> Any:
        """Train."""
        return fit(
            self.task,
            self._stream(),
            self.config,
            accelerator=self.accelerator,
            prepare_batch=self.prepare,
            ledger=self.ledger,
            validate=self.validate if self.held_out else None,
            observers=self._observers(),
        )

    def _stream(self) -> Any:
        config, accelerator = self.config, self.accelerator
        clips = images = None
        if self.videos is not None:
            clips = training_stream(config, accelerator, self.videos[0], self._loader(False), self.ledger)
        if self.images is None:
            return clips
        size = config.data.image_batch_size or config.optimization.batch_size
        size = size if clips is not None else config.optimization.batch_size
        loader = self._loader(True)
        if clips is None:
            return ImageStream(training_stream(config, accelerator, self.images[0], loader, self.ledger, size))
        images = training_stream(config, accelerator, self.images[0], loader, self.ledger, size, drop_last=True)
        return PairedStream(clips, images)

    def _loader(self, images: bool) -> WordClipLoader:
        arguments, crop = self.config.augmentation, self.processor.crop_size
        augmentation = ClipAugmentation(
            arguments, (crop["height"], crop["width"]), jitter=arguments.image_jitter if images else 0.0
        )
        reader = image_reader(self.processor) if images else self.processor
        masks = MaskDraws(self.model_config, images)
        return WordClipLoader(reader, augmentation, self.config.run.seed, 1 if images else arguments.num_sample, masks)

    def _held_out(self, source: VideoSource | None, images: bool) -> ClipStream:
        reader = image_reader(self.processor) if images else self.processor
        return ClipStream(
            source,  # type: ignore[arg-type]
            WordEvaluationLoader(reader, MaskDraws(self.model_config, images)),
            self.config.run.eval_batch_size or self.config.optimization.batch_size,
            seed=None,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            num_workers=self.config.data.num_workers,
            timeout=self.config.data.worker_timeout,
            on_bad_video=self.ledger.add,
        )

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Scores of hidden words, of images with their name before."""
        scores: dict[str, float] = {}
        for kind, stream in self.held_out.items():
            found = self._scores(model, stream, kind)
            scores |= found if kind == "video" or not self.videos else {f"image_{k}": v for k, v in found.items()}
        return scores

    @torch.inference_mode()
    def _scores(self, model: PreTrainedModel, stream: ClipStream, kind: str) -> dict[str, float]:
        was_training = model.training
        model.eval()
        size = self.model_config.vocab_size
        total = torch.zeros(3 + size, dtype=torch.float32, device=model.device)  # count, right, loss, and each word
        for batch in _named(stream, kind):
            inputs = self.task.with_words(self.prepare(batch.rows, model.device))
            with self.accelerator.autocast():
                outputs = model(**inputs, masked_only=True)
            words = hidden_words(inputs, kind, model.config)
            loss, accuracy = outputs[f"{kind}_loss"], outputs[f"{kind}_accuracy"]
            sums = torch.stack([torch.ones_like(accuracy), accuracy, loss]).float() * len(words)
            total += torch.cat([sums, torch.bincount(words, minlength=size).float()])
        model.train(was_training)
        count, right, loss, *_ = total = self.accelerator.reduce(total, "sum")
        if not count:
            return {"accuracy": math.nan}
        most = total[3:].max() / count
        return {"accuracy": (right / count).item(), "majority": most.item(), "loss": (loss / count).item()}

    def _observers(self) -> list[Observer]:
        every = self.config.run.picture_every
        found: list[Observer | None] = []
        if self.videos is not None:
            found.append(online_probe(self.config, self.processor, self.accelerator, *self.videos))
        if every and self.held_out:
            found.append(Observer("picture", self._look, epochs=every))
        return [observer for observer in found if observer is not None]

    def _look(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        if self.accelerator.is_main_process:
            self.draw(model, Path(self.config.run.output_dir) / "logs" / "words" / f"step_{step:08d}.png")
        return {}

    def draw(self, model: PreTrainedModel, path: Path) -> Path | None:
        """What is predicted of the first held-out clips (images, where there are no clips)."""
        for kind, stream in self.held_out.items():
            batch = next(_named(stream, kind), None)
            if batch is not None:
                rows = {name: value[:NUM_DRAWN] for name, value in batch.rows.items()}
                return draw_words(model, self.task, self.prepare(rows, model.device), path)
        return None


def _named(stream: ClipStream, kind: str) -> Iterator[Batch]:
    return stream.epoch(0) if kind == "video" else ImageStream(stream).epoch(0)


def hidden_words(inputs: Rows, kind: str, config: PreTrainedConfig) -> torch.Tensor:
    """Words at masked places, of `inputs` of the model."""
    if kind == "image":
        return inputs["image_labels"][inputs["image_mask"].bool()]
    return inputs["labels"][inputs["mask"].bool().repeat_interleave(config.tubelet_size, dim=1)]


@torch.inference_mode()
def draw_words(model: PreTrainedModel, task: MaskedWordsTask, batch: Rows, path: str | Path) -> Path:
    """
    Draw what the model is shown, what it should say and what it says, one strip each: frames, frames with hidden
    patches in grey, and the words it predicts there. A tokenizer that can paint its words shows them as pictures;
    otherwise a predicted word is green where it is right and red where it is not.

    Args:
        model (`PreTrainedModel`):
            A model such as [`BevtForPreTraining`].
        task ([`MaskedWordsTask`]):
            Has the tokenizer.
        batch (`dict[str, torch.Tensor]`):
            As the task takes it, of one kind.
        path (`str` or `Path`):
            The picture.
    """
    was_training = model.training
    model.eval()
    inputs = task.with_words(batch)
    outputs = model(**inputs)
    model.train(was_training)
    prefix = "" if "frames" in batch else "image_"
    frames, mask, words = (batch[f"{prefix}frames"].float(), inputs[f"{prefix}mask"], inputs[f"{prefix}labels"])
    if prefix:
        frames, mask, words = frames[:, None], mask[:, None], words[:, None]
    else:
        mask = mask.repeat_interleave(model.config.tubelet_size, dim=1)
    said = outputs.logits[..., : task.tokenizer.vocab_size].argmax(-1)
    predicted = torch.where(mask, said.view_as(words), words)
    pictures = paint_words(task.tokenizer, predicted, words, frames)
    hidden = enlarged(mask, frames)
    parts = (frames, torch.where(hidden, HIDDEN_GREY, frames), torch.where(hidden, pictures, frames))
    return draw_reconstructions(Reconstruction(*(_as_pictures(part) for part in parts)), path)


def paint_words(tokenizer: Any, predicted: torch.Tensor, words: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Pictures like `frames` of predicted words `(batch_size, num_frames, height, width)`."""
    if isinstance(tokenizer, PaintsWords):
        small = tokenizer.paint(predicted.flatten(0, 1))
        grey = (small - 0.1) / 0.8 * 255
        large = torch.nn.functional.interpolate(grey, size=frames.shape[-2:])
        return large.view_as(frames)
    colours = torch.tensor([[200.0, 40.0, 40.0], [40.0, 160.0, 40.0]], device=frames.device)
    right = enlarged(predicted == words, frames)[:, :, :1].long().squeeze(2)  # (batch, frames, height, width)
    return colours[right].movedim(-1, 2)


def enlarged(places: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """A grid of places `(batch_size, num_frames, rows, columns)` in the shape of `frames`."""
    factors = (frames.shape[-2] // places.shape[-2], frames.shape[-1] // places.shape[-1])
    large = places.repeat_interleave(factors[0], dim=-2).repeat_interleave(factors[1], dim=-1)
    return large[:, :, None].expand_as(frames)


def _as_pictures(frames: torch.Tensor) -> np.ndarray:
    return frames.clamp(0, 255).round().to(torch.uint8).movedim(2, -1).cpu().numpy()


__all__ = ["PairedStream", "WordClipLoader", "draw_words", "masks_for", "pretrain_words"]
