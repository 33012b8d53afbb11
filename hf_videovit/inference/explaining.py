"""
Why a classifier gave a label: the frames and places of a video that its score rests on.

The method is integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365). The gradient of the
label's logit is averaged on the way from a grey clip to the real one and multiplied by their difference. It needs only
the gradient of the pixels, so it is the same for every family. The importances of a view sum to the difference of the
two logits. [`check_by_deletion`] proves an explanation: hiding the most important blocks must cost more than hiding
random ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import nn

from ..modeling.video_decoding import opened_once, probe_video
from .exported_model import ExportedClassifier
from .timeline import Views, frame_seconds, load_views, score_views


STEPS = 16
PLACES = 8
BATCH_SIZE = 4


@dataclass(frozen=True)
class FrameImportance:
    """
    One sampled frame.

    Args:
        index (`int`):
            Index of the frame in the video.
        seconds (`float`):
            Its time.
        share (`float`):
            Its share of the importance of all frames, from 0 to 1.
        picture (`np.ndarray` of shape `(height, width, 3)`):
            The frame as the model saw it (resized and cropped), in uint8.
        blocks (`np.ndarray` of shape `(rows, columns)`):
            Importance of its places; negative where they speak against the label.
    """

    index: int
    seconds: float
    share: float
    picture: np.ndarray
    blocks: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """
    Importance of the frames and places of a video for a label.

    Args:
        label (`str`):
            The label.
        score (`float`):
            Its score, as the pipeline gives it.
        views ([`~timeline.Views`]):
            Input of the model.
        pictures (`np.ndarray` of shape `(num_views, num_frames, height, width, 3)`):
            The views as pictures, in uint8.
        importance (`np.ndarray` of shape `(num_views, num_frames, rows, columns)`):
            Sum of the attributions in each block, as a difference of logits.
        seconds (`np.ndarray` of shape `(num_clips, num_frames)`):
            Times of the frames.
    """

    label: str
    score: float
    views: Views
    pictures: np.ndarray
    importance: np.ndarray
    seconds: np.ndarray

    def frames(self) -> list[FrameImportance]:
        """
        The sampled frames. Of several crops, the one with the most importance is shown; the shares count all crops. A
        frame that is in several clips is listed once, as it is in the clip in which it has the most importance.

        Returns:
            `list[FrameImportance]`: in temporal order. All shares are 0 if nothing speaks for the label.
        """
        clips, num_frames = self.views.indices.shape
        places = self.importance.reshape(
            clips, -1, *self.importance.shape[1:]
        )  # (clips, crops, frames, rows, columns)
        strength = places.clip(min=0).sum(axis=(-2, -1))  # (clips, crops, frames)
        crop = int(strength.sum(axis=(0, 2)).argmax())
        pictures = self.pictures.reshape(clips, -1, *self.pictures.shape[1:])
        best: dict[int, tuple[int, int]] = {}
        sums: dict[int, float] = {}
        for clip, frame in np.ndindex(clips, num_frames):
            index = int(self.views.indices[clip, frame])
            sums[index] = sums.get(index, 0.0) + float(strength[clip, :, frame].sum())
            if index not in best or strength[clip, crop, frame] > strength[best[index][0], crop, best[index][1]]:
                best[index] = (clip, frame)
        total = sum(sums.values()) or 1.0
        return [
            FrameImportance(
                index=index,
                seconds=float(self.seconds[clip, frame]),
                share=sums[index] / total,
                picture=pictures[clip, crop, frame],
                blocks=places[clip, crop, frame],
            )
            for index, (clip, frame) in sorted(best.items())
        ]


@dataclass(frozen=True)
class Deletion:
    """
    Scores of a label with parts of the video hidden.

    Args:
        whole (`float`):
            Nothing is hidden.
        important (`float`):
            The most important blocks are hidden.
        random (`float`):
            As many random blocks are hidden; the mean of several draws.
    """

    whole: float
    important: float
    random: float


def explain_video(
    classifier: Any,
    video: Any,
    label: str | None = None,
    *,
    steps: int = STEPS,
    places: int = PLACES,
    batch_size: int = BATCH_SIZE,
) -> Explanation:
    """
    Find the frames and places of a video that a label's score rests on.

    Args:
        classifier ([`~pipeline.ClipClassificationPipeline`]):
            The pipeline of a model with gradients, so not of an export.
        video (`Any`):
            One video, in any form that the processor accepts.
        label (`str`, *optional*):
            One of the model's labels. Defaults to the best one.
        steps (`int`, *optional*, defaults to 16):
            Points between the grey clip and the real one.
        places (`int`, *optional*, defaults to 8):
            Blocks along the height and along the width of a frame.
        batch_size (`int`, *optional*, defaults to 4):
            Points in a forward pass.

    Returns:
        [`Explanation`]

    Raises:
        ValueError: the label does not exist, a number is less than 1, or the model has no gradients.
        VideoDecodingError: the video cannot be read.
    """
    for name, value in (("steps", steps), ("places", places), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if isinstance(classifier.model, ExportedClassifier):
        raise ValueError("`classifier` must have gradients, got an export: explain the model that it was made of.")
    processor = classifier.video_processor
    with opened_once(video, limits=processor.decoding_limits) as opened:
        views = load_views(processor, opened)
        seconds = frame_seconds(probe_video(opened, **processor.probe_options))
    scores = score_views(classifier, views.pixel_values)
    label = next(iter(scores)) if label is None else label  # the best is the first
    if label not in scores:
        nearest = get_close_matches(label, scores, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"`label` must be one of the model's {len(scores)} labels, got {label!r}.{hint}")
    frames = views.frame_tensor()
    attributions = [
        integrated_gradients(classifier.model, view[None], _label_indices(classifier, label), steps, batch_size)[0]
        for view in frames
    ]
    importance = np.stack([block_sums(one.sum(dim=1).numpy(), places) for one in attributions])
    pictures = _as_pictures(processor, frames)
    return Explanation(label, scores[label], views, pictures, importance, seconds[views.indices])


def integrated_gradients(
    model: nn.Module, pixel_values: torch.Tensor, labels: list[int], steps: int = STEPS, batch_size: int = BATCH_SIZE
) -> torch.Tensor:
    """
    Integrated gradients of a logit, from the clip's mean colour to the clip.

    Args:
        model (`nn.Module`):
            A video classifier in evaluation mode.
        pixel_values (`torch.Tensor` of shape `(1, num_frames, num_channels, height, width)`):
            One view.
        labels (`list[int]`):
            Classes of the label; of several with one name, the one with the highest logit counts.
        steps (`int`, *optional*, defaults to 16):
            Points on the way.
        batch_size (`int`, *optional*, defaults to 4):
            Points in a forward pass.

    Returns:
        `torch.Tensor` of the shape of `pixel_values`, in float32 on the CPU.
    """
    weight = next(model.parameters())
    clip = pixel_values.to(weight.device, torch.float32)
    start = mean_colour(clip).expand_as(clip)
    total = torch.zeros_like(clip)
    points = (torch.arange(steps, device=clip.device) + 0.5) / steps
    with torch.enable_grad(), without_weight_gradients(model):
        for part in points.split(batch_size):
            between = torch.lerp(start, clip, part.view(-1, 1, 1, 1, 1)).to(weight.dtype).requires_grad_()
            logits = model(pixel_values=between).logits[:, labels].amax(dim=1)
            total += torch.autograd.grad(logits.sum(), between)[0].float().sum(dim=0, keepdim=True)
    return ((clip - start) * total / steps).cpu()


def check_by_deletion(
    classifier: Any, explanation: Explanation, *, share: float = 0.1, draws: int = 5, seed: int = 0
) -> Deletion:
    """
    Hide the most important blocks of a video, and as many random ones. Hidden blocks get the mean colour of the view.

    Args:
        classifier ([`~pipeline.ClipClassificationPipeline`]):
            The pipeline that was explained.
        explanation ([`Explanation`]):
            The explanation.
        share (`float`, *optional*, defaults to 0.1):
            Share of the blocks to hide.
        draws (`int`, *optional*, defaults to 5):
            Random choices of blocks.
        seed (`int`, *optional*, defaults to 0):
            Seed of the random choices.

    Returns:
        [`Deletion`]

    Raises:
        ValueError: `share` is not between 0 and 1, or `draws` is less than 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"`share` must be greater than 0 and less than 1, got {share}.")
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1, got {draws}.")
    importance = explanation.importance
    count = max(1, round(share * importance.size))
    generator = np.random.default_rng(seed)
    choices = [importance.ravel().argsort()[::-1][:count]]
    choices += [generator.permutation(importance.size)[:count] for _ in range(draws)]
    scores = []
    for chosen in choices:
        hidden = np.zeros(importance.size, bool)
        hidden[chosen] = True
        pixel_values = _hide(explanation.views, hidden.reshape(importance.shape))
        scores.append(score_views(classifier, pixel_values)[explanation.label])
    return Deletion(explanation.score, scores[0], float(np.mean(scores[1:])))


def block_sums(values: np.ndarray, places: int) -> np.ndarray:
    """
    Sums over the blocks of a grid.

    Args:
        values (`np.ndarray` of shape `(..., height, width)`):
            The values.
        places (`int`):
            Blocks along each side; a side with fewer pixels has one block for each.

    Returns:
        `np.ndarray` of shape `(..., rows, columns)`
    """
    tops, lefts = (block_starts(side, places) for side in values.shape[-2:])
    return np.add.reduceat(np.add.reduceat(values, tops, axis=-2), lefts, axis=-1)


def block_starts(side: int, places: int) -> np.ndarray:
    """
    First pixels of blocks of about equal size.

    Args:
        side (`int`):
            Pixels of the side.
        places (`int`):
            Blocks along the side, at most one for each pixel.

    Returns:
        `np.ndarray` of shape `(min(side, places),)`
    """
    count = min(side, places)
    return np.arange(count) * side // count


def mean_colour(frames: torch.Tensor) -> torch.Tensor:
    """
    Mean colour of each view, which hidden places get.

    Args:
        frames (`torch.Tensor` of shape `(num_views, num_frames, num_channels, height, width)`):
            The views.

    Returns:
        `torch.Tensor` of shape `(num_views, 1, num_channels, 1, 1)`
    """
    return frames.mean(dim=(1, 3, 4), keepdim=True)


@contextmanager
def without_weight_gradients(model: nn.Module) -> Iterator[None]:
    """
    A block in which only inputs have gradients, which takes about half the memory.

    Args:
        model (`nn.Module`):
            The model.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def _label_indices(classifier: Any, label: str) -> list[int]:
    return [index for index, name in classifier.model.config.id2label.items() if name == label]


def _as_pictures(processor: Any, frames: torch.Tensor) -> np.ndarray:
    """Views as uint8 pictures, of shape `(num_views, num_frames, height, width, 3)`."""
    pixels = frames.float().cpu()
    if processor.do_normalize:
        mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (processor.image_mean, processor.image_std))
        pixels = pixels * std + mean
    if processor.do_rescale:
        pixels = pixels / processor.rescale_factor
    return pixels.round().clamp(0, 255).byte().permute(0, 1, 3, 4, 2).numpy()


def _hide(views: Views, hidden: np.ndarray) -> torch.Tensor:
    """The views with blocks, an array of shape `(num_views, num_frames, rows, columns)`, in the mean colour."""
    frames = views.frame_tensor()
    for axis, side in ((-2, frames.shape[-2]), (-1, frames.shape[-1])):
        lengths = np.diff([*block_starts(side, hidden.shape[axis]), side])
        hidden = hidden.repeat(lengths, axis=axis)
    mask = torch.from_numpy(hidden)[:, :, None]  # (views, frames, 1, height, width)
    return torch.where(mask, mean_colour(frames), frames).view_as(views.pixel_values)


__all__ = [
    "Deletion",
    "Explanation",
    "FrameImportance",
    "block_starts",
    "block_sums",
    "check_by_deletion",
    "explain_video",
    "integrated_gradients",
    "mean_colour",
    "without_weight_gradients",
]
