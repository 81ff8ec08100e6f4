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

from experiments.study.endings import one_sentence
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
    from experiments.reporting.comparison import compare  # imports pandas and scipy: --help must not wait for them

    compare(list(dict.fromkeys(flags.run)), flags.reference, flags.out)


if __name__ == "__main__":
    main()
