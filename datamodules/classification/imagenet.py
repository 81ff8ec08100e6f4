"""ImageNet and its corrupted and perturbed copies, in their published layouts.

    imagenet = ImageNet("data/imagenet", "val")
    image, label = imagenet[0]  # uint8 (H, W, 3) RGB, index of the class

A set that is not there, or whose folders are not the published ones, is reported when it is built. Files are only
listed then: one that is damaged is reported, by its name, when it is read.
"""

import os
import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from datamodules.classification.folders import ImageFiles, Published, and_more, class_files, files_in, folders_in
from datamodules.decoder_warnings import decoder_words
from datamodules.image_files import DataError, MissingDataError, opened, unreadable

IMAGENET = Published(
    "ImageNet (ILSVRC-2012)", "https://image-net.org/download.php", "train/WNID/*.JPEG and val/WNID/*.JPEG"
)
IMAGENET_C = Published(
    "ImageNet-C", "https://zenodo.org/records/2235448", "CORRUPTION/SEVERITY/WNID/*.JPEG of the unpacked archives"
)
IMAGENET_P = Published(
    "ImageNet-P", "https://zenodo.org/records/3565846", "PERTURBATION/WNID/*.mp4 of the unpacked archives"
)
SEVERITIES = range(1, 6)
MOST_FRAMES = 1000
"""Of a video that is kept in memory; ImageNet-P's have 31 or 41."""
VIDEO_DECODERS = ("[h264 @", "[mpeg4 @", "[mov,mp4", "[hevc @", "[NULL @", "[OPENCV:FFMPEG", "cap_", "MOOV", "moov")
"""What the lines hold that OpenCV's video decoders write to standard error."""
VIDEO_DAMAGE = re.compile("error|corrupt|invalid|damaged|concealing|missing|overread|illegal", re.IGNORECASE)
"""Words with which they say that pixels are made up."""


@cache
def wnids() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC-2012 by their WordNet ids, in the order of the labels."""
    from timm.data import ImageNetInfo  # takes seconds, and few need it

    return tuple(ImageNetInfo().label_names())


@cache
def imagenet_words() -> tuple[str, ...]:
    """What the 1,000 classes are called: "tench", "goldfish", ... Two pairs of classes share a word."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(label).split(",")[0] for label in range(info.num_classes()))


class ImageNet(ImageFiles):
    """ImageNet (Russakovsky et al. 2015): 1,281,167 and 50,000 photographs in 1,000 classes.

    Any part of the class folders will do; labels are indices into all 1,000 WNIDs (`classes`) all the same.

    Args:
        root: the folder that holds train and val.
        split: "train" or "val".

    Raises:
        MissingDataError: the root or the split is not there, or a class folder is empty.
        DataError: a folder is no WNID of ILSVRC-2012, or the images are not sorted into class folders.
    """

    def __init__(self, root: str | Path, split: str):
        if split not in ("train", "val"):
            raise DataError(
                f"{split!r} is no split of ImageNet, which has train and val (its test labels are not published)."
            )
        folder = Path(root) / split
        if not folder.is_dir():
            raise IMAGENET.missing(folder if Path(root).is_dir() else Path(root))
        flat = files_in(folder, (".jpeg", ".tar"))
        if flat and not folders_in(folder):
            raise DataError(_unsorted(folder, flat))
        super().__init__(folder, *_by_wnid(folder, (".jpeg", ".jpg", ".png")), wnids())


class ImageNetC(ImageFiles):
    """ImageNet-C (Hendrycks and Dietterich 2019): ImageNet's val under one corruption, 224 x 224.

    Args:
        root: the folder that holds the corruptions, each in its own folder or in those of the archives (noise, blur,
            weather, digital, extra).
        corruption: its folder's name, such as "gaussian_noise".
        severity: 1 to 5.

    Raises:
        MissingDataError: the corruption is not there, or a class folder is empty.
        DataError: the severity is none of 1 to 5, or a folder is no WNID of ILSVRC-2012.
    """

    def __init__(self, root: str | Path, corruption: str, severity: int):
        if severity not in SEVERITIES:
            raise DataError(f"{severity!r} is no severity of ImageNet-C, which has 1 to 5.")
        folder = _in_group(Path(root), f"{corruption}/{severity}", IMAGENET_C)
        super().__init__(folder, *_by_wnid(folder, (".jpeg", ".jpg", ".png")), wnids())


class ImageNetP(ImageFiles):
    """ImageNet-P (Hendrycks and Dietterich 2019): short videos in which one image changes little by little.

    Item i is (frames, label), frames uint8 (T, H, W, 3) RGB.

    Args:
        root: the folder that holds the perturbations, each in its own folder or in those of the archives.
        perturbation: its folder's name, such as "tilt".

    Raises:
        MissingDataError: the perturbation is not there, or a class folder is empty.
        DataError: a folder is no WNID of ILSVRC-2012.
    """

    def __init__(self, root: str | Path, perturbation: str):
        folder = _in_group(Path(root), perturbation, IMAGENET_P)
        super().__init__(folder, *_by_wnid(folder, (".mp4",)), wnids())
        self._shape: tuple[int, ...] | None = None

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Video `index`.

        Raises:
            DataError: the video cannot be read to its end, is damaged, or has not the first one's frames and pixels.
        """
        self._shape = self._shape or read_video(self.path(0)).shape
        video = read_video(self.path(index))
        if video.shape != self._shape:
            ours, theirs = (
                f"{shape[0]} frames of {shape[2]} x {shape[1]} pixels" for shape in (video.shape, self._shape)
            )
            raise DataError(f"{self.path(index)} has {ours}, and {self.path(0)} has {theirs}.")
        return video, int(self.labels[index])


def read_video(path: Path) -> np.ndarray:
    """The frames of a short video, uint8 (T, H, W, 3) RGB.

    Raises:
        DataError: it is no file or no video, or a frame of it cannot be read or is damaged.
    """
    os.close(opened(path))  # no folder, and no pipe, which OpenCV would wait for
    promised, frames = 0, []
    with decoder_words(VIDEO_DECODERS) as said:
        try:
            video = cv2.VideoCapture(os.fsencode(path).decode())
            promised = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
            while len(frames) <= MOST_FRAMES and (read := video.read())[0]:
                frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
            video.release()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: OpenCV opens videos by names in UTF-8 alone; rename it.") from error
        except (cv2.error, MemoryError) as error:
            raise unreadable(path, error) from error
    if not frames or len(frames) < promised or len({frame.shape for frame in frames}) > 1:
        found = f"only {len(frames)} of its {promised} frames can be read" if frames else "no frame can be read"
        raise DataError(f"{path} is cut short or no video: {found}.")
    if len(frames) > MOST_FRAMES:
        raise DataError(f"{path} has more than {MOST_FRAMES} frames: ImageNet-P's videos have 31 or 41.")
    if VIDEO_DAMAGE.search(said.text):
        raise DataError(f"{path} is damaged: its decoder says {said.text.splitlines()[0]!r}.")
    return np.stack(frames)


def _by_wnid(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The files in the WNID folders, and their labels among all 1,000 classes."""
    known, found = {wnid: label for label, wnid in enumerate(wnids())}, folders_in(folder)
    strange = [name for name in found if name not in known]
    if strange:
        raise DataError(
            f"{folder / strange[0]} is named after no class of ILSVRC-2012, whose 1,000 folders are named by WordNet "
            f"ids such as n01440764{and_more(strange)}."
        )
    if not found:
        raise MissingDataError(f"{folder} holds no class folder, such as n01440764.")
    names, positions = class_files(folder, found, suffixes)
    return names, np.array([known[wnid] for wnid in found])[positions]


def _unsorted(folder: Path, flat: list[str]) -> str:
    if flat[0].endswith(".tar"):
        return f"{folder} holds archives such as {flat[0]}: unpack each into a folder of its name."
    return (
        f"{folder} holds {len(flat)} unsorted images such as {flat[0]}: move each into a folder named by its WNID, or "
        f"remove {folder} and have torchvision.datasets.ImageNet({str(folder.parent)!r}, {folder.name!r}) unpack the "
        "archives into such folders."
    )


def _in_group(root: Path, inner: str, published: Published) -> Path:
    """The folder `inner` under `root`, or under one of its folders, as some archives unpack."""
    if not root.is_dir():
        raise published.missing(root)
    with os.scandir(root) as entries:
        groups = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for folder in (root, *(root / group for group in groups)):
        if (folder / inner).is_dir():
            return folder / inner
    raise published.missing(root / inner)
