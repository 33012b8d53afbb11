"""
The runtimes that models are exported to, and in which number formats.

The graphs are made by the exporters and quantisers of transformers. This module says which of them make a runtime's
number format, and what a model must be like before.
"""

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel


Inputs = Mapping[str, torch.Tensor]
Samples = Sequence[Inputs]
AXES = ("batch", "frames", "size")


@dataclass(frozen=True)
class Runtime:
    """
    One runtime.

    Args:
        exporter (`str`):
            Class that makes the graph, as `module.Class`; `transformers.exporters` is the module of a bare name.
        config (`str`):
            Its configuration class, named in the same way.
        dtypes (`dict`):
            For each number format, a function that takes samples of inputs and returns further fields of the
            configuration.
        extra (`str`, *optional*, defaults to `""`):
            The extra of this package that installs the runtime. Empty if torch has it.
        runs_code (`bool`, *optional*, defaults to `False`):
            Whether opening a file of the runtime runs code that the file contains.
    """

    exporter: str
    config: str
    dtypes: dict[str, Callable[[Samples], dict[str, Any]]]
    extra: str = ""
    runs_code: bool = False

    def load_exporter(self) -> Any:
        """The exporter's class. Runtimes that transformers does not have are known to it from then on."""
        return _resolve(self.exporter)


def _plain(samples: Samples) -> dict[str, Any]:
    return {}


def _x86_int8(samples: Samples) -> dict[str, Any]:
    """Weights and activations, in the form that TorchInductor fuses into 8-bit products on x86."""
    x86 = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    return {"quantizer": exporters().PT2EQuantizer(quantizer, samples)}


def _onnx_int8(samples: Samples) -> dict[str, Any]:
    """
    Weights and activations. ONNX Runtime's own dynamic quantisation is faster for plain ViTs, but slower than float32
    for models with convolutions.
    """
    return {"quantizer": exporters().NNCFOnnxQuantizer(_nncf_int8(), samples)}


def _openvino_int8(samples: Samples) -> dict[str, Any]:
    """Weights and activations."""
    return {"quantizer": exporters().NNCFOpenVINOQuantizer(_nncf_int8(), samples)}


def _nncf_int8() -> Any:
    """
    No SmoothQuant, and whole ranges of activations. With the defaults, OpenVINO 2026.4 agreed with a UniFormer
    on 69 % of the first labels; so on 99 % (`benchmarks/results/deploy_agreement.csv`). The graph of the defaults is
    right where the 8-bit kernels are off, so that a fault of the runtime is likely.

    Weights use 7 of their 8 bits: x86 processors without VNNI add products of 8 bits in 16, which overflow.
    """
    nncf = importlib.import_module("nncf")
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
    )
    return exporters().NNCFQuantizationConfig(subset_size=CALIBRATION_SAMPLES, advanced_parameters=advanced)


def _openvino_int4(samples: Samples) -> dict[str, Any]:
    """Weights of matrix products."""
    nncf = importlib.import_module("nncf")
    smaller = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
    config = exporters().NNCFWeightCompressionConfig(
        mode=nncf.CompressWeightsMode.INT4_SYM, group_size=INT4_GROUP, advanced_parameters=smaller
    )
    return {"quantizer": exporters().NNCFOpenVINOQuantizer(config, samples)}


def _xnnpack_int8(samples: Samples) -> dict[str, Any]:
    """Weights and activations."""
    xnnpack = importlib.import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    return {"quantizer": exporters().PT2EQuantizer(xnnpack.XNNPACKQuantizer().set_global(config), samples)}


INT4_GROUP = 32  # weights that share a scale
CALIBRATION_SAMPLES = 300
CALIBRATED = {(name, "int8") for name in ("torch", "aoti", "onnx", "openvino", "executorch")}
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
RUNTIMES = {
    "torch": Runtime(
        "DynamoExporter",
        "DynamoConfig",
        {"float32": _plain, "bfloat16": _plain, "float16": _plain, "int8": _x86_int8},
        runs_code=True,
    ),
    "aoti": Runtime(
        "hf_videovit.inference.export_aoti.AotiExporter",
        "hf_videovit.inference.export_aoti.AotiConfig",
        {"float32": _plain, "bfloat16": _plain, "float16": _plain, "int8": _x86_int8},
        runs_code=True,
    ),
    "onnx": Runtime(
        "OnnxExporter",
        "OnnxConfig",
        {"float32": _plain, "float16": _plain, "int8": _onnx_int8},
        extra="export",
    ),
    "openvino": Runtime(
        "OpenVINOExporter",
        "OpenVINOConfig",
        {
            "float32": _plain,
            "bfloat16": _plain,
            "float16": lambda samples: {"compress_to_fp16": True},
            "int8": _openvino_int8,
            "int4": _openvino_int4,
        },
        extra="openvino",
    ),
    "executorch": Runtime(
        "ExecutorchExporter", "ExecutorchConfig", {"float32": _plain, "int8": _xnnpack_int8}, extra="executorch"
    ),
}


def exporters() -> Any:
    """
    `transformers.exporters`.

    Raises:
        ImportError: this transformers has none.
    """
    try:
        return importlib.import_module("transformers.exporters")
    except ModuleNotFoundError as error:
        raise ImportError("Exports need a newer transformers: pip install -U transformers") from error


def check_runtime(to: str, dtype: str) -> None:
    """
    Check the names of a runtime and a number format.

    Args:
        to (`str`):
            The runtime.
        dtype (`str`):
            The number format.

    Raises:
        ValueError: there is no such runtime, or it does not have the number format.
    """
    if to not in RUNTIMES:
        raise ValueError(f"`to` must be one of {', '.join(RUNTIMES)}, got {to!r}.")
    if dtype not in RUNTIMES[to].dtypes:
        raise ValueError(f"`dtype` must be one of {', '.join(RUNTIMES[to].dtypes)} for {to}, got {dtype!r}.")


def check_axes(dynamic: Sequence[str]) -> None:
    """
    Check the names of open axes.

    Args:
        dynamic (`Sequence[str]`):
            The names.

    Raises:
        ValueError: there is no such axis.
    """
    unknown = sorted(set(dynamic) - set(AXES))
    if unknown:
        raise ValueError(f"`dynamic` must hold names of {', '.join(AXES)}, got {unknown}.")


def export_graph(
    model: PreTrainedModel,
    inputs: Inputs,
    to: str = "onnx",
    dtype: str = "float32",
    dynamic: Sequence[str] = ("batch",),
    samples: Samples = (),
) -> Any:
    """
    Make the graph of a model with any head.

    Args:
        model (`PreTrainedModel`):
            The model, on the CPU in float32. It is not changed.
        inputs (`Mapping[str, torch.Tensor]`):
            Inputs of one forward pass. Axes that are not dynamic keep their sizes.
        to (`str`, *optional*, defaults to `"onnx"`):
            `"torch"`, `"aoti"`, `"onnx"`, `"openvino"` or `"executorch"`.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Number format; see `docs/deploy.md` for those of each runtime.
        dynamic (`Sequence[str]`, *optional*, defaults to `("batch",)`):
            Axes that the graph leaves open: `"batch"`, `"frames"`, `"size"`. Where the model's computation depends on
            one, the graph's answers for other sizes are wrong or an error: compare them, as [`export_model`] does.
        samples (`Sequence[Mapping[str, torch.Tensor]]`, *optional*):
            Inputs of further passes, on which the ranges of 8-bit numbers are measured. Defaults to `inputs`.

    Returns:
        [`~transformers.exporters.ExportedModel`]

    Raises:
        ValueError: an argument is not allowed.
        ImportError: a package of the runtime is missing.
    """
    check_runtime(to, dtype)
    check_axes(dynamic)
    runtime = RUNTIMES[to]
    model = copy.deepcopy(model).requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "split_shared_kernel"):
            module.split_shared_kernel()
    if to == "executorch":
        _replace_volume_convolutions(model)
    if dtype in HALF and to != "openvino":  # which converts numbers itself
        model = model.to(HALF[dtype])
        inputs = {
            name: value.to(HALF[dtype]) if value.dtype == torch.float32 else value for name, value in inputs.items()
        }
    if "batch" in dynamic:  # a size of 1 would be taken for a constant
        inputs = {name: torch.cat((value, value)) if len(value) == 1 else value for name, value in inputs.items()}
    shapes = {name: _open_axes(name, value, dynamic) for name, value in inputs.items()}
    options = {"dynamic_shapes": shapes} if dynamic else {}
    config = _resolve(runtime.config)(**options, **runtime.dtypes[dtype](list(samples) or [inputs]))
    return runtime.load_exporter()().export(model, dict(inputs), config)


def _open_axes(name: str, value: torch.Tensor, dynamic: Sequence[str]) -> dict[int, Any]:
    """The axes of an input that may vary."""
    axes = [0] if "batch" in dynamic else []
    if name.endswith("pixel_values"):
        axes += [1] if "frames" in dynamic and value.ndim == 5 else []
        axes += [value.ndim - 2, value.ndim - 1] if "size" in dynamic else []
    return dict.fromkeys(axes, torch.export.Dim.AUTO)


def _resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module) if module else exporters(), attribute)


class _FramewiseConv3d(nn.Conv3d):
    """
    A convolution in space and time as a sum of convolutions in space, one for each moment of the kernel. ExecuTorch
    has no kernel for the former. No model here has dilation.
    """

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        length, stride, padding = self.kernel_size[0], self.stride[0], cast(tuple[int, ...], self.padding)
        volumes = F.pad(volumes, (0, 0, 0, 0, padding[0], padding[0]))
        steps = (volumes.shape[2] - length) // stride + 1
        parts = []
        for moment in range(length):
            frames = volumes[:, :, moment : moment + stride * (steps - 1) + 1 : stride].transpose(1, 2).flatten(0, 1)
            kernel = self.weight[:, :, moment]
            parts.append(F.conv2d(frames, kernel, None, self.stride[1:], padding[1:], groups=self.groups))
        total = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        total = total if self.bias is None else total + self.bias[:, None, None]
        return total.unflatten(0, (-1, steps)).transpose(1, 2)


def _replace_volume_convolutions(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _FramewiseConv3d


__all__ = [
    "AXES",
    "CALIBRATED",
    "CALIBRATION_SAMPLES",
    "HALF",
    "RUNTIMES",
    "Runtime",
    "check_axes",
    "check_runtime",
    "export_graph",
    "exporters",
]
