"""Plans against the measured sizes and costs of the official models."""

import dataclasses
from pathlib import Path

import pytest
import torch
from rich.console import Console

import hf_videovit.training
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.planning import estimate_memory, hours_and_minutes, matmul_speed, measure, plan_run


# Official code: parameters and GMACs of one 16 x 224 x 224 clip, K400 classifier and pretraining model.
PUBLISHED = {
    "small": (22_033_936, 56.88, 24_029_376, 7.84),
    "base": (86_534_800, 180.34, 94_210_944, 25.84),
    "giant": (1_012_174_352, 2542.79, 1_026_306_560, 241.61),
}


def cost_of(goal="classifier", num_labels=None, **fields):
    """Cost of the main pass of a run."""
    return measure(method_of(RunConfig.from_fields(**fields), goal).passes(num_labels)[0])


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_cost_are_the_published_ones(size):
    parameters, macs, masked_parameters, masked_macs = PUBLISHED[size]
    cost = cost_of(size=size, num_labels=400)
    assert cost.num_parameters == parameters
    assert cost.forward_macs / 1e9 == pytest.approx(macs, abs=0.005)
    masked = cost_of("encoder", size=size)
    assert masked.num_parameters == masked_parameters
    assert masked.forward_macs / 1e9 == pytest.approx(masked_macs, abs=0.005)
    assert masked.activation_bytes < cost.activation_bytes
    assert cost.checkpointed_bytes < cost.activation_bytes / 4


def test_activations_are_those_that_a_real_step_holds():
    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    fields |= {"image_size": 64, "num_frames": 4}
    tokens = 2 * 4 * 4
    one_block = 4 * tokens * (9 * 32 + 2 * 64)  # norms in and out, q, k, v, context, MLP in and out
    cost = cost_of(config=fields)
    assert cost.activation_bytes == pytest.approx(2 * one_block, rel=0.35)
    assert cost_of(config=fields | {"attn_implementation": "eager"}).activation_bytes > cost.activation_bytes


def test_plan_of_a_run_counts_like_the_run(tiny_fields):
    config = RunConfig.from_fields(
        **tiny_fields | {"accumulation": 2, "num_sample": 3, "learning_rate_batch": 16, "warmup_epochs": 1.0}
    )
    plan = plan_run(config, processes=2, device=torch.device("cpu"))
    assert (plan.num_videos, plan.videos_per_step, plan.effective_batch) == (20, 16, 48)
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (2, 4, 2)
    assert plan.peak_learning_rate == pytest.approx(1e-3)
    assert plan.hours is not None and plan.hours > 0
    console = Console(width=120, record=True)
    console.print(plan)
    text = console.export_text()
    assert "clips per step" in text
    assert "48" in text


def test_plan_without_data_and_what_is_refused():
    config = RunConfig.from_fields(size="small", learning_rate_batch=256, batch_size=32)
    plan = plan_run(config, processes=8)
    assert (plan.total_steps, plan.hours) == (None, None)
    assert plan.peak_learning_rate == pytest.approx(1e-3)
    assert ("steps", "unknown") in plan.rows()
    with pytest.raises(ValueError, match="`goal` must be one of classifier, encoder, got 'captioning'"):
        plan_run(config, "captioning")
    with pytest.raises(ValueError, match="`checkpoint` is needed: this recipe starts from a trained model"):
        plan_run(RunConfig.from_yaml("videomae_v2/ava_huge"))
    times = {0.001: "less than a minute", 0.0324: "0:02 h", 1.999: "2:00 h", 130.5: "130:30 h"}
    assert {hours: hours_and_minutes(hours) for hours in times} == times


def test_masked_words_cost_the_images_and_the_tokenizer_too():
    """Parameters and GMACs of the official models: 8 clips and 64 images a process and step."""
    recipe = Path(hf_videovit.training.__file__).parent / "recipes" / "bevt" / "pretrain_base.yaml"
    config = RunConfig.from_yaml(recipe, {"needs_checkpoint": False})
    plan = plan_run(config, device=torch.device("cpu"))
    assert plan.num_parameters == 109_679_048
    assert plan.forward_macs / 1e9 == pytest.approx(174.37, abs=0.005)
    images, words = plan.others["image"], plan.others["words"]
    assert images.macs / 1e9 == pytest.approx(17.59, abs=0.005)
    assert words.macs / 1e9 == pytest.approx(26.06, abs=0.005)
    assert (plan.videos_per_step, images.samples_per_step) == (256, 2048)
    assert words.samples_per_step == 256 * 16 + 2048
    assert ("forward pass, image", "17.59 GMACs each, 2048 per step") in plan.rows()
    kept = RunConfig.from_yaml(recipe, {"word_cache": "words", "word_copies": 15, "needs_checkpoint": False})
    assert plan_run(kept).others["words"].samples_per_step == pytest.approx(0.1 * words.samples_per_step)
    passes = [(one, measure(one)) for one in method_of(config).passes()]
    image_bytes = 32 * passes[1][1].activation_bytes / 2
    assert estimate_memory(config, passes) - estimate_memory(config, passes[:1]) > image_bytes


def test_plan_of_images_alone(word_fields):
    fields = word_fields | {"data": word_fields["image_data"], "batch_size": 3}
    fields["config"] = fields["config"] | {"video_stream": False}
    config = RunConfig.from_fields(**fields)
    plan = plan_run(config, "encoder", device=torch.device("cpu"))
    assert (plan.num_videos, plan.steps_per_epoch, plan.others) == (7, 3, {})
    classifier = plan_run(RunConfig.from_fields(size="small"))
    assert not {"forward pass, image", "forward pass, words"} & {name for name, _ in classifier.rows()}


def test_speed_is_found_without_naming_a_device(monkeypatch):
    monkeypatch.setattr("hf_videovit.training.planning.MATMUL_SIDE", 64)
    assert matmul_speed() > 0
    assert matmul_speed("bf16") > 0


def test_memory_grows_with_what_is_held():
    def memory(**fields):
        config = RunConfig.from_fields(**{"batch_size": 4, "size": "small", **fields})
        return estimate_memory(config, [(one, measure(one)) for one in method_of(config).passes()])

    base = memory()
    more = [{"ema_decay": 0.999}, {"num_sample": 2}, {"batch_size": 5}]
    assert all(memory(**fields) > base for fields in more)
    less = [{"gradient_checkpointing": True}, {"mixed_precision": "bf16"}]
    assert all(memory(**fields) < base for fields in less)
    config = RunConfig.from_fields(batch_size=4, size="small")
    (one,) = method_of(config).passes()
    taught, cost = dataclasses.replace(one, name="teacher", trained=False), measure(one)
    assert estimate_memory(config, [(one, cost), (taught, cost)]) == base + 4 * cost.num_parameters
