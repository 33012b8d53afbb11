"""Use of exported models: the file of another runtime in the place of a classifier."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

import hf_videovit

from ..files import read_json
from ..modeling.layers import as_single_views, merge_single_views
from .export_runtimes import RUNTIMES, exporters


MANIFEST = "export.json"  # written by transformers
REPORT = "export_report.json"


class ExportedClassifier(PreTrainedModel):
    """
    A classifier whose graph was exported. It takes the inputs of the model, or uint8 frames where the graph holds the
    processing, and returns the model's logits.

    Args:
        exported (`transformers.exporters.ExportedModel`):
            The graph, which takes single views.
        shape (`list`, *optional*):
            Sizes of the graph's input; those that are `None` may vary.
    """

    config_class = None  # type: ignore[assignment]  # that of the exported model
    main_input_name = "pixel_values"
    _supports_sdpa = True  # the configuration names the attention of the graph

    def __init__(self, exported: Any, shape: list[int | None] | None = None):
        super().__init__(exported.config)
        self.exported = exported
        self.shape = shape

    @property
    def device(self) -> torch.device:
        """Device of the inputs and outputs."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Type of normalised pixels."""
        return self.exported.dtype

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ImageClassifierOutput:
        """
        Classify clips.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`):
                Normalised clips (uint8 frames where the graph holds the processing), or
                `(batch_size, num_views, num_frames, num_channels, height, width)`.

        Returns:
            [`ImageClassifierOutput`]: logits of shape `(batch_size, num_labels)`.

        Raises:
            ValueError: the graph takes other sizes.
        """
        views = as_single_views(pixel_values).contiguous()
        views = views.to(self.dtype) if views.is_floating_point() else views
        self._check_shape(views)
        logits = self.exported(pixel_values=views).logits
        config: Any = self.config
        merged = merge_single_views(
            torch.as_tensor(logits).float(), pixel_values, config.view_merging, config.problem_type
        )
        return ImageClassifierOutput(logits=merged)

    def _check_shape(self, views: torch.Tensor) -> None:
        if self.shape is None:
            return
        fits = len(self.shape) == views.ndim and all(a in (None, b) for a, b in zip(self.shape, views.shape))
        if not fits:
            allowed = " x ".join("any" if size is None else str(size) for size in self.shape)
            raise ValueError(f"`pixel_values` must have the export's shape {allowed}, got {tuple(views.shape)}.")


def is_export(model: str | Path) -> bool:
    """
    Whether a folder holds an exported model.

    Args:
        model (`str` or `Path`):
            Folder.
    """
    return (Path(model) / MANIFEST).is_file()


def open_export(folder: str | Path, trust: bool = False, **options: Any) -> Any:
    """
    Open an export of a model with any head.

    Args:
        folder (`str` or `Path`):
            Folder that [`export_model`] wrote.
        trust (`bool`, *optional*, defaults to `False`):
            Whether to open files that run code when they are opened, which are those of torch and AOTInductor.
        options:
            Of the runtime, such as `session_options` of ONNX Runtime or `config` of OpenVINO.

    Returns:
        [`~transformers.exporters.ExportedModel`]

    Raises:
        ValueError: the folder holds no export, or one that is not trusted.
    """
    runtime = read_runtime(folder, trust)
    if runtime == "openvino":  # whose default depends on the processor
        precision = "bf16" if export_report(folder).get("dtype") == "bfloat16" else "f32"
        options["config"] = {"INFERENCE_PRECISION_HINT": precision, **options.get("config", {})}
        options.setdefault("device", "cpu")
    RUNTIMES[runtime].load_exporter()
    # the module of a model registers the class of its outputs, which a graph returns
    for name in AutoConfig.from_pretrained(folder).architectures or []:
        getattr(hf_videovit, name, None)
    try:
        return exporters().ExportedModel.from_pretrained(folder, trust_remote_code=trust, **options)
    except ImportError:
        raise
    except Exception as error:  # each runtime has its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"`folder` {str(folder)!r} cannot be opened by {runtime}: {reason[0]}") from error


def read_runtime(folder: str | Path, trust: bool = False) -> str:
    """
    Read which runtime an export is for.

    Args:
        folder (`str` or `Path`):
            Folder that [`export_model`] wrote.
        trust (`bool`, *optional*, defaults to `False`):
            See [`open_export`].

    Returns:
        `str`: the runtime, as `to` of [`export_model`].

    Raises:
        ValueError: the folder holds no export, or one that is not trusted.
    """
    if not is_export(folder):
        raise ValueError(f"`folder` must hold an export with {MANIFEST}, got {str(folder)!r}.")
    name = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))["export_format"]
    runtime = "torch" if name == "dynamo" else name
    if runtime not in RUNTIMES:
        raise ValueError(f"`folder` {str(folder)!r} holds a program of {name!r}; allowed are {', '.join(RUNTIMES)}.")
    if RUNTIMES[runtime].runs_code and not trust:
        raise ValueError(
            f"`folder` must be an export to onnx, openvino or executorch: opening a program of {runtime} runs code of "
            "the file. If you trust it, open it in Python with "
            "`hf_videovit.inference.exported_model.load_export(folder, trust=True)`."
        )
    return runtime


def load_export(folder: str | Path, trust: bool = False, **options: Any) -> ExportedClassifier:
    """
    Open an exported classifier.

    Args:
        folder (`str` or `Path`):
            Folder that [`export_model`] wrote.
        trust (`bool`, *optional*, defaults to `False`):
            See [`open_export`].
        options:
            See [`open_export`].

    Returns:
        [`ExportedClassifier`]

    Raises:
        ValueError: the folder holds no export, or one that is not trusted.
    """
    return ExportedClassifier(open_export(folder, trust, **options), export_report(folder).get("input_shape"))


def export_report(folder: str | Path) -> dict[str, Any]:
    """
    The comparison that was written beside an export.

    Args:
        folder (`str` or `Path`):
            Folder of the export.

    Returns:
        `dict[str, Any]`: empty where there is none.
    """
    file = Path(folder) / REPORT
    return read_json(file, "export") if file.is_file() else {}


__all__ = ["ExportedClassifier", "export_report", "is_export", "load_export", "open_export", "read_runtime"]
