"""UniFormer under UperNet and Mask R-CNN, and the switches of the dense recipes."""

import pytest
import torch
from transformers import AutoBackbone, UperNetConfig, UperNetForSemanticSegmentation

from hf_videovit import (
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerModel,
)
from hf_videovit.dense.detection import FeaturePyramid, freeze_batch_norms, mask_rcnn, set_attention_type


TINY = {
    "modality": "image",
    "depths": [1, 1, 4, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "head_dim": 8,
    "out_indices": [1, 2, 3, 4],
    "window_size": 2,
}
UPERNET = {"hidden_size": 16, "auxiliary_channels": 8, "num_labels": 4}


def tiny_backbone(**fields) -> UniFormerBackbone:
    torch.manual_seed(0)
    return UniFormerBackbone(UniFormerConfig(**{**TINY, **fields}))


def upernet(**fields) -> UperNetForSemanticSegmentation:
    torch.manual_seed(0)
    backbone_config = UniFormerConfig(**{**TINY, **fields})
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone_config, **UPERNET)).eval()


def test_upernet_takes_the_backbone_by_its_configuration():
    model = upernet()
    assert isinstance(model.backbone, UniFormerBackbone)
    assert model.backbone.channels == [8, 16, 24, 32]
    assert model.auxiliary_head.convs[0].conv.in_channels == 24  # on stage 3, as in the official code
    assert (model.config.pool_scales, model.config.auxiliary_loss_weight) == ((1, 2, 3, 6), 0.4)


def test_upernet_initialises_the_backbone_in_its_own_way():
    model, alone = upernet(), tiny_backbone()
    for name, parameter in model.backbone.named_parameters():
        expected = dict(alone.named_parameters())[name]
        assert parameter.std().item() == pytest.approx(expected.std().item(), rel=0.5, abs=1e-3), name


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 101)])
@pytest.mark.parametrize("attention_type", ["global", "window", "hybrid"])
def test_upernet_segments_images_of_any_size(size, attention_type):
    model = upernet(attention_type=attention_type)
    outputs = model(torch.randn(2, 3, *size), labels=torch.randint(0, 4, (2, *size)))
    assert outputs.logits.shape == (2, 4, *size)
    assert outputs.loss.isfinite()


def test_upernet_trains_the_whole_backbone():
    model = upernet(attention_type="hybrid").train()
    labels = torch.randint(0, 4, (2, 64, 96))
    labels[:, :8] = model.config.loss_ignore_index
    model(torch.randn(2, 3, 64, 96), labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_upernet_comes_back_from_a_folder(tmp_path):
    model, pixels = upernet(attention_type="hybrid", window_size=3), torch.randn(1, 3, 64, 96)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    loaded, report = UperNetForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert isinstance(loaded.config.backbone_config, UniFormerConfig)
    assert [one.window_size for one in loaded.backbone.uniformer.stages[2].blocks] == [3, 3, 3, None]
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)


def test_upernet_takes_the_weights_of_a_backbone():
    backbone = tiny_backbone()
    model = upernet()
    report = model.backbone.load_state_dict(backbone.state_dict())
    assert not report.missing_keys and not report.unexpected_keys


def test_the_pyramid_names_five_levels():
    pyramid = FeaturePyramid(AutoBackbone.from_config(UniFormerConfig(**TINY)), out_channels=12)
    maps = pyramid(torch.randn(2, 3, 64, 96))
    assert {name: tuple(one.shape) for name, one in maps.items()} == {
        "0": (2, 12, 16, 24),
        "1": (2, 12, 8, 12),
        "2": (2, 12, 4, 6),
        "3": (2, 12, 2, 3),
        "pool": (2, 12, 1, 2),
    }


SMALL = {"min_size": 64, "max_size": 96, "out_channels": 8}


def person(height: int, width: int) -> dict[str, torch.Tensor]:
    """One box and its mask."""
    masks = torch.zeros(1, height, width, dtype=torch.uint8)
    masks[:, 8:40, 8:30] = 1
    return {"boxes": torch.tensor([[8.0, 8.0, 30.0, 40.0]]), "labels": torch.tensor([1]), "masks": masks}


def test_mask_rcnn_trains_on_images_of_several_sizes():
    detector = mask_rcnn(tiny_backbone(attention_type="hybrid"), num_classes=3, **SMALL).train()
    images = [torch.rand(3, 50, 70), torch.rand(3, 64, 64)]
    losses = detector(images, [person(50, 70), person(64, 64)])
    assert set(losses) == {
        *("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"),
    }
    sum(losses.values()).backward()
    for name, parameter in detector.backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_mask_rcnn_answers_in_the_size_of_the_image(tmp_path):
    detector = mask_rcnn(tiny_backbone(), num_classes=3, box_score_thresh=0.0, **SMALL).eval()
    image = torch.rand(3, 50, 70)
    (found,) = detector([image])
    assert found["masks"].shape[1:] == (1, 50, 70)
    assert (found["boxes"][:, 2] <= 70).all() and (found["boxes"][:, 3] <= 50).all()
    assert found["labels"].min() >= 1
    again = mask_rcnn(tiny_backbone(), num_classes=3, box_score_thresh=0.0, **SMALL).eval()
    again.load_state_dict(detector.state_dict())
    assert torch.equal(again([image])[0]["scores"], found["scores"])


def test_images_are_padded_to_whole_strides_and_normalised_as_in_imagenet():
    transform = mask_rcnn(tiny_backbone(), num_classes=2, **SMALL).transform
    batch, _ = transform([torch.full((3, 64, 70), 0.5)])
    assert batch.tensors.shape == (1, 3, 64, 96)
    expected = (torch.tensor([0.485, 0.456, 0.406]) - 0.5) / -torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(batch.tensors[0, :, 0, 0], expected)
    assert (batch.tensors[..., 70:] == 0).all()  # after normalisation, as the official code pads


@pytest.mark.parametrize(
    ("fields", "options", "named"),
    [
        ({"out_indices": [3, 4]}, {}, "`backbone`"),
        ({"out_indices": [0, 1, 2, 3]}, {}, "`backbone`"),
        ({}, {"min_sizes": 64}, "`min_sizes`"),
        ({}, {"num_classes": 1}, "`num_classes`"),
    ],
)
def test_a_detector_that_cannot_be_is_refused(fields, options, named):
    with pytest.raises(ValueError, match=named):
        mask_rcnn(tiny_backbone(**fields), **{"num_classes": 3, **options})


@torch.no_grad()
def test_attention_changes_at_run_time(tmp_path):
    """One set of weights in the three modes, in an outer model and after saving it."""
    model, pixels = upernet(), torch.randn(1, 3, 96, 64)
    for attention_type in ("window", "hybrid", "global"):
        set_attention_type(model, attention_type, window_size=3)
        other = upernet(attention_type=attention_type, window_size=3)
        other.load_state_dict(model.state_dict())
        expected = other(pixels).logits
        assert torch.equal(model(pixels).logits, expected)
        model.save_pretrained(tmp_path / attention_type)
        loaded = UperNetForSemanticSegmentation.from_pretrained(tmp_path / attention_type)
        windows = [block.window_size for block in loaded.backbone.uniformer.stages[2].blocks]
        assert windows == [block.window_size for block in other.backbone.uniformer.stages[2].blocks]
        torch.testing.assert_close(loaded(pixels).logits, expected)
    assert not torch.equal(other(pixels).logits, upernet(attention_type="window")(pixels).logits)


def test_attention_that_cannot_change_is_refused():
    light = UniFormerModel(UniFormerConfig(**TINY, use_token_pruning=True, stem="conv_first"))
    for model, arguments, named in (
        (tiny_backbone(), ("windows",), "`attention_type`"),
        (tiny_backbone(), ("window", 0), "`window_size`"),
        (torch.nn.Linear(2, 2), ("window",), "`model`"),
        (light, ("window",), "`model`"),
    ):
        with pytest.raises(ValueError, match=named):
            set_attention_type(model, *arguments)


def test_frozen_batch_norms_stay_frozen_in_training():
    model = upernet()
    count = freeze_batch_norms(model.backbone)
    assert count == 4  # two in each convolution block
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    model(torch.randn(2, 3, 64, 64), labels=torch.randint(0, 4, (2, 64, 64))).loss.backward()
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            assert torch.equal(value, before[name]) == name.startswith("backbone."), name
    assert model.backbone.uniformer.stages[0].blocks[0].norm1.weight.grad is None


@torch.no_grad()
def test_a_trained_classifier_starts_a_segmenter(tmp_path):
    """An own ImageNet model of this package, not a converted one: its folder loads into the backbone."""
    classifier = UniFormerForImageClassification(UniFormerConfig(**TINY))
    classifier.save_pretrained(tmp_path)
    backbone, report = UniFormerBackbone.from_pretrained(tmp_path, out_indices=[1, 2, 3, 4], output_loading_info=True)
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"norms"}
    assert torch.equal(
        backbone.uniformer.stages[3].blocks[0].mlp.fc1.weight, classifier.uniformer.stages[3].blocks[0].mlp.fc1.weight
    )
