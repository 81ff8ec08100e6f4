"""Robustness of trained classification networks."""
