"""
A cache of visual words on disk. The words cost more than the forward pass of the model, so a run of many epochs can
cycle through a few augmented copies of each sample.

The key of an entry is a hash of the pixels, and each tokenizer has its own folder. Any change of the pixels (another
file, frame, crop or decoder, mirroring, colours) therefore leads to new words, and an entry is never out of date.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers.utils import logging

from .tokenizers import VisualTokenizer


logger = logging.get_logger(__name__)

WORDS_VERSION = 1  # increase it with any change to how pixels become words, such as in `word_pixels`
KEY_BYTES = 16


def tokenizer_fingerprint(tokenizer: VisualTokenizer) -> str:
    """
    Hash of the weights and the kind of a tokenizer.

    Args:
        tokenizer ([`VisualTokenizer`]):
            A torch module.

    Returns:
        `str`: 32 hexadecimal digits.

    Raises:
        ValueError: the tokenizer is not a torch module, so it has no weights to compare.
    """
    if not isinstance(tokenizer, nn.Module):
        raise ValueError(
            "`word_cache` needs a tokenizer that is a torch module, because tokenizers are identified by their "
            f"weights, got {type(tokenizer).__name__}"
        )
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    kind = (WORDS_VERSION, type(tokenizer).__qualname__, tokenizer.vocab_size, tokenizer.patch_size)
    digest.update(repr(kind).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class WordCache:
    """
    The words of one tokenizer, in a small file per augmented copy: `{folder}/{tokenizer}/{xx}/{pixels}.npy`.

    Any number of processes may read and write. Files are written atomically.

    Args:
        folder (`str` or `Path`):
            Folder of the words of all tokenizers.
        tokenizer ([`VisualTokenizer`]):
            The tokenizer.
    """

    def __init__(self, folder: str | Path, tokenizer: VisualTokenizer):
        self.folder = Path(folder).expanduser() / tokenizer_fingerprint(tokenizer)
        self.patch_size = 2 * tokenizer.patch_size  # in pixels of the model; the tokenizer sees half of them per side

    def rows(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Look up the words of some clips. Workers call this.

        Args:
            clips (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)`):
                uint8 frames.

        Returns:
            `dict`: `word_key`, uint8 of shape `(num_clips, 16)`; `words`, int64 of shape `(num_clips, num_frames,
            rows, columns)`, zeros where unknown; `known`, bool of shape `(num_clips,)`.
        """
        shape = (clips.shape[1], clips.shape[3] // self.patch_size, clips.shape[4] // self.patch_size)
        keys = [self.key(clip) for clip in clips]
        found = [self.read(key, shape) for key in keys]
        return {
            "word_key": torch.tensor([list(key) for key in keys], dtype=torch.uint8),
            "words": torch.stack([torch.zeros(shape, dtype=torch.long) if one is None else one for one in found]),
            "known": torch.tensor([one is not None for one in found]),
        }

    def key(self, frames: torch.Tensor) -> bytes:
        """
        Hash of the pixels of a clip.

        Args:
            frames (`torch.Tensor` of shape `(num_frames, num_channels, height, width)`):
                uint8 frames.

        Returns:
            `bytes`: 16 bytes.
        """
        digest = hashlib.blake2b(repr(tuple(frames.shape)).encode(), digest_size=KEY_BYTES)
        digest.update(frames.cpu().contiguous().numpy().tobytes())
        return digest.digest()

    def path(self, key: bytes) -> Path:
        """
        File of the words of a clip, which need not exist.

        Args:
            key (`bytes`):
                The clip's [`~WordCache.key`].
        """
        return self.folder / key.hex()[:2] / f"{key.hex()}.npy"

    def read(self, key: bytes, shape: tuple[int, ...]) -> torch.Tensor | None:
        """
        Read the words of a clip.

        Args:
            key (`bytes`):
                The clip's [`~WordCache.key`].
            shape (`tuple[int, ...]`):
                Shape of the words: `(num_frames, rows, columns)`.

        Returns:
            `torch.Tensor` of shape `shape`: the words, or `None` if the file is missing or damaged.
        """
        path = self.path(key)
        try:
            words = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError) as error:
            logger.warning(f"{path} cannot be read and will be replaced: {error}")
            return None
        if words.shape != shape:
            logger.warning(f"{path} has words of shape {words.shape} instead of {shape} and will be replaced")
            return None
        return torch.from_numpy(words.astype(np.int64))

    def write(self, key: bytes, words: torch.Tensor) -> None:
        """
        Store the words of a clip.

        Args:
            key (`bytes`):
                The clip's [`~WordCache.key`].
            words (`torch.Tensor` of shape `(num_frames, rows, columns)`):
                The words.
        """
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The temporary name depends on the process, because two processes may write the same clip.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        small = words.cpu().numpy()
        with partial.open("wb") as file:
            np.save(file, small.astype(np.uint16 if small.max() < 2**16 else np.int64), allow_pickle=False)
        os.replace(partial, path)


__all__ = ["WordCache", "tokenizer_fingerprint"]
