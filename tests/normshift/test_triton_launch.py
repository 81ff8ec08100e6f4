"""Launches of kernels are found again by all that a kernel's compiled form depends on, and by nothing else."""

import pytest
import torch

from normshift.backends import triton_launch


class Parameter:
    def __init__(self, name, is_constexpr=False):
        self.name, self.is_constexpr = name, is_constexpr


class Kernel:
    """As `triton.jit`'s: indexed by a grid, it looks at its arguments, compiles, runs and returns what it compiled."""

    params = (Parameter("x"), Parameter("size"), Parameter("B", True), Parameter("A", True))

    def __init__(self):
        self.looked, self.ran = [], []

    def __getitem__(self, grid):
        def look(*arguments, **constants):
            self.looked.append((grid, *arguments))
            return Compiled(self)

        return look


class Compiled:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *arguments, stream: self.kernel.ran.append((grid, *arguments, stream))


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr(triton_launch, "_known", {})
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 7, raising=False)
    return Kernel()


def launch(kernel, x=None, programs=3, size=5, **constants):
    constants = {"num_warps": 4, "A": 1, "B": 2} | constants
    triton_launch.launch(kernel, programs, (torch.zeros(8) if x is None else x,), (size,), constants)


def test_a_known_launch_gets_its_own_tensors_and_the_constants_in_the_kernels_order(kernel):
    first, second = torch.zeros(8), torch.ones(8)
    launch(kernel, first)
    launch(kernel, second)
    ((grid, *arguments),) = kernel.looked
    assert grid == (3,) and arguments[0] is first and arguments[1:] == [5]
    ((grid, *arguments),) = kernel.ran
    assert grid == (3, 1, 1) and arguments[0] is second and arguments[1:] == [5, 2, 1, 7]


@pytest.mark.parametrize(
    "other", [{"programs": 4}, {"size": 6}, {"A": 2}, {"num_warps": 8}, {"x": torch.zeros(8).half()}]
)
def test_another_launch_is_looked_at_anew(kernel, other):
    launch(kernel)
    launch(kernel, **other)
    assert len(kernel.looked) == 2 and not kernel.ran


def test_floats_are_only_passed_on(kernel):
    """A cumulative average has another momentum in every step."""
    launch(kernel, size=0.5)
    launch(kernel, size=0.25)
    ((_, _, size, *_),) = kernel.ran
    assert len(kernel.looked) == 1 and size == 0.25


def test_another_kernel_is_looked_at_anew(kernel):
    launch(kernel)
    launch(other := Kernel())
    assert len(other.looked) == 1


def test_tensors_at_odd_addresses_are_always_looked_at(kernel):
    """Triton compiles wide loads for addresses that are multiples of 16 bytes."""
    for _ in range(3):
        launch(kernel, torch.zeros(9)[1:])
    launch(kernel)
    assert len(kernel.looked) == 4 and not kernel.ran


def test_what_is_remembered_does_not_grow_without_end(kernel, monkeypatch):
    monkeypatch.setattr(triton_launch, "MOST", 10)
    for size in range(35):
        launch(kernel, size=size)
    assert len(triton_launch._known) <= 10
