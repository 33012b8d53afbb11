"""
Model cards, rendered from the entry of a published checkpoint or from the files that training left in a folder.

`python -m hf_videovit.hub.cards --output model_cards` renders the card of every published checkpoint.
"""

import argparse
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForKeypointDetection,
    AutoModelForObjectDetection,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    PreTrainedConfig,
    VitPoseImageProcessor,
)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from ..auto import AutoModelForActionDetection, AutoModelForTemporalActionLocalization
from ..files import parse_yaml, read_json, read_text
from ..modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
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
from .card_facts import (
    ACTIONS,
    BACKBONE,
    CLASSIFICATION,
    FEATURES,
    IMAGE_CLASSIFICATION,
    KEYPOINTS,
    LOCALIZATION,
    OBJECTS,
    PRETRAINING,
    SEMANTICS,
    WORDS,
    CardFacts,
    Result,
    card_metadata,
)
from .card_localizers import feature_rows, localizer_limits, pyramid_rows
from .card_results import cell, class_table, settings_text, trained_results, version_line, with_chance
from .card_rows import architecture_rows, hub_id, last_part, protocol_rows, run_lines
from .card_sources import CITATIONS, METRICS, SOURCE_URLS


TEMPLATE = Path(__file__).with_name("card_template.md")
RESULTS, CONFUSION = "results.json", "results_confusion.png"
NAMED_OUTPUTS = (*CLASSIFICATION_TASKS, KEYPOINTS, OBJECTS, SEMANTICS, ACTIONS, LOCALIZATION)
MULTI_LABEL = "multi_label_classification"
AUTO_CLASSES: dict[str, Any] = {
    CLASSIFICATION: AutoModelForVideoClassification,
    PRETRAINING: AutoModelForPreTraining,
    FEATURES: AutoModel,
    IMAGE_CLASSIFICATION: AutoModelForImageClassification,
    BACKBONE: AutoBackbone,
    KEYPOINTS: AutoModelForKeypointDetection,
    OBJECTS: AutoModelForObjectDetection,
    SEMANTICS: AutoModelForSemanticSegmentation,
    ACTIONS: AutoModelForActionDetection,
    LOCALIZATION: AutoModelForTemporalActionLocalization,
    WORDS: AutoModel,
}
# Task of a class by the end of its name; the first that fits.
ENDINGS = {
    "ForImageClassification": IMAGE_CLASSIFICATION,
    "Backbone": BACKBONE,
    "ForPoseEstimation": KEYPOINTS,
    "ForObjectDetection": OBJECTS,
    "ForSemanticSegmentation": SEMANTICS,
    "ForActionDetection": ACTIONS,
    "ForTemporalActionLocalization": LOCALIZATION,
    "VideoTemporalLocalizer": LOCALIZATION,
    "Classification": CLASSIFICATION,
    "ForPreTraining": PRETRAINING,
    "BevtImageCodebook": WORDS,
}
SEAL = re.compile(r"\s*<!-- rendered by hf_videovit, sha256 ([0-9a-f]{64}) -->\s*\Z")


def render_card(facts: CardFacts) -> ModelCard:
    """
    Render a card with its metadata.

    Args:
        facts ([`CardFacts`]):
            The content.

    Returns:
        [`ModelCard`]
    """
    auto_class = AUTO_CLASSES[facts.task]
    if facts.task == LOCALIZATION:
        architecture, protocol = pyramid_rows(facts.config, auto_class), feature_rows(facts.processor)
    else:
        architecture = architecture_rows(facts.config, auto_class)
        protocol = protocol_rows(facts.config, facts.processor, detects=facts.task == ACTIONS)
    return ModelCard.from_template(
        card_metadata(facts),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=facts.title,
        summary=facts.summary,
        obtain=facts.obtain,
        model_id=facts.model_id,
        model_type=facts.config.model_type,
        task=facts.task,
        auto_class=auto_class.__name__,
        has_encoder=hasattr(facts.config, "encoder_config"),
        has_masks=getattr(facts.config, "use_masks", False),
        adapter_of=facts.adapter_of,
        pooling_argument=', pooling="mean"' if facts.task == PRETRAINING else "",
        protocol=protocol,
        architecture=architecture,
        model_class=dict(architecture)["class"],
        measured=[_result_row(result) for result in facts.results if result.source is None],
        reported=[_result_row(result) for result in facts.results if result.source is not None],
        class_headings=facts.class_table[0],
        class_rows=facts.class_table[1],
        confusion=facts.confusion,
        versions=facts.versions,
        training=facts.training,
        settings=facts.settings,
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
    Write `README.md` for a trained model from the files in its folder: configuration, processor, `results.json`,
    `run.yaml`.

    Args:
        folder (`str` or `os.PathLike`):
            A folder with a saved model and its processor.
        results (`Mapping[str, Any]`, *optional*):
            The evaluation, in the form of `results.json`, which is the default. `metrics` are shares of one;
            `baselines` (name to share), `data` (name of the data) and `protocol` are shown if present.
        facts (`Mapping[str, Any]`, *optional*):
            Counts of the run: `num_train_videos`, `steps`, `effective_batch`, `hardware`, `seconds`; `outcomes` holds
            more rows (label to value), `settings` those that differ from the defaults (`group.field` to value),
            `environment` the versions if there are no results.
        model_id (`str`, *optional*):
            Folder or Hub id that the usage example loads. Defaults to the folder's name.
        title (`str`, *optional*):
            Headline. Defaults to the folder's name.
        summary (`str`, *optional*):
            A sentence or two on the model. Defaults to a sentence from the configuration.
        licence (`str`, *optional*):
            Licence id of the weights, such as `"apache-2.0"`. Without it the card states that the licence is unknown.
        datasets (`Sequence[str]`, *optional*):
            Hub ids of the training data.
        base_model (`str`, *optional*):
            Hub id of the checkpoint that training started from. Defaults to that of `run.yaml`, if it is a Hub id.
        citation (`str`, *optional*):
            BibTeX.

    Returns:
        `Path`: the card's file.
    """
    folder = Path(folder)
    read = read_card_facts(folder, results, facts or {})
    name = title or folder.resolve().name
    stated = f"Weights: {licence}." if licence else read.licences[0]
    card = replace(
        read,
        title=name,
        model_id=model_id or folder.resolve().name,
        licence=licence,
        licences=[stated],
        citation=citation,
        datasets=datasets,
        summary=summary or read.summary,
        base_model=base_model or read.base_model,
    )
    return _write_sealed(folder / "README.md", render_card(card))


def read_card_facts(
    folder: Path, results: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None
) -> CardFacts:
    """
    Read what the files of a model's folder say about it.

    Args:
        folder (`Path`):
            A folder with a saved model and its processor.
        results (`Mapping[str, Any]`, *optional*):
            As for [`write_model_card`].
        facts (`Mapping[str, Any]`, *optional*):
            As for [`write_model_card`].

    Returns:
        [`CardFacts`]
    """
    config, facts = AutoConfig.from_pretrained(folder), facts or {}
    task = task_of(config)
    readers = {LOCALIZATION: AutoFeatureExtractor, **dict.fromkeys(IMAGE_TASKS, AutoImageProcessor)}
    processor = readers.get(task, AutoVideoProcessor).from_pretrained(folder)
    if results is None:
        results = _read_json(folder / RESULTS)
    if task in CLASSIFICATION_TASKS:
        results = with_chance(results, config.num_labels)
    run, name = _read_yaml(folder / "run.yaml"), folder.resolve().name
    return CardFacts(
        title=name,
        model_id=name,
        task=task,
        summary=_trained_summary(config, task),
        config=config,
        processor=processor,
        results=trained_results(results, run),
        class_table=class_table(results),
        confusion=CONFUSION if (folder / CONFUSION).is_file() else None,
        versions=version_line(results.get("environment") or facts.get("environment") or {}),
        training=run_lines(run, facts),
        settings=settings_text(facts.get("settings", {})),
        labels=[config.id2label[index] for index in range(config.num_labels)] if task in NAMED_OUTPUTS else (),
        limits=_trained_limits(config, task),
        licences=["Not stated. It depends on the training data and on the initial weights."],
        base_model=hub_id(run.get("model", {}).get("checkpoint")),
        adapter_of=last_part(_read_json(folder / "adapter_config.json").get("base_model_name_or_path")),
    )


def write_converted_card(folder: str | os.PathLike, checkpoint_name: str, *, published: str | None = None) -> Path:
    """
    Write `README.md` for a converted checkpoint.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of the converted model.
        checkpoint_name (`str`):
            Name of the official file.
        published (`str`, *optional*):
            Name of the published checkpoint, if it was converted without changes; its card is then written. Otherwise
            the card states only what the folder contains.

    Returns:
        `Path`: the card's file.
    """
    folder = Path(folder)
    name = folder.resolve().name
    if published is None:
        return write_model_card(folder, summary=f"Converted from `{checkpoint_name}` with hf_videovit.")
    return _write_sealed(folder / "README.md", render_published_card(published, model_id=name))


def render_published_card(name: str, *, model_id: str | None = None) -> ModelCard:
    """
    Render the card of an official checkpoint after conversion.

    Args:
        name (`str`):
            One of [`~published.list_published`].
        model_id (`str`, *optional*):
            Folder or Hub id that the usage example loads. Defaults to `name`.

    Returns:
        [`ModelCard`]
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
        results=[_published_result(result) for result in entry.results],
        obtain=_how_to_obtain(entry),
        labels=published_labels(entry.labels) if entry.labels else (),
        limits=[*entry.notes, *_published_limits(entry, config)],
        licence=_common_licence(entry),
        licences=[f"{one.covers}: {one.licence} ({one.source})" for one in entry.licences]
        or [
            "No weights were released."
            if entry.file.availability == NEVER_RELEASED
            else "Not stated at the source of the file."
        ],
        citation=CITATIONS.get(entry.method or entry.model_type, ""),
    )
    return render_card(facts)


def write_published_cards(folder: str | os.PathLike) -> list[Path]:
    """
    Render the card of every published checkpoint, and delete cards of checkpoints that are no longer listed.

    Args:
        folder (`str` or `os.PathLike`):
            Receives `NAME.md` for each.

    Returns:
        `list[Path]`: the cards' files.
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
    Append the hash of a card in a comment, so that [`is_rendered`] can tell later whether it was edited.

    Args:
        text (`str`):
            The card, with or without such a comment.

    Returns:
        `str`: the card with a new comment.
    """
    body = SEAL.sub("", text).rstrip() + "\n"
    return f"{body}\n<!-- rendered by hf_videovit, sha256 {_hash(body)} -->\n"


def is_rendered(text: str) -> bool:
    """
    Whether a card is unchanged since [`seal_card`].

    Args:
        text (`str`):
            The card.

    Returns:
        `bool`: `False` if the card was edited or written by hand.
    """
    seal = SEAL.search(text)
    return seal is not None and seal[1] == _hash(text[: seal.start()].rstrip() + "\n")


def task_of(config: PreTrainedConfig) -> str:
    """
    Task of a saved model, from its class.

    Args:
        config ([`PreTrainedConfig`]):
            The model's configuration, with `architectures`.

    Returns:
        `str`: one of the keys of `AUTO_CLASSES`.
    """
    architecture = (config.architectures or [""])[0]
    return next((task for ending, task in ENDINGS.items() if architecture.endswith(ending)), FEATURES)


def _write_sealed(path: Path, card: ModelCard) -> Path:
    path.write_text(seal_card(str(card)), encoding="utf-8")
    return path


def _hash(text: str) -> str:
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


def _result_row(result: Result) -> dict[str, str]:
    source = result.source or ""
    return {
        "data": cell(result.data),
        "metric": METRICS.get(result.metric, result.metric),
        "value": f"{result.value:.1f} %",
        "how": cell(result.how),
        "source": f"[{source}]({result.source_url})" if result.source_url else source,
    }


def _processor_class(config: PreTrainedConfig, task: str) -> Any:
    if task == LOCALIZATION:
        return TemporalLocalizationProcessor
    if task == KEYPOINTS:
        return VitPoseImageProcessor
    registered: Any = (IMAGE_PROCESSOR_MAPPING if task in IMAGE_TASKS else VIDEO_PROCESSOR_MAPPING)[type(config)]
    return registered["torchvision"] if isinstance(registered, dict) else registered


def _published_result(result: PublishedResult) -> Result:
    views = f"{result.views} (frames x clips x crops)" if result.views else ""
    how = "; ".join(part for part in (views, (result.note or "").rstrip(".")) if part)
    checked = result.kind != "recalled-unverified"
    return Result(
        result.data,
        result.metric,
        result.value,
        how if checked else f"{how}; from memory, not verified",
        result.source,
        result.url or SOURCE_URLS.get(result.source),
        in_metadata=checked,
    )


def _how_to_obtain(entry: PublishedCheckpoint) -> str:
    file = entry.file
    if file.availability == NEVER_RELEASED:
        return (
            "The authors released no weights. This card describes the published model. A model that you trained "
            "yourself is used like this:"
        )
    address = file.path or (file.url if file.availability == "listed" else None)
    checkpoint = Path(address).name if address else "FILE"
    command = (
        f"```bash\nhf-videovit convert --published {entry.name} --checkpoint {checkpoint} --output {entry.name}\n```"
    )
    if file.availability == "cloud drive":
        where = f"[a cloud drive]({file.url})" + (", in this folder" if "/folders/" in str(file.url) else "")
        return f"The authors host the file on {where}. Download it with a browser and convert it once:\n\n{command}"
    if file.availability != "listed":
        state = {"not listed": "is not listed by its authors", "dead link": "is no longer online"}
        return f"The official file {state[file.availability]}. If you have it, convert it once:\n\n{command}"
    size = file.size or (f"{file.bytes / 1e9:.2f} GB" if file.bytes else "size not stated")
    if file.repository is None:
        return f"The weights are [{checkpoint}]({file.url}) ({size}). Convert the file once:\n\n{command}"
    return (
        f"The authors' weights are `{file.path}` ({size}) in "
        f"[{file.repository}](https://huggingface.co/{file.repository}). Convert the file once:\n\n{command}"
    )


def _published_limits(entry: PublishedCheckpoint, config: PreTrainedConfig) -> list[str]:
    if entry.task == ACTIONS:
        return _detector_limits(config)
    if entry.task == LOCALIZATION:
        return localizer_limits(config)
    if entry.task == KEYPOINTS:
        return _pose_limits()
    if entry.task == OBJECTS:
        kinds = f"The model finds objects of its {entry.num_labels} kinds only"
        return [f"{kinds}, {config.max_detections} in an image at most."]
    if entry.task == SEMANTICS:
        return [_each_pixel(config)]
    if entry.task not in CLASSIFICATION_TASKS:
        return ["The model has no classifier. Fine-tune it, or use its features."]
    unit = _unit(entry.task).split()[1]
    several = entry.config.get("problem_type") == MULTI_LABEL
    return [
        _several_labels(entry.num_labels) if several else _one_label(entry.num_labels, entry.task),
        f"The training {unit}s come from the web and have the gaps and biases of that source in places, people and "
        "topics.",
    ]


def _common_licence(entry: PublishedCheckpoint) -> str | None:
    """Licence id of the weights if all sources agree on one, otherwise `other`."""
    stated = {one.licence.lower() for one in entry.licences if one.covers == "weights"}
    return stated.pop() if len(stated) == 1 else "other" if stated else None


def _trained_summary(config: PreTrainedConfig, task: str) -> str:
    unit = _unit(task)
    classes = f"assigns one of {config.num_labels} classes to {unit}"
    if config.problem_type == MULTI_LABEL:
        classes = f"assigns any number of {config.num_labels} labels to {unit}"
    kinds = {
        **dict.fromkeys(CLASSIFICATION_TASKS, classes),
        BACKBONE: "computes feature maps of an image for dense prediction",
        KEYPOINTS: f"locates {config.num_labels} keypoints of a person in a cropped image",
        OBJECTS: f"finds objects of {config.num_labels} kinds in an image"
        + (", with a mask of each" if getattr(config, "use_masks", False) else ""),
        SEMANTICS: f"assigns one of {config.num_labels} labels to each pixel of an image",
        ACTIONS: f"scores {config.num_labels} actions for each person in a video",
        LOCALIZATION: f"finds the segments of {config.num_labels} actions in a long video"
        + ("" if hasattr(config, "encoder_config") else ", from features"),
        PRETRAINING: "was pretrained without labels; fine-tune it or use its features",
        FEATURES: "computes features of a video",
        WORDS: "gives each patch of an image one of its visual words, which a video model predicts in pretraining",
    }
    return f"A `{config.model_type}` model that {kinds[task]}. Trained with hf_videovit."


def _unit(task: str) -> str:
    return "an image" if task in IMAGE_TASKS else "a video"


def _trained_limits(config: PreTrainedConfig, task: str) -> list[str]:
    limits = ["Expect lower accuracy on data unlike the training data."]
    if task == ACTIONS:
        limits = [*_detector_limits(config), *limits]
    elif task == LOCALIZATION:
        limits = [*localizer_limits(config), *limits]
    elif task == KEYPOINTS:
        limits = [*_pose_limits(), *limits]
    elif task == SEMANTICS:
        limits.insert(0, _each_pixel(config))
    elif task in CLASSIFICATION_TASKS and config.problem_type == MULTI_LABEL:
        limits.insert(0, _several_labels(config.num_labels))
    elif task in CLASSIFICATION_TASKS:
        limits.insert(0, _one_label(config.num_labels, task))
    return limits


def _each_pixel(config: PreTrainedConfig) -> str:
    return f"Every pixel gets one of the {config.num_labels} labels, even if it shows none of them."


def _pose_limits() -> list[str]:
    return ["People are not found by the model: it locates the keypoints of one person in the box that it is given."]


def _detector_limits(config: PreTrainedConfig) -> list[str]:
    """Limits of a detector: work left to its user, and scores or boxes that differ from the expected ones."""
    limits = [
        "People are not found by the model: give their boxes, or a detector of people.",
        f"The model scores each of its {config.num_labels} labels separately for every person.",
    ]
    if config.problem_type == "single_label_classification":
        limits[1] = f"The model chooses one of its {config.num_labels} labels for every person."
    evaluated = config.detection_config.evaluated_labels
    if evaluated is not None:
        limits.append(f"Results are over {len(evaluated)} of the {config.num_labels} labels.")
    return limits + _scale_limits(config)


def _scale_limits(config: PreTrainedConfig) -> list[str]:
    """A sentence where boxes are read at another scale than that of the patches."""
    scale, patch = config.detection_config.roi_scale, getattr(config, "patch_size", None)
    if scale is None or patch is None or abs(scale * patch - 1) < 1e-6:
        return []
    return [
        f"Boxes are scaled by 1/{1 / scale:g} although patches have {patch} pixels, as in the authors' code. To "
        f"change it, pass `detection_config={{'roi_scale': 1 / {patch}}}` to `from_pretrained`."
    ]


def _several_labels(num_labels: int | None) -> str:
    return f"The model predicts a separate probability for each of its {num_labels} labels."


def _one_label(num_labels: int | None, task: str) -> str:
    unit = _unit(task).split()[1]
    return f"The model always predicts one of its {num_labels} labels, even if the {unit} shows none of them."


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path, "`folder`:") if path.is_file() else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    return (parse_yaml(read_text(path, "`folder`:"), str(path)) or {}) if path.is_file() else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Entry point of `python -m hf_videovit.hub.cards`.

    Args:
        arguments (`Sequence[str]`, *optional*):
            Arguments of the command line. Defaults to those of the process.
    """
    parser = argparse.ArgumentParser(description="Render the card of every published checkpoint.")
    parser.add_argument("--output", default="model_cards", help="Folder for the cards.")
    write_published_cards(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
