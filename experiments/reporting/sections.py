"""The chapters of a report that are figures, with the captions that say how to read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from experiments.reporting.arm_styles import MOST
from experiments.reporting.figures import (
    draw_column,
    draw_curves,
    draw_divergence,
    draw_drops,
    draw_heights,
    narrowed,
    shows_single_seeds,
    svg_uri,
)
from experiments.reporting.gate_slides import Slides, caption, slides
from experiments.study.tables.domain_drop import DROP, has_domains, seed_scores
from lightning_modules.gates.figures import draw_gate_movement
from lightning_modules.gates.panels import finite, panels, sampled
from normshift.registry import NORMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from experiments.reporting.run import Run
    from experiments.study.tables.table import Table
    from lightning_modules.measures import Measure


LIKE = 3
"""Columns of a table share an axis if their largest numbers differ by less than this factor."""

SLIDER_BYTES = 600_000
"""Bytes of a page that the gates' sliders may take."""


@dataclass
class Drawing:
    """Figures with one caption, side by side or, where they are wide, one below the other."""

    caption: str
    images: list[tuple[str, str]]  # (data URI, alternative text)
    heading: str = ""
    narrow: str = ""  # data URI of a wide figure's narrow version, for phones
    slides: Slides | None = None  # gates, which the page's script draws


@dataclass
class Section:
    """A chapter of the page: its figures, or one sentence on why there are none."""

    title: str
    drawings: list[Drawing] = field(default_factory=list)
    absent: str = ""


def drop_section(run: Run) -> Section:
    """The drop from source to targets, and the scores on both."""
    section, headline = Section("The drop"), run.headline
    results = run.results.dropna(subset=["value"]) if has_domains(run.results) and headline else None
    scores = None if results is None else seed_scores(results, headline).dropna(subset=[DROP])
    if scores is None or scores.empty:
        section.absent = "No network that is better than chance was evaluated on the source and on every target."
        return section
    ranked = scores.groupby("arm")[DROP].mean().sort_values(ascending=False).index
    targets = results.loc[results["role"] == "target", "domain"].unique()
    styles = {arm: run.arm_styles.of_row(arm) for arm in ranked}
    lost = draw_drops(scores, ranked, styles, "drop", headline)
    heights = draw_heights(scores, ranked, styles, targets, "source and targets", headline)
    amount = f"points of {headline.label}" if headline.is_share else headline.label
    section.drawings = [
        Drawing(
            f"Drop: {amount} lost from the source to the mean of the targets, smallest on top. A bar is the mean over "
            "seeds, a dot is one seed. If the dots of two arms overlap, their order may be chance. Source and targets: "
            "the filled dot is the source, the ring is the mean of the targets, each tick is one target. An arm far to "
            "the left with a short line has a small drop only because it is inaccurate on the source.",
            [
                (svg_uri(lost), "bars: the drop of each arm"),
                (svg_uri(heights), f"{headline.label} on source and targets, arm by arm"),
            ],
        )
    ]
    return section


def table_section(run: Run) -> Section | None:
    """The closing table as a figure; None if all rows are equal in every column."""
    table = run.table
    telling = [] if table is None else [column for column in table.columns if _tells(table, column)]
    if not telling:
        return None
    styles = {str(name): run.arm_styles.of_row(str(name)) for name in table.cells.index}
    axes = _axes(table, telling)
    images = []
    for column in telling:
        reach = _reach(table, next(axis for axis in axes if column in axis))
        images.append((svg_uri(draw_column(table, column, styles, reach)), f"{column}, row by row"))
    spread = table.cells.xs("sd", axis=1, level=1).notna().any(axis=None)
    dot = "the mean over seeds, and its line is one standard deviation to either side" if spread else "one seed"
    shared = " Columns with numbers of similar size share an axis." if len(axes) < len(telling) else ""
    caption = f"The table, one figure per column. A dot is {dot}. Axes need not begin at zero.{shared}"
    return Section("The result as a figure", [Drawing(caption, images)])


def _tells(table: Table, column: str) -> bool:
    """Whether the rows differ in this column, at the digits shown."""
    return len({table.text(column, mean) for mean in table.cells[column, "mean"].dropna()}) > 1


def _axes(table: Table, columns: list[str]) -> list[list[str]]:
    """Group the columns that share an axis: those with the same better direction and numbers of similar size. Changes
    from column to column are then visible."""
    size = table.cells.xs("mean", axis=1, level=1).abs().max()
    axes = [[column] for column in columns if column in table.unranked]
    for smaller in (False, True):
        ranked = [c for c in columns if c not in table.unranked and (c in table.smaller) == smaller]
        for i, column in enumerate(ranked := sorted(ranked, key=size.get)):
            if i and size[column] < LIKE * size[ranked[i - 1]]:
                axes[-1].append(column)
            else:
                axes.append([column])
    return axes


def _reach(table: Table, columns: list[str]) -> tuple[float, float]:
    """The limits of an axis for some columns: smallest and largest mean, with a standard deviation to either side."""
    means, sds = (table.cells[[(column, part) for column in columns]].to_numpy() for part in ("mean", "sd"))
    sds = np.nan_to_num(sds)
    return float(np.nanmin(means - sds)), float(np.nanmax(means + sds))


def training_section(run: Run) -> Section:
    """Training loss and the headline measures on each domain, against the step."""
    section = Section("Training")
    if run.metrics is None:
        section.absent = "metrics.csv is missing or empty."
        return section
    images = []
    for column, title, measure, top in _curves(run):
        for group, arms in run.arm_styles.groups.items():
            rows = run.metrics[run.metrics["arm"].isin(arms)]
            if rows[column].notna().any():
                panel = f"{title}, {group}" if group else title
                figure = draw_curves(rows, column, panel, run.arm_styles.styles, measure, top)
                images.append((svg_uri(figure), f"{panel} during training"))
    seeds = "A thin line is one seed"
    if not shows_single_seeds(run.metrics):
        seeds = "A band is one standard deviation of the seeds to either side"
    caption = f"Against the optimiser's step. {seeds}, a bold line is the mean of the finished seeds."
    if _evaluated_once(run):
        caption += " The networks were evaluated only once, at the end: see the table."
    elif run.compares_domains:
        caption += (
            " If a target's curve falls while the source's still rises, the network overfits to the source's "
            "appearance."
        )
    if left_out := len(run.arm_styles.left_out):
        caption += f" The first {MOST} of {len(run.arms)} arms are shown; metrics.csv holds the other {left_out}."
    section.drawings = [Drawing(caption, images)] if images else []
    if not images and _evaluated_once(run):
        section.absent = (
            "The networks were evaluated only once, at the end: see the table. The training was too short to log a "
            "loss."
        )
    elif not images:
        headlines = " or a ".join(measure.label for measure in run.headlines) or "measure of accuracy"
        section.absent = f"metrics.csv holds neither a loss nor a {headlines}."
    return section


def _curves(run: Run) -> Iterator[tuple[str, str, Measure | None, float | None]]:
    """The columns of the metrics to draw: column, title, measure, and the end of the axis (None: fitted)."""
    measured = run.metrics.dropna(axis=1, how="all").columns
    losses = [column for column in measured if column.startswith("train/") and column.endswith("loss")]
    for column in sorted(losses, key=lambda column: column != "train/loss"):
        yield column, f"training {column.removeprefix('train/').replace('_', ' ')}", None, None
    for measure in () if _evaluated_once(run) else run.headlines:
        named = {f"{domain}/{measure.name}": domain for domain in run.domains}
        columns = {column: domain for column, domain in named.items() if column in measured}
        most = run.metrics[[*columns]].max().max()
        top = max(1.05 * measure.scale * most, 1) if measure.is_share else None
        for column, domain in columns.items():  # one scale for all domains, so that the drop is visible
            yield column, f"{domain}: {measure.label}", measure, top


def _evaluated_once(run: Run) -> bool:
    """Whether every network was evaluated only once, so that its curves would be single points."""
    headlines = {measure.name for measure in run.headlines}
    measured = [column for column in run.metrics if column.rpartition("/")[2] in headlines]
    counts = run.metrics.groupby(["arm", "seed"])[measured].count()
    return run.table is not None and bool(measured) and counts.max(axis=None) < 2


def gate_section(run: Run) -> Section | None:
    """The gates after and during the training; None if no norm has gates."""
    section = Section("What the gates learned")
    recorded = None if run.gates is None else finite(run.gates)
    if recorded is None or recorded.empty:
        section.absent = _why_no_gates(run)
        return section if section.absent else None
    moved = (
        "Gates during the training, averaged over the first, middle and last third of the layers; a thin line is one "
        "seed. A line that is not flat at the end has not converged."
    )
    arms, said = list(recorded["arm"].unique()), set()

    def once(caption: str) -> str:
        new = caption not in said
        said.add(caption)
        return caption if new else ""

    for arm in arms[:MOST]:
        gates = recorded[recorded["arm"] == arm]
        some = sampled(gates)
        note = f" For layers of more than {some} channels, {some} evenly spaced channels are shown." if some else ""
        shown = slides(arm, gates, SLIDER_BYTES // min(len(arms), MOST))
        section.drawings.append(Drawing(once(caption(panels(gates)) + note), [], arm, slides=shown))
        if gates["epoch"].nunique() > 1:
            section.drawings.append(_wide(draw_gate_movement(gates), f"gates of {arm} over epochs", once(moved)))
    if len(arms) > MOST:
        rest = ", ".join(arms[MOST:])
        section.drawings[-1].caption += f" Not shown, but in gates.parquet: {rest}."
    return section


def _why_no_gates(run: Run) -> str:
    """Why there are no gates to show; "" if no norm has any."""
    if not any(NORMS[norm].gates for norm in {columns.get("norm") for columns in run.arms.values()} if norm in NORMS):
        return ""
    if run.gates is None:
        return "gates.parquet is missing or damaged: the run may have been stopped before it was written."
    return "None of the gates in gates.parquet is finite."


LEAST_DIVERGENCE = 0.05
"""Divergence in nats per channel that counts as none; the figure's axis ends there."""


def divergence_section(run: Run) -> Section | None:
    """Feature divergence between source and targets, layer by layer; None if the study does not measure it."""
    section = Section("Feature divergence between the domains")
    if run.divergence is None and "divergence" not in run.measures:
        return None
    if run.divergence is None or not (run.divergence["mean"] > 0).any():
        section.absent = "divergence.csv is missing or empty."
        return section
    measured = run.divergence[run.divergence["mean"] > 0]
    low, high = measured["mean"].quantile([0.002, 0.998])
    low = max(low, LEAST_DIVERGENCE)
    images = []
    for domain, rows in measured.groupby("domain", sort=False):
        for group, arms in run.arm_styles.groups.items():
            lines = rows[rows["arm"].isin(arms)]
            if len(lines):
                title = f"source and {domain}, {group}" if group else f"source and {domain}"
                figure = draw_divergence(lines, title, run.arm_styles.styles, (low / 1.5, high * 1.5))
                images.append((svg_uri(figure), f"feature divergence by depth, {title}"))
    caption = (
        "Symmetric Kullback-Leibler divergence between the channels' mean activations on the source and on the target, "
        "averaged over the channels of a layer (IBN-Net, section 3.1) and, on the logarithmic scale, over seeds. The "
        "lower it is, the less the layer's features depend on the domain. After an instance norm the mean of a channel "
        "is its bias for every image; the divergence is then zero and lies below the axis."
    )
    section.drawings = [Drawing(caption, images)]
    return section


def _wide(figure: Figure, alt: str, caption: str, heading: str = "") -> Drawing:
    wide = svg_uri(figure)
    return Drawing(caption, [(wide, alt)], heading, narrow=svg_uri(narrowed(figure)))
