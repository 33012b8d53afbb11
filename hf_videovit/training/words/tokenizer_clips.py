"""Batches for the training of a tokenizer: the small copies of frames that it sees."""

import torch

from ...modeling.modeling_bevt_image_codebook import BevtImageCodebook
from ...modeling.video_processing_base import without_colours
from ...modeling.word_pixels import word_pixels
from ..data.loaders import Record, TrainingClipLoader
from ..data.processors import ClipProcessor
from ..data.streaming import merge_copies


Rows = dict[str, torch.Tensor]


class TokenizerClipLoader(TrainingClipLoader):
    """Reads an augmented clip, or an image as a clip of one frame, without its label."""

    def __call__(self, record: Record) -> Rows:
        """
        Read a sample.

        Args:
            record ([`Record`]):
                The sample and its epoch.

        Returns:
            `dict`: `pixel_values`, uint8 of shape `(num_sample, num_frames, num_channels, height, width)`.
        """
        clips = self.clips(record)["pixel_values"]
        return {"pixel_values": without_colours(clips).contiguous() if self.processor.do_grayscale else clips}


class TokenizerEvaluationLoader:
    """
    Reads the middle of a video, or an image, without augmentation.

    Args:
        processor ([`ClipProcessor`]):
            Samples and decodes frames.
    """

    def __init__(self, processor: ClipProcessor):
        self.processor = processor

    def __call__(self, record: Record) -> Rows:
        inputs = self.processor(
            record.sample.video,
            sampling_mode="validation",
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )
        return {"pixel_values": inputs["pixel_values"]}


def tokenizer_pixels(tokenizer: BevtImageCodebook, rows: Rows, device: torch.device | str = "cpu") -> torch.Tensor:
    """
    The pixels that a tokenizer sees of a batch: small copies, as in the pretraining that uses its words.

    Args:
        tokenizer ([`BevtImageCodebook`]):
            The tokenizer. Its weights are not used.
        rows (`dict[str, torch.Tensor]`):
            Rows of a batch.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Where they go.

    Returns:
        `torch.Tensor` of shape `(num_clips, num_frames, num_channels, height / 2, width / 2)`: in [0.1, 0.9].
    """
    clips = merge_copies(rows)["pixel_values"].to(device, non_blocking=True)
    height, width = clips.shape[-2:]
    return tokenizer.prepare(word_pixels(clips, (height // 2, width // 2)))


__all__ = ["TokenizerClipLoader", "TokenizerEvaluationLoader", "tokenizer_pixels"]
