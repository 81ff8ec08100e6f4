"""Moments of a batch, pooled within one process or over all, with gradients for every process."""

from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor

from normshift.engine import Batch, Moments


def pooled_batch(moments: Moments, backend: ModuleType, everywhere: bool) -> tuple[Batch, int | Tensor]:
    """Pool (N, C) moments over the batch, or over the batches of all processes.

    Communication is one all-gather of 2C + 1 numbers in the forward pass and one all-reduce in the backward pass, as in
    torch's SyncBatchNorm. Batches and maps may differ in size between processes, and may be empty.

    Args:
        moments: of this process's maps.
        backend: the module of `normshift.backends` that pools them.
        everywhere: whether to pool over all processes.

    Returns:
        The statistics, (C,) each, and the number of values of a channel that they are computed from.
    """
    rows = moments.mean.shape[0]
    count = rows * moments.positions
    # for an empty batch: zeros that depend on the input, so that its backward pass takes part in the all-reduce
    mean, var = backend.pooled(*moments[:2]) if count else (v.sum(0) for v in moments[:2])
    if not is_pooled_everywhere(everywhere):
        return Batch(mean, var, 1 / max(rows, 1)), count
    local = torch.cat([mean, var, mean.new_full((1,), count)])
    means, variances, counts = _AllGather.apply(local).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    divisor = total.clamp(min=1)
    share = counts / divisor
    world_mean = (share * means).sum(0)
    world_var = (share * (variances + (means - world_mean).square())).sum(0)  # law of total variance
    return Batch(world_mean, world_var, moments.positions / divisor, everywhere=True), total


def is_pooled_everywhere(wanted: bool) -> bool:
    """Whether a batch is pooled over several processes, if that is wanted."""
    return wanted and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _AllGather(torch.autograd.Function):
    """The vectors of all processes, (processes, values)."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local.contiguous())
        return torch.stack(gathered)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _AllReduce.apply(gradient)[dist.get_rank()]


class _AllReduce(torch.autograd.Function):
    """The sum over all processes. Its gradient is the same sum, so it can be differentiated any number of times."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        total = local.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _AllReduce.apply(gradient)
