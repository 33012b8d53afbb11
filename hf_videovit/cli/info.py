"""The command that says what a folder is: a model, a run, an export, prepared data, features, videos."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table

from ..files import parse_yaml, read_json, read_text, visible_files
from .common import AsJson, print_json


commands = typer.Typer()
Rows = list[tuple[str, str]]
WEIGHTS = (".pth", ".pyth", ".pt", ".bin", ".tar", ".safetensors")
WORST_CLASSES = 5
SHOWN_LABELS = 12


@commands.command()
def info(
    folder: Annotated[Path, typer.Argument(help="Folder of a model, a run, an export, data or features.")],
    as_json: AsJson = False,
) -> str | None:
    """Say what a folder is: architecture, labels, protocol, measured scores, how it was trained."""
    found = describe_folder(folder)
    if as_json:
        print_json(found)
        return None
    console = Console()
    console.print(f"[bold]{escape(str(folder))}[/bold]: {escape(found['summary'])}", highlight=False)
    for title, rows in found["sections"].items():
        console.print(Padding(f"[bold]{title}[/bold]", (1, 0, 0, 0)), highlight=False)
        table = Table(
            Column("", no_wrap=True), Column("", overflow="fold"), box=None, show_header=False, pad_edge=False
        )
        for name, text in rows.items():
            table.add_row(escape(name), escape(text))
        console.print(table, highlight=False)
    if labels := found["labels"]:
        console.print(Padding(f"[bold]{len(labels)} labels[/bold]", (1, 0, 0, 0)), highlight=False)
        more = f", ... ({len(labels) - SHOWN_LABELS} more)" if len(labels) > SHOWN_LABELS else ""
        console.print(escape(", ".join(labels[:SHOWN_LABELS]) + more), highlight=False)
    return str(found["next"])


def describe_folder(folder: Path) -> dict[str, Any]:
    """
    Tell what a folder is, from the files in it. Nothing is loaded but configurations and headers of weights.

    Args:
        folder (`Path`):
            The folder.

    Returns:
        `dict[str, Any]`: `kind`, `summary`, `sections` (rows by heading), `labels`, and the command that is `next`.

    Raises:
        ValueError: there is no such folder, or a file in it is damaged.
    """
    if folder.is_file():
        hint = (
            "; `hf-videovit models` lists official files, `hf-videovit convert` reads them" if _weights(folder) else ""
        )
        raise ValueError(f"{str(folder)!r} is a file, not a folder{hint}.")
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    kinds = {
        "export.json": _export,
        "config.json": _model,
        "adapter_config.json": _adapter,
        "prepared.json": _prepared,
        "features.json": _features,
        "logs/run.json": _unfinished,
        "checkpoints": _unfinished,
    }
    for name, describe in kinds.items():
        if (folder / name).exists():
            return describe(folder)
    return _other(folder)


def _found(kind: str, summary: str, following: str = "", labels: Any = (), **sections: Any) -> dict[str, Any]:
    kept = {title.replace("_", " "): dict(rows) for title, rows in sections.items() if rows}
    return {"kind": kind, "summary": summary, "sections": kept, "labels": list(labels), "next": following}


def _weights(path: Path) -> bool:
    return path.suffix.lower() in WEIGHTS


def _model(folder: Path) -> dict[str, Any]:
    """A saved model, with the record of its run if it has one."""
    from transformers import AutoConfig

    from ..files import loading
    from ..hub.cards import task_of

    plain = read_json(folder / "config.json", "`folder`:")
    with loading("folder", folder):
        config = AutoConfig.from_pretrained(folder)
    if not type(config).__module__.startswith(__package__.partition(".")[0]):
        classes = ", ".join(plain.get("architectures") or ["no class named"])
        summary = f"a model of transformers ({classes}), not of this package"
        return _found("other model", summary, Weights=_weight_rows(folder))
    task = task_of(config)
    try:
        sections, labels = _model_sections(folder)
    except OSError as error:  # a file is missing
        sections, labels = {"Not_complete": [("reason", str(error).splitlines()[0])]}, []
    architecture = (config.architectures or [type(config).__name__])[0]
    kind = "adapter" if (folder / "adapter_config.json").is_file() else "model"
    summary = f"{'an adapter for' if kind == 'adapter' else 'a model:'} {architecture} ({config.model_type}), {task}"
    weights = _weight_rows(folder)
    if not weights and kind == "model":
        summary += "; its weights are missing"
    following = {
        "video-classification": f"hf-videovit classify VIDEO --model {folder}",
        "action-detection": f"hf-videovit detect-actions VIDEO --model {folder}",
        "feature-extraction": f"hf-videovit embed VIDEO --model {folder} --output features.safetensors",
        "visual-words": f"hf-videovit pretrain --model_type bevt --tokenizer {folder} --data CLIPS --output_dir NEW",
        "pretraining": f"hf-videovit train --checkpoint {folder} --data CLIPS --output_dir NEW",
    }
    adapter = _adapter_rows(folder) if kind == "adapter" else []
    command = following.get(task, "") if weights and kind == "model" else ""
    return _found(kind, summary, command, labels, Adapter=adapter, Weights=weights, **sections)


def _model_sections(folder: Path) -> tuple[dict[str, Any], list[str]]:
    from ..hub.card_localizers import feature_rows, pyramid_rows
    from ..hub.card_rows import architecture_rows, protocol_rows
    from ..hub.cards import ACTIONS, AUTO_CLASSES, LOCALIZATION, METRICS, read_card_facts

    facts = read_card_facts(folder)
    if facts.task == LOCALIZATION:
        architecture, protocol = pyramid_rows(facts.config, AUTO_CLASSES[facts.task]), feature_rows(facts.processor)
    else:
        architecture = architecture_rows(facts.config, AUTO_CLASSES[facts.task])
        protocol = protocol_rows(facts.config, facts.processor, detects=facts.task == ACTIONS)
    scores: Rows = []
    for one in facts.results:
        chance = one.how.startswith("for comparison: ")
        name = one.how.removeprefix("for comparison: ") if chance else METRICS.get(one.metric, one.metric)
        scores.append((name, f"{one.value:.1f} %, {one.data}" + ("" if chance or not one.how else f", {one.how}")))
    if facts.results and facts.versions:
        scores.append(("measured with", facts.versions))
    headings, rows = facts.class_table
    worst = [(row[0], ", ".join(map(" ".join, _named(row[1:], headings[1:])))) for row in rows[:WORST_CLASSES]]
    sections = {"Architecture": architecture, "Protocol": protocol, "Scores": scores, "Worst_classes": worst}
    return sections | {"Training": _training_rows(folder)}, list(facts.labels)


def _named(cells: Sequence[str], headings: Sequence[str]) -> list[tuple[str, str]]:
    return [(heading, cell) for cell, heading in zip(cells, headings) if cell]


def _training_rows(folder: Path) -> Rows:
    """Notes of the recipe, settings that differ from the defaults, and how far the run came."""
    if not (folder / "run.yaml").is_file():
        return []
    from ..hub.card_results import public_value
    from ..training.arguments import RunConfig
    from ..training.changes import changed_settings
    from ..training.methods.choosing import METHODS

    run = parse_yaml(read_text(folder / "run.yaml", "`folder`:"), str(folder / "run.yaml")) or {}
    rows = [(name, " ".join(str(text).split())) for name, text in run.get("about", {}).items()]
    method = next((one for one in METHODS if one.name == run.get("method", {}).get("name")), None)
    defaults = RunConfig().to_dict() | {"method": {} if method is None else method.defaults()}
    settings = changed_settings(defaults, {group: run.get(group) or {} for group in run})
    settings.pop("run.output_dir", None)
    words = {"method.name": "method"}
    rows += [(words.get(name, name.partition(".")[2]), str(public_value(one))) for name, one in settings.items()]
    return [*rows, *_log_rows(folder)]


def _log_rows(folder: Path) -> Rows:
    path = folder / "logs" / "metrics.jsonl"
    texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = [json.loads(text) for text in texts if text.endswith("}")]  # a line may be cut off
    if not lines:
        return []
    rows = [("steps logged", f"{lines[-1]['step']}, epoch {lines[-1]['epoch']}")]
    validated = [line for line in lines if isinstance(line.get("validation"), Mapping)]
    if validated:
        numbers = {name: value for name, value in validated[-1]["validation"].items() if isinstance(value, float)}
        words = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        rows.append(("last validation", f"step {validated[-1]['step']}: {words}"))
    return rows


def _weight_rows(folder: Path) -> Rows:
    """Files, size, parameters and types of weights, from the headers of the files."""
    files = sorted(path for path in folder.glob("*.safetensors") if path.name.startswith(("model", "adapter_model")))
    if not files:
        return []
    from safetensors import SafetensorError, safe_open

    types: Counter[str] = Counter()
    try:
        for path in files:
            with safe_open(path, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118, it is no mapping
                    part = tensors.get_slice(name)
                    size = 1
                    for length in part.get_shape():
                        size *= length
                    types[part.get_dtype()] += size
    except SafetensorError as error:
        return [("files", f"{path.name} is damaged: {error}")]
    size = sum(path.stat().st_size for path in files)
    shown = files[0].name if len(files) == 1 else f"{len(files)} files"
    numbers = ", ".join(f"{count:,} in {name}" for name, count in types.most_common())
    return [("files", f"{shown}, {size / 1e6:,.1f} MB"), ("numbers stored", numbers)]


def _adapter_rows(folder: Path) -> Rows:
    adapter = read_json(folder / "adapter_config.json", "`folder`:")
    names = {"base_model_name_or_path": "for the model", "r": "rank", "lora_alpha": "alpha"}
    return [(words, str(adapter[name])) for name, words in names.items() if adapter.get(name) is not None]


def _adapter(folder: Path) -> dict[str, Any]:
    return _found("adapter", "an adapter of PEFT", Adapter=_adapter_rows(folder), Weights=_weight_rows(folder))


def _export(folder: Path) -> dict[str, Any]:
    """A model that was exported to a runtime, with its comparison."""
    from ..inference.exported_model import export_report

    report = export_report(folder)
    config = read_json(folder / "config.json", "`folder`:") if (folder / "config.json").is_file() else {}
    manifest = read_json(folder / "export.json", "`folder`:")
    runtime = report.get("format") or manifest.get("export_format")
    labels = [config["id2label"][key] for key in sorted(config.get("id2label", {}), key=int)]
    architecture = ", ".join(config.get("architectures") or ["a model"])
    words = {
        "dtype": "numbers",
        "input_shape": "input (any where null)",
        "megabytes": "megabytes",
        "videos": "videos compared",
        "max_difference": "largest difference of the outputs",
        "top1_agreement": "same first label, share",
        "speedup": "speed against torch",
        "versions": "made with",
    }
    rows = [(text, json.dumps(report[name])) for name, text in words.items() if report.get(name) is not None]
    following = f"hf-videovit classify VIDEO --model {folder}" if report.get("classifies") else ""
    return _found("export", f"an export of {architecture} for {runtime}", following, labels, Comparison=rows)


def _prepared(folder: Path) -> dict[str, Any]:
    """Data that `hf-videovit prepare` wrote."""
    from ..training.data.manifest import read_label_names

    summary = read_json(folder / "prepared.json", "`folder`:")
    rows = [("layout", str(summary.get("layout"))), ("format", str(summary.get("format")))]
    for split, counts in (summary.get("splits") or {}).items():
        failed = f", {counts['failed']} unreadable" if counts.get("failed") else ""
        rows.append((split, f"{counts.get('videos', 0):,} clips{failed}"))
    rows += [("duplicates", str(summary["duplicates"]))] if summary.get("duplicates") else []
    following = f"hf-videovit train --data {folder} --output_dir NEW"
    return _found("prepared data", "data for training", following, read_label_names(folder) or (), Data=rows)


def _features(folder: Path) -> dict[str, Any]:
    """Features of videos with their description."""
    from ..feature_files import read_description, read_manifest

    rows = [(name.replace("_", " "), str(value)) for name, value in (read_description(folder) or {}).items()]
    videos = list(read_manifest(folder))
    return _found("features", f"features of {len(videos)} videos", Description=rows)


def _unfinished(folder: Path) -> dict[str, Any]:
    """A run that has not saved its model."""
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("*") if path.is_dir())
    rows = [("checkpoints", ", ".join(checkpoints) or "none"), *_log_rows(folder)]
    summary = "a run that has not ended: no model is saved yet"
    return _found("unfinished run", summary, "the command of the run again, with --resume", Run=rows)


def _other(folder: Path) -> dict[str, Any]:
    """Videos, or none of the kinds."""
    from ..video_files import visible_videos

    videos = visible_videos(folder)
    if videos:
        places = Counter(path.parent.relative_to(folder).as_posix() for path in videos)
        rows = [(place, f"{count} videos") for place, count in places.most_common(10)]
        summary = f"{len(videos)} videos in {len(places)} folders"
        return _found("videos", summary, f"hf-videovit doctor {folder}", Folders=rows)
    nested = [path.parent.relative_to(folder).as_posix() for path in sorted(folder.glob("*/config.json"))]
    inside = f"; models are in {', '.join(nested[:5])}" if nested else ""
    weights = [path.name for path in visible_files(folder, deep=False) if _weights(path)]
    if weights and not inside:
        inside = f"; {weights[0]} may be an official file: `hf-videovit convert` reads it"
    summary = "no saved model (config.json), run, export, prepared data, features or videos"
    return _found("unknown", summary + inside)
