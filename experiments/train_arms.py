"""Train what a study compares, arm by arm under each seed, and end in its table, its gates and its report.

A run that is cut short, by a crash, Ctrl-C or SIGTERM, leaves a report of what there is; after kill -9,
`python experiments/report.py RUN` makes it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.report import write_report
from experiments.reporting.gate_bars import print_gates
from experiments.stops import exit_if_stopped, signals_exit

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.run_folder import RunFolder
    from experiments.tables import Table


def train_arms(
    folder: RunFolder,
    train: Callable[[str, int], None],
    table: Callable[[DataFrame], Table | None],
    started: float,
) -> DataFrame | None:
    """Train whatever is not finished yet, and print and write what comes of it.

    Args:
        train: trains and judges one arm under one seed, which are its arguments.
        table: makes the closing table of the results.
        started: when the study began, in seconds since the epoch.

    Returns:
        The results; None on all processes but the first.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.utilities import rank_zero_only

    def gather(table: Callable[[DataFrame], Table | None]) -> DataFrame:
        return folder.gather((time.time() - started) / 60, table)

    def so_far(results: DataFrame) -> Table | None:
        try:
            return table(results)
        except (KeyError, IndexError, ValueError):  # a table may need rows that there are not yet
            return None

    try:
        with signals_exit():
            for seed in folder.seeds:
                for arm in folder.arms:
                    exit_if_stopped()
                    if not folder.is_finished(arm, seed):
                        pl.seed_everything(seed, workers=True, verbose=False)
                        train(arm, seed)
                        if not rank_zero_only.rank:
                            gather(so_far)  # should the run be killed without a word
    except BaseException as reason:
        if not rank_zero_only.rank:
            _leave_what_there_is(folder, lambda: gather(so_far), reason)
        raise
    if rank_zero_only.rank:
        return None
    results = gather(table)
    closing = table(results)
    if closing is not None:
        closing.print()
    print_gates(folder.path)
    print(f"report: {write_report(folder.path)}")
    return results


def _leave_what_there_is(folder: RunFolder, gather: Callable[[], DataFrame], reason: BaseException) -> None:
    try:
        gather()
        print(f"stopped; report of what there is: {write_report(folder.path)}", file=sys.stderr, flush=True)
    except Exception as error:  # the reason why the run stopped must not be hidden behind it
        if not isinstance(reason, OSError):  # a full disk, which is to be said once
            print(f"stopped; no report could be made: {error!r}", file=sys.stderr, flush=True)
