"""Sets of labelled images by name: each a file in this folder, which is found here by being there.

A file's `SETS` say how its sets are asked for and opened. To add a set of several domains, each a folder of class
folders, copy `pacs.py`.
"""

from importlib import import_module
from pkgutil import iter_modules

from datamodules.classification.image_set import ImageSet
from datamodules.registered import note

_FILES = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]
IMAGE_SETS: dict[str, ImageSet] = {image_set.name: image_set for file in _FILES for image_set in file.SETS}


def register_image_set(image_set: ImageSet) -> ImageSet:
    """Add a set of your own, which `--data`, and `--target` of evaluate.py, then open by its name; returns it.

    Raises:
        ValueError: there is a set of that name.
    """
    note("data set", image_set.name, IMAGE_SETS)
    IMAGE_SETS[image_set.name] = image_set
    return image_set
