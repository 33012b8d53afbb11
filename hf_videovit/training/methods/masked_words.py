"""Pretraining on masked visual words: clips, images, or batches of both at every step."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedConfig, PreTrainedModel

from ...modes import evaluation_mode
from ..arguments import RunConfig
from ..building import build_pretraining_model, describe_inputs
from ..data.streaming import Batch, ClipStream, merge_copies
from ..data.streams import training_ledger, training_stream
from ..engine.loop import Observer, fit
from ..evaluation.probes import online_probe
from ..tasks import MaskedWordsTask
from ..words.streams import ImageStream, Rows, WordData
from ..words.tokenizers import VisualTokenizer, check_tokenizer, load_tokenizer
from .common import make_accelerator, run_facts, save_model
from .masked_pixels import NUM_DRAWN, PretrainResult, outcomes
from .word_pictures import draw_words


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
    tokenizer = tokenizer or named_tokenizer(config)
    data = WordData(config, model.config, processor, tokenizer)
    run = _WordRun(config, accelerator, data, MaskedWordsTask(model, tokenizer))
    fitted = run.fit()
    output_dir, picture = Path(config.run.output_dir), None
    if accelerator.is_main_process:
        save_model(output_dir, config, fitted.model, processor)
        picture = run.draw(fitted.model, output_dir / "words.png")
    accelerator.wait_for_everyone()
    facts = run_facts(config, accelerator, fitted, data.main_source) | {"outcomes": outcomes(fitted.history)}
    return PretrainResult(fitted.model, processor, fitted.history, output_dir, picture, facts)


def cache_words(
    config: RunConfig, *, tokenizer: VisualTokenizer | None = None, accelerator: Accelerator | None = None
) -> dict[str, int]:
    """
    Fill `data.word_cache` with the words of every augmented copy that a run will see, without training. Goes on where
    it was stopped.

    Args:
        config ([`RunConfig`]):
            The run.
        tokenizer ([`VisualTokenizer`], *optional*):
            The one that `model.tokenizer` names by default.
        accelerator (`Accelerator`, *optional*):
            Processes and devices; made from `config.run` by default.

    Returns:
        `dict[str, int]`: clips and images of this process whose words were `found` now and were `known` before.
    """
    if config.data.word_cache is None:
        raise ValueError("`word_cache` is needed: the folder that is to keep the words")
    accelerator = accelerator or make_accelerator(config.run)
    model_config, processor = describe_inputs(config.model)
    tokenizer = tokenizer or named_tokenizer(config)
    check_tokenizer(tokenizer, model_config)
    data = WordData(config, model_config, processor, tokenizer)
    ledger = training_ledger(config, accelerator)
    rounds = [
        (training_stream(config, accelerator, sources[0], data.loader(kind == "image"), ledger, drop_last=False), copy)
        for kind, sources in data.sources.items()
        for copy in range(config.data.word_copies)
    ]
    rounds += [(stream, 0) for stream in data.held_out(accelerator, ledger).values()]
    for stream, copy in rounds:
        for batch in stream.epoch(copy):
            data.prepare.words(merge_copies(batch.rows), accelerator.device)
    accelerator.wait_for_everyone()
    return {"found": data.prepare.num_found, "known": data.prepare.num_known}


def named_tokenizer(config: RunConfig) -> VisualTokenizer:
    """The tokenizer of a run."""
    if config.model.tokenizer is None:
        raise ValueError("`tokenizer` is needed: a folder or Hub id of the tokenizer whose words are predicted")
    return load_tokenizer(config.model.tokenizer)


class _WordRun:
    """Training, validation and pictures of one run."""

    def __init__(self, config: RunConfig, accelerator: Accelerator, data: WordData, task: MaskedWordsTask):
        self.config, self.accelerator, self.data, self.task = config, accelerator, data, task
        self.prepare = data.prepare
        self.ledger = training_ledger(config, accelerator)
        self.held_out = data.held_out(accelerator, self.ledger)

    def fit(self) -> Any:
        """Train."""
        return fit(
            self.task,
            self.data.stream(self.accelerator, self.ledger),
            self.config,
            accelerator=self.accelerator,
            prepare_batch=self.prepare,
            ledger=self.ledger,
            validate=self.validate if self.held_out else None,
            observers=self._observers(),
        )

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Scores of hidden words, of images with their name before."""
        scores: dict[str, float] = {}
        for kind, stream in self.held_out.items():
            found = self._scores(model, stream, kind)
            scores |= (
                found
                if kind == "video" or "video" not in self.data.sources
                else {f"image_{k}": v for k, v in found.items()}
            )
        return scores

    @torch.inference_mode()
    def _scores(self, model: PreTrainedModel, stream: ClipStream, kind: str) -> dict[str, float]:
        size = self.data.model_config.vocab_size
        total = torch.zeros(3 + size, dtype=torch.float32, device=model.device)  # count, right, loss, and each word
        with evaluation_mode(model):
            for batch in _named(stream, kind):
                inputs = self.task.with_words(self.prepare(batch.rows, model.device))
                with self.accelerator.autocast():
                    outputs = model(**inputs, masked_only=True)
                words = hidden_words(inputs, kind, model.config)
                loss, accuracy = outputs[f"{kind}_loss"], outputs[f"{kind}_accuracy"]
                sums = torch.stack([torch.ones_like(accuracy), accuracy, loss]).float() * len(words)
                total += torch.cat([sums, torch.bincount(words, minlength=size).float()])
        count, right, loss, *_ = total = self.accelerator.reduce(total, "sum")
        if not count:
            return {"accuracy": math.nan}
        most = total[3:].max() / count
        return {"accuracy": (right / count).item(), "majority": most.item(), "loss": (loss / count).item()}

    def _observers(self) -> list[Observer]:
        every = self.config.run.picture_every
        found: list[Observer | None] = []
        if "video" in self.data.sources:
            videos = self.data.sources["video"]
            found.append(online_probe(self.config, self.data.processor, self.accelerator, *videos))
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


__all__ = ["cache_words", "named_tokenizer", "pretrain_words"]
