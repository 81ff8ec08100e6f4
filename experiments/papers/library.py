"""All papers, claims and studies by name."""

from __future__ import annotations

from experiments.papers import antialiasing, batch_instance, ibn_net, resnet_rs, switchable
from experiments.papers.claim import Claim, Paper, Study

_MODULES = {
    "IBN-Net": ibn_net, "SN": switchable, "BIN": batch_instance, "anti-aliased CNNs": antialiasing,
    "ResNet-RS": resnet_rs,
}  # fmt: skip

PAPERS: dict[str, Paper] = {name: module.PAPER for name, module in _MODULES.items()}
"""The papers, by what their subject is called here."""
CLAIMS: dict[str, Claim] = {key: claim for paper in PAPERS.values() for key, claim in paper.claims.items()}
STUDIES: dict[str, Study] = {name: study for module in _MODULES.values() for name, study in module.STUDIES.items()}
