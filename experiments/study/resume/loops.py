"""The state of Lightning's loops in a checkpoint, and how a training continues from it in the middle of an epoch.

Lightning's own state depends on the hook in which it is taken, and restarting from it may repeat or skip a batch, an
evaluation or the end of an epoch. Here it always says how many batches of the epoch are done, and nothing is under way.
"""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from datamodules.sample_order import is_exact
from lightning_modules.study_module import StudyModule

LOOP = "epoch_loop.batch_progress"
EVALUATION = "epoch_loop.val_loop.batch_progress"
COUNTS = ("ready", "started", "processed", "completed")


def clean(fit_loop: dict) -> None:
    """Rewrite the state of a fit loop, taken between two batches, so that Lightning restarts right behind the first."""
    for part in ("total", "current"):
        epochs, batches = fit_loop["epoch_progress"][part], fit_loop[LOOP][part]
        epochs["ready"] = epochs["started"] = epochs["completed"] + 1
        epochs["processed"] = epochs["completed"]
        for count in COUNTS:
            batches[count] = batches["completed"]
            fit_loop[EVALUATION][part][count] = 0
    fit_loop[LOOP]["is_last_batch"] = fit_loop[EVALUATION]["is_last_batch"] = False


def batches_done(trainer: pl.Trainer) -> int:
    """Batches of the current epoch that are done."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed


def is_fitting(trainer: pl.Trainer) -> bool:
    """Whether an evaluation is one of a training, and not Lightning's check before it or one by itself."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def replay(trainer: pl.Trainer, before_fetch: Callable[[int], None]) -> None:
    """Read and drop the batches of the epoch that are done, for loaders that cannot begin in its middle.

    Args:
        before_fetch: is called with the number of each batch but the first, before it is read.
    """
    fetcher, done = trainer.fit_loop._data_fetcher, batches_done(trainer)
    if all(is_exact(loader) for loader in fetcher.combined_loader.flattened):
        return
    for batch in range(done):
        if batch:
            before_fetch(batch)
        next(fetcher.iterator)
    if done:
        before_fetch(done)


def evaluate(trainer: pl.Trainer, module: StudyModule) -> None:
    """Run the evaluation of an epoch, as Lightning does behind its last batch."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    trainer.fit_loop.epoch_loop._batches_that_stepped = module.steps - 1  # the step under which it is logged
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


def skip_batches(trainer: pl.Trainer) -> None:
    """Let the epoch end without another batch; `on_train_epoch_end` and what follows it are called."""
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.is_last_batch = True
    loop.val_loop._has_run = True


def forget_restart(trainer: pl.Trainer) -> None:
    """Begin the next epoch as in a training that was not resumed: after `skip_batches` the loop is still restarting."""
    loop = trainer.fit_loop.epoch_loop
    if loop.restarting:
        loop.restarting = False
        loop.on_iteration_done()
        # `skip_batches` has called it the last; in a training that ended within an epoch it is not
        loop.batch_progress.is_last_batch = batches_done(trainer) >= trainer.num_training_batches
