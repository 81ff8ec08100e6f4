"""Which classes does a trained network predict on your images?

    python experiments/predict.py runs/seg_gta2city/bn-seed0 holiday/ --out predictions --overlay
    python experiments/predict.py runs/cls_imagenet/bn-seed0/checkpoints/model.ckpt cat.jpg dog.png --out predictions

The script takes one checkpoint of a study, and PNG or JPEG images of any size or folders of them (with subfolders). It
rebuilds the network from the checkpoint alone, and preprocesses images as the network's recipe does.

For a segmentation network it writes label maps, OUT/labels/NAME.png, each of its image's size: PNG files whose palette
indices are the class ids, in the colours of the label space. OUT/classes.csv names the classes. --overlay also writes
the images blended with these colours to OUT/overlays. For a classification network it writes OUT/predictions.csv: each
image with its five most probable classes and their probabilities. For a network of another task it writes
OUT/pictures/NAME.png or OUT/predictions.csv.

If an image cannot be read, the others are still predicted, and the script ends with an error that names it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import PRECISIONS, check_numbers, parse, register_plugins

POSITIONAL = {"positional": True, "custom_args": {"metavar": "CHECKPOINT IMAGES"}}


@dataclass
class Flags:
    """Flags of this script."""

    inputs: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """A checkpoint or the folder of one training, then images or folders of images."""
    out: str = "runs/predict"
    """Folder for the predictions."""
    overlay: bool = False
    """For a segmentation network, also write the images blended with their classes' colours."""
    batch_size: int | None = None
    """Images per batch of a classification network, by default 64; a segmentation network takes one at a time."""
    precision: str = "32-true"
    """Lightning's precision: 32-true, bf16-mixed, 16-mixed or 64-true."""
    gpus: int | None = None
    """1 predicts on a GPU, 0 on the CPU; by default on a GPU if there is one."""
    workers: int | None = None
    """Data loader processes; by default half the cores, at most 8."""
    plugin: list[str] = field(default_factory=list)
    """Python files of yours that register norms, backbones, data sets or tasks (docs/plugins.md)."""
    smoke: bool = False
    """Use an untrained network, and two drawn images if none is named: a test, in seconds, that everything runs."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self)
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}.")
        if len(self.inputs) < 2 and not self.smoke:
            raise UsageError("name a checkpoint, and then the images or their folders.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> Path:
    """Predict every image that can be read; returns the folder of the predictions.

    Raises:
        UsageError: a flag or a file is wrong. If it is images that cannot be read, the others' predictions are written.
    """
    from experiments.study.trained.prediction import predicted  # imports torch: --help must not wait for it

    return predicted(smoked(flags) if flags.smoke else flags)


def smoked(flags: Flags) -> Flags:
    """The flags of a smoke run, with two drawn images if none is named."""
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    return dataclasses.replace(flags, out=out, workers=0)


if __name__ == "__main__":
    main()
