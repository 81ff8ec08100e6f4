"""Write report.html, one self-contained page, from the folder of a study's run.

    python experiments/report.py runs/seg_gta2city

It reads config.yaml, arms.json, table.json, examples/ and the folders of the trainings, and works for every study.
Files may be missing: the report of a run that was stopped, or is still training, shows the trainings that have results.
The page loads nothing from the internet.

    python experiments/report.py runs/streets runs/streets-augmented

With several runs it writes the report of each, and side-by-side.html, one page for all, in their parent folder.

    python experiments/report.py runs/seg_gta2city --gates gates.png

With --gates it also draws the gates of all arms, as last recorded, in one figure for a paper.
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
        description="Write report.html, one self-contained page, into a run's folder. With several runs, also write "
        "side-by-side.html, one page for all, into their parent folder."
    )
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="folder of a run, such as runs/seg_gta2city")
    parser.add_argument("--gates", type=Path, metavar="FILE", help="also draw the gates of the run's arms in this file")
    parser.add_argument(
        "--plugin",
        nargs="+",
        default=[],
        metavar="FILE",
        help="Python files that register the run's own norms, which say how their lines are drawn",
    )
    flags = parser.parse_args()
    load_plugins(flags.plugin)
    if flags.gates and len(flags.run) > 1:
        parser.error("--gates draws the gates of one run: name only one.")
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
