"""
A training run as data: fields from a recipe (YAML) and from flags, which override it. Every field is checked.

The groups of fields that all training methods share are defined here. The fields of a single method are a dataclass in
the module of the method. Here they are the open group `method`, whose `name` is the name of the method.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from .changes import recipe_notes
from .fields import build_group, check_minimum, check_range, option, suggestion, type_name
from .recipe_files import read_recipe, recipe_name


@dataclass
class ModelArguments:
    """
    The model to train: a checkpoint to start from, or a configuration to start from scratch.

    Raises:
        ValueError: both `checkpoint` and `image_model` are given, or `frozen_layers` is negative.
    """

    checkpoint: str | None = option(None, "folder or Hub id to start from (weights, config, processor)")
    model_type: str = option("videomae_v2", "family of a model from scratch")
    size: str | None = option(None, "published size of a model from scratch, such as small or base")
    image_model: str | None = option(
        None,
        "image model to start from: folder, file or Hub id (of CLIP for uniformer_v2, of a UniFormer for uniformer)",
    )
    needs_checkpoint: bool = option(
        False, "refuse to start from scratch, because the recipe continues from a trained model"
    )
    config: dict[str, Any] = option({}, "config fields that override those of the checkpoint or size")
    processor: dict[str, Any] = option({}, "processor attributes that override those of the checkpoint or family")
    head: Literal["auto", "keep", "new"] = option(
        "auto", "keep the checkpoint's head, start a new one, or (auto) keep it if the label names are the same"
    )
    frozen_layers: int | None = option(
        None, "freeze the embeddings and this many of the first blocks; 0 freezes only the embeddings"
    )
    lora: dict[str, Any] = option(
        {}, "train a LoRA adapter and the head: fields of peft.LoraConfig, such as r=16,lora_alpha=32"
    )
    attn_implementation: str | None = option(None, "eager, sdpa, flash_attention_2, ...; none keeps the default")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, but slower")
    compile: bool = option(False, "compile the model's forward and backward passes with torch.compile")

    def __post_init__(self) -> None:
        if self.checkpoint is not None and self.image_model is not None:
            raise ValueError(
                f"Set either `checkpoint` or `image_model`, got {self.checkpoint!r} and {self.image_model!r}"
            )
        check_minimum(self, frozen_layers=0)


@dataclass
class DataArguments:
    """
    The clips and how they are read.

    Raises:
        ValueError: a value is out of range.
    """

    data: str | None = option(None, "folder of classes, CSV/JSON/JSONL list, tars, parquet, repo id or hf:// URL")
    eval_data: str | None = option(None, "data to evaluate on; none means another split of `data`")
    train_split: str = option("train", "split to train on")
    eval_split: str | None = option(None, "split to evaluate on; none means the first of val, validation, test")
    holdout: float = option(0.2, "share of the training clips that is held out if there is no split to evaluate on")
    data_config: str | None = option(None, "name of the configuration of a data set repo")
    data_root: str | None = option(
        None, "folder that the paths of a list are relative to; none means the folder of the list"
    )
    video_column: str | None = option(None, "column of the video; none tries the usual names")
    label_column: str | None = option(None, "column of the label; none tries the usual names")
    label_names: list[str] | None = option(
        None, "label names in the order of their indices; none means labels.json of the folder, or sorted names"
    )
    label_separator: str | None = option(
        None, "separator between the labels of a clip with several labels; JSON lists need none"
    )
    shuffle_buffer: int = option(256, "encoded clips in the shuffle buffer of streamed tars and parquet files")
    max_train_samples: int | None = option(None, "train on this many clips, chosen by the seed")
    max_eval_samples: int | None = option(None, "evaluate on this many clips, chosen by the seed")
    num_workers: int = option(2, "decoding processes per training process")
    worker_timeout: float = option(300.0, "seconds without a batch after which a worker is considered hung")
    bad_video: Literal["skip", "raise"] = option("skip", "how unreadable training videos are handled")
    bad_video_limit: float = option(0.05, "share of unreadable videos above which the run stops")
    bad_video_minimum: int = option(20, "number of clips to read before that share is checked")

    def __post_init__(self) -> None:
        check_range("holdout", self.holdout, 0.0, 0.9)
        check_range("bad_video_limit", self.bad_video_limit, 0.0, 1.0)
        check_minimum(self, shuffle_buffer=1, num_workers=0, bad_video_minimum=1)
        check_minimum(self, max_train_samples=1, max_eval_samples=1)


@dataclass
class AugmentationArguments:
    """
    Augmentation of training clips. Random choices are the same for all frames of a clip.

    Raises:
        ValueError: a value is out of range or inconsistent.
    """

    crop: Literal["area", "multi_scale", "short_side", "center"] = option(
        "area",
        "random crop: by area and ratio; at the fixed places and sizes of VideoMAE V2's pretraining (multi_scale); "
        "or, after the short side is resized to a random length, anywhere (short_side) or near the center",
    )
    crop_short_side: list[int] = option([256, 320], "smallest and largest length of the short side, in pixels")
    crop_shift: int = option(0, "largest offset of the crop `center` along either side, in pixels")
    num_sample: int = option(1, "augmented copies of each decoded clip, all in the same batch")
    crop_scale: list[float] = option([0.08, 1.0], "area of the random crop, as a share of the frame")
    crop_ratio: list[float] = option([0.75, 4 / 3], "width over height of the random crop")
    flip: float = option(0.0, "probability of a horizontal flip; keep 0 if labels distinguish left and right")
    rand_augment_ops: int = option(0, "RandAugment operations per clip; 0 is off")
    rand_augment_magnitude: int = option(7, "RandAugment magnitude, 0 to 10")
    color_jitter: list[float] = option([], "largest changes of brightness, contrast, saturation and hue; empty is off")
    color_jitter_probability: float = option(0.8, "probability of color_jitter")
    grayscale: float = option(0.0, "probability of converting a clip to grey")
    blur: list[float] = option([0.0], "probability of blurring; two numbers are for the short and the long clip")
    blur_sigma: list[float] = option([0.1, 2.0], "smallest and largest standard deviation of the blur, in pixels")
    solarize: list[float] = option([0.0], "probability of inverting bright pixels; one number or two, as for blur")
    random_erasing: float = option(0.0, "probability of erasing one box, the same in all frames")
    augment_on_device: bool = option(
        False, "workers only decode and downscale; the other augmentations run on the accelerator, clip by clip"
    )
    device_area: int | None = option(
        None, "largest frame that is sent to the accelerator, in pixels; none means twice the area of the crop"
    )

    def __post_init__(self) -> None:
        check_minimum(self, device_area=1)
        if len(self.color_jitter) not in (0, 4):
            raise ValueError(f"`color_jitter` must be four numbers or none, got {self.color_jitter}")
        if self.grayscale == 1.0:
            raise ValueError(
                "`grayscale` 1.0 trains a model on grey clips that is later used on coloured ones. Set `do_grayscale` "
                "true in `processor` instead, which removes colours everywhere and is saved with the checkpoint"
            )
        for name in ("blur", "solarize"):
            values = getattr(self, name)
            if len(values) not in (1, 2):
                raise ValueError(f"`{name}` must be one number or two, got {values}")
            for value in values:
                check_range(name, value, 0.0, 1.0)
        for name in ("flip", "grayscale", "color_jitter_probability", "random_erasing"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_minimum(self, num_sample=1, rand_augment_ops=0, crop_shift=0)
        check_range("rand_augment_magnitude", self.rand_augment_magnitude, 0, 10)
        for name in ("crop_scale", "crop_ratio", "crop_short_side", "blur_sigma"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"`{name}` must be two positive numbers in increasing order, got {bounds}")


RULE_FIELDS = {"match", "lr_scale", "decay", "constant"}


@dataclass
class OptimizationArguments:
    """
    Optimiser, schedule and batch.

    Raises:
        ValueError: a value is out of range, or a rule has an unknown field.
    """

    epochs: int = option(10, "passes over the training clips")
    max_steps: int | None = option(
        None, "optimiser steps; overrides epochs, required if the number of clips is unknown"
    )
    batch_size: int = option(8, "clips per process and forward pass")
    accumulation: int = option(1, "forward passes per optimiser step")
    drop_last: bool = option(False, "leave out an incomplete last batch of an epoch")
    learning_rate: float = option(1e-3, "peak learning rate, before scaling by `learning_rate_batch`")
    learning_rate_batch: int | None = option(
        None,
        "scale learning rates by batch x processes x accumulation / this value (without num_sample; officially 256)",
    )
    min_learning_rate: float = option(1e-6, "learning rate at the end of the schedule, scaled in the same way")
    schedule: Literal["cosine", "poly", "milestones"] = option(
        "cosine",
        "decay after the warm-up: half a cosine; a polynomial over all steps that the warm-up multiplies (poly); or a "
        "tenth at each of some epochs (milestones)",
    )
    milestones: list[int] = option([], "epochs at which the schedule `milestones` goes down to a tenth")
    poly_power: float = option(1.0, "exponent of the schedule `poly`; 1 is linear")
    warmup_epochs: float = option(0.0, "epochs of linear warm-up from 0")
    warmup_steps: int | None = option(None, "steps of linear warm-up; overrides warmup_epochs")
    peak_after_warmup: bool = option(
        False, "reach the peak one step after the warm-up (MoCo v3) instead of on its last step (VideoMAE)"
    )
    weight_decay: float = option(
        0.05, "decoupled weight decay; not applied to biases, norms and the parameters that the model lists"
    )
    betas: list[float] = option([0.9, 0.999], "AdamW betas")
    eps: float = option(1e-8, "AdamW epsilon")
    layer_decay: float = option(1.0, "factor of the learning rate from each layer to the previous one")
    parameter_rules: list[dict[str, Any]] = option(
        [],
        "exceptions to decay, layer_decay and the cosine: {match: regular expression, lr_scale: factor, decay: true "
        "or false, constant: true to keep the peak after the warm-up}",
    )
    clip_grad: float | None = option(None, "norm that gradients are clipped to")
    ema_decay: float | None = option(
        None, "decay of an exponential moving average of the weights, which is evaluated and saved"
    )
    ema_start_share: float | None = option(
        None, "largest share of the first weights in that average at the end; a short run gets a smaller decay"
    )

    def __post_init__(self) -> None:
        check_minimum(self, epochs=1, max_steps=1, batch_size=1, accumulation=1, warmup_steps=0, warmup_epochs=0)
        check_minimum(self, learning_rate=0, min_learning_rate=0, weight_decay=0, learning_rate_batch=1)
        check_range("layer_decay", self.layer_decay, 1e-6, 1.0)
        check_range("poly_power", self.poly_power, 0.01, 10.0)
        if (self.schedule == "milestones") != bool(self.milestones) or sorted(self.milestones) != self.milestones:
            raise ValueError(
                f"`milestones` must be increasing epochs with the schedule `milestones`, and empty with others, got "
                f"{self.milestones}"
            )
        if self.ema_decay is not None:
            check_range("ema_decay", self.ema_decay, 0.0, 1.0)
        if self.ema_start_share is not None:
            check_range("ema_start_share", self.ema_start_share, 1e-9, 1.0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"`betas` must be two numbers in [0, 1), got {self.betas}")
        for rule in self.parameter_rules:
            if "match" not in rule or len(rule) < 2 or set(rule) - RULE_FIELDS:
                raise ValueError(
                    f"`parameter_rules` need `match` and one or more of `lr_scale`, `decay`, `constant`, got {rule}"
                )


@dataclass
class RunArguments:
    """
    Output, evaluation, checkpoints, logging and hardware of a run.

    Raises:
        ValueError: a value is out of range.
    """

    output_dir: str = option("output", "folder that receives the model, its card and the logs")
    seed: int = option(0, "seed of weights, order, augmentation and drop path")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        None, "precision of the forward pass; none means that of `accelerate launch`"
    )
    cpu: bool = option(False, "use the CPU even if there is an accelerator")
    log_every: int = option(10, "optimiser steps between two log entries")
    eval_every: int = option(1, "epochs between two evaluations; 0 evaluates only at the end")
    eval_batch_size: int | None = option(None, "videos per process and evaluation pass; none means batch_size")
    save_every: int = option(1, "epochs between two checkpoints; 0 saves none")
    save_steps: int | None = option(None, "optimiser steps between two checkpoints, in addition to save_every")
    keep_checkpoints: int = option(2, "number of latest checkpoints to keep on disk")
    resume: bool = option(False, "continue from the latest checkpoint in output_dir, if there is one")
    overwrite: bool = option(False, "start over in an output_dir with checkpoints of another run, which are deleted")
    best_metric: str | None = option(
        None, "validation metric that selects the best weights; none means the first one (top1, explained)"
    )
    keep_best: bool = option(False, "save the weights of the best validation instead of the last weights")
    patience: int | None = option(None, "consecutive validations without improvement after which the run ends early")
    progress: bool = option(True, "show a live table, or without a terminal a line per log entry")
    trackers: list[str] = option([], "experiment trackers to write to: tensorboard, trackio, wandb, ...")
    tracker_project: str = option("hf_videovit", "name of the project in the trackers")
    curves: bool = option(True, "draw the curves of loss and metrics at the end, in logs/curves.png")
    push_to_hub: str | None = option(None, "repo on the Hub (owner/name) to publish the result to")
    hub_private: bool = option(False, "create the repo as private, if it is new")
    hub_with_code: bool = option(False, "also publish the code of the model, for trust_remote_code")
    picture_every: int = option(
        10, "epochs between two pictures of reconstructions in pretraining; 0 draws only the last"
    )

    def __post_init__(self) -> None:
        check_minimum(self, patience=1, picture_every=0)
        check_minimum(self, log_every=1, eval_every=0, eval_batch_size=1, save_every=0, save_steps=1)
        check_minimum(self, keep_checkpoints=1, seed=0)


ProbeName = Literal["knn", "linear", "attentive"]


@dataclass
class ProbeArguments:
    """
    Probes: small classifiers of frozen features, trained and scored on labelled clips. The training of the features
    does not use the labels.

    Raises:
        ValueError: a value is out of range.
    """

    probe: list[ProbeName] = option([], "probes of the features: knn, linear, attentive")
    probe_data: str | None = option(
        None, "labelled clips for the probes; none means `data`, which then must have labels"
    )
    probe_every: int = option(1, "epochs between two probe runs; 0 probes only every probe_steps")
    probe_steps: int | None = option(None, "optimiser steps between two probe runs, in addition to probe_every")
    probe_max_samples: int | None = option(None, "train the probes on at most this many clips, chosen by the seed")
    probe_neighbours: int = option(20, "nearest clips that vote in knn")
    probe_temperature: float = option(
        0.07, "temperature of the votes in knn; a smaller value gives the nearest clips more weight"
    )
    probe_epochs: int = option(20, "epochs of the attentive probe")
    probe_max_tokens: int = option(
        392, "tokens per clip for the attentive probe; a larger number is reduced by averaging neighbours"
    )

    def __post_init__(self) -> None:
        check_minimum(self, probe_every=0, probe_steps=1, probe_max_samples=1, probe_neighbours=1, probe_epochs=1)
        check_minimum(self, probe_max_tokens=1)
        if self.probe_temperature <= 0:
            raise ValueError(f"`probe_temperature` must be above 0, got {self.probe_temperature}")


@dataclass
class RunConfig:
    """
    A training run: the groups of fields that all training methods share, and the fields of its method.

    Args:
        model ([`ModelArguments`], *optional*):
            The model to train.
        data ([`DataArguments`], *optional*):
            The clips and how they are read.
        augmentation ([`AugmentationArguments`], *optional*):
            Augmentation of training clips.
        optimization ([`OptimizationArguments`], *optional*):
            Optimiser, schedule and batch.
        run ([`RunArguments`], *optional*):
            Output, evaluation, checkpoints, logging and hardware.
        probe ([`ProbeArguments`], *optional*):
            Probes of the features.
        method (`dict[str, Any]`, *optional*):
            `name` of the training method, and its fields, which [`Method`] checks when the run starts. Without a name
            the command and the model decide, see [`~choosing.choose`].
        about (`dict[str, Any]`, *optional*):
            Description of a recipe: its source, hardware, cost, expected score and departures from the paper. It has
            no effect on the run.
    """

    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    augmentation: AugmentationArguments = field(default_factory=AugmentationArguments)
    optimization: OptimizationArguments = field(default_factory=OptimizationArguments)
    run: RunArguments = field(default_factory=RunArguments)
    probe: ProbeArguments = field(default_factory=ProbeArguments)
    method: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def eval_batch_size(self) -> int:
        """Videos per process and evaluation pass: `run.eval_batch_size`, or the training batch if that is not set."""
        return self.run.eval_batch_size or self.optimization.batch_size

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """
        Build a run from nested values, as in a recipe.

        Args:
            values (`Mapping[str, Any]`):
                `{"optimization": {"learning_rate": 1e-3}, ...}`. Missing fields keep their defaults.

        Returns:
            `RunConfig`: the run.

        Raises:
            ValueError: a shared group has no field of that name, or a value has the wrong type. The fields in `method`
                are checked when the method is chosen.
        """
        groups = {item.name: item for item in dataclasses.fields(cls)}
        arguments: dict[str, Any] = {}
        for group, members in values.items():
            if group not in groups:
                raise ValueError(f"Unknown group `{group}` in a recipe{suggestion(group, groups)}")
            if group == "method" and isinstance(members, str):
                members = {"name": members}
            if not isinstance(members, Mapping):
                raise ValueError(f"Group `{group}` of a recipe must contain fields and values, got {members!r}")
            if group in GROUPS:
                arguments[group] = build_group(GROUPS[group], members, f"group `{group}`", FIELD_GROUP)
            else:
                arguments[group] = dict(members)
        return cls(**arguments)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> "RunConfig":
        """
        Read a recipe.

        Args:
            path (`str` or `Path`):
                A YAML file with the groups of a run and `about`, or the name of a recipe of this package.
            overrides (`Mapping[str, Any]`, *optional*):
                Fields that override the recipe, by plain (`learning_rate`) or dotted name.

        Returns:
            `RunConfig`: the run.

        Raises:
            ValueError: the file has no groups of fields, a field is unknown, or a value is not allowed.
        """
        values = read_recipe(path)
        return _noted(path, values, cls.from_dict(_merge(values, overrides or {})))

    @classmethod
    def from_fields(cls, **fields: Any) -> "RunConfig":
        """
        Build a run from field names of any group.

        Args:
            fields:
                Fields by plain name.

        Returns:
            `RunConfig`: the run.

        Example:

        ```python
        >>> RunConfig.from_fields(data="clips", learning_rate=1e-3, output_dir="model").data.data
        'clips'
        ```
        """
        return cls.from_dict(_merge({}, fields))

    def to_dict(self) -> dict[str, Any]:
        """The run as nested plain values. `RunConfig.from_dict` is the inverse."""
        return dataclasses.asdict(self)

    def changed_fields(self, earlier: Mapping[str, Any]) -> list[str]:
        """
        Differences from an earlier run because of which this run cannot continue it.

        Args:
            earlier (`Mapping[str, Any]`):
                The earlier run, from `to_dict`. Fields that it lacks count as unchanged.

        Returns:
            `list[str]`: a line per field with its name, its earlier and its new value. The fields in `RESUMABLE` and
            `about` may change.
        """
        now, changes = self.to_dict(), []
        for group in (*GROUPS, "method"):
            for name, before in earlier.get(group, {}).items():
                if name not in RESUMABLE.get(group, ()) and name in now[group] and now[group][name] != before:
                    changes.append(f"`{name}` was {before!r}, is {now[group][name]!r}")
        return changes

    def save(self, path: str | Path) -> None:
        """
        Write the run as a recipe.

        Args:
            path (`str` or `Path`):
                The YAML file to write.
        """
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


def parse_arguments(arguments: Sequence[str], defaults: Mapping[str, Any] | None = None) -> RunConfig:
    """
    Read a run from command-line arguments: `--recipe NAME`, `--learning_rate 1e-3`, `--optimization.epochs=5`,
    `--config.hidden_size 192`, `--compile`, `--no_progress`.

    Args:
        arguments (`Sequence[str]`):
            The arguments after the name of the script.
        defaults (`Mapping[str, Any]`, *optional*):
            Defaults by plain or dotted name, which the recipe and the flags override.

    Returns:
        `RunConfig`: the run.

    Raises:
        ValueError: a flag is unknown (a similar one is suggested), or a value is not allowed.
    """
    recipe, overrides = _split_flags(arguments)
    values: Mapping[str, Any] = _merge({}, defaults or {})
    if recipe is None:
        return RunConfig.from_dict(_merge(values, overrides))
    known = read_recipe(recipe)
    return _noted(recipe, known, RunConfig.from_dict(_merge(override(values, known), overrides)))


def read_flags(arguments: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """
    Read command-line arguments without checking the values.

    Args:
        arguments (`Sequence[str]`):
            The arguments after the name of the script.

    Returns:
        `tuple[str | None, dict[str, Any]]`: the recipe, if one is named, and the given fields by group.

    Raises:
        ValueError: a flag is unknown.
    """
    recipe, overrides = _split_flags(arguments)
    return recipe, nested_fields(overrides)


def nested_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """
    Fields by group.

    Args:
        fields (`Mapping[str, Any]`):
            Values by plain (`learning_rate`) or dotted name (`run.seed`, `config.hidden_size`).

    Returns:
        `dict[str, Any]`: as in a recipe.

    Raises:
        ValueError: a field is unknown.
    """
    return _merge({}, fields)


def override(values: Mapping[str, Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    """
    Override nested values, name by name.

    Args:
        values (`Mapping[str, Any]`):
            The values.
        updates (`Mapping[str, Any]`):
            Values that override them.

    Returns:
        `dict[str, Any]`: the result.
    """
    merged = dict(values)
    for name, value in updates.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            value = override(merged[name], value)
        merged[name] = value
    return merged


def describe_arguments(groups: Mapping[str, type] | None = None) -> str:
    """
    The text of `--help`: a line per flag with its type, default and meaning.

    Args:
        groups (`Mapping[str, type]`, *optional*):
            Dataclasses of arguments by heading; the shared groups by default.

    Returns:
        `str`: the text.
    """
    lines = ["--recipe NAME or FILE  a recipe, see `hf-videovit recipes`, or a YAML file; flags override it"]
    for heading, group_class in (GROUPS if groups is None else groups).items():
        hints, defaults = typing.get_type_hints(group_class), group_class()
        members = dataclasses.fields(group_class)
        lines += [f"\n{heading}:"] if members else []
        for item in members:
            default = getattr(defaults, item.name)
            lines.append(
                f"  --{item.name} ({type_name(hints[item.name])}, default {default}): {item.metadata['help']}"
            )
    return "\n".join(lines)


GROUPS: dict[str, type] = {
    "model": ModelArguments,
    "data": DataArguments,
    "augmentation": AugmentationArguments,
    "optimization": OptimizationArguments,
    "run": RunArguments,
    "probe": ProbeArguments,
}
# Fields that may differ between a run and its continuation: length, output and hardware.
RESUMABLE = {
    "data": {"num_workers", "worker_timeout", "bad_video_limit", "bad_video_minimum", "bad_video"}
    | {"eval_data", "eval_split", "max_eval_samples"},
    "method": {"word_cache"},
    "model": {"compile", "gradient_checkpointing", "attn_implementation"},
    "optimization": {"epochs", "max_steps"},
    "run": {item.name for item in dataclasses.fields(RunArguments)} - {"seed", "mixed_precision", "best_metric"},
    "probe": {item.name for item in dataclasses.fields(ProbeArguments)},
}
FIELD_GROUP: dict[str, str] = {
    item.name: group for group, group_class in GROUPS.items() for item in dataclasses.fields(group_class)
}


def _noted(recipe: str | Path, values: Mapping[str, Any], run: RunConfig) -> RunConfig:
    """The run with the notes of its recipe that hold for it."""
    base = RunConfig.from_dict(values).to_dict()
    return dataclasses.replace(run, about=recipe_notes(recipe_name(recipe), base, run.to_dict()))


def _split_flags(arguments: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    recipe, overrides = None, {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"Expected a flag that starts with --, got {word!r}")
        name, has_value, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if not has_value:
            if words and not words[0].startswith("--"):
                value = words.pop(0)
            elif name.startswith("no_") and name not in FIELD_GROUP:
                name, value = name.removeprefix("no_"), "false"
            else:
                value = "true"
        if name == "recipe":
            recipe = value
        else:
            overrides[name] = value
    return recipe, overrides


def _merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """
    Override nested values by plain (`learning_rate`) and dotted (`run.seed`, `config.hidden_size`) names. A plain name
    that is in no shared group belongs to the method. The fields of a method do not stay if another one is named.
    """
    nested: dict[str, Any] = {}
    for name, value in overrides.items():
        path = name.split(".")
        if path == ["method"]:
            path = ["method", "name"]
        elif len(path) == 1 or path[0] in FIELD_GROUP and path[0] not in GROUPS:
            path = [FIELD_GROUP.get(path[0], "method"), *path]
        elif path[0] in GROUPS and path[0] in FIELD_GROUP and path[1] not in _fields_of(path[0]):
            path = [FIELD_GROUP[path[0]], *path]
        elif path[0] not in (*GROUPS, "method"):
            raise ValueError(f"Unknown field `{name}`{suggestion(path[0], [*GROUPS, *FIELD_GROUP])}")
        target = nested
        for part in path[:-1]:
            target = target.setdefault(part, {})
        target[path[-1]] = value
    named, known = nested.get("method", {}).get("name"), values.get("method")
    if named is not None and isinstance(known, Mapping) and known.get("name", named) != named:
        values = {**values, "method": {}}
    return override(values, nested)


def _fields_of(group: str) -> list[str]:
    return [item.name for item in dataclasses.fields(GROUPS[group])]
