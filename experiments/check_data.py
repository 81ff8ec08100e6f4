"""Is a data set whole? Every file is read once: what is damaged, which sizes and classes there are.

    python experiments/check_data.py cityscapes pacs path/to/pets farm.yaml

Names are those of --data, --source and --target: of published sets in --data-root, paths of class folders, YAML files.
One line tells each fault; with one or more the status is 2. With --out, pictures show how the classes are spread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from experiments.study.bounds import Bounds
from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import check_numbers, parse, register_plugins

POSITIONAL = {"positional": True, "custom_args": {"metavar": "NAME"}}


@dataclass
class Flags:
    """Flags of this script."""

    names: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """Sets to check, such as cityscapes, pacs/photo, path/to/pets or farm.yaml."""
    splits: list[str] = field(default_factory=lambda: ["train", "val"])
    """Splits to read, such as train val test; images that are in two of them are faults."""
    data_root: str = "data"
    """Folder with the published sets, each in a subfolder of its name."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that read; by default one for each core."""
    out: str | None = None
    """Folder for the pictures of how classes are spread."""
    plugin: list[str] = field(default_factory=list)
    """Python files that register sets of your own (docs/plugins.md)."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self, workers=Bounds(1, 512))
        self.names, self.splits = list(dict.fromkeys(self.names)), list(dict.fromkeys(self.splits))
        if not self.names:
            raise UsageError("name a set to check, such as cityscapes, path/to/pets or farm.yaml.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> None:
    """Check the sets."""
    from experiments.reporting.data_check import check  # imports OpenCV and matplotlib: --help must not wait for them

    check(flags.names, flags.splits, flags.data_root, flags.workers, flags.out)


if __name__ == "__main__":
    main()
