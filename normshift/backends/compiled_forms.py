"""The formulas that C++ and Triton implement: `mixed` and `gated` of `cpu/formulas.h` and `triton_formulas.py`."""

from typing import NamedTuple

from torch import Tensor


class Mixture(NamedTuple):
    """A mixture of statistics: of each image (0), of the batch (-1), or of groups of channels (their number)."""

    statistics: tuple[int, ...]
    eps: float

    def evaluate(self, backend, moments, batch, parameters) -> tuple[Tensor, Tensor]:
        return backend.mixed(*self._arguments(moments, batch, parameters))

    def gradient(self, backend, moments, batch, parameters, dscale: Tensor, dshift: Tensor) -> list[Tensor | None]:
        found = backend.mixed_gradient(*self._arguments(moments, batch, parameters), dscale, dshift)
        if -1 not in self.statistics:  # these two were not computed
            found[2:4] = None, None
        return found[: 4 + len(parameters)]

    def _arguments(self, moments, batch, parameters) -> tuple:
        logits = parameters[2:] or (None, None)
        return *moments[:2], *(batch or (None, None))[:2], *parameters[:2], *logits, self.statistics, self.eps


class ChannelGates(NamedTuple):
    """One gate for each channel, 1 for batch norm and 0 for instance norm: a parameter, or fixed.

    Fixed gates are 1 from channel `first` up to, without, channel `last`, and 0 elsewhere. The parameters are then
    weight and bias of the first part of the channels, and weight and bias of the rest.
    """

    eps: float
    first: int = 0
    last: int = 0

    def evaluate(self, backend, moments, batch, parameters) -> tuple[Tensor, Tensor]:
        return backend.gated(*self._arguments(moments, batch, parameters))

    def gradient(self, backend, moments, batch, parameters, dscale: Tensor, dshift: Tensor) -> list[Tensor]:
        found = backend.gated_gradient(*self._arguments(moments, batch, parameters), dscale, dshift)
        if len(parameters) == 3:
            return found
        weights, biases = (v.tensor_split([len(parameters[0])]) for v in found[4:6])
        return [*found[:4], weights[0], biases[0], weights[1], biases[1]]

    def _arguments(self, moments, batch, parameters) -> tuple:
        rho = parameters[2] if len(parameters) == 3 else None
        halves = parameters[: 2 if rho is not None else 4]
        return *moments[:2], *batch[:2], halves[::2], halves[1::2], rho, self.first, self.last, self.eps
