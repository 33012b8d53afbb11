"""TubeViT's entries: all of the paper's results, no file, and counts that the models confirm."""

from pathlib import Path

import pytest
import torch
import yaml

from hf_videovit import TubeViTConfig, TubeViTForVideoClassification, published
from hf_videovit.hub.cards import render_published_card
from hf_videovit.published import list_published, published_config, published_entry, published_processor_kwargs
from tests.test_counts import count, gmacs


COUNTS = yaml.safe_load((Path(published.__file__).parent / "tubevit.yaml").read_text(encoding="utf-8"))["counts"]
# top-1 and top-5, or mean average precision
RESULTS = {
    "tubevit-base-k400": (88.6, 97.6),
    "tubevit-large-k400": (90.2, 98.6),
    "tubevit-huge-k400": (90.9, 98.9),
    "tubevit-base-k600": (90.9, 97.3),
    "tubevit-large-k600": (91.5, 98.7),
    "tubevit-huge-k600": (91.8, 98.9),
    "tubevit-large-k700": (83.8, 96.6),
    "tubevit-large-ssv2": (76.1, 95.2),
    "tubevit-large-charades": (61.8,),
    "tubevit-large-charades-interpolated": (66.2,),
    "tubevit-base-in1k": (81.4, 78.1),
}


def test_every_result_of_the_paper_is_there_as_the_papers():
    assert set(list_published("tubevit")) == RESULTS.keys()
    for name, values in RESULTS.items():
        entry = published_entry(name)
        assert tuple(result.value for result in entry.results) == values
        assert {(result.source, result.kind) for result in entry.results} == {("TubeViT paper", "paper")}
        assert (entry.file.availability, entry.file.path, entry.file.url) == ("never released", None, None)
        assert any("no public reproduction" in note for note in entry.notes)
        card = render_published_card(name).text
        assert "The authors released no weights" in card
        assert "hf-videovit convert" not in card


@pytest.mark.parametrize("size", ["tiny", "base", "large", "huge"])
def test_counts_are_those_of_the_models(size):
    with torch.device("meta"):
        model = TubeViTForVideoClassification(TubeViTConfig.from_size(size, num_labels=600)).eval()
    assert count(model) == COUNTS[size]["parameters"]
    frames = 32
    assert gmacs(model, frames) == pytest.approx(COUNTS[size]["gmacs"][frames], abs=0.01)
    for frames, tokens in COUNTS["tokens"].items():
        assert model.config.num_tokens((frames, 224, 224)) == tokens


@pytest.mark.parametrize(
    ("name", "frames", "rate"),
    [("tubevit-base-k600", 64, 15), ("tubevit-large-ssv2", 32, 24), ("tubevit-large-charades", 128, 6)],
)
def test_protocol(name, frames, rate):
    fields = published_processor_kwargs(name)
    assert (fields["num_frames"], fields["frame_rate"], fields["num_clips"], fields["num_crops"]) == (
        frames,
        rate,
        4,
        3,
    )
    assert published_config(name).num_frames == frames
    assert f"{frames} frames, {rate} per second" in render_published_card(name).text


def test_charades_has_several_labels_and_larger_tubes():
    main, enlarged = (published_config(f"tubevit-large-charades{end}") for end in ("", "-interpolated"))
    assert main.problem_type == enlarged.problem_type == "multi_label_classification"
    size = (128, 224, 224)
    assert (main.num_tokens(size), enlarged.num_tokens(size)) == (2499, 2248)
