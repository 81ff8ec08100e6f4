"""Reading checkpoints whose weights a training starts from, and finding a classifier's head."""

import argparse
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_modules.checkpoint_files import fault_of, is_safetensors
from normshift.checkpoints import names_here, unwrapped
from normshift.released_blur import filter_size
from normshift.wrapped import bare

DISCRIMINATOR = "discriminator"
"""Name of the submodule that domain-adversarial modules use in training only."""

PLAIN = [
    argparse.Namespace,
    np.dtype,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]
"""Types, besides tensors, that published checkpoints contain (flags, scores) and that run no code when loaded."""


def read_checkpoint(path: str) -> Any:
    """The contents of a checkpoint file of torch or safetensors, read without running any code in it.

    Raises:
        ValueError: the file is not a checkpoint that can be read safely. The message says what it is.
    """
    fault = fault_of(path)
    if fault:
        raise ValueError(f"{path} cannot be read as a checkpoint: it {fault}.")
    try:
        if is_safetensors(path):
            return load_file(path)
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many classes of errors for unreadable files
        raise ValueError(f"{path} cannot be read as a checkpoint: {_in_words(error)}.") from error


def _in_words(error: Exception) -> str:
    """torch's error for a file that it cannot read, as a sentence."""
    text = str(error)
    code = re.search(r"GLOBAL (\S+)", text)
    if code:
        return (
            f"it holds {code[1]}, and reading that would run code, which is not done; where you trust the file, save "
            'its tensors alone: torch.save({"state_dict": ...}, FILE)'
        )
    first = " ".join((text.splitlines() or [""])[0].split())[:200].rstrip(".") or type(error).__name__
    return "it is damaged, or of another kind" + ("" if "weights_only" in first else f" ({first})")


def network_weights(checkpoint: Any) -> dict[str, Tensor]:
    """The network's tensors by key, without the prefix "net." of our modules.

    Raises:
        ValueError: there are no tensors, or one cannot be a weight (sparse, quantised, not finite).
    """
    state = unwrapped(checkpoint)
    if not state:
        held = ", ".join(map(str, list(checkpoint)[:6])) or "nothing"
        raise ValueError(f"it holds no tensors, but {held}: pass a network's state dict")
    own = {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}
    if "pytorch-lightning_version" in checkpoint and own:
        state = own
    for key, value in state.items():
        fault = _fault_of_tensor(value)
        if fault:
            raise ValueError(f"its {key} {fault}")
    return state


def _fault_of_tensor(value: Tensor) -> str | None:
    """Why a tensor cannot be a network's weight; None if it can."""
    if value.layout != torch.strided or value.is_quantized:
        return "is sparse or quantised, and weights are plain tensors"
    if value.is_meta:
        return "was saved without values, on the meta device"
    size = value.numel() * value.element_size()
    if size > max(2**20, 4 * value.untyped_storage().nbytes()):
        return f"claims {size} bytes and holds {value.untyped_storage().nbytes()}"
    if value.is_floating_point() and not value.isfinite().all():
        return "is not finite: it is of a training that diverged, or damaged"
    return None


@contextmanager
def about(path: str) -> Iterator[None]:
    """Name the file in a ValueError that is raised about its contents."""
    try:
        yield
    except ValueError as error:
        sentence = str(error)
        end = "" if sentence.endswith((".", "?")) else "."
        raise (error if path in sentence else ValueError(f"{path}: {sentence}{end}")) from error


def blur_of(checkpoint: Mapping, state: Mapping[str, Tensor]) -> int | None:
    """The blur filter size of a checkpoint's network; None if it is not anti-aliased or unknown."""
    ours = checkpoint.get("hyper_parameters")
    return filter_size(state) or (ours.get("antialias") if isinstance(ours, Mapping) else None)


def refuse_other_blur(checkpoint: Mapping, state: Mapping[str, Tensor], antialias: int | None) -> None:
    """Raise a ValueError if a checkpoint's network has another blur filter size; without blur it is accepted."""
    size = blur_of(checkpoint, state)
    if size and size != antialias:
        here = f"blurs with {antialias}" if antialias else "does not blur"
        raise ValueError(
            f"it is of a network anti-aliased with filter size {size}, and this one {here}: pass --antialias {size} "
            "where the study has that flag, or a plain network's checkpoint"
        )


def head_of(net: nn.Module) -> str:
    """The name of a classifier's last linear layer, whose input is the network's features.

    Raises:
        ValueError: the network has no linear layer.
    """
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(net).__name__} has no linear layer that could be its classifier.")
    return linear[-1]


def with_own_head(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's weights, but the network's own head if the checkpoint's is for another number of classes.

    The same if the network has a bottleneck before its classifier (`recipe_networks`) and the checkpoint has none.
    """
    head, own = head_of(net), net.state_dict()
    weights = bare(weights, own)
    outer = head.removesuffix(".fc")
    if outer != head and f"{outer}.weight" in weights:
        kept = {key: value for key, value in weights.items() if not key.startswith(f"{outer}.")}
        return kept | {key: value for key, value in own.items() if key.startswith(f"{outer}.")}
    here = {key: name for key, name in names_here(net, weights).items() if name in (f"{head}.weight", f"{head}.bias")}
    other = any(own[name].numel() != weights[key].numel() for key, name in here.items() if name in own)
    return {**weights, **({key: own[name] for key, name in here.items() if name in own} if other else {})}
