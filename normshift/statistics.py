"""Running statistics of a network whose weights did not come from training steps: averaged, merged, or edited."""

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
    """Estimate anew the running statistics of all norms, this library's and torch's, over a data set.

    To be called after weights were averaged (SWA, EMA), merged or edited: the statistics that training left behind
    belong to other weights. It is for what `torch.optim.swa_utils.update_bn` is for, with two differences:

    - Mean and variance are those of all values of all batches together, by the law of total variance, with the n - 1 of
      `running_var`; torch's are the plain means of the batches' own, which leave out how the batches' means differ.
      (`nn.InstanceNorm2d(track_running_stats=True)` takes means over the images, as it does in training.)
    - The norms alone are in training mode: each layer sees what those before it make of a batch in training. The rest
      of the network, dropout above all, is in evaluation mode, as it is where the statistics are used.

    A norm that no batch reaches keeps its statistics, and so does one that follows none (torchvision's
    `FrozenBatchNorm2d`, `track_running_stats=False`). Modes, momentum, hooks and gradients are left as they were found;
    after an exception the old statistics are back.

    Where `torch.distributed` runs several processes, each calls this with its own share of the data, and all get the
    statistics of all shares. Norms that are synchronised, and `DistributedDataParallel`, want as many batches in each
    process, as in training.

    Args:
        model: any network, changed in place. What `torch.compile` has made of it rests meanwhile.
        loader: batches: an input, a tuple or list that begins with one, or a dict, of which the forward takes the
            arguments that it knows by name. Tensors are moved to the model's device.
        batches: how many to take at most; all by default.
        run: how the model runs on a batch where that is another way: `run(model, batch)`.

    Returns:
        The model.

    Raises:
        ValueError: where there was no batch, the forward takes nothing of a dict, or a lazy norm has seen no batch yet.
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
    """What has been seen of a layer's input. `weight` counts values of a channel, or images where each counts once."""

    weight: int = 0
    mean: Any = 0.0  # (C,); 0.0 before anything was seen, and so are these
    within: Any = 0.0  # variances of images times their weights
    between: Any = 0.0  # squared distances of images' means from the mean, times their weights
    calls: int = 0

    def joined(self, other: "_Sums") -> "_Sums":
        weight = max(self.weight + other.weight, 1)
        apart = other.mean - self.mean
        between = self.between + other.between + apart * apart * (self.weight * other.weight / weight)
        mean = self.mean + apart * (other.weight / weight)
        return _Sums(self.weight + other.weight, mean, self.within + other.within, between, self.calls + other.calls)


class _Pool:
    """Pools the input of a norm: a pre-hook of `layer`, which is the norm or the IBN that it is half of."""

    def __init__(self, norm: nn.Module, layer: nn.Module):
        self.norm: Any = norm  # torch's or ours, with running averages
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
        """Make these the norm's statistics."""
        if self.by_image:
            var = sums.within / sums.weight
        else:
            var = (sums.within + sums.between) / max(sums.weight - (0 if self.corrected else 1), 1)
        self.norm.running_mean.copy_(sums.mean)
        self.norm.running_var.copy_(var)
        if self.norm._buffers.get(COUNT) is not None:
            self.norm.num_batches_tracked.fill_(sums.calls)


def _tracked(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The norms that have running statistics and follow batches, each with the layer that takes its input."""
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
    """Norms in training mode and watched, all else in evaluation mode; on an exception, the old statistics again."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [b for pool in pools for key in BUFFERS if (b := pool.norm._buffers.get(key)) is not None]
    before = [buffer.clone() for buffer in buffers]
    handles = [pool.layer.register_forward_pre_hook(pool) for pool in pools]
    try:
        model.eval()
        for pool in pools:
            pool.norm.training = pool.layer.training = True
        with torch.compiler.set_stance("force_eager"):  # compiled code would run without the hooks
            yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training:
            module.training = mode
        for buffer, value in zip(buffers, before, strict=True):  # momentum has moved those that no result replaces, too
            buffer.copy_(value)


def _run(model: nn.Module, batch) -> None:
    if isinstance(batch, Mapping):
        known = inspect.signature(model.forward).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
        taken = {key: value for key, value in batch.items() if anything or key in known}
        if not taken:
            keys, name = ", ".join(map(str, batch)), type(model).__name__
            raise ValueError(
                f"update_statistics: {name}.forward takes none of the batch's entries ({keys}); say how the model "
                "runs on it, as by run=lambda model, batch: model(batch['image'])."
            )
        model(**taken)
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
