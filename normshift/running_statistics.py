"""Running averages of batch moments, and a view of them for tools that search for torch's batch norms."""

import weakref
from functools import cache
from numbers import Real
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normshift.backends.compiled import Averages
from normshift.engine import Batch, Moments
from normshift.sync import is_pooled_everywhere, pooled_batch

COUNT = "num_batches_tracked"


class RunningStatistics:
    """Mix-in for norms that use the batch's moments: running averages for evaluation, and synchronisation.

    Running averages are as in `nn.BatchNorm2d`: `momentum` is the share of the new batch, None means the mean of all
    batches since the last reset, and `running_var` is unbiased. If `sync` is set and `torch.distributed` runs more than
    one process, moments in training are pooled over all processes.

    `modules()` and `named_modules()` list a `BatchNormView` after each such layer, so that tools that search for
    torch's batch norms can reset, recalibrate and freeze it. `children()`, `parameters()`, `buffers()` and
    `state_dict()` do not contain the view.
    """

    running_mean: Tensor
    running_var: Tensor
    correction: int
    sync: bool = False
    track_running_stats: bool = True  # whether the averages are updated, as in torch's batch norms
    __jit_unused_properties__ = ("as_batch_norm",)

    def _track(self, num_features: int, momentum: float | None, count_in_state: bool = False) -> None:
        if momentum is not None and (not isinstance(momentum, Real) or not 0 <= momentum <= 1):
            raise ValueError(
                "momentum is the new batch's share, a number in [0, 1], or None for the mean of all batches; "
                f"got {momentum!r}."
            )
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer(COUNT, torch.tensor(0, dtype=torch.long), persistent=count_in_state)

    @property
    def as_batch_norm(self) -> "BatchNormView":
        """The view of this layer for tools that search for torch's `_BatchNorm`; always the same object."""
        view = _views.get(self)
        if view is None:
            view = _views[self] = BatchNormView(self)
        return view

    def named_modules(self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True):
        memo = set() if memo is None else memo
        if self in memo:
            return
        yield from super().named_modules(memo, prefix, remove_duplicate)
        if self._buffers.get("running_mean") is not None:
            name = f"{prefix}.as_batch_norm" if prefix else "as_batch_norm"
            yield from self.as_batch_norm.named_modules(memo, name, remove_duplicate)

    def batch_source(self):
        return self if self.running_mean is not None else _BatchAlone(self)

    def batch(self, moments: Moments, backend: ModuleType, observe: bool) -> Batch:
        """The batch's statistics; `observe` says whether to update the running averages with them."""
        batch, count = pooled_batch(moments, backend, self.sync)
        if observe:
            self.observe(*batch[:2], count, backend)
        return batch

    def running(self, dtype: torch.dtype) -> Batch:
        """Copies of the running averages, so that later updates do not change what autograd has saved."""
        return Batch(self.running_mean.to(dtype, copy=True), self.running_var.to(dtype, copy=True))

    def local_averages(self) -> Averages | None:
        """The running averages for an operator that reads and updates them.

        None if the batches of all processes are pooled, if the averages are not in float32 or their number is not an
        int64, or if a subclass has its own way to pool or to average.
        """
        buffers = self._buffers
        mean, var, count = buffers["running_mean"], buffers["running_var"], buffers.get(COUNT)
        plain = mean.dtype is var.dtype is torch.float32 and mean.is_contiguous() and var.is_contiguous()
        counted = self.momentum is not None if count is None else count.dtype is torch.int64
        if not plain or not counted or is_pooled_everywhere(self.sync) or not _averages_as_here(type(self)):  # type: ignore[arg-type]
            return None
        return Averages(mean, var, count, self.momentum, self.training, self.track_running_stats)

    @torch.no_grad()
    def observe(self, mean: Tensor, var: Tensor, count: int | Tensor, backend: ModuleType) -> None:
        """Update the running averages with moments of `count` values for each channel; do nothing if it is 0."""
        counted = count if isinstance(count, Tensor) else None  # of all processes; reading it would wait for the GPU
        if not self.track_running_stats or self.running_mean is None or not (counted is not None or count):
            return
        some = None if counted is None else counted.sign()
        buffers, momentum = self._buffers, self.momentum  # faster than finding buffers as attributes of a module
        batches, running_mean = buffers.get(COUNT), buffers["running_mean"]  # layers pickled by old versions: no count
        if batches is not None:
            batches.add_(1 if some is None else some.to(batches.dtype))
        if momentum is None:
            momentum = 1 / batches.clamp(min=1).to(running_mean.dtype)
        if some is not None:
            momentum = momentum * some.to(running_mean.dtype)
        rest = max(count - 1, 1) if counted is None else (counted - 1).clamp(min=1)
        unbiased = 1 if self.correction else count / rest
        backend.update_running(running_mean, buffers["running_var"], mean, var, momentum, unbiased)

    @torch.no_grad()
    def reset_running_stats(self) -> None:
        """Reset the running averages to mean 0 and variance 1."""
        if self._buffers.get("running_mean") is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self._buffers[COUNT].zero_()

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        count = self._buffers.get(COUNT)
        if count is not None and self.momentum is None:  # a mean of all batches needs their number to continue
            destination[prefix + COUNT] = count if keep_vars else count.detach()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        key, count = prefix + COUNT, self._buffers.get(COUNT)
        if key in unexpected and count is not None:
            unexpected.remove(key)
            with torch.no_grad():
                count.copy_(state_dict[key])


@cache
def _averages_as_here(kind) -> bool:
    return all(getattr(kind, name) is getattr(RunningStatistics, name) for name in ("batch", "running", "observe"))


class _BatchAlone:
    """For layers without running averages: as in torch's batch norms, evaluation uses the batch's statistics too.

    In evaluation they are not pooled over processes.
    """

    training = True

    def __init__(self, layer: RunningStatistics):
        self._layer = layer

    def batch(self, moments: Moments, backend: ModuleType, observe: bool) -> Batch:
        return pooled_batch(moments, backend, self._layer.sync and self._layer.training)[0]

    def local_averages(self) -> Averages | None:
        return None if is_pooled_everywhere(self._layer.sync and self._layer.training) else Averages()


class BatchNormView(_BatchNorm):
    """A view of a layer with running averages as a batch norm of torch.

    Through it, `torch.optim.swa_utils.update_bn`, Lightning's `StochasticWeightAveraging` and other tools that search
    for `_BatchNorm` find the averages. The view has no parameters, buffers or children of its own. Momentum, averages,
    affine parameters and training mode are read from the layer and written to it. It does not keep its layer alive.
    """

    OF_THE_LAYER = (
        "num_features", "eps", "momentum", "weight", "bias", "running_mean", "running_var", COUNT,
        "track_running_stats", "training",
    )  # fmt: skip
    affine = True

    def __init__(self, layer: RunningStatistics):
        nn.Module.__init__(self)  # _BatchNorm's would create parameters
        del self.__dict__["training"]
        self.__dict__["_layer"] = weakref.ref(layer)

    def __getattr__(self, name: str):
        if name in self.OF_THE_LAYER:
            return getattr(self.layer, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value) -> None:
        if name in self.OF_THE_LAYER and "_layer" in self.__dict__:
            setattr(self.layer, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def layer(self) -> nn.Module:
        """The layer that this is a view of."""
        layer = self.__dict__["_layer"]()
        if layer is None:
            raise ReferenceError("this view's norm layer is gone: call the network's modules() again.")
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def __reduce__(self):
        return _view_of, (self.layer,)

    def extra_repr(self) -> str:
        return f"of {type(self.layer).__name__}"


def _view_of(layer: RunningStatistics) -> BatchNormView:
    return layer.as_batch_norm


_views: "weakref.WeakKeyDictionary[RunningStatistics, BatchNormView]" = weakref.WeakKeyDictionary()
