"""PACS (Li et al. 2017)."""

from datamodules.classification.domain_folders import DomainFolders
from datamodules.classification.folders import Published

PACS = DomainFolders(
    "pacs",
    Published("PACS", "https://sketchx.eecs.qmul.ac.uk/downloads/", "art_painting, cartoon, photo, sketch (pacs_data)"),
    {name: (name,) for name in ("art_painting", "cartoon", "photo", "sketch")},
)
SETS = (PACS.as_set(),)
