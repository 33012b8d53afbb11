"""Cards: facts only, metadata that the Hub's own tools read back, usage lines that run."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import Image
from transformers import AutoConfig, VitPoseImageProcessor

from hf_videovit import (
    BevtImageCodebook,
    BevtImageCodebookConfig,
    BevtVideoProcessor,
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerDetectorImageProcessor,
    UniFormerForImageClassification,
    UniFormerForPoseEstimation,
    UniFormerImageProcessor,
    UniFormerSegmenterImageProcessor,
    VideoMAEV2ForPreTraining,
    VideoMAEV2Model,
)
from hf_videovit.cli.info import describe_folder
from hf_videovit.hub.cards import (
    render_published_card,
    task_of,
    write_converted_card,
    write_model_card,
    write_published_cards,
)
from hf_videovit.published import PublishedLicence, list_published, published_entry
from tests.card_rules import problems
from tests.clips import moving_square_clip, write_clip
from tests.dense.test_whole_detectors import tiny_detector
from tests.dense.test_whole_segmenters import tiny_segmenter
from tests.families import FAMILIES
from tests.published.test_facts import FACTS
from tests.saved_model import LABELS, save_tiny_classifier, tiny_config, tiny_processor


ROOT = Path(__file__).parents[2]
PIPELINE_TAGS = {
    **{name: name for name in ("video-classification", "image-classification", "keypoint-detection")},
    "backbone": "image-feature-extraction",
    "object-detection": "object-detection",
    "semantic-segmentation": "image-segmentation",
}
TINY_IMAGE_MODEL = next(family.tiny for family in FAMILIES if family.name == "uniformer") | {"modality": "image"}


def run_usage(card: ModelCard, folder, monkeypatch, capsys) -> str:
    """Run the card's Python block in a folder with a `clip.mp4` and return what it printed."""
    write_clip(folder / "clip.mp4", moving_square_clip())
    monkeypatch.chdir(folder)
    (code,) = re.findall(r"```python\n(.*?)```", card.content, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 7
    exec(compile(code, "card", "exec"), {})
    return capsys.readouterr().out


@pytest.fixture
def trained(tmp_path):
    folder = save_tiny_classifier(tmp_path / "my-model", num_clips=2, num_crops=3)
    results = {
        "metrics": {"top1": 0.9125, "top5": 1.0, "mean_class_accuracy": 0.9},
        "baselines": {"chance": 1 / 6},
        "num_videos": 80,
        "num_failed": 2,
        "protocol": {"num_clips": 2, "num_crops": 3},
    }
    (folder / "results.json").write_text(json.dumps(results))
    run = {
        "about": {"hardware": "two CPU cores"},
        "data": {"data": str(tmp_path / "private" / "squares"), "eval_data": None},
        "model": {"checkpoint": "org/base-model", "size": None},
        "optimization": {"epochs": 3, "learning_rate": 0.001},
        "run": {"seed": 7},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder


def test_card_of_a_trained_model(trained):
    path = write_model_card(
        trained, licence="apache-2.0", summary="Tells which way a square moves.", facts={"steps": 120, "seconds": 9.5}
    )
    card = ModelCard.load(path)
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "video-classification"
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "org/base-model"
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "my-model"
    assert results[0].metric_value == 91.25
    assert results[0].dataset_name == "squares"
    text = card.text
    for fact in (
        "Tells which way a square moves.",
        "2 clips x 3 crops, probabilities averaged",
        "4 frames, 2 apart",
        "| squares | top-1 accuracy | 91.2 % | 80 videos, 2 unreadable videos not counted, 2 x 3 views |",
        "for comparison: chance",
        "hardware: two CPU cores",
        "| learning rate | 0.001 |",
        "| optimiser steps done | 120 |",
        ", ".join(LABELS),
    ):
        assert fact in text
    assert "private" not in card.content and str(trained.parent) not in card.content
    assert "Reported by others" not in text


def test_a_bare_folder_gives_an_honest_card(tmp_path):
    folder = save_tiny_classifier(tmp_path / "bare")
    card = ModelCard.load(write_model_card(folder))
    assert "license" not in card.data.to_dict()
    assert "model-index" not in card.data.to_dict()
    assert "not evaluated with hf_videovit" in card.text
    assert "Not stated." in card.text
    assert "## Training" not in card.text


def test_a_card_says_that_colours_are_taken_away(tmp_path):
    folder = save_tiny_classifier(tmp_path / "model", do_grayscale=True)
    assert "| colours | none: greyscale in all channels |" in ModelCard.load(write_model_card(folder)).text


def test_results_given_directly_are_used(trained):
    card = ModelCard.load(write_model_card(trained, results={"metrics": {"top1": 0.5}, "data": "Other clips"}))
    assert "| Other clips | top-1 accuracy | 50.0 % |  |" in card.text


def test_usage_of_a_classifier_runs(trained, tmp_path, monkeypatch, capsys):
    card = ModelCard.load(write_model_card(trained))  # model_id is the folder's name
    printed = run_usage(card, tmp_path, monkeypatch, capsys)
    assert len(printed.splitlines()) == 3
    assert any(label in printed for label in LABELS)


def test_usage_of_a_tokenizer_runs(tmp_path, monkeypatch, capsys):
    config = BevtImageCodebookConfig(vocab_size=16, hidden_size=8, code_size=4)
    BevtImageCodebook(config).save_pretrained(tmp_path / "words")
    BevtVideoProcessor().save_pretrained(tmp_path / "words")
    card = ModelCard.load(write_model_card(tmp_path / "words"))
    assert "16, each a vector of 4 numbers" in card.text
    assert "torch.Size([1, 14, 14]) torch.Size([1, 3, 112, 112])" in run_usage(card, tmp_path, monkeypatch, capsys)
    assert "--tokenizer" in describe_folder(tmp_path / "words")["next"]


@pytest.mark.parametrize("model_class", [VideoMAEV2ForPreTraining, VideoMAEV2Model])
def test_usage_of_other_models_runs(model_class, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "encoder"
    model_class(tiny_config()).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    card = ModelCard.load(write_model_card(folder))
    assert card.data.pipeline_tag == "feature-extraction"
    assert "## Labels" not in card.text
    assert "torch.Size([1, 32])" in run_usage(card, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("model_class", "printed"),
    [(UniFormerForImageClassification, "LABEL_"), (UniFormerBackbone, "torch.Size([1, 32, 2, 2])")],
)
def test_usage_of_image_models_runs(model_class, printed, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "on-images"
    model_class(UniFormerConfig(**TINY_IMAGE_MODEL)).save_pretrained(folder)
    UniFormerImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
    Image.fromarray(moving_square_clip()[0]).save(tmp_path / "image.jpg")
    card = ModelCard.load(write_model_card(folder))
    assert card.data.pipeline_tag == PIPELINE_TAGS[task_of(AutoConfig.from_pretrained(folder))]
    assert "frames" not in card.text
    assert printed in run_usage(card, tmp_path, monkeypatch, capsys)


def test_usage_of_a_pose_estimator_runs(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "poses"
    names = dict(enumerate(("nose", "left_hand", "right_hand")))
    UniFormerForPoseEstimation(UniFormerConfig(**TINY_IMAGE_MODEL, id2label=names)).save_pretrained(folder)
    VitPoseImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    Image.fromarray(moving_square_clip()[0]).save(tmp_path / "image.jpg")
    card = ModelCard.load(write_model_card(folder))
    assert card.data.pipeline_tag == "keypoint-detection"
    assert "left_hand" in card.text and "video" not in card.text.replace("videovit", "")
    assert "keypoints" in run_usage(card, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("model", "processor", "tag"),
    [
        (tiny_detector, UniFormerDetectorImageProcessor, "object-detection"),
        (tiny_segmenter, UniFormerSegmenterImageProcessor, "image-segmentation"),
    ],
)
def test_usage_of_detectors_and_segmenters_runs(model, processor, tag, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "dense"
    model().save_pretrained(folder)
    processor(size={"shortest_edge": 64, "longest_edge": 96}, size_divisor=32).save_pretrained(folder)
    Image.fromarray(moving_square_clip()[0]).save(tmp_path / "image.jpg")
    card = ModelCard.load(write_model_card(folder))
    assert card.data.pipeline_tag == tag
    assert "multiples of 32 pixels" in card.text and "short side to 64, the long one to at most 96" in card.text
    check_tidy(card.content)
    run_usage(card, tmp_path, monkeypatch, capsys)


def check_tidy(content):
    assert "\n\n\n" not in content
    assert "None" not in content
    assert "{{" not in content
    for table_row in re.findall(r"^\|.*$", content, flags=re.MULTILINE):
        assert table_row.endswith("|")


def test_markdown_is_tidy(trained):
    check_tidy(write_model_card(trained).read_text(encoding="utf-8"))


@pytest.mark.slow  # all of them
def test_rendered_cards_are_current(tmp_path):
    """`make cards` renders them again."""
    rendered = write_published_cards(tmp_path)
    assert [path.stem for path in rendered] == list_published()
    kept = ROOT / "model_cards"
    assert sorted(path.name for path in kept.iterdir()) == sorted(path.name for path in rendered)
    for path in rendered:
        content = path.read_text(encoding="utf-8")
        assert content == (kept / path.name).read_text(encoding="utf-8"), f"{path.name} is out of date: make cards"
        check_tidy(content)
        check_published(ModelCard(content), path.stem)


# A row of a card's table of results, and a score of `facts.csv`: data set, percent, source.
RESULT_ROW = re.compile(r"^\| ([^|]+) \| [^|]+ \| ([\d.]+) % \| [^|]* \| \[?([^\]|]+?)(?:\]| \|)", re.MULTILINE)
SCORE = re.compile(r"(.+?) \w+ ([\d.]+) \S+ \[(.+)\]")


def check_published(card, name):
    entry, data, facts = published_entry(name), card.data.to_dict(), FACTS[name]
    assert entry.summary in card.text
    without = ("action-detection", "temporal-action-localization")  # the Hub has no such tag
    tag = None if entry.task in without else PIPELINE_TAGS.get(entry.task, "feature-extraction")
    assert data.get("pipeline_tag") == tag
    licences = [one.split() for one in facts["licences"].split("; ") if one]
    for covers, licence, source in licences:
        assert f"{covers}: {licence} ({source})" in card.text
    assert ([data["license"]] if "license" in data else []) == [one[1] for one in licences if one[0] == "weights"]
    for note in entry.notes:
        assert note in card.text
    assert "### Measured with hf_videovit" not in card.text
    assert RESULT_ROW.findall(card.text) == [
        SCORE.fullmatch(one).groups() for one in facts["scores"].split("; ") if one
    ]
    if "model-index" in data:
        _, results = model_index_to_eval_results(data["model-index"])
        assert all(result.source_url for result in results), "the Hub would show others' numbers as ours"
        assert len(results) <= sum(result.kind != "recalled-unverified" for result in entry.results)


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ((), None),
        ((("weights", "MIT"),), "mit"),
        ((("code", "mit"), ("weights", "apache-2.0")), "apache-2.0"),
        ((("weights", "mit"), ("weights", "MIT")), "mit"),
        ((("weights", "mit"), ("weights", "cc-by-nc-4.0")), "other"),
    ],
    ids=["none", "one", "of the code", "twice the same", "two"],
)
def test_licence_of_weights_in_the_metadata(monkeypatch, licences, expected):
    """Where two sources state two licences the Hub is told neither, but that the card tells."""
    entry = published_entry("videomae-v2-small-k710-distilled")
    stated = tuple(PublishedLicence(f"source {index}", one, covers) for index, (covers, one) in enumerate(licences))
    monkeypatch.setattr(
        "hf_videovit.hub.cards.published_entry", lambda name: dataclasses.replace(entry, licences=stated)
    )
    card = render_published_card(entry.name)
    assert card.data.to_dict().get("license") == expected
    assert not problems(card.content)
    for licence in stated:
        assert f"{licence.covers}: {licence.licence} ({licence.source})" in card.text


def test_cards_of_checkpoints_that_are_gone_are_removed(tmp_path, monkeypatch):
    (tmp_path / "old.md").write_text("gone")
    monkeypatch.setattr("hf_videovit.hub.cards.list_published", lambda: ["videomae-v2-small-k710-distilled"])
    assert write_published_cards(tmp_path) == list(tmp_path.iterdir())


def test_usage_of_a_published_card_runs(tmp_path, monkeypatch, capsys):
    """On a tiny model in the official one's place."""
    save_tiny_classifier(tmp_path / "model")
    card = render_published_card("videomae-v2-base-k710-distilled", model_id="model")
    assert len(run_usage(card, tmp_path, monkeypatch, capsys).splitlines()) == 3


def test_card_of_a_converted_checkpoint(tmp_path):
    folder = save_tiny_classifier(tmp_path / "converted")
    assert "Converted from `own.pth`" in write_converted_card(folder, "own.pth").read_text()
    published = write_converted_card(folder, "vit_b.pth", published="videomae-v2-base-k710-distilled").read_text()
    assert 'model="converted"' in published
    assert "ViT-B distilled on Kinetics-710" in published


def test_a_card_shows_what_knowing_nothing_scores(trained):
    results = json.loads((trained / "results.json").read_text())
    results["per_class"] = [
        {"label": "right", "videos": 30, "accuracy": 0.9, "taken_for": "up"},
        {"label": "a | b", "videos": 50, "accuracy": 0.5, "taken_for": None},
    ]
    results["environment"] = {
        "packages": {"hf_videovit": "0.1.0", "torch": "2.8.0"},
        "python": "3.10.1",
        "decoder": {"name": "pyav", "ffmpeg": "7.1"},
        "device": "cpu: x86_64",
        "dtype": "float32",
    }
    del results["baselines"]
    (trained / "results.json").write_text(json.dumps(results))
    card = ModelCard.load(write_model_card(trained))
    assert "| squares | top-1 accuracy | 16.7 % | for comparison: chance |" in card.text
    assert (
        "| squares | top-1 accuracy | 62.5 % | for comparison: majority (always `a | b`) |".replace("a | b", "a \\| b")
        in card.text
    )
    assert "With hf_videovit 0.1.0, torch 2.8.0, Python 3.10.1, decoder pyav (FFmpeg 7.1), on cpu: x86_64" in card.text
    table = card.text.partition("<details><summary>Each class, the worst first")[2]
    assert "| label | videos | accuracy | taken for |\n|---|---|---|---|\n| a \\| b | 50 | 50.0 % |  |" in table
    assert "| right | 30 | 90.0 % | up |" in table
    assert {row.metric_value for row in model_index_to_eval_results(card.data.to_dict()["model-index"])[1]} == {
        91.25,
        100.0,
        90.0,
    }


def test_a_card_shows_the_confusion_matrix_if_it_was_drawn(trained):
    assert "results_confusion.png" not in ModelCard.load(write_model_card(trained)).text
    Image.new("RGB", (4, 4)).save(trained / "results_confusion.png")
    text = ModelCard.load(write_model_card(trained)).text
    assert "![Confusion matrix: correct labels against predictions](results_confusion.png)" in text


def test_a_card_has_all_settings_that_differ_from_the_defaults(trained):
    settings = {
        "data.data": "/somewhere/clips",
        "model.config": {"hidden_size": 8, "init": "/somewhere/weights.pth"},
        "optimization.betas": [0.9, 0.95],
        "run.output_dir": "/somewhere/out",
    }
    text = ModelCard.load(write_model_card(trained, facts={"settings": settings})).text
    block = text.partition("All settings that differ from the defaults")[2].partition("```yaml")[2].partition("```")[0]
    assert yaml.safe_load(block) == {
        "data.data": "clips",
        "model.config": {"hidden_size": 8, "init": "weights.pth"},
        "optimization.betas": [0.9, 0.95],
    }
    assert "/somewhere" not in text
