"""GTA5."""

from pathlib import Path
from typing import ClassVar

from datamodules.image_files import DataError
from datamodules.segmentation.sets.cityscapes import IDS as CITYSCAPES_IDS
from datamodules.segmentation.street_sets import Layout, OneFolderSet

IDS = {raw: training for raw, training in CITYSCAPES_IDS.items() if 0 <= raw < 34} | {34: 255}
"""GTA5's palette indices (Richter et al. 2016): Cityscapes' ids, and one of its own for license plates."""


class GTA5(OneFolderSet):
    """Playing for Data (Richter et al. 2016): 24,966 frames of a game, labelled with Cityscapes' classes."""

    name = "gta5"
    url = "https://download.visinf.tu-darmstadt.de/data/from_games/"
    layout = "images/00001.png and labels/00001.png, and split.mat of the archive read_mapping beside them"
    layouts = (Layout("images", ".png", "labels", ".png", IDS),)
    fractions: ClassVar = {"train": 0.5, "val": 0.25, "test": 0.25}  # as split.mat: 12,403, 6,382 and 6,181
    # Users report these two as broken: black and white, or of another size than their labels.
    flawed = frozenset({"15188", "17705"})
    # A few more labels are not of their images' size; RobustNet's loader drops such, its list has 15 of 12,403 fewer.
    share_mismatched = 0.01

    def _listed(self) -> tuple[Path, set[str]] | None:
        for path in (self.root / "split.mat", self.root / "read_mapping" / "split.mat"):
            if path.is_file():
                return path, self._read_mat(path)
        return super()._listed()

    def _read_mat(self, path: Path) -> set[str]:
        from scipy.io import loadmat  # slow to import, and only this file needs it

        key = f"{self.split}Ids"
        try:
            return {f"{int(number):05d}" for number in loadmat(path)[key].ravel()}
        except Exception as error:
            raise DataError(f"{path} cannot be read as GTA5's list of frames, which has {key}: {error}.") from error
