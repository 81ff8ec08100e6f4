"""Registers, spills and occupancy of the Triton kernels, from NVIDIA's assembler: no GPU is needed.

    python benchmarks/triton_registers.py
    python benchmarks/triton_registers.py --targets 90 --dtypes float32 --json registers.json

Every kernel that the norms launch is compiled for each target, for a large and a small activation in both layouts, and
given to the ptxas that Triton brings. A spill is a value that the registers could not hold: 4 bytes written to memory
and read again. Occupancy is the share of a multiprocessor's warps that can run at once, by registers and shared
memory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import machine

TARGETS = {
    # compute capability -> GPU, its assembler's name, bytes of shared memory of a multiprocessor
    80: ("A100", "sm_80", 164 * 1024),
    90: ("H100, H200", "sm_90a", 228 * 1024),
    100: ("B200", "sm_100a", 228 * 1024),
}
REGISTERS, WARPS, BLOCKS = 65_536, 64, 32
"""What a multiprocessor of these targets has (CUDA C++ Programming Guide, table of technical specifications)."""

DTYPES = ("bfloat16", "float32")


class Launch(NamedTuple):
    """A kernel and what Triton compiles it for."""

    kernel: object
    signature: dict[str, str]
    constants: dict

    @property
    def name(self) -> str:
        return self.kernel.__name__.strip("_").removesuffix("_kernel")


class Used(NamedTuple):
    """What one compiled kernel takes."""

    registers: int
    spilled: int  # bytes stored
    shared: int  # bytes
    occupancy: float


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parsed(arguments)
    record = {"benchmark": "triton_registers", "rows": []}
    print("| kernel | type | target | registers | spilled bytes | shared bytes | occupancy |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for dtype in flags.dtypes:
        for name, launches in by_kernel(launches_of(dtype)).items():
            for target in flags.targets:
                used = [assembled(launch, target) for launch in launches]
                cells = [spread(v) for v in zip(*(u[:3] for u in used), strict=True)]
                occupancy = f"{min(u.occupancy for u in used):.0%}"
                print(f"| {name} | {dtype} | sm_{target} | {' | '.join(cells)} | {occupancy} |", flush=True)
                record["rows"] += [{"kernel": name, "dtype": dtype, "target": target} | u._asdict() for u in used]
    machine.save(record, flags.json)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", type=int, choices=TARGETS, default=tuple(TARGETS), metavar="N")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, metavar="TYPE", help=", ".join(DTYPES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to this file")
    return parser.parse_args(arguments)


def spread(values: Sequence[int]) -> str:
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def by_kernel(launches: list[Launch]) -> dict[str, list[Launch]]:
    found: dict[str, list[Launch]] = {}
    for launch in launches:
        found.setdefault(launch.name, []).append(launch)
    return found


def launches_of(dtype: str) -> list[Launch]:
    """What the norms launch on activations of a type; on CPU tensors, whose kernels are noted and not run."""
    import torch

    from normshift.backends import compile_ahead, triton_formulas, triton_kernels
    from normshift.engine import Batch, Moments
    from normshift.formulas import BatchInstanceFormula, InstanceBatchFormula, SwitchFormula

    noted: dict[tuple, Launch] = {}

    def note(kernel, programs: int, tensors: tuple, numbers: tuple, constants: dict) -> None:
        launch = described(kernel, tensors, numbers, constants)
        noted[(launch.name, *launch.signature.values(), *map(str, launch.constants.items()))] = launch

    before = triton_kernels.launch, triton_formulas.launch
    triton_kernels.launch = triton_formulas.launch = note
    try:
        for layout in compile_ahead.LAYOUTS:
            for channels, side in compile_ahead.MAPS:
                x = torch.zeros(64, channels, side, side, dtype=getattr(torch, dtype)).to(memory_format=layout)
                mean, var = triton_kernels.moments(x)
                batch = Batch(*triton_kernels.pooled(mean, var), 1 / 64)
                triton_kernels.update_running(*batch[:2], *batch[:2], 0.1, 1.0)
                triton_kernels.reductions(x, x, mean)
                triton_kernels.scale_shift(x, mean, mean, var)
                triton_kernels.input_gradient(x, x, mean, mean, mean, var)
                triton_kernels.through_moments(
                    mean, var, mean, mean, var, (batch.mean, batch.mean, batch.var, 1 / 64), 0.1, 0.2
                )
                vector, logits, half = torch.zeros(channels), torch.zeros(3), torch.zeros(channels // 2)
                for formula, parameters in (
                    (SwitchFormula(1e-5, ("in", "ln", "bn"), 1), (vector, vector, logits, logits)),
                    (BatchInstanceFormula(1e-5), (vector, vector, vector)),
                    (InstanceBatchFormula(1e-5, channels // 2, True), (half, half, half, half)),
                ):
                    form, moments = formula.compiled_form(), Moments(mean, var, side * side)
                    form.evaluate(triton_kernels, moments, batch, parameters)
                    form.gradient(triton_kernels, moments, batch, parameters, mean, var)
    finally:
        triton_kernels.launch, triton_formulas.launch = before
    return list(noted.values())


def described(kernel, tensors: tuple, numbers: tuple, constants: dict) -> Launch:
    import torch

    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
    given = [types[tensor.dtype] if isinstance(tensor, torch.Tensor) else "constexpr" for tensor in tensors]
    given += ["fp32" if isinstance(number, float) else "i32" for number in numbers]
    names = [parameter.name for parameter in kernel.params if not parameter.is_constexpr]
    signature = dict(zip(names, given, strict=True))
    signature |= {parameter.name: "constexpr" for parameter in kernel.params if parameter.is_constexpr}
    return Launch(kernel, signature, dict(constants))


def assembled(launch: Launch, target: int) -> Used:
    """Compile a kernel for a target and ask ptxas what it takes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    own = {parameter.name for parameter in launch.kernel.params}
    options = {name: value for name, value in launch.constants.items() if name not in own}
    constexprs = {name: value for name, value in launch.constants.items() if name in own}
    places = {name: index for index, name in enumerate(launch.kernel.arg_names)}
    pointers = [name for name, kind in launch.signature.items() if kind.startswith("*")]
    attributes = {(places[name],): [["tt.divisibility", 16]] for name in pointers}  # as torch allocates
    source = ASTSource(launch.kernel, launch.signature, constexprs, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    return used(compiled.asm["ptx"], target, 32 * options.get("num_warps", 4), compiled.metadata.shared)


def used(ptx: str, target: int, threads: int, shared: int) -> Used:
    _, name, memory = TARGETS[target]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(ptx)
        command = [assembler(target), "-v", f"--gpu-name={name}", str(file), "-o", str(Path(folder, "kernel.cubin"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    spilled = int(re.search(r"(\d+) bytes spill stores", said)[1])
    return Used(registers, spilled, shared, occupancy(registers, threads, shared, memory))


def assembler(target: int) -> str:
    import triton.backends.nvidia as nvidia

    name = "ptxas-blackwell" if target >= 100 else "ptxas"
    return str(Path(nvidia.__file__).parent / "bin" / name)


def occupancy(registers: int, threads: int, shared: int, memory: int) -> float:
    """The share of a multiprocessor's warps that run at once: registers are given to warps by 256."""
    warps = threads // 32
    by_registers = REGISTERS // (-(-registers * 32 // 256) * 256 * warps)
    by_memory = memory // (shared + 1024)  # the system keeps 1 KiB a block
    return min(by_registers, by_memory, BLOCKS, WARPS // warps) * warps / WARPS


if __name__ == "__main__":
    main()
