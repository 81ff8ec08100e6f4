"""IBN-a: instance norm on half of the channels, in the first norm of each block."""

from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="ibn-a",
        what="IBN-a",
        paper="Pan, Luo, Shi and Tang, ECCV 2018",
        layer="normshift.layers:IBN2d",
        dims=(2,),
        placement="ibn-a",
        needs_batch=True,
        colour="#e05fa8",
        dash="dash-dot",
        marker=">",
    )
)
