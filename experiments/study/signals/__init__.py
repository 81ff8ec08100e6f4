"""Signals of users and schedulers: a step ends, a checkpoint is written, and SLURM is asked to start the job again."""
