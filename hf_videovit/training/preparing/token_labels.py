"""
Dense labels of images by a teacher, for token labelling. `hf-videovit prepare token-labels` runs this module. An
interrupted run goes on: the file of an image is complete or missing.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm

from ...files import read_json
from ...folders import held_folder, remove_folder, write_text
from ...modeling.video_decoding import VideoDecodingError
from ..data.images import read_image
from ..data.sources import VideoList
from ..data.token_labels import FACTS_FILE, LARGEST_CLASS, MAPS, map_file, write_map


Teacher = Callable[[Sequence[Image.Image]], torch.Tensor]


@dataclass
class PreparedTokenLabels:
    """
    Result of [`prepare_token_labels`].

    Args:
        folder (`Path`):
            The folder, to be used as `token_labels` of a training run.
        num_images (`int`):
            Images with labels.
        grid (`tuple[int, int]`):
            Rows and columns of places.
        agreement (`float`, *optional*):
            Share of the newly labelled images whose own label is the teacher's best class for the mean of the places.
            A teacher that knows the classes in another order shows here.
        resumed (`int`, *optional*, defaults to 0):
            Images that an interrupted run had finished.
        failures (`dict[str, str]`, *optional*):
            Images that cannot be read, with the reason.
    """

    folder: Path
    num_images: int
    grid: tuple[int, int]
    agreement: float | None = None
    resumed: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def prepare_token_labels(
    images: VideoList,
    output: str | os.PathLike,
    teacher: Teacher,
    teacher_names: Sequence[str],
    settings: Mapping[str, Any],
    *,
    top_k: int = 5,
    same_order: bool = False,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: bool = False,
) -> PreparedTokenLabels:
    """
    Write the best classes of each place of images.

    Args:
        images ([`VideoList`]):
            Labelled images, see [`open_images`].
        output (`str` or `os.PathLike`):
            A new folder, or the folder of the same command if that was interrupted.
        teacher:
            A function from RGB images to logits of shape `(num_images, rows, columns, num_labels)`, such as
            [`DenseTeacher`].
        teacher_names (`Sequence[str]`):
            Names of the teacher's labels. Those of the data are looked up; others are left out.
        settings (`Mapping[str, Any]`):
            Plain values that the scores depend on. An interrupted run goes on with the same ones only.
        top_k (`int`, *optional*, defaults to 5):
            Classes of each place.
        same_order (`bool`, *optional*, defaults to `False`):
            Whether the classes of the teacher are those of the data in the same order, whatever they are called.
        batch_size (`int`, *optional*, defaults to 8):
            Images that the teacher gets at once.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to replace labels in `output` that were made with other settings.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a progress bar.

    Returns:
        [`PreparedTokenLabels`]

    Raises:
        ValueError: an argument is not allowed, the teacher lacks a class of the data, or no image can be read.
    """
    names = list(images.label_names)
    chosen = _classes(names, list(teacher_names), same_order)
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}")
    if len(names) > LARGEST_CLASS:
        raise ValueError(f"`images` must have at most {LARGEST_CLASS} classes, got {len(names)}")
    facts = {**settings, "top_k": min(top_k, len(names)), "label_names": names}
    output = Path(output)
    with held_folder(output, "output"):
        found = _begin(output, facts, overwrite)
        result = PreparedTokenLabels(output, 0, (0, 0))
        waiting = []
        for index in range(len(images)):
            sample = images[index]
            if map_file(output, sample.id).is_file():
                result.resumed += 1
            else:
                waiting.append(sample)
        result.grid = tuple(found.get("grid", (0, 0)))
        _label(waiting, output, teacher, chosen, facts["top_k"], batch_size, result, progress)
        result.num_images = len(images) - len(result.failures)
        if not result.num_images:
            raise ValueError(f"`images` has no readable image, of {len(images)}")
        last = {"finished": True, "grid": result.grid, "images": result.num_images, "failures": result.failures}
        write_text(output / FACTS_FILE, json.dumps(facts | last, indent=1, ensure_ascii=False) + "\n")
    return result


def _classes(names: Sequence[str], teacher_names: Sequence[str], same_order: bool) -> torch.Tensor:
    """Index of each class of the data among the teacher's."""
    if same_order:
        if len(names) != len(teacher_names):
            raise ValueError(
                f"`same_order` needs a teacher with the {len(names)} classes of the data, it has {len(teacher_names)}"
            )
        return torch.arange(len(names))
    positions = {name: index for index, name in enumerate(teacher_names)}
    lacking = [name for name in names if name not in positions]
    if lacking:
        raise ValueError(
            f"`teacher` lacks {len(lacking)} of the {len(names)} classes of the data ({', '.join(lacking[:5])}); its "
            f"classes are {', '.join(teacher_names[:5])}, ...: set `same_order` if they are those of the data under "
            "other names, in the same order"
        )
    return torch.tensor([positions[name] for name in names])


def _begin(output: Path, facts: Mapping[str, Any], overwrite: bool) -> dict[str, Any]:
    """A new folder, or that of the same command; what its facts say."""
    path = output / FACTS_FILE
    if path.is_file():
        known = read_json(path, "`output`:")
        differ = sorted(name for name, value in facts.items() if known.get(name) != json.loads(json.dumps(value)))
        if not differ:
            return known
        if not overwrite:
            raise ValueError(f"`output` {str(output)!r} has labels with other {', '.join(differ)}: set `overwrite`")
        remove_folder(output / MAPS)
    elif (output / MAPS).exists():
        raise ValueError(f"`output` {str(output)!r} has a folder {MAPS!r} that this command did not write")
    write_text(path, json.dumps({**facts, "finished": False}, indent=1, ensure_ascii=False) + "\n")
    return {}


def _label(
    waiting: Sequence[Any],
    output: Path,
    teacher: Teacher,
    chosen: torch.Tensor,
    top_k: int,
    batch_size: int,
    result: PreparedTokenLabels,
    progress: bool,
) -> None:
    """Write the labels of the images that have none yet."""
    hits = labelled = 0
    with tqdm(total=len(waiting), desc="labelling", unit="image", disable=not progress) as bar:
        for start in range(0, len(waiting), batch_size):
            samples = waiting[start : start + batch_size]
            pictures, read = [], []
            for sample in samples:
                try:
                    pictures.append(read_image(sample.video))
                    read.append(sample)
                except VideoDecodingError as error:
                    result.failures[sample.id] = error.reason
            bar.update(len(samples))
            if not pictures:
                continue
            scores = teacher(pictures)[..., chosen]  # (images, rows, columns, classes)
            result.grid = (scores.shape[1], scores.shape[2])
            best = scores.topk(top_k, dim=-1)
            for sample, values, classes, means in zip(read, best.values, best.indices, scores.mean(dim=(1, 2))):
                write_map(map_file(output, sample.id), values.permute(2, 0, 1), classes.permute(2, 0, 1))
                hits += int(means.argmax()) == sample.label
            labelled += len(read)
    result.agreement = hits / labelled if labelled else None


__all__ = ["PreparedTokenLabels", "prepare_token_labels"]
