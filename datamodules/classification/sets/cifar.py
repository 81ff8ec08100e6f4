"""CIFAR-10 and CIFAR-100."""

from datamodules.classification.cifar import CIFAR
from datamodules.classification.image_set import ImageSet, Request


def _opened(request: Request) -> CIFAR:
    root, classes = request.root, int(request.name.removeprefix("cifar"))
    # torchvision's downloads lie in the data folder itself.
    beside = not root.exists() and any((root.parent / part).exists() for part in CIFAR.archived_as(classes))
    return CIFAR(root.parent if beside else root, request.split, classes)


SETS = (ImageSet(("cifar10",), _opened), ImageSet(("cifar100",), _opened))
