"""The line styles of a study's arms in its figures, and the arms that share a panel.

If each norm has one arm, the arm has its norm's colour, dash and marker, the same in every report. If norms have
several arms, these have the norm's colour and different dashes and markers. Norms that name no colour, or are not known
here because their plug-in is not loaded, get colours that no other norm has. Arms of a single norm, or of nothing but
unknown norms, get colours in a fixed order that colour-blind readers can distinguish, then dashes and markers, so that
ten lines can also be distinguished in grey.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from lightning_modules.gates.panels import FREE_COLOURS, OTHER_COLOUR, free_colour, norm_colour, without_colour
from normshift.registry import NORMS

MOST = 12
"""Most arms in one panel; more lines would be unreadable."""

SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (4, 1.4)), (0, (1, 1.1)), (0, (5, 1.2, 1, 1.2))

DASHES = {"solid": SOLID, "dashed": DASHED, "dotted": DOTTED, "dash-dot": DASH_DOT}
"""The dashes that a norm's `NormSpec` names, in matplotlib's terms."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e05fa8", "#56b4e9", "#3d4650", "#e69f00", *FREE_COLOURS[:5])
"""Colours for arms in turn: those of Okabe and Ito, the most different first, with a dark grey and a deeper pink, which
print better, and some more, so that no two arms of a panel share one."""

ROUND = 7
"""Arms in turn after which dashes and markers change, before colours repeat: all of one round differ in grey, too."""

LINES = ((SOLID, "o"), (DASHED, "s"), (DOTTED, "^"), (DASH_DOT, "D"), (SOLID, "X"), (DASHED, "v"))
"""Dashes and markers for arms in turn: the next ones after each round."""


class LineStyle(NamedTuple):
    """A colour, a dash and a marker, in matplotlib's terms."""

    colour: str
    dash: str | tuple
    marker: str


PLAIN = LineStyle("#3d4650", SOLID, "o")
"""The style of a row that is not an arm."""


@dataclass(frozen=True)
class ArmStyles:
    """The styles and panels of the arms."""

    styles: dict[str, LineStyle]
    """Each arm's."""
    key: dict[str, LineStyle]
    """The legend: names, of arms or of norms, and the styles that they explain."""
    groups: dict[str, list[str]]
    """Arms that share a panel, under what is to be added to the panel's title; "" where all share one."""
    left_out: list[str]
    """Arms that are not shown."""

    def of_row(self, name: str) -> LineStyle:
        """The style of a table's row, where it is an arm, or a norm that the legend explains."""
        return self.styles.get(name) or self.key.get(name) or PLAIN


def arm_styles(arms: dict[str, dict]) -> ArmStyles:
    """Styles and panels of the arms, from their columns.

    More than MOST arms are split by a column that leaves no panel with more: the first that leaves each norm once in a
    panel, else the first of all, the backbone being asked before the others. Where no column does, the first MOST arms
    are shown.
    """
    norms = {arm: columns.get("norm") for arm, columns in arms.items()}
    if len(arms) <= MOST:
        styles = _by_norm(norms) if _told_apart(norms.values()) else _within_norms(norms) or _in_turn(arms)
        return ArmStyles(styles, styles, {"": list(arms)}, [])
    splits = list(filter(None, (_split(arms, column) for column in _columns(arms))))
    for groups in splits:
        if all(_told_apart(norms[arm] for arm in group) for group in groups.values()):
            styles = _by_norm(norms)
            return ArmStyles(styles, {norms[arm]: style for arm, style in styles.items()}, groups, [])
    shown = splits[0] if splits else {"": list(islice(arms, MOST))}
    styles, known = _in_turn(arms), [arm for group in shown.values() for arm in group]
    return ArmStyles(styles, {arm: styles[arm] for arm in known}, shown, [arm for arm in arms if arm not in known])


def norm_style(norm: str) -> LineStyle:
    """The style of a registered norm (no two of ours share dash and marker); grey if it is not registered."""
    if norm not in NORMS:
        return LineStyle(OTHER_COLOUR, SOLID, "o")
    return LineStyle(norm_colour(norm), DASHES[NORMS[norm].dash], NORMS[norm].marker)


def _norm_styles(norms: Iterable[str]) -> dict[str, LineStyle]:
    """The styles of norms beside each other: those that are not registered take the next free colours."""
    taken, found = len(without_colour()), {}
    for norm in dict.fromkeys(norms):
        found[norm] = norm_style(norm)
        if norm not in NORMS:
            found[norm] = LineStyle(free_colour(taken), *LINES[(1 + taken) % len(LINES)])
            taken += 1
    return found


def _by_norm(norms: dict[str, str]) -> dict[str, LineStyle]:
    styles = _norm_styles(norms.values())
    return {arm: styles[norm] for arm, norm in norms.items()}


def _within_norms(norms: dict[str, str]) -> dict[str, LineStyle] | None:
    """Each norm's colour, with another dash and marker for each of its arms; None if there are too few of them."""
    members: dict[str, list[str]] = {}
    for arm, norm in norms.items():
        members.setdefault(norm, []).append(arm)
    if len(members) < 2 or not _have_styles(members) or max(map(len, members.values())) > len(LINES):
        return None
    styles = _norm_styles(members)
    return {arm: LineStyle(styles[norm].colour, *LINES[members[norm].index(arm)]) for arm, norm in norms.items()}


def _in_turn(arms: dict[str, dict]) -> dict[str, LineStyle]:
    rounds, turns = len(LINES), len(COLOURS)
    return {arm: LineStyle(COLOURS[i % turns], *LINES[i // ROUND % rounds]) for i, arm in enumerate(arms)}


def _told_apart(norms: Iterable[str | None]) -> bool:
    """Whether they can have their norms' styles, and none comes twice."""
    norms = list(norms)
    return len(set(norms)) == len(norms) and _have_styles(norms)


def _have_styles(norms: Iterable[str | None]) -> bool:
    """Whether all are norms, and at least one of them is known here."""
    norms = list(norms)
    return None not in norms and any(norm in NORMS for norm in norms)


def _columns(arms: dict[str, dict]) -> list[str]:
    """What is known of arms, in the order in which it may split them."""
    known = dict.fromkeys(column for columns in arms.values() for column in columns)
    return sorted(known, key=lambda column: {"backbone": 0, "norm": 2}.get(column, 1))


def _split(arms: dict[str, dict], column: str) -> dict[str, list[str]] | None:
    """The arms grouped by a column; None if a group is too large or every group has one arm."""
    groups: dict[str, list[str]] = {}
    for arm, columns in arms.items():
        groups.setdefault(f"{column} {columns.get(column)}", []).append(arm)
    return groups if 1 < max(map(len, groups.values())) <= MOST else None
