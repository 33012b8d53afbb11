"""Converting UniFormer checkpoints: what each layout becomes, what is demanded, what is refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoVideoProcessor

from hf_videovit import convert_checkpoint
from hf_videovit.convert import convert_to_folder
from hf_videovit.convert.convert_uniformer import inflation_by


FIXTURES = Path(__file__).parents[1] / "fixtures" / "uniformer"


def load(case: str) -> dict[str, torch.Tensor]:
    loaded = torch.load(FIXTURES / case / "checkpoint.pth", weights_only=True)
    return loaded.get("model", loaded.get("state_dict", loaded))


def convert(case: str, task: str, **fields):
    return convert_checkpoint("uniformer", load(case), task=task, head_dim=8, **fields)


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [("model", ""), ("model_state", ""), ("state_dict", "backbone."), ("state_dict", "module."), (None, "module.")],
)
def test_every_wrapper_is_opened(wrapper, prefix):
    state = {prefix + name: tensor for name, tensor in load("image_classify").items()}
    checkpoint = state if wrapper is None else {wrapper: state, "epoch": 3}
    model = convert_checkpoint("uniformer", checkpoint, task="image-classification", head_dim=8)
    assert model.config.depths == [1, 2, 2, 1]


@pytest.mark.parametrize("case", ["image_classify", "backbone", "mmaction_layout"])
def test_the_width_of_heads_is_demanded_where_no_shape_shows_it(case):
    tasks = {"backbone": "backbone", "mmaction_layout": "video-classification"}
    with pytest.raises(ValueError, match="`head_dim` is needed"):
        convert_checkpoint("uniformer", load(case), task=tasks.get(case, "image-classification"))


def skeleton(size: str, modality: str, **fields) -> dict[str, torch.Tensor]:
    """Names and shapes of a published size in the official layout, without memory."""
    from hf_videovit import (
        UniFormerConfig,
        UniFormerForImageClassification,
        UniFormerForVideoClassification,
    )
    from tests.parity.uniformer import official_layout

    model_class = UniFormerForVideoClassification if modality == "video" else UniFormerForImageClassification
    with torch.device("meta"):
        model = model_class(UniFormerConfig.from_size(size, modality=modality, num_labels=7, **fields))
    state = official_layout(model.state_dict())
    return {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("size", "modality", "fields", "head_dim"),
    [
        ("small", "video", {}, 64),
        ("base", "video", {}, 64),
        ("xxs", "image", {}, 28),
        ("xs", "video", {}, 32),
        ("large", "image", {"use_auxiliary_head": True}, 64),
        ("base_ls", "image", {}, 64),
        ("small", "image", {}, None),
        ("small_plus", "image", {}, None),
        ("base", "image", {"use_auxiliary_head": True}, None),
    ],
)
def test_the_width_of_heads_is_known_where_all_published_models_agree(size, modality, fields, head_dim):
    from hf_videovit.convert import plan_conversion

    task = f"{modality}-classification"
    if head_dim is None:
        with pytest.raises(ValueError, match="`head_dim` is needed"):
            plan_conversion("uniformer", skeleton(size, modality, **fields), task=task)
    else:
        plan = plan_conversion("uniformer", skeleton(size, modality, **fields), task=task)
        plan.check()
        assert plan.config.head_dim == head_dim


def test_classes_of_imagenet_name_themselves():
    from hf_videovit.convert import plan_conversion

    state = skeleton("xxs", "image")
    for head in ("head", "head_cls"):
        state[f"{head}.weight"] = torch.zeros(1).expand(1000, 448)
        state[f"{head}.bias"] = torch.zeros(1).expand(1000)
    plan = plan_conversion("uniformer", state, task="image-classification")
    assert (plan.config.id2label[0], plan.config.id2label[999]) == ("tench", "toilet tissue")


def test_labels_stand_for_the_order_of_the_layout():
    from hf_videovit.convert import plan_conversion

    for count, labels, first in ((400, "k400", "riding a bike"), (600, "k600", "feeding fish")):
        state = skeleton("small", "video")
        state["head.weight"], state["head.bias"] = torch.zeros(1).expand(count, 512), torch.zeros(1).expand(count)
        official = plan_conversion("uniformer", state, task="video-classification", labels=labels)
        assert official.config.id2label[0] == first
    state = {f"backbone.{name}": one for name, one in skeleton("small", "video").items() if "head" not in name}
    state["cls_head.fc_cls.weight"] = torch.zeros(1).expand(400, 512)
    state["cls_head.fc_cls.bias"] = torch.zeros(1).expand(400)
    port = plan_conversion("uniformer", state, task="video-classification", labels="k400")
    assert port.config.id2label[0] == "abseiling"
    with pytest.raises(ValueError, match="MMAction2 is not known"):
        plan_conversion("uniformer", state, task="video-classification", labels="k600")
    with pytest.raises(ValueError, match="400 classes, not 174"):
        plan_conversion("uniformer", state, task="video-classification", labels="ssv2")


def test_inflation_needs_to_know_the_classes_and_starts_a_fresh_head():
    with pytest.raises(ValueError, match="pass `num_labels`"):
        convert("image_classify", "video-classification")
    model = convert("image_classify", "video-classification", num_labels=3, num_frames=8)
    image = convert("image_classify", "image-classification")
    assert model.config.num_labels == 3 and model.config.modality == "video"
    with torch.no_grad():
        video_maps = model.uniformer(torch.zeros(1, 4, 3, 64, 64), output_hidden_states=True).hidden_states
        image_maps = image.uniformer(torch.zeros(1, 3, 64, 64), output_hidden_states=True).hidden_states
    middle = video_maps[0][:, :, 1]  # away from the clip's ends a still clip is the image
    torch.testing.assert_close(middle, image_maps[0])
    kept = convert("image_classify", "video-classification", num_labels=8)
    assert torch.equal(kept.classifier.weight, image.classifier.weight)


def test_inflated_kernels_average():
    kernel = torch.randn(4, 1, 3, 3)
    taps = inflation_by(5)(kernel)
    assert taps.shape == (4, 1, 5, 3, 3)
    torch.testing.assert_close(taps.sum(2), kernel)
    torch.testing.assert_close(taps[:, :, 0], taps[:, :, 4])


def test_an_image_checkpoint_can_start_the_ablations_of_video_models():
    options = {"use_split_attention": True, "use_temporal_overlap": True}
    model = convert("image_classify", "video-classification", num_labels=3, **options)
    assert model.uniformer.patch_embeddings[1].projection.kernel_size == (3, 2, 2)
    assert (model.uniformer.stages[2].blocks[0].temporal_attention.o_proj.weight == 1).all()


def test_a_classifier_becomes_a_backbone_with_fresh_norms():
    for case in ("image_classify", "image_token_label", "image_light", "image_classify_conv_stem"):
        head_dim = 16 if "stem" in case else 8
        backbone = convert_checkpoint("uniformer", load(case), task="backbone", head_dim=head_dim)
        maps = backbone(torch.randn(1, 3, 64, 96)).feature_maps
        assert [one.shape[-2:] for one in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
        assert (backbone.norms["stage2"].weight == 1).all()
    last = convert("image_classify", "backbone", out_features=["stage4"])
    assert list(last.norms) == ["stage4"]


def test_detectors_give_their_backbone():
    state = {f"backbone.{name}": tensor for name, tensor in backbone_state().items()}
    for other in (
        "neck.lateral_convs.0.conv.weight",
        "roi_head.bbox_head.fc_cls.bias",
        "keypoint_head.final_layer.bias",
    ):
        state[other] = torch.zeros(3)
    checkpoint = {"state_dict": state, "meta": {}}
    model = convert_checkpoint("uniformer", checkpoint, task="backbone", head_dim=8, attention_type="hybrid")
    assert model.config.out_features == ["stage1", "stage2", "stage3", "stage4"]
    with pytest.raises(ValueError, match="use task='backbone'"):
        convert_checkpoint("uniformer", checkpoint, task="feature-extraction", head_dim=8)


def backbone_state() -> dict[str, torch.Tensor]:
    return {name.removeprefix("backbone."): tensor for name, tensor in load("backbone").items()}


@pytest.mark.parametrize(
    ("case", "task", "fields", "named"),
    [
        ("video_classify", "image-classification", {}, "is a video model"),
        ("video_classify", "backbone", {}, "is a video model"),
        ("image_classify", "pretraining", {}, "`task`"),
        ("image_classify", "image-classification", {"depths": [1, 1, 1, 1]}, "`depths`"),
        ("image_classify", "image-classification", {"modality": "video"}, "`modality`"),
        ("image_classify", "image-classification", {"num_labels": 5}, "8 classes"),
        ("image_classify", "image-classification", {"head_dims": 8}, "head_dim"),
        ("image_classify", "image-classification", {"layer_scale_init_value": 0.1}, "no layer scales"),
        ("image_classify_conv_stem", "video-classification", {"num_labels": 5}, "`stem='conv'`"),
    ],
)
def test_what_cannot_be_is_refused(case, task, fields, named):
    with pytest.raises(ValueError, match=named):
        convert_checkpoint("uniformer", load(case), task=task, **{"head_dim": 8, **fields})


def test_left_over_and_missing_keys_are_named():
    state = load("image_classify")
    with pytest.raises(ValueError, match="blocks1.0.surprise"):
        convert_checkpoint(
            "uniformer", {**state, "blocks1.0.surprise": state["norm.bias"]}, task="image-classification", head_dim=8
        )
    del state["blocks3.1.mlp.fc2.bias"]
    with pytest.raises(ValueError, match="stages.2.blocks.1.mlp.fc2.bias"):
        convert_checkpoint("uniformer", state, task="image-classification", head_dim=8)
    with pytest.raises(ValueError, match="is not a UniFormer checkpoint"):
        convert_checkpoint("uniformer", {"conv1.weight": torch.zeros(3)}, task="backbone", head_dim=8)


def test_a_folder_serves_the_auto_classes(tmp_path):
    convert_to_folder("uniformer", load("image_classify"), tmp_path / "image", task="image-classification", head_dim=8)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "image")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "image")
    pixels = processor(torch.randint(0, 255, (3, 300, 400), dtype=torch.uint8), return_tensors="pt")
    assert pixels["pixel_values"].shape == (1, 3, 224, 224)
    assert torch.equal(model.classifier.weight, load("image_classify")["head.weight"])
    convert_to_folder(
        "uniformer", load("video_classify"), tmp_path / "video", task="video-classification", head_dim=8, num_frames=6
    )
    video = AutoVideoProcessor.from_pretrained(tmp_path / "video")
    assert (video.num_frames, video.frame_sampling, video.image_mean) == (6, "span", (0.45, 0.45, 0.45))
