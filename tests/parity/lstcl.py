"""LSTCL's parts against TimeSformer, MoCo v3, SlowFast's BYOL and SimSiam; its own authors published no code."""

import re
import tempfile
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_videovit import LstclConfig, LstclForPreTraining, convert_checkpoint
from hf_videovit.modeling.modeling_lstcl_heads import follow_parameters
from hf_videovit.training.schedules import cosine_to_one, cosine_with_warmup
from tests.two_processes import run_in_processes

from .compare import DATA_MODES, EXACT, MODEL_MODES, Mode, Report, Tolerance


FLOAT64 = Tolerance(1e-9, 1e-9)
ANSWERS: dict[str, list[dict[str, torch.Tensor]]] = {}
# Ours, and the official name, in the order to replace them.
MOCO_NAMES = (
    ("target.lstcl.backbone.", "momentum_encoder."),
    ("target.projector.", "momentum_encoder.head."),
    ("lstcl.backbone.", "base_encoder."),
    ("projector.", "base_encoder.head."),
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.time_embeddings", "time_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layers.", "blocks."),
    ("layernorm.", "norm."),
    ("temporal_norm.", "temporal_norm1."),
    ("temporal_attention.", "temporal_attn."),
    (".attention.", ".attn."),
    ("attn.o_proj.", "attn.proj."),
)
BYOL_NAMES = (
    ("target.projector.", "backbone_hist.projection.projection."),
    ("projector.", "backbone.projection.projection."),
    ("predictor.", "backbone.predictors.0.projection."),
)
# Frozen, and before a norm that takes it out again: ours leaves it to that norm's running mean.
SIMSIAM_BIAS = "encoder.fc.6.bias"
SIMSIAM_NAMES = (("projector.", "encoder.fc."),)


class LstclAdapter:
    """Which kind of case a directory holds is told from its files."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.shifts: dict[str, torch.Tensor] = {}
        self.kind = self._kind()

    def _kind(self) -> str | None:
        names = set(self.tensors)
        if {"pixels_short", "k1"} <= names:
            return "moco"
        if {"target_features_short", "prediction_short"} <= names:
            return "byol"
        if {"z_short", "p_long"} <= names:
            return "simsiam"
        return "classify" if {"pixels", "cls_feature"} <= names else None

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        return MODEL_MODES if self.kind in ("classify", "moco") else DATA_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = {name for name in self.tensors if re.match(r"pixels|(target_)?features_(short|long)", name)}
        reasons = dict.fromkeys(sorted(inputs), "an input")
        reasons |= dict.fromkeys(("schedule.epoch", "dist.q", "dist.k"), "an input")
        unused = [name for name in self.tensors if re.match(r"after\.backbone_hist\.predictors.*(running|num_)", name)]
        reasons |= dict.fromkeys(unused, "of a predictor that nothing uses; our target has none")
        return {name: reason for name, reason in reasons.items() if name in self.tensors}

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # TimeSformer

    def run_classify(self, report: Report, mode: Mode):
        fields = {
            "num_attention_heads": self.config["num_heads"],
            "attention_type": self.config["attention_type"],
            "image_size": self.config["img_size"],
        }
        model = self.model(mode, "video-classification", **fields)
        for variant in [name.removeprefix("pixels") for name in sorted(self.tensors) if name.startswith("pixels")]:
            with torch.no_grad():
                clips = self.tensors[f"pixels{variant}"].transpose(1, 2)
                outputs = model(clips, output_hidden_states=True)
                feature = model.lstcl(clips).pooler_output
            report.compare(f"embeddings{variant}", outputs.hidden_states[0])
            for index, hidden_states in enumerate(outputs.hidden_states[1:]):
                report.compare(f"block_{index}{variant}", hidden_states)
            report.compare(f"cls_feature{variant}", feature)
            report.compare(f"logits{variant}", outputs.logits)

    # MoCo v3

    def moco(self, mode: Mode, symmetric: bool) -> Any:
        return self.model(
            mode,
            "pretraining",
            num_attention_heads=self.config["num_heads"],
            attention_type=self.config["attention_type"],
            image_size=self.config["img_size"],
            temperature=self.config["temperature"],
            target_momentum=self.config["momentum"],
            freeze_patch_embeddings=self.config["stop_grad_patch_embed"],
            drop_path_rate=self.config["drop_path_rate"],
            batch_norm_eps=self.config["bn_eps"],
            batch_norm_momentum=self.config["bn_momentum"],
            symmetric=symmetric,
        ).train()

    def run_moco(self, report: Report, mode: Mode):
        clips = [self.tensors[f"pixels_{name}"].transpose(1, 2) for name in ("short", "long")]
        model = self.moco(mode, symmetric=True)
        projections = projections_of(model)
        outputs = model(*clips)
        outputs.loss.backward()
        for name, tensor in zip(("proj1", "proj2"), projections):
            report.compare(name, tensor)
        report.compare("q1", outputs.short_query)
        report.compare("q2", outputs.long_query)
        report.compare("k1", outputs.short_key)
        report.compare("k2", outputs.long_key)
        report.compare("loss_q1_k2", model.compare(outputs.short_query, outputs.long_key))
        report.compare("loss_q2_k1", model.compare(outputs.long_query, outputs.short_key))
        report.compare("loss", outputs.loss)
        self.compare_step(report, model, MOCO_NAMES)
        one_way = self.moco(mode, symmetric=False)
        outputs = one_way(*clips)
        outputs.loss.backward()
        report.compare("oneway.q1", outputs.short_query)
        report.compare("oneway.k2", outputs.long_key)
        report.compare("oneway.loss_short_to_long", outputs.loss)
        compare_gradients(report, one_way, MOCO_NAMES, "oneway.grad.")
        self.compare_schedules(report)
        self.compare_processes(report)

    def compare_schedules(self, report: Report):
        if "schedule.epoch" not in self.tensors:
            return
        schedule = self.config["schedule"]
        epochs, total = self.tensors["schedule.epoch"].tolist(), schedule["epochs"]
        report.compare(
            "schedule.momentum", float64([cosine_to_one(e, total, schedule["moco_m"]) for e in epochs]), FLOAT64
        )
        rates = [
            cosine_with_warmup(e, total, schedule["warmup_epochs"], schedule["lr"], 0.0, peak_after_warmup=True)
            for e in epochs
        ]
        report.compare("schedule.lr", float64(rates), FLOAT64)

    def compare_processes(self, report: Report):
        if "dist.q" not in self.tensors:
            return
        query, key = self.tensors["dist.q"], self.tensors["dist.k"]
        arguments = {"query": query, "key": key, "temperature": self.config["temperature"]}
        place = str(self.fixture.directory)
        if place not in ANSWERS:  # once, not once a mode
            ANSWERS[place] = run_in_processes("loss_of_keys", len(query), arguments)
        results = ANSWERS[place]
        report.compare("dist.loss", torch.stack([result["loss"] for result in results]))
        report.compare("dist.grad_q", torch.stack([result["gradient"] for result in results]))

    # Heads alone

    def heads(self, names: tuple[tuple[str, str], ...], **fields: Any) -> LstclForPreTraining:
        """A model whose encoder hands on the features that it is given, with the fixture's heads."""
        config = LstclConfig(
            hidden_size=self.config["feature_dim"],
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            patch_size=8,
            image_size=8,
            projection_size=self.config["dim"],
            batch_norm_eps=self.config["bn_eps"],
            batch_norm_momentum=self.config["bn_momentum"],
            **fields,
        )
        model = LstclForPreTraining(config)
        saved = torch.load(self.fixture.path("checkpoint.pth"), weights_only=True)
        saved = next(value for value in saved.values() if isinstance(value, dict))
        saved = {name.removeprefix("module."): value for name, value in saved.items()}
        self.shifts = {}
        if SIMSIAM_BIAS in saved:
            self.shifts["encoder.fc.7.running_mean"] = saved[SIMSIAM_BIAS]
        state = model.state_dict()
        for name in state:
            if official(name, names) in saved:
                state[name] = saved[official(name, names)] - self.shifts.get(official(name, names), 0)
        model.load_state_dict(state)
        model.lstcl = GivenFeatures()
        if model.target is not None:
            model.target.lstcl = GivenFeatures()
        return model.train()

    def run_byol(self, report: Report, mode: Mode):
        def fresh(symmetric: bool) -> LstclForPreTraining:
            return self.heads(
                BYOL_NAMES,
                framework="byol",
                symmetric=symmetric,
                projection_hidden_size=self.config["mlp_dim"],
                prediction_hidden_size=self.config["mlp_dim"],
                num_projection_layers=self.config["projector_layers"],
                num_prediction_layers=self.config["predictor_layers"],
                target_momentum=self.config["momentum"],
            )

        model = fresh(True)
        model.target.lstcl.answers = {name: self.tensors[f"target_features_{name}"] for name in ("short", "long")}
        projections = projections_of(model)
        outputs, features = self.run_heads(model)
        loss_of = model.compare
        report.compare("projection_short", projections[0])
        report.compare("projection_long", projections[1])
        report.compare("prediction_short", outputs.short_query)
        report.compare("prediction_long", outputs.long_query)
        report.compare("target_short", outputs.short_key)
        report.compare("target_long", outputs.long_key)
        there, back = loss_of(outputs.short_query, outputs.long_key), loss_of(outputs.long_query, outputs.short_key)
        losses = {"loss_short_to_long": there, "loss_long_to_short": back, "loss": outputs.loss}
        for name, loss in losses.items():
            directions = 2 if name == "loss" else 1
            report.compare(f"byol.{name}", loss)
            # -cos / T for 2 - 2 cos
            report.compare(f"slowfast.{name}", (loss - 2 * directions) / (2 * self.config["T"]))
        self.compare_step(report, model, BYOL_NAMES, features)
        self.compare_unused_predictor(report)
        one_way = fresh(False)
        one_way.target.lstcl.answers = model.target.lstcl.answers
        _, features = self.run_heads(one_way)
        compare_gradients(report, one_way, BYOL_NAMES, "oneway.grad.", features)
        epochs = self.tensors.get("schedule.epoch", torch.empty(0)).tolist()
        momenta = [cosine_to_one(epoch, self.config["epochs"], self.config["momentum_base"]) for epoch in epochs]
        report.compare("schedule.momentum", float64(momenta), FLOAT64)

    def compare_unused_predictor(self, report: Report):
        """SlowFast moves a predictor of its target too; by the same rule."""
        saved = torch.load(self.fixture.path("checkpoint.pth"), weights_only=True)["model_state"]
        for name in self.tensors:
            own = name.removeprefix("after.")
            if own.startswith("backbone_hist.predictors.") and name not in self.reasons():
                kept, new = (nn.ParameterList([saved[one]]) for one in (own, own.replace("backbone_hist", "backbone")))
                follow_parameters(kept, new, self.config["momentum"])
                report.compare(name, kept[0])

    def run_simsiam(self, report: Report, mode: Mode):
        def fresh(symmetric: bool) -> LstclForPreTraining:
            fields = {"framework": "simsiam", "prediction_hidden_size": self.config["pred_dim"]}
            return self.heads(SIMSIAM_NAMES, symmetric=symmetric, **fields)

        model = fresh(True)
        outputs, features = self.run_heads(model)
        report.compare("z_short", outputs.short_key)
        report.compare("z_long", outputs.long_key)
        report.compare("p_short", outputs.short_query)
        report.compare("p_long", outputs.long_query)
        report.compare("loss_short_to_long", model.compare(outputs.short_query, outputs.long_key))
        report.compare("loss_long_to_short", model.compare(outputs.long_query, outputs.short_key))
        report.compare("loss", outputs.loss)
        self.compare_step(report, model, SIMSIAM_NAMES, features)
        one_way = fresh(False)
        _, features = self.run_heads(one_way)
        compare_gradients(report, one_way, SIMSIAM_NAMES, "oneway.grad.", features)

    def run_heads(self, model: LstclForPreTraining) -> tuple[Any, dict[str, torch.Tensor]]:
        """One training pass over the features, which collect gradients too."""
        features = {
            f"features_{name}": self.tensors[f"features_{name}"].clone().requires_grad_() for name in ("short", "long")
        }
        model.lstcl.answers = {name.removeprefix("features_"): value for name, value in features.items()}
        outputs = model(*(torch.full((len(features["features_short"]), 1, 3, 8, 8), float(one)) for one in range(2)))
        outputs.loss.backward()
        return outputs, features

    # Common

    def compare_step(
        self,
        report: Report,
        model: nn.Module,
        names: tuple[tuple[str, str], ...],
        features: dict[str, torch.Tensor] | None = None,
    ):
        """Gradients, the target's parameters and all running statistics after a step."""
        compare_gradients(report, model, names, "grad.", features)
        for name, tensor in model.state_dict().items():
            exact = None if tensor.is_floating_point() else EXACT
            shift = self.shifts.get(official(name, names), 0)
            report.compare(f"after.{official(name, names)}", tensor + shift, exact)

    def model(self, mode: Mode, task: str, **fields: Any):
        """Through the public converter."""
        model = convert_checkpoint("lstcl", self.fixture.path("checkpoint.pth"), task=task, **fields)
        if mode.reloaded:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = type(model).from_pretrained(folder)
        model.set_attn_implementation(mode.attention)
        return model.eval()


def float64(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class GivenFeatures(nn.Module):
    """In place of an encoder: hands on features by the name of a clip."""

    def __init__(self):
        super().__init__()
        self.answers: dict[str, torch.Tensor] = {}

    def forward(self, clip: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        name = ("short", "long")[int(clip.flatten()[0])]  # the clips are numbers of names
        return BaseModelOutputWithPooling(pooler_output=self.answers[name])


def projections_of(model: LstclForPreTraining) -> list[torch.Tensor]:
    """What the projector will answer, call by call."""
    answers: list[torch.Tensor] = []
    model.projector.register_forward_hook(lambda module, inputs, answer: answers.append(answer))
    return answers


def official(name: str, names: tuple[tuple[str, str], ...]) -> str:
    """An official name for ours."""
    prefixed = False
    for ours, theirs in names:
        if ours.endswith(".") and name.startswith(ours) and not prefixed:
            name, prefixed = theirs + name.removeprefix(ours), True
        elif prefixed:
            name = name.replace(ours, theirs)
    return name


def compare_gradients(
    report: Report,
    model: nn.Module,
    names: tuple[tuple[str, str], ...],
    prefix: str,
    features: dict[str, torch.Tensor] | None = None,
):
    """Every gradient that the fixture holds under `prefix`, of parameters and of features."""
    gradients = {official(name, names): parameter.grad for name, parameter in model.named_parameters()}
    gradients |= {name: tensor.grad for name, tensor in (features or {}).items()}
    for name in report.fixture.tensors:
        gradient = gradients.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if gradient is not None:
            report.compare(name, gradient, Tolerance(1e-4, 1e-4))
