"""Training of a tokenizer of visual words on images or on the frames of clips, without labels."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForPreTraining, PreTrainedModel

from ...modeling.configuration_base import frame_size
from ...modeling.configuration_bevt_image_codebook import BevtImageCodebookConfig
from ...modeling.modeling_bevt_image_codebook import BevtImageCodebook, perplexity_of
from ...modeling.word_pixels import LOWEST, RANGE
from ...modes import evaluation_mode
from ...pictures.drawing import draw_strips
from ..arguments import RunConfig
from ..building import build_pretraining_model
from ..data.images import image_reader, open_images
from ..data.loaders import SampleLoader
from ..data.processors import ClipProcessor
from ..data.streaming import Batch, ClipStream
from ..data.streams import clip_augmentation
from ..engine.loop import FitResult, Observer
from ..fields import check_range, option
from ..tasks import ImageTokenizerTask, Task
from ..words.perceptual import PerceptualDistance
from ..words.tokenizer_clips import TokenizerClipLoader, TokenizerEvaluationLoader, tokenizer_pixels
from .common import PRETRAINING_UNREAD, Method, Rows, RunResult, Sources
from .image_classification import VIDEO_DATA
from .masked_pixels import NUM_DRAWN
from .passes import Pass, example_pixels
from .previewing import PreviewedCopies


GREY = (LOWEST + RANGE / 2, RANGE)  # the middle of the pixels' range, and its width
HEIGHT = 64  # pixels: smallest height of a drawn frame


@dataclass
class ImageTokenizerArguments:
    """
    Arguments of the training of a tokenizer.

    Raises:
        ValueError: a value is out of range.
    """

    images: bool = option(False, "`data` are image files, a folder of classes or a list, instead of clips")
    perceptual_model: str | None = option(
        None, "frozen image classifier whose features are reconstructed as well, as in PeCo: folder or Hub id"
    )
    perceptual_weight: float = option(1.0, "weight of the distance of these features")

    def __post_init__(self) -> None:
        check_range("perceptual_weight", self.perceptual_weight, 0.0, 1000.0)


class ImageTokenizer(Method):
    """
    Train a [`BevtImageCodebook`], whose words BEVT then predicts.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "image_tokenizer"
    goal = "encoder"
    model_types = (BevtImageCodebookConfig.model_type,)
    arguments_class: ClassVar[type] = ImageTokenizerArguments
    unread = (*PRETRAINING_UNREAD, "augment_on_device", "device_area", "probe")
    changes_accumulation = False  # the codebook moves with each batch of all processes

    @property
    def samples(self) -> str:
        """See [`Method.samples`]."""
        return "images" if self.arguments.images else "clips"

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """True for tokenizers. See [`Method.fits`]."""
        return model_config["model_type"] in cls.model_types

    def switched_off(self) -> dict[str, str]:
        """Also fields of clips for images, and of the network that is not there. See [`Method.switched_off`]."""
        off = super().switched_off()
        if self.arguments.perceptual_model is None:
            off["perceptual_weight"] = "`perceptual_model` is needed for it"
        if self.arguments.images:
            off |= dict.fromkeys(VIDEO_DATA, "the tokenizer is trained on image files (`images` true)")
        return off

    def open_sources(self) -> Sources:
        """
        Open the clips, or the images with `images`.

        Raises:
            ValueError: `data` is missing.
        """
        data = self.config.data
        if not self.arguments.images:
            return super().open_sources()
        if data.data is None:
            raise ValueError("`data` is needed: a folder of classes or a list of image files")
        return open_images(data.data, data.train_split)

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """Build the tokenizer: a checkpoint, or a new one."""
        return build_pretraining_model(self.config.model)

    def begin(self, accelerator: Any) -> None:
        """See [`Method.begin`]."""
        super().begin(accelerator)
        self.held_out: ClipStream | None = None
        if self.eval_source is not None:
            self.held_out = self.evaluation_stream(TokenizerEvaluationLoader(self._reader()))

    def task(self) -> Task:
        """The model's own loss, and with `perceptual_model` the distance of features."""
        own = self.arguments
        network = None if own.perceptual_model is None else PerceptualDistance.load(own.perceptual_model)
        return ImageTokenizerTask(self._tokenizer(self.model), network, own.perceptual_weight)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented clip or image."""
        augmentation = self.config.augmentation
        return TokenizerClipLoader(
            self._reader(),
            clip_augmentation(augmentation, self.processor),
            self.config.run.seed,
            augmentation.num_sample,
        )

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Small copies of all frames. See [`Method.prepare_batch`]."""
        return {"pixel_values": tokenizer_pixels(self._tokenizer(self.model), rows, device).flatten(0, 1)}

    @torch.inference_mode()
    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """
        Reconstruction of held-out frames. See [`Method.validate`].

        Args:
            model (`PreTrainedModel`):
                The tokenizer.

        Returns:
            `dict[str, float]`: `explained`, the share of the variance of the pixels that the reconstruction explains;
            `perplexity`, the number of words in equal use that would be as varied; `used`, the share of the words that
            occur; and the `loss`.
        """
        assert self.held_out is not None
        tokenizer = self._tokenizer(model)
        size = tokenizer.config.vocab_size
        # images, loss, pixels, sum and squares about the middle, squared error, then each word
        total = torch.zeros(6 + size, device=model.device)
        with evaluation_mode(model):
            for batch in self.held_out.epoch(0):
                pixels = tokenizer_pixels(tokenizer, batch.rows, model.device).flatten(0, 1)
                with self.accelerator.autocast():
                    outputs = tokenizer(pixels)
                shifted, words = pixels - GREY[0], outputs.words.flatten()
                error = (outputs.reconstruction - pixels).square().sum()
                items = total.new_tensor([len(pixels), pixels.numel()])
                sums = [items[0], outputs.loss * items[0], items[1], shifted.sum(), shifted.square().sum(), error]
                counts = total.new_zeros(size).index_add_(0, words, torch.ones_like(words, dtype=total.dtype))
                total += torch.cat([torch.stack(sums), counts])
        total = self.accelerator.reduce(total, "sum")
        images, loss, pixels_read, shift, squares, error = total[:6].tolist()
        if not images:
            return {"explained": math.nan}
        spread = squares - shift**2 / pixels_read
        return {
            "explained": 1 - error / spread if spread > 0 else math.nan,
            "perplexity": perplexity_of(total[6:]).item(),
            "used": (total[6:] > 0).float().mean().item(),
            "loss": loss / images,
        }

    def observers(self) -> list[Observer]:
        """Pictures of reconstructions."""
        every = self.config.run.picture_every
        return [Observer("picture", self._look, epochs=every)] if every and self.held_out is not None else []

    def finish(self, fitted: FitResult) -> RunResult:
        """Save the tokenizer and `reconstructions.png`. See [`Method.finish`]."""
        path = self.output_dir / "reconstructions.png"
        return self.finish_pretraining(fitted, partial(self.draw, fitted.model, path))

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of frames, and that of the network of the perceptual loss. See [`Method.passes`]."""
        config, name = self.model_config(), self.arguments.perceptual_model
        frames = self.clips_per_pass * (1 if self.arguments.images else config.num_frames)
        pixels = example_pixels(config, frames=1)[:, 0, :, ::2, ::2]  # at half the size
        found = [
            Pass("clip", lambda: AutoModelForPreTraining.from_config(config), {"pixel_values": pixels}, 1, frames)
        ]
        if name is None:
            return found
        theirs = AutoConfig.from_pretrained(name)
        size = getattr(theirs, "image_size", None)
        seen = pixels if size is None else pixels.new_empty((*pixels.shape[:2], *frame_size(size)))
        build = partial(AutoModelForImageClassification.from_config, theirs)
        # twice: of the images, and of the reconstructions, through which the gradient passes
        return [*found, Pass("perceptual", build, {"pixel_values": seen}, 1, 2 * frames, trained=False)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """The small copies of augmented clips, enlarged to the size of the frames. See [`Method.preview_batch`]."""
        with torch.device("meta"):
            tokenizer = BevtImageCodebook(self.model_config())
        seen = tokenizer_pixels(tokenizer, batch.rows)
        large = seen.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        return PreviewedCopies(_as_grey_levels(large))

    @torch.inference_mode()
    def draw(self, model: PreTrainedModel, path: Path) -> Path | None:
        """
        Draw the first held-out clips or images as the tokenizer sees them, each above its reconstruction.

        Args:
            model (`PreTrainedModel`):
                The tokenizer.
            path (`Path`):
                File of the picture.

        Returns:
            `Path` or `None`: the file, or `None` if there is no sample that can be read.
        """
        batch = None if self.held_out is None else next(self.held_out.epoch(0), None)
        if batch is None:
            return None
        tokenizer = self._tokenizer(model)
        rows = {name: value[:NUM_DRAWN] for name, value in batch.rows.items()}
        seen = tokenizer_pixels(tokenizer, rows, model.device)
        with evaluation_mode(model):
            painted = tokenizer.paint(tokenizer.find_words(seen.flatten(0, 1))).view_as(seen)
        pairs = zip(_as_pictures(seen), _as_pictures(painted))
        return draw_strips([("", pair) for pair in pairs], path, min_height=HEIGHT)

    def _look(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        if self.accelerator.is_main_process:
            self.draw(model, self.output_dir / "logs" / "reconstructions" / f"step_{step:08d}.png")
        return {}

    def _reader(self) -> ClipProcessor:
        return image_reader(self.processor) if self.arguments.images else self.processor

    @staticmethod
    def _tokenizer(model: PreTrainedModel) -> BevtImageCodebook:
        assert isinstance(model, BevtImageCodebook)
        return model


def _as_grey_levels(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels - LOWEST) / RANGE * 255).round().clamp(0, 255).to(torch.uint8)


def _as_pictures(pixels: torch.Tensor) -> np.ndarray:
    return _as_grey_levels(pixels).movedim(-3, -1).cpu().numpy()


__all__ = ["ImageTokenizer", "ImageTokenizerArguments"]
