"""The base class of training methods."""

import dataclasses
import math
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from accelerate import Accelerator
from transformers import PreTrainedConfig, PreTrainedModel

from ..arguments import FIELD_GROUP, GROUPS, OptimizationArguments, RunConfig
from ..building import describe_inputs, described_config, load_config
from ..changes import changed_settings
from ..data.loaders import SampleLoader
from ..data.opening import list_splits, load_sources, require_files, told
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource
from ..data.streaming import Batch, BatchStream, ClipStream, StepStream, count_batches
from ..data.streams import evaluation_stream, training_ledger, training_stream
from ..engine.loop import FitResult, Observer
from ..evaluation.action_detection import ActionDetectionResult
from ..evaluation.evaluation import EvaluationResult, describe_environment, evaluate_model
from ..evaluation.object_results import ObjectResult
from ..evaluation.probes import online_probe
from ..evaluation.semantic_segmentation import SegmentationResult
from ..evaluation.temporal_localization import LocalizationResult
from ..fields import build_group, default_value
from ..lora import ADAPTER, add_adapter, merge_adapter
from ..tasks import Task
from .passes import Pass
from .previewing import PreviewedClip, PreviewedCopies, preview_stream


if TYPE_CHECKING:
    from peft import PeftModel

Goal = Literal["classifier", "encoder"]
GOALS: tuple[Goal, ...] = get_args(Goal)
Rows = dict[str, torch.Tensor]
Evaluation = EvaluationResult | ActionDetectionResult | LocalizationResult | ObjectResult | SegmentationResult
Sources = tuple[VideoSource, VideoSource | None]

PRETRAINING_UNREAD = ("image_model", "head", "lora")  # fields that concern classifiers only


@dataclass
class NoArguments:
    """A method without fields of its own."""


@dataclass
class RunResult:
    """
    A finished run.

    Args:
        model (`PreTrainedModel`):
            The trained model in evaluation mode. It is also saved in `output_dir`.
        processor ([`ClipProcessor`]):
            Processor of the model. It is also saved in `output_dir`.
        history (`list[dict]`):
            Lines of the training log.
        output_dir (`Path`):
            The folder with weights, config, processor and `run.yaml`, and the run's records in `checkpoints` and
            `logs`.
        facts (`dict`):
            Facts for the model card: data, size, steps, time, scores, protocol, environment, arguments.
        evaluation ([`EvaluationResult`] or the result of another task, *optional*):
            Final evaluation by the processor's own protocol, if there are evaluation videos.
        picture (`Path`, *optional*):
            File with a picture of the predictions of a pretrained model on held-out videos.
    """

    model: PreTrainedModel
    processor: ClipProcessor
    history: list[dict[str, Any]]
    output_dir: Path
    facts: dict[str, Any]
    evaluation: Evaluation | None = None
    picture: Path | None = None


class Method(ABC):
    """
    A training method: model, data, batches, task, validation and saved files of a run, and a description of the run
    for plans and previews (`passes`, `preview`). [`~choosing.choose`] selects the class for a run.

    A new method is a module beside this one with a subclass, named in [`~choosing.METHODS`].

    Args:
        config ([`RunConfig`]):
            The run. Its group `method` has the method's own fields.
        model (`PreTrainedModel`, *optional*):
            The model to train. Built from `config.model` by default.
        processor ([`ClipProcessor`], *optional*):
            Processor of the model. Built from `config.model` by default.
        train_source ([`VideoSource`], *optional*):
            Training videos. Opened from `config.data` by default, together with `eval_source`.
        eval_source ([`VideoSource`], *optional*):
            Evaluation videos.

    Raises:
        ValueError: a field is set that the method does not read, or its value is not allowed.

    Attributes:
        name (`str`):
            Name of the method in recipes and commands.
        goal (`str`):
            `"classifier"` for methods of `hf-videovit train`, `"encoder"` for those of `hf-videovit pretrain`.
        arguments_class (`type`):
            Dataclass with the method's own fields.
        unread (`tuple[str, ...]`):
            Shared fields that the method does not read. Setting one is an error.
        model_types (`tuple[str, ...]`):
            Families that the method trains; empty for all.
        changes_accumulation (`bool`):
            Whether a run that goes on with another number of processes may change the number of batches in a step.
            Otherwise their size changes in proportion: where batches differ in kind, or a loss compares the clips of
            the batches of all processes.
        full_batches (`bool`):
            Whether batches must be full, see [`StepStream`].
    """

    name: ClassVar[str]
    goal: ClassVar[Goal]
    arguments_class: ClassVar[type] = NoArguments
    unread: ClassVar[tuple[str, ...]] = ()
    model_types: ClassVar[tuple[str, ...]] = ()
    changes_accumulation: ClassVar[bool] = True
    full_batches: ClassVar[bool] = False

    @property
    def samples(self) -> str:
        """Samples of the method in the plural, as plans name them: `"clips"`, `"images"`."""
        return "clips"

    # Set by `begin`.
    accelerator: Accelerator
    model: PreTrainedModel
    processor: ClipProcessor
    train_source: VideoSource
    eval_source: VideoSource | None
    adapted: "PeftModel | None" = None  # the model, where an adapter is trained

    def __init__(
        self,
        config: RunConfig,
        *,
        model: PreTrainedModel | None = None,
        processor: ClipProcessor | None = None,
        train_source: VideoSource | None = None,
        eval_source: VideoSource | None = None,
    ):
        own = {name: value for name, value in config.method.items() if name != "name"}
        self.arguments: Any = build_group(self.arguments_class, own, f"the method `{self.name}`", FIELD_GROUP)
        self.config = replace(config, method={"name": self.name} | dataclasses.asdict(self.arguments))
        self.given_model, self.given_processor = model, processor
        self.given_sources = None if train_source is None else (train_source, eval_source)
        self._refuse_unread()

    def _refuse_unread(self) -> None:
        for group, group_class in GROUPS.items():
            own, default = getattr(self.config, group), group_class()
            for name in self.unread:
                if getattr(own, name, None) != getattr(default, name, None):
                    raise ValueError(
                        f"`{name}` is not read by the method `{self.name}`, got {getattr(own, name)!r}: leave it out"
                    )

        own, default = self.arguments, self.arguments_class()
        values = {item.name: (getattr(own, item.name), getattr(default, item.name)) for item in fields(own)}
        for group, group_class in GROUPS.items():
            own, default = getattr(self.config, group), group_class()
            values |= {item.name: (getattr(own, item.name), getattr(default, item.name)) for item in fields(own)}
        for name, reason in self.switched_off().items():
            value, usual = values[name]
            if value != usual:
                raise ValueError(f"`{name}` is not read by this run of `{self.name}`, got {value!r}: {reason}")

    def switched_off(self) -> dict[str, str]:
        """
        Fields that other fields of the run switch off, each with the reason. Setting one is an error.

        Returns:
            `dict[str, str]`: reasons by name.
        """
        off: dict[str, str] = {}
        if not self.config.augmentation.augment_on_device:
            off["device_area"] = "`augment_on_device` is needed for it"
        if not self.config.probe.probe:
            off |= dict.fromkeys(("probe_data", "probe_steps", "probe_max_samples"), "`probe` is needed for it")
        if self.config.run.push_to_hub is None:
            off |= dict.fromkeys(("hub_private", "hub_with_code"), "`push_to_hub` is needed for it")
        if self.config.optimization.schedule == "poly":
            off["peak_after_warmup"] = "`schedule` must be cosine for it"
        else:
            off["poly_power"] = "`schedule` must be poly for it"
        if self.config.model.checkpoint is None:
            off["lora"] = "`checkpoint`, the model that the adapter is for, is needed for it"
        return off

    @classmethod
    @abstractmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """
        Whether this method applies to a run that does not name one.

        Args:
            config ([`RunConfig`]):
                The run.
            model_config (`dict`):
                Configuration of the model that the run starts from.

        Returns:
            `bool`
        """

    # Steps of a run, in this order.

    def open_sources(self) -> Sources:
        """Open the training videos and, if there are any, the evaluation videos."""
        return load_sources(self.config.data, self.config.run.seed)

    def checked_sources(self) -> Sources:
        """
        The given videos, or those of [`~Method.open_sources`].

        Raises:
            ValueError: the method cannot train on them.
        """
        sources = self.given_sources or self.open_sources()
        self.check_sources(*sources)
        probe = self.config.probe
        if probe.probe and probe.probe_data is None and (sources[1] is None or len(sources[0].label_names) < 2):
            raise ValueError(
                f"`probe` {probe.probe} needs labelled training and evaluation clips, which `data` "
                f"{self.config.data.data!r} does not have: give `probe_data`"
            )
        return sources

    def check_sources(self, train_source: VideoSource, eval_source: VideoSource | None) -> None:
        """
        Refuse videos that the method cannot train on. Runs and plans call this.

        Args:
            train_source ([`VideoSource`]):
                Training videos.
            eval_source ([`VideoSource`] or `None`):
                Evaluation videos.

        Raises:
            ValueError: the method cannot train on them.
        """
        if train_source.num_samples == 0:
            raise ValueError(f"`data` {self.config.data.data!r} has no clips to train on{told(train_source)}")
        require_files(train_source, f"`data` {self.config.data.data!r}")
        if eval_source is not None:
            require_files(eval_source, f"`eval_data` {self.config.data.eval_data or self.config.data.data!r}")

    @abstractmethod
    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """Build the model that the run starts from, and its processor."""

    def use_batch(self, optimization: OptimizationArguments) -> None:
        """
        Divide a step in another way. Images that are trained on besides change in proportion.

        Args:
            optimization ([`OptimizationArguments`]):
                Those of the run with another `batch_size` and `accumulation`.

        Raises:
            ValueError: `image_batch_size` cannot change in proportion.
        """
        size, before = optimization.batch_size, self.config.optimization.batch_size
        images = vars(self.arguments).get("image_batch_size")
        if images is not None:
            if images * size % before:
                raise ValueError(
                    f"`image_batch_size` {images} must be divisible by {before // math.gcd(size, before)}: "
                    f"`batch_size` changes from {before} to {size} with the number of processes"
                )
            self.arguments = replace(self.arguments, image_batch_size=images * size // before)
        self.config = replace(self.config, optimization=optimization)

    def begin(self, accelerator: Accelerator) -> None:
        """
        Open the data and build the model.

        Args:
            accelerator (`Accelerator`):
                Processes and devices of the run.
        """
        self.accelerator = accelerator
        self.ledger = training_ledger(self.config.data, self.output_dir, accelerator)
        self.train_source, self.eval_source = self.checked_sources()
        self.begin_model()

    def begin_model(self) -> None:
        """Set the model and the processor: those that were given, else new ones."""
        if self.given_model is None or self.given_processor is None:
            model, processor = self.build()
            self.model, self.processor = self.given_model or model, self.given_processor or processor
        else:
            self.model, self.processor = self.given_model, self.given_processor
        if self.config.model.lora:
            self.adapted = add_adapter(self.model, self.config.model.lora)

    @abstractmethod
    def task(self) -> Task:
        """The model with its loss."""

    @abstractmethod
    def loader(self) -> SampleLoader:
        """The function that reads a training sample."""

    def stream(self) -> BatchStream:
        """Training batches of this process."""
        return self.training_stream(self.train_source, self.loader())

    @abstractmethod
    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """
        Turn a batch from the workers into the input of the task.

        Args:
            rows (`dict[str, torch.Tensor]`):
                Stacked tensors from the loader.
            device (`torch.device`):
                Device of the task.

        Returns:
            `dict[str, torch.Tensor]`: tensors on the device.
        """

    @property
    def can_validate(self) -> bool:
        """Whether there is data to validate on."""
        return self.eval_source is not None

    @abstractmethod
    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """
        Validate the model during the run. All processes call this together.

        Args:
            model (`PreTrainedModel`):
                The model, with averaged weights if `ema_decay` is set.

        Returns:
            `dict[str, float]`: metrics by name. The first one chooses the best weights by default.
        """

    def observers(self) -> list[Observer]:
        """Observers of the model during the run, such as probes and pictures."""
        probe = online_probe(self.config, self.processor, self.accelerator, self.train_source, self.eval_source)
        return [] if probe is None else [probe]

    @abstractmethod
    def finish(self, fitted: FitResult) -> RunResult:
        """
        Evaluate and save the trained model.

        Args:
            fitted ([`FitResult`]):
                Result of the training loop.

        Returns:
            [`RunResult`]
        """

    # Description of the run, without weights.

    @abstractmethod
    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """
        The forward passes for a training batch, the main one first.

        Args:
            num_labels (`int`, *optional*):
                Number of labels of the data, if known.

        Returns:
            `list[Pass]`
        """

    def num_batches(self, num_samples: int, rank: int, processes: int) -> int:
        """
        Batches of an epoch of one process.

        Args:
            num_samples (`int`):
                Samples to train on, of all processes.
            rank (`int`):
                Number of the process.
            processes (`int`):
                Number of processes.

        Returns:
            `int`: as many as the process's `stream` has while every file can be read.
        """
        optimization = self.config.optimization
        step = optimization.batch_size * optimization.accumulation * processes
        return count_batches(num_samples, step, optimization.drop_last) * optimization.accumulation

    def list_splits(self) -> list[str]:
        """Names of the splits of `data`."""
        return list_splits(str(self.config.data.data), self.config.data.data_config)

    def begin_preview(self) -> None:
        """Open the data and build the processor. No weights are loaded."""
        self.train_source, self.eval_source = self.checked_sources()
        self.processor = self.given_processor or self.describe()[1]

    def preview(self, num_clips: int) -> Iterator[PreviewedClip]:
        """
        The first clips of the first epoch, before and after augmentation.

        Args:
            num_clips (`int`):
                Number of clips. They are mixed with each other, so their partners differ from those in the run's
                batch.

        Returns:
            `Iterator[PreviewedClip]`
        """
        self.begin_preview()
        yield from self.preview_source(self.train_source, self.loader(), num_clips)

    @abstractmethod
    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """
        The augmented copies of each clip of a batch, as the model sees them.

        Args:
            batch ([`Batch`]):
                A batch from the workers.

        Returns:
            [`PreviewedCopies`]
        """

    # Shared by the methods.

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.config.run.output_dir)

    def describe(self) -> tuple[PreTrainedConfig, ClipProcessor]:
        """Configuration and processor of the model that the run starts from. No weights are loaded."""
        return describe_inputs(self.config.model)

    def model_config(self, num_labels: int | None = None) -> PreTrainedConfig:
        """
        Configuration of the trained model. No weights are loaded.

        Args:
            num_labels (`int`, *optional*):
                Number of labels. Defaults to that of the configuration.

        Returns:
            `PreTrainedConfig`
        """
        arguments = self.config.model
        if arguments.checkpoint is None:
            found = described_config(arguments)
        else:
            found = load_config(arguments)
        if num_labels:
            found.num_labels = num_labels
        return found

    @property
    def clips_per_pass(self) -> int:
        """Number of clips in one forward pass of a process, augmented copies included."""
        return self.config.optimization.batch_size * self.config.augmentation.num_sample

    def training_stream(
        self,
        source: VideoSource,
        load: SampleLoader,
        batch_size: int | None = None,
        accumulation: int | None = None,
        drop_last: bool | None = None,
    ) -> StepStream:
        """
        Training batches of a source for this process.

        Args:
            source ([`VideoSource`]):
                The source.
            load (`Callable`):
                Reads a sample.
            batch_size (`int`, *optional*):
                Samples in a batch. Defaults to that of the run.
            accumulation (`int`, *optional*):
                Batches of each process in a step. Defaults to that of the run.
            drop_last (`bool`, *optional*):
                Whether to drop an incomplete last step. Defaults to the setting of the run.

        Returns:
            [`StepStream`]
        """
        optimization = self.config.optimization
        return training_stream(
            self.config.data,
            source,
            load,
            self.ledger,
            self.accelerator,
            seed=self.config.run.seed,
            batch_size=batch_size or optimization.batch_size,
            accumulation=accumulation or optimization.accumulation,
            drop_last=optimization.drop_last if drop_last is None else drop_last,
            full_batches=self.full_batches,
        )

    def evaluation_stream(self, load: SampleLoader) -> ClipStream:
        """
        This process's share of the evaluation videos.

        Args:
            load (`Callable`):
                Reads a sample.

        Returns:
            [`ClipStream`]
        """
        assert self.eval_source is not None
        batch_size = self.config.eval_batch_size
        return evaluation_stream(self.config.data, self.eval_source, load, self.accelerator, batch_size=batch_size)

    def evaluate(
        self, model: PreTrainedModel, processor: ClipProcessor, source: VideoSource, *, validation: bool = False
    ) -> EvaluationResult:
        """
        Evaluate a classifier.

        Args:
            model (`PreTrainedModel`):
                The classifier.
            processor ([`ClipProcessor`]):
                Processor of the model.
            source ([`VideoSource`]):
                Evaluation videos.
            validation (`bool`, *optional*, defaults to `False`):
                Whether to use the quick protocol with one view instead of the processor's own.

        Returns:
            [`EvaluationResult`]
        """
        accelerator = self.accelerator
        return evaluate_model(
            model,
            processor,
            source,
            batch_size=self.config.eval_batch_size,
            num_workers=self.config.data.num_workers,
            sampling_mode="validation" if validation else None,
            accelerator=accelerator,
            mixed_precision=accelerator.mixed_precision if validation else None,
            timeout=self.config.data.worker_timeout,
            progress=self.config.run.progress and not validation,
        )

    def preview_source(self, source: VideoSource, load: Any, num_clips: int) -> Iterator[PreviewedClip]:
        """
        The first clips of a source, before and after augmentation.

        Args:
            source ([`VideoSource`]):
                The source.
            load ([`TrainingClipLoader`]):
                Reads a sample.
            num_clips (`int`):
                Number of clips.

        Returns:
            `Iterator[PreviewedClip]`
        """
        stream = ClipStream(source, load, num_clips, self.config.run.seed)
        return preview_stream(stream, load, self.preview_batch)

    def merged(self, fitted: FitResult) -> FitResult:
        """
        The result of the training loop without adapters. A trained adapter is saved and merged into the model.

        Args:
            fitted ([`FitResult`]):
                Result of the training loop.

        Returns:
            [`FitResult`]
        """
        if self.adapted is None:
            return fitted
        folder = self.output_dir / ADAPTER if self.accelerator.is_main_process else None
        if folder is not None:
            self.processor.save_pretrained(folder)
            self.config.save(folder / "run.yaml")
        return replace(fitted, model=merge_adapter(self.adapted, fitted.model, folder))

    def save(self, model: PreTrainedModel, processor: ClipProcessor, folder: Path | None = None) -> None:
        """
        Save config, weights, processor and `run.yaml`.

        Args:
            model (`PreTrainedModel`):
                The model.
            processor ([`ClipProcessor`]):
                Processor of the model.
            folder (`Path`, *optional*):
                Defaults to `output_dir`.
        """
        folder = folder or self.output_dir
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        self.config.save(folder / "run.yaml")

    def facts(self, fitted: FitResult) -> dict[str, Any]:
        """
        Facts about any run for the model card.

        Args:
            fitted ([`FitResult`]):
                Result of the training loop.

        Returns:
            `dict[str, Any]`: plain values.
        """
        config, world = self.config, self.accelerator.num_processes
        optimization = config.optimization
        return {
            "model_type": fitted.model.config.model_type,
            "base_model": config.model.checkpoint,
            "num_parameters": fitted.model.num_parameters(),
            "data": config.data.data,
            "num_train_videos": self.train_source.num_samples,
            "num_bad_train_videos": fitted.bad_videos,
            "epochs": fitted.epochs,
            "steps": fitted.steps,
            "effective_batch": optimization.batch_size * optimization.accumulation * world,
            "num_sample": config.augmentation.num_sample,
            "seconds": round(fitted.seconds, 1),
            "hardware": f"{world} x {self.accelerator.device.type} ({platform.machine()})",
            "arguments": config.to_dict(),
            "settings": changed_settings(RunConfig().to_dict() | {"method": self.defaults()}, config.to_dict()),
            "environment": describe_environment(fitted.model, world),
        }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Defaults of the fields of this method."""
        return {one.name: default_value(one) for one in fields(cls.arguments_class)}

    def finish_pretraining(self, fitted: FitResult, picture: Callable[[], Path | None] | None = None) -> RunResult:
        """
        Save a pretrained model.

        Args:
            fitted ([`FitResult`]):
                Result of the training loop.
            picture (`Callable[[], Path | None]`, *optional*):
                Draws a picture of the model's predictions and returns its file.

        Returns:
            [`RunResult`]
        """
        path = None
        if self.accelerator.is_main_process:
            self.save(fitted.model, self.processor)
            path = None if picture is None else picture()
        self.accelerator.wait_for_everyone()
        facts = self.facts(fitted) | {"outcomes": outcomes(fitted.history)}
        return RunResult(fitted.model, self.processor, fitted.history, self.output_dir, facts, picture=path)


def outcomes(history: list[dict[str, Any]]) -> dict[str, str]:
    """
    Results of pretraining for the model card: the last validation and the last probes.

    Args:
        history (`list[dict]`):
            Lines of the training log.

    Returns:
        `dict[str, str]`: values as text, by name.
    """
    found: dict[str, str] = {}
    for kind, words in (("validation", "validation"), ("probe", "videos recognised from frozen features")):
        lines = [line[kind] for line in history if kind in line]
        for name, value in (lines[-1] if lines else {}).items():
            found[f"{words}: {name}"] = f"{100 * value:.1f} %" if kind == "probe" else f"{value:.4g}"
    return found


__all__ = ["GOALS", "Goal", "Method", "NoArguments", "RunResult", "outcomes"]
