"""Formulas that are compiled as loops, by the names that `cpu_formulas.cpp` knows them by."""

from typing import NamedTuple

from torch import Tensor


class Mixture(NamedTuple):
    """Of statistics: each image's own (0), the batch's (-1), or those of so many groups of channels."""

    statistics: tuple[int, ...]
    eps: float

    def evaluate(self, backend, moments, batch, parameters) -> tuple[Tensor, Tensor]:
        return backend.mixed(*self._arguments(moments, batch, parameters))

    def gradient(self, backend, moments, batch, parameters, dscale: Tensor, dshift: Tensor) -> list[Tensor | None]:
        found = backend.mixed_gradient(*self._arguments(moments, batch, parameters), dscale, dshift)
        if -1 not in self.statistics:  # what stands there has not been written
            found[2:4] = None, None
        return found[: 4 + len(parameters)]

    def _arguments(self, moments, batch, parameters) -> tuple:
        logits = parameters[2:] or (None, None)
        return *moments[:2], *(batch or (None, None))[:2], *parameters[:2], *logits, self.statistics, self.eps


class ChannelGates(NamedTuple):
    """Between batch and instance norm: a parameter, or 1 for the channels from `first` to `last` and 0 for the others.

    Where they are fixed, the parameters are the weight and bias of the first channels, and of the rest.
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
