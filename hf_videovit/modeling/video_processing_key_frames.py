"""
Clips around key-frames, with boxes around people: the input of action detection.

With `key_frame` or `boxes` a processor gives whole frames, resized and padded, and takes the boxes through the same
changes as the pixels. Without them it is the family's processor for classification.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.processing_utils import Unpack

from .box_geometry import crop_boxes, restore_boxes, scale_boxes, to_corners
from .frame_sampling import key_frame_offsets, nearest_frames
from .video_decoding import decode_video, probe_video
from .video_processing_base import ClipVideoProcessor, ClipVideoProcessorKwargs, is_frames, is_one_video


BOX_CONVENTIONS = ("exclusive", "inclusive")
Size2 = tuple[int, int]


class KeyFrameVideoProcessorKwargs(ClipVideoProcessorKwargs, total=False):
    """
    Args:
        sampling_fps (`float`, *optional*):
            Frame rate that `frame_stride` is meant for around a key-frame: of videos of another rate the frames at the
            nearest times are taken. The video's own rate by default.
        read_key_frame (`bool`, *optional*, defaults to `True`):
            Whether the key-frame is among the frames read (SlowFast, mmaction2), or lies between two of them (the
            official VideoMAE models).
        pad_multiple (`int`, *optional*, defaults to 1):
            Height and width of clips with boxes are padded with zeros to multiples of it, at the bottom and right.
        box_convention (`str`, *optional*, defaults to `"exclusive"`):
            `"exclusive"` or `"inclusive"` corners for the model: that of its `detection_config`.
        use_person_score (`bool`, *optional*, defaults to `True`):
            Whether the score of a detected person multiplies those of the actions.
    """

    sampling_fps: float | int | None
    read_key_frame: bool | None
    pad_multiple: int | None
    box_convention: str | None
    use_person_score: bool | None


class KeyFrameVideoProcessor(ClipVideoProcessor):
    """
    A [`ClipVideoProcessor`] that also takes key-frames and boxes.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    valid_kwargs = KeyFrameVideoProcessorKwargs
    sampling_fps: float | None = None
    read_key_frame = True
    pad_multiple = 1
    box_convention = "exclusive"
    use_person_score = True

    def __init__(self, **kwargs: Unpack[KeyFrameVideoProcessorKwargs]):
        super().__init__(**kwargs)
        if self.box_convention not in BOX_CONVENTIONS:
            raise ValueError(f"`box_convention` must be one of {BOX_CONVENTIONS}, got {self.box_convention!r}.")
        if self.pad_multiple < 1:
            raise ValueError(f"`pad_multiple` must be at least 1, got {self.pad_multiple}.")

    def preprocess(
        self,
        videos: Any,
        boxes: Any = None,
        key_frame: Any = None,
        box_format: str = "xyxy",
        normalized: bool = False,
        **kwargs: Unpack[KeyFrameVideoProcessorKwargs],
    ) -> BatchFeature:
        """
        Args:
            videos:
                One video or a list of videos; see the class. Frames handed over as an array are a clip.
            boxes (*optional*):
                Boxes `(num_boxes, 4)` of each clip with exclusive corners, as a list of tensors, arrays or lists. For
                one clip also without the list.
            key_frame (`float` or `Sequence`, *optional*):
                Seconds of the key-frame of each video, or a list of several for each. The clip lies around it; frames
                beyond the ends of the video repeat the first or the last.
            box_format (`str`, *optional*, defaults to `"xyxy"`):
                `"xyxy"`, `"xywh"` or `"cxcywh"`.
            normalized (`bool`, *optional*, defaults to `False`):
                Whether boxes are shares of width and height, not pixels.
            kwargs:
                As for [`ClipVideoProcessor.preprocess`].

        Returns:
            [`BatchFeature`]: without `boxes` and `key_frame` as [`ClipVideoProcessor.preprocess`]. Else `pixel_values`
            `(batch_size, num_frames, num_channels, height, width)`, padded to the largest clip; `sizes` (height and
            width of each clip without padding) and `original_sizes` `(batch_size, 2)`; and with boxes `boxes`
            `(batch_size, num_boxes, 4)` in pixels of the clip, `box_mask` `(batch_size, num_boxes)` and `kept_boxes`:
            the rows of each clip's boxes that lie in the frame, a tensor for each clip.

        Raises:
            ValueError: an argument or a video's form is not allowed.
            VideoDecodingError: a video cannot be read.
        """
        if boxes is None and key_frame is None:
            return super().preprocess(videos, **kwargs)
        options = self._checked_options(kwargs)
        clips = self._key_frame_clips(videos, key_frame, options)
        given = None if boxes is None else _one_per_clip(boxes, len(clips))
        original = [_frame_size(clip) for clip in clips]
        corners: list[torch.Tensor] = []
        kept: list[torch.Tensor] = []
        for index, size in enumerate(original if given is not None else ()):
            assert given is not None
            inside, rows = to_corners(given[index], size, box_format, normalized, options["box_convention"])
            corners.append(inside)
            kept.append(rows)
        pixels = []
        for index, clip in enumerate(clips):
            changed, resized, offset = self._whole_frames(clip, options)
            pixels.append(changed)
            if given is not None:
                scaled = scale_boxes(corners[index], original[index], resized)
                corners[index] = scaled if offset is None else crop_boxes(scaled, *offset, *_frame_size(changed))
        data: dict[str, Any] = {
            "pixel_values": pad_clips(pixels, options["pad_multiple"]),
            "sizes": torch.tensor([_frame_size(one) for one in pixels]),
            "original_sizes": torch.tensor(original),
        }
        if given is not None:
            data["boxes"], data["box_mask"] = _pad_rows(corners)
        batch = BatchFeature(data=data, tensor_type=options["return_tensors"])
        if given is not None:
            batch["kept_boxes"] = kept
        return batch

    def load_key_frames(self, video: Any, key_frames: Sequence[float], **overrides: Any) -> list[torch.Tensor]:
        """
        The clips around key-frames of one video, decoded in one pass.

        Args:
            video:
                One video in any form that is not a sequence of frames.
            key_frames (`Sequence[float]`):
                Seconds.
            overrides:
                Fields of the processor for this call.

        Returns:
            `list[torch.Tensor]`: uint8 clips of shape `(num_frames, num_channels, height, width)`.

        Raises:
            VideoDecodingError: the video cannot be read.
        """
        options = self._options(overrides)
        bounds: dict[str, Any] = {"limits": self.decoding_limits, "timeout": self.decoding_timeout}
        probe = probe_video(video, isolate=options["isolate_decoding"], **bounds)
        indices = self.sample_key_frames(key_frames, probe.timestamps, probe.num_frames, probe.fps, **overrides)
        decoded = decode_video(
            video,
            indices,
            decoder=options["decoder"],
            policy=options["decoding_policy"],
            isolate=options["isolate_decoding"],
            **bounds,
        )
        return list(torch.from_numpy(decoded.frames).movedim(-1, -3))

    def resize_clip(self, clip: torch.Tensor) -> torch.Tensor:
        """
        Resize a clip, as for boxes, without normalising it.

        Args:
            clip (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
                uint8 frames.

        Returns:
            `torch.Tensor`: uint8 frames of the new size.
        """
        if not self.do_resize:
            return clip
        return self._resize_clips(clip, self._checked_options({})).round().clamp(0, 255).to(torch.uint8)

    def sample_key_frames(
        self,
        key_frames: Sequence[float],
        timestamps: np.ndarray | None,
        total_num_frames: int,
        fps: float | None,
        **overrides: Any,
    ) -> np.ndarray:
        """
        Indices of the frames around key-frames.

        Args:
            key_frames (`Sequence[float]`):
                Seconds.
            timestamps (`np.ndarray` of shape `(total_num_frames,)`, or `None`):
                Seconds at which frames are shown; by `fps` where they are not known.
            total_num_frames (`int`):
                Frames of the video.
            fps (`float`, or `None`):
                Frame rate of the video.
            overrides:
                Fields of the processor for this call.

        Returns:
            `np.ndarray` of shape `(num_key_frames, num_frames)`.

        Raises:
            ValueError: neither times nor a rate are known, or a key-frame lies outside the video.
        """
        options = self._options(overrides)
        num_frames = options["num_frames"] or self.published_num_frames or 1
        offsets = key_frame_offsets(num_frames, options["frame_stride"], options["read_key_frame"])
        if timestamps is None:
            if not fps:
                raise ValueError("`fps` must be known to find key-frames in a video without times, got None.")
            timestamps = np.arange(total_num_frames) / fps
        return nearest_frames(np.asarray(key_frames, dtype=np.float64), offsets, timestamps, options["sampling_fps"])

    def post_process_action_detection(
        self,
        outputs: Any,
        inputs: Any,
        person_scores: Sequence[Any] | None = None,
        threshold: float = 0.5,
        top_k: int | None = None,
    ) -> list[dict[str, Any]]:
        """
        Answers of a model as people read them.

        Args:
            outputs ([`ActionDetectionOutput`]):
                Of the model.
            inputs ([`BatchFeature`]):
                What [`preprocess`] made: `boxes`, `box_mask`, `sizes` and `original_sizes` are used.
            person_scores (`Sequence`, *optional*):
                Score of each box of each clip that was kept. Multiplies those of actions, if `use_person_score`.
            threshold (`float`, *optional*, defaults to 0.5):
                Lowest score of a label that is listed.
            top_k (`int`, *optional*):
                Largest number of labels that are listed for a person.

        Returns:
            `list[dict]`: for each clip `boxes` `(num_boxes, 4)` with exclusive corners in pixels of the original
            frame, `scores` `(num_boxes, num_labels)`, and `labels`, a list with a tensor of label indices for each
            box, highest score first.
        """
        answers = []
        for index, mask in enumerate(inputs["box_mask"].cpu()):
            scores = outputs.probabilities[index].cpu()[mask]
            if person_scores is not None and self.use_person_score:
                scores = scores * torch.as_tensor(person_scores[index], dtype=scores.dtype).view(-1, 1)
            size, original_size = (inputs[name][index].tolist() for name in ("sizes", "original_sizes"))
            boxes = restore_boxes(inputs["boxes"][index].cpu()[mask], size, original_size, self.box_convention)
            order = scores.argsort(dim=1, descending=True, stable=True)
            labels = [row[scores[person][row] >= threshold][:top_k] for person, row in enumerate(order)]
            answers.append({"boxes": boxes, "scores": scores, "labels": labels})
        return answers

    def _checked_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The fields of one call."""
        self._check_call(kwargs)
        return self._standardize_kwargs(**self._options(kwargs))

    def _key_frame_clips(self, videos: Any, key_frame: Any, options: dict[str, Any]) -> list[torch.Tensor]:
        """One clip for each key-frame of each video, or for each video that is a clip."""
        videos = [videos] if is_one_video(videos) else list(videos)
        if key_frame is None:
            return [self._given_clip(video, options) for video in videos]
        times = _times_per_video(key_frame, len(videos))
        clips = []
        for video, moments in zip(videos, times):
            if is_frames(video):
                raise ValueError("`key_frame` must be None for videos given as frames: give the clip's frames alone.")
            fields = ("num_frames", "frame_stride", "sampling_fps", "read_key_frame", "decoder", "decoding_policy")
            overrides = {name: options[name] for name in (*fields, "isolate_decoding")}
            clips += self.load_key_frames(video, moments, **overrides)
        return clips

    def _given_clip(self, video: Any, options: dict[str, Any]) -> torch.Tensor:
        """The frames of a clip that was handed over."""
        if not is_frames(video):
            raise ValueError("`key_frame` must be given for encoded videos with `boxes`, got None.")
        clips, _ = self._clips_from_frames(video, None, {**options, "do_sample_frames": False})
        return clips[0]

    def _whole_frames(
        self, clip: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, Size2, tuple[int, int] | None]:
        """The normalised clip, its size after resizing, and row and column of the crop if there is one."""
        if options["device"] is not None:
            clip = clip.to(options["device"])
        if options["do_resize"]:
            clip = self._resize_clips(clip, options)
        resized, offset = _frame_size(clip), None
        if options["do_center_crop"]:
            size = options["crop_size"]
            spare = [side - crop for side, crop in zip(resized, (size.height, size.width))]
            offset = tuple(round(one / 2) if one >= 0 else -(-one // 2) for one in spare)  # as `center_crop`
            clip = self.center_crop(clip, size)
        return self._normalize(clip, options), resized, offset  # type: ignore[return-value]  # two numbers

    def _normalize(self, clip: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        return self.rescale_and_normalize(clip, *(options[name] for name in names))


def pad_clips(clips: Sequence[torch.Tensor], multiple: int = 1) -> torch.Tensor:
    """
    Clips of several sizes as one batch: zeros at the bottom and at the right.

    Args:
        clips (`Sequence[torch.Tensor]` of shape `(num_frames, num_channels, height, width)`):
            The clips.
        multiple (`int`, *optional*, defaults to 1):
            Height and width of the batch are multiples of it.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`.
    """
    height, width = (-(-max(clip.shape[axis] for clip in clips) // multiple) * multiple for axis in (-2, -1))
    return torch.stack([F.pad(clip, (0, width - clip.shape[-1], 0, height - clip.shape[-2])) for clip in clips])


def stretched_window(frames: torch.Tensor, middle: int, half: int) -> torch.Tensor:
    """
    The frames around a key-frame, as InternVideo's code takes them from the ten-second clips of AVA-Kinetics: a side
    with fewer frames than needed is stretched in time, linearly.

    Args:
        frames (`torch.Tensor` of shape `(total, num_channels, height, width)`):
            All frames of the clip, uint8.
        middle (`int`):
            Index of the key-frame.
        half (`int`):
            Frames before the key-frame, and from it on.

    Returns:
        `torch.Tensor` of shape `(2 * half, num_channels, height, width)`, uint8.
    """
    sides = (frames[max(middle - half, 0) : middle], frames[middle : middle + half])
    return torch.cat([_stretched(side if len(side) else frames[middle : middle + 1], half) for side in sides])


def _stretched(frames: torch.Tensor, count: int) -> torch.Tensor:
    """`count` frames, linear in time between those given."""
    if len(frames) == count:
        return frames
    volume = frames.transpose(0, 1)[None].float()  # (1, channels, frames, height, width)
    size = (count, *frames.shape[-2:])
    stretched = F.interpolate(volume, size=size, mode="trilinear", align_corners=False)
    return stretched[0].transpose(0, 1).to(frames.dtype)


def _frame_size(clip: torch.Tensor) -> Size2:
    return clip.shape[-2], clip.shape[-1]


def _pad_rows(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of each clip as one tensor, and where there is one."""
    longest = max(map(len, rows), default=0)
    padded = torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in rows])
    counts = torch.tensor([len(one) for one in rows])
    return padded, torch.arange(longest) < counts[:, None]


def _one_per_clip(boxes: Any, num_clips: int) -> list[torch.Tensor]:
    """Boxes `(num_boxes, 4)` of each clip."""
    alone = num_clips == 1 and not _is_nested(boxes)
    rows = [boxes] if alone else list(boxes)
    if len(rows) != num_clips:
        raise ValueError(f"`boxes` must have an entry for each of the {num_clips} clips, got {len(rows)}.")
    tensors = [torch.as_tensor(np.asarray(one, dtype=np.float32)) for one in rows]
    for one in tensors:
        if one.numel() and (one.ndim != 2 or one.shape[1] != 4):
            raise ValueError(f"`boxes` of a clip must have shape (num_boxes, 4), got {tuple(one.shape)}.")
    return [one.reshape(-1, 4) for one in tensors]


def _is_nested(boxes: Any) -> bool:
    """Whether boxes come as a list with an entry for each clip."""
    if isinstance(boxes, np.ndarray | torch.Tensor):
        return boxes.ndim == 3
    first = next((one for one in boxes if len(one)), None)
    return first is None or np.ndim(first[0]) > 0


def _times_per_video(key_frame: Any, num_videos: int) -> list[list[float]]:
    """Key-frames of each video in seconds."""
    given = [key_frame] if isinstance(key_frame, int | float) else list(key_frame)
    if num_videos == 1 and all(isinstance(one, int | float) for one in given):
        given = [given]
    if len(given) != num_videos:
        raise ValueError(f"`key_frame` must have an entry for each of the {num_videos} videos, got {len(given)}.")
    return [[float(one)] if isinstance(one, int | float) else [float(time) for time in one] for one in given]


__all__ = [
    "BOX_CONVENTIONS",
    "KeyFrameVideoProcessor",
    "KeyFrameVideoProcessorKwargs",
    "pad_clips",
    "stretched_window",
]
