"""Tiny classification sets in the folder layouts of the published ones, with what a reader must find in them.

Each `make_*(root, ...)` returns [(image, label), ...], or one such list for each split, in the order of the file
names: image uint8 (H, W, 3) RGB. Pictures are flat or nearly so, which JPEG keeps within a few grey levels.
"""

import io
import pickletools
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

Sample = tuple[np.ndarray, int]

WNIDS = {"n01440764": 0, "n01443537": 1, "n02085620": 151, "n15075141": 999}
"""Tench, goldfish, Chihuahua and toilet tissue: the label of each as every list of ILSVRC-2012 has it."""
OFFICE_HOME = ("Art", "Clipart", "Product", "Real World")
PACS = ("art_painting", "cartoon", "photo", "sketch")
DOMAINNET = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def flat(number: int, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    """A picture of one colour, uint8 (H, W, 3); no two of the first 500 numbers are alike, nor are their channels."""
    return np.full((*size, 3), [number * 37 % 256, (number * 101 + 60) % 256, (number * 13 + 130) % 256], np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"quality": 98, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    Image.fromarray(image).save(path, **whole)


def make_wnid_folders(root: Path, wnids: Sequence[str] = tuple(WNIDS), images: int = 2, first: int = 0) -> list[Sample]:
    """WNID/WNID_NUMBER.JPEG, as ImageNet and each severity of ImageNet-C have them."""
    samples = []
    for wnid in wnids:
        for number in range(images):
            image = flat(first + len(samples))
            write_image(root / wnid / f"{wnid}_{number}.JPEG", image)
            samples.append((image, WNIDS[wnid]))
    return samples


def make_imagenet(root) -> dict[str, list[Sample]]:
    return {split: make_wnid_folders(Path(root) / split, first=100 * n) for n, split in enumerate(("train", "val"))}


def make_imagenet_p(root, perturbation: str = "tilt", frames: int = 5) -> list[Sample]:
    """Videos of flat frames that differ, uint8 (T, H, W, 3), as MPEG-4."""
    samples = []
    for wnid, label in WNIDS.items():
        folder = Path(root) / perturbation / wnid
        folder.mkdir(parents=True)
        video = np.stack([flat(10 * label + 3 * number, (48, 64)) for number in range(frames)])
        writer = cv2.VideoWriter(str(folder / "ILSVRC2012_val_1.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
        for frame in video:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        samples.append((video, label))
    return samples


def make_domains(
    root, domains: Sequence[str] = PACS, classes: Sequence[str] = ("dog", "horse"), images: int = 10
) -> dict[str, list[Sample]]:
    """DOMAIN/CLASS/pic_NUMBER, as PNG where the number is odd; {domain: samples}."""
    written: dict[str, list[Sample]] = {}
    for place, domain in enumerate(domains):
        written[domain] = []
        for label, class_ in enumerate(classes):
            for number in range(images):
                image = flat(100 * place + 50 * label + number)
                suffix = ".png" if number % 2 else ".jpg"
                write_image(Path(root) / domain / class_ / f"pic_{number:03d}{suffix}", image)
                written[domain].append((image, label))
    return written


def make_domainnet_lists(root, domain: str, images: int = 10, test: int = 3) -> None:
    """DOMAIN_train.txt and DOMAIN_test.txt: of each class, the first `test` images for test."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for label, class_ in enumerate(sorted(path.name for path in (Path(root) / domain).iterdir())):
        for number, path in enumerate(sorted((Path(root) / domain / class_).iterdir())):
            lines["test" if number < test else "train"].append(f"{domain}/{class_}/{path.name} {label}\n")
    for split, listed in lines.items():
        (Path(root) / f"{domain}_{split}.txt").write_text("".join(listed))


def make_cifar_tree(root, images: int = 2) -> dict[str, list[Sample]]:
    written: dict[str, list[Sample]] = {}
    for place, split in enumerate(("train", "test")):
        written[split] = []
        for label, class_ in enumerate(CIFAR10):
            for number in range(images):
                image = flat(100 * place + 10 * label + number, (32, 32))
                write_image(Path(root) / split / class_ / f"{number:04d}.png", image)
                written[split].append((image, label))
    return written


def make_cifar_archive(root, classes: int = 10, images: int = 4, packed: bool = True) -> dict[str, list[Sample]]:
    """The archive of pickles, or what it unpacks to; `images` in each batch, of which CIFAR-10 has five to train on."""
    rng = np.random.default_rng(0)
    if classes == 10:
        folder, batches = (
            "cifar-10-batches-py",
            {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]},
        )
        meta, meta_key, key = "batches.meta", "label_names", "labels"
        names = list(CIFAR10)
    else:
        folder, batches = "cifar-100-python", {"train": ["train"], "test": ["test"]}
        meta, meta_key, key = "meta", "fine_label_names", "fine_labels"
        names = [f"class_{n:02d}" for n in range(100)]
    files, written = {meta: python2_pickle({meta_key: names})}, {"train": [], "test": []}
    for split, members in batches.items():
        for member in members:
            pictures = rng.integers(0, 256, (images, 32, 32, 3), np.uint8)
            labels = rng.integers(classes, size=images).tolist()
            planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).reshape(images, 3072)
            batch = {"batch_label": member, key: labels, "data": planes}
            batch |= {"coarse_labels": [0] * images} if classes == 100 else {}
            files[member] = python2_pickle(batch)
            written[split] += zip(pictures, labels, strict=True)
    _write_archive(Path(root), folder, f"cifar-{classes}-python.tar.gz", files, packed)
    return written


def _write_archive(root: Path, folder: str, archive: str, files: dict[str, bytes], packed: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if not packed:
        (root / folder).mkdir()
        for name, content in files.items():
            (root / folder / name).write_bytes(content)
        return
    with tarfile.open(root / archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def python2_pickle(value) -> bytes:
    """As Python 2 wrote the published files: its strings are bytes, arrays hold theirs as such a string."""
    stream = b"\x80\x02" + _opcodes(value) + b"."
    pickletools.dis(stream, io.StringIO())  # raises where the stream is no pickle
    return stream


def _opcodes(value) -> bytes:
    if isinstance(value, np.ndarray):
        rebuilt = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + _opcodes("b") + b"tR"
        dtype = (
            b"cnumpy\ndtype\n("
            + _opcodes("u1")
            + b"K\x00K\x01tR(K\x03"
            + _opcodes("|")
            + b"NNN"
            + b"J\xff\xff\xff\xff" * 2
            + b"K\x00tb"
        )
        shape = b"(" + b"".join(map(_opcodes, value.shape)) + b"t"
        return rebuilt + b"(K\x01" + shape + dtype + b"\x89" + _opcodes(value.tobytes()) + b"tb"
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(part) for item in value.items() for part in item) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    text = value.encode() if isinstance(value, str) else value
    return b"T" + len(text).to_bytes(4, "little") + text
