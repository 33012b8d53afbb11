"""Configurations of accelerate, and runs that share out their weights among two processes on the CPU."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from safetensors.torch import load_file

from hf_videovit.training.arguments import OptimizationArguments, RunArguments
from hf_videovit.training.engine.checkpointing import list_checkpoints, load_checkpoint
from hf_videovit.training.engine.sharding import MovingAverage, arrange_weights, check_shape
from hf_videovit.training.methods.running import make_accelerator
from tests.training.engine.test_many_processes import curve, do_runs


CONFIGS = Path(__file__).parents[3] / "examples" / "accelerate"


def test_tensors_of_another_shape_are_not_repeated():
    with pytest.raises(ValueError, match=r"weight has the shape \(1, 3\), must have \(2, 3\)"):
        check_shape("weight", (1, 3), torch.ones(2, 3))


def launched(name, monkeypatch, *words):
    """What `accelerate launch --config_file` makes of a file: its arguments, and the processes' environment."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    parser = launch_command_parser()
    arguments = parser.parse_args(["--config_file", str(CONFIGS / name), *words, "examples/finetune.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    if arguments.multi_gpu or arguments.use_fsdp:
        return arguments, prepare_multi_gpu_env(arguments)
    return arguments, prepare_simple_launcher_cmd_env(arguments)[1]


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_accelerate_knows_every_field(name):
    config = load_config_from_file(str(CONFIGS / name))
    assert config.num_processes == {"one": 1, "two": 2}.get(name.split("_")[0], 8)


def test_what_the_launcher_makes_of_them(monkeypatch):
    arguments, environment = launched("one_cpu.yaml", monkeypatch)
    assert environment["ACCELERATE_USE_CPU"] == "True" and not arguments.multi_gpu
    arguments, _ = launched("two_cpu_processes.yaml", monkeypatch)
    assert arguments.multi_gpu and arguments.num_processes == 2 and not arguments.use_cpu
    arguments, _ = launched("ddp.yaml", monkeypatch)
    assert arguments.multi_gpu and arguments.num_processes == 8 and arguments.mixed_precision == "bf16"
    arguments, environment = launched("fsdp2.yaml", monkeypatch)
    assert arguments.use_fsdp
    assert (environment["ACCELERATE_USE_FSDP"], environment["FSDP_VERSION"]) == ("true", "2")


def test_processes_that_do_not_meet_are_refused(monkeypatch):
    """Accelerate takes each process of torchrun for a run of its own without an accelerator and ACCELERATE_USE_CPU."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes, and Accelerate sees 1: .*ACCELERATE_USE_CPU=true"):
        make_accelerator(RunArguments(output_dir="out"))


def test_deepspeed_is_refused():
    accelerator = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED)
    with pytest.raises(ValueError, match="got DEEPSPEED: FSDP2"):
        arrange_weights(accelerator, SimpleNamespace(idle_parameters=()), OptimizationArguments())


def test_a_moving_average_moves_weights_and_copies_counters():
    values = {"weight": torch.zeros(2), "double": torch.zeros(1, dtype=torch.float64), "seen": torch.tensor(0)}
    average = MovingAverage(values, 0.75)
    for seen, moves in ((1, 1.0), (9, 0.0), (2, 1.0)):
        average.update(
            {"weight": torch.ones(2), "double": torch.ones(1, dtype=torch.float64), "seen": torch.tensor(seen)},
            torch.tensor(moves),
        )
        if not moves:
            assert values["weight"].tolist() == [0.25, 0.25] and values["seen"].item() == 1
    assert values["weight"].tolist() == [0.4375, 0.4375] and values["double"].item() == 0.4375  # 1 - 0.75 ** 2
    assert values["seen"].item() == 2


@pytest.fixture
def fields(tiny_fields, tmp_path):
    """9 steps over 3 epochs of 18 clips, whose last step brings fewer, with everything that has a state."""
    more = {"batch_size": 2, "accumulation": 2, "epochs": 3, "save_steps": 2, "save_every": 0, "eval_every": 1}
    more |= {"ema_decay": 0.9, "layer_decay": 0.8, "clip_grad": 1.0, "output_dir": str(tmp_path / "ddp")}
    return tiny_fields | more | {"num_workers": 0, "resume": True, "max_train_samples": 18}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on accelerators only")
def test_fsdp2_trains_saves_and_resumes_like_ddp(fields, tmp_path, monkeypatch):
    _, environment = launched("fsdp2.yaml", monkeypatch)
    environment = {key: value for key, value in environment.items() if key.startswith(("FSDP", "ACCELERATE_USE_FSDP"))}
    fsdp = {"world": 2, "sharding": "fsdp", "environment": environment}
    sharded = fields | {"output_dir": str(tmp_path / "fsdp")}
    killed = fields | {"output_dir": str(tmp_path / "killed")}
    runs = [
        {"world": 2, "fields": fields},
        fsdp | {"fields": sharded},
        fsdp | {"fields": killed, "kill": ["update", 5]},
        fsdp | {"fields": killed},
    ]
    answers = do_runs(tmp_path, runs)
    assert [answer["statuses"] for answer in answers] == [[0, 0], [0, 0], [-9, -9], [0, 0]], answers
    ours, theirs = curve(tmp_path / "fsdp"), curve(tmp_path / "ddp")
    assert len(ours) == 9
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert curve(tmp_path / "killed") == ours
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in ("fsdp", "ddp", "killed")}
    for name, tensor in weights["ddp"].items():
        assert weights["fsdp"][name].shape == tensor.shape
        assert (weights["fsdp"][name] - tensor).abs().max() < 1e-4
        assert weights["killed"][name].equal(weights["fsdp"][name])
    whole = [list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("fsdp", "ddp")]
    for part in ("task", "optimizer", "ema"):
        ours, theirs = (load_checkpoint(path).tensors[part] for path in whole)
        assert {name: value.shape for name, value in ours.items()} == {
            name: value.shape for name, value in theirs.items()
        }
