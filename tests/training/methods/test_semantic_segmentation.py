"""Semantic segmentation: images with masks from folders to a checkpoint, its scores, and the same scores again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation
from transformers.modeling_outputs import SemanticSegmenterOutput
from typer.testing import CliRunner

from hf_videovit import (
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerSegmenterImageProcessor,
    label_probabilities,
)
from hf_videovit.cli import app
from hf_videovit.hub.card_rows import protocol_rows
from hf_videovit.modeling.semantic_protocol import window_logits
from hf_videovit.modeling.video_decoding import VideoDecodingError
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.data.loaders import Record
from hf_videovit.training.data.segmentation import SegmentationLoader, open_segmentation, read_mask
from hf_videovit.training.data.segmentation_augmentation import SegmentationAugmentation
from hf_videovit.training.evaluation.metrics.pixels import pixel_confusion, pixel_scores
from hf_videovit.training.evaluation.receipts import reproduce
from hf_videovit.training.methods.choosing import finetune, method_of
from hf_videovit.training.methods.semantic_segmentation import label_colour
from hf_videovit.training.planning import plan_run
from hf_videovit.training.preview import draw_preview
from tests.training.engine.test_two_processes import launch
from tests.training.methods.interrupting import check_that_a_resumed_run_is_the_uninterrupted_one


SIZES = [(40, 60), (64, 64), (70, 50), (50, 90)]
BACKBONE = {
    "model_type": "uniformer",
    "modality": "image",
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 16, 16],
    "intermediate_sizes": [16, 16, 16, 16],
    "head_dim": 8,
    "out_indices": [1, 2, 3, 4],
}
HEAD = {"decode_head": "fpn", "hidden_size": 16, "pyramid_size": 12, "use_auxiliary_head": False}


def write_pictures(folder: Path, split: str, count: int) -> None:
    """The left part is red and of label 1, the right one blue and of label 0; the first row has no label."""
    for kind in ("images", "annotations"):
        (folder / kind / split).mkdir(parents=True)
    for index in range(count):
        height, width = SIZES[index % len(SIZES)]
        mask = np.ones((height, width), np.uint8)  # as in ADE20K, 0 is no label and 1 is label 0
        mask[:, : width // (2 + index % 2)] = 2
        image = np.where(mask[..., None] == 2, (200, 20, 20), (20, 20, 200)).astype(np.uint8)
        mask[0] = 0
        Image.fromarray(image).save(folder / "images" / split / f"{index}.png")
        Image.fromarray(mask).save(folder / "annotations" / split / f"{index}.png")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """8 pictures to train on, of which one is damaged; 5 to evaluate on, of which one has no mask."""
    folder = tmp_path_factory.mktemp("segmentation")
    write_pictures(folder, "training", 8)
    write_pictures(folder, "validation", 5)
    (folder / "images" / "training" / "3.png").write_bytes(b"no picture")
    (folder / "annotations" / "validation" / "4.png").unlink()
    (folder / "labels.json").write_text(json.dumps(["blue", "red"]))
    return folder


def fields_of(pictures, output, **more):
    return {
        "data": str(pictures),
        "output_dir": str(output),
        "method": "semantic_segmentation",
        "crop_size": [64, 64],
        "model_type": "uniformer_segmenter",
        "config": {"backbone_config": BACKBONE, **HEAD},
        "processor": {"size": {"shortest_edge": 64, "longest_edge": 128}, "flip_test": True},
        "cpu": True,
        "num_workers": 0,
        "progress": False,
        "curves": False,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "ema_decay": 0.9,
        "flip": 0.5,
        "log_every": 1,
        "bad_video_limit": 0.5,
        **more,
    }


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    return finetune(RunConfig.from_fields(**fields_of(pictures, tmp_path_factory.mktemp("run") / "out")))


def plain_scores(folder, pictures):
    """Mean IoU and accuracy of a saved model, by sets of pixels."""
    model = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    found, true = [], []
    for path in sorted((pictures / "annotations" / "validation").glob("*.png")):
        image = Image.open(pictures / "images" / "validation" / path.name)
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        mask = torch.from_numpy(np.array(Image.open(path))).long() - 1
        with torch.no_grad():
            both = [model(pixels).logits, model(pixels.flip(-1)).logits]
        sized = [F.interpolate(one, size=mask.shape, mode="bilinear").softmax(1) for one in both]
        guess = (sized[0] + sized[1].flip(-1)).argmax(1)[0]
        found.append(guess[mask >= 0])
        true.append(mask[mask >= 0])
    found, true = torch.cat(found), torch.cat(true)
    shares = [((found == one) & (true == one)).sum() / ((found == one) | (true == one)).sum() for one in (0, 1)]
    return float(sum(shares) / 2), float((found == true).float().mean())


def test_a_run_saves_a_model_whose_scores_are_those_of_plain_counting(trained, pictures):
    folder, saved = trained.output_dir, json.loads((trained.output_dir / "results.json").read_text())
    overlap, accuracy = plain_scores(folder, pictures)
    assert saved["metrics"]["mIoU"] == pytest.approx(overlap, abs=1e-6)
    assert saved["metrics"]["aAcc"] == pytest.approx(accuracy, abs=1e-6)
    assert [row["label"] for row in saved["per_class"]] == ["blue", "red"]
    assert (saved["num_images"], [one["id"] for one in saved["failed"]]) == (4, ["4.png"])  # not replaced
    assert saved["protocol"]["flip_test"] and saved["protocol"]["do_reduce_labels"]
    assert saved["protocol"]["size_divisor"] == 32  # Semantic FPN
    listed = next((folder / "logs").glob("bad_videos*")).read_text().splitlines()
    assert trained.facts["num_bad_train_videos"] and {json.loads(line)["id"] for line in listed} == {"3.png"}
    validations = [line["validation"]["mIoU"] for line in trained.history if "validation" in line]
    assert validations[-1] == pytest.approx(saved["metrics"]["mIoU"], abs=1e-6)
    again = reproduce(folder)
    assert again.confirmed and again.same_videos and not again.changed_protocol


def test_the_command_scores_a_model_as_its_training_did(trained, pictures, tmp_path):
    words = ["evaluate", "--task", "semantic-segmentation", "--model", str(trained.output_dir), "--cpu"]
    output = tmp_path / "scores.json"
    done = CliRunner().invoke(app, [*words, "--data", str(pictures), "--output", str(output)])
    assert done.exit_code == 1 and "4 images" in done.output  # one could not be read
    assert json.loads(output.read_text())["metrics"] == trained.evaluation.metrics
    plain = CliRunner().invoke(app, ["evaluate", "--model", str(trained.output_dir), "--data", str(pictures)])
    assert "--task semantic-segmentation" in " ".join(plain.output.split())


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(pictures, tmp_path):
    def config_of(output_dir, **more):
        return RunConfig.from_fields(**fields_of(pictures, output_dir, **more))

    check_that_a_resumed_run_is_the_uninterrupted_one(config_of, tmp_path)


def test_it_starts_from_an_image_model_and_goes_on_with_other_labels(trained, pictures, tmp_path):
    torch.manual_seed(1)
    known = {name: value for name, value in BACKBONE.items() if name not in ("model_type", "out_indices", "depths")}
    known |= {"head_dim": 4, "depths": [1, 1, 2, 1]}
    image_model = UniFormerForImageClassification(UniFormerConfig(**known))
    image_model.save_pretrained(tmp_path / "image")
    fields = fields_of(pictures, tmp_path / "a", image_model=str(tmp_path / "image"))
    fields["backbone"] = {"attention_type": "hybrid", "window_size": 3, "drop_path_rate": 0.2}
    method = method_of(RunConfig.from_fields(**fields))
    method.train_source, _ = method.checked_sources()
    model, processor = method.build()
    config = model.config.backbone_config
    assert (config.depths, config.head_dim) == ([1, 1, 2, 1], 4)  # the image model's own
    assert (config.attention_type, config.window_size, config.drop_path_rate) == ("hybrid", 3, 0.2)
    state = model.backbone.state_dict()
    for name, value in image_model.uniformer.state_dict().items():
        if not name.startswith("norm."):  # of the classifier
            assert torch.equal(state[f"uniformer.{name}"], value), name
    fields = fields_of(pictures, tmp_path / "b", checkpoint=str(trained.output_dir), label_names=["sky", "sea"])
    fields = {name: value for name, value in fields.items() if name not in ("model_type", "config")}
    other = method_of(RunConfig.from_fields(**fields))
    other.train_source, _ = other.checked_sources()
    model, _ = other.build()
    before = trained.model.state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}
    assert list(model.config.id2label.values()) == ["sky", "sea"]


def test_windows_scales_and_mirror_images_are_averaged():
    class Rows(torch.nn.Module):
        """Says the value of a pixel and, as the second label, how far the window's left edge is."""

        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, pixel_values):
            place = torch.arange(pixel_values.shape[-1]).float().expand_as(pixel_values[:, 0])
            return SemanticSegmenterOutput(logits=torch.stack((pixel_values[:, 0], place), dim=1))

    pixels = torch.randn(1, 3, 10, 7)
    logits = window_logits(Rows(), pixels, 4, 3)
    torch.testing.assert_close(logits[:, 0], pixels[:, 0])
    # windows of columns 0-3 and 3-6: column 3 is the last of one and the first of the other
    torch.testing.assert_close(logits[0, 1, 5], torch.tensor([0.0, 1, 2, 1.5, 1, 2, 3]))
    assert window_logits(Rows(), pixels[..., :3, :2], 4, 3).shape == (1, 2, 3, 2)
    processor = UniFormerSegmenterImageProcessor(
        size={"shortest_edge": 8, "longest_edge": 40}, test_scales=[1.0, 2.0], flip_test=True
    )
    words = dict(protocol_rows(UniFormerConfig(), processor))["evaluation"]
    assert words == "whole image; sizes times 1, 2; mirrored too"
    image = torch.randint(256, (3, 8, 10), dtype=torch.uint8)
    views = processor.views(image)
    assert [tuple(one.shape) for one in views] == [(3, 8, 10), (3, 16, 20)]
    wanted = []
    for view in views:
        for turned in (view, view.flip(-1)):
            sized = F.interpolate(Rows()(turned[None]).logits, size=(8, 10), mode="bilinear").softmax(1)
            wanted.append(sized if turned is view else sized.flip(-1))
    torch.testing.assert_close(label_probabilities(Rows(), processor, views, (8, 10)), torch.cat(wanted).mean(0))


def test_scores_of_a_confusion_matrix():
    labels, found = torch.tensor([0, 0, 0, 1, 1, 255]), torch.tensor([0, 0, 1, 1, 1, 0])
    matrix = pixel_confusion(labels, found, 4, 255).numpy()
    scores, overlaps, accuracies = pixel_scores(matrix)
    assert scores == pytest.approx({"mIoU": 2 / 3, "aAcc": 4 / 5, "mAcc": (2 / 3 + 1) / 2})
    assert np.isnan(overlaps[2:]).all() and np.isnan(accuracies[2:]).all()


def test_crops_keep_image_and_mask_together(pictures):
    source = open_segmentation(pictures, "train")
    augmentation = SegmentationAugmentation((64, 128), (0.5, 2.0), (48, 56), 0.75, 0.5, 32, (0.5, 1.5), (0.5, 1.5), 0)
    load = SegmentationLoader(augmentation, 2, True, 0)
    firsts, padded, mixed = set(), 0, 0
    for epoch in range(12):
        record = Record(source[epoch % 3], epoch, 0)
        rows = load(record)
        image, labels, (height, width) = rows["pixel_values"].float(), rows["labels"], rows["sizes"].tolist()
        assert image.shape == (3, 48, 56) and labels.shape == (48, 56)
        assert (labels[height:] == 255).all() and (labels[:, width:] == 255).all() and not image[:, height:].any()
        known = labels != 255
        assert ((image[0] > image[2])[known] == (labels[known] == 1)).float().mean() > 0.95  # but at the border
        padded += height < 48 or width < 56
        mixed += len(labels[known].unique()) == 2
        firsts.add(int(image[:, 0, 0].sum()))
        assert torch.equal(load(record)["labels"], labels)
    assert padded and len(firsts) > 4 and mixed > 9  # crops of one label are drawn again
    still = SegmentationAugmentation((40, 60), (1.0, 1.0), (40, 60), 1.0, 0.0, 0, (1, 1), (1, 1), 0)
    image, labels, _ = still(*_pair(pictures), np.random.default_rng(0))
    assert torch.equal(image, _pair(pictures)[0]) and torch.equal(labels, _pair(pictures)[1])


def _pair(pictures):
    image = np.array(Image.open(pictures / "images" / "training" / "0.png"))
    mask = read_mask(pictures / "annotations" / "training" / "0.png", 2, reduce=True)
    return torch.from_numpy(image).permute(2, 0, 1), mask


def test_lists_controls_plans_and_previews(pictures, tmp_path):
    rows = [
        f"images/{split}/{index}.png,annotations/{split}/{index}.png,{split}"
        for split, count in (("training", 3), ("validation", 2))
        for index in range(count)
    ]
    path = pictures / "list.csv"
    path.write_text("\n".join(["image,mask,split", *rows]))
    assert open_segmentation(path, "train").pairs[0][1:] == open_segmentation(pictures, "train").pairs[0][1:]
    assert open_segmentation(path, None).num_samples == 2
    config = RunConfig.from_fields(**fields_of(pictures, tmp_path / "control", control="other_masks"))
    method = method_of(config)
    assert method.list_splits() == ["training", "validation"]
    train, _ = method.checked_sources()
    assert all(Path(image).name != Path(mask).name for _, image, mask in train.pairs)
    assert sorted(mask for _, _, mask in train.pairs) == sorted(
        mask for _, _, mask in open_segmentation(pictures, "train").pairs
    )
    plan = plan_run(RunConfig.from_fields(**fields_of(path, tmp_path / "plan")))
    assert (plan.num_videos, plan.steps_per_epoch) == (3, 1)
    assert plan.data.evaluated_on == "of another split"
    with pytest.raises(VideoDecodingError, match="no such mask"):
        read_mask(pictures / "missing.png", 2, reduce=True)
    shown = draw_preview(RunConfig.from_fields(**fields_of(path, tmp_path / "p")), tmp_path / "p.png", 2)
    assert (tmp_path / "p.png").is_file() and set(shown[0].labels[0]) == {"blue", "red"}
    assert len({label_colour(one) for one in range(254)}) == 254


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"label_names": ["only"]}, r"values up to 1, or 255, for 1 labels, got 2"),
        ({"crop_size": [8]}, "`crop_size` must be two numbers"),
        ({"data": "nowhere"}, "`data` 'nowhere' does not exist"),
        ({"backbone": {"droppath": 1}}, "`backbone` has no field 'droppath'"),
        ({"train_split": "other"}, "has the splits training, validation, not 'other'"),
        ({"processor": {"test_scales": []}}, "`test_scales`"),
        ({"processor": {"window_stride": 3}}, "`window_stride`"),
        ({"poly_power": 2.0}, "`schedule` must be poly"),
    ],
)
def test_what_does_not_fit_is_refused(pictures, tmp_path, fields, named):
    with pytest.raises(ValueError, match=named):
        finetune(RunConfig.from_fields(**fields_of(pictures, tmp_path / "out") | fields))


@pytest.mark.slow
def test_two_processes_train_and_score_every_image_once(pictures, tmp_path):
    fields = fields_of(pictures, tmp_path / "two", max_steps=1, batch_size=2, max_train_samples=4, drop_last=True)
    RunConfig.from_fields(**fields).save(tmp_path / "recipe.yaml")
    launch("finetune.py", "--recipe", tmp_path / "recipe.yaml")
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert (results["num_images"], results["num_failed"]) == (4, 1)
    assert results["environment"]["processes"] == 2
    alone = reproduce(tmp_path / "two")
    assert alone.confirmed and alone.same_videos
