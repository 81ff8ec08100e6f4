"""Sweeps on this machine: W&B's sweep files, run without W&B's server."""
