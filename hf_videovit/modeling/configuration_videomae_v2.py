"""VideoMAE V2 configuration."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_action_detection import ActionDetectionConfig, action_detection_config
from .configuration_base import VIEW_MERGINGS, frame_size, refuse_misspelt_fields


# Wang et al. 2023, table 14 and the official constructors. The widths of the MLPs are given as integers because the
# published ratio of giant (48 / 11) gives 6143 or 6144 depending on the rounding. Only decoders of 4 layers were ever
# trained.
VIDEOMAE_V2_SIZES: dict[str, dict[str, int]] = {
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "patch_size": 16,
        "decoder_hidden_size": 192,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": 768,
    },
    "base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
        "decoder_hidden_size": 384,
        "decoder_num_attention_heads": 6,
        "decoder_intermediate_size": 1536,
    },
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "patch_size": 16,
        "decoder_hidden_size": 512,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 2048,
    },
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
        "patch_size": 16,
        "decoder_hidden_size": 512,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 2048,
    },
    "giant": {
        "hidden_size": 1408,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "intermediate_size": 6144,
        "patch_size": 14,
        "decoder_hidden_size": 512,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 2234,
    },
}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@strict
class VideoMAEV2Config(PreTrainedConfig):
    r"""
    Configuration of the VideoMAE V2 models ([Wang et al., 2023](https://huggingface.co/papers/2303.16727)). The
    defaults are the base model as pre-trained and fine-tuned on 16 frames of 224 x 224 pixels.

    Args:
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the encoder.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of encoder blocks.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Attention heads of an encoder block; must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of the encoder's MLPs.
        patch_size (`int`, *optional*, defaults to 16):
            Height and width of a tubelet in pixels.
        tubelet_size (`int`, *optional*, defaults to 2):
            Length of a tubelet in frames.
        num_frames (`int`, *optional*, defaults to 16):
            Frames of a clip. Other counts work at run time: the position table is interpolated.
        image_size (`int` or `list[int]`, *optional*, defaults to 224):
            Height and width of a frame in pixels. Other sizes work at run time.
        num_channels (`int`, *optional*, defaults to 3):
            Channels of a frame.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLPs; the official models use the exact (erf) GELU.
        layer_norm_eps (`float`, *optional*, defaults to 1e-06):
            Epsilon of every LayerNorm, decoder and `fc_norm` included.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries and values have a bias. Keys never have one.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout after the attention's output projection and after the MLP.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last encoder block; the rate grows linearly from 0 at the first.
        classifier_dropout (`float`, *optional*, defaults to 0.0):
            Dropout before the classifier (0.5 in the official huge and UCF101/HMDB51 recipes).
        use_mean_pooling (`bool`, *optional*, defaults to `True`):
            `True`: `fc_norm` of the mean of all tokens (every released model). `False`: token 0 after a token-wise
            norm.
        use_cosine_attention (`bool`, *optional*, defaults to `False`):
            Cosine attention with a learnt temperature a head. Official option that no released model uses.
        layer_scale_init_value (`float`, *optional*, defaults to 0.0):
            Start value of the layer scale on both branches of a block; 0 means none. Used by no released model.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the linear layers of a classifier built from scratch.
        classifier_init_scale (`float`, *optional*, defaults to 0.001):
            Factor on the fresh classifier's weights.
        view_merging (`str`, *optional*, defaults to `"softmax_mean"`):
            How several views of one video become one prediction: `"softmax_mean"` averages probabilities (official),
            `"logits_mean"` averages logits.
        position_grid (`list[int]`, *optional*):
            Grid `[frames, height, width]` in tokens of the fixed position table. Defaults to the grid of `num_frames`
            and `image_size`, and is saved: a checkpoint loaded with another `image_size` interpolates the table it was
            trained with. The official loader instead makes a new one-dimensional table that does not line up with it.
        decoder_hidden_size (`int`, *optional*, defaults to 384):
            Width of the pre-training decoder.
        decoder_num_hidden_layers (`int`, *optional*, defaults to 4):
            Decoder blocks; every official recipe passes 4 (the official constructor's own default is 8).
        decoder_num_attention_heads (`int`, *optional*, defaults to 6):
            Attention heads of a decoder block; must divide `decoder_hidden_size`.
        decoder_intermediate_size (`int`, *optional*, defaults to 1536):
            Width of the decoder's MLPs.
        encoder_mask_ratio (`float`, *optional*, defaults to 0.9):
            Share of each frame's tokens hidden from the encoder (tube masking).
        decoder_mask_ratio (`float`, *optional*, defaults to 0.5):
            Share of the tokens that the decoder does not reconstruct (running-cell masking): 0, 0.25, 0.5 or 0.75.
        normalize_targets (`bool`, *optional*, defaults to `True`):
            Whether each target patch is normalised by its own mean and deviation, channel by channel.
        image_mean (`list[float]`, *optional*):
            Mean that the processor subtracted, undone in the target. Defaults to ImageNet's for 3 channels, else
            zeros.
        image_std (`list[float]`, *optional*):
            Deviation that the processor divided by. Defaults to ImageNet's for 3 channels, else ones.
        detection_config ([`ActionDetectionConfig`] or `dict`, *optional*):
            Head of the model for action detection; see [`ActionDetectionConfig`].
        adapter_layers (`list[int]`, *optional*):
            Encoder blocks, counted from 0, that end in an adapter ([AdaTAD, Liu et al.,
            2023](https://huggingface.co/papers/2311.17241)). An encoder with adapters takes long videos: attention
            stays within chunks of `num_frames` frames, and the adapters see all of them in time. Defaults to none.
        adapter_hidden_size (`int`, *optional*):
            Width inside an adapter. Defaults to a quarter of `hidden_size`.

    Raises:
        ValueError: a size does not divide another, or an option is not among those allowed.

    Example:

    ```python
    >>> from hf_videovit import VideoMAEV2Config, VideoMAEV2Model

    >>> configuration = VideoMAEV2Config.from_size("small", num_labels=400)
    >>> model = VideoMAEV2Model(configuration)
    ```"""

    model_type = "videomae_v2"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    patch_size: int = 16
    tubelet_size: int = 2
    num_frames: int = 16
    image_size: int | list[int] | tuple[int, ...] = 224
    num_channels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    classifier_dropout: float | int = 0.0
    use_mean_pooling: bool = True
    use_cosine_attention: bool = False
    layer_scale_init_value: float | int = 0.0
    initializer_range: float | int = 0.02
    classifier_init_scale: float | int = 0.001
    view_merging: str = "softmax_mean"
    position_grid: list[int] | tuple[int, ...] | None = None

    decoder_hidden_size: int = 384
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 6
    decoder_intermediate_size: int = 1536
    encoder_mask_ratio: float | int = 0.9
    decoder_mask_ratio: float | int = 0.5
    normalize_targets: bool = True
    image_mean: list[float] | tuple[float, ...] | None = None
    image_std: list[float] | tuple[float, ...] | None = None
    detection_config: dict[str, Any] | ActionDetectionConfig | None = None
    adapter_layers: list[int] | tuple[int, ...] | None = None
    adapter_hidden_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.detection_config = action_detection_config(self.detection_config)
        if self.adapter_hidden_size is None:
            self.adapter_hidden_size = self.hidden_size // 4
        self.validate_architecture()
        if self.position_grid is None:
            self.position_grid = list(self.token_grid())
        if self.image_mean is None:
            self.image_mean = list(IMAGENET_MEAN) if self.num_channels == 3 else [0.0] * self.num_channels
        if self.image_std is None:
            self.image_std = list(IMAGENET_STD) if self.num_channels == 3 else [1.0] * self.num_channels
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        for heads, width in (
            ("num_attention_heads", "hidden_size"),
            ("decoder_num_attention_heads", "decoder_hidden_size"),
        ):
            if getattr(self, heads) < 1 or getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"`{heads}` must divide `{width}`, got {getattr(self, heads)} and {getattr(self, width)}."
                )
        if self.view_merging not in VIEW_MERGINGS:
            raise ValueError(f"`view_merging` must be one of {VIEW_MERGINGS}, got {self.view_merging!r}.")
        if not 0 < self.encoder_mask_ratio < 1:
            raise ValueError(f"`encoder_mask_ratio` must be between 0 and 1, got {self.encoder_mask_ratio}.")
        if not 0 <= self.decoder_mask_ratio < 1:
            raise ValueError(f"`decoder_mask_ratio` must be in [0, 1), got {self.decoder_mask_ratio}.")
        if self.position_grid is not None and (len(self.position_grid) != 3 or min(self.position_grid) < 1):
            raise ValueError(
                f"`position_grid` must be three positive ints (frames, height, width), got {self.position_grid}."
            )
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_channels:
                raise ValueError(f"`{name}` needs {self.num_channels} values (`num_channels`), got {value}.")
        layers = list(self.adapter_layers or ())
        if len(set(layers)) != len(layers) or not set(layers) <= set(range(self.num_hidden_layers)):
            raise ValueError(
                f"`adapter_layers` must be different numbers from 0 to {self.num_hidden_layers - 1}, got {layers}."
            )
        if layers and (self.adapter_hidden_size or 0) < 1:
            raise ValueError(f"`adapter_hidden_size` must be at least 1, got {self.adapter_hidden_size}.")

    def token_grid(self) -> tuple[int, int, int]:
        """
        Token grid of a clip of `num_frames` frames of `image_size`.

        Returns:
            `tuple[int, int, int]`: frames, height and width in tokens.

        Raises:
            ValueError: the clip is not a whole number of tubelets.
        """
        height, width = frame_size(self.image_size)
        grid = (self.num_frames // self.tubelet_size, height // self.patch_size, width // self.patch_size)
        if min(grid) < 1 or self.num_frames % self.tubelet_size or height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"`num_frames` ({self.num_frames}) must be a multiple of `tubelet_size` ({self.tubelet_size}) and "
                f"`image_size` ({self.image_size}) of `patch_size` ({self.patch_size})."
            )
        return grid

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "VideoMAEV2Config":
        """
        Configuration of a published size.

        Args:
            size (`str`):
                One of `"small"`, `"base"`, `"large"`, `"huge"`, `"giant"`.
            kwargs:
                Fields that replace those of the size.

        Returns:
            [`VideoMAEV2Config`]

        Raises:
            ValueError: no such size.
        """
        if size not in VIDEOMAE_V2_SIZES:
            raise ValueError(f"`size` must be one of {list(VIDEOMAE_V2_SIZES)}, got {size!r}.")
        return cls(**{**VIDEOMAE_V2_SIZES[size], **kwargs})


__all__ = ["VIDEOMAE_V2_SIZES", "VideoMAEV2Config"]
