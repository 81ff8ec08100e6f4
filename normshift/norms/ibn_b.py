"""IBN-b: instance norm in the stem and behind the additions of two blocks."""

from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="ibn-b",
        what="IBN-b",
        paper="Pan, Luo, Shi and Tang, ECCV 2018",
        layer="normshift.layers:InstanceNorm2d",
        dims=(2,),
        placement="ibn-b",
        needs_batch=True,
        colour="#7d2a78",
        dash="dash-dot",
        marker="<",
    )
)
