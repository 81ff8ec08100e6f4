"""Image classification: module, recipes, networks."""
