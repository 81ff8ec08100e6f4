"""What does a trained network make of these pictures?

    python experiments/predict.py runs/seg_gta2city/bn-seed0 holiday/ --out predictions --overlay
    python experiments/predict.py runs/cls_imagenet/bn-seed0/checkpoints/model.ckpt cat.jpg dog.png --out predictions

Takes one checkpoint of a study, which is rebuilt from the file alone, and PNG or JPEG files of any size, or folders of
them with their subfolders. The network sees each picture as its recipe says: resized, whole or by sliding windows.

A segmentation network leaves OUT/labels/NAME.png, label maps of the pictures' own size: PNG files of palette indices,
which are the class ids, in the colours of the label space; OUT/classes.csv names them. --overlay adds the pictures
under these colours in OUT/overlays. A classification network leaves OUT/predictions.csv: image, class and probability,
and the next four classes with theirs. A network of another task leaves OUT/pictures/NAME.png or OUT/predictions.csv.

What cannot be read is told of at the end; all other pictures have their predictions then.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.study.flags import PRECISIONS, UsageError, check_numbers, one_sentence, parse, register_plugins

if TYPE_CHECKING:  # loads torch; a command line that asks for --help need not wait
    from lightning_modules.study_module import StudyModule

POSITIONAL = {"positional": True, "custom_args": {"metavar": "CHECKPOINT IMAGES"}}


@dataclass
class Flags:
    """Flags of this script."""

    inputs: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """A checkpoint or the folder of one training, and then pictures and folders of pictures."""
    out: str = "runs/predict"
    """Folder for what is predicted."""
    overlay: bool = False
    """Of a segmentation network, the pictures under their classes' colours as well."""
    batch_size: int | None = None
    """Pictures that a classification network sees at once, by default 64; pictures are segmented one by one."""
    precision: str = "32-true"
    """Lightning's word: 32-true, bf16-mixed, 16-mixed or 64-true."""
    gpus: int | None = None
    """1 for a GPU, 0 for the CPU; by default a GPU where there is one."""
    workers: int | None = None
    """Loader processes, which read the pictures; by default half the cores, at most 8."""
    plugin: list[str] = field(default_factory=list)
    """Python files with norms (docs/own-norm.md) or tasks of your own, of which a network may be."""
    smoke: bool = False
    """An untrained network and, where no picture is given, two that are drawn, to see that everything fits together."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self)
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}.")
        if len(self.inputs) < 2 and not self.smoke:
            raise UsageError("name a checkpoint, and then the pictures or their folders.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> Path:
    """Predict every picture that can be read; returns the folder of what was written.

    Raises:
        UsageError: something was not as it has to be, or pictures could not be read; the others have been written then.
    """
    from experiments.study.settings import loader_workers
    from experiments.study.trained.pictures import Reading, pictures_in
    from experiments.study.trained.task import task_of

    flags = smoked(flags) if flags.smoke else flags
    flags = dataclasses.replace(flags, workers=loader_workers(flags))
    out = Path(flags.out)
    module = network(flags)
    reading = Reading(pictures_in(flags.inputs[0 if flags.smoke else 1 :]), flags.workers)
    begin(out, flags.smoke)
    written = task_of(module.task).predict(module, reading, out, flags)
    print(f"{len(reading) - len(reading.unreadable)} pictures predicted; {written}")
    if reading.unreadable:
        others = len(reading.unreadable) - 1
        more = f" (and {others} more could not be read)" if others else ""
        raise UsageError(f"{reading.unreadable[0].rstrip('.')}{more}; what the others gave is in {out}.")
    return out


def network(flags: Flags) -> StudyModule:
    """The network that the flags name.

    Raises:
        UsageError: it cannot be had, or a folder holds several.
    """
    from experiments.study.trained.networks import checkpoint_files, trained_network
    from experiments.study.trained.task import task_of

    if flags.smoke:
        return task_of("segmentation").smoke_network()
    found = checkpoint_files(flags.inputs[0])
    if len(found) > 1:
        raise UsageError(f"{flags.inputs[0]} holds {len(found)} networks: name one of them, such as {found[0]}.")
    return trained_network(found[0]).module


def begin(out: Path, again: bool) -> None:
    """Make the folder for what is predicted.

    Raises:
        UsageError: it holds predictions already, which are not overwritten, or cannot be written.
    """
    there = [name for name in ("labels", "overlays", "pictures", "predictions.csv") if (out / name).exists()]
    if there and not again:
        raise UsageError(f"{out / there[0]} is there already: pass another --out, or move it away.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror or error}): choose another.") from error


def smoked(flags: Flags) -> Flags:
    """The flags of a few seconds' run, its pictures drawn where none is given."""
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    return dataclasses.replace(flags, out=out, workers=0, inputs=flags.inputs or [str(drawn(Path(out)))])


def drawn(out: Path) -> Path:
    """A folder with two small street scenes."""
    from PIL import Image

    from datamodules.worlds.streets.world import Streets

    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        Image.fromarray(Streets("night", "val", 2, (64, 128))[index][0]).save(folder / f"{index}.png")
    return folder


if __name__ == "__main__":
    main()
