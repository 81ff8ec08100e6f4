"""What a full training takes is counted as published, and every recipe that is shown is a recipe."""

import pytest

import run_counts
import run_sizes


def test_a_resnet_50_is_counted_as_published():
    """torchvision's page: 25,557,032 parameters, 4.09 G multiplications and additions at 224 pixels."""
    found = run_counts.counts("ibn-step")
    assert found.parameters == 25_557_032
    assert found.operations == pytest.approx(2 * 4.09e9, rel=0.01)
    # pycls (Radosavovic et al. 2020) counts 11.1 M outputs of convolutions, each of which is kept once, and once more
    # normalised, in 4 bytes
    assert found.kept == pytest.approx(2 * 11.1e6 * 4, rel=0.05)


def test_what_is_shown():
    trainings = {training.recipe: training for training in run_sizes.trainings()}
    assert trainings["robustnet"].images == 40_000 * 16
    assert trainings["ibn-step"].images == 100 * 1_281_167
    rate = run_sizes.RESNET50_IMAGES * 3 * run_counts.counts("ibn-step").operations
    cells = run_sizes.cells(trainings["ibn-step"], rate)
    assert cells[-2:] == ["12", "100"]  # 128 M images at 2,900 a second, and at 2.81 ms each
    assert run_sizes.cells(trainings["bin-cifar"], rate)[-2:] == ["-", "-"]
