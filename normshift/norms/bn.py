"""Batch norm: torch's own."""

from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="bn",
        what="batch norm",
        paper="Ioffe and Szegedy, ICML 2015",
        layer="torch.nn:BatchNorm{dims}d",
        needs_batch=True,
        colour="#3d4650",
    )
)
