"""Keeps Lightning's advertisements from the terminal, and its advice against what is done here on purpose."""

import logging
import warnings

ADVICE = (
    "The number of training batches",  # steps are counted, and loaders are small
    "The '.*_dataloader' does not have many workers",
    ".*treespec, LeafSpec.*",
    "Experiment logs directory",
    "Checkpoint directory",
    "There is a wandb run already in progress",
    "The `srun` command is available",  # a study may well be tried outside of a job
    "You're resuming from a checkpoint that ended before the epoch ended",  # the order of samples allows it
)


def quiet_lightning() -> None:
    """From now on, let through what is worth a user's attention alone."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for advice in ADVICE:
        warnings.filterwarnings("ignore", message=advice)
