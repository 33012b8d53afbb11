"""
The tokenizer of visual words: the encoder of DALL-E's discrete VAE, as transformers' `FlavaImageCodebook`.

The official `encoder.pkl` is a pickled module. It is read without running anything in it: classes that it names are
replaced by one that only holds attributes, and nothing else is allowed.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

from .keys import Checkpoint, open_checkpoint, shorten
from .plan import Piece, Plan, build_model


# Where the tokenizer stands in joint pre-training checkpoints.
PREFIX = "cls_head.vae_encoder."
TENSOR = re.compile(r"blocks\.(?:(group_[1-4])\.(block_\d+)\.)?(.+)\.([wb])")
KINDS = {"w": "weight", "b": "bias"}
# Classes of a pickled encoder: modules of the original package, and the parts of torch that it is made of.
INERT_CLASSES = re.compile(r"dall_e\.(encoder|decoder|utils)\.\w+|torch\.nn\.modules\.\w+\.\w+")
RECIPE = (
    "Save its weights where the `dall_e` package is installed, and convert that file: "
    "torch.save(torch.load('encoder.pkl', map_location='cpu').state_dict(), 'encoder.pth')."
)


def convert_codebook(checkpoint: str | os.PathLike | Mapping[str, Any]) -> FlavaImageCodebook:
    """
    Make the frozen tokenizer of an official file. Nothing in it is executed.

    Args:
        checkpoint (`str`, `os.PathLike` or `Mapping[str, Any]`):
            State dict of the DALL-E encoder (`blocks.*.w`, `blocks.*.b`) or a file of it, the official `encoder.pkl`,
            or a joint pre-training checkpoint of BEVT that has the encoder in it.

    Returns:
        `FlavaImageCodebook`: in evaluation mode, without gradients.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no such encoder, or more than an encoder.

    Example:

    ```python
    >>> from hf_videovit.convert.codebook import convert_codebook

    >>> convert_codebook("encoder.pkl").save_pretrained("dall-e-encoder")
    ```"""
    source = checkpoint
    if isinstance(checkpoint, str | os.PathLike) and Path(checkpoint).suffix == ".pkl":
        source = read_pickled_module(Path(checkpoint))
    plan = codebook_plan(open_checkpoint(source))
    return build_model(plan, torch.float32).requires_grad_(False)


def codebook_plan(checkpoint: Checkpoint) -> Plan:
    """Everything about the conversion of a DALL-E encoder but the weights."""
    inside = {name.split(PREFIX, 1)[1]: name for name in checkpoint.shapes if PREFIX in name}
    names = inside or {name: name for name in checkpoint.shapes}
    matches = {name: match for name in names if (match := TENSOR.fullmatch(name))}
    needed = ("blocks.input.w", "blocks.output.conv.w")
    if any(name not in matches for name in needed):
        raise ValueError(
            f"{checkpoint.name} holds no DALL-E encoder: {' and '.join(needed)} are needed. It starts with "
            f"{shorten(list(checkpoint.shapes)[:5])}."
        )
    blocks = {match[2] for match in matches.values() if match[1] == "group_1"}
    config = FlavaImageCodebookConfig(
        num_blocks_per_group=len(blocks),
        input_channels=checkpoint.shapes[names["blocks.input.w"]][1],
        hidden_size=checkpoint.shapes[names["blocks.input.w"]][0],
        vocab_size=checkpoint.shapes[names["blocks.output.conv.w"]][0],
    )
    plan = Plan(checkpoint, config, FlavaImageCodebook, {})
    for name, match in matches.items():
        group, block, rest, kind = match.groups()
        stem = f"blocks.{group}.group.{block}." if group else "blocks."
        plan.pieces[f"{stem}{rest.replace('res_path.', 'res_path.path.')}.{KINDS[kind]}"] = Piece(names[name])
    if inside:
        others = [name for name in checkpoint.shapes if name not in inside.values()]
        plan.dropped = dict.fromkeys(others, "not the tokenizer's")
    return plan


class InertModule:
    """Stands in for every class of a pickled module: holds what the file says of an object, and does nothing."""


def read_pickled_module(path: Path) -> dict[str, torch.Tensor]:
    """
    Parameters of a pickled DALL-E encoder.

    Raises:
        ValueError: the file names a class or function that has no place in such an encoder, or cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` {os.fspath(path)!r} does not exist.")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # whatever an arbitrary file provokes in the reader
        raise ValueError(f"{path.name} cannot be read safely ({type(error).__name__}). {RECIPE}") from error
    strange = [name for name in named if not INERT_CLASSES.fullmatch(name)]
    if strange:
        raise ValueError(
            f"{path.name} names {shorten(strange)}, which no DALL-E encoder needs; reading it could run code, so it "
            f"is refused. {RECIPE}"
        )
    stand_ins: list[Any] = [(type(name.rpartition(".")[2], (InertModule,), {}), name) for name in named]
    try:
        with torch.serialization.safe_globals(stand_ins):
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(
            f"{path.name} cannot be read as a DALL-E encoder ({type(error).__name__}). {RECIPE}"
        ) from error
    return dict(parameters_of(loaded)) if isinstance(loaded, InertModule) else loaded


def parameters_of(module: InertModule, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values as `state_dict` gives them, from the attributes that torch's modules keep them in."""
    for name, tensor in vars(module).get("_parameters", {}).items():
        if torch.is_tensor(tensor):
            yield f"{prefix}{name}", tensor.detach()
    for name, child in vars(module).get("_modules", {}).items():
        if isinstance(child, InertModule):
            yield from parameters_of(child, f"{prefix}{name}.")


__all__ = ["convert_codebook"]
