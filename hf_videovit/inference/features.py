"""
Features of videos: one vector per video, all tokens, or one vector per window of a long video. Tokens are never
masked.
"""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.utils import logging

from ..ahead import read_ahead
from ..films import processed_frames
from ..folders import refuse_existing
from ..modeling.video_decoding import VideoDecodingError
from ..modeling.video_processing_base import ClipVideoProcessor, is_one_video
from ..modes import evaluation_mode
from .pipeline import video_of_row


logger = logging.get_logger(__name__)

POOLINGS = ("default", "mean", "first", "tokens")


def get_video_features(
    model: PreTrainedModel,
    processor: ClipVideoProcessor,
    videos: Any,
    *,
    batch_size: int = 1,
    pooling: str = "default",
    window: int | None = None,
    stride: int | None = None,
    squash: bool = False,
    device: str | torch.device | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """
    Compute features of one or more videos with the encoder of any model of this package. No token is masked, and a
    classification head is not used.

    Args:
        model ([`PreTrainedModel`]):
            A base model, or a model with a head, which is ignored.
        processor ([`ClipVideoProcessor`]):
            The checkpoint's processor. Its protocol defines the clips and crops.
        videos (a video, or a list or iterable of videos):
            Paths, URLs, bytes, file objects, `VideoDecoder` objects of torchcodec, arrays or tensors `(T, H, W, C)`,
            or rows with a `video` column.
        batch_size (`int`, *optional*, defaults to 1):
            Videos (or windows) per forward pass.
        pooling (`str`, *optional*, defaults to `"default"`):
            `"default"`: the model's own pooled output (VideoMAE V2: `fc_norm` of the mean token). `"mean"`: mean of
            the tokens of the last hidden state. `"first"`: its first token. `"tokens"`: all tokens, view by view.
            Pooled features of several views are averaged.
        window (`int`, *optional*):
            Use every window of this many consecutive frames instead of the sampling protocol. Defaults to the model's
            `num_frames` if only `stride` is given.
        stride (`int`, *optional*):
            Distance in frames between the starts of consecutive windows. Defaults to `window`.
        squash (`bool`, *optional*, defaults to `False`):
            With windows only: resize frames to the processor's crop size without keeping the aspect ratio (bilinear,
            no antialiasing), and scale pixels to [0, 1] without further normalisation. This reproduces the features
            published for temporal localisation (THUMOS14: stride 4, FineAction: stride 16).
        device (`str` or `torch.device`, *optional*):
            Device to move the model to. By default the model is not moved.

    Returns:
        `torch.Tensor` of shape `(num_videos, hidden_size)`, or `(num_videos, num_tokens, hidden_size)` for
        `"tokens"`. With windows, a list of tensors of shape `(num_windows, hidden_size)`, one per video; a video
        shorter than a window has none. Float32, on the CPU.

    Raises:
        ValueError: an argument is not allowed, or the model has no pooled output.
        VideoDecodingError: a video cannot be read.

    Example:

    ```python
    >>> features = get_video_features(model, processor, ["a.mp4", "b.mp4"], batch_size=2)
    >>> windows = get_video_features(model, processor, ["film.mp4"], stride=4, batch_size=8)[0]
    ```"""
    iterator = iter_video_features(
        model,
        processor,
        videos,
        batch_size=batch_size,
        pooling=pooling,
        window=window,
        stride=stride,
        squash=squash,
        device=device,
    )
    features: list[Any] = list(iterator)
    if window is not None or stride is not None:
        return features
    if not features:
        raise ValueError("`videos` must hold at least one video, got none.")
    return torch.stack(features)


def iter_video_features(
    model: PreTrainedModel,
    processor: ClipVideoProcessor,
    videos: Any,
    *,
    batch_size: int = 1,
    pooling: str = "default",
    window: int | None = None,
    stride: int | None = None,
    squash: bool = False,
    device: str | torch.device | None = None,
    on_error: str = "raise",
) -> Iterator[torch.Tensor | VideoDecodingError]:
    """
    [`get_video_features`] as a generator: one tensor per video, in order. Memory is that of one batch, and with
    windows of a few hundred megabytes of frames, regardless of the number and length of the videos.

    Args:
        model ([`PreTrainedModel`]):
            A base model, or a model with a head, which is ignored.
        processor ([`ClipVideoProcessor`]):
            The checkpoint's processor.
        videos (a video, or a list or iterable of videos):
            See [`get_video_features`].
        batch_size (`int`, *optional*, defaults to 1):
            Videos (or windows) per forward pass.
        pooling (`str`, *optional*, defaults to `"default"`):
            `"default"`, `"mean"`, `"first"` or `"tokens"`, see [`get_video_features`].
        window (`int`, *optional*):
            Frames of a window, see [`get_video_features`].
        stride (`int`, *optional*):
            Distance in frames between the starts of consecutive windows.
        squash (`bool`, *optional*, defaults to `False`):
            With windows only, see [`get_video_features`].
        device (`str` or `torch.device`, *optional*):
            Device to move the model to. By default the model is not moved.
        on_error (`str`, *optional*, defaults to `"raise"`):
            `"raise"` stops at an unreadable video. `"return"` yields its [`VideoDecodingError`] instead of features.

    Yields:
        `torch.Tensor` or `VideoDecodingError`: one per video.

    Raises:
        ValueError: an argument is not allowed, or the model has no pooled output.
        VideoDecodingError: a video cannot be read and `on_error` is `"raise"`.
    """
    if on_error not in ("raise", "return"):
        raise ValueError(f"`on_error` must be 'raise' or 'return', got {on_error!r}.")
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}, got {pooling!r}.")
    for name, value in (("batch_size", batch_size), ("window", window), ("stride", stride)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    windowed = window is not None or stride is not None
    if squash and not windowed:
        raise ValueError("`squash=True` applies to windows only; pass `window` or `stride` too.")
    encoder: Any = model.base_model
    if device is not None:
        encoder.to(device)
    if not windowed:
        yield from _features_by_protocol(encoder, processor, _listed(videos), batch_size, pooling, on_error)
        return
    window = window or model.config.num_frames
    clips = _windows(_listed(videos), processor, encoder.device, squash, (window, stride or window))
    ahead = read_ahead(clips, 2 * batch_size)  # decoded while the encoder computes
    yield from _features_of_windows(encoder, ahead, batch_size, pooling, on_error)


def save_features(
    features: dict[str, torch.Tensor], path: str | os.PathLike, *, metadata: dict[str, str] | None = None
) -> list[Path]:
    """
    Save named features.

    Args:
        features (`dict[str, torch.Tensor]`):
            One tensor per video.
        path (`str` or `os.PathLike`):
            `NAME.safetensors`: one file with all tensors and the metadata. `NAME.npy`: one array, for a single video
            or for features of one shape, stacked in order. Anything else: a folder with one `VIDEO.npy` per video.
        metadata (`dict[str, str]`, *optional*):
            Metadata of a safetensors file.

    Returns:
        `list[Path]`: the files written.

    Raises:
        ValueError: a file exists already, features of different shapes for one `.npy`, or names that collide in a
            folder.
    """
    path = Path(path)
    refuse_existing(feature_files(features, path), "path")
    if path.suffix == ".safetensors":
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in features.items()}, path, metadata=metadata)
        return [path]
    if path.suffix == ".npy":
        arrays = [value.numpy() for value in features.values()]
        if len({array.shape for array in arrays}) != 1:
            raise ValueError(
                f"`path` {str(path)!r} is one array, but the features have several shapes; use a folder or a "
                ".safetensors file."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, arrays[0] if len(arrays) == 1 else np.stack(arrays))
        return [path]
    return _save_folder(features, path)


def feature_files(names: Iterable[str], path: str | os.PathLike) -> list[Path]:
    """
    The files that [`save_features`] writes.

    Args:
        names (`Iterable[str]`):
            Names of the features.
        path (`str` or `os.PathLike`):
            A file or folder, see [`save_features`].

    Returns:
        `list[Path]`: one file, or for a folder one for each name.

    Raises:
        ValueError: names collide in a folder.
    """
    path = Path(path)
    if path.suffix in (".safetensors", ".npy"):
        return [path]
    targets: dict[Path, str] = {}
    for name in names:
        target = path / f"{Path(name).stem}.npy"
        if target in targets:
            raise ValueError(
                f"Two videos would share one file in {str(path)!r}: {targets[target]!r} and {name!r}. Leave one out "
                "or rename it, or save all in one .safetensors file."
            )
        targets[target] = name
    return list(targets)


def _save_folder(features: dict[str, torch.Tensor], folder: Path) -> list[Path]:
    targets = feature_files(features, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for feature, target in zip(features.values(), targets, strict=True):
        np.save(target, feature.numpy())
    return targets


def _listed(videos: Any) -> Iterable[Any]:
    several = isinstance(videos, Iterable) and not is_one_video(videos)
    return (video_of_row(video) for video in (videos if several else [videos]))


def _features_by_protocol(
    encoder: PreTrainedModel,
    processor: ClipVideoProcessor,
    videos: Iterable[Any],
    batch_size: int,
    pooling: str,
    on_error: str,
) -> Iterator[torch.Tensor | VideoDecodingError]:
    batch: list[torch.Tensor | VideoDecodingError] = []
    for video in videos:
        try:
            batch.append(processor(video, return_tensors="pt")["pixel_values"])
        except VideoDecodingError as error:
            if on_error == "raise":
                raise
            batch.append(error)
        if len(batch) == batch_size:
            yield from encode_readable(encoder, batch, pooling)
            batch = []
    yield from encode_readable(encoder, batch, pooling)


def encode_readable(encoder: PreTrainedModel, batch: Sequence[torch.Tensor | Any], pooling: str) -> Iterator[Any]:
    """
    Features of a batch of which some videos could not be read.

    Args:
        encoder (`PreTrainedModel`):
            The encoder.
        batch (`Sequence`):
            Clips of shape `(1, [views,] frames, channels, height, width)`, and anything else for unreadable videos.
        pooling (`str`):
            See [`get_video_features`].

    Yields:
        `torch.Tensor`: features of each clip; anything else as it is.
    """
    clips = [item for item in batch if isinstance(item, torch.Tensor)]
    same_size = len({clip.shape for clip in clips}) == 1
    ready = [torch.cat(clips)] if same_size else clips  # other sizes (no crop): one by one
    features = iter([feature for pixel_values in ready for feature in _encode(encoder, pixel_values, pooling)])
    for item in batch:
        yield next(features) if isinstance(item, torch.Tensor) else item


@torch.no_grad()
def _encode(encoder: PreTrainedModel, pixel_values: torch.Tensor, pooling: str) -> torch.Tensor:
    """Features `(batch, [tokens,] hidden)` of clips `(batch, [views,] frames, channels, height, width)`."""
    batch = len(pixel_values)
    views = pixel_values.flatten(0, 1) if pixel_values.ndim == 6 else pixel_values
    with evaluation_mode(encoder):  # here, since the caller may train between two videos
        outputs = encoder(pixel_values=views.to(encoder.device))
    tokens = outputs.last_hidden_state  # (batch * views, tokens, hidden)
    if pooling == "tokens":
        return tokens.reshape(batch, -1, tokens.shape[-1]).float().cpu()
    if pooling == "default" and outputs.pooler_output is None:
        raise ValueError(
            f"`pooling='default'` needs a pooled output, which the {type(encoder).__name__} of a pretraining model "
            "lacks; load the checkpoint with AutoModel, or choose 'mean', 'first' or 'tokens'."
        )
    pooled = {"default": lambda: outputs.pooler_output, "mean": lambda: tokens.mean(1), "first": lambda: tokens[:, 0]}
    return pooled[pooling]().float().view(batch, -1, tokens.shape[-1]).mean(dim=1).cpu()


Window = tuple[int, torch.Tensor | VideoDecodingError | None]


def _windows(
    videos: Iterable[Any],
    processor: ClipVideoProcessor,
    device: torch.device,
    squash: bool,
    plan: tuple[int, int],
) -> Iterator[Window]:
    """
    Number of the video, and a window `(window, channels, height, width)` of it: those that start at frame 0, stride,
    2 * stride, ... and lie wholly inside the video. After its last window `None`, or the error that ended it.

    Frames are decoded and processed once, however many windows share them.
    """
    window, stride = plan
    for number, video in enumerate(videos):
        recent: deque[torch.Tensor] = deque(maxlen=window)
        try:
            for index, frame in enumerate(processed_frames(video, processor, device, squash)):
                recent.append(frame)
                start = index + 1 - window
                if start >= 0 and start % stride == 0:
                    yield number, torch.stack(tuple(recent))
        except VideoDecodingError as error:
            yield number, error
        else:
            yield number, None


def _features_of_windows(
    encoder: PreTrainedModel, windows: Iterator[Window], batch_size: int, pooling: str, on_error: str
) -> Iterator[torch.Tensor | VideoDecodingError]:
    """Features of each video in order. A batch holds windows of several videos where they are short."""
    waiting: list[tuple[int, torch.Tensor]] = []
    features: dict[int, list[torch.Tensor]] = {}
    ended: dict[int, VideoDecodingError | None] = {}
    done = 0

    def encode() -> None:
        if waiting:
            encoded = _encode(encoder, torch.stack([clip for _, clip in waiting]), pooling)
            for (owner, _), feature in zip(waiting, encoded):
                features[owner].append(feature)
            waiting.clear()

    def finished(everything: bool = False) -> Iterator[torch.Tensor | VideoDecodingError]:
        nonlocal done
        first_waiting = waiting[0][0] if waiting and not everything else math.inf
        while done in ended and done < first_waiting:
            error, found = ended.pop(done), features.pop(done, [])
            done += 1
            empty = torch.empty(0, encoder.config.hidden_size)
            yield error if error is not None else torch.stack(found) if found else empty

    for number, item in windows:
        if isinstance(item, torch.Tensor):
            if waiting and waiting[0][1].shape != item.shape:  # no crop: another frame size
                encode()
            features.setdefault(number, [])
            waiting.append((number, item))
            if len(waiting) == batch_size:
                encode()
        else:
            if item is not None and on_error == "raise":
                raise item
            if item is not None:
                waiting[:] = [one for one in waiting if one[0] != number]
            ended[number] = item
        yield from finished()
    encode()
    yield from finished(everything=True)


__all__ = ["encode_readable", "feature_files", "get_video_features", "iter_video_features", "save_features"]
