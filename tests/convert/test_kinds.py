"""Files of other tasks and other families: refused with what they are, never converted to something else."""

import pytest
import torch

from hf_videovit import VideoMAEV2ForPreTraining, VideoMAEV2ForVideoClassification, VideoMAEV2Model, convert_checkpoint
from hf_videovit.convert import CONVERTERS, convert_to_folder, plan_conversion
from hf_videovit.published import list_published, published_entry
from tests.convert.layouts import UNSHOWN, official_layout, same_weights, tiny_model


LOCALIZERS = ("actionformer", "video_temporal_localizer")
OF_VIDEOS = [name for name in CONVERTERS if name not in LOCALIZERS]
CLASSIFICATION, FEATURES = "video-classification", "feature-extraction"
WRAPPERS = {
    "torch": lambda state: {"model": state, "epoch": 7},
    "DeepSpeed": lambda state: {"module": state, "global_steps": 3},
    "MMEngine": lambda state: {"state_dict": state, "meta": {}},
    "distributed": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled": lambda state: {"model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
    "bare": dict,
}
MMACTION2 = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("mlp.fc1.", "mlp.layers.0.0."),
    ("mlp.fc2.", "mlp.layers.1."),
)
# Names that tell each kind of localiser, out of the official files.
LOCALISERS = {
    "ActionFormer": ("backbone.embd.0.conv.weight", "cls_head.cls_head.conv.weight", "reg_head.scale.0.scale"),
    "TriDet": ("backbone.stem.0.psi.weight", "start_head.cls_head.conv.weight", "reg_head.offset_head.conv.weight"),
    "OpenTAD": ("projection.embed.0.conv.weight", "neck.fpn_norms.0.weight", "rpn_head.cls_head.conv.weight"),
    "AdaTAD": ("backbone.model.backbone.blocks.0.adapter.gamma", "rpn_head.reg_head.conv.weight"),
}


def detector(pooled: type = VideoMAEV2ForVideoClassification, **fields) -> torch.nn.Module:
    """A tiny encoder with a norm of every token, as detectors have it."""
    return tiny_model(pooled, use_mean_pooling=False, **fields)


def official_detector(num_labels: int = 80) -> dict[str, torch.Tensor]:
    """Layout of VideoMAE-Action-Detection and InternVideo."""
    return official_layout(detector(num_labels=num_labels))


def mmaction2_detector(head: tuple[str, ...] = ("fc_cls",)) -> dict[str, torch.Tensor]:
    """Layout of MMAction2's detectors; the first of the classes is the background."""
    state = {}
    for name, tensor in official_layout(detector(VideoMAEV2Model)).items():
        for theirs, ours in MMACTION2:
            name = name.replace(theirs, ours)
        state[f"backbone.{name}"] = tensor
    for part in head:
        state |= {f"roi_head.bbox_head.{part}.{kind}": torch.ones(81) for kind in ("weight", "bias")}
    return state


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("num_labels", [80, 60, 10])
def test_a_detector_is_not_taken_for_a_classifier(wrapper, num_labels, tmp_path):
    torch.save(WRAPPERS[wrapper](official_detector(num_labels)), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth .* an action-detection checkpoint .*boxes.*use_mean_pooling=False"):
        convert_checkpoint("videomae_v2", tmp_path / "x.pth", task=CLASSIFICATION, **UNSHOWN)
    with pytest.raises(ValueError, match="action-detection"):
        convert_to_folder("videomae_v2", tmp_path / "x.pth", tmp_path / "out", task=CLASSIFICATION, **UNSHOWN)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="action-detection"):
        convert_checkpoint("videomae_v2", tmp_path / "x.pth", task=CLASSIFICATION, **UNSHOWN, num_labels=num_labels)


@pytest.mark.parametrize("fields", [{}, {"layer_scale_init_value": 0.1}])
def test_a_classifier_of_the_first_token_is_asked_for(fields):
    """Layer scales say nothing: the code of detectors has them too. With cosine attention it has not."""
    model = detector(num_labels=5, **fields)
    with pytest.raises(ValueError, match="action-detection"):
        convert_checkpoint("videomae_v2", official_layout(model), task=CLASSIFICATION, **UNSHOWN)
    converted = convert_checkpoint(
        "videomae_v2", official_layout(model), task=CLASSIFICATION, use_mean_pooling=False, **UNSHOWN
    )
    assert same_weights(converted, model)
    by_config = convert_checkpoint("videomae_v2", official_layout(model), task=CLASSIFICATION, config=model.config)
    assert same_weights(by_config, model)
    cosine = detector(num_labels=5, use_cosine_attention=True, **fields)
    converted = convert_checkpoint("videomae_v2", official_layout(cosine), task=CLASSIFICATION, **UNSHOWN)
    assert same_weights(converted, cosine)


@pytest.mark.parametrize("head", [("fc_cls",), ("fc_cls.0", "fc_cls.2")])
@pytest.mark.parametrize("wrapper", ["MMEngine", "bare", "distributed"])
@pytest.mark.parametrize("task", [CLASSIFICATION, "pretraining"])
def test_mmaction2s_detectors_are_named(task, wrapper, head):
    state = WRAPPERS[wrapper](mmaction2_detector(head))
    with pytest.raises(
        ValueError, match=r"is an action-detection checkpoint \(MMAction2\): .*task='feature-extraction'"
    ):
        convert_checkpoint("videomae_v2", state, task=task, **UNSHOWN)


@pytest.mark.parametrize("model_type", OF_VIDEOS)
def test_every_family_names_a_detector(model_type):
    with pytest.raises(ValueError, match="is an action-detection checkpoint"):
        plan_conversion(model_type, mmaction2_detector(), task=CLASSIFICATION)


@pytest.mark.parametrize("layout", ["VideoMAE", "with relations", "MMAction2"])
def test_the_encoder_of_a_detector(layout, caplog):
    encoder = detector(VideoMAEV2Model) if layout == "MMAction2" else detector(num_labels=80).videomae_v2
    state = official_detector() if layout != "MMAction2" else mmaction2_detector()
    if layout == "with relations":
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        state |= {f"head.{name}.weight": torch.ones(3) for name in ("conv1", "hr2o.0.conv_q", "fc2")}
        with pytest.raises(ValueError, match="is an action-detection checkpoint"):
            convert_checkpoint("videomae_v2", state, task=CLASSIFICATION, num_labels=3, **UNSHOWN)
    plan = plan_conversion("videomae_v2", state, task=FEATURES, **UNSHOWN)
    assert plan.dropped and all("head" in name for name in plan.dropped)
    converted = convert_checkpoint("videomae_v2", state, task=FEATURES, **UNSHOWN)
    assert not converted.config.use_mean_pooling
    assert "`pooler_output` is the first token" in caplog.text
    assert same_weights(converted, encoder)


@pytest.mark.parametrize("model_type", OF_VIDEOS)
@pytest.mark.parametrize("kind", LOCALISERS)
@pytest.mark.parametrize("task", [CLASSIFICATION, FEATURES])
def test_localisers_are_named(kind, model_type, task):
    state = {f"module.{name}": torch.ones(2) for name in LOCALISERS[kind]}
    with pytest.raises(ValueError, match="is a temporal-localisation checkpoint"):
        convert_checkpoint(model_type, {"state_dict": state, "state_dict_ema": state, "epoch": 3}, task=task)


def test_an_encoder_with_adapters_is_of_features():
    model = tiny_model(VideoMAEV2Model, adapter_layers=[1], adapter_hidden_size=5)
    state = {
        name.replace("time_conv", "dwconv").replace("channel_conv", "conv"): tensor
        for name, tensor in official_layout(model).items()
    }
    converted = convert_checkpoint("videomae_v2", state, task=FEATURES, **UNSHOWN)
    assert converted.config.adapter_layers == [1] and same_weights(converted, model)
    with pytest.raises(ValueError, match=r"\(AdaTAD\): `blocks\.1\.adapter.*task='feature-extraction'"):
        convert_checkpoint("videomae_v2", state, task=CLASSIFICATION, num_labels=3, **UNSHOWN)
    for family in LOCALIZERS:
        with pytest.raises(ValueError, match=r"\(AdaTAD\): `blocks\.1\.adapter.*family 'videomae_v2'"):
            convert_checkpoint(family, state, task="temporal-action-localization")


@pytest.mark.parametrize("others", [("rpn_head.rpn_cls.weight",), ("roi_head.bbox_head.fc_reg.weight",)])
def test_a_detector_of_objects_is_another_kind(others):
    """Their boxes are moved or proposed; UniFormer's converter takes the backbone of such a file."""
    state = dict.fromkeys(("roi_head.bbox_head.fc_cls.weight", *others), torch.ones(2))
    with pytest.raises(ValueError, match="is not a UniFormer checkpoint"):
        plan_conversion("uniformer", state, task="backbone")


@pytest.mark.parametrize("model_type", OF_VIDEOS)
def test_a_published_checkpoint_of_another_family(model_type):
    """Before the file is compared with anything."""
    for other in OF_VIDEOS:
        if other == model_type:
            continue
        for name in (list_published(other)[0], list_published(other)[-1]):
            with pytest.raises(
                ValueError, match=f"{name}' is a checkpoint of the family '{other}', not of '{model_type}'"
            ):
                plan_conversion(model_type, {"x": torch.ones(1)}, task=CLASSIFICATION, published=name)


def test_the_published_detector_converts_to_its_encoder():
    """Of the layout that the public code of InternVideo writes."""
    name = "videomae-v2-giant-ava-kinetics"
    with torch.device("meta"):
        giant = VideoMAEV2ForVideoClassification.config_class.from_size("giant", use_mean_pooling=False, num_labels=80)
        state = official_layout(VideoMAEV2ForVideoClassification(giant))
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}
    plan = plan_conversion("videomae_v2", {"module": state}, task=FEATURES, published=name)
    plan.check()
    assert sorted(plan.dropped) == ["head.bias", "head.weight"]
    assert list(plan.processor.image_mean) == [122.7717, 115.9465, 102.9801]
    assert (plan.processor.rescale_factor, plan.processor.do_center_crop) == (1.0, True)
    whole = plan_conversion("videomae_v2", {"module": state}, task=published_entry(name).task, published=name)
    whole.check()
    assert not whole.dropped
    assert (whole.config.detection_config.roi_scale, whole.config.patch_size) == (1 / 16, 14)
    with pytest.raises(ValueError, match="action-detection"):
        plan_conversion("videomae_v2", {"module": state}, task=CLASSIFICATION, published=name)
    pretrained = official_layout(tiny_model(VideoMAEV2ForPreTraining))
    with pytest.raises(ValueError, match="but the given state dict has the pretraining layout"):
        plan_conversion("videomae_v2", pretrained, task=FEATURES, published=name)
