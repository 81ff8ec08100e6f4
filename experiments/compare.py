"""Which arms of several runs differ by more than chance? Runs that were made apart, compared seed by seed.

    python experiments/compare.py runs/streets runs/streets-augmented

An arm is compared with the arm of its name in the first run, and in that run with batch norm or the first arm; with
--reference all are compared with one. The table gives the difference, its 95 % interval, and p-values: by an exact
permutation test over the seeds that two arms share (by the paired t-test for more than 12 seeds, by Welch's t-test for
arms without common seeds), and corrected by Holm for all comparisons of the table. docs/results.md says how to read it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.study.endings import UsageError, one_sentence
from experiments.study.plugins import load_plugins


def main() -> None:
    with one_sentence():
        run()


def run() -> None:
    """Compare the runs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="folder of a run, such as runs/seg_gta2city")
    parser.add_argument("--reference", metavar="ARM@RUN", help="compare all arms with this one, such as bn@streets")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table in Markdown into this file")
    parser.add_argument("--plugin", nargs="+", default=[], metavar="FILE", help="files that the runs were made with")
    flags = parser.parse_args()
    load_plugins(flags.plugin)
    _compare(list(dict.fromkeys(flags.run)), flags.reference, flags.out)


def _compare(folders: list[Path], reference: str | None, out: Path | None) -> None:
    """Print the table of differences, and write it where that is asked for."""
    from rich.console import Console  # heavy imports stand here: --help must not wait for them
    from rich.table import Table

    from experiments.reporting.run import read_run
    from experiments.study.reader import distinct_names
    from experiments.study.tables import runs_apart
    from experiments.study.tables.differences import digits_of, in_words

    try:
        read = [read_run(folder) for folder in folders]
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    names = (
        distinct_names([folder.resolve() for folder in folders]) if len(folders) > 1 else [folders[0].resolve().name]
    )
    runs = dict(zip(names, read, strict=True))
    if empty := [name for name, one in runs.items() if one.results is None]:
        raise UsageError(f"{empty[0]} has no results yet: let it finish a training first.")
    runs_apart.comparable(runs)
    found = runs_apart.between(runs, reference)
    if not found:
        raise UsageError("there is nothing to compare: these runs hold one arm.")
    digits = digits_of(read[0].headline)
    lines = runs_apart.rows(found, digits)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, heading in enumerate(runs_apart.HEADER):
        table.add_column(heading, justify="right" if 3 <= place <= 7 else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console = Console()
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, crop=False)  # also on a narrow terminal: a cropped number would be wrong
    said = in_words(found, digits) or "One seed each: a difference of chance cannot be told from a real one."
    notes = [said, *(f"The runs differ in {flag}." for flag in runs_apart.unlike_flags(runs))]
    print("\n".join(notes))
    if out is not None:
        _write(out, runs_apart.HEADER, lines, notes)


def _write(out: Path, header: list[str], lines: list[list[str]], notes: list[str]) -> None:
    from datamodules.whole_file import write_whole  # with what it imports, slow

    rows = [header, ["---"] * len(header), *lines]
    text = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    write_whole(out, f"{text}\n\n{' '.join(notes)}\n")
    print(f"table: {out}")


if __name__ == "__main__":
    main()
