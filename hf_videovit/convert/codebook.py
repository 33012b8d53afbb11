"""
The tokenizer of visual words: the encoder of DALL-E's discrete VAE, as transformers' `FlavaImageCodebook`.

The official `encoder.pkl` is a pickled module. It is parsed without executing anything: the classes that it names are
replaced by a class that only stores attributes, and no other names are allowed.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import FlavaImageCodebook, FlavaImageCodebookConfig
from transformers.utils import logging

from .keys import Checkpoint, open_checkpoint, shorten
from .plan import Conversion, Piece, build_converted


logger = logging.get_logger(__name__)

# Prefix of the tokenizer in joint pretraining checkpoints.
PREFIX = "cls_head.vae_encoder."
TENSOR = re.compile(r"blocks\.(?:(group_[1-4])\.(block_\d+)\.)?(.+)\.([wb])")
KINDS = {"w": "weight", "b": "bias"}
OFFICIAL_WIDTH, OFFICIAL_BLOCKS = 256, 2  # of DALL-E's encoder
# Classes of a pickled encoder: modules of the original package and of torch.
INERT_CLASSES = re.compile(r"dall_e\.(encoder|decoder|utils)\.\w+|torch\.nn\.modules\.\w+\.\w+")
RECIPE = (
    "Save its weights with the `dall_e` package installed, and convert that file: "
    "torch.save(torch.load('encoder.pkl', map_location='cpu').state_dict(), 'encoder.pth')."
)


def convert_codebook(checkpoint: str | os.PathLike | Mapping[str, Any]) -> FlavaImageCodebook:
    """
    Convert an official file to the frozen tokenizer. Nothing in the file is executed.

    Args:
        checkpoint (`str`, `os.PathLike` or `Mapping[str, Any]`):
            State dict of the DALL-E encoder (`blocks.*.w`, `blocks.*.b`) or a file of it, the official `encoder.pkl`,
            or a joint pretraining checkpoint of BEVT that contains the encoder.

    Returns:
        `FlavaImageCodebook`: in evaluation mode, without gradients.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has no DALL-E encoder, or names other classes than an encoder's.

    Example:

    ```python
    >>> from hf_videovit.convert.codebook import convert_codebook

    >>> convert_codebook("encoder.pkl").save_pretrained("dall-e-encoder")
    ```"""
    source = checkpoint
    if isinstance(checkpoint, str | os.PathLike) and Path(checkpoint).suffix == ".pkl":
        source = _read_pickled_module(Path(checkpoint))
    plan = _plan_codebook(open_checkpoint(source))
    return build_converted(plan, torch.float32).requires_grad_(False)


def _plan_codebook(checkpoint: Checkpoint) -> Conversion:
    """Plan the conversion of a DALL-E encoder."""
    inside = {name.split(PREFIX, 1)[1]: name for name in checkpoint.shapes if PREFIX in name}
    names = inside or {name: name for name in checkpoint.shapes}
    matches = {name: match for name in names if (match := TENSOR.fullmatch(name))}
    needed = ("blocks.input.w", "blocks.output.conv.w")
    if any(name not in matches for name in needed):
        raise ValueError(
            f"{checkpoint.name} has no DALL-E encoder; {' and '.join(needed)} are needed. It starts with "
            f"{shorten(list(checkpoint.shapes)[:5])}."
        )
    blocks = {match[2] for match in matches.values() if match[1] == "group_1"}
    config = FlavaImageCodebookConfig(
        num_blocks_per_group=len(blocks),
        input_channels=checkpoint.shapes[names["blocks.input.w"]][1],
        hidden_size=checkpoint.shapes[names["blocks.input.w"]][0],
        vocab_size=checkpoint.shapes[names["blocks.output.conv.w"]][0],
    )
    if config.hidden_size == OFFICIAL_WIDTH and len(blocks) != OFFICIAL_BLOCKS:
        logger.warning(
            f"{checkpoint.name} has {len(blocks)} blocks in each group, but DALL-E's encoder has {OFFICIAL_BLOCKS}: "
            "its last blocks may be missing."
        )
    plan = Conversion(checkpoint, config, FlavaImageCodebook, {})
    for name, match in matches.items():
        group, block, rest, kind = match.groups()
        stem = f"blocks.{group}.group.{block}." if group else "blocks."
        plan.pieces[f"{stem}{rest.replace('res_path.', 'res_path.path.')}.{KINDS[kind]}"] = Piece(names[name])
    if inside:
        others = [name for name in checkpoint.shapes if name not in inside.values()]
        plan.dropped = dict.fromkeys(others, "not part of the tokenizer")
    return plan


class _InertModule:
    """Replaces every class of a pickled module; it only stores the attributes of an object."""


def _read_pickled_module(path: Path) -> dict[str, torch.Tensor]:
    """
    Parameters of a pickled DALL-E encoder.

    Raises:
        ValueError: the file names a class or function that is not part of such an encoder, or cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` {os.fspath(path)!r} does not exist.")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # an arbitrary file can raise any error
        raise ValueError(f"{path.name} cannot be read safely ({type(error).__name__}). {RECIPE}") from error
    strange = [name for name in named if not INERT_CLASSES.fullmatch(name)]
    if strange:
        raise ValueError(
            f"{path.name} names {shorten(strange)}, which no DALL-E encoder needs. It is not read, because it could "
            f"run code. {RECIPE}"
        )
    stand_ins: list[Any] = [(type(name.rpartition(".")[2], (_InertModule,), {}), name) for name in named]
    try:
        with torch.serialization.safe_globals(stand_ins):
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(
            f"{path.name} cannot be read as a DALL-E encoder ({type(error).__name__}). {RECIPE}"
        ) from error
    return dict(_parameters_of(loaded)) if isinstance(loaded, _InertModule) else loaded


def _parameters_of(module: _InertModule, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values as in `state_dict`, from the attributes in which torch's modules store them."""
    for name, tensor in vars(module).get("_parameters", {}).items():
        if torch.is_tensor(tensor):
            yield f"{prefix}{name}", tensor.detach()
    for name, child in vars(module).get("_modules", {}).items():
        if isinstance(child, _InertModule):
            yield from _parameters_of(child, f"{prefix}{name}.")


__all__ = ["convert_codebook"]
