"""Parts of a card that come from `results.json` and from the settings of a run."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from .card_facts import Result
from .card_rows import last_part


MAJORITY = "majority"


def trained_results(results: Mapping[str, Any], run: Mapping[str, Any]) -> list[Result]:
    """
    Measured results, and what a model would score that knows nothing.

    Args:
        results (`Mapping[str, Any]`):
            The content of `results.json`.
        run (`Mapping[str, Any]`):
            The content of `run.yaml`, which names the data if the results do not.

    Returns:
        `list[Result]`: one for each row of the card.
    """
    data = run.get("data", {})
    name = last_part(results.get("data") or data.get("eval_data") or data.get("data")) or "held-out videos"
    how = [f"{results['num_videos']} videos"] if "num_videos" in results else []
    if "num_key_frames" in results:
        how = [f"{results['num_key_frames']} key-frames", f"boxes: {results['boxes']}"]
        if results.get("num_failed"):
            how.append(f"{results['num_failed']} unreadable key-frames counted as missed")
    elif results.get("num_failed"):
        how.append(f"{results['num_failed']} unreadable videos not counted")
    protocol = results.get("protocol", {})
    if protocol.get("num_clips") and protocol.get("sampling_mode", "test") == "test":
        how.append(f"{protocol['num_clips']} x {protocol.get('num_crops', 1)} views")
    rows = [Result(name, metric, 100 * value, ", ".join(how)) for metric, value in results.get("metrics", {}).items()]
    return rows + [
        Result(name, "top1", 100 * value, f"for comparison: {who}", in_metadata=False)
        for who, value in _baselines(results).items()
    ]


def _baselines(results: Mapping[str, Any]) -> dict[str, float]:
    """Top-1 accuracies of chance and of the most frequent label, where a video has one label."""
    known, rows = dict(results.get("baselines") or {}), results.get("per_class") or []
    if "top1" not in results.get("metrics", {}) or not all("accuracy" in row for row in rows):
        return known
    if rows and not any(who.startswith(MAJORITY) for who in known):
        most = max(rows, key=lambda row: row["videos"])
        known[f"{MAJORITY} (always `{most['label']}`)"] = most["videos"] / sum(row["videos"] for row in rows)
    return known


def with_chance(results: Mapping[str, Any], num_labels: int) -> dict[str, Any]:
    """
    Results with the score of chance, if they do not have it.

    Args:
        results (`Mapping[str, Any]`):
            The content of `results.json`.
        num_labels (`int`):
            Labels of the model.

    Returns:
        `dict[str, Any]`: the same, with `chance` in `baselines` where a video has one label.
    """
    baselines = dict(results.get("baselines") or {})
    if "top1" in results.get("metrics", {}) and num_labels > 1:
        baselines = {"chance": 1 / num_labels} | baselines
    return {**results, "baselines": baselines}


def class_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """
    The results for each class as a table, the worst first.

    Args:
        results (`Mapping[str, Any]`):
            The content of `results.json`.

    Returns:
        `tuple[list[str], list[list[str]]]`: headings and rows; both are empty where there are no such results.
    """
    rows = [row for row in results.get("per_class") or [] if isinstance(row, Mapping)]
    if not rows:
        return [], []
    names = list(rows[0])
    measure = next((name for name in names if isinstance(rows[0][name], float)), None)
    if measure is not None:
        rows = sorted(rows, key=lambda row: row[measure] if row[measure] is not None else -1.0)
    return [name.replace("_", " ") for name in names], [[cell(row.get(name)) for name in names] for row in rows]


def cell(value: Any) -> str:
    """
    A value as the cell of a table.

    Args:
        value (`Any`):
            A share of one (`float`), or any other plain value.

    Returns:
        `str`: a percentage, or text without signs that end a cell.
    """
    if isinstance(value, float):
        return f"{100 * value:.1f} %"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def version_line(environment: Mapping[str, Any]) -> str:
    """
    Versions and hardware of a run or an evaluation.

    Args:
        environment (`Mapping[str, Any]`):
            As `results.json` has it.

    Returns:
        `str`: a list in words; empty where nothing is known.
    """
    parts = [f"{name} {number}" for name, number in (environment.get("packages") or {}).items()]
    if environment.get("python"):
        parts.append(f"Python {environment['python']}")
    decoder = environment.get("decoder") or {}
    if decoder.get("name"):
        parts.append(f"decoder {decoder['name']} (FFmpeg {decoder.get('ffmpeg') or 'unknown'})")
    if environment.get("device"):
        precision = f", {environment['dtype']}" if environment.get("dtype") else ""
        parts.append(f"on {environment['device']}{precision}")
    return ", ".join(parts)


def settings_text(settings: Mapping[str, Any]) -> str:
    """
    Settings as YAML, without folders of this machine.

    Args:
        settings (`Mapping[str, Any]`):
            Values by `group.field`.

    Returns:
        `str`: a line or more for each; empty for none.
    """
    shown = {name: public_value(value) for name, value in settings.items() if name != "run.output_dir"}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110).rstrip() if shown else ""


def public_value(value: Any) -> Any:
    """
    A plain value without folders of this machine.

    Args:
        value (`Any`):
            Text, number, list or mapping.

    Returns:
        `Any`: the same, with paths shortened to their last part.
    """
    if isinstance(value, Mapping):
        return {name: public_value(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [public_value(inner) for inner in value]
    return without_folders(value) if isinstance(value, str) else value


def without_folders(text: str) -> str:
    """
    Shorten each absolute path in a text to its last part; URLs are kept.

    Args:
        text (`str`):
            Any text.

    Returns:
        `str`: the text.
    """
    return re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?[\\/](?:[^\s\"'\\/]+[\\/])+([^\s\"'\\/]+)", r"\1", text)


__all__ = [
    "class_table",
    "public_value",
    "settings_text",
    "trained_results",
    "version_line",
    "with_chance",
    "without_folders",
]
