"""Conversion of a conversion: the source of each of our tensors, checked before any weight is read."""

import copy
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .keys import Checkpoint, shorten
from .spelling import spell_missing


logger = logging.get_logger(__name__)

# names in safetensors of the dtypes of converted weights, and of counters (BatchNorm's)
SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
STORED_DTYPES = {**SAFETENSORS_DTYPES, torch.int64: "I64"}

Layout = dict[str, torch.Tensor]  # shape and type of each tensor, on the meta device


@dataclass(frozen=True)
class Piece:
    """
    Source of one of our tensors.

    Args:
        source (`str`):
            Name of the tensor in the file.
        transform (`Callable[[torch.Tensor], torch.Tensor]`, *optional*):
            Transformation of that tensor, such as a selection of rows.
    """

    source: str
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """
        Apply the transformation.

        Args:
            tensor (`torch.Tensor`):
                The source.

        Returns:
            `torch.Tensor`: our tensor.
        """
        return tensor if self.transform is None else self.transform(tensor)


@dataclass
class Conversion:
    """
    A conversion without the weights.

    Args:
        checkpoint ([`~convert.keys.Checkpoint`]):
            Weights to read.
        config (`PreTrainedConfig`):
            Configuration of the new model.
        model_class (`type[PreTrainedModel]`):
            Class of the new model.
        pieces (`dict[str, Piece]`):
            Source of each of our tensors, by name.
        dropped (`dict[str, str]`, *optional*):
            Names in the file that are not used, each with the reason.
        fresh (`dict[str, str]`, *optional*):
            Our names that are not in the file, each with the reason. They are initialised as in a new model.
        processor (`Any`, *optional*):
            Processor with the protocol of the checkpoint: of videos, images or features.
        video_processor (`Any`, *optional*):
            Beside a processor of features: the video processor of the encoder.
        official_names (`dict[str, str]`, *optional*):
            Our names of modules or tensors outside the blocks, each with the official name. For messages.
    """

    checkpoint: Checkpoint
    config: PreTrainedConfig
    model_class: Any
    pieces: dict[str, Piece]
    dropped: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    processor: Any = None
    video_processor: Any = None
    official_names: dict[str, str] = field(default_factory=dict)

    def check(self) -> dict[str, tuple[int, ...]]:
        """
        Check that every tensor of the file is used and every tensor of the model has a source.

        Returns:
            `dict[str, tuple[int, ...]]`: shape of every tensor of the new model.

        Raises:
            ValueError: a key of the file is left over or has no place in the model, one is missing, or shapes differ.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in self._skeleton().items()}
        problems = {
            "left over in the checkpoint": self._left_over(),
            "missing from the checkpoint": self._missing(expected),
            f"without a place in {self.model_class.__name__}": [
                f"{self.checkpoint.in_file(piece.source)} ({name})"
                for name, piece in self.pieces.items()
                if name not in expected
            ],
        }
        words = "; ".join(f"{len(names)} {what}: {shorten(names)}" for what, names in problems.items() if names)
        if words:
            raise ValueError(f"{self.checkpoint.name} does not fit {self.model_class.__name__}: {words}.")
        wrong = [
            f"{self.checkpoint.in_file(piece.source)} gives {shape}, {name} needs {expected[name]}"
            for name, piece in self.pieces.items()
            if (shape := self._shape(piece)) != expected[name]
        ]
        if wrong:
            raise ValueError(f"{self.checkpoint.name} has tensors of the wrong shape: {shorten(wrong)}.")
        return expected

    def _left_over(self) -> list[str]:
        """Tensors of the file that have no use, with their shapes."""
        used = {piece.source for piece in self.pieces.values()}
        return [
            f"{self.checkpoint.in_file(name)} {shape}"
            for name, shape in self.checkpoint.shapes.items()
            if name not in used and name not in self.dropped
        ]

    def _missing(self, expected: Iterable[str]) -> list[str]:
        """Tensors that the file lacks: in its own spelling, with our names in brackets."""
        sources = {name: self.checkpoint.in_file(piece.source) for name, piece in self.pieces.items()}
        found: dict[str, list[str]] = {}
        for name in expected:
            if name not in self.pieces and name not in self.fresh:
                found.setdefault(spell_missing(name, sources, self.official_names) or "", []).append(name)
        unspelled = found.pop("", [])
        return [f"{theirs} ({', '.join(ours)})" for theirs, ours in found.items()] + unspelled

    def _skeleton(self) -> dict[str, torch.Tensor]:
        """State dict of the new model, on the meta device."""
        with torch.device("meta"):
            return self.model_class(self.config).state_dict()

    def layout(self, dtype: torch.dtype) -> Layout:
        """
        Shape and type of every tensor in the order of storage. Counters stay integers and come first, because a reader
        maps a tensor only at a multiple of the size of its type.

        Args:
            dtype (`torch.dtype`):
                Type of the weights.

        Returns:
            `dict[str, torch.Tensor]`: tensors on the meta device.

        Raises:
            ValueError: the plan does not fit, see [`Conversion.check`].
        """
        shapes = self.check()
        types = {name: dtype if one.is_floating_point() else one.dtype for name, one in self._skeleton().items()}
        tensors = {name: torch.empty(shape, dtype=types[name], device="meta") for name, shape in shapes.items()}
        return dict(sorted(tensors.items(), key=lambda pair: -pair[1].itemsize))

    def _shape(self, piece: Piece) -> tuple[int, ...]:
        return tuple(piece.take(torch.empty(self.checkpoint.shapes[piece.source], device="meta")).shape)

    def report(self) -> None:
        """Log dropped tensors and new parameters."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            logger.info(f"{self.checkpoint.name}: dropped {shorten(names)}: {reason}.")
        if self.checkpoint.ignored:
            logger.info(f"{self.checkpoint.name}: {shorten(self.checkpoint.ignored)}: training state, not weights.")
        for name, reason in self.fresh.items():
            logger.warning(f"{name} is newly initialised: {reason}.")

    def tensors(self, dtype: torch.dtype, names: Iterable[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """
        Our tensors one at a time. Each has its own memory.

        Args:
            dtype (`torch.dtype`):
                Type of the weights.
            names (`Iterable[str]`, *optional*):
                Names in the wanted order. Defaults to the order of [`Conversion.layout`].

        Yields:
            `tuple[str, torch.Tensor]`: name and tensor.

        Raises:
            ValueError: a weight in the file has a type that cannot be converted, or is NaN or infinite.
        """
        fresh, layout = self._fresh_tensors(), self.layout(dtype)
        for name in layout if names is None else names:
            stored = layout[name].dtype
            if name in fresh:
                tensor = fresh[name]
            else:
                piece = self.pieces[name]
                tensor = piece.take(self.checkpoint.read(piece.source))
            if tensor.is_floating_point() != stored.is_floating_point or tensor.dtype not in STORED_DTYPES:
                raise ValueError(
                    f"{name} has type {tensor.dtype} in the file; quantised checkpoints are not supported."
                )
            converted = tensor.detach().to(stored, copy=True, memory_format=torch.contiguous_format)
            if name in self.pieces:
                self._refuse_non_finite(self.pieces[name].source, tensor, converted)
            yield name, converted

    def _refuse_non_finite(self, source: str, tensor: torch.Tensor, converted: torch.Tensor) -> None:
        """ValueError if a weight is NaN or infinite, in the file or in the type of the new model."""
        if converted.isfinite().all():
            return
        count = int(tensor.isfinite().logical_not().sum())
        where = f"{self.checkpoint.name}: {self.checkpoint.in_file(source)}"
        if count:
            raise ValueError(
                f"{where} has {count:,} of {tensor.numel():,} values that are NaN or infinite. Such a model computes "
                "nothing. Download the file again, or use an earlier checkpoint of the training."
            )
        raise ValueError(
            f"{where} has values up to {tensor.abs().max():.3g}, which `dtype` {converted.dtype} cannot hold. Convert "
            "to float32 or bfloat16."
        )

    def _fresh_tensors(self) -> dict[str, torch.Tensor]:
        """
        New parameters by name. In models with a single depth they are all outside the blocks, so a model of one block
        gives the same ones with little memory.
        """
        if not self.fresh:
            return {}
        config = copy.deepcopy(self.config)
        if "num_hidden_layers" in config.__dataclass_fields__:
            config.num_hidden_layers = 1
        state = self.model_class(config).state_dict()
        return {name: state[name] for name in self.fresh}


def build_converted(plan: Conversion, dtype: torch.dtype | None) -> PreTrainedModel:
    """
    Build the model of a plan.

    Args:
        plan ([`Conversion`]):
            The plan.
        dtype (`torch.dtype`):
            Type of the weights; `None` keeps that of the file.

    Returns:
        `PreTrainedModel`: in evaluation mode.

    Raises:
        ValueError: the plan does not fit the file.
        RuntimeError: transformers did not load all weights.
    """
    plan.report()
    dtype = _stored_dtype(plan) if dtype is None else dtype
    model, info = plan.model_class.from_pretrained(
        None, config=plan.config, state_dict=dict(plan.tensors(dtype)), dtype=dtype, output_loading_info=True
    )
    unloaded = {name: value for name, value in info.items() if value}
    if unloaded:
        raise RuntimeError(f"transformers did not load the converted weights of {plan.checkpoint.name}: {unloaded}")
    return model


def _stored_dtype(plan: Conversion) -> torch.dtype:
    """Type of the checkpoint's weights; if they differ, the type that can represent all of them."""
    dtypes = {plan.checkpoint.read(name).dtype for name in plan.checkpoint.shapes if name not in plan.dropped}
    return reduce(torch.promote_types, [one for one in dtypes if one.is_floating_point] or dtypes)


def write_folder(plan: Conversion, folder: str | os.PathLike, dtype: torch.dtype | None, max_shard_bytes: int) -> Path:
    """
    Write weights, configuration and processor of a plan, with one tensor in memory at a time. The folder appears when
    all files are written.

    Args:
        plan ([`Conversion`]):
            The plan.
        folder (`str` or `os.PathLike`):
            New or empty folder.
        dtype (`torch.dtype`):
            Type of the weights; `None` keeps that of the file.
        max_shard_bytes (`int`):
            Maximum size of a weight file in bytes.

    Returns:
        `Path`: the folder.

    Raises:
        ValueError: `folder` exists and is not empty, or the plan does not fit the file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"`folder` {os.fspath(folder)!r} exists and is not empty.")
    plan.report()
    dtype = _stored_dtype(plan) if dtype is None else dtype
    layout = plan.layout(dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        unfinished = Path(temporary) / "model"
        unfinished.mkdir()
        _write_weights(plan, layout, dtype, max_shard_bytes, unfinished)
        config = copy.deepcopy(plan.config)
        config.architectures, config.dtype = [plan.model_class.__name__], dtype
        config.save_pretrained(unfinished)
        for processor in (plan.processor, plan.video_processor):
            if processor is not None:
                processor.save_pretrained(unfinished)
        unfinished.replace(folder)
    return folder


def _write_weights(plan: Conversion, layout: Layout, dtype: torch.dtype, max_shard_bytes: int, folder: Path) -> None:
    """safetensors' own `save_file` wants a whole shard in memory, and copies it."""
    split = split_torch_state_dict_into_shards(layout, max_shard_size=max_shard_bytes)
    order = [name for names in split.filename_to_tensors.values() for name in names]
    tensors = plan.tensors(dtype, order)
    for file_name, names in split.filename_to_tensors.items():
        with (folder / file_name).open("wb") as file:
            _write_header(file, {name: layout[name] for name in names})
            for expected in names:
                name, tensor = next(tensors)
                if name != expected or tensor.dtype != layout[name].dtype:
                    raise RuntimeError(
                        f"{name} ({tensor.dtype}) came where {expected} ({layout[expected].dtype}) was announced"
                    )
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
    if split.is_sharded:
        num_parameters = sum(tensor.numel() for tensor in layout.values())
        index = {
            "metadata": {"total_parameters": num_parameters, **split.metadata},
            "weight_map": split.tensor_to_filename,
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_header(file: BinaryIO, shard: Layout) -> None:
    """Length of the header, header padded to a multiple of 8 bytes; then follow the tensors in its order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in shard.items():
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": STORED_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
