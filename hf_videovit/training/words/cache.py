"""
Visual words that were worked out before, on disk. They cost more than the model's own forward pass, so a run of many
epochs can take those of a few augmented copies of each sample in turn.

Words are filed under the very pixels they were found for and under the tokenizer's weights. So whatever changes the
pixels (another file, other frames of it, another crop, mirroring, colours, another decoder) asks for words anew, and a
file in the cache is never out of date.
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

WORDS_VERSION = 1  # to be raised with any change to how pixels become words, such as that of `word_pixels`
KEY_BYTES = 16


def tokenizer_fingerprint(tokenizer: VisualTokenizer) -> str:
    """
    A name for a tokenizer, another one for other weights.

    Args:
        tokenizer ([`VisualTokenizer`]):
            A torch module.

    Raises:
        ValueError: it is not a torch module, so it cannot be told from another.
    """
    if not isinstance(tokenizer, nn.Module):
        raise ValueError(
            "`word_cache` needs a tokenizer that is a torch module, so that others can be told from it by their "
            f"weights; got a {type(tokenizer).__name__}"
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
    The words of one tokenizer, a small file for each augmented copy: `{folder}/{tokenizer}/{xx}/{pixels}.npy`.

    Any number of processes may read and write; a file is there as a whole or not at all.

    Args:
        folder (`str` or `Path`):
            Where all tokenizers' words are.
        tokenizer ([`VisualTokenizer`]):
            Whose words they are.
    """

    def __init__(self, folder: str | Path, tokenizer: VisualTokenizer):
        self.folder = Path(folder).expanduser() / tokenizer_fingerprint(tokenizer)
        self.patch_size = 2 * tokenizer.patch_size  # of the model's pixels, of which the tokenizer sees half

    def rows(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        What is known of some clips; picklable, for workers.

        Args:
            clips (`torch.Tensor` of shape `(num_clips, num_frames, num_channels, height, width)`):
                uint8 frames.

        Returns:
            `dict`: `word_key`, uint8 of shape `(num_clips, 16)`; `words`, int64 of shape `(num_clips, num_frames,
            rows, columns)`, zeros where they are not known; and whether they are, `known`, bool of shape
            `(num_clips,)`.
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
        """Of a clip's uint8 frames."""
        digest = hashlib.blake2b(repr(tuple(frames.shape)).encode(), digest_size=KEY_BYTES)
        digest.update(frames.cpu().contiguous().numpy().tobytes())
        return digest.digest()

    def path(self, key: bytes) -> Path:
        """Where words are, or would be."""
        return self.folder / key.hex()[:2] / f"{key.hex()}.npy"

    def read(self, key: bytes, shape: tuple[int, ...]) -> torch.Tensor | None:
        """Words of a key; `None` where there are none, or only a damaged file, which will be written anew."""
        path = self.path(key)
        try:
            words = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError) as error:
            logger.warning(f"{path} cannot be read and is made anew: {error}")
            return None
        if words.shape != shape:
            logger.warning(f"{path} has words of shape {words.shape} instead of {shape} and is made anew")
            return None
        return torch.from_numpy(words.astype(np.int64))

    def write(self, key: bytes, words: torch.Tensor) -> None:
        """Keep the words `(num_frames, rows, columns)` of a key."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own for each process: two may come to the same clip.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        small = words.cpu().numpy()
        with partial.open("wb") as file:
            np.save(file, small.astype(np.uint16 if small.max() < 2**16 else np.int64), allow_pickle=False)
        os.replace(partial, path)


__all__ = ["WordCache", "tokenizer_fingerprint"]
