"""Launches of Triton kernels that Triton has compiled before.

Triton looks at every argument of every launch, to choose among a kernel's compiled forms: at 20 to 30 microseconds a
launch, this took longer than most of the norms' kernels run. Here a launch is found again by what the arguments' forms
depend on, and its compiled kernel is called directly.
"""

import torch
from torch import Tensor

MOST = 4096  # launches that are remembered; each is some hundred bytes

_known: dict[tuple, tuple] = {}


def launch(kernel, programs: int, tensors: tuple[Tensor, ...], numbers: tuple, constants: dict) -> None:
    """Run a kernel, whose parameters are the tensors, the numbers and the constants, in this order.

    Args:
        kernel: a function under `triton.jit` that does not specialise on its numbers.
        programs: how many programs run.
        tensors: on one GPU, of which the current stream is used.
        numbers: whole numbers and floats, in each place always the same of the two.
        constants: values of the kernel's `constexpr` parameters, and Triton's options.
    """
    device = tensors[0].get_device()
    if device != -1 and device != torch._C._cuda_getDevice():
        with torch.cuda.device(device):
            return launch(kernel, programs, tensors, numbers, constants)
    types, addresses = [], 0
    for tensor in tensors:
        types.append(tensor.dtype)
        addresses |= tensor.data_ptr()
    whole = [number for number in numbers if isinstance(number, int)]  # of 32 or 64 bits, by their value
    key = (id(kernel), device, programs, addresses % 16, *types, *whole, *constants.values())
    known = _known.get(key)
    if known:
        run, values = known
        return run(*tensors, *numbers, *values, stream=torch._C._cuda_getCurrentRawStream(device))
    compiled = kernel[programs,](*tensors, *numbers, **constants)
    if compiled is not None and addresses % 16 == 0:  # otherwise each pointer may have a form of its own
        if len(_known) >= MOST:
            _known.clear()
        values = [constants[parameter.name] for parameter in kernel.params if parameter.is_constexpr]
        _known[key] = compiled[programs, 1, 1], values
