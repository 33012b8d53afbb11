"""Outputs of UniFormer's encoder and classifiers."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput


@dataclass
class UniFormerModelOutput(BaseModelOutputWithPooling):
    """
    Output of [`UniFormerModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_sizes[-1])`):
            The normalised map of stage 4 as tokens in frame, row, column order.
        pooler_output (`torch.Tensor` of shape `(batch_size, hidden_sizes[-1])`):
            Their mean.
        hidden_states (`tuple(torch.Tensor)`, *optional*):
            Input of stage 1 and output of each stage: maps of shape `(batch_size, channels, [frames,] height, width)`.
        attentions (`tuple(torch.Tensor)`, *optional*):
            Probabilities `(batch_size, num_heads, tokens, tokens)` of each attention in stages 3 and 4. The first axis
            is `batch_size * num_windows` where attention is windowed. Split attention has two a block: over time, then
            over space.
        class_token (`torch.Tensor` of shape `(batch_size, hidden_sizes[-1])`, *optional*):
            The normalised class token of a model with token pruning; used only in training.
        feature_maps (`tuple(torch.Tensor)`, *optional*):
            Output of stages 1 to 3, with `output_feature_maps=True`: maps of shape `(batch_size, channels, [frames,]
            height, width)`.
    """

    class_token: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None


@dataclass
class UniFormerClassifierOutput(ImageClassifierOutput):
    """
    Output of the classifiers.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            See the class.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`):
            Predictions.
        hidden_states, attentions (`tuple(torch.Tensor)`, *optional*):
            As in [`UniFormerModelOutput`].
        token_logits (`torch.Tensor` of shape `(batch_size, sequence_length, num_labels)`, *optional*):
            Of the auxiliary head.
        class_token_logits (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*):
            Of the class token, in training only.
    """

    token_logits: torch.Tensor | None = None
    class_token_logits: torch.Tensor | None = None


__all__ = ["UniFormerClassifierOutput", "UniFormerModelOutput"]
