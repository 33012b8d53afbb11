"""
TubeViT against formula-level references, and against the unofficial daniel-code/TubeViT, whose deviations from the
paper are reproduced here.
"""

import re
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hf_videovit import TubeViTConfig, TubeViTForVideoClassification, TubeViTModel
from hf_videovit.modeling.configuration_tubevit import Tube, table_14_tubes
from hf_videovit.modeling.modeling_tubevit import TubeViTPositions

from .compare import EXACT, SDPA, Report, Tolerance
from .videomae_v2 import DATA_MODES, MODEL_MODES, Mode


FORMULA = Tolerance(1e-6, 0.0)
TOKENS = Tolerance(2e-5, 0.0)
# Names of torchvision's blocks, and ours.
BLOCK_NAMES = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "self_attention.out_proj": "attention.o_proj",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}


class TubeViTAdapter:
    """Which kind of case a directory holds is told from its configuration, never from its name."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.kind = self._kind()

    def _kind(self) -> str | None:
        if {"kernel_sizes", "strides", "offsets"} <= set(self.config):
            return "unofficial"
        if "tubes" in self.config and "pixels" in self.tensors:
            return "tokens"
        return "positions" if "tubes" in self.config and "token_counts" in self.config else None

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        return DATA_MODES if self.kind == "positions" else MODEL_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = dict.fromkeys(("pixels", "image", "rows"), "an input")
        return {name: reason for name, reason in inputs.items() if name in self.tensors}

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # Positions

    def run_positions(self, report: Report, mode: Mode):
        self.compare_counts(report)
        size, image = self.config["size"], (1, *(self.config.get("image_size") or self.config["size"][1:]))
        plain, joined = (parsed_tubes(self.config["tubes"], joins) for joins in (False, True))
        report.compare("starts", voxels(plain, size, lambda tube, index: start(tube, index)), EXACT)
        report.compare("tube_index", indices(plain, size), EXACT)
        report.compare("tube_index_s2d", indices(joined, size), EXACT)
        report.compare("extents_s2d", voxels(joined, size, lambda tube, index: extent(tube)), EXACT)
        report.compare("centres", self.centres(plain, size), FORMULA)
        report.compare("centres_s2d", self.centres(joined, size), FORMULA)
        report.compare("image_centres", self.centres(plain, image), FORMULA)
        for name in self.tensors:
            found = re.fullmatch(r"(image_)?pos_d(\d+)(_s2d)?(_literal)?(_rows)?", name)
            if found is None:
                continue
            of_image, dim, joins, literal, rows = found.groups()
            frequencies = "literal" if literal else "geometric"
            table = self.table(int(dim), joined if joins else plain, image if of_image else size, frequencies)
            report.compare(name, table[self.tensors["rows"]] if rows else table, FORMULA)

    def compare_counts(self, report: Report):
        named = self.config.get("tube_sets") or {}
        for name, sizes in self.config["token_counts"].items():
            tubes = named.get(name, self.config["tubes"])
            for words, expected in sizes.items():
                for ending, joins in (("", False), ("_s2d", True)):
                    if f"per_tube{ending}" not in expected:
                        continue
                    counts = token_counts(parsed_tubes(tubes, joins), words)
                    report.equal(f"{name}.{words}.per_tube{ending}", counts, expected[f"per_tube{ending}"])
                    report.equal(f"{name}.{words}.total{ending}", sum(counts), expected[f"total{ending}"])
        for row, expected in (self.config.get("table14") or {}).items():
            for key, value in expected.items():
                if key.startswith("tokens_"):
                    counts = token_counts(table_14_tubes(row), key.removeprefix("tokens_"))
                    report.equal(f"{row}.{key}", counts, value)

    def table(self, dim: int, tubes: Sequence[Tube], size: Sequence[int], frequencies: str) -> torch.Tensor:
        """Our positions, through a model that has nothing else of its size."""
        config = TubeViTConfig(
            hidden_size=dim,
            intermediate_size=1,
            num_attention_heads=1,
            num_hidden_layers=1,
            tubes=[tube.to_dict() | {"channels": dim} for tube in tubes],
            position_temperature=self.config["tau"],
            position_frequencies=frequencies,
        )
        with torch.device("meta"):
            model = TubeViTModel(config)
        return model.embeddings.positions(size, torch.device("cpu"))

    def centres(self, tubes: Sequence[Tube], size: Sequence[int]) -> torch.Tensor:
        positions = TubeViTPositions(TubeViTConfig())
        found = []
        for tube in tubes:
            grid = tube.grid(size)
            axes = [positions.centres(tube, axis, grid[axis], torch.device("cpu")) for axis in range(3)]
            found.append(torch.cartesian_prod(*axes) if min(grid) else torch.empty(0, 3))
        return torch.cat(found)

    # Tokens

    def run_tokens(self, report: Report, mode: Mode):
        weights = torch.load(self.fixture.path("checkpoint.pth"), weights_only=True)
        pixels = self.tensors["pixels"].transpose(1, 2)
        with torch.no_grad():
            for ending, joins in (("", False), ("_s2d", True)):
                embeddings = self.tokeniser(mode, weights, parsed_tubes(self.config["tubes"], joins))
                report.compare(f"tokens{ending}", embeddings.tokens(pixels), TOKENS)
                report.compare(f"tokens{ending}_plus_pos", embeddings(pixels)[0], TOKENS)
                if "image" in self.tensors and not joins:
                    image = self.tensors["image"].unsqueeze(1)
                    report.compare("image_tokens", embeddings.tokens(image), TOKENS)
                    report.compare("image_tokens_plus_pos", embeddings(image)[0], TOKENS)
            if "base_kernel" in weights:
                self.compare_interpolated(report, mode, weights, pixels)

    def compare_interpolated(self, report: Report, mode: Mode, weights: dict[str, torch.Tensor], pixels: torch.Tensor):
        for index, tube in enumerate(parsed_tubes(self.config["tubes"], False)):
            shared = {"base_kernel": weights["base_kernel"], "plain.0.bias": weights[f"plain.{index}.bias"]}
            embeddings = self.tokeniser(mode, shared, [tube])
            fits = min(tube.grid((pixels.shape[1], *pixels.shape[-2:]))) > 0
            tokens = embeddings.tokens(pixels) if fits else pixels.new_empty(len(pixels), 0, self.config["embed_dim"])
            report.compare(f"interpolated_tokens_{index}", tokens, TOKENS)
            kernel = embeddings.tubes[0].resized(embeddings.shared_kernel.weight)
            report.compare(f"interpolated_kernel_{index}_row0", kernel[:1], TOKENS)

    def tokeniser(self, mode: Mode, weights: dict[str, torch.Tensor], tubes: Sequence[Tube]) -> Any:
        """The embeddings of a model with the fixture's kernels; with a base kernel, that of interpolated ones."""
        dim, shared = self.config["embed_dim"], "base_kernel" in weights and "plain.0.weight" not in weights
        config = TubeViTConfig(
            hidden_size=dim,
            intermediate_size=dim,
            num_attention_heads=1,
            num_hidden_layers=1,
            tubes=[tube.to_dict() for tube in tubes],
            tube_kernels="interpolated" if shared else "independent",
            base_kernel_size=self.config["base_kernel"],
            position_temperature=self.config["tau"],
        )
        model = TubeViTModel(config)
        state = model.state_dict()
        for index, tube in enumerate(tubes):
            for kind in ("weight", "bias"):
                if f"plain.{index}.{kind}" in weights:
                    channels = tube.window_channels(dim)
                    state[f"embeddings.tubes.{index}.{kind}"] = weights[f"plain.{index}.{kind}"][:channels]
        if shared:
            state["embeddings.shared_kernel.weight"] = weights["base_kernel"]
        model.load_state_dict(state)
        return prepared(model, mode).embeddings

    # The unofficial model

    def run_unofficial(self, report: Report, mode: Mode):
        model = prepared(self.unofficial_model(), mode)
        model.tubevit.embeddings.fixed_positions = UnofficialPositions(model.config)
        tolerance = SDPA if mode.attention == "sdpa" else None
        pixels = self.tensors["pixels"].transpose(1, 2)
        size = (pixels.shape[1], *pixels.shape[-2:])
        with torch.no_grad():
            report.compare("tokens", model.tubevit.embeddings.tokens(pixels), tolerance)
            positions = model.tubevit.embeddings.positions(size, torch.device("cpu"))
            report.compare("pos_embedding", nn.functional.pad(positions, (0, 0, 1, 0)), tolerance)
            outputs = model.tubevit(pixels, output_hidden_states=True)
            for index, hidden_states in enumerate(outputs.hidden_states[1:]):
                report.compare(f"block_{index}", hidden_states, tolerance)
            report.compare("encoder_out", outputs.last_hidden_state, tolerance)
            report.compare("pooled", outputs.pooler_output, tolerance)
            report.compare("logits", self.head(model, outputs.pooler_output, pixels), tolerance)

    def head(self, model: Any, pooled: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Our classifier; where theirs has one more layer, that layer is done here."""
        if self.config.get("representation_size") is None:
            return model(pixels).logits
        weights = torch.load(self.fixture.path("checkpoint.pth"), weights_only=True)
        hidden = nn.functional.linear(pooled, weights["heads.pre_logits.weight"], weights["heads.pre_logits.bias"])
        return nn.functional.linear(hidden.tanh(), weights["heads.head.weight"], weights["heads.head.bias"])

    def unofficial_model(self) -> TubeViTForVideoClassification:
        """One kernel for all tubes, a class token, scores as pooling."""
        theirs, weights = self.config, torch.load(self.fixture.path("checkpoint.pth"), weights_only=True)
        shapes = zip(theirs["kernel_sizes"], theirs["strides"], theirs["offsets"], strict=True)
        config = TubeViTConfig(
            hidden_size=theirs["hidden_dim"],
            num_hidden_layers=theirs["num_layers"],
            num_attention_heads=theirs["num_heads"],
            intermediate_size=theirs["mlp_dim"],
            layer_norm_eps=theirs.get("layer_norm_eps", 1e-6),
            tubes=[{"kernel": kernel, "stride": stride, "offset": offset} for kernel, stride, offset in shapes],
            tube_kernels="interpolated",
            base_kernel_size=list(weights["sparse_tubes_tokenizer.conv_proj_weight"].shape[2:]),
            num_channels=theirs["video_shape"][0],
            use_class_token=True,
            pooling_type="score",
            num_labels=theirs["num_classes"],
        )
        model = TubeViTForVideoClassification(config)
        state = official_state(weights, theirs["num_layers"])
        if theirs.get("representation_size") is not None:
            own = model.state_dict()
            state |= {name: own[name] for name in ("classifier.weight", "classifier.bias")}
        model.load_state_dict(state)
        return model


class UnofficialPositions(TubeViTPositions):
    """
    The unofficial layout: all sines, then all cosines, of one axis after the other; and the grid of width and height
    read as one of height and width, which for frames that are not square mixes the tokens' positions up.
    """

    def forward(self, tube: Tube, grid: Sequence[int], device: torch.device) -> torch.Tensor:
        frames, height, width = grid
        time, rows, columns = (axis.transpose(1, 2).flatten(1) for axis in self._axes(tube, grid, device))
        token = torch.arange(height * width)
        space = torch.cat((columns[token // height], rows[token % height]), dim=1)  # (height * width, 4 pairs)
        return torch.cat((time.repeat_interleave(len(token), 0), space.repeat(frames, 1)), dim=1)


def official_state(weights: dict[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
    """The unofficial state dict under our names; what our model does not have is left out."""
    state = {
        "tubevit.embeddings.shared_kernel.weight": weights["sparse_tubes_tokenizer.conv_proj_weight"],
        "tubevit.embeddings.class_token.token": weights["class_token"],
        "tubevit.layernorm.weight": weights["encoder.ln.weight"],
        "tubevit.layernorm.bias": weights["encoder.ln.bias"],
        "tubevit.pooler.score.weight": weights["attention_pooling.W.weight"],
        "classifier.weight": weights["heads.head.weight"],
        "classifier.bias": weights["heads.head.bias"],
    }
    for index, bias in enumerate(weights["sparse_tubes_tokenizer.conv_proj_bias"]):
        state[f"tubevit.embeddings.tubes.{index}.bias"] = bias
    for index in range(num_layers):
        theirs, ours = f"encoder.layers.encoder_layer_{index}.", f"tubevit.encoder.layers.{index}."
        for kind in ("weight", "bias"):
            for their_name, our_name in BLOCK_NAMES.items():
                state[f"{ours}{our_name}.{kind}"] = weights[f"{theirs}{their_name}.{kind}"]
            joint = weights[f"{theirs}self_attention.in_proj_{kind}"]
            for name, part in zip(("q_proj", "k_proj", "v_proj"), joint.chunk(3), strict=True):
                state[f"{ours}attention.{name}.{kind}"] = part
    return state


def prepared(model: Any, mode: Mode) -> Any:
    """The model as a mode wants it: saved and loaded, with an attention implementation."""
    if mode.reloaded:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            model = type(model).from_pretrained(folder)
    model.set_attn_implementation(mode.attention)
    return model.eval()


def parsed_tubes(tubes: Sequence[dict[str, Any]], joins: bool) -> list[Tube]:
    """Tubes of a fixture's configuration, with or without their space-to-depth."""
    return [
        Tube(
            *(tuple(tube[name]) for name in ("kernel", "stride", "offset")), tuple(tube["s2d"]) if joins else (1, 1, 1)
        )
        for tube in tubes
    ]


def token_counts(tubes: Sequence[Tube], size: str) -> list[int]:
    """Tokens of each tube for a size written `frames x height x width`."""
    width = TubeViTConfig().hidden_size  # all of it in every window, so that any number of windows can be joined
    config = TubeViTConfig(tubes=[tube.to_dict() | {"channels": width} for tube in tubes])
    return config.token_counts([int(one) for one in size.split("x")])


def start(tube: Tube, index: torch.Tensor) -> torch.Tensor:
    return torch.tensor(tube.offset) + index * torch.tensor(tube.stride)


def extent(tube: Tube) -> torch.Tensor:
    """Voxels that a token covers along each axis."""
    factors = torch.tensor(tube.space_to_depth)
    return torch.tensor(tube.kernel) + (factors - 1) * torch.tensor(tube.window_stride)


def voxels(tubes: Sequence[Tube], size: Sequence[int], of: Any) -> torch.Tensor:
    """`of(tube, index)` for every token, of shape `(num_tokens, 3)`."""
    rows = [
        of(tube, torch.tensor(index)) for tube in tubes for index in torch.cartesian_prod(*ranges(tube, size)).tolist()
    ]
    return torch.stack(rows)


def ranges(tube: Tube, size: Sequence[int]) -> list[torch.Tensor]:
    return [torch.arange(count) for count in tube.grid(size)]


def indices(tubes: Sequence[Tube], size: Sequence[int]) -> torch.Tensor:
    """Number of the tube that each token comes from."""
    counts = torch.tensor([torch.Size(tube.grid(size)).numel() for tube in tubes])
    return torch.arange(len(tubes)).repeat_interleave(counts)
