"""
What contrastive frameworks are made of: projection and prediction heads, losses, keys gathered from all processes.

Behaviour follows the official codes of MoCo v3 (facebookresearch/moco-v3, commit c349e6e), SimSiam
(facebookresearch/simsiam, commit a7bc177) and, of BYOL for video, SlowFast (commit 287ec00).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F


def world_size() -> int:
    """Processes that train together; 1 without any."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _SumOverProcesses(torch.autograd.Function):
    """
    The sum over all processes; so is, going backward, its gradient.

    `torch.distributed.nn.functional.all_reduce` warns of its deprecation in torch 2.14, and what it refers to,
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
    Batch norm whose batch is that of all processes together, on any device (torch's `SyncBatchNorm` refuses CPUs).
    Statistics are in float32 whatever the features are.

    Args:
        num_features (`int`):
            Width.
        eps (`float`):
            Added to the variance.
        momentum (`float`):
            Share of a batch in the running statistics.
        affine (`bool`, *optional*, defaults to `True`):
            Whether it has parameters.
    """

    def __init__(self, num_features: int, eps: float, momentum: float, affine: bool = True):
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine)
        self.share = momentum

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(batch_size, num_features)` to as many."""
        if not self.training or world_size() == 1:
            return super().forward(features)
        values = features.float()
        count = _SumOverProcesses.apply(values.new_tensor([float(len(values))]))
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


class LstclHeadLinear(nn.Linear):
    """A layer of a head; starts as torch's own do, which the official codes leave as they are."""


class LstclHead(nn.Sequential):
    """
    Linear layers with a batch norm and a ReLU after each but the last; numbered as the official codes number theirs.

    Args:
        sizes (`Sequence[int]`):
            Width of the input and of each layer's output.
        last_bias (`bool`):
            Whether the last layer has a bias (BYOL and SimSiam's predictor); the others, with a norm behind them, have
            none.
        last_norm (`bool`):
            Whether a norm without parameters comes last (MoCo v3 and SimSiam's projector).
        eps, momentum (`float`):
            Of the norms.
    """

    def __init__(self, sizes: Sequence[int], last_bias: bool, last_norm: bool, eps: float, momentum: float):
        layers: list[nn.Module] = []
        last = len(sizes) - 2
        for index, (size_in, size_out) in enumerate(zip(sizes, sizes[1:])):
            layers.append(LstclHeadLinear(size_in, size_out, bias=index == last and last_bias))
            if index < last:
                layers += [LstclBatchNorm(size_out, eps=eps, momentum=momentum), nn.ReLU()]
            elif last_norm:
                layers.append(LstclBatchNorm(size_out, eps=eps, momentum=momentum, affine=False))
        super().__init__(*layers)


def _in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """Without mixed precision, which a device of shapes alone (meta) does not have."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def gather_keys(keys: torch.Tensor) -> tuple[torch.Tensor, int]:
    """
    Keys of all processes, and the row at which this one's begin. No gradient goes through.

    Raises:
        ValueError: processes have different numbers of keys.
    """
    keys, world = keys.detach(), world_size()
    if world == 1:
        return keys, 0
    counts = [torch.zeros(1, dtype=torch.long, device=keys.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(keys)], device=keys.device))
    sizes = [int(count) for count in counts]
    if len(set(sizes)) > 1:
        raise ValueError(f"Every process must bring as many clips as the others, got {sizes}: set `drop_last`.")
    gathered = [torch.empty_like(keys) for _ in range(world)]
    dist.all_gather(gathered, keys.contiguous())
    return torch.cat(gathered), len(keys) * dist.get_rank()


def contrastive_loss(query: torch.Tensor, key: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    MoCo v3's InfoNCE: each query picks its own key among those of the whole batch.

    ```
    for i in range(n):                                        # this process's queries
        logits = [cos(query[i], keys[j]) / temperature for j in range(n * world)]
        loss += cross_entropy(logits, n * rank + i) * 2 * temperature / n
    ```

    Args:
        query (`torch.Tensor` of shape `(batch_size, projection_size)`):
            Predictions.
        key (`torch.Tensor` of shape `(batch_size, projection_size)`):
            What they are to match; gathered from all processes, without gradient.
        temperature (`float`):
            Divides the cosines.

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
    Mean of minus the cosines of two `(batch_size, projection_size)`; no gradient goes to the second. SimSiam's loss;
    BYOL's is `2 + 2 * cosine_loss`.
    """
    with _in_float32(prediction.device):
        return -F.cosine_similarity(prediction.float(), target.detach().float(), dim=1).mean()


@torch.no_grad()
def follow_parameters(target: nn.Module, online: nn.Module, momentum: torch.Tensor | float) -> None:
    """
    Move every parameter of `target` towards its counterpart in `online`; running statistics stay its own.

    Args:
        target, online (`nn.Module`):
            Of one architecture.
        momentum (`torch.Tensor` of shape `()` or `float`):
            Share that stays. Worked out in float32: in half precision small steps would vanish.
    """
    for kept, new in zip(target.parameters(), online.parameters(), strict=True):
        kept.copy_(kept.float() * momentum + new.float() * (1 - momentum))


__all__ = [
    "LstclBatchNorm",
    "LstclHead",
    "LstclHeadLinear",
    "contrastive_loss",
    "cosine_loss",
    "follow_parameters",
    "gather_keys",
    "world_size",
]
