"""Folding norms into the convolutions before them, for inference.

In evaluation, batch norm is a fixed scale and shift of each channel. It can be merged into the weight and bias of the
convolution or linear layer before it:

    norm(W x + b) = W' x + b',   W' = s W,   b' = s (b - mean) + bias,   s = weight / sqrt(var + eps)

Instance, layer and group norm compute statistics of each image and cannot be merged. IBN's batch-norm half can.
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from normshift.antialiasing import _blur_input, _blur_output
from normshift.context import DiffersError, for_all_passes
from normshift.engine import Moments
from normshift.exchange.dataflow import LINEAR_MAPS, Flow, Source, observed, traced
from normshift.exchange.norm_places import held_in_attributes
from normshift.exchange.own_forward import OwnForward, apply_behind, behind, eps_of, is_frozen, is_known
from normshift.layers import PER_IMAGE, BatchNorm, IBN2d, Norm
from normshift.surgery import norm_layers

PADDING = ("Conv2dSame", "Conv2dStaticSamePadding", "Conv2dDynamicSamePadding")
"""Convolutions of timm and smp whose own forward only pads before it convolves."""


@dataclass(frozen=True)
class NormFold:
    """The result for one norm layer.

    Attributes:
        name: the layer's name.
        kind: its class.
        into: name of the layer that the norm, or IBN's half of it, was folded into; None if it was not folded.
        stays: why it was not folded, or which half was not; None if it was folded completely.
    """

    name: str
    kind: str
    into: str | None
    stays: str | None

    def __str__(self) -> str:
        if self.into is None:
            return f"stays: {self.stays}"
        if self.stays is None:
            return f"folded into {self.into}"
        return f"BN half folded into {self.into}; {self.stays}"


@dataclass(frozen=True)
class FoldReport:
    """What `fold` did. Printed, it is a table with a line for each norm layer, in the network's order.

    Attributes:
        norms: the result for every norm layer.
        folded: names of the layers that were folded.
        halved: names of the IBN layers whose BN half was folded.
        staying: names of the layers that were not folded.
    """

    norms: tuple[NormFold, ...]

    @property
    def folded(self) -> tuple[str, ...]:
        return tuple(norm.name for norm in self.norms if norm.stays is None)

    @property
    def halved(self) -> tuple[str, ...]:
        return tuple(norm.name for norm in self.norms if norm.into and norm.stays)

    @property
    def staying(self) -> tuple[str, ...]:
        return tuple(norm.name for norm in self.norms if norm.into is None)

    def __str__(self) -> str:
        names = max((len(norm.name) for norm in self.norms), default=0)
        kinds = max((len(norm.kind) for norm in self.norms), default=0)
        lines = [f"{norm.name:<{names}}  {norm.kind:<{kinds}}  {norm}" for norm in self.norms]
        counts = f"{len(self.folded)} folded, {len(self.halved)} by half, {len(self.staying)} as before"
        return "\n".join([*lines, f"{len(self.norms)} norm layers: {counts}."])


class InstanceHalf2d(nn.Module):
    """An `IBN2d` without its BN half: instance norm on the first or last channels; the others are passed through.

    Attributes:
        IN: the instance norm.

    Input and output: (N, C, H, W).
    """

    def __init__(self, norm: IBN2d):
        super().__init__()
        self.IN = norm.IN
        self.instance_first = norm.instance_first
        self.passing = norm.BN.num_features

    def forward(self, x: Tensor) -> Tensor:
        if self.instance_first:
            instance, rest = x.split([self.IN.num_features, self.passing], 1)
            return torch.cat([self.IN(instance), rest], 1)
        rest, instance = x.split([self.passing, self.IN.num_features], 1)
        return torch.cat([rest, self.IN(instance)], 1)

    def extra_repr(self) -> str:
        return f"passing the {'last' if self.instance_first else 'first'} {self.passing} channels"


def fold(
    model: nn.Module, *, inplace: bool = False, example: Tensor | tuple | None = None
) -> tuple[nn.Module, FoldReport]:
    """Merge norms into the convolution or linear layer directly before them, wherever possible, for inference.

    These norms are folded: batch norm (torch's, timm's with its activation kept, frozen ones, this library's, those
    with a blur behind them), switchable norm with `statistics=("bn",)`, batch-instance norm with rho = 1 in every
    channel, a user's own norm that in evaluation does not depend on the image (see `Norm.why_not_folded`), and the BN
    half of `IBN2d`. Outputs stay the same up to rounding. An `nn.Identity` (for IBN: the IN half) replaces the norm,
    and the convolution gets a bias. The network keeps its class and its other keys; its earlier state dicts do not fit.

    torch.fx traces the forwards, with their default arguments, to find the layer before each norm and whether anything
    else uses its output. If a forward cannot be traced, the norms that it calls are not folded, and the report names
    it. With `example`, one real forward pass is observed instead. Outputs of linear layers are assumed to be (N, C).

    Args:
        model: any network in evaluation mode.
        inplace: change `model` itself; otherwise a deep copy.
        example: an input of the network, or a tuple of its positional arguments. The observed pass keeps the output of
            every convolution in memory.

    Returns:
        The folded network, and a report of what happened to each norm layer and why.

    Raises:
        ValueError: a part of the network is in training mode.
    """
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        where = f"{training!r} is" if training else f"this {type(model).__name__} is"
        raise ValueError(f"fold is for inference, and {where} in training mode: call model.eval() first.")
    model = model if inplace else copy.deepcopy(model)
    norms: dict[int, tuple[str, nn.Module]] = {}
    for name, norm in norm_layers(model).items():
        norms.setdefault(id(norm), (name, norm))
    flow = traced(model, set(norms)) if example is None else observed(model, set(norms), example)
    network = _Network(model, flow)
    return model, FoldReport(tuple(network.fold(name, norm) for name, norm in norms.values()))


class _Network:
    """A network that is being folded, and its data flow."""

    def __init__(self, model: nn.Module, flow: Flow):
        self.model, self.flow = model, flow
        self.names = {id(module): name for name, module in model.named_modules()}
        self.held = held_in_attributes(model)

    def fold(self, name: str, norm: nn.Module) -> NormFold:
        kind = type(norm).__name__
        why = _why_it_stays(norm) or self._why_unclear(norm) or self._why_not_into(self.flow.sources[id(norm)], norm)
        if why:
            return NormFold(name, kind, None, why)
        layer = self.flow.sources[id(norm)].module
        with torch.no_grad():
            _merge(layer, norm)
        self._replace(norm, _remainder(norm).eval())
        rest = None
        if isinstance(norm, IBN2d):
            rest = f"IN half stays ({norm.IN.num_features} of {norm.num_features} channels): {PER_IMAGE}"
        return NormFold(name, kind, self.names[id(layer)], rest)

    def _why_unclear(self, norm: nn.Module) -> str | None:
        """Why a norm cannot be removed, given how the network uses it; None if it can."""
        calls = self.flow.calls[id(norm)]
        if id(norm) in self.flow.untraced:
            return f"{self.flow.untraced[id(norm)]}; fold(model, example=...) watches one pass instead"
        if not calls:
            return "it does not run"
        if calls > 1:
            return f"it is shared: it runs {calls} times"
        if id(norm) in self.held:
            return "the network holds it outside of its modules, too"
        if any(id(parameter) in self.flow.read for parameter in norm.parameters()):
            return "its weights are used elsewhere, too"
        return None

    def _why_not_into(self, source: Source, norm: nn.Module) -> str | None:
        """Why a norm cannot be folded into what comes before it; None if it can."""
        layer = source.module
        if not isinstance(layer, LINEAR_MAPS):
            but = f", but {source.what}" if source.what else ""
            return f"no convolution or linear layer comes directly before it{but}"
        name, calls = self.names[id(layer)], self.flow.calls[id(layer)]
        if id(layer) in self.flow.untraced:
            return f"{self.flow.untraced[id(layer)]}; fold(model, example=...) watches one pass instead"
        if calls > 1:
            return f"{name} before it is shared: it runs {calls} times"
        if not source.alone:
            return f"the output of {name} is used elsewhere, too"
        if any(id(parameter) in self.flow.read for parameter in layer.parameters()):
            return f"the weights of {name} are used elsewhere, too"
        return _why_not_scaled(layer, name, norm)

    def _replace(self, old: nn.Module, new: nn.Module) -> None:
        for name, module in list(self.model.named_modules(remove_duplicate=False)):
            if module is old:
                parent, _, leaf = name.rpartition(".")
                setattr(self.model.get_submodule(parent), leaf, new)


# Reasons that a module alone gives


def _why_it_stays(norm: nn.Module) -> str | None:
    """Why a norm cannot be folded into any layer; None if it can."""
    if not isinstance(norm, (_BatchNorm, BatchNorm, IBN2d)) and not is_frozen(norm):
        why = _why_not_batch_norm(norm)
        if why:
            return why
    if any(hook not in (apply_behind, _blur_output) for hook in _hooks(norm)):
        return "it has hooks"
    after = behind(norm)
    if after is None or (not is_known(norm) and any(isinstance(m, OwnForward) for m in after.values())):
        return f"its class {type(norm).__name__} has a forward of its own"
    if getattr(_statistics(norm), "running_mean", None) is None:
        return "it has no running statistics"
    if nn.parameter.is_lazy(_statistics(norm).running_mean):
        return "it has not seen a batch yet"
    return _why_not_fixed(_statistics(norm))


def _why_not_fixed(norm: nn.Module) -> str | None:
    """What a norm's formula uses in evaluation that differs between forward passes; None where there is nothing."""
    if not isinstance(norm, Norm):
        return None
    try:
        with for_all_passes(), torch.no_grad():
            _fixed(norm, torch.float32)
    except DiffersError as error:
        return str(error)
    return None


def _why_not_batch_norm(norm: nn.Module) -> str | None:
    """Why a norm of another class than batch norm does not behave like one in evaluation; None if it does."""
    if isinstance(norm, Norm):
        return norm.why_not_folded()
    if isinstance(norm, _InstanceNorm) and norm.track_running_stats:  # torch's then uses the averages in evaluation
        return None
    return PER_IMAGE


def _hooks(module: nn.Module) -> list:
    """The functions of a module's forward and pre-forward hooks."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return [getattr(hook, "func", hook) for hook in hooks]


def _why_not_scaled(layer: nn.Module, name: str, norm: nn.Module) -> str | None:
    """Why a layer's weight cannot be scaled (a forward of its own, hooks, a computed weight); None if it can."""
    base = next(kind for kind in LINEAR_MAPS if isinstance(layer, kind))
    own = any(getattr(type(layer), f, None) is not getattr(base, f, None) for f in ("forward", "_conv_forward"))
    if "weight" not in layer._parameters:
        return f"the weight of {name} is computed anew in each pass"
    if layer._forward_hooks or any(hook is not _blur_input for hook in _hooks(layer)):
        return f"{name} before it has hooks"
    if "forward" in vars(layer) or (own and type(layer).__name__ not in PADDING):
        return f"{name} before it, a {type(layer).__name__}, has a forward of its own"
    if nn.parameter.is_lazy(layer.weight) or len(_rows(layer, layer.weight)) != _channels(norm):
        return f"{name} before it has another number of channels"
    return None


# Carrying it out


def _statistics(norm: nn.Module) -> nn.Module:
    """The layer whose running statistics, weight and bias are folded."""
    return norm.BN if isinstance(norm, IBN2d) else norm


def _channels(norm: nn.Module) -> int:
    return norm.num_features if isinstance(norm, IBN2d) else len(norm.running_mean)


def _folded_rows(norm: nn.Module) -> slice:
    """The channels that batch norm normalises."""
    if not isinstance(norm, IBN2d):
        return slice(None)
    return slice(norm.IN.num_features, None) if norm.instance_first else slice(norm.BN.num_features)


def _merge(layer: nn.Module, norm: nn.Module) -> None:
    weight = _rows(layer, layer.weight).clone()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.clone()
    rows, source, wide = _folded_rows(norm), _statistics(norm), torch.promote_types(weight.dtype, torch.float32)
    if isinstance(source, Norm):
        mean, scale, shift = _fixed(source, wide)
        scaled = weight[rows].to(wide) * scale.reshape(-1, *[1] * (weight.dim() - 1))
        moved = (bias[rows].to(wide) - mean) * scale + shift
        weight[rows], bias[rows] = scaled.to(weight.dtype), moved.to(bias.dtype)
    else:
        tensors = (source.running_mean, source.running_var, source.weight, source.bias)
        mean, var, scale, shift = (None if value is None else value.to(wide) for value in tensors)
        weight[rows], bias[rows] = fuse_conv_bn_weights(weight[rows], bias[rows], mean, var, eps_of(norm), scale, shift)
    layer.weight = nn.Parameter(_rows(layer, weight), layer.weight.requires_grad)
    layer.bias = nn.Parameter(bias, layer.weight.requires_grad)


def _fixed(norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, scale and shift, (C,) each, of a norm that in evaluation does not depend on the image."""
    source = norm.batch_source()
    assert source is not None  # norms without running averages are not folded
    batch = source.running(dtype)
    moments = Moments(batch.mean[None], batch.var[None], 1)
    scale, shift = norm.formula()(moments, batch, *(p.to(dtype) for p in norm.formula_parameters()))
    return batch.mean, *(v.expand_as(moments.mean)[0] for v in (scale, shift))


def _rows(layer: nn.Module, weight: Tensor) -> Tensor:
    """The weight with output channels on the first axis; applied to its own result, the weight as the layer has it.

    A transposed convolution's weight is (inputs, outputs of one group, ...), with the groups along the inputs.
    """
    if not isinstance(layer, _ConvTransposeNd):
        return weight
    return weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)


def _remainder(norm: nn.Module) -> nn.Module:
    """The module that replaces a folded norm: IBN's IN half, and an activation or blur that was part of the norm."""
    fused = OrderedDict(behind(norm))
    for hook in norm._forward_hooks.values():
        if hook.func is _blur_output:
            fused[hook.keywords["name"]] = norm.get_submodule(hook.keywords["name"])
    if isinstance(norm, IBN2d):
        half = InstanceHalf2d(norm)
        return nn.Sequential(OrderedDict(norm=half, **fused)) if fused else half
    return nn.Sequential(fused) if fused else nn.Identity()
