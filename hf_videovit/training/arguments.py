"""A training run as data: what a recipe (YAML) states and what a flag overrides, checked field by field."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union

import yaml


def _option(default: Any, help: str) -> Any:
    """A dataclass field with the sentence that `--help` prints."""
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class ModelArguments:
    """Which model is trained: a checkpoint to start from, or a configuration to start from scratch."""

    checkpoint: str | None = _option(None, "folder or Hub id to start from (weights, config, processor)")
    model_type: str = _option("videomae_v2", "family of a model from scratch")
    size: str | None = _option(None, "published size of a model from scratch, such as small or base")
    image_model: str | None = _option(
        None,
        "image model to start from: folder, file or Hub id (CLIP's for uniformer_v2, a UniFormer's for uniformer)",
    )
    needs_checkpoint: bool = _option(False, "refuse to start from scratch: the recipe goes on from a trained model")
    tokenizer: str | None = _option(
        None, "frozen tokenizer whose words are predicted (BEVT): folder or Hub id of a FlavaImageCodebook"
    )
    teacher: str | None = _option(None, "folder or Hub id of a classifier whose answers are learnt instead of labels")
    temperature: float = _option(1.0, "softens the answers of teacher and student alike; 1 leaves them as they are")
    config: dict[str, Any] = _option({}, "config fields set over the checkpoint's or size's own")
    processor: dict[str, Any] = _option({}, "processor attributes set over the checkpoint's or family's own")
    head: Literal["auto", "keep", "new"] = _option(
        "auto", "keep the checkpoint's head, start a new one, or keep it exactly when the label names are the same"
    )
    frozen_layers: int | None = _option(
        None, "train neither the embeddings nor so many of the first blocks; 0 freezes the embeddings alone"
    )
    attn_implementation: str | None = _option(None, "eager, sdpa, flash_attention_2, ...; none leaves the choice open")
    gradient_checkpointing: bool = _option(False, "recompute activations in the backward pass: less memory, slower")
    compile: bool = _option(False, "run the task through torch.compile")

    def __post_init__(self) -> None:
        if self.checkpoint is not None and self.image_model is not None:
            raise ValueError(
                f"Give `checkpoint` or `image_model`, not both: got {self.checkpoint!r} and {self.image_model!r}"
            )
        _check_minimum(self, frozen_layers=0)
        if self.temperature <= 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}")


@dataclass
class DataArguments:
    """Where the clips are and how they are read."""

    data: str | None = _option(None, "folder of classes, CSV/JSON/JSONL list, tars, parquet, repo id or hf:// URL")
    eval_data: str | None = _option(None, "a second source for evaluation; none takes the other split of `data`")
    train_split: str = _option("train", "split to train on")
    eval_split: str | None = _option(None, "split to evaluate on; none takes the first of val, validation, test")
    holdout: float = _option(0.2, "share of the training clips held out when there is no split to evaluate on")
    data_config: str | None = _option(None, "configuration name of a data set repo")
    data_root: str | None = _option(None, "folder that the paths of a list are relative to; none is the list's own")
    video_column: str | None = _option(None, "column that holds the video; none looks for the usual names")
    label_column: str | None = _option(None, "column that holds the label; none looks for the usual names")
    label_names: list[str] | None = _option(
        None, "names that labels index; none takes labels.json of the folder, or those in the data, sorted"
    )
    label_separator: str | None = _option(
        None, "what stands between the labels of a clip with several; JSON lists need none"
    )
    shuffle_buffer: int = _option(256, "encoded clips held for shuffling while streaming tars and parquet")
    image_data: str | None = _option(
        None, "image files to train on as well (TubeViT): a folder of classes or a list; batches of both take turns"
    )
    image_split: str = _option("train", "split of image_data to train on, where it has splits")
    image_ratio: float = _option(1.0, "batches of images for each batch of videos")
    image_batch_size: int | None = _option(None, "images in a batch; none takes batch_size")
    image_loss_weight: float = _option(1.0, "factor of the images' loss")
    word_cache: str | None = _option(None, "folder that keeps the tokenizer's words (BEVT), for later epochs and runs")
    word_copies: int = _option(
        4, "augmented copies of each sample that epochs take in turn where words are kept; 1 is the same crop always"
    )
    max_train_samples: int | None = _option(None, "train on this many clips, chosen by the seed")
    max_eval_samples: int | None = _option(None, "evaluate on this many clips, chosen by the seed")
    num_workers: int = _option(2, "processes that decode, for each training process")
    prefetch_batches: int = _option(2, "batches that each worker keeps ready")
    worker_timeout: float = _option(300.0, "seconds without a batch after which a worker counts as hung")
    bad_video: Literal["skip", "raise"] = _option("skip", "what an unreadable training video does")
    bad_video_limit: float = _option(0.05, "share of unreadable videos that stops the run")
    bad_video_minimum: int = _option(20, "number of clips read before that share is judged")

    def __post_init__(self) -> None:
        _check_range("holdout", self.holdout, 0.0, 0.9)
        _check_range("bad_video_limit", self.bad_video_limit, 0.0, 1.0)
        _check_minimum(self, shuffle_buffer=1, num_workers=0, prefetch_batches=1, bad_video_minimum=1)
        _check_minimum(self, max_train_samples=1, max_eval_samples=1, image_batch_size=1, image_loss_weight=0)
        _check_minimum(self, word_copies=1)
        if self.image_ratio <= 0:
            raise ValueError(f"`image_ratio` must be above 0, got {self.image_ratio}")


@dataclass
class AugmentationArguments:
    """What happens to a training clip; every draw is one for all frames of the clip."""

    crop: Literal["area", "multi_scale", "short_side", "center"] = _option(
        "area",
        "random crop by area and ratio; the fixed places and sides of VideoMAE V2's pretraining; or anywhere or about "
        "the middle, after the short side was resized to a random length",
    )
    crop_short_side: list[int] = _option([256, 320], "shortest and longest such length, in pixels")
    crop_shift: int = _option(0, "how far from the middle `center` may lie along either side, in pixels")
    image_jitter: float = _option(
        0.0, "largest change of brightness, contrast and saturation of the images that pretraining sees beside clips"
    )
    num_sample: int = _option(1, "augmented copies of each decoded clip, all in the batch")
    crop_scale: list[float] = _option([0.08, 1.0], "area of the random crop, as a share of the frame")
    crop_ratio: list[float] = _option([0.75, 4 / 3], "width over height of the random crop")
    flip: float = _option(0.0, "probability of mirroring; leave at 0 where labels tell left from right")
    rand_augment_ops: int = _option(0, "RandAugment operations a clip; 0 is off")
    rand_augment_magnitude: int = _option(7, "RandAugment magnitude, 0 to 10")
    color_jitter: list[float] = _option(
        [], "largest changes of brightness, contrast, saturation and hue; empty is off"
    )
    color_jitter_probability: float = _option(0.8, "probability of that jitter")
    grayscale: float = _option(0.0, "probability of taking the colours away")
    blur: list[float] = _option([0.0], "probability of blurring; two numbers: of the short and of the long clip")
    blur_sigma: list[float] = _option([0.1, 2.0], "weakest and strongest blur, in pixels")
    solarize: list[float] = _option([0.0], "probability of inverting bright pixels; one number or two, as for blur")
    random_erasing: float = _option(0.0, "probability of erasing one box, the same in all frames")
    mixup: float = _option(0.0, "alpha of mixup; 0 is off")
    cutmix: float = _option(0.0, "alpha of cutmix; 0 is off")
    mix_probability: float = _option(1.0, "probability that a batch is mixed at all")
    mix_switch: float = _option(0.5, "probability of cutmix where both are on")
    label_smoothing: float = _option(0.0, "share of the target spread over all labels")
    flip_labels: Literal["alike", "any"] = _option(
        "alike", "mirror only where left and right make no difference to the labels' names, or always as `flip` says"
    )
    augment_on_device: bool = _option(
        False, "workers only decode and shrink; the accelerator crops, flips and the like, clip by clip"
    )
    device_area: int | None = _option(
        None, "pixels of a frame that go to the accelerator then; larger frames are shrunk; none takes twice the crop"
    )

    def __post_init__(self) -> None:
        _check_minimum(self, device_area=1)
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
                _check_range(name, value, 0.0, 1.0)
        for name in (
            "flip",
            "grayscale",
            "color_jitter_probability",
            "random_erasing",
            "mix_probability",
            "mix_switch",
            "label_smoothing",
        ):
            _check_range(name, getattr(self, name), 0.0, 1.0)
        _check_minimum(self, num_sample=1, rand_augment_ops=0, mixup=0, cutmix=0, crop_shift=0)
        _check_range("rand_augment_magnitude", self.rand_augment_magnitude, 0, 10)
        _check_range("image_jitter", self.image_jitter, 0.0, 1.0)
        for name in ("crop_scale", "crop_ratio", "crop_short_side", "blur_sigma"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"`{name}` must be two rising positive numbers, got {bounds}")


RULE_FIELDS = {"match", "lr_scale", "decay", "constant"}


@dataclass
class OptimizationArguments:
    """Optimiser, schedule and batch."""

    epochs: int = _option(10, "passes over the training clips")
    max_steps: int | None = _option(None, "optimiser steps; overrides epochs, required where clips cannot be counted")
    batch_size: int = _option(8, "clips of one process in one forward pass")
    accumulation: int = _option(1, "forward passes an optimiser step")
    drop_last: bool = _option(False, "leave out the clips that do not fill the last batch of an epoch")
    learning_rate: float = _option(1e-3, "peak learning rate, before the batch rule of `learning_rate_batch`")
    learning_rate_batch: int | None = _option(
        None,
        "scale learning rates by batch x processes x accumulation / this (num_sample not counted; officially 256)",
    )
    min_learning_rate: float = _option(1e-6, "learning rate at the end of the cosine, scaled by the same rule")
    warmup_epochs: float = _option(0.0, "epochs of linear warm-up from 0")
    warmup_steps: int | None = _option(None, "steps of linear warm-up; overrides warmup_epochs")
    peak_after_warmup: bool = _option(
        False, "reach the peak on the step after the warm-up (MoCo v3) instead of on its last (VideoMAE)"
    )
    weight_decay: float = _option(0.05, "decoupled weight decay; none on biases, norms and the model's own list")
    betas: list[float] = _option([0.9, 0.999], "AdamW betas")
    eps: float = _option(1e-8, "AdamW epsilon")
    layer_decay: float = _option(1.0, "factor of the learning rate from each layer to the one before it")
    parameter_rules: list[dict[str, Any]] = _option(
        [],
        "exceptions to decay, layer_decay and the cosine: {match: regular expression, lr_scale: factor, decay: true "
        "or false, constant: true to stay at the peak after the warm-up}",
    )
    clip_grad: float | None = _option(None, "largest norm of the gradient")
    ema_decay: float | None = _option(None, "keep an exponential moving average of the weights, evaluate and save it")

    def __post_init__(self) -> None:
        _check_minimum(self, epochs=1, max_steps=1, batch_size=1, accumulation=1, warmup_steps=0, warmup_epochs=0)
        _check_minimum(self, learning_rate=0, min_learning_rate=0, weight_decay=0, learning_rate_batch=1)
        _check_range("layer_decay", self.layer_decay, 1e-6, 1.0)
        if self.ema_decay is not None:
            _check_range("ema_decay", self.ema_decay, 0.0, 1.0)
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

    output_dir: str = _option("output", "folder that receives the model, its card and the run's records")
    seed: int = _option(0, "seed of weights, order, augmentation and drop path")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = _option(
        None, "precision of the forward pass; none leaves it to `accelerate launch`"
    )
    cpu: bool = _option(False, "stay on the CPU although there is an accelerator")
    log_every: int = _option(10, "optimiser steps between two lines of the log")
    eval_every: int = _option(1, "epochs between two evaluations; 0 evaluates once, at the end")
    eval_batch_size: int | None = _option(None, "videos in one evaluation pass; none takes batch_size")
    save_every: int = _option(1, "epochs between two checkpoints; 0 keeps none")
    save_steps: int | None = _option(None, "optimiser steps between two checkpoints, besides save_every")
    keep_checkpoints: int = _option(2, "how many of the latest checkpoints stay on disk")
    resume: bool = _option(False, "go on from the latest checkpoint in output_dir, if there is one")
    overwrite: bool = _option(False, "start over in an output_dir with checkpoints of another run: they are deleted")
    best_metric: str | None = _option(
        None, "metric of the validation that decides which weights are saved; none takes its first (top1, explained)"
    )
    keep_best: bool = _option(False, "save the best weights of the validations instead of the last")
    patience: int | None = _option(None, "validations in a row without a new best one that end the run early")
    nonfinite_limit: int = _option(3, "steps in a row with a non-finite gradient that stop the run")
    progress: bool = _option(True, "show a live table, or a line a log entry where there is no terminal")
    trackers: list[str] = _option([], "experiment trackers to write to: tensorboard, trackio, wandb, ...")
    tracker_project: str = _option("hf_videovit", "the trackers' name for a group of runs")
    curves: bool = _option(True, "draw the curves of loss and metrics at the end, as logs/curves.png")
    push_to_hub: str | None = _option(None, "repo on the Hub, as owner/name, that the result is published to")
    hub_private: bool = _option(False, "make that repo private, if it is new")
    hub_with_code: bool = _option(False, "publish the model's code too, for trust_remote_code")
    picture_every: int = _option(10, "epochs between two pictures of what pretraining reconstructs; 0 draws the last")

    def __post_init__(self) -> None:
        _check_minimum(self, patience=1, picture_every=0)
        _check_minimum(self, log_every=1, eval_every=0, eval_batch_size=1, save_every=0, save_steps=1)
        _check_minimum(self, keep_checkpoints=1, nonfinite_limit=1, seed=0)


ProbeName = Literal["knn", "linear", "attentive"]


@dataclass
class ProbeArguments:
    """What frozen features can tell apart; on labelled clips that the training of the features does not look at."""

    probe: list[ProbeName] = _option([], "probes of the features: knn, linear, attentive")
    probe_data: str | None = _option(None, "labelled clips for them; none takes `data`, which then must have labels")
    probe_every: int = _option(1, "epochs between two probings, 0 for none but those by steps")
    probe_steps: int | None = _option(None, "optimiser steps between two probings, besides probe_every")
    probe_max_samples: int | None = _option(None, "learn from at most this many clips, chosen by the seed")
    probe_neighbours: int = _option(20, "clips that vote in knn")
    probe_temperature: float = _option(0.07, "how much more the nearest of them count; smaller is more")
    probe_epochs: int = _option(20, "passes of the attentive probe over its tokens")
    probe_learning_rate: float = _option(1e-3, "peak learning rate of the attentive probe")
    probe_max_tokens: int = _option(392, "tokens of a clip that the attentive probe sees; more are averaged in runs")

    def __post_init__(self) -> None:
        _check_minimum(self, probe_every=0, probe_steps=1, probe_max_samples=1, probe_neighbours=1, probe_epochs=1)
        _check_minimum(self, probe_max_tokens=1, probe_learning_rate=0)
        if self.probe_temperature <= 0:
            raise ValueError(f"`probe_temperature` must be above 0, got {self.probe_temperature}")


@dataclass
class RunConfig:
    """
    A whole training run. `about` is free text of a recipe (what it reproduces, hardware, cost, expected score,
    departures from the paper) and changes nothing.
    """

    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    augmentation: AugmentationArguments = field(default_factory=AugmentationArguments)
    optimization: OptimizationArguments = field(default_factory=OptimizationArguments)
    run: RunArguments = field(default_factory=RunArguments)
    probe: ProbeArguments = field(default_factory=ProbeArguments)
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """
        Build a run from nested values, the form of a recipe.

        Args:
            values (`Mapping[str, Any]`):
                `{"optimization": {"learning_rate": 1e-3}, ...}`; anything left out keeps its default.

        Returns:
            `RunConfig`: the run. A name that no group has raises a `ValueError` with the nearest right one.
        """
        groups = {item.name: item for item in dataclasses.fields(cls)}
        arguments: dict[str, Any] = {}
        for group, members in values.items():
            if group not in groups:
                raise ValueError(f"Unknown group `{group}` in a recipe{_suggestion(group, groups)}")
            if not isinstance(members, Mapping):
                raise ValueError(f"Group `{group}` of a recipe must hold fields and values, got {members!r}")
            if group == "about":
                arguments[group] = dict(members)
            else:
                arguments[group] = _build_group(group, members)
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
        for group in _GROUPS:
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


def describe_arguments() -> str:
    """Every flag with its type, default and meaning, one a line: the text of `--help`."""
    lines = ["--recipe FILE  a YAML recipe; flags override it"]
    for group, group_class in _GROUPS.items():
        lines.append(f"\n{group}:")
        hints = typing.get_type_hints(group_class)
        defaults = group_class()
        for item in dataclasses.fields(group_class):
            default = getattr(defaults, item.name)
            lines.append(
                f"  --{item.name} ({_type_name(hints[item.name])}, default {default}): {item.metadata['help']}"
            )
    return "\n".join(lines)


_GROUPS: dict[str, type] = {
    "model": ModelArguments,
    "data": DataArguments,
    "augmentation": AugmentationArguments,
    "optimization": OptimizationArguments,
    "run": RunArguments,
    "probe": ProbeArguments,
}
# What may differ between a run and its continuation: how long it is, what it shows and keeps, on what it computes.
RESUMABLE = {
    "data": {"num_workers", "prefetch_batches", "worker_timeout", "bad_video_limit", "bad_video_minimum", "bad_video"}
    | {"eval_data", "eval_split", "max_eval_samples"},
    "model": {"compile", "gradient_checkpointing", "attn_implementation"},
    "optimization": {"epochs", "max_steps"},
    "run": {item.name for item in dataclasses.fields(RunArguments)} - {"seed", "mixed_precision", "best_metric"},
    "probe": {item.name for item in dataclasses.fields(ProbeArguments)},
}
_FIELD_GROUP: dict[str, str] = {
    item.name: group for group, group_class in _GROUPS.items() for item in dataclasses.fields(group_class)
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
    """Set plain (`learning_rate`) and dotted (`run.seed`, `config.hidden_size`) names over nested values."""
    nested: dict[str, Any] = {}
    for name, value in overrides.items():
        path = name.split(".")
        if len(path) == 1 or path[0] in _FIELD_GROUP and path[0] not in _GROUPS:
            path = [_group_of(path[0]), *path]
        elif path[0] in _GROUPS and path[0] in _FIELD_GROUP and path[1] not in _fields_of(path[0]):
            path = [_FIELD_GROUP[path[0]], *path]
        elif path[0] not in _GROUPS:
            raise ValueError(f"Unknown field `{name}`{_suggestion(path[0], [*_GROUPS, *_FIELD_GROUP])}")
        target = nested
        for part in path[:-1]:
            target = target.setdefault(part, {})
        target[path[-1]] = value
    return _deep_update(values, nested)


def _fields_of(group: str) -> list[str]:
    return [item.name for item in dataclasses.fields(_GROUPS[group])]


def _deep_update(values: Mapping[str, Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in updates.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            value = _deep_update(merged[name], value)
        merged[name] = value
    return merged


def _group_of(name: str) -> str:
    if name not in _FIELD_GROUP:
        raise ValueError(f"Unknown field `{name}`{_suggestion(name, _FIELD_GROUP)}")
    return _FIELD_GROUP[name]


def _build_group(group: str, members: Mapping[str, Any]) -> Any:
    group_class = _GROUPS[group]
    hints = typing.get_type_hints(group_class)
    arguments = {}
    for name, value in members.items():
        if name not in hints:
            raise ValueError(f"Unknown field `{name}` in group `{group}`{_suggestion(name, [*hints, *_FIELD_GROUP])}")
        arguments[name] = _cast(name, value, hints[name])
    return group_class(**arguments)


def _suggestion(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; known are {', '.join(sorted(known))}"


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


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be between {low} and {high}, got {value}")


def _check_minimum(arguments: Any, **minimums: float) -> None:
    for name, minimum in minimums.items():
        value = getattr(arguments, name)
        if value is not None and value < minimum:
            raise ValueError(f"`{name}` must be at least {minimum}, got {value}")
