"""What a norm layer's forward does besides the norm: activation, dropout, or other operations behind it.

Other libraries' norms may derive from torch's and extend the forward (timm's `BatchNormAct2d` is a batch norm with a
ReLU), or are written from scratch (`FrozenBatchNorm2d`). The class name does not say what the forward computes. So for
classes that are neither torch's nor ours, a copy of the layer runs on random data, and its output is compared with
three candidates: the norm alone; the norm, then the layer's children; the norm, then the layer's forward with a norm
that changes nothing. If none agrees, the forward is unknown.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normshift.layers import Norm
from normshift.record import channels_of, dims_of

TORCHS = (_BatchNorm.forward, nn.SyncBatchNorm.forward, _InstanceNorm.forward, nn.GroupNorm.forward)

NO_EPS = 1e-300
"""An eps so small that 1 + eps is 1 in float64; torch 2.11 refuses 0."""

NEUTRAL = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


class OwnForward(nn.Module):
    """The forward of a subclass of batch norm without the batch norm: only what it does behind it.

    It runs the layer's forward, on another norm's output, with mean 0, variance 1 and no eps in evaluation mode, where
    the batch norm returns its input bit for bit. It adds nothing to the state dict.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        layer = _without_hooks(layer)
        held, channels = layer._parameters | layer._buffers, channels_of(layer)
        like = next((v for v in held.values() if v is not None and v.is_floating_point()), torch.empty(0))
        for key, value in NEUTRAL.items():
            layer._parameters.pop(key, None), layer._buffers.pop(key, None)
            without = held.get(key) is None and key in ("weight", "bias")
            one = None if without else like.new_full((channels,), value).detach()
            layer.register_buffer(key, one, persistent=False)
        layer._buffers.pop("num_batches_tracked", None)
        layer.eps = NO_EPS
        layer.affine, layer.track_running_stats = False, False  # so that no tool resets or estimates the buffers
        layer.num_batches_tracked = None
        self.layer = layer
        self.train(layer.training)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Write the neutral weights and statistics again, for networks that were created on the meta device."""
        for key, value in NEUTRAL.items():
            if getattr(self.layer, key) is not None:
                getattr(self.layer, key).fill_(value)

    def train(self, mode: bool = True) -> "OwnForward":
        super().train(mode)
        self.layer.training = False  # its children keep the mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def apply_behind(layer: nn.Module, inputs: tuple, output: Tensor, names: tuple[str, ...]) -> Tensor:
    """A forward hook that applies children of the layer to its output."""
    for name in names:
        output = layer.get_submodule(name)(output)
    return output


def behind(norm: nn.Module) -> dict[str, nn.Module] | None:
    """The modules that a layer runs behind its norm, by name and in order; None if its forward is unknown.

    Children keep their names; an `OwnForward` represents operations that are not children.
    """
    if "forward" in vars(norm):  # replaced on this one object
        return None
    if is_known(norm):
        hooks = (hook for hook in norm._forward_hooks.values() if getattr(hook, "func", None) is apply_behind)
        return {name: norm.get_submodule(name) for hook in hooks for name in hook.keywords["names"]}
    children = {name: child for name, child in norm.named_children() if name not in _hooked(norm)}
    try:
        return _tried(norm, children)
    except Exception:  # a forward that needs other arguments, types or devices may raise anything
        return None


def is_known(norm: nn.Module) -> bool:
    """Whether a layer's forward is exactly that of one of torch's or this library's norms."""
    forward = type(norm).forward
    return "forward" not in vars(norm) and (forward in TORCHS or forward.__module__ == Norm.__module__)


def _hooked(norm: nn.Module) -> set[str]:
    """Names of children that a hook of this library runs: blurs."""
    hooks = (*norm._forward_hooks.values(), *norm._forward_pre_hooks.values())
    names = (hook.keywords.get("name") for hook in hooks if isinstance(hook, partial))
    return {name for name in names if name is not None}


def _tried(norm: nn.Module, children: dict[str, nn.Module]) -> dict[str, nn.Module] | None:
    for found in ({}, children):
        if _explains(norm, tuple(found)):
            return found
    if not isinstance(norm, _BatchNorm) and not is_frozen(norm):
        return None
    rest = OwnForward(norm)
    state = [*rest.parameters(), *rest.state_dict()]  # these would change their names, and checkpoints would not fit
    return {"own_forward": rest} if not state and _explains(norm, None) else None


def _explains(norm: nn.Module, names: tuple[str, ...] | None) -> bool:
    """Whether the layer's output is, in both modes, that of its norm and these children (None: its `OwnForward`)."""
    for training in (False,) if isinstance(norm, nn.SyncBatchNorm) else (False, True):  # torch's trains on GPUs only
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
            whole, parts = (_made_up(norm, training) for _ in range(2))
            after = [OwnForward(whole)] if names is None else [parts.get_submodule(name) for name in names]
            expected = _run(whole, whole, [])
            actual = _run(partial(_norm_alone, parts), parts, after)
        if not all(_close(a, b) for a, b in zip(actual, expected, strict=True)):
            return False
    return True


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal up to rounding."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-6 * b.abs().max())


def _run(forward, norm: nn.Module, after: list[nn.Module]) -> list[Tensor]:
    """The output for a random batch with a wide range of values, and the running averages afterwards."""
    torch.default_generator.manual_seed(0)  # the CPU's only
    x = 4 * torch.randn(3, channels_of(norm), *[4] * (dims_of(norm) or 2)).pow(3)
    torch.default_generator.manual_seed(1)
    x = forward(x)
    for module in after:
        x = module(x)
    counts = {"num_batches_tracked"} if getattr(norm, "momentum", 0) is not None else set()  # matters for None alone
    return [x, *(value for key, value in norm.named_buffers(recurse=False) if key not in counts)]


def _norm_alone(norm: nn.Module, x: Tensor) -> Tensor:
    """The output of the norm class that a layer's class derives from."""
    if isinstance(norm, nn.SyncBatchNorm) or is_frozen(norm):
        averages = norm.running_mean, norm.running_var
        return F.batch_norm(x, *averages, norm.weight, norm.bias, False, 0.0, eps_of(norm))
    base = next(kind for kind in (_BatchNorm, _InstanceNorm, nn.GroupNorm, Norm) if isinstance(norm, kind))
    return base.forward(norm, x)


def is_frozen(norm: nn.Module) -> bool:
    return type(norm).__name__.startswith("FrozenBatchNorm")


def _made_up(norm: nn.Module, training: bool) -> nn.Module:
    """A copy with weights and averages that differ between channels, the same in each call."""
    made = copy_on_cpu(norm).train(training)
    generator = torch.Generator().manual_seed(0)
    for value in (*made.parameters(), *made.buffers()):
        if value.is_floating_point():
            value.data.uniform_(0.5, 1.5, generator=generator)
    if "num_batches_tracked" in made._buffers and made.num_batches_tracked is not None:
        made.num_batches_tracked.zero_()
    return made


def copy_on_cpu(module: nn.Module) -> nn.Module:
    """A copy in float32 on the CPU, without hooks."""
    module = _without_hooks(module)
    on_meta = any(value.is_meta for value in (*module.parameters(), *module.buffers()))
    return (module.to_empty(device="cpu") if on_meta else module.cpu()).float()


def _without_hooks(module: nn.Module) -> nn.Module:
    hooks = (value for m in module.modules() for key, value in vars(m).items() if key.endswith("_hooks"))
    return copy.deepcopy(module, {id(value): type(value)() for value in hooks})


def eps_of(norm: nn.Module) -> float:
    """A norm's eps; frozen batch norms without the attribute have 1e-5 in their code."""
    return getattr(norm, "eps", 1e-5)
