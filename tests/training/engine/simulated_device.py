"""
A simulated accelerator. Its tensors compute on the CPU. Whatever would make the host wait for a real device is
recorded: numbers that are read, shapes that depend on numbers, copies to the host, and copies from it that block.

Of the device types whose backward passes torch runs without a driver, `lazy` is the one that no code treats specially.
"""

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map


DEVICE = torch.device("lazy", 0)
PACKAGE = str(Path(__file__).parents[3])
READING = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}


class DeviceTensor(torch.Tensor):
    """A tensor that claims to be on the device."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"DeviceTensor({self.inner!r})"

    def as_subclass(self, cls):
        return self

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Making(TorchFunctionMode):
    """Makes tensors from Python's numbers on the CPU and copies them to the device, as torch does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": args[0].device} | kwargs
            func, args = torch.tensor, args[1:]
        device = kwargs.get("device")
        if func not in (torch.tensor, torch.as_tensor) or device is None:
            return func(*args, **kwargs)
        if func is torch.as_tensor and isinstance(args[0], torch.Tensor):
            return args[0].to(device, kwargs.get("dtype"))
        return func(*args, **kwargs | {"device": "cpu"}).to(device)


class SimulatedDevice(TorchDispatchMode):
    """
    A block in which tensors can be made on the device. `waits` lists what the host waited for while `counting`: the
    operator and the line of the package.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []
        self.counting = False
        self._making = _Making()

    def __enter__(self):
        self._making.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._making.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not _concerned(func, args, kwargs):
            return func(*args, **kwargs)
        if self.counting and _waits(func, args, kwargs):
            lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
            others = ("simulated_device.py", "site-packages")  # an environment may lie in the checkout
            lines = [frame for frame in lines if not any(other in frame.filename for other in others)]
            where = f"{Path(lines[-1].filename).name}:{lines[-1].lineno} {lines[-1].line}" if lines else "nowhere"
            self.waits.append(f"{func} at {where}")
        return _computed(func, args, kwargs)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [one for part in value for one in _flat(part)]
    return [value]


def _on_device(value: Any) -> bool:
    return isinstance(value, DeviceTensor)


def _concerned(func: Any, args: Any, kwargs: Any) -> bool:
    device = kwargs.get("device")
    if device is not None and torch.device(device).type == DEVICE.type:
        return True
    return any(map(_on_device, _flat([*args, *kwargs.values()])))


def _waits(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the host of a real device would wait for this operator."""
    name = func.overloadpacket.__name__
    if name in READING:
        return _on_device(args[0])
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        indices = [one for one in args[1] if one is not None]
        masked = any(one.dtype in (torch.bool, torch.uint8) for one in indices)
        return masked or not all(map(_on_device, indices))
    if name == "_to_copy":
        target = kwargs.get("device")
        if target is None or (torch.device(target).type == DEVICE.type) == _on_device(args[0]):
            return False
        return _on_device(args[0]) or not kwargs.get("non_blocking", False)
    if name == "copy_":
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        return _on_device(args[0]) != _on_device(args[1]) and (_on_device(args[1]) or not non_blocking)
    return False


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    """The operator on the tensors' numbers; the result is on the device unless it goes to the CPU."""
    target = kwargs.get("device")
    leaves = target is not None and torch.device(target).type != DEVICE.type
    inner_args, inner_kwargs = (
        tree_map(lambda one: one.inner if _on_device(one) else one, part) for part in (args, kwargs)
    )
    if target is not None:
        inner_kwargs["device"] = "cpu"
    out = func(*inner_args, **inner_kwargs)
    if leaves:
        return out
    wrapped = tree_map(lambda one: DeviceTensor(one) if isinstance(one, torch.Tensor) else one, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


@contextmanager
def overwriting_parameters():
    """A block in which `module.to` makes new parameters: plain ones cannot become those of the simulated device."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
