"""The choice of the training method of a run. Nothing else in the package makes this choice."""

from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel

from ..arguments import GROUPS, ModelArguments, RunConfig, describe_arguments
from ..building import load_config
from ..fields import suggestion
from .action_detection import ActionDetection
from .classification import Classification, Distillation
from .common import GOALS, Goal, Method, RunResult
from .contrastive import Contrastive
from .end_to_end_localization import EndToEndLocalization
from .image_classification import ImageClassification
from .image_tokenizer import ImageTokenizer
from .joint import JointClassification
from .masked_pixels import MaskedPixels
from .masked_words import MaskedWords
from .object_detection import ObjectDetection
from .pose import Pose
from .running import run
from .semantic_segmentation import SemanticSegmentation
from .temporal_localization import TemporalLocalization


# A run that names no method uses the first one that fits.
METHODS: tuple[type[Method], ...] = (
    JointClassification,
    EndToEndLocalization,
    TemporalLocalization,
    ObjectDetection,
    SemanticSegmentation,
    ImageClassification,
    Distillation,
    Classification,
    Contrastive,
    MaskedWords,
    ImageTokenizer,
    MaskedPixels,
    ActionDetection,
    Pose,
)
COMMANDS = {"classifier": "train", "encoder": "pretrain"}


def choose(config: RunConfig, goal: Goal | None = None, model: PreTrainedModel | None = None) -> type[Method]:
    """
    The training method of a run: the one that `method` names, else the first that fits the model and the fields.

    Args:
        config ([`RunConfig`]):
            The run.
        goal (`str`, *optional*):
            `"classifier"` or `"encoder"`. Defaults to that of the named method, or to `"classifier"`.
        model (`PreTrainedModel`, *optional*):
            The model to train, if the run does not build it.

    Returns:
        `type[Method]`

    Raises:
        ValueError: there is no method of that name, it has another goal, or it does not train models of that type.
    """
    if goal is not None and goal not in GOALS:
        raise ValueError(f"`goal` must be one of {', '.join(GOALS)}, got {goal!r}")
    name = config.method.get("name")
    model_config = _model_config(config.model) if model is None else model.config.to_dict()
    if name is None:
        wanted = goal or "classifier"
        for method in METHODS:
            if method.goal == wanted and method.fits(config, model_config):
                return method
        raise ValueError(f"`{COMMANDS[wanted]}` has no method for models of type {model_config['model_type']!r}")
    named = {method.name: method for method in METHODS}
    if name not in named:
        raise ValueError(f"Unknown `method` {name!r}{suggestion(str(name), named)}")
    if goal is not None and named[name].goal != goal:
        raise ValueError(f"`method` {name!r} is a method of `{COMMANDS[named[name].goal]}`, not of `{COMMANDS[goal]}`")
    allowed = named[name].model_types
    if allowed and model_config["model_type"] not in allowed:
        raise ValueError(
            f"`method` {name!r} trains models of type {', '.join(allowed)}, got {model_config['model_type']!r}"
        )
    return named[name]


def method_of(config: RunConfig, goal: Goal | None = None, **given: Any) -> Method:
    """
    The training method of a run, ready for training, a plan or a preview.

    Args:
        config ([`RunConfig`]):
            The run.
        goal (`str`, *optional*):
            See [`choose`].
        given:
            `model`, `processor`, `train_source` and `eval_source`, see [`Method`]; `tokenizer`, see [`MaskedWords`].

    Returns:
        [`Method`]

    Raises:
        ValueError: a field is set that the method does not read.
    """
    return choose(config, goal, given.get("model"))(config, **given)


def finetune(config: RunConfig, *, accelerator: Accelerator | None = None, **given: Any) -> RunResult:
    """
    Train a classifier, evaluate it and save it.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`, *optional*):
            Processes and devices. Built from `config.run` by default.
        given:
            `model`, `processor`, `train_source` and `eval_source`, see [`Method`].

    Returns:
        [`RunResult`]: `output_dir` holds config, weights, processor, `results.json` and `run.yaml`, and the run's
        records in `checkpoints` and `logs`.

    Raises:
        ValueError: a field is set that the method does not read, or the data has no labels.
    """
    return run(method_of(config, "classifier", **given), accelerator)


def pretrain(config: RunConfig, *, accelerator: Accelerator | None = None, **given: Any) -> RunResult:
    """
    Pretrain an encoder without labels by its family's method, and save it.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`, *optional*):
            Processes and devices. Built from `config.run` by default.
        given:
            `model`, `processor`, `train_source` and `eval_source`, see [`Method`]; `tokenizer`, see [`MaskedWords`].

    Returns:
        [`RunResult`]: `output_dir` is the `checkpoint` of a fine-tuning run; it holds config, weights, processor,
        `run.yaml` and, for some methods, a picture, and the run's records in `checkpoints` and `logs`.

    Raises:
        ValueError: a field is set that the method does not read.
    """
    return run(method_of(config, "encoder", **given), accelerator)


def describe_fields() -> str:
    """All fields of a run, with those of each method under its name, as printed by `--help` and `--fields`."""
    own = {f"method: {method.name}": method.arguments_class for method in METHODS}
    return describe_arguments(GROUPS | own)


def _model_config(arguments: ModelArguments) -> dict[str, Any]:
    if arguments.checkpoint is None:
        return {"model_type": arguments.model_type} | arguments.config
    return load_config(arguments).to_dict()


__all__ = ["METHODS", "choose", "describe_fields", "finetune", "method_of", "pretrain"]
