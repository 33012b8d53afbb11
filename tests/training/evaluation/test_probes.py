"""Probes of frozen features: what they compute, that they find what is there, that they change nothing."""

import math

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification

from hf_videovit.training.arguments import ModelArguments, ProbeArguments, RunConfig
from hf_videovit.training.building import build_model, config_from_scratch
from hf_videovit.training.data.opening import open_source
from hf_videovit.training.data.sources import VideoList
from hf_videovit.training.evaluation.probes import (
    AttentiveHead,
    attentive_scores,
    extract_features,
    knn_scores,
    linear_scores,
    online_probe,
    probe_model,
)
from hf_videovit.training.methods.choosing import pretrain
from hf_videovit.training.methods.running import make_accelerator
from tests.training.engine.test_two_processes import curve_of, launch, write_list


def test_nearest_neighbours_vote_by_cosine():
    generator = torch.Generator().manual_seed(0)
    train, queries = torch.randn(30, 5, generator=generator), torch.randn(7, 5, generator=generator)
    labels = torch.randint(3, (30,), generator=generator)
    scores = knn_scores(train, labels, queries, 3, neighbours=4, temperature=0.1)
    for query, row in zip(queries, scores):
        cosines = [torch.cosine_similarity(query, clip, dim=0).item() for clip in train]
        nearest = sorted(range(30), key=lambda index: -cosines[index])[:4]
        votes = [0.0, 0.0, 0.0]
        for index in nearest:
            votes[int(labels[index])] += math.exp(cosines[index] / 0.1)
        expected = torch.tensor(votes) / math.exp(1 / 0.1)
        assert torch.allclose(row, expected, rtol=1e-4, atol=1e-7)
    assert knn_scores(train, labels, queries, 3, neighbours=100).shape == (7, 3)


def test_the_linear_probe_finds_a_direction_whatever_the_scale():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 12, generator=generator)
    labels = (features[:, 3] + 0.5 * features[:, 7] > 0).long()
    features = features * torch.logspace(-3, 3, 12) + 5
    scores = linear_scores(features[:150], labels[:150], features[150:], 2)
    assert (scores.argmax(1) == labels[150:]).float().mean() > 0.9
    few = linear_scores(features[:3], labels[:3], features[150:], 2)  # too few to choose a penalty by
    assert torch.isfinite(few).all()


def test_the_attentive_probe_finds_the_one_token_that_tells():
    """The telling token stands anywhere and is as long as the others: their mean hardly knows it."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(260, 12, 16, generator=generator)
    labels = torch.randint(2, (260,), generator=generator)
    places = torch.randint(12, (260,), generator=generator)
    tokens[torch.arange(260), places] = 0.0
    tokens[torch.arange(260), places, 0] = 3.0  # what to look for
    tokens[torch.arange(260), places, 1] = 2.0 * (2 * labels - 1).float()  # what it says
    chosen = {"epochs": 30, "learning_rate": 5e-3}
    before = torch.get_rng_state()
    scores = attentive_scores(tokens[:200].half(), labels[:200], tokens[200:].half(), 2, **chosen)
    assert (scores.argmax(1) == labels[200:]).float().mean() > 0.9
    assert torch.equal(torch.get_rng_state(), before)
    again = attentive_scores(tokens[:200].half(), labels[:200], tokens[200:].half(), 2, **chosen)
    assert torch.equal(scores, again)
    assert AttentiveHead(30, 3)(torch.randn(2, 5, 30)).shape == (2, 3)


@pytest.mark.parametrize("loader", [AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification])
def test_any_model_is_probed_and_left_as_it_was(tiny_fields, loader):
    config = RunConfig.from_fields(**tiny_fields)
    _, processor = build_model(config.model, ["a", "b"])
    model = loader.from_config(config_from_scratch(ModelArguments(config=config.model.config))).train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    sources = [open_source(tiny_fields["data"], split) for split in ("train", "val")]
    before = torch.get_rng_state()
    arguments = ProbeArguments(probe=["knn", "linear", "attentive"], probe_epochs=2, probe_max_tokens=5)
    result = probe_model(model, processor, *sources, arguments, batch_size=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert list(result.metrics) == ["knn", "linear", "attentive", "majority"]
    assert (result.num_train, result.num_eval, result.failed) == (20, 8, [])
    assert result.metrics["majority"] == 0.25
    again = probe_model(model, processor, *sources, arguments, batch_size=3)
    assert again.metrics == result.metrics


def test_features_are_the_encoders(tiny_fields):
    config = RunConfig.from_fields(**tiny_fields)
    model, processor = build_model(config.model, ["a", "b"])
    source = open_source(tiny_fields["data"], "val")
    found = extract_features(model, processor, source, batch_size=3, max_tokens=10**6)
    sample = next(iter(source.share(0, 1, None, 0)))
    with torch.no_grad():
        inputs = processor(sample.video, sampling_mode="validation", return_tensors="pt")
        outputs = model.eval().base_model(**inputs)
    assert found.ids[0] == sample.id
    assert torch.allclose(found.pooled[0], outputs.pooler_output[0], atol=1e-5)
    assert torch.allclose(found.tokens[0].float(), outputs.last_hidden_state[0], atol=1e-2)
    averaged = extract_features(model, processor, source, batch_size=3, max_tokens=3).tokens
    assert averaged.shape == (8, 3, 32)


def test_probes_need_labels(tiny_fields, tmp_path):
    config = RunConfig.from_fields(**tiny_fields, probe=["knn"])
    model, processor = build_model(config.model, ["a", "b"])
    unlabelled = VideoList(["a"], ["a.mp4"], [None], [])
    with pytest.raises(ValueError, match="at least two labels"):
        probe_model(model, processor, unlabelled, unlabelled)
    with pytest.raises(ValueError, match="give `probe_data`"):
        online_probe(config, processor, make_accelerator(config.run), unlabelled, None)
    assert online_probe(RunConfig(), processor, make_accelerator(config.run), unlabelled, None) is None
    observer = online_probe(
        RunConfig.from_fields(**tiny_fields, probe=["knn"], probe_data=tiny_fields["data"], probe_max_samples=9),
        processor,
        make_accelerator(config.run),
        unlabelled,
        None,
    )
    assert observer is not None
    assert (observer.epochs, observer.steps, observer.at_start) == (1, None, True)
    assert set(observer.look(model, 0)) == {"knn", "majority"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"probe": ["knm"]}, "`probe` must be one of knn, linear"), ({"probe_temperature": 0}, "must be above 0")],
)
def test_arguments_that_are_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_fields(**fields)


@pytest.mark.slow
def test_two_processes_probe_like_one(pretraining_fields, clip_folder, tmp_path):
    """Uneven shares, and a clip that cannot be read: the untrained model's features are probed alike."""
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    write_list(tmp_path / "train.csv", sorted((clip_folder / "train").rglob("*.mp4"))[::2][:9])
    write_list(tmp_path / "val.csv", sorted((clip_folder / "val").rglob("*.mp4")), f"{tmp_path}/broken.mp4,up")
    fields = pretraining_fields | {
        "probe": ["knn", "linear", "attentive"],
        "probe_data": str(tmp_path),
        "max_steps": 2,
    }
    fields |= {"batch_size": 2, "picture_every": 0, "num_sample": 1}
    RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "two")}).save(tmp_path / "recipe.yaml")
    launch("pretrain_videomae_v2.py", "--recipe", tmp_path / "recipe.yaml")
    alone = pretrain(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "one"), "batch_size": 4}))
    found, expected = curve_of(tmp_path / "two", "probe"), curve_of(alone.output_dir, "probe")
    assert len(found) == len(expected) == 2
    assert found[0] == expected[0]
    assert (tmp_path / "two" / "README.md").is_file()
