"""Entries of localisers: sizes that others counted, and conversion of complete files under their names."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoFeatureExtractor, AutoVideoProcessor
from typer.testing import CliRunner

from hf_videovit import AutoModelForTemporalActionLocalization, TemporalLocalizationProcessor
from hf_videovit import published as package
from hf_videovit.cli import app
from hf_videovit.convert import plan_conversion
from hf_videovit.hub.cards import render_published_card
from hf_videovit.published import list_published, published_config, published_entry, published_processor_kwargs
from tests.convert.localizer_layouts import adatad_layout, localizer_layout


TASK = "temporal-action-localization"
LOCALIZERS, CHAINS = list_published("actionformer"), list_published("video_temporal_localizer")
RECIPES = Path(package.__file__).parents[1] / "training" / "recipes" / "actionformer"
# As the official implementations have them; TriDet's in millions from its paper.
PARAMETERS = {
    "actionformer-thumos14-i3d": 29_251_612,
    "actionformer-thumos14-i3d-opentad": 29_251_612,
    "actionformer-activitynet-tsp": 6_943_497,
    "actionformer-fineaction-videomae-v2-giant-opentad": 7_631_625,
    "actionformer-epic-verb": 29_763_177,
    "actionformer-ego4d-slowfast-omnivore-egovlp": 134_048_888,
    "tridet-thumos14-i3d": 15_990_000,
}


def meta_model(name: str):
    with torch.device("meta"):
        return AutoModelForTemporalActionLocalization.from_config(published_config(name))


def without_memory(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros((), dtype=one.dtype).expand(one.shape) for name, one in state.items()}


def test_every_released_localiser_is_there():
    """6 sets of features of Ego4D, 2 of EPIC-Kitchens and ActivityNet and THUMOS14; TriDet's 5 files."""
    sources = Counter(published_entry(name).results[0].source for name in LOCALIZERS)
    assert sources == {"actionformer_release": 11, "TriDet": 5, "OpenTAD": 7}
    assert len(CHAINS) == 6
    for name in (*LOCALIZERS, *CHAINS):
        entry = published_entry(name)
        assert (entry.task, entry.file.wrapper, entry.file.availability) == (TASK, "state_dict_ema", "cloud drive")
        assert entry.labels is None


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    counted = sum(parameter.numel() for parameter in meta_model(name).parameters())
    assert counted == pytest.approx(PARAMETERS[name], abs=5_000 if "tridet" in name else 0)


@pytest.mark.parametrize("name", LOCALIZERS)
def test_a_complete_file_converts_under_its_name(name):
    state = without_memory(localizer_layout(meta_model(name)))
    file = {"epoch": 1, "state_dict": state, "state_dict_ema": state}
    plan = plan_conversion("actionformer", file, task=TASK, published=name)
    plan.check()
    assert plan.config.to_dict() == published_config(name).to_dict()
    assert not plan.dropped and set(plan.fresh) <= {"loss_normalizer"}
    processor = TemporalLocalizationProcessor(**published_processor_kwargs(name))
    assert plan.processor.to_dict() == processor.to_dict()
    assert processor.pad_to_max_length and processor.feature_size == sum(plan.config.feature_sizes)


@pytest.mark.parametrize("name", CHAINS)
def test_a_whole_file_converts_under_its_name(name):
    state = without_memory(adatad_layout(meta_model(name)))
    plan = plan_conversion("video_temporal_localizer", {"state_dict_ema": state}, task=TASK, published=name)
    plan.check()
    assert plan.config.to_dict() == published_config(name).to_dict()
    assert not plan.dropped and not plan.fresh
    assert plan.processor.to_dict() == TemporalLocalizationProcessor(**published_processor_kwargs(name)).to_dict()
    side = published_entry(name).protocol.image_size
    assert (plan.video_processor.crop_size["height"], plan.config.encoder_config.image_size) == (side, 224)
    frames = plan.config.localizer_config.max_sequence_length * plan.config.feature_stride
    assert f"windows of {frames} frames of {side} pixels" in published_entry(name).summary
    assert plan.config.feature_stride * plan.config.frame_step == plan.processor.feature_stride == 4


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("actionformer-thumos14-i3d", "actionformer-activitynet-i3d", "is 256, but .* has 512"),
        (
            "actionformer-thumos14-i3d",
            "actionformer-thumos14-i3d-opentad",
            "has OpenTAD's layout, but .* the authors'",
        ),
        (
            "actionformer-thumos14-i3d-opentad",
            "actionformer-thumos14-i3d",
            "has the authors' layout, but .* OpenTAD's",
        ),
        ("tridet-thumos14-i3d", "actionformer-thumos14-i3d", "`intermediate_size` is 2048, but .* has 768"),
        ("actionformer-ego4d-omnivore", "actionformer-ego4d-egovlp", "`feature_size` is 256, but .* has 1536"),
    ],
)
def test_a_file_of_another_name_is_refused(name, other, message):
    state = without_memory(localizer_layout(meta_model(name)))
    with pytest.raises(ValueError, match=message):
        plan_conversion("actionformer", state, task=TASK, published=other)


def test_names_and_settings_exclude_each_other():
    state = without_memory(localizer_layout(meta_model("actionformer-thumos14-i3d")))
    with pytest.raises(ValueError, match="Pass `settings` or `published`, not both"):
        plan_conversion("actionformer", state, task=TASK, published="actionformer-thumos14-i3d", settings={})
    with pytest.raises(ValueError, match="of the family 'actionformer', not of 'videomae_v2'"):
        plan_conversion("videomae_v2", {"x": torch.ones(1)}, task="pretraining", published=LOCALIZERS[0])


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("actionformer-thumos14-i3d", "thumos14_i3d"),
        ("actionformer-activitynet-tsp", "activitynet_tsp"),
        ("actionformer-activitynet-i3d", "activitynet_i3d"),
        ("actionformer-epic-verb", "epic_verb"),
        ("actionformer-epic-noun", "epic_noun"),
    ],
)
def test_recipes_and_entries_agree(name, recipe):
    """Both were read from the same official configuration."""
    model = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["model"]
    config, processor = published_config(name), published_processor_kwargs(name)
    assert model["size"] == published_entry(name).size
    assert {field: getattr(config, field) for field in model["config"]} == model["config"]
    assert {field: processor[field] for field in model["processor"]} == model["processor"]


def test_the_command(tmp_path, monkeypatch):
    """On a small encoder under the name of a whole model."""
    name = "adatad-small-thumos14"
    entry = published_entry(name)
    encoder = {**entry.config["encoder_config"], "num_hidden_layers": 1, "intermediate_size": 8, "adapter_layers": [0]}
    localizer = {**entry.config["localizer_config"], "hidden_size": 16, "head_hidden_size": 16, "num_labels": 20}
    config = {**entry.config, "encoder_config": encoder, "localizer_config": localizer}
    monkeypatch.setitem(entry.config, "encoder_config", encoder)
    monkeypatch.setitem(entry.config, "localizer_config", localizer)
    assert entry.config == config
    torch.manual_seed(0)
    model = AutoModelForTemporalActionLocalization.from_config(published_config(name))
    torch.save({"state_dict_ema": adatad_layout(model), "epoch": 3}, tmp_path / "epoch_3.pth.tar")
    output = tmp_path / "model"
    arguments = ["--published", name, "--checkpoint", tmp_path / "epoch_3.pth.tar", "--output", output, "--json"]
    done = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model_type"] == "video_temporal_localizer"
    loaded = AutoModelForTemporalActionLocalization.from_pretrained(output)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert AutoFeatureExtractor.from_pretrained(output).max_segments == 2000
    assert AutoVideoProcessor.from_pretrained(output).crop_size["height"] == 160
    assert "69.0 %" in (output / "README.md").read_text(encoding="utf-8")


def test_cards():
    text = render_published_card("actionformer-thumos14-i3d").content
    assert "--checkpoint epoch_034.pth.tar" in text and "windows of 16 frames, 4 apart" in text
    assert "| parameters | 29,251,612 |" in text and "ECCV" in text
    assert "code: mit (github.com/happyharrycn/actionformer_release)" in text
    text = render_published_card("tridet-hacs-slowfast").content
    assert "Relative Boundary Modeling" in text and "at 15 frames per second" in text
    text = render_published_card("adatad-giant-224-thumos14").content
    assert 'pipeline("temporal-action-localization"' in text and "77.1 %" in text
