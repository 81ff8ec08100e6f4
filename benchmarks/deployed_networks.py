"""Makes the forms in which a network is deployed, and times their passes."""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from experiments.study.trained.artefacts import FORMATS, save
from normshift import BatchInstanceNorm2d, convert, fold
from paired import Candidate, interleaved, ratios, spread

REFERENCE, AGAIN = ("bn", "eager"), ("bn", "eager again")
AT_LEAST = 0.2
"""The shortest time of a sample in seconds."""

Key = tuple[str, str]  # norm, form


@dataclass
class Form:
    """A network in one form: what runs it, and what it took to have it."""

    run: Callable[[Tensor], Tensor]
    make_s: float | None = None  # folding, compiling, writing
    load_s: float | None = None
    megabytes: float | None = None  # of its file


def measured(flags: argparse.Namespace) -> list[dict]:
    """The results for the record, a row for each norm and form; the eager batch norm network comes first."""
    images = torch.randn(flags.batch_size, 3, flags.size, flags.size)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        forms = {REFERENCE: Form(network("bn"))}
        forms[AGAIN] = forms[REFERENCE]
        for norm in flags.norms:
            forms |= {(norm, form): made for form, made in forms_of(norm, flags.forms, images, Path(folder)).items()}
        expected = {norm: forms[norm, "eager"].run(images) for norm in ("bn", *flags.norms) if (norm, "eager") in forms}
        candidates = {key: Candidate(lambda form=form: form.run(images)) for key, form in forms.items()}
        for (norm, name), form in forms.items():
            if norm in expected:
                torch.testing.assert_close(form.run(images), expected[norm], rtol=1e-3, atol=1e-3, msg=f"{norm} {name}")
        times = interleaved({"resnet50": candidates}, flags.rounds, AT_LEAST, "cpu", flags.seed)["resnet50"]
    return [_row(key, forms[key], times) for key in forms]


def _row(key: Key, form: Form, times: dict[Key, list[float]]) -> dict:
    own = times.get((key[0], "eager"))
    return {
        "norm": key[0],
        "form": key[1],
        "seconds": spread(times[key])._asdict(),
        "ratio": spread(ratios(times[key], times[REFERENCE]))._asdict(),
        "own_ratio": spread(ratios(times[key], own))._asdict() if own else None,
        "make_s": form.make_s,
        "load_s": form.load_s,
        "megabytes": form.megabytes,
        "samples_s": times[key],
    }


def network(norm: str) -> nn.Module:
    """A ResNet-50 in evaluation mode, as after a training: with statistics, and gates away from their initial value."""
    torch.manual_seed(0)
    model = convert(resnet50(), norm)
    with torch.no_grad():
        model(torch.randn(8, 3, 64, 64))
        for layer in model.modules():
            if isinstance(layer, BatchInstanceNorm2d):
                layer.rho.uniform_(0, 1)
    return model.eval()


@torch.inference_mode(False)  # exporters refuse inference tensors
@torch.no_grad()
def forms_of(norm: str, wanted: list[str], images: Tensor, folder: Path) -> dict[str, Form]:
    """The forms of a network under one norm."""
    eager = network(norm)
    folded, seconds = timed(lambda: fold(eager)[0])
    found = {"eager": Form(eager), "folded": Form(folded, seconds)}
    if "compiled" in wanted:
        compiled = torch.compile(folded)
        _, seconds = timed(lambda: compiled(images.clone()))
        found["compiled"] = Form(compiled, seconds)
    for name in (form for form in wanted if form in FORMATS):
        file = folder / f"{norm}{FORMATS[name].suffix}"
        example = torch.randn(2, *images.shape[1:])
        _, seconds = timed(lambda name=name, file=file, example=example: save(FORMATS[name], folded, example, file))
        program, loading = timed(lambda name=name, file=file: FORMATS[name].load(file))
        found[name] = Form(program, seconds, loading, file.stat().st_size / 1e6)
    return {name: form for name, form in found.items() if name in wanted}


def timed(work: Callable) -> tuple:
    """What some work returns, and the seconds that it took."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started
