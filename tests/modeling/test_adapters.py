"""Adapters of PEFT: default layers, statistics that stay, what is saved is what was trained."""

import subprocess
import sys

import peft
import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

from hf_videovit import LstclForPreTraining, lora_targets
from hf_videovit.adapters import LORA_TARGETS
from tests.families import FAMILIES, Case, cases


every_case = pytest.mark.parametrize("case", list(cases(trains=True)), ids=str)


def adapted(case: Case, **fields) -> nn.Module:
    """The case's model with an adapter on the default layers that changes the output."""
    model = case.model()
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=lora_targets(model), init_lora_weights=False, **fields)
    return peft.get_peft_model(model, config)


def training_steps(model: nn.Module, inputs: dict) -> None:
    model.train()
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    model.eval()


@every_case
def test_a_reloaded_adapter_is_the_trained_model(case: Case, tmp_path):
    model, inputs = adapted(case), case.inputs(batch_size=2)
    training_steps(model, inputs)
    model.save_pretrained(tmp_path)
    reloaded = peft.PeftModel.from_pretrained(case.model(), tmp_path).eval()
    with torch.no_grad():
        trained, again = model(**inputs), reloaded(**inputs)
        torch.testing.assert_close(again.loss, trained.loss, atol=1e-6, rtol=1e-5)
        merged = model.merge_and_unload()(**inputs)
        torch.testing.assert_close(merged.loss, trained.loss, atol=1e-4, rtol=1e-4)


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in model.named_buffers() if "running" in name or "tracked" in name}


def test_batch_norms_rest_only_under_adapters():
    case = next(case for case in cases(options=False) if str(case) == "UniFormerForVideoClassification")
    model, inputs = adapted(case), case.inputs(batch_size=2)
    before = buffers(model)
    training_steps(model, inputs)
    assert before and all(torch.equal(value, before[name]) for name, value in buffers(model).items())
    plain = model.merge_and_unload()
    plain.train()(**inputs)
    assert not all(torch.equal(one, other) for one, other in zip(buffers(plain).values(), before.values()))


def test_batch_norms_that_the_adapter_saves_go_on():
    case = next(case for case in cases(options=False) if str(case) == "UniFormerForVideoClassification")
    model = adapted(case, modules_to_save=["uniformer.norm"])
    before = buffers(model)
    training_steps(model, case.inputs(batch_size=2))
    moved = {name for name, value in buffers(model).items() if not torch.equal(value, before[name])}
    assert moved and all(".modules_to_save." in name for name in moved)


def test_batch_norms_of_pretraining_rest():
    case = next(case for case in cases(options=False) if case.head.model_class is LstclForPreTraining)
    model = adapted(case)
    before = buffers(model)
    training_steps(model, case.inputs(batch_size=2))
    assert before and all(torch.equal(value, before[name]) for name, value in buffers(model).items())


@pytest.mark.slow
@pytest.mark.parametrize("order", ["import peft, hf_videovit", "import hf_videovit, peft"])
def test_peft_knows_the_defaults(order):
    code = f"{order}\nfrom peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as table"
    code += "\nfrom hf_videovit.adapters import LORA_TARGETS\nassert LORA_TARGETS.keys() <= table.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_targets_are_in_every_family_and_none_is_missing():
    assert LORA_TARGETS.keys() <= peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.keys()
    for case in cases():
        model = case.model()
        targets = lora_targets(model)
        assert targets
        blocks = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".mlp." in name]
        assert all(name.endswith(tuple(targets)) for name in blocks)
    assert {family.name for family in FAMILIES} <= LORA_TARGETS.keys()
    other = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match="`model`"):
        lora_targets(other)
