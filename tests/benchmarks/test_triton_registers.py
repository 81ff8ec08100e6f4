"""What ptxas says of the Triton kernels. Only what would be a fault is held: compilers differ."""

import pytest

import triton_registers


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "expected"),
    [
        (32, 128, 0, 1.0),  # 65,536 / (32 x 128) = 16 blocks of 4 warps: all 64
        (64, 128, 0, 0.5),  # 8 blocks: 32 warps
        (65, 128, 0, 7 / 16),  # a warp gets 72 x 32 registers: 7 blocks
        (32, 128, 99 * 1024, 2 / 16),  # 228 KiB hold two blocks of 100 KiB
        (16, 32, 0, 0.5),  # 32 blocks of one warp at most
    ],
)
def test_occupancy_by_hand(registers, threads, shared, expected):
    assert triton_registers.occupancy(registers, threads, shared, 228 * 1024) == expected


@pytest.mark.slow
@pytest.mark.parametrize("target", triton_registers.TARGETS)
def test_kernels_stay_in_registers(target):
    pytest.importorskip("triton")
    launches = triton_registers.launches_of("bfloat16")
    names = {launch.name for launch in launches}
    assert {"moments", "reductions", "scale_shift", "input_gradient", "mixed", "gated", "through_moments"} <= names
    for launch in launches:
        used = triton_registers.assembled(launch, target)
        assert used.spilled <= 128 and used.occupancy >= 0.1, (launch.name, launch.constants, used)
