"""Normalization layers that survive a change of domain, of batch size, of a few pixels; plain torch."""

from normshift.antialias import antialias
from normshift.blur_pool import BlurPool2d
from normshift.checkpoints import load_official
from normshift.divergence import Divergence, feature_divergence
from normshift.fold import fold
from normshift.gates import Gate, gates, parameter_groups
from normshift.layers import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    IBN2d,
    SwitchNorm1d,
    SwitchNorm2d,
    SwitchNorm3d,
)
from normshift.registry import NORMS
from normshift.statistics import update_statistics
from normshift.surgery import convert, norm_layers, synchronize

__all__ = [
    "NORMS",
    "BatchInstanceNorm1d",
    "BatchInstanceNorm2d",
    "BatchInstanceNorm3d",
    "BlurPool2d",
    "Divergence",
    "Gate",
    "IBN2d",
    "SwitchNorm1d",
    "SwitchNorm2d",
    "SwitchNorm3d",
    "antialias",
    "convert",
    "feature_divergence",
    "fold",
    "gates",
    "load_official",
    "norm_layers",
    "parameter_groups",
    "synchronize",
    "update_statistics",
]
