"""
Official names of the BEVT code for Swin weights in other layouts: Video Swin and the image Swin (both official),
torchvision's `swin3d_*` and `swin_*`, timm's, transformers', and MMAction2's ports.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from .keys import PREFIXES, Checkpoint, clean_names


# The official loader strips `module.`, `backbone.` and `encoder.`, other wrappers' prefixes are the package's.
SWIN_PREFIXES = (*PREFIXES, "encoder.", "swin.")
TORCHVISION_MODULES = {"mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2"}
TRANSFORMERS_MODULES = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
TRANSFORMERS_NAMES = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.norm": "patch_embed.norm",
    "layernorm": "norm",
    "classifier": "head",
}
# Files have the first name of each, and models in memory the second since transformers 5.
PARTS = ("query", "q_proj", "key", "k_proj", "value", "v_proj")
QKV = re.compile(rf"(layers\.\d+\.blocks\.\d+)\.attention\.(?:self\.)?({'|'.join(PARTS)})\.(weight|bias)")
POSITIONS = re.compile(r"attention\.(self|relative_position_bias)\.relative_position_")
EMA = "ema_"


def official_checkpoint(checkpoint: Checkpoint, use_ema: bool = True) -> Checkpoint:
    """
    Rename weights to the official names.

    Args:
        checkpoint ([`~convert.keys.Checkpoint`]):
            Swin weights in any of the layouts.
        use_ema (`bool`, *optional*, defaults to `True`):
            Use the moving averages that official Something-Something checkpoints hold beside the raw weights, as the
            official evaluation does.

    Returns:
        [`~convert.keys.Checkpoint`]: the same weights with official names.

    Raises:
        ValueError: two names become the same.
    """
    names = _ema_names(checkpoint, use_ema)
    cleaned = {short: names[long] for short, long in clean_names(names, SWIN_PREFIXES).items()}
    parts: dict[str, list[str]] = {}
    rename = _renamer(cleaned)
    for short, source in cleaned.items():
        official = rename(short)
        if official in parts and not QKV.fullmatch(short):
            raise ValueError(f"{checkpoint.name} has {official!r} twice, as {parts[official][0]!r} and {source!r}.")
        parts.setdefault(official, []).append(source)
    for sources in parts.values():  # three tensors of transformers are one of the others
        sources.sort(key=lambda name: [number for number, part in enumerate(PARTS) if f".{part}." in name])
        _refuse_missing_part(sources, checkpoint)
    shapes = {
        official: _joined_shape([checkpoint.shapes[one] for one in sources]) for official, sources in parts.items()
    }

    def read(name: str) -> torch.Tensor:
        tensors = [checkpoint.read(source) for source in parts[name]]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    file_names = {official: sources[0] for official, sources in parts.items()}
    return replace(checkpoint, shapes=shapes, read=read, file_names=file_names)


def _refuse_missing_part(sources: list[str], checkpoint: Checkpoint) -> None:
    """ValueError if some of query, key and value are there and others not."""
    for words in (PARTS[::2], PARTS[1::2]):
        found = [word for word in words if any(f".{word}." in source for source in sources)]
        if found and len(found) < len(words):
            missing = [sources[0].replace(f".{found[0]}.", f".{word}.") for word in words if word not in found]
            raise ValueError(
                f"{checkpoint.name} is not complete: {' and '.join(missing)} missing from the checkpoint."
            )


def _joined_shape(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len(shapes) == 1:
        return shapes[0]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _ema_names(checkpoint: Checkpoint, use_ema: bool) -> dict[str, str]:
    """Names of the weights, each with the name of the tensor to read: itself, or its moving average."""
    plain = [name for name in checkpoint.shapes if not name.startswith(EMA)]
    averages = {name: f"{EMA}{name.replace('.', '_')}" for name in plain}
    found = {average for average in averages.values() if average in checkpoint.shapes}
    strange = [name for name in checkpoint.shapes if name.startswith(EMA) and name not in found]
    if strange:
        raise ValueError(f"{checkpoint.name} has {strange[0]!r}, a moving average without its weight.")
    return {name: averages[name] if use_ema and averages[name] in found else name for name in plain}


def _renamer(names: Mapping[str, str]) -> Callable[[str], str]:
    """Function that renames these names to the official ones."""
    if any(name.startswith("features.") for name in names):
        return _torchvision_video_name if "patch_embed.proj.weight" in names else _torchvision_image_name
    if "embeddings.patch_embeddings.projection.weight" in names:
        return _transformers_name
    stages = {int(match[1]) for name in names if (match := re.match(r"layers\.(\d+)\.", name))}
    if stages and f"layers.{max(stages)}.downsample.reduction.weight" in names:
        return _timm_name
    return lambda name: re.sub(r"^norm3\.", "norm.", name)  # MMAction2's word for the final norm


def _torchvision_video_name(name: str) -> str:
    match = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if match is None:
        return re.sub(r"^head\.", "cls_head.fc_cls.", name)
    stage, merging = divmod(int(match[1]), 2)
    return _torchvision_module(stage, bool(merging), match[2])


def _torchvision_image_name(name: str) -> str:
    match = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if match is None:
        return name
    if match[1] == "0":
        return re.sub(r"^0\.", "patch_embed.proj.", re.sub(r"^2\.", "patch_embed.norm.", match[2]))
    stage, merging = divmod(int(match[1]) - 1, 2)
    return _torchvision_module(stage, bool(merging), match[2])


def _torchvision_module(stage: int, merging: bool, rest: str) -> str:
    if merging:
        return f"layers.{stage}.downsample.{rest}"
    for theirs, official in TORCHVISION_MODULES.items():
        rest = rest.replace(f".{theirs}.", f".{official}.")
    return f"layers.{stage}.blocks.{rest}"


def _timm_name(name: str) -> str:
    """timm merges patches at the start of a stage, the official code at the end of the previous one."""
    name = re.sub(r"^head\.fc\.", "head.", name)
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) - 1}.downsample.", name)


def _transformers_name(name: str) -> str:
    if match := QKV.fullmatch(name):
        return f"{match[1]}.attn.qkv.{match[3]}"
    module, _, kind = name.rpartition(".")
    if module in TRANSFORMERS_NAMES:
        return f"{TRANSFORMERS_NAMES[module]}.{kind}"
    name = POSITIONS.sub("attn.relative_position_", name)
    for theirs, official in TRANSFORMERS_MODULES.items():
        name = re.sub(rf"^(layers\.\d+\.blocks\.\d+)\.{re.escape(theirs)}\.", rf"\1.{official}.", name)
    return name


__all__ = ["official_checkpoint"]
