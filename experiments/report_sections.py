"""The chapters of a report that are figures: what each shows of a run, and how it is to be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.report_figures import draw_curves, draw_divergence, draw_drops, draw_heights, narrowed, svg_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.report import Run


@dataclass
class Drawing:
    """Figures that share a caption. They stand side by side; a wide one has a line to itself."""

    caption: str
    images: list[tuple[str, str]]  # (data URI, what it shows in a few words)
    heading: str = ""
    narrow: str = ""  # data URI of a wide figure as a phone shows it


@dataclass
class Section:
    """A chapter of the page: its drawings, or one line on why there are none."""

    title: str
    drawings: list[Drawing] = field(default_factory=list)
    absent: str = ""


def drop_section(run: Run) -> Section:
    """What is lost between source and targets, and from which heights."""
    from experiments.tables import DROP, seed_scores

    section = Section("The drop")
    scores = None if run.results is None else seed_scores(run.results).dropna(subset=[DROP])
    if scores is None or scores.empty:
        section.absent = "No norm has been judged on the source and on every target."
        return section
    ranked = scores.groupby("norm")[DROP].mean().sort_values(ascending=False).index
    targets = run.results.loc[run.results["role"] == "target", "domain"].unique()
    lost = draw_drops(scores, ranked, "what is lost")
    heights = draw_heights(scores, ranked, targets, "from where to where")
    section.drawings = [
        Drawing(
            "What is lost: points of mIoU from the source to the mean of the targets, least on top; a bar is the mean "
            "over seeds, a dot one seed. Where the dots of two norms overlap, their order may be chance. From where to "
            "where: the filled dot is the source, the ring the mean of the targets, each tick one target. A short line "
            "far to the left lost little because it had little.",
            [
                (svg_uri(lost), "bars: the drop of each norm"),
                (svg_uri(heights), "mIoU on source and targets, norm by norm"),
            ],
        )
    ]
    return section


def training_section(run: Run) -> Section:
    """Loss and mIoU of each domain against the step."""
    section = Section("Training")
    if run.metrics is None:
        section.absent = "metrics.csv is missing or empty."
        return section
    measured = run.metrics.dropna(axis=1, how="all").columns
    titles = {"train/loss": "training loss"} | {f"{domain}/miou": f"{domain}: mIoU" for domain in run.domains}
    columns = {column: title for column, title in titles.items() if column in measured}
    best = max((run.metrics[column].max() for column in columns if column.endswith("/miou")), default=1)
    images = []
    for column, title in columns.items():
        top = 105 * best if column.endswith("/miou") else None  # one scale for all domains: the drop can be seen
        figure = draw_curves(run.metrics, column, title, top)
        images.append((svg_uri(figure), f"{title} during training"))
    caption = (
        "Against the optimiser's step: a thin line a seed, a bold line the mean of those that got to the end. A "
        "target's curve that sinks while the source's still climbs is a network that fits its source's appearance."
    )
    section.drawings = [Drawing(caption, images)] if images else []
    section.absent = "" if images else "metrics.csv holds neither a loss nor a mIoU."
    return section


def gate_section(run: Run) -> Section:
    """Which statistics the switchable norms settled on, and on what way."""
    from lightning_modules.gate_figures import NEAR, draw_gate_movement, draw_gates

    section = Section("What the gates learned")
    if run.gates is None:
        section.absent = (
            "gates.parquet is missing or damaged: the run may have been stopped before it was written."
            if {"sn", "sn-in-ln", "bin"} & set(run.norms)
            else "No norm of this run has gates."
        )
        return section
    shares = (
        "As last recorded, averaged over seeds: how each layer divides its trust between the moments of the instance "
        "(IN), the layer (LN) and, where it may, the batch (BN). The shares start equal; what is not equal was learned."
    )
    quantiles = (
        "As last recorded, over the channels of each layer: rho is 1 where a channel uses the batch's moments, 0 where "
        f"the instance's; it starts at 1. Below: how many channels are within {NEAR:g} of either side."
    )
    moved = (
        "The way there, for early, middle and late layers; a thin line is one seed. What still slopes at the end "
        "had not settled."
    )
    for norm, gates in run.gates.groupby("norm", sort=False):
        caption = quantiles if (gates["statistic"] == "rho").all() else shares
        section.drawings.append(_wide(draw_gates(gates), f"gates of {norm} by depth", caption, heading=norm))
        if gates["epoch"].nunique() > 1:
            section.drawings.append(_wide(draw_gate_movement(gates), f"gates of {norm} over epochs", moved))
    return section


LEAST_DIVERGENCE = 0.05
"""Nats a channel, below which two domains look the same to a layer; the figure's axis ends there."""


def divergence_section(run: Run) -> Section:
    """How far apart source and targets are inside the networks."""
    section = Section("Inside the network: how far apart the domains are")
    if run.divergence is None or not (run.divergence["mean"] > 0).any():
        section.absent = "divergence.csv is missing or empty."
        return section
    measured = run.divergence[run.divergence["mean"] > 0]
    low, high = measured["mean"].quantile([0.002, 0.998])
    low = max(low, LEAST_DIVERGENCE)
    images = []
    for domain, rows in measured.groupby("domain", sort=False):
        figure = draw_divergence(rows, f"source and {domain}", (low / 1.5, high * 1.5))
        images.append((svg_uri(figure), f"feature divergence between source and {domain} by depth"))
    caption = (
        "Symmetric Kullback-Leibler divergence of the channels' mean activations, source against target, averaged over "
        "the channels of a layer (IBN-Net, section 3.1); seeds averaged on this logarithmic scale. Lower: the layer "
        "sees less of what sets the domains apart. Look for where a norm's line leaves the others. Behind an instance "
        "norm every image has the same mean, its bias, so that output falls off the figure: look at what follows it."
    )
    section.drawings = [Drawing(caption, images)]
    return section


def _wide(figure: Figure, alt: str, caption: str, heading: str = "") -> Drawing:
    wide = svg_uri(figure)
    return Drawing(caption, [(wide, alt)], heading, narrow=svg_uri(narrowed(figure)))
