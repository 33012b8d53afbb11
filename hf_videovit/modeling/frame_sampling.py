"""
Frames of a video that a model sees: pure functions from the number of frames to indices.

Every function returns an integer array of shape `(num_clips, num_frames)`, indices in `[0, total)`, 0-based. `rng` is
a `numpy.random.Generator`, or a `numpy.random.RandomState` where draws must equal those of older numpy code.
"""

import math

import numpy as np
import torch


Random = np.random.Generator | np.random.RandomState

FRAME_SAMPLINGS = ("dense", "dense_cyclic", "segment", "span", "span_from_start", "sparse", "sparse_middle", "uniform")
SAMPLING_MODES = ("train", "validation", "test", "pretrain")
CROP_ROUNDINGS = ("nearest", "up", "ends_first")


def random_integers(rng: Random, low: int, high: int, size: int | None = None) -> np.ndarray | int:
    """
    Uniform random integers from either kind of numpy random source.

    Args:
        rng (`numpy.random.Generator` or `numpy.random.RandomState`):
            The source.
        low (`int`):
            Smallest value.
        high (`int`):
            The value after the largest.
        size (`int`, *optional*):
            How many; one number by default.

    Returns:
        `int`, or `np.ndarray` of shape `(size,)`.
    """
    if isinstance(rng, np.random.Generator):
        return rng.integers(low, high, size=size)
    return rng.randint(low, high, size=size)


def _dense_window(total: int, num_frames: int, stride: int, end: int) -> np.ndarray:
    """
    `num_frames` frames spread over the `num_frames * stride` frames before `end`, both ends included, so their spacing
    is a little over `stride` (official VideoMAE behaviour in training and validation). A shorter video is covered once
    at about `stride`, then its last frame is repeated.
    """
    span = num_frames * stride
    if total > span:
        indices = np.linspace(end - span, end, num=num_frames)
        return np.clip(indices, end - span, end - 1).astype(np.int64)
    covered = np.linspace(0, total, num=total // stride)
    indices = np.concatenate((covered, np.full(num_frames - len(covered), total)))
    return np.clip(indices, 0, total - 1).astype(np.int64)


def _dense_train(total: int, num_frames: int, stride: int, rng: Random) -> np.ndarray:
    """One [`_dense_window`] at a random place. Shape `(1, num_frames)`."""
    span = num_frames * stride
    end = int(random_integers(rng, span, total)) if total > span else total
    return _dense_window(total, num_frames, stride, end)[None]


def _dense_validation(total: int, num_frames: int, stride: int) -> np.ndarray:
    """One [`_dense_window`] in the middle. Shape `(1, num_frames)`."""
    return _dense_window(total, num_frames, stride, (num_frames * stride + total) // 2)[None]


def _dense_test(total: int, num_frames: int, stride: int, num_clips: int) -> np.ndarray:
    """
    `num_clips` evenly placed clips cut from the list of every `stride`-th frame; a list that is too short repeats its
    last frame. One clip is taken from the middle (the official code divides by zero there). Shape `(num_clips,
    num_frames)`.
    """
    frames = np.arange(0, total, stride)
    spare = max(len(frames) - num_frames, 0)
    if num_clips == 1:
        starts = np.array([spare // 2])
    else:
        starts = (np.arange(num_clips) * (spare / (num_clips - 1))).astype(np.int64)
    positions = starts[:, None] + np.arange(num_frames)
    return frames[np.minimum(positions, len(frames) - 1)].astype(np.int64)


def _dense_pretrain(total: int, num_frames: int, stride: int, rng: Random) -> np.ndarray:
    """
    One clip of exact `stride` at a random place. Where the video ends first, the clip stays on its last step that lies
    before the video's last frame, as the official pre-training loader does. Shape `(1, num_frames)`.
    """
    spare = total - num_frames * stride
    start = int(random_integers(rng, 0, spare + 1)) if spare > 0 else 0
    last_step = max(total - 2 - start, 0) // stride
    return (start + stride * np.minimum(np.arange(num_frames), last_step))[None].astype(np.int64)


def _cyclic_clips(total: int, num_frames: int, stride: int, starts: np.ndarray) -> np.ndarray:
    """Clips of exact `stride` from each of `starts`; past the last frame they go on with the first."""
    return ((starts[:, None] + stride * np.arange(num_frames)) % total).astype(np.int64)


def _cyclic_train(total: int, num_frames: int, stride: int, rng: Random) -> np.ndarray:
    """One [`_cyclic_clips`] at a random place; a video that is too short is read from its start."""
    start = int(random_integers(rng, 0, max(total - num_frames * stride, 0) + 1))
    return _cyclic_clips(total, num_frames, stride, np.array([start]))


def _cyclic_test(total: int, num_frames: int, stride: int, num_clips: int) -> np.ndarray:
    """`num_clips` [`_cyclic_clips`], each from the middle of its part of the possible starts (MMAction)."""
    step = max(total - num_frames * stride + 1, 0) / num_clips
    return _cyclic_clips(total, num_frames, stride, np.floor(np.arange(num_clips) * step + step / 2))


def _segment_train(total: int, num_frames: int, rng: Random) -> np.ndarray:
    """
    One random frame in each of `num_frames` bins of `total // num_frames` frames (the rest at the end is never seen,
    as in the official loader); a shorter video is led in by copies of frame 0. Shape `(1, num_frames)`.
    """
    width = total // num_frames
    if width == 0:
        return _led_in(total, num_frames)
    return (np.arange(num_frames) * width + random_integers(rng, 0, width, size=num_frames))[None].astype(np.int64)


def _segment_validation(total: int, num_frames: int) -> np.ndarray:
    """The middle frame of each bin of [`_segment_train`]. Shape `(1, num_frames)`."""
    width = total // num_frames
    if width == 0:
        return _led_in(total, num_frames)
    return (np.arange(num_frames) * width + width // 2)[None].astype(np.int64)


def _segment_test(total: int, num_frames: int, num_clips: int) -> np.ndarray:
    """`num_clips` interleaved clips, each spread over the whole video. Shape `(num_clips, num_frames)`."""
    tick = total / num_frames
    offsets = np.arange(num_clips) * tick / num_clips
    return (offsets[:, None] + tick * np.arange(num_frames)).astype(np.int64)


def span_clips(total: int, num_frames: int, span: float, starts: np.ndarray) -> np.ndarray:
    """
    `num_frames` frames spread over the `span` frames from each of `starts`, both ends included, so neighbours are
    `(span - 1) / (num_frames - 1)` apart. Places beyond the video's last frame repeat it. Shape `(len(starts),
    num_frames)`.

    The arithmetic is torch's float32, as in the official loaders of UniFormer and TimeSformer. Otherwise a whole
    number may come out as the one below.

    Args:
        total (`int`):
            Frames of the video.
        num_frames (`int`):
            Frames of a clip.
        span (`float`):
            Frames that a clip is spread over.
        starts (`np.ndarray` of shape `(num_clips,)`):
            First frame of each clip.

    Returns:
        `np.ndarray` of shape `(num_clips, num_frames)`.
    """
    clips = [torch.linspace(float(start), float(start) + (span - 1), num_frames) for start in starts]
    return torch.stack(clips).clamp(0, total - 1).long().numpy()


def _span_test(total: int, num_frames: int, stride: int, num_clips: int) -> np.ndarray:
    """Evenly placed [`span_clips`]; one clip is taken from the middle. Shape `(num_clips, num_frames)`."""
    spare = max(total - num_frames * stride, 0)
    starts = np.arange(num_clips) * (spare // (num_clips - 1)) if num_clips > 1 else np.array([spare // 2])
    return span_clips(total, num_frames, num_frames * stride, starts)


def _span_train(total: int, num_frames: int, stride: int, rng: Random) -> np.ndarray:
    """One of [`span_clips`] at a random place, which need not be a whole frame. Shape `(1, num_frames)`."""
    span = num_frames * stride
    return span_clips(total, num_frames, span, np.array([rng.uniform(0, max(total - span, 0))]))


def span_from_start(
    total: int, num_frames: int, span: float, *, sampling_mode: str, num_clips: int, rng: Random
) -> np.ndarray:
    """
    [`span_clips`] as TimeSformer's loader places them. `"test"`: the first of `num_clips` starts with the video, and
    each of the others an equal part of the room after the one before it. A single clip also starts with the video.
    `"validation"`: one in the middle. `"train"` and `"pretrain"`: one at a random place, which need not be a whole
    frame.

    Args:
        total (`int`):
            Frames of the video.
        num_frames (`int`):
            Frames of a clip.
        span (`float`):
            Frames of the video that a clip stretches over.
        sampling_mode (`str`):
            `"train"`, `"validation"`, `"test"` or `"pretrain"`.
        num_clips (`int`):
            Clips in `"test"` mode.
        rng (`numpy.random.Generator` or `numpy.random.RandomState`):
            Source of the random modes.

    Returns:
        `numpy.ndarray` of shape `(num_clips, num_frames)`, of one clip in the other modes.
    """
    spare = max(total - span, 0.0)
    if sampling_mode in ("train", "pretrain"):
        starts = np.array([rng.uniform(0, spare)])
    elif sampling_mode == "validation":
        starts = np.array([spare / 2])
    else:
        starts = np.arange(num_clips) * spare / num_clips
    return span_clips(total, num_frames, span, starts)


def _sparse_bounds(total: int, num_frames: int) -> np.ndarray:
    """
    Bounds of the segments that [`_sparse_train`] and [`_sparse_test`] see: multiples of `(total - 1) / num_frames`,
    halves rounded to the even number. Shape `(num_frames + 1,)`.
    """
    return np.round((total - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)


def _sparse_train(total: int, num_frames: int, rng: Random) -> np.ndarray:
    """One random frame of each segment, both bounds included, so neighbours may coincide. Shape `(1, num_frames)`."""
    bounds = _sparse_bounds(total, num_frames)
    return np.array(
        [[random_integers(rng, low, high + 1) for low, high in zip(bounds[:-1], bounds[1:])]], dtype=np.int64
    )


def _sparse_test(total: int, num_frames: int, num_clips: int) -> np.ndarray:
    """
    `num_clips` interleaved clips: the lower bound of each segment plus a whole-number offset that is the same in all
    segments; one clip lies near their middles. Shape `(num_clips, num_frames)`.
    """
    segment = (total - 1) / num_frames
    offsets = (segment / (num_clips + 1) * np.arange(1, num_clips + 1)).astype(np.int64)
    return offsets[:, None] + _sparse_bounds(total, num_frames)[:-1]


def sparse_middle(total: int, num_frames: int) -> np.ndarray:
    """
    The middle frame of each segment of [`_sparse_bounds`] (Video Swin), of shape `(1, num_frames)`.

    Args:
        total (`int`):
            Frames of the video.
        num_frames (`int`):
            Segments.

    Returns:
        `np.ndarray` of shape `(1, num_frames)`.
    """
    bounds = _sparse_bounds(total, num_frames)
    return ((bounds[:-1] + bounds[1:]) // 2)[None]


def _led_in(total: int, num_frames: int) -> np.ndarray:
    """All frames of a short video, led in by copies of frame 0."""
    return np.maximum(np.arange(num_frames) - (num_frames - total), 0)[None].astype(np.int64)


def _uniform_clips(total: int, num_frames: int, phases: np.ndarray) -> np.ndarray:
    """
    One frame from each of `num_frames` equal parts of the video, at the same `phase` in [0, 1) of every part; parts
    may be shorter than a frame. Shape `(len(phases), num_frames)`.
    """
    indices = (np.arange(num_frames) + np.asarray(phases)[:, None]) * total / num_frames
    return np.minimum(indices.astype(np.int64), total - 1)


def sample_clips(
    total: int,
    *,
    frame_sampling: str,
    sampling_mode: str,
    num_frames: int,
    frame_stride: int = 1,
    num_clips: int = 1,
    rng: Random | None = None,
) -> np.ndarray:
    """
    Frame indices of the clips to show a model.

    Args:
        total (`int`):
            Frames of the video.
        frame_sampling (`str`):
            `"dense"`: neighbouring frames at `frame_stride` (Kinetics, UCF101, HMDB51). `"segment"`: one frame from
            each of `num_frames` bins (Something-Something). `"span"`: as dense, spread over all of the
            `num_frames * frame_stride` frames (UniFormer on Kinetics, UCF101, HMDB51), and `"span_from_start"` with
            the places of [`span_from_start`] (TimeSformer on the same). `"sparse"`: as segment with the bounds of the
            UniFormer loaders (UniFormerV2 everywhere), and `"sparse_middle"` with the middle of each segment in all
            modes but `"train"` (Video Swin and TimeSformer on Something-Something, which have one clip; several are
            those of `"sparse"`). `"dense_cyclic"`: neighbouring frames of exact stride, past the end on from the
            start (MMAction, Video Swin on Kinetics). `"uniform"`: evenly over the whole video, its tail included.
        sampling_mode (`str`):
            `"train"`: one random clip. `"validation"`: one clip in the middle. `"test"`: `num_clips` clips.
            `"pretrain"` (dense only): one random clip of exact stride.
        num_frames (`int`):
            Frames of a clip.
        frame_stride (`int`, *optional*, defaults to 1):
            Distance of neighbouring frames of a dense clip.
        num_clips (`int`, *optional*, defaults to 1):
            Clips of a video in `"test"` mode; the other modes give one.
        rng (`numpy.random.Generator` or `numpy.random.RandomState`, *optional*):
            Source of the random modes; a fresh one by default.

    Returns:
        `numpy.ndarray` of shape `(num_clips, num_frames)`.

    Raises:
        ValueError: an argument is not allowed.
    """
    for name, value in (
        ("total", total),
        ("num_frames", num_frames),
        ("frame_stride", frame_stride),
        ("num_clips", num_clips),
    ):
        if not isinstance(value, int | float | np.number) or value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value!r}.")
    if frame_sampling not in FRAME_SAMPLINGS:
        raise ValueError(f"`frame_sampling` must be one of {FRAME_SAMPLINGS}, got {frame_sampling!r}.")
    if sampling_mode not in SAMPLING_MODES:
        raise ValueError(f"`sampling_mode` must be one of {SAMPLING_MODES}, got {sampling_mode!r}.")
    rng = np.random.default_rng() if rng is None else rng
    num_clips = num_clips if sampling_mode == "test" else 1
    if frame_sampling == "dense":
        return _dense(total, sampling_mode, num_frames, frame_stride, num_clips, rng)
    if frame_sampling == "dense_cyclic":
        if sampling_mode in ("train", "pretrain"):
            return _cyclic_train(total, num_frames, frame_stride, rng)
        return _cyclic_test(total, num_frames, frame_stride, num_clips)
    if frame_sampling == "span_from_start":
        span = num_frames * frame_stride
        return span_from_start(total, num_frames, span, sampling_mode=sampling_mode, num_clips=num_clips, rng=rng)
    if sampling_mode == "pretrain":
        raise ValueError(f"`sampling_mode='pretrain'` needs a dense `frame_sampling`, got {frame_sampling!r}.")
    if frame_sampling == "segment":
        if sampling_mode == "train":
            return _segment_train(total, num_frames, rng)
        if sampling_mode == "validation":
            return _segment_validation(total, num_frames)
        return _segment_test(total, num_frames, num_clips)
    if frame_sampling == "span":
        if sampling_mode == "train":
            return _span_train(total, num_frames, frame_stride, rng)
        return _span_test(total, num_frames, frame_stride, num_clips)
    if frame_sampling in ("sparse", "sparse_middle"):
        if sampling_mode == "train":
            return _sparse_train(total, num_frames, rng)
        if frame_sampling == "sparse_middle" and num_clips == 1:
            return sparse_middle(total, num_frames)
        return _sparse_test(total, num_frames, num_clips)
    if sampling_mode == "train":
        return _uniform_clips(total, num_frames, np.array([rng.random()]))
    return _uniform_clips(total, num_frames, (np.arange(num_clips) + 0.5) / num_clips)


def sample_at_rate(
    total: int,
    num_frames: int,
    step: float,
    *,
    sampling_mode: str,
    num_clips: int = 1,
    rng: Random | None = None,
) -> np.ndarray:
    """
    Clips in which frames are a real number of the video's frames apart, for a clip of one rate from a video of
    another. With a distance below 1, frames are repeated. A clip that runs over the end repeats the last frame.

    Args:
        total (`int`):
            Frames of the video.
        num_frames (`int`):
            Frames of a clip.
        step (`float`):
            Distance of neighbouring frames of a clip, in frames of the video.
        sampling_mode (`str`):
            `"train"` and `"pretrain"`: one clip at a random place. `"validation"`: one in the middle. `"test"`:
            `num_clips`, spread evenly from the first possible place to the last, or one in the middle.
        num_clips (`int`, *optional*, defaults to 1):
            Clips in `"test"` mode.
        rng (`numpy.random.Generator` or `numpy.random.RandomState`, *optional*):
            Source of the random modes; a fresh one by default.

    Returns:
        `numpy.ndarray` of shape `(num_clips, num_frames)`.

    Raises:
        ValueError: an argument is not allowed.
    """
    for name, value in (("total", total), ("num_frames", num_frames), ("num_clips", num_clips)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if not step > 0:
        raise ValueError(f"`step` must be above 0, got {step}.")
    if sampling_mode not in SAMPLING_MODES:
        raise ValueError(f"`sampling_mode` must be one of {SAMPLING_MODES}, got {sampling_mode!r}.")
    rng = np.random.default_rng() if rng is None else rng
    spare = max(total - 1 - step * (num_frames - 1), 0.0)
    if sampling_mode in ("train", "pretrain"):
        starts = np.array([spare * float(rng.random(1)[0])])
    elif sampling_mode == "validation" or num_clips == 1:
        starts = np.array([spare / 2])
    else:
        starts = np.linspace(0.0, spare, num_clips)
    indices = np.floor(starts[:, None] + step * np.arange(num_frames) + 1e-6)  # 30 / 15 frames a second is 2
    return np.minimum(indices, total - 1).astype(np.int64)


def _dense(
    total: int, sampling_mode: str, num_frames: int, frame_stride: int, num_clips: int, rng: Random
) -> np.ndarray:
    if sampling_mode == "train":
        return _dense_train(total, num_frames, frame_stride, rng)
    if sampling_mode == "validation":
        return _dense_validation(total, num_frames, frame_stride)
    if sampling_mode == "pretrain":
        return _dense_pretrain(total, num_frames, frame_stride, rng)
    return _dense_test(total, num_frames, frame_stride, num_clips)


def crop_offsets(long_side: int, crop: int, num_crops: int, rounding: str = "nearest") -> list[int]:
    """
    Offsets of `num_crops` crops of `crop` pixels spread along `long_side`, ends included; one crop is centred.

    Args:
        long_side (`int`):
            Pixels of the side.
        crop (`int`):
            Pixels of a crop.
        num_crops (`int`):
            Number of crops.
        rounding (`str`, *optional*, defaults to `"nearest"`):
            How fractions of a pixel are rounded. `"nearest"` takes the nearest even offset for one crop and the whole
            part for several (official VideoMAE loaders). `"up"` takes the next offset (SlowFast code base).
            `"ends_first"` takes the whole part, places the last crop twice as far as the middle one, and lists both
            ends before the others (MMAction).

    Returns:
        `list[int]`: one offset for each crop, in pixels.

    Raises:
        ValueError: the side is shorter than the crop, or no such rounding.
    """
    if rounding not in CROP_ROUNDINGS:
        raise ValueError(f"`rounding` must be one of {CROP_ROUNDINGS}, got {rounding!r}.")
    if long_side < crop:
        raise ValueError(f"A side of {long_side} pixels cannot hold a crop of {crop}.")
    spare = long_side - crop
    if rounding == "ends_first":
        steps = max(num_crops - 1, 2)
        offsets = [index * (spare // steps) for index in range(steps + 1)]
        return offsets[1:2] if num_crops == 1 else [offsets[0], offsets[-1], *offsets[1:-1]][:num_crops]
    if rounding == "up":
        positions = [spare / 2] if num_crops == 1 else [index * spare / (num_crops - 1) for index in range(num_crops)]
        return [math.ceil(position) for position in positions]
    if num_crops == 1:
        return [round(spare / 2)]
    step = spare / (num_crops - 1)
    return [int(index * step) for index in range(num_crops)]


def key_frame_offsets(num_frames: int, frame_stride: int, read_key_frame: bool = True) -> np.ndarray:
    """
    Places of the frames of a clip around a key-frame.

    Args:
        num_frames (`int`):
            Frames of the clip.
        frame_stride (`int`):
            Distance of neighbouring frames.
        read_key_frame (`bool`, *optional*, defaults to `True`):
            Whether the frame after the middle is the key-frame (SlowFast, mmaction2). Else the frames are the middles
            of strides, so that with a stride above 2 the key-frame lies between two of them (AlphAction, VideoMAE).

    Returns:
        `np.ndarray` of shape `(num_frames,)`: frames after the key-frame; before it, negative.

    Raises:
        ValueError: a number is below 1.
    """
    if num_frames < 1 or frame_stride < 1:
        raise ValueError(f"`num_frames` and `frame_stride` must be at least 1, got {num_frames} and {frame_stride}.")
    start = -(num_frames * frame_stride // 2) + (0 if read_key_frame else (frame_stride - 1) // 2)
    return start + frame_stride * np.arange(num_frames)


def nearest_frames(
    key_frames: np.ndarray, offsets: np.ndarray, timestamps: np.ndarray, fps: float | None = None
) -> np.ndarray:
    """
    Frames around key-frames. Beyond the ends of the video its first or last frame is repeated.

    Args:
        key_frames (`np.ndarray` of shape `(num_key_frames,)`):
            Seconds after the first frame.
        offsets (`np.ndarray` of shape `(num_frames,)`):
            See [`key_frame_offsets`].
        timestamps (`np.ndarray` of shape `(total,)`):
            Seconds at which the frames are shown, ascending.
        fps (`float`, *optional*):
            Frame rate that the offsets are meant for: the frames nearest in time are taken. By default offsets count
            the video's own frames.

    Returns:
        `np.ndarray` of shape `(num_key_frames, num_frames)`: indices.

    Raises:
        ValueError: the video is empty, a key-frame lies outside it, or `fps` is not positive.
    """
    if not len(timestamps):
        raise ValueError("`timestamps` must have at least one frame, got none.")
    if fps is not None and not fps > 0:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    times = timestamps - timestamps[0]
    last_length = np.diff(times[-2:]).sum()  # the last frame is shown as long as the one before
    outside = key_frames[~((key_frames >= 0) & (key_frames <= times[-1] + last_length))]
    if len(outside):
        raise ValueError(
            f"`key_frames` must lie between 0 and {times[-1] + last_length:g} seconds, the length of the video, got "
            f"{outside[0]:g}."
        )
    if fps is not None:
        return _nearest(times, key_frames[:, None] + offsets / fps)
    return np.clip(_nearest(times, key_frames)[:, None] + offsets, 0, len(times) - 1)


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices of the times closest to those wanted; the earlier of two."""
    after = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    return np.where(wanted - times[before] <= times[after] - wanted, before, after)
