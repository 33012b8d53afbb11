"""VideoMAE V2 against OpenGVLab/VideoMAEv2."""

import tempfile
from typing import Any

import numpy as np
import torch

from hf_videovit import VideoMAEV2VideoProcessor, convert_checkpoint
from hf_videovit.modeling.frame_sampling import crop_offsets, sample_clips
from hf_videovit.published import kinetics_710_rows, kinetics_spellings, published_labels
from hf_videovit.training.data.masking import dual_masks, running_cell_mask, running_cell_masks, tube_mask

from .compare import DATA_MODES, EXACT, MODEL_MODES, Mode, Report, Tolerance, numbered


NORMALISED = Tolerance(2e-6, 0.0)  # of whole grey levels, which are equal


class VideoMAEV2Adapter:
    """Which kind of case a directory holds is told from its files, never from its name."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.kind = self._kind()

    def _kind(self) -> str | None:
        reference = self.config.get("reference_class")
        if reference == "PretrainVisionTransformer":
            return "pretrain"
        if reference == "VisionTransformer":
            return "classify"
        if self.fixture.has("cases.json"):
            return "sampling"
        if self.fixture.has("label_maps.json"):
            return "label_maps"
        if any(".tube." in name or ".running_cell" in name for name in self.tensors):
            return "masks"
        return "preprocess" if {"frames", "test_crops"} <= set(self.tensors) else None

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        return MODEL_MODES if self.kind in ("pretrain", "classify") else DATA_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = dict.fromkeys(("pixel_values", "encoder_mask", "decoder_mask", "frames"), "an input")
        return {name: reason for name, reason in inputs.items() if name in self.tensors}

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # Models

    def run_classify(self, report: Report, mode: Mode):
        fields = {"num_attention_heads": self.config["num_heads"]}
        if not self.config.get("num_classes", 1):  # nothing else tells it from the encoder of pre-training
            fields["use_mean_pooling"] = self.config.get("use_mean_pooling", True)
        encoder = self.model(mode, "feature-extraction", **fields)
        pixel_values = self.tensors["pixel_values"].transpose(1, 2)
        with torch.no_grad():
            outputs = encoder(pixel_values, output_hidden_states=True)
        report.compare("tokens_with_pos", outputs.hidden_states[0])
        for index, name in numbered(self.tensors, "hidden"):
            report.compare(name, outputs.hidden_states[index + 1])
        report.compare("pooled", outputs.pooler_output)
        if "logits" in self.tensors:
            classifier = self.model(mode, "video-classification", **fields)
            with torch.no_grad():
                report.compare("logits", classifier(pixel_values).logits)

    def run_pretrain(self, report: Report, mode: Mode):
        model = self.model(
            mode,
            "pretraining",
            num_attention_heads=self.config["encoder_num_heads"],
            decoder_num_attention_heads=self.config["decoder_num_heads"],
            image_mean=self.config.get("norm_mean"),
            image_std=self.config.get("norm_std"),
        )
        pixel_values = self.tensors["pixel_values"].transpose(1, 2)
        encoder_mask, decoder_mask = (self.tensors[f"{name}_mask"].bool() for name in ("encoder", "decoder"))
        outputs = model(pixel_values, encoder_mask, decoder_mask)
        outputs.loss.backward()
        with torch.no_grad():
            self.compare_encoding(report, model, pixel_values, outputs)
            self.compare_losses(report, model, (pixel_values, encoder_mask, decoder_mask), outputs)
        self.compare_gradients(report, model)

    def compare_encoding(self, report: Report, model: Any, pixel_values: torch.Tensor, outputs: Any):
        report.compare("tokens_with_pos", model.videomae_v2.embeddings(pixel_values, tuple(self.config["grid_thw"])))
        report.compare("encoder_output", outputs.encoder_last_hidden_state)
        report.compare("decoder_input_visible", model.encoder_to_decoder(outputs.encoder_last_hidden_state))
        report.compare("decoder_pred", outputs.logits)
        report.compare("target_all_normalised", model.targets(pixel_values, normalize=True))
        report.compare("target_all_raw", model.targets(pixel_values, normalize=False))

    def compare_losses(self, report: Report, model: Any, inputs: tuple[torch.Tensor, ...], outputs: Any):
        pixel_values, encoder_mask, _ = inputs
        labels = model.targets(pixel_values, outputs.decoded_indices)
        per_token = (outputs.logits - labels).square().mean(-1)
        report.compare("labels", labels)
        report.compare("per_token_loss", per_token)
        report.compare("loss_weight", encoder_mask.gather(1, outputs.decoded_indices))
        report.compare("loss", outputs.loss)
        report.differs("loss_all_decoded_tokens_not_used", per_token.mean().item(), "loss", outputs.loss.item())
        alone = model(pixel_values, encoder_mask)
        report.compare("decoder_pred_no_decoder_mask", alone.logits)
        report.compare("loss_no_decoder_mask", alone.loss)
        model.config.normalize_targets = False
        report.compare("loss_raw_pixels", model(*inputs).loss)

    def compare_gradients(self, report: Report, model: Any):
        gradients = official_layout({name: tensor.grad for name, tensor in model.named_parameters()})
        for name in self.tensors:
            if name.startswith("grad."):
                report.compare_gradient(name, gradients[name.removeprefix("grad.")])

    def model(self, mode: Mode, task: str, **heads: Any):
        """Through the public converter; what a checkpoint's shapes reveal is left to it."""
        fields = {name: value for name, value in heads.items() if value is not None}
        model = convert_checkpoint(
            "videomae_v2",
            self.fixture.path("checkpoint.pth"),
            task=task,
            image_size=self.config["img_size"],
            num_frames=self.config["all_frames"],
            **fields,
        )
        if mode.reloaded:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = type(model).from_pretrained(folder)
        model.set_attn_implementation(mode.attention)
        return model.eval()

    # Data

    def run_masks(self, report: Report, mode: Mode):
        cases, seed = self.config["cases"], self.config["numpy_seed"]
        for name, expected in self.tensors.items():
            grid_name, kind, ratio = (*name.split(".", 2), "")[:3]
            grid = self.mask_grid(grid_name)
            count = len(expected)
            if kind == "tube":
                rng = np.random.RandomState(seed)
                actual = np.stack([tube_mask(grid, float(ratio), rng) for _ in range(count)])
            elif kind == "running_cell_all":
                actual = running_cell_masks(grid, float(ratio))
            elif kind == "running_cell_draws":
                rng = np.random.RandomState(seed)
                actual = np.stack([running_cell_mask(grid, float(ratio), rng) for _ in range(count)])
            elif kind in ("pair_encoder", "pair_decoder"):
                pair = cases[f"{grid_name}.pair"]
                rng = np.random.RandomState(pair["seed"])
                ratios = (pair["tube_ratio"], pair["running_cell_ratio"])
                actual = np.stack([dual_masks(grid, *ratios, rng)[kind == "pair_decoder"] for _ in range(count)])
            else:
                continue
            report.compare(name, actual, EXACT)

    def mask_grid(self, name: str) -> tuple[int, int, int]:
        sizes = [
            case["input_size"]
            for key, case in self.config["cases"].items()
            if key.split(".")[0] == name and "input_size" in case
        ]
        return tuple(sizes[0])

    def run_sampling(self, report: Report, mode: Mode):
        for kind, records in self.fixture.json("cases.json").items():
            for number, record in enumerate(records):
                if kind == "spatial_test_offsets":
                    actual = crop_offsets(record["long_side"], record["short_side"], record["crops"])
                    report.equal(f"{kind}.{number}", actual, record["offsets"])
                    continue
                clips = sample_clips(record["num_frames"], **sampling_arguments(kind, record))
                expected = record.get("clips", [record.get("indices")])
                report.equal(f"{kind}.{number}", clips, expected)

    def run_preprocess(self, report: Report, mode: Mode):
        size, frames = self.config["size"], self.tensors["frames"].numpy()
        processor = VideoMAEV2VideoProcessor(
            size={"shortest_edge": size},
            crop_size=size,
            num_frames=len(frames),
            image_mean=self.config["mean"],
            image_std=self.config["std"],
        )

        def pixels(**kwargs: Any) -> torch.Tensor:
            return processor(frames, return_tensors="pt", **kwargs).pixel_values[0]

        crops = len(self.tensors["test_crops"])
        report.compare("test_crops", pixels(num_crops=crops).transpose(1, 2), NORMALISED)
        report.compare("validation", pixels(sampling_mode="validation").transpose(0, 1), NORMALISED)
        resized = pixels(do_center_crop=False, do_rescale=False, do_normalize=False).permute(0, 2, 3, 1)
        report.compare("resized_uint8", resized, EXACT)
        squashed = pixels(
            do_center_crop=False, do_normalize=False, round_resized=False, size={"height": size, "width": size}
        )
        report.compare("feature_extraction", squashed.transpose(0, 1), Tolerance(1e-6, 0.0))

    def run_label_maps(self, report: Report, mode: Mode):
        maps = self.fixture.json("label_maps.json")
        for name, expected in maps.items():
            if name.startswith("k710_to_"):
                report.equal(name, kinetics_710_rows(name.removeprefix("k710_to_")), expected)
            elif isinstance(expected, list):
                report.equal(name, published_labels(name), expected)
            else:
                report.equal(name, sorted(kinetics_spellings().items()), sorted(expected.items()))


def sampling_arguments(kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Our sampler's arguments for one record of the official loaders."""
    sampling, _, mode = kind.partition("_")
    if kind == "pretrain":
        sampling, mode = "dense", "pretrain"
    arguments: dict[str, Any] = {"frame_sampling": sampling, "sampling_mode": mode}
    ours = {
        "clip_len": "num_frames",
        "num_frames_clip": "num_frames",
        "num_segments": "num_frames",
        "rate": "frame_stride",
        "step": "frame_stride",
        "segments": "num_clips",
    }
    arguments.update({ours[key]: value for key, value in record.items() if key in ours})
    if "numpy_seed" in record:
        arguments["rng"] = np.random.RandomState(record["numpy_seed"])
    return arguments


# Ours, and the official name, in the order to replace them.
OFFICIAL_NAMES = (
    ("videomae_v2.encoder.layers.", "encoder.blocks."),
    ("decoder.layers.", "decoder.blocks."),
    ("videomae_v2.embeddings.patch_embeddings.projection", "encoder.patch_embed.proj"),
    ("videomae_v2.layernorm", "encoder.norm"),
    (".attention.", ".attn."),
    (".attn.o_proj", ".attn.proj"),
    (".q_proj.bias", ".q_bias"),
    (".v_proj.bias", ".v_bias"),
    (".layer_scale1.gamma", ".gamma_1"),
    (".layer_scale2.gamma", ".gamma_2"),
)


def official_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names (state dict or gradients of a pre-training model) in the official layout."""
    official: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        for ours, theirs in OFFICIAL_NAMES:
            name = name.replace(ours, theirs)
        official[name] = tensor
    for name in [name for name in official if name.endswith("q_proj.weight")]:
        parts = [official.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        official[name.replace("q_proj", "qkv")] = torch.cat(parts)
    return official
