"""Masked visual words: prediction of the tokenizer's words of hidden patches, in clips, in images, or in both."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from transformers import AutoModelForPreTraining, PreTrainedConfig, PreTrainedModel

from ...modeling.configuration_base import frame_size
from ...modes import evaluation_mode
from ..arguments import RunConfig
from ..building import build_pretraining_model
from ..data.images import open_images
from ..data.loaders import SampleLoader
from ..data.processors import ClipProcessor
from ..data.streaming import Batch, BatchStream, ClipStream, merge_copies
from ..data.streams import training_ledger
from ..engine.loop import FitResult, Observer
from ..evaluation.probes import online_probe
from ..tasks import MaskedWordsTask, Task
from ..words.streams import ImageStream, Rows, WordArguments, WordData
from ..words.tokenizers import VisualTokenizer, check_tokenizer, codebook_without_weights, load_tokenizer
from .common import PRETRAINING_UNREAD, Method, RunResult, Sources
from .image_classification import VIDEO_DATA
from .masked_pixels import NUM_DRAWN
from .passes import Pass, example_pixels, model_pass
from .previewing import PreviewedClip, PreviewedCopies, split_by_mask
from .running import make_accelerator
from .word_pictures import draw_words


class MaskedWords(Method):
    """
    Train a model to predict the visual words of hidden patches, such as [`BevtForPreTraining`]. A model with an image
    stream alone is trained on images only. Labels are used by probes only.

    Args:
        config ([`RunConfig`]):
            The run.
        tokenizer ([`VisualTokenizer`], *optional*):
            The tokenizer. Loaded from the field `tokenizer` by default.
        given:
            `model` and `processor`, see [`Method`].

    Raises:
        ValueError: `train_source` is given.
    """

    name = "masked_words"
    goal = "encoder"
    model_types = ("bevt",)
    arguments_class: ClassVar[type] = WordArguments
    unread = (*PRETRAINING_UNREAD, "augment_on_device", "device_area")

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for BEVT models. See [`Method.fits`]."""
        return model_config["model_type"] in cls.model_types

    def __init__(self, config: RunConfig, *, tokenizer: VisualTokenizer | None = None, **given: Any):
        super().__init__(config, **given)
        self.given_tokenizer = tokenizer
        if self.given_sources is not None:
            raise ValueError(f"`train_source` is not supported by `{self.name}`, which opens its sources itself")

    def switched_off(self) -> dict[str, str]:
        """Also fields of the cache, and of the stream that the model does not have. See [`Method.switched_off`]."""
        off = super().switched_off()
        if self.arguments.word_cache is None:
            off["word_copies"] = "`word_cache` is needed for it"
        model = self.model_config() if self.given_model is None else self.given_model.config
        if not model.image_stream:
            names = ("image_data", "image_batch_size", "image_jitter")
            off |= dict.fromkeys(names, "the model is not trained on images (`image_stream` false)")
        if not model.video_stream:
            unseen = (*VIDEO_DATA, "train_split", "probe", "probe_data")
            off |= dict.fromkeys(unseen, "the model is trained on images only (`video_stream` false)")
            if self.arguments.image_data not in (None, self.config.data.data):
                off["data"] = "the images are those of `image_data`"
        return off

    def open_words(self, model_config: PreTrainedConfig, tokenizer: VisualTokenizer | None) -> WordData:
        """
        Open the clips and images of the run.

        Args:
            model_config (`PreTrainedConfig`):
                Configuration of the model.
            tokenizer ([`VisualTokenizer`] or `None`):
                The tokenizer. Previews do not need one.

        Returns:
            [`WordData`]
        """
        return WordData(self.config, self.arguments, model_config, self.processor, tokenizer)

    def tokenizer(self) -> VisualTokenizer:
        """
        The tokenizer whose words are predicted.

        Raises:
            ValueError: `tokenizer` is missing.
        """
        if self.given_tokenizer is not None:
            return self.given_tokenizer
        if self.arguments.tokenizer is None:
            raise ValueError("`tokenizer` is needed: the folder or Hub id of the tokenizer whose words are predicted")
        return load_tokenizer(self.arguments.tokenizer)

    def open_sources(self) -> Sources:
        """Open the clips, or the images for a model that is trained on images alone."""
        if self.model_config().video_stream:
            return super().open_sources()
        return open_images(self.arguments.image_data or str(self.config.data.data))

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """Build the model: a checkpoint with its head, or a size from scratch."""
        return build_pretraining_model(self.config.model)

    def begin(self, accelerator: Accelerator) -> None:
        """Build the model, load the tokenizer, and open clips and images. See [`Method.begin`]."""
        self.accelerator = accelerator
        self.ledger = training_ledger(self.config.data, self.output_dir, accelerator)
        self.begin_model()
        tokenizer = self.tokenizer()
        self.data = self.open_words(self.model.config, tokenizer)
        self.train_source, self.eval_source = next(iter(self.data.sources.values()))
        self.words_task = MaskedWordsTask(self.model, tokenizer)
        self.held_out = self.data.held_out(accelerator, self.ledger)

    def begin_preview(self) -> None:
        """See [`Method.begin_preview`]."""
        model_config, processor = self.describe()
        self.processor = self.given_processor or processor
        self.data = self.open_words(model_config, None)

    def task(self) -> Task:
        """Cross-entropy of the words of hidden patches."""
        return self.words_task

    def loader(self) -> SampleLoader:
        """The function that reads an augmented sample with its mask."""
        return self.data.loader(images="video" not in self.data.sources)

    def stream(self) -> BatchStream:
        """Batches of clips, of images, or of both."""
        return self.data.stream(self.accelerator, self.ledger)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """
        Normalise, and add the words if they are in the cache, else frames for the tokenizer. See
        [`Method.prepare_batch`].
        """
        return self.data.prepare(rows, device)

    @property
    def can_validate(self) -> bool:
        """Whether there are held-out clips or images."""
        return bool(self.held_out)

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """
        Metrics of hidden words. If there are clips too, those of images are prefixed `image_`. See
        [`Method.validate`].
        """
        scores: dict[str, float] = {}
        for kind, stream in self.held_out.items():
            prefix = "image_" if kind == "image" and "video" in self.data.sources else ""
            scores |= {prefix + name: value for name, value in self._scores(model, stream, kind).items()}
        return scores

    def observers(self) -> list[Observer]:
        """Probes on the clips, and pictures of predicted words."""
        every = self.config.run.picture_every
        found: list[Observer | None] = []
        if "video" in self.data.sources:
            videos = self.data.sources["video"]
            found.append(online_probe(self.config, self.processor, self.accelerator, *videos))
        if every and self.held_out:
            found.append(Observer("picture", self._look, epochs=every))
        return [observer for observer in found if observer is not None]

    def finish(self, fitted: FitResult) -> RunResult:
        """Save the model and `words.png`, a picture of predictions for held-out samples. See [`Method.finish`]."""
        return self.finish_pretraining(fitted, lambda: self.draw(fitted.model, self.output_dir / "words.png"))

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The passes of clips, of images, and of the tokenizer. See [`Method.passes`]."""
        config, arguments = self.model_config(), self.arguments
        has_images = config.image_stream
        inputs = [_clip_inputs(config)] if config.video_stream else []
        inputs += [_image_inputs(config)] if has_images else []
        images = (arguments.image_batch_size or self.config.optimization.batch_size) if len(inputs) > 1 else 0
        found = [
            model_pass(AutoModelForPreTraining, config, one, samples, name=name)
            for one, samples, name in zip(inputs, (self.clips_per_pass, images), ("clip", "image"))
        ]
        frames = config.num_frames if config.video_stream else 1
        return found + self._tokenizer_passes(config, self.clips_per_pass * frames + images)

    def preview(self, num_clips: int) -> Iterator[PreviewedClip]:
        """The first clips, then the first images. See [`Method.preview`]."""
        self.begin_preview()
        for kind, (source, _) in self.data.sources.items():
            yield from self.preview_source(source, self.data.loader(images=kind == "image"), num_clips)

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented samples with their visible and their predicted patches. See [`Method.preview_batch`]."""
        rows = merge_copies(batch.rows)
        masks = rows["mask"].numpy()
        masks = masks[:, None] if masks.ndim == 3 else masks  # an image is a clip of one frame
        masked = [split_by_mask(clip, mask, mask) for clip, mask in zip(rows["pixel_values"], masks)]
        return PreviewedCopies(rows["pixel_values"], masked=masked)

    def draw(self, model: PreTrainedModel, path: Path) -> Path | None:
        """
        Draw the predictions for the first held-out clips, or images if there are no clips.

        Args:
            model (`PreTrainedModel`):
                The model.
            path (`Path`):
                File of the picture.

        Returns:
            `Path` or `None`: the file, or `None` if no sample can be read.
        """
        for kind, stream in self.held_out.items():
            batch = next(_named(stream, kind), None)
            if batch is not None:
                rows = {name: value[:NUM_DRAWN] for name, value in batch.rows.items()}
                return draw_words(model, self.words_task, self.data.prepare(rows, model.device), path)
        return None

    def _look(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        if self.accelerator.is_main_process:
            self.draw(model, self.output_dir / "logs" / "words" / f"step_{step:08d}.png")
        return {}

    @torch.inference_mode()
    def _scores(self, model: PreTrainedModel, stream: ClipStream, kind: str) -> dict[str, float]:
        size = model.config.vocab_size
        total = torch.zeros(3 + size, dtype=torch.float32, device=model.device)  # count, right, loss, and each word
        with evaluation_mode(model):
            for batch in _named(stream, kind):
                inputs = self.words_task.with_words(self.data.prepare(batch.rows, model.device))
                with self.accelerator.autocast():
                    outputs = model(**inputs, masked_only=True)
                words = _hidden_words(inputs, kind, model.config)
                loss, accuracy = outputs[f"{kind}_loss"], outputs[f"{kind}_accuracy"]
                sums = torch.stack([torch.ones_like(accuracy), accuracy, loss]).float() * len(words)
                total += torch.cat([sums, torch.bincount(words, minlength=size).float()])
        count, right, loss, *_ = total = self.accelerator.reduce(total, "sum")
        if not count:
            return {"accuracy": math.nan}
        most = total[3:].max() / count
        return {"accuracy": (right / count).item(), "majority": most.item(), "loss": (loss / count).item()}

    def _tokenizer_passes(self, config: PreTrainedConfig, frames: float) -> list[Pass]:
        """The tokenizer's pass of the frames whose words are not in the cache, if the tokenizer is a network."""
        name, arguments = self.arguments.tokenizer, self.arguments
        build = None if name is None else codebook_without_weights(name)
        if build is None:
            return []
        kept = arguments.word_cache is not None
        share = min(arguments.word_copies / self.config.optimization.epochs, 1.0) if kept else 1.0
        small = example_pixels(config, frames=1)[:, 0, :, ::2, ::2]  # at half the size
        return [Pass("words", build, {"pixel_values": small}, 1, share * frames, trained=False)]


def cache_words(
    config: RunConfig, *, tokenizer: VisualTokenizer | None = None, accelerator: Accelerator | None = None
) -> dict[str, int]:
    """
    Fill `word_cache` with the words of every augmented copy that a run will see, without training. An interrupted call
    is continued by the next one.

    Args:
        config ([`RunConfig`]):
            The run.
        tokenizer ([`VisualTokenizer`], *optional*):
            The tokenizer. Loaded from the field `tokenizer` by default.
        accelerator (`Accelerator`, *optional*):
            Processes and devices. Built from `config.run` by default.

    Returns:
        `dict[str, int]`: numbers of clips and images of this process whose words were computed now (`found`) and were
        in the cache before (`known`).

    Raises:
        ValueError: the run has no `word_cache`, or the tokenizer does not fit the model.
    """
    method = MaskedWords(config, tokenizer=tokenizer)
    if method.arguments.word_cache is None:
        raise ValueError("`word_cache` is needed: the folder for the words")
    accelerator = accelerator or make_accelerator(config.run)
    model_config, method.processor = method.describe()
    tokenizer = method.tokenizer()
    check_tokenizer(tokenizer, model_config)
    data = method.open_words(model_config, tokenizer)
    ledger = training_ledger(config.data, method.output_dir, accelerator)
    rounds = [
        (data.clips_of(kind, accelerator, ledger, drop_last=False), copy)
        for kind in data.sources
        for copy in range(method.arguments.word_copies)
    ]
    rounds += [(stream, 0) for stream in data.held_out(accelerator, ledger).values()]
    for stream, copy in rounds:
        for batch in stream.epoch(copy):
            data.prepare.words(merge_copies(batch.rows), accelerator.device)
    accelerator.wait_for_everyone()
    return {"found": data.prepare.num_found, "known": data.prepare.num_known}


def _words_grid(config: PreTrainedConfig) -> tuple[int, int]:
    height, width = frame_size(config.image_size)
    return height // config.prediction_patch_size, width // config.prediction_patch_size


def _clip_inputs(config: PreTrainedConfig) -> Rows:
    shape = (1, config.num_frames // config.tubelet_size, *_words_grid(config))
    return {"pixel_values": example_pixels(config), "mask": torch.zeros(shape, dtype=torch.bool, device="meta")}


def _image_inputs(config: PreTrainedConfig) -> Rows:
    mask = torch.zeros(1, *_words_grid(config), dtype=torch.bool, device="meta")
    return {"image_pixel_values": example_pixels(config, frames=1)[:, 0], "image_mask": mask}


def _named(stream: ClipStream, kind: str) -> Iterator[Batch]:
    return stream.epoch(0) if kind == "video" else ImageStream(stream).epoch(0)


def _hidden_words(inputs: Rows, kind: str, config: PreTrainedConfig) -> torch.Tensor:
    """Words of masked patches in the model's inputs."""
    if kind == "image":
        return inputs["image_labels"][inputs["image_mask"].bool()]
    return inputs["labels"][inputs["mask"].bool().repeat_interleave(config.tubelet_size, dim=1)]


__all__ = ["MaskedWords", "cache_words"]
