"""The forms in which a network leaves this repository: ONNX, torch.export and TorchScript; written, loaded and run."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

INPUT, OUTPUT = "images", "scores"
"""Names in an ONNX file."""

ONNX_BYTES = 2**31 - 2**20
"""An ONNX file holds no more than 2 GiB; the weights of a larger network go into a second file beside it."""

Program = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """A form in which a network is saved.

    Attributes:
        suffix: how its files end.
        write: writes a network in evaluation mode, with an example (N, 3, H, W) of at least two images, to a file. The
            program takes any number of images of this size.
        load: the program of a file, on the CPU.
        needs: packages, beside torch, that `write` and `load` import.
    """

    suffix: str
    write: Callable[[nn.Module, Tensor, Path], None]
    load: Callable[[Path], Program]
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Packages that are needed and not installed."""
        return [name for name in self.needs if not find_spec(name)]


def save(form: Format, network: nn.Module, images: Tensor, file: Path) -> None:
    """Write a network to a file, which appears when it is complete.

    Raises:
        ValueError: torch cannot export this network; the message ends with torch's own reason.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as folder, torch.no_grad(), _quiet():
        try:
            form.write(network, images, Path(folder, file.name))
        except OSError:
            raise
        except Exception as error:  # torch's exporters may raise anything
            reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
            raise ValueError(f"torch cannot write this network as {form.suffix}: {reason}.") from error
        written = sorted(Path(folder).iterdir(), key=lambda one: one.name == file.name)  # the program last
        for one in written:
            os.replace(one, file.with_name(one.name))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings and progress, which are about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _any_batch() -> tuple:
    return ({0: torch.export.Dim("batch")},)


# -------------------------------------------------------------------------------------------------------------- formats


def has_newer_exporter() -> bool:
    """Whether torch's newer ONNX exporter takes our norms: before 2.14 it cannot trace a device that they ask for."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)


def write_onnx(network: nn.Module, images: Tensor, file: Path) -> None:
    names = {"input_names": [INPUT], "output_names": [OUTPUT], "verbose": False}
    if has_newer_exporter():
        size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
        large = {"external_data": size > ONNX_BYTES}
        torch.onnx.export(network, (images,), file, dynamo=True, dynamic_shapes=_any_batch(), **large, **names)
    else:
        axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
        torch.onnx.export(network, (images,), str(file), dynamo=False, dynamic_axes=axes, **names)


def load_onnx(file: Path) -> Program:
    import onnxruntime  # in the extra `export`, which other scripts do without

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])


def write_program(network: nn.Module, images: Tensor, file: Path) -> None:
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=_any_batch()), file)


def load_program(file: Path) -> Program:
    return torch.export.load(file).module()


def write_trace(network: nn.Module, images: Tensor, file: Path) -> None:
    """Traced and checked by torch: the trace is repeated with another number of images, and both have to agree."""
    torch.jit.trace(network, images, check_trace=True, check_inputs=[(images[:1],)]).save(str(file))


def load_trace(file: Path) -> Program:
    return torch.jit.load(file, map_location="cpu")


FORMATS = {
    "onnx": Format(".onnx", write_onnx, load_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch-export": Format(".pt2", write_program, load_program),
    "torchscript": Format(".pt", write_trace, load_trace),
}
