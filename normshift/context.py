"""What a formula may know beside moments and parameters, for layers that ask for it: `Norm.context()`.

A layer makes its formula anew in each forward, so a formula can hold what is true of this forward alone: the mode, the
images' domains, a random draw. The backward pass and a second derivative use the same formula, and so the same draw.
Layers that do not ask for a context pay nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_domains: Tensor | None = None


class Context:
    """One forward pass, as its formula sees it.

    Attributes:
        training: whether the layer is in training mode.
        name: the layer's name in its network; "" unless `name_layers` has set it.
    """

    def __init__(self, training: bool, name: str = "", generator: torch.Generator | None = None):
        self.training, self.name, self._generator = training, name, generator
        self._domains = _domains
        self._drawn: dict[str, Tensor] = {}

    def uniform(self, what: str, like: Tensor) -> Tensor:
        """Numbers in [0, 1) of the shape, type and device of `like`: drawn once under that name, and the same numbers
        where the formula is evaluated again for a gradient."""
        if what not in self._drawn:
            drawn = torch.rand(like.shape, generator=self._generator, dtype=like.dtype, device=like.device)
            self._drawn[what] = drawn
        return self._drawn[what]

    def domains(self, like: Tensor) -> Tensor:
        """Each image's domain, (N,) integers on the device of `like`, (N, ...).

        Raises:
            ValueError: the batch carries no domains, or not one for each image.
        """
        if self._domains is None:
            raise ValueError(
                "this norm wants each image's domain: run the network within normshift.batch_domains(ids)."
            )
        if len(self._domains) != len(like):
            raise ValueError(f"batch_domains names {len(self._domains)} domains for a batch of {len(like)} images.")
        return self._domains.to(like.device)


@contextmanager
def batch_domains(ids: Tensor | Sequence[int]) -> Iterator[None]:
    """Say which domain each image of the batch is of, to all norms that ask, for as long as the block lasts.

    The backward pass may run outside. The block is not for one thread alone: networks that run in several threads at
    once cannot have different domains.

    Args:
        ids: one integer for each image, (N,).
    """
    global _domains
    before, _domains = _domains, torch.as_tensor(ids)
    try:
        yield
    finally:
        _domains = before
