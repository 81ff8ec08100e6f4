"""Batch-instance norm: between the batch's and the instance's moments, channel by channel."""

from normshift.registry import GateSpec, NormSpec, register_norm

register_norm(
    NormSpec(
        name="bin",
        what="batch-instance norm",
        paper="Nam and Kim, NeurIPS 2018",
        layer="normshift.layers:BatchInstanceNorm{dims}d",
        gates=(GateSpec("rho", ends=("in", "bn"), note="it starts at 1"),),
        colour="#0072b2",
        dash="dashed",
        marker="X",
    )
)
