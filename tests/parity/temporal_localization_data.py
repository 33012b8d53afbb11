"""Temporal localisation: the cases without a localiser's weights."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from packaging.version import Version

from hf_videovit import VideoMAEV2VideoProcessor, convert_checkpoint
from hf_videovit.convert.localizer_settings import localizer_fields
from hf_videovit.inference.features import iter_video_features
from hf_videovit.modeling.configuration_actionformer import ActionFormerConfig
from hf_videovit.modeling.feature_processing_temporal_localization import (
    TemporalLocalizationProcessor,
    fuse_class_scores,
)
from hf_videovit.modeling.modeling_actionformer_losses import (
    assign_points,
    distance_iou_loss,
    make_points,
    pad_segments,
    segment_overlaps,
    sigmoid_focal_loss,
)
from hf_videovit.modeling.segment_suppression import ScoredSegments, suppress_segments
from hf_videovit.training.data.activitynet import read_activitynet, read_predictions
from hf_videovit.training.data.feature_sequences import random_window
from hf_videovit.training.evaluation.metrics.segments import segment_average_precision
from hf_videovit.training.schedules import cosine_with_warmup, steps_with_warmup

from .compare import EXACT, Mode, Report, Tolerance


METRIC = Tolerance(1e-9, 0.0)
SMALL = Tolerance(1e-6, 1e-6)
# torch before 2.9 rounds the interpolation otherwise.
INTERPOLATED = SMALL if Version(torch.__version__) >= Version("2.9") else Tolerance(1e-5, 1e-6)


class DataCases:
    """Mixed into the adapter."""

    fixture: Any
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    kind: str | None

    def kind_of_data(self) -> str | None:
        config, tensors, cases = self.config, self.tensors, self.config.get("cases", {})
        first = next(iter(cases.values()), {}) if isinstance(cases, dict) else {}
        if self.fixture.has("plan.json"):
            return "benchmark"
        if self.fixture.has("predictions.json"):
            return "evaluation"
        if self.fixture.has("truth.json"):
            return "dataset"
        if "class_scores" in config:
            return "fusion"
        if {"focal", "diou"} <= set(tensors):
            return "losses"
        kinds = {"voting_thresh": "nms", "ranges": "targets", "seed": "truncation", "opt": "schedule"}
        if "pre_nms_thresh" in first:
            return "decoding"
        return next((kind for name, kind in kinds.items() if name in first), None)

    def is_input(self, name: str) -> bool:
        """Whether a tensor is an input, or one that the case does not hold anything against."""
        head, last = name.split(".")[0], name.split(".")[-1]
        if self.kind in ("nms", "truncation", "targets"):
            fed = ("segments", "scores", "labels", "features")
            outputs = self.kind == "nms" and head in self.config["cases"] or ".out." in name
            return last in fed and not outputs
        if self.kind == "decoding":
            return head.rpartition("_")[0] in ("mask", "points", "cls_logits", "offsets")
        if self.kind == "train_step":
            weak = name.startswith(("after.", "ema."))
            if weak:
                return self.config["grad_norm"][name.partition(".")[2]] <= 1e-4
        if self.kind == "losses":
            return name in ("logits", "targets", "pred", "truth")
        if self.kind == "extraction":
            return name.startswith("video_") and "." not in name
        if self.kind == "dataset":
            return name.startswith("features.")
        starts = ("features_", "segments_", "labels_")
        return head.startswith(starts) and head == name or last in ("features", "mask") and head != name

    def compare_found(self, report: Report, name: str, segments: Any, scores: Any, labels: Any):
        """Segments in order. Neighbours whose scores agree to 2e-6 may change places."""
        expected = [self.tensors[f"{name}.{kind}"] for kind in ("segments", "scores", "labels")]
        found = [torch.as_tensor(one) for one in (segments, scores, labels)]
        if found[1].shape == expected[1].shape:
            order = torch.arange(len(found[1]))
            for place in range(len(order)):
                near = (found[1][order[place:]] - expected[1][place]).abs() < 2e-6
                same = (found[0][order[place:]] - expected[0][place]).abs().amax(dim=1) < 1e-2
                fitting = (near & same & (found[2][order[place:]] == expected[2][place])).nonzero()
                if len(fitting):
                    other = place + int(fitting[0])
                    order[[place, other]] = order[[other, place]]
            found = [one[order] for one in found]
        report.compare(f"{name}.segments", found[0], Tolerance(1e-3, 1e-5))
        report.compare(f"{name}.scores", found[1], Tolerance(1e-5, 0.0))
        report.compare(f"{name}.labels", found[2], EXACT)

    # From outputs to segments

    def run_nms(self, report: Report, mode: Mode):
        for name, case in self.config["cases"].items():
            columns = [self.tensors[f"{case['input']}.{kind}"].numpy() for kind in ("segments", "scores", "labels")]
            result = suppress_segments(
                ScoredSegments(*columns),
                "soft" if case["use_soft_nms"] else "hard",
                sigma=case["sigma"],
                iou_threshold=case["iou_threshold"],
                min_score=case["min_score"],
                max_segments=case["max_seg_num"],
                class_agnostic=not case["multiclass"],
                voting_threshold=case["voting_thresh"],
            )
            found = (result.segments, result.scores, result.labels)
            expected = tuple(self.tensors[f"{name}.{kind}"].numpy() for kind in ("segments", "scores", "labels"))
            scores = expected[1].round(5)
            if len(np.unique(scores)) < len(scores):  # equal scores: any order
                found, expected = sorted_rows(*found), sorted_rows(*expected)
            for kind, value, target in zip(("segments", "scores", "labels"), found, expected):
                report.compare(f"{name}.{kind}", value, Tolerance(1e-5, 1e-6), torch.from_numpy(target))

    def run_decoding(self, report: Report, mode: Mode):
        levels = range(len(self.config["strides"]))
        outputs = SimpleNamespace(
            logits=torch.cat([self.tensors[f"cls_logits_{level}"] for level in levels])[None],
            pred_offsets=torch.cat([self.tensors[f"offsets_{level}"] for level in levels])[None],
            points=torch.cat([self.tensors[f"points_{level}"] for level in levels]),
            point_mask=torch.cat([self.tensors[f"mask_{level}"] for level in levels])[None],
        )
        video = self.config["video"]
        for name, case in self.config["cases"].items():
            fields = localizer_fields({"n_head": 1, "test_cfg": case})[1]
            fields |= {"feature_stride": video["feat_stride"], "feature_window": video["feat_num_frames"]}
            processor = TemporalLocalizationProcessor(**fields)
            found = processor.candidates(outputs, 0)
            self.compare_found(report, f"{name}.pre", found.segments, found.scores, found.labels)
            sizes = [(video["fps"], video["duration"])]
            (found,) = processor.post_process_temporal_localization(outputs, sizes)
            self.compare_found(report, name, found["segments"], found["scores"], found["labels"])

    def run_fusion(self, report: Report, mode: Mode):
        config, found = self.config, []
        for video in sorted(config["predictions"]):
            rows = config["predictions"][video]
            segments = ScoredSegments(
                np.array([row["segment"] for row in rows]).reshape(-1, 2),
                np.array([row["score"] for row in rows], np.float32),
                np.zeros(len(rows), np.int64),
            )
            fused = fuse_class_scores(segments, config["class_scores"][video], config["topk"], config["num_pred"])
            found += [(video, *row) for row in zip(fused.segments, fused.labels, fused.scores)]
        report.equal("videos", [row[0] for row in found], [row["video"] for row in config["expected"]])
        report.equal("labels", [row[2] for row in found], [row["label"] for row in config["expected"]])
        for kind, place in (("segment", 1), ("score", 3)):
            expected = np.array([row[kind] for row in config["expected"]], np.float64)
            report.compare(kind, np.array([row[place] for row in found], np.float64), SMALL, expected)

    # Training

    def run_targets(self, report: Report, mode: Mode):
        for name, case in self.config["cases"].items():
            start = int(case["strides"][0]).bit_length() - 1
            config = ActionFormerConfig(
                num_branch_layers=start + len(case["strides"]) - 1,
                neck_start_level=start,
                regression_ranges=case["ranges"],
                num_labels=case["num_classes"],
                center_sampling_radius=case["radius"] if case["center_sample"] == "radius" else None,
            )
            points = make_points(case["lengths"], config)
            report.compare(f"{name}.points", points, EXACT)
            labels = {"segments": self.tensors[f"{name}.segments"], "class_labels": self.tensors[f"{name}.labels"]}
            segments = pad_segments([labels], config.num_labels, torch.device("cpu"))
            classes, offsets = assign_points(points, segments, config.num_labels, config.center_sampling_radius)
            report.compare(f"{name}.cls", classes[0], EXACT)
            report.compare(f"{name}.offsets", offsets[0], SMALL)
            report.equal(f"{name}.positives", int((classes.sum(dim=-1) > 0).sum()), case["positives"])

    def run_losses(self, report: Report, mode: Mode):
        logits, targets = self.tensors["logits"], self.tensors["targets"]
        for name, alpha, gamma in (("focal", 0.25, 2.0), ("focal_no_alpha", -1.0, 2.0), ("focal_gamma_1", 0.25, 1.0)):
            report.compare(name, sigmoid_focal_loss(logits, targets, alpha, gamma), SMALL)
        predicted = self.tensors["pred"].clone().requires_grad_()
        losses = distance_iou_loss(predicted, self.tensors["truth"])
        report.compare("diou", losses, SMALL)
        report.compare("giou", 1 - segment_overlaps(predicted, self.tensors["truth"]), SMALL)
        losses.sum().backward()
        report.compare("d_pred", predicted.grad, SMALL)

    def run_truncation(self, report: Report, mode: Mode):
        for name, case in self.config["cases"].items():
            labels = {"segments": self.tensors[f"{name}.segments"], "class_labels": self.tensors[f"{name}.labels"]}
            features, cropped = random_window(
                self.tensors[f"{name}.features"].T,
                labels,
                case["max_seq_len"],
                random.Random(case["seed"]),
                min_inside=case["trunc_thresh"],
                offset=case["offset"],
                crop_ratio=case["crop_ratio"],
            )
            report.compare(f"{name}.out.features", features.T, EXACT)
            report.compare(f"{name}.out.segments", cropped["segments"], SMALL)
            report.compare(f"{name}.out.labels", cropped["class_labels"], EXACT)

    def run_schedule(self, report: Report, mode: Mode):
        for name, case in self.config["cases"].items():
            options, steps = case["opt"], case["iterations_per_epoch"]
            warmup = options["warmup_epochs"] * steps if options["warmup"] else 0
            total, peak = warmup + options["epochs"] * steps, options["learning_rate"]
            milestones = [epoch * steps for epoch in options["schedule_steps"]]
            rates = [
                cosine_with_warmup(step, total, warmup, peak, 1e-8)
                if options["schedule_type"] == "cosine"
                else steps_with_warmup(step, warmup, peak, milestones, options["schedule_gamma"])
                for step in range(len(case["lr"]))
            ]
            report.compare(f"{name}.lr", np.array(rates), Tolerance(0.0, 1e-9), np.array(case["lr"]))

    def run_dataset(self, report: Report, mode: Mode):
        for name, case in self.config["cases"].items():
            path, distinct = self.fixture.path("truth.json"), case["dataset"] == "anet"
            table = read_activitynet(path, tolerance=1e-3 if distinct else None)
            for video in case["videos"]:
                self.compare_video(report, f"{name}.{video}", case, table, video)

    def compare_video(self, report: Report, name: str, case: dict[str, Any], table: Any, video: str):
        arguments, described = case["arguments"], case["videos"][video]
        fields = localizer_fields({"model": {"n_head": 1}, "dataset": arguments})[1]
        processor = TemporalLocalizationProcessor(feature_size=self.tensors[f"features.{video}"].shape[1], **fields)
        features = self.tensors[f"features.{video}"]
        grid = processor.grid(len(features), described["fps"], described["duration"])
        report.compare(f"{name}.features", processor.resample(features).T, INTERPOLATED)
        report.compare(f"{name}.stride", np.float64(grid.stride), SMALL, np.float64(described["feat_stride"]))
        rows = table.videos == video
        classes = table.labels[rows] * (arguments["num_classes"] > 1)
        cut = case["dataset"] == "anet" and case["training"]
        labels = processor.prepare_labels(
            table.segments[rows], classes, grid, arguments["trunc_thresh"] if cut else None
        )
        report.compare(f"{name}.segments", labels["segments"], Tolerance(1e-5, 1e-6))
        report.compare(f"{name}.labels", labels["class_labels"], EXACT)

    # Evaluation

    def run_evaluation(self, report: Report, mode: Mode):
        truth = read_activitynet(self.fixture.path("truth.json"), self.config["subset"])
        predictions = read_predictions(self.fixture.path("predictions.json"), truth.class_names)
        cases = {name: (case, "ignored") for name, case in self.config["cases"].items()}
        if "official_with_the_fault" in self.config:
            first = next(iter(self.config["cases"].values()))
            cases["official_with_the_fault"] = ({**first, **self.config["official_with_the_fault"]}, "renumbered")
        for name, (case, absent) in cases.items():
            result = segment_average_precision(truth, predictions, case["tiou"], case["top_k"], absent)
            report.equal(f"{name}.class_ids", result.classes, case["class_ids"])
            report.equal(f"{name}.num_truth", result.num_truth, case["num_truth"])
            for kind, value in (
                ("ap", result.average_precision),
                ("map", result.means),
                ("average_map", result.mean),
                ("recall_at_kx", result.recall),
            ):
                report.compare(f"{name}.{kind}", np.asarray(value), METRIC, np.asarray(case[kind]))

    def run_benchmark(self, report: Report, mode: Mode):
        """Not a reference of numbers: what the plan and the truth say of themselves."""
        plan, features = self.fixture.json("plan.json"), self.config["features"]
        for subset, count in self.config["segments"].items():
            table = read_activitynet(self.fixture.path("truth.json"), subset)
            report.equal(f"segments.{subset}", len(table), count)
            report.equal(f"videos.{subset}", len(table.durations), self.config["subsets"][subset])
        for video, check in self.config["check"].items():
            frames = sum(repetitions for piece in plan[video] for _, repetitions in piece["frames"])
            report.equal(f"{video}.frames", frames, check["frames"][0])
            windows = (frames - features["window"]) // features["stride"] + 1
            report.equal(f"{video}.windows", windows, check["feature_shape"][0])

    # Features

    def run_extraction(self, report: Report, mode: Mode):
        config = self.config["model"]
        encoder = convert_checkpoint(
            "videomae_v2",
            self.fixture.path("checkpoint.pth"),
            task="feature-extraction",
            image_size=config["img_size"],
            num_frames=config["all_frames"],
            num_attention_heads=config["num_heads"],
        )
        side = config["img_size"]
        processor = VideoMAEV2VideoProcessor(
            num_frames=config["all_frames"],
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
        )
        window = self.config["window"]
        for name in sorted(one for one in self.tensors if one.startswith("video_") and "." not in one):
            video = self.tensors[name].numpy()
            given = [] if f"{name}.input_0" not in self.tensors else [name]
            for data_set, step in self.config["step"].items():
                with recorded_inputs(encoder) as inputs:
                    (features,) = iter_video_features(
                        encoder, processor, [video], window=window, stride=step, squash=True
                    )
                report.compare(f"{name}.{data_set}", features)
                for one in given:
                    report.compare(f"{one}.input_0", inputs[0][0].transpose(0, 1), SMALL)
                starts = self.config["plans"].get(str(len(video)))
                if starts is not None:
                    report.equal(f"{name}.{data_set}.windows", len(features), len(starts[data_set]))


class recorded_inputs:
    """The clips that a model gets."""

    def __init__(self, model: torch.nn.Module):
        self.model, self.inputs = model, []

    def __enter__(self) -> list[torch.Tensor]:
        def keep(module, arguments, options):
            self.inputs.append(options["pixel_values"])

        self.handle = self.model.register_forward_pre_hook(keep, with_kwargs=True)
        return self.inputs

    def __exit__(self, *error: Any):
        self.handle.remove()


def sorted_rows(segments: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows by score, start, end and label."""
    order = np.lexsort((labels, segments[:, 1], segments[:, 0], -scores.round(5)))
    return segments[order], scores[order], labels[order]
