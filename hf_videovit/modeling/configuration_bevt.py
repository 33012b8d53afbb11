"""BEVT configuration."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_action_detection import ActionDetectionConfig, action_detection_config
from .configuration_base import VIEW_MERGINGS, refuse_misspelt_fields, validate_swin_stages


# Liu et al. 2021 (Video Swin), table 1 and the official configs. BEVT itself was published as `base` only. "-ssv2" is
# the longer window of the Something-Something recipes, "-384" the wider window of the model for 384 pixels.
BEVT_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_sizes": [96, 192, 384, 768], "depths": [2, 2, 6, 2], "num_attention_heads": [3, 6, 12, 24]},
    "small": {"hidden_sizes": [96, 192, 384, 768], "depths": [2, 2, 18, 2], "num_attention_heads": [3, 6, 12, 24]},
    "base": {"hidden_sizes": [128, 256, 512, 1024], "depths": [2, 2, 18, 2], "num_attention_heads": [4, 8, 16, 32]},
    "base-ssv2": {
        "hidden_sizes": [128, 256, 512, 1024],
        "depths": [2, 2, 18, 2],
        "num_attention_heads": [4, 8, 16, 32],
        "window_size": [16, 7, 7],
        "drop_path_rate": 0.4,
    },
    "large": {"hidden_sizes": [192, 384, 768, 1536], "depths": [2, 2, 18, 2], "num_attention_heads": [6, 12, 24, 48]},
    "large-384": {
        "hidden_sizes": [192, 384, 768, 1536],
        "depths": [2, 2, 18, 2],
        "num_attention_heads": [6, 12, 24, 48],
        "window_size": [8, 12, 12],
        "image_size": 384,
    },
}


@strict
class BevtConfig(PreTrainedConfig):
    r"""
    Configuration of the BEVT models ([Wang et al., 2022](https://huggingface.co/papers/2112.01529)): a Video Swin
    ([Liu et al., 2021](https://huggingface.co/papers/2106.13230)) pre-trained to predict the visual words of masked
    images and clips. The defaults are the base model as fine-tuned on Kinetics-400.

    Args:
        hidden_sizes (`list[int]`, *optional*, defaults to `[128, 256, 512, 1024]`):
            Width of each stage; it doubles from stage to stage.
        depths (`list[int]`, *optional*, defaults to `[2, 2, 18, 2]`):
            Blocks of each stage.
        num_attention_heads (`list[int]`, *optional*, defaults to `[4, 8, 16, 32]`):
            Attention heads of each stage's blocks; each must divide its stage's width.
        intermediate_sizes (`list[int]`, *optional*):
            Width of the MLPs of each stage. Defaults to four times `hidden_sizes`.
        window_size (`list[int]`, *optional*, defaults to `[8, 7, 7]`):
            Frames, height and width of an attention window in tokens. The official Something-Something recipe widens
            the frames to 16.
        patch_size (`int`, *optional*, defaults to 4):
            Height and width of a patch in pixels.
        tubelet_size (`int`, *optional*, defaults to 2):
            Length of a patch in frames.
        num_frames (`int`, *optional*, defaults to 32):
            Frames of a clip; 16 in pre-training. Nothing in the model depends on it.
        image_size (`int` or `list[int]`, *optional*, defaults to 224):
            Height and width of a frame in pixels. Nothing in the model depends on it; images in pre-training must
            have sides that are multiples of 32 windows.
        num_channels (`int`, *optional*, defaults to 3):
            Channels of a frame.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have a bias.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLPs; the official models use the exact (erf) GELU.
        layer_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of every LayerNorm.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout after the attention's output projection and in the MLPs.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        drop_path_rate (`float`, *optional*, defaults to 0.3):
            Stochastic depth of the last block; the rate grows linearly from 0 at the first. 0.4 on
            Something-Something.
        classifier_dropout (`float`, *optional*, defaults to 0.5):
            Dropout before the classifier.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the linear layers, tables of relative positions and mask token of a fresh model.
        classifier_initializer_range (`float`, *optional*, defaults to 0.01):
            Standard deviation of a fresh classifier.
        view_merging (`str`, *optional*, defaults to `"softmax_mean"`):
            How several views of one video become one prediction: `"softmax_mean"` averages probabilities (official),
            `"logits_mean"` averages logits.
        vocab_size (`int`, *optional*, defaults to 8192):
            Visual words that pre-training predicts: those of the DALL-E tokenizer.
        image_stream (`bool`, *optional*, defaults to `True`):
            Whether a pre-training model has the parts that only images use.
        video_stream (`bool`, *optional*, defaults to `True`):
            Whether it has the parts that only clips use. Stage 1 of the official pre-training trains the image stream
            alone.
        video_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the clips' loss in the joint loss.
        image_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the images' loss.
        mask_ratio (`float`, *optional*, defaults to 0.5):
            Largest share of the words of an image, or of a frame under the tube of a clip, that pre-training hides.
        shortest_tube (`float`, *optional*, defaults to 0.5):
            Smallest share of a clip's frames that the tube runs through.
        longest_tube (`float`, *optional*, defaults to 1.0):
            Largest share. Below 1 every place is seen in some frame, so hidden words can be inferred from motion.
        detection_config ([`ActionDetectionConfig`] or `dict`, *optional*):
            Head of the model for action detection; see [`ActionDetectionConfig`].

    Raises:
        ValueError: a size does not divide another, lists differ in length, or an option is not among those allowed.

    Example:

    ```python
    >>> from hf_videovit import BevtConfig, BevtModel

    >>> configuration = BevtConfig.from_size("base", num_labels=400)
    >>> model = BevtModel(configuration)
    ```"""

    model_type = "bevt"

    hidden_sizes: list[int] | tuple[int, ...] = (128, 256, 512, 1024)
    depths: list[int] | tuple[int, ...] = (2, 2, 18, 2)
    num_attention_heads: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    intermediate_sizes: list[int] | tuple[int, ...] | None = None
    window_size: list[int] | tuple[int, ...] = (8, 7, 7)
    patch_size: int = 4
    tubelet_size: int = 2
    num_frames: int = 32
    image_size: int | list[int] | tuple[int, ...] = 224
    num_channels: int = 3
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.3
    classifier_dropout: float | int = 0.5
    initializer_range: float | int = 0.02
    classifier_initializer_range: float | int = 0.01
    view_merging: str = "softmax_mean"

    vocab_size: int = 8192
    image_stream: bool = True
    video_stream: bool = True
    video_loss_weight: float | int = 1.0
    image_loss_weight: float | int = 1.0
    mask_ratio: float = 0.5
    shortest_tube: float | int = 0.5
    longest_tube: float | int = 1.0
    detection_config: dict[str, Any] | ActionDetectionConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.detection_config = action_detection_config(self.detection_config)
        for name in ("hidden_size", "num_hidden_layers"):
            if name in kwargs:
                raise ValueError(
                    f"`{name}` follows from `hidden_sizes` and `depths`; pass those instead, got {kwargs[name]}."
                )
        self.intermediate_sizes = self.intermediate_sizes or [4 * size for size in self.hidden_sizes]
        self.validate_architecture()
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        validate_swin_stages(self)
        if len(self.window_size) != 3 or min(self.window_size) < 1:
            raise ValueError(
                f"`window_size` must be three positive ints (frames, height, width), got {self.window_size}."
            )
        for name in ("patch_size", "tubelet_size", "num_frames", "num_channels", "vocab_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.view_merging not in VIEW_MERGINGS:
            raise ValueError(f"`view_merging` must be one of {VIEW_MERGINGS}, got {self.view_merging!r}.")
        if not (self.image_stream or self.video_stream):
            raise ValueError("One of `image_stream` and `video_stream` must be True, got False for both.")
        for name in ("video_loss_weight", "image_loss_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must lie between 0 and 1, got {self.mask_ratio}.")
        if not 0 <= self.shortest_tube <= self.longest_tube <= 1:
            raise ValueError(
                "`shortest_tube` must be at most `longest_tube`, both between 0 and 1, got "
                f"{self.shortest_tube} and {self.longest_tube}."
            )

    @property
    def hidden_size(self) -> int:
        """Width of the last stage and of the pooled features."""
        return self.hidden_sizes[-1]

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def prediction_patch_size(self) -> int:
        """Height and width in pixels of the area of one visual word, which is a token of the last stage but one."""
        return self.patch_size * 2 ** max(len(self.depths) - 2, 0)

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "BevtConfig":
        """
        Configuration of a published size.

        Args:
            size (`str`):
                One of `"tiny"`, `"small"`, `"base"`, `"base-ssv2"`, `"large"`, `"large-384"`.
            kwargs:
                Fields that replace those of the size.

        Returns:
            [`BevtConfig`]

        Raises:
            ValueError: no such size.
        """
        if size not in BEVT_SIZES:
            raise ValueError(f"`size` must be one of {list(BEVT_SIZES)}, got {size!r}.")
        return cls(**{**BEVT_SIZES[size], **kwargs})


__all__ = ["BEVT_SIZES", "BevtConfig"]
