"""UniFormerV2 against OpenGVLab/UniFormerV2 and MMAction2's ports."""

import re
import tempfile
from typing import Any

import torch
from safetensors.torch import load_file

from hf_videovit import (
    UniFormerV2Config,
    UniFormerV2ForVideoClassification,
    UniFormerV2Model,
    UniFormerV2VideoProcessor,
    convert_checkpoint,
)
from hf_videovit.modeling.frame_sampling import sample_clips
from hf_videovit.published import kinetics_710_rows, published_labels
from hf_videovit.training.optimization import parameter_groups

from .compare import DATA_MODES, EXACT, MODEL_MODES, Mode, Report, Tolerance, compare_views


NOISE = 1e-6  # norm of a gradient that only rounding makes: a bias under a BatchNorm
# Files of the label fixture, and our lists.
LABEL_FILES = {
    "kinetics400_official": "k400-uniformer",
    "kinetics600_v1_official": "k600-uniformer",
    "kinetics710_official": "k710",
    "something_v1": "ssv1",
    "something_v2": "ssv2",
}
LABEL_ENTRIES = {
    "kinetics600_700_from_710": {"kinetics600": "k600", "kinetics700": "k700"},
    "mmaction2": {
        **{f"kinetics{count}": f"k{count}-mmaction2" for count in (400, 600, 700, 710)},
        "moments_in_time": "mit",
    },
}
LABEL_NAMES = [f"{name}.json" for name in (*LABEL_FILES, *LABEL_ENTRIES)]


class UniFormerV2Adapter:
    """Which kind of case a directory holds is told from its files, never from its name."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.kind = self._kind()

    def _kind(self) -> str | None:
        if self.config.get("arch") == "uniformer_v2":
            if "from_clip" in self.config:
                return "clip_init"
            return "train_step" if "grad_norm" in self.config else "classify"
        if "spatial" in self.config:
            return "preprocess"
        return "label_maps" if any(map(self.fixture.has, LABEL_NAMES)) else None

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        return DATA_MODES if self.kind in ("preprocess", "label_maps") else MODEL_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = ["pixel_values", "labels", *(one["input"] for one in self.config.get("spatial") or ())]
        return {name: "an input" for name in inputs if name in self.tensors}

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # Models

    def run_classify(self, report: Report, mode: Mode):
        self.compare_outputs(report, self.model(mode))

    def run_train_step(self, report: Report, mode: Mode):
        model = self.model(mode).train()
        outputs = model(self.pixel_values(), labels=self.tensors["labels"])
        outputs.loss.backward()
        report.compare("logits", outputs.logits)
        report.compare("loss", outputs.loss)
        gradients = official_layout({name: tensor.grad for name, tensor in model.named_parameters()})
        report.equal("parameters", sorted(gradients), sorted(self.config["grad_norm"]))
        for name, norm in self.config["grad_norm"].items():
            expected = torch.tensor(norm)
            tolerance = Tolerance(NOISE, 1e-4)
            report.compare(f"grad_norm.{name}", gradients[name].norm(), tolerance, expected=expected)
        state = official_layout(model.state_dict())
        for name in self.tensors:
            if name.startswith("after."):
                report.compare(name, state[name.removeprefix("after.")])
        self.compare_decay(report, model)

    def compare_decay(self, report: Report, model: UniFormerV2ForVideoClassification):
        decays = {
            name: torch.tensor(float(group["weight_decay"] > 0))
            for group in parameter_groups(model, 0.05)
            for name in group["names"]
        }
        fused = official_layout(decays)
        for kind, expected in (("decay", 1.0), ("no_decay", 0.0)):
            ours = sorted(name for name, value in fused.items() if (value == expected).all())
            report.equal(kind, ours, sorted(self.config[kind]))

    def run_clip_init(self, report: Report, mode: Mode):
        converted = self.model(mode)
        self.compare_outputs(report, converted)
        expected = torch.load(self.fixture.path("checkpoint.pth"), weights_only=True)
        for file in filter(self.fixture.has, ("clip_openai.pth", "clip_hf.pth")):
            clip = torch.load(self.fixture.path(file), weights_only=True)
            model = UniFormerV2ForVideoClassification.from_image_vit(clip, config=self.model_config())
            state = official_layout(model.state_dict())
            for name in self.config["from_clip"]:
                report.compare(f"{file}:{name}", state[name], EXACT, expected=expected[name])
            remaining = {name: tensor for name, tensor in converted.state_dict().items() if came_not_from_clip(name)}
            report.equal(f"{file}:remaining", sorted(official_layout(remaining)), sorted(self.config["remaining"]))
            model.load_state_dict({**model.state_dict(), **remaining})
            self.compare_outputs(report, self.in_mode(model, mode))
            self.compare_tower(report, clip, mode)

    def compare_tower(self, report: Report, clip: dict[str, torch.Tensor], mode: Mode):
        """The image tower alone: an image is a clip of one frame."""
        image = load_file(self.fixture.path("clip_image.safetensors"))
        heads = self.config["constructor"]["heads"]
        tower = self.in_mode(UniFormerV2Model.from_image_vit(clip, num_attention_heads=heads), mode)
        with torch.no_grad():
            frames = tower(image["pixel_values"].unsqueeze(1)).last_hidden_state
        report.compare("image:last_hidden_state", frames, expected=image["last_hidden_state"])

    def compare_outputs(self, report: Report, model: UniFormerV2ForVideoClassification):
        with torch.no_grad():
            outputs = model.uniformer_v2(self.pixel_values(), output_hidden_states=True)
            logits = model(self.pixel_values()).logits
        by_frame = [
            states.unflatten(1, (-1, self.num_tokens)).flatten(0, 1).transpose(0, 1)
            for states in outputs.hidden_states
        ]  # (tokens, batch * frames, hidden)
        report.compare("embeddings", by_frame[0].transpose(0, 1))
        for name in self.tensors:
            if match := re.fullmatch(r"hidden_(\d+)", name):
                report.compare(name, by_frame[int(match[1]) + 1])
            elif match := re.fullmatch(r"cls_token_(\d+)", name):
                report.compare(name, outputs.query_states[int(match[1])].unsqueeze(0))
        report.compare("pooled", outputs.fused_state)
        report.compare("pooled_norm", outputs.pooler_output)
        report.compare("logits", logits)

    @property
    def num_tokens(self) -> int:
        constructor = self.config["constructor"]
        return 1 + (constructor["input_resolution"] // constructor["patch_size"]) ** 2

    def pixel_values(self) -> torch.Tensor:
        return self.tensors["pixel_values"].transpose(1, 2)

    def fields(self) -> dict[str, Any]:
        """What the reference constructor was told and shapes do not show, in our words."""
        constructor = self.config["constructor"]
        return {
            "num_frames": constructor["t_size"],
            "num_attention_heads": constructor["heads"],
            "global_num_attention_heads": constructor["n_head"],
            "global_layers": constructor["return_list"],
            "global_dropout": constructor["mlp_dropout"],
            "classifier_dropout": constructor["cls_dropout"],
            "drop_path_rate": constructor["backbone_drop_path_rate"],
            "global_drop_path_rate": constructor["drop_path_rate"],
            "local_reduction": constructor["dw_reduction"],
            "temporal_downsample": constructor["temporal_downsample"],
            "freeze_image_tower": constructor["frozen"],
        }

    def model_config(self) -> UniFormerV2Config:
        """Our configuration of the reference constructor's arguments, no shape being read."""
        constructor = self.config["constructor"]
        return UniFormerV2Config(
            hidden_size=constructor["width"],
            num_hidden_layers=constructor["layers"],
            intermediate_size=4 * constructor["width"],
            patch_size=constructor["patch_size"],
            image_size=constructor["input_resolution"],
            temporal_kernel_size=constructor["kernel_size"],
            num_local_modules=0 if constructor["no_lmhra"] else 1 + constructor["double_lmhra"],
            global_intermediate_size=round(constructor["mlp_factor"] * constructor["n_dim"]),
            num_labels=constructor["num_classes"],
            **self.fields(),
        )

    def model(self, mode: Mode) -> UniFormerV2ForVideoClassification:
        """Through the public converter; what a checkpoint's shapes reveal is left to it."""
        checkpoint = self.fixture.path("checkpoint.pth")
        model = convert_checkpoint("uniformer_v2", checkpoint, task="video-classification", **self.fields())
        return self.in_mode(model, mode)

    def in_mode(self, model: Any, mode: Mode) -> Any:
        if mode.reloaded:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = type(model).from_pretrained(folder)
        model.set_attn_implementation(mode.attention)
        return model.eval()

    # Data

    def run_preprocess(self, report: Report, mode: Mode):
        for kind, length, first in (("sparse", "video_len", 0), ("something", "num_images", 1)):
            for number, record in enumerate(self.config.get(kind) or ()):
                clips = sample_clips(
                    record[length],
                    frame_sampling="sparse",
                    sampling_mode="test",
                    num_frames=record["num_frames"],
                    num_clips=record["num_clips"],
                )
                expected = record["indices" if kind == "sparse" else "image_numbers"]
                report.equal(f"{kind}.{number}", clips[record["clip_idx"]] + first, expected)
        compare_views(report, self.config, self.tensors, UniFormerV2VideoProcessor)

    def run_label_maps(self, report: Report, mode: Mode):
        for file, ours in LABEL_FILES.items():
            if self.fixture.has(f"{file}.json"):
                report.equal(file, published_labels(ours), self.fixture.json(f"{file}.json"))
        for file, entries in LABEL_ENTRIES.items():
            content = self.fixture.json(f"{file}.json") if self.fixture.has(f"{file}.json") else {}
            for entry, ours in entries.items():
                if entry in content:
                    report.equal(f"{file}.{entry}", published_labels(ours), content[entry])
                if f"{entry}_rows_in_kinetics710" in content:
                    rows = content[f"{entry}_rows_in_kinetics710"]
                    report.equal(f"{file}.{entry}.rows", kinetics_710_rows(ours), rows)


# Ours, and the official name, in the order to replace them.
OFFICIAL_NAMES = (
    ("uniformer_v2.", "backbone."),
    ("embeddings.patch_embeddings.projection.", "conv1."),
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.position_embedding", "positional_embedding"),
    ("embeddings.layernorm.", "ln_pre."),
    ("encoder.query.embedding", "transformer.temporal_cls_token"),
    ("gate.weight", "transformer.balance"),
    ("backbone.layernorm.", "backbone.transformer.proj.0."),
    ("classifier.", "backbone.transformer.proj.2."),
    ("encoder.layers.", "transformer.resblocks."),
    ("encoder.global_blocks.", "transformer.dec."),
    (".attention.o_proj.", ".attn.out_proj."),
    (".attention.", ".attn."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".norm_query.", ".ln_1."),
    (".norm_tokens.", ".ln_3."),
    (".norm1.", ".ln_1."),
    (".norm2.", ".ln_2."),
)
LOCAL_NAMES = {"norm": 0, "down": 1, "temporal": 2, "up": 3}


def official_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names (state dict, gradients, or a number for each parameter) in the official layout."""
    official: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        for ours, theirs in OFFICIAL_NAMES:
            name = name.replace(ours, theirs)
        if match := re.fullmatch(r"(.+\.)local([12])\.(\w+)\.(\w+)", name):
            name = f"{match[1]}lmhra{match[2]}.pos_embed.{LOCAL_NAMES[match[3]]}.{match[4]}"
            if match[3] in ("down", "up") and tensor.ndim == 2:
                tensor = tensor[..., None, None, None]
        if match := re.fullmatch(r"(.+\.dec)\.(\d+)\.dynamic_position\.(\w+)", name):
            name = f"{match[1].removesuffix('dec')}dpe.{match[2]}.{match[3]}"
        official[name] = tensor
    for name in [name for name in official if ".attn.q_proj." in name]:
        parts = [official.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        official[name.replace("q_proj.", "in_proj_")] = torch.cat([torch.atleast_1d(part) for part in parts])
    return official


def came_not_from_clip(name: str) -> bool:
    """Whether a tensor of ours is none of the image tower's."""
    tower = re.fullmatch(r"uniformer_v2\.(embeddings\..+|encoder\.layers\.\d+\.(?!local).+)", name)
    return tower is None
