"""Configuration of ActionFormer and its relatives."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_base import refuse_misspelt_fields


BLOCK_TYPES = ("transformer", "conv", "sgp")
NECK_TYPES = ("identity", "fpn")
PADDING_MODES = ("zeros", "actionformer", "opentad")
SGP_DOWNSAMPLINGS = ("max", "mean")
LAST_RANGE_END = 10_000.0

# Architectures of the official configurations, by the data set that they are trained on.
ACTIONFORMER_SIZES: dict[str, dict[str, Any]] = {
    "thumos14": {"num_labels": 20},
    "activitynet": {
        "hidden_size": 256,
        "head_hidden_size": 256,
        "attention_window": [7, 7, 7, 7, 7, -1],
        "use_absolute_positions": True,
        "max_sequence_length": 192,
        "num_labels": 1,
        "loss_normalizer": 200.0,
        "regression_loss_weight": 2.0,
        "label_smoothing": 0.1,
    },
    "epic-verb": {
        "attention_window": 9,
        "regression_ranges": [[0, 4], [2, 8], [4, 16], [8, 32], [16, 64], [32, LAST_RANGE_END]],
        "feature_size": 2304,
        "num_labels": 97,
        "loss_normalizer": 250.0,
    },
}


@strict
class ActionFormerConfig(PreTrainedConfig):
    r"""
    Configuration of an [`ActionFormerModel`] ([Zhang et al., 2022](https://huggingface.co/papers/2202.07925)), which
    finds actions in a sequence of video features. One *step* is one feature; *level* `l` of the pyramid has a step of
    `2 ** l`.

    The defaults are the official ones for THUMOS14 on features of VideoMAE V2-g
    ([happyharrycn/actionformer_release](https://github.com/happyharrycn/actionformer_release), commit 61ea7eb) with
    one difference: `padding_mode`. Other values describe OpenTAD's variant and TriDet.

    Args:
        feature_size (`int` or `list[int]`, *optional*, defaults to 1408):
            Channels of a feature. A list is several streams, concatenated in the input; each is projected to its entry
            of `feature_projection_sizes`.
        feature_projection_sizes (`list[int]`, *optional*):
            Channels of each projected stream; they add up to the input of the embedding.
        hidden_size (`int`, *optional*, defaults to 512):
            Channels of all levels.
        num_embedding_layers (`int`, *optional*, defaults to 2):
            Convolutions of the embedding.
        num_stem_layers (`int`, *optional*, defaults to 2):
            Blocks of level 0.
        num_branch_layers (`int`, *optional*, defaults to 5):
            Further levels, of one block each, which halves the sequence.
        embedding_kernel_size (`int`, *optional*, defaults to 3):
            Kernel of the embedding.
        use_embedding_norm (`bool`, *optional*, defaults to `True`):
            Whether the embedding's convolutions have norms instead of biases.
        block_type (`str`, *optional*, defaults to `"transformer"`):
            `"transformer"`, `"conv"` (two convolutions) or `"sgp"` (TriDet).
        num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads.
        attention_window (`int` or `list[int]`, *optional*, defaults to 19):
            Keys that a step sees, centred at it; one number, or one a level. -1 is all steps. An even number acts as
            the next odd one.
        use_relative_positions (`bool`, *optional*, defaults to `False`):
            Whether windows have learnt biases, one a head and offset. Windows must then be odd.
        use_absolute_positions (`bool`, *optional*, defaults to `False`):
            Whether a table of sines and cosines is added to the embedding. It has `max_sequence_length` positions; in
            evaluation it is stretched to longer sequences.
        max_sequence_length (`int`, *optional*, defaults to 2304):
            Steps of a training sequence. Without absolute positions the model takes any length.
        intermediate_size (`int`, *optional*):
            Channels inside a block's MLP. Defaults to `4 * hidden_size`.
        layer_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of the blocks' norms.
        conv_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of the norms after the embedding's and the heads' convolutions and of the neck; 1e-6 in OpenTAD.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout after the attention's output projection and inside the MLP.
        drop_path_rate (`float`, *optional*, defaults to 0.1):
            Rate of stochastic depth, the same in all blocks.
        layer_scale_init_value (`float`, *optional*, defaults to 0.0001):
            Initial factor of each channel of a residual branch; 0 for no factors, as in official models that are built
            with a drop-path rate of 0.
        neck_type (`str`, *optional*, defaults to `"identity"`):
            `"identity"`: one norm a level. `"fpn"`: a top-down path.
        neck_hidden_size (`int`, *optional*):
            Channels of the neck. Defaults to `hidden_size`, which `"identity"` needs.
        neck_start_level (`int`, *optional*, defaults to 0):
            First level that the neck and the heads see.
        use_neck_norm (`bool`, *optional*, defaults to `True`):
            Whether the neck has norms.
        head_hidden_size (`int`, *optional*, defaults to 512):
            Channels of the heads.
        num_head_layers (`int`, *optional*, defaults to 3):
            Convolutions of a head, the last one included.
        head_kernel_size (`int`, *optional*, defaults to 3):
            Kernel of the heads.
        use_head_norm (`bool`, *optional*, defaults to `True`):
            Whether the heads' convolutions have norms instead of biases.
        padding_mode (`str`, *optional*, defaults to `"zeros"`):
            What the steps beyond the end of a sequence hold where a convolution sees them. `"zeros"`: zeros, so that
            the length of a batch never changes a result. `"actionformer"`: as in the official code, the bias of the
            norm before it, but zeros for a sequence that fills its tensor. `"opentad"`: as there, which is the same
            except that the embedding and the heads see zeros. Official weights are converted with the mode that they
            were trained with.
        regression_ranges (`list[list[float]]`, *optional*):
            For each level that the heads see the range of the larger offset that it is trained on, in steps, both ends
            included. Defaults to (0, 4), (4, 8), (8, 16), ..., the last one up to 10,000.
        center_sampling_radius (`float`, *optional*, defaults to 1.5):
            Training points lie within this many strides from the centre of a segment. `None` takes all points inside.
        regression_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the loss of the offsets; 0 makes both losses equally large.
        loss_normalizer (`float`, *optional*, defaults to 100.0):
            Initial value of the running mean of positive points in a batch, which both losses are divided by.
        loss_normalizer_momentum (`float`, *optional*, defaults to 0.9):
            Share of the old value in that mean.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Label smoothing.
        focal_alpha (`float`, *optional*, defaults to 0.25):
            Weight of positives in the focal loss; negative for no weighting.
        focal_gamma (`float`, *optional*, defaults to 2.0):
            Exponent of the focal loss.
        classifier_prior (`float`, *optional*, defaults to 0.01):
            Probability that a fresh classifier gives to each class.
        empty_labels (`list[int]`, *optional*, defaults to `[]`):
            Classes without training examples, which start at a probability of 1e-6.
        sgp_window_size (`int` or `list[int]`, *optional*, defaults to 1):
            Kernel of the short branch of an SGP block; one number, or one a level.
        sgp_window_ratio (`float`, *optional*, defaults to 5.0):
            Kernel of the long branch: `round((sgp_window_size + 1) * sgp_window_ratio)`, made odd.
        sgp_downsampling (`str`, *optional*, defaults to `"max"`):
            `"max"` or `"mean"` (mean and a projection) between the levels of SGP blocks.
        sgp_init_std (`float`, *optional*, defaults to 0.0):
            Standard deviation of fresh convolutions of an SGP block; at 0 the block starts as its MLP alone.
        num_bins (`int`, *optional*):
            Bins on each side of a point in TriDet's trident head. `None` regresses offsets directly.
        boundary_kernel_size (`int`, *optional*, defaults to 3):
            Kernel of the trident head's boundary classifiers.
        iou_weight_power (`float`, *optional*, defaults to 0.0):
            The classification loss of a positive is multiplied by the overlap of its segment to this power; 0.2 in
            TriDet.
        input_noise (`float`, *optional*, defaults to 0.0):
            Standard deviation of Gaussian noise on features in training; 0.0005 in TriDet.

    Raises:
        ValueError: a field or a combination of fields is not allowed.

    Example:

    ```python
    >>> from hf_videovit import ActionFormerConfig, ActionFormerForTemporalActionLocalization

    >>> config = ActionFormerConfig(feature_size=1408, num_labels=20)
    >>> model = ActionFormerForTemporalActionLocalization(config)
    ```"""

    model_type = "actionformer"

    feature_size: int | list[int] | tuple[int, ...] = 1408
    feature_projection_sizes: list[int] | tuple[int, ...] | None = None

    hidden_size: int = 512
    num_embedding_layers: int = 2
    num_stem_layers: int = 2
    num_branch_layers: int = 5
    embedding_kernel_size: int = 3
    use_embedding_norm: bool = True

    block_type: str = "transformer"
    num_attention_heads: int = 4
    attention_window: int | list[int] | tuple[int, ...] = 19
    use_relative_positions: bool = False
    use_absolute_positions: bool = False
    max_sequence_length: int = 2304
    intermediate_size: int | None = None
    layer_norm_eps: float | int = 1e-5
    conv_norm_eps: float | int = 1e-5
    hidden_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    layer_scale_init_value: float | int = 1e-4

    neck_type: str = "identity"
    neck_hidden_size: int | None = None
    neck_start_level: int = 0
    use_neck_norm: bool = True
    head_hidden_size: int = 512
    num_head_layers: int = 3
    head_kernel_size: int = 3
    use_head_norm: bool = True
    padding_mode: str = "zeros"

    regression_ranges: list[Any] | tuple[Any, ...] | None = None
    center_sampling_radius: float | int | None = 1.5
    regression_loss_weight: float | int = 1.0
    loss_normalizer: float | int = 100.0
    loss_normalizer_momentum: float | int = 0.9
    label_smoothing: float | int = 0.0
    focal_alpha: float | int = 0.25
    focal_gamma: float | int = 2.0
    classifier_prior: float | int = 0.01
    empty_labels: list[int] | tuple[int, ...] = ()

    sgp_window_size: int | list[int] | tuple[int, ...] = 1
    sgp_window_ratio: float | int = 5.0
    sgp_downsampling: str = "max"
    sgp_init_std: float | int = 0.0
    num_bins: int | None = None
    boundary_kernel_size: int = 3
    iou_weight_power: float | int = 0.0
    input_noise: float | int = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.neck_hidden_size is None:
            self.neck_hidden_size = self.hidden_size
        if self.regression_ranges is None:
            limits = [0.0, *(4.0 * 2**level for level in range(self.num_head_levels - 1)), LAST_RANGE_END]
            self.regression_ranges = [list(pair) for pair in zip(limits, limits[1:])]
        self.regression_ranges = [[float(limit) for limit in pair] for pair in self.regression_ranges]
        self.empty_labels = list(self.empty_labels)
        self.validate_architecture()
        super().__post_init__(**kwargs)

    @property
    def num_levels(self) -> int:
        """Levels of the pyramid."""
        return 1 + self.num_branch_layers

    @property
    def num_head_levels(self) -> int:
        """Levels that the heads see."""
        return self.num_levels - self.neck_start_level

    @property
    def num_hidden_layers(self) -> int:
        """Blocks."""
        return self.num_stem_layers + self.num_branch_layers

    @property
    def feature_sizes(self) -> list[int]:
        """Channels of each stream of features."""
        return [self.feature_size] if isinstance(self.feature_size, int) else list(self.feature_size)

    @property
    def attention_windows(self) -> list[int]:
        """Window of each level."""
        return self._for_each_level(self.attention_window)

    @property
    def sgp_window_sizes(self) -> list[int]:
        """Kernel of the short branch of each level's SGP blocks."""
        return self._for_each_level(self.sgp_window_size)

    @property
    def length_multiple(self) -> int:
        """Official sequences longer than `max_sequence_length` are padded to a multiple of this many steps."""
        if self.block_type == "sgp":
            factors = self.sgp_window_sizes
        else:
            factors = [window // 2 * 2 if window > 1 else 1 for window in self.attention_windows]
        # the official code pairs the strides that the heads see with the windows of the first levels
        strides = [2**level for level in range(self.neck_start_level, self.num_levels)]
        return max(stride * factor for stride, factor in zip(strides, factors))

    def _for_each_level(self, value: int | list[int] | tuple[int, ...]) -> list[int]:
        return [value] * self.num_levels if isinstance(value, int) else list(value)

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        for name, allowed in (
            ("block_type", BLOCK_TYPES),
            ("neck_type", NECK_TYPES),
            ("padding_mode", PADDING_MODES),
            ("sgp_downsampling", SGP_DOWNSAMPLINGS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        for name, least in (
            ("hidden_size", 1),
            ("head_hidden_size", 1),
            ("num_embedding_layers", 1),
            ("num_stem_layers", 0),
            ("num_branch_layers", 0),
            ("num_head_layers", 1),
            ("max_sequence_length", 1),
            ("layer_scale_init_value", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        for name in ("embedding_kernel_size", "head_kernel_size", "boundary_kernel_size"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"`{name}` must be odd, got {getattr(self, name)}.")
        self.validate_streams()
        self.validate_levels()
        self.validate_losses()

    def validate_streams(self) -> None:
        """
        Check the streams of features.

        Raises:
            ValueError: a stream has no channels, or streams and projections do not fit.
        """
        if not self.feature_sizes or min(self.feature_sizes) < 1:
            raise ValueError(f"`feature_size` must be positive, got {self.feature_size}.")
        projections = self.feature_projection_sizes
        if projections is None:
            if len(self.feature_sizes) > 1:
                raise ValueError("`feature_projection_sizes` is needed: `feature_size` lists several streams.")
        elif len(projections) != len(self.feature_sizes) or min(projections) < 1:
            raise ValueError(
                f"`feature_projection_sizes` must have a positive int for each of the {len(self.feature_sizes)} "
                f"streams in `feature_size`, got {list(projections)}."
            )

    def validate_levels(self) -> None:
        """
        Check what is given for each level.

        Raises:
            ValueError: a list has another length than there are levels, or a value is not allowed.
        """
        if not 0 <= self.neck_start_level < self.num_levels:
            raise ValueError(
                f"`neck_start_level` must be less than the {self.num_levels} levels (1 + `num_branch_layers`), got "
                f"{self.neck_start_level}."
            )
        if self.neck_type == "identity" and self.neck_hidden_size != self.hidden_size:
            raise ValueError(
                f"`neck_hidden_size` must be `hidden_size` ({self.hidden_size}) with `neck_type` 'identity', got "
                f"{self.neck_hidden_size}."
            )
        for name in ("attention_window", "sgp_window_size"):
            if len(self._for_each_level(getattr(self, name))) != self.num_levels:
                raise ValueError(
                    f"`{name}` must be one int or one for each of the {self.num_levels} levels, got "
                    f"{getattr(self, name)}."
                )
        if self.block_type == "transformer":
            self.validate_attention()
        if self.block_type == "sgp":
            if min(self.sgp_window_sizes) < 1 or any(size % 2 == 0 for size in self.sgp_window_sizes):
                raise ValueError(f"`sgp_window_size` must be odd, got {self.sgp_window_size}.")
            if self.hidden_size % 16:
                raise ValueError(f"`hidden_size` must be a multiple of 16 with SGP blocks, got {self.hidden_size}.")

    def validate_attention(self) -> None:
        """
        Check heads and windows.

        Raises:
            ValueError: heads do not divide `hidden_size`, or a window is not allowed.
        """
        heads = self.num_attention_heads
        if heads < 1 or self.hidden_size % heads:
            raise ValueError(f"`num_attention_heads` must divide `hidden_size`, got {heads} and {self.hidden_size}.")
        windows = [window for window in self.attention_windows if window > 1]
        if 0 in self.attention_windows or min(self.attention_windows) < -1:
            raise ValueError(f"`attention_window` must be positive, or -1 for all steps, got {self.attention_window}.")
        if self.use_relative_positions and any(window % 2 == 0 for window in windows):
            raise ValueError(
                f"`attention_window` must be odd with `use_relative_positions`, got {self.attention_window}."
            )

    def validate_losses(self) -> None:
        """
        Check the settings of training.

        Raises:
            ValueError: a value is not allowed.
        """
        ranges = self.regression_ranges or []
        if len(ranges) != self.num_head_levels or any(len(pair) != 2 or pair[0] >= pair[1] for pair in ranges):
            raise ValueError(
                f"`regression_ranges` must have (low, high) with low < high for each of the {self.num_head_levels} "
                f"levels that the heads see, got {ranges}."
            )
        if self.center_sampling_radius is not None and self.center_sampling_radius <= 0:
            raise ValueError(f"`center_sampling_radius` must be positive or None, got {self.center_sampling_radius}.")
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.loss_normalizer_momentum < 1:
            raise ValueError(
                "`label_smoothing` and `loss_normalizer_momentum` must be at least 0 and less than 1, got "
                f"{self.label_smoothing} and {self.loss_normalizer_momentum}."
            )
        if not 0 < self.classifier_prior < 1 or self.loss_normalizer <= 0:
            raise ValueError(
                "`classifier_prior` must be between 0 and 1 and `loss_normalizer` positive, got "
                f"{self.classifier_prior} and {self.loss_normalizer}."
            )
        if self.num_bins is not None and self.num_bins < 1:
            raise ValueError(f"`num_bins` must be positive or None, got {self.num_bins}.")

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "ActionFormerConfig":
        """
        Configuration of an official recipe.

        Args:
            size (`str`):
                One of `"thumos14"`, `"activitynet"`, `"epic-verb"`.
            kwargs:
                Fields that replace those of the recipe, such as `feature_size` and `num_labels`.

        Returns:
            [`ActionFormerConfig`]

        Raises:
            ValueError: no such recipe.
        """
        if size not in ACTIONFORMER_SIZES:
            raise ValueError(f"`size` must be one of {list(ACTIONFORMER_SIZES)}, got {size!r}.")
        return cls(**{**ACTIONFORMER_SIZES[size], **kwargs})


__all__ = ["ACTIONFORMER_SIZES", "ActionFormerConfig"]
