"""Batch norm over all processes: torch's own."""

from normshift.registry import NormSpec, register_norm

register_norm(
    NormSpec(
        name="syncbn",
        what="batch norm over all processes (on GPUs)",
        paper="Ioffe and Szegedy, ICML 2015",
        layer="torch.nn:SyncBatchNorm",
        synchronized=True,
        colour="#adb5bd",
        dash="dotted",
    )
)
