"""Running averages of a batch's moments: how they are kept, and how other people's tools find them."""

import weakref
from numbers import Real
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normshift.engine import Batch, Moments
from normshift.sync import pooled_batch

COUNT = "num_batches_tracked"


class RunningStatistics:
    """Mix-in of norms that need the batch's moments: running averages for evaluation, and synchronisation.

    Running averages follow `nn.BatchNorm2d`: `momentum` is the share of the new batch, None for the plain mean of all
    batches since the last reset; `running_var` is unbiased. With `sync` set, and where `torch.distributed` runs more
    than one process, training moments are the whole world's.

    `modules()` and `named_modules()` list a `BatchNormView` behind each such layer, so that tools that look for torch's
    batch norms reset, recalibrate and freeze it as one; `children()`, `parameters()`, `buffers()` and `state_dict()`
    know nothing of that.
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
        """This layer as tools that search for torch's `_BatchNorm` see it: always the same object."""
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
        """The batch's statistics; with `observe` the running averages are updated with them."""
        batch, count = pooled_batch(moments, backend, self.sync)
        if observe:
            self.observe(*batch[:2], count, backend)
        return batch

    def running(self, dtype: torch.dtype) -> Batch:
        """The running averages, as copies, which a later step leaves as they are in a graph."""
        return Batch(self.running_mean.to(dtype, copy=True), self.running_var.to(dtype, copy=True))

    @torch.no_grad()
    def observe(self, mean: Tensor, var: Tensor, count: int | Tensor, backend: ModuleType) -> None:
        """Update the running averages with moments of `count` values a channel; not where `count` is 0."""
        counted = count if isinstance(count, Tensor) else None  # everywhere: not looked at, a GPU would have to wait
        if not self.track_running_stats or self.running_mean is None or not (counted is not None or count):
            return
        some = None if counted is None else counted.sign()
        buffers, momentum = self._buffers, self.momentum  # read there: a module takes its time to find an attribute
        batches, running_mean = buffers.get(COUNT), buffers["running_mean"]  # a layer pickled long ago has no count
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
        """Forget all batches."""
        if self._buffers.get("running_mean") is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self._buffers[COUNT].zero_()

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        count = self._buffers.get(COUNT)
        if count is not None and self.momentum is None:  # without it, a mean cannot be gone on with
            destination[prefix + COUNT] = count if keep_vars else count.detach()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        key, count = prefix + COUNT, self._buffers.get(COUNT)
        if key in unexpected and count is not None:
            unexpected.remove(key)
            with torch.no_grad():
                count.copy_(state_dict[key])


class _BatchAlone:
    """A layer that is set to be without running averages: it takes its batch's statistics in evaluation, too.

    As torch's batch norms do; there is no sharing between processes in evaluation.
    """

    training = True

    def __init__(self, layer: RunningStatistics):
        self._layer = layer

    def batch(self, moments: Moments, backend: ModuleType, observe: bool) -> Batch:
        return pooled_batch(moments, backend, self._layer.sync and self._layer.training)[0]


class BatchNormView(_BatchNorm):
    """A layer with running averages, seen as torch's batch norm: `torch.optim.swa_utils.update_bn`, Lightning's
    `StochasticWeightAveraging`, and whatever else asks for `_BatchNorm`, find the averages by it.

    It has no parameters, buffers or children of its own. Momentum, averages, affine parameters and training mode are
    those of the layer, to read and to write. A view lives no longer than its layer.
    """

    OF_THE_LAYER = (
        "num_features", "eps", "momentum", "weight", "bias", "running_mean", "running_var", COUNT,
        "track_running_stats", "training",
    )  # fmt: skip
    affine = True

    def __init__(self, layer: RunningStatistics):
        nn.Module.__init__(self)  # not _BatchNorm's, which would make parameters
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
            raise ReferenceError("this view's norm layer is gone: ask the network's modules() anew.")
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
