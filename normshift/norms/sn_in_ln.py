"""Switchable norm without the batch's moments, as the paper has it for small batches."""

from normshift.norms.sn import MIXTURES
from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="sn-in-ln",
        what="switchable norm of IN and LN",
        paper="Luo et al., ICLR 2019",
        layer="normshift.layers:SwitchNorm{dims}d",
        settings={"statistics": ("in", "ln")},
        gates=MIXTURES,
        colour="#8a2f0b",
        dash="dotted",
        marker="s",
    )
)
