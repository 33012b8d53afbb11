"""
The video processor that every family shares: any video in, the clips and crops of the checkpoint's protocol out.

The settings behind a checkpoint's published numbers (sampling, resize, crops, views, normalisation) are saved with it.
They apply wherever the processor is used: validation during training, evaluation, pipeline.
"""

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF
from transformers import BaseVideoProcessor, BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from .frame_sampling import CROP_ROUNDINGS, FRAME_SAMPLINGS, SAMPLING_MODES, Random, crop_offsets, sample_clips
from .opencv_resize import resize_as_opencv
from .video_decoding import DEFAULT_LIMITS, VideoDecodingError, decode_video, source_name
from .video_decoding_sources import is_video_decoder


class ClipVideoProcessorKwargs(VideosKwargs, total=False):
    """
    Args:
        frame_sampling (`str`, *optional*, defaults to `"dense"`):
            `"dense"`, `"dense_cyclic"`, `"segment"`, `"span"`, `"span_from_start"`, `"sparse"`, `"sparse_middle"` or
            `"uniform"`; see [`~frame_sampling.sample_clips`].
        sampling_mode (`str`, *optional*, defaults to `"test"`):
            `"train"`, `"validation"`, `"test"` or `"pretrain"`. Only `"test"` gives several clips and crops.
        frame_stride (`int`, *optional*, defaults to 1):
            Distance of neighbouring frames of a dense clip.
        num_clips (`int`, *optional*, defaults to 1):
            Clips of a video in `"test"` mode.
        num_crops (`int`, *optional*, defaults to 1):
            Crops of a clip along its long side in `"test"` mode.
        do_grayscale (`bool`, *optional*, defaults to `False`):
            Whether colours are taken away: all three channels get the brightness. For encoders trained without them.
        antialias (`bool`, *optional*, defaults to `True`):
            Whether downscaling is antialiased.
        round_resized (`bool`, *optional*, defaults to `True`):
            Whether resized pixels are rounded to whole grey levels, as image libraries do.
        resize_as_opencv (`bool`, *optional*, defaults to `False`):
            Whether 8-bit frames are resized in the integer arithmetic of OpenCV, which differs by up to one grey
            level. Only bilinear resizing without antialiasing and to whole grey levels has it.
        crop_rounding (`str`, *optional*, defaults to `"nearest"`):
            How fractions of a pixel in the place of a crop are rounded: `"nearest"`, `"up"` or `"ends_first"`; see
            [`~frame_sampling.crop_offsets`].
        decoder (`str`, *optional*, defaults to `"auto"`):
            Decoder of encoded videos; see [`~video_decoding.decode_video`].
        decoding_policy (`str`, *optional*, defaults to `"strict"`):
            How damaged videos are handled: `"strict"` or `"salvage"`.
        isolate_decoding (`bool`, *optional*, defaults to `False`):
            Whether to decode in a child process that can be killed; for files of unknown origin.
        seed (`int`, *optional*):
            Makes the random modes repeatable.
    """

    frame_sampling: str | None
    sampling_mode: str | None
    frame_stride: int | None
    num_clips: int | None
    num_crops: int | None
    do_grayscale: bool | None
    antialias: bool | None
    round_resized: bool | None
    resize_as_opencv: bool | None
    crop_rounding: str | None
    decoder: str | None
    decoding_policy: str | None
    isolate_decoding: bool | None
    seed: int | None


NOT_SAVED = ("decoding_limits", "decoding_timeout", "frame_size")  # they belong to where a processor is used


class ClipVideoProcessor(BaseVideoProcessor):
    """
    Samples clips from videos and makes `pixel_values` of them.

    Videos are paths (`str` or `pathlib.Path`), http(s) and `hf://` URLs, bytes, file objects, `{"path", "bytes"}`
    dicts, `VideoDecoder` objects of torchcodec, 4-D arrays and tensors with channels first or last, lists of frames,
    or lists of all these.

    The attributes `decoding_limits` (a [`VideoLimits`]) and `decoding_timeout` (seconds a call) bound what decoding
    and resizing may take. They belong to the machine, so they are not saved.

    With `do_sample_frames=None` (the default) encoded videos are sampled, and frames handed over as an array are
    sampled unless they already are one clip: `num_frames` frames, or any number if the processor has no `num_frames`.

    Raises:
        ValueError: a field is misspelt or has a value that is not allowed.
    """

    valid_kwargs = ClipVideoProcessorKwargs
    model_input_names = ["pixel_values"]
    resample = PILImageResampling.BILINEAR
    size = {"shortest_edge": 224}
    crop_size = {"height": 224, "width": 224}
    default_to_square = False
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = None
    image_mean = [0.485, 0.456, 0.406]
    image_std = [0.229, 0.224, 0.225]
    frame_sampling = "dense"
    sampling_mode = "test"
    frame_stride = 1
    num_clips = 1
    num_crops = 1
    do_grayscale = False
    antialias = True
    round_resized = True
    resize_as_opencv = False
    crop_rounding = "nearest"
    decoder = "auto"
    decoding_policy = "strict"
    isolate_decoding = False
    decoding_limits = DEFAULT_LIMITS
    decoding_timeout: float | None = None
    # Height and width that frames must have, where an exported graph resizes them.
    frame_size: tuple[int, int] | None = None
    # Frames of a clip where neither the instance nor the call names a number. Not `num_frames` itself: as a class
    # attribute that would make transformers' `fps=` argument unusable.
    published_num_frames: int | None = None

    def __init__(self, **kwargs: Unpack[ClipVideoProcessorKwargs]):
        _refuse_misspelt(kwargs, self.valid_kwargs.__annotations__)
        super().__init__(**kwargs)
        for name, allowed in (
            ("frame_sampling", FRAME_SAMPLINGS),
            ("sampling_mode", SAMPLING_MODES),
            ("crop_rounding", CROP_ROUNDINGS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        for name in ("frame_stride", "num_clips", "num_crops"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")

    def to_dict(self) -> dict[str, Any]:
        """The fields that are saved with a checkpoint."""
        fields = super().to_dict()
        return {name: value for name, value in fields.items() if name not in NOT_SAVED}

    @property
    def probe_options(self) -> dict[str, Any]:
        """Arguments of [`~video_decoding.probe_video`] for this processor's videos."""
        return {
            "isolate": self.isolate_decoding,
            "limits": self.decoding_limits,
            "timeout": self.decoding_timeout,
        }

    @property
    def decode_options(self) -> dict[str, Any]:
        """Arguments of [`~video_decoding.decode_video`] for this processor's videos."""
        return {"decoder": self.decoder, "policy": self.decoding_policy, **self.probe_options}

    @property
    def num_views(self) -> int:
        """Views of a video in `"test"` mode."""
        return self.num_clips * (self.num_crops if self.do_center_crop else 1)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        frame_sampling: str | None = None,
        sampling_mode: str | None = None,
        frame_stride: int | None = None,
        num_clips: int | None = None,
        rng: Random | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """
        Indices of the frames to read.

        Args:
            metadata (`VideoMetadata`):
                Of the video; `total_num_frames` is used, and its rate where `fps` is asked for.
            num_frames (`int`, *optional*):
                Frames of a clip. Defaults to the processor's, else to the family's published number.
            fps (`int` or `float`, *optional*):
                Sample the whole video uniformly at this rate instead.
            frame_sampling (`str`, *optional*):
                Defaults to the processor's.
            sampling_mode (`str`, *optional*):
                Defaults to the processor's.
            frame_stride (`int`, *optional*):
                Defaults to the processor's.
            num_clips (`int`, *optional*):
                Defaults to the processor's.
            rng (`numpy.random.Generator` or `numpy.random.RandomState`, *optional*):
                Source of the random modes.

        Returns:
            `numpy.ndarray` of shape `(num_clips, num_frames)`, or `(num_frames,)` for one clip.

        Raises:
            ValueError: `fps` and `num_frames` together, or `fps` without a known rate.
        """
        if fps is not None or (self.num_frames is None and num_frames is not None):
            # No protocol to follow: transformers' own uniform sampling, which refuses more frames than there are.
            return default_sample_indices_fn(metadata=metadata, num_frames=num_frames, fps=fps)
        num_frames = num_frames or self.num_frames or self.published_num_frames
        if num_frames is None:
            return np.arange(metadata.total_num_frames)
        clips = sample_clips(
            metadata.total_num_frames,
            frame_sampling=frame_sampling or self.frame_sampling,
            sampling_mode=sampling_mode or self.sampling_mode,
            num_frames=num_frames,
            frame_stride=frame_stride or self.frame_stride,
            num_clips=num_clips or self.num_clips,
            rng=rng,
        )
        return clips if len(clips) > 1 else clips[0]

    def load_clips(
        self, video: Any, sampling_mode: str | None = None, rng: Random | None = None, **overrides: Any
    ) -> tuple[torch.Tensor, VideoMetadata]:
        """
        Decode the clips of one video without resizing or cropping them. Training augments these clips.

        Args:
            video:
                One video in any form the processor takes.
            sampling_mode (`str`, *optional*):
                Defaults to the processor's.
            rng (`numpy.random.Generator` or `numpy.random.RandomState`, *optional*):
                Source of the random modes.
            overrides:
                Other fields of the processor for this call, such as `decoding_policy="salvage"`.

        Returns:
            `tuple`: uint8 tensor of shape `(num_clips, num_frames, num_channels, height, width)` and the metadata with
            `frames_indices`.

        Raises:
            VideoDecodingError: the video cannot be read.
        """
        options = self._options({"sampling_mode": sampling_mode, "rng": rng, **overrides})
        return self._load(video, None, options)

    def normalize_clips(self, clips: torch.Tensor) -> torch.Tensor:
        """
        Cropped uint8 clips as the model takes them: grey if the processor says so, rescaled and normalised, on their
        device.

        Args:
            clips (`torch.Tensor` of shape `(..., num_channels, height, width)`):
                The clips.

        Returns:
            `torch.Tensor` of the same shape, in float32 if it is rescaled or normalised.
        """
        clips = without_colours(clips) if self.do_grayscale else clips
        return self.rescale_and_normalize(
            clips, self.do_rescale, self.rescale_factor, self.do_normalize, self.image_mean, self.image_std
        )

    def preprocess(self, videos: Any, **kwargs: Unpack[ClipVideoProcessorKwargs]) -> BatchFeature:
        """
        Args:
            videos:
                One video or a list of videos; see the class.
            kwargs:
                Fields of the processor to replace for this call, `return_tensors`, `device`, `return_metadata`,
                `video_metadata` (of arrays) and `seed`.

        Returns:
            [`BatchFeature`] with `pixel_values`: `(batch_size, num_frames, num_channels, height, width)`, or
            `(batch_size, num_views, num_frames, num_channels, height, width)` for several views, all crops of the
            first clip first; and `video_metadata` if asked for.

        Raises:
            ValueError: an argument or a video's form is not allowed.
            VideoDecodingError: a video cannot be read.
        """
        self._check_call(kwargs)
        videos = _flatten_videos(videos)
        metadata = _list_metadata(kwargs.pop("video_metadata", None), len(videos))
        options = self._options(kwargs)
        options = self._standardize_kwargs(**options)
        loaded = [
            self._load(video, known, options | {"rng": self._rng(options, index)})
            for index, (video, known) in enumerate(zip(videos, metadata))
        ]
        for video, (clips, _) in zip(videos, loaded):
            self._check_frame_size(video, clips)
        views = self._make_views([clips for clips, _ in loaded], options)
        batch = BatchFeature(data={"pixel_values": views}, tensor_type=options["return_tensors"])
        if options["return_metadata"]:
            batch["video_metadata"] = [found for _, found in loaded]
        return batch

    def _check_frame_size(self, video: Any, clips: torch.Tensor) -> None:
        size = tuple(clips.shape[-2:])
        if self.frame_size is not None and size != tuple(self.frame_size):
            reason = "frames of {}x{} (height x width), the exported model takes {}x{}".format(*size, *self.frame_size)
            raise VideoDecodingError(source_name(video), None, reason, "limit")

    def _check_call(self, given: dict[str, Any]) -> None:
        """ValueError for arguments of a call that do not exist or are of another type."""
        _refuse_unknown(given, self.valid_kwargs.__annotations__)
        validate_typed_dict(self.valid_kwargs, given)  # type: ignore[type-var]  # a TypedDict, as it asks for

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """The processor's fields with those of one call in their place; `None` leaves all but the `do_*` switches."""
        options = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        return options | {name: value for name, value in given.items() if value is not None or name.startswith("do_")}

    def _rng(self, options: dict[str, Any], index: int) -> np.random.Generator | None:
        return None if options["seed"] is None else np.random.default_rng([options["seed"], index])

    def _load(
        self, video: Any, metadata: VideoMetadata | None, options: dict[str, Any]
    ) -> tuple[torch.Tensor, VideoMetadata]:
        """One video as uint8 clips `(num_clips, num_frames, num_channels, height, width)`."""
        if is_frames(video):
            return self._clips_from_frames(video, metadata, options)

        def plan(probed: VideoMetadata) -> np.ndarray:
            return self.sample_frames(probed, **options)

        decoded = decode_video(
            video,
            indices=None if options["do_sample_frames"] is False else plan,
            decoder=options["decoder"],
            policy=options["decoding_policy"],
            isolate=options["isolate_decoding"],
            limits=self.decoding_limits,
            timeout=self.decoding_timeout,
        )
        frames = torch.from_numpy(decoded.frames).movedim(-1, -3)  # ([clips,] frames, channels, height, width)
        return frames if frames.ndim == 5 else frames[None], decoded.metadata

    def _clips_from_frames(
        self, video: Any, metadata: VideoMetadata | None, options: dict[str, Any]
    ) -> tuple[torch.Tensor, VideoMetadata]:
        frames = frames_to_tensor(video, options["input_data_format"])
        if options["do_rescale"] and frames.is_floating_point() and frames.numel() and frames.max() <= 1:
            raise ValueError(
                "`videos` holds floats up to 1, which rescaling would divide by 255 once more: hand over uint8 "
                "frames, or pass `do_rescale=False`."
            )
        metadata = metadata or VideoMetadata(
            total_num_frames=len(frames), height=frames.shape[-2], width=frames.shape[-1]
        )
        if options["do_convert_rgb"]:
            frames = self.convert_to_rgb(frames)
        sampled = options["do_sample_frames"]
        if sampled is None:
            sampled = options["num_frames"] is not None and len(frames) != options["num_frames"]
        indices = np.atleast_2d(self.sample_frames(metadata, **options) if sampled else np.arange(len(frames)))
        metadata.frames_indices = indices.ravel().tolist()
        if sampled:
            frames = frames[torch.from_numpy(indices.ravel())]
        return frames.unflatten(0, indices.shape), metadata

    def _make_views(self, clips: list[torch.Tensor], options: dict[str, Any]) -> torch.Tensor | list[torch.Tensor]:
        """Resize, crop and normalise; clips of one shape go through together, and stay together where all agree."""
        groups: dict[tuple, list[int]] = {}
        for index, clip in enumerate(clips):
            groups.setdefault((clip.shape, clip.dtype), []).append(index)
        views: dict[int, torch.Tensor] = {}
        for members in groups.values():
            batch = torch.stack([clips[index] for index in members]) if len(members) > 1 else clips[members[0]][None]
            if options["device"] is not None:
                batch = batch.to(options["device"])
            batch = self.process_clips(batch, **options)
            batch = batch[:, 0] if batch.shape[1] == 1 else batch
            # Frames come with channels last; models round differently in another memory layout.
            batch = batch.contiguous()
            if len(groups) == 1 and options["return_tensors"] is not None:
                return batch
            views.update(zip(members, batch))
        return [views[index] for index in range(len(clips))]

    def process_clips(self, clips: torch.Tensor, **overrides: Any) -> torch.Tensor:
        """
        Resize, crop and normalise decoded clips of one size, as a call does. An exported graph can hold this.

        Args:
            clips (`torch.Tensor` of shape `(batch_size, num_clips, num_frames, num_channels, height, width)`):
                uint8 clips, on any device.
            overrides:
                Fields of the processor to replace for this call.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_views, num_frames, num_channels, height, width)`: all crops of
            the first clip first.
        """
        options = self._standardize_kwargs(**self._options(overrides))
        if options["do_resize"]:
            clips = self._resize_clips(clips, options)
        if options["do_center_crop"]:
            clips = self._crop_clips(clips, options)  # (videos, clips, crops, frames, channels, height, width)
        if options["do_grayscale"]:
            clips = without_colours(clips)
        clips = self.rescale_and_normalize(
            clips,
            options["do_rescale"],
            options["rescale_factor"],
            options["do_normalize"],
            options["image_mean"],
            options["image_std"],
        )
        return clips.flatten(1, -5)

    def _resize_clips(self, clips: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        """
        Bring `(..., channels, height, width)` to `size`: the short side with a whole-number long side, or both sides.
        """
        height, width = self.resized_size(clips.shape[-2:], options["size"])
        if (height, width) == tuple(clips.shape[-2:]):
            return clips
        if not torch.compiler.is_exporting():  # whose graph has one size
            self._check_resized(clips, height, width)
        if not options["round_resized"]:
            clips = clips.float()
        interpolation = interpolation_mode(options["resample"])
        plain = interpolation == InterpolationMode.BILINEAR and not options["antialias"] and clips.dtype == torch.uint8
        if options["resize_as_opencv"] and plain:
            return resize_as_opencv(clips, height, width)
        frames = clips.flatten(0, -4)
        rounded = torch.compiler.is_exporting() and frames.dtype == torch.uint8  # some runtimes would round down
        frames = frames.float() if rounded else frames
        resized = tvF.resize(frames, [height, width], interpolation, antialias=options["antialias"])
        resized = resized.round().clamp(0, 255).to(torch.uint8) if rounded else resized
        return resized.view(*clips.shape[:-2], height, width)

    def _check_resized(self, clips: torch.Tensor, height: int, width: int) -> None:
        """A frame of 2 x 8000 pixels is small until its short side has the length that the model wants."""
        size, allowed = clips.shape[:-2].numel() * height * width, self.decoding_limits.max_decoded_bytes
        if size > allowed:
            shape = "x".join(map(str, clips.shape[-2:]))
            reason = f"resized to {height}x{width} they take {size} bytes, allowed are {allowed}"
            raise VideoDecodingError(f"<frames of {shape}>", None, reason, "limit")

    def resized_size(self, current: Sequence[int], size: SizeDict) -> tuple[int, int]:
        """
        Height and width after resizing; see [`output_size`].

        Args:
            current (`Sequence[int]`):
                Height and width before.
            size (`SizeDict`):
                The processor's `size`.

        Returns:
            `tuple[int, int]`: height and width.
        """
        return output_size(current, size)

    def center_crop(self, image: torch.Tensor, size: SizeDict, **kwargs: Any) -> torch.Tensor:
        """
        The centre of an image. Half pixels are rounded to the even one, as official loaders and torchvision do;
        transformers rounds them down.

        Args:
            image (`torch.Tensor` of shape `(..., height, width)`):
                The image.
            size (`SizeDict`):
                Height and width of the crop.

        Returns:
            `torch.Tensor` of shape `(..., size.height, size.width)`.
        """
        return tvF.center_crop(image, [size.height, size.width])

    def _crop_clips(self, clips: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        """
        Crops of `crop_size` as a new axis before the frames: one in the centre, or in `"test"` mode `num_crops` along
        the long side.
        """
        size = options["crop_size"]
        num_crops = options["num_crops"] if options["sampling_mode"] == "test" else 1
        rounding = options["crop_rounding"]
        height, width = clips.shape[-2:]
        padded = height < size.height or width < size.width
        if num_crops == 1 and (padded or rounding == "nearest"):
            return self.center_crop(clips, size).unsqueeze(-5)
        along_width = width >= height
        long_side, crop = (width, size.width) if along_width else (height, size.height)
        short_side, other = (height, size.height) if along_width else (width, size.width)
        other_offset = crop_offsets(short_side, other, 1, rounding)[0]
        crops = []
        for offset in crop_offsets(long_side, crop, num_crops, rounding):
            top, left = (other_offset, offset) if along_width else (offset, other_offset)
            crops.append(clips[..., top : top + size.height, left : left + size.width])
        return torch.stack(crops, dim=-5)


def _refuse_unknown(given: Iterable[str], allowed: Iterable[str]) -> None:
    """ValueError for names of call arguments that do not exist, with the nearest one that does."""
    for name in given:
        if name not in allowed:
            nearest = get_close_matches(name, allowed, n=1)
            hint = f" Did you mean `{nearest[0]}`?" if nearest else f" Allowed are {sorted(allowed)}."
            raise ValueError(f"`{name}` is not an argument of the processor.{hint}")


def _refuse_misspelt(given: Iterable[str], allowed: Iterable[str]) -> None:
    """
    As [`_refuse_unknown`], but only for names that look like a slip: a saved processor may carry fields of other
    tools.
    """
    slips = [name for name in given if name not in allowed and get_close_matches(name, allowed, n=1, cutoff=0.85)]
    _refuse_unknown(slips, allowed)


def _is_frame(item: Any) -> bool:
    """Whether `item` is one decoded frame."""
    return isinstance(item, Image.Image) or (isinstance(item, np.ndarray | torch.Tensor) and item.ndim in (2, 3))


def is_frames(video: Any) -> bool:
    """
    Whether a value is one video as decoded frames.

    Args:
        video:
            A 4-D array or tensor, or a list of frames, is one.

    Returns:
        `bool`
    """
    if isinstance(video, list | tuple):
        return len(video) > 0 and all(_is_frame(item) for item in video)
    return isinstance(video, np.ndarray | torch.Tensor) and video.ndim == 4


def is_one_video(videos: Any) -> bool:
    """
    Whether a call was given one video and not several.

    Args:
        videos:
            A path, URL, bytes, file object, `{"path", "bytes"}` dict, `VideoDecoder` of torchcodec, 4-D array or list
            of frames is one video.

    Returns:
        `bool`
    """
    encoded = isinstance(videos, str | Path | bytes | bytearray | memoryview | dict) or hasattr(videos, "read")
    return encoded or is_video_decoder(videos) or is_frames(videos)


def _flatten_videos(videos: Any) -> list[Any]:
    """
    The videos of one call, whether it was given one, a list, nested lists, or an array with a batch axis.

    Raises:
        ValueError: an item is no video; nothing is dropped.
    """
    if is_one_video(videos):
        return [videos]
    if isinstance(videos, np.ndarray | torch.Tensor):
        if videos.ndim == 5:
            return list(videos)
        raise ValueError(f"`videos` as an array must have 4 axes, or 5 for a batch, got shape {tuple(videos.shape)}.")
    if isinstance(videos, list | tuple) and videos:
        return [video for item in videos for video in _flatten_videos(item)]
    raise ValueError(
        "`videos` must be a path, URL, bytes, file object, {'path', 'bytes'} dict, torchcodec `VideoDecoder`, array, "
        f"list of frames, or a non-empty list of these, got {source_name(videos)}."
    )


def _list_metadata(metadata: Any, num_videos: int) -> list[VideoMetadata | None]:
    """
    One `VideoMetadata` (or `None`) for each video. The caller gives one, a dict, or (nested) lists of them.
    """
    if metadata is None:
        return [None] * num_videos
    flat = metadata if isinstance(metadata, list | tuple) else [metadata]
    while any(isinstance(item, list | tuple) for item in flat):
        flat = [inner for item in flat for inner in (item if isinstance(item, list | tuple) else [item])]
    if len(flat) != num_videos:
        raise ValueError(f"`video_metadata` must hold one entry for each of the {num_videos} videos, got {len(flat)}.")
    return [item if isinstance(item, VideoMetadata) else VideoMetadata(**item) for item in flat]


def frames_to_tensor(video: Any, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """
    Decoded frames as a tensor of shape `(num_frames, num_channels, height, width)`, dtype kept.

    Args:
        video:
            A 4-D array or tensor, or a list of frames.
        input_data_format (`str`, *optional*):
            `"channels_first"` or `"channels_last"`; read off the shape by default.

    Returns:
        `torch.Tensor` of shape `(num_frames, num_channels, height, width)`.

    Raises:
        ValueError: the channel axis cannot be told from the shape.
    """
    if isinstance(video, list | tuple):
        frames = [np.array(frame) if isinstance(frame, Image.Image) else frame for frame in video]
        if any(frame.shape != frames[0].shape for frame in frames):
            raise ValueError(
                f"The frames of a video must have one shape, got {sorted({tuple(f.shape) for f in frames})}."
            )
        video = torch.stack([torch.as_tensor(frame) for frame in frames])
        if video.ndim == 3:
            video = video.unsqueeze(-1)
    video = torch.as_tensor(video)
    if input_data_format is None:
        first, last = video.shape[1] in (1, 3, 4), video.shape[-1] in (1, 3, 4)
        if first == last:
            raise ValueError(
                f"Cannot tell the channel axis of frames of shape {tuple(video.shape)}: pass `input_data_format` "
                '("channels_first" or "channels_last").'
            )
        input_data_format = ChannelDimension.FIRST if first else ChannelDimension.LAST
    if ChannelDimension(input_data_format) == ChannelDimension.LAST:
        video = video.permute(0, 3, 1, 2)
    return video


def without_colours(clips: torch.Tensor) -> torch.Tensor:
    """
    The brightness (ITU-R 601 luma) in all channels, in the same dtype. Grey levels are rounded, so grey pixels do not
    change; torchvision's function rounds down and darkens them by a level.

    Args:
        clips (`torch.Tensor` of shape `(..., 3, height, width)`):
            RGB.

    Returns:
        `torch.Tensor` of the same shape and dtype.
    """
    shares = torch.stack([torch.full((1, 1), share, device=clips.device) for share in (0.299, 0.587, 0.114)])
    luma = (clips * shares).sum(-3, keepdim=True)
    luma = luma if clips.is_floating_point() else luma.round()
    return luma.to(clips.dtype).expand(clips.shape)


def output_size_by_ratio(current: Sequence[int], size: SizeDict) -> tuple[int, int]:
    """
    As [`output_size`], but the ratio of the sides is computed first, as in the loaders of SlowFast and its relatives:
    a long side can be a pixel shorter.

    Args:
        current (`Sequence[int]`):
            Height and width before.
        size (`SizeDict`):
            `shortest_edge`, or `height` and `width`.

    Returns:
        `tuple[int, int]`: height and width.
    """
    height, width = current
    if not size.shortest_edge or (size.height and size.width) or min(current) == size.shortest_edge:
        return output_size(current, size)
    if width < height:
        return math.floor(height / width * size.shortest_edge), size.shortest_edge
    return size.shortest_edge, math.floor(width / height * size.shortest_edge)


def output_size(current: Sequence[int], size: SizeDict) -> tuple[int, int]:
    """
    Height and width after resizing.

    A short side is met exactly, and the long side is the whole part of `size * long / short` (official loaders), which
    can be a pixel less than the rounded number.

    Args:
        current (`Sequence[int]`):
            Height and width before.
        size (`SizeDict`):
            `shortest_edge`, or `height` and `width`.

    Returns:
        `tuple[int, int]`: height and width.

    Raises:
        ValueError: `size` has neither.
    """
    if size.height and size.width:
        return size.height, size.width
    if not size.shortest_edge:
        raise ValueError(f"`size` must have 'shortest_edge', or 'height' and 'width', got {size}.")
    height, width = current
    if width < height:
        return int(size.shortest_edge * height / width), size.shortest_edge
    return size.shortest_edge, int(size.shortest_edge * width / height)


def interpolation_mode(resample: PILImageResampling | int) -> InterpolationMode:
    """
    torchvision's name of a PIL filter.

    Args:
        resample (`PILImageResampling` or `int`):
            The filter.

    Returns:
        `InterpolationMode`
    """
    return getattr(InterpolationMode, PILImageResampling(resample).name)


__all__ = ["ClipVideoProcessor", "ClipVideoProcessorKwargs"]
