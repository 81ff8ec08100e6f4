"""Switchable norm: a mixture of the instance's, the layer's and the batch's moments."""

from normshift.registry import GateSpec, NormSpec, register_norm

NOTE = "the shares start equal, so that what is not equal was learned"
MIXTURES = (GateSpec("mean", note=NOTE), GateSpec("var", title="variance", note=NOTE))

register_norm(
    NormSpec(
        name="sn",
        what="switchable norm",
        paper="Luo et al., ICLR 2019",
        layer="normshift.layers:SwitchNorm{dims}d",
        gates=MIXTURES,
        colour="#d55e00",
        marker="s",
    )
)
