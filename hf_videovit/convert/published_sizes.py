"""Comparison of a planned conversion with the published models: missing blocks, and fields that no shape shows."""

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.configuration_actionformer import ACTIONFORMER_SIZES
from ..modeling.configuration_bevt import BEVT_SIZES
from ..modeling.configuration_lstcl import LSTCL_SIZES
from ..modeling.configuration_tubevit import TUBEVIT_SIZES
from ..modeling.configuration_uniformer import UNIFORMER_SIZES
from ..modeling.configuration_uniformer_v2 import UNIFORMER_V2_SIZES
from ..modeling.configuration_videomae_v2 import VIDEOMAE_V2_SIZES
from ..published import OBJECTS, SEMANTICS, list_published, published_config, published_entry
from .keys import shorten
from .plan import Conversion


logger = logging.get_logger(__name__)

SIZES: dict[str, dict[str, Any]] = {
    "actionformer": ACTIONFORMER_SIZES,
    "bevt": BEVT_SIZES,
    "lstcl": LSTCL_SIZES,
    "tubevit": TUBEVIT_SIZES,
    "uniformer": UNIFORMER_SIZES,
    "uniformer_v2": UNIFORMER_V2_SIZES,
    "videomae_v2": VIDEOMAE_V2_SIZES,
}
# Image ViTs, from which two of the families start, by width.
IMAGE_VIT_DEPTHS = {192: 12, 384: 12, 768: 12, 1024: 24, 1280: 32}
FROM_IMAGE_VITS = ("lstcl", "tubevit")
# Field with the number of blocks or layers of a stack, and the field with its width.
STACKS = {
    "num_hidden_layers": "hidden_size",
    "depths": "hidden_sizes",
    "global_layers": "hidden_size",
    "decoder_num_hidden_layers": "decoder_hidden_size",
    "num_projection_layers": "projection_hidden_size",
    "num_prediction_layers": "prediction_hidden_size",
    "pose_hidden_sizes": "pose_hidden_sizes",
}
# Stacks that only the models of one task have.
TASKS = {
    **dict.fromkeys(("decoder_num_hidden_layers", "num_projection_layers", "num_prediction_layers"), "pretraining"),
    "pose_hidden_sizes": "keypoint-detection",
}
DENSE = ("backbone", OBJECTS, SEMANTICS)
CONTRASTIVE_HEADS = {"num_projection_layers": "projector.", "num_prediction_layers": "predictor."}
# Fields that shapes show. Published checkpoints that agree in them can be what a file is.
SHOWN = (
    *("hidden_size", "num_hidden_layers", "intermediate_size", "patch_size", "tubelet_size", "num_channels"),
    *("hidden_sizes", "depths", "intermediate_sizes", "modality", "stem", "use_token_pruning", "qkv_bias"),
    *("num_local_modules", "use_gate", "temporal_downsample", "global_layers", "position_grid"),
    *("layer_scale_in_conv_blocks", "use_mean_pooling", "use_cosine_attention"),
)
SHOWN_BY_FAMILY = {
    "actionformer": (
        *("feature_size", "num_stem_layers", "num_branch_layers", "head_hidden_size", "head_kernel_size"),
        *("block_type", "num_bins", "padding_mode"),
    ),
    "lstcl": ("attention_type",),
}
# Fields that are no setting of the model: bookkeeping, names of classes, and settings of single tasks. The head of a
# detector follows from the layout of its file.
UNCOMPARED = (
    *("id2label", "label2id", "num_labels", "model_type", "transformers_version", "architectures", "dtype"),
    *("out_features", "out_indices", "stage_names", "use_auxiliary_head", "pose_hidden_sizes", "detection_config"),
)


def check_depths(plan: Conversion, given: set[str], task: str) -> None:
    """
    Warn of a file that may lack its last blocks: the depth of a model is read off its names, so such a file looks
    like a smaller model.

    Args:
        plan ([`~convert.plan.Conversion`]):
            The planned conversion.
        given (`set[str]`):
            Fields of the configuration that the caller passed, and so confirmed.
        task (`str`):
            Task of the new model.

    Raises:
        ValueError: `config.json` beside the weights has another depth than the weights.
    """
    config, beside = plan.config.to_dict(), plan.checkpoint.config
    for field, width in STACKS.items():
        if field not in config or width not in config or config[field] is None or field in given:
            continue
        if field in beside and beside[field] != config[field]:
            raise ValueError(
                f"config.json has {field}={beside[field]!r}, but the weights beside it have {config[field]!r}: blocks "
                "are missing, or it belongs to other weights."
            )
        head = CONTRASTIVE_HEADS.get(field)
        if TASKS.get(field, task) != task or head and any(name.startswith(head) for name in plan.fresh):
            continue
        depth, depths = _depth(field, config[field]), list(_published_depths(plan.config, field, width))
        if depths and depth not in depths:
            known = " or ".join(dict.fromkeys(map(str, depths)))
            logger.warning(
                f"{plan.checkpoint.name} has `{field}` {depth} with `{width}` {config[width]}, but published "
                f"models of that width have {known}. Its last blocks may be missing. If it is complete, pass "
                f"`{field}` to confirm it."
            )


def _published_depths(config: PreTrainedConfig, field: str, width: str) -> Iterator[Any]:
    """Depths of the published models that have the width of a configuration."""
    own = getattr(config, width)
    if config.model_type in FROM_IMAGE_VITS and field == "num_hidden_layers":
        if own in IMAGE_VIT_DEPTHS:
            yield IMAGE_VIT_DEPTHS[own]
        return
    method = {"framework": config.framework} if field in CONTRASTIVE_HEADS else {}
    defaults = type(config)(**method).to_dict()
    for size in SIZES[config.model_type].values():
        published = defaults | size
        theirs = published[width]
        # a file without its last stage has the first widths of a complete one
        if theirs == own or isinstance(own, list | tuple) and theirs and list(theirs)[: len(own)] == list(own):
            yield _depth(field, published[field])


def _depth(field: str, value: Any) -> Any:
    """Depth of a stack; `global_layers` names the blocks."""
    return len(value) if field == "global_layers" else value


def report_unshown_fields(plan: Conversion, given: set[str], task: str) -> None:
    """
    Warn of fields, such as the stochastic depth, that have their default because no tensor shape shows them, and that
    published checkpoints of the same shapes have otherwise.

    Args:
        plan ([`~convert.plan.Conversion`]):
            The planned conversion.
        given (`set[str]`):
            Fields of the configuration that the caller passed.
        task (`str`):
            Task of the new model.
    """
    config = getattr(plan.config, "backbone_config", None) or plan.config
    own = config.to_dict() | {"id2label": plan.config.id2label}
    uncompared = (*UNCOMPARED, "image_size") if task in DENSE else UNCOMPARED  # these models take images of any size
    names: list[str] = []
    values: dict[str, list[Any]] = {}
    for name in list_published():
        if published_entry(name).model_type != config.model_type:
            continue
        theirs = _published_fields(name, own, given, task)
        if theirs is None:
            continue
        names.append(name)
        for field, value in theirs.items():
            if field not in (*uncompared, *given) and value != own.get(field):
                values.setdefault(field, []).append(value)
    if values:
        words = "; ".join(
            f"{field} {own.get(field)!r} ({' or '.join(dict.fromkeys(map(repr, found)))} there)"
            for field, found in sorted(values.items())
        )
        logger.warning(
            f"{plan.checkpoint.name} has the shapes of {shorten(names)}. Shapes do not show {words}. Pass `published` "
            "with the checkpoint's name for its values and its protocol, or pass the fields."
        )


def _published_fields(name: str, own: dict[str, Any], given: set[str], task: str) -> dict[str, Any] | None:
    """Configuration of a published checkpoint that a file may be, else `None`."""
    entry = published_entry(name)
    parts = {"feature-extraction": ("video-classification",), "backbone": DENSE}
    if entry.task != task and entry.task not in parts.get(task, ()):
        return None
    if task == entry.task and entry.num_labels not in (None, len(own["id2label"])):
        return None
    compared = {*SHOWN, *SHOWN_BY_FAMILY.get(entry.model_type, ()), *given} - set(UNCOMPARED)
    size = SIZES[entry.model_type][entry.size] | entry.config.get("backbone_config", entry.config)
    if any(own.get(field) != size[field] for field in compared & set(size)):  # quicker than the whole configuration
        return None
    whole = published_config(name)
    theirs = (getattr(whole, "backbone_config", None) or whole).to_dict()
    scaled = [bool(fields.get("layer_scale_init_value")) for fields in (own, theirs)]  # which shapes do show
    return theirs if scaled[0] == scaled[1] and all(theirs.get(one) == own.get(one) for one in compared) else None
