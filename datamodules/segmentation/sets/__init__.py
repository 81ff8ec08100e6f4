"""Published sets of street scenes. Every file of this folder is a set and is found automatically.

    cityscapes = STREET_SETS["cityscapes"]("data/cityscapes", "val")
    image, label = cityscapes[0]  # uint8 (H, W, 3) RGB, uint8 (H, W) with 255 for ignored pixels

A file has everything about its set: name, download page, folder layout, splits, and the map from the set's label ids to
ours. To add one, copy `camvid.py`.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from datamodules.registered import note
from datamodules.segmentation.street_sets import StreetSet


def _found() -> Iterator[type[StreetSet]]:
    for file in iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and issubclass(value, StreetSet):
                yield value


STREET_SETS: dict[str, type[StreetSet]] = {street_set.name: street_set for street_set in _found()}


def register_street_set(street_set: type[StreetSet]) -> type[StreetSet]:
    """Add a set of your own, which `--source` and `--target` then open by its `name`; returns it, as a decorator does.

    Raises:
        ValueError: there is a set of that name.
    """
    note("data set", street_set.name, STREET_SETS)
    STREET_SETS[street_set.name] = street_set
    return street_set
