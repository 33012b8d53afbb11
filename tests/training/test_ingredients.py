"""Each ingredient of a recipe does something in a run, and what it says."""

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine.loop import Observer
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.tasks import ClassificationTask
from tests.training.engine.test_loop import Regression, run


def train(fields, **changes):
    """A short run with one thing changed."""
    merged = fields | {"epochs": 1, "eval_every": 0, "overwrite": True, "save_every": 0} | changes
    return finetune(RunConfig.from_fields(**merged))


def losses(result):
    return [line["loss"] for line in result.history if "loss" in line]


@pytest.fixture
def plain(tiny_fields):
    return tiny_fields | {"max_eval_samples": 2, "config": tiny_fields["config"] | {"drop_path_rate": 0.0}}


def test_learning_rate_of_each_step_warms_up_and_falls_like_a_cosine(tmp_path):
    result, _ = run(tmp_path, warmup_epochs=1, learning_rate=0.1, min_learning_rate=0.01)
    rates = [line["learning_rate"] for line in result.history]
    assert rates[:6] == pytest.approx([0.1 * step / 5 for step in range(6)])
    assert rates[6:] == pytest.approx(
        [0.01 + 0.045 * (1 + math.cos(math.pi * step / 12)) for step in range(12)], rel=1e-6
    )


def test_the_average_of_the_weights_follows_them_and_is_what_is_kept(tmp_path, monkeypatch):
    """After each step: decay x average + (1 - decay) x weights."""
    raw, averages, tasks = [], [], []
    monkeypatch.setattr(Regression, "forward", remembering(Regression.forward, tasks))

    def look(model, step):
        raw.append(tasks[0].model[0].weight.detach().clone())
        averages.append(model[0].weight.detach().clone())
        return {}

    result, _ = run(tmp_path, ema_decay=0.9, epochs=1, observers=[Observer("look", look, epochs=0, steps=1)])
    assert len(raw) == 6
    for before, after, weights in zip(averages, averages[1:], raw[1:]):
        assert torch.allclose(after, 0.9 * before + 0.1 * weights, atol=1e-6)
    assert torch.equal(result.model[0].weight, averages[-1])
    assert not torch.equal(averages[-1], raw[-1])


def remembering(forward, tasks):
    def wrapped(self, batch):
        tasks.append(self)
        return forward(self, batch)

    return wrapped


def test_clipping_bounds_the_step_and_tells_the_whole_norm(tmp_path):
    """AdamW divides by the gradient's size, so only a gradient far below its epsilon leaves the weights in place."""
    fields = {"epochs": 1, "weight_decay": 0.0, "batch_size": 22}
    free, _ = run(tmp_path / "free", **fields)
    clipped, _ = run(tmp_path / "clipped", clip_grad=1e-12, **fields)
    start = first_weights()
    assert not torch.allclose(free.model[0].weight, start, atol=1e-4)
    assert torch.allclose(clipped.model[0].weight, start, atol=1e-4)
    norms = [result.history[0]["grad_norm"] for result in (free, clipped)]
    assert norms[0] == norms[1] > 1e-3


def first_weights():
    torch.manual_seed(0)
    return Regression().model[0].weight.detach()


@pytest.mark.parametrize("soft", [False, True])
def test_label_smoothing_by_hand(soft):
    class Answers(torch.nn.Module):
        config = SimpleNamespace(problem_type="single_label_classification", num_labels=3)

        def forward(self, pixel_values):
            return SimpleNamespace(logits=pixel_values)

    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
    target = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]]) if soft else torch.eye(3)[[0, 2]]
    labels = target if soft else torch.tensor([0, 2])
    task = ClassificationTask(Answers(), label_smoothing=0.3)
    loss = task({"pixel_values": logits, "labels": labels})["loss"]
    smooth = 0.7 * target + 0.3 / 3
    assert loss.item() == pytest.approx(-(smooth * F.log_softmax(logits, -1)).sum(1).mean().item(), rel=1e-6)


def test_smoothing_and_mixing_reach_the_loss(plain):
    """A start with equal logits has the loss log(classes) whatever the target; later ones differ."""
    by_setting = {
        "plain": losses(train(plain)),
        "smoothed": losses(train(plain, label_smoothing=0.2)),
        "mixed": losses(train(plain, mixup=0.8, cutmix=1.0)),
        "decayed": losses(train(plain, layer_decay=0.5)),
    }
    assert len({tuple(values) for values in by_setting.values()}) == 4


def test_drop_path_is_on_in_training(plain):
    dropped = plain | {"config": plain["config"] | {"drop_path_rate": 0.5}}
    assert losses(train(plain)) != losses(train(dropped))
    assert losses(train(dropped)) == losses(train(dropped))


def test_gradient_checkpointing_gives_the_same_losses(plain):
    result = train(plain, gradient_checkpointing=True)
    blocks = [module for module in result.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert blocks
    assert all(block.gradient_checkpointing for block in blocks)
    assert losses(result) == pytest.approx(losses(train(plain)), rel=1e-5)


def test_a_compiled_model_gives_the_same_losses(plain, monkeypatch):
    compiled = []

    def compile_quickly(self):
        compiled.append(type(self).__name__)
        torch.nn.Module.compile(self, backend="eager")  # as `compile` does, without waiting for a C++ compiler

    monkeypatch.setattr(PreTrainedModel, "compile", compile_quickly)
    result = train(plain, compile=True)
    assert compiled == ["VideoMAEV2ForVideoClassification"]
    assert losses(result) == pytest.approx(losses(train(plain)), rel=1e-5)


def test_bf16_is_for_the_passes_and_not_for_the_weights(plain, precision):
    exact = train(plain)
    AcceleratorState._reset_state(True)
    result = train(plain, mixed_precision="bf16")
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    assert losses(result) != losses(exact)
    assert losses(result) == pytest.approx(losses(exact), rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="loss scaling needs an accelerator")
def test_fp16_scales_the_loss(plain, precision):
    result = train(plain | {"cpu": False}, mixed_precision="fp16")
    assert all(math.isfinite(value) for value in losses(result))


def test_copies_of_a_clip_come_from_one_decode(plain):
    once, thrice = train(plain), train(plain, num_sample=3)
    assert thrice.facts["num_sample"] == 3
    assert len(losses(once)) == len(losses(thrice))
    assert losses(once) != losses(thrice)


def test_every_kind_of_crop_and_augmentation_trains_on_the_device_too(plain):
    fields = {"crop": "multi_scale", "rand_augment_ops": 2, "random_erasing": 0.5, "flip": 0.5, "mixup": 0.8}
    assert losses(train(plain, **fields)) == losses(train(plain, **fields, augment_on_device=True))
