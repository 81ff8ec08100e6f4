"""Street scenes with a label for each pixel: data module, domains, transforms."""
