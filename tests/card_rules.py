"""
What the Hub refuses in the metadata of a card, as far as it is documented: `license`, `datasets` and `model-index`
where they are present, the kinds of the other fields, and how a Space is configured.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml


# Those of the Hub's list (https://huggingface.co/docs/hub/repositories-licenses) that vision models carry.
LICENCES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda
cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-4.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 agpl-3.0 gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 isc mpl-2.0 unlicense wtfpl unknown other
"""
TASKS = """
video-classification image-classification image-feature-extraction feature-extraction keypoint-detection
object-detection image-segmentation
"""
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SDKS = ("gradio", "docker", "static")
REPO_ID = re.compile(r"(?!.*(--|\.\.))[\w][\w.-]{0,95}(/[\w][\w.-]{0,95})?(?<![-.])")
WORD = re.compile(r"[a-z]+(-[a-z]+)*")
VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


def problems(content: str, repo_type: str = "model") -> list[str]:
    """Every rule that a card breaks, in words."""
    block = re.match(r"---\n(.*?)\n---\s*\n", content, re.DOTALL)
    if block is None:
        return ["there is no metadata"]
    try:
        metadata = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return [f"the metadata is no YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["the metadata must be an object"]
    return [*_common(metadata), *(_of_space(metadata) if repo_type == "space" else _of_model(metadata))]


def _common(metadata: dict[str, Any]) -> Iterator[str]:
    licence = metadata.get("license")
    if licence is not None and licence not in LICENCES.split():
        yield f'"license" must be one of the list, got {licence!r}'
    if licence == "other" and not metadata.get("license_name"):
        yield '"license: other" needs "license_name"'
    for name in ("tags", "metrics", "models", "datasets"):
        values = metadata.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
            yield f'"{name}" must be a list of words, got {values!r}'
        elif name in ("models", "datasets"):
            yield from (f'"{name}" has no id in {value!r}' for value in values if not REPO_ID.fullmatch(value))
        elif len(set(values)) != len(values):
            yield f'"{name}" names one twice'


def _of_model(metadata: dict[str, Any]) -> Iterator[str]:
    if metadata.get("pipeline_tag") not in (None, *TASKS.split()):
        yield f'"pipeline_tag" must be one of the list, got {metadata["pipeline_tag"]!r}'
    if not isinstance(metadata.get("library_name", ""), str):
        yield '"library_name" must be a word'
    bases = metadata.get("base_model", [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not REPO_ID.fullmatch(base):
            yield f'"base_model" has no id in {base!r}'
    for number, model in enumerate(metadata.get("model-index", [])):
        yield from (f'"model-index[{number}]" {problem}' for problem in _of_results(model))


def _of_results(model: dict[str, Any]) -> Iterator[str]:
    if not isinstance(model.get("name"), str) or not model["name"]:
        yield 'needs "name"'
    if not model.get("results"):
        yield 'needs "results"'
    for result in model.get("results") or []:
        if not WORD.fullmatch(str(result.get("task", {}).get("type", ""))):  # any task, unlike `pipeline_tag`
            yield f'"task.type" must be a word, got {result.get("task")!r}'
        data = result.get("dataset", {})
        if not all(isinstance(data.get(name), str) and data[name] for name in ("type", "name")):
            yield f'"dataset" needs "type" and "name", got {data!r}'
        elif not REPO_ID.fullmatch(data["type"]):
            yield f'"dataset.type" must be an id, got {data["type"]!r}'
        for metric in result.get("metrics") or [{}]:
            value = metric.get("value")
            if not metric.get("type") or isinstance(value, bool) or not isinstance(value, int | float | str):
                yield f'"metrics" needs "type" and "value", got {metric!r}'
        if "source" in result and not str(result["source"].get("url")).startswith("https://"):
            yield f'"source" needs "url", got {result["source"]!r}'


def _of_space(metadata: dict[str, Any]) -> Iterator[str]:
    if metadata.get("sdk") not in SDKS:
        yield f'"sdk" must be one of {", ".join(SDKS)}, got {metadata.get("sdk")!r}'
    if not VERSION.fullmatch(str(metadata.get("sdk_version"))):
        yield f'"sdk_version" must be a version, got {metadata.get("sdk_version")!r}'
    for name in ("title", "app_file"):
        if not isinstance(metadata.get(name), str) or not metadata[name]:
            yield f'"{name}" is needed'
    emoji = metadata.get("emoji", "")
    if len(emoji) != 1 or emoji.isascii():
        yield f'"emoji" must be one, got {emoji!r}'
    for name in ("colorFrom", "colorTo"):
        if metadata.get(name) not in COLOURS:
            yield f'"{name}" must be one of {", ".join(COLOURS)}, got {metadata.get(name)!r}'
    if len(metadata.get("short_description", "")) > 60:
        yield '"short_description" must be at most 60 letters'
