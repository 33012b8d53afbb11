"""Folders of images and masks, the score, and the example that trains UperNet on them."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, UperNetForSemanticSegmentation
from transformers.modeling_outputs import SemanticSegmenterOutput

from hf_videovit import UniFormerBackbone, UniFormerConfig, UniFormerImageProcessor
from hf_videovit.dense.segmentation import IGNORED, SegmentationFolder, mean_iou


ROOT = Path(__file__).parents[2]
PROCESSOR = UniFormerImageProcessor(do_resize=False, do_center_crop=False)


@pytest.fixture
def folder(tmp_path):
    """Images whose left part is red and of class 1, whose right part is blue and of class 0."""
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for index, (height, width) in enumerate([(40, 60), (64, 64), (70, 50), (50, 90)]):
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 2] = 1
        image = np.where(mask[..., None] == 1, (200, 20, 20), (20, 20, 200)).astype(np.uint8)
        mask[0] = IGNORED
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{index}.png")
    return tmp_path / "data"


def test_whole_images_are_padded(folder):
    data = SegmentationFolder(folder, PROCESSOR, 2)
    assert len(data) == 4
    sample = data[0]
    assert sample["pixel_values"].shape == (3, 64, 64)
    assert sample["labels"].shape == (64, 64)
    assert (sample["labels"][40:] == IGNORED).all() and (sample["labels"][:, 60:] == IGNORED).all()
    assert (sample["labels"][1:40, :30] == 1).all() and (sample["labels"][1:40, 30:60] == 0).all()
    assert (sample["pixel_values"][:, 40:] == 0).all()


def test_crops_keep_image_and_mask_together(folder):
    data = SegmentationFolder(folder, PROCESSOR, 2, crop_size=48)
    torch.manual_seed(0)
    for index in [0, 1, 2, 3] * 5:
        sample = data[index]
        assert sample["pixel_values"].shape == (3, 48, 48)
        labels = sample["labels"]
        redder = sample["pixel_values"][0] > sample["pixel_values"][2]
        known = labels != IGNORED
        assert (redder[known] == (labels[known] == 1)).float().mean() > 0.95  # but where bilinear meets nearest
    assert len({data[0]["labels"].sum().item() for _ in range(5)}) > 1


def test_folders_that_cannot_be_are_refused(folder):
    with pytest.raises(ValueError, match="class 1"):
        SegmentationFolder(folder, PROCESSOR, 1)[0]
    Image.new("L", (8, 8)).save(folder / "masks" / "0.png")
    with pytest.raises(ValueError, match="its mask"):
        SegmentationFolder(folder, PROCESSOR, 2)[0]
    Image.new("RGB", (60, 40)).save(folder / "masks" / "0.png")
    with pytest.raises(ValueError, match="colours"):
        SegmentationFolder(folder, PROCESSOR, 2)[0]
    (folder / "masks" / "0.png").unlink()
    with pytest.raises(ValueError, match="'0'"):
        SegmentationFolder(folder, PROCESSOR, 2)
    with pytest.raises(ValueError, match="`folder`"):
        SegmentationFolder(folder / "nowhere", PROCESSOR, 2)


class Answering(torch.nn.Module):
    """Says class 1 where a pixel is red; with `always`, that class everywhere."""

    def __init__(self, always: int | None = None):
        super().__init__()
        self.always = always

    def forward(self, pixel_values):
        ones = pixel_values[:, 0] > pixel_values[:, 2]
        if self.always is not None:
            ones = torch.full_like(ones, bool(self.always))
        return SemanticSegmenterOutput(logits=torch.stack((~ones, ones), dim=1).float())


def test_mean_iou_counts_pixels_of_all_images_together(folder):
    data = SegmentationFolder(folder, PROCESSOR, 3)
    assert mean_iou(Answering(), data) == 1.0  # class 2 never occurs
    labels = torch.cat([sample["labels"].flatten() for sample in data])
    share = (labels == 1).sum() / (labels != IGNORED).sum()
    assert mean_iou(Answering(always=1), data) == pytest.approx(share.item() / 2)


def test_the_example_trains_and_saves(folder, tmp_path, monkeypatch, capsys):
    config = UniFormerConfig(
        modality="image",
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 16],
        head_dim=8,
        out_indices=[1, 2, 3, 4],
    )
    torch.manual_seed(0)
    UniFormerBackbone(config).save_pretrained(tmp_path / "backbone")
    options = {
        "data": folder,
        "eval_data": folder,
        "backbone": tmp_path / "backbone",
        "output_dir": tmp_path / "out",
        "num_labels": 2,
        "steps": 3,
        "warmup_steps": 1,
        "crop_size": 64,
        "num_workers": 0,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["finetune_segmentation.py", *words])
    runpy.run_path(str(ROOT / "examples" / "finetune_segmentation.py"), run_name="__main__")
    assert "step 3: loss" in capsys.readouterr().out
    assert 0 <= json.loads((tmp_path / "out" / "results.json").read_text())["mean_iou"] <= 1
    model = UperNetForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert model.config.backbone_config.attention_type == "hybrid"
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = processor(Image.open(folder / "images" / "0.png"), return_tensors="pt").pixel_values
    assert model(pixels).logits.shape == (1, 2, 40, 60)
