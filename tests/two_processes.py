"""Functions that run in several real processes at once, over gloo."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from hf_videovit import BevtImageCodebook, BevtImageCodebookConfig, LstclConfig, LstclForPreTraining
from hf_videovit.modeling.modeling_lstcl_heads import contrastive_loss


Tensors = dict[str, torch.Tensor]


def run_in_processes(name: str, world: int, arguments: dict[str, Any]) -> list[Tensors]:
    """Answers of the function of that name, one a process."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(run_one, (name, world, arguments, folder), nprocs=world)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(world)]


def run_one(rank: int, name: str, world: int, arguments: dict[str, Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    answer = FUNCTIONS[name](rank, world, **arguments)
    torch.save(answer, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def loss_of_keys(rank: int, world: int, query: torch.Tensor, key: torch.Tensor, temperature: float) -> Tensors:
    """MoCo v3's loss of this process's row of queries and keys."""
    query = query[rank].clone().requires_grad_()
    loss = contrastive_loss(query, key[rank], temperature)
    loss.backward()
    return {"loss": loss.detach(), "gradient": query.grad}


def uneven_keys(rank: int, world: int) -> Tensors:
    """Whether different numbers of clips are refused."""
    try:
        contrastive_loss(torch.randn(2 + rank, 4), torch.randn(2 + rank, 4), 0.2)
    except ValueError as error:
        return {"refused": torch.tensor("drop_last" in str(error))}
    return {"refused": torch.tensor(False)}


def followed_vectors(rank: int, world: int, fields: dict[str, Any], state: Tensors, rows: torch.Tensor) -> Tensors:
    """Vectors of a codebook that followed this process's share of the rows, and of one whose words were all unused."""
    model = BevtImageCodebook(BevtImageCodebookConfig(**fields))
    model.load_state_dict(state)
    own = torch.cat(list(rows[rank::world]))
    model.codebook.follow(own, model.codebook.nearest(own))
    vectors = model.codebook.vectors.clone()
    torch.manual_seed(rank)
    model.codebook.counts.zero_()
    model.codebook.follow(own, model.codebook.nearest(own))
    return {"vectors": vectors, "restarted": model.codebook.vectors}


def training_step(rank: int, world: int, fields: dict[str, Any], state: Tensors, short: Any, long: Any) -> Tensors:
    """
    Mean loss, gradients and the state after a pass over this process's share of the clips, in the clips' type. Several
    processes train by `DistributedDataParallel`, without a trainer.
    """
    model = LstclForPreTraining(LstclConfig(**copy.deepcopy(fields))).to(short.dtype).train()
    model.load_state_dict(state)
    parallel = DistributedDataParallel(model) if world > 1 else model
    loss = parallel(short.chunk(world)[rank], long.chunk(world)[rank]).loss
    loss.backward()
    mean = loss.detach().clone()
    if world > 1:
        dist.all_reduce(mean)
    answer = {"loss": mean / world}
    answer |= {f"grad.{name}": one.grad for name, one in model.named_parameters() if one.grad is not None}
    return answer | {f"after.{name}": value for name, value in model.state_dict().items()}


FUNCTIONS = {
    "followed_vectors": followed_vectors,
    "loss_of_keys": loss_of_keys,
    "training_step": training_step,
    "uneven_keys": uneven_keys,
}
