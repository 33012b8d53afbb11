"""The memory that a plan predicts under FSDP2, against what torch shares out."""

import json

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import method_of
from hf_videovit.training.planning import estimate_memory, estimate_sharded_memory, measure, plan_run
from hf_videovit.training.sharded_memory import parameter_shapes, sharded_memory
from tests.training.engine.test_many_processes import do_runs
from tests.training.engine.test_sharding import launched


def giant(**fields):
    """The run of the published model with a billion parameters, and the costs of its passes."""
    config = RunConfig.from_fields(size="giant", gradient_checkpointing=True, **fields)
    method = method_of(config, "classifier")
    return config, method, [(one, measure(one)) for one in method.passes(400)]


@pytest.fixture
def fake_processes():
    """A group of 64 processes in which nothing is sent."""
    if distributed.is_initialized():
        pytest.skip("a group of processes is open")
    distributed.init_process_group("fake", rank=0, world_size=64, store=FakeStore())
    yield 64
    distributed.destroy_process_group()


def test_a_billion_parameters_are_shared_out_as_predicted(fake_processes):
    _, method, measured = giant()
    with torch.device("meta"):
        model = method.passes(400)[0].build().float()
    predicted = sharded_memory(parameter_shapes(model), fake_processes, average=True, mixed=True)
    assert measured[0][1].num_parameters == sum(map(torch.Size.numel, map(torch.Size, measured[0][1].shapes.trained)))
    mesh = init_device_mesh("cpu", (fake_processes,))
    for module in list(model.modules())[::-1]:
        if type(module).__name__ in model._no_split_modules or module is model:
            fully_shard(module, mesh=mesh)
    local = [parameter.to_local() for parameter in model.parameters()]
    assert predicted.weights == predicted.gradients == predicted.average == sum(part.nbytes for part in local)
    assert predicted.optimizer == 2 * predicted.weights + 4 * len(local)
    assert predicted.weights < 1.002 * 4 * 1_012_174_352 / fake_processes


def test_a_plan_names_the_memory_of_many_processes():
    config, _, measured = giant(mixed_precision="bf16", batch_size=8, ema_decay=0.999)
    alone = estimate_memory(config, measured)
    parts = [estimate_sharded_memory(config, measured, number) for number in (8, 64)]
    assert alone > 1_012_174_352 * 20 > parts[0].total > parts[1].total > parts[1].activations
    assert parts[0].weights > 7.9 * parts[1].weights
    block = measured[0][1].shapes.largest_block
    assert 1_012_174_352 / 45 < block < 1_012_174_352 / 35  # 40 blocks
    plan = plan_run(RunConfig.from_fields(size="small"), processes=4)
    assert sorted(plan.sharded_gib) == [4, 8, 64]
    assert plan.sharded_gib[4] < plan.memory_gib
    assert any(name == "memory under FSDP2" and "of each of 64 processes" in text for name, text in plan.rows())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on accelerators only")
def test_four_processes_hold_the_predicted_bytes(tiny_fields, tmp_path, monkeypatch):
    """A hundredth of the billion: ten million parameters, in the second step of a real run."""
    _, environment = launched("fsdp2.yaml", monkeypatch)
    environment = {key: value for key, value in environment.items() if key.startswith(("FSDP", "ACCELERATE_USE_FSDP"))}
    shape = {"hidden_size": 352, "num_hidden_layers": 6, "num_attention_heads": 11, "intermediate_size": 1534}
    fields = tiny_fields | {"config": tiny_fields["config"] | shape, "max_steps": 2, "ema_decay": 0.9}
    fields |= {
        "batch_size": 1,
        "num_workers": 0,
        "save_every": 0,
        "eval_every": 0,
        "output_dir": str(tmp_path / "out"),
    }
    run = {
        "world": 4,
        "sharding": "fsdp",
        "environment": environment,
        "fields": fields,
        "held": str(tmp_path / "held"),
    }
    config = RunConfig.from_fields(**fields)
    method = method_of(config, "classifier")
    shapes = measure(method.passes(4)[0]).shapes
    predicted = sharded_memory(shapes, 4, average=True, mixed=False)
    (answer,) = do_runs(tmp_path, [run])
    assert answer["statuses"] == [0] * 4, answer["said"][0]
    held = [json.loads((tmp_path / f"held.{rank}").read_text()) for rank in range(4)]
    assert 9e6 < sum(one["weights"] for one in held) / 4 < 12e6
    for name in ("weights", "gradients", "optimizer"):
        assert max(one[name] for one in held) == getattr(predicted, name), name
    buffers = max(one["average"] for one in held) - predicted.average  # the average keeps those too
    assert 0 <= buffers < 0.001 * predicted.average
