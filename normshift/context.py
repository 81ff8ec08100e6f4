"""The context of a forward pass, for formulas that need more than moments and parameters: `Norm.context()`.

A layer creates a new formula in each forward pass, so a formula can hold what belongs to this pass alone: the training
flag, the images' domains, random numbers. The backward pass and second derivatives use the same formula object, and so
the same random numbers. Activation checkpointing creates a new one: it gets the same random numbers from torch's own
generator, and others from a layer's generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_domains: Tensor | None = None
_for_all_passes = False


class DiffersError(ValueError):
    """A formula that is evaluated once for all forward passes uses something that differs between them."""


@contextmanager
def for_all_passes() -> Iterator[None]:
    """Within the block, a formula that uses random numbers or domains raises `DiffersError`."""
    global _for_all_passes
    before, _for_all_passes = _for_all_passes, True
    try:
        yield
    finally:
        _for_all_passes = before


class Context:
    """What a formula can ask about the forward pass that it is evaluated in.

    Attributes:
        training: whether the layer is in training mode.
        name: the layer's name in its network; "" unless `name_layers` has set it.
    """

    def __init__(self, training: bool, name: str = "", generator: torch.Generator | None = None):
        self.training, self.name, self._generator = training, name, generator
        self._domains = _domains
        self._drawn: dict[str, Tensor] = {}

    def uniform(self, what: str, like: Tensor) -> Tensor:
        """Random numbers in [0, 1) with the shape, type and device of `like`.

        They are drawn once for each name `what`: a formula that is evaluated again for its gradient gets the same ones.
        """
        _refuse("its formula draws random numbers")
        if what not in self._drawn:
            if self._generator is None:  # torch.rand with a symbolic shape and generator=None cannot be compiled
                self._drawn[what] = torch.rand_like(like)
            else:
                self._drawn[what] = torch.rand(
                    like.shape, generator=self._generator, dtype=like.dtype, device=like.device
                )
        return self._drawn[what]

    def domains(self, like: Tensor) -> Tensor:
        """The domain of each image, (N,) integers on the device of `like`, which is (N, ...).

        Raises:
            ValueError: there is no `batch_domains` around the pass, or it has not one domain for each image.
        """
        _refuse("its formula asks for each image's domain")
        if self._domains is None:
            raise ValueError(
                "this norm wants each image's domain: run the network within normshift.batch_domains(ids)."
            )
        if len(self._domains) != len(like):
            raise ValueError(f"batch_domains names {len(self._domains)} domains for a batch of {len(like)} images.")
        return self._domains.to(like.device)


def _refuse(what: str) -> None:
    if _for_all_passes:
        raise DiffersError(what)


@contextmanager
def batch_domains(ids: Tensor | Sequence[int]) -> Iterator[None]:
    """Tell all norms, within the `with` block, which domain each image of the batch is from.

    The backward pass may run outside of the block, except with activation checkpointing, which runs the forward pass
    again. The setting is global: networks that run in several threads at once cannot have different domains.

    Args:
        ids: one integer for each image, (N,).
    """
    global _domains
    before, _domains = _domains, torch.as_tensor(ids)
    try:
        yield
    finally:
        _domains = before
