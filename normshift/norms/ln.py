"""Layer norm over channels and positions: torch's group norm of one group."""

from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="ln",
        what="layer norm over channels and positions",
        paper="Ba, Kiros and Hinton, 2016",
        layer="normshift.layers:layer_norm",
        colour="#56b4e9",
        marker="v",
    )
)
