"""Group norm: torch's own, with the number of groups that `normshift.layers.group_count` gives."""

from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="gn",
        what="group norm, of 32 groups; below 64 channels of 4 channels a group",
        paper="Wu and He, ECCV 2018",
        layer="normshift.layers:group_norm",
        colour="#009e73",
        dash="dashed",
        marker="D",
    )
)
