"""Normalization layers that survive a change of domain, of batch size, of a few pixels; plain torch.

Names are imported when they are first used: `normshift.NORMS`, the list of norms, needs no torch.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors read; `_MODULES` says the same when a program runs
    from normshift.antialiasing import antialias as antialias
    from normshift.blur_pool import BlurPool2d as BlurPool2d
    from normshift.checkpoints import load_official as load_official
    from normshift.context import Context as Context
    from normshift.context import batch_domains as batch_domains
    from normshift.divergence import Divergence as Divergence
    from normshift.divergence import feature_divergence as feature_divergence
    from normshift.engine import Batch as Batch
    from normshift.engine import Formula as Formula
    from normshift.engine import Moments as Moments
    from normshift.folding import fold as fold
    from normshift.gate_reader import Gate as Gate
    from normshift.gate_reader import gates as gates
    from normshift.gate_reader import parameter_groups as parameter_groups
    from normshift.layers import AffineBatchNorm as AffineBatchNorm
    from normshift.layers import AffineNorm as AffineNorm
    from normshift.layers import BatchInstanceNorm1d as BatchInstanceNorm1d
    from normshift.layers import BatchInstanceNorm2d as BatchInstanceNorm2d
    from normshift.layers import BatchInstanceNorm3d as BatchInstanceNorm3d
    from normshift.layers import GateParameter as GateParameter
    from normshift.layers import IBN2d as IBN2d
    from normshift.layers import SwitchNorm1d as SwitchNorm1d
    from normshift.layers import SwitchNorm2d as SwitchNorm2d
    from normshift.layers import SwitchNorm3d as SwitchNorm3d
    from normshift.registry import NORMS as NORMS
    from normshift.registry import GateSpec as GateSpec
    from normshift.registry import NormSpec as NormSpec
    from normshift.registry import register_norm as register_norm
    from normshift.statistics import update_statistics as update_statistics
    from normshift.surgery import convert as convert
    from normshift.surgery import name_layers as name_layers
    from normshift.surgery import norm_layers as norm_layers
    from normshift.surgery import synchronize as synchronize

_MODULES = {
    "antialiasing": ("antialias",),
    "blur_pool": ("BlurPool2d",),
    "checkpoints": ("load_official",),
    "context": ("Context", "batch_domains"),
    "divergence": ("Divergence", "feature_divergence"),
    "engine": ("Batch", "Formula", "Moments"),
    "folding": ("fold",),
    "gate_reader": ("Gate", "gates", "parameter_groups"),
    "layers": (
        "AffineBatchNorm", "AffineNorm", "BatchInstanceNorm1d", "BatchInstanceNorm2d", "BatchInstanceNorm3d",
        "GateParameter", "IBN2d", "SwitchNorm1d", "SwitchNorm2d", "SwitchNorm3d",
    ),
    "registry": ("NORMS", "GateSpec", "NormSpec", "register_norm"),
    "statistics": ("update_statistics",),
    "surgery": ("convert", "name_layers", "norm_layers", "synchronize"),
}  # fmt: skip

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name == "__version__":
        try:
            value = metadata.version("normshift")
        except metadata.PackageNotFoundError:  # the sources on a path, not installed
            value = "unknown"
    elif name in _MODULE_OF:
        value = getattr(import_module(f"normshift.{_MODULE_OF[name]}"), name)
    else:
        raise AttributeError(f"module 'normshift' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
