"""
Export of models to files that run without this package's model code.

An export counts as done once it was opened again, has run on clips, and its answers were compared with the model's.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from ..folders import refuse_existing, write_text
from ..modeling.layers import as_single_views
from .export_card import render_export_card
from .export_comparison import answer_of, compare, load_model, load_processor
from .export_runtimes import CALIBRATED, CALIBRATION_SAMPLES, HALF, check_axes, check_runtime, export_graph
from .exported_model import REPORT


EXPORTED_HEADS = ("ForVideoClassification", "ForImageClassification", "Model")
PROCESSING = ("do_resize", "do_center_crop", "do_grayscale", "do_rescale", "do_normalize")
# Of the answers at another size of an axis, which is tried to find graphs of one size.
TOLERANCES = {"float32": 1e-2, "bfloat16": 0.2, "float16": 0.1, "int8": 1.0, "int4": 2.0}
STEPS = (1, 2, 4, 8, 16, 32, 64)  # between a size and the next one that an export serves
PACKAGES = {
    "torch": ("torch", "transformers", "torchao"),
    "aoti": ("torch", "transformers", "torchao"),
    "onnx": ("torch", "transformers", "onnx", "onnxruntime", "nncf"),
    "openvino": ("torch", "transformers", "openvino", "nncf"),
    "executorch": ("torch", "transformers", "executorch", "torchao"),
}


class _WithProcessing(PreTrainedModel):
    """A classifier that takes decoded uint8 clips of one size. Its graph resizes, crops and normalises them."""

    _supports_sdpa = True  # as the model has it

    def __init__(self, model: PreTrainedModel, processor: Any):
        super().__init__(model.config)
        self.model, self.processor = model, processor

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        return self.model(pixel_values=self.processor.process_clips(pixel_values[:, None]))


def export_model(
    model: str | Path,
    output: str | Path,
    calibrate: Sequence[Any] = (),
    to: str = "onnx",
    dtype: str = "float32",
    dynamic: Sequence[str] = ("batch",),
    with_processing: bool = False,
    frames: int | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """
    Export a classifier or an encoder, and compare the export with the model.

    Args:
        model (`str` or `Path`):
            Folder or Hub id of a model with its processor.
        output (`str` or `Path`):
            New folder: the graph, the configuration, the processor, a card, and the comparison in
            `export_report.json`.
        calibrate (`Sequence[Any]`, *optional*):
            Videos (images for an image classifier) in any form that the processor accepts, to compare both sides on.
            Where 8-bit numbers need ranges, every second one, 300 at most, is used to measure them, and the others to
            compare. By default one made clip of moving bars is compared.
        to (`str`, *optional*, defaults to `"onnx"`):
            `"torch"`, `"aoti"`, `"onnx"`, `"openvino"` or `"executorch"`.
        dtype (`str`, *optional*, defaults to `"float32"`):
            `"float32"`, `"bfloat16"`, `"float16"`, `"int8"` or `"int4"`. `docs/deploy.md` has those of each runtime.
        dynamic (`Sequence[str]`, *optional*, defaults to `("batch",)`):
            Axes that may vary: `"batch"`, `"frames"`, `"size"`. The export is tried with another size of each.
        with_processing (`bool`, *optional*, defaults to `False`):
            Whether the graph resizes, crops and normalises. It then takes decoded uint8 frames of the size that
            `calibrate` has.
        frames (`int`, *optional*):
            Frames of a clip, in the place of the processor's.
        size (`int`, *optional*):
            Height and width of a crop in pixels, in the place of the processor's. The short side before the crop is
            scaled in the same way.

    Returns:
        `dict[str, Any]`: the comparison, see [`compare`], with `format`, `dtype`, `dynamic` (the step between
        the sizes of each open axis), `input_shape`, `videos` (number compared), `calibrated_on`, `megabytes` and
        `versions`.

    Raises:
        ValueError: an argument is not allowed, the folder exists, or an axis cannot vary.
        ImportError: a package of the runtime is missing.
    """
    _check_arguments(calibrate, to, dtype, dynamic, with_processing)
    output = Path(output)
    refuse_existing([output], "output")
    loaded = load_model(str(model))
    name = type(loaded).__name__
    if not name.endswith(EXPORTED_HEADS):
        raise ValueError(
            f"`model` must be a classifier or an encoder, got {name}, which takes more than pixels or answers for "
            "places: make its graph with `hf_videovit.inference.export_runtimes.export_graph`."
        )
    changes = _changes(load_processor(str(model)), frames, size)
    processor = load_processor(str(model), **changes)
    videos = list(calibrate) or [_moving_bars(processor)]
    calibrating = videos[::2][:CALIBRATION_SAMPLES] if (to, dtype) in CALIBRATED else []
    compared = videos[1::2] if calibrating else videos
    traced: PreTrainedModel = loaded
    if with_processing:
        traced = _WithProcessing(loaded, processor).eval()
        processor = load_processor(str(model), **changes, **dict.fromkeys(PROCESSING, False))
    views = _inputs(processor, videos[:1], with_processing)[0]
    samples = _inputs(processor, calibrating, with_processing)
    exported = _export(traced, views, to, dtype, dynamic, samples, name)
    steps = {axis: _check_axis(traced, exported, views, axis, f"{name} in {to}", dtype) for axis in dynamic}
    report: dict[str, Any] = {
        "model": str(model),
        "format": to,
        "dtype": dtype,
        "dynamic": steps,
        "with_processing": with_processing,
        "classifies": name.endswith("Classification"),
        "input_shape": _shape(views["pixel_values"], steps),
        "videos": len(compared) if calibrate else 0,
        "calibrated_on": len(calibrating),
        "versions": _versions(to),
    }
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.name}-") as folder:
        staging = Path(folder) / "export"
        exported.save_pretrained(staging)
        processor.save_pretrained(staging)
        report["megabytes"] = round(sum(file.stat().st_size for file in staging.iterdir()) / 1e6, 2)
        write_text(staging / REPORT, json.dumps(report))  # which opening reads
        report |= compare(str(model), str(staging), compared, changes)
        write_text(staging / REPORT, json.dumps(report, indent=2) + "\n")
        write_text(staging / "README.md", render_export_card(report, loaded.config))
        shutil.move(staging, output)
    return report


def _check_arguments(
    calibrate: Sequence[Any], to: str, dtype: str, dynamic: Sequence[str], with_processing: bool
) -> None:
    """ValueError for arguments that are wrong for every model."""
    check_runtime(to, dtype)
    check_axes(dynamic)
    if isinstance(calibrate, str):
        raise ValueError(f"`calibrate` must be a list of videos, got {calibrate!r}.")
    if (to, dtype) in CALIBRATED and len(calibrate) < 2:
        raise ValueError(
            f"`calibrate` must hold two videos or more, got {len(calibrate)}: {dtype} of {to} measures ranges on some "
            "and is compared on others."
        )
    if with_processing and to == "executorch":
        raise ValueError("`with_processing` must be False for executorch, whose XNNPACK cannot hold it, got True.")
    if with_processing and {"frames", "size"} & set(dynamic):
        raise ValueError(f"`dynamic` must be ('batch',) with `with_processing`, got {tuple(dynamic)}.")


def _export(
    model: PreTrainedModel,
    views: dict[str, torch.Tensor],
    to: str,
    dtype: str,
    dynamic: Sequence[str],
    samples: list[dict[str, torch.Tensor]],
    name: str,
) -> Any:
    """The graph; ValueError with the runtime's reason where it cannot hold the model."""
    with torch.no_grad():
        model(**views)  # which names arguments that the model does not take
    try:
        return export_graph(model, views, to, dtype, dynamic, samples)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # each runtime has its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"`to`: {to} with {dtype} cannot hold {name}: {reason[0]}") from error


def _changes(processor: Any, frames: int | None, size: int | None) -> dict[str, Any]:
    """Fields of a processor for another number of frames and another size of crops."""
    changes: dict[str, Any] = {} if frames is None else {"num_frames": frames}
    if size is not None:
        crop = processor.crop_size or processor.size
        scale = size / crop["height"]
        changes["size"] = {name: round(scale * value) for name, value in dict(processor.size).items() if value}
        changes["crop_size"] = {"height": size, "width": size}
    return changes


def _moving_bars(processor: Any) -> Any:
    """A clip (a frame for images) of bars that move to the right: frames of 256 x 320 pixels, RGB in uint8."""
    length = 4 * (getattr(processor, "num_frames", None) or 1)
    across = torch.arange(320)[None] - 4 * torch.arange(length)[:, None]  # (frames, width)
    colours = torch.stack([(across * speed) % 256 for speed in (2, 3, 5)], dim=1)  # (frames, channels, width)
    clip = colours[:, :, None].expand(-1, -1, 256, -1).to(torch.uint8).contiguous()
    return clip if hasattr(processor, "num_frames") else clip[0]


def _inputs(processor: Any, videos: Sequence[Any], raw: bool) -> list[dict[str, torch.Tensor]]:
    """Single views of each video. Those that are not processed must have one size."""
    found = [as_single_views(processor(video, return_tensors="pt")["pixel_values"]) for video in videos]
    sizes = sorted({tuple(one.shape[-2:]) for one in found})
    if raw and len(sizes) > 1:
        raise ValueError(f"`calibrate` must hold videos of one size with `with_processing`, got {sizes}.")
    return [{"pixel_values": one.contiguous()} for one in found]


def _shape(pixels: torch.Tensor, steps: dict[str, int]) -> list[int | None]:
    shape: list[int | None] = list(pixels.shape)
    for axis in steps:
        for place in _places(pixels, axis):
            shape[place] = None
    return shape


def _places(pixels: torch.Tensor, axis: str) -> list[int]:
    return {"batch": [0], "frames": [1], "size": [pixels.ndim - 2, pixels.ndim - 1]}[axis]


@torch.no_grad()
def _check_axis(
    model: PreTrainedModel, exported: Any, inputs: dict[str, torch.Tensor], axis: str, what: str, dtype: str
) -> int:
    """
    Compare an export with its model at another size of an axis.

    Returns:
        `int`: the step to the next size that both take.

    Raises:
        ValueError: the export does not serve that size.
    """
    pixels = inputs["pixel_values"]
    half = (
        HALF.get(dtype, pixels.dtype) if pixels.is_floating_point() and exported.export_format != "openvino" else None
    )
    fault: Exception | None = None
    for step in STEPS:
        longer = _lengthened(pixels, _places(pixels, axis), step)
        try:
            expected = answer_of(model(pixel_values=longer))
        except (ValueError, RuntimeError):
            continue  # the model has no such size
        try:
            found = answer_of(exported(pixel_values=longer.to(half or longer.dtype)))
        except Exception as error:  # each runtime has its own; the graph may have larger steps than the model
            fault = error
            continue
        off = (found - expected).abs().max() if found.shape == expected.shape else torch.tensor(float("inf"))
        if off <= TOLERANCES[dtype] * max(1.0, expected.abs().max().item()):
            return step
    raise ValueError(_fixed(axis, what)) from fault


def _lengthened(pixels: torch.Tensor, places: list[int], step: int) -> torch.Tensor:
    """Pixels with `step` more on some axes, which repeat the first ones."""
    for place in places:
        length = pixels.shape[place]
        pixels = pixels.index_select(place, torch.arange(length + step) % length)
    return pixels


def _fixed(axis: str, what: str) -> str:
    other = {"frames": "`frames`", "size": "`size`"}.get(axis, "`dynamic=()`")
    return (
        f"`dynamic` cannot hold {axis!r} for {what}, whose graph serves one value: export a folder for each ({other})."
    )


def _versions(to: str) -> dict[str, str]:
    found = {}
    for package in PACKAGES[to]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


__all__ = ["export_model"]
