"""Draws docs/survival.png, the picture at the top of README, from the streets study's tables in docs/results.md.

python docs/draw_survival.py
"""

import re
from math import hypot
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
INK, KEPT, LOST = "#3d4650", "#0072b2", "#a7adb4"
TITLES = ("without colour augmentation", "with colour augmentation")


def tables(page: str) -> list[dict[str, tuple[float, ...]]]:
    """The streets tables: by norm, mean and deviation of the source, of the mean of the targets, of the drop and of the
    share that is kept."""
    found = []
    for table in re.split(r"^\| norm \| seeds \| streets-game .*$", page, flags=re.MULTILINE)[1:3]:
        rows = re.findall(r"^\| ([\w-]+) \| 3 \|(.*)\|$", table.partition("\n\n")[0], re.MULTILINE)
        numbers = {norm: [float(number) for number in re.findall(r"[\d.]+", cells)] for norm, cells in rows}
        found.append({norm: (*cells[:2], *cells[-6:]) for norm, cells in numbers.items()})
    return found


def draw(both: list[dict[str, tuple[float, ...]]]) -> Figure:
    """Two panels, a row a norm: a dot for the source, a ring for the mean of the targets, the drop between them.

    A line is blue where the norm loses less than batch norm, by more than the deviation of the difference.
    """
    figure = Figure(figsize=(9.2, 2.9), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    order = sorted(both[0], key=lambda norm: -both[0][norm][4])
    for ax, table, title in zip(axes, both, TITLES, strict=True):
        for y, norm in enumerate(order):
            source, _, targets, spread, drop, deviation, *_ = table[norm]
            gained = table["bn"][4] - drop
            colour = KEPT if gained > hypot(deviation, table["bn"][5]) else LOST
            ax.plot([targets, source], [y, y], color=colour, linewidth=3, solid_capstyle="butt", zorder=1)
            ax.errorbar(targets, y, xerr=spread, color=INK, linewidth=1, capsize=2.5, zorder=2)
            ax.plot(targets, y, "o", color="white", markeredgecolor=INK, markeredgewidth=1.4, markersize=7, zorder=3)
            ax.plot(source, y, "o", color=INK, markersize=7, zorder=3)
            ax.text(
                (source + targets) / 2, y + 0.16, f"−{drop:.1f} ± {deviation:.1f}", ha="center", fontsize=9, color=INK
            )
        ax.set_title(title, loc="left", fontsize=10.5, color=INK)
        ax.set_xlabel("mIoU, percentage points", fontsize=9, color=INK)
        ax.set_yticks(range(len(order)), order, fontsize=10.5, color=INK)
        ax.tick_params(length=0, labelsize=9.5, colors=INK)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set_xlim(0, 1.1 * max(source for source, *_ in both[0].values()))
        ax.set_ylim(-0.5, len(order) - 0.3)
    handles = [figure.axes[0].plot([], [], "o", color=INK, markersize=7, label="the domain it was trained on")[0]]
    ring = {"color": "white", "markeredgecolor": INK, "markeredgewidth": 1.4, "markersize": 7}
    handles += figure.axes[0].plot([], [], "o", label="mean of three domains it never saw", **ring)
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=9.5, labelcolor=INK)
    return figure


if __name__ == "__main__":
    draw(tables((HERE / "results.md").read_text())).savefig(HERE / "survival.png", dpi=130)
