"""Puts claims to the test: runs their studies, decides what came out, and writes it down."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np

from experiments.papers.claim import Claim
from experiments.papers.library import CLAIMS, PAPERS
from experiments.papers.page import counts, measured, write_pages
from experiments.papers.running import Settings, finished, run_studies
from experiments.papers.verdicts import Verdict, verdicts_of
from experiments.study.endings import TrainingsFailed, UsageError
from experiments.study.reader import FolderRun
from experiments.study.run_lock import locked
from experiments.study.signals.stops import exit_if_stopped
from experiments.study.tables.chance import guessing


def put_to_the_test(keys: Sequence[str], how: Settings) -> None:
    """Run the studies of some claims, of all if none is named, and write the verdicts on all that are measured.

    Raises:
        UsageError: there is no such claim; the numbers are impossible; or OUT cannot be written.
        TrainingsFailed: some studies did not finish; the page has the other claims.
    """
    claims = chosen(keys)
    for flag in ("seeds", "times", "processes"):
        if (value := getattr(how, flag)) < 1:
            raise UsageError(f"--{flag} {value}: it must be 1 or more.")
    out = how.out
    try:
        lock = locked(out)  # held until the end
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror or error}): choose another.") from error
    studies = list(dict.fromkeys(study for claim in claims.values() for study in claim.studies))
    unfinished = run_studies(studies, how)
    values, runs = values_of_claims(how)
    verdicts = verdicts_of(values)
    page = write_pages(verdicts, about(runs, verdicts, how.times), out, how.times)
    print_verdicts({key: verdicts[key] for key in claims if key in verdicts})
    print(f"{counts(verdicts)} {page}")
    del lock
    exit_if_stopped()
    if unfinished:
        said = "; ".join(f"{name}: {why}" for name, why in unfinished.items())
        raise TrainingsFailed(f"{len(unfinished)} of {len(studies)} studies did not finish ({said}): see {out}/*.log.")


def chosen(keys: Sequence[str]) -> dict[str, Claim]:
    """The claims of some keys, all without any.

    Raises:
        UsageError: there is no such claim.
    """
    if unknown := [key for key in keys if key not in CLAIMS]:
        raise UsageError(f"there is no claim {unknown[0]}: choose from {', '.join(CLAIMS)}.")
    return {key: CLAIMS[key] for key in keys} or CLAIMS


def values_of_claims(how: Settings) -> tuple[dict[str, tuple[np.ndarray, float]], dict[str, FolderRun]]:
    """The measure by seed, and the margin, of each claim whose studies are finished; and the studies' runs."""
    names = dict.fromkeys(study for claim in CLAIMS.values() for study in claim.studies)
    any_seeds = replace(how, seeds=1)
    runs = {name: run for name in names if (run := finished(name, any_seeds)) is not None}
    values = {}
    for key, claim in CLAIMS.items():
        if all(study in runs for study in claim.studies):
            found = measured_by_seed(key, claim, [runs[study] for study in claim.studies])
            if len(found):
                values[key] = found, claim.margin
    return values, runs


def measured_by_seed(key: str, claim: Claim, runs: Sequence[FolderRun]) -> np.ndarray:
    """The claim's measure, (seeds,); empty, with a warning, where the runs' tables do not hold what it needs.

    That something is no worse than another is not measured under seeds in which a network is at chance.
    """
    try:
        found = claim.difference(*runs)
        if claim.margin:
            found = found.drop([seed for run in runs for seed in at_chance(run)], errors="ignore")
        found = found.to_numpy(float)
    except (UsageError, KeyError, ValueError) as error:
        print(f"warning: {key} cannot be measured: {error}", file=sys.stderr)
        return np.empty(0)
    return found[np.isfinite(found)]


def at_chance(run: FolderRun) -> set[int]:
    """The seeds under which a network of the run guesses."""
    return set() if run.headline is None else {*guessing(run.results, run.headline)["seed"]}


def about(runs: Mapping[str, FolderRun], verdicts: Mapping[str, Verdict], times: int = 1) -> dict[str, str]:
    """Where, when and with what the studies were run."""
    configs = [run.files.config for run in runs.values()]
    seeds = sorted({len(verdict.values_by_seed) for verdict in verdicts.values()})

    def each(key: str) -> str:
        return ", ".join(dict.fromkeys(str(config.get(key)) for config in configs if config.get(key)))

    minutes = sum(config.get("minutes") or 0 for config in configs)
    return {
        "date of this page": str(date.today()),
        "machine": each("machine") or platform.machine(),
        "seeds": " to ".join(map(str, sorted({*seeds[:1], *seeds[-1:]}))),
        "trainings": "as written" if times == 1 else f"{times} times as long as written",
        "computing": each("precision"),
        "torch": ", ".join(dict.fromkeys(str((config.get("versions") or {}).get("torch")) for config in configs)),
        "git revision": each("git"),
        "time of all studies": f"{minutes:.0f} minutes, one after the other",
    }


def print_verdicts(verdicts: Mapping[str, Verdict]) -> None:
    """A line a claim."""
    for key, verdict in verdicts.items():
        claim = CLAIMS[key]
        print(f"{key:7} {verdict.verdict:10} {measured(verdict)} {claim.unit}: {claim.sentence}")


def print_commands(keys: Sequence[str]) -> None:
    """The commands of some claims for GPUs and real data."""
    claims = chosen(keys)
    for name, paper in PAPERS.items():
        wanted = {key: claim for key, claim in paper.claims.items() if key in claims}
        if wanted:
            print(f"# {name}")
        for key, claim in wanted.items():
            print(f"# {key}: {claim.sentence}\npython experiments/{claim.at_scale}")
