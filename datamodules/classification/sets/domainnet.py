"""DomainNet (Peng et al. 2019)."""

from datamodules.classification.domain_folders import DomainFolders
from datamodules.classification.folders import Published

DOMAINNET = DomainFolders(
    "domainnet",
    Published(
        "DomainNet",
        "https://ai.bu.edu/M3SDA/",
        "clipart, infograph, painting, quickdraw, real, sketch and the lists DOMAIN_train.txt and DOMAIN_test.txt",
    ),
    {name: (name,) for name in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")},
)
SETS = (DOMAINNET.as_set(),)
