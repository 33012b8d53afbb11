"""
Dense labels of images for token labelling: a folder with a file per image, and how training reads it.

`token_labels.json` says what the classes are called and who made the labels. The file of an image is
`maps/{id}.safetensors`, where `id` is the image's id in the data. It has two tensors of shape
`(top_k, rows, columns)`: `scores`, float16 logits, and `classes`, int16 indices of the names. The rows and columns
divide the whole image, however long its sides are.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.nn import functional as F
from torchvision.ops import roi_align

from ...files import read_json
from .augmentation import ClipAugmentation
from .loaders import Record, TrainingClipLoader
from .processors import ClipProcessor


FACTS_FILE = "token_labels.json"
MAPS = "maps"
LARGEST_CLASS = torch.iinfo(torch.int16).max


def map_file(folder: str | os.PathLike, name: str) -> Path:
    """
    The file of an image's labels.

    Args:
        folder (`str` or `os.PathLike`):
            The folder of the labels.
        name (`str`):
            Id of the image. Characters that file names may lack are percent-encoded.

    Returns:
        `Path`: the file, always inside of `folder`.
    """
    outside = name.startswith("/") or ".." in name.split("/")
    return Path(folder, MAPS, quote(name, safe=" " if outside else "/ ") + ".safetensors")


def write_map(path: Path, scores: torch.Tensor, classes: torch.Tensor) -> None:
    """
    Write the labels of an image, so that no reader finds them incomplete.

    Args:
        path (`Path`):
            The file, see [`map_file`].
        scores (`torch.Tensor` of shape `(top_k, rows, columns)`):
            Logits of the best classes of each place.
        classes (`torch.Tensor` of shape `(top_k, rows, columns)`):
            Indices of these classes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    tensors = {"scores": scores.half().contiguous(), "classes": classes.to(torch.int16).contiguous()}
    draft.write_bytes(save(tensors))
    os.replace(draft, path)


class TokenLabelFolder:
    """
    Dense labels of images, as `hf-videovit prepare token-labels` writes them.

    Args:
        folder (`str` or `os.PathLike`):
            The folder.
        label_names (`Sequence[str]`):
            Names of the labels that the model is trained on, in order.

    Raises:
        ValueError: the folder has no finished labels, or its classes are others than `label_names`.
    """

    def __init__(self, folder: str | os.PathLike, label_names: Sequence[str]):
        self.folder = Path(folder)
        facts = read_json(self.folder / FACTS_FILE, "`token_labels`:")
        if not facts.get("finished"):
            raise ValueError(
                f"`token_labels` {str(folder)!r} is not finished: repeat `hf-videovit prepare token-labels`"
            )
        known = facts["label_names"]
        if sorted(known) != sorted(label_names):
            odd = sorted({*known} ^ {*label_names})[:5]
            raise ValueError(
                f"`token_labels` {str(folder)!r} must have the {len(label_names)} classes of the data, it has "
                f"{len(known)} ({', '.join(odd)} only on one side)"
            )
        positions = {name: index for index, name in enumerate(label_names)}
        self.order = torch.tensor([positions[name] for name in known])

    def read(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Read the labels of an image.

        Args:
            name (`str`):
                Its id in the data.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: float32 logits and indices of the data's labels, both of shape
            `(top_k, rows, columns)`.

        Raises:
            ValueError: there are none, or the file is damaged.
        """
        path = map_file(self.folder, name)
        try:
            tensors = load(path.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"`token_labels` {str(self.folder)!r} has no labels of the image {name!r}") from None
        except (OSError, SafetensorError) as error:
            raise ValueError(f"`token_labels` cannot read {str(path)!r}: {error}") from error
        return tensors["scores"].float(), self.order[tensors["classes"].long()]


class TokenLabelLoader(TrainingClipLoader):
    """
    Reads a training image with its dense labels and the part of them that the augmentation shows.

    Args:
        labels ([`TokenLabelFolder`]):
            The dense labels.
        processor ([`ClipProcessor`]):
            Reads image files.
        augmentation ([`ClipAugmentation`]):
            Crops and flips.
        seed (`int`):
            Seed of all random numbers.
        num_sample (`int`, *optional*, defaults to 1):
            Augmented copies of each image.
    """

    def __init__(
        self,
        labels: TokenLabelFolder,
        processor: ClipProcessor,
        augmentation: ClipAugmentation,
        seed: int,
        num_sample: int = 1,
    ):
        super().__init__(processor, augmentation, seed, num_sample)
        self.labels, self.followed = labels, augmentation

    def clips(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Read and augment an image.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values`; `token_scores` and `token_classes` of shape
            `(num_sample, top_k, rows, columns)`, those of the whole image; and `token_regions` of shape
            `(num_sample, 4)`, see [`~ClipAugmentation.follow`].
        """
        clip = self.decode(record)
        scores, classes = self.labels.read(record.sample.id)
        seeds = [self.seed_of(record, "augmentation", copy) for copy in range(self.num_sample)]
        images, regions = zip(*(self.followed.follow(clip, seed) for seed in seeds))
        return {
            "pixel_values": torch.stack(images),
            "token_scores": scores.expand(self.num_sample, *scores.shape),
            "token_classes": classes.expand(self.num_sample, *classes.shape),
            "token_regions": torch.tensor(regions),
        }


def crop_token_labels(
    scores: torch.Tensor, classes: torch.Tensor, regions: torch.Tensor, size: tuple[int, int], num_labels: int
) -> torch.Tensor:
    """
    Soft labels of the tokens of augmented images, as in the official training: logits that are not among the best of a
    place are 0, the region is read by RoIAlign, and the softmax is last.

    Args:
        scores (`torch.Tensor` of shape `(batch_size, top_k, rows, columns)`):
            Logits of the whole images.
        classes (`torch.Tensor` of shape `(batch_size, top_k, rows, columns)`):
            Indices of the labels.
        regions (`torch.Tensor` of shape `(batch_size, 4)`):
            Parts of the images, see [`~ClipAugmentation.follow`].
        size (`tuple[int, int]`):
            Rows and columns of the tokens.
        num_labels (`int`):
            Number of labels.

    Returns:
        `torch.Tensor` of shape `(batch_size, tokens, num_labels)`: the labels, in row, column order.
    """
    rows, columns = scores.shape[-2:]
    maps = scores.new_zeros(len(scores), num_labels, rows, columns).scatter_(1, classes, scores)
    left, top, right, bottom = regions.unbind(dim=1)
    sides = torch.stack([left.minimum(right) * columns, top * rows, left.maximum(right) * columns, bottom * rows], 1)
    boxes = torch.cat([torch.arange(len(maps), device=maps.device)[:, None].to(sides), sides], dim=1)
    cropped = roi_align(maps, boxes, size, aligned=True)
    flipped = (left > right).view(-1, 1, 1, 1)
    return F.softmax(torch.where(flipped, cropped.flip(-1), cropped).flatten(2).transpose(1, 2), dim=-1)


__all__ = ["TokenLabelFolder", "TokenLabelLoader", "crop_token_labels", "map_file", "write_map"]
