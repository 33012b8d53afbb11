"""Copies, seeds and sums of a step for which the host does not wait for the device."""

from collections.abc import Callable

import torch
from torch import distributed

from ...modeling.modeling_lstcl_heads import host_group


Rows = dict[str, torch.Tensor]
BatchPreparation = Callable[[Rows, torch.device], Rows]


class BatchCopies:
    """
    Copies batches to the device and prepares them there. With CUDA this happens on a stream of its own, while the
    device is still busy with the step before.

    Args:
        device (`torch.device`):
            The device.
        prepare_batch (`Callable[[dict, torch.device], dict]`):
            Moves the tensors of a batch to the device and turns them into the input of the task.
    """

    def __init__(self, device: torch.device, prepare_batch: BatchPreparation):
        self.device, self.prepare_batch = device, prepare_batch
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare(self, rows: Rows) -> Rows:
        """
        The input of the task.

        Args:
            rows (`dict[str, torch.Tensor]`):
                Stacked tensors of a batch, on the CPU.

        Returns:
            `dict[str, torch.Tensor]`: tensors on the device.
        """
        if self.stream is None:
            return self.prepare_batch(rows, self.device)
        with torch.cuda.stream(self.stream):
            batch = self.prepare_batch(rows, self.device)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for value in batch.values():
            value.record_stream(current)  # else its memory could be used again while the step still reads it
        return batch


def seed_device(device: torch.device, seed: int) -> None:
    """
    Seed the random numbers of the CPU and of one device. `torch.manual_seed` also seeds accelerators that are not in
    use, which takes longer than all the rest of a small step's bookkeeping.

    Args:
        device (`torch.device`):
            The device.
        seed (`int`):
            The seed.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed_all(seed)


def sum_over_hosts(values: torch.Tensor) -> torch.Tensor:
    """
    Sum over all processes, without their devices. All processes call this together.

    Args:
        values (`torch.Tensor`):
            Numbers on the CPU. They are replaced by the sum.

    Returns:
        `torch.Tensor`: the same tensor.
    """
    distributed.all_reduce(values, group=host_group(distributed.group.WORLD))
    return values
