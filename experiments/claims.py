"""Do the papers' claims hold here? Runs the studies that put them to the test, and gives a verdict on each.

    python experiments/claims.py                  all claims, three seeds: about 50 minutes on two cores
    python experiments/claims.py ibn-1 sn-1       some of them
    python experiments/claims.py --seeds 5        adds seeds to what is there
    python experiments/claims.py --times 2        trains twice as long: is it only that one norm learns faster?
    python experiments/claims.py --scale paper    prints each claim's command for GPUs and real data

The studies are small and use the embedded worlds, so that nothing has to be on disk. Each runs in OUT/STUDY, with what
it prints in OUT/STUDY.log; the same command goes on where it was stopped. OUT/claims.html has the verdicts, claims.md
the same as tables, claims.json as data. A claim is held or not held where one-sided t-tests over the seeds, corrected
by Holm for all claims, say so at 5 %, else undecided.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from experiments.study.endings import one_sentence


def main() -> None:
    with one_sentence():
        run()


def run() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", nargs="*", metavar="CLAIM", help="keys such as ibn-1; by default all")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds of each training (default: 3)")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="train N times as long (default: 1)")
    parser.add_argument("--processes", type=int, metavar="N", help="studies at once (default: one a core, at most 8)")
    parser.add_argument("--scale", choices=("laptop", "paper"), default="laptop", help="paper: only print commands")
    parser.add_argument("--extra", default="--wandb disabled", metavar="FLAGS", help="flags for every study")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: runs/claims, or runs/claims-x2 for --times 2"
    )
    flags = parser.parse_args()
    from experiments.papers.testing import Settings, print_commands, put_to_the_test  # pandas: --help must not wait

    if flags.scale == "paper":
        print_commands(flags.claim)
        return
    processes = min(8, os.cpu_count() or 1) if flags.processes is None else flags.processes
    out = flags.out or Path("runs", "claims" if flags.times == 1 else f"claims-x{flags.times}")
    how = Settings(out, flags.seeds, flags.times, processes, tuple(shlex.split(flags.extra)))
    put_to_the_test(flags.claim, how)


if __name__ == "__main__":
    main()
