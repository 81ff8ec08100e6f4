"""What came out of the claims: claims.html to read, claims.md for a document, claims.json for a program."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from datamodules.whole_file import write_whole
from experiments.papers.claim import Claim
from experiments.papers.library import CLAIMS, PAPERS, STUDIES
from experiments.papers.verdicts import HELD, NOT_HELD, UNDECIDED, Verdict
from experiments.study.tables.differences import p_text

COLOURS = {HELD: "#009e73", NOT_HELD: "#d55e00", UNDECIDED: "#8a949e"}
MISSING = "not measured"
TITLE = "What five papers claim, put to the test on small drawn worlds"
EDGE = 1.15
"""Half of a drawn interval's width, in its farthest edges."""


@dataclass(frozen=True)
class Interval:
    """How a verdict's interval is drawn: positions from 0 to 100, left to right."""

    zero: float
    low: float
    mean: float
    high: float


def write_pages(verdicts: Mapping[str, Verdict], about: Mapping[str, str], out: Path, times: int = 1) -> Path:
    """Write the three files, and return the first.

    Args:
        verdicts: of the claims that were measured, by key. about: what was measured where, in a table's rows.
        times: how many times as long as written the trainings were.
    """
    kept = {key: plain(CLAIMS[key], verdict) for key, verdict in verdicts.items()}
    write_whole(out / "claims.json", json.dumps({"about": dict(about), "claims": kept}, indent=1, allow_nan=False))
    write_whole(out / "claims.md", markdown(verdicts))
    page = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1] / "reporting"]),
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    ).get_template("claims.html.j2")  # fmt: skip
    html = page.render(
        title=TITLE, papers=PAPERS, studies=STUDIES, verdicts=verdicts, about=about, counts=counts(verdicts),
        colours=COLOURS, interval=interval, measured=measured, p_text=p_text, missing=MISSING, times=times,
        join=shlex.join, cause=lambda key: cause(key, verdicts) if times == 1 else "",
    )  # fmt: skip
    write_whole(out / "claims.html", html)
    return out / "claims.html"


def plain(claim: Claim, verdict: Verdict) -> dict:
    """A claim and its verdict, of numbers and texts."""
    told = {key: value for key, value in asdict(claim).items() if key != "difference"} | asdict(verdict)
    return {key: None if value != value else value for key, value in told.items()}  # JSON knows no NaN


def counts(verdicts: Mapping[str, Verdict]) -> str:
    """How many claims came out how, in a sentence."""
    found = Counter(one.verdict for one in verdicts.values())
    said = [f"{found[word]} {word}" for word in (HELD, NOT_HELD, UNDECIDED) if found[word]]
    missing = len(CLAIMS) - len(verdicts)
    return f"{len(CLAIMS)} claims: {', '.join(said + [f'{missing} {MISSING}'] * bool(missing))}."


def measured(verdict: Verdict) -> str:
    """The mean and its interval."""
    if math.isnan(verdict.low):
        return f"{verdict.mean:+.1f}"
    return f"{verdict.mean:+.1f} [{verdict.low:+.1f}, {verdict.high:+.1f}]"


def interval(claim: Claim, verdict: Verdict) -> Interval:
    """The interval's place around minus the claim's margin, which stands in the middle."""
    edges = [edge for edge in (verdict.low, verdict.mean, verdict.high) if not math.isnan(edge)]
    reach = EDGE * max(*(abs(edge + claim.margin) for edge in edges), 1e-9)

    def place(value: float) -> float:
        value = verdict.mean if math.isnan(value) else value
        return round(50 + 50 * (value + claim.margin) / reach, 2)

    return Interval(place(-claim.margin), place(verdict.low), place(verdict.mean), place(verdict.high))


def markdown(verdicts: Mapping[str, Verdict]) -> str:
    """A table for each paper."""
    lines = [counts(verdicts)]
    for name, paper in PAPERS.items():
        lines += ["", f"**{name}**: {paper.title} ({paper.source})", ""]
        lines += ["| claim | the paper | here | verdict | p |", "| --- | --- | --- | --- | ---: |"]
        for key, claim in paper.claims.items():
            verdict = verdicts.get(key)
            figure = f"{claim.figure} ({claim.place})"
            if verdict is None:
                lines.append(f"| `{key}`: {claim.sentence} | {figure} | – | {MISSING} | – |")
                continue
            here = f"{claim.measure}: {measured(verdict)} {claim.unit}"
            lines.append(
                f"| `{key}`: {claim.sentence} | {figure} | {here} | **{verdict.verdict}** | {p_text(verdict.p)} |"
            )
        lines += ["", *(f"`{key}`: {why}" for key in paper.claims if (why := cause(key, verdicts)))]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def cause(key: str, verdicts: Mapping[str, Verdict]) -> str:
    """Why a claim came out against the paper, where that is known; "" where it did not or is not."""
    against = key in verdicts and verdicts[key].mean + CLAIMS[key].margin < 0
    return CLAIMS[key].cause if against else ""
