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

from experiments.study.endings import one_sentence
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
    sys.exit(_write(flags.run, flags.gates))


def _write(runs: list[Path], gates: Path | None) -> bool:
    """Write the reports, print where they are, and return whether one failed."""
    from experiments.reporting import page  # imports pandas and matplotlib: --help must not wait for them
    from experiments.reporting.run import read_run

    written, failed = [], False
    for run in dict.fromkeys(runs):
        try:
            print(page.write_report(run))
            written.append(run)
            if said := page.damaged(read_run(run)):
                print(f"report: {run}: {said}", file=sys.stderr)
            if gates:
                print(page.draw_last_gates(read_run(run), gates))
        except (OSError, ValueError) as error:
            print(f"report: {' '.join(str(error).split())}", file=sys.stderr)
            failed = True
    if len(written) > 1:
        print(page.write_side_by_side(written))
    return failed


if __name__ == "__main__":
    main()
