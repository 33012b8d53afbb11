"""UniFormerV2 configuration."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_action_detection import ActionDetectionConfig, action_detection_config
from .configuration_base import VIEW_MERGINGS, frame_size, refuse_misspelt_fields


BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 16,
    "image_size": 224,
}
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "patch_size": 14,
    "image_size": 224,
}
LARGE_336: dict[str, Any] = {**LARGE, "image_size": 336}
# Videos whose label covers a part of them: ActivityNet, HACS.
UNTRIMMED: dict[str, Any] = {"drop_path_rate": 0.2, "global_drop_path_rate": 0.4, "num_frames": 16}
# Something-Something: local modules in every block, half the frames after the patch embedding.
MOTION: dict[str, Any] = {**UNTRIMMED, "num_local_modules": 2, "temporal_downsample": True}

# The official constructors with what their released training scripts pass (OpenGVLab/UniFormerV2, commit 722a434). A
# name without ending is for Kinetics and Moments in Time.
UNIFORMER_V2_SIZES: dict[str, dict[str, Any]] = {
    "base": {**BASE, "global_layers": list(range(8, 12))},
    "large": {**LARGE, "global_layers": list(range(20, 24))},
    "large-336": {**LARGE_336, "global_layers": list(range(20, 24))},
    "large-336-frozen": {**LARGE_336, "global_layers": list(range(20, 24)), "freeze_image_tower": True},
    "large-untrimmed": {**LARGE, **UNTRIMMED, "global_layers": list(range(20, 24))},
    "base-motion": {**BASE, **MOTION, "global_layers": list(range(4, 12))},
    "large-motion": {**LARGE, **MOTION, "global_layers": list(range(8, 24))},
}


@strict
class UniFormerV2Config(PreTrainedConfig):
    r"""
    Configuration of the UniFormerV2 models ([Li et al., 2022](https://huggingface.co/papers/2211.09552)): an image ViT
    (CLIP's) on every frame, optional local modules that mix neighbouring frames, and a chain of global blocks in which
    one learnt query gathers all frames. The defaults are the base model for Kinetics.

    Args:
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the image tower and of the global blocks.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Blocks of the image tower.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Attention heads of a block; must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of the tower's MLPs.
        patch_size (`int`, *optional*, defaults to 16):
            Height and width of a patch in pixels.
        num_frames (`int`, *optional*, defaults to 8):
            Frames of a clip. Nothing in the model depends on it: there is no temporal position table.
        image_size (`int` or `list[int]`, *optional*, defaults to 224):
            Height and width of a frame in pixels. Other sizes work at run time.
        num_channels (`int`, *optional*, defaults to 3):
            Channels of a frame.
        temporal_downsample (`bool`, *optional*, defaults to `False`):
            Whether the patch embedding halves the number of frames (stride 2), which then must be even.
        temporal_kernel_size (`int`, *optional*, defaults to 3):
            Frames under the patch embedding's kernel when it halves their number; odd.
        hidden_act (`str`, *optional*, defaults to `"quick_gelu"`):
            Activation of the tower's MLPs. Another one is only right for a tower that was trained with it; the global
            blocks always use QuickGELU.
        layer_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of every LayerNorm.
        batch_norm_eps (`float`, *optional*, defaults to 1e-05):
            Epsilon of the local modules' BatchNorm.
        use_pre_layernorm (`bool`, *optional*, defaults to `True`):
            Whether a LayerNorm stands between the embeddings and the first block, as in CLIP.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last block; the rate grows linearly from 0 at the first. A sample's whole branch is
            dropped; the official code drops one token position in all frames and samples at once.
        num_local_modules (`int`, *optional*, defaults to 0):
            Local modules in each block: 0; 1 before the attention; or 2, the second between attention and MLP.
        local_reduction (`float`, *optional*, defaults to 1.5):
            Width of the tower over that of the local modules, `int(hidden_size // local_reduction)`.
        global_layers (`list[int]`, *optional*):
            Blocks after which a global block follows, ascending. Defaults to the last four.
        global_num_attention_heads (`int`, *optional*):
            Attention heads of a global block. Defaults to `num_attention_heads`.
        global_intermediate_size (`int`, *optional*):
            Width of the global blocks' MLPs. Defaults to four times `hidden_size`.
        global_dropout (`float` or `list[float]`, *optional*, defaults to 0.5):
            Dropout inside the MLP of the global blocks, one for all or one for each.
        global_drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last global block; grows linearly from 0 at the first. The official code drops a
            branch for the whole batch at once, this one sample by sample.
        use_gate (`bool`, *optional*):
            Whether a learnt gate mixes the query with the frames' mean class token; otherwise the query is the clip's
            feature. Defaults to the opposite of `freeze_image_tower`, as in the official models. A gateless checkpoint
            is fine-tuned whole with `freeze_image_tower=False, use_gate=False`.
        freeze_image_tower (`bool`, *optional*, defaults to `False`):
            Whether embeddings and blocks are not trained. Local modules are trained all the same (no official model
            has both).
        classifier_dropout (`float`, *optional*, defaults to 0.5):
            Dropout before the classifier.
        view_merging (`str`, *optional*, defaults to `"softmax_mean"`):
            How several views of one video become one prediction: `"softmax_mean"` averages probabilities (official),
            `"logits_mean"` averages logits.
        position_grid (`list[int]`, *optional*):
            Grid `[height, width]` in patches of the position table. Defaults to that of `image_size`, and is saved: a
            checkpoint loaded with another `image_size` interpolates the table that it was trained with.
        detection_config ([`ActionDetectionConfig`] or `dict`, *optional*):
            Head of the model for action detection; see [`ActionDetectionConfig`].

    Raises:
        ValueError: a size does not divide another, or an option is not among those allowed.

    Example:

    ```python
    >>> from hf_videovit import UniFormerV2Config, UniFormerV2Model

    >>> configuration = UniFormerV2Config.from_size("base-motion", num_labels=174)
    >>> model = UniFormerV2Model(configuration)
    ```"""

    model_type = "uniformer_v2"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    patch_size: int = 16
    num_frames: int = 8
    image_size: int | list[int] | tuple[int, ...] = 224
    num_channels: int = 3
    temporal_downsample: bool = False
    temporal_kernel_size: int = 3
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    batch_norm_eps: float = 1e-5
    use_pre_layernorm: bool = True
    drop_path_rate: float | int = 0.0

    num_local_modules: int = 0
    local_reduction: float | int = 1.5

    global_layers: list[int] | tuple[int, ...] | None = None
    global_num_attention_heads: int | None = None
    global_intermediate_size: int | None = None
    global_dropout: float | int | list[float] | tuple[float, ...] = 0.5
    global_drop_path_rate: float | int = 0.0

    use_gate: bool | None = None
    freeze_image_tower: bool = False
    classifier_dropout: float | int = 0.5
    view_merging: str = "softmax_mean"
    position_grid: list[int] | tuple[int, ...] | None = None
    detection_config: dict[str, Any] | ActionDetectionConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.detection_config = action_detection_config(self.detection_config)
        if self.global_layers is None:
            self.global_layers = list(range(max(self.num_hidden_layers - 4, 0), self.num_hidden_layers))
        if self.global_num_attention_heads is None:
            self.global_num_attention_heads = self.num_attention_heads
        if self.global_intermediate_size is None:
            self.global_intermediate_size = 4 * self.hidden_size
        if self.use_gate is None:
            self.use_gate = not self.freeze_image_tower
        self.validate_architecture()
        if self.position_grid is None:
            self.position_grid = list(self.patch_grid())
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """
        Cross-field checks. They are part of `@strict`'s class validation.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        for name in ("num_attention_heads", "global_num_attention_heads"):
            heads = getattr(self, name)
            if heads < 1 or self.hidden_size % heads:
                raise ValueError(f"`{name}` must divide `hidden_size`, got {heads} and {self.hidden_size}.")
        if self.view_merging not in VIEW_MERGINGS:
            raise ValueError(f"`view_merging` must be one of {VIEW_MERGINGS}, got {self.view_merging!r}.")
        if self.position_grid is not None and (len(self.position_grid) != 2 or min(self.position_grid) < 1):
            raise ValueError(f"`position_grid` must be two positive ints (height, width), got {self.position_grid}.")
        self.validate_video_parts()

    def validate_video_parts(self) -> None:
        """
        Checks of the parts added to the image tower.

        Raises:
            ValueError: a field or a combination of fields is not allowed.
        """
        if self.num_local_modules not in (0, 1, 2):
            raise ValueError(f"`num_local_modules` must be 0, 1 or 2, got {self.num_local_modules}.")
        if self.local_reduction <= 0 or self.local_size < 1:
            raise ValueError(
                f"`local_reduction` must leave at least one of {self.hidden_size} channels (`hidden_size`), got "
                f"{self.local_reduction}."
            )
        if self.temporal_kernel_size < 1 or self.temporal_kernel_size % 2 == 0:
            raise ValueError(f"`temporal_kernel_size` must be odd, got {self.temporal_kernel_size}.")
        if self.temporal_downsample and self.num_frames % 2:
            raise ValueError(f"`num_frames` must be even with `temporal_downsample`, got {self.num_frames}.")
        layers = list(self.global_layers or ())
        if not layers or layers != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= self.num_hidden_layers:
            raise ValueError(
                f"`global_layers` must be ascending indices of the {self.num_hidden_layers} blocks "
                f"(`num_hidden_layers`), at least one, got {self.global_layers}."
            )
        if isinstance(self.global_dropout, list | tuple) and len(self.global_dropout) != len(layers):
            raise ValueError(
                f"`global_dropout` needs one value for each of the {len(layers)} `global_layers`, got "
                f"{self.global_dropout}."
            )

    @property
    def local_size(self) -> int:
        """Width of the local modules: a floored division of floats, as in the official code (1024 / 1.5 gives 682)."""
        return int(self.hidden_size // self.local_reduction)

    @property
    def global_dropouts(self) -> list[float]:
        """Dropout of each global block."""
        if isinstance(self.global_dropout, list | tuple):
            return [float(rate) for rate in self.global_dropout]
        return [float(self.global_dropout)] * len(self.global_layers or ())

    def patch_grid(self) -> tuple[int, int]:
        """
        Grid of patches of a frame of `image_size`.

        Returns:
            `tuple[int, int]`: rows and columns.

        Raises:
            ValueError: `image_size` is not a multiple of `patch_size`.
        """
        height, width = frame_size(self.image_size)
        if min(height, width) < 1 or height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size` ({self.patch_size}), got {self.image_size}."
            )
        return height // self.patch_size, width // self.patch_size

    @classmethod
    def from_size(cls, size: str, **kwargs: Any) -> "UniFormerV2Config":
        """
        Configuration of a published preset.

        Args:
            size (`str`):
                One of `"base"`, `"large"`, `"large-336"`, `"large-336-frozen"`, `"large-untrimmed"`, `"base-motion"`,
                `"large-motion"`.
            kwargs:
                Fields that replace those of the preset.

        Returns:
            [`UniFormerV2Config`]

        Raises:
            ValueError: no such preset.
        """
        if size not in UNIFORMER_V2_SIZES:
            raise ValueError(f"`size` must be one of {list(UNIFORMER_V2_SIZES)}, got {size!r}.")
        return cls(**{**UNIFORMER_V2_SIZES[size], **kwargs})


__all__ = ["UNIFORMER_V2_SIZES", "UniFormerV2Config"]
