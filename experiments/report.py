"""Turn what a study left in its run folder into report.html: one file to read, to send, to keep.

    python experiments/report.py runs/seg_gta2city

Reads config.yaml, arms.json, table.json, examples/ and what the single trainings have left, whichever of them there
are, of any study; a run that was stopped half-way, or is under way, gets a report of what it had done. The page needs
no network.

    python experiments/report.py runs/streets runs/streets-augmented

of several runs writes each one's report, and beside their folders side-by-side.html, one page for all of them.

    python experiments/report.py runs/seg_gta2city --gates gates.png

draws the gates as they were last recorded, of all arms on one sheet, for a text.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.reporting.page import damaged, write_report, write_side_by_side
from experiments.reporting.run import read_run
from experiments.study.flags import one_sentence
from experiments.study.plugins import load_plugins


def main() -> None:
    with one_sentence():
        run()


def run() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Write report.html, one self-contained page, into a run's folder; for several runs, each its own, "
        "and beside them side-by-side.html, one page for all."
    )
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="folder of a run, such as runs/seg_gta2city")
    parser.add_argument("--gates", type=Path, metavar="FILE", help="draw the gates of a run's arms into a picture, too")
    parser.add_argument(
        "--plugin",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files of the run's own norms, for how these are drawn",
    )
    flags = parser.parse_args()
    load_plugins(flags.plugin)
    if flags.gates and len(flags.run) > 1:
        parser.error("--gates draws those of one run: name one.")
    written, failed = [], False
    for run in dict.fromkeys(flags.run):
        try:
            print(write_report(run))
            written.append(run)
            if said := damaged(read_run(run)):
                print(f"report: {run}: {said}", file=sys.stderr)
            if flags.gates:
                print(_draw_gates(run, flags.gates))
        except (OSError, ValueError) as error:
            print(f"report: {' '.join(str(error).split())}", file=sys.stderr)
            failed = True
    if len(written) > 1:
        print(write_side_by_side(written))
    sys.exit(failed)


def _draw_gates(run: Path, picture: Path) -> Path:
    from lightning_modules.gates.figures import draw_gates

    gates = read_run(run).gates
    if gates is None:
        raise ValueError(f"{run} has no gates to draw.")
    draw_gates(gates).savefig(picture, dpi=110)
    return picture


if __name__ == "__main__":
    main()
