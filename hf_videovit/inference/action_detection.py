"""`pipeline("action-detection")`: what each person in a video does, at key-frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

from ..auto import AutoModelForActionDetection
from ..modeling.video_decoding import decode_video, probe_video
from ..modeling.video_processing_base import is_frames, is_one_video
from ..modeling.video_processing_key_frames import KeyFrameVideoProcessor
from .people import boxes_and_scores, detect_people, link_people, person_detector
from .pipeline import refuse_unknown


TASK = "action-detection"


class ActionDetectionPipeline(Pipeline):
    """
    Actions of the people in a video, at key-frames.

    The clip around each key-frame, the resizing and the boxes' way through it follow the processor saved with the
    checkpoint. People are found by a detector, or their boxes are given. They are numbered from key-frame to key-frame
    by the overlap of their boxes; see [`~inference.people.link_people`].

    Args:
        boxes (`Mapping[float, Any]`, *optional*):
            Boxes of people by key-frame in seconds: `{1.0: [[x1, y1, x2, y2], ...]}` in pixels of the video, or
            `{1.0: {"boxes": ..., "scores": ...}}`. These times are the key-frames.
        person_detector (`str`, `ObjectDetectionPipeline` or callable, *optional*):
            Finds people where no boxes are given: see [`~inference.people.person_detector`].
        every (`float`, *optional*, defaults to 1.0):
            Seconds between key-frames, if boxes are not given.
        person_threshold (`float`, *optional*, defaults to 0.5):
            Lowest score of a detected person. 0.8 in the published AVA scores, whose detector is a Faster R-CNN.
        threshold (`float`, *optional*, defaults to 0.5):
            Lowest score of an action that is returned.
        top_k (`int`, *optional*):
            Largest number of actions for a person.
        batch_size (`int`, *optional*, defaults to 1):
            Clips in a forward pass.

    Raises:
        ValueError: the processor is not that of an action-detection checkpoint, or an argument is not allowed.

    Example:

    ```python
    >>> import hf_videovit
    >>> from transformers import pipeline

    >>> detect = pipeline("action-detection", model="path/to/model")
    >>> detect("clip.mp4", boxes={1.0: [[20, 30, 120, 220]]})
    >>> detect("clip.mp4", person_detector="PekingU/rtdetr_v2_r18vd", every=0.5)
    ```"""

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    model: Any
    video_processor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.video_processor, KeyFrameVideoProcessor):
            raise ValueError(
                "`video_processor` must be the processor of an action-detection checkpoint, got "
                f"{type(self.video_processor).__name__}."
            )

    def _sanitize_parameters(  # type: ignore[override]
        self,
        boxes: Mapping[float, Any] | None = None,
        person_detector: Any = None,
        every: float | None = None,
        person_threshold: float | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        clips_at_once: int | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        refuse_unknown(self, unknown)
        for name, value in (("person_threshold", person_threshold), ("threshold", threshold)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be between 0 and 1, got {value}.")
        if every is not None and not every > 0:
            raise ValueError(f"`every` must be a positive number of seconds, got {every}.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k}.")
        where = {"boxes": boxes, "person_detector": person_detector, "every": every}
        forward = {"person_threshold": person_threshold, "clips_at_once": clips_at_once}
        after = {"threshold": threshold, "top_k": top_k}
        return tuple({k: v for k, v in one.items() if v is not None} for one in (where, forward, after))  # type: ignore[return-value]

    def __call__(self, inputs: Any, batch_size: int = 1, **kwargs: Any) -> Any:  # type: ignore[override]
        """
        Answer for one video or several.

        Args:
            inputs:
                A path, URL, bytes or file object, or a list of them.
            batch_size (`int`, *optional*, defaults to 1):
                Clips in a forward pass.
            kwargs:
                The arguments of the class, for this call only.

        Returns:
            `list[dict]`: for each key-frame `time` (seconds), `frame` (index) and `people`, a list of `box` (`xmin`,
            `ymin`, `xmax`, `ymax` in pixels), `person_score`, `person_id` and `actions`, a list of `label` and
            `score`, best first. For a list of videos, a list of these.

        Raises:
            ValueError: an argument is not allowed, or neither boxes nor a detector are given.
            VideoDecodingError: a video cannot be read.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        detect: Any = super().__call__
        if is_one_video(inputs):
            return detect(inputs, clips_at_once=batch_size, **kwargs)
        return [detect(video, clips_at_once=batch_size, **kwargs) for video in inputs]

    def preprocess(  # type: ignore[override]
        self, video: Any, boxes: Mapping[float, Any] | None = None, person_detector: Any = None, every: float = 1.0
    ) -> dict[str, Any]:
        """
        Choose the key-frames.

        Args:
            video:
                One video.
            boxes (`Mapping[float, Any]`, *optional*):
                See the class.
            person_detector (*optional*):
                See the class.
            every (`float`, *optional*, defaults to 1.0):
                See the class.

        Returns:
            `dict[str, Any]`: the video, its times, the key-frames, and how people are found.

        Raises:
            ValueError: neither boxes nor a detector are given, or the video is given as frames.
        """
        if is_frames(video):
            raise ValueError("`inputs` must be encoded videos: frames have no times.")
        if (boxes is None) == (person_detector is None):
            given = "neither" if boxes is None else "both"
            raise ValueError(f"Give either `boxes` or `person_detector`, got {given}.")
        probe = probe_video(video, **self.video_processor.probe_options)
        times = probe.timestamps
        if times is None:
            if not probe.fps:
                raise ValueError("`inputs` must be a video whose frames have times.")
            times = np.arange(probe.num_frames) / probe.fps
        times = np.asarray(times) - times[0]
        key_frames = np.arange(0, times[-1] + 1e-9, every) if boxes is None else np.array(sorted(boxes), dtype=float)
        return {"video": video, "times": times, "key_frames": key_frames, "boxes": boxes, "detector": person_detector}

    def _forward(  # type: ignore[override]
        self, model_inputs: dict[str, Any], person_threshold: float = 0.5, clips_at_once: int = 1
    ) -> dict[str, Any]:
        video, key_frames = model_inputs["video"], model_inputs["key_frames"]
        detector = model_inputs["detector"]
        found = None if detector is None else person_detector(detector, self.device)
        frames = self._frames_at(key_frames, model_inputs["times"])
        rows = []
        for start in range(0, len(key_frames), clips_at_once):
            chunk = slice(start, start + clips_at_once)
            if found is None:
                given = {float(time): people for time, people in model_inputs["boxes"].items()}
                people = [boxes_and_scores(given[float(time)]) for time in key_frames[chunk]]
            else:
                people = detect_people(found, self._images(video, frames[chunk]), person_threshold)
            rows += self._answers(video, key_frames[chunk], people)
        return {"frames": frames, "key_frames": key_frames, "rows": rows}

    def _frames_at(self, key_frames: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Index of the frame at each key-frame."""
        if not len(key_frames):
            return np.empty(0, dtype=np.int64)
        indices = self.video_processor.sample_key_frames(
            key_frames, times, len(times), None, num_frames=1, frame_stride=1, read_key_frame=True
        )
        return indices[:, 0]

    def _images(self, video: Any, frames: np.ndarray) -> list[Image.Image]:
        decoded = decode_video(video, frames, **self.video_processor.decode_options)
        return [Image.fromarray(frame) for frame in decoded.frames]

    def _answers(
        self, video: Any, key_frames: np.ndarray, people: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> list[dict[str, torch.Tensor]]:
        """Boxes, scores of people and scores of actions at each key-frame of a chunk."""
        empty = {"boxes": torch.zeros(0, 4), "person_scores": torch.zeros(0), "scores": torch.zeros(0, 0)}
        rows = [dict(empty) for _ in key_frames]
        where = [index for index, (boxes, _) in enumerate(people) if len(boxes)]
        if not where:
            return rows
        processor = self.video_processor
        inputs = processor(
            video,
            key_frame=[key_frames[where].tolist()],
            boxes=[people[index][0] for index in where],
            return_tensors="pt",
        )
        person_scores = [people[index][1][kept] for index, kept in zip(where, inputs.pop("kept_boxes"))]
        moved = {name: inputs[name].to(self.device) for name in ("boxes", "box_mask", "sizes")}
        pixel_values = inputs["pixel_values"].to(self.device, self.model.dtype)
        outputs = self.model(pixel_values=pixel_values, **moved)
        answers = processor.post_process_action_detection(outputs, inputs, person_scores, threshold=0.0)
        for index, answer, scores in zip(where, answers, person_scores):
            rows[index] = {"boxes": answer["boxes"], "person_scores": scores, "scores": answer["scores"]}
        return rows

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], threshold: float = 0.5, top_k: int | None = None
    ) -> list[dict[str, Any]]:
        """
        Answers as people read them.

        Args:
            model_outputs (`dict[str, Any]`):
                Of the forward pass.
            threshold (`float`, *optional*, defaults to 0.5):
                Lowest score of an action.
            top_k (`int`, *optional*):
                Largest number of actions for a person.

        Returns:
            `list[dict]`: see [`__call__`].
        """
        rows, names = model_outputs["rows"], self.model.config.id2label
        answers = []
        for time, frame, row, numbers in zip(
            model_outputs["key_frames"].tolist(),
            model_outputs["frames"].tolist(),
            rows,
            link_people([row["boxes"] for row in rows]),
        ):
            people = []
            for box, score, actions, number in zip(row["boxes"], row["person_scores"], row["scores"], numbers):
                order = actions.argsort(descending=True, stable=True)[:top_k]
                chosen = [(names[int(label)], float(actions[label])) for label in order if actions[label] >= threshold]
                people.append(
                    {
                        "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, box))),
                        "person_score": float(score),
                        "person_id": number,
                        "actions": [{"label": label, "score": score} for label, score in chosen],
                    }
                )
            answers.append({"time": time, "frame": frame, "people": people})
        return answers

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """
        Save the model and its video processor, which the base method does not save.

        Args:
            save_directory:
                Folder.
            kwargs:
                Arguments of the base method.
        """
        super().save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory, **kwargs)


def register_action_detection() -> None:
    """Register [`ActionDetectionPipeline`] for `pipeline("action-detection")`."""
    # not by `register_pipeline`, which would make `save_pretrained` copy this file into the saved folder
    PIPELINE_REGISTRY.supported_tasks[TASK] = {
        "impl": ActionDetectionPipeline,
        "pt": (AutoModelForActionDetection,),
        "type": "multimodal",
    }


__all__ = ["ActionDetectionPipeline", "register_action_detection"]
