"""Times training steps of networks."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kept import bytes_kept
from norm_peers import kernels, publish
from normshift import convert
from paired import Candidate, interleaved, ratios, seconds_a_call, spread

REFERENCE, AGAIN = ("bn", "reference"), ("bn", "again")
KERNELS = {"ours": "auto", "plain": "torch"}
WIDTHS = {"streets": 2}
"""How many times wider than high images are, where they are no squares."""

AT_LEAST = {"cpu": 0.0, "cuda": 0.3}
"""The shortest time of a sample in seconds; on a GPU several steps, queued while others run, as in training."""

Key = tuple[str, str]  # norm, form


class TrainingStep:
    """A network that is trained repeatedly on one batch.

    Args:
        network: the network.
        loss: computes the network's loss on its batch.
        device: "cpu" or "cuda".
        dtype: type of autocast; float32: no autocast; float16: with a gradient scaler, as in training.
    """

    def __init__(self, network: nn.Module, loss: Callable[[], Tensor], device: str, dtype: str):
        self.network, self.loss, self.device = network, loss, device
        self.dtype = getattr(torch, dtype)
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        self.scaler = torch.amp.GradScaler(device, enabled=self.dtype == torch.float16)

    def __call__(self) -> None:
        loss = self.forward()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    @cached_property
    def recording(self) -> Callable[[], None]:
        """This step as a CUDA graph; three steps before let cuDNN, Triton and the optimiser prepare themselves."""
        aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self()
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            self()
        return graph.replay

    def forward(self) -> Tensor:
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            return self.loss()


def measured(name: str, batch_size: int, size: int, flags: argparse.Namespace) -> list[dict]:
    """The results of one network for the record, a row for each candidate."""
    torch.backends.cudnn.benchmark = True  # as in training, because all images have one size
    images = torch.randn(batch_size, 3, size, size * WIDTHS.get(name, 1), device=flags.device)
    images = images.to(memory_format=_memory_format(flags))
    steps = steps_of(name, images, flags)
    around = {key: partial(kernels, KERNELS.get(key[1], "auto")) for key in steps}
    run = {key: step.recording if flags.run == "graph" else step for key, step in steps.items()}
    memory = {key: _memory(Candidate(step, around[key]), step, images) for key, step in steps.items()}
    candidates = {key: Candidate(run[key], around[key]) for key in steps}
    seconds = interleaved({name: candidates}, flags.rounds, AT_LEAST[flags.device], flags.device, flags.seed)[name]
    rows = []
    for (norm, form), own in seconds.items():
        relative, middle = ratios(own, seconds[REFERENCE]), spread(own)
        kept, peak = memory[norm, form]
        rows.append(
            {"network": name, "norm": norm, "form": form, "layout": flags.layout, "dtype": flags.dtype}
            | {"run": flags.run}
            | {"device": flags.device, "batch_size": batch_size, "size": size}
            | {"images_per_second": batch_size / middle.median}
            | {"seconds": middle._asdict(), "ratio": spread(relative)._asdict()}
            | {"kept_bytes": kept, "peak_bytes": peak, "samples_s": own, "ratios": relative}
        )
    return rows


def steps_of(name: str, images: Tensor, flags: argparse.Namespace) -> dict[Key, TrainingStep]:
    """The batch norm network twice, and every norm in the chosen forms."""
    prepared = partial(_step, make=MAKERS[name], images=images, flags=flags)
    steps = {REFERENCE: prepared("bn")}
    steps[AGAIN] = steps[REFERENCE]
    for norm in flags.norms:
        steps[norm, "ours"] = prepared(norm)
        if flags.peers:
            steps[norm, "plain"] = steps[norm, "ours"]
            steps[norm, "published"] = prepared(norm, change=publish)
    return steps


def _step(norm: str, make, images: Tensor, flags: argparse.Namespace, change=lambda network: network) -> TrainingStep:
    torch.manual_seed(flags.seed)  # all candidates have the same weights and labels
    network, loss = make(norm, images)
    network = change(network).to(flags.device, memory_format=_memory_format(flags)).train()
    if flags.run == "compiled":
        from torch._dynamo import config  # loads slowly

        config.recompile_limit = 100  # over all networks of this process
        for part in network.compiled_parts() if hasattr(network, "compiled_parts") else [network]:
            part.compile()
    return TrainingStep(network, loss, flags.device, flags.dtype)


def resnet50(norm: str, images: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """torchvision's ResNet-50, and its cross entropy with random labels."""
    from torchvision.models import resnet50 as make

    network = convert(make(), norm)
    labels = torch.randint(1000, (len(images),), device=images.device)
    return network, lambda: F.cross_entropy(network(images), labels)


def cifar_resnet20(norm: str, images: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A ResNet-20 for CIFAR, and its cross entropy with random labels."""
    from lightning_modules.classification.backbones import build_backbone

    network = build_backbone("cifar_resnet20", 10, norm=norm)
    labels = torch.randint(10, (len(images),), device=images.device)
    return network, lambda: F.cross_entropy(network(images), labels)


def deeplabv3plus(norm: str, images: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """segmentation-models-pytorch's DeepLabV3+ with ResNet-50, and the studies' full loss with random labels."""
    return _segmentation("robustnet", norm, images, arch="deeplabv3plus", backbone="resnet50")


def streets(norm: str, images: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The network of the laptop recipe for streets, and the studies' loss with random labels."""
    return _segmentation("laptop", norm, images)


def _segmentation(recipe: str, norm: str, images: Tensor, **changed) -> tuple[nn.Module, Callable[[], Tensor]]:
    from datamodules.segmentation.domains import Domain
    from datamodules.segmentation.labels import STREET
    from lightning_modules.segmentation.module import SegmentationModule
    from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES

    classes = len(STREET.classes)
    source = Domain("source", [], STREET, tuple(range(classes)), {})
    module = SegmentationModule(replace(SEGMENTATION_RECIPES[recipe], **changed), norm, [source])
    labels = torch.randint(classes, (len(images), *images.shape[2:]), device=images.device)
    return module, lambda: module.model_step(images, labels)


MAKERS = {maker.__name__: maker for maker in (resnet50, deeplabv3plus, cifar_resnet20, streets)}


def _memory(candidate: Candidate, step: TrainingStep, images: Tensor) -> tuple[int, int | None]:
    """Bytes kept for the backward pass and, on a GPU, the step's peak above the memory that is used between steps."""
    own = (*step.network.parameters(), *step.network.buffers(), images)
    with candidate.around():
        kept = bytes_kept(step.forward, own)
    if not images.is_cuda:
        return kept, None
    seconds_a_call(candidate, 1, "cuda")  # creates the optimiser's momentum buffers
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds_a_call(candidate, 1, "cuda")
    return kept, torch.cuda.max_memory_allocated() - before


def _memory_format(flags: argparse.Namespace) -> torch.memory_format:
    return torch.channels_last if flags.layout == "channels-last" else torch.contiguous_format
