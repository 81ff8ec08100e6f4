"""The batch's moments, of one process or of all, with gradients that flow back to each."""

from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor

from normshift.engine import Batch, Moments


def pooled_batch(moments: Moments, backend: ModuleType, everywhere: bool) -> tuple[Batch, int | Tensor]:
    """Pool (N, C) moments over the batch, or over the batches of all processes.

    Between processes: one all-gather of 2C + 1 numbers forward and one all-reduce backward, as in torch's
    SyncBatchNorm; batches and maps may differ in size between the processes, and be empty in some or in all.

    Args:
        backend: the module of `normshift.backends` that pools them.
        everywhere: over all processes.

    Returns:
        the statistics, and the number of values of a channel that they are computed from.
    """
    rows = moments.mean.shape[0]
    count = rows * moments.positions
    # of nothing they are 0, but parts of the graph: its backward pass, too, has to meet the other processes'
    mean, var = backend.pooled(*moments[:2]) if count else (v.sum(0) for v in moments[:2])
    if not everywhere or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Batch(mean, var, 1 / max(rows, 1)), count
    local = torch.cat([mean, var, mean.new_full((1,), count)])
    means, variances, counts = _AllGather.apply(local).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    divisor = total.clamp(min=1)
    share = counts / divisor
    world_mean = (share * means).sum(0)
    world_var = (share * (variances + (means - world_mean).square())).sum(0)  # law of total variance
    return Batch(world_mean, world_var, moments.positions / divisor, everywhere=True), total


class _AllGather(torch.autograd.Function):
    """Every process's vector, (processes, values)."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local.contiguous())
        return torch.stack(gathered)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _AllReduce.apply(gradient)[dist.get_rank()]


class _AllReduce(torch.autograd.Function):
    """The sum over all processes: its own transpose, so that it can be differentiated again and again."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        total = local.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _AllReduce.apply(gradient)
