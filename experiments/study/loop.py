"""The loop of all studies: train and evaluate every arm with every seed, then write table, gates and report.

A run that a crash, Ctrl-C or SIGTERM stops writes a report of its results so far; after kill -9,
`python experiments/report.py RUN` writes it. If values of a training are not finite, that training is marked as failed,
the others continue, and the study ends with status 3.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch.distributed as processes
from pytorch_lightning.utilities import rank_zero_only

from experiments.reporting.gate_bars import print_gates
from experiments.reporting.page import write_report
from experiments.study.endings import TrainingsFailed, UsageError
from experiments.study.failures import Failure, marked, read_failure, read_failures, with_gaps, write_failure
from experiments.study.resume.dead_processes import all_done, ends_together
from experiments.study.resume.ended import forget_progress
from experiments.study.resume.time_limit import STATUS as TIME_IS_OVER
from experiments.study.run_folder import RunFolder
from experiments.study.signals.stops import exit_if_stopped, goes_on, leave, requeue_if_asked, signals_exit
from experiments.study.tables.chance import without_guessers
from experiments.study.tables.differences import with_differences
from experiments.study.tables.early_ends import early_end, with_early_ends
from experiments.study.tables.printed import print_table
from experiments.study.time_left import Timekeeper, TimeLeft, Training
from experiments.study.trainers import CHECKPOINTS, end_wandb, make_trainer, train
from experiments.study.training.execution import prepare, run_eagerly
from experiments.study.training.time_spent import FURTHER, PICTURES, WANDB, StepTimes, TimeSpent
from experiments.study.wandb_runs.outcome import log_outcome
from lightning_modules.examples import save_examples
from lightning_modules.finite_training import NotFiniteError
from lightning_modules.gates.halves_tracker import HalvesTracker
from lightning_modules.gates.tracker import GateTracker

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.study.resume.time_limit import TimeLimit
    from experiments.study.settings import RunSettings
    from experiments.study.tables.table import Table
    from experiments.study.task import Arm, Pace, Task
    from lightning_modules.study_module import StudyModule


def run_study(
    task: Task, arms: Sequence[Arm], run: RunSettings, question: str, arm_flags: Collection[str] = ("norm",)
) -> DataFrame | None:
    """Train and evaluate every arm under every seed, and end in the study's table.

    Args:
        arms: in the order of the tables; of arms with one name the last is used.
        question: the study's question, for the report.
        arm_flags: flags that only choose the arms; a resumed run may add to them.

    Returns:
        The results in long form; None on all processes but the first.

    Raises:
        UsageError: the flags ask for something that cannot be done; nothing has been trained.
        TrainingsFailed: values of one or more trainings were not finite; table and report are written.
    """
    goes_on()
    if not arms:
        raise UsageError("there is nothing to compare: a list that chooses the arms is empty.")
    by_name = {arm.name: arm for arm in task.prepare(arms, run)}
    task.check(list(by_name.values()), run)
    columns = {name: arm.columns for name, arm in by_name.items()}

    def fault_of_longer(name: str, seed: int, before: dict) -> str | None:
        return task.module(task.of_seed(by_name[name], seed), run).fault_of_longer(before)

    folder = RunFolder(
        run.out,
        run.flags,
        question,
        task.about,
        columns,
        arm_flags,
        fresh=run.fresh,
        headline=task.headline,
        measures=task.measures,
        fault_of_longer=fault_of_longer,
    )
    task.check_data(run)

    time_left = _to_come(task, by_name, folder, run)
    said = run.computing if time_left.trainings else f"finished: every training of {run.out} has been done before"
    if said and not rank_zero_only.rank:
        print(said, flush=True)
    spent = TimeSpent()

    def train_one(name: str, seed: int) -> None:
        train_arm(task, by_name[name], seed, folder, run, time_left, spent)

    try:
        return train_arms(folder, train_one, task.table, run.started, run.time_limit)
    finally:
        if spent.seconds and not rank_zero_only.rank:
            print(spent.sentence(time.time() - run.started), flush=True)


def _to_come(task: Task, arms: dict[str, Arm], folder: RunFolder, run: RunSettings) -> TimeLeft:
    """The trainings that have neither ended nor failed."""
    return TimeLeft(
        [
            Training.of(name, seed, _pace(task, task.of_seed(arm, seed), run))
            for seed in run.seeds
            for name, arm in arms.items()
            if not folder.is_finished(name, seed) and read_failure(folder.path, name, seed) is None
        ]
    )


def _pace(task: Task, arm: Arm, run: RunSettings) -> Pace:
    """How long an arm is trained. Raises UsageError if the task does not accumulate as it was asked to."""
    pace = task.pace(arm, run)
    if pace.accumulate % run.flags.accumulate:
        raise UsageError(f"--accumulate {run.flags.accumulate}: each step of this study is one batch; leave it out.")
    return pace


def train_arm(
    task: Task, arm: Arm, seed: int, folder: RunFolder, run: RunSettings, time_left: TimeLeft, spent: TimeSpent
) -> None:
    """Train one arm with one seed, evaluate it, and write its results into the folder."""
    part, columns = folder.part(arm.name, seed), {"arm": arm.name, **arm.columns, "seed": seed}
    arm = task.of_seed(arm, seed)
    data, module = task.data(arm, run), task.module(arm, run)
    data.seed = seed
    prepare(module, run.flags)
    callbacks = [StepTimes(spent), *task.callbacks(arm, run), GateTracker(part, columns), HalvesTracker()]
    about = columns | task.settings(arm, run)
    pace = _pace(task, arm, run)
    keeper = Timekeeper(time_left, Training.of(arm.name, seed, pace))
    trainer = make_trainer(run, part, pace, callbacks, about, task.headline, seed, module, keeper)
    train(trainer, module, data, part, run)
    run_eagerly(module)
    if trainer.is_global_zero:
        module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
        with spent.on(FURTHER):
            result = evaluated(task, module, data, arm, run)
        result |= early_end(module.steps, pace.max_steps) if run.flags.patience else {}
        with spent.on(PICTURES):
            examples = task.examples(module, data)
            save_examples(examples, folder.path / "examples", arm.name)
        with spent.on(WANDB):
            log_outcome(trainer, module, result["results"], examples, result.get("divergence"), task.headline)
        folder.finish(arm.name, seed, result)
        forget_progress(part / CHECKPOINTS)
        with spent.on(WANDB):
            end_wandb(trainer)
    keeper.ended()


def evaluated(
    task: Task, module: StudyModule, data: pl.LightningDataModule, arm: Arm, run: RunSettings
) -> dict[str, list[dict]]:
    """All results of a network by table: those of its last evaluation and of `Task.evaluate_further`."""
    further = task.evaluate_further(module, data, arm, run)
    return further | {"results": [*module.results(), *further.get("results", [])]}


def train_arms(
    folder: RunFolder,
    train_one: Callable[[str, int], None],
    table: Callable[[DataFrame], Table | None],
    started: float,
    limit: TimeLimit | None = None,
) -> DataFrame | None:
    """Train everything that is not finished yet, and print and write the results.

    Args:
        train_one: trains and evaluates one arm with one seed, which are its arguments.
        table: makes the closing table of the results.
        started: when the study began, in seconds since the epoch.
        limit: of the time, before which the study stops.

    Returns:
        The results; None on all processes but the first.

    Raises:
        TrainingsFailed: values of one or more trainings were not finite; table and report are written.
    """

    def gather(table: Callable[[DataFrame], Table | None]) -> DataFrame:
        results = folder.gather((time.time() - started) / 60, lambda results: closing_table(folder, results, table))
        if not len(results):  # all trainings failed
            folder.write_table(closing_table(folder, results, table))
        return results

    def so_far(results: DataFrame) -> Table | None:
        try:
            return table(results)
        except (KeyError, IndexError, ValueError):  # a table may need rows that are still missing
            return None

    try:
        with signals_exit(), ends_together():
            failures = _train_all(folder, train_one, lambda: gather(so_far), limit)
    except BaseException as reason:
        requeue_if_asked()
        if not rank_zero_only.rank:
            _write_results_so_far(folder, lambda: gather(so_far), reason)
        raise
    results = None
    if not rank_zero_only.rank:
        last = so_far if failures else table
        results = gather(last)
        closing = closing_table(folder, results, last)
        if closing is not None:
            print_table(closing)
        print_gates(folder.path)
        print(f"report: {write_report(folder.path)}")
    _leave_together(bool(failures))
    if failures:
        raise TrainingsFailed(_failure_message(folder, failures))
    return results


def _leave_together(failed: bool) -> None:
    """Wait for all processes before a status: torchrun then stops the others, also the one that reports."""
    if failed and processes.is_initialized():
        processes.barrier()
    all_done()


def _train_all(
    folder: RunFolder, train_one: Callable[[str, int], None], gather: Callable, limit: TimeLimit | None
) -> list[Failure]:
    """Train everything that is neither finished nor failed; returns the failures, of this run and of earlier ones."""
    failures: list[Failure] = []
    for seed in folder.seeds:
        for arm in folder.arms:
            exit_if_stopped()
            if folder.is_finished(arm, seed):
                if not rank_zero_only.rank:  # it may have been killed right behind its result
                    forget_progress(folder.part(arm, seed) / CHECKPOINTS)
                continue
            failure = read_failure(folder.path, arm, seed)
            if failure is None:
                if limit is not None and limit.reached():
                    limit.say("stopped between two trainings")
                    leave(TIME_IS_OVER)
                pl.seed_everything(seed, workers=True, verbose=False)
                try:
                    train_one(arm, seed)
                except NotFiniteError as error:
                    failure = Failure(arm, seed, str(error))
                    if not rank_zero_only.rank:
                        write_failure(folder.part(arm, seed), error)
                        print(f"failed: {failure}; the other trainings continue", file=sys.stderr, flush=True)
                if not rank_zero_only.rank:
                    gather()  # in case the run is killed later
            failures += [failure] if failure else []
    return failures


def closing_table(folder: RunFolder, results: DataFrame, table: Callable[[DataFrame], Table | None]) -> Table | None:
    """The study's table of the results, with failed trainings and networks at chance marked."""
    failures, closing = read_failures(folder.path, folder.arms, folder.seeds), None
    if len(results):
        if failures:
            try:
                closing = table(with_gaps(results, failures, folder.arms))
            except (KeyError, IndexError, ValueError):  # the study's table cannot be made with missing values
                closing = None
        closing = table(results) if closing is None else closing
        closing = closing and without_guessers(closing, results, folder.headline)
        closing = with_early_ends(closing, folder.path, folder.arms, folder.seeds)
        closing = with_differences(closing, results, folder.arms, folder.headline)
    return marked(closing, failures, folder.arms)


def _failure_message(folder: RunFolder, failures: list[Failure]) -> str:
    parts = ", ".join(folder.part(failure.arm, failure.seed).name for failure in failures)
    return (
        f"{len(failures)} of the trainings failed: {'; '.join(map(str, failures))}. Table and report are in "
        f"{folder.path}. --resume does not repeat failed trainings; to repeat them, remove {parts} first."
    )


def _write_results_so_far(folder: RunFolder, gather: Callable[[], DataFrame], reason: BaseException) -> None:
    try:
        gather()
        print(f"stopped; report of the results so far: {write_report(folder.path)}", file=sys.stderr, flush=True)
    except Exception as error:  # it must not hide the reason for which the run stopped
        if not isinstance(reason, OSError):  # a full disk is reported once, by its own error
            print(f"stopped; no report could be made: {error!r}", file=sys.stderr, flush=True)
