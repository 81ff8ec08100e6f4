"""Instance norm."""

from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="in",
        what="instance norm",
        paper="Ulyanov, Vedaldi and Lempitsky, CVPR 2017",
        layer="normshift.layers:InstanceNorm{dims}d",
        colour="#e69f00",
        marker="^",
    )
)
