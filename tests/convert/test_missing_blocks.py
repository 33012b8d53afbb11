"""Files without their last blocks, settings that no shape shows, and weights that are no numbers."""

import logging

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.video.swin_transformer import SwinTransformer3d
from transformers import TimesformerConfig, TimesformerForVideoClassification

from hf_videovit import (
    LstclConfig,
    LstclForPreTraining,
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerForPoseEstimation,
    UniFormerForVideoClassification,
    UniFormerV2Config,
    UniFormerV2ForVideoClassification,
    VideoMAEV2Config,
    VideoMAEV2ForPreTraining,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2Model,
    convert_checkpoint,
)
from hf_videovit.convert import convert_to_folder, plan_conversion
from hf_videovit.published import list_published, published_config, published_entry
from tests.convert.layouts import UNSHOWN, official_layout, tiny_model
from tests.convert.test_detectors import mmaction2
from tests.parity import uniformer, uniformer_v2
from tests.parity.lstcl import MOCO_NAMES, official


pytestmark = pytest.mark.slow  # models of published sizes, though without memory

CLASSIFICATION, PRETRAINING, FEATURES = "video-classification", "pretraining", "feature-extraction"
SWIN_T = {"patch_size": [2, 4, 4], "embed_dim": 96, "num_heads": [3, 6, 12, 24], "window_size": [8, 7, 7]}
VIT_B = {"embed_dim": 768, "num_heads": 12}


def without_memory(make, *arguments, **fields) -> torch.nn.Module:
    with torch.device("meta"):
        return make(*arguments, **fields)


def skeleton(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names and shapes of a published size, without memory."""
    return {name: torch.zeros((), dtype=one.dtype).expand(one.shape) for name, one in state.items()}


def videomae(size: str, model_class=VideoMAEV2ForVideoClassification, **fields):
    return skeleton(official_layout(without_memory(model_class, VideoMAEV2Config.from_size(size, **fields))))


def uniformer_of(size: str, model_class=UniFormerForVideoClassification, **fields):
    model = without_memory(model_class, UniFormerConfig.from_size(size, **fields))
    return skeleton(uniformer.official_layout(model.state_dict()))


def pose_estimator():
    renamed = (("head.layers.", "deconv_layers."), ("head.projection.", "final_layer."))
    state = uniformer_of("small", UniFormerForPoseEstimation, modality="image", num_labels=17)
    for ours, theirs in renamed:
        state = {name.replace(ours, f"keypoint_head.{theirs}"): one for name, one in state.items()}
    return {name.replace("norm.", "norm4.") if name.startswith("norm.") else name: one for name, one in state.items()}


def uniformer_v2_of(size: str, **fields):
    model = without_memory(UniFormerV2ForVideoClassification, UniFormerV2Config.from_size(size, **fields))
    return skeleton(uniformer_v2.official_layout(model.state_dict()))


def swin(depths: list[int]):
    return skeleton(without_memory(SwinTransformer3d, depths=depths, num_classes=400, **SWIN_T).state_dict())


def image_vit(**fields):
    # not on the meta device: older releases of timm read values while they build it
    return skeleton(VisionTransformer(num_classes=9, **{**VIT_B, **fields}).state_dict())


def moco(**fields):
    model = without_memory(LstclForPreTraining, LstclConfig.from_size("timesformer", framework="moco_v3", **fields))
    return skeleton({f"module.{official(name, MOCO_NAMES)}": one for name, one in model.state_dict().items()})


def lacking(state: dict[str, torch.Tensor], *starts: str) -> dict[str, torch.Tensor]:
    kept = {name: one for name, one in state.items() if not name.startswith(starts)}
    assert len(kept) < len(state)
    return kept


# Family, task, a file without its last block, the field that then has another depth, further fields.
CUT = {
    "VideoMAE V2": (
        "videomae_v2",
        CLASSIFICATION,
        lambda: lacking(videomae("base"), "blocks.11."),
        "num_hidden_layers",
        {},
    ),
    "VideoMAE V2, giant": (
        *("videomae_v2", CLASSIFICATION, lambda: lacking(videomae("giant"), "blocks.38.", "blocks.39.")),
        *("num_hidden_layers", {}),
    ),
    "VideoMAE V2, features": (
        "videomae_v2",
        FEATURES,
        lambda: lacking(videomae("small"), "blocks.11."),
        "num_hidden_layers",
        {},
    ),
    "VideoMAE V2, decoder": (
        *(
            "videomae_v2",
            PRETRAINING,
            lambda: lacking(videomae("base", VideoMAEV2ForPreTraining), "decoder.blocks.3."),
        ),
        *("decoder_num_hidden_layers", {}),
    ),
    "UniFormer": (
        "uniformer",
        CLASSIFICATION,
        lambda: lacking(uniformer_of("base"), "blocks3.19."),
        "depths",
        {"head_dim": 64},
    ),
    "UniFormer, light": (
        "uniformer",
        CLASSIFICATION,
        lambda: lacking(uniformer_of("xxs"), "blocks4.1."),
        "depths",
        {"head_dim": 28},
    ),
    "UniFormer, image": (
        *("uniformer", "image-classification"),
        lambda: lacking(uniformer_of("small", UniFormerForImageClassification, modality="image"), "blocks2.3."),
        *("depths", {"head_dim": 64}),
    ),
    "UniFormer, poses": (
        *("uniformer", "keypoint-detection"),
        lambda: lacking(pose_estimator(), *(f"keypoint_head.deconv_layers.{layer}." for layer in (6, 7))),
        *("pose_hidden_sizes", {"head_dim": 64}),
    ),
    "UniFormerV2": (
        "uniformer_v2",
        CLASSIFICATION,
        lambda: lacking(uniformer_v2_of("base"), "backbone.transformer.resblocks.11."),
        "num_hidden_layers",
        {},
    ),
    "UniFormerV2, global": (
        *("uniformer_v2", CLASSIFICATION),
        lambda: lacking(
            uniformer_v2_of("base-motion"), *(f"backbone.transformer.{name}.7." for name in ("dec", "dpe"))
        ),
        *("global_layers", {}),
    ),
    "BEVT": ("bevt", CLASSIFICATION, lambda: swin([2, 2, 5, 2]), "depths", {}),
    "BEVT, a stage": (
        *("bevt", FEATURES, lambda: lacking(swin([2, 2, 6, 2]), "features.5.", "features.6.", "norm.", "head.")),
        *("depths", {}),
    ),
    "LSTCL": ("lstcl", FEATURES, lambda: lacking(image_vit(), "blocks.11."), "num_hidden_layers", {"num_frames": 8}),
    "LSTCL, projector": ("lstcl", PRETRAINING, lambda: moco(num_projection_layers=2), "num_projection_layers", {}),
    "TubeViT": (
        "tubevit",
        FEATURES,
        lambda: lacking(image_vit(embed_dim=384, num_heads=6), "blocks.11."),
        "num_hidden_layers",
        {},
    ),
}


@pytest.fixture
def warnings(caplog):
    logging.getLogger("transformers").propagate = True
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("case", CUT)
def test_a_file_without_its_last_block_is_warned_of(case, warnings, caplog):
    model_type, task, make, field, fields = CUT[case]
    state = make()
    plan = plan_conversion(model_type, state, task=task, **fields)
    warned = [one for one in warnings() if "Its last blocks may be missing" in one]
    assert len(warned) == 1 and f"has `{field}`" in warned[0] and f"pass `{field}`" in warned[0]
    caplog.clear()
    confirmed = {field: getattr(plan.config, field)}
    plan_conversion(model_type, state, task=task, **fields, **confirmed)
    assert not any("may be missing" in one for one in warnings())


@pytest.mark.parametrize(
    ("model_type", "task", "make", "fields"),
    [
        *[
            ("videomae_v2", CLASSIFICATION, lambda size=size: videomae(size), {})
            for size in ("small", "huge", "giant")
        ],
        ("videomae_v2", PRETRAINING, lambda: videomae("giant", VideoMAEV2ForPreTraining), {}),
        *[
            ("uniformer", CLASSIFICATION, lambda size=size: uniformer_of(size), {"head_dim": 32})
            for size in ("small", "xs")
        ],
        *[
            ("uniformer_v2", CLASSIFICATION, lambda size=size: uniformer_v2_of(size), {})
            for size in ("base", "large-motion")
        ],
        ("bevt", CLASSIFICATION, lambda: swin([2, 2, 6, 2]), {}),
        ("bevt", CLASSIFICATION, lambda: swin([2, 2, 18, 2]), {}),
        ("lstcl", FEATURES, lambda: image_vit(embed_dim=1024, num_heads=16, depth=24), {"num_frames": 8}),
        ("lstcl", PRETRAINING, moco, {}),
        ("tubevit", FEATURES, image_vit, {}),
        ("tubevit", FEATURES, lambda: image_vit(embed_dim=48, depth=5), {"num_attention_heads": 4}),
    ],
)
def test_whole_files_are_not_warned_of(model_type, task, make, fields, warnings):
    plan_conversion(model_type, make(), task=task, **fields).check()
    assert not any("may be missing" in one for one in warnings())


@pytest.mark.parametrize(
    ("model_type", "published", "make"),
    [
        (
            "videomae_v2",
            "videomae-v2-base-k710-distilled",
            lambda: lacking(videomae("base", num_labels=710), "blocks.11."),
        ),
        (
            *("videomae_v2", "videomae-v2-giant-pretrained"),
            lambda: lacking(videomae("giant", VideoMAEV2ForPreTraining), "decoder.blocks.3."),
        ),
        (
            "uniformer",
            "uniformer-base-k400-16x4",
            lambda: lacking(uniformer_of("base", num_labels=400), "blocks3.19."),
        ),
        (
            *("uniformer_v2", "uniformer-v2-base-ssv2-16f"),
            lambda: lacking(
                uniformer_v2_of("base-motion", num_labels=174),
                *(f"backbone.transformer.{name}.7." for name in ("dec", "dpe")),
            ),
        ),
        (
            "uniformer_v2",
            "uniformer-v2-base-k400-8f",
            lambda: lacking(uniformer_v2_of("base"), "backbone.transformer.resblocks.11."),
        ),
        ("bevt", "video-swin-tiny-k400", lambda: swin([2, 2, 5, 2])),
        ("lstcl", "timesformer-base-k400", lambda: lacking(image_vit(), "blocks.11.")),
    ],
)
def test_a_published_checkpoint_has_all_its_blocks(model_type, published, make):
    task = PRETRAINING if "pretrained" in published else CLASSIFICATION
    with pytest.raises(ValueError, match=r"`(decoder_)?(num_hidden_layers|depths|global_layers)` "):
        plan_conversion(model_type, make(), task=task, published=published)


def test_the_configuration_beside_the_weights_has_their_depth(tmp_path):
    config = TimesformerConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32
    )
    theirs = TimesformerForVideoClassification(config)
    theirs.save_pretrained(tmp_path)
    options = {"task": CLASSIFICATION, "num_attention_heads": 4}
    assert plan_conversion("lstcl", tmp_path, **options).config.num_hidden_layers == 2
    save_file(lacking(theirs.state_dict(), "timesformer.encoder.layer.1."), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"config\.json has num_hidden_layers=2, but the weights beside it have 1"):
        plan_conversion("lstcl", tmp_path, **options)


@pytest.mark.parametrize("name", list_published("videomae_v2"))
def test_a_complete_file_converts_under_its_published_name(name, warnings):
    entry, config = published_entry(name), published_config(name)
    model_class = {PRETRAINING: VideoMAEV2ForPreTraining, FEATURES: VideoMAEV2Model}.get(entry.task)
    if not config.use_mean_pooling:  # an action detector comes with its head
        model_class = VideoMAEV2ForVideoClassification
    model = without_memory(model_class or VideoMAEV2ForVideoClassification, config)
    layout = mmaction2 if entry.file.wrapper == "state_dict" else official_layout
    plan = plan_conversion("videomae_v2", skeleton(layout(model)), task=entry.task, published=name)
    plan.check()
    assert plan.config.to_dict() == config.to_dict()
    assert not any("may be missing" in one for one in warnings())


# Settings that no shape shows


@pytest.mark.parametrize(
    ("model_type", "make", "told", "words"),
    [
        (
            "uniformer_v2",
            lambda: uniformer_v2_of("base-motion", num_labels=174),
            "uniformer-v2-base-ssv2-16f",
            ["drop_path_rate 0.0 (0.2 there)", "global_drop_path_rate 0.0 (0.4 there)"],
        ),
        (
            "uniformer_v2",
            lambda: uniformer_v2_of("large-untrimmed", num_labels=200),
            "uniformer-v2-large-activitynet-16f",
            ["num_frames 8 (16 or 32 there)"],
        ),
        (
            "uniformer",
            lambda: uniformer_of("base", num_labels=400),
            "uniformer-base-k400-32x4",
            ["num_frames 16 (8 or 32 there)"],
        ),
    ],
    ids=["SSv2", "ActivityNet", "UniFormer"],
)
def test_settings_of_published_checkpoints_are_named(model_type, make, told, words, warnings, caplog):
    state = make()
    plan_conversion(model_type, state, task=CLASSIFICATION)
    (warned,) = [one for one in warnings() if "Shapes do not show" in one]
    assert all(word in warned for word in words) and told in warned and "Pass `published`" in warned
    caplog.clear()
    plan_conversion(model_type, state, task=CLASSIFICATION, published=told)
    assert not any("Shapes do not show" in one for one in warnings())


def test_settings_that_the_caller_passes_are_not_named(warnings):
    state = uniformer_v2_of("base-motion", num_labels=174)
    plan = plan_conversion(
        "uniformer_v2", state, task=CLASSIFICATION, drop_path_rate=0.2, global_drop_path_rate=0.4, num_frames=16
    )
    assert plan.config.drop_path_rate == 0.2
    assert not any("Shapes do not show" in one for one in warnings())


def test_layer_scales_are_shown_by_shapes(warnings):
    """Of three published ImageNet models of size B one has them, and the others are not what the file is."""
    state = uniformer_of("base", UniFormerForImageClassification, modality="image", num_labels=1000)
    plan_conversion("uniformer", state, task="image-classification", head_dim=64)
    assert not any("layer_scale_init_value" in one for one in warnings())


def test_a_model_of_no_published_shape_is_not_compared(warnings):
    plan_conversion(
        "videomae_v2", official_layout(tiny_model(VideoMAEV2ForVideoClassification)), task=CLASSIFICATION, **UNSHOWN
    )
    assert not warnings()


# Weights that are no numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["blocks.1.attn.qkv.weight", "head.bias", "patch_embed.proj.weight", "blocks.0.attn.v_bias"]
)
def test_weights_that_are_no_numbers_are_named(name, value, tmp_path):
    state = official_layout(tiny_model(VideoMAEV2ForVideoClassification, num_labels=5))
    state[name].view(-1)[-1] = value
    torch.save({"module": {f"module.{key}": one for key, one in state.items()}}, tmp_path / "x.pth")
    words = rf"x\.pth: module\.{name} has 1 of [\d,]+ values that are NaN or infinite"
    with pytest.raises(ValueError, match=words):
        convert_checkpoint("videomae_v2", tmp_path / "x.pth", task=CLASSIFICATION, **UNSHOWN)
    with pytest.raises(ValueError, match=words):
        convert_to_folder(
            "videomae_v2", tmp_path / "x.pth", tmp_path / "out", task=CLASSIFICATION, dtype=None, **UNSHOWN
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_tensors_that_are_not_used_may_be_anything():
    state = official_layout(tiny_model(VideoMAEV2ForPreTraining))
    state["decoder.head.bias"].fill_(float("nan"))
    convert_checkpoint("videomae_v2", state, task=FEATURES, **UNSHOWN)


def test_a_type_that_cannot_hold_the_weights():
    state = official_layout(tiny_model(VideoMAEV2ForVideoClassification, num_labels=5))
    state["head.bias"][0] = 1e5
    with pytest.raises(
        ValueError, match=r"head\.bias has values up to 1e\+05, which `dtype` torch\.float16 cannot hold"
    ):
        convert_checkpoint("videomae_v2", state, task=CLASSIFICATION, dtype="float16", **UNSHOWN)
    convert_checkpoint("videomae_v2", state, task=CLASSIFICATION, dtype="bfloat16", **UNSHOWN)
