"""What a norm layer does beside its norm: an activation, dropout, whatever a forward of its own adds behind it.

Other people's norms derive from torch's and add to their forward (timm's `BatchNormAct2d`, a batch norm with a ReLU in
it), or are written anew (`FrozenBatchNorm2d`). A class's name does not tell what its forward computes, so one that is
not torch's or this library's is tried: a copy of the layer runs on made-up numbers, and what it returns is held against
the norm alone, the norm and then the layer's children, and the norm and then whatever the forward does with a norm that
leaves its input as it is. What none of these explains is not known.
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

NOTHING = 1e-300
"""An eps that 1 does not feel, in float64 either: torch 2.11 refuses 0."""

NEUTRAL = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


class OwnForward(nn.Module):
    """The forward of a batch norm's subclass without its batch norm: what that does behind it.

    The layer is kept as a norm of mean 0, variance 1 and next to no eps in evaluation, which returns its input bit for
    bit, and its forward runs on what another norm has returned. It adds nothing to the state dict.
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
        layer.eps = NOTHING
        layer.affine, layer.track_running_stats = False, False  # so that no tool resets or estimates these
        layer.num_batches_tracked = None
        self.layer = layer
        self.train(layer.training)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Write the norm that changes nothing anew, as a network made on the meta device needs it."""
        for key, value in NEUTRAL.items():
            if getattr(self.layer, key) is not None:
                getattr(self.layer, key).fill_(value)

    def train(self, mode: bool = True) -> "OwnForward":
        super().train(mode)
        self.layer.training = False  # not its children
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def apply_behind(layer: nn.Module, inputs: tuple, output: Tensor, names: tuple[str, ...]) -> Tensor:
    """A forward hook that runs a layer's children behind it."""
    for name in names:
        output = layer.get_submodule(name)(output)
    return output


def behind(norm: nn.Module) -> dict[str, nn.Module] | None:
    """What runs behind the norm of a layer as part of it, by name and in order; None where that is not known.

    Children keep their names; an `OwnForward` stands for what is no child.
    """
    if "forward" in vars(norm):  # exchanged on this one object
        return None
    if is_known(norm):
        hooks = (hook for hook in norm._forward_hooks.values() if getattr(hook, "func", None) is apply_behind)
        return {name: norm.get_submodule(name) for hook in hooks for name in hook.keywords["names"]}
    children = {name: child for name, child in norm.named_children() if name not in _hooked(norm)}
    try:
        return _tried(norm, children)
    except Exception:  # whatever a forward raises that wants other arguments, types or devices than a norm's
        return None


def is_known(norm: nn.Module) -> bool:
    """Whether a layer's forward is that of a norm of torch's or of this library's, and nothing else."""
    forward = type(norm).forward
    return "forward" not in vars(norm) and (forward in TORCHS or forward.__module__ == Norm.__module__)


def _hooked(norm: nn.Module) -> set[str]:
    """Children that a hook of this library runs: blurs."""
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
    state = [*rest.parameters(), *rest.state_dict()]  # under another name, checkpoints would not fit any more
    return {"own_forward": rest} if not state and _explains(norm, None) else None


def _explains(norm: nn.Module, names: tuple[str, ...] | None) -> bool:
    """Whether a layer's forward is, in both modes, that of its norm and then these children; None: its `OwnForward`."""
    for training in (False,) if isinstance(norm, nn.SyncBatchNorm) else (False, True):  # torch's trains on GPUs only
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():  # whatever the caller's device is
            whole, parts = (_made_up(norm, training) for _ in range(2))
            after = [OwnForward(whole)] if names is None else [parts.get_submodule(name) for name in names]
            expected = _run(whole, whole, [])
            actual = _run(partial(_norm_alone, parts), parts, after)
        if not all(_close(a, b) for a, b in zip(actual, expected, strict=True)):
            return False
    return True


def _close(a: Tensor, b: Tensor) -> bool:
    """Up to rounding."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-6 * b.abs().max())


def _run(forward, norm: nn.Module, after: list[nn.Module]) -> list[Tensor]:
    """The output for a batch of wide range, and the running averages behind it."""
    torch.default_generator.manual_seed(0)  # GPUs keep theirs
    x = 4 * torch.randn(3, channels_of(norm), *[4] * (dims_of(norm) or 2)).pow(3)
    torch.default_generator.manual_seed(1)
    x = forward(x)
    for module in after:
        x = module(x)
    counts = {"num_batches_tracked"} if getattr(norm, "momentum", 0) is not None else set()  # else it means nothing
    return [x, *(value for key, value in norm.named_buffers(recurse=False) if key not in counts)]


def _norm_alone(norm: nn.Module, x: Tensor) -> Tensor:
    """What the norm that a layer's class derives from computes."""
    if isinstance(norm, nn.SyncBatchNorm) or is_frozen(norm):
        averages = norm.running_mean, norm.running_var
        return F.batch_norm(x, *averages, norm.weight, norm.bias, False, 0.0, eps_of(norm))
    base = next(kind for kind in (_BatchNorm, _InstanceNorm, nn.GroupNorm, Norm) if isinstance(norm, kind))
    return base.forward(norm, x)


def is_frozen(norm: nn.Module) -> bool:
    return type(norm).__name__.startswith("FrozenBatchNorm")


def _made_up(norm: nn.Module, training: bool) -> nn.Module:
    """A copy with weights and averages that tell channels and formulas apart, the same ones each time."""
    made = copy_on_cpu(norm).train(training)
    generator = torch.Generator().manual_seed(0)
    for value in (*made.parameters(), *made.buffers()):
        if value.is_floating_point():
            value.data.uniform_(0.5, 1.5, generator=generator)
    if "num_batches_tracked" in made._buffers and made.num_batches_tracked is not None:
        made.num_batches_tracked.zero_()
    return made


def copy_on_cpu(module: nn.Module) -> nn.Module:
    """A copy in float32, without hooks, to run on made-up numbers."""
    module = _without_hooks(module)
    on_meta = any(value.is_meta for value in (*module.parameters(), *module.buffers()))
    return (module.to_empty(device="cpu") if on_meta else module.cpu()).float()


def _without_hooks(module: nn.Module) -> nn.Module:
    hooks = (value for m in module.modules() for key, value in vars(m).items() if key.endswith("_hooks"))
    return copy.deepcopy(module, {id(value): type(value)() for value in hooks})


def eps_of(norm: nn.Module) -> float:
    """A norm's eps; frozen batch norms may keep theirs in the code, and then it is the usual one."""
    return getattr(norm, "eps", 1e-5)
