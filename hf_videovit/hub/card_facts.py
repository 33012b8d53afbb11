"""Content of a card, and its metadata for the Hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedConfig

from ..published import CLASSIFICATION_TASKS, IMAGE_TASKS, KEYPOINTS, OBJECTS, SEMANTICS
from .card_sources import METRIC_TYPES, METRICS


CLASSIFICATION, PRETRAINING, FEATURES = "video-classification", "pretraining", "feature-extraction"
IMAGE_CLASSIFICATION, BACKBONE = "image-classification", "backbone"
ACTIONS, LOCALIZATION = "action-detection", "temporal-action-localization"
WORDS = "visual-words"
# Tasks of results on the Hub; those of other models are of classifiers.
TOLD_TASKS = (*CLASSIFICATION_TASKS, KEYPOINTS, ACTIONS, LOCALIZATION, OBJECTS, SEMANTICS)
# Pipeline tags of the Hub that differ from our task names. It has none for action detection and localisation, and
# would run a classifier of videos under any other.
PIPELINE_TAGS: dict[str, str | None] = {
    PRETRAINING: FEATURES,
    BACKBONE: "image-feature-extraction",
    ACTIONS: None,
    LOCALIZATION: None,
    WORDS: None,
    SEMANTICS: "image-segmentation",
}


@dataclass(frozen=True)
class Result:
    """
    One number on a card.

    Args:
        data (`str`):
            Data set, and split if known.
        metric (`str`):
            Name of the metric, such as `"top1"`.
        value (`float`):
            In percent.
        how (`str`, *optional*):
            Protocol: frames, clips, crops, decoder.
        source (`str`, *optional*):
            Who reports it; `None` if it was measured with this package.
        source_url (`str`, *optional*):
            Where it is reported.
        in_metadata (`bool`, *optional*, defaults to `True`):
            Whether the Hub may show it as the model's result. `False` for baselines and for unverified numbers.
    """

    data: str
    metric: str
    value: float
    how: str = ""
    source: str | None = None
    source_url: str | None = None
    in_metadata: bool = True


@dataclass(frozen=True)
class CardFacts:
    """
    The content of a card; [`render_card`] adds no facts.

    Args:
        title (`str`):
            Headline.
        model_id (`str`):
            Folder or Hub id that the usage example loads.
        task (`str`):
            One of the keys of `AUTO_CLASSES`.
        summary (`str`):
            A sentence or two on the model.
        config ([`PreTrainedConfig`]):
            The model's configuration.
        processor (`Any`):
            The checkpoint's video or image processor.
        results (`Sequence[Result]`, *optional*, defaults to `()`):
            Measured and reported results.
        class_table (`tuple`, *optional*):
            Headings and rows of the results for each class, as text; none by default.
        confusion (`str`, *optional*):
            Name of the picture of the confusion matrix, beside the card.
        versions (`str`, *optional*):
            Versions and hardware that the results were measured with.
        obtain (`str`, *optional*):
            How to obtain and convert the weights, in markdown.
        training (`Sequence[str]`, *optional*, defaults to `()`):
            Markdown lines on the training.
        settings (`str`, *optional*):
            Settings of the training that differ from the defaults, as YAML.
        labels (`Sequence[str]`, *optional*, defaults to `()`):
            Class names in the order of the outputs.
        limits (`Sequence[str]`, *optional*, defaults to `()`):
            Known limits, one sentence or more each.
        licence (`str`, *optional*):
            Licence id of the weights, for the metadata.
        licences (`Sequence[str]`, *optional*, defaults to `()`):
            Licences as each source states them.
        citation (`str`, *optional*):
            BibTeX.
        base_model (`str`, *optional*):
            Hub id of the checkpoint that training started from.
        datasets (`Sequence[str]`, *optional*, defaults to `()`):
            Hub ids of the training data.
        tags (`Sequence[str]`, *optional*):
            Further tags for the metadata.
        adapter_of (`str`, *optional*):
            Folder or Hub id of the model that an adapter of PEFT is for.
    """

    title: str
    model_id: str
    task: str
    summary: str
    config: PreTrainedConfig
    processor: Any
    results: Sequence[Result] = ()
    class_table: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    confusion: str | None = None
    versions: str = ""
    obtain: str = ""
    training: Sequence[str] = ()
    settings: str = ""
    labels: Sequence[str] = ()
    limits: Sequence[str] = ()
    licence: str | None = None
    licences: Sequence[str] = ()
    citation: str = ""
    base_model: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = field(default_factory=tuple)
    adapter_of: str | None = None


def card_metadata(facts: CardFacts) -> ModelCardData:
    """
    Metadata of a card, as the Hub reads it.

    Args:
        facts ([`CardFacts`]):
            The content of the card.

    Returns:
        [`ModelCardData`]: its results agree with the table of the card row by row.
    """
    shown = [one for one in facts.results if one.in_metadata and (one.source is None or one.source_url)]
    results = _eval_results(shown, facts.task)
    return ModelCardData(
        library_name="transformers" if facts.adapter_of is None else "peft",
        pipeline_tag=PIPELINE_TAGS.get(facts.task, facts.task),
        license=facts.licence,
        license_name="stated-in-the-card" if facts.licence == "other" else None,  # which the Hub then asks for
        tags=[
            *("image" if facts.task in (*IMAGE_TASKS, WORDS) else "video", "hf_videovit", facts.config.model_type),
            *(() if facts.adapter_of is None else ("lora",)),
            *([facts.task] if facts.task in (ACTIONS, LOCALIZATION) else []),
            *facts.tags,
        ],
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=facts.title if results else None,
        eval_results=results or None,
    )


def _eval_results(results: Sequence[Result], task: str) -> list[EvalResult]:
    """
    Results as the Hub stores them. It keeps one source for each data set and configuration, so the results of a data
    set that has several sources are told apart by `dataset_config`.
    """
    origins: dict[str, set[tuple[str | None, str | None]]] = {}
    for result in results:
        origins.setdefault(_dataset_type(result), set()).add((result.source, result.source_url))
    return [
        EvalResult(
            task_type=PIPELINE_TAGS.get(task) or task if task in TOLD_TASKS else CLASSIFICATION,
            dataset_type=_dataset_type(result),
            dataset_name=result.data,
            dataset_config=_reporter(result) if len(origins[_dataset_type(result)]) > 1 else None,
            metric_type=METRIC_TYPES.get(result.metric.partition("@")[0], "accuracy"),
            metric_name=", ".join(part for part in (METRICS.get(result.metric, result.metric), result.how) if part),
            metric_value=round(result.value, 2),
            source_name=result.source,
            source_url=result.source_url,
        )
        for result in results
    ]


def _dataset_type(result: Result) -> str:
    return re.sub(r"[^a-z0-9]+", "-", result.data.lower()).strip("-")


def _reporter(result: Result) -> str:
    return f"as reported by {result.source} ({result.source_url})" if result.source else "as measured with hf_videovit"
