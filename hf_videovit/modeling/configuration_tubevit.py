"""TubeViT configuration: tubes as data, published sizes, and the choices that the paper leaves open."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_action_detection import ActionDetectionConfig, action_detection_config
from .configuration_base import VIEW_MERGINGS, refuse_misspelt_fields


# Piergiovanni et al. 2022, section 4.1: the standard ViTs. "Huge" is assembled from a trained small model's tubes and
# an image ViT (section 3.6); tiny occurs in that section's ablation, its sizes are ViT-Ti's.
TUBEVIT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 192,
        "num_hidden_layers": 12,
        "num_attention_heads": 3,
        "intermediate_size": 768,
    },
    "base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
    },
}

Triple = tuple[int, int, int]
TUBE_FIELDS = ("kernel", "stride", "offset", "space_to_depth", "channels")


@dataclass(frozen=True)
class Tube:
    """
    One sparse three-dimensional convolution; all triples are `(frames, height, width)`.

    The input is cropped at `offset`, without padding. Windows are `stride / space_to_depth` apart; a window that does
    not fit completely is left out. `space_to_depth` neighbouring windows are joined along the channels (frame by
    frame, then row by row) into one token, so tokens are `stride` apart. An incomplete group at the end of an axis is
    dropped.

    Args:
        kernel (`tuple[int, int, int]`):
            Size of a window.
        stride (`tuple[int, int, int]`):
            Distance of neighbouring tokens; divisible by `space_to_depth`.
        offset (`tuple[int, int, int]`, *optional*, defaults to `(0, 0, 0)`):
            First voxel.
        space_to_depth (`tuple[int, int, int]`, *optional*, defaults to `(1, 1, 1)`):
            Windows that make one token. The paper names factors ("2T", "4S") but not the split over the axes: 4S is
            read as 2 x 2. Nor does it state the order of the joined windows or how incomplete groups are treated.
        channels (`int`, *optional*):
            Channels of a window. Defaults to `hidden_size / prod(space_to_depth)`, the reduction of section 3.4
            (table 12 counts parameters without it). A larger number makes more channels than a token has; the first
            `hidden_size` are kept. This is how narrow tubes are put before a wide model.

    Raises:
        ValueError: a field is not allowed, or `stride` is not divisible by `space_to_depth`.
    """

    kernel: Triple
    stride: Triple
    offset: Triple = (0, 0, 0)
    space_to_depth: Triple = (1, 1, 1)
    channels: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("stride", 1), ("offset", 0), ("space_to_depth", 1)):
            value = getattr(self, name)
            if not isinstance(value, Sequence) or len(value) != 3 or not all(is_int(one, least) for one in value):
                raise ValueError(
                    f"`{name}` of a tube must be three whole numbers (frames, height, width) of at least {least}, "
                    f"got {value!r}."
                )
            object.__setattr__(self, name, tuple(value))
        if any(stride % factor for stride, factor in zip(self.stride, self.space_to_depth)):
            raise ValueError(
                f"`stride` of a tube must be divisible by its `space_to_depth`, got {self.stride} and "
                f"{self.space_to_depth}."
            )
        if self.channels is not None and not is_int(self.channels, 1):
            raise ValueError(f"`channels` of a tube must be a whole number of at least 1, got {self.channels!r}.")

    @property
    def window_stride(self) -> Triple:
        """Distance of neighbouring windows, the stride of the convolution."""
        frames, height, width = (one // factor for one, factor in zip(self.stride, self.space_to_depth))
        return frames, height, width

    @property
    def joined(self) -> int:
        """Windows that make one token."""
        return math.prod(self.space_to_depth)

    def window_channels(self, hidden_size: int) -> int:
        """
        Channels of one window.

        Args:
            hidden_size (`int`):
                Width of the model.

        Returns:
            `int`: number of channels.
        """
        return self.channels or hidden_size // self.joined

    def grid(self, size: Sequence[int]) -> Triple:
        """
        Number of tokens on each axis; 0 where no group of windows fits.

        Args:
            size (`Sequence[int]`):
                Frames, height and width of the input.

        Returns:
            `tuple[int, int, int]`: tokens along frames, height and width.
        """
        counts = []
        for axis, length in enumerate(size):
            room = length - self.offset[axis] - self.kernel[axis]
            windows = room // self.window_stride[axis] + 1 if room >= 0 else 0
            counts.append(windows // self.space_to_depth[axis])
        return counts[0], counts[1], counts[2]

    def to_dict(self) -> dict[str, Any]:
        """
        Fields as plain lists, as stored in `config.json`.

        Returns:
            `dict[str, Any]`: the fields that are not `None`.
        """
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Tube":
        """
        Build a tube from an entry of `config.json`.

        Args:
            values (`Mapping[str, Any]`):
                Fields of the tube.

        Returns:
            [`Tube`]

        Raises:
            ValueError: an unknown or a missing field, or a value that is not allowed.
        """
        unknown = [name for name in values if name not in TUBE_FIELDS]
        missing = [name for name in ("kernel", "stride") if name not in values]
        if unknown or missing:
            raise ValueError(
                f"`tubes` entries take the fields {TUBE_FIELDS}; the first two are required, got {values!r}."
            )
        return cls(**values)


def is_int(value: Any, least: int) -> bool:
    """
    Whether a value is a whole number and large enough. Booleans are not.

    Args:
        value (`Any`):
            Value to check.
        least (`int`):
            Smallest number allowed.

    Returns:
        `bool`: the result.
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


PATCH = Tube((1, 16, 16), (32, 16, 16))
# Table 14: shapes by letter and strides by Roman number; the paper gives no offsets there, and no space-to-depth.
TABLE_14_KERNELS: dict[str, Triple] = {
    "a": (1, 16, 16),
    "b": (4, 32, 32),
    "c": (4, 4, 4),
    "d": (4, 12, 12),
    "e": (8, 8, 8),
    "f": (16, 4, 4),
    "g": (16, 16, 16),
    "h": (32, 8, 8),
}
TABLE_14_STRIDES: dict[str, Triple] = {
    "i": (4, 16, 16),
    "ii": (8, 8, 8),
    "iii": (8, 32, 32),
    "iv": (16, 16, 16),
    "v": (32, 32, 32),
}
TABLE_14_ROWS = (
    "(a+iv)+(b+v)+(f+iv)",
    "(c+iv)+(e+v)+(g+iv)",
    "(a+iv)+(e+v)+(g+iv)",
    "(b+iv)+(e+v)+(g+iv)",
    "(a+iv)+(d+v)+(e+iv)+(h+v)",
    "(a+iv)+(b+v)+(c+iv)+(h+v)",
    "(a+iv)+(d+v)+(e+iv)+(f+v)",
)


def table_14_tubes(row: str) -> tuple[Tube, ...]:
    """
    Tubes of a combination in the notation of the paper's table 14.

    Args:
        row (`str`):
            Shapes and strides, such as `"(a+iv)+(b+v)+(f+iv)"`.

    Returns:
        `tuple[Tube, ...]`: the tubes.

    Raises:
        ValueError: a shape or a stride is not in the table.
    """
    pairs = [pair.split("+") for pair in row.strip("()").split(")+(")]
    if not all(len(pair) == 2 and pair[0] in TABLE_14_KERNELS and pair[1] in TABLE_14_STRIDES for pair in pairs):
        raise ValueError(
            f"`row` must combine shapes {list(TABLE_14_KERNELS)} and strides {list(TABLE_14_STRIDES)} like "
            f"{TABLE_14_ROWS[0]!r}, got {row!r}."
        )
    return tuple(Tube(TABLE_14_KERNELS[shape], TABLE_14_STRIDES[stride]) for shape, stride in pairs)


# Sets of tubes by name.
TUBE_SETS: dict[str, tuple[Tube, ...]] = {
    # section 4.1 and table 12: all main results
    "main": (
        Tube((8, 8, 8), (16, 32, 32), (0, 0, 0), (2, 1, 1)),
        Tube((16, 4, 4), (6, 32, 32), (4, 8, 8), (1, 2, 2)),
        Tube((4, 12, 12), (16, 32, 32), (0, 16, 16)),
        PATCH,
    ),
    # the minimal configuration of section 3.1
    "core": (Tube((8, 8, 8), (16, 16, 16)), Tube((1, 16, 16), (16, 16, 16))),
    # table 3's "2D patches only": stride 16 in time as well
    "patches": (Tube((1, 16, 16), (16, 16, 16)),),
    # The enlarged kernels for the 128 frames of Charades. The paper does not say which belongs to which stride and
    # offset; they are taken in order. Without space-to-depth, since the kernels of another data set are resized to
    # them.
    "charades": (
        Tube((16, 16, 16), (16, 32, 32)),
        Tube((32, 8, 8), (6, 32, 32), (4, 8, 8)),
        Tube((4, 32, 32), (16, 32, 32), (0, 16, 16)),
        PATCH,
    ),
    **{row: table_14_tubes(row) for row in TABLE_14_ROWS},
}
KERNEL_SHARINGS = ("independent", "interpolated")
FREQUENCIES = ("geometric", "literal")
CENTRES = ("half_kernel", "middle")
POOLINGS = ("attention", "attention_mlp", "score")


@strict
class TubeViTConfig(PreTrainedConfig):
    r"""
    Configuration of the TubeViT models ([Piergiovanni et al., 2022](https://huggingface.co/papers/2212.03229)). The
    defaults are the base model with the main tubes, on 32 frames of 224 x 224 pixels. No code or weights were ever
    released. Where the paper leaves a choice open, that choice is a field here and its reason is given.

    Args:
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the encoder.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of encoder blocks.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Attention heads of a block and of the pooling; must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of the MLPs.
        tubes (`str` or `list[dict]`, *optional*, defaults to `"main"`):
            Name of a set (`"main"`, `"core"`, `"patches"`, `"charades"` or a row of table 14 such as
            `"(a+iv)+(b+v)+(f+iv)"`), or the tubes themselves: `kernel`, `stride`, `offset`, `space_to_depth` and
            `channels`, see [`Tube`]. Stored as the tubes. The paper prints 559 tokens for the main set on 32 frames;
            its own numbers give 539.
        tube_kernels (`str`, *optional*, defaults to `"independent"`):
            `"independent"`: each tube learns its kernel (main results). `"interpolated"`: one kernel of
            `base_kernel_size` is learnt and resized to every tube (ablation, 0.7 points worse on Kinetics-600). It is
            resized trilinearly without aligned corners, antialiasing or rescaling, and each tube has its own bias; the
            paper states none of this. A tube with fewer channels than the model takes the first ones.
        base_kernel_size (`list[int]`, *optional*, defaults to `[8, 8, 8]`):
            Frames, height and width of the shared kernel.
        num_frames (`int`, *optional*, defaults to 32):
            Frames of a clip that processor and counts assume. Any number works at run time; a tube that does not fit
            gives no tokens.
        image_size (`int` or `list[int]`, *optional*, defaults to 224):
            Height and width of a frame in pixels. Any size works at run time.
        num_channels (`int`, *optional*, defaults to 3):
            Channels of a frame.
        position_temperature (`float`, *optional*, defaults to 10000.0):
            Temperature tau of the fixed positions.
        position_frequencies (`str`, *optional*, defaults to `"geometric"`):
            `"geometric"`: `tau ** (-j / (hidden_size // 6))`, the usual range that the text refers to. `"literal"`:
            `tau ** -j` as printed, which makes all frequencies but the first two practically zero.
        position_centre (`str`, *optional*, defaults to `"half_kernel"`):
            Centre of a token's window, counted from its start. `"half_kernel"`: `kernel // 2`, which puts tubes of one
            frame and images at frame 0. `"middle"`: `(kernel - 1) / 2`. The paper says "centre including stride and
            offset". The position of joined windows is the mean of their centres.
        image_position_grid (`list[int]`, *optional*):
            Height and width in tokens of a learnt position table for the tokens of one-frame tubes. It replaces their
            fixed positions in space and is resized bicubically for other sizes. For an image ViT that keeps its own
            positions, as a frozen one must. The paper drops them (`None`).
        use_class_token (`bool`, *optional*, defaults to `False`):
            Whether a learnt token without position is put before the others. Figure 2 of the paper shows none.
        pooling_type (`str`, *optional*, defaults to `"attention"`):
            The paper only says "attention pooling". `"attention"`: one learnt query and multi-head attention, which
            gives 90.5 and 310.7 million parameters (B, L); the paper prints 90 and 311. `"attention_mlp"` adds the
            residual MLP of ViT's MAP head (95.3 and 319.1 million). `"score"`: one linear score a token, softmax,
            weighted sum (88.2 and 306.5 million).
        gate_layer (`int`, *optional*, defaults to 0):
            Block, counted from 1, after which `tanh(alpha)` times the encoder's input is added (section 3.6); 0 is
            none. `alpha` is learnt and starts at 0.
        gate_positions (`bool`, *optional*, defaults to `True`):
            Whether the gate's input includes the positions. The paper calls it both the raw tube tokens and the input
            of layer 1, which differ by the positions.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLPs; not stated, ViT's.
        layer_norm_eps (`float`, *optional*, defaults to 1e-06):
            Epsilon of every LayerNorm; not stated, ViT's.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have a bias; not stated, ViT's.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the tokens after the positions, after the attention's output projection and in the MLP (0.2 for
            Charades, 0.3 for Something-Something V2; the paper does not say where).
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last block; the rate grows linearly from 0 at the first. Not in the paper.
        classifier_dropout (`float`, *optional*, defaults to 0.0):
            Dropout before the classifiers.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of fresh linear layers. Kernels are initialised by their fan-in, the pooling's query is
            Xavier-uniform; not stated.
        view_merging (`str`, *optional*, defaults to `"softmax_mean"`):
            How several views of one video become one prediction: `"softmax_mean"` averages probabilities,
            `"logits_mean"` logits. Not stated; for multi-label problems the sigmoids are averaged.
        datasets (`dict[str, dict]`, *optional*):
            Heads of [`TubeViTForJointClassification`] by name of the data set: `num_labels` or `labels` (names), and
            `problem_type: multi_label_classification` if a video can have several labels.
        detection_config ([`ActionDetectionConfig`] or `dict`, *optional*):
            Head of the model for action detection; see [`ActionDetectionConfig`].

    Raises:
        ValueError: a size does not divide another, or an option is not among those allowed.

    Example:

    ```python
    >>> from hf_videovit import TubeViTConfig, TubeViTModel

    >>> configuration = TubeViTConfig.from_size("base", num_labels=600)
    >>> configuration.num_tokens((32, 224, 224))
    539
    >>> model = TubeViTModel(configuration)
    ```"""

    model_type = "tubevit"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    tubes: str | list[dict[str, Any]] | tuple[dict[str, Any], ...] = "main"
    tube_kernels: str = "independent"
    base_kernel_size: list[int] | tuple[int, ...] = (8, 8, 8)
    num_frames: int = 32
    image_size: int | list[int] | tuple[int, ...] = 224
    num_channels: int = 3
    position_temperature: float | int = 10000.0
    position_frequencies: str = "geometric"
    position_centre: str = "half_kernel"
    image_position_grid: list[int] | tuple[int, ...] | None = None
    use_class_token: bool = False
    pooling_type: str = "attention"
    gate_layer: int = 0
    gate_positions: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    classifier_dropout: float | int = 0.0
    initializer_range: float | int = 0.02
    view_merging: str = "softmax_mean"
    datasets: dict[str, dict[str, Any]] | None = None
    detection_config: dict[str, Any] | ActionDetectionConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.detection_config = action_detection_config(self.detection_config)
        self.tubes = [tube.to_dict() for tube in named_tubes(self.tubes)]
        self.base_kernel_size = list(self.base_kernel_size)
        if self.datasets is not None:
            self.datasets = {name: checked_dataset(name, fields) for name, fields in self.datasets.items()}
        self.validate_architecture()
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "`num_attention_heads` must divide `hidden_size`, "
                f"got {self.num_attention_heads} and {self.hidden_size}."
            )
        for name, allowed in (
            ("tube_kernels", KERNEL_SHARINGS),
            ("position_frequencies", FREQUENCIES),
            ("position_centre", CENTRES),
            ("pooling_type", POOLINGS),
            ("view_merging", VIEW_MERGINGS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        for name, length in (("base_kernel_size", 3), ("image_position_grid", 2)):
            value = getattr(self, name)
            if value is not None and (len(value) != length or min(value) < 1):
                raise ValueError(f"`{name}` must be {length} positive whole numbers, got {value}.")
        if not 0 <= self.gate_layer <= self.num_hidden_layers:
            raise ValueError(
                f"`gate_layer` must be between 0 and `num_hidden_layers` ({self.num_hidden_layers}), "
                f"got {self.gate_layer}."
            )
        for tube in named_tubes(self.tubes):
            self._check_channels(tube)

    def _check_channels(self, tube: Tube) -> None:
        """Check that the joined windows fill a token and that the shared kernel has enough channels."""
        made = tube.window_channels(self.hidden_size) * tube.joined
        if made < self.hidden_size:
            raise ValueError(
                f"`space_to_depth` {tube.space_to_depth} of a tube must divide `hidden_size` ({self.hidden_size}), or "
                f"`channels` be large enough; {tube.joined} windows give {made} channels."
            )
        if self.tube_kernels == "interpolated" and tube.window_channels(self.hidden_size) > self.hidden_size:
            raise ValueError(
                f"`channels` of a tube must be at most `hidden_size` with interpolated kernels, got {tube}."
            )

    @property
    def tube_list(self) -> tuple[Tube, ...]:
        """The tubes as [`Tube`]s."""
        return named_tubes(self.tubes)

    def token_counts(self, size: Sequence[int]) -> list[int]:
        """
        Tokens of each tube.

        Args:
            size (`Sequence[int]`):
                Frames, height and width of the input. An image has one frame.

        Returns:
            `list[int]`: one number for each tube.
        """
        return [math.prod(tube.grid(size)) for tube in self.tube_list]

    def num_tokens(self, size: Sequence[int]) -> int:
        """
        Tokens of all tubes, and the class token if there is one.

        Args:
            size (`Sequence[int]`):
                Frames, height and width of the input. An image has one frame.

        Returns:
            `int`: number of tokens.
        """
        return sum(self.token_counts(size)) + int(self.use_class_token)

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "TubeViTConfig":
        """
        Configuration of a published size.

        Args:
            size (`str`):
                One of `"tiny"`, `"base"`, `"large"`, `"huge"`.
            kwargs:
                Fields that replace those of the size.

        Returns:
            [`TubeViTConfig`]

        Raises:
            ValueError: no such size.
        """
        if size not in TUBEVIT_SIZES:
            raise ValueError(f"`size` must be one of {list(TUBEVIT_SIZES)}, got {size!r}.")
        return cls(**{**TUBEVIT_SIZES[size], **kwargs})


def named_tubes(tubes: str | Sequence[Mapping[str, Any] | Tube]) -> tuple[Tube, ...]:
    """
    The tubes that a configuration means.

    Args:
        tubes (`str` or `Sequence[dict]`):
            Name of a set, or the tubes.

    Returns:
        `tuple[Tube, ...]`: the tubes in order.

    Raises:
        ValueError: no such set, no tube at all, or an impossible one.
    """
    if isinstance(tubes, str):
        if tubes not in TUBE_SETS:
            raise ValueError(f"`tubes` must be one of {list(TUBE_SETS)} or a list of tubes, got {tubes!r}.")
        return TUBE_SETS[tubes]
    if not tubes:
        raise ValueError("`tubes` must name at least one tube, got none.")
    return tuple(tube if isinstance(tube, Tube) else Tube.from_dict(tube) for tube in tubes)


def checked_dataset(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """
    Check an entry of `datasets` and fill in `num_labels`.

    Args:
        name (`str`):
            Name of the data set.
        fields (`Mapping[str, Any]`):
            `num_labels` or `labels`, and optionally `problem_type`.

    Returns:
        `dict[str, Any]`: the entry with `num_labels` and `problem_type`.

    Raises:
        ValueError: an unusable name, an unknown field, or no number of labels.
    """
    if not name or "." in name:
        raise ValueError(f"A name in `datasets` must not be empty or contain a dot, got {name!r}.")
    known = ("num_labels", "labels", "problem_type")
    labels = fields.get("labels")
    num_labels = fields.get("num_labels", len(labels) if labels else None)
    if any(key not in known for key in fields) or not is_int(num_labels, 1):
        raise ValueError(f"`datasets` entries need `num_labels` or `labels` and take {known}, got {dict(fields)!r}.")
    if labels is not None and len(labels) != num_labels:
        raise ValueError(f"`labels` of data set {name!r} must have {num_labels} names, got {len(labels)}.")
    kinds = (None, "single_label_classification", "multi_label_classification")
    if fields.get("problem_type") not in kinds:
        raise ValueError(
            f"`problem_type` of data set {name!r} must be one of {kinds}, got {fields['problem_type']!r}."
        )
    checked = {"num_labels": num_labels, "problem_type": fields.get("problem_type")}
    return checked if labels is None else {**checked, "labels": list(labels)}


__all__ = ["TUBEVIT_SIZES", "TUBE_SETS", "Tube", "TubeViTConfig", "named_tubes", "table_14_tubes"]
