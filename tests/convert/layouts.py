"""Checkpoints in the official layouts, made of our own models: the converter's way, backwards."""

import torch

from hf_videovit import VideoMAEV2Config


TINY = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "patch_size": 4, "image_size": 8}
TINY |= {"num_frames": 4, "num_attention_heads": 3, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
TINY |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 20}
# What shapes do not show.
UNSHOWN = {"num_attention_heads": 3, "image_size": 8, "num_frames": 4}
UNSHOWN_PRETRAINING = {**UNSHOWN, "decoder_num_attention_heads": 2}
RENAMED = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layers.", "blocks."),
    ("decoder.layers.", "decoder.blocks."),
    ("attention.q_proj.bias", "attn.q_bias"),
    ("attention.v_proj.bias", "attn.v_bias"),
    ("attention.o_proj", "attn.proj"),
    ("attention.scale", "attn.scale"),
    ("layer_scale1.gamma", "gamma_1"),
    ("layer_scale2.gamma", "gamma_2"),
    ("layernorm.", "norm."),
    ("classifier.", "head."),
)


def tiny_model(model_class, seed=0, **fields):
    """A tiny model in which every parameter is random."""
    torch.manual_seed(seed)
    model = model_class(VideoMAEV2Config(**{**TINY, **fields})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def official_layout(model) -> dict[str, torch.Tensor]:
    """The official state dict of a model of ours, written down independently of the converter."""
    encoder = "encoder." if type(model).__name__.endswith("PreTraining") else ""
    state, official = model.state_dict(), {}
    for name, tensor in state.items():
        inside = name.removeprefix("videomae_v2.")
        prefix = encoder if inside.startswith(("embeddings.", "encoder.layers.", "layernorm.")) else ""
        if inside.endswith(("k_proj.weight", "v_proj.weight")):
            continue
        if inside.endswith("q_proj.weight"):
            thirds = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            inside, tensor = inside.replace("attention.q_proj.weight", "attn.qkv.weight"), torch.cat(thirds)
        for ours, theirs in RENAMED:
            inside = inside.replace(ours, theirs, 1)
        official[prefix + inside] = tensor.clone()
    return official


def same_weights(one, other) -> bool:
    """Equal parameters and equal buffers, those that are not saved included."""
    pairs = ((dict(one.named_parameters()), dict(other.named_parameters())),)
    pairs += ((dict(one.named_buffers()), dict(other.named_buffers())),)
    return all(
        first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        for first, second in pairs
    )
