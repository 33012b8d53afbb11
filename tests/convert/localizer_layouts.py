"""Official state dicts of localisers of ours, written down independently of the converter."""

import re

import torch

from tests.convert.layouts import official_layout
from tests.parity.temporal_localization import official_name


TRIDET = (
    (".ln1.", ".ln."),
    (".ln2.", ".gn."),
    (".mlp.3.", ".mlp.2."),
    (".drop_path_attn.", ".drop_path_out."),
    (".convs.gate.", ".psi."),
    (".convs.channel.", ".fc."),
    (".convs.short.", ".convw."),
    (".convs.long.", ".convkw."),
    (".convs.mean.", ".global_fc."),
)
BOUNDARIES = (
    (r"boundary_heads\.(\w+)\.tower\.convs\.(\d)\.", r"\1_head.head.\2.conv."),
    (r"boundary_heads\.(\w+)\.tower\.norms\.", r"\1_head.norm."),
    (r"boundary_heads\.(\w+)\.classifier\.", r"\1_head.cls_head.conv."),
)
OPENTAD = (
    (r"backbone\.embd\.(\d)\.conv\.", r"projection.embed.\1.conv."),
    (r"backbone\.embd_norm\.(\d)\.", r"projection.embed.\1.norm."),
    (r"backbone\.", "projection."),
    (r"(cls|reg)_head\.head\.(\d)\.", r"rpn_head.\1_convs.\2."),
    (r"(cls|reg)_head\.norm\.(\d)\.", r"rpn_head.\1_convs.\2.norm."),
    (r"cls_head\.cls_head\.conv\.", "rpn_head.cls_head."),
    (r"reg_head\.offset_head\.conv\.", "rpn_head.reg_head."),
    (r"reg_head\.scale\.", "rpn_head.scale."),
    (r"loss_normalizer", "rpn_head.loss_normalizer"),
)
MMACTION2 = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("mlp.fc1.", "mlp.layers.0.0."),
    ("mlp.fc2.", "mlp.layers.1."),
    (".time_conv.", ".dwconv."),
    (".channel_conv.", ".conv."),
)


def localizer_layout(model) -> dict[str, torch.Tensor]:
    """Of an ActionFormer: in the authors' layout, TriDet's or OpenTAD's, by its configuration."""
    rename, state = official_name(model), {}
    for ours, tensor in model.state_dict().items():
        name = rename(ours)
        if model.config.block_type == "sgp":
            for old, new in TRIDET:
                name = name.replace(old, new)
            for old, new in BOUNDARIES:
                name = re.sub(old, new, name)
        if re.search(r"(query|key|value|proj|fc\d|mlp\.\d)\.weight$", name) and tensor.ndim == 2:
            tensor = tensor[:, :, None]
        if "proj." in name and tensor.ndim == 2:
            tensor = tensor[:, :, None]
        if model.config.padding_mode == "opentad":
            if name.endswith(".scale") and tensor.ndim:
                tensor = tensor[None, :, None]
            name = next((re.sub(old, new, name) for old, new in OPENTAD if re.match(old, name)), name)
        elif name == "loss_normalizer":
            continue
        elif re.search(r"(norm|_norm|ln\d?|norms?\.\d)\.(weight|bias)$|(mlp|attn|out)\.scale$", name):
            tensor = tensor[None, :, None]
        state[f"module.{name}"] = tensor
    return state


def adatad_layout(model) -> dict[str, torch.Tensor]:
    """Of an encoder of VideoMAE V2 with adapters and a localiser on its features: OpenTAD's."""
    state = {}
    for name, tensor in official_layout(model.encoder).items():
        for ours, theirs in MMACTION2:
            name = name.replace(ours, theirs)
        state[f"module.backbone.model.backbone.{name}"] = tensor
    return state | localizer_layout(model.localizer)
