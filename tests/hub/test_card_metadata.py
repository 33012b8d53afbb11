"""Metadata and table of a card: the same results, each with its own source."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_videovit import UniFormerForPoseEstimation
from hf_videovit.hub.card_facts import CardFacts, Result
from hf_videovit.hub.cards import render_card
from tests.card_rules import problems
from tests.families import FAMILIES
from tests.saved_model import tiny_config, tiny_processor


CARDS = sorted((Path(__file__).parents[2] / "model_cards").glob("*.md"), key=lambda path: path.stem)
UNVERIFIED = "from memory, not verified"
PAPER, ZOO = "https://arxiv.org/abs/2200.00000", "https://github.com/me/zoo"


def table(text: str) -> list[tuple[str, str, str, str | None, str | None]]:
    """Rows of the tables of results: data, metric with its protocol, percent, source, address."""
    rows = []
    for line in re.findall(r"^\| .+ % \|.*$", text, flags=re.MULTILINE):
        data, metric, value, how, *source = (cell.strip() for cell in line.strip("|").split("|"))
        name, url = re.fullmatch(r"\[(.+)\]\((.+)\)", source[0]).groups() if source else (None, None)
        if UNVERIFIED not in how and "for comparison" not in how:
            rows.append((data, ", ".join(filter(None, (metric, how))), value, name, url))
    return rows


def metadata(text: str) -> list[tuple[str, str, str, str | None, str | None]]:
    """The same from the metadata, as it is written."""
    block = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])
    return [
        (
            result["dataset"]["name"],
            metric["name"],
            f"{metric['value']:.1f} %",
            result.get("source", {}).get("name"),
            result.get("source", {}).get("url"),
        )
        for model in block.get("model-index", [])
        for result in model["results"]
        for metric in result["metrics"]
    ]


def by_row(rows):
    return sorted(rows, key=str)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_metadata_and_table_of_every_card_agree(path):
    text = path.read_text(encoding="utf-8")
    found = metadata(text)
    if "pipeline_tag: image-feature-extraction" in text:
        assert not found  # a backbone alone has no such result
        return
    assert by_row(found) == by_row(table(text))
    assert by_row(metadata(str(ModelCard(text)))) == by_row(found)  # also when the Hub's tools write it again


def render(*results: Result, task: str = "video-classification", config=None) -> str:
    facts = CardFacts("model", "model", task, "A model.", config or tiny_config(), tiny_processor(), results)
    return str(render_card(facts))


@pytest.mark.parametrize(
    "results",
    [
        [
            Result("K", "top1", 80.0, source="zoo", source_url=ZOO),
            Result("K", "top5", 95.0, source="paper", source_url=PAPER),
        ],
        [
            Result("K", "top1", 80.0, source="zoo", source_url=ZOO),
            Result("K", "top1", 80.0, source="zoo", source_url=PAPER),
        ],
        [Result("K", "top1", 79.5, "3 videos"), Result("K", "top1", 80.0, source="paper", source_url=PAPER)],
        [
            Result("K 400", "top1", 80.0, source="zoo", source_url=ZOO),
            Result("K 600", "top1", 81.0, source="paper", source_url=PAPER),
            Result("K 400", "top5", 94.0, source="paper", source_url=PAPER),
            Result("K 400", "top5", 94.1, source="zoo", source_url=ZOO),
        ],
        [Result("K-400", "top1", 80.0, "8x4x3"), Result("K-400", "top1", 78.0, "8x1x1")],
    ],
    ids=["two sources", "two pages of a source", "measured and reported", "alternating", "two protocols"],
)
def test_each_result_keeps_its_source(results):
    text = render(*results)
    assert not problems(text)
    assert by_row(metadata(text)) == by_row(table(text))
    assert len(table(text)) == len(results)
    assert by_row(metadata(str(ModelCard(text)))) == by_row(table(text))


def test_two_spellings_of_a_data_set_are_two():
    """The Hub's id of both is the same."""
    text = render(
        Result("Clips 1", "top1", 80.0, source="a", source_url=ZOO),
        Result("clips-1", "top1", 70.0, source="b", source_url=PAPER),
    )
    assert by_row(metadata(text)) == by_row(table(text))


def test_results_of_poses_are_not_accuracies_of_videos():
    tiny = next(family.tiny for family in FAMILIES if family.name == "uniformer") | {"modality": "image"}
    config = UniFormerForPoseEstimation.config_class(**tiny)
    text = render(Result("People", "keypoint_average_precision", 70.0), task="keypoint-detection", config=config)
    (result,) = yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]
    assert result["task"]["type"] == "keypoint-detection"
    assert result["metrics"][0]["type"] == "mean_average_precision"
