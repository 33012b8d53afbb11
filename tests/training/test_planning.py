"""Plans against the measured sizes and costs of the official models."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

import hf_videovit.training
from hf_videovit import VideoMAEV2Config
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.building import describe_inputs
from hf_videovit.training.planning import WordCost, estimate_memory, matmul_speed, measure_model, plan_run


# Official code: parameters and GMACs of one 16 x 224 x 224 clip, K400 classifier and pretraining model.
PUBLISHED = {
    "small": (22_033_936, 56.88, 24_029_376, 7.84),
    "base": (86_534_800, 180.34, 94_210_944, 25.84),
    "giant": (1_012_174_352, 2542.79, 1_026_306_560, 241.61),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_cost_are_the_published_ones(size):
    parameters, macs, masked_parameters, masked_macs = PUBLISHED[size]
    cost = measure_model(VideoMAEV2Config.from_size(size, num_labels=400))
    assert cost.num_parameters == parameters
    assert cost.forward_macs / 1e9 == pytest.approx(macs, abs=0.005)
    masked = measure_model(VideoMAEV2Config.from_size(size), "masked_modeling")
    assert masked.num_parameters == masked_parameters
    assert masked.forward_macs / 1e9 == pytest.approx(masked_macs, abs=0.005)
    assert masked.activation_bytes < cost.activation_bytes
    assert cost.checkpointed_bytes < cost.activation_bytes / 4


def test_activations_are_those_that_a_real_step_holds():
    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = VideoMAEV2Config(**fields, image_size=64, num_frames=4)
    eager = VideoMAEV2Config(**fields, image_size=64, num_frames=4, attn_implementation="eager")
    tokens = 2 * 4 * 4
    one_block = 4 * tokens * (9 * 32 + 2 * 64)  # norms in and out, q, k, v, context, MLP in and out
    cost = measure_model(config)
    assert cost.activation_bytes == pytest.approx(2 * one_block, rel=0.35)
    assert measure_model(eager).activation_bytes > cost.activation_bytes


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
    assert "effective batch" in text
    assert "48" in text


def test_plan_without_data_and_what_is_refused():
    config = RunConfig.from_fields(size="small", learning_rate_batch=256, batch_size=32)
    plan = plan_run(config, processes=8)
    assert (plan.total_steps, plan.hours) == (None, None)
    assert plan.peak_learning_rate == pytest.approx(1e-3)
    assert ("total steps", "unknown") in plan.rows()
    with pytest.raises(
        ValueError, match="`task` must be one of classification, contrastive, masked_modeling, masked_words"
    ):
        plan_run(config, "captioning")


def test_masked_words_cost_the_images_and_the_tokenizer_too():
    """Parameters and GMACs of the official models: 8 clips and 64 images a process and step."""
    recipe = Path(hf_videovit.training.__file__).parent / "recipes" / "bevt" / "pretrain_base.yaml"
    config = RunConfig.from_yaml(recipe)
    plan = plan_run(config, "masked_words", device=torch.device("cpu"))
    assert plan.num_parameters == 109_679_048
    assert plan.forward_macs / 1e9 == pytest.approx(174.37, abs=0.005)
    assert plan.image_macs / 1e9 == pytest.approx(17.59, abs=0.005)
    assert plan.word_macs / 16e9 == pytest.approx(26.06, abs=0.005)
    assert (plan.videos_per_step, plan.images_per_step) == (256, 2048)
    assert ("image macs", "17.59 G an image") in plan.rows()
    cost = WordCost.of(config, describe_inputs(config.model)[0])
    fresh = cost.flops(config, 1)
    config.data.word_cache, config.data.word_copies = "words", 15
    words = 2 * (4 * 16 + 32) * cost.macs
    assert fresh - cost.flops(config, 1) == pytest.approx(0.9 * words)
    assert cost.memory(config) > 32 * cost.image.activation_bytes / 2


def test_plan_of_images_alone(word_fields):
    fields = word_fields | {"data": word_fields["image_data"], "batch_size": 3}
    fields["config"] = fields["config"] | {"video_stream": False}
    config = RunConfig.from_fields(**fields)
    plan = plan_run(config, "masked_words", device=torch.device("cpu"))
    assert (plan.num_videos, plan.steps_per_epoch, plan.images_per_step, plan.word_macs) == (7, 3, None, 0)
    classifier = plan_run(RunConfig.from_fields(size="small"))
    assert not {"image macs", "word macs"} & {name for name, _ in classifier.rows()}


def test_speed_is_found_without_naming_a_device(monkeypatch):
    monkeypatch.setattr("hf_videovit.training.planning.MATMUL_SIDE", 64)
    assert matmul_speed() > 0
    assert matmul_speed("bf16") > 0


def test_memory_grows_with_what_is_held():
    cost = measure_model(VideoMAEV2Config.from_size("small"))
    plain = RunConfig.from_fields(batch_size=4)
    base = estimate_memory(plain, cost)
    more = [{"ema_decay": 0.999}, {"num_sample": 2}, {"batch_size": 5}]
    assert all(estimate_memory(RunConfig.from_fields(**{"batch_size": 4, **fields}), cost) > base for fields in more)
    less = [{"gradient_checkpointing": True}, {"mixed_precision": "bf16"}]
    assert all(estimate_memory(RunConfig.from_fields(**{"batch_size": 4, **fields}), cost) < base for fields in less)
    assert estimate_memory(plain, cost, teacher=cost) == base + 4 * cost.num_parameters
