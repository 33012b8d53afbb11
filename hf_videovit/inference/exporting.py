"""
Export of classifiers to files that run without this package's model code, and use of these files.

The graphs are made by the exporters of transformers. An export counts as done once it has classified real clips and
its logits were compared with the model's.
"""

import importlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from ..folders import refuse_existing
from ..modeling.layers import as_single_views, merge_single_views


# Exporter and configuration of `transformers.exporters`.
FORMATS = {
    "torch": ("DynamoExporter", "DynamoConfig"),
    "onnx": ("OnnxExporter", "OnnxConfig"),
    "openvino": ("OpenVINOExporter", "OpenVINOConfig"),
}
DTYPES = {"float32": FORMATS.keys(), "float16": {"openvino"}, "int8": {"onnx"}}
MANIFEST = "export.json"  # written by transformers
REPORT = "export_report.json"
TIMED_RUNS = 5


class ExportedClassifier(PreTrainedModel):
    """
    A classifier whose graph was exported. It takes the inputs of the model and returns its logits.

    Args:
        exported (`transformers.exporters.ExportedModel`):
            The graph, which takes single views.
    """

    config_class = None  # type: ignore[assignment]  # that of the exported model
    main_input_name = "pixel_values"
    _supports_sdpa = True  # the configuration names the attention of the graph

    def __init__(self, exported: Any):
        super().__init__(exported.config)
        self.exported = exported

    @property
    def device(self) -> torch.device:
        """Device of the inputs and outputs."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return self.exported.dtype

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ImageClassifierOutput:
        """
        Classify clips.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips, or `(batch_size, num_views, num_frames, num_channels, height, width)`.

        Returns:
            [`ImageClassifierOutput`]: logits of shape `(batch_size, num_labels)`.
        """
        logits = self.exported(pixel_values=as_single_views(pixel_values).contiguous()).logits
        config: Any = self.config
        merged = merge_single_views(torch.as_tensor(logits), pixel_values, config.view_merging, config.problem_type)
        return ImageClassifierOutput(logits=merged)


def is_export(model: str | Path) -> bool:
    """
    Whether a folder holds an exported model.

    Args:
        model (`str` or `Path`):
            Folder.
    """
    return (Path(model) / MANIFEST).is_file()


def load_export(folder: str | Path) -> ExportedClassifier:
    """
    Open an exported classifier.

    Args:
        folder (`str` or `Path`):
            Folder that [`export_classifier`] wrote.

    Returns:
        [`ExportedClassifier`]

    Raises:
        ValueError: the folder holds no export, or one that would run code of the file.
    """
    if not is_export(folder):
        raise ValueError(f"`folder` must hold an export with {MANIFEST}, got {str(folder)!r}.")
    manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    if manifest["export_format"] == "dynamo":
        raise ValueError(
            "`folder` must be an export to onnx or openvino: opening a torch program runs code of the file. If you "
            "trust it, open it with `torch.export.load`."
        )
    options: dict[str, Any] = {}
    if manifest["export_format"] == "openvino":
        options["config"] = {"INFERENCE_PRECISION_HINT": "f32"}  # OpenVINO's default depends on the processor
    return ExportedClassifier(_exporters().ExportedModel.from_pretrained(folder, **options))


def export_classifier(
    model: str | Path,
    output: str | Path,
    clips: Sequence[Any],
    to: str = "onnx",
    dtype: str = "float32",
    dynamic_batch: bool = True,
) -> dict[str, Any]:
    """
    Export a classifier and compare the export with the model on real clips.

    Args:
        model (`str` or `Path`):
            Folder or Hub id of a model with its processor.
        output (`str` or `Path`):
            New folder: the graph, the configuration, the processor, and the comparison in `export_report.json`.
        clips (`Sequence[Any]`):
            Videos in any form that the processor accepts.
        to (`str`, *optional*, defaults to `"onnx"`):
            `"torch"`, `"onnx"` or `"openvino"`.
        dtype (`str`, *optional*, defaults to `"float32"`):
            `"float32"`; `"float16"` for weights of OpenVINO; `"int8"` for weights of ONNX, with activations that are
            quantised as they come.
        dynamic_batch (`bool`, *optional*, defaults to `True`):
            Whether the graph takes any number of clips. Frames and sizes are those of the processor.

    Returns:
        `dict[str, Any]`: the comparison, see [`compare`], with `format`, `dtype`, `dynamic`, `megabytes` and the
        versions of the packages.

    Raises:
        ValueError: an argument is not allowed, or the folder exists.
    """
    if to not in FORMATS:
        raise ValueError(f"`to` must be one of {', '.join(FORMATS)}, got {to!r}.")
    if dtype not in DTYPES or to not in DTYPES[dtype]:
        allowed = [name for name, formats in DTYPES.items() if to in formats]
        raise ValueError(f"`dtype` must be one of {', '.join(allowed)} for {to}, got {dtype!r}.")
    if not clips:
        raise ValueError("`clips` must hold at least one video to compare the export on, got none.")
    output = Path(output)
    refuse_existing([output], "output")
    classifier = AutoModelForVideoClassification.from_pretrained(model, dtype=torch.float32).eval()
    processor = AutoVideoProcessor.from_pretrained(model)
    pixels = [processor(clip, return_tensors="pt")["pixel_values"] for clip in clips]
    exported = _export(classifier, as_single_views(pixels[0]), to, dtype, dynamic_batch)
    exported.save_pretrained(output)
    processor.save_pretrained(output)
    opened = ExportedClassifier(exported) if to == "torch" else load_export(output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    report = {
        "model": str(model),
        "format": to,
        "dtype": dtype,
        "dynamic": ["batch"] if dynamic_batch else [],
        "megabytes": round(size / 1e6, 2),
        **compare(classifier, opened, pixels),
    }
    (output / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _exporters() -> Any:
    """`transformers.exporters`, which older releases do not have."""
    try:
        return importlib.import_module("transformers.exporters")
    except ModuleNotFoundError as error:
        raise ImportError("Exports need a newer transformers: pip install -U transformers") from error


def _export(classifier: PreTrainedModel, views: torch.Tensor, to: str, dtype: str, dynamic_batch: bool) -> Any:
    """The exported graph for single views `(batch, frames, channels, height, width)`."""
    exporters = _exporters()
    exporter, config = (getattr(exporters, name) for name in FORMATS[to])
    options: dict[str, Any] = {}
    if dynamic_batch:
        options["dynamic_shapes"] = {"pixel_values": {0: torch.export.Dim("batch")}}
        views = views if len(views) > 1 else views.repeat(2, 1, 1, 1, 1)  # a size of 1 is taken for a constant
    if dtype == "float16":
        options["compress_to_fp16"] = True
    elif dtype == "int8":
        options["quantizer"] = exporters.OnnxRuntimeQuantizer(exporters.OnnxRuntimeDynamicConfig())
    return exporter().export(classifier, {"pixel_values": views}, config(**options))


@torch.no_grad()
def compare(model: PreTrainedModel, exported: ExportedClassifier, clips: Sequence[torch.Tensor]) -> dict[str, Any]:
    """
    Compare an export with its model.

    Args:
        model (`PreTrainedModel`):
            The model.
        exported ([`ExportedClassifier`]):
            Its export.
        clips (`Sequence[torch.Tensor]`):
            Pixels of each video, as the processor makes them.

    Returns:
        `dict[str, Any]`: `clips`, `max_difference` and `mean_difference` of the logits, `top1_agreement`, and the
        median `milliseconds` a video of both sides with `speedup`.
    """
    expected = torch.cat([model(pixel_values=clip).logits for clip in clips])
    found = torch.cat([exported(pixel_values=clip).logits for clip in clips]).to(expected.dtype)
    difference = (found - expected).abs()
    ours = _median_milliseconds(lambda: model(pixel_values=clips[0]))
    theirs = _median_milliseconds(lambda: exported(pixel_values=clips[0]))
    return {
        "clips": len(clips),
        "max_difference": difference.max().item(),
        "mean_difference": difference.mean().item(),
        "top1_agreement": (found.argmax(-1) == expected.argmax(-1)).float().mean().item(),
        "milliseconds": {"torch": round(ours, 2), "export": round(theirs, 2)},
        "speedup": round(ours / theirs, 3),
    }


def _median_milliseconds(run: Callable[[], Any]) -> float:
    """Median time of some runs; the one before them does not count."""
    run()
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


__all__ = ["ExportedClassifier", "compare", "export_classifier", "is_export", "load_export"]
