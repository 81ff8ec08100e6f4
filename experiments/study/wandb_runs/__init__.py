"""Runs on Weights & Biases: how they start, what they log, how they are read back."""
