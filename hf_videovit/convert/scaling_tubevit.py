"""
A large TubeViT from a trained small one and a large image ViT (paper, section 3.6). The widened tubes of the small
model are placed before the large ViT without new weights. A gate adds the input of the large ViT again at a later
block.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..modeling.configuration_tubevit import Triple, Tube, TubeViTConfig
from ..modeling.modeling_tubevit import TubeViTForVideoClassification, TubeViTModel, own_kernel, tubes_in
from ..published import label_fields


# Windows to join along frames, height and width, by the factor that a token becomes wider. The paper says only "with
# space-to-depth again"; these factors divide the strides of the main tubes.
WIDENINGS: dict[int, Triple] = {1: (1, 1, 1), 2: (2, 1, 1), 4: (1, 2, 2), 8: (2, 2, 2)}


def scale_up(
    small: PreTrainedModel,
    large: PreTrainedModel,
    *,
    gate_layer: int,
    labels: Sequence[str] | None = None,
    num_labels: int | None = None,
    widening: Sequence[int] | None = None,
    **fields: Any,
) -> TubeViTForVideoClassification:
    """
    Place the tubes of a trained small TubeViT before a large image ViT. To train it as in the paper, freeze the
    embeddings and the first `gate_layer` blocks with the run's `frozen_layers`. Then the later blocks, the gate, the
    pooling and the classifier are trained.

    Args:
        small (`PreTrainedModel`):
            Any TubeViT; its tubes of several frames are used.
        large (`PreTrainedModel`):
            A TubeViT converted from the image ViT by [`~convert.convert_checkpoint`]; its encoder and its tubes of one
            frame are used. Its features of images are unchanged to the last bit, because the gate starts at zero.
        gate_layer (`int`):
            Block, counted from 1, that the gate follows (the paper's example: 26 of 32); 0 for no gate.
        labels (`Sequence[str]`, *optional*):
            Names of the classes.
        num_labels (`int`, *optional*):
            Number of classes without names.
        widening (`Sequence[int]`, *optional*):
            Windows to join along frames, height and width to reach the large width. Defaults to the smallest
            sufficient factor of 1, 2 (along the frames), 4 (in space) and 8 (both).
        fields:
            Further fields of the configuration, such as `classifier_dropout`.

    Returns:
        [`TubeViTForVideoClassification`]: in evaluation mode, with a new classifier and a new pooling.

    Raises:
        ValueError: a model is not a TubeViT, has no usable tubes, or `widening` does not fit.

    Example:

    ```python
    >>> from hf_videovit import TubeViTForJointClassification, convert_checkpoint, scale_up

    >>> small = TubeViTForJointClassification.from_pretrained("tubevit-base-joint")
    >>> large = convert_checkpoint("tubevit", "vit_huge.npz", task="feature-extraction")
    >>> model = scale_up(small, large, gate_layer=26, num_labels=600)
    ```"""
    tubes_of, encoder = (_base_model(name, model) for name, model in (("small", small), ("large", large)))
    config = _scaled_config(tubes_of.config, encoder.config, widening)
    config.update({"gate_layer": gate_layer, **fields})
    if (labels is None) == (num_labels is None):
        raise ValueError(f"Pass either `labels` or `num_labels`, got {labels!r} and {num_labels!r}.")
    config.update({"num_labels": num_labels} if labels is None else label_fields(list(labels)))
    model = TubeViTForVideoClassification(TubeViTConfig(**config)).eval()
    model.load_state_dict({**model.state_dict(), **_scaled_state(tubes_of, encoder)})
    return model


def _base_model(name: str, model: PreTrainedModel) -> TubeViTModel:
    """TubeViT encoder of a model. ValueError if there is none."""
    base = model.base_model
    if not isinstance(base, TubeViTModel):
        raise ValueError(f"`{name}` must be a TubeViT, got {type(model).__name__}.")
    return base


def _scaled_config(small: TubeViTConfig, large: TubeViTConfig, widening: Sequence[int] | None) -> dict[str, Any]:
    """Fields of the large configuration, with the widened tubes of the small one first."""
    if small.num_channels != large.num_channels:
        raise ValueError(f"`num_channels` of `small` and `large` differ: {small.num_channels}, {large.num_channels}.")
    if large.tube_kernels != "independent":
        raise ValueError(f"`tube_kernels` of `large` must be 'independent', got {large.tube_kernels!r}.")
    moving = [tube for tube in small.tube_list if tube.kernel[0] > 1]
    still = [tube for tube in large.tube_list if tube.kernel[0] == 1]
    if not moving or not still:
        raise ValueError("`small` needs a tube of several frames and `large` one of a single frame.")
    factors = widening_factors(small.hidden_size, large.hidden_size, widening)
    tubes = [_widened(tube, small.hidden_size, factors) for tube in moving] + still
    fields = copy.deepcopy(large).to_dict()
    own = ("model_type", "transformers_version", "architectures", "dtype", "id2label", "label2id", "num_labels")
    fields = {name: value for name, value in fields.items() if name not in (*own, "datasets", "problem_type")}
    for name in ("num_frames", "image_size", "position_temperature", "position_frequencies", "position_centre"):
        fields[name] = getattr(small, name)
    return {**fields, "tubes": [tube.to_dict() for tube in tubes]}


def widening_factors(small: int, large: int, widening: Sequence[int] | None) -> Triple:
    """
    Windows to join along each axis so that tokens of width `small` reach `large`.

    Args:
        small (`int`):
            Width of the small model.
        large (`int`):
            Width of the large model.
        widening (`Sequence[int]`):
            Factors that the caller passed.

    Returns:
        `tuple[int, int, int]`: factors along frames, height and width.

    Raises:
        ValueError: `small` is more than eight times narrower, or a given `widening` is not wide enough.
    """
    needed = math.ceil(large / small)
    if widening is not None:
        if len(widening) != 3 or min(widening) < 1 or math.prod(widening) < needed:
            raise ValueError(f"`widening` must be three numbers whose product is at least {needed}, got {widening}.")
        return widening[0], widening[1], widening[2]
    fitting = [factor for factor in WIDENINGS if factor >= needed]
    if not fitting:
        raise ValueError(f"`widening` is needed: {large} is {needed} times {small}, the defaults reach 8 times.")
    return WIDENINGS[fitting[0]]


def _widened(tube: Tube, hidden_size: int, factors: Triple) -> Tube:
    """The tube with more windows per token, each with its former width. The places of the tokens are unchanged."""
    joined = tuple(one * factor for one, factor in zip(tube.space_to_depth, factors))
    return Tube(tube.kernel, tube.stride, tube.offset, joined, tube.window_channels(hidden_size))  # type: ignore[arg-type]


def _scaled_state(small: TubeViTModel, large: TubeViTModel) -> dict[str, torch.Tensor]:
    """Transferred tensors, with the names of the large classifier. Pooling and classifier are new."""
    state = {
        f"tubevit.{name}": tensor
        for name, tensor in large.state_dict().items()
        if not name.startswith(("embeddings.tubes.", "pooler.", "encoder.gate."))
    }
    modules = [(small, module) for module in tubes_in(small) if module.tube.kernel[0] > 1]
    modules += [(large, module) for module in tubes_in(large) if module.tube.kernel[0] == 1]
    for index, (model, module) in enumerate(modules):
        state[f"tubevit.embeddings.tubes.{index}.weight"] = own_kernel(model, module)
        state[f"tubevit.embeddings.tubes.{index}.bias"] = module.bias
    return {name: tensor.detach() for name, tensor in state.items()}


def resize_tubes(
    model: TubeViTForVideoClassification, tubes: str | Sequence[Mapping[str, Any]]
) -> TubeViTForVideoClassification:
    """
    Replace the tubes of a model by others whose kernels are resized from its own, tube by tube. The paper does this
    for Charades ("interpolated"), where trained kernels are continued as longer and larger ones.

    Kernels are resized trilinearly without rescaling. If the windows of a tube have more channels than before, because
    it no longer uses space-to-depth, the channels of one window are repeated.

    Args:
        model ([`TubeViTForVideoClassification`]):
            A trained model. It is not changed.
        tubes (`str` or `Sequence[dict]`):
            Name of a set, such as `"charades"`, or the tubes; as many as the model has.

    Returns:
        [`TubeViTForVideoClassification`]: in evaluation mode.

    Raises:
        ValueError: the number of tubes differs.
    """
    fields = copy.deepcopy(model.config).to_dict() | {"tubes": tubes, "tube_kernels": "independent"}
    config = TubeViTConfig(**{name: one for name, one in fields.items() if name not in ("model_type", "num_labels")})
    old = tubes_in(model.tubevit)
    if len(old) != len(config.tube_list):
        raise ValueError(f"`tubes` must have {len(old)} entries, as the model has, got {len(config.tube_list)}.")
    resized = TubeViTForVideoClassification(config).eval()
    other = ("tubevit.embeddings.tubes.", "tubevit.embeddings.shared_kernel.")
    state = {name: one for name, one in model.state_dict().items() if not name.startswith(other)}
    for index, (module, tube) in enumerate(zip(old, config.tube_list, strict=True)):
        weight = _resized_kernel(own_kernel(model.tubevit, module), tube)
        channels = tube.window_channels(config.hidden_size)
        state[f"tubevit.embeddings.tubes.{index}.weight"] = _repeated(weight, channels)
        state[f"tubevit.embeddings.tubes.{index}.bias"] = _repeated(module.bias, channels)
    resized.load_state_dict(state)
    return resized


def _resized_kernel(weight: torch.Tensor, tube: Tube) -> torch.Tensor:
    """A kernel at another tube's size."""
    if tuple(weight.shape[2:]) == tube.kernel:
        return weight
    return nn.functional.interpolate(weight.float(), size=tube.kernel, mode="trilinear", align_corners=False)


def _repeated(tensor: torch.Tensor, channels: int) -> torch.Tensor:
    """The first axis repeated until it has `channels` entries, or cut to them."""
    times = math.ceil(channels / tensor.shape[0])
    return torch.cat([tensor] * times)[:channels].detach()


__all__ = ["resize_tubes", "scale_up"]
