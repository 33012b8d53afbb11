"""BEVT against xyzforever/BEVT, and its tokenizer against openai/DALL-E."""

import random
import re
import tempfile
from typing import Any

import torch
from packaging.version import Version
from transformers import FlavaImageCodebook

from hf_videovit import BevtVideoProcessor, convert_checkpoint
from hf_videovit.convert.codebook import convert_codebook
from hf_videovit.modeling.frame_sampling import crop_offsets, sample_clips
from hf_videovit.modeling.word_pixels import word_pixels
from hf_videovit.training.data.block_masking import BlockMasks

from .compare import DATA_MODES, EXACT, MODEL_MODES, Mode, Report, Tolerance


# The fixture's own tolerance for interpolated tables is 1e-6; torch before 2.9 rounds the interpolation otherwise.
TABLES = Tolerance(1e-6 if Version(torch.__version__) >= Version("2.9") else 1e-5, 0.0)
WORDS = Tolerance(1e-4, 0.0)
INPUTS = (
    *("views", "pixels_uint8", "pixel_values", "tokenizer_pixel_values", "mask"),
    *("image_pixel_values", "image_tokenizer_pixel_values", "image_mask"),
    *("video_pixel_values", "video_tokenizer_pixel_values", "video_mask", "tube_input"),
)
LOSS_WEIGHTS = {"video": "loss_weight_3d", "image": "loss_weight_2d"}
# Official names of a backbone, and ours.
NAMES = (
    (r"^layers\.(\d+)\.blocks\.(\d+)\.", r"bevt.encoder.stages.\1.layers.\2."),
    (r"^layers\.(\d+)\.downsample\.", r"bevt.encoder.stages.\1.merging."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.", ".attention."),
    (r"^patch_embed\.proj\.", "bevt.embeddings.projection."),
    (r"^patch_embed\.norm\.", "bevt.embeddings.norm."),
    (r"^patch_embed_2d\.proj\.", "image_embeddings.projection."),
    (r"^patch_embed_2d\.norm\.", "image_embeddings.norm."),
    (r"^norm\.", "bevt.layernorm."),
)


class BevtAdapter:
    """Which kind of case a directory holds is told from its files, never from its name."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.kind = self._kind()

    def _kind(self) -> str | None:
        if "n_hid" in self.config:
            return "codebook"
        if "num_masking_patches" in self.config:
            return "masks"
        if self.inflations():
            return "inflate"
        if "frame_interval" in self.config:
            return "sampling"
        if "vae" in self.config:
            return "joint" if "video_mask" in self.tensors else "pretrain"
        classifies = any(name.startswith("logits_") for name in self.tensors)
        return "classify" if "backbone" in self.config and classifies else None

    def inflations(self) -> dict[str, dict[str, Any]]:
        """The models that the case makes of other models' files, by name."""
        return {name: one for name, one in self.config.items() if isinstance(one, dict) and "source" in one}

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        return DATA_MODES if self.kind in ("masks", "sampling", "inflate") else MODEL_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = [name for name in self.tensors if name in INPUTS or name.startswith("pixels_")]
        return dict.fromkeys(inputs, "an input")

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # Models

    def model(self, mode: Mode, task: str, file: str = "checkpoint.pth", **fields: Any) -> Any:
        """Through the public converter."""
        model = convert_checkpoint("bevt", self.fixture.path(file), task=task, **fields)
        return prepared(model, mode)

    def run_classify(self, report: Report, mode: Mode):
        model = self.model(mode, "video-classification", window_size=self.config["backbone"]["window_size"])
        with torch.no_grad():
            for name in sorted(self.tensors):
                if name.startswith("pixels_"):
                    self.compare_features(report, model, name.removeprefix("pixels_"))
            if "views" in self.tensors:
                logits = model(self.tensors["views"].transpose(2, 3)).logits
                report.compare("view_probs", logits.softmax(-1))

    def compare_features(self, report: Report, model: Any, which: str):
        pixel_values = self.tensors[f"pixels_{which}"].transpose(1, 2)
        outputs = model.bevt(pixel_values)
        report.compare(f"embed_{which}", channels_first(model.bevt.embeddings(pixel_values)))
        for stage, features in enumerate(outputs.feature_maps):
            report.compare(f"stage{stage + 1}_{which}", channels_first(features))
            merging = model.bevt.encoder.stages[stage].merging
            if merging is not None:
                report.compare(f"stage{stage + 1}_down_{which}", channels_first(merging(features)))
        report.compare(f"features_{which}", channels_first(model.bevt.layernorm(outputs.feature_maps[-1])))
        report.compare(f"pooled_{which}", outputs.pooler_output)
        report.compare(f"logits_{which}", model(pixel_values).logits)

    def pretraining_model(self, mode: Mode) -> tuple[Any, FlavaImageCodebook]:
        window = self.config["backbone"]["window_size"]
        weights = {f"{kind}_loss_weight": self.config["cls_head"][key] for kind, key in LOSS_WEIGHTS.items()}
        model = self.model(mode, "pretraining", window_size=window, **weights)
        return model, prepared(convert_codebook(self.fixture.path("checkpoint.pth")), mode)

    def run_pretrain(self, report: Report, mode: Mode):
        model, codebook = self.pretraining_model(mode)
        image = self.tensors["pixel_values"].ndim == 4
        mask, stream, prefix = self.tensors["mask"].bool(), *(("image", "image_") if image else ("video", ""))
        pixels = self.tensors["pixel_values"] if image else self.tensors["pixel_values"].transpose(1, 2)
        words = visual_words(codebook, self.tensors["tokenizer_pixel_values"])
        report.compare("target_ids", words.flatten(1 if image else 2), EXACT)
        if not image:
            report.compare("output_mask", mask.repeat_interleave(model.config.tubelet_size, 1).long(), EXACT)
        seen = self.watch(model)
        inputs = {f"{prefix}pixel_values": pixels, f"{prefix}mask": mask, f"{prefix}labels": words}
        outputs = model(**inputs)
        for name, value in seen.items():
            value = value if name == "features" else channels_first(value)
            report.compare(name, value[:, :, 0] if image and value.ndim == 5 else value)
        report.compare("logits", outputs[f"{prefix}logits"])
        report.compare("loss", outputs[f"{stream}_loss"])  # unweighted
        report.compare("mask_acc", outputs[f"{stream}_accuracy"])
        report.compare("loss", model(**inputs, masked_only=True)[f"{stream}_loss"])
        model(**{f"{prefix}pixel_values": pixels})
        report.compare("features_unmasked", seen["features"])

    def watch(self, model: Any) -> dict[str, torch.Tensor]:
        """Filled at each forward pass: the stages' outputs before merging, and what the classifier of words sees."""
        seen: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Any:
            return lambda _, __, output: seen.update({name: output})

        for index, stage in enumerate(model.bevt.encoder.stages):
            stage.layers[-1].register_forward_hook(keep(f"stage{index + 1}"))
        model.token_classifier.register_forward_pre_hook(lambda _, inputs: seen.update(features=inputs[0]))
        return seen

    def run_joint(self, report: Report, mode: Mode):
        model, codebook = self.pretraining_model(mode)
        words = {
            kind: visual_words(codebook, self.tensors[f"{kind}_tokenizer_pixel_values"]) for kind in ("video", "image")
        }
        mask = self.tensors["video_mask"].bool()
        report.compare("video_output_mask", mask.repeat_interleave(model.config.tubelet_size, 1).long(), EXACT)
        outputs = model(
            pixel_values=self.tensors["video_pixel_values"].transpose(1, 2),
            mask=mask,
            labels=words["video"],
            image_pixel_values=self.tensors["image_pixel_values"],
            image_mask=self.tensors["image_mask"].bool(),
            image_labels=words["image"],
        )
        report.compare("loss_cls_3d", model.config.video_loss_weight * outputs.video_loss)
        report.compare("loss_cls_2d", model.config.image_loss_weight * outputs.image_loss)
        report.compare("loss", outputs.loss)
        report.compare("mask_acc_3d", outputs.video_accuracy)
        report.compare("mask_acc_2d", outputs.image_accuracy)

    def run_codebook(self, report: Report, mode: Mode):
        codebook = prepared(convert_codebook(self.fixture.path("checkpoint.pth")), mode)
        pixels = self.tensors["pixels_uint8"]
        report.compare("mapped", word_pixels(pixels, tuple(pixels.shape[-2:])), TABLES)
        seen = {}
        for name, module in codebook.blocks.named_children():
            module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.clone()}))
        with torch.no_grad():
            logits = codebook(self.tensors["mapped"])
        for name, value in {**seen, "logits": logits}.items():
            report.compare(name, value, WORDS)
        report.compare("token_ids", logits.argmax(1), EXACT)

    # Weights of one model for another

    def run_inflate(self, report: Report, mode: Mode):
        for case, asked in self.inflations().items():
            task = "pretraining" if asked["model"] == "SwinTransformerBEVT" else "video-classification"
            fields = {} if task == "pretraining" else {"num_labels": 2}
            model = self.model(
                mode,
                task,
                asked["source"],
                tubelet_size=self.config["patch_size"][0],
                window_size=asked["window_size"],
                pretrained_window_size=asked.get("pretrained_window_size"),
                **fields,
            )
            state, source = model.state_dict(), backbone_of(self.fixture.path(asked["source"]))
            stored = {name.split("/", 1)[1]: name for name in self.tensors if name.startswith(f"{case}/")}
            for name, full in stored.items():
                report.compare(full, state[our_name(name)], TABLES if "bias_table" in name else EXACT)
            copied = [name for name in source if name not in stored and our_name(name) in state]
            for name in copied:
                report.compare(f"{case}/{name}", state[our_name(name)], EXACT, expected=source[name])
            report.equal(f"{case}.copied_unchanged", len(copied), self.config["counts"][case]["copied_unchanged"])

    # Data

    def run_masks(self, report: Report, mode: Mode):
        height, width = self.config["grid"]
        masks = BlockMasks(
            height,
            width,
            ratio=(self.config["num_masking_patches"] + 0.5) / (height * width),  # rounded down to the count
            smallest_block=self.config["min_num_patches"],
            widest_aspect=self.config["max_aspect"],
            shortest_tube=self.config["masked_tube_range"][0],
            longest_tube=self.config["masked_tube_range"][1],
        )
        for name in [name for name in ("block_masks", "image_masks") if name in self.tensors]:
            rng = random.Random(self.config["seeds"][name])
            drawn = [torch.from_numpy(masks.image(rng)) for _ in self.tensors[name]]
            report.compare(name, torch.stack(drawn), EXACT)
        if "tube_input" not in self.tensors:
            return
        scale, rng = self.config["temporal_scale"], random.Random(self.config["seeds"]["tube"])
        frames = self.config["clip_len"] // scale
        tubes = torch.stack([torch.from_numpy(masks.clip(frames, rng)) for _ in self.tensors["tube_input"]])
        report.compare("tube_input", tubes, EXACT)
        report.compare("tube_output", tubes.repeat_interleave(scale, 1), EXACT)

    def run_sampling(self, report: Report, mode: Mode):
        frames, clips = self.config["clip_len"], self.config["num_clips"]
        for name in self.tensors:
            kind, _, size = name.partition("_")
            if kind == "threecrop":
                report.compare(name, crop_boxes(*(int(side) for side in size.split("x"))), EXACT)
                continue
            sampling = "dense_cyclic" if kind == "dense" else "sparse_middle"
            indices = sample_clips(
                int(size),
                frame_sampling=sampling,
                sampling_mode="test",
                num_frames=frames,
                frame_stride=self.config["frame_interval"],
                num_clips=clips if kind == "dense" else 1,
            )
            report.compare(name, indices if kind == "dense" else indices[0], EXACT)


def prepared(model: Any, mode: Mode) -> Any:
    """The model as a mode wants it: saved and loaded, with an attention implementation."""
    if mode.reloaded:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            model = type(model).from_pretrained(folder)
    if not isinstance(model, FlavaImageCodebook):
        model.set_attn_implementation(mode.attention)
    return model.eval()


def channels_first(features: torch.Tensor) -> torch.Tensor:
    return features.movedim(-1, 1)


def visual_words(codebook: FlavaImageCodebook, pixels: torch.Tensor) -> torch.Tensor:
    """Words `(..., height, width)` of pixels `(..., channels, height, width)`."""
    words = codebook.get_codebook_indices(pixels.flatten(0, -4))
    return words.unflatten(0, pixels.shape[:-3])


def our_name(name: str) -> str:
    for pattern, ours in NAMES:
        name = re.sub(pattern, ours, name)
    return name


def backbone_of(path: Any) -> dict[str, torch.Tensor]:
    """Tensors of the backbone in an official file, by their plain names."""
    loaded = torch.load(path, weights_only=True)
    for wrapper in ("model", "module", "state_dict"):
        if wrapper in loaded:
            loaded = loaded[wrapper]
            break
    names = {re.sub(r"^(module\.)?(backbone\.)?(encoder\.)?", "", name): name for name in loaded}
    return {short: loaded[name] for short, name in names.items() if not short.endswith("_index")}


def crop_boxes(height: int, width: int) -> torch.Tensor:
    """Boxes (left, top, right, bottom) of the three crops along the long side."""
    crop, processor = min(height, width), BevtVideoProcessor()
    offsets = crop_offsets(max(height, width), crop, 3, processor.crop_rounding)
    corners = [(offset, 0) if width >= height else (0, offset) for offset in offsets]
    return torch.tensor([(left, top, left + crop, top + crop) for left, top in corners])
