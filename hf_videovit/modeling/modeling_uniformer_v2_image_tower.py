"""
Image ViTs as the start of a UniFormerV2: the tensors of CLIP, or of a plain ViT, under the image tower's names.

The official procedure takes CLIP's visual tower without its last norm and projection. CLIP towers fit as they are. The
paper also compares plain ViTs, for which no code was released. They have another activation, no norm before the first
block and another epsilon; the configuration must contain these values.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionModel, ViTModel

from .configuration_uniformer_v2 import UniFormerV2Config
from .layers import interpolate_positions


Source = str | os.PathLike | Mapping[str, Any] | nn.Module
Tensors = dict[str, torch.Tensor]

HEAD_DIM = 64  # of every published CLIP tower and of ViTs from small to large
# Model types of the Hub that are read, each with the class that gives the image tower alone.
TOWER_CLASSES: dict[str, Any] = {"clip": CLIPVisionModel, "clip_vision_model": CLIPVisionModel, "vit": ViTModel}


@dataclass(frozen=True)
class _Layout:
    """
    How one code base names a tower.

    Args:
        blocks (`str`):
            Regular expression of the prefix of a block; its group is the block's number.
        names (`dict[str, str]`):
            Name outside the blocks to ours.
        block_names (`dict[str, str]`):
            Module inside a block to ours. `"qkv"` marks a fused projection.
        unused (`str`):
            Regular expression of names that are not used.
        fields (`dict[str, Any]`):
            Fields of the configuration that a tower of this layout needs.
        prefixes (`tuple[str, ...]`):
            Possible prefixes of all names. The first that occurs is used, and only names with it are read.
    """

    blocks: str
    names: dict[str, str]
    block_names: dict[str, str]
    unused: str
    fields: dict[str, Any] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ("",)


CLIP_FIELDS = {"hidden_act": "quick_gelu", "use_pre_layernorm": True, "layer_norm_eps": 1e-5}
VIT_FIELDS = {"hidden_act": "gelu", "use_pre_layernorm": False, "layer_norm_eps": 1e-12}
TIMM_FIELDS = {**VIT_FIELDS, "layer_norm_eps": 1e-6}
PATCHES, CLASS, POSITIONS = (
    "patch_embeddings.projection.weight",
    "class_embedding",
    "position_embedding",
)
PATCH_BIAS = "patch_embeddings.projection.bias"  # UniFormerV2 has none: it goes into the position table

LAYOUTS = {
    # openai/CLIP, OpenCLIP, and the towers that the UniFormerV2 authors cut out of the former
    "OpenAI": _Layout(
        blocks=r"transformer\.resblocks\.(\d+)\.",
        names={
            "conv1.weight": PATCHES,
            "class_embedding": CLASS,
            "positional_embedding": POSITIONS,
            "ln_pre.weight": "layernorm.weight",
            "ln_pre.bias": "layernorm.bias",
        },
        block_names={
            "attn.in_proj_": "qkv",
            "attn.out_proj.": "attention.o_proj.",
            "ln_1.": "norm1.",
            "ln_2.": "norm2.",
            "mlp.c_fc.": "mlp.fc1.",
            "mlp.c_proj.": "mlp.fc2.",
        },
        unused=r"proj|ln_post\..+",
        fields=CLIP_FIELDS,
        prefixes=("visual.", ""),
    ),
    "transformers CLIP": _Layout(
        blocks=r"encoder\.layers\.(\d+)\.",
        names={
            "embeddings.patch_embedding.weight": PATCHES,
            "embeddings.class_embedding": CLASS,
            "embeddings.position_embedding.weight": POSITIONS,
            "pre_layrnorm.weight": "layernorm.weight",
            "pre_layrnorm.bias": "layernorm.bias",
        },
        block_names={
            **{f"self_attn.{letter}_proj.": f"attention.{letter}_proj." for letter in "qkv"},
            "self_attn.out_proj.": "attention.o_proj.",
            "layer_norm1.": "norm1.",
            "layer_norm2.": "norm2.",
            "mlp.fc1.": "mlp.fc1.",
            "mlp.fc2.": "mlp.fc2.",
        },
        unused=r"post_layernorm\..+|embeddings\.position_ids|visual_projection\.weight",
        fields=CLIP_FIELDS,
        prefixes=("vision_model.", ""),
    ),
    "transformers ViT": _Layout(
        blocks=r"layers\.(\d+)\.",
        names={
            "embeddings.patch_embeddings.projection.weight": PATCHES,
            "embeddings.patch_embeddings.projection.bias": PATCH_BIAS,
            "embeddings.cls_token": CLASS,
            "embeddings.position_embeddings": POSITIONS,
        },
        block_names={
            **{f"attention.{letter}_proj.": f"attention.{letter}_proj." for letter in "qkvo"},
            "layernorm_before.": "norm1.",
            "layernorm_after.": "norm2.",
            "mlp.fc1.": "mlp.fc1.",
            "mlp.fc2.": "mlp.fc2.",
        },
        unused=r"layernorm\..+|pooler\..+|classifier\..+|embeddings\.mask_token",
        fields=VIT_FIELDS,
        prefixes=("vit.", ""),
    ),
    # timm, and the published files of DeiT, DINO and MAE
    "timm": _Layout(
        blocks=r"blocks\.(\d+)\.",
        names={
            "patch_embed.proj.weight": PATCHES,
            "patch_embed.proj.bias": PATCH_BIAS,
            "cls_token": CLASS,
            "pos_embed": POSITIONS,
        },
        block_names={
            "attn.qkv.": "qkv",
            "attn.proj.": "attention.o_proj.",
            "norm1.": "norm1.",
            "norm2.": "norm2.",
            "mlp.fc1.": "mlp.fc1.",
            "mlp.fc2.": "mlp.fc2.",
        },
        unused=r"norm\..+|fc_norm\..+|head\..+|pre_logits\..+",
        fields=TIMM_FIELDS,
    ),
}


@dataclass
class ImageTower:
    """
    An image tower that has been read.

    Args:
        name (`str`):
            Its name in messages.
        tensors (`dict[str, torch.Tensor]`):
            Tensors by their names in [`UniFormerV2Model`], in float32; the patch embedding has no temporal axis yet.
        fields (`dict[str, Any]`):
            Fields of the configuration that the tower determines.
    """

    name: str
    tensors: Tensors
    fields: dict[str, Any]

    def config(self, config: UniFormerV2Config | None, fields: dict[str, Any]) -> UniFormerV2Config:
        """
        The configuration: the one given, or the tower's, changed by `fields`.

        Args:
            config ([`UniFormerV2Config`], or `None`):
                Configuration.
            fields (`dict[str, Any]`):
                Fields of the configuration, without `config`.

        Raises:
            ValueError: both are given, or the configuration does not fit the tower.
        """
        if config is not None and fields:
            raise ValueError(f"Give `config` or fields of it ({', '.join(sorted(fields))}), not both.")
        if config is None:
            required = {name for name in ("hidden_act", "use_pre_layernorm", "layer_norm_eps") if name not in fields}
            defaults = {name: getattr(UniFormerV2Config, name) for name in required}
            config = UniFormerV2Config(**{**self.fields, **defaults, **fields})
        for name, value in self.fields.items():
            if name in ("image_size", "position_grid"):
                continue
            chosen = getattr(config, name)
            if chosen != value:
                raise ValueError(
                    f"{self.name} does not fit: it has {name}={value!r}, the configuration {chosen!r}. "
                    f"{REASONS.get(name, 'Sizes must agree')}; {self._hint(name)}."
                )
        return config

    def _hint(self, name: str) -> str:
        return f"pass `{name}={self.fields[name]!r}` to build a UniFormerV2 on this tower anyway"

    def _state(self, config: UniFormerV2Config) -> Tensors:
        """Tensors for a model of `config`: inflated, and with positions of its grid."""
        state = dict(self.tensors)
        kernel = state[f"embeddings.{PATCHES}"]
        state[f"embeddings.{PATCHES}"] = _inflate(
            kernel, config.temporal_kernel_size if config.temporal_downsample else 1
        )
        height, width = config.position_grid or config.patch_grid()
        side = self.fields["position_grid"][0]
        positions = state["embeddings.position_embedding"]
        patches = interpolate_positions(positions[1:], (1, side, side), (1, height, width))
        state["embeddings.position_embedding"] = torch.cat((positions[:1], patches))
        return state

    def load_into(self, model: nn.Module, config: UniFormerV2Config) -> None:
        """
        Load the tower into a model.

        Args:
            model (`nn.Module`):
                A [`UniFormerV2Model`], changed in place.
            config ([`UniFormerV2Config`]):
                Its configuration.

        Raises:
            ValueError: a tensor of the tower is missing.
        """
        state, taken = model.state_dict(), self._state(config)
        needed = [name for name in state if re.match(r"embeddings\.|encoder\.layers\.\d+\.(?!local)", name)]
        missing = [name for name in needed if name not in taken]
        if missing:
            raise ValueError(
                f"{self.name} is not a complete image ViT: {len(missing)} tensors are missing, such as {missing[0]}."
            )
        model.load_state_dict({**state, **taken})


REASONS = {
    "hidden_act": "A tower gives worse results with an activation that it was not trained with",
    "use_pre_layernorm": "CLIP has a LayerNorm before its first block, plain ViTs do not",
    "layer_norm_eps": "Another epsilon changes the output of every norm slightly",
}


def _inflate(kernel: torch.Tensor, frames: int) -> torch.Tensor:
    """A 2-D patch kernel as the middle one of `frames`, the others zero (UniFormer, version 1, averages)."""
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated


def read_image_tower(source: Source, num_attention_heads: int | None = None) -> ImageTower:
    """
    Read the image tower of CLIP or a plain ViT.

    Args:
        source (`str`, `os.PathLike`, `Mapping[str, Any]` or `nn.Module`):
            A transformers model (`CLIPVisionModel`, `CLIPModel`, `ViTModel`, ...), its folder or Hub id, or a state
            dict or a file of one in the layout of OpenAI's CLIP, of transformers or of timm. Of a whole CLIP only the
            image tower is read.
        num_attention_heads (`int`, *optional*):
            Number of heads, for a state dict whose heads are not 64 wide.

    Returns:
        [`ImageTower`]

    Raises:
        ValueError: `source` is not such a tower, or has parts that a UniFormerV2 does not have.
    """
    name, tensors, said = _read_tower(source)
    layout_name, layout, found = _find_layout(name, tensors)
    state = _rename(name, layout_name, layout, found)
    _absorb_patch_bias(state)
    fields = {**layout.fields, **_shown_fields(name, state), **said}
    if num_attention_heads is not None:
        if said.get("num_attention_heads", num_attention_heads) != num_attention_heads:
            raise ValueError(
                f"`num_attention_heads` must be {said['num_attention_heads']} for {name}, got {num_attention_heads}. "
                "The same weights split into another number of heads are another model."
            )
        fields["num_attention_heads"] = num_attention_heads
    if "num_attention_heads" not in fields:
        if fields["hidden_size"] % HEAD_DIM:
            raise ValueError(
                f"`num_attention_heads` must be given for {name}: its width of {fields['hidden_size']} is not a "
                f"multiple of {HEAD_DIM}, and the shapes do not show the number of heads."
            )
        fields["num_attention_heads"] = fields["hidden_size"] // HEAD_DIM
    if "embeddings.layernorm.weight" not in state:
        fields["use_pre_layernorm"] = False
    return ImageTower(name, state, fields)


def _read_tower(source: Source) -> tuple[str, Tensors, dict[str, Any]]:
    """Name of a source in messages, its tensors, and the fields of its configuration that they do not show."""
    if isinstance(source, nn.Module):
        config = getattr(source, "config", None)
        return type(source).__name__, dict(source.state_dict()), _said_fields(config)
    if isinstance(source, Mapping):
        return "the given state dict", _unwrap(source), {}
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            f"`image_model` must be a model, a state dict, a file, a folder or a Hub id, got {type(source).__name__}."
        )
    path = Path(source)
    if path.is_file():
        return path.name, _unwrap(_read_file(path)), {}
    config = AutoConfig.from_pretrained(source)
    if config.model_type not in TOWER_CLASSES:
        raise ValueError(
            f"`image_model` {os.fspath(source)!r} is of type {config.model_type!r}; a UniFormerV2 starts from "
            f"{', '.join(TOWER_CLASSES)}."
        )
    tower = TOWER_CLASSES[config.model_type].from_pretrained(source)
    return os.fspath(source), dict(tower.state_dict()), _said_fields(tower.config)


def _read_file(path: Path) -> Mapping[str, Any]:
    """Tensors of a file; nothing in it is executed."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise
        raise ValueError(
            f"{path.name} is a TorchScript archive, as OpenAI publishes CLIP; opening it would run code of the file. "
            'Load the same tower from the Hub ("openai/clip-vit-base-patch16"). If you trust the file, save its '
            "tensors: torch.save(torch.jit.load(path).state_dict(), new_path)."
        ) from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path.name} holds a {type(loaded).__name__}, not a state dict.")
    return loaded


def _unwrap(loaded: Mapping[str, Any]) -> Tensors:
    """The tensors of a state dict, out of a wrapper and without the prefix of distributed training."""
    for entry in ("state_dict", "model", "module"):
        if isinstance(loaded.get(entry), Mapping):
            loaded = loaded[entry]
    return {name.removeprefix("module."): one for name, one in loaded.items() if isinstance(one, torch.Tensor)}


def _said_fields(config: Any) -> dict[str, Any]:
    """Fields that a transformers configuration of an image model gives."""
    config = getattr(config, "vision_config", config)
    if config is None:
        return {}
    names = ("hidden_act", "layer_norm_eps", "num_attention_heads")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def _find_layout(name: str, tensors: Tensors) -> tuple[str, _Layout, Tensors]:
    """The layout of a state dict, and the tower's tensors without prefix."""
    for layout_name, layout in LAYOUTS.items():
        patches = next(theirs for theirs, ours in layout.names.items() if ours == PATCHES)
        for prefix in layout.prefixes:
            if prefix + patches in tensors:
                found = {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}
                return layout_name, layout, found
    some = ", ".join(list(tensors)[:5]) or "nothing"
    raise ValueError(f"{name} holds no image ViT in a known layout ({', '.join(LAYOUTS)}); it starts with {some}.")


def _rename(name: str, layout_name: str, layout: _Layout, tensors: Tensors) -> Tensors:
    """Tensors under our names, in float32; ValueError for parts that a UniFormerV2 does not have."""
    state: Tensors = {}
    strange = []
    for key, tensor in tensors.items():
        tensor = tensor.detach().to("cpu", torch.float32)
        block = re.match(layout.blocks, key)
        if key in layout.names:
            if layout.names[key] == CLASS:
                tensor = tensor.flatten()
            elif layout.names[key] == POSITIONS:
                tensor = tensor.flatten(0, -2)  # some have an axis for the batch
            state[f"embeddings.{layout.names[key]}"] = tensor
        elif block is not None and (pieces := _block_tensors(layout, key[block.end() :], tensor)):
            state |= {f"encoder.layers.{block[1]}.{ours}": piece for ours, piece in pieces.items()}
        elif not re.fullmatch(layout.unused, key):
            strange.append(key)
    if strange:
        shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
        raise ValueError(
            f"{name} ({layout_name} layout) has parts that a UniFormerV2's image tower does not have: {shown}. Layer "
            "scale, register tokens, distillation tokens and relative positions are not supported."
        )
    return state


def _block_tensors(layout: _Layout, key: str, tensor: torch.Tensor) -> Tensors:
    """Our tensors of a block for one of theirs; empty for an unknown one."""
    for theirs, ours in layout.block_names.items():
        if key.startswith(theirs):
            kind = key.removeprefix(theirs)
            if kind not in ("weight", "bias"):
                return {}
            if ours != "qkv":
                return {ours + kind: tensor}
            return {f"attention.{letter}_proj.{kind}": part for letter, part in zip("qkv", tensor.chunk(3))}
    return {}


def _absorb_patch_bias(state: Tensors) -> None:
    """Add a bias of the patch embedding to the position table: it is the same vector at every patch."""
    bias = state.pop(f"embeddings.{PATCH_BIAS}", None)
    if bias is not None:
        positions = state["embeddings.position_embedding"]
        state["embeddings.position_embedding"] = torch.cat((positions[:1], positions[1:] + bias))


def _shown_fields(name: str, state: Tensors) -> dict[str, Any]:
    """Fields of the configuration that the tower's shapes show."""
    missing = [one for one in (CLASS, POSITIONS) if f"embeddings.{one}" not in state]
    first = "encoder.layers.0.mlp.fc1.weight"
    if missing or first not in state:
        raise ValueError(f"{name} is not a complete image ViT: {', '.join(missing or [first])} is missing.")
    kernel = state[f"embeddings.{PATCHES}"]
    patches = len(state["embeddings.position_embedding"]) - 1
    side = math.isqrt(max(patches, 0))
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3] or side * side != patches or side < 1:
        raise ValueError(
            f"{name} has a patch kernel of shape {tuple(kernel.shape)} and {patches} positions of patches; expected "
            "square patches on a square grid and one class token."
        )
    return {
        "hidden_size": kernel.shape[0],
        "num_channels": kernel.shape[1],
        "patch_size": kernel.shape[2],
        "num_hidden_layers": 1 + max(int(one.split(".")[2]) for one in state if one.startswith("encoder.layers.")),
        "intermediate_size": state[first].shape[0],
        "image_size": side * kernel.shape[2],
        "position_grid": [side, side],
    }


__all__ = ["ImageTower", "read_image_tower"]
