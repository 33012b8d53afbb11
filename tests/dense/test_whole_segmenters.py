"""Whole segmenters: official files convert, and say what a plain restatement of the official heads says."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tvF
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from hf_videovit import (
    UniFormerConfig,
    UniFormerForSemanticSegmentation,
    UniFormerSegmenterConfig,
    UniFormerSegmenterImageProcessor,
    convert_checkpoint,
    published_labels,
)
from hf_videovit.convert import convert_to_folder
from hf_videovit.dense import set_attention_type
from tests.dense import official_dense
from tests.dense.test_whole_detectors import CHANNELS, TINY, backbone_state, picture


LABELS = 5
HEADS = {"upernet": official_dense.upernet_heads, "fpn": official_dense.fpn_heads}


def segmenter_file(kind: str):
    backbone, state = backbone_state()
    return backbone, {**state, **official_dense.random_state(HEADS[kind](CHANNELS, labels=LABELS))}


def converted(state: dict[str, torch.Tensor], **fields) -> UniFormerForSemanticSegmentation:
    options = {"head_dim": 8, "window_size": 3, "attention_type": "hybrid", **fields}
    return convert_checkpoint("uniformer", {"state_dict": state}, task="semantic-segmentation", **options)


@pytest.mark.parametrize("size", [(64, 96), (70, 101)], ids=str)
@pytest.mark.parametrize("kind", HEADS)
def test_a_converted_segmenter_says_what_the_official_head_says(kind, size):
    """Also for sides that are no multiple of 32, where maps of the stages do not double exactly."""
    backbone, state = segmenter_file(kind)
    model = converted(state)
    assert (model.config.decode_head, model.config.num_labels) == (kind, LABELS)
    pixels = torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = list(backbone(pixels).feature_maps)
        wanted = (official_dense.upernet if kind == "upernet" else official_dense.semantic_fpn)(state, maps, size)
        torch.testing.assert_close(model(pixels).logits, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_every_tensor_of_a_segmenter_has_its_place(kind, tmp_path):
    _, state = segmenter_file(kind)
    with pytest.raises(ValueError, match="decode_head.extra.weight"):
        converted({**state, "decode_head.extra.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="decode_head.conv_seg.bias"):
        converted({name: one for name, one in state.items() if name != "decode_head.conv_seg.bias"})
    folder = tmp_path / "segmenter"
    convert_to_folder("uniformer", {"state_dict": state}, folder, task="semantic-segmentation", head_dim=8)
    loaded = AutoModelForSemanticSegmentation.from_pretrained(folder)
    for name, tensor in converted(state).state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    processor = AutoImageProcessor.from_pretrained(folder)
    assert isinstance(processor, UniFormerSegmenterImageProcessor)
    assert processor.size_divisor == (32 if kind == "fpn" else 1)


def test_150_classes_are_those_of_ade20k_whose_masks_begin_with_unlabelled_pixels(tmp_path):
    backbone, state = backbone_state()
    heads = official_dense.random_state(official_dense.fpn_heads(CHANNELS, labels=150))
    checkpoint = {"state_dict": {**state, **heads}}
    convert_to_folder("uniformer", checkpoint, tmp_path / "a", task="semantic-segmentation", head_dim=8)
    config = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "a").config
    assert list(config.id2label.values()) == published_labels("ade20k")
    assert config.id2label[12] == "person"
    assert AutoImageProcessor.from_pretrained(tmp_path / "a").do_reduce_labels
    other = {"state_dict": segmenter_file("fpn")[1]}
    convert_to_folder("uniformer", other, tmp_path / "b", task="semantic-segmentation", head_dim=8)
    assert not AutoImageProcessor.from_pretrained(tmp_path / "b").do_reduce_labels


@pytest.mark.parametrize(
    ("segmenter", "size", "parameters"),
    [("upernet", "small", 52), ("upernet", "base", 80), ("fpn", "small", 25), ("fpn", "base", 54)],
)
def test_published_sizes(segmenter, size, parameters):
    """Millions of parameters of the authors' table."""
    with torch.device("meta"):
        model = UniFormerForSemanticSegmentation(UniFormerSegmenterConfig.from_size(size, segmenter, num_labels=150))
    assert round(sum(one.numel() for one in model.parameters()) / 1e6) == parameters


def tiny_segmenter(**fields) -> UniFormerForSemanticSegmentation:
    torch.manual_seed(0)
    backbone = UniFormerConfig(**TINY, out_indices=[1, 2, 3, 4])
    small = {"hidden_size": 16, "pyramid_size": 12, "auxiliary_hidden_size": 8, "num_labels": LABELS}
    return UniFormerForSemanticSegmentation(UniFormerSegmenterConfig(backbone_config=backbone, **{**small, **fields}))


FPN = {"decode_head": "fpn", "use_auxiliary_head": False}


@pytest.mark.parametrize("fields", [{}, FPN], ids=HEADS)
def test_the_loss_reaches_every_parameter(fields):
    model = tiny_segmenter(**fields).train()
    model(torch.randn(2, 3, 64, 96), labels=torch.randint(LABELS, (2, 64, 96))).loss.backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []


def test_the_loss_is_the_mean_over_all_pixels_with_the_auxiliary_one():
    """Ignored pixels count in the mean, as in the official code."""
    model = tiny_segmenter().eval()
    pixels, labels = torch.randn(1, 3, 64, 64), torch.randint(LABELS, (1, 64, 64))
    labels[:, :32] = 255
    with torch.no_grad():
        output = model(pixels, labels=labels)
        maps = model.backbone(pixels).feature_maps
        auxiliary = official_dense.enlarge(model.auxiliary_head(model.auxiliary(maps[2])), (64, 64))
    wanted = 0.0
    for logits, weight in ((output.logits, 1.0), (auxiliary, 0.4)):
        chosen = logits.log_softmax(1).gather(1, labels.clamp(max=LABELS - 1)[:, None])[:, 0]
        wanted += weight * -(chosen * (labels != 255)).sum() / labels.numel()
    torch.testing.assert_close(output.loss, wanted)


def test_attention_of_a_whole_segmenter_is_switched():
    model = tiny_segmenter().eval()
    pixels = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        before = model(pixels).logits
        set_attention_type(model, "window", 3)
        windowed = model(pixels).logits
        set_attention_type(model, "global")
        assert torch.equal(model(pixels).logits, before)
    assert not torch.allclose(windowed, before)


def test_labels_and_configurations_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`labels` must have shape \(1, 64, 64\)"):
        tiny_segmenter().eval()(torch.randn(1, 3, 64, 64), labels=torch.zeros(1, 16, 16, dtype=torch.long))
    for fields, named in (
        ({"decode_head": "psp"}, "`decode_head`"),
        ({"pool_scales": [0]}, "`pool_scales`"),
        ({"classifier_dropout": 1.0}, "`classifier_dropout`"),
    ):
        with pytest.raises(Exception, match=named):
            UniFormerSegmenterConfig(**fields)
    with pytest.raises(ValueError, match="`size_divisor`"):
        UniFormerSegmenterImageProcessor(size_divisor=0)


def test_the_pipeline_of_transformers_takes_a_segmenter(tmp_path):
    processor = UniFormerSegmenterImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}, size_divisor=32)
    tiny_segmenter().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with CaptureLogger(logging.get_logger("transformers.pipelines.base")) as captured:
        segments = pipeline("image-segmentation", model=tmp_path)(picture())
    assert "not supported" not in captured.out
    assert sum((np.array(one["mask"]) > 0).astype(int) for one in segments).tolist() == np.ones((60, 90), int).tolist()


def test_the_processor_follows_the_official_protocol():
    processor = UniFormerSegmenterImageProcessor()
    for height, width, wanted in ((480, 640, (512, 683)), (300, 1500, (410, 2048))):
        batch = processor(torch.zeros(3, height, width, dtype=torch.uint8), return_tensors="pt")
        assert tuple(batch["pixel_values"].shape[-2:]) == wanted
    aligned = UniFormerSegmenterImageProcessor(size_divisor=32)(Image.new("RGB", (640, 480)), return_tensors="pt")
    assert tuple(aligned["pixel_values"].shape[-2:]) == (512, 704)


def test_maps_of_labels_keep_their_values():
    image, labels = picture(), np.random.default_rng(1).integers(0, LABELS, (60, 90), dtype=np.uint8)
    processor = UniFormerSegmenterImageProcessor(size={"shortest_edge": 120, "longest_edge": 400})
    batch = processor(image, segmentation_maps=labels, return_tensors="pt")
    wanted = tvF.resize(torch.from_numpy(labels)[None], [120, 180], tvF.InterpolationMode.NEAREST_EXACT)
    assert torch.equal(batch["labels"][0], wanted[0].long())
