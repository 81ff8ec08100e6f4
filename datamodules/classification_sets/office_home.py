"""Office-Home (Venkateswara et al. 2017)."""

from datamodules.image_folders import Published
from datamodules.multi_domain import DomainFolders

OFFICE_HOME = DomainFolders(
    "office-home",
    Published("Office-Home", "https://www.hemanthdv.org/officeHomeDataset.html", "Art, Clipart, Product, Real World"),
    {
        "Art": ("Art",),
        "Clipart": ("Clipart",),
        "Product": ("Product",),
        "RealWorld": ("Real World", "Real_World", "RealWorld"),
    },
)
SETS = (OFFICE_HOME.as_set(),)
