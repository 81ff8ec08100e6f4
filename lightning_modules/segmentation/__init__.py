"""Semantic segmentation: module, recipes, networks."""
