"""What `auto` means for --precision and --channels-last, and that a continued run computes as it began."""

import pytest
import torch

from experiments.study.training import fastest
from experiments.study.training.fastest import chosen
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES
from tests.experiments.study.toy_study import Flags

LAPTOP, PUBLISHED = SEGMENTATION_RECIPES["laptop"], SEGMENTATION_RECIPES["robustnet"]


@pytest.fixture(params=[True, False], ids=["bfloat16", "none"])
def native(request, monkeypatch):
    monkeypatch.setattr(fastest, "has_bfloat16", lambda gpu: request.param)
    return request.param


@pytest.mark.parametrize("gpu", [False, True])
def test_auto_is_bfloat16_where_the_machine_has_it(native, gpu):
    found = chosen(Flags(), LAPTOP, {}, gpu)
    assert found.precision == ("bf16-mixed" if native else "32-true")
    assert found.channels_last == ("yes" if native or not gpu else "no")
    assert found.reason.endswith("computes in bfloat16" if native else "has no instructions for bfloat16")
    assert (("GPU" if gpu else "processor") in found.reason) and found.precision in found.reason


def test_published_recipes_are_computed_as_published_and_flags_come_first(native):
    assert chosen(Flags(), PUBLISHED, {}, True) == chosen(Flags(), None, {}, True) == ("32-true", "no", "")
    assert chosen(Flags(precision="64-true", channels_last="no"), LAPTOP, {}, False) == ("64-true", "no", "")
    assert chosen(Flags(precision="auto"), PUBLISHED, {}, False)[1:2] == ("no",)
    assert chosen(Flags(precision="16-mixed", channels_last="auto"), PUBLISHED, {}, True)[:2] == ("16-mixed", "yes")


def test_a_continued_run_computes_as_it_began(native):
    begun = {"precision": "64-true", "channels_last": "no"}
    assert chosen(Flags(), LAPTOP, begun, False) == ("64-true", "no", "")
    assert chosen(Flags(precision="auto", channels_last="auto"), LAPTOP, begun, False) == ("64-true", "no", "")
    assert chosen(Flags(precision="32-true"), LAPTOP, begun, False)[0] == "32-true"  # which the run then refuses


def test_what_the_processor_can_do_is_read_from_torch(monkeypatch):
    for name in ("avx512_bf16", "amx_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {"avx2": True, name: True})
        assert fastest.has_bfloat16(False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {"avx2": True, name: False})
        assert not fastest.has_bfloat16(False)
