"""Labelled images: data module, domains, transforms."""
