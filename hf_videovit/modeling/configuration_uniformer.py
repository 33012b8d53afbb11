"""UniFormer (version 1) configuration."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from .configuration_action_detection import ActionDetectionConfig, action_detection_config
from .configuration_base import VIEW_MERGINGS, refuse_misspelt_fields


# Official constructors of the image, token-labelling and light code. Some checkpoints of one size differ in `head_dim`
# (see `UniFormerConfig.head_dim`); the values here are those of the plain ImageNet models.
UNIFORMER_SIZES: dict[str, dict[str, Any]] = {
    "small": {"depths": [3, 4, 8, 3], "hidden_sizes": [64, 128, 320, 512], "head_dim": 64},
    "small_plus": {"depths": [3, 5, 9, 3], "hidden_sizes": [64, 128, 320, 512], "head_dim": 32, "stem": "conv"},
    "base": {"depths": [5, 8, 20, 7], "hidden_sizes": [64, 128, 320, 512], "head_dim": 64},
    "base_ls": {
        "depths": [5, 8, 20, 7],
        "hidden_sizes": [64, 128, 320, 512],
        "head_dim": 64,
        "layer_scale_init_value": 1e-6,
    },
    "large": {
        "depths": [5, 10, 24, 7],
        "hidden_sizes": [128, 192, 448, 640],
        "head_dim": 64,
        "layer_scale_init_value": 1e-6,
        "layer_scale_in_conv_blocks": True,
    },
    "xxs": {
        "depths": [2, 5, 8, 2],
        "hidden_sizes": [56, 112, 224, 448],
        "intermediate_sizes": [168, 336, 672, 1344],
        "head_dim": 28,
        "stem": "conv_first",
        "use_token_pruning": True,
    },
    "xs": {
        "depths": [3, 5, 9, 3],
        "hidden_sizes": [64, 128, 256, 512],
        "intermediate_sizes": [192, 384, 768, 1536],
        "head_dim": 32,
        "stem": "conv_first",
        "use_token_pruning": True,
    },
}

MODALITIES = ("image", "video")
STEMS = ("patch", "conv", "conv_first")
ATTENTION_TYPES = ("global", "window", "hybrid")
NUM_STAGES = 4


@strict
class UniFormerConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    Configuration of the UniFormer models ([Li et al., 2022, video](https://huggingface.co/papers/2201.04676);
    [image and dense tasks](https://huggingface.co/papers/2201.09450)). The defaults are UniFormer-S for clips of 16
    frames of 224 x 224 pixels. Lists have one entry a stage.

    Args:
        modality (`str`, *optional*, defaults to `"video"`):
            `"image"` (2-D convolutions, for classification and as a backbone) or `"video"` (3-D convolutions).
        depths (`list[int]`, *optional*, defaults to `[3, 4, 8, 3]`):
            Blocks of each stage: convolution blocks in the first two, attention blocks in the last two.
        hidden_sizes (`list[int]`, *optional*, defaults to `[64, 128, 320, 512]`):
            Channels of each stage.
        head_dim (`int`, *optional*, defaults to 64):
            Width of an attention head; a stage has `hidden_size // head_dim` heads. The weights do not show it. It is
            64 in most published models, but **32** in the token-labelled S, S+ and B and in the plain S+ (unless their
            names say `dim64`). With the wrong value a checkpoint loads without an error and is less accurate.
        intermediate_sizes (`list[int]`, *optional*):
            Width of the MLPs. Defaults to four times `hidden_sizes`; it is three times those in the light models.
        num_frames (`int`, *optional*, defaults to 16):
            Frames of a clip. Other counts work at run time; stage 1 halves them, an odd count rounded up.
        image_size (`int` or `list[int]`, *optional*, defaults to 224):
            Height and width in pixels. Other sizes work at run time: positions are convolutions.
        num_channels (`int`, *optional*, defaults to 3):
            Channels of the input.
        stem (`str`, *optional*, defaults to `"patch"`):
            How a stage takes its input to lower resolution. `"patch"`: a convolution whose stride is its kernel, then
            LayerNorm. `"conv"`: overlapping 3 x 3 convolutions with BatchNorm in every stage (S+; images only).
            `"conv_first"`: the same in stage 1 only (light models).
        use_temporal_overlap (`bool`, *optional*, defaults to `False`):
            Video: whether the patch embeddings of stages 2 to 4 also cover the neighbouring frames (kernel 3 in time;
            the option `std` of the official code, an ablation).
        use_split_attention (`bool`, *optional*, defaults to `False`):
            Video: attention over time, then over space, instead of over all tokens (an ablation without released
            weights).
        attention_type (`str`, *optional*, defaults to `"global"`):
            Images: attention of stage 3. `"window"`: within windows. `"hybrid"`: every fourth block is global, the
            others windowed. All modes share their weights. Stage 4 is always global.
        window_size (`int`, *optional*, defaults to 14):
            Side of a window in tokens of stage 3.
        use_token_pruning (`bool`, *optional*, defaults to `False`):
            Whether stages 3 and 4 carry a class token and update only the tokens that it attends to most (light
            models).
        prune_ratios (`list[list[float]]`, *optional*):
            With `use_token_pruning`: the share of tokens that each block of stage 3 and of stage 4 updates; 1 prunes
            nothing. Defaults to 1 in the first block of stage 3 and 0.5 elsewhere.
        trade_offs (`list[list[float]]`, *optional*):
            With `use_token_pruning`: the weight of a block's own attention in the running score of the tokens.
            Defaults to the same values as `prune_ratios`.
        layer_scale_init_value (`float`, *optional*, defaults to 0.0):
            Start value of the layer scale on both branches of the attention blocks; 0 means none. 1e-6 in the image
            models that have it, 0.1 in the light video models.
        layer_scale_in_conv_blocks (`bool`, *optional*, defaults to `False`):
            Whether the convolution blocks have one too (token-labelling and light video models; not `base_ls`).
        use_auxiliary_head (`bool`, *optional*, defaults to `False`):
            Image classification: a second classifier on every token (token labelling). In evaluation half of its
            largest logit over the tokens is added to the logits of each class.
        pose_hidden_sizes (`list[int]`, *optional*, defaults to `[256, 256, 256]`):
            Channels of the deconvolutions of [`UniFormerForPoseEstimation`], each of which doubles the map's sides.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLPs; the official models use the exact (erf) GELU.
        layer_norm_eps (`float`, *optional*, defaults to 1e-06):
            Epsilon of the LayerNorms in attention blocks and on a backbone's feature maps. Those of patch embeddings
            and of the class token have 1e-5, as in the official code.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have a bias.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout after the first patch embedding, in the MLPs and after the attention's output projection.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last block; the rate grows linearly from 0 over the blocks of all stages.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the linear layers of attention blocks and classifiers.
        view_merging (`str`, *optional*, defaults to `"logits_mean"`):
            How several views of one video become one prediction. The official code adds their logits, which ranks the
            classes as `"logits_mean"` does; `"softmax_mean"` averages probabilities.
        out_features (`list[str]`, *optional*):
            Stages whose maps [`UniFormerBackbone`] returns, of `"stem"`, `"stage1"`, ..., `"stage4"`. Defaults to the
            last.
        out_indices (`list[int]`, *optional*):
            The same as indices.
        detection_config ([`ActionDetectionConfig`] or `dict`, *optional*):
            Head of the model for action detection; see [`ActionDetectionConfig`].

    Raises:
        ValueError: a combination of options is not supported, or an option is not among those allowed.

    Example:

    ```python
    >>> from hf_videovit import UniFormerConfig, UniFormerModel

    >>> configuration = UniFormerConfig.from_size("base", num_frames=32, num_labels=400)
    >>> model = UniFormerModel(configuration)
    ```"""

    model_type = "uniformer"

    modality: str = "video"
    depths: list[int] | tuple[int, ...] = (3, 4, 8, 3)
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 320, 512)
    head_dim: int = 64
    intermediate_sizes: list[int] | tuple[int, ...] | None = None
    num_frames: int = 16
    image_size: int | list[int] | tuple[int, ...] = 224
    num_channels: int = 3
    stem: str = "patch"
    use_temporal_overlap: bool = False
    use_split_attention: bool = False
    attention_type: str = "global"
    window_size: int = 14
    use_token_pruning: bool = False
    prune_ratios: list[list[float | int]] | None = None
    trade_offs: list[list[float | int]] | None = None
    layer_scale_init_value: float | int = 0.0
    layer_scale_in_conv_blocks: bool = False
    use_auxiliary_head: bool = False
    pose_hidden_sizes: list[int] | tuple[int, ...] = (256, 256, 256)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float | int = 0.02
    view_merging: str = "logits_mean"
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None
    detection_config: dict[str, Any] | ActionDetectionConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        features = {name: kwargs.pop(name, None) for name in ("out_features", "out_indices")}
        kwargs.pop("stage_names", None)  # saved for other tools; never anything else
        if "hidden_size" in kwargs:
            raise ValueError(
                f"`hidden_size` is the last of `hidden_sizes`; pass those instead, got {kwargs['hidden_size']}."
            )
        refuse_misspelt_fields(self, kwargs)
        self.detection_config = action_detection_config(self.detection_config)
        self.validate_lists()
        self.intermediate_sizes = [self.mlp_size(stage) for stage in range(NUM_STAGES)]
        if self.use_token_pruning:
            ratios = [[1.0] + [0.5] * (self.depths[2] - 1), [0.5] * self.depths[3]]
            self.prune_ratios = self.prune_ratios or ratios
            self.trade_offs = self.trade_offs or ratios
        self.validate_architecture()
        self.stage_names = ["stem", *(f"stage{number}" for number in range(1, NUM_STAGES + 1))]
        self.set_output_features_output_indices(**features)
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage: the width of the pooled features."""
        return self.hidden_sizes[-1]

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return NUM_STAGES

    def num_heads(self, stage: int) -> int:
        """
        Attention heads of a block.

        Args:
            stage (`int`):
                Index of the stage, 0 to 3.

        Returns:
            `int`: number of heads.
        """
        return self.hidden_sizes[stage] // self.head_dim

    def mlp_size(self, stage: int) -> int:
        """
        Width of the MLPs of a stage.

        Args:
            stage (`int`):
                Index of the stage, 0 to 3.

        Returns:
            `int`: width.
        """
        return (self.intermediate_sizes or [4 * size for size in self.hidden_sizes])[stage]

    def pruning(self, stage: int) -> list[tuple[float, float]]:
        """
        Prune ratio and trade-off of each block of a stage.

        Args:
            stage (`int`):
                Index of the stage, 2 or 3.

        Returns:
            `list[tuple[float, float]]`: one pair for each block.
        """
        ratios, trade_offs = (self.prune_ratios or [])[stage - 2], (self.trade_offs or [])[stage - 2]
        return list(zip(ratios, trade_offs, strict=True))

    def validate_lists(self) -> None:
        """
        Checks of the lists, on whose lengths later checks and defaults rely.

        Raises:
            ValueError: a list has another length or a value that is not allowed.
        """
        for name in ("depths", "hidden_sizes", "intermediate_sizes"):
            value = getattr(self, name)
            if value is not None and (len(value) != NUM_STAGES or min(value) < 1):
                raise ValueError(f"`{name}` must be {NUM_STAGES} positive ints, one a stage, got {value}.")
        if not self.pose_hidden_sizes or min(self.pose_hidden_sizes) < 1:
            raise ValueError(f"`pose_hidden_sizes` must be positive ints, got {self.pose_hidden_sizes}.")
        for name in ("prune_ratios", "trade_offs"):
            value = getattr(self, name)
            if value is None:
                continue
            if not self.use_token_pruning:
                raise ValueError(f"`{name}` needs `use_token_pruning=True`, got {value}.")
            wanted = list(self.depths[2:])
            if [len(one) for one in value] != wanted or not all(0 <= ratio <= 1 for one in value for ratio in one):
                raise ValueError(
                    f"`{name}` must be two lists of {wanted[0]} and {wanted[1]} numbers in [0, 1], one a block of "
                    f"stages 3 and 4, got {value}."
                )

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        for name, allowed in (
            ("modality", MODALITIES),
            ("stem", STEMS),
            ("attention_type", ATTENTION_TYPES),
            ("view_merging", VIEW_MERGINGS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        for stage in (2, 3):
            heads = self.num_heads(stage) if self.head_dim > 0 else 0
            if heads < 1 or self.hidden_sizes[stage] % heads:
                raise ValueError(
                    f"`head_dim` ({self.head_dim}) gives {heads} heads in stage {stage + 1}, which do not divide its "
                    f"{self.hidden_sizes[stage]} channels (`hidden_sizes`)."
                )
        if self.window_size < 1:
            raise ValueError(f"`window_size` must be at least 1, got {self.window_size}.")
        if self.prune_ratios is not None and self.prune_ratios[0][0] != 1:
            raise ValueError(
                "`prune_ratios[0][0]` must be 1, because there are no scores before the first block of stage 3, got "
                f"{self.prune_ratios[0][0]}."
            )
        self.validate_combinations()

    def validate_combinations(self) -> None:
        """
        Checks of options that only one modality has, and of options that exclude each other.

        Raises:
            ValueError: a combination is not supported.
        """
        only_video = ("use_temporal_overlap", "use_split_attention")
        options = {
            "use_temporal_overlap": self.use_temporal_overlap,
            "use_split_attention": self.use_split_attention,
            "use_auxiliary_head": self.use_auxiliary_head,
            "attention_type": self.attention_type if self.attention_type != "global" else None,
            "stem": "conv" if self.stem == "conv" else None,
        }
        for name, value in options.items():
            modality = "video" if name in only_video else "image"
            if value and self.modality != modality:
                raise ValueError(f"`{name}={value!r}` needs `modality={modality!r}`, got {self.modality!r}.")
        for name in ("use_split_attention", "attention_type"):
            if self.use_token_pruning and options[name]:
                raise ValueError(f"`use_token_pruning` is not supported with `{name}={options[name]!r}`.")
        if self.layer_scale_in_conv_blocks and self.layer_scale_init_value <= 0:
            raise ValueError(
                "`layer_scale_in_conv_blocks` needs a `layer_scale_init_value` above 0, got "
                f"{self.layer_scale_init_value}."
            )

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "UniFormerConfig":
        """
        Configuration of a published size.

        Args:
            size (`str`):
                `"small"`, `"small_plus"`, `"base"`, `"base_ls"`, `"large"`, `"xxs"` or `"xs"`. Video models were
                published as `"small"`, `"base"`, `"xxs"` and `"xs"`.
            kwargs:
                Fields that replace those of the size, such as `modality="image"`.

        Returns:
            [`UniFormerConfig`]

        Raises:
            ValueError: no such size.
        """
        if size not in UNIFORMER_SIZES:
            raise ValueError(f"`size` must be one of {list(UNIFORMER_SIZES)}, got {size!r}.")
        return cls(**{**UNIFORMER_SIZES[size], **kwargs})


__all__ = ["UNIFORMER_SIZES", "UniFormerConfig"]
