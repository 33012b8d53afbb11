"""
BEVT ([Wang et al., 2022](https://huggingface.co/papers/2112.01529)): BERT pre-training of video transformers.

A Video Swin with attention in shifted windows learns the visual words of masked patches from two streams: clips, and
images through the same blocks. Behaviour follows the official code (xyzforever/BEVT, commit
8881b21).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .backbone_video_swin import (
    VideoSwinAttention,
    VideoSwinEncoder,
    VideoSwinLayer,
    VideoSwinPatchEmbeddings,
    VideoSwinStage,
    init_video_swin,
)
from .configuration_bevt import BevtConfig
from .layers import (
    IGNORED_LABEL,
    TracedAsTuple,
    VideoClassificationMixin,
    apply_to_tokens,
    check_clips,
    check_pixels,
    classification_loss,
    init_as_torch,
    shares_of_step,
    start_of,
    starting,
)
from .modeling_action_detection import PyramidActionDetectionMixin


@dataclass
class BevtModelOutput(ModelOutput):
    """
    Output of [`BevtModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
            Tokens of the last stage after the final norm, in frame, row, column order.
        pooler_output (`torch.Tensor` of shape `(batch_size, hidden_size)`):
            Their mean.
        feature_maps (`tuple[torch.Tensor, ...]`):
            Output of each stage before merging and before the final norm, `(batch_size, frames, height, width,
            channels)`.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*):
            Embedded patches and the output of every block, of the same form.
        attentions (`tuple[torch.Tensor, ...]`, *optional*):
            Probabilities of every block, `(batch_size * num_windows, num_heads, window_length, window_length)`.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class BevtForPreTrainingOutput(ModelOutput):
    """
    Output of [`BevtForPreTraining`]. Outputs of a stream without input are `None`.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            Weighted sum of the streams' losses.
        logits (`torch.Tensor` of shape `(batch_size, num_frames * height * width, vocab_size)`, *optional*):
            Scores of the visual words of the clips (of the images if there are no clips); `(num_masked, vocab_size)`
            with `masked_only`.
        image_logits (`torch.Tensor` of shape `(num_images, height * width, vocab_size)`, *optional*):
            Scores of the visual words of the images.
        video_loss (`torch.Tensor` of shape `()`, *optional*):
            Mean cross-entropy over the masked places of all clips.
        image_loss (`torch.Tensor` of shape `()`, *optional*):
            Mean cross-entropy over the masked places of all images.
        video_accuracy (`torch.Tensor` of shape `()`, *optional*):
            Share of the masked places of clips whose word has the highest score.
        image_accuracy (`torch.Tensor` of shape `()`, *optional*):
            Share of the masked places of images whose word has the highest score.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*):
            As in [`BevtModelOutput`], of the clips; of the images if there are no clips.
        attentions (`tuple[torch.Tensor, ...]`, *optional*):
            As in [`BevtModelOutput`], of the clips; of the images if there are no clips.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    image_logits: torch.Tensor | None = None
    video_loss: torch.Tensor | None = None
    image_loss: torch.Tensor | None = None
    video_accuracy: torch.Tensor | None = None
    image_accuracy: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class _BevtImagePatchEmbeddings(nn.Module):
    """Patches of images; their own convolution and norm."""

    def __init__(self, config: BevtConfig):
        super().__init__()
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_sizes[0], config.patch_size, stride=config.patch_size
        )
        self.norm = nn.LayerNorm(config.hidden_sizes[0], eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pixels = pixel_values.to(self.projection.weight.dtype)
        return self.norm(self.projection(pixels).permute(0, 2, 3, 1))[:, None]  # (batch, 1, height, width, dim)


class _BevtImageDecoder(nn.Module):
    """Joins the last two stages at the resolution of the finer one. There is no activation."""

    def __init__(self, config: BevtConfig):
        super().__init__()
        size, finer = config.hidden_size, config.hidden_sizes[-2]
        self.upsample = nn.ConvTranspose2d(size, size, 2, stride=2)
        self.projection = nn.Linear(size + finer, size)

    def forward(self, finer: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        upsampled = self.upsample(coarser[:, 0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, None]
        joined = torch.cat((finer, upsampled), dim=-1)
        return apply_to_tokens(self.projection, joined)  # (batch, 1, height, width, hidden)


class _BevtVideoDecoder(nn.Module):
    """As [`_BevtImageDecoder`] for clips; then each tubelet is split into its frames."""

    def __init__(self, config: BevtConfig):
        super().__init__()
        size, finer = config.hidden_size, config.hidden_sizes[-2]
        self.upsample = nn.ConvTranspose3d(size, size, (1, 2, 2), stride=(1, 2, 2))
        self.projection = nn.Linear(size + finer, size)
        kernel = (config.tubelet_size, 1, 1)
        self.upsample_time = nn.ConvTranspose3d(size, size, kernel, stride=kernel)

    def forward(self, finer: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        upsampled = self.upsample(coarser.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        joined = apply_to_tokens(self.projection, torch.cat((finer, upsampled), dim=-1))
        return self.upsample_time(joined.permute(0, 4, 1, 2, 3)).permute(
            0, 2, 3, 4, 1
        )  # (batch, frames, h, w, hidden)


class BevtPreTrainedModel(PreTrainedModel):
    """Weight initialisation of the official code, and what transformers and a trainer must know of the models."""

    config: BevtConfig
    base_model_prefix = "bevt"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VideoSwinLayer", "VideoSwinPatchEmbeddings"]
    _input_embed_layer = "embeddings"
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": VideoSwinLayer,
        "attentions": OutputRecorder(VideoSwinAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if start_of(module) == "classifier" and isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.classifier_initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            init_as_torch(module)
        elif isinstance(module, BevtForPreTraining):
            init.trunc_normal_(module.mask_token, std=self.config.initializer_range, a=-2.0, b=2.0)
        else:
            init_video_swin(module, self.config.initializer_range)

    def resize_windows(self, window_size: Sequence[int]) -> None:
        """
        Change the size of the windows. Tables of relative positions are resized; all else stays as it is.

        Args:
            window_size (`Sequence[int]`):
                Frames, height and width of a window in tokens, such as `[16, 7, 7]` for Something-Something.
        """
        config = BevtConfig(**{**self.config.to_dict(), "window_size": list(window_size)})
        frames, height, width = config.window_size
        for module in self.modules():
            if isinstance(module, VideoSwinAttention):
                module.resize_window((frames, height, width))
            elif isinstance(module, VideoSwinStage):
                module.window = (frames, height, width)
            if isinstance(module, BevtPreTrainedModel):
                module.config.window_size = [frames, height, width]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """
        Prefixes of parameter names a depth, for layer-wise learning-rate decay, as the official keys resolve:
        embeddings, each block, each merging, the final norm with the last block, and last everything above (an empty
        prefix matches every name that no earlier depth matches).
        """
        base = "" if isinstance(self, BevtModel) else f"{self.base_model_prefix}."
        groups: list[tuple[str, ...]] = [(f"{base}embeddings.",)]
        for stage, depth in enumerate(self.config.depths):
            prefix = f"{base}encoder.stages.{stage}."
            groups += [(f"{prefix}layers.{index}.",) for index in range(depth)]
            groups.append((f"{prefix}merging.",))
        groups[-1] = ("",)  # the last stage has no merging
        groups[-2] = (*groups[-2], f"{base}layernorm.")
        return groups

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: tables of relative positions, as in every official recipe."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}


class BevtModel(TracedAsTuple, BevtPreTrainedModel):
    """
    The encoder. Clips may have any length and size: they are zero-padded at the end to whole patches.

    Args:
        config ([`BevtConfig`]):
            Configuration.
        add_embeddings (`bool`, *optional*, defaults to `True`):
            `False` gives a model of images, without the patch embedding of clips.
    """

    def __init__(self, config: BevtConfig, add_embeddings: bool = True):
        super().__init__(config)
        self.embeddings = VideoSwinPatchEmbeddings(config) if add_embeddings else None
        self.encoder = VideoSwinEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        patch_embeds: torch.Tensor | None = None,
        still: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BevtModelOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`, *optional*):
                Normalised clips.
            patch_embeds (`torch.Tensor` of shape `(batch_size, frames, height, width, hidden_sizes[0])`, *optional*):
                Embedded patches instead of clips.
            still (`bool`, *optional*, defaults to `False`):
                Treat `patch_embeds` as images, like the official image stream: windows are never clipped, and every
                block uses the mask of shifted windows.

        Returns:
            [`BevtModelOutput`]

        Raises:
            ValueError: not exactly one of `pixel_values` and `patch_embeds` is given, or a shape does not fit.
        """
        if (pixel_values is None) == (patch_embeds is None):
            raise ValueError("Give either `pixel_values` or `patch_embeds`, got both or neither.")
        if pixel_values is not None:
            if self.embeddings is None:
                raise ValueError("`pixel_values` cannot be given: the model has no embeddings of clips.")
            check_clips(pixel_values, self.config.num_channels)
            patch_embeds = self.embeddings(pixel_values)
        feature_maps = self.encoder(patch_embeds, still, **kwargs)
        tokens = self.layernorm(feature_maps[-1]).flatten(1, 3)
        return BevtModelOutput(
            last_hidden_state=tokens, pooler_output=tokens.mean(dim=1), feature_maps=tuple(feature_maps)
        )


class BevtForVideoClassification(VideoClassificationMixin, BevtPreTrainedModel):
    """
    Encoder, mean of the tokens, dropout and a linear classifier.

    Args:
        config ([`BevtConfig`]):
            Configuration.
    """

    def __init__(self, config: BevtConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.loss_function = classification_loss
        self.bevt = BevtModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = starting("classifier", nn.Linear(config.hidden_size, config.num_labels))
        self.post_init()


class BevtForActionDetection(PyramidActionDetectionMixin, BevtPreTrainedModel):
    """
    Scores of actions for each person in a clip: encoder, norm, and an action detection head on the last map.

    Args:
        config ([`BevtConfig`]):
            Configuration; `detection_config` describes the head.
    """

    maps_on_request = False

    def __init__(self, config: BevtConfig):
        super().__init__(config)
        self.bevt = BevtModel(config)
        self.add_pyramid_head(config.hidden_sizes, config.hidden_size)
        self.post_init()

    @property
    def last_stride(self) -> int:
        """Pixels between neighbouring places of the last stage's map."""
        return self.config.patch_size * 2 ** (len(self.config.depths) - 1)

    def _stage_maps(self, pixel_values: torch.Tensor, outputs: Any, count: int) -> list[torch.Tensor]:
        """See [`PyramidActionDetectionMixin`]."""
        last = outputs.last_hidden_state.view(outputs.feature_maps[-1].shape)
        return [*outputs.feature_maps[-count:-1], last]


class BevtForPreTraining(BevtPreTrainedModel):
    """
    Masked visual words from two streams that share every block, the mask token, the final norm and the classifier of
    words (paper, section 3).

    ```
    for clip, mask in clips:                       # mask: places hidden from the encoder, on the grid of words
        logits = words(norm(video_decoder(encoder(where(mask, mask_token, embed(clip))))))
        errors += [cross_entropy(logits[place], tokenizer(clip)[place]) for place in mask]
    video_loss = mean(errors)                      # over the masked places of the batch; the same for images
    loss = video_loss_weight * video_loss + image_loss_weight * image_loss
    ```

    Places whose label is -100 do not count. With `num_items_in_batch`, which the `Trainer` of transformers passes and
    counts as the labels other than -100 of an optimiser step, the loss is a share of that step's:

    ```
    for clip in clips:
        video_loss += mean(errors of the clip) * num_labels(clip) / num_items_in_batch
    image_loss = mean(mean(errors of the image) for image in images) * num_labels(clips) / num_items_in_batch
    ```
    Over the passes of a step it adds up to the mean over all masked places, if labels are -100 where nothing is masked
    or every clip has the same number of masked places; otherwise to the mean over the clips.

    The final norm follows the decoder here, and the last stage in every other model. The official fine-tuning loads it
    nevertheless.

    Args:
        config ([`BevtConfig`]):
            Configuration.

    Raises:
        ValueError: `config.depths` has fewer than two stages.
    """

    def __init__(self, config: BevtConfig):
        super().__init__(config)
        if len(config.depths) < 2:
            raise ValueError(f"`depths` must have at least two stages for pre-training, got {config.depths}.")
        self.bevt = BevtModel(config, add_embeddings=config.video_stream)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.hidden_sizes[0]))
        self.image_embeddings = _BevtImagePatchEmbeddings(config) if config.image_stream else None
        self.image_decoder = _BevtImageDecoder(config) if config.image_stream else None
        self.video_decoder = _BevtVideoDecoder(config) if config.video_stream else None
        self.token_classifier = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @classmethod
    @torch.no_grad()
    def from_image_stream(cls, source: "BevtForPreTraining", **fields: Any) -> "BevtForPreTraining":
        """
        Make a joint model from a model of images (stage 2 from stage 1). As in the official loader, every frame of the
        kernel of clips is that of images, divided by the number of frames. The bias of relative positions is the same
        for every distance in time. The parts that only clips use are newly initialised; the classifier of words is
        kept.

        Args:
            source ([`BevtForPreTraining`]):
                A model with an image stream.
            fields:
                Fields of the configuration to change.

        Returns:
            [`BevtForPreTraining`]

        Raises:
            ValueError: `source` has no image stream.
        """
        if source.image_embeddings is None:
            raise ValueError("`source` must have an image stream, got a model with `image_stream=False`.")
        model = cls(BevtConfig(**{**source.config.to_dict(), "image_stream": True, "video_stream": True, **fields}))
        state = model.state_dict() | source.state_dict()
        frames, height, width = source.config.window_size
        rows = (2 * height - 1) * (2 * width - 1)
        for name, table in state.items():
            if name.endswith("relative_position_bias_table"):
                state[name] = table[(frames - 1) * rows : frames * rows].repeat(2 * model.config.window_size[0] - 1, 1)
        images, length = source.image_embeddings, model.config.tubelet_size
        kernel = images.projection.weight.unsqueeze(2).repeat(1, 1, length, 1, 1) / length
        state |= {
            "bevt.embeddings.projection.weight": kernel,
            "bevt.embeddings.projection.bias": images.projection.bias,
            "bevt.embeddings.norm.weight": images.norm.weight,
            "bevt.embeddings.norm.bias": images.norm.bias,
        }
        model.load_state_dict(state)
        return model

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        image_labels: torch.Tensor | None = None,
        masked_only: bool = False,
        masked_places: torch.Tensor | None = None,
        image_masked_places: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BevtForPreTrainingOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, num_channels, height, width)`, *optional*):
                Normalised clips; whole tubelets, sides that are multiples of 32 pixels.
            mask (`torch.BoolTensor` of shape `(batch_size, num_frames / 2, height / 16, width / 16)`, *optional*):
                `True` = hidden from the encoder, and counted in the loss in both frames of a tubelet.
            labels (`torch.LongTensor` of shape `(batch_size, num_frames, height / 16, width / 16)`, *optional*):
                Visual words of the frames; only masked ones count in the loss.
            image_pixel_values (`torch.Tensor` of shape `(num_images, num_channels, height, width)`, *optional*):
                Normalised images; sides that are multiples of 32 windows (224 pixels).
            image_mask (`torch.BoolTensor` of shape `(num_images, height / 16, width / 16)`, *optional*):
                As `mask`.
            image_labels (`torch.LongTensor` of shape `(num_images, height / 16, width / 16)`, *optional*):
                As `labels`.
            masked_only (`bool`, *optional*, defaults to `False`):
                Score words at masked places only; the loss needs no others.
            masked_places (`torch.LongTensor` of shape `(num_masked,)`, *optional*):
                With `masked_only`, the positions of `True` in the flattened `mask`, of which every sample must have
                one. By default they are found in it, for which the host waits for the device.
            image_masked_places (`torch.LongTensor` of shape `(num_masked,)`, *optional*):
                As `masked_places`.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Labels of the whole optimiser step; see the class.

        Returns:
            [`BevtForPreTrainingOutput`]

        Raises:
            ValueError: no input, an input of a stream that the model does not have, a shape does not fit, or a mask
                that hides nothing in a sample with labels.
        """
        if pixel_values is None and image_pixel_values is None:
            raise ValueError("Give `pixel_values`, `image_pixel_values` or both, got neither.")
        video = image = shares = None
        if num_items_in_batch is not None and labels is not None:
            shares = shares_of_step(labels, num_items_in_batch)
        if pixel_values is not None:
            found = _Masked(masked_only, masked_places)
            video = self._forward_videos(pixel_values, mask, labels, found, shares, **kwargs)
        if image_pixel_values is not None:
            if shares is not None:
                shares = (shares.sum() / len(image_pixel_values)).expand(len(image_pixel_values))
            found = _Masked(masked_only, image_masked_places)
            image = self._forward_images(image_pixel_values, image_mask, image_labels, found, shares, **kwargs)
        video_loss, image_loss = (None if one is None else one.loss for one in (video, image))
        weighted = [
            weight * loss
            for weight, loss in (
                (self.config.video_loss_weight, video_loss),
                (self.config.image_loss_weight, image_loss),
            )
            if loss is not None
        ]
        main = image if video is None else video
        assert main is not None  # one of them was given
        return BevtForPreTrainingOutput(
            loss=sum(weighted[1:], weighted[0]) if weighted else None,
            logits=main.logits,
            image_logits=None if image is None else image.logits,
            video_loss=video_loss,
            image_loss=image_loss,
            video_accuracy=None if video is None else video.video_accuracy,
            image_accuracy=None if image is None else image.video_accuracy,
            hidden_states=main.hidden_states,
            attentions=main.attentions,
        )

    def _forward_videos(
        self,
        pixel_values: torch.Tensor,
        mask: torch.Tensor | None,
        labels: torch.Tensor | None,
        found: "_Masked",
        shares: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BevtForPreTrainingOutput:
        """Run the video stream; arguments as of `forward`, `shares` as of `_score`."""
        if self.video_decoder is None or self.bevt.embeddings is None:
            raise ValueError("`pixel_values` cannot be given: the model has no `video_stream`.")
        check_clips(pixel_values, self.config.num_channels)
        _check_sizes("pixel_values", pixel_values, (self.config.tubelet_size, 1, 1), self.config)
        embedded = self._hide(self.bevt.embeddings(pixel_values), mask, "mask")
        outputs = self.bevt(patch_embeds=embedded, return_dict=True, **kwargs)
        decoded = self.bevt.layernorm(self.video_decoder(*outputs.feature_maps[-2:])).flatten(1, 3)
        if mask is not None:  # the mask of a tubelet is that of all its frames
            found = found.in_all_frames(math.prod(mask.shape[2:]), self.config.tubelet_size)
            mask = mask.repeat_interleave(self.config.tubelet_size, dim=1)
        scored = self._score(decoded, mask, labels, found, shares, "labels")
        scored.hidden_states, scored.attentions = outputs.hidden_states, outputs.attentions
        return scored

    def _forward_images(
        self,
        pixel_values: torch.Tensor,
        mask: torch.Tensor | None,
        labels: torch.Tensor | None,
        found: "_Masked",
        shares: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BevtForPreTrainingOutput:
        """Run the image stream; its outputs have the names of the video stream's."""
        if self.image_decoder is None or self.image_embeddings is None:
            raise ValueError("`image_pixel_values` cannot be given: the model has no `image_stream`.")
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                "`image_pixel_values` must have shape (num_images, num_channels, height, width) with "
                f"{self.config.num_channels} channels, got {tuple(pixel_values.shape)}."
            )
        check_pixels(pixel_values, "image_pixel_values")
        _check_sizes("image_pixel_values", pixel_values[:, None], (1, *self.config.window_size[1:]), self.config)
        mask = None if mask is None else mask[:, None]
        embedded = self._hide(self.image_embeddings(pixel_values), mask, "image_mask")
        outputs = self.bevt(patch_embeds=embedded, still=True, return_dict=True, **kwargs)
        decoded = self.bevt.layernorm(self.image_decoder(*outputs.feature_maps[-2:])).flatten(1, 3)
        scored = self._score(decoded, mask, labels, found, shares, "image_labels")
        scored.hidden_states, scored.attentions = outputs.hidden_states, outputs.attentions
        return scored

    def _hide(self, embedded: torch.Tensor, mask: torch.Tensor | None, name: str) -> torch.Tensor:
        """Replace hidden patches with the mask token, which is not normalised."""
        if mask is None:
            return embedded
        factor = self.config.prediction_patch_size // self.config.patch_size
        batch_size, frames, height, width, _ = embedded.shape
        expected = (batch_size, frames, height // factor, width // factor)
        if tuple(mask.shape) != expected:
            given, wanted = (shape if name == "mask" else (shape[0], *shape[2:]) for shape in (mask.shape, expected))
            raise ValueError(f"`{name}` must have shape {tuple(wanted)}, got {tuple(given)}.")
        fine = mask.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)[..., None].to(embedded.dtype)
        return embedded * (1 - fine) + self.mask_token.to(embedded.dtype) * fine

    def _score(
        self,
        decoded: torch.Tensor,
        mask: torch.Tensor | None,
        labels: torch.Tensor | None,
        found: "_Masked",
        shares: torch.Tensor | None,
        name: str,
    ) -> BevtForPreTrainingOutput:
        """
        Scores of words, and with `labels` the loss and accuracy at masked places. `shares` `(batch,)` are those of the
        samples in the loss of an optimiser step; without them the loss is the mean over all masked places.
        """
        if (labels is not None or found.only) and mask is None:
            raise ValueError(f"`{name}` and `masked_only` need a mask: the loss counts masked places only.")
        places = None if mask is None else mask.flatten(1).bool()
        chosen = found.among(places)  # (num_masked,)
        logits = self.token_classifier(decoded if chosen is None else decoded.flatten(0, 1)[chosen])
        if labels is None or places is None:
            return BevtForPreTrainingOutput(logits=logits)
        labels = _checked_words(labels, places, decoded, name, found.places is None).to(logits.device)
        counted = places & (labels != IGNORED_LABEL)  # (batch, places)
        words = labels.flatten() if chosen is None else labels.flatten()[chosen]
        errors = F.cross_entropy(logits.float().flatten(0, -2), words, reduction="none", ignore_index=IGNORED_LABEL)
        hits = logits.flatten(0, -2).argmax(-1) == words
        if chosen is not None:
            errors = errors.new_zeros(labels.numel()).index_copy(0, chosen, errors)
            hits = hits.new_zeros(labels.numel()).index_copy(0, chosen, hits)
        errors, hits = errors.reshape(labels.shape) * counted, hits.reshape(labels.shape) & counted
        counts = counted.sum(dim=1).clamp(min=1)  # (batch,)
        if shares is None:
            loss = errors.sum() / counted.sum().clamp(min=1)
        else:
            loss = (errors.sum(dim=1) / counts * shares.to(errors.device)).sum()
        return BevtForPreTrainingOutput(
            loss=loss, logits=logits, video_accuracy=hits.sum() / counted.sum().clamp(min=1)
        )


@dataclass
class _Masked:
    """Whether words are scored at masked places only, and the positions of these if they are known."""

    only: bool
    places: torch.Tensor | None = None

    def in_all_frames(self, per_frame: int, tubelet_size: int) -> "_Masked":
        """The same for a mask of frames instead of tubelets."""
        if self.places is None:
            return self
        frames = (self.places // per_frame)[:, None] * tubelet_size + torch.arange(
            tubelet_size, device=self.places.device
        )
        return _Masked(self.only, (frames * per_frame + (self.places % per_frame)[:, None]).flatten())

    def among(self, places: torch.Tensor | None) -> torch.Tensor | None:
        """Positions at which words are scored, in the flattened mask; `None` for all."""
        if not self.only or places is None:
            return None
        return places.flatten().nonzero().squeeze(1) if self.places is None else self.places


def _checked_words(
    labels: torch.Tensor, places: torch.Tensor, decoded: torch.Tensor, name: str, reads: bool
) -> torch.Tensor:
    """
    Words as `(batch, places)`; ValueError for another number of them and, if the mask is to be read, where it hides
    none.
    """
    if labels.shape[:1] != decoded.shape[:1] or labels.numel() != math.prod(decoded.shape[:2]):
        raise ValueError(
            f"`{name}` must have one word for each of {decoded.shape[1]} places of {decoded.shape[0]} samples, "
            f"got shape {tuple(labels.shape)}."
        )
    if reads and not (torch.compiler.is_compiling() or places.is_meta) and not places.any(dim=1).all():
        mask = name.replace("labels", "mask")
        raise ValueError(f"`{mask}` must hide at least 1 place of every sample with `{name}`, got a sample without.")
    return labels.flatten(1)


def _check_sizes(name: str, clips: torch.Tensor, multiples: tuple[int, int, int], config: BevtConfig) -> None:
    """ValueError for frames, or sides in tokens of the last stage, that are not multiples of `multiples`."""
    frames, _, height, width = clips.shape[1:]
    token = 2 * config.prediction_patch_size
    wanted = (multiples[0], multiples[1] * token, multiples[2] * token)
    if any(size % multiple for size, multiple in zip((frames, height, width), wanted)):
        raise ValueError(
            f"`{name}` must have frames, height and width that are multiples of {wanted} for pre-training, got "
            f"{(frames, height, width)}."
        )


__all__ = [
    "BevtForActionDetection",
    "BevtForPreTraining",
    "BevtForPreTrainingOutput",
    "BevtForVideoClassification",
    "BevtModel",
    "BevtModelOutput",
    "BevtPreTrainedModel",
]
