"""Images with objects in COCO's format: boxes, masks and keypoints as training and evaluation samples."""

import copy
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from ...files import parse_json, read_text
from .sources import EVAL_SPLITS, IndexedSource, Sample, fingerprint, label_mapping, shuffled_indices


Kind = Literal["instances", "keypoints"]
PREFIXES: dict[Kind, tuple[str, ...]] = {
    "instances": ("instances",),
    "keypoints": ("person_keypoints", "keypoints"),
}
SPELLINGS = {"train": ("train", "training", "train2017"), "val": ("val", "validation", "valid", "val2017")}
ONE_FOLDER = "_annotations.coco.json"  # beside the images of a split
LEAST_SIDE = 1.0  # pixels; boxes with a shorter side are not learnt


@dataclass(frozen=True)
class ObjectSample(Sample):
    """
    An image, or a person in it, with COCO's annotations.

    Args:
        id, video, label:
            See [`Sample`]. `video` is the path of the image; there is no label.
        image_id (`int` or `str`):
            Id of the image in its file.
        size (`tuple[int, int]`):
            Height and width in pixels.
        objects (`tuple[dict, ...]`):
            Annotations as the file has them.
    """

    image_id: int | str
    size: tuple[int, int]
    objects: tuple[dict[str, Any], ...]


class ObjectSource(IndexedSource):
    """
    Images with objects. Rows are stored as text in Arrow, which forked workers share without copying.

    Args:
        rows (`Sequence[tuple[dict, list[dict]]]`):
            Images and their annotations, as COCO's file has them, with `path` and a unique `name` in each image.
        categories (`Sequence[dict]`):
            Categories as COCO's file has them, with their label in the order of the list.
        path (`str`):
            The file of the annotations.
        remarks (`Sequence[str]`, *optional*, defaults to `()`):
            See [`VideoSource`].

    Raises:
        ValueError: two images have one name, or two categories.
    """

    multi_label = True

    def __init__(
        self,
        rows: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
        categories: Sequence[Mapping[str, Any]],
        path: str,
        remarks: Sequence[str] = (),
    ):
        self.path, self.remarks = path, tuple(remarks)
        self.categories = [dict(one) for one in categories]
        self.label_names = [str(one["name"]) for one in categories]
        self._rows = pa.array([json.dumps([dict(image), list(objects)]) for image, objects in rows], pa.large_string())
        self.num_samples = len(rows)
        for what, names in (("image", [image["name"] for image, _ in rows]), ("category", self.label_names)):
            repeated = [name for name, count in Counter(names).items() if count > 1]
            if repeated:
                raise ValueError(f"{path}: {what} {repeated[0]!r} occurs more than once")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ObjectSample:
        image, objects = self.row(index)
        size = (int(image["height"]), int(image["width"]))
        return ObjectSample(image["name"], image["path"], None, image["id"], size, tuple(objects))

    def row(self, index: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """
        An image and its annotations, as COCO's file has them.

        Args:
            index (`int`):
                Its place.

        Returns:
            `tuple[dict, list[dict]]`
        """
        image, objects = json.loads(self._rows[index].as_py())
        return image, objects

    @property
    def labels(self) -> dict[Any, int]:
        """Label of each category id."""
        return {one["id"]: label for label, one in enumerate(self.categories)}

    @property
    def image_ids(self) -> list[Any]:
        """Ids of the images, each once, in order."""
        return list(dict.fromkeys(self[index].image_id for index in range(len(self))))

    def with_label_names(self, label_names: Sequence[str]) -> "ObjectSource":
        """See [`VideoSource.with_label_names`]. Categories that the source lacks have no id."""
        categories: list[dict[str, Any]] = [{"id": None, "name": name} for name in label_names]
        for one, label in zip(self.categories, label_mapping(self.label_names, label_names)):
            categories[label] = one
        renamed = copy.copy(self)
        renamed.categories = categories
        renamed.label_names = list(label_names)
        return renamed

    def fingerprint(self) -> str:
        """See [`VideoSource.fingerprint`]."""
        rows = (self.row(index) for index in range(len(self)))
        return fingerprint(self.num_samples, ([image["name"], objects] for image, objects in rows))

    def sample(self, count: int | None, seed: int) -> "ObjectSource":
        """
        Select samples at random.

        Args:
            count (`int` or `None`):
                Largest number of samples; `None` for all.
            seed (`int`):
                Seed of the choice.

        Returns:
            [`ObjectSource`]: the samples, in the order of this source.
        """
        if count is None or count >= len(self):
            return self
        return self.select(np.sort(shuffled_indices(len(self), seed, 0)[:count]).tolist())

    def select(self, indices: Iterable[int], remarks: Sequence[str] = ()) -> "ObjectSource":
        """
        Select samples.

        Args:
            indices (`Iterable[int]`):
                Their places.
            remarks (`Sequence[str]`, *optional*, defaults to `()`):
                Further remarks.

        Returns:
            [`ObjectSource`]
        """
        selected = copy.copy(self)
        selected._rows = self._rows.take(pa.array(list(indices), pa.int64()))
        selected.num_samples, selected.remarks = len(selected._rows), (*self.remarks, *remarks)
        return selected

    def shuffled_images(self, seed: int) -> "ObjectSource":
        """
        The same annotations, each with the pixels of another sample: a control that nothing can be learnt from.

        Args:
            seed (`int`):
                Seed of the exchange.

        Returns:
            [`ObjectSource`]
        """
        order = shuffled_indices(len(self), seed, 0).tolist()
        paths = [self.row(index)[0]["path"] for index in range(len(self))]
        given = {place: paths[order[number - 1]] for number, place in enumerate(order)}
        rows = [self.row(index) for index in range(len(self))]
        changed = [(image | {"path": given[index]}, objects) for index, (image, objects) in enumerate(rows)]
        return ObjectSource(changed, self.categories, self.path, self.remarks)


def read_objects(path: str | os.PathLike, images: str | os.PathLike, *, kind: Kind = "instances") -> ObjectSource:
    """
    Read annotations of images.

    Args:
        path (`str` or `os.PathLike`):
            COCO's JSON: `images`, `annotations` and `categories`.
        images (`str` or `os.PathLike`):
            Folder that `file_name` is relative to.
        kind (`str`, *optional*, defaults to `"instances"`):
            `"keypoints"` needs categories with `keypoints`.

    Returns:
        [`ObjectSource`]: one sample an image, in the order of the file; crowds included.

    Raises:
        ValueError: the file is not COCO, or an annotation names an image or category that does not exist.
    """
    content = parse_json(read_text(path, "`data`"), f"`data` {os.fspath(path)!r}")
    try:
        listed = {one["id"]: one for one in content["images"]}
        categories = sorted(content["categories"], key=lambda one: one["id"])
        entries: dict[Any, list[dict[str, Any]]] = {image: [] for image in listed}
        known = {one["id"] for one in categories}
        for number, entry in enumerate(content["annotations"], start=1):
            if entry["image_id"] not in listed or entry["category_id"] not in known:
                raise ValueError(f"{path}: annotation {number} names an image or a category that the file lacks")
            entries[entry["image_id"]].append(_completed(path, number, entry))
        rows = [
            ({**one, "name": str(one["file_name"]), "path": str(Path(images) / one["file_name"])}, entries[image])
            for image, one in listed.items()
        ]
        sizes = [(one["height"], one["width"]) for one in listed.values()]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not COCO's format for images: {error} is missing") from error
    if not rows or min(map(min, sizes)) < 1:
        raise ValueError(f"{path} has no images, or one without a size")
    if kind == "keypoints":
        categories = [one for one in categories if one.get("keypoints")]
        if len(categories) != 1:
            raise ValueError(f"{path} must have one category with `keypoints`, got {len(categories)}")
        chosen = categories[0]["id"]
        rows = [(image, [one for one in objects if one["category_id"] == chosen]) for image, objects in rows]
    return ObjectSource(rows, categories, str(path))


def _completed(path: Any, number: int, entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation with the fields that tools leave out."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not np.isfinite(np.array(box, dtype=float)).all():
        raise ValueError(f"{path}: annotation {number} must have `bbox` [x, y, width, height], got {box!r}")
    return {"id": number, "iscrowd": 0, "area": box[2] * box[3], **entry}


def find_objects(
    data: str | os.PathLike, split: str | None, kind: Kind, root: str | os.PathLike | None = None
) -> tuple[Path, Path] | None:
    """
    The annotations and the images of a split.

    Args:
        data (`str` or `os.PathLike`):
            A JSON file, or a folder `annotations/instances_SPLIT.json` (`person_keypoints_SPLIT.json` or
            `keypoints_SPLIT.json` for keypoints) with images in `SPLIT` or `images/SPLIT`, or a folder
            `SPLIT/_annotations.coco.json` with its images beside it. `train` may also be spelt `training` and
            `train2017`, and the others in the same way.
        split (`str` or `None`):
            The split; `None` for the first of those to evaluate on that exists.
        kind (`str`):
            `"instances"` or `"keypoints"`.
        root (`str` or `os.PathLike`, *optional*):
            Folder of the images, if it is another.

    Returns:
        `tuple[Path, Path]` or `None`: the file and the folder; `None` if there is no split to evaluate on.

    Raises:
        ValueError: there is no such split, or no folder of images.
    """
    base = Path(data).expanduser()
    if not base.exists():
        raise ValueError(f"`data` {str(base)!r} does not exist: a folder or COCO's JSON is needed")
    if base.is_file():
        return None if split is None else (base, Path(root) if root else base.parent)
    names = [split] if split is not None else list(EVAL_SPLITS)
    for name in [word for one in names for word in SPELLINGS.get(one, (one,))]:
        candidates = [base / "annotations" / f"{prefix}_{name}.json" for prefix in PREFIXES[kind]]
        file = next((one for one in [*candidates, base / name / ONE_FOLDER] if one.is_file()), None)
        if file is not None:
            return file, _images_of(base, name, root)
    if split is None:
        return None
    wanted = " or ".join(f"annotations/{prefix}_{split}.json" for prefix in PREFIXES[kind])
    raise ValueError(f"`data` {str(base)!r} has no {wanted}, nor {split}/{ONE_FOLDER}")


def list_object_splits(data: str | os.PathLike, kind: Kind) -> list[str]:
    """
    The splits that [`find_objects`] can find in a folder.

    Args:
        data (`str` or `os.PathLike`):
            The folder; a JSON file has none.
        kind (`str`):
            `"instances"` or `"keypoints"`.

    Returns:
        `list[str]`: their names as they are spelt there.
    """
    base = Path(data).expanduser()
    named = [
        file.stem.removeprefix(f"{prefix}_")
        for prefix in PREFIXES[kind]
        for file in base.glob(f"annotations/{prefix}_*.json")
    ]
    return sorted({*named, *(file.parent.name for file in base.glob(f"*/{ONE_FOLDER}"))})


def _images_of(base: Path, name: str, root: str | os.PathLike | None) -> Path:
    folders = [Path(root)] if root else [base / "images" / name, base / name, base / "images"]
    found = next((one for one in folders if one.is_dir()), None)
    if found is None:
        raise ValueError(f"The images of {name!r} must be in {' or '.join(map(str, folders))}; set `data_root`")
    return found


def learnable(source: ObjectSource) -> ObjectSource:
    """
    The samples that a detector can be trained on.

    Args:
        source ([`ObjectSource`]):
            All images.

    Returns:
        [`ObjectSource`]: those with an object that is no crowd, with a remark about the others.
    """
    kept = [index for index in range(len(source)) if any(map(is_object, source.row(index)[1]))]
    left = len(source) - len(kept)
    return source.select(kept, [f"{left} images without objects are left out of the training"] if left else [])


def is_object(entry: Mapping[str, Any]) -> bool:
    """
    Whether an annotation is a single object with a box.

    Args:
        entry (`Mapping[str, Any]`):
            COCO's annotation.

    Returns:
        `bool`: `False` for crowds and boxes of less than a pixel.
    """
    return not entry["iscrowd"] and min(entry["bbox"][2:]) >= LEAST_SIDE


def people(source: ObjectSource, found: Iterable[Mapping[str, Any]] | None = None) -> ObjectSource:
    """
    One sample for each person, for pose estimation.

    Args:
        source ([`ObjectSource`]):
            Images with keypoints.
        found (`Iterable[Mapping]`, *optional*):
            Detected people as COCO's results: `image_id`, `bbox`, `score` and perhaps `category_id`. Their samples
            have no keypoints. By default annotated people with at least one labelled keypoint.

    Returns:
        [`ObjectSource`]: the samples; their names end in a number.

    Raises:
        ValueError: a detection lacks a field.
    """
    rows = [source.row(index) for index in range(len(source))]
    if found is not None:
        by_image: dict[Any, list[dict[str, Any]]] = {}
        category = source.categories[0]["id"]
        for entry in found:
            missing = [name for name in ("image_id", "bbox", "score") if name not in entry]
            if missing:
                raise ValueError(f"Detected people must have `image_id`, `bbox` and `score`, one lacks {missing[0]!r}")
            if entry.get("category_id", category) == category:
                by_image.setdefault(entry["image_id"], []).append({"iscrowd": 0, **entry})
        rows = [(image, by_image.get(image["id"], [])) for image, _ in rows]
    else:
        rows = [(image, [one for one in objects if one.get("num_keypoints", 1)]) for image, objects in rows]
    single = [
        (image | {"name": f"{image['name']}#{number}"}, [one])
        for image, objects in rows
        for number, one in enumerate(filter(is_object, objects))
    ]
    return ObjectSource(single, source.categories, source.path, source.remarks)


def decode_mask(entry: Mapping[str, Any], size: tuple[int, int]) -> torch.Tensor:
    """
    The mask of an annotation.

    Args:
        entry (`Mapping[str, Any]`):
            COCO's annotation, with polygons or run lengths, plain or compressed.
        size (`tuple[int, int]`):
            Height and width of the image in pixels.

    Returns:
        `torch.Tensor` of shape `(height, width)`: uint8, 0 or 1.

    Raises:
        ValueError: the annotation has no mask.
    """
    masks, found = coco_masks(), entry.get("segmentation")
    if not found:
        raise ValueError(f"The annotation {entry.get('id')} has no `segmentation`: set `use_masks` false in `config`")
    if isinstance(found, list):
        found = masks.merge(masks.frPyObjects(found, *size))
    elif isinstance(found["counts"], list):
        found = masks.frPyObjects(found, *size)
    return torch.from_numpy(np.ascontiguousarray(masks.decode(found)))


def coco_masks() -> Any:
    """
    pycocotools' functions of masks.

    Returns:
        The module.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ValueError("Data in COCO's format needs pycocotools: pip install hf_videovit[coco]") from error
    return mask


__all__ = [
    "Kind",
    "ObjectSample",
    "ObjectSource",
    "coco_masks",
    "decode_mask",
    "find_objects",
    "is_object",
    "learnable",
    "list_object_splits",
    "people",
    "read_objects",
]
