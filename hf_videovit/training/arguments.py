"""
A training run as data: what a recipe (YAML) states and what a flag overrides, checked field by field.

Most fields are shared by all training methods and stand here, in groups. A method's own fields are a dataclass beside
the method; here they are the open group `method`, whose `name` says which method that is.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union

import yaml


def option(default: Any, help: str) -> Any:
    """
    A field of a group of arguments.

    Args:
        default (`Any`):
            Its default; lists and dictionaries are copied.
        help (`str`):
            The sentence that `--help` prints.
    """
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class ModelArguments:
    """Which model is trained: a checkpoint to start from, or a configuration to start from scratch."""

    checkpoint: str | None = option(None, "folder or Hub id to start from (weights, config, processor)")
    model_type: str = option("videomae_v2", "family of a model from scratch")
    size: str | None = option(None, "published size of a model from scratch, such as small or base")
    image_model: str | None = option(
        None,
        "image model to start from: folder, file or Hub id (CLIP's for uniformer_v2, a UniFormer's for uniformer)",
    )
    needs_checkpoint: bool = option(False, "refuse to start from scratch: the recipe goes on from a trained model")
    config: dict[str, Any] = option({}, "config fields set over the checkpoint's or size's own")
    processor: dict[str, Any] = option({}, "processor attributes set over the checkpoint's or family's own")
    head: Literal["auto", "keep", "new"] = option(
        "auto", "keep the checkpoint's head, start a new one, or keep it exactly when the label names are the same"
    )
    frozen_layers: int | None = option(
        None, "train neither the embeddings nor so many of the first blocks; 0 freezes the embeddings alone"
    )
    attn_implementation: str | None = option(None, "eager, sdpa, flash_attention_2, ...; none leaves the choice open")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, slower")
    compile: bool = option(False, "run the task through torch.compile")

    def __post_init__(self) -> None:
        if self.checkpoint is not None and self.image_model is not None:
            raise ValueError(
                f"Give `checkpoint` or `image_model`, not both: got {self.checkpoint!r} and {self.image_model!r}"
            )
        check_minimum(self, frozen_layers=0)


@dataclass
class DataArguments:
    """Where the clips are and how they are read."""

    data: str | None = option(None, "folder of classes, CSV/JSON/JSONL list, tars, parquet, repo id or hf:// URL")
    eval_data: str | None = option(None, "a second source for evaluation; none takes the other split of `data`")
    train_split: str = option("train", "split to train on")
    eval_split: str | None = option(None, "split to evaluate on; none takes the first of val, validation, test")
    holdout: float = option(0.2, "share of the training clips held out when there is no split to evaluate on")
    data_config: str | None = option(None, "configuration name of a data set repo")
    data_root: str | None = option(None, "folder that the paths of a list are relative to; none is the list's own")
    video_column: str | None = option(None, "column that holds the video; none looks for the usual names")
    label_column: str | None = option(None, "column that holds the label; none looks for the usual names")
    label_names: list[str] | None = option(
        None, "names that labels index; none takes labels.json of the folder, or those in the data, sorted"
    )
    label_separator: str | None = option(
        None, "what stands between the labels of a clip with several; JSON lists need none"
    )
    shuffle_buffer: int = option(256, "encoded clips held for shuffling while streaming tars and parquet")
    max_train_samples: int | None = option(None, "train on this many clips, chosen by the seed")
    max_eval_samples: int | None = option(None, "evaluate on this many clips, chosen by the seed")
    num_workers: int = option(2, "processes that decode, for each training process")
    worker_timeout: float = option(300.0, "seconds without a batch after which a worker counts as hung")
    bad_video: Literal["skip", "raise"] = option("skip", "what an unreadable training video does")
    bad_video_limit: float = option(0.05, "share of unreadable videos that stops the run")
    bad_video_minimum: int = option(20, "number of clips read before that share is judged")

    def __post_init__(self) -> None:
        check_range("holdout", self.holdout, 0.0, 0.9)
        check_range("bad_video_limit", self.bad_video_limit, 0.0, 1.0)
        check_minimum(self, shuffle_buffer=1, num_workers=0, bad_video_minimum=1)
        check_minimum(self, max_train_samples=1, max_eval_samples=1)


@dataclass
class AugmentationArguments:
    """What happens to a training clip; every draw is one for all frames of the clip."""

    crop: Literal["area", "multi_scale", "short_side", "center"] = option(
        "area",
        "random crop by area and ratio; the fixed places and sides of VideoMAE V2's pretraining; or anywhere or about "
        "the middle, after the short side was resized to a random length",
    )
    crop_short_side: list[int] = option([256, 320], "shortest and longest such length, in pixels")
    crop_shift: int = option(0, "how far from the middle `center` may lie along either side, in pixels")
    num_sample: int = option(1, "augmented copies of each decoded clip, all in the batch")
    crop_scale: list[float] = option([0.08, 1.0], "area of the random crop, as a share of the frame")
    crop_ratio: list[float] = option([0.75, 4 / 3], "width over height of the random crop")
    flip: float = option(0.0, "probability of mirroring; leave at 0 where labels tell left from right")
    rand_augment_ops: int = option(0, "RandAugment operations a clip; 0 is off")
    rand_augment_magnitude: int = option(7, "RandAugment magnitude, 0 to 10")
    color_jitter: list[float] = option([], "largest changes of brightness, contrast, saturation and hue; empty is off")
    color_jitter_probability: float = option(0.8, "probability of that jitter")
    grayscale: float = option(0.0, "probability of taking the colours away")
    blur: list[float] = option([0.0], "probability of blurring; two numbers: of the short and of the long clip")
    blur_sigma: list[float] = option([0.1, 2.0], "weakest and strongest blur, in pixels")
    solarize: list[float] = option([0.0], "probability of inverting bright pixels; one number or two, as for blur")
    random_erasing: float = option(0.0, "probability of erasing one box, the same in all frames")
    augment_on_device: bool = option(
        False, "workers only decode and shrink; the accelerator crops, flips and the like, clip by clip"
    )
    device_area: int | None = option(
        None, "pixels of a frame that go to the accelerator then; larger frames are shrunk; none takes twice the crop"
    )

    def __post_init__(self) -> None:
        check_minimum(self, device_area=1)
        if len(self.color_jitter) not in (0, 4):
            raise ValueError(f"`color_jitter` must be four numbers or none, got {self.color_jitter}")
        if self.grayscale == 1.0:
            raise ValueError(
                "`grayscale` 1.0 trains a model that never saw the colours it will be used on: give `processor` "
                "`do_grayscale` true, which takes them away from all clips and travels with the checkpoint"
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
                raise ValueError(f"`{name}` must be two rising positive numbers, got {bounds}")


RULE_FIELDS = {"match", "lr_scale", "decay", "constant"}


@dataclass
class OptimizationArguments:
    """Optimiser, schedule and batch."""

    epochs: int = option(10, "passes over the training clips")
    max_steps: int | None = option(None, "optimiser steps; overrides epochs, required where clips cannot be counted")
    batch_size: int = option(8, "clips of one process in one forward pass")
    accumulation: int = option(1, "forward passes an optimiser step")
    drop_last: bool = option(False, "leave out the clips that do not fill the last batch of an epoch")
    learning_rate: float = option(1e-3, "peak learning rate, before the batch rule of `learning_rate_batch`")
    learning_rate_batch: int | None = option(
        None,
        "scale learning rates by batch x processes x accumulation / this (num_sample not counted; officially 256)",
    )
    min_learning_rate: float = option(1e-6, "learning rate at the end of the cosine, scaled by the same rule")
    warmup_epochs: float = option(0.0, "epochs of linear warm-up from 0")
    warmup_steps: int | None = option(None, "steps of linear warm-up; overrides warmup_epochs")
    peak_after_warmup: bool = option(
        False, "reach the peak on the step after the warm-up (MoCo v3) instead of on its last (VideoMAE)"
    )
    weight_decay: float = option(0.05, "decoupled weight decay; none on biases, norms and the model's own list")
    betas: list[float] = option([0.9, 0.999], "AdamW betas")
    eps: float = option(1e-8, "AdamW epsilon")
    layer_decay: float = option(1.0, "factor of the learning rate from each layer to the one before it")
    parameter_rules: list[dict[str, Any]] = option(
        [],
        "exceptions to decay, layer_decay and the cosine: {match: regular expression, lr_scale: factor, decay: true "
        "or false, constant: true to stay at the peak after the warm-up}",
    )
    clip_grad: float | None = option(None, "largest norm of the gradient")
    ema_decay: float | None = option(None, "keep an exponential moving average of the weights, evaluate and save it")

    def __post_init__(self) -> None:
        check_minimum(self, epochs=1, max_steps=1, batch_size=1, accumulation=1, warmup_steps=0, warmup_epochs=0)
        check_minimum(self, learning_rate=0, min_learning_rate=0, weight_decay=0, learning_rate_batch=1)
        check_range("layer_decay", self.layer_decay, 1e-6, 1.0)
        if self.ema_decay is not None:
            check_range("ema_decay", self.ema_decay, 0.0, 1.0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"`betas` must be two numbers in [0, 1), got {self.betas}")
        for rule in self.parameter_rules:
            if "match" not in rule or len(rule) < 2 or set(rule) - RULE_FIELDS:
                raise ValueError(
                    f"`parameter_rules` need `match`, and `lr_scale`, `decay`, `constant` or several, got {rule}"
                )


@dataclass
class RunArguments:
    """The run itself: where it writes, how often it looks at itself, on what it computes."""

    output_dir: str = option("output", "folder that receives the model, its card and the run's records")
    seed: int = option(0, "seed of weights, order, augmentation and drop path")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        None, "precision of the forward pass; none leaves it to `accelerate launch`"
    )
    cpu: bool = option(False, "stay on the CPU although there is an accelerator")
    log_every: int = option(10, "optimiser steps between two lines of the log")
    eval_every: int = option(1, "epochs between two evaluations; 0 evaluates once, at the end")
    eval_batch_size: int | None = option(None, "videos in one evaluation pass; none takes batch_size")
    save_every: int = option(1, "epochs between two checkpoints; 0 keeps none")
    save_steps: int | None = option(None, "optimiser steps between two checkpoints, besides save_every")
    keep_checkpoints: int = option(2, "how many of the latest checkpoints stay on disk")
    resume: bool = option(False, "go on from the latest checkpoint in output_dir, if there is one")
    overwrite: bool = option(False, "start over in an output_dir with checkpoints of another run: they are deleted")
    best_metric: str | None = option(
        None, "metric of the validation that decides which weights are saved; none takes its first (top1, explained)"
    )
    keep_best: bool = option(False, "save the best weights of the validations instead of the last")
    patience: int | None = option(None, "validations in a row without a new best one that end the run early")
    progress: bool = option(True, "show a live table, or a line a log entry where there is no terminal")
    trackers: list[str] = option([], "experiment trackers to write to: tensorboard, trackio, wandb, ...")
    tracker_project: str = option("hf_videovit", "the trackers' name for a group of runs")
    curves: bool = option(True, "draw the curves of loss and metrics at the end, as logs/curves.png")
    push_to_hub: str | None = option(None, "repo on the Hub, as owner/name, that the result is published to")
    hub_private: bool = option(False, "make that repo private, if it is new")
    hub_with_code: bool = option(False, "publish the model's code too, for trust_remote_code")
    picture_every: int = option(10, "epochs between two pictures of what pretraining reconstructs; 0 draws the last")

    def __post_init__(self) -> None:
        check_minimum(self, patience=1, picture_every=0)
        check_minimum(self, log_every=1, eval_every=0, eval_batch_size=1, save_every=0, save_steps=1)
        check_minimum(self, keep_checkpoints=1, seed=0)


ProbeName = Literal["knn", "linear", "attentive"]


@dataclass
class ProbeArguments:
    """What frozen features can tell apart; on labelled clips that the training of the features does not look at."""

    probe: list[ProbeName] = option([], "probes of the features: knn, linear, attentive")
    probe_data: str | None = option(None, "labelled clips for them; none takes `data`, which then must have labels")
    probe_every: int = option(1, "epochs between two probings, 0 for none but those by steps")
    probe_steps: int | None = option(None, "optimiser steps between two probings, besides probe_every")
    probe_max_samples: int | None = option(None, "learn from at most this many clips, chosen by the seed")
    probe_neighbours: int = option(20, "clips that vote in knn")
    probe_temperature: float = option(0.07, "how much more the nearest of them count; smaller is more")
    probe_epochs: int = option(20, "passes of the attentive probe over its tokens")
    probe_max_tokens: int = option(392, "tokens of a clip that the attentive probe sees; more are averaged in runs")

    def __post_init__(self) -> None:
        check_minimum(self, probe_every=0, probe_steps=1, probe_max_samples=1, probe_neighbours=1, probe_epochs=1)
        check_minimum(self, probe_max_tokens=1)
        if self.probe_temperature <= 0:
            raise ValueError(f"`probe_temperature` must be above 0, got {self.probe_temperature}")


@dataclass
class RunConfig:
    """
    A whole training run: the groups of fields that every training method shares, and the method's own.

    `method` holds the name of the training method and the values of its own fields, which [`Method`] checks when the
    run starts. Without a name, the method follows from the command and the model ([`~choosing.choose`]). `about` is
    free text of a recipe (what it reproduces, hardware, cost, expected score, departures from the paper) and changes
    nothing.
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
        """Videos in one evaluation pass of a process: `run.eval_batch_size`, else the training batch."""
        return self.run.eval_batch_size or self.optimization.batch_size

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """
        Build a run from nested values, the form of a recipe.

        Args:
            values (`Mapping[str, Any]`):
                `{"optimization": {"learning_rate": 1e-3}, ...}`; anything left out keeps its default.

        Returns:
            `RunConfig`: the run.

        Raises:
            ValueError: If a shared group does not have a field of that name, or a value is of the wrong type. The
                fields in `method` are checked once the method is chosen.
        """
        groups = {item.name: item for item in dataclasses.fields(cls)}
        arguments: dict[str, Any] = {}
        for group, members in values.items():
            if group not in groups:
                raise ValueError(f"Unknown group `{group}` in a recipe{suggestion(group, groups)}")
            if group == "method" and isinstance(members, str):
                members = {"name": members}
            if not isinstance(members, Mapping):
                raise ValueError(f"Group `{group}` of a recipe must hold fields and values, got {members!r}")
            if group in GROUPS:
                arguments[group] = build_group(GROUPS[group], members, f"group `{group}`")
            else:
                arguments[group] = dict(members)
        return cls(**arguments)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> "RunConfig":
        """
        Read a recipe.

        Args:
            path (`str` or `Path`):
                A YAML file with the groups of a run and `about`.
            overrides (`Mapping[str, Any]`, *optional*):
                Fields set over the recipe's, under their plain (`learning_rate`) or dotted name.

        Returns:
            `RunConfig`: the run.
        """
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        if not isinstance(values, Mapping):
            raise ValueError(f"Recipe {path} must hold groups of fields, got {type(values).__name__}")
        return cls.from_dict(_merge(values, overrides or {}))

    @classmethod
    def from_fields(cls, **fields: Any) -> "RunConfig":
        """
        Build a run from plain field names of any group.

        Example:

        ```python
        >>> RunConfig.from_fields(data="clips", learning_rate=1e-3, output_dir="model").data.data
        'clips'
        ```
        """
        return cls.from_dict(_merge({}, fields))

    def to_dict(self) -> dict[str, Any]:
        """The run as nested plain values; `RunConfig.from_dict` is its inverse."""
        return dataclasses.asdict(self)

    def changed_fields(self, earlier: Mapping[str, Any]) -> list[str]:
        """
        Where this run differs from an earlier one so that it cannot be its continuation.

        Args:
            earlier (`Mapping[str, Any]`):
                The earlier run, from `to_dict`; fields that it does not know yet count as unchanged.

        Returns:
            `list[str]`: one line a field: its name, what it was, what it is. `RESUMABLE` lists the fields that are
            free to change; `about` is one of them.
        """
        now, changes = self.to_dict(), []
        for group in (*GROUPS, "method"):
            for name, before in earlier.get(group, {}).items():
                if name not in RESUMABLE.get(group, ()) and name in now[group] and now[group][name] != before:
                    changes.append(f"`{name}` was {before!r}, is {now[group][name]!r}")
        return changes

    def save(self, path: str | Path) -> None:
        """Write the run as a recipe that reproduces it."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


def parse_arguments(arguments: Sequence[str], defaults: Mapping[str, Any] | None = None) -> RunConfig:
    """
    Read a run from command-line words: `--recipe FILE`, `--learning_rate 1e-3`, `--optimization.epochs=5`,
    `--config.hidden_size 192`, `--compile`, `--no_progress`.

    Args:
        arguments (`Sequence[str]`):
            The words after the script's name.
        defaults (`Mapping[str, Any]`, *optional*):
            Fields (plain or dotted names) that hold unless the recipe or a flag says otherwise.

    Returns:
        `RunConfig`: the run. A misspelt flag raises a `ValueError` that suggests the right one.
    """
    recipe, overrides = _split_flags(arguments)
    values: Mapping[str, Any] = _merge({}, defaults or {})
    if recipe is not None:
        loaded = yaml.safe_load(Path(recipe).read_text(encoding="utf-8")) or {}
        if not isinstance(loaded, Mapping):
            raise ValueError(f"Recipe {recipe} must hold groups of fields, got {type(loaded).__name__}")
        values = _deep_update(values, loaded)
    return RunConfig.from_dict(_merge(values, overrides))


def describe_arguments(groups: Mapping[str, type] | None = None) -> str:
    """
    Every flag with its type, default and meaning, one a line: the text of `--help`.

    Args:
        groups (`Mapping[str, type]`, *optional*):
            Dataclasses of arguments by the heading they get; the shared groups by default.
    """
    lines = ["--recipe FILE  a YAML recipe; flags override it"]
    for heading, group_class in (GROUPS if groups is None else groups).items():
        hints, defaults = typing.get_type_hints(group_class), group_class()
        members = dataclasses.fields(group_class)
        lines += [f"\n{heading}:"] if members else []
        for item in members:
            default = getattr(defaults, item.name)
            lines.append(
                f"  --{item.name} ({_type_name(hints[item.name])}, default {default}): {item.metadata['help']}"
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
# What may differ between a run and its continuation: how long it is, what it shows and keeps, on what it computes.
RESUMABLE = {
    "data": {"num_workers", "worker_timeout", "bad_video_limit", "bad_video_minimum", "bad_video"}
    | {"eval_data", "eval_split", "max_eval_samples"},
    "method": {"word_cache"},
    "model": {"compile", "gradient_checkpointing", "attn_implementation"},
    "optimization": {"epochs", "max_steps"},
    "run": {item.name for item in dataclasses.fields(RunArguments)} - {"seed", "mixed_precision", "best_metric"},
    "probe": {item.name for item in dataclasses.fields(ProbeArguments)},
}
_FIELD_GROUP: dict[str, str] = {
    item.name: group for group, group_class in GROUPS.items() for item in dataclasses.fields(group_class)
}


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
            elif name.startswith("no_") and name not in _FIELD_GROUP:
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
    Set plain (`learning_rate`) and dotted (`run.seed`, `config.hidden_size`) names over nested values. A plain name
    that no shared group has is the method's.
    """
    nested: dict[str, Any] = {}
    for name, value in overrides.items():
        path = name.split(".")
        if path == ["method"]:
            path = ["method", "name"]
        elif len(path) == 1 or path[0] in _FIELD_GROUP and path[0] not in GROUPS:
            path = [_FIELD_GROUP.get(path[0], "method"), *path]
        elif path[0] in GROUPS and path[0] in _FIELD_GROUP and path[1] not in _fields_of(path[0]):
            path = [_FIELD_GROUP[path[0]], *path]
        elif path[0] not in (*GROUPS, "method"):
            raise ValueError(f"Unknown field `{name}`{suggestion(path[0], [*GROUPS, *_FIELD_GROUP])}")
        target = nested
        for part in path[:-1]:
            target = target.setdefault(part, {})
        target[path[-1]] = value
    return _deep_update(values, nested)


def _fields_of(group: str) -> list[str]:
    return [item.name for item in dataclasses.fields(GROUPS[group])]


def _deep_update(values: Mapping[str, Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in updates.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            value = _deep_update(merged[name], value)
        merged[name] = value
    return merged


def build_group(group_class: type, members: Mapping[str, Any], group: str) -> Any:
    """
    Build a group of arguments from values as a recipe or a flag gives them.

    Args:
        group_class (`type`):
            The dataclass, its fields made by [`option`].
        members (`Mapping[str, Any]`):
            Names and values; words are cast to the annotated type.
        group (`str`):
            How an error calls the group.

    Raises:
        ValueError: If there is no such field, or the value is of the wrong type or outside its range.
    """
    hints = typing.get_type_hints(group_class)
    arguments = {}
    for name, value in members.items():
        if name not in hints:
            raise ValueError(f"Unknown field `{name}` in {group}{suggestion(name, [*hints, *_FIELD_GROUP])}")
        arguments[name] = _cast(name, value, hints[name])
    return group_class(**arguments)


def suggestion(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, else all of them."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; known are {', '.join(sorted(set(known)))}"


def _cast(name: str, value: Any, hint: Any) -> Any:
    """Turn a YAML value or a command-line word into the annotated type, or say what was expected."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or isinstance(value, str) and value.lower() in ("none", "null"):
            return None
        return _cast(name, value, next(member for member in members if member is not type(None)))
    if origin is Literal:
        if value is False and "no" in members:  # YAML reads a bare `no` as false
            value = "no"
        if value not in members:
            raise ValueError(f"`{name}` must be one of {', '.join(members)}, got {value!r}")
        return value
    if origin is list:
        items = yaml.safe_load(value if value.startswith("[") else f"[{value}]") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError(f"`{name}` must be a list, got {value!r}")
        return [_cast(name, item, members[0]) for item in items]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"`{name}` must hold names and values, got {value!r}")
        return {key: _open_value(item) for key, item in value.items()}
    return _cast_scalar(name, value, hint)


def _cast_scalar(name: str, value: Any, hint: type) -> Any:
    if hint is str:
        return str(value)
    if hint is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if hint is float and number == number:
            return number
        if hint is int and number == number and number == int(number):
            return int(number)
    raise ValueError(f"`{name}` must be {_type_name(hint)}, got {value!r}")


def _open_value(value: Any) -> Any:
    """A value of an open field (`config`, `processor`) given as a word: numbers, lists and booleans are meant."""
    if not isinstance(value, str):
        return value
    try:
        return float(value) if "e" in value.lower() and float(value) else yaml.safe_load(value)
    except ValueError:
        return yaml.safe_load(value)


def _type_name(hint: Any) -> str:
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(members)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if member is type(None) else _type_name(member) for member in members)
    if origin is list:
        return f"list of {_type_name(members[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, "names and values")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise a `ValueError` unless `value` lies between `low` and `high`."""
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be between {low} and {high}, got {value}")


def check_minimum(arguments: Any, **minimums: float) -> None:
    """Raise a `ValueError` if a field of `arguments` is below its minimum; `None` is allowed."""
    for name, minimum in minimums.items():
        value = getattr(arguments, name)
        if value is not None and value < minimum:
            raise ValueError(f"`{name}` must be at least {minimum}, got {value}")
