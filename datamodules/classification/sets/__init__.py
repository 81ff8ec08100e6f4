"""Sets of labelled images by name: each a file in this folder, which is found here by being there.

A file's `SETS` say how its sets are asked for and opened. To add a set of several domains, each a folder of class
folders, copy `pacs.py`.
"""

from importlib import import_module
from pkgutil import iter_modules

from datamodules.classification.image_set import ImageSet

_FILES = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]
IMAGE_SETS: dict[str, ImageSet] = {image_set.name: image_set for file in _FILES for image_set in file.SETS}
