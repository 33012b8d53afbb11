"""Classifiers in the runtimes that `deploy` and `streaming` compare."""

import copy
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from hf_videovit.inference.export_runtimes import export_graph


Call = Callable[[torch.Tensor], torch.Tensor]
BASELINE = "torch float32"
EXPORTS = {  # the runtime and the number format of `export_graph`
    "AOTInductor float32": ("aoti", "float32"),
    "AOTInductor bfloat16": ("aoti", "bfloat16"),
    "AOTInductor int8": ("aoti", "int8"),
    "OpenVINO float32": ("openvino", "float32"),
    "OpenVINO bfloat16": ("openvino", "bfloat16"),
    "OpenVINO int8": ("openvino", "int8"),
    "ONNX Runtime float32": ("onnx", "float32"),
    "ONNX Runtime int8": ("onnx", "int8"),
}
SIDES = (BASELINE, "torch bfloat16", "torchao int8", "torchao int8 compiled", *EXPORTS)
OPENVINO_PRECISION = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of what is not in int8


class Side(NamedTuple):
    """
    A classifier in a runtime.

    Args:
        megabytes (`float`):
            Size of its files.
        open (`Callable[[int], Call]`):
            From a number of threads to a callable that takes clips `(batch, frames, channels, height, width)` and
            gives logits `(batch, labels)`.
    """

    megabytes: float
    open: Callable[[int], Call]


def make_side(
    name: str, model: PreTrainedModel, clips: torch.Tensor, calibration: Sequence[torch.Tensor] = ()
) -> Side:
    """
    Bring a classifier into a runtime.

    Args:
        name (`str`):
            One of `SIDES`.
        model (`PreTrainedModel`):
            The classifier, in float32.
        clips (`torch.Tensor` of shape `(batch, frames, channels, height, width)`):
            Two clips or more, which the graph is traced with.
        calibration (`Sequence[torch.Tensor]`, *optional*, defaults to `()`):
            Batches of clips that an int8 graph takes the ranges of its activations from.

    Returns:
        [`Side`]
    """
    if name.startswith("torchao"):
        return _torchao_side(copy.deepcopy(model), compiled=name.endswith("compiled"))
    if name.startswith("torch "):
        return _torch_side(copy.deepcopy(model), getattr(torch, name.removeprefix("torch ")))
    to, dtype = EXPORTS[name]
    samples = [{"pixel_values": batch} for batch in calibration]
    exported = export_graph(model, {"pixel_values": clips}, to, dtype, samples=samples)
    with tempfile.TemporaryDirectory() as folder:
        exported.save_pretrained(folder)
        megabytes = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    return Side(megabytes, lambda threads: _open(exported, to, dtype, threads))


def _torch_side(model: PreTrainedModel, dtype: torch.dtype) -> Side:
    """Threads are those of the process at the time of a call."""
    file = io.BytesIO()
    torch.save(model.to(dtype).state_dict(), file)
    return Side(file.tell() / 1e6, lambda threads: _call(model, dtype))


def _torchao_side(model: PreTrainedModel, compiled: bool) -> Side:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    side = _torch_side(model, torch.float32)
    if not compiled:
        return side
    forward: Any = torch.compile(model, options={"cpp.dynamic_threads": True}, dynamic=False)
    return Side(side.megabytes, lambda threads: _call(forward))


def _open(exported: Any, to: str, dtype: str, threads: int) -> Call:
    """A runtime with a number of threads; AOTInductor takes those of torch."""
    exported = copy.copy(exported)
    if to == "openvino":
        options = {"INFERENCE_PRECISION_HINT": OPENVINO_PRECISION[dtype], "INFERENCE_NUM_THREADS": threads}
        return _call(exported.to("cpu", config=options))
    if to == "onnx":
        from onnxruntime import SessionOptions

        session = SessionOptions()
        session.intra_op_num_threads = threads
        session.add_session_config_entry("session.force_spinning_stop", "1")  # else it slows what runs next
        return _call(exported.to("cpu", session_options=session))
    return _call(exported, getattr(torch, dtype) if dtype != "int8" else torch.float32)


def _call(model: Any, dtype: torch.dtype = torch.float32) -> Call:
    @torch.no_grad()
    def call(clips: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(model(pixel_values=clips.to(dtype)).logits).float()

    return call
