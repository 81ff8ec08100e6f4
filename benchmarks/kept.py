"""The memory that autograd keeps between forward and backward pass."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def bytes_kept(forward: Callable[[], object], own: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of `forward()`, without `own`; each storage counts once."""
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # kept alive, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    del output
    return sum(storage.nbytes() for storage in kept.values())
