"""Small files that stand in for those that the pages name: models, clips, official checkpoints, lists."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

from hf_videovit import VideoMAEV2ForVideoClassification
from hf_videovit.inference.temporal_localization import load_localizer
from hf_videovit.training.words.tokenizers import PatchTokenizer
from tests.clips import moving_square_clip, write_clip
from tests.convert.layouts import official_layout, tiny_model
from tests.families import FAMILIES
from tests.saved_model import save_tiny_classifier, save_tiny_detector, save_tiny_localizer


FIXTURES = Path(__file__).parents[1] / "fixtures"
ACTIONS = ("right", "left", "down", "up")


def make(path: Path, wanted: Any) -> None:
    """
    Make one file or folder.

    Args:
        path (`Path`):
            Where.
        wanted (`str` or `dict`):
            Name of a function of this module, or that name with its arguments.
    """
    kind, arguments = (wanted, {}) if isinstance(wanted, str) else next(iter(wanted.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(arguments, dict) and kind != "json":
        KINDS[kind](path, **arguments)
    else:
        KINDS[kind](path, arguments)


def video(path: Path, frames: int = 24, height: int = 40, width: int = 56) -> None:
    """A square that moves to the right."""
    write_clip(path, moving_square_clip(num_frames=frames, height=height, width=width), fps=25)


def clips(path: Path, train: int = 2, val: int = 1, side: int = 32, frames: int = 16) -> None:
    """`{train,val}/ACTION/*.mp4` of four actions."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            for action in ACTIONS:
                seed = number if split == "train" else 100 + number
                clip = moving_square_clip(action, num_frames=frames, height=side, width=side, seed=seed)
                write_clip(path / split / action / f"{number}.mp4", clip)


def videos(path: Path, names: str) -> None:
    """A folder of videos with these names."""
    for name in names.split():
        video(path / f"{name}.mp4")


def images(path: Path, classes: bool = False, train: int = 4) -> None:
    """`{train,val}/[ACTION/]N.png`."""
    for split, count in (("train", train), ("val", 2)):
        for number in range(count):
            for action in ACTIONS if classes else ("",):
                file = path / split / action / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(moving_square_clip(action or "up", num_frames=1, seed=number)[0]).save(file)


def ade20k(path: Path) -> None:
    """ADE20K's layout with two images to train on and one to evaluate on."""
    for split, count in (("training", 2), ("validation", 1)):
        for kind, mode in (("images", "RGB"), ("annotations", "L")):
            (path / kind / split).mkdir(parents=True)
            for number in range(count):
                Image.new(mode, (40, 30), 1 if mode == "L" else "red").save(path / kind / split / f"ADE_{number}.png")
    (path / "objectInfo150.txt").write_text("Idx\tName\n")


def classifier(path: Path, family: str = "videomae_v2", head: str = "ForVideoClassification", **fields: Any) -> None:
    """A model of any family with its processor."""
    if family == "videomae_v2" and head == "ForVideoClassification" and not fields:
        save_tiny_classifier(path)
        return
    known = next(one for one in FAMILIES if one.name == family)
    found = next(one for one in known.heads if one.model_class.__name__.endswith(head))
    torch.manual_seed(0)
    found.model_class(known.config(**{**found.fields, **fields})).save_pretrained(path)
    known.processor_class(**known.processor).save_pretrained(path)


def localizer(path: Path) -> None:
    """A localiser with its encoder; beside it `encoder` and `features_localizer`, the two apart."""
    save_tiny_localizer(path)
    parts = load_localizer(path)
    for name, model, processor in (
        ("encoder", parts["model"].encoder, parts["video_processor"]),
        ("features_localizer", parts["model"].localizer, parts["feature_extractor"]),
    ):
        model.save_pretrained(path.with_name(name))
        processor.save_pretrained(path.with_name(name))


def people_detector(path: Path) -> None:
    """An object detector of transformers."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = YolosConfig(**sizes, image_size=[32, 32], patch_size=16, num_detection_tokens=3, id2label={0: "person"})
    YolosForObjectDetection(config).save_pretrained(path)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(path)


def official_classifier(path: Path, labels: int) -> None:
    """A VideoMAE V2 classifier as its authors save them."""
    model = tiny_model(VideoMAEV2ForVideoClassification, num_labels=labels)
    torch.save({"module": official_layout(model)}, path)


def fixture(path: Path, value: str) -> None:
    """A file of `tests/fixtures`."""
    source = FIXTURES / value
    (shutil.copytree if source.is_dir() else shutil.copy)(source, path)


def text(path: Path, value: str) -> None:
    """A file with this text."""
    path.write_text(value, encoding="utf-8")


def as_json(path: Path, value: Any) -> None:
    """A JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")


def words(path: Path) -> None:
    """A tokenizer of 16 patches of 4 x 4."""
    pixels = 0.1 + 0.8 * torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    PatchTokenizer.fit(pixels, 16, 4).save_pretrained(path)


def features(path: Path, names: str, size: int = 32, windows: int = 59) -> None:
    """A folder of features, a file for each video."""
    path.mkdir()
    rng = np.random.default_rng(0)
    for name in names.split():
        np.save(path / f"{name}.npy", rng.normal(size=(windows, size)).astype(np.float32))


KINDS: dict[str, Callable[..., Any]] = {
    "ade20k": ade20k,
    "classifier": classifier,
    "clips": clips,
    "detector": save_tiny_detector,
    "features": features,
    "fixture": fixture,
    "images": images,
    "json": as_json,
    "localizer": localizer,
    "official_classifier": official_classifier,
    "people_detector": people_detector,
    "text": text,
    "video": video,
    "videos": videos,
    "words": words,
}
