"""Norm layers at work on single activations, made into candidates for timing, and timed."""

import argparse
from collections.abc import Callable
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
"""Bytes that are copied to learn the bandwidth: far more than any cache holds."""

Key = tuple[str, str]  # norm, form
Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Setting:
    """What all candidates have in common but the shape."""

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
class Workplace:
    """One shape's activation, all that is timed on it, and what each of that keeps, in sizes of the activation."""

    size: int
    candidates: dict[Key, Candidate]
    kept: dict[Key, float]


def measured(setting: Setting, flags: argparse.Namespace) -> list[dict]:
    """A row for each shape and candidate, as the record has it."""
    copied = copy_bandwidth(2**24 if flags.quick else COPIED[setting.device], setting.device)
    places = {shape: workplace(shape, setting, flags.norms, flags.forms) for shape in flags.shapes}
    groups = {shape: place.candidates for shape, place in places.items()}
    seconds = interleaved(groups, flags.rounds, flags.min_ms / 1000, setting.device, flags.seed)
    rows = []
    for shape, found in seconds.items():
        for (norm, form), own in found.items():
            relative, times = ratios(own, found[REFERENCE]), [1000 * value for value in own]
            middle = spread(times)
            traffic = PASSES[setting.mode] * places[shape].size
            rows.append(
                {"norm": norm, "form": form, "shape": "x".join(map(str, shape))}
                | asdict(setting)
                | {"milliseconds": middle._asdict(), "ratio": spread(relative)._asdict()}
                | {"kept": places[shape].kept.get((norm, form))}
                | {"share_of_copy_bandwidth": traffic / (middle.median / 1000) / copied}
                | {"samples_ms": times, "ratios": relative}
            )
    return rows


def workplace(shape: Shape, setting: Setting, norms: list[str], forms: list[str]) -> Workplace:
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
    return Workplace(size, candidates, kept)


def layers_of(norm: str, channels: int, forms: list[str]) -> dict[Key, nn.Module]:
    """A norm's layer in each of the forms; our batch norm has no published one, which would be the reference."""
    ours = BatchNorm(channels) if norm == "bn" else NORMS[norm](channels)
    if norm == "bin":
        nn.init.constant_(ours.rho, 0.5)  # at work, not at its start, where one half weighs nothing
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
