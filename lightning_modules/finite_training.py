"""Stops a training when a loss, gradient, weight or output is not finite (NaN or infinite), and names the layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytorch_lightning as pl
import torch
import torch.distributed as processes
from torch import Tensor, nn

from lightning_modules.study_module import steps_of
from lightning_modules.weight_averaging import evaluated_network


class NotFiniteError(ArithmeticError):
    """A number in a training is not finite.

    Args:
        step: the study's step, from 1.
        what: what is not finite, as the middle of a sentence.
        layer: the first layer or parameter with such a number; None if unknown.
    """

    def __init__(self, step: int, what: str, layer: str | None = None):
        super().__init__(f"at step {step} {what}{f', first {layer}' if layer else ''}")
        self.step, self.what, self.layer = step, what, layer


class FiniteTraining(pl.Callback):
    """Raises `NotFiniteError` in all processes at the first loss or gradient that is not finite.

    Weights and running statistics are checked before each evaluation, at the end of each epoch and before a checkpoint
    is written; in an evaluation the network's output is checked. So the last checkpoint is always finite.

    On a GPU the checks do not interrupt its work: the loss is read while its backward pass runs, and the gradients'
    norms are read one step later. (On a CPU both are read at once, before the optimiser's step.) With 16-mixed
    precision, loss scaling causes gradients that are not finite and skips their steps; there they are an error only
    at a scale of 1.
    """

    def __init__(self):
        self._excused: set[str] | None = None  # parameters and buffers that were not finite at the start
        self._gradients: _Gradients | None = None
        self._fresh: tuple[_Later, Tensor] | None = None  # an evaluation's batch: is its output broken, and its images
        self._output: tuple[_Later, Tensor] | None = None  # the same of the batch before
        self._broken: str | None = None  # the first layer of an evaluation that is not finite; "" if unknown
        self._handles: list = []

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self._excused is None:  # a mask may hold infinities by design
            self._excused = {*_not_finite(module)}
            self._names = {id(parameter): name for name, parameter in module.named_parameters()}

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch, batch_idx: int) -> None:
        self._batch = batch, batch_idx

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        broken = (~loss.detach().isfinite()).any().float()
        self._loss = _Later(broken, shared=trainer.world_size > 1)

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._gradients is not None:
            self._check_gradients(trainer)  # those of the step before
        if not self._loss.read():
            return

        def again() -> None:
            with _silent(module), trainer.precision_plugin.train_step_context():
                module.training_step(*self._batch)

        buffers = {name for name, _ in module.named_buffers()}  # in training the loss does not depend on these
        layer = _agreed(trainer, first_not_finite(module, again, self._excused | buffers))
        raise NotFiniteError(steps_of(trainer, module) + 1, "the loss is not finite", layer)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer) -> None:
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None and p.numel()]
        if not trained:
            return
        largest = torch.stack(torch._foreach_norm([p.grad for p in trained], float("inf")))
        names = [self._names.get(id(parameter), "a parameter") for parameter in trained]
        self._gradients = _Gradients(steps_of(trainer, module) + 1, names, _Later(largest))
        if not largest.is_cuda:
            self._check_gradients(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        self._batch = None  # frees memory for an evaluation

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._check_network(trainer, module)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        self._check_network(trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._check_network(trainer, module)
        self._broken = self._fresh = self._output = None
        self._handles = [module.register_forward_hook(self._keep_output)]

    def on_validation_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        waiting, self._output, self._fresh = self._output, self._fresh, None
        self._check_output(trainer, module, waiting)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # the last batch is checked here, while the averaged weights are still in place
        self._check_output(trainer, module, self._output)
        self._unhook()
        if trainer.strategy.reduce_boolean_decision(self._broken is not None, all=False):
            what = "the network's output is not finite in evaluation"
            raise NotFiniteError(steps_of(trainer, module), what, _agreed(trainer, self._broken))

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._unhook()
        self._gradients = self._fresh = self._output = None

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _check_gradients(self, trainer: pl.Trainer) -> None:
        (step, names, largest), self._gradients = self._gradients, None
        finite = largest.read().isfinite()
        if finite.all():
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.get_scale() > 1:
            return
        # gradients flow from output to input, so the last such parameter got one first
        first = [name for name, good in zip(names, finite.tolist(), strict=True) if not good][-1]
        raise NotFiniteError(step, "a gradient is not finite", f"that of {first}")

    def _check_network(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._gradients is not None:
            self._check_gradients(trainer)
        networks = [module, evaluated_network(trainer, module)]
        broken = [name for network in dict.fromkeys(networks) for name in _not_finite(network, self._excused)]
        if trainer.strategy.reduce_boolean_decision(bool(broken), all=False):
            what = "a weight or running statistic is not finite any more"
            raise NotFiniteError(steps_of(trainer, module), what, _agreed(trainer, broken[0] if broken else None))

    def _keep_output(self, module: nn.Module, inputs: tuple, output) -> None:
        if isinstance(output, Tensor):  # DDP also calls the module for the whole step
            self._fresh = _Later((~output.isfinite()).any()), inputs[0]

    def _check_output(self, trainer: pl.Trainer, module: pl.LightningModule, waiting: tuple | None) -> None:
        if waiting is None or self._broken is not None or not waiting[0].read():
            return

        def again() -> None:
            with trainer.precision_plugin.val_step_context():
                module.forward(waiting[1])

        self._broken = first_not_finite(module, again, self._excused) or ""


class _Gradients(NamedTuple):
    """The largest absolute gradient of each parameter at a step."""

    step: int
    names: list[str]
    largest: _Later


class _Later:
    """Numbers that are copied to the CPU in the background. `read` waits for the copy, not for later work of the GPU.

    Args:
        shared: use the maximum over all processes.
    """

    def __init__(self, numbers: Tensor, *, shared: bool = False):
        self._numbers, self._work, self._copied = numbers, None, None
        if shared:
            self._work = processes.all_reduce(numbers, processes.ReduceOp.MAX, async_op=True)
        if numbers.is_cuda:
            self._copy_beside()

    def _copy_beside(self) -> None:
        """Copy on a separate stream, after the work that has been queued so far."""
        stream = torch.cuda.Stream(self._numbers.device)
        stream.wait_stream(torch.cuda.current_stream(self._numbers.device))
        self._host = torch.empty(self._numbers.shape, dtype=self._numbers.dtype, pin_memory=True)
        with torch.cuda.stream(stream):
            if self._work is not None:
                self._work.wait()  # only the stream waits
            self._host.copy_(self._numbers, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> Tensor:
        if self._copied is not None:
            self._copied.synchronize()
            return self._host
        if self._work is not None:
            self._work.wait()
        return self._numbers


@torch.no_grad()
def first_not_finite(network: nn.Module, run: Callable[[], object], excused: Iterable[str] = ()) -> str | None:
    """The first parameter or buffer that is not finite, else the first layer whose output is not.

    Args:
        run: runs a forward pass of the network.
        excused: names of parameters and buffers that are not checked.

    Returns:
        A parameter's or buffer's name, or "in the output of LAYER"; None if everything is finite.
    """
    held = next(iter(_not_finite(network, excused)), None)
    if held is not None:
        return held
    found: list[tuple[str, Tensor]] = []

    def check(name: str, output) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            found.append((name, (~output.isfinite()).any()))

    named = [(name, module) for name, module in network.named_modules() if name]
    handles = [m.register_forward_hook(lambda _, __, output, name=name: check(name, output)) for name, m in named]
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code would not run the hooks
            run()
    finally:
        for handle in handles:
            handle.remove()
    return next((f"in the output of {name}" for name, broken in found if broken), None)


def _not_finite(network: nn.Module, excused: Iterable[str] = ()) -> list[str]:
    """Names of the parameters and buffers that are not finite; all are checked with one wait for the GPU."""
    named = dict([*network.named_parameters(), *network.named_buffers()])
    some = {name: value.detach() for name, value in named.items() if value.is_floating_point() and value.numel()}
    if not some:
        return []
    by_kind: dict[tuple, list[str]] = {}
    for name, value in some.items():
        by_kind.setdefault((value.device, value.dtype), []).append(name)
    broken = set()
    for names in by_kind.values():
        finite = torch.stack(torch._foreach_norm([some[name] for name in names], float("inf"))).isfinite().tolist()
        broken |= {name for name, good in zip(names, finite, strict=True) if not good}
    excused = set(excused)
    return [name for name in some if name in broken and name not in excused]


def _agreed(trainer: pl.Trainer, layer: str | None) -> str | None:
    """The first layer that any process names."""
    named = [layer]
    if trainer.world_size > 1:
        named = [None] * trainer.world_size
        processes.all_gather_object(named, layer)
    return next((one for one in named if one), None)


@contextmanager
def _silent(module: pl.LightningModule) -> Iterator[None]:
    """Let a module run its training step again: nothing is logged and, under manual optimisation, nothing changes."""
    optimizers = [] if module.automatic_optimization else _several(module.optimizers())
    silenced = [(module, "log"), (module, "log_dict"), (module, "manual_backward")]
    silenced += [(optimizer, "step") for optimizer in optimizers]
    for owner, name in silenced:
        setattr(owner, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for owner, name in silenced:
            delattr(owner, name)


def _several(one_or_more: object) -> list:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]
