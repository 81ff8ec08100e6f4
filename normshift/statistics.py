"""Running statistics for networks whose weights were averaged, merged or edited after training."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only

from normshift.layers import IBN2d
from normshift.running_statistics import COUNT, BatchNormView, RunningStatistics

BUFFERS = ("running_mean", "running_var", COUNT)


@torch.no_grad()
def update_statistics(
    model: nn.Module,
    loader: Iterable,
    *,
    batches: int | None = None,
    run: Callable[[nn.Module, Any], Any] | None = None,
) -> nn.Module:
    """Estimate the running statistics of all norms, this library's and torch's, again on a data set.

    Call it after weights were averaged (SWA, EMA), merged or edited, because the statistics of training belong to other
    weights. It has the purpose of `torch.optim.swa_utils.update_bn`, with two differences:

    - Mean and variance are those of all values in all batches, by the law of total variance and with n - 1 as in
      `running_var`. torch averages the variances of the batches, which ignores the differences between their means.
      (`nn.InstanceNorm2d(track_running_stats=True)` averages over images, as in training.)
    - Only the norms are in training mode, so that each layer gets inputs that were normalised by the batch. The rest of
      the network, above all dropout, is in evaluation mode, as when the statistics are used.

    Norms that no batch reaches keep their statistics, and so do those that never update them (torchvision's
    `FrozenBatchNorm2d`, `track_running_stats=False`). Modes, momentum, hooks and gradients are unchanged afterwards; an
    exception restores the old statistics.

    With several processes of `torch.distributed`, each calls this with its own share of the data, and all get the
    statistics of all shares. Synchronised norms and `DistributedDataParallel` need the same number of batches in each
    process, as in training.

    Args:
        model: any network, changed in place. It runs eagerly, without code from `torch.compile`.
        loader: batches. A batch is an input, a tuple or list whose first entry is one, or a dict whose entries are
            passed to the forward's arguments of the same name. Tensors are moved to the model's device.
        batches: the largest number of batches to use; by default all.
        run: a function `run(model, batch)` that runs the model on other kinds of batches.

    Returns:
        `model`.

    Raises:
        ValueError: there was no batch, the forward has no argument for any entry of a dict, or a lazy norm has seen no
            batch yet.
    """
    pools = [_Pool(norm, layer) for norm, layer in _tracked(model)]
    if not pools:
        return model
    device = pools[0].norm.running_mean.device
    with _set_for_statistics(model, pools):
        for batch in islice(loader, batches):
            (run or _run)(model, tree_map_only(Tensor, lambda v: v.to(device), batch))
        found = _of_all_processes([pool.sums for pool in pools])
        if not any(sums.calls for sums in found):
            raise ValueError("update_statistics: no batch reached a norm; the loader is empty, or batches=0.")
    for pool, sums in zip(pools, found, strict=True):
        if sums.calls:
            pool.write(sums)
    return model


@dataclass
class _Sums:
    """Sums over a layer's inputs so far. `weight` is the number of values of a channel, or of images."""

    weight: int = 0
    mean: Any = 0.0  # (C,), as are the next two; 0.0 before the first batch
    within: Any = 0.0  # sum over images of variance times weight
    between: Any = 0.0  # sum over images of squared distance between the image's mean and the mean, times weight
    calls: int = 0

    def joined(self, other: "_Sums") -> "_Sums":
        weight = max(self.weight + other.weight, 1)
        apart = other.mean - self.mean
        between = self.between + other.between + apart * apart * (self.weight * other.weight / weight)
        mean = self.mean + apart * (other.weight / weight)
        return _Sums(self.weight + other.weight, mean, self.within + other.within, between, self.calls + other.calls)


class _Pool:
    """A forward pre-hook that pools the moments of a norm's input.

    Args:
        norm: the norm with running averages, torch's or ours.
        layer: the module that gets the input: the norm itself, or the IBN layer that it is half of.
    """

    def __init__(self, norm: nn.Module, layer: nn.Module):
        self.norm: Any = norm
        self.layer, self.sums = layer, _Sums()
        self.by_image = isinstance(norm, _InstanceNorm)
        self.corrected = False  # whether variances are unbiased before they are pooled
        self.channels = slice(None)
        if isinstance(layer, IBN2d):
            self.channels = slice(layer.first, None) if layer.instance_first else slice(layer.first)

    def __call__(self, layer: Any, inputs: tuple) -> None:
        x = inputs[0]
        if self.by_image and x.dim() == layer._get_no_batch_dim():
            x = x.unsqueeze(0)
        if not x.numel():
            return
        moments = torch.ops.normshift.moments(x)
        mean, var = torch.stack(moments)[..., self.channels].to("cpu", torch.float64)  # one wait for a GPU, not two
        positions = x[0, 0].numel()
        self.corrected = bool(getattr(self.norm, "correction", 0)) and x.dim() > 2
        if self.by_image or self.corrected:
            var = var * (positions / max(positions - 1, 1))
        each = 1 if self.by_image else positions
        centre = mean.mean(0)
        between = (mean - centre).square().sum(0) * each
        self.sums = self.sums.joined(_Sums(each * len(x), centre, var.sum(0) * each, between, 1))

    def write(self, sums: _Sums) -> None:
        """Write the pooled statistics to the norm's buffers."""
        if self.by_image:
            var = sums.within / sums.weight
        else:
            var = (sums.within + sums.between) / max(sums.weight - (0 if self.corrected else 1), 1)
        self.norm.running_mean.copy_(sums.mean)
        self.norm.running_var.copy_(var)
        if self.norm._buffers.get(COUNT) is not None:
            self.norm.num_batches_tracked.fill_(sums.calls)


def _tracked(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The norms that update running statistics, each with the layer that gets its input."""
    layers = {id(module.BN): module for module in model.modules() if isinstance(module, IBN2d)}
    for name, module in model.named_modules():
        ours = isinstance(module, (RunningStatistics, _BatchNorm, _InstanceNorm))
        if not ours or isinstance(module, BatchNormView) or module._buffers.get("running_mean") is None:
            continue
        if is_lazy(module.running_mean):
            raise ValueError(f"update_statistics: {name} has no channels yet: run a batch through the model first.")
        if module.track_running_stats:
            yield module, layers.get(id(module), module)


@contextmanager
def _set_for_statistics(model: nn.Module, pools: list[_Pool]):
    """Norms in training mode with hooks, all else in evaluation mode; afterwards modes and old statistics again."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [b for pool in pools for key in BUFFERS if (b := pool.norm._buffers.get(key)) is not None]
    before = [buffer.clone() for buffer in buffers]
    handles = [pool.layer.register_forward_pre_hook(pool) for pool in pools]
    try:
        model.eval()
        for pool in pools:
            pool.norm.training = pool.layer.training = True
        with torch.compiler.set_stance("force_eager"):  # compiled code would not run the hooks
            yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training:
            module.training = mode
        for buffer, value in zip(buffers, before, strict=True):  # the passes have updated them by momentum
            buffer.copy_(value)


def _run(model: nn.Module, batch) -> None:
    if isinstance(batch, Mapping):
        known = inspect.signature(model.forward).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
        arguments = {key: value for key, value in batch.items() if anything or key in known}
        if not arguments:
            keys, name = ", ".join(map(str, batch)), type(model).__name__
            raise ValueError(
                f"update_statistics: {name}.forward takes none of the batch's entries ({keys}); say how the model "
                "runs on it, as by run=lambda model, batch: model(batch['image'])."
            )
        model(**arguments)
    else:
        model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def _of_all_processes(sums: list[_Sums]) -> list[_Sums]:
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return sums
    shares: list = [None] * dist.get_world_size()
    dist.all_gather_object(shares, sums)
    found = []
    for of_layer in zip(*shares, strict=True):
        together = of_layer[0]
        for more in of_layer[1:]:
            together = together.joined(more)
        together.calls = max(share.calls for share in of_layer)  # as training counts steps
        found.append(together)
    return found
