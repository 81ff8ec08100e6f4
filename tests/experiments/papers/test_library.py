"""The claims as data: complete, and every command is one that its script takes."""

import importlib
import shlex

import pytest

from experiments.papers.library import CLAIMS, PAPERS, STUDIES
from experiments.study.flags import parse


def commands() -> list[str]:
    return list(dict.fromkeys([study.command for study in STUDIES.values()] + [c.at_scale for c in CLAIMS.values()]))


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one_that_its_script_takes(command):
    script, *flags = shlex.split(command)
    module = importlib.import_module(f"experiments.{script.removesuffix('.py')}")
    parsed = parse(module.Flags, "", [argument for argument in flags if argument not in ("--gpus", "8", "1")])
    assert parsed.out == "runs/NAME"


def test_there_are_two_to_seven_claims_a_paper_and_fifteen_or_more():
    assert len(CLAIMS) >= 15 and len(PAPERS) == 5
    assert all(2 <= len(paper.claims) <= 7 for paper in PAPERS.values())


def test_every_claim_is_whole():
    for key, claim in CLAIMS.items():
        assert claim.sentence.endswith(".") and claim.place and claim.figure and claim.measure and claim.unit, key
        assert set(claim.studies) <= set(STUDIES) and claim.studies, key
        assert claim.margin >= 0 and ("no worse" in claim.sentence) == (claim.margin > 0), key


def test_every_study_serves_a_claim():
    assert {study for claim in CLAIMS.values() for study in claim.studies} == set(STUDIES)
