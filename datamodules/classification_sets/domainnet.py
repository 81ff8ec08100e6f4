"""DomainNet (Peng et al. 2019)."""

from datamodules.image_folders import Published
from datamodules.multi_domain import DomainFolders

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
