"""Small clips on disk, written once a session."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from hf_videovit.training.words.tokenizers import PatchTokenizer
from tests.clips import STEPS, moving_square_clip, write_clip
from tests.families import FAMILIES


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """`{train,val}/{direction}/clip N.mp4`: 5 and 2 clips of each of four directions, 32 x 32, 12 frames."""
    root = tmp_path_factory.mktemp("clips")
    for split, count in (("train", 5), ("val", 2)):
        for direction in STEPS:
            for index in range(count):
                seed = index if split == "train" else 100 + index
                frames = moving_square_clip(direction, num_frames=12, height=32, width=32, seed=seed)
                write_clip(root / split / direction / f"clip {index}.mp4", frames)
    return root


@pytest.fixture
def tiny_fields(clip_folder, tmp_path) -> dict:
    """Fields of a run that takes a second or two."""
    return {
        "data": str(clip_folder),
        "output_dir": str(tmp_path / "output"),
        "cpu": True,
        "num_workers": 0,
        "progress": False,
        "curves": False,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "crop_scale": [0.7, 1.0],
        "config": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 16,
            "num_frames": 4,
            "drop_path_rate": 0.1,
        },
        "processor": {"frame_stride": 2},
        "log_every": 1,
    }


@pytest.fixture
def pretraining_fields(tiny_fields) -> dict:
    """Likewise of masked pretraining."""
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
    config = tiny_fields["config"] | decoder | {"patch_size": 8, "drop_path_rate": 0.0, "encoder_mask_ratio": 0.75}
    return tiny_fields | {"config": config, "crop": "multi_scale", "num_sample": 2}


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """`{train,val}/N.png` without classes: 7 and 3 pictures of coloured stripes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 3)):
        (root / split).mkdir()
        for index in range(count):
            stripes = rng.integers(0, 256, (1, 9, 3), dtype=np.uint8).repeat(36, axis=0).repeat(5, axis=1)
            Image.fromarray(stripes).save(root / split / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def words_folder(tmp_path_factory):
    """A tokenizer of 16 patches of 2 x 2."""
    folder = tmp_path_factory.mktemp("words")
    pixels = 0.1 + 0.8 * torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    PatchTokenizer.fit(pixels, 16, 2).save_pretrained(folder)
    return folder


@pytest.fixture
def word_fields(tiny_fields, picture_folder, words_folder):
    """A joint run of 20 clips and 7 pictures."""
    tiny = next(family for family in FAMILIES if family.name == "bevt").tiny
    fields = {
        "model_type": "bevt",
        "config": dict(tiny),
        "processor": {"frame_stride": 1},
        "epochs": 1,
        "picture_every": 0,
    }
    images = {"image_data": str(picture_folder), "image_batch_size": 3, "tokenizer": str(words_folder)}
    return tiny_fields | fields | images


@pytest.fixture
def precision():
    """Forgets the precision that a process is otherwise given once and for all, before and after."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
