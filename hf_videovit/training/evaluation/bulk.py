"""Evaluation of a classifier on very many videos, as work for an engine (see [`run_work`])."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel

from ...bulk.engines import Engine, run_work
from ...bulk.parts import read_rows
from ...bulk.work import Row, Work
from ...modes import evaluation_mode
from ..building import MULTI_LABEL
from ..data.bad_videos import BadVideo
from ..data.loaders import label_tensor
from ..data.processors import ClipProcessor
from ..data.shards import VideoShards
from ..data.sources import Label, VideoSource, manifest_hash
from .evaluation import (
    EvaluationResult,
    collect_answers,
    decoder_used,
    describe_environment,
    describe_protocol,
    match_source,
)


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("place", pa.int64()),
        ("label", pa.list_(pa.int64())),
        ("logits", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True)
class EvaluationDecoder:
    """
    Decodes a video for evaluation.

    Args:
        processor ([`ClipProcessor`]):
            The checkpoint's processor.
    """

    processor: ClipProcessor

    def __call__(self, sample: Any) -> Row:
        """
        Decode a sample.

        Args:
            sample (`Sample`):
                The sample.

        Returns:
            `dict`: `clip`, without the axis of the batch.
        """
        return {"clip": self.processor(sample.video, return_tensors="pt")["pixel_values"][0]}


class Scorer:
    """
    A classifier in a process of its own.

    Args:
        load (`Callable`):
            Loads the model.
    """

    def __init__(self, load: Callable[[], PreTrainedModel]):
        self.model = load()

    def __call__(self, rows: list[Row]) -> list[Row]:
        """
        Logits of decoded rows.

        Args:
            rows (`list[dict]`):
                Rows of [`EvaluationDecoder`].

        Returns:
            `list[dict]`: rows with `logits`.
        """
        readable = [row for row in rows if row.get("error") is None]
        if not readable:
            return rows
        clips = [row["clip"] for row in readable]
        same_size = len({clip.shape for clip in clips}) == 1
        batches = [torch.stack(clips)] if same_size else [clip[None] for clip in clips]
        with evaluation_mode(self.model), torch.inference_mode():
            outputs = [self.model(pixel_values=batch.to(self.model.device)).logits for batch in batches]
        logits = dict(zip((row["id"] for row in readable), torch.cat(outputs).float().cpu().numpy()))
        return [row | {"logits": logits.get(row["id"])} for row in rows]


def evaluate_with_engine(
    load: Callable[[], PreTrainedModel],
    model: PreTrainedModel,
    processor: ClipProcessor,
    source: VideoSource,
    folder: Path,
    engine: Engine,
    *,
    batch_size: int = 1,
    description: dict[str, Any],
) -> EvaluationResult:
    """
    [`evaluate_model`] by an engine. The rows of results are `id`, `place` in the order of the data, `label` and
    `logits`.

    Args:
        load (`Callable`):
            Loads the model, in each process that has one.
        model (`PreTrainedModel`):
            The model, for its labels and its description.
        processor ([`ClipProcessor`]):
            Processor of the model.
        source ([`VideoSource`]):
            The videos. Labels are matched with the model's by name.
        folder (`Path`):
            Folder of the rows; a run that was stopped continues there.
        engine ([`Engine`]):
            Where it runs.
        batch_size (`int`, *optional*, defaults to 1):
            Videos in a forward pass.
        description (`dict`):
            See [`run_work`].

    Returns:
        [`EvaluationResult`]

    Raises:
        ValueError: the labels of the data do not match those of the model, or see [`run_work`].
    """
    started, config = time.perf_counter(), model.config
    multi_label = config.problem_type == MULTI_LABEL
    matched = match_source(source, config.id2label, multi_label)
    work = Work(EvaluationDecoder(processor), SCHEMA, partial(Scorer, load), batch_size)
    description = description | {"source": matched.fingerprint()}
    shares = matched.num_shards if isinstance(matched, VideoShards) else None
    done = run_work(work, matched, folder, description=description, engine=engine, num_shares=shares)
    result = _collect(list(read_rows(folder)), done.failed, config, multi_label)
    result.protocol = describe_protocol(model, processor)
    result.environment = describe_environment(model) | {"decoder": decoder_used(processor), "engine": engine.name}
    if engine.name == "ray":
        result.environment["device"] = engine.device
    result.seconds = time.perf_counter() - started
    return result


def _collect(rows: list[Row], failed: list[Row], config: Any, multi_label: bool) -> EvaluationResult:
    def label_of(row: Row) -> Label:
        indices = row.get("label")
        if indices is None:
            return None
        return tuple(indices) if multi_label else indices[0]

    size = config.num_labels if multi_label else None
    answers: list[Any] = [
        (row["place"], row["id"], label_tensor(label_of(row), size).tolist(), np.array(row["logits"], np.float32))
        for row in rows
    ]
    bad = [(row["place"], BadVideo(row["id"], row["place"], row["error"], row["error_kind"], None)) for row in failed]
    recorded = {row["id"]: label_of(row) for row in (*rows, *failed)}
    names = [config.id2label[index] for index in range(config.num_labels)]
    result = collect_answers(answers, bad, recorded, names, multi_label)
    result.manifest = manifest_hash(recorded.items(), names)
    return result


__all__ = ["EvaluationDecoder", "Scorer", "evaluate_with_engine"]
