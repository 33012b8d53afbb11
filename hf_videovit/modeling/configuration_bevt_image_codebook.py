"""Configuration of the tokenizer of visual words."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_base import refuse_misspelt_fields


@strict
class BevtImageCodebookConfig(PreTrainedConfig):
    r"""
    Configuration of [`BevtImageCodebook`], a vector-quantised autoencoder of images whose words BEVT predicts, in the
    manner of PeCo ([Dong et al., 2021](https://huggingface.co/papers/2111.12710)). The defaults have as many words as
    PeCo and DALL-E, for the patches of the published BEVT.

    Args:
        vocab_size (`int`, *optional*, defaults to 8192):
            Number of words.
        patch_size (`int`, *optional*, defaults to 8):
            Height and width in pixels of the area of one word, a power of 2 from 2 on: half of the area in the frames
            of the model that predicts the words.
        num_channels (`int`, *optional*, defaults to 3):
            Channels of the images.
        hidden_size (`int`, *optional*, defaults to 128):
            Channels of the hidden layers.
        num_hidden_layers (`int`, *optional*, defaults to 2):
            Residual blocks of the encoder, and as many of the decoder.
        code_size (`int`, *optional*, defaults to 32):
            Length of the vector of a word.
        commitment_weight (`float`, *optional*, defaults to 0.25):
            Weight in the loss of the distance between the encoder's output and the vectors of its words.
        codebook_decay (`float`, *optional*, defaults to 0.98):
            Share of the moving averages that a training step keeps. The vector of a word is the moving average of the
            outputs that it stood for.
        restart_share (`float`, *optional*, defaults to 0.05):
            A word whose use falls below this share of the mean use starts again from an output of the encoder that is
            far from every word. 0 never restarts a word.
        subtract_mean_frame (`bool`, *optional*, defaults to `False`):
            Whether the words describe the difference from the mean frame of a clip. Meant for static cameras: the
            background is then one word. From an image, its mean colours are subtracted.
        image_size (`int`, *optional*, defaults to 224):
            Height and width of the frames in training. The tokenizer sees them at half the size.
        num_frames (`int`, *optional*, defaults to 1):
            Frames of a clip in training.

    Raises:
        ValueError: a value is out of range.

    Example:

    ```python
    >>> from hf_videovit import BevtImageCodebook, BevtImageCodebookConfig

    >>> tokenizer = BevtImageCodebook(BevtImageCodebookConfig(vocab_size=512))
    ```"""

    model_type = "bevt_image_codebook"

    vocab_size: int = 8192
    patch_size: int = 8
    num_channels: int = 3
    hidden_size: int = 128
    num_hidden_layers: int = 2
    code_size: int = 32
    commitment_weight: float | int = 0.25
    codebook_decay: float | int = 0.98
    restart_share: float | int = 0.05
    subtract_mean_frame: bool = False
    image_size: int = 224
    num_frames: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_misspelt_fields(self, kwargs)
        self.validate_ranges()
        super().__post_init__(**kwargs)

    def validate_ranges(self) -> None:
        """
        Check the values. It is part of `@strict`'s class validation.

        Raises:
            ValueError: a value is out of range.
        """
        if self.patch_size < 2 or self.patch_size & (self.patch_size - 1):
            raise ValueError(f"`patch_size` must be a power of 2 from 2 on, got {self.patch_size}.")
        if self.vocab_size < 2:
            raise ValueError(f"`vocab_size` must be at least 2, got {self.vocab_size}.")
        for name in ("num_channels", "hidden_size", "code_size", "num_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.image_size < 1 or self.image_size % (2 * self.patch_size):
            raise ValueError(
                f"`image_size` must be a multiple of {2 * self.patch_size}, twice `patch_size`, got {self.image_size}."
            )
        for name in ("codebook_decay", "restart_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be from 0 to below 1, got {getattr(self, name)}.")
        if self.commitment_weight < 0:
            raise ValueError(f"`commitment_weight` must not be negative, got {self.commitment_weight}.")


__all__ = ["BevtImageCodebookConfig"]
