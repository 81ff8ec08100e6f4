"""ImageNet, and its corrupted and its perturbed copy."""

from datamodules.classification.image_set import ImageSet, Request
from datamodules.classification.imagenet import ImageNet, ImageNetC, ImageNetP
from datamodules.image_files import DataError


def _plain(request: Request) -> ImageNet:
    return ImageNet(request.root, request.split)


def _corrupted(request: Request) -> ImageNetC:
    _only_val(request)
    corruption, severity = request.parts
    if severity not in ("1", "2", "3", "4", "5"):
        raise DataError(f"{request.name!r} asks for severity {severity!r} of ImageNet-C, which has 1 to 5.")
    return ImageNetC(request.root, corruption, int(severity))


def _perturbed(request: Request) -> ImageNetP:
    _only_val(request)
    return ImageNetP(request.root, request.parts[0])


def _only_val(request: Request) -> None:
    if request.split != "val":
        raise DataError(
            f"{request.name!r} has no {request.split!r} split: it is made of ImageNet's val, to evaluate on."
        )


SETS = (
    ImageSet(("imagenet",), _plain),
    ImageSet(("imagenet-c/CORRUPTION/SEVERITY",), _corrupted),
    ImageSet(("imagenet-p/PERTURBATION",), _perturbed),
)
