"""The chapter on differences between arms: a figure of their intervals, and what of them chance does not explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from experiments.reporting.figures import INK, figure_of, row_axis, svg_uri
from experiments.reporting.sections import Drawing, Section
from experiments.study.tables.differences import Difference, differences, digits_of, in_words, p_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.reporting.arm_styles import LineStyle
    from experiments.reporting.run import Run

TITLE = "Differences between arms"


def differences_section(run: Run) -> Section | None:
    """Each arm against its reference, over the seeds that both have; None where no arm has two."""
    if run.results is None or run.headline is None:
        return None
    found = [one for one in differences(run.results, run.arms, run.headline) if one.n > 1]
    if not found:
        return None
    digits, images = digits_of(run.headline), []
    for score in dict.fromkeys(one.score for one in found):
        alike = [one for one in found if one.score == score]
        styles = {one.arm: run.arm_styles.of_row(one.arm) for one in alike}
        images.append((svg_uri(draw_differences(alike, styles, digits)), f"{score}: differences and their intervals"))
    caption = (
        "Arm minus reference, seed by seed. A dot is the mean difference, its line the 95 % interval by Student's t, "
        "the number its p-value corrected for all comparisons here (Holm). A dot is filled where that is 0.05 or less. "
    )
    return Section(TITLE, [Drawing(caption + in_words(found, digits), images)])


def draw_differences(found: Sequence[Difference], styles: Mapping[str, LineStyle], digits: Mapping[str, int]) -> Figure:
    """A row for each difference of one score, the first on top, with the line of no difference."""
    rows, references = list(found)[::-1], list(dict.fromkeys(one.reference for one in found))
    alone = len(references) == 1
    names = [fill(one.arm if alone else f"{one.arm} − {one.reference}", 24) for one in rows]
    lines = sum(name.count("\n") + 1 for name in names)
    figure, ax = figure_of(4.5, 0.95 + 0.27 * lines, rows[0].score)
    ax.axvline(0, color=INK, linewidth=0.8)
    for y, one in enumerate(rows):
        style = styles[one.arm]
        ax.plot([one.low, one.high], [y, y], color=style.colour, linewidth=2.2, alpha=0.5)
        inside = style.colour if one.found else "white"
        ax.plot(one.mean, y, "o", color=inside, markersize=6.5, markeredgecolor=style.colour, markeredgewidth=1.5)
        said = f"{one.mean:+.{digits.get(one.score, 1)}f}, p {p_text(one.holm)}"
        ax.text(1.02, y, said, va="center", fontsize=8.5, color=INK, transform=ax.get_yaxis_transform())
    ax.xaxis.get_major_locator().set_params(nbins=5)
    row_axis(ax, names, f"difference from {references[0]}" if alone else "difference")
    return figure
