"""A trained network as a file for production: ONNX, torch.export or TorchScript, without this repository.

    python experiments/export.py runs/cls_imagenet/sn-seed0
    python experiments/export.py model.ckpt --format onnx torch-export torchscript --out served/model
    python experiments/export.py runs/seg_gta2city/bn-seed0 --format onnx --size 512 1024 --out city.onnx

The script takes one checkpoint of a study, or the folder of one training. It rebuilds the network from the checkpoint
alone, merges norms into the convolutions before them where this is possible (--no-fold leaves them), and writes a file
for each format beside the checkpoint, or where --out says:

    onnx          OUT.onnx   for ONNX Runtime, TensorRT, OpenVINO, ...; needs pip install -e '.[export]'
    torch-export  OUT.pt2    torch.export.load(FILE).module()
    torchscript   OUT.pt     torch.jit.load(FILE); traced, and the trace checked by torch

None of them needs normshift where it runs. Images are normalised, of one size and in batches of any number; OUT.json
says how they are normalised, and which classes the scores are of. Each file is read again, and its scores compared
with the network's. docs/deployment.md has what each form costs and how fast it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.study.bounds import Bounds
from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import check_choices, check_numbers, flag, parse, register_plugins

POSITIONAL = {"positional": True, "custom_args": {"metavar": "CHECKPOINT"}}
FORMATS = ("onnx", "torch-export", "torchscript")
SIDES = Bounds(8, 16384)


@dataclass
class Flags:
    """Flags of this script."""

    network: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """A checkpoint, or the folder of one training."""
    format: list[str] = field(default_factory=lambda: ["onnx"])
    """What to write: onnx torch-export torchscript."""
    out: str | None = None
    """Name of the files, to which each format's ending is added; by default the checkpoint's, beside it."""
    size: list[int] | None = None
    """Height and width of the images; by default those that the network was evaluated on, or trained on."""
    fold: bool = flag(default=True, negative_prefix="--no-")
    """Merge norms into the convolutions before them."""
    plugin: list[str] = field(default_factory=list)
    """Python files that register your own norms (docs/own-norm.md) or tasks, if the network has them."""
    smoke: bool = False
    """Write over files of the same name, and export an untrained network if none is named: a test, in seconds."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self, size=SIDES)
        check_choices(self, format=FORMATS)
        self.format = list(dict.fromkeys(self.format))
        if self.size is not None and len(self.size) != 2:
            raise UsageError(f"--size {' '.join(map(str, self.size))}: give height and width, such as --size 224 224.")
        if self.out is not None and Path(self.out).name in ("", ".."):
            raise UsageError("--out: name a file, to which the ending of each format is added.")
        if len(self.network) != 1 and not (self.smoke and not self.network):
            more = f", not {len(self.network)}" if self.network else ""
            raise UsageError(f"name one network to export{more}: a checkpoint, or the folder of one training.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> dict[str, Path]:
    """Write the network in every format; returns the files by format."""
    from experiments.study.trained.export import exported  # imports torch: --help must not wait for it

    return exported(flags)


if __name__ == "__main__":
    main()
