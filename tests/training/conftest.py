"""Small clips on disk, written once a session."""

from pathlib import Path

import pytest

from tests.clips import STEPS, moving_square_clip, write_clip


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
