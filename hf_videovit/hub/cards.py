"""
Model cards, rendered from facts: a published checkpoint's entry, or what training left in a folder. Nothing is typed
twice.

`python -m hf_videovit.hub.cards --output model_cards` renders the card of every published checkpoint.
"""

import argparse
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForKeypointDetection,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    PreTrainedConfig,
)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from ..published import (
    CLASSIFICATION_TASKS,
    IMAGE_TASKS,
    NEVER_RELEASED,
    PublishedCheckpoint,
    PublishedResult,
    list_published,
    published_config,
    published_entry,
    published_labels,
    published_processor_kwargs,
)
from .card_rows import architecture_rows, hub_id, last_part, protocol_rows, run_lines
from .card_sources import CITATIONS, METRIC_TYPES, METRICS, SOURCE_URLS


TEMPLATE = Path(__file__).with_name("card_template.md")
CLASSIFICATION, PRETRAINING, FEATURES = "video-classification", "pretraining", "feature-extraction"
IMAGE_CLASSIFICATION, BACKBONE, KEYPOINTS = "image-classification", "backbone", "keypoint-detection"
ON_IMAGES = (*IMAGE_TASKS, KEYPOINTS)
NAMED_OUTPUTS = (*CLASSIFICATION_TASKS, KEYPOINTS)
MULTI_LABEL = "multi_label_classification"
AUTO_CLASSES: dict[str, Any] = {
    CLASSIFICATION: AutoModelForVideoClassification,
    PRETRAINING: AutoModelForPreTraining,
    FEATURES: AutoModel,
    IMAGE_CLASSIFICATION: AutoModelForImageClassification,
    BACKBONE: AutoBackbone,
    KEYPOINTS: AutoModelForKeypointDetection,
}
SEAL = re.compile(r"\s*<!-- rendered by hf_videovit, sha256 ([0-9a-f]{64}) -->\s*\Z")
# The Hub's name of what a model is for, where it is not ours.
PIPELINE_TAGS = {PRETRAINING: FEATURES, BACKBONE: "image-feature-extraction"}


@dataclass(frozen=True)
class Result:
    """
    One number.

    Args:
        data (`str`):
            Data set, and split where known.
        metric (`str`):
            Name of the metric, such as `"top1"`.
        value (`float`):
            In percent.
        how (`str`):
            Protocol: frames, clips, crops, decoder.
        source (`str`, *optional*):
            Who reports it; `None` for what was measured with this package.
        source_url (`str`, *optional*):
            Where it is reported.
        in_metadata (`bool`, *optional*, defaults to `True`):
            Whether the Hub may show it as the model's result. Not for baselines and for what nobody has checked.
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
    """All that a card says; [`render_card`] adds no fact of its own."""

    title: str
    model_id: str
    task: str
    summary: str
    config: PreTrainedConfig
    processor: Any
    results: Sequence[Result] = ()
    obtain: str = ""
    training: Sequence[str] = ()
    labels: Sequence[str] = ()
    limits: Sequence[str] = ()
    licence: str | None = None
    licences: Sequence[str] = ()
    citation: str = ""
    base_model: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = field(default_factory=tuple)


def render_card(facts: CardFacts) -> ModelCard:
    """The card of a model, metadata included."""
    auto_class = AUTO_CLASSES[facts.task]
    architecture = architecture_rows(facts.config, auto_class)
    return ModelCard.from_template(
        _metadata(facts),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=facts.title,
        summary=facts.summary,
        obtain=facts.obtain,
        model_id=facts.model_id,
        task=facts.task,
        auto_class=auto_class.__name__,
        pooling_argument=', pooling="mean"' if facts.task == PRETRAINING else "",
        protocol=protocol_rows(facts.config, facts.processor),
        architecture=architecture,
        model_class=dict(architecture)["class"],
        measured=[_result_row(result) for result in facts.results if result.source is None],
        reported=[_result_row(result) for result in facts.results if result.source is not None],
        training=facts.training,
        labels=facts.labels,
        limits=facts.limits,
        licences=facts.licences,
        citation=facts.citation,
    )


def write_model_card(
    folder: str | os.PathLike,
    *,
    results: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    model_id: str | None = None,
    title: str | None = None,
    summary: str | None = None,
    licence: str | None = None,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    citation: str = "",
) -> Path:
    """
    Write `README.md` for a trained model from what its folder holds: configuration, processor, `results.json`,
    `run.yaml`.

    Args:
        folder (`str` or `os.PathLike`):
            A folder with a saved model and its processor.
        results (`Mapping[str, Any]`, *optional*):
            The evaluation, in the form of `results.json`, which is read if this is left out. `metrics` are shares of
            one; `baselines` (name to share), `data` (name of the data) and `protocol` are shown where present.
        facts (`Mapping[str, Any]`, *optional*):
            What a run counted: `num_train_videos`, `steps`, `effective_batch`, `hardware`, `seconds`; `outcomes`, more
            rows of words and values ([`~training.finetuning.FinetuneResult`] and
            [`~training.pretraining.PretrainResult`] have them).
        model_id (`str`, *optional*):
            What the usage lines load. Defaults to the folder's name.
        title (`str`, *optional*):
            Headline. Defaults to the folder's name.
        summary (`str`, *optional*):
            A sentence or two on what the model is for. Defaults to what the configuration says.
        licence (`str`, *optional*):
            Licence id of the weights, such as `"apache-2.0"`. Without it the card says that none is stated.
        datasets (`Sequence[str]`, *optional*):
            Hub ids of the training data.
        base_model (`str`, *optional*):
            Hub id of the checkpoint that training started from. Defaults to the run's, if that is a Hub id.
        citation (`str`, *optional*):
            BibTeX.

    Returns:
        `Path`: the card.
    """
    folder = Path(folder)
    config = AutoConfig.from_pretrained(folder)
    task = task_of(config)
    processor = (AutoImageProcessor if task in ON_IMAGES else AutoVideoProcessor).from_pretrained(folder)
    if results is None:
        results = _read_json(folder / "results.json")
    run = _read_yaml(folder / "run.yaml")
    name = title or folder.resolve().name
    card = CardFacts(
        title=name,
        model_id=model_id or folder.resolve().name,
        task=task,
        summary=summary or _trained_summary(config, task),
        config=config,
        processor=processor,
        results=_trained_results(results, run),
        training=run_lines(run, facts or {}),
        labels=[config.id2label[index] for index in range(config.num_labels)] if task in NAMED_OUTPUTS else (),
        limits=_trained_limits(config, task),
        licence=licence,
        licences=[
            f"Weights: {licence}."
            if licence
            else "Not stated here. It depends on the data and on the weights that this started from."
        ],
        citation=citation,
        base_model=base_model or hub_id(run.get("model", {}).get("checkpoint")),
        datasets=datasets,
    )
    return _write_sealed(folder / "README.md", render_card(card))


def write_converted_card(folder: str | os.PathLike, checkpoint_name: str, *, published: str | None = None) -> Path:
    """
    Write `README.md` for a converted checkpoint.

    Args:
        folder (`str` or `os.PathLike`):
            The converted model.
        checkpoint_name (`str`):
            Name of the file it was made of.
        published (`str`, *optional*):
            Name of the published checkpoint, where it was converted as it is: its card is written. Otherwise the card
            claims nothing but what the folder shows.
    """
    folder = Path(folder)
    name = folder.resolve().name
    if published is None:
        return write_model_card(folder, summary=f"Converted from `{checkpoint_name}` with hf_videovit.")
    return _write_sealed(folder / "README.md", render_published_card(published, model_id=name))


def render_published_card(name: str, *, model_id: str | None = None) -> ModelCard:
    """
    The card of an official checkpoint after conversion.

    Args:
        name (`str`):
            One of [`~published.list_published`].
        model_id (`str`, *optional*):
            What the usage lines load. Defaults to a folder called like the checkpoint.
    """
    entry = published_entry(name)
    config = published_config(name)
    processor = _processor_class(config, entry.task)(**published_processor_kwargs(name))
    facts = CardFacts(
        title=name,
        model_id=model_id or name,
        task=entry.task,
        summary=entry.summary,
        config=config,
        processor=processor,
        results=[_published_result(result, entry.task) for result in entry.results],
        obtain=_how_to_obtain(entry),
        labels=published_labels(entry.labels) if entry.labels else (),
        limits=[*entry.notes, *_published_limits(entry)],
        licence=_common_licence(entry),
        licences=[f"{one.covers}: {one.licence} ({one.source})" for one in entry.licences]
        or [
            "No weights, no licence."
            if entry.file.availability == NEVER_RELEASED
            else "Not stated where the file was listed."
        ],
        citation=CITATIONS.get(entry.model_type, ""),
    )
    return render_card(facts)


def write_published_cards(folder: str | os.PathLike) -> list[Path]:
    """
    Render the card of every published checkpoint; cards of checkpoints that are gone are removed.

    Args:
        folder (`str` or `os.PathLike`):
            Receives `NAME.md` for each.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.md" for name in list_published()]
    for gone in set(folder.glob("*.md")) - set(paths):
        gone.unlink()
    for path in paths:
        path.write_text(str(render_published_card(path.stem)), encoding="utf-8")
    return paths


def seal_card(text: str) -> str:
    """
    A card with its own hash in a comment at the end, by which [`is_rendered`] knows later that nobody has edited it.

    Args:
        text (`str`):
            The card, sealed or not.
    """
    body = SEAL.sub("", text).rstrip() + "\n"
    return f"{body}\n<!-- rendered by hf_videovit, sha256 {_hash(body)} -->\n"


def is_rendered(text: str) -> bool:
    """Whether a card is as [`seal_card`] left it."""
    seal = SEAL.search(text)
    return seal is not None and seal[1] == _hash(text[: seal.start()].rstrip() + "\n")


def task_of(config: PreTrainedConfig) -> str:
    """The task of a saved configuration, by the class that was saved."""
    architecture = (config.architectures or [""])[0]
    if architecture.endswith("ForImageClassification"):
        return IMAGE_CLASSIFICATION
    if architecture.endswith("Backbone"):
        return BACKBONE
    if architecture.endswith("ForPoseEstimation"):
        return KEYPOINTS
    if architecture.endswith("Classification"):
        return CLASSIFICATION
    return PRETRAINING if architecture.endswith("ForPreTraining") else FEATURES


def _write_sealed(path: Path, card: ModelCard) -> Path:
    path.write_text(seal_card(str(card)), encoding="utf-8")
    return path


def _hash(text: str) -> str:
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


def _metadata(facts: CardFacts) -> ModelCardData:
    results = [
        EvalResult(
            task_type=facts.task if facts.task in CLASSIFICATION_TASKS else CLASSIFICATION,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", result.data.lower()).strip("-"),
            dataset_name=result.data,
            metric_type=METRIC_TYPES.get(result.metric, "accuracy"),
            metric_name=", ".join(part for part in (METRICS.get(result.metric, result.metric), result.how) if part),
            metric_value=round(result.value, 2),
            source_name=result.source,
            source_url=result.source_url,
        )
        for result in facts.results
        if result.in_metadata and (result.source is None or result.source_url)
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS.get(facts.task, facts.task),
        license=facts.licence,
        license_name="stated-in-the-card" if facts.licence == "other" else None,  # which the Hub then asks for
        tags=["image" if facts.task in ON_IMAGES else "video", "hf_videovit", facts.config.model_type, *facts.tags],
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=facts.title if results else None,
        eval_results=results or None,
    )


def _result_row(result: Result) -> dict[str, str]:
    source = result.source or ""
    return {
        "data": result.data,
        "metric": METRICS.get(result.metric, result.metric),
        "value": f"{result.value:.1f} %",
        "how": result.how,
        "source": f"[{source}]({result.source_url})" if result.source_url else source,
    }


def _processor_class(config: PreTrainedConfig, task: str) -> Any:
    registered: Any = (IMAGE_PROCESSOR_MAPPING if task in ON_IMAGES else VIDEO_PROCESSOR_MAPPING)[type(config)]
    return registered["torchvision"] if isinstance(registered, dict) else registered


def _published_result(result: PublishedResult, task: str) -> Result:
    views = f"{result.views} (frames x clips x crops)" if result.views else ""
    how = "; ".join(part for part in (views, (result.note or "").rstrip(".")) if part)
    checked = result.kind != "recalled-unverified"
    return Result(
        result.data,
        result.metric,
        result.value,
        how if checked else f"{how}; quoted from memory, not checked",
        result.source,
        result.url or SOURCE_URLS.get(result.source),
        in_metadata=checked and task != BACKBONE,  # a backbone alone has no such result
    )


def _how_to_obtain(entry: PublishedCheckpoint) -> str:
    file = entry.file
    if file.availability == NEVER_RELEASED:
        return (
            "No weights were ever released, so there is nothing to convert: this card describes what was published. "
            "A model of your own training is used like this:"
        )
    address = file.path or (file.url if file.availability == "listed" else None)
    checkpoint = Path(address).name if address else "FILE"
    command = (
        f"```bash\nhf-videovit convert --published {entry.name} --checkpoint {checkpoint} --output {entry.name}\n```"
    )
    if file.availability == "cloud drive":
        where = f"[a cloud drive]({file.url})" + (", in this folder" if "/folders/" in str(file.url) else "")
        return f"Its authors keep the file on {where}; a browser fetches it. Convert it once:\n\n{command}"
    if file.availability != "listed":
        state = {"not listed": "is not among the files that its authors list", "dead link": "is no longer online"}
        return f"The official file {state[file.availability]}. Who has it converts it once:\n\n{command}"
    size = file.size or (f"{file.bytes / 1e9:.2f} GB" if file.bytes else "size not stated")
    if file.repository is None:
        return f"The weights are [{checkpoint}]({file.url}) ({size}). Convert the file once:\n\n{command}"
    return (
        f"The weights are their authors': `{file.path}` ({size}) of "
        f"[{file.repository}](https://huggingface.co/{file.repository}). Convert the file once:\n\n{command}"
    )


def _published_limits(entry: PublishedCheckpoint) -> list[str]:
    if entry.task == BACKBONE:
        return ["It gives maps, not answers: train a head for dense prediction on them."]
    if entry.task not in CLASSIFICATION_TASKS:
        return ["It names nothing by itself: fine-tune it, or use its features."]
    unit = _unit(entry.task).split()[1]
    several = entry.config.get("problem_type") == MULTI_LABEL
    return [
        _several_labels(entry.num_labels) if several else _one_label(entry.num_labels, entry.task),
        f"Its training {unit}s come from the web and carry that source's gaps and biases in places, people and "
        "topics.",
    ]


def _common_licence(entry: PublishedCheckpoint) -> str | None:
    """The id that all sources agree on for the weights; `other` where they do not."""
    stated = {one.licence.lower() for one in entry.licences if one.covers == "weights"}
    return stated.pop() if len(stated) == 1 else "other" if stated else None


def _trained_summary(config: PreTrainedConfig, task: str) -> str:
    unit = _unit(task)
    classes = f"names which of {config.num_labels} classes {unit} shows"
    if config.problem_type == MULTI_LABEL:
        classes = f"tells of each of {config.num_labels} labels whether it fits {unit}"
    kinds = {
        **dict.fromkeys(CLASSIFICATION_TASKS, classes),
        BACKBONE: "turns an image into maps for dense prediction",
        KEYPOINTS: f"finds {config.num_labels} keypoints of the person that an image was cropped to",
        PRETRAINING: "was pre-trained without labels; fine-tune it or take its features",
        FEATURES: "turns a video into features",
    }
    return f"A `{config.model_type}` model that {kinds[task]}. Trained with hf_videovit."


def _unit(task: str) -> str:
    return "an image" if task in ON_IMAGES else "a video"


def _trained_results(results: Mapping[str, Any], run: Mapping[str, Any]) -> list[Result]:
    data = run.get("data", {})
    name = last_part(results.get("data") or data.get("eval_data") or data.get("data")) or "held-out videos"
    how = [f"{results['num_videos']} videos"] if "num_videos" in results else []
    if results.get("num_failed"):
        how.append(f"{results['num_failed']} unreadable ones not counted")
    protocol = results.get("protocol", {})
    if protocol.get("num_clips") and protocol.get("sampling_mode", "test") == "test":
        how.append(f"{protocol['num_clips']} x {protocol.get('num_crops', 1)} views")
    rows = [Result(name, metric, 100 * value, ", ".join(how)) for metric, value in results.get("metrics", {}).items()]
    baselines = results.get("baselines", {})
    return rows + [
        Result(name, "top1", 100 * value, f"for comparison: {who}", in_metadata=False)
        for who, value in baselines.items()
    ]


def _trained_limits(config: PreTrainedConfig, task: str) -> list[str]:
    limits = ["On footage unlike its training data expect less."]
    if task in CLASSIFICATION_TASKS and config.problem_type == MULTI_LABEL:
        limits.insert(0, _several_labels(config.num_labels))
    elif task in CLASSIFICATION_TASKS:
        limits.insert(0, _one_label(config.num_labels, task))
    return limits


def _several_labels(num_labels: int | None) -> str:
    return f"It gives any number of its {num_labels} labels, each with a probability of its own."


def _one_label(num_labels: int | None, task: str) -> str:
    return f"It answers one of its {num_labels} labels for any {_unit(task).split()[1]}, also for one that shows none."


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m hf_videovit.hub.cards`."""
    parser = argparse.ArgumentParser(description="Render the card of every published checkpoint.")
    parser.add_argument("--output", default="model_cards", help="folder that receives them")
    write_published_cards(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
