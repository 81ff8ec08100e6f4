"""Office-Home (Venkateswara et al. 2017)."""

from datamodules.classification.domain_folders import DomainFolders
from datamodules.classification.folders import Published

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
