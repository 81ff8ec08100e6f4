"""Times norm layers on single activations."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bandwidth import PASSES, copy_bandwidth, floor
from kept import bytes_kept
from norm_peers import kernels, published
from normshift import NORMS
from normshift.layers import BatchNorm
from paired import Candidate, interleaved, ratios, spread

REFERENCE, AGAIN, FLOOR = ("bn", "reference"), ("bn", "again"), ("floor", "")
KERNELS = {"ours": "auto", "plain": "torch"}
COPIED = {"cpu": 2**28, "cuda": 2**30}
"""Bytes that are copied to measure the bandwidth; far more than the caches."""

Key = tuple[str, str]  # norm, form
Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Setting:
    """What all candidates have in common, except the shape."""

    device: str
    dtype: str
    layout: str
    mode: str  # "train": forward and backward; "eval": forward
    batch_size: int

    def activation(self, shape: Shape) -> Tensor:
        memory_format = torch.channels_last if self.layout == "channels-last" else torch.contiguous_format
        values = torch.randn(self.batch_size, *shape, device=self.device)
        return values.to(getattr(torch, self.dtype), memory_format=memory_format)


@dataclass
class Comparison:
    """All candidates for one shape."""

    size: int  # bytes of the activation
    candidates: dict[Key, Candidate]
    kept: dict[Key, float]  # memory for the backward pass, as a multiple of `size`


def measured(setting: Setting, shapes: Sequence[Shape], flags: argparse.Namespace) -> list[dict]:
    """The results for the record, a row for each shape and candidate."""
    copied = copy_bandwidth(2**24 if flags.quick else COPIED[setting.device], setting.device)
    comparisons = {shape: comparison(shape, setting, flags.norms, flags.forms) for shape in shapes}
    groups = {shape: one.candidates for shape, one in comparisons.items()}
    seconds = interleaved(groups, flags.rounds, flags.min_ms / 1000, setting.device, flags.seed)
    rows = []
    for shape, found in seconds.items():
        for (norm, form), own in found.items():
            relative, times = ratios(own, found[REFERENCE]), [1000 * value for value in own]
            middle = spread(times)
            traffic = PASSES[setting.mode] * comparisons[shape].size
            rows.append(
                {"norm": norm, "form": form, "shape": "x".join(map(str, shape))}
                | asdict(setting)
                | {"milliseconds": middle._asdict(), "ratio": spread(relative)._asdict()}
                | {"kept": comparisons[shape].kept.get((norm, form))}
                | {"share_of_copy_bandwidth": traffic / (middle.median / 1000) / copied}
                | {"samples_ms": times, "ratios": relative}
            )
    return rows


def comparison(shape: Shape, setting: Setting, norms: list[str], forms: list[str]) -> Comparison:
    x, dy = setting.activation(shape), setting.activation(shape)
    size = x.numel() * x.element_size()
    layers = {REFERENCE: nn.BatchNorm2d(shape[0]), AGAIN: nn.BatchNorm2d(shape[0])}
    for norm in norms:
        layers |= layers_of(norm, shape[0], forms)
    candidates, kept = {FLOOR: floor(size, setting.mode, setting.device)}, {}
    for key, layer in layers.items():
        layer.to(setting.device).train(setting.mode == "train")
        around = partial(kernels, KERNELS.get(key[1], "auto"))
        work = training(layer, x, dy) if setting.mode == "train" else evaluation(layer, x)
        candidates[key] = Candidate(work, around)
        if setting.mode == "train":
            with around():
                kept[key] = bytes_kept(partial(layer, x), (*layer.parameters(), *layer.buffers())) / size
    return Comparison(size, candidates, kept)


def layers_of(norm: str, channels: int, forms: list[str]) -> dict[Key, nn.Module]:
    """A norm's layer in each of the forms; batch norm has no "published" form, because that is the reference."""
    ours = BatchNorm(channels) if norm == "bn" else NORMS[norm](channels)
    if norm == "bin":
        nn.init.constant_(ours.rho, 0.5)  # its initial value of 1 would ignore instance norm
    found = {"ours": ours, "plain": ours, "published": published(ours)}
    return {(norm, form): found[form] for form in forms if found[form] is not None}


def training(layer: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], object]:
    wanted = [x.requires_grad_(), *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x), wanted, dy)


def evaluation(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    def forward() -> None:
        with torch.inference_mode():
            layer(x)

    return forward
