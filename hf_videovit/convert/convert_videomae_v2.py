"""
VideoMAE V2: the official pretraining and fine-tuned layouts, that of the Hub repositories with remote code
(`OpenGVLab/VideoMAEv2-Base` and so on), and that of MMAction2's fine-tuned ports. Heads of action detectors are in
`detectors.py`; encoders with adapters have the layout of AdaTAD.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.configuration_base import frame_size
from ..modeling.configuration_videomae_v2 import VideoMAEV2Config
from ..modeling.layers import sinusoid_table
from ..modeling.modeling_videomae_v2 import (
    VideoMAEV2ForActionDetection,
    VideoMAEV2ForPreTraining,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2Model,
)
from ..modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor
from ..published import (
    kinetics_710_rows,
    published_entry,
    published_processor_kwargs,
)
from . import detectors
from .fields import (
    agreed,
    class_names,
    default_names,
    depth,
    fill_heads,
    given_fields,
    in_any_block,
    known_config,
    make_config,
    refuse_labels,
    refuse_unknown_fields,
    select_rows,
    select_slice,
    with_class_names,
)
from .keys import Checkpoint, clean_names
from .plan import Conversion, Piece


logger = logging.get_logger(__name__)

MODEL_CLASSES: dict[str, Any] = {
    "video-classification": VideoMAEV2ForVideoClassification,
    detectors.TASK: VideoMAEV2ForActionDetection,
    "feature-extraction": VideoMAEV2Model,
    "pretraining": VideoMAEV2ForPreTraining,
}
LAYOUTS = {
    **dict.fromkeys(("video-classification", detectors.TASK), "fine-tuned"),
    "feature-extraction": "encoder",
    "pretraining": "pretraining",
}
# Number of heads of the published models by width, which shapes do not show.
ENCODER_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
DECODER_HEADS = {192: 3, 384: 6, 512: 8}
PIXEL_FIELDS = ("image_mean", "image_std", "rescale_factor")
LABEL_COUNTS = {"k400": 400, "k600": 600, "k700": 700, "k710": 710}
# Fields of `model_config` in the remote code that shapes do not show, and our names.
REMOTE_FIELDS = {
    "img_size": "image_size",
    "num_frames": "num_frames",
    "num_heads": "num_attention_heads",
    "layer_norm_eps": "layer_norm_eps",
    "use_mean_pooling": "use_mean_pooling",
}
# Fields that shapes show, and their names in the remote code; both must agree.
REMOTE_CHECKED_FIELDS = {
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "patch_size": "patch_size",
    "tubelet_size": "tubelet_size",
    "num_channels": "in_chans",
    "qkv_bias": "qkv_bias",
    "use_mean_pooling": "use_mean_pooling",
    "use_cosine_attention": "cos_attn",
}
# MMAction2's names and the official ones.
MMACTION2_NAMES = (
    ("patch_embed.projection.", "patch_embed.proj."),
    ("mlp.layers.0.0.", "mlp.fc1."),
    ("mlp.layers.1.", "mlp.fc2."),
    ("cls_head.fc_cls.", "head."),
    *detectors.MMACTION2_HEAD_NAMES,
)
# Parts of AdaTAD's adapters, and ours.
ADAPTER_NAMES = {"down_proj": "down_proj", "dwconv": "time_conv", "conv": "channel_conv", "up_proj": "up_proj"}
BLOCK = re.compile(r"(decoder\.)?blocks\.(\d+)\.(.+)")
# Inside a block; `attn.qkv.weight` is three of ours.
BLOCK_NAMES = {
    **{f"{norm}.{kind}": f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
    **{f"mlp.{layer}.{kind}": f"mlp.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")},
    "attn.q_bias": "attention.q_proj.bias",
    "attn.v_bias": "attention.v_proj.bias",
    "attn.proj.weight": "attention.o_proj.weight",
    "attn.proj.bias": "attention.o_proj.bias",
    "attn.scale": "attention.scale",
    "gamma_1": "layer_scale1.gamma",
    "gamma_2": "layer_scale2.gamma",
    "adapter.gamma": "adapter.gamma",
    **{
        f"adapter.{theirs}.{kind}": f"adapter.{ours}.{kind}"
        for theirs, ours in ADAPTER_NAMES.items()
        for kind in ("weight", "bias")
    },
}
# Outside the blocks: name in the base model, or in the head's class.
ENCODER_NAMES = {
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
    "fc_norm.weight": "fc_norm.weight",
    "fc_norm.bias": "fc_norm.bias",
}
HEAD_NAMES = {"head.weight": "classifier.weight", "head.bias": "classifier.bias"}
DECODER_NAMES = {
    "encoder_to_decoder.weight": "encoder_to_decoder.weight",
    "mask_token": "mask_token",
    "decoder.norm.weight": "decoder.norm.weight",
    "decoder.norm.bias": "decoder.norm.bias",
    "decoder.head.weight": "decoder.head.weight",
    "decoder.head.bias": "decoder.head.bias",
}
FIRST_SCALE = "blocks.0.attn.scale"  # of cosine attention
POSITIONS = "pos_embed"  # MMAction2 saves the fixed table
# Fields that determine the grid of positions.
SHAPING_FIELDS = {"image_size", "num_frames", "patch_size", "tubelet_size"}


def plan_conversion(
    checkpoint: Checkpoint,
    *,
    task: str,
    config: PreTrainedConfig | None = None,
    labels: str | Sequence[str] | None = None,
    published: str | None = None,
    **overrides: Any,
) -> Conversion:
    """
    Plan the conversion of a VideoMAE V2 checkpoint.

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
            See [`~convert.convert_checkpoint`].
        overrides (`Any`):
            Fields of the configuration.

    Returns:
        [`Conversion`]

    Raises:
        ValueError: the file is not such a checkpoint, does not support the task, or contradicts an argument.
    """
    refuse_unknown_fields(VideoMAEV2Config, overrides, labels)
    config = known_config(VideoMAEV2Config, config, published)
    sources = _official_names(checkpoint)
    shapes = {name: checkpoint.shapes[source] for name, source in sources.items()}
    mmaction2 = any("cls_head." in source or "bbox_head." in source for source in sources.values())
    layout = _layout_of(shapes, checkpoint)
    if published is not None:
        _refuse_other_file(published, "MMAction2" if mmaction2 else layout, checkpoint)
    given = given_fields(VideoMAEV2Config, config, overrides, SHAPING_FIELDS)
    _refuse_impossible(layout, task, shapes, given, labels, checkpoint)
    shown = _shown_fields(shapes, checkpoint)
    fields = {**_remote_fields(checkpoint, shown), **given}
    _refuse_detector(shapes, task, (overrides if published else fields).get("use_mean_pooling"), checkpoint)
    _warn_of_pooling(shapes, task, checkpoint)
    if layout == "pretraining":  # of whose encoder every token is normalised, whatever a fine-tuned model pools
        del shown["use_mean_pooling"]
    if task == detectors.TASK:
        rows, names = detectors.class_rows(shapes, labels, given, mmaction2, checkpoint)
        # a detector normalises every token and pools none; so does the encoder that `AutoModel` takes from it
        fields.setdefault("use_mean_pooling", shown.pop("use_mean_pooling"))
        fields["detection_config"] = detectors.detection_fields(fields, config, names, shapes, mmaction2)
    elif task != "pretraining":
        shown = {name: value for name, value in shown.items() if not name.startswith("decoder_")}
        if layout == "pretraining":
            _settle_pooling(fields, overrides, task, checkpoint)
    fields = _merge_fields(shown, fields, shapes, checkpoint, decoder=task == "pretraining")
    if task != detectors.TASK:
        rows, names = _class_names(shapes, task, labels, given, checkpoint, known_order=not mmaction2)
    full = make_config(VideoMAEV2Config, with_class_names(fields, names))
    plan = Conversion(checkpoint, full, MODEL_CLASSES[task], {})
    base = "" if task == "feature-extraction" else "videomae_v2."
    plan.official_names = {
        **{base + ours: theirs for theirs, ours in ENCODER_NAMES.items()},
        **{ours: theirs for theirs, ours in (_head_names(task) | DECODER_NAMES).items()},
    }
    if POSITIONS in sources:
        _refuse_other_positions(sources.pop(POSITIONS), full, plan)
    _map_names(plan, sources, shapes, layout, task, rows)
    if task == detectors.TASK:
        plan.processor = detectors.detection_processor(full, mmaction2)
    else:
        plan.processor = _make_processor(full, published)
    return plan


def _head_names(task: str) -> dict[str, str]:
    """Official names of the task's head, and ours."""
    return detectors.HEAD_NAMES if task == detectors.TASK else HEAD_NAMES


def _settle_pooling(fields: dict[str, Any], overrides: dict[str, Any], task: str, checkpoint: Checkpoint) -> None:
    """
    Decide on the norm: a pretraining checkpoint has a norm of every token instead of `fc_norm`. Official fine-tuning
    initialises `fc_norm`; features use the trained norm.
    """
    if task != "feature-extraction":
        fields.setdefault("use_mean_pooling", True)
        return
    if overrides.get("use_mean_pooling"):
        raise ValueError(
            f"`use_mean_pooling` cannot be True: {checkpoint.name} is a pretraining checkpoint without a norm of the "
            "mean token (`fc_norm`), so pooled features would come from an untrained layer."
        )
    fields["use_mean_pooling"] = False


def _warn_of_pooling(shapes: dict[str, tuple[int, ...]], task: str, checkpoint: Checkpoint) -> None:
    """Warning for features of an encoder that was trained without pooling its tokens."""
    if task == "feature-extraction" and "norm.weight" in shapes:
        logger.warning(
            f"{checkpoint.name} has no norm of the mean token, so `pooler_output` is the first token. For features of "
            'a clip, average the tokens with `get_video_features(..., pooling="mean")`.'
        )


def _refuse_detector(shapes: dict[str, tuple[int, ...]], task: str, told: Any, checkpoint: Checkpoint) -> None:
    """
    ValueError for a file that may be an action detector, unless `told` (the caller's `use_mean_pooling`) is False.
    Detectors have the names of a classifier of the first token, but none of them has cosine attention.
    """
    unclear = {"norm.weight", "head.weight"} <= set(shapes) and not {"fc_norm.weight", FIRST_SCALE} & set(shapes)
    if task == "video-classification" and unclear and told is not False:
        raise ValueError(
            f"{checkpoint.name} has `norm` and `head` but no `fc_norm`. It is either an action-detection checkpoint "
            "(VideoMAE-Action-Detection, InternVideo), whose head classifies boxes around people, or a classifier of "
            "the first token. Convert an action-detection checkpoint with task='action-detection'. For a classifier "
            "of the first token, pass use_mean_pooling=False."
        )


def _official_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Official names without prefixes of wrappers and `encoder.`, each with its name in the file."""
    cleaned: dict[str, str] = {}
    for name, source in clean_names(checkpoint.shapes).items():
        for theirs, official in MMACTION2_NAMES:
            name = name.replace(theirs, official)
        if name in cleaned:
            raise ValueError(f"{checkpoint.name} has {name!r} twice, as {cleaned[name]!r} and as {source!r}.")
        cleaned[name] = source
    encoders = [name for name in cleaned if name.startswith("encoder.")]
    twice = [name for name in encoders if name.removeprefix("encoder.") in cleaned]
    if twice:
        raise ValueError(f"{checkpoint.name} has {twice[0]!r} twice, with and without `encoder.`.")
    return {name.removeprefix("encoder."): source for name, source in cleaned.items()}


def _layout_of(shapes: dict[str, tuple[int, ...]], checkpoint: Checkpoint) -> str:
    """`"pretraining"`, `"fine-tuned"` or `"encoder"` (pooled features, no head)."""
    if "patch_embed.proj.weight" not in shapes or not any(BLOCK.fullmatch(name) for name in shapes):
        some = ", ".join(list(shapes)[:5])
        raise ValueError(
            f"{checkpoint.name} is not a VideoMAE V2 checkpoint: `patch_embed.proj.weight` and `blocks.N...` are "
            f"missing. It starts with {some}."
        )
    scalars = [name for name, shape in shapes.items() if not shape]
    if scalars:
        raise ValueError(f"{checkpoint.name} is not a VideoMAE V2 checkpoint: {scalars[0]} is a scalar.")
    if "head.weight" in shapes:
        return "fine-tuned"
    if "mask_token" in shapes or "fc_norm.weight" not in shapes:
        return "pretraining"
    return "encoder"


def _refuse_other_positions(source: str, config: VideoMAEV2Config, plan: Conversion) -> None:
    """Drop a saved position table if it is the fixed one. ValueError for any other."""
    table = plan.checkpoint.read(source).float().reshape(-1, config.hidden_size)
    frames, height, width = config.token_grid()
    if len(table) != frames * height * width:
        raise ValueError(
            f"{source} has {len(table)} positions, but clips of `num_frames` {config.num_frames} and `image_size` "
            f"{config.image_size} have {frames * height * width} tokens."
        )
    if not torch.allclose(table, sinusoid_table(*table.shape), atol=1e-3):
        raise ValueError(f"{source} is not the fixed table of VideoMAE V2; learnt positions are not supported.")
    plan.dropped[source] = "the fixed positions, which the model computes"


def _refuse_other_file(published: str, layout: str, checkpoint: Checkpoint) -> None:
    """ValueError if the file cannot be the published checkpoint that the caller named."""
    entry = published_entry(published)
    expected = "MMAction2" if entry.file.wrapper == "state_dict" else LAYOUTS[entry.task]
    if layout != expected:
        raise ValueError(
            f"`published` {published!r} has the {expected} layout, but {checkpoint.name} has the {layout} layout."
        )


def _refuse_impossible(
    layout: str,
    task: str,
    shapes: dict[str, tuple[int, ...]],
    given: dict[str, Any],
    labels: str | Sequence[str] | None,
    checkpoint: Checkpoint,
) -> None:
    """ValueError if the file does not support the task, with the tasks that it supports."""
    if task == "pretraining" and "mask_token" not in shapes:
        raise ValueError(
            f"{checkpoint.name} has no decoder (it has the {layout} layout), so it cannot be converted for "
            "task='pretraining'. Use task='feature-extraction'"
            + (" or 'video-classification'." if layout == "fine-tuned" else ".")
        )
    unnamed = labels is None and not {"num_labels", "id2label"} & set(given)
    if task == "video-classification" and layout != "fine-tuned" and unnamed:
        headless = layout == "encoder"
        raise ValueError(
            f"{checkpoint.name} is a {'headless' if headless else 'pretraining'} checkpoint without a classifier. "
            "Convert a fine-tuned checkpoint; or, to fine-tune this one, pass `num_labels` or `id2label` for a new "
            f"classifier{'' if headless else ' and `fc_norm`'}. Without classes, use "
            f"task={'feature-extraction' if headless else 'pretraining'!r}."
        )


def _shown_fields(shapes: dict[str, tuple[int, ...]], checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of the configuration that shapes show."""
    kernel = shapes["patch_embed.proj.weight"]
    if len(kernel) != 5 or kernel[3] != kernel[4]:
        raise ValueError(
            f"{checkpoint.name}: patch_embed.proj.weight has shape {kernel}; expected (width, channels, frames, "
            "patch, patch) with square patches."
        )
    fields: dict[str, Any] = {
        "hidden_size": kernel[0],
        "num_channels": kernel[1],
        "tubelet_size": kernel[2],
        "patch_size": kernel[3],
        "num_hidden_layers": depth(shapes, "blocks.", checkpoint),
        "qkv_bias": in_any_block(shapes, "blocks.", "attn.q_bias"),
        "use_cosine_attention": in_any_block(shapes, "blocks.", "attn.scale"),
        "use_mean_pooling": "norm.weight" not in shapes,
    }
    adapted = [name for name in shapes if name.endswith(".adapter.down_proj.weight")]
    if adapted:
        fields["adapter_layers"] = sorted(int(name.split(".")[1]) for name in adapted)
        fields["adapter_hidden_size"] = shapes[adapted[0]][0]
    if "blocks.0.mlp.fc1.weight" in shapes:
        fields["intermediate_size"] = shapes["blocks.0.mlp.fc1.weight"][0]
    if FIRST_SCALE in shapes:
        fields["num_attention_heads"] = shapes[FIRST_SCALE][0]
    if "mask_token" in shapes:
        fields["decoder_hidden_size"] = shapes["mask_token"][-1]
        fields["decoder_num_hidden_layers"] = depth(shapes, "decoder.blocks.", checkpoint)
        if "decoder.blocks.0.mlp.fc1.weight" in shapes:
            fields["decoder_intermediate_size"] = shapes["decoder.blocks.0.mlp.fc1.weight"][0]
        if "decoder.blocks.0.attn.scale" in shapes:
            fields["decoder_num_attention_heads"] = shapes["decoder.blocks.0.attn.scale"][0]
    return fields


def _remote_fields(checkpoint: Checkpoint, shown: dict[str, Any]) -> dict[str, Any]:
    """Fields from the `config.json` of a remote-code repository. ValueError if it contradicts the shapes."""
    remote = checkpoint.config.get("model_config")
    if not isinstance(remote, dict):
        return {}
    for ours, theirs in REMOTE_CHECKED_FIELDS.items():
        if theirs in remote and remote[theirs] != shown[ours]:
            raise ValueError(
                f"config.json has {theirs}={remote[theirs]!r}, but the weights beside it have {shown[ours]!r}."
            )
    return {ours: remote[theirs] for theirs, ours in REMOTE_FIELDS.items() if theirs in remote}


def _merge_fields(
    shown: dict[str, Any],
    given: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    checkpoint: Checkpoint,
    *,
    decoder: bool,
) -> dict[str, Any]:
    """All fields of the configuration. ValueError if they disagree or a number of heads is unknown."""
    fields = agreed(shown, given, checkpoint)
    scaled = in_any_block(shapes, "blocks.", "gamma_1")
    if scaled != (fields.get("layer_scale_init_value", 0.1 if scaled else 0.0) > 0):
        raise ValueError(
            f"`layer_scale_init_value` is {fields['layer_scale_init_value']}, but {checkpoint.name} has "
            + ("layer scales (`gamma_1`)." if scaled else "no layer scales.")
        )
    if scaled:
        fields.setdefault("layer_scale_init_value", 0.1)  # the initial value is not in the file
    fill_heads(fields, "hidden_size", "num_attention_heads", ENCODER_HEADS, checkpoint)
    if decoder:
        fill_heads(fields, "decoder_hidden_size", "decoder_num_attention_heads", DECODER_HEADS, checkpoint)
    return fields


def _class_names(
    shapes: dict[str, tuple[int, ...]],
    task: str,
    labels: str | Sequence[str] | None,
    given: dict[str, Any],
    checkpoint: Checkpoint,
    *,
    known_order: bool,
) -> tuple[list[int] | None, list[str] | None]:
    """
    Rows of the head to use (`None` for all) and class names (`None` to keep those of the caller). `known_order`:
    whether the head has the official order of classes.
    """
    refuse_labels(labels, task, ["video-classification"])
    if task != "video-classification":
        return None, None
    if isinstance(labels, str) and labels.endswith("-mmaction2"):
        raise ValueError(f"`labels` {labels!r} is an order of MMAction2's ports of UniFormerV2, not of VideoMAE V2.")
    names = class_names(labels)
    if "head.weight" not in shapes:
        return None, names
    size = shapes["head.weight"][0]
    if names is None:
        fitting = [name for name, count in LABEL_COUNTS.items() if count == size and known_order]
        return None, default_names(size, given, checkpoint, fitting, certain=size == LABEL_COUNTS["k710"])
    if isinstance(labels, str) and not known_order and (labels != "k400" or size != LABEL_COUNTS["k400"]):
        raise ValueError(f"`labels` {labels!r} has another order than MMAction2's; pass the names as a list.")
    if size == LABEL_COUNTS["k710"] and isinstance(labels, str) and labels != "k710":
        return kinetics_710_rows(labels), names
    if size != len(names):
        wanted = f"{labels!r} has {len(names)}" if isinstance(labels, str) else f"{len(names)} are given"
        raise ValueError(
            f"`labels` does not fit: the head of {checkpoint.name} has {size} classes, but {wanted}. A 710-class head "
            "(Kinetics-710) can be reduced to 'k400', 'k600' or 'k700'."
        )
    return None, names


def _map_names(
    plan: Conversion,
    sources: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
    layout: str,
    task: str,
    rows: list[int] | None,
) -> None:
    """Fill in the plan: pieces, dropped tensors and new parameters."""
    base = "" if task == "feature-extraction" else "videomae_v2."
    for name, source in sources.items():
        reason = _dropping_reason(name, layout, task, plan.config)
        if reason is not None:
            plan.dropped[source] = reason
            continue
        block = BLOCK.fullmatch(name)
        if block is not None:
            stem = f"{'decoder' if block[1] else base + 'encoder'}.layers.{block[2]}."
            _add_block_tensor(plan, source, stem, block[3], shapes[name])
        elif name in ENCODER_NAMES:
            plan.pieces[base + ENCODER_NAMES[name]] = Piece(source)
        elif name in (heads := _head_names(task)):
            chosen = None if rows is None or name not in HEAD_NAMES else select_rows(rows)
            plan.pieces[heads[name]] = Piece(source, chosen)
        elif name in DECODER_NAMES:
            plan.pieces[DECODER_NAMES[name]] = Piece(source)
    if task == "video-classification" and layout != "fine-tuned":
        fresh = [*HEAD_NAMES.values()]
        if layout == "pretraining" and plan.config.use_mean_pooling:
            fresh += [f"{base}fc_norm.weight", f"{base}fc_norm.bias"]
        plan.fresh = dict.fromkeys(fresh, "the checkpoint has no classifier; train before use")


def _dropping_reason(name: str, layout: str, task: str, config: VideoMAEV2Config) -> str | None:
    """Reason to drop a tensor, or `None`."""
    if task == "feature-extraction" and name.startswith("head."):
        return "features need no classifier"
    if layout == "pretraining" and task != "pretraining":
        if name in DECODER_NAMES or name.startswith("decoder.blocks."):
            return "the decoder is only used in pretraining"
        if name.startswith("norm.") and config.use_mean_pooling:
            return "official fine-tuning replaces the token norm by a new fc_norm"
    return None


def _add_block_tensor(plan: Conversion, source: str, stem: str, name: str, shape: tuple[int, ...]) -> None:
    """Add a tensor of a block. An unknown name gets no piece, which the plan's check reports."""
    if name == "attn.qkv.weight":
        third = shape[0] // 3
        for index, letter in enumerate("qkv"):  # rows in this order, heads one after the other within each
            select = select_slice(index * third, shape[0] if letter == "v" else (index + 1) * third)
            plan.pieces[f"{stem}attention.{letter}_proj.weight"] = Piece(source, select)
    elif name in BLOCK_NAMES:
        plan.pieces[stem + BLOCK_NAMES[name]] = Piece(source)


def _make_processor(config: VideoMAEV2Config, published: str | None) -> VideoMAEV2VideoProcessor:
    """Processor with the protocol of the published checkpoint, or with one centred view."""
    height, width = frame_size(config.image_size)
    fields: dict[str, Any] = {
        "num_frames": config.num_frames,
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
        "image_mean": list(config.image_mean or ()),
        "image_std": list(config.image_std or ()),
    }
    if published is not None:
        protocol = published_processor_kwargs(published)
        of_detector = published_entry(published).task == detectors.TASK  # of which features take the pixels alone
        fields |= {
            name: protocol[name] for name in protocol if (name in PIXEL_FIELDS if of_detector else name not in fields)
        }
    return VideoMAEV2VideoProcessor(**fields)
