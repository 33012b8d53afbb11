"""UniFormer (version 1) against Sense-X/UniFormer and MMAction2's ports."""

import re
import tempfile
from typing import Any

import torch

from hf_videovit import UniFormerVideoProcessor, convert_checkpoint
from hf_videovit.modeling.frame_sampling import sample_clips
from hf_videovit.training.optimization import parameter_groups

from .compare import DATA_MODES, MODEL_MODES, Mode, Report, Tolerance, compare_views


NOISE = 1e-6  # norm of a gradient that only rounding makes: a bias under a BatchNorm
TASKS = {"image": "image-classification", "video": "video-classification"}


class UniFormerAdapter:
    """Which kind of case a directory holds is told from its files, never from its name."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.kind = self._kind()

    def _kind(self) -> str | None:
        if self.config.get("arch") == "uniformer":
            if "video_constructor" in self.config:
                return "inflate"
            if "grad_norm" in self.config:
                return "train_step"
            return "backbone" if self.config.get("role") == "backbone" else "classify"
        return "preprocess" if "spatial" in self.config else None

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        return DATA_MODES if self.kind == "preprocess" else MODEL_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = ["labels", *(one["input"] for one in self.config.get("spatial") or ())]
        inputs += [name for name in self.tensors if "pixel_values" in name]
        return {name: "an input" for name in inputs if name in self.tensors}

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # Models

    def run_classify(self, report: Report, mode: Mode):
        constructor = self.config["constructor"]
        model = self.model(mode, "checkpoint.pth", TASKS[self.config["modality"]], constructor)
        self.compare_outputs(report, model)
        if "train_logits" in self.tensors:
            with torch.no_grad():
                outputs = model.train()(pixels(self.tensors["pixel_values"]))
            report.compare("train_logits", outputs.logits)
            report.compare("train_logits_cls", outputs.class_token_logits)

    def run_inflate(self, report: Report, mode: Mode):
        video = self.config["video_constructor"]
        image = self.model(mode, "image_checkpoint.pth", TASKS["image"], self.config["image_constructor"])
        with torch.no_grad():
            report.compare("image_logits", image(self.tensors["image_pixel_values"]).logits)
        converted = self.model(mode, "checkpoint.pth", TASKS["video"], video)
        self.compare_outputs(report, converted)
        options = {"num_labels": video["num_classes"]}
        for option, name in (("use_split_attention", "split"), ("use_temporal_overlap", "std")):
            options[option] = bool(video.get(name))
        inflated = self.model(mode, "image_checkpoint.pth", TASKS["video"], video, **options)
        state = inflated.state_dict()
        official = official_layout(state)
        expected = torch.load(self.fixture.path("checkpoint.pth"), weights_only=True)
        expected = expected[self.config["wrapper"]] if self.config.get("wrapper") else expected
        for name in [*self.config["inflated"], *self.config["copied"]]:
            report.compare(f"inflated:{name}", official[name], Tolerance(1e-7, 0.0), expected=expected[name])
        known = {*self.config["inflated"], *self.config["copied"]}
        remaining = sorted(name for name in official if name not in known)
        report.equal("remaining", remaining, sorted(self.config["remaining"]))
        full = converted.state_dict()
        ours = {name: full[name] for name in full if next(iter(official_layout({name: full[name]}))) in remaining}
        inflated.load_state_dict({**state, **ours})
        self.compare_outputs(report, inflated)

    def run_backbone(self, report: Report, mode: Mode):
        for name, options in self.config["modes"].items():
            fields = {"attention_type": attention_type(options)}
            if "window_size" in options:
                fields["window_size"] = options["window_size"]
            backbone = self.model(mode, "checkpoint.pth", "backbone", self.config["constructor"], **fields)
            for letter in sorted(key.rpartition("_")[2] for key in self.tensors if key.startswith("pixel_values_")):
                with torch.no_grad():
                    maps = backbone(self.tensors[f"pixel_values_{letter}"]).feature_maps
                for number, one in enumerate(maps, start=1):
                    report.compare(f"{name}_{letter}_map_{number}", one)

    def run_train_step(self, report: Report, mode: Mode):
        task = TASKS[self.config["modality"]]
        model = self.model(mode, "checkpoint.pth", task, self.config["constructor"]).train()
        outputs = model(pixels(self.tensors["pixel_values"]), labels=self.tensors["labels"])
        outputs.loss.backward()
        report.compare("logits", outputs.logits)
        report.compare("loss", outputs.loss)
        gradients = official_layout({name: tensor.grad for name, tensor in model.named_parameters()})
        report.equal("parameters", sorted(gradients), sorted(self.config["grad_norm"]))
        for name, norm in self.config["grad_norm"].items():
            tolerance = Tolerance(NOISE, 1e-4)
            report.compare(f"grad_norm.{name}", gradients[name].norm(), tolerance, expected=torch.tensor(norm))
        state = official_layout(model.state_dict())
        for name in self.tensors:
            if name.startswith("after."):
                report.compare(name, state[name.removeprefix("after.")])
        decays = {
            name: torch.tensor(float(group["weight_decay"] > 0))
            for group in parameter_groups(model, 0.05)
            for name in group["names"]
        }
        for kind, wanted in (("decay", 1.0), ("no_decay", 0.0)):
            ours = sorted(name for name, value in official_layout(decays).items() if value == wanted)
            report.equal(kind, ours, sorted(self.config[kind]))

    def compare_outputs(self, report: Report, model: Any):
        """Every stage, the patch embeddings and class tokens between them, and what comes out."""
        seen: dict[str, torch.Tensor] = {}

        def keep(name: str):
            return lambda module, inputs, output: seen.update({name: output})

        hooks = [
            module.register_forward_hook(keep(f"{kind}_{number}"))
            for kind, modules in (
                ("patch_embed", model.uniformer.patch_embeddings),
                ("stage", model.uniformer.stages),
            )
            for number, module in enumerate(modules, start=1)
        ]
        with torch.no_grad():
            outputs = model.uniformer(pixels(self.tensors["pixel_values"]), output_hidden_states=True)
            logits = model(pixels(self.tensors["pixel_values"])).logits
        for hook in hooks:
            hook.remove()
        for name in [name for name in seen if isinstance(seen[name], tuple)]:
            seen[f"cls_token_{name}"], seen[name] = seen[name][1], seen[name][0]
        for name, tensor in seen.items():
            report.compare(name, tensor)
        for number, hidden_states in enumerate(outputs.hidden_states[1:], start=1):
            report.compare(f"stage_{number}", hidden_states)
        if "features" in self.tensors:
            maps = outputs.last_hidden_state.transpose(1, 2)
            report.compare("features", maps.unflatten(2, self.tensors["features"].shape[2:]))
        report.compare("logits", logits)

    def model(self, mode: Mode, file: str, task: str, constructor: dict[str, Any], **fields: Any) -> Any:
        """Through the public converter; what a checkpoint's shapes reveal is left to it."""
        fields["head_dim"] = constructor["head_dim"]
        if "frames" in constructor:
            fields["num_frames"] = constructor["frames"]
        if isinstance(constructor.get("img_size"), int):
            fields["image_size"] = constructor["img_size"]
        for theirs, ours in (("prune_ratio", "prune_ratios"), ("trade_off", "trade_offs")):
            if constructor.get(theirs):
                fields[ours] = constructor[theirs][2:]
        model = convert_checkpoint("uniformer", self.fixture.path(file), task=task, **fields)
        if mode.reloaded:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = type(model).from_pretrained(folder)
        model.set_attn_implementation(mode.attention)
        return model.eval()

    # Data

    def run_preprocess(self, report: Report, mode: Mode):
        for kind, sampling, length, first in (
            ("sparse", "sparse", "video_len", 0),
            ("dense", "span", "video_len", 0),
            ("something", "sparse", "num_images", 1),
        ):
            for number, record in enumerate(self.config.get(kind) or ()):
                clips = sample_clips(
                    record[length],
                    frame_sampling=sampling,
                    sampling_mode="test",
                    num_frames=record["num_frames"],
                    frame_stride=record.get("sampling_rate", 1),
                    num_clips=record["num_clips"],
                )
                expected = record["image_numbers" if kind == "something" else "indices"]
                report.equal(f"{kind}.{number}", clips[record["clip_idx"]] + first, expected)
        compare_views(report, self.config, self.tensors, UniFormerVideoProcessor)


def pixels(tensor: torch.Tensor) -> torch.Tensor:
    """Clips with frames before channels; images as they are."""
    return tensor.transpose(1, 2) if tensor.ndim == 5 else tensor


def attention_type(options: dict[str, Any]) -> str:
    if options.get("windows"):
        return "window"
    return "hybrid" if options.get("hybrid") else "global"


# Ours, and the official name, in the order to replace them.
OFFICIAL_NAMES = (
    (r"^uniformer\.", ""),
    (r"^classifier\.", "head."),
    (r"^auxiliary_classifier\.", "aux_head."),
    (r"^class_classifier\.", "head_cls."),
    (r"^class_token", "cls_token"),
    (r"^class_upsample\.", "cls_upsample."),
    (r"^class_norm\.", "norm_cls."),
    (r"\.position\.", ".pos_embed."),
    (r"\.mixer\.depthwise\.", ".attn."),
    (r"\.mixer\.", "."),
    (r"\.layer_scale([12])\.gamma", r".gamma_\1"),
    (r"\.temporal_attention\.", ".t_attn."),
    (r"\.temporal_norm\.", ".t_norm."),
    (r"\.attention\.", ".attn."),
    (r"attn\.o_proj\.", "attn.proj."),
)


def official_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names (state dict, gradients, or a number for each parameter) in the official layout."""
    axes = next((tensor.ndim for name, tensor in state.items() if name.endswith("position.weight")), 0)
    official: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        pointwise = re.search(r"stages\.[01]\..+(conv[12]|fc[12])\.weight", name) is not None
        for ours, theirs in OFFICIAL_NAMES:
            name = re.sub(ours, theirs, name)
        name = re.sub(r"stages\.(\d)\.blocks\.", lambda match: f"blocks{int(match[1]) + 1}.", name)
        name = re.sub(
            r"patch_embeddings\.(\d)\.(projection|layers|norm)\.",
            lambda match: f"patch_embed{int(match[1]) + 1}.{'norm' if match[2] == 'norm' else 'proj'}.",
            name,
        )
        if pointwise and tensor.ndim == 2 and axes:
            tensor = tensor.view(*tensor.shape, *(1,) * (axes - 2))
        official[name] = tensor
    return official
