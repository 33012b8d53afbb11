"""Temporal localisation against actionformer_release, OpenTAD and TriDet: models and training steps."""

import tempfile
from typing import Any

import torch

from hf_videovit import convert_checkpoint
from hf_videovit.convert import convert_to_folder
from hf_videovit.modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from hf_videovit.modeling.layers import features_over_time
from hf_videovit.modeling.modeling_actionformer_losses import make_targets
from hf_videovit.training.optimization import parameter_groups

from .compare import DATA_MODES, MODEL_MODES, Mode, Report, Tolerance
from .temporal_localization_data import DataCases


TASK = "temporal-action-localization"
NORMS = Tolerance(1e-6, 1e-4)
LOSSES = Tolerance(1e-5, 0.0)
STEPS = Tolerance(5e-5, 0.0)
# Our names and the official ones, for parameters of a training step.
OFFICIAL_NAMES = (
    ("actionformer.embeddings.tower.convs.", "backbone.embd."),
    ("actionformer.embeddings.tower.norms.", "backbone.embd_norm."),
    ("actionformer.embeddings.projections.", "backbone.proj."),
    ("actionformer.neck.norms.", "neck.fpn_norms."),
    ("actionformer.neck.", "neck."),
    ("classification_head.tower.convs.", "cls_head.head."),
    ("classification_head.tower.norms.", "cls_head.norm."),
    ("classification_head.classifier.", "cls_head.cls_head."),
    ("offset_head.tower.convs.", "reg_head.head."),
    ("offset_head.tower.norms.", "reg_head.norm."),
    ("offset_head.scales.", "reg_head.scale."),
    ("offset_head.offsets.", "reg_head.offset_head."),
    ("attention.relative_positions.bias", "attn.rel_pe"),
    ("attention.q_proj", "attn.query"),
    ("attention.k_proj", "attn.key"),
    ("attention.v_proj", "attn.value"),
    ("attention.o_proj", "attn.proj"),
    ("attention.", "attn."),
    ("norm1.", "ln1."),
    ("norm2.", "ln2."),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.3."),
    ("branch1.0.gamma", "drop_path_attn.scale"),
    ("branch2.0.gamma", "drop_path_mlp.scale"),
)


class TemporalLocalizationAdapter(DataCases):
    """Which kind of case a directory holds is told from its files, never from its name."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.kind = self.kind_of_model() or self.kind_of_data()

    def kind_of_model(self) -> str | None:
        config = self.config
        if not self.fixture.has("checkpoint.pth"):
            return None
        if "projection" in config.get("model", {}):
            return "opentad"
        if "plans" in config:
            return "extraction"
        if "adapter_index" in config.get("model", {}):
            return "adapters"
        if "constructor" not in config:
            return None
        if config["constructor"].get("backbone_type") == "SGP":
            return "tridet"
        if "grad_norm" in config:
            return "train_step"
        return "inference" if "videos" in config else "forward"

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        models = ("forward", "opentad", "tridet", "inference", "train_step", "adapters")
        return MODEL_MODES if self.kind in models else DATA_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = [name for name in self.tensors if self.is_input(name) or name == "pixel_values"]
        return dict.fromkeys(inputs, "an input")

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # Models

    def settings(self) -> dict[str, Any]:
        return self.config.get("constructor") or {"model": self.config["model"]}

    def model(self, mode: Mode, **fields: Any):
        """Through the public converter."""
        path = self.fixture.path("checkpoint.pth")
        model = convert_checkpoint("actionformer", path, task=TASK, settings=self.settings(), **fields)
        if mode.reloaded:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = type(model).from_pretrained(folder)
        model.set_attn_implementation(mode.attention)
        return model.eval()

    def processor(self, **fields: Any) -> TemporalLocalizationProcessor:
        """That of the converted folder."""
        with tempfile.TemporaryDirectory() as folder:
            convert_to_folder(
                "actionformer",
                self.fixture.path("checkpoint.pth"),
                f"{folder}/model",
                task=TASK,
                settings=self.settings(),
            )
            return TemporalLocalizationProcessor.from_pretrained(f"{folder}/model", **fields)

    def run_forward(self, report: Report, mode: Mode):
        model = self.model(mode)
        for name in sorted({one.split(".")[0] for one in self.tensors}):
            self.compare_forward(report, model, name)
        report.equal("max_div_factor", model.config.length_multiple, self.config["max_div_factor"])

    def compare_forward(self, report: Report, model: Any, case: str, valid_only: bool = False):
        """All levels, masks, points, logits and offsets of one input."""
        features, mask = self.tensors[f"{case}.features"].transpose(1, 2), self.tensors[f"{case}.mask"]
        with torch.no_grad():
            pyramid = model.actionformer(features, mask, output_hidden_states=True)
            outputs = model(features, mask)
        config = model.config
        for level in range(config.num_levels):
            states = pyramid.hidden_states[config.num_stem_layers + level]
            report.compare(f"{case}.backbone_{level}", states.transpose(1, 2))
        lengths = [one.shape[1] for one in pyramid.feature_maps]
        points, point_mask = outputs.points.split(lengths), outputs.point_mask.bool().split(lengths, dim=1)
        columns = [outputs.logits.split(lengths, dim=1), self.raw_offsets(model, pyramid)]
        for level, states in enumerate(pyramid.feature_maps):
            report.compare(f"{case}.fpn_{level}", states.transpose(1, 2))
            report.compare(f"{case}.mask_{level}", point_mask[level])
            report.compare(f"{case}.points_{level}", points[level])
            for kind, values in zip(("cls_logits", "offsets"), columns):
                name = f"{case}.{kind}_{level}"
                if name in self.tensors:
                    kept = point_mask[level][..., None] if valid_only else torch.ones(())
                    report.compare(name, values[level] * kept, expected=self.tensors[name] * kept)
        return pyramid, outputs

    def raw_offsets(self, model: Any, pyramid: Any) -> list[torch.Tensor]:
        masks = [mask[..., None].bool() for mask in pyramid.feature_masks]
        with torch.no_grad():
            return model.offset_head(pyramid.feature_maps, masks)

    def labels(self) -> list[dict[str, torch.Tensor]]:
        return [
            {"segments": self.tensors[f"segments_{index}"], "class_labels": self.tensors[f"labels_{index}"]}
            for index in range(len(self.config["lengths"]))
        ]

    def loss_in_training(self, model: Any, case: str) -> Any:
        """The loss in training mode, without stochastic depth."""
        model.config.drop_path_rate = 0.0
        without_drop_path(model.train())
        features, mask = self.tensors[f"{case}.features"].transpose(1, 2), self.tensors[f"{case}.mask"]
        return model(features, mask, labels=self.labels())

    def run_opentad(self, report: Report, mode: Mode):
        model = self.model(mode)
        _, outputs = self.compare_forward(report, model, "a", valid_only=True)
        processor = self.processor(score_threshold=-1.0, max_candidates=None)
        for index, mask in enumerate(outputs.point_mask.bool()):
            offsets, points = outputs.pred_offsets[index][mask], outputs.points[mask]
            centre, stride = points[:, :1], points[:, 3:]
            bounds = torch.cat((centre - offsets[:, :1] * stride, centre + offsets[:, 1:] * stride), dim=1)
            report.compare(f"proposals_{index}", bounds, Tolerance(1e-4, 1e-5))
            report.compare(f"scores_{index}", outputs.logits[index][mask].sigmoid())
            found = processor.candidates(outputs, index)
            report.equal(f"candidates_{index}", len(found), int(mask.sum()) * model.config.num_labels)
        report.compare("loss.normalizer_before", model.loss_normalizer)
        losses = self.loss_in_training(model, "a").loss_dict
        report.compare("loss.cls_loss", losses["classification"], LOSSES)
        report.compare("loss.reg_loss", losses["regression"] * model.config.regression_loss_weight, LOSSES)
        report.compare("loss.normalizer_after", model.loss_normalizer)

    def run_tridet(self, report: Report, mode: Mode):
        model = self.model(mode)
        report.equal("max_div_factor", model.config.length_multiple, self.config["max_div_factor"])
        pyramid, outputs = self.compare_forward(report, model, "a")
        masks = [mask[..., None].bool() for mask in pyramid.feature_masks]
        if model.boundary_heads is not None:
            with torch.no_grad():
                starts = model.boundary_heads.start(pyramid.feature_maps, masks)
                ends = model.boundary_heads.end(pyramid.feature_maps, masks)
            distances = outputs.pred_offsets.split([one.shape[1] for one in starts], dim=1)
            for level, (start, end, distance) in enumerate(zip(starts, ends, distances)):
                report.compare(f"a.start_{level}", start.transpose(1, 2))
                report.compare(f"a.end_{level}", end.transpose(1, 2))
                for index, one in enumerate(distance):
                    report.compare(f"a.decoded_{level}_{index}", one.transpose(0, 1))
        processor = self.processor()
        for index in range(len(self.config["lengths"])):
            found = processor.candidates(outputs, index)
            self.compare_found(report, f"pre_{index}", found.segments, found.scores, found.labels)
        outputs = self.loss_in_training(model, "a")
        expected = self.config["losses"]
        for name, value in (
            ("cls_loss", outputs.loss_dict["classification"]),
            ("reg_loss", outputs.loss_dict["regression"]),
            ("final_loss", outputs.loss),
        ):
            report.compare(name, value, LOSSES, torch.tensor(expected[name]))
        after = torch.tensor(float(self.config["loss_normalizer"][1]))
        report.compare("loss_normalizer", model.loss_normalizer, expected=after)

    def run_adapters(self, report: Report, mode: Mode):
        """The encoder of AdaTAD."""
        fields = self.config["model"]
        path, tubelet = self.fixture.path("checkpoint.pth"), self.tensors["feature_map"].shape[2]
        encoder = convert_checkpoint(
            "videomae_v2",
            path,
            task="feature-extraction",
            image_size=fields["img_size"],
            num_frames=fields["num_frames"],
            num_attention_heads=fields["num_heads"],
            layer_norm_eps=self.config["layer_norm_eps"],
        )
        if mode.reloaded:
            with tempfile.TemporaryDirectory() as folder:
                encoder.save_pretrained(folder)
                encoder = type(encoder).from_pretrained(folder)
        encoder.set_attn_implementation(mode.attention)
        adapters = [layer.adapter for layer in encoder.eval().encoder.layers if layer.adapter is not None]
        seen: dict[str, torch.Tensor] = {}
        adapters[0].register_forward_hook(lambda _, given, out: seen.update(adapter_in=given[0], adapter_out=out))
        pixel_values = self.tensors["pixel_values"].transpose(1, 2)
        with torch.no_grad():
            tokens = encoder(pixel_values).last_hidden_state
        grid = (tubelet, *self.tensors["feature_map"].shape[3:])
        maps = tokens.reshape(-1, *grid, tokens.shape[-1]).permute(0, 4, 1, 2, 3)
        report.compare("feature_map", maps)
        for name, value in seen.items():
            report.compare(name, value)
        steps = len(maps) // len(tokens) * tubelet
        features = features_over_time(tokens, steps, self.config["window_size"])
        report.compare("features", features.transpose(1, 2))
        layers = [index for index, layer in enumerate(encoder.encoder.layers) if layer.adapter is not None]
        report.equal("adapter_index", layers, fields["adapter_index"])

    def run_inference(self, report: Report, mode: Mode):
        model = self.model(mode)
        for index, video in enumerate(self.config["videos"]):
            processor = self.processor(feature_stride=video["feat_stride"], feature_window=video["feat_num_frames"])
            features = self.tensors[f"features_{index}"].T
            batch = processor(features)
            with torch.no_grad():
                outputs = model(**batch)
            grid = processor.grid(len(features), video["fps"], video["duration"])
            (found,) = processor.post_process_temporal_localization(outputs, [grid])
            self.compare_found(report, str(index), found["segments"], found["scores"], found["labels"])

    # Training

    def run_train_step(self, report: Report, mode: Mode):
        model, config = self.model(mode), self.config
        model.config.drop_path_rate = 0.0
        without_drop_path(model.train())
        labels, batch = self.labels(), self.training_batch(model.config)
        report.compare("mask", batch["attention_mask"].bool())
        self.compare_targets(report, model, batch, labels)
        optimizer = self.optimizer(report, model)
        averaged = {name: one.detach().clone() for name, one in model.named_parameters()}
        for step, expected in enumerate(config["losses"]):
            outputs = model(**batch, labels=labels)
            values = (outputs.loss_dict["classification"], outputs.loss_dict["regression"], outputs.loss)
            for name, value in zip(("cls_loss", "reg_loss", "final_loss"), values):
                report.compare(f"{name}.{step}", value, LOSSES, torch.tensor(expected[name]))
            normalizer = torch.tensor(float(config["loss_normalizer"][step + 1]))
            report.compare(f"loss_normalizer.{step}", model.loss_normalizer, expected=normalizer)
            optimizer.zero_grad()
            outputs.loss.backward()
            if step == 0:
                self.compare_gradients(report, model)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["clip"])
            optimizer.step()
            for name, one in model.named_parameters():
                averaged[name].lerp_(one.detach(), 1 - 0.999)
        self.compare_parameters(report, model, averaged)

    def training_batch(self, config: Any) -> dict[str, torch.Tensor]:
        features = [self.tensors[f"features_{index}"].T for index in range(len(self.config["lengths"]))]
        processor = TemporalLocalizationProcessor(
            feature_size=sum(config.feature_sizes),
            max_sequence_length=config.max_sequence_length,
            pad_to_max_length=True,
        )
        return dict(processor(features))

    def compare_targets(self, report: Report, model: Any, batch: Any, labels: Any):
        with torch.no_grad():
            outputs = model.eval()(**batch)
        model.train()
        targets = make_targets(outputs.points, outputs.point_mask.bool(), labels, model.config)
        positive = targets.classes.sum(dim=-1) > 0
        report.compare("positive", positive)
        report.equal("num_pos", int(targets.num_positives), self.config["num_pos"])
        # beyond the end of a sequence the official targets are not used
        inside = outputs.point_mask[..., None]
        report.compare("target_cls", targets.classes, expected=self.tensors["target_cls"] * inside)
        chosen = positive[..., None]
        expected = self.tensors["target_offsets"] * chosen
        report.compare("target_offsets", targets.offsets * chosen, Tolerance(1e-5, 1e-5), expected)

    def optimizer(self, report: Report, model: Any) -> torch.optim.Optimizer:
        options = dict(self.config["optimizer"])
        decay = options.pop("weight_decay")
        rate = options.pop("learning_rate", None) or options.pop("lr")
        groups = []
        for group in parameter_groups(model, decay, 1.0):
            own = "decay" if group["weight_decay"] > 0 else "no_decay"
            for name in map(official_name(model), group["names"]):
                report.equal(f"{own}.{name}", name in self.config[own], True)
            parameters = dict(model.named_parameters())
            groups.append(
                {
                    "params": [parameters[name] for name in group["names"]],
                    "weight_decay": group["weight_decay"],
                }
            )
        betas = tuple(options.get("betas", (0.9, 0.999)))
        return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=options.get("eps", 1e-8))

    def compare_gradients(self, report: Report, model: Any):
        names = official_name(model)
        total = torch.stack([one.grad.norm() for one in model.parameters()]).norm()
        report.compare("total_grad_norm", total, NORMS, torch.tensor(self.config["total_grad_norm"]))
        for name, one in model.named_parameters():
            expected = torch.tensor(self.config["grad_norm"][names(name)])
            report.compare(f"grad_norm.{name}", one.grad.norm(), NORMS, expected)

    def compare_parameters(self, report: Report, model: Any, averaged: dict[str, torch.Tensor]):
        names = official_name(model)
        for name, one in model.named_parameters():
            official = names(name)
            if self.config["grad_norm"][official] > 1e-4:
                for prefix, value in (("after", one), ("ema", averaged[name])):
                    expected = self.tensors[f"{prefix}.{official}"]
                    report.compare(f"{prefix}.{official}", value.detach().view(expected.shape), STEPS)


def without_drop_path(model: torch.nn.Module) -> None:
    for module in model.modules():
        if type(module).__name__ == "StochasticDepth":
            module.p = 0.0


def official_name(model: Any):
    """From our name of a parameter to the official one."""
    stem = model.config.num_stem_layers

    def rename(name: str) -> str:
        parts = name.split(".")
        if parts[:2] == ["actionformer", "layers"]:
            number = int(parts[2])
            place = ("stem", number) if number < stem else ("branch", number - stem)
            name = ".".join(("backbone", place[0], str(place[1]), *parts[3:]))
        for ours, theirs in OFFICIAL_NAMES:
            name = name.replace(ours, theirs)
        stem_name, _, kind = name.rpartition(".")
        return f"{stem_name}.conv.{kind}" if is_convolution(name) else name

    return rename


def is_convolution(name: str) -> bool:
    """Whether the official code wraps this layer in a masked convolution."""
    wrapped = ("backbone.embd.", "backbone.proj.", "cls_head.head.", "reg_head.head.", "cls_head.cls_head.")
    wrapped += ("reg_head.offset_head.", "neck.lateral_convs.", "neck.fpn_convs.")
    return name.startswith(wrapped) or any(f"{one}_conv." in name for one in ("query", "key", "value"))
