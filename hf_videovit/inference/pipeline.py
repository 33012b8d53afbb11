"""`pipeline("video-classification")` that follows the protocol saved with a checkpoint."""

import copy
import difflib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers.pipelines import PIPELINE_REGISTRY, VideoClassificationPipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from ..modeling.video_decoding import VideoDecodingError
from ..modeling.video_processing_base import ClipVideoProcessor, is_one_video
from ..processes import trusted_context


logger = logging.get_logger(__name__)

TASK = "video-classification"
ACTIVATIONS = ("softmax", "sigmoid", "none")
ON_ERROR = ("raise", "report")
UNSET: Any = object()  # `top_k=None` returns all labels, so "not given" needs another value


class ClipClassificationPipeline(VideoClassificationPipeline):
    """
    Video classification that follows the protocol saved with the checkpoint.

    Frames, clips, crops and normalisation come from the repository's [`ClipVideoProcessor`]; the model's head merges
    the views. With any other processor, constructing this class returns transformers' own
    [`VideoClassificationPipeline`].

    A video is a path (`str` or `pathlib.Path`), an http(s) or `hf://` URL, encoded `bytes`, a file object, a
    dictionary with `path` and `bytes`, a `VideoDecoder` of torchcodec, an array or tensor of frames, or a list of
    frames (PIL images or 3-D arrays).
    Several videos are a list, tuple, iterator, 5-D array, torch data set or `datasets` data set with a `video`
    column.

    Args:
        top_k (`int`, *optional*, defaults to 5):
            Number of labels to return, best first. `None`, or more than the model has, returns all.
        function_to_apply (`str`, *optional*):
            `"softmax"`, `"sigmoid"` or `"none"`. By default `"sigmoid"` for a multi-label model, `"none"` for
            regression, `"softmax"` for any other.
        num_frames (`int`, *optional*):
            Frames of a clip. Defaults to the processor's.
        frame_sampling_rate (`int`, *optional*):
            Distance in the video between consecutive frames of a clip. Defaults to the processor's `frame_stride`.
        num_clips (`int`, *optional*):
            Clips per video, spread in time. Defaults to the processor's.
        num_crops (`int`, *optional*):
            Crops per clip, spread along the longer side. Defaults to the processor's.
        on_error (`str`, *optional*, defaults to `"raise"`):
            How unreadable files are handled: `"raise"` raises a [`VideoDecodingError`]; `"report"` returns
            `{"error": message}` for the file and classifies the others.

    Example:

    ```python
    >>> import hf_videovit
    >>> from transformers import pipeline

    >>> classifier = pipeline("video-classification", model="path/to/model")
    >>> classifier(["a.mp4", "b.webm"], batch_size=2, top_k=3)
    ```"""

    model: Any
    video_processor: Any

    # The base class takes open keyword arguments, which subclasses name; hence the ignored overrides.

    def __new__(cls, *args: Any, video_processor: Any = None, **kwargs: Any) -> Any:
        if isinstance(video_processor, ClipVideoProcessor):
            return super().__new__(cls)
        return VideoClassificationPipeline(*args, video_processor=video_processor, **kwargs)

    def __getnewargs_ex__(self) -> tuple[tuple, dict[str, Any]]:
        """Arguments of `__new__` for a copy, which a worker that was not forked gets."""
        return (), {"video_processor": self.video_processor}

    def check_model_type(self, supported_models: Any) -> None:
        """
        Report a model without a classifier. Exports stand in for the model that they were made of.

        Args:
            supported_models (`dict` or `list`):
                Names of model classes.
        """
        if self.model.config_class is not None:
            super().check_model_type(supported_models)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        top_k: int | None = UNSET,
        function_to_apply: str | None = None,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        on_error: str | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        refuse_unknown(self, unknown)
        preprocess_params = {
            "num_frames": _positive("num_frames", num_frames),
            "frame_stride": _positive("frame_sampling_rate", frame_sampling_rate),
            "num_clips": _positive("num_clips", num_clips),
            "num_crops": _positive("num_crops", num_crops),
            "on_error": _one_of("on_error", on_error, ON_ERROR),
        }
        if frame_sampling_rate is not None and self.video_processor.frame_sampling != "dense":
            raise ValueError(
                "`frame_sampling_rate` only applies to dense sampling, but this checkpoint's processor uses "
                f"frame_sampling={self.video_processor.frame_sampling!r}; leave the argument out."
            )
        postprocess_params = {"function_to_apply": _one_of("function_to_apply", function_to_apply, ACTIVATIONS)}
        given = _given(postprocess_params)
        if top_k is not UNSET:
            given["top_k"] = _positive("top_k", top_k)
        return _given(preprocess_params), {}, given

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """
        Classify one video or many.

        Args:
            inputs (a video, or many):
                See the class description.
            kwargs:
                The arguments of the class, for this call only, and `batch_size` and `num_workers`.

        Returns:
            For one video, a list of `{"score": float, "label": str}`, best first. For a list, tuple or 5-D array, a
            list with one such list per video. For an iterator or data set, a lazy iterator of them.
        """
        if inputs is None:
            raise ValueError("`inputs` must be a video or several, got None.")
        classify: Any = super().__call__
        if _is_single(inputs):
            # the base class treats any list as several inputs, so a list of frames is passed as a tuple
            return classify(tuple(inputs) if isinstance(inputs, list) else inputs, **kwargs)
        if _is_hub_dataset(inputs):
            inputs = _left_encoded(inputs)
            return classify(_Videos(inputs) if isinstance(inputs, Sized) else (row for row in inputs), **kwargs)
        if isinstance(inputs, Dataset):
            return classify(inputs, **kwargs)
        if isinstance(inputs, Iterator):
            return classify((video for video in inputs), **kwargs)
        return list(classify(_Videos(list(inputs)), **kwargs))

    def preprocess(  # type: ignore[override]
        self, video: Any, on_error: str = "raise", **overrides: Any
    ) -> dict[str, Any]:
        """
        Decode one video and prepare its views.

        Args:
            video (`Any`):
                One video, in any form that the processor accepts, or a row with a `video` column.
            on_error (`str`, *optional*, defaults to `"raise"`):
                `"raise"` or `"report"`, see the class.
            overrides (`Any`):
                Attributes of the processor to replace for this video.

        Returns:
            `dict[str, Any]`: `pixel_values` and `errors`, each a list with one item or none.

        Raises:
            VideoDecodingError: the video cannot be read and `on_error` is `"raise"`.
        """
        processor = self.video_processor
        if processor.num_frames is None and "num_frames" in overrides:
            # given in the call, `num_frames` would make such a processor sample the whole video as transformers does
            processor = copy.copy(processor)
            processor.num_frames = overrides.pop("num_frames")
        try:
            clips = processor(video_of_row(video), return_tensors="pt", **overrides)["pixel_values"]
        except (VideoDecodingError, OSError) as error:
            if on_error == "raise":
                raise
            return {"pixel_values": [], "errors": [str(error)]}
        return {"pixel_values": [clips], "errors": [None]}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        errors = model_inputs["errors"]
        readable = torch.tensor([error is None for error in errors], device=self.device)
        logits = torch.zeros(len(errors), self.model.config.num_labels, device=self.device)
        if model_inputs["pixel_values"]:
            merged = [self.model(pixel_values=clips).logits for clips in model_inputs["pixel_values"]]
            logits[readable] = torch.cat(merged).to(logits.dtype)
        return {"logits": logits, "errors": errors}

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], top_k: int | None = 5, function_to_apply: str | None = None
    ) -> Any:
        """
        Scores and names of one video.

        Args:
            model_outputs (`dict[str, Any]`):
                `logits` of shape `(1, num_labels)` and `errors`.
            top_k (`int`, *optional*, defaults to 5):
                Number of labels; `None` returns all.
            function_to_apply (`str`, *optional*):
                `"softmax"`, `"sigmoid"` or `"none"`. Defaults to the one for the model's `problem_type`.

        Returns:
            `list[dict]`: `score` and `label`, best first; or `{"error": message}` for an unreadable video.
        """
        errors = model_outputs["errors"]
        error = errors[0] if isinstance(errors, list) else errors
        if error is not None:
            return {"error": error}
        config = self.model.config
        if function_to_apply is None:
            function_to_apply = {"regression": "none", "multi_label_classification": "sigmoid"}.get(
                config.problem_type, "softmax"
            )
        scores = model_outputs["logits"][0]
        if function_to_apply == "softmax":
            scores = scores.softmax(-1)
        elif function_to_apply == "sigmoid":
            scores = scores.sigmoid()
        best = scores.topk(min(top_k or config.num_labels, config.num_labels))
        return [
            {"score": score, "label": config.id2label[index]}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> PipelineIterator:
        """
        Lazy iterator over the results of several videos. Clips are stacked without padding.

        Args:
            inputs (`Any`):
                A data set, or an iterator of videos.
            num_workers (`int`):
                Decoding processes; at most 1 for an iterator.
            batch_size (`int`):
                Videos per forward pass.
            preprocess_params (`dict[str, Any]`):
                Arguments of [`preprocess`].
            forward_params (`dict[str, Any]`):
                Arguments of the forward pass.
            postprocess_params (`dict[str, Any]`):
                Arguments of [`postprocess`].

        Returns:
            [`PipelineIterator`]
        """
        # the base method pads, and needs a tokenizer or image processor for batches
        if isinstance(inputs, Dataset) and isinstance(inputs, Sized):
            videos: Dataset = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            if num_workers > 1:
                logger.warning("An iterator cannot be read by several workers; using num_workers=1.")
            videos = PipelineIterator(inputs, self.preprocess, preprocess_params)
            num_workers = min(num_workers, 1)
        loader = DataLoader(
            videos,
            num_workers=num_workers,
            batch_size=batch_size,
            collate_fn=collate_clips,
            multiprocessing_context=trusted_context() if num_workers else None,
        )
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """
        Save the model and its video processor, which the base method does not save.

        Args:
            save_directory (`Any`):
                Folder.
            kwargs (`Any`):
                Arguments of the base method.
        """
        super().save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory, **kwargs)


def register_pipeline() -> None:
    """Register [`ClipClassificationPipeline`] for `pipeline("video-classification")`."""
    PIPELINE_REGISTRY.supported_tasks[TASK]["impl"] = ClipClassificationPipeline


class _Videos(Dataset):
    """A sized collection, read by position."""

    def __init__(self, videos: Any):
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Any:
        return self.videos[index]


def collate_clips(items: list[dict[str, Any]]) -> dict[str, Any]:
    """
    A batch of [`~ClipClassificationPipeline.preprocess`] results. Clips are stacked without padding.

    Args:
        items (`list[dict]`):
            The results.

    Returns:
        `dict[str, Any]`: `pixel_values` and `errors`.
    """
    clips = [item["pixel_values"][0] for item in items if item["pixel_values"]]
    same_size = len({clip.shape[1:] for clip in clips}) == 1
    return {
        "pixel_values": [torch.cat(clips)] if same_size else clips,  # other sizes (no crop): one by one
        "errors": [error for item in items for error in item["errors"]],
    }


def _is_single(inputs: Any) -> bool:
    """Whether `inputs` is one video; what is neither a video nor a collection counts as one, whose error names it."""
    if isinstance(inputs, np.ndarray | torch.Tensor):
        return inputs.ndim < 5
    collection = isinstance(inputs, list | tuple | Dataset | Iterator) or _is_hub_dataset(inputs)
    return is_one_video(inputs) or not collection


def _is_hub_dataset(inputs: Any) -> bool:
    datasets = sys.modules.get("datasets")  # if it is not imported, no such object exists
    return datasets is not None and isinstance(inputs, (datasets.Dataset, datasets.IterableDataset))


def _left_encoded(dataset: Any) -> Any:
    """The data set with its videos as paths and bytes, for our own decoding instead of the data set's."""
    datasets = sys.modules["datasets"]
    if not isinstance((dataset.features or {}).get("video"), datasets.Video):
        return dataset
    if isinstance(dataset, datasets.IterableDataset):
        return dataset.decode(False)
    return dataset.cast_column("video", datasets.Video(decode=False))


def video_of_row(video: Any) -> Any:
    """
    The video of a data set's row; anything else unchanged.

    Args:
        video (`Any`):
            A video, or a row with a `video` column.

    Returns:
        The video.

    Raises:
        ValueError: a row without a `video` column.
    """
    if not isinstance(video, dict) or {"path", "bytes"} & video.keys():
        return video
    if "video" not in video:
        raise ValueError(
            f"A row of a data set needs a `video` column, got columns {sorted(video)}; "
            'select another with `transformers.pipelines.pt_utils.KeyDataset(dataset, "column")`.'
        )
    return video["video"]


def refuse_unknown(pipeline: Any, unknown: Mapping[str, Any]) -> None:
    """
    Refuse arguments that a pipeline does not have.

    Args:
        pipeline (`Pipeline`):
            The pipeline; its `_sanitize_parameters` names the arguments.
        unknown (`Mapping[str, Any]`):
            Arguments that were given and have no name there.

    Raises:
        ValueError: there are such arguments.
    """
    if unknown:
        name, own = next(iter(unknown)), inspect.signature(pipeline._sanitize_parameters).parameters
        allowed = [one for one in own if one not in ("unknown", "clips_at_once", "windows_at_once")] + ["batch_size"]
        close = difflib.get_close_matches(name, allowed, 1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"`{name}` must be one of the arguments {', '.join(allowed)}.{hint}")


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"`{name}` must be a positive int, got {value!r}.")
    return value


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
    return value


__all__ = ["ClipClassificationPipeline", "collate_clips", "refuse_unknown", "register_pipeline", "video_of_row"]
