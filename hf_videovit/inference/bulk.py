"""Features and classes of very many videos, as work for an engine (see [`run_work`])."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedModel

from ..bulk.work import Row, Work
from ..modeling.video_decoding import VideoDecodingError
from ..modeling.video_processing_base import ClipVideoProcessor
from .features import POOLINGS, encode_readable, get_video_features
from .pipeline import ClipClassificationPipeline, collate_clips


PATH = ("path", pa.string())
FILMS_PER_FILE = 8  # a film may take minutes, and a killed process loses the rows that are not in a file yet
VECTOR = pa.list_(pa.float32())
ANSWERS = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))
SEGMENTS = pa.list_(
    pa.struct(
        [
            ("label", pa.string()),
            ("score", pa.float64()),
            ("segment", pa.struct([("start", pa.float64()), ("end", pa.float64())])),
        ]
    )
)
BOX = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
PERSON = pa.struct([("box", BOX), ("person_score", pa.float64()), ("person_id", pa.int64()), ("actions", ANSWERS)])
KEY_FRAMES = pa.list_(pa.struct([("time", pa.float64()), ("frame", pa.int64()), ("people", pa.list_(PERSON))]))
Loader = Callable[[], tuple[PreTrainedModel, ClipVideoProcessor]]


@dataclass(frozen=True)
class ClipDecoder:
    """
    Decodes a video by the protocol of a checkpoint.

    Args:
        processor ([`ClipVideoProcessor`]):
            The checkpoint's processor.
        overrides (`Mapping`, *optional*, defaults to `{}`):
            Attributes of the processor to replace.
    """

    processor: ClipVideoProcessor
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, sample: Any) -> Row:
        """
        Decode a sample.

        Args:
            sample (`Sample`):
                The sample.

        Returns:
            `dict`: `clip` of shape `(1, [views,] frames, channels, height, width)`.
        """
        return {"clip": self.processor(sample.video, return_tensors="pt", **self.overrides)["pixel_values"]}


def keep_path(sample: Any) -> Row:
    """
    A sample whose video is read where the model is.

    Args:
        sample (`Sample`):
            The sample.

    Returns:
        `dict`: its `path`.

    Raises:
        ValueError: the video is not a file of its own.
    """
    if not isinstance(sample.video, str):
        raise ValueError(f"Sample {sample.id!r}: windows are made of single files, not of those in tars or parquet.")
    return {"path": sample.video}


class Embedder:
    """
    An encoder in a process of its own.

    Args:
        load (`Callable`):
            Loads the model and its processor.
        pooling (`str`):
            See [`get_video_features`].
        windows (`Mapping`, *optional*):
            `window`, `stride`, `squash` and `batch_size` of [`get_video_features`], for films, which are read here.
    """

    def __init__(self, load: Loader, pooling: str, windows: Mapping[str, Any] | None = None):
        self.model, self.processor = load()
        self.encoder, self.pooling, self.windows = self.model.base_model, pooling, windows

    def __call__(self, rows: list[Row]) -> list[Row]:
        """
        Features of decoded rows.

        Args:
            rows (`list[dict]`):
                Rows of [`ClipDecoder`] or [`keep_path`].

        Returns:
            `list[dict]`: rows with `features`.
        """
        if self.windows is not None:
            return [self._film(row, self.windows) for row in rows]
        clips = [row["clip"] if row.get("error") is None else None for row in rows]
        features = encode_readable(self.encoder, clips, self.pooling)
        return [row if one is None else {"id": row["id"], "features": _plain(one)} for row, one in zip(rows, features)]

    def _film(self, row: Row, windows: Mapping[str, Any]) -> Row:
        try:
            options = {"pooling": self.pooling, **windows}
            return {
                "id": row["id"],
                "features": _plain(get_video_features(self.model, self.processor, row["path"], **options)[0]),
            }
        except VideoDecodingError as error:
            return {"id": row["id"], "error": error.reason or str(error), "error_kind": error.kind}


def _plain(features: torch.Tensor) -> Any:
    """Features as Arrow takes them: a vector, or a list of vectors."""
    return features.numpy() if features.ndim == 1 else list(features.numpy())


def embedding_work(
    load: Loader,
    processor: ClipVideoProcessor,
    *,
    pooling: str = "default",
    windows: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    rows_per_file: int | None = None,
) -> Work:
    """
    Features of videos: columns `id` and `features`, a vector, or a list of vectors for tokens and windows.

    Args:
        load (`Callable`):
            Loads the model and its processor, in each process that has a model.
        processor ([`ClipVideoProcessor`]):
            The processor, for the decoders.
        pooling (`str`, *optional*, defaults to `"default"`):
            See [`get_video_features`].
        windows (`Mapping`, *optional*):
            `window`, `stride` and `squash`, for features of windows. Films are read where the model is: their frames
            would not fit into the object store.
        batch_size (`int`, *optional*, defaults to 1):
            Videos or windows in a forward pass.
        rows_per_file (`int`, *optional*):
            Rows of a parquet file; 256 by default, and 8 of films.

    Returns:
        [`Work`]

    Raises:
        ValueError: `pooling` is not allowed.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}, got {pooling!r}.")
    several = windows is not None or pooling == "tokens"
    kind = pa.list_(VECTOR) if several else VECTOR
    schema = pa.schema([("id", pa.string()), ("features", kind)])
    if windows is None:
        return Work(ClipDecoder(processor), schema, partial(Embedder, load, pooling), batch_size, rows_per_file or 256)
    options = {**windows, "batch_size": batch_size}
    return Work(
        keep_path,
        schema,
        partial(Embedder, load, pooling, options),
        rows_per_file=rows_per_file or FILMS_PER_FILE,
        extra_schema=pa.schema([PATH]),
    )


class Classifier:
    """
    A classifier in a process of its own.

    Args:
        load (`Callable`):
            Loads the pipeline.
        top_k (`int`):
            Labels of a video.
    """

    def __init__(self, load: Callable[[], ClipClassificationPipeline], top_k: int):
        self.pipeline, self.top_k = load(), top_k

    def __call__(self, rows: list[Row]) -> list[Row]:
        """
        Classes of decoded rows.

        Args:
            rows (`list[dict]`):
                Rows of [`ClipDecoder`].

        Returns:
            `list[dict]`: rows with `predictions`.
        """
        readable = [row for row in rows if row.get("error") is None]
        if not readable:
            return rows
        items = [{"pixel_values": [row["clip"]], "errors": [None]} for row in readable]
        outputs = self.pipeline.forward(collate_clips(items))
        answers = {
            row["id"]: self.pipeline.postprocess({"logits": logits[None], "errors": None}, self.top_k)
            for row, logits in zip(readable, outputs["logits"])
        }
        return [{"id": row["id"], "predictions": answers[row["id"]]} if row["id"] in answers else row for row in rows]


def classification_work(
    load: Callable[[], ClipClassificationPipeline],
    processor: ClipVideoProcessor,
    *,
    top_k: int = 5,
    views: Mapping[str, int] | None = None,
    batch_size: int = 1,
) -> Work:
    """
    Classes of videos: columns `id` and `predictions`, a list of `label` and `score`, best first.

    Args:
        load (`Callable`):
            Loads the pipeline, in each process that has a model.
        processor ([`ClipVideoProcessor`]):
            The processor, for the decoders.
        top_k (`int`, *optional*, defaults to 5):
            Labels of a video.
        views (`Mapping`, *optional*):
            `num_clips` and `num_crops`, if they are not the checkpoint's.
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass.

    Returns:
        [`Work`]
    """
    schema = pa.schema([("id", pa.string()), ("predictions", ANSWERS)])
    return Work(ClipDecoder(processor, views or {}), schema, partial(Classifier, load, top_k), batch_size)


class FilmReader:
    """
    A model that reads whole films, in a process of its own.

    Args:
        load (`Callable`):
            Loads a function that takes the path of a film and returns an answer.
        column (`str`):
            Column of the answers.
    """

    def __init__(self, load: Callable[[], Callable[[str], Any]], column: str):
        self.read, self.column = load(), column

    def __call__(self, rows: list[Row]) -> list[Row]:
        """
        Answers for films.

        Args:
            rows (`list[dict]`):
                Rows of [`keep_path`].

        Returns:
            `list[dict]`: rows with an answer.
        """
        return [self._answer(row) for row in rows]

    def _answer(self, row: Row) -> Row:
        try:
            return {"id": row["id"], self.column: self.read(row["path"])}
        except VideoDecodingError as error:
            return {"id": row["id"], "error": error.reason or str(error), "error_kind": error.kind}


def film_work(load: Callable[[], Callable[[str], Any]], column: str) -> Work:
    """
    Answers for whole films: columns `id` and `segments` or `key_frames`.

    Args:
        load (`Callable`):
            Loads a function that takes the path of a film, in each process that has a model. Films are read there:
            their frames would not fit into the object store.
        column (`str`):
            `"segments"`, as [`TemporalActionLocalizationPipeline`] gives them, or `"key_frames"`, as
            [`ActionDetectionPipeline`] gives them.

    Returns:
        [`Work`]
    """
    kinds = {"segments": SEGMENTS, "key_frames": KEY_FRAMES}
    schema = pa.schema([("id", pa.string()), (column, kinds[column])])
    reader, extra = partial(FilmReader, load, column), pa.schema([PATH])
    return Work(keep_path, schema, reader, rows_per_file=FILMS_PER_FILE, extra_schema=extra)


__all__ = [
    "ClipDecoder",
    "Classifier",
    "Embedder",
    "FilmReader",
    "classification_work",
    "embedding_work",
    "film_work",
    "keep_path",
]
