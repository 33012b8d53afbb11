"""Runs that train an adapter: what moves, what is saved, what is merged."""

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModelForVideoClassification, pipeline

from hf_videovit.hub.cards import is_rendered
from hf_videovit.hub.publishing import finish_run, stage
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune
from hf_videovit.training.planning import plan_run
from tests.families import FAMILIES


@pytest.fixture(params=["uniformer", "videomae_v2"])
def base(request, tmp_path):
    """A classifier of other labels with its processor. UniFormer has batch norms."""
    family = next(family for family in FAMILIES if family.name == request.param)
    config = family.config_class(**family.tiny, num_labels=5)
    torch.manual_seed(0)
    AutoModelForVideoClassification.from_config(config).save_pretrained(tmp_path / "base")
    family.processor_class(**family.processor).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def lora_fields(tiny_fields, base, **fields) -> dict:
    fields = {"checkpoint": str(base), "config": {}, "processor": {}, "lora": "r=4,lora_alpha=8"} | fields
    return tiny_fields | fields | {"learning_rate": 0.05}


def reload(base, folder):
    """The model as the card of the adapter loads it."""
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForVideoClassification.from_pretrained(base, config=config, ignore_mismatched_sizes=True)
    return peft.PeftModel.from_pretrained(model, folder)


def test_a_run_ends_in_an_adapter_and_a_merged_model(base, tiny_fields, tmp_path):
    before = AutoModelForVideoClassification.from_pretrained(base).state_dict()
    config = RunConfig.from_fields(**lora_fields(tiny_fields, base, ema_decay=0.5))
    result = finetune(config)
    finish_run(result.output_dir, config.run, result.facts)
    adapter = result.output_dir / "adapter"

    adapted = reload(base, adapter).eval()
    sizes = {name: value.numel() for name, value in adapted.state_dict().items()}
    assert sum(value for name, value in sizes.items() if "lora_" in name) < 0.5 * sum(sizes.values())
    for name, value in adapted.state_dict().items():
        official = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if "lora_" not in name and official in before and not official.startswith("classifier"):
            assert torch.equal(value, before[official]), name

    merged = AutoModelForVideoClassification.from_pretrained(result.output_dir).eval()
    config = merged.config
    clips = torch.randn(2, config.num_frames, 3, config.image_size, config.image_size)
    with torch.no_grad():
        logits = merged(clips).logits
        torch.testing.assert_close(adapted(clips).logits, logits, atol=1e-5, rtol=1e-5)
        with adapted.disable_adapter():
            assert (adapted(clips).logits - logits).abs().max() > 1e-3
    assert pipeline("video-classification", model=str(result.output_dir)).model.config.id2label == config.id2label

    card = ModelCard.load(adapter / "README.md")
    assert card.data.library_name == "peft" and "lora" in card.data.tags and is_rendered(card.content)
    assert f'PeftModel.from_pretrained(base, "{adapter.name}")' in card.text
    assert f"{100 * result.evaluation.metrics['top1']:.1f} %" in card.text


def test_a_resumed_run_trains_the_same_adapter(base, tiny_fields, tmp_path):
    fields = lora_fields(tiny_fields, base, save_every=1)
    straight = finetune(RunConfig.from_fields(**fields | {"output_dir": str(tmp_path / "straight")}))
    stopped = fields | {"output_dir": str(tmp_path / "stopped")}
    finetune(RunConfig.from_fields(**stopped | {"max_steps": 1, "save_steps": 1, "epochs": 2}))
    assert (tmp_path / "stopped" / "adapter" / "adapter_model.safetensors").is_file()
    resumed = finetune(RunConfig.from_fields(**stopped | {"resume": True}))
    for (name, one), other in zip(straight.model.state_dict().items(), resumed.model.state_dict().values()):
        torch.testing.assert_close(one, other, atol=0, rtol=0, msg=name)


def test_a_plan_counts_what_an_adapter_trains(base, tiny_fields):
    whole = plan_run(RunConfig.from_fields(**lora_fields(tiny_fields, base, lora={})))
    adapter = plan_run(RunConfig.from_fields(**lora_fields(tiny_fields, base)))
    assert adapter.memory_gib < 0.9 * whole.memory_gib


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora": "rank=4"}, "`lora` has no field `rank`"),
        ({"lora": "r=0"}, "`lora`"),
        ({"checkpoint": None, "config": {"hidden_size": 32}}, "`checkpoint`, the model that the adapter is for"),
        ({"lora": "4"}, "`lora` must contain names and values"),
    ],
)
def test_refusals(base, tiny_fields, fields, message):
    with pytest.raises(ValueError, match=message):
        finetune(RunConfig.from_fields(**lora_fields(tiny_fields, base, **fields)))


def test_an_adapter_of_a_local_model_is_not_published(base, tiny_fields, tmp_path):
    result = finetune(RunConfig.from_fields(**lora_fields(tiny_fields, base, epochs=1)))
    with pytest.raises(ValueError, match="is not a Hub id"):
        stage(result.output_dir / "adapter", tmp_path / "staged", "someone/adapter")
    config = result.output_dir / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(base), "someone/base"))
    paths = {file.path for file in stage(result.output_dir / "adapter", tmp_path / "again", "someone/adapter")}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "README.md"} <= paths
