"""Checkpoints of detectors, segmenters and pose estimators: what converts, and what is said to stay behind."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForKeypointDetection,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    VitPoseImageProcessor,
)
from transformers.testing_utils import CaptureLogger

from hf_videovit import (
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerForPoseEstimation,
    convert_checkpoint,
)
from hf_videovit.convert import convert_to_folder
from hf_videovit.convert.convert_uniformer import logger
from hf_videovit.published import published_config, published_entry
from tests.parity.uniformer import official_layout


FIXTURES = Path(__file__).parents[1] / "fixtures" / "uniformer"
TINY = {
    "modality": "image",
    "depths": [1, 1, 4, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "head_dim": 8,
    "out_indices": [1, 2, 3, 4],
}
POSE = {**TINY, "pose_hidden_sizes": [12, 8, 10], "image_size": [256, 192]}
HEADS = {
    "detection": (
        *("neck.lateral_convs.0.conv.weight", "neck.fpn_convs.0.conv.bias", "rpn_head.rpn_conv.weight"),
        *("roi_head.bbox_head.fc_cls.bias", "roi_head.mask_head.convs.0.conv.weight"),
    ),
    "cascade": ("neck.fpn_convs.3.conv.bias", "roi_head.bbox_head.2.shared_fcs.0.weight"),
    "upernet": (
        *("decode_head.psp_modules.0.1.conv.weight", "decode_head.conv_seg.bias"),
        *("auxiliary_head.convs.0.bn.running_mean", "auxiliary_head.conv_seg.weight"),
    ),
    "semantic FPN": ("neck.fpn_convs.0.conv.weight", "decode_head.scale_heads.0.0.conv.weight"),
    "pose": ("keypoint_head.deconv_layers.0.weight", "keypoint_head.final_layer.bias"),
}


def random_model(model_class, **fields):
    torch.manual_seed(0)
    model = model_class(UniFormerConfig(**fields)).eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.01, 0.2)
    return model


def dense_state(model: UniFormerBackbone) -> dict[str, torch.Tensor]:
    """The official names of a dense backbone, each stage's norm beside its blocks."""
    state = official_layout(model.state_dict())
    return {name.replace("norms.stage", "norm"): tensor for name, tensor in state.items()}


def pose_state(model: UniFormerForPoseEstimation) -> dict[str, torch.Tensor]:
    """As mmpose saves it; the norms of the first three stages are there and unused."""
    state = {f"backbone.norm{number}.weight": torch.ones(size) for number, size in ((1, 8), (2, 16), (3, 24))}
    state |= {f"backbone.norm{number}.bias": torch.zeros(size) for number, size in ((1, 8), (2, 16), (3, 24))}
    for name, tensor in official_layout(model.state_dict()).items():
        if name.startswith("head."):
            name = name.replace("head.layers.", "head.deconv_layers.").replace("head.projection.", "head.final_layer.")
            state[f"keypoint_{name}"] = tensor
        else:
            state[f"backbone.{name.replace('norm.', 'norm4.') if name.startswith('norm.') else name}"] = tensor
    return state


def convert(checkpoint, task="backbone", **fields):
    return convert_checkpoint("uniformer", checkpoint, task=task, **{"head_dim": 8, **fields})


@pytest.mark.parametrize("kind", HEADS)
def test_backbones_leave_their_heads_with_a_word(kind):
    backbone = random_model(UniFormerBackbone, **TINY, attention_type="hybrid")
    state = {f"backbone.{name}": tensor for name, tensor in dense_state(backbone).items()}
    heads = {name: torch.zeros(3, 4) for name in HEADS[kind]}
    checkpoint = {"meta": {"epoch": 12, "CLASSES": ("a", "b")}, "state_dict": {**state, **heads}, "optimizer": {}}
    with CaptureLogger(logger) as captured:
        converted = convert(checkpoint, attention_type="hybrid")
    for name in heads:
        assert name.split(".")[0] in captured.out, captured.out
    assert "dropped" in captured.out
    assert ("task='keypoint-detection'" in captured.out) == (kind == "pose")
    pixels = torch.randn(1, 3, 70, 101)
    with torch.no_grad():
        for one, other in zip(converted(pixels).feature_maps, backbone(pixels).feature_maps, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("wrapper", "prefix", "entry"),
    [
        ("state_dict", "backbone.", None),
        ("state_dict", "module.backbone.", None),
        ("model", "", None),
        (None, "", None),
        ("ema_state_dict", "module.backbone.", "ema_state_dict"),
        ("state_dict_ema", "", "state_dict_ema"),
    ],
)
def test_every_wrapper_of_the_dense_tasks_is_opened(wrapper, prefix, entry):
    backbone = random_model(UniFormerBackbone, **TINY)
    state = {prefix + name: tensor for name, tensor in dense_state(backbone).items()}
    if entry == "ema_state_dict":
        state["steps"] = torch.tensor(7)
    checkpoint = state if wrapper is None else {wrapper: state, "meta": {}}
    converted = convert(checkpoint, entry=entry)
    assert torch.equal(converted.norms["stage3"].weight, backbone.norms["stage3"].weight)


def test_running_averages_among_the_weights_are_named():
    """MMCV's hook keeps them as `ema_` and the name with underscores."""
    state = {f"backbone.{name}": one for name, one in dense_state(random_model(UniFormerBackbone, **TINY)).items()}
    averages = {f"ema_{name.replace('.', '_')}": tensor for name, tensor in state.items()}
    with CaptureLogger(logger) as captured:
        convert({"state_dict": {**state, **averages}})
    assert f"ema ({len(averages)} tensors)" in captured.out


def test_a_name_that_belongs_nowhere_is_an_error():
    state = {f"backbone.{name}": one for name, one in dense_state(random_model(UniFormerBackbone, **TINY)).items()}
    with pytest.raises(ValueError, match="query_head.fc.weight"):
        convert({"state_dict": {**state, "query_head.fc.weight": torch.zeros(2)}})


def test_a_converted_backbone_goes_under_upernet():
    state = {f"backbone.{name}": one for name, one in dense_state(random_model(UniFormerBackbone, **TINY)).items()}
    backbone = convert({"state_dict": {**state, "decode_head.conv_seg.bias": torch.zeros(4)}})
    config = UperNetConfig(backbone_config=backbone.config, hidden_size=16, auxiliary_channels=8, num_labels=4)
    model = UperNetForSemanticSegmentation(config).eval()
    model.backbone.load_state_dict(backbone.state_dict())
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for one, other in zip(model.backbone(pixels).feature_maps, backbone(pixels).feature_maps, strict=True):
            assert torch.equal(one, other)


def test_a_pose_estimator_converts_with_its_head():
    model = random_model(UniFormerForPoseEstimation, **POSE, num_labels=17)
    converted = convert({"state_dict": pose_state(model), "meta": {}}, "keypoint-detection")
    assert converted.config.pose_hidden_sizes == [12, 8, 10]
    assert converted.config.image_size == [256, 192]
    assert (converted.config.id2label[0], converted.config.id2label[16]) == ("nose", "right_ankle")
    for name, tensor in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], tensor), name
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(converted(pixels).heatmaps, model(pixels).heatmaps)


def test_a_folder_of_a_pose_estimator_serves_the_auto_classes(tmp_path):
    model = random_model(UniFormerForPoseEstimation, **POSE, num_labels=17)
    checkpoint = {"state_dict": pose_state(model)}
    convert_to_folder(
        "uniformer", checkpoint, tmp_path / "pose", task="keypoint-detection", head_dim=8, image_size=[384, 288]
    )
    loaded = AutoModelForKeypointDetection.from_pretrained(tmp_path / "pose")
    assert type(loaded) is UniFormerForPoseEstimation
    processor = AutoImageProcessor.from_pretrained(tmp_path / "pose")
    assert isinstance(processor, VitPoseImageProcessor)
    image = torch.randint(0, 255, (3, 60, 80), dtype=torch.uint8)
    inputs = processor(image, boxes=[[[5.0, 5.0, 20.0, 40.0]]], return_tensors="pt")
    assert loaded.eval()(**inputs).heatmaps.shape == (1, 17, 96, 72)


def test_a_published_pose_estimator_keeps_its_head(tmp_path):
    name = "uniformer-small-coco-pose-256x192"
    model = UniFormerForPoseEstimation(published_config(name))
    assert sum(one.numel() for one in model.parameters()) == 25_232_465
    checkpoint = {"state_dict": pose_state(model)}
    convert_to_folder("uniformer", checkpoint, tmp_path, task=published_entry(name).task, published=name)
    loaded = AutoModelForKeypointDetection.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded.config.id2label[16] == "right_ankle"
    assert AutoImageProcessor.from_pretrained(tmp_path).size == {"height": 256, "width": 192}


def test_a_classifier_starts_a_pose_estimator():
    loaded = torch.load(FIXTURES / "image_classify" / "checkpoint.pth", weights_only=True)
    with pytest.raises(ValueError, match="has no keypoint head"):
        convert(loaded, "keypoint-detection")
    model = convert(loaded, "keypoint-detection", labels="coco-keypoints", pose_hidden_sizes=[8, 8, 8])
    assert model.num_labels == 17
    assert (model.norm.weight == 1).all()
    assert model.head.layers[0].weight.std() < 2e-3
    state = loaded.get("model", loaded)
    assert torch.equal(model.uniformer.stages[3].blocks[0].norm1.weight, state["blocks4.0.norm1.weight"])


def test_pose_heads_that_do_not_fit_are_refused():
    state = pose_state(random_model(UniFormerForPoseEstimation, **POSE, num_labels=3))
    for fields, named in (
        ({"num_labels": 5}, "3 classes"),
        ({"labels": "coco-keypoints"}, "3 classes, not 17"),
        ({"pose_hidden_sizes": [8, 8, 8]}, "`pose_hidden_sizes`"),
        ({"modality": "video"}, "`modality`"),
    ):
        with pytest.raises(ValueError, match=named):
            convert({"state_dict": state}, "keypoint-detection", **fields)
    del state["keypoint_head.deconv_layers.4.bias"]
    with pytest.raises(ValueError, match=r"head.layers.4.bias"):
        convert({"state_dict": state}, "keypoint-detection")
