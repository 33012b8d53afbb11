"""Action detection: what each person on a key-frame does."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torchvision.utils import draw_bounding_boxes
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ...auto import AutoModelForActionDetection
from ...files import loading
from ...modeling.configuration_action_detection import ActionDetectionConfig
from ...modeling.video_processing_key_frames import KeyFrameVideoProcessor
from ..arguments import AugmentationArguments, ModelArguments, RunConfig
from ..building import (
    MULTI_LABEL,
    attention_options,
    config_from_scratch,
    describe_inputs,
    load_config,
    ready_to_train,
)
from ..data.box_augmentation import BoxAugmentation
from ..data.key_frame_source import KeyFrameClipLoader, KeyFrameSource, find_key_frames, open_key_frames
from ..data.loaders import SampleLoader
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource
from ..data.streaming import Batch
from ..data.streams import keep_directions
from ..engine.loop import FitResult
from ..evaluation.action_detection import (
    ActionDetectionResult,
    evaluate_action_detection,
    excluded_keys,
    timestamp_key,
)
from ..evaluation.detection_receipts import DetectionClaim
from ..evaluation.held_out import save_training_clips
from ..fields import check_range, option
from ..tasks import ActionDetectionTask, Task
from .common import Method, Rows, RunResult, Sources
from .passes import Pass, example_pixels, model_pass
from .previewing import PreviewedCopies


logger = logging.get_logger(__name__)

OTHER_AUGMENTATION = tuple(one.name for one in dataclasses.fields(AugmentationArguments) if one.name != "flip")
OTHER_DATA = ("holdout", "data_config", "video_column", "label_column", "label_separator", "shuffle_buffer")
WHOLE = 1000  # shares of a box by which it grows over the whole frame
STILL = 1_000_000.0  # frames a second, so that the frames around a key-frame are all the key-frame
PLAN_BOXES = 4  # people in a clip of a plan


@dataclass
class ActionDetectionArguments:
    """
    Arguments of action detection.

    Raises:
        ValueError: a value is out of range.
    """

    people: str | None = option(
        None, "JSON lines with the detected people of the evaluation; none means annotated boxes, an upper bound"
    )
    person_threshold: float = option(0.8, "lowest score of a detected person")
    train_excluded: str | None = option(None, "csv of video,timestamp of training key-frames that are left out")
    eval_excluded: str | None = option(None, "csv of video,timestamp of evaluation key-frames that are left out")
    offset: float = option(0.0, "timestamp of the start of each video in these files, in seconds; 900 for AVA's cuts")
    metric: Literal["ava", "mmaction2"] = option("ava", "AVA's metric, or mmaction2's variant")
    one_label: bool = option(False, "a person has exactly one label (softmax) instead of any number (sigmoid)")
    control: Literal["none", "whole_frame", "one_frame"] = option(
        "none",
        "train a model that cannot solve the task as a control: whole_frame reads the whole frame for every box, "
        "one_frame repeats the key-frame",
    )
    hue: int = option(10, "largest change of the hue, in steps of 2 degrees")
    saturation: int = option(26, "largest change of the saturation, of 255")
    value: int = option(26, "largest change of the value, of 255")
    flip_labels: Literal["alike", "any"] = option(
        "alike", "alike: mirror only if no label name differs from another in left and right; any: as set by `flip`"
    )

    def __post_init__(self) -> None:
        check_range("person_threshold", self.person_threshold, 0.0, 1.0)
        check_range("hue", self.hue, 0, 90)
        for name in ("saturation", "value"):
            check_range(name, getattr(self, name), 0, 255)


class ActionDetection(Method):
    """
    Train an action detector on key-frames. `data` is a file of key-frames (JSON lines, see [`read_key_frames`]), or a
    folder with one for each split; `data_root` is the folder of the videos.

    Args:
        config ([`RunConfig`]):
            The run.
        given:
            See [`Method`].
    """

    name = "action_detection"
    goal = "classifier"
    arguments_class = ActionDetectionArguments
    unread = ("picture_every", "image_model", "probe", *OTHER_DATA, *OTHER_AUGMENTATION)

    train_source: KeyFrameSource  # type: ignore[assignment]
    eval_source: KeyFrameSource | None  # type: ignore[assignment]
    processor: KeyFrameVideoProcessor  # type: ignore[assignment]

    def switched_off(self) -> dict[str, str]:
        """See [`Method.switched_off`]."""
        off = super().switched_off()
        if self.arguments.people is None:
            off["person_threshold"] = "`people` is needed for it"
        return off

    @classmethod
    def fits(cls, config: RunConfig, model_config: dict[str, Any]) -> bool:
        """False: a run names this method. See [`Method.fits`]."""
        return False

    def open_sources(self) -> Sources:
        """
        Open the key-frames. Those without people are left out of the training.

        Raises:
            ValueError: `data` is missing, or a file is not one of key-frames.
        """
        data, own, seed = self.config.data, self.arguments, self.config.run.seed
        if data.data is None:
            raise ValueError("`data` is needed: a file of key-frames (JSON lines), or a folder with train.jsonl")
        train = self._without(self._open(find_key_frames(data.data, data.train_split)), own.train_excluded)
        peopled = train.of_rows([row for row in train.rows if len(row.boxes)])
        if len(peopled.rows) < len(train.rows):
            peopled.remarks += (
                f"{len(train.rows) - len(peopled.rows)} training key-frames without people are left out",
            )
        if data.max_train_samples is not None:
            peopled = peopled.sample(data.max_train_samples, seed)
        found = find_key_frames(data.eval_data or data.data, "train" if data.eval_data else data.eval_split)
        evaluated = None if found is None else self._open(found).with_label_names(train.label_names)
        if evaluated is not None and data.max_eval_samples is not None:
            evaluated = evaluated.sample(data.max_eval_samples, seed)
        return peopled, evaluated

    def _open(self, path: Any) -> KeyFrameSource:
        data = self.config.data
        return open_key_frames(path, data.data_root, data.label_names)

    def _without(self, source: KeyFrameSource, excluded: str | None) -> KeyFrameSource:
        listed, offset = excluded_keys(excluded), self.arguments.offset
        return source.of_rows([row for row in source.rows if timestamp_key(row, offset) not in listed])

    def check_sources(self, train_source: VideoSource, eval_source: VideoSource | None) -> None:
        """
        Refuse key-frames that nothing can be learnt from.

        Args:
            train_source ([`KeyFrameSource`]):
                Training key-frames.
            eval_source ([`KeyFrameSource`] or `None`):
                Evaluation key-frames.

        Raises:
            ValueError: there are no labels, or the sources are not key-frames.
        """
        super().check_sources(train_source, eval_source)
        for source in (train_source, eval_source):
            if source is not None and not isinstance(source, KeyFrameSource):
                raise ValueError(f"`data` must be key-frames for {self.name}, got a {type(source).__name__}")
        if not any(names for row in cast(KeyFrameSource, train_source).rows for names in row.labels):
            raise ValueError(f"`data` {self.config.data.data!r} has no labels")
        if self.arguments.people is None and eval_source is not None:
            logger.warning("`people` is not set: annotated boxes are evaluated, which gives an upper bound.")

    def build(self) -> tuple[PreTrainedModel, ClipProcessor]:
        """See [`build_detector`]."""
        own = self.arguments
        return build_detector(self.config.model, self.train_source.label_names, own.one_label, own.control)

    def describe(self) -> tuple[PreTrainedConfig, ClipProcessor]:
        """See [`describe_detector`]."""
        return describe_detector(self.config.model, self.arguments.control)

    def begin_model(self) -> None:
        """Match the labels of key-frames and model as well. See [`Method.begin_model`]."""
        super().begin_model()
        config = self.model.config
        self.train_source = self.train_source.with_label_names([config.id2label[i] for i in range(config.num_labels)])
        if self.accelerator.is_main_process:
            self._list_missing()

    def _list_missing(self) -> None:
        """Write the videos that do not exist to `logs/missing_videos.json`."""
        named = {"train": self.train_source.missing, "eval": self.eval_source.missing if self.eval_source else {}}
        if any(named.values()):
            folder = self.output_dir / "logs"
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(named, indent=1, ensure_ascii=False)
            (folder / "missing_videos.json").write_text(text + "\n", encoding="utf-8")
            for split, missing in named.items():
                if missing:
                    logger.warning(
                        f"{len(missing)} videos of `{split}` with {sum(missing.values())} key-frames do not exist; "
                        f"they are left out and listed in {folder / 'missing_videos.json'}"
                    )

    def task(self) -> Task:
        """The loss of the boxes."""
        return ActionDetectionTask(self.model)

    def loader(self) -> SampleLoader:
        """The function that reads an augmented clip with its people."""
        own, names, flip = self.arguments, self.train_source.label_names, self.config.augmentation
        if own.flip_labels == "alike":
            flip = keep_directions(flip, names)
        augmentation = BoxAugmentation(
            (self.processor.crop_size["height"], self.processor.crop_size["width"]),
            own.hue,
            own.saturation,
            own.value,
            flip.flip,
            self.processor.box_convention,
        )
        config = self.model.config if hasattr(self, "model") else self.describe()[0]
        head = config.detection_config or ActionDetectionConfig()
        return KeyFrameClipLoader(self.processor, augmentation, names, self.config.run.seed, head.max_boxes)

    def prepare_batch(self, rows: Rows, device: torch.device) -> Rows:
        """Normalise, and leave out places that no clip of the batch has a box for. See [`Method.prepare_batch`]."""
        longest = max(int(rows["box_mask"].sum(dim=1).max()), 1)
        batch = {name: rows[name][:, :longest] for name in ("boxes", "box_mask", "labels")}
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        pixel_values = rows["pixel_values"].to(device, non_blocking=True)
        if self.model.config.problem_type != MULTI_LABEL:
            batch["labels"] = batch["labels"] / batch["labels"].sum(dim=-1, keepdim=True).clamp(min=1)
        return {"pixel_values": self.processor.normalize_clips(pixel_values)} | batch

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """AVA's metric. See [`Method.validate`]."""
        result = self.evaluate_detector(model, validation=True)
        return result.metrics | {"num_failed": len(result.failed)}

    def evaluate_detector(self, model: PreTrainedModel, validation: bool = False) -> ActionDetectionResult:
        """
        Evaluate a detector on the evaluation key-frames.

        Args:
            model (`PreTrainedModel`):
                The detector.
            validation (`bool`, *optional*, defaults to `False`):
                Whether to use the precision of training and to show no progress.

        Returns:
            [`ActionDetectionResult`]
        """
        assert self.eval_source is not None
        own, data = self.arguments, self.config.data
        people = None if own.people is None else self._open(own.people)
        if people is not None and data.max_eval_samples is not None:
            people = people.on_key_frames_of(self.eval_source)
        return evaluate_action_detection(
            model,
            self.processor,
            self.eval_source,
            people=people,
            person_threshold=own.person_threshold,
            excluded=own.eval_excluded,
            offset=own.offset,
            metric=own.metric,
            batch_size=self.config.eval_batch_size,
            num_workers=data.num_workers,
            accelerator=self.accelerator,
            mixed_precision=self.accelerator.mixed_precision if validation else None,
            timeout=data.worker_timeout,
            progress=self.config.run.progress and not validation,
        )

    def claim(self) -> DetectionClaim:
        """
        Data and settings of the evaluation, for `results.json`.

        Returns:
            [`DetectionClaim`]
        """
        own, data = self.arguments, self.config.data
        found = find_key_frames(str(data.eval_data or data.data), "train" if data.eval_data else data.eval_split)
        return DetectionClaim(
            str(found),
            data.data_root,
            own.people,
            own.person_threshold,
            own.eval_excluded,
            own.offset,
            data.max_eval_samples,
            self.config.run.seed,
        )

    def finish(self, fitted: FitResult) -> RunResult:
        """Evaluate, and save a folder that is ready for the Hub. See [`Method.finish`]."""
        evaluation = None if self.eval_source is None else self.evaluate_detector(fitted.model)
        if self.accelerator.is_main_process:
            self.save(fitted.model, self.processor)
            save_training_clips(self.train_source, self.output_dir)
            if evaluation is not None:
                evaluation.save(self.output_dir / "results.json", **dataclasses.asdict(self.claim()))
                evaluation.save_csv(self.output_dir / "predictions.csv", self.arguments.offset)
        self.accelerator.wait_for_everyone()
        id2label = fitted.model.config.id2label
        facts = self.facts(fitted) | {
            "label_names": [id2label[index] for index in range(fitted.model.config.num_labels)],
            "num_eval_videos": None if evaluation is None else len(evaluation.rows),
            "metrics": {} if evaluation is None else evaluation.metrics,
            "protocol": {} if evaluation is None else evaluation.protocol,
            "environment": {} if evaluation is None else evaluation.environment,
        }
        return RunResult(fitted.model, self.processor, fitted.history, self.output_dir, facts, evaluation)

    def passes(self, num_labels: int | None = None) -> list[Pass]:
        """The pass of clips with a few boxes. See [`Method.passes`]."""
        config, _ = self.describe()
        if num_labels:
            config.num_labels = num_labels
        clips = self.config.optimization.batch_size
        pixels, boxes = example_pixels(config), torch.zeros(1, PLAN_BOXES, 4, device="meta")
        return [model_pass(AutoModelForActionDetection, config, {"pixel_values": pixels, "boxes": boxes}, clips)]

    def preview_batch(self, batch: Batch) -> PreviewedCopies:
        """Augmented clips with their boxes drawn. See [`Method.preview_batch`]."""
        names, rows = self.train_source.label_names, batch.rows
        clips, targets = [], []
        for clip, boxes, mask, labels in zip(
            *(rows[name] for name in ("pixel_values", "boxes", "box_mask", "labels"))
        ):
            shown = [[names[index] for index in person.nonzero().flatten()] for person in labels[mask]]
            targets.append({name: 1.0 for person in shown for name in person})
            corners = boxes[mask]
            solid = (corners[:, 2:] > corners[:, :2]).all(dim=1)
            clips.append(torch.stack([draw_bounding_boxes(frame, corners[solid], colors="yellow") for frame in clip]))
        return PreviewedCopies(torch.stack(clips), targets)


def describe_detector(
    arguments: ModelArguments, control: str = "none"
) -> tuple[PreTrainedConfig, KeyFrameVideoProcessor]:
    """
    Configuration and processor of the detector that a run starts from. No weights are loaded. The processor of a
    checkpoint with another head keeps its pixels, and takes whole frames, padded to the stride of the model.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint, or a family and size from scratch.
        control (`str`, *optional*, defaults to `"none"`):
            See [`ActionDetectionArguments`].

    Returns:
        `tuple[PreTrainedConfig, KeyFrameVideoProcessor]`
    """
    config, processor = _described(arguments)
    if control == "whole_frame":
        head = config.detection_config
        head.box_enlargement, head.box_jitter = [WHOLE] * 2, [WHOLE, 0, WHOLE, 0]
    elif control == "one_frame":
        processor.sampling_fps = STILL
    return config, processor


def _is_detector(arguments: ModelArguments) -> bool:
    """Whether the checkpoint itself, without the fields of the run, has the head."""
    return arguments.checkpoint is not None and load_config(replace(arguments, config={})).detection_config is not None


def _described(arguments: ModelArguments) -> tuple[PreTrainedConfig, KeyFrameVideoProcessor]:
    config, processor = describe_inputs(arguments)
    if _is_detector(arguments):
        return config, cast(KeyFrameVideoProcessor, processor)
    with torch.device("meta"):
        model: Any = AutoModelForActionDetection.from_config(config)  # sets the family's head
    head = model.config.detection_config
    fields = {
        "do_center_crop": False,
        "pad_multiple": getattr(model, "last_stride", model.feature_stride),
        "box_convention": head.box_convention,
    }
    given = replace(arguments, processor=fields | arguments.processor)
    _, processor = describe_inputs(given)
    config.detection_config = head
    return config, cast(KeyFrameVideoProcessor, processor)


def build_detector(
    arguments: ModelArguments, label_names: Sequence[str], one_label: bool = False, control: str = "none"
) -> tuple[PreTrainedModel, KeyFrameVideoProcessor]:
    """
    Build the detector that a run starts from, and its processor.

    Args:
        arguments ([`ModelArguments`]):
            A checkpoint with any head, or a size from scratch. The head is kept if it is an action detector's with the
            same labels.
        label_names (`Sequence[str]`):
            Names of the data's labels.
        one_label (`bool`, *optional*, defaults to `False`):
            Whether a person has exactly one label.
        control (`str`, *optional*, defaults to `"none"`):
            See [`ActionDetectionArguments`].

    Returns:
        `tuple[PreTrainedModel, KeyFrameVideoProcessor]`: the model in float32, and its processor.

    Raises:
        ValueError: the checkpoint does not fit the arguments or the data.
    """
    if arguments.checkpoint is None:
        config_from_scratch(arguments)  # refuses recipes that need a checkpoint
    config, processor = describe_detector(arguments, control)
    theirs = [config.id2label[index] for index in sorted(config.id2label)]
    same = _is_detector(arguments) and set(theirs) == set(label_names)
    keep = arguments.head == "keep" or arguments.head == "auto" and same
    if not keep:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
        config.problem_type = "single_label_classification" if one_label else MULTI_LABEL
    if arguments.checkpoint is None:
        model = AutoModelForActionDetection.from_config(config, **attention_options(arguments))
    else:
        model = _load_detector(arguments, config, keep)
    return ready_to_train(arguments, model), processor


def _load_detector(arguments: ModelArguments, config: PreTrainedConfig, keep: bool) -> PreTrainedModel:
    """A checkpoint as a detector. Its head, and norms that it lacks, start new."""
    with loading("`checkpoint`", str(arguments.checkpoint)):
        model, info = AutoModelForActionDetection.from_pretrained(
            arguments.checkpoint,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=not keep,
            output_loading_info=True,
            **attention_options(arguments),
        )
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    fresh = {name for name in missing if name.startswith("action_head.") and not keep or "norm" in name}
    if missing - fresh:
        raise ValueError(
            f"`checkpoint` {arguments.checkpoint!r} lacks {', '.join(sorted(missing - fresh)[:8])} of "
            f"{type(model).__name__}" + ("; set `head` to new for a new head" if keep else "")
        )
    if not keep:
        model.action_head.load_state_dict(type(model)(config).action_head.state_dict())
    if missing:
        logger.warning(f"New weights, which the checkpoint lacks: {', '.join(sorted(missing))}.")
    if info["unexpected_keys"]:
        logger.warning(f"Weights of the checkpoint that are not used: {', '.join(sorted(info['unexpected_keys']))}.")
    return model


__all__ = ["ActionDetection", "ActionDetectionArguments", "build_detector", "describe_detector"]
