"""One line for an error: what is wrong, with which file or argument, and what helps."""

import json
import traceback
from pathlib import Path

from safetensors import SafetensorError


PACKAGE = Path(__file__).parents[1]
# What installs a module that this package imports only where it is needed.
EXTRAS = {
    "matplotlib": "hf_videovit[train]",
    "sklearn": "hf_videovit[demo]",
    "gradio": "hf_videovit[space]",
    "pandas": "hf_videovit[space]",
    "tensorboard": "hf_videovit[track]",
    "trackio": "hf_videovit[track]",
    "torchcodec": "hf_videovit[torchcodec]",
    "onnx": "hf_videovit[export]",
    "onnxscript": "hf_videovit[export]",
    "onnxruntime": "hf_videovit[export]",
    "openvino": "hf_videovit[openvino]",
    "peft": "hf_videovit[lora]",
    "litserve": "hf_videovit[serve]",
    "ray": "hf_videovit[ray]",
    "faiss": "hf_videovit[search]",
    "fiftyone": "hf_videovit[fiftyone]",
    "mteb": "hf_videovit[mteb]",
}
# Their messages are written for users.
KNOWN = (ValueError, OSError, RuntimeError, ImportError, FloatingPointError)


def explain(error: Exception) -> str:
    """
    The message of an error in one line.

    Args:
        error (`Exception`):
            The error.

    Returns:
        `str`: the message, with the name of the file or of the package to install where the error itself has none.
    """
    import yaml
    from huggingface_hub.errors import StrictDataclassFieldValidationError

    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name and "pip install" not in text:
        module = error.name.partition(".")[0]
        return f"{text}: pip install {EXTRAS.get(module, module)!r}"
    if isinstance(error, StrictDataclassFieldValidationError):
        return f"`config`: {text.removeprefix('Validation error for field ')}"
    if isinstance(error, SafetensorError):
        return f"a .safetensors file is damaged or incomplete, copy or download it again: {text}"
    if isinstance(error, yaml.YAMLError | json.JSONDecodeError):
        return f"a file is not valid YAML or JSON: {text}"
    if isinstance(error, KNOWN):
        return text or type(error).__name__
    place = _place(error)
    return f"{type(error).__name__}: {text or 'no message'} ({place}; this is a fault of the program)"


def _place(error: Exception) -> str:
    """The innermost line of this package on the way to an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    if not frames:
        return "outside of hf_videovit"
    return f"{Path(frames[-1].filename).relative_to(PACKAGE.parent).as_posix()}, line {frames[-1].lineno}"


__all__ = ["explain"]
