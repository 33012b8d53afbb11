"""
Parts of contrastive frameworks: projection and prediction heads, losses, keys gathered from all processes.

Behaviour follows the official codes of MoCo v3 (facebookresearch/moco-v3, commit c349e6e), SimSiam
(facebookresearch/simsiam, commit a7bc177) and, of BYOL for video, SlowFast (commit 287ec00).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from .layers import starting


def world_size() -> int:
    """Number of processes that train together; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@cache
def host_group(world: "dist.ProcessGroup") -> "dist.ProcessGroup":
    """
    A group of the same processes that communicates over the CPU, so that the host can read what it sends without
    waiting for its device. All processes make it together.

    Args:
        world (`ProcessGroup`):
            All processes, `torch.distributed.group.WORLD`.

    Returns:
        `ProcessGroup`
    """
    if dist.get_backend(world) == "gloo":
        return world
    group: Any = dist.new_group(backend="gloo")
    return group


class _SumOverProcesses(torch.autograd.Function):
    """
    Sum over all processes; the gradient is summed in the same way.

    `torch.distributed.nn.functional.all_reduce` warns of its deprecation in torch 2.14. Its replacement,
    `torch.distributed._functional_collectives.all_reduce`, has no gradient in torch 2.6.
    """

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class LstclBatchNorm(nn.BatchNorm1d):
    """
    Batch norm over the batch of all processes, on any device (torch's `SyncBatchNorm` does not support CPUs).
    Statistics are computed in float32 for features of any dtype.

    Args:
        num_features (`int`):
            Width.
        eps (`float`):
            Added to the variance.
        momentum (`float`):
            Share of a batch in the running statistics.
        affine (`bool`, *optional*, defaults to `True`):
            Whether the norm has a weight and a bias.
    """

    def __init__(self, num_features: int, eps: float, momentum: float, affine: bool = True):
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine)
        self.share = momentum

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """
        Normalise features.

        Args:
            features (`torch.Tensor` of shape `(batch_size, num_features)`):
                Features of this process.

        Returns:
            `torch.Tensor` of the shape and dtype of `features`.
        """
        if not self.training or world_size() == 1:
            return super().forward(features)
        values = features.float()
        count = _SumOverProcesses.apply(values.new_full((1,), float(len(values))))
        mean = _SumOverProcesses.apply(values.sum(dim=0)) / count
        centred = values - mean
        variance = _SumOverProcesses.apply(centred.square().sum(dim=0)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * torch.rsqrt(variance + self.eps)
        if self.affine:
            normalised = normalised * self.weight.float() + self.bias.float()
        return normalised.to(features.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        self.get_buffer("num_batches_tracked").add_(1)
        for name, value in (("running_mean", mean), ("running_var", variance)):
            kept = self.get_buffer(name)
            kept.lerp_(value.to(kept.dtype), self.share)


HEAD_LAYER = "head"  # mark of the layers of a head: initialised as by torch, like the official codes


class LstclHead(nn.Sequential):
    """
    Linear layers with a batch norm and a ReLU after each but the last; numbered as the official codes number theirs.

    Args:
        sizes (`Sequence[int]`):
            Width of the input and of each layer's output.
        last_bias (`bool`):
            Whether the last layer has a bias (BYOL and SimSiam's predictor). The others have none, because a norm
            follows.
        last_norm (`bool`):
            Whether a norm without parameters comes last (MoCo v3 and SimSiam's projector).
        eps, momentum (`float`):
            Of the norms; see [`LstclBatchNorm`].
    """

    def __init__(self, sizes: Sequence[int], last_bias: bool, last_norm: bool, eps: float, momentum: float):
        layers: list[nn.Module] = []
        last = len(sizes) - 2
        for index, (size_in, size_out) in enumerate(zip(sizes, sizes[1:])):
            layers.append(starting(HEAD_LAYER, nn.Linear(size_in, size_out, bias=index == last and last_bias)))
            if index < last:
                layers += [LstclBatchNorm(size_out, eps=eps, momentum=momentum), nn.ReLU()]
            elif last_norm:
                layers.append(LstclBatchNorm(size_out, eps=eps, momentum=momentum, affine=False))
        super().__init__(*layers)


def _in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """Switch mixed precision off; the meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def gather_keys(keys: torch.Tensor) -> tuple[torch.Tensor, int]:
    """
    Gather the keys of all processes, without gradient.

    Args:
        keys (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Keys of this process.

    Returns:
        `tuple[torch.Tensor, int]`: keys of all processes, and the row at which those of this process begin.

    Raises:
        ValueError: processes have different numbers of keys.
    """
    keys, world = keys.detach(), world_size()
    if world == 1:
        return keys, 0
    counts = [torch.zeros(1, dtype=torch.long) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(keys)]), group=host_group(dist.group.WORLD))
    sizes = [int(count) for count in counts]
    if len(set(sizes)) > 1:
        raise ValueError(f"Every process must have the same number of clips, got {sizes}. Set `drop_last`.")
    gathered = [torch.empty_like(keys) for _ in range(world)]
    dist.all_gather(gathered, keys.contiguous())
    return torch.cat(gathered), len(keys) * dist.get_rank()


def contrastive_loss(query: torch.Tensor, key: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    MoCo v3's InfoNCE: each query is classified among the keys of the whole batch.

    ```
    for i in range(n):                                        # this process's queries
        logits = [cos(query[i], keys[j]) / temperature for j in range(n * world)]
        loss += cross_entropy(logits, n * rank + i) * 2 * temperature / n
    ```

    Args:
        query (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Predictions.
        key (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Targets of the predictions; gathered from all processes, without gradient.
        temperature (`float`):
            Divisor of the cosines.

    Returns:
        `torch.Tensor` of shape `()`.

    References:
        Chen et al., 2021, "An empirical study of training self-supervised vision transformers"
    """
    with _in_float32(query.device):
        keys, first = gather_keys(F.normalize(key.float(), dim=1))
        logits = F.normalize(query.float(), dim=1) @ keys.T / temperature  # (batch, batch of all processes)
        labels = torch.arange(query.shape[0], device=query.device) + first
        return F.cross_entropy(logits, labels) * (2 * temperature)


def cosine_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    Mean of minus the cosines. This is SimSiam's loss; BYOL's is `2 + 2 * cosine_loss`.

    Args:
        prediction (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Predictions.
        target (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Targets of the predictions; they get no gradient.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    with _in_float32(prediction.device):
        return -F.cosine_similarity(prediction.float(), target.detach().float(), dim=1).mean()


@torch.no_grad()
def follow_parameters(target: nn.Module, online: nn.Module, momentum: torch.Tensor | float) -> None:
    """
    Move every parameter of `target` towards its counterpart in `online`. Running statistics are not changed.

    Args:
        target, online (`nn.Module`):
            Modules of the same architecture.
        momentum (`torch.Tensor` of shape `()` or `float`):
            Share of `target` that is kept. Computed in float32: in half precision small steps would vanish.
    """
    for kept, new in zip(target.parameters(), online.parameters(), strict=True):
        kept.copy_(kept.float() * momentum + new.float() * (1 - momentum))


__all__ = [
    "HEAD_LAYER",
    "LstclBatchNorm",
    "LstclHead",
    "contrastive_loss",
    "cosine_loss",
    "follow_parameters",
    "gather_keys",
    "world_size",
]
