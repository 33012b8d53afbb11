"""
Scores of the places of an image: the head of a classifier applied to the feature map before pooling. They are the
teacher's part of token labelling.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel
from transformers.utils import logging

from ..files import loading


logger = logging.get_logger(__name__)

TIMM = "timm:"
WHICH_WORK = (
    "Teachers that work classify the mean of a feature map with linear layers: UniFormer, and of transformers for "
    "example ResNet, RegNet, EfficientNet, MobileNet and Swin; of timm every model with a map before its pooling, "
    "such as timm:dm_nfnet_f6"
)


class DenseTeacher:
    """
    A classifier of images that scores each place of its last feature map.

    Args:
        score (`Callable`):
            From normalised images `(batch_size, num_channels, height, width)` to logits
            `(batch_size, rows, columns, num_labels)`.
        model (`torch.nn.Module`):
            The classifier, in evaluation mode.
        label_names (`Sequence[str]`):
            Names of its labels.
        size (`tuple[int, int]`):
            Height and width of its input.
        mean (`Sequence[float]`):
            Mean that pixels in [0, 1] are normalised with.
        std (`Sequence[float]`):
            Standard deviation that they are normalised with.
    """

    def __init__(
        self,
        score: Callable[[torch.Tensor], torch.Tensor],
        model: torch.nn.Module,
        label_names: Sequence[str],
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ):
        self.score, self.model, self.label_names, self.size = score, model, list(label_names), size
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.mean, self.std = (torch.tensor(values, device=self.device).view(-1, 1, 1) for values in (mean, std))

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """
        Score the places of images. Each image is seen whole: it is resized to the input of the teacher, whatever its
        sides, with bicubic interpolation and antialiasing.

        Args:
            images (`Sequence[PIL.Image.Image]`):
                RGB images.

        Returns:
            `torch.Tensor` of shape `(num_images, rows, columns, num_labels)`: float32 logits on the CPU.
        """
        resized = [
            v2.functional.resize(v2.functional.pil_to_tensor(image), list(self.size), InterpolationMode.BICUBIC)
            for image in images
        ]
        pixels = torch.stack(resized).to(self.device).float() / 255
        return self.score(((pixels - self.mean) / self.std).to(self.dtype)).float().cpu()


def open_teacher(
    teacher: str,
    *,
    size: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    weights: str | os.PathLike | None = None,
    download: bool = False,
) -> DenseTeacher:
    """
    Open a classifier of images as a teacher of token labels.

    Args:
        teacher (`str`):
            Folder or Hub id of a classifier of this package or of transformers; or `timm:` and the name of a model or
            a folder of timm.
        size (`int`, *optional*):
            Side of the square input in pixels. By default that of the teacher's processor.
        device (`str`, *optional*, defaults to `"cpu"`):
            Where it runs.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Type of its numbers.
        weights (`str` or `os.PathLike`, *optional*):
            safetensors file of a timm model. By default the file in the cache of the Hub.
        download (`bool`, *optional*, defaults to `False`):
            Whether the weights of a timm model may be downloaded.

    Returns:
        [`DenseTeacher`]

    Raises:
        ValueError: the teacher cannot be loaded, or has no dense scores.
    """
    if teacher.startswith(TIMM):
        model, names, read = _open_timm(teacher.removeprefix(TIMM), weights, download)
    elif weights is not None or download:
        raise ValueError(f"`weights` and `download` are for teachers of timm, got {teacher!r}")
    else:
        model, names, read = _open_transformers(teacher)
    side, mean, std = read
    model.eval().requires_grad_(False).to(device, dtype)
    height, width = side if size is None else (size, size)
    score = _timm_scores if teacher.startswith(TIMM) else _pooled_scores
    opened = DenseTeacher(lambda pixels: score(model, pixels), model, names, (height, width), mean, std)
    places = opened([Image.new("RGB", (width, height), (90, 120, 150))])  # fails here if there are no dense scores
    logger.info(f"{teacher}: {places.shape[1]} x {places.shape[2]} places, {places.shape[3]} classes")
    return opened


def _open_transformers(name: str) -> tuple[PreTrainedModel, list[str], tuple[Any, Any, Any]]:
    with loading("`teacher`", name):
        config = AutoConfig.from_pretrained(name)
        if type(config) not in AutoModelForImageClassification._model_mapping:
            raise ValueError(f"`teacher` must be a classifier of images, {name!r} is {type(config).__name__}")
        architecture = (config.architectures or [""])[0]
        if not architecture.endswith("ForImageClassification"):
            raise ValueError(f"`teacher` must be a classifier of images, {name!r} is {architecture or 'not known'}")
        model = AutoModelForImageClassification.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    side = size.get("shortest_edge") if "height" not in size else None
    height, width = (size["height"], size["width"]) if side is None else (side, side)
    normalised = getattr(processor, "do_normalize", True)
    mean, std = (processor.image_mean, processor.image_std) if normalised else ([0.0] * 3, [1.0] * 3)
    return model, names, ((height, width), mean, std)


def _pooled_scores(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Dense logits of a model of transformers, which must have the model's own logits as their mean."""
    output = model(pixels)
    if getattr(output, "token_logits", None) is not None:  # a head for tokens, trained for this purpose
        return _as_grid(output.token_logits, model, pixels)
    base = getattr(model, model.base_model_prefix)
    head = getattr(model, "classifier", None)
    features = base(pixels).last_hidden_state
    if isinstance(head, torch.nn.Sequential):
        head = torch.nn.Sequential(*(part for part in head if not isinstance(part, torch.nn.Flatten)))
    if head is None or not _is_linear(head):
        raise ValueError(f"`teacher` {type(model).__name__} has no linear `classifier`. {WHICH_WORK}.")
    places = features.permute(0, 2, 3, 1) if features.ndim == 4 else features
    inputs = [module.in_features for module in head.modules() if isinstance(module, torch.nn.Linear)][0]
    if places.shape[-1] != inputs:
        raise ValueError(f"`teacher` {type(model).__name__} classifies other features than its map. {WHICH_WORK}.")
    scores = head(places)
    tolerance = 1e-3 if scores.dtype == torch.float32 else 5e-2
    difference = (scores.flatten(1, -2).mean(dim=1) - output.logits).abs().max()
    if difference > tolerance * (1 + output.logits.abs().max()):
        raise ValueError(
            f"`teacher` {type(model).__name__} does not classify the mean of its feature map: the mean of the scores "
            f"of all places is {difference.item():.2g} from its logits. {WHICH_WORK}."
        )
    return scores if scores.ndim == 4 else _as_grid(scores, model, pixels)


def _is_linear(head: torch.nn.Module) -> bool:
    kinds = (torch.nn.Linear, torch.nn.Dropout, torch.nn.Identity, torch.nn.Sequential)
    parts = list(head.modules())
    return any(isinstance(part, torch.nn.Linear) for part in parts) and all(isinstance(part, kinds) for part in parts)


def _as_grid(scores: torch.Tensor, model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Scores of tokens in row, column order as a map with the ratio of the image."""
    height, width = pixels.shape[-2:]
    rows = round((scores.shape[1] * height / width) ** 0.5)
    if rows * (scores.shape[1] // max(rows, 1)) != scores.shape[1]:
        raise ValueError(
            f"`teacher` {type(model).__name__} has {scores.shape[1]} tokens, which are no grid. {WHICH_WORK}."
        )
    return scores.unflatten(1, (rows, -1))


def _open_timm(
    name: str, weights: str | os.PathLike | None, download: bool
) -> tuple[torch.nn.Module, list[str], tuple[Any, Any, Any]]:
    try:
        import timm
        from timm.data import ImageNetInfo, resolve_model_data_config
    except ImportError as error:
        raise ValueError(f"`teacher` {TIMM}{name} needs timm: pip install timm") from error
    with loading("`teacher`", name):
        if Path(name).is_dir():
            source, file = f"local-dir:{Path(name).absolute()}", Path(name, "model.safetensors")
            if not file.is_file():
                raise ValueError(f"`teacher` {name!r} has no model.safetensors")
        else:
            if not timm.is_model(name):
                raise ValueError(f"`teacher` {name!r} is neither a model of timm nor a folder")
            source, file = name, _timm_file(timm, name, weights, download)
        # the file is named, since older versions of timm unpickle what they find in a folder
        model: Any = timm.create_model(
            source, pretrained=True, pretrained_cfg_overlay={"file": str(file), "source": ""}
        )
    names = model.pretrained_cfg.get("label_names")
    if not names and model.num_classes == 1000:
        names = ImageNetInfo("imagenet-1k").label_names()  # WordNet ids, as the folders of ImageNet are called
    names = names or [str(index) for index in range(model.num_classes)]
    fields = resolve_model_data_config(model, use_test_size=True)
    return model, list(names), (fields["input_size"][1:], fields["mean"], fields["std"])


def _timm_file(timm: Any, name: str, weights: str | os.PathLike | None, download: bool) -> Path:
    """A local safetensors file of a timm model."""
    if weights is not None:
        if Path(weights).suffix != ".safetensors" or not Path(weights).is_file():
            raise ValueError(f"`weights` must be a safetensors file, got {str(weights)!r}")
        return Path(weights)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository = timm.models.get_pretrained_cfg(name).hf_hub_id
    if repository is None:
        raise ValueError(f"`weights` is needed: timm knows no repository with weights of {name!r}")
    repository, _, revision = repository.partition("@")
    place = {"repo_id": repository, "filename": "model.safetensors", "revision": revision or None}
    if download:
        return Path(hf_hub_download(**place))
    found = try_to_load_from_cache(**place)
    if not isinstance(found, str):
        raise ValueError(
            f"`teacher` {name!r} has no weights in the cache: set `download` to get model.safetensors of "
            f"{repository}, or give `weights`"
        )
    return Path(found)


def _timm_scores(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Dense logits of a model of timm: its head, with all that follows the pooling, on a map of each single place."""
    features = model.forward_features(pixels)
    last = getattr(model, "output_fmt", None)
    if features.ndim != 4:
        raise ValueError(f"`teacher` {type(model).__name__} of timm has no feature map. {WHICH_WORK}.")
    channels_last = str(last or "NCHW").endswith("NHWC")
    places = features if channels_last else features.permute(0, 2, 3, 1)
    single = places.flatten(0, 2)[:, None, None] if channels_last else places.flatten(0, 2)[:, :, None, None]
    return model.forward_head(single).unflatten(0, places.shape[:3])


__all__ = ["DenseTeacher", "open_teacher"]
