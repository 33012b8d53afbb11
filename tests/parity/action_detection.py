"""Action detection against MCG-NJU/VideoMAE-Action-Detection, InternVideo and mmaction2."""

import json
import tempfile
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from hf_videovit import VideoMAEV2VideoProcessor, convert_checkpoint
from hf_videovit.modeling.box_geometry import crop_boxes, flip_boxes, restore_boxes, scale_boxes, to_corners
from hf_videovit.modeling.frame_sampling import key_frame_offsets, nearest_frames
from hf_videovit.modeling.modeling_action_detection import action_probabilities, enlarge_boxes, jitter_boxes
from hf_videovit.modeling.video_processing_key_frames import stretched_window
from hf_videovit.published import ava_rows
from hf_videovit.training.data.ava import read_boxes, read_excluded, read_labels
from hf_videovit.training.data.ava_csv import ava_labels, ava_lines, format_timestamp, read_ava
from hf_videovit.training.data.box_augmentation import shift_colours
from hf_videovit.training.data.coco import read_coco
from hf_videovit.training.data.cvat import read_cvat
from hf_videovit.training.data.key_frames import KeyFrame, read_key_frames
from hf_videovit.training.data.proposals import alphaction_annotations, read_alphaction_people
from hf_videovit.training.evaluation.metrics.boxes import frame_average_precision
from hf_videovit.training.optimization import parameter_groups
from hf_videovit.training.schedules import cosine_with_warmup

from .compare import DATA_MODES, EXACT, MODEL_MODES, Mode, Report, Tolerance, numbered


METRIC = Tolerance(1e-9, 0.0)
NORMS = Tolerance(1e-6, 1e-4)
OFFICIAL_NAMES = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layers.", "blocks."),
    ("attention.q_proj.bias", "attn.q_bias"),
    ("attention.v_proj.bias", "attn.v_bias"),
    ("attention.q_proj.weight", "attn.q.weight"),
    ("attention.k_proj.weight", "attn.k.weight"),
    ("attention.v_proj.weight", "attn.v.weight"),
    ("attention.o_proj.", "attn.proj."),
    ("layernorm.", "norm."),
    ("action_head.classifier.", "head."),
)
BOXES = Tolerance(1e-4, 0.0)


class ActionDetectionAdapter:
    """Which kind of case a directory holds is told from its files, never from its name."""

    def __init__(self, fixture):
        self.fixture, self.config, self.tensors = fixture, fixture.config, fixture.tensors
        self.kind = self._kind()

    def _kind(self) -> str | None:
        config, tensors = self.config, self.tensors
        if self.fixture.has("ground_truth.csv"):
            return "metric"
        if self.fixture.has("label_map.json"):
            return "label_map"
        if self.fixture.has("annotations.xml"):
            return "client_formats"
        if self.fixture.has("result.csv"):
            return "postprocess"
        if self.fixture.has("cases.json") and any(name.startswith("kinetics") for name in tensors):
            return "sampling"
        if config.get("reference_class") == "FastRCNN":
            return "mmaction2"
        if "jitter_draws" in tensors:
            return "train_step"
        if "proposals" in tensors and self.fixture.has("checkpoint.pth"):
            return "forward"
        return "preprocess" if "boxes_xywh" in config else None

    def recognises(self) -> bool:
        return self.kind is not None

    def modes(self) -> tuple[Mode, ...]:
        return MODEL_MODES if self.kind in ("forward", "train_step", "mmaction2") else DATA_MODES

    def reasons(self) -> dict[str, str]:
        """Tensors that need no comparison."""
        inputs = ("pixel_values", "boxes", "box_clip", "box_scores", "labels", "jitter_draws", "frames", "boxes_xywh")
        inputs += ("labels_with_background", "person_clip", "network_sizes_wh")
        inputs += tuple(name for name in self.tensors if name.endswith((".jitter_draws", ".frames")))
        reasons = dict.fromkeys(inputs, "an input")
        if self.kind == "postprocess":
            reasons["logits"] = "an input"
        return {name: reason for name, reason in reasons.items() if name in self.tensors}

    def run(self, report: Report, mode: Mode):
        getattr(self, f"run_{self.kind}")(report, mode)

    # Models

    def run_forward(self, report: Report, mode: Mode):
        model, config = self.model(mode), self.config
        sizes, boxes = torch.tensor(config["clip_sizes_hw"]), self.per_clip("boxes")
        with torch.no_grad():
            outputs = model(self.clips(), boxes, sizes=sizes, output_hidden_states=True)
        report.compare("tokens_with_pos", outputs.hidden_states[0])
        for index, name in numbered(self.tensors, "hidden"):
            report.compare(name, outputs.hidden_states[index + 1])
        tokens = outputs.feature_map.flatten(2).transpose(1, 2)
        report.compare("last_hidden_state", tokens)
        feature_map = outputs.feature_map.mean(dim=2)
        report.compare("feature_map", feature_map)
        head = model.config.detection_config
        proposals = [
            enlarge_boxes(one[None], size[None], head.box_enlargement, head.box_convention)[0]
            for one, size in zip(boxes, sizes)
        ]
        report.compare("proposals", torch.cat(proposals))
        scale = head.roi_scale
        regions = [
            model.action_head.sample(one[None, :, None], boxes[None], scale)[0]
            for one, boxes in zip(feature_map, proposals)
        ]
        report.compare("roi_features", torch.cat(regions))
        report.compare("pooled", self.rows(outputs.pooled_features))
        logits = self.rows(outputs.logits)
        report.compare("logits", logits)
        report.compare("scores", self.rows(outputs.probabilities) * self.tensors["box_scores"][:, None])
        for index, name in numbered(self.tensors, "logits_alone"):
            report.compare(name, self.alone(model, index, boxes[index]))

    def alone(self, model: Any, index: int, boxes: torch.Tensor) -> torch.Tensor:
        """Logits of one clip with the padding that it has by itself."""
        multiple, (height, width) = self.config["pad_to_multiple_of"], self.config["clip_sizes_hw"][index]
        padded_height, padded_width = (-(-side // multiple) * multiple for side in (height, width))
        clip = self.clips()[index : index + 1, ..., :padded_height, :padded_width]
        with torch.no_grad():
            return model(clip, [boxes], sizes=torch.tensor([[height, width]])).logits[0]

    def run_train_step(self, report: Report, mode: Mode):
        model = self.model(mode).train()
        head = model.config.detection_config
        sizes, boxes = torch.tensor(self.config["clip_sizes_hw"]), self.per_clip("boxes")
        jittered = [
            jitter_boxes(one[None], size[None], head.box_jitter, draws[None], head.box_convention)[0]
            for one, size, draws in zip(boxes, sizes, self.per_clip("jitter_draws"))
        ]
        report.compare("proposals", torch.cat(jittered))
        model.proposals = lambda padded, sizes: padded  # the draws are recorded: nothing is left to chance
        labels = torch.nn.utils.rnn.pad_sequence(self.per_clip("labels"), batch_first=True).float()
        outputs = model(self.clips(), jittered, labels=labels, sizes=sizes)
        logits, expected = self.rows(outputs.logits), self.tensors["labels"].float()
        report.compare("logits", logits)
        losses = F.binary_cross_entropy_with_logits(logits, expected, reduction="none")
        report.compare("bce_per_element", losses)
        report.compare("loss", outputs.loss)
        outputs.loss.backward()
        gradients = self.official_gradients(model)
        for name, norm in self.config["grad_norm"].items():
            report.compare(f"grad_norm.{name}", gradients[name].norm(), NORMS, torch.tensor(norm))
        self.compare_optimisation(report, model)

    def official_gradients(self, model: Any) -> dict[str, torch.Tensor]:
        """Gradients by official name, those of query, key and value fused."""
        found = {self.official_name(name): parameter.grad for name, parameter in model.named_parameters()}
        for name in [name for name in found if name.endswith("attn.q.weight")]:
            thirds = [found.pop(name.replace("attn.q.", f"attn.{letter}.")) for letter in "qkv"]
            found[name.replace("attn.q.", "attn.qkv.")] = torch.cat(thirds)
        return found

    def compare_optimisation(self, report: Report, model: Any):
        """Layer decay, weight decay and schedule of a run with these settings."""
        config = self.config
        for group in parameter_groups(model, 0.05, config["layer_decay"]):
            for name in map(self.official_name, group["names"]):
                name = name.replace("attn.q.", "attn.qkv.")
                if name in config["lr_scale"]:
                    expected = torch.tensor(config["lr_scale"][name])
                    report.compare(f"lr_scale.{name}", torch.tensor(group["lr_scale"]), BOXES, expected)
                    report.equal(f"decay.{name}", group["weight_decay"] > 0, name in config["decay"])
        peak, steps = config["lr"] * config["total_batch"] / 256, config["epochs"] * config["steps_per_epoch"]
        warmup, final = config["warmup_epochs"] * config["steps_per_epoch"], 1e-6 * config["total_batch"] / 256
        schedule = [cosine_with_warmup(step, steps, warmup, peak, final) for step in range(steps)]
        report.compare("lr_schedule", torch.tensor(schedule, dtype=torch.float64), Tolerance(1e-12, 1e-6))

    def run_mmaction2(self, report: Report, mode: Mode):
        model = self.model(mode)
        boxes, background = self.per_clip("boxes"), not self.config["multilabel"]
        labels = [one if background else one[:, 1:] for one in self.per_clip("labels_with_background")]
        padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True)
        outputs = model(self.clips(), boxes, labels=padded)
        report.compare("feature_map_5d", outputs.feature_map)
        head = model.config.detection_config
        scale = head.roi_scale or 1 / model.feature_stride
        report.compare("roi_features", self.regions(model, outputs.feature_map, boxes, scale))
        columns = slice(None) if background else slice(1, None)
        for name, found in (("logits", outputs.logits), ("scores", outputs.probabilities)):
            expected = self.tensors[f"{name}_with_background"]
            report.compare(f"{name}_with_background", self.rows(found), expected=expected[:, columns])
        report.compare("loss", outputs.loss)

    def regions(self, model: Any, feature_map: torch.Tensor, boxes: list[torch.Tensor], scale: float) -> torch.Tensor:
        """RoIAlign's output of mmaction2, `(num_boxes, channels, frames, size, size)`: before the head pools time."""
        head, pooled = model.action_head, []
        for one, own in zip(feature_map, boxes):
            frames = one[None].transpose(1, 2)
            if not model.config.detection_config.pool_time_after_roi:
                frames = head._pool_time(frames).unsqueeze(1)
            pooled.append(head._regions(frames, own[None], scale)[0].transpose(0, 1).transpose(1, 2))
        return torch.cat(pooled)

    def model(self, mode: Mode):
        """Through the public converter; what a checkpoint's shapes reveal is left to it."""
        config, fields = self.config, {}
        if self.kind == "mmaction2":
            fields["detection_config"] = self.mmaction2_head()
            if not config["multilabel"]:
                fields["problem_type"] = "single_label_classification"
        else:
            fields["detection_config"] = {"roi_size": config["roi_resolution"]}
        model = convert_checkpoint(
            "videomae_v2",
            self.fixture.path("checkpoint.pth"),
            task="action-detection",
            image_size=config["img_size"],
            num_frames=config["num_frames"],
            num_attention_heads=config["num_heads"],
            **fields,
        )
        if mode.reloaded:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = type(model).from_pretrained(folder)
        model.set_attn_implementation(mode.attention)
        return model.eval()

    def mmaction2_head(self) -> dict[str, Any]:
        """The options of a case of mmaction2, which its weights do not show."""
        config, poolings = self.config, {"avg": "mean", "max": "max"}
        before = config["temporal_pool_before"]
        return {
            "roi_size": config["roi_resolution"],
            "pool_time_after_roi": not before,
            "temporal_pooling": poolings[config["temporal_pool" if before else "head_temporal_pool"]],
            "spatial_pooling": poolings[config["spatial_pool"]],
            "global_feature": "map" if config["with_global"] else None,
            "focal_gamma": config["focal_gamma"],
            "focal_alpha": config["focal_alpha"],
        }

    def clips(self) -> torch.Tensor:
        return self.tensors["pixel_values"].transpose(1, 2)

    def per_clip(self, name: str) -> list[torch.Tensor]:
        """Rows of a tensor, which has one a box, clip by clip."""
        counts = torch.bincount(self.tensors["box_clip"], minlength=len(self.tensors["pixel_values"]))
        return list(self.tensors[name].split(counts.tolist()))

    def rows(self, padded: torch.Tensor) -> torch.Tensor:
        """Rows of the boxes that exist, of `(batch_size, num_boxes, ...)`."""
        counts = torch.bincount(self.tensors["box_clip"], minlength=len(padded)).tolist()
        return torch.cat([one[:count] for one, count in zip(padded, counts)])

    def official_name(self, name: str) -> str:
        """The official spelling of a parameter's name; query, key and value are apart."""
        inside = name.removeprefix("videomae_v2.")
        for ours, theirs in OFFICIAL_NAMES:
            inside = inside.replace(ours, theirs)
        return inside

    # Data

    def run_metric(self, report: Report, mode: Mode):
        path, config = self.fixture.path, self.config
        result = frame_average_precision(
            read_boxes(path("ground_truth.csv"), scored=False),
            read_boxes(path("predictions.csv"), scored=True),
            list(read_labels(path("action_list.pbtxt"))),
            read_excluded(path("excluded.csv")),
            iou_threshold=config.get("iou_threshold", 0.5),
        )
        report.compare("mAP", result.mean, METRIC, config["mAP"])
        for label, expected in config["average_precision"].items():
            found = result.average_precision[int(label)]
            report.equal(f"has_truth.{label}", not np.isnan(found), expected is not None)
            if expected is not None:
                report.compare(f"average_precision.{label}", found, METRIC, expected)
        for label, count in config["num_ground_truth"].items():
            report.equal(f"num_ground_truth.{label}", result.num_boxes[int(label)], count)

    def run_sampling(self, report: Report, mode: Mode):
        cases = self.fixture.json("cases.json")
        for index, case in enumerate(cases["alphaction_offsets"]):
            found = key_frame_offsets(case["num_frames"], case["stride"], read_key_frame=False)
            report.equal(f"alphaction_offsets.{index}", found, case["offsets_from_key_frame"])
        for index, case in enumerate(cases["slowfast"]):
            offsets = key_frame_offsets(case["num_frames"], case["stride"])
            times, key = np.arange(case["total_frames"]) / 30, np.array([case["timestamp"] - 900.0])
            report.equal(f"slowfast.{index}", nearest_frames(key, offsets, times)[0], case["indices"])
        for index, case in enumerate(cases["mmaction2"]):
            offsets = key_frame_offsets(case["num_frames"], case["stride"])
            times = np.arange(case["shot_info"][0], case["shot_info"][1]) / case["fps"]
            key = np.array([(case["timestamp"] - case["timestamp_start"]) + case["start_index"] / case["fps"]])
            found = nearest_frames(key, offsets, times)[0] + case["start_index"]  # numbers of image files
            report.equal(f"mmaction2.{index}", found, case["frame_numbers"])
        for index, case in enumerate(cases["ava_kinetics"]):
            frames = self.tensors[f"kinetics{index}.frames"].movedim(-1, 1)
            middle = int(
                (case["timestamp"] - case["clip_start"]) / (case["clip_end"] - case["clip_start"]) * len(frames)
            )
            report.equal(f"kinetics{index}.middle", middle, case["middle_frame"])
            window = stretched_window(frames, middle, case["window_frames"] // 2)
            offsets = key_frame_offsets(case["num_frames"], case["stride"], read_key_frame=False)
            clip = window[torch.from_numpy(offsets + case["window_frames"] // 2)].movedim(1, -1)
            report.compare(f"kinetics{index}.clip", clip, Tolerance(1.0, 0.0))

    def run_preprocess(self, report: Report, mode: Mode):
        config, tensors = self.config, self.tensors
        frames = tensors["frames"].movedim(-1, 1)
        size = frames.shape[-2:]
        corners, kept = to_corners(torch.tensor(config["boxes_xywh"]), size, "xywh", False, "inclusive")
        report.compare("boxes_xyxy", corners, BOXES)
        report.compare("boxes_kept", kept, EXACT)
        processor = self.processor()
        offsets = key_frame_offsets(config["num_frames"], config["stride"], read_key_frame=False)
        times = np.arange(config["raw_frames"]) / 25
        indices = nearest_frames(times[[config["raw_frames"] // 2]], offsets, times)[0]
        report.equal("frame_indices", indices, config["frame_indices"])
        clip = frames[torch.from_numpy(indices)]
        batch = processor(clip, boxes=config["boxes_xywh"], box_format="xywh", return_tensors="pt")
        expected = tensors["test.pixel_values"].transpose(0, 1)
        fits = batch["sizes"][0].tolist() == list(expected.shape[-2:])
        if fits:  # the reference squashes clips whose short side fits already; ours do not
            report.compare("test.boxes", batch["boxes"][0], BOXES)
            enlarged = enlarge_boxes(batch["boxes"], batch["sizes"], (0.1, 0.05), "inclusive")[0]
            report.compare("test.proposals", enlarged, BOXES)
            report.compare("test.pixel_values", batch["pixel_values"][0].transpose(0, 1), Tolerance(2e-6, 0.0))
            mean, std = (torch.tensor(config[f"pixel_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
            grey = (batch["pixel_values"][0] * std + mean).movedim(1, -1)
            report.compare("test.resized", grey, Tolerance(1e-4, 0.0))
            self.compare_training(report, batch["boxes"][0], batch["sizes"][0].tolist())
            self.compare_colours(report)
        else:
            report.seen |= {name for name in tensors if name.startswith(("test.", "train"))}
        report.equal("keeps_its_shape", batch["sizes"][0].tolist(), list(_fitted(size, config["short_side"])))

    def compare_training(self, report: Report, boxes: torch.Tensor, size: list[int]):
        """Crop, flip and jitter of the recorded draws."""
        config, tensors, crop = self.config, self.tensors, self.config["crop"]
        for name, draw in config["draws"].items():
            top, left = (int(draw[f"crop_{axis}"] * (side - crop)) for axis, side in zip("yx", size))
            cropped = crop_boxes(boxes, top, left, crop, crop)
            report.compare(f"{name}.boxes_cropped", cropped, BOXES)
            flipped = flip_boxes(cropped, crop, "inclusive") if draw["flip"] < 0.5 else cropped
            report.compare(f"{name}.boxes_flipped", flipped, BOXES)
            draws = tensors[f"{name}.jitter_draws"]
            sizes = torch.tensor([[crop, crop]])
            moved = jitter_boxes(flipped[None], sizes, (0.2, 0.1, 0.1, 0.05), draws[None], "inclusive")[0]
            report.compare(f"{name}.proposals", moved, BOXES)

    def compare_colours(self, report: Report):
        """Colours of the recorded draws: OpenCV's tables differ from plain formulas in a few values."""
        resized = self.tensors["test.resized"].movedim(-1, 1)
        crop, processor = self.config["crop"], self.processor()
        for name, draw in self.config["draws"].items():
            top, left = (int(draw[f"crop_{axis}"] * (side - crop)) for axis, side in zip("yx", resized.shape[-2:]))
            cropped = resized[..., top : top + crop, left : left + crop]
            report.compare(f"{name}.cropped", cropped.movedim(1, -1), EXACT)
            coloured = shift_colours(cropped, draw["hue"], draw["saturation"], draw["value"])
            expected = self.tensors[f"{name}.coloured"].movedim(-1, 1)
            report.compare(f"{name}.coloured", coloured.movedim(1, -1), Tolerance(8.0, 0.0))
            gap = (coloured.float() - expected.float()).abs().mean()
            report.compare(f"{name}.coloured(mean)", gap, Tolerance(0.1, 0.0), torch.zeros(()))
            if f"{name}.pixel_values" in self.tensors:
                seen = expected.flip(-1) if draw["flip"] < 0.5 else expected
                pixels = processor.normalize_clips(seen).transpose(0, 1)
                report.compare(f"{name}.pixel_values", pixels)

    def processor(self) -> VideoMAEV2VideoProcessor:
        config = self.config
        return VideoMAEV2VideoProcessor(
            num_frames=config["num_frames"],
            size={"shortest_edge": config["short_side"]},
            do_center_crop=False,
            rescale_factor=1.0,
            image_mean=config["pixel_mean"],
            image_std=config["pixel_std"],
            box_convention="inclusive",
        )

    def run_postprocess(self, report: Report, mode: Mode):
        config, tensors = self.config, self.tensors
        people = json.loads(self.fixture.path("detected_people.json").read_text())
        rows: dict[str, list[Any]] = {"boxes": [], "scores": [], "network": []}
        for image_id, (width, height), (new_width, new_height) in zip(
            config["image_ids"], config["clip_sizes_wh"], tensors["network_sizes_wh"].tolist()
        ):
            found = [one for one in people if one["image_id"] == image_id and one["score"] >= 0.8]
            given = torch.tensor([one["bbox"] for one in found])
            corners, kept = to_corners(given, (height, width), "xywh", False, "inclusive")
            rows["boxes"].append(corners)
            rows["scores"].append(torch.tensor([found[row]["score"] for row in kept]))
            rows["network"].append(scale_boxes(corners, (height, width), (new_height, new_width)))
            report.equal(f"size.{image_id}", _fitted((height, width), config["short_side"]), (new_height, new_width))
        report.compare("person_boxes", torch.cat(rows["boxes"]))
        report.compare("person_scores", torch.cat(rows["scores"]))
        report.compare("network_boxes", torch.cat(rows["network"]))
        model_config = _HeadConfig(softmax_labels=0)
        scores = action_probabilities(tensors["logits"], model_config) * tensors["person_scores"][:, None]
        report.compare("scores", scores)
        report.compare("grouped_scores", action_probabilities(tensors["logits"], _HeadConfig(softmax_labels=14)))
        clips = tensors["person_clip"].tolist()
        restored = []
        for box, clip in zip(tensors["network_boxes"], clips):
            size = tensors["network_sizes_wh"][clip].flip(0).tolist()
            width, height = config["clip_sizes_wh"][clip]
            pixels = restore_boxes(box[None], size, (height, width), "inclusive")[0]
            restored.append(pixels / torch.tensor([width, height, width, height]))
        person, label = (scores >= config["score_threshold"]).nonzero().unbind(1)
        report.compare("action_ids", label + 1, EXACT)
        report.compare("normalised_boxes", torch.stack(restored)[person])

        self.compare_files(report, restored, scores, clips)

    def compare_files(self, report: Report, boxes: list[torch.Tensor], scores: torch.Tensor, clips: list[int]):
        """The files of the case, through our readers and writers."""
        config = self.config
        movies = {name: (width, height) for name, (width, height) in config["videos"].items()}
        found = read_alphaction_people(self.fixture.path("detected_people.json"), list(movies), movies)
        report.equal("clip_keys", [_key(row) for row in found.rows], config["clip_keys"])
        corners = torch.tensor(np.concatenate([row.boxes - [0, 0, 1, 1] for row in found.rows]))
        report.compare("detected_people.json", corners, expected=self.tensors["person_boxes"])

        truth = read_ava(self.fixture.path("annotations.csv"), movies)
        numbers = {name: number for number, name in ava_labels().items()}
        written = alphaction_annotations(truth.rows, list(movies), numbers)
        official = self.fixture.json("annotations_coco.json")
        for one in (*written["annotations"], *official["annotations"]):
            one["action_ids"], one["area"] = sorted(one["action_ids"]), round(one["area"], 2)
        report.equal("annotations_coco.json", str(written["annotations"]), str(official["annotations"]))
        report.equal("annotations_coco.images", str(written["images"]), str(official["images"]))

        names, threshold = list(numbers), config["score_threshold"]
        lines = []
        for clip, key in enumerate(config["clip_keys"]):
            people = [person for person, other in enumerate(clips) if other == clip]
            video, second = key.split(",")
            width, height = movies[video]
            above = [(scores[person] >= threshold).nonzero().flatten().tolist() for person in people]
            row = KeyFrame(
                *(video, float(second), width, height),
                torch.stack([boxes[person] for person in people]).double().numpy() * [width, height, width, height],
                tuple(tuple(names[label] for label in labels) for labels in above),
                (None,) * len(people),
                label_scores=tuple(
                    tuple(scores[person, label].item() for label in labels) for person, labels in zip(people, above)
                ),
            )
            lines += list(ava_lines(row, numbers))
        got, wanted = (
            [line.split(",") for line in text] for text in (lines, self.fixture.path("result.csv").read_text().split())
        )
        report.equal("result.csv.keys", [row[:2] for row in got], [row[:2] for row in wanted])
        values, expected = (torch.tensor([[*map(float, row[2:])] for row in rows]) for rows in (got, wanted))
        report.compare("result.csv", values, Tolerance(1.01e-5, 0), expected)

    def run_label_map(self, report: Report, mode: Mode):
        official = self.fixture.json("label_map.json")
        report.equal("names", list(ava_labels().values()), [official["names"][str(number)] for number in ava_labels()])
        report.equal("evaluated", [row + 1 for row in ava_rows("evaluated")], official["evaluated"])
        for group, (first, last) in official["groups"].items():
            report.equal(group, [row + 1 for row in ava_rows(group)], list(range(first, last + 1)))

    def run_client_formats(self, report: Report, mode: Mode):
        rows = read_key_frames(self.fixture.path("rows.jsonl")).rows
        options = {"every": self.config["key_frame_every"], "fps": self.config["fps"], "video": rows[0].video}
        cvat = read_cvat(
            self.fixture.path("annotations.xml"), person_label=self.config.get("person_label", "person"), **options
        )
        coco = read_coco(self.fixture.path("coco.json"))
        for name, found, tolerance in (("cvat", cvat.rows, 1e-6), ("coco", coco.rows, 0.011)):
            facts, expected = ([_facts(row) for row in part] for part in (found, rows))
            report.equal(f"{name}.rows", str(facts), str(expected))
            for row, official in zip(found, rows):
                report.compare(f"{name}.boxes.{row.frame}", row.boxes, Tolerance(tolerance, 0), official.boxes)


def _key(row: KeyFrame) -> str:
    return f"{row.video},{format_timestamp(row.time)}"


def _facts(row: KeyFrame) -> tuple[Any, ...]:
    """A row without its boxes."""
    return row.video, row.frame, round(row.time, 6), row.width, row.height, row.labels, row.person_ids


class _HeadConfig:
    """What `action_probabilities` reads of a model's configuration."""

    problem_type = None

    def __init__(self, softmax_labels: int):
        self.detection_config = type("Head", (), {"softmax_labels": softmax_labels})


def _fitted(size: Any, short_side: int) -> tuple[int, int]:
    """Height and width with this short side, the long one rounded down."""
    height, width = size
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side
