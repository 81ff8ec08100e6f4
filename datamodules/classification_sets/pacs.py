"""PACS (Li et al. 2017)."""

from datamodules.image_folders import Published
from datamodules.multi_domain import DomainFolders

PACS = DomainFolders(
    "pacs",
    Published("PACS", "https://sketchx.eecs.qmul.ac.uk/downloads/", "art_painting, cartoon, photo, sketch (pacs_data)"),
    {name: (name,) for name in ("art_painting", "cartoon", "photo", "sketch")},
)
SETS = (PACS.as_set(),)
