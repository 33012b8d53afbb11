"""Shared steps of the methods for objects in images: data in COCO format, evaluation, saved files."""

import dataclasses
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ...files import loading
from ..arguments import AugmentationArguments, ModelArguments
from ..building import attention_options, config_from_scratch, ready_to_train
from ..data.coco_images import Kind, ObjectSource, find_objects, list_object_splits, read_objects
from ..data.opening import warn_of_remarks
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource
from ..engine.loop import FitResult
from ..evaluation.object_results import ObjectClaim, ObjectResult
from .common import Method, Rows, RunResult, Sources


logger = logging.get_logger(__name__)

OTHER_AUGMENTATION = tuple(one.name for one in dataclasses.fields(AugmentationArguments) if one.name != "flip")
OTHER_DATA = (
    *("holdout", "data_config", "video_column", "label_column", "label_separator", "label_names", "shuffle_buffer"),
)


class ObjectMethod(Method):
    """
    Training on images with annotations in COCO's format, see [`find_objects`].

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].

    Attributes:
        kind (`str`):
            `"instances"` or `"keypoints"`.
    """

    goal = "classifier"
    unread = ("picture_every", "probe", "frozen_layers", *OTHER_DATA, *OTHER_AUGMENTATION)
    kind: ClassVar[Kind]

    train_source: ObjectSource  # type: ignore[assignment]
    eval_source: ObjectSource | None  # type: ignore[assignment]
    processor: Any

    @property
    def samples(self) -> str:
        """See [`Method.samples`]."""
        return "images"

    def open_sources(self) -> Sources:
        """
        Open the annotations.

        Raises:
            ValueError: `data` is missing, or there are no such files.
        """
        data, seed = self.config.data, self.config.run.seed
        if data.data is None:
            raise ValueError("`data` is needed: a folder with annotations/instances_train.json, or a JSON file")
        found = find_objects(data.data, data.train_split, self.kind, data.data_root)
        assert found is not None
        train = read_objects(*found, kind=self.kind).sample(data.max_train_samples, seed)
        train = self.training_samples(train)
        if self.arguments.control == "other_images":
            train = train.shuffled_images(seed)
        held_out = self._evaluation_files()
        evaluated = None if held_out is None else read_objects(*held_out, kind=self.kind)
        if evaluated is not None:
            if self.kind == "instances":
                evaluated = evaluated.with_label_names(train.label_names)
            evaluated = evaluated.sample(data.max_eval_samples, seed)
        warn_of_remarks("training", train)
        return train, evaluated

    def _evaluation_files(self) -> tuple[Any, Any] | None:
        data = self.config.data
        if data.eval_data is None:
            return find_objects(str(data.data), data.eval_split, self.kind, data.data_root)
        split = data.eval_split or ("train" if str(data.eval_data).endswith(".json") else None)
        return find_objects(data.eval_data, split, self.kind, data.data_root)

    @abstractmethod
    def training_samples(self, source: ObjectSource) -> ObjectSource:
        """
        The samples to train on.

        Args:
            source ([`ObjectSource`]):
                All images of the split.

        Returns:
            [`ObjectSource`]
        """

    def list_splits(self) -> list[str]:
        """Splits with annotations in a folder. See [`Method.list_splits`]."""
        return list_object_splits(str(self.config.data.data), self.kind)

    def check_sources(self, train_source: VideoSource, eval_source: VideoSource | None) -> None:
        """
        Refuse samples without objects.

        Args:
            train_source ([`ObjectSource`]):
                Training samples.
            eval_source ([`ObjectSource`] or `None`):
                Evaluation images.

        Raises:
            ValueError: there is nothing to learn, or the sources are others.
        """
        for source in (train_source, eval_source):
            if source is not None and not isinstance(source, ObjectSource):
                raise ValueError(f"`data` must be images with objects for {self.name}, got a {type(source).__name__}")
        super().check_sources(train_source, eval_source)

    def to_device(self, rows: Rows, device: torch.device) -> Rows:
        """
        The tensors of a batch on the device, with normalised pixels.

        Args:
            rows (`dict[str, torch.Tensor]`):
                Stacked tensors from the loader.
            device (`torch.device`):
                Device of the task.

        Returns:
            `dict[str, torch.Tensor]`
        """
        batch = {name: value.to(device, non_blocking=True) for name, value in rows.items()}
        pixels, processor = batch["pixel_values"], self.processor
        normalised = processor.rescale_and_normalize(
            pixels, True, processor.rescale_factor, True, tuple(processor.image_mean), tuple(processor.image_std)
        )
        return batch | {"pixel_values": normalised}

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """COCO's metrics. See [`Method.validate`]."""
        result = self.evaluate_objects(model, validation=True)
        return result.metrics | {"num_failed": len(result.failed)}

    @abstractmethod
    def evaluate_objects(self, model: PreTrainedModel, validation: bool = False) -> ObjectResult:
        """
        Evaluate a model on the evaluation images.

        Args:
            model (`PreTrainedModel`):
                The model.
            validation (`bool`, *optional*, defaults to `False`):
                Whether to use the precision of training and to show no progress.

        Returns:
            [`ObjectResult`]
        """

    def evaluation_options(self, validation: bool) -> dict[str, Any]:
        """
        Arguments of the evaluation.

        Args:
            validation (`bool`):
                See `evaluate_objects`.

        Returns:
            `dict[str, Any]`
        """
        data, run = self.config.data, self.config.run
        return {
            "batch_size": self.config.eval_batch_size,
            "num_workers": data.num_workers,
            "accelerator": self.accelerator,
            "mixed_precision": self.accelerator.mixed_precision if validation else None,
            "timeout": data.worker_timeout,
            "progress": run.progress and not validation,
        }

    def claim(self) -> ObjectClaim:
        """
        Data and settings of the evaluation, for `results.json`.

        Returns:
            [`ObjectClaim`]
        """
        found, data = self._evaluation_files(), self.config.data
        assert found is not None
        file, images = map(str, found)
        return ObjectClaim(
            file, images, max_samples=data.max_eval_samples, seed=self.config.run.seed, **self.claimed_settings()
        )

    def claimed_settings(self) -> dict[str, Any]:
        """
        Settings of the evaluation that the claim has as well.

        Returns:
            `dict[str, Any]`
        """
        return {}

    def finish(self, fitted: FitResult) -> RunResult:
        """Evaluate, and save a folder that is ready for the Hub. See [`Method.finish`]."""
        evaluation = None if self.eval_source is None else self.evaluate_objects(fitted.model)
        if self.accelerator.is_main_process:
            self.save(fitted.model, cast(ClipProcessor, self.processor))
            if evaluation is not None:
                evaluation.save(self.output_dir / "results.json", **dataclasses.asdict(self.claim()))
                evaluation.save_predictions(self.output_dir / "predictions.json")
        self.accelerator.wait_for_everyone()
        config = fitted.model.config
        facts = self.facts(fitted) | {
            "label_names": [config.id2label[index] for index in range(config.num_labels)],
            "num_eval_videos": None if evaluation is None else evaluation.num_images,
            "metrics": {} if evaluation is None else evaluation.metrics,
            "protocol": {} if evaluation is None else evaluation.protocol,
            "environment": {} if evaluation is None else evaluation.environment,
        }
        return RunResult(fitted.model, self.processor, fitted.history, self.output_dir, facts, evaluation)


def named_model(
    arguments: ModelArguments,
    model_class: Any,
    config: PreTrainedConfig,
    names: Sequence[str],
    *,
    renewed: str,
    may_lack: str = "$.",
) -> PreTrainedModel:
    """
    Build the model that a run starts from.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a size from scratch.
        model_class (`type`):
            Class of the model.
        config (`PreTrainedConfig`):
            Its configuration, whose labels are set unless the checkpoint's are kept.
        names (`Sequence[str]`):
            Names of the data's labels.
        renewed (`str`):
            Regular expression of the parameters that start new where the labels of a checkpoint are others.
        may_lack (`str`, *optional*):
            Regular expression of the parameters that a checkpoint may lack besides. None by default.

    Returns:
        `PreTrainedModel`: in float32.

    Raises:
        ValueError: the checkpoint lacks weights.
    """
    if arguments.checkpoint is None:
        config_from_scratch(arguments)  # refuses recipes that need a checkpoint
    theirs = [config.id2label[index] for index in range(config.num_labels)]
    keep = arguments.checkpoint is not None and (
        arguments.head == "keep" or arguments.head == "auto" and theirs == list(names)
    )
    if not keep:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
    options = attention_options(arguments)
    if arguments.checkpoint is None:
        return ready_to_train(arguments, model_class._from_config(config, **options))
    with loading("`checkpoint`", arguments.checkpoint):
        model, info = model_class.from_pretrained(
            arguments.checkpoint,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=not keep,
            output_loading_info=True,
            **options,
        )
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    allowed = f"{may_lack}|{'$.' if keep else renewed}"
    if wrong := sorted(name for name in missing if not re.search(allowed, name)):
        raise ValueError(
            f"`checkpoint` {arguments.checkpoint!r} lacks {', '.join(wrong[:8])} of {model_class.__name__}"
        )
    if not keep:
        untrained, own = model_class(config).state_dict(), model.state_dict()
        for name in own:
            if re.search(renewed, name):
                own[name].copy_(untrained[name])
    return ready_to_train(arguments, model)


def checkpoint_config(checkpoint: str, model_type: str, fields: dict[str, Any]) -> PreTrainedConfig:
    """
    Configuration of a checkpoint of one type.

    Args:
        checkpoint (`str`):
            Folder or Hub id.
        model_type (`str`):
            The type.
        fields (`dict[str, Any]`):
            Fields that replace those of the checkpoint.

    Returns:
        `PreTrainedConfig`

    Raises:
        ValueError: the checkpoint is of another type.
    """
    with loading("`checkpoint`", checkpoint):
        config = AutoConfig.from_pretrained(checkpoint, **fields)
    if config.model_type != model_type:
        raise ValueError(f"`checkpoint` must be a model of type {model_type!r}, got {config.model_type!r}")
    return config


__all__ = ["OTHER_AUGMENTATION", "OTHER_DATA", "ObjectMethod", "checkpoint_config", "named_model"]
