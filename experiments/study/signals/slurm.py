"""SLURM: a job whose time is nearly over asks to be started again, and goes on from its checkpoint.

`#SBATCH --signal=USR1@120` makes SLURM send SIGUSR1 two minutes before the end of the job's time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

ASKS = signal.SIGUSR1
"""The signal before the end of the time."""

_asked: list[bool] = []


def is_first_process() -> bool:
    """Whether this is the first process of a training, or its only one; by the environment, as in Lightning."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def requeue() -> None:
    """Ask SLURM to start this process's job again, once; elsewhere, and in all but the first process, do nothing."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or not is_first_process() or _asked:
        return
    _asked.append(True)
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
        said = f"SLURM starts job {job} again"
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip()
        said = f"SLURM could not be asked to start job {job} again ({why}): submit the same command once more"
    print(f"{said}.", file=sys.stderr, flush=True)
