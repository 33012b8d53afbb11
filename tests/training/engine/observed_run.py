"""
Training runs in processes of their own that can be watched and broken. Started in two ways:

    accelerate launch tests/training/engine/observed_run.py RUN.json        # as users do; RUN.json is one run
    python tests/training/engine/observed_run.py RUNS.json ANSWERS.json     # a list of runs, one after the other

The second imports everything once and forks the processes of each run with the environment that torchrun gives them;
like torchrun it ends all when one dies. A run is `{"recipe": path}` and any of

    "world": processes (of the second form only)
    "seen": file (a suffix says the process) that gets a line `[step, epoch, ids]` a step
    "evaluated": file that gets the ids of the final evaluation's videos
    "kill": [where, step] kills a process there: "step" after that step, with all earlier checkpoints written, "update"
        within it, "save" while writing
    "victim": the process that is killed; all by default
    "held": file that gets the bytes of weights, gradients, optimiser and average in the last step
    "file_limit": [step, bytes]: from that step on the first process can write no larger file, as if the disk were full
    "sharding": "fsdp", which accelerate itself starts on accelerators only
    "environment": variables that its launcher would have set for that
    "pause": seconds after each step, so that a signal can meet it
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

import hf_videovit  # noqa: F401  (registers the families)
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.engine import checkpointing, sharding
from hf_videovit.training.engine import loop as engine
from hf_videovit.training.methods.choosing import finetune, pretrain


RANK = "RANK"


def before(owner, name, action):
    """Have a function call `action` with its arguments first."""
    original = getattr(owner, name)

    def wrapped(*arguments, **options):
        action(*arguments)
        return original(*arguments, **options)

    setattr(owner, name, wrapped)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def weigh(path, weights):
    """Write down the bytes that this process holds, before the weights change."""

    def held(tensors):
        parts = [one.to_local() if isinstance(one, DTensor) else one for one in tensors if torch.is_tensor(one)]
        return sum(part.nbytes for part in parts)

    states = [value for values in weights.optimizer.state_dict()["state"].values() for value in values.values()]
    answer = {"weights": held(weights.parameters), "optimizer": held(states)}
    answer["gradients"] = held(parameter.grad for parameter in weights.parameters)
    answer["average"] = held(weights.average.values.values()) if weights.average else 0
    Path(path).write_text(json.dumps(answer))


def watch(run):
    """Set up what a run asks for."""
    rank = int(os.environ.get(RANK, 0))
    where, at = run.get("kill", ("nowhere", 0))
    victim = run.get("victim", rank) == rank
    reached = {"step": 0}

    def at_step(loop, batch_group, *rest):
        reached["step"] = loop.progress.step + 1
        if "seen" in run:
            with Path(f"{run['seen']}.{rank}").open("a") as file:
                ids = [name for batch in batch_group for name in batch.ids]
                file.write(json.dumps([reached["step"], loop.progress.epoch, ids]) + "\n")
        if rank == 0 and "file_limit" in run and run["file_limit"][0] == reached["step"]:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (run["file_limit"][1], -1))

    def after_step(loop, num_clips):
        time.sleep(run.get("pause", 0))
        if where == "step" and loop.progress.step == at:
            loop.checkpoints.wait()  # what is being written belongs to an earlier step
            loop.accelerator.wait_for_everyone()
            if victim:
                die()

    def at_update(*arguments):
        if victim and where == "update" and reached["step"] == at:
            die()

    def at_write(path, *arguments):
        names = (f"rank_{rank}.json", "optimizer.safetensors")
        if victim and where == "save" and reached["step"] >= at and path.name in names:
            die()

    if "held" in run:
        before(sharding.WholeWeights, "step", partial(weigh, f"{run['held']}.{rank}"))
    before(engine._Run, "_step", at_step)
    before(engine._Run, "_after_step", after_step)
    before(engine._Run, "_count_step", at_update)
    before(checkpointing, "_write_json", at_write)
    before(checkpointing, "_write_tensors", at_write)


def shard_on_cpu():
    """
    Let accelerate do on the CPU what it does on accelerators: from its state on, everything is its own and torch's.
    """
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    return accelerator


def do(run):
    os.environ.update(run.get("environment", {}))
    torch.set_num_threads(1)  # sums are the same to the last bit
    watch(run)
    accelerator = shard_on_cpu() if "sharding" in run else None
    config = RunConfig.from_yaml(run["recipe"])
    if config.method.get("tokenizer") is not None:
        pretrain(config, accelerator=accelerator)
        return
    result = finetune(config, accelerator=accelerator)
    if "evaluated" in run and int(os.environ.get(RANK, 0)) == 0:
        Path(run["evaluated"]).write_text(json.dumps(result.evaluation.ids))


def start(run, rank, world, port):
    """Fork one process of a run; what it says goes to a file, which is read when it has ended."""
    child = os.fork()
    if child:
        return child
    log = os.open(f"{run['recipe']}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if world > 1:
        here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(world)}
        os.environ.update(here, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    status = 0
    try:
        do(run)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def wait_for(children):
    """Statuses in the order of the processes; the first that fails takes the others with it."""
    left, statuses = list(children), {}
    while left:
        child, status = os.wait()
        if child not in left:
            continue
        left.remove(child)
        statuses[child] = os.waitstatus_to_exitcode(status)
        if statuses[child] != 0:
            time.sleep(0.2 if statuses[child] < 0 else 1.0)  # others may have something to say themselves
            for other in left:
                os.kill(other, signal.SIGKILL)
    return [statuses[child] for child in children]


def main():
    runs = json.loads(Path(sys.argv[1]).read_text())
    if isinstance(runs, dict):
        do(runs)
        return
    answers = []
    for run in runs:
        world = run.get("world", 1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        statuses = wait_for([start(run, rank, world, port) for rank in range(world)])
        said = [Path(f"{run['recipe']}.{rank}.log").read_text() for rank in range(world)]
        answers.append({"statuses": statuses, "said": said})
        Path(sys.argv[2]).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
