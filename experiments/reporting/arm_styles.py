"""How the arms of a study look in its figures, and which of them share a panel.

Where each norm has one arm, an arm wears its norm's colour, dash and marker, the same in every report. Where norms have
several arms, all of them wear its colour, and take dashes and markers in turn. Arms of one norm, or of unknown ones,
take colours in turn, from an order that readers who see few colours can tell apart, and dashes and markers after that:
printed in grey, too, ten lines must still be ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from lightning_modules.gates.panels import OTHER_COLOUR, norm_colour
from normshift.registry import NORMS

MOST = 12
"""Arms that one panel shows; with more, nobody follows a line."""

SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (4, 1.4)), (0, (1, 1.1)), (0, (5, 1.2, 1, 1.2))

DASHES = {"solid": SOLID, "dashed": DASHED, "dotted": DOTTED, "dash-dot": DASH_DOT}
"""The dashes that a norm's `NormSpec` names, in matplotlib's terms."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e05fa8", "#56b4e9", "#3d4650", "#e69f00")
"""For arms in turn: Okabe and Ito's hues, those that differ most first; grey-black and a deeper pink print better."""

LINES = ((SOLID, "o"), (DASHED, "s"), (DOTTED, "^"), (DASH_DOT, "D"), (SOLID, "X"), (DASHED, "v"))
"""For arms in turn: with each round of the colours the next dash and marker."""


class Look(NamedTuple):
    """A colour, a dash and a marker, in matplotlib's terms."""

    colour: str
    dash: str | tuple
    marker: str


PLAIN = Look("#3d4650", SOLID, "o")
"""Of a row that is no arm: a colour would say that it is one."""


@dataclass(frozen=True)
class Cast:
    """The arms, as figures show them."""

    looks: dict[str, Look]
    """Each arm's."""
    key: dict[str, Look]
    """The legend: names, of arms or of norms, and the looks that they explain."""
    groups: dict[str, list[str]]
    """Arms that share a panel, under what is to be added to the panel's title; "" where all share one."""
    left_out: list[str]
    """Arms that no panel has room for."""

    def of_row(self, name: str) -> Look:
        """The look of a table's row, where it is an arm, or a norm that the legend explains."""
        return self.looks.get(name) or self.key.get(name) or PLAIN


def cast(arms: dict[str, dict]) -> Cast:
    """Looks and panels of the arms, from the facts about them.

    More than MOST arms are split by a fact that leaves no panel with more: the first that leaves each norm once in a
    panel, else the first of all, the backbone being asked before the others. Where no fact does, the first MOST arms
    are shown.
    """
    norms = {arm: facts.get("norm") for arm, facts in arms.items()}
    if len(arms) <= MOST:
        looks = _by_norm(norms) if _told_apart(norms.values()) else _within_norms(norms) or _in_turn(arms)
        return Cast(looks, looks, {"": list(arms)}, [])
    splits = list(filter(None, (_split(arms, fact) for fact in _facts(arms))))
    for groups in splits:
        if all(_told_apart(norms[arm] for arm in group) for group in groups.values()):
            looks = _by_norm(norms)
            return Cast(looks, {norms[arm]: look for arm, look in looks.items()}, groups, [])
    shown = splits[0] if splits else {"": list(islice(arms, MOST))}
    looks, known = _in_turn(arms), [arm for group in shown.values() for arm in group]
    return Cast(looks, {arm: looks[arm] for arm in known}, shown, [arm for arm in arms if arm not in known])


def norm_look(norm: str) -> Look:
    """The norm's fixed look, no two norms of ours sharing dash and marker; grey for one that has none."""
    if not _has_look(norm):
        return Look(OTHER_COLOUR, SOLID, "o")
    return Look(norm_colour(norm), DASHES[NORMS[norm].dash], NORMS[norm].marker)


def _has_look(norm: str | None) -> bool:
    return norm in NORMS and NORMS[norm].colour is not None


def _by_norm(norms: dict[str, str]) -> dict[str, Look]:
    return {arm: norm_look(norm) for arm, norm in norms.items()}


def _within_norms(norms: dict[str, str]) -> dict[str, Look] | None:
    """Each norm's colour, with another dash and marker for each of its arms; None where that tells too little apart."""
    members: dict[str, list[str]] = {}
    for arm, norm in norms.items():
        members.setdefault(norm, []).append(arm)
    if len(members) < 2 or not all(map(_has_look, members)) or max(map(len, members.values())) > len(LINES):
        return None
    return {arm: Look(norm_look(norm).colour, *LINES[members[norm].index(arm)]) for arm, norm in norms.items()}


def _in_turn(arms: dict[str, dict]) -> dict[str, Look]:
    rounds, turns = len(LINES), len(COLOURS)
    return {arm: Look(COLOURS[i % turns], *LINES[i // turns % rounds]) for i, arm in enumerate(arms)}


def _told_apart(norms) -> bool:
    """Whether each is a norm that has a look, and comes once."""
    norms = list(norms)
    return len(set(norms)) == len(norms) and all(map(_has_look, norms))


def _facts(arms: dict[str, dict]) -> list[str]:
    """What is known of arms, in the order in which it may split them."""
    known = dict.fromkeys(fact for facts in arms.values() for fact in facts)
    return sorted(known, key=lambda fact: {"backbone": 0, "norm": 2}.get(fact, 1))


def _split(arms: dict[str, dict], fact: str) -> dict[str, list[str]] | None:
    """The arms by a fact; None where that leaves too many together, or every one alone."""
    groups: dict[str, list[str]] = {}
    for arm, facts in arms.items():
        groups.setdefault(f"{fact} {facts.get(fact)}", []).append(arm)
    return groups if 1 < max(map(len, groups.values())) <= MOST else None
