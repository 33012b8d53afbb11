"""
TubeViT from an image ViT, because the authors released no weights: transformers' `ViTModel`, timm's, and the `.npz`
files of AugReg (google-research/vision_transformer) and big_vision.

The encoder and the patch embedding are transferred. Tubes that span several frames are initialised by fan-in, or
inflated from the patch embedding (`tube_init="inflate"`). The pooling is new. The learnt positions and the class token
are dropped as in the paper, unless `image_position_grid` and `use_class_token` are set.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.configuration_base import frame_size
from ..modeling.configuration_tubevit import Tube, TubeViTConfig, is_int
from ..modeling.image_processing_tubevit import TubeViTImageProcessor
from ..modeling.modeling_tubevit import TubeViTForImageClassification, TubeViTForVideoClassification, TubeViTModel
from ..modeling.video_processing_tubevit import TubeViTVideoProcessor
from ..published import label_fields
from .fields import (
    agreed,
    class_names,
    depth,
    fill_heads,
    given_count,
    given_fields,
    in_any_block,
    known_config,
    make_config,
    refuse_labels,
    refuse_unknown_fields,
    select_slice,
)
from .keys import Checkpoint, clean_names, shorten
from .plan import Conversion, Piece


logger = logging.get_logger(__name__)

MODEL_CLASSES: dict[str, Any] = {
    "video-classification": TubeViTForVideoClassification,
    "image-classification": TubeViTForImageClassification,
    "feature-extraction": TubeViTModel,
}
TUBE_INITS = ("fan_in", "inflate")
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # of the published image ViTs; most layouts do not show it
EPSILONS = {"transformers": 1e-12, "timm": 1e-6, "flax": 1e-6}  # their defaults
PREFIXES = ("_orig_mod.", "module.", "backbone.", "model.", "vit.", "opt/target/", "params/")
# What stands outside of the blocks, by layout: their name, and ours in the base model or one of those below.
PATCH, CLASS_TOKEN, POSITIONS, HEAD = "patch", "class_token", "positions", "head"
OUTSIDE = {
    "transformers": {
        "embeddings.patch_embeddings.projection": PATCH,
        "embeddings.cls_token": CLASS_TOKEN,
        "embeddings.position_embeddings": POSITIONS,
        "layernorm": "layernorm",
        "classifier": HEAD,
        "pooler.dense": HEAD,
    },
    "timm": {
        "patch_embed.proj": PATCH,
        "cls_token": CLASS_TOKEN,
        "pos_embed": POSITIONS,
        "norm": "layernorm",
        "head": HEAD,
        "pre_logits.fc": HEAD,
    },
    "flax": {
        "embedding": PATCH,
        "cls": CLASS_TOKEN,
        "Transformer/posembed_input/pos_embedding": POSITIONS,
        "pos_embedding": POSITIONS,
        "Transformer/encoder_norm": "layernorm",
        "head": HEAD,
        "pre_logits": HEAD,
    },
}
BLOCK = {
    "transformers": re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(\w+)"),
    "timm": re.compile(r"blocks\.(\d+)\.(.+)\.(\w+)"),
    "flax": re.compile(r"Transformer/encoderblock_(\d+)/(.+)/(\w+)"),
}
# Inside a block; timm's `attn.qkv` is three of ours. transformers' files keep names that its modules no longer have.
MODULES = {
    "transformers": {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        **{f"attention.attention.{name}": f"attention.{name[0]}_proj" for name in ("query", "key", "value")},
        **{f"attention.{one}_proj": f"attention.{one}_proj" for one in "qkvo"},
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    "timm": {
        **{name: name for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")},
        "attn.proj": "attention.o_proj",
    },
    # numbered through in AugReg's files (0 to 3), by kind in big_vision's
    "flax": {
        "LayerNorm_0": "norm1",
        "LayerNorm_1": "norm2",
        "LayerNorm_2": "norm2",
        **{
            f"MultiHeadDotProductAttention_{number}/{name}": f"attention.{name[0]}_proj"
            for number in "01"
            for name in ("query", "key", "value", "out")
        },
        **{f"MlpBlock_{number}/Dense_{layer}": f"mlp.fc{layer + 1}" for number in "03" for layer in (0, 1)},
    },
}
Transform = Callable[[torch.Tensor], torch.Tensor]


def plan_conversion(
    checkpoint: Checkpoint,
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    tube_init: str = "fan_in",
    **overrides: Any,
) -> Conversion:
    """
    Plan a TubeViT that is initialised from an image ViT.

    Args:
        checkpoint ([`Checkpoint`]):
            The opened file.
        task (`str`):
            See [`~convert.convert_checkpoint`].
        config ([`PreTrainedConfig`], *optional*):
            See [`~convert.convert_checkpoint`].
        labels (`str` or `Sequence[str]`, *optional*):
            See [`~convert.convert_checkpoint`].
        published (`str`, *optional*):
            Must be `None`: the authors released no weights.
        tube_init (`str`, *optional*, defaults to `"fan_in"`):
            Initialisation of tubes of several frames: `"fan_in"`, or `"inflate"`, from the patch embedding: resized
            bilinearly, repeated over the frames and divided by their number. A tube with fewer channels uses the first
            ones.
        overrides (`Any`):
            Fields of the configuration.

    Returns:
        [`Conversion`]

    Raises:
        ValueError: the file is not an image ViT, or an argument is not allowed.
    """
    if tube_init not in TUBE_INITS:
        raise ValueError(f"`tube_init` must be one of {', '.join(TUBE_INITS)}, got {tube_init!r}.")
    known_config(TubeViTConfig, config, published)
    if published is not None:
        raise ValueError(
            f"`published` {published!r} has no weights, because the authors of TubeViT released none. Omit it, and "
            "pass the size of a clip as `num_frames` and `image_size`."
        )
    refuse_unknown_fields(TubeViTConfig, overrides, labels)
    layout, pieces = _canonical_layout(checkpoint)
    given = given_fields(TubeViTConfig, config, overrides, set())
    refuse_labels(labels, task, [name for name in MODEL_CLASSES if name != "feature-extraction"])
    if task != "feature-extraction":
        given |= _class_fields(labels, given, checkpoint)
    full = make_config(TubeViTConfig, _all_fields(layout, pieces, given, checkpoint))
    plan = Conversion(checkpoint, full, MODEL_CLASSES[task], {})
    base = "" if task == "feature-extraction" else "tubevit."
    theirs = next(theirs for theirs, ours in OUTSIDE[layout].items() if ours == "layernorm")
    weight, bias = ("/scale", "/bias") if layout == "flax" else (".weight", ".bias")
    plan.official_names = {f"{base}layernorm.weight": theirs + weight, f"{base}layernorm.bias": theirs + bias}
    _fill_plan(plan, pieces, base, tube_init)
    plan.processor = _make_processor(full, images=task == "image-classification")
    return plan


def _canonical_layout(checkpoint: Checkpoint) -> tuple[str, dict[str, Piece]]:
    """Layout, and the source of each tensor by a name that all layouts share."""
    names = clean_names(checkpoint.shapes, PREFIXES)
    layout = _layout_of(names, checkpoint)
    pieces: dict[str, Piece] = {}
    strange = []
    for name, source in names.items():
        found = _canonical_pieces(layout, name, source, checkpoint.shapes[source])
        if not found and name.startswith("MAPHead_0/"):  # big_vision's pooling with its own MLP
            found = {f"{HEAD}.{name}": Piece(source)}
        if not found:
            strange.append(source)
        pieces |= found
    if strange:
        raise ValueError(f"{checkpoint.name} is not a plain ViT: it has {shorten(strange)}.")
    return layout, pieces


def _layout_of(names: dict[str, str], checkpoint: Checkpoint) -> str:
    """`"transformers"`, `"timm"` or `"flax"` (AugReg, big_vision)."""
    for layout, outside in OUTSIDE.items():
        patch = next(theirs for theirs, ours in outside.items() if ours == PATCH)
        if f"{patch}.weight" in names or f"{patch}/kernel" in names:
            return layout
    raise ValueError(
        f"{checkpoint.name} is not an image ViT of transformers, timm, AugReg or big_vision: there is no patch "
        f"embedding. It starts with {', '.join(list(names)[:5])}."
    )


def _canonical_pieces(layout: str, name: str, source: str, shape: tuple[int, ...]) -> dict[str, Piece]:
    """Our pieces of one tensor; empty for an unknown one."""
    outside = OUTSIDE[layout]
    if name in outside:
        return {outside[name]: Piece(source)}
    module, _, kind = name.rpartition("/" if layout == "flax" else ".")
    if module in outside:
        ours = outside[module]
        kernel = {PATCH: _image_kernel}.get(ours, _transposed)
        return {f"{ours}.{_our_kind(kind)}" + (f".{name}" if ours == HEAD else ""): _torch_piece(source, kind, kernel)}
    match = BLOCK[layout].fullmatch(name)
    if match is None:
        return {}
    number, module, kind = match.groups()
    start = f"encoder.layers.{number}."
    if layout == "timm" and module == "attn.qkv":
        third = shape[0] // 3
        return {
            f"{start}attention.{letter}_proj.{kind}": Piece(source, select_slice(index * third, (index + 1) * third))
            for index, letter in enumerate("qkv")
        }
    if module not in MODULES[layout]:
        return {}
    return {
        f"{start}{MODULES[layout][module]}.{_our_kind(kind)}": _torch_piece(
            source, kind, _attention_kernel(module, shape)
        )
    }


def _our_kind(kind: str) -> str:
    """Translate Flax's names of weights."""
    return {"kernel": "weight", "scale": "weight"}.get(kind, kind)


def _torch_piece(source: str, kind: str, kernel: Transform) -> Piece:
    """A tensor in torch's layout: Flax kernels have the output axis last, and attention biases have a head axis."""
    return Piece(source, kernel if kind == "kernel" else torch.flatten if kind == "bias" else None)


def _attention_kernel(module: str, shape: tuple[int, ...]) -> Transform:
    """Transformation of a Flax kernel of a block to a matrix `(out, in)`."""
    if len(shape) != 3:
        return _transposed
    return _merged_output if module.endswith("/out") else _merged_heads


def _transposed(kernel: torch.Tensor) -> torch.Tensor:
    return kernel.T


def _merged_heads(kernel: torch.Tensor) -> torch.Tensor:
    """`(in, heads, head_dim)` -> `(out, in)`."""
    return kernel.flatten(1).T


def _merged_output(kernel: torch.Tensor) -> torch.Tensor:
    """`(heads, head_dim, out)` -> `(out, in)`."""
    return kernel.flatten(0, 1).T


def _image_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """`(height, width, in, out)` -> `(out, in, height, width)`."""
    return kernel.permute(3, 2, 0, 1)


def _all_fields(
    layout: str, pieces: dict[str, Piece], given: dict[str, Any], checkpoint: Checkpoint
) -> dict[str, Any]:
    """All fields of the configuration: from shapes, from the caller, and defaults of the source library."""
    shapes = {name: _shape_of(piece, checkpoint) for name, piece in pieces.items()}
    hidden_size, num_channels = shapes[f"{PATCH}.weight"][:2]
    shown: dict[str, Any] = {
        "hidden_size": hidden_size,
        "num_channels": num_channels,
        "num_hidden_layers": depth(shapes, "encoder.layers.", checkpoint),
        "qkv_bias": in_any_block(shapes, "encoder.layers.", "attention.q_proj.bias"),
    }
    if "encoder.layers.0.mlp.fc1.weight" in shapes:
        shown["intermediate_size"] = shapes["encoder.layers.0.mlp.fc1.weight"][0]
    query = pieces.get("encoder.layers.0.attention.q_proj.weight")
    if query is not None and len(checkpoint.shapes[query.source]) == 3:
        shown["num_attention_heads"] = checkpoint.shapes[query.source][1]
    defaults = {"layer_norm_eps": EPSILONS[layout]}
    for name in ("layer_norm_eps", "hidden_act", "num_attention_heads") if layout == "transformers" else ():
        if name in checkpoint.config:
            defaults[name] = checkpoint.config[name]
    fields = agreed(shown, {**defaults, **given}, checkpoint)
    fill_heads(fields, "hidden_size", "num_attention_heads", HEADS, checkpoint)
    _check_positions(shapes, fields, checkpoint)
    return fields


def _shape_of(piece: Piece, checkpoint: Checkpoint) -> tuple[int, ...]:
    """Shape of a tensor after its transformation."""
    return tuple(piece.take(torch.empty(checkpoint.shapes[piece.source], device="meta")).shape)


def _check_positions(shapes: dict[str, tuple[int, ...]], fields: dict[str, Any], checkpoint: Checkpoint) -> None:
    """ValueError if positions or a class token are to be kept but are missing or have another grid."""
    if fields.get("use_class_token") and CLASS_TOKEN not in shapes:
        raise ValueError(f"`use_class_token` cannot be True: {checkpoint.name} has no class token.")
    grid = fields.get("image_position_grid")
    if grid is None:
        return
    count = shapes[POSITIONS][1] if POSITIONS in shapes else 0
    count -= _class_positions(count, CLASS_TOKEN in shapes, grid)
    if len(grid) != 2 or not all(is_int(one, 1) for one in grid) or grid[0] * grid[1] != count:
        raise ValueError(
            f"`image_position_grid` must be the height and width of the {count} learnt positions of "
            f"{checkpoint.name}, got {grid!r}."
        )


def _class_positions(count: int, class_token: bool, grid: Sequence[int]) -> int:
    """Number of the `count` positions that belong to the class token: 0 or 1."""
    return int(class_token and count > 0 and count != math.prod(grid))


def _class_fields(labels: str | Sequence[str] | None, given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Class names of the new classifier. ValueError if their number is not given."""
    names = class_names(labels)
    if names is not None:
        return label_fields(names)
    if given_count(given) is None:
        raise ValueError(
            f"Pass `labels`, `num_labels` or `id2label` for a new classifier: that of {checkpoint.name} was trained "
            "on other pooled features."
        )
    return {}


def _fill_plan(plan: Conversion, pieces: dict[str, Piece], base: str, tube_init: str) -> None:
    """Fill in the plan: a piece or a reason to drop for each tensor of the file, a source for each parameter."""
    config: TubeViTConfig = plan.config  # type: ignore[assignment]
    kernel, bias = pieces.pop(f"{PATCH}.weight"), pieces.pop(f"{PATCH}.bias", None)
    embeddings = f"{base}embeddings."
    for index, tube in enumerate(config.tube_list):
        _start_tube(plan, f"{embeddings}tubes.{index}.", tube, kernel, bias, tube_init)
    if config.tube_kernels == "interpolated":
        shared = Tube(tuple(config.base_kernel_size), (1, 1, 1))  # type: ignore[arg-type]
        _place_kernel(plan, f"{embeddings}shared_kernel.weight", shared, kernel, tube_init)
    used = {one.source for one in plan.pieces.values()}
    for one in (kernel, bias):
        if one is not None and one.source not in used:
            plan.dropped[one.source] = "no tube is initialised from the patch embedding"
    _special_tokens(plan, pieces, embeddings)
    for name, one in pieces.items():
        if name.startswith(HEAD):
            plan.dropped[one.source] = "the head was trained on other pooled features"
        else:
            plan.pieces[base + name] = one
    with torch.device("meta"):
        expected = plan.model_class(config).state_dict()
    fresh = (f"{base}pooler.", "classifier.", f"{base}encoder.gate.")
    plan.fresh |= dict.fromkeys([name for name in expected if name.startswith(fresh)], "not part of an image ViT")


def _start_tube(plan: Conversion, name: str, tube: Tube, kernel: Piece, bias: Piece | None, tube_init: str) -> None:
    """Kernel and bias of one tube."""
    config: TubeViTConfig = plan.config  # type: ignore[assignment]
    if config.tube_kernels == "independent":
        _place_kernel(plan, f"{name}weight", tube, kernel, tube_init)
        from_patch = f"{name}weight" in plan.pieces
    else:
        from_patch = tube_init == "inflate"
    if bias is None or not from_patch:
        plan.fresh[f"{name}bias"] = "initialised by fan-in" if bias is not None else "the patch embedding has no bias"
    else:
        channels = tube.window_channels(config.hidden_size)
        plan.pieces[f"{name}bias"] = Piece(bias.source, _chain(bias.transform, select_slice(0, channels)))


def _place_kernel(plan: Conversion, name: str, tube: Tube, kernel: Piece, tube_init: str) -> None:
    """Add a kernel: the patch embedding's for tubes of one frame, and for other tubes if they are inflated."""
    if tube.kernel[0] > 1 and tube_init != "inflate":
        plan.fresh[name] = "initialised by fan-in"
        return
    channels = tube.window_channels(plan.config.hidden_size)
    plan.pieces[name] = Piece(kernel.source, _chain(kernel.transform, inflated(tube, channels)))


def inflated(tube: Tube, channels: int) -> Transform:
    """
    Transformation of a patch kernel to the kernel of a tube. For a clip of identical frames the tube gives the same
    output as the patch embedding.

    Args:
        tube ([`Tube`]):
            The tube.
        channels (`int`):
            Output channels of the tube.

    Returns:
        `Callable[[torch.Tensor], torch.Tensor]`: from `(out, in, height, width)` to `(channels, in, frames, height,
        width)`.
    """

    def transform(kernel: torch.Tensor) -> torch.Tensor:
        frames, height, width = tube.kernel
        kernel = kernel[:channels]
        if tuple(kernel.shape[-2:]) != (height, width):
            kernel = F.interpolate(kernel.float(), size=(height, width), mode="bilinear", align_corners=False)
        return kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames

    return transform


def _chain(first: Transform | None, second: Transform) -> Transform:
    return second if first is None else lambda tensor: second(first(tensor))


def _special_tokens(plan: Conversion, pieces: dict[str, Piece], embeddings: str) -> None:
    """Keep the class token and the learnt positions if the configuration uses them."""
    config: TubeViTConfig = plan.config  # type: ignore[assignment]
    token, positions = pieces.pop(CLASS_TOKEN, None), pieces.pop(POSITIONS, None)
    grid, extra = config.image_position_grid, 0
    if positions is not None and grid is not None:
        extra = _class_positions(plan.checkpoint.shapes[positions.source][1], token is not None, grid)
        own = Piece(positions.source, lambda table: table.flatten(0, 1)[extra:])
        plan.pieces[f"{embeddings}image_positions.table"] = own
    elif positions is not None:
        plan.dropped[positions.source] = "replaced by fixed positions"
    if token is not None and config.use_class_token:
        moved = _class_position(plan.checkpoint, positions.source) if positions is not None and extra else None
        plan.pieces[f"{embeddings}class_token.token"] = Piece(token.source, moved)
    elif token is not None:
        plan.dropped[token.source] = "the model has no class token"


def _class_position(checkpoint: Checkpoint, source: str) -> Transform:
    """Transformation that adds its position to the class token, since both are the same for all inputs."""
    return lambda token: token if token.is_meta else token + checkpoint.read(source)[:, :1].to(token.dtype)


def _make_processor(config: TubeViTConfig, images: bool) -> TubeViTVideoProcessor | TubeViTImageProcessor:
    """Processor with one centred view."""
    height, width = frame_size(config.image_size)
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
    }
    return TubeViTImageProcessor(**sizes) if images else TubeViTVideoProcessor(num_frames=config.num_frames, **sizes)


__all__ = ["plan_conversion"]
