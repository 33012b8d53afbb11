"""The official numbers, and that the comparison itself can fail."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_videovit.training.data.block_masking import BlockMasks

from .parity.__main__ import ADAPTERS, main, run


FIXTURES = Path(__file__).parent / "fixtures"
CASES = [
    pytest.param(path, id=f"{family}-{path.name}", marks=[pytest.mark.slow] if path.name == "moco_v3_loss" else [])
    for family in ADAPTERS
    for path in sorted((FIXTURES / family).iterdir())
]


@pytest.mark.parametrize("directory", CASES)
def test_official_numbers_are_met(directory):
    reports = list(run(directory))
    assert reports and all(report.lines for report in reports)
    assert not [line for report in reports for line in report.lines if line.endswith("FAIL")]


def changed_copy(case: str, target: Path, change=lambda tensors: None, family="videomae_v2", **settings) -> Path:
    """A fixture with other tensors and settings, in a directory whose name tells nothing."""
    shutil.copytree(FIXTURES / family / case, target)
    if (target / "io.safetensors").is_file():
        tensors = load_file(target / "io.safetensors")
        change(tensors)
        save_file(tensors, target / "io.safetensors")
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **settings}))
    return target


def test_a_case_is_recognised_by_its_files(tmp_path, capsys):
    assert main([str(changed_copy("finetune", tmp_path / "x"))]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_an_encoder_without_head_is_a_case(tmp_path, capsys):
    copy = changed_copy("finetune", tmp_path / "x", lambda tensors: tensors.pop("logits"), num_classes=0)
    weights = torch.load(copy / "checkpoint.pth", weights_only=True)["module"]
    torch.save(
        {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}, copy / "checkpoint.pth"
    )
    assert main([str(copy)]) == 0
    assert "pooled" in capsys.readouterr().out


def test_loss_over_all_decoded_tokens_is_caught(tmp_path, capsys):
    """A reference whose loss were the mistaken one would agree with the tensor that is there to catch it."""
    copy = changed_copy(
        "pretrain",
        tmp_path / "x",
        lambda tensors: tensors.update(loss=tensors["loss_all_decoded_tokens_not_used"].clone()),
    )
    assert main([str(copy)]) == 1
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.endswith("FAIL")]
    assert set(failed) == {"loss"}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors["logits"].add_(1e-3),
        lambda tensors: tensors["logits"].mul_(float("nan")),
        lambda tensors: tensors.update(something_new=tensors["logits"].clone()),
        lambda tensors: tensors.update(pooled=tensors["pooled"][:, :-1].contiguous()),
    ],
    ids=["value", "nan", "unknown tensor", "shape"],
)
def test_differences_and_unknown_tensors_fail(tmp_path, capsys, change):
    assert main([str(changed_copy("finetune", tmp_path / "x", change))]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_key_that_cannot_be_placed_fails(tmp_path, capsys):
    assert main([str(changed_copy("finetune", tmp_path / "x", num_heads=5))]) == 1
    assert "num_attention_heads" in capsys.readouterr().out


def test_an_empty_directory_fails(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1


def test_images_are_inflated_to_the_tubelets_of_the_settings(tmp_path):
    kernel = torch.load(FIXTURES / "bevt/inflate/checkpoint_2d.pth", weights_only=True)["model"][
        "patch_embed.proj.weight"
    ]

    def three_frames(tensors):
        for name in [name for name in tensors if name.endswith("/patch_embed.proj.weight")]:
            tensors[name] = kernel.unsqueeze(2).expand(-1, -1, 3, -1, -1).contiguous() / 3

    copy = changed_copy("inflate", tmp_path / "x", three_frames, "bevt", patch_size=[3, 4, 4])
    clips = torch.load(copy / "checkpoint_3d.pth", weights_only=True)
    of_clips = clips["state_dict"]["backbone.patch_embed.proj.weight"]
    clips["state_dict"]["backbone.patch_embed.proj.weight"] = torch.cat((of_clips, of_clips[:, :, :1]), dim=2)
    torch.save(clips, copy / "checkpoint_3d.pth")
    assert main([str(copy)]) == 0


@pytest.mark.parametrize("case", ["pretrain_image", "pretrain_video"])
def test_recorded_losses_of_words_are_unweighted(tmp_path, case):
    head = json.loads((FIXTURES / "bevt" / case / "config.json").read_text())["cls_head"]
    weights = {"loss_weight_2d": 0.5, "loss_weight_3d": 3.0}
    assert main([str(changed_copy(case, tmp_path / "x", family="bevt", cls_head={**head, **weights}))]) == 0


def test_losses_of_words_in_joint_pretraining_are_weighted(tmp_path):
    head = json.loads((FIXTURES / "bevt/pretrain_joint/config.json").read_text())["cls_head"]

    def weigh(tensors):
        tensors["loss_cls_2d"] *= 0.5
        tensors["loss_cls_3d"] *= 3.0
        tensors["loss"] = tensors["loss_cls_2d"] + tensors["loss_cls_3d"]

    head |= {"loss_weight_2d": 0.5, "loss_weight_3d": 3.0}
    assert main([str(changed_copy("pretrain_joint", tmp_path / "x", weigh, "bevt", cls_head=head))]) == 0


@pytest.mark.parametrize("settings", [{"table14": None}, {"tube_sets": None, "token_counts": {}}])
def test_positions_need_no_table_of_named_tubes(tmp_path, settings):
    assert main([str(changed_copy("positions", tmp_path / "x", family="tubevit", **settings))]) == 0


def test_similarities_are_divided_by_the_recorded_temperature(tmp_path):
    def sharpen(tensors):
        for name in [name for name in tensors if name.startswith("slowfast.")]:
            tensors[name] *= 2

    assert main([str(changed_copy("byol_loss", tmp_path / "x", sharpen, "lstcl", T=0.25))]) == 0


def test_mask_counts_that_no_float_ratio_gives_exactly(tmp_path):
    """29 of 100 places are 0.29, and 0.29 * 100 falls below 29."""
    config = json.loads((FIXTURES / "bevt/masks/config.json").read_text())
    wanted = {"grid": [10, 10], "num_masking_patches": 29, "max_num_patches": 29, "min_num_patches": 1}

    def draw(tensors):
        for name in ("tube_input", "tube_output", "image_masks"):
            del tensors[name]
        rng = random.Random(config["seeds"]["block_masks"])
        masks = BlockMasks(10, 10, ratio=0.295, smallest_block=1, widest_aspect=config["max_aspect"])
        tensors["block_masks"] = torch.from_numpy(np.stack([masks.image(rng) for _ in range(8)])).to(torch.uint8)

    assert main([str(changed_copy("masks", tmp_path / "x", draw, "bevt", **wanted))]) == 0


@pytest.mark.parametrize(
    ("family", "case", "ending"), [("bevt", "swin3d_classify", "_a"), ("lstcl", "timesformer_classify", "_larger")]
)
def test_inputs_of_other_names_are_compared(tmp_path, capsys, family, case, ending):
    def rename(tensors):
        for name in [name for name in tensors if name.endswith(ending)]:
            tensors[f"{name.removesuffix(ending)}_other"] = tensors.pop(name)

    assert main([str(changed_copy(case, tmp_path / "x", rename, family))]) == 0
    assert "logits_other" in capsys.readouterr().out
