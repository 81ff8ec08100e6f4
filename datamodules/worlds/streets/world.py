"""Streets: driving scenes with Cityscapes' 19 classes, drawn on the fly, in appearances as far apart as real domains.

A small controlled laboratory for domain shift, for a laptop: what stands where depends on the seed, the split and the
index alone; an appearance changes the light, the materials, the air and the camera. `python -m
datamodules.worlds.streets.world --out sheet.png` draws a contact sheet.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from datamodules.segmentation.labels import STREET
from datamodules.worlds.dice import Dice
from datamodules.worlds.streets.drawing import draw
from datamodules.worlds.streets.painting import Appearance, develop
from datamodules.worlds.streets.scenes import plan

SPLITS = ("train", "val", "test")

RENDERED = {
    "sky": ((104, 158, 236), (92, 148, 228), (124, 172, 240), (140, 178, 226)),
    "cloud": ((240, 244, 250), (226, 234, 246)),
    "asphalt": ((116, 112, 112), (100, 98, 104), (132, 126, 118), (92, 90, 92)),
    "marking": ((240, 240, 232), (238, 236, 228), (244, 214, 110)),
    "paving": ((176, 166, 152), (158, 154, 154), (186, 160, 134), (146, 124, 112), (196, 190, 178)),
    "kerb": ((204, 200, 190), (180, 176, 170)),
    "grass": ((98, 146, 52), (128, 150, 62), (156, 148, 88), (84, 132, 60), (146, 122, 84)),
    "foliage": ((70, 130, 42), (92, 146, 44), (56, 108, 50), (148, 148, 52), (168, 110, 44), (80, 120, 66),
                (104, 152, 60)),
    "bark": ((104, 80, 56), (124, 108, 92), (86, 70, 56)),
    "plaster": ((222, 186, 130), (204, 116, 92), (236, 224, 198), (166, 142, 122), (130, 152, 176), (222, 202, 110),
                (186, 104, 104), (136, 136, 142), (240, 240, 232), (150, 172, 138), (214, 160, 150), (178, 190, 206)),
    "brick": ((176, 92, 70), (156, 80, 64), (190, 130, 92), (134, 92, 80), (202, 166, 130), (140, 120, 116)),
    "panel": ((120, 124, 130), (84, 88, 96), (180, 176, 168), (150, 110, 80), (98, 120, 130)),
    "trim": ((238, 232, 220), (200, 190, 176), (226, 226, 230)),
    "glass": ((58, 74, 96), (46, 58, 76), (70, 88, 104)),
    "glass bright": ((150, 190, 226), (128, 168, 206)),
    "shop": ((92, 104, 112), (70, 78, 92), (120, 110, 90)),
    "door": ((120, 60, 44), (60, 90, 70), (70, 70, 100), (150, 130, 100)),
    "roof": ((172, 84, 60), (116, 98, 94), (144, 72, 58), (96, 98, 108), (154, 120, 90)),
    "wall": ((176, 164, 142), (206, 200, 184), (140, 136, 128), (190, 150, 120), (230, 224, 208)),
    "fence": ((144, 102, 64), (232, 230, 224), (72, 80, 78), (128, 136, 112), (176, 148, 108), (60, 92, 70)),
    "car": ((206, 40, 38), (40, 78, 170), (238, 238, 238), (36, 36, 42), (180, 184, 190), (240, 190, 40), (60, 130, 80),
            (110, 116, 126), (150, 60, 40), (90, 160, 200), (220, 210, 186), (70, 40, 80), (250, 130, 40)),
    "coach": ((226, 190, 40), (200, 44, 40), (46, 110, 170), (240, 238, 230), (60, 140, 90), (230, 120, 40),
              (90, 90, 150)),
    "cargo": ((236, 236, 232), (190, 70, 56), (60, 100, 160), (200, 190, 160), (90, 130, 90), (150, 150, 156)),
    "rubber": ((34, 34, 36), (44, 42, 42)),
    "bumper": ((48, 48, 52), (90, 92, 96)),
    "plate": ((240, 238, 220), (236, 206, 90)),
    "headlight": ((250, 250, 236),),
    "taillight": ((214, 30, 28),),
    "cloth": ((200, 50, 50), (50, 70, 140), (40, 40, 46), (230, 226, 216), (70, 120, 80), (220, 170, 60), (130, 90, 60),
              (150, 150, 160), (90, 60, 110), (60, 140, 170), (236, 140, 150), (100, 110, 70)),
    "skin": ((236, 190, 160), (198, 146, 112), (128, 86, 62), (90, 62, 48)),
    "hair": ((50, 38, 30), (100, 70, 40), (190, 150, 90), (120, 118, 116)),
    "pole": ((150, 152, 156), (96, 102, 104), (70, 84, 76), (180, 178, 170)),
    "steel": ((92, 92, 96), (120, 122, 126)),
    "red": ((255, 56, 44),), "amber": ((255, 186, 40),), "green": ((60, 250, 140),),
    "red sign": ((220, 36, 36),), "blue sign": ((36, 90, 190), (40, 130, 80)), "yellow sign": ((250, 200, 40),),
}  # fmt: skip
"""Albedos as game artists choose them: clear and sunny."""

PHOTOGRAPHED = {
    "sky": ((212, 218, 220), (200, 206, 210), (222, 224, 220), (190, 200, 208)),
    "cloud": ((232, 234, 232), (184, 190, 194)),
    "asphalt": ((82, 86, 88), (96, 100, 98), (70, 74, 76), (108, 108, 104)),
    "marking": ((188, 192, 186), (174, 178, 172), (196, 196, 188)),
    "paving": ((118, 120, 116), (104, 108, 106), (132, 126, 118), (92, 96, 96), (126, 110, 104)),
    "kerb": ((140, 142, 138), (120, 124, 120)),
    "grass": ((84, 102, 62), (100, 106, 70), (112, 110, 82), (72, 90, 58), (104, 94, 76)),
    "foliage": ((62, 82, 52), (76, 94, 54), (52, 72, 54), (98, 100, 62), (104, 82, 58), (68, 84, 66), (46, 62, 44)),
    "bark": ((74, 68, 60), (92, 88, 82), (58, 54, 50)),
    "plaster": ((176, 168, 146), (150, 132, 118), (188, 184, 170), (128, 124, 114), (118, 126, 130), (172, 162, 124),
                (142, 112, 104), (108, 110, 110), (200, 200, 194), (130, 138, 122), (164, 150, 140), (150, 156, 158)),
    "brick": ((118, 84, 72), (104, 74, 64), (132, 108, 90), (92, 78, 72), (140, 126, 108), (108, 102, 98)),
    "panel": ((104, 110, 112), (78, 84, 86), (146, 146, 140), (112, 98, 84), (92, 104, 106)),
    "trim": ((176, 178, 172), (150, 152, 146), (166, 170, 168)),
    "glass": ((48, 56, 58), (40, 46, 48), (62, 70, 70)),
    "glass bright": ((140, 150, 152), (120, 130, 132)),
    "shop": ((76, 80, 80), (60, 64, 66), (104, 98, 84)),
    "door": ((88, 62, 52), (56, 72, 62), (60, 62, 74), (112, 104, 90)),
    "roof": ((112, 76, 66), (88, 84, 82), (100, 70, 62), (80, 84, 88), (108, 96, 84)),
    "wall": ((128, 126, 114), (150, 150, 140), (104, 106, 100), (126, 112, 98), (164, 164, 154)),
    "fence": ((96, 82, 66), (164, 166, 162), (62, 70, 68), (98, 106, 92), (118, 108, 90), (56, 72, 62)),
    "car": ((34, 36, 38), (150, 154, 156), (112, 116, 118), (200, 202, 200), (60, 66, 74), (52, 66, 96), (130, 44, 44),
            (84, 88, 88), (170, 172, 168), (46, 48, 52), (124, 112, 96), (70, 92, 82), (172, 150, 70)),
    "coach": ((176, 158, 70), (146, 56, 52), (64, 96, 126), (190, 190, 182), (84, 116, 92), (168, 112, 66),
              (92, 96, 118)),
    "cargo": ((190, 192, 188), (142, 82, 72), (76, 96, 122), (160, 156, 138), (92, 110, 92), (128, 130, 132)),
    "rubber": ((30, 32, 33), (40, 41, 42)),
    "bumper": ((44, 46, 48), (78, 82, 84)),
    "plate": ((186, 188, 178), (180, 168, 100)),
    "headlight": ((206, 210, 206),),
    "taillight": ((150, 40, 38),),
    "cloth": ((40, 42, 48), (58, 66, 86), (34, 36, 38), (150, 148, 142), (76, 84, 76), (120, 104, 76), (92, 78, 68),
              (112, 114, 118), (120, 52, 52), (76, 98, 110), (146, 118, 116), (84, 86, 68)),
    "skin": ((176, 148, 130), (150, 118, 98), (102, 76, 62), (76, 60, 52)),
    "hair": ((42, 38, 36), (76, 64, 50), (128, 112, 84), (100, 100, 98)),
    "pole": ((112, 116, 116), (84, 90, 90), (66, 76, 72), (136, 138, 132)),
    "steel": ((74, 78, 80), (96, 100, 102)),
    "red": ((250, 70, 60),), "amber": ((245, 180, 70),), "green": ((90, 230, 170),),
    "red sign": ((160, 48, 48),), "blue sign": ((52, 84, 134), (58, 102, 80)), "yellow sign": ((190, 160, 70),),
}  # fmt: skip
"""Albedos as a dash camera sees them in northern Europe: greyer, greener, darker cars, pale sky."""

LIT = {
    "window warm": (250, 196, 110), "window cold": (170, 200, 220), "shop": (158, 126, 82), "board": (220, 130, 40),
    "headlight": (255, 246, 220), "taillight": (236, 30, 24), "lamp": (255, 220, 150), "red on": (255, 50, 40),
    "amber on": (255, 170, 40), "green on": (60, 250, 150),
}  # fmt: skip
"""What shines at night, and in which colour."""

APPEARANCES = {
    "game": Appearance(
        RENDERED, ambient=(0.54, 0.59, 0.69), sun=(0.62, 0.56, 0.42), contact=0.35,
        saturation=1.1, contrast=1.06, exposure=0.08,
    ),
    "city": Appearance(
        PHOTOGRAPHED, ambient=(0.96, 1.04, 0.98), sun=(0.16, 0.16, 0.14), grain=0.75, contact=0.45, softness=2.0,
        haze=(200, 208, 206), visibility=330, saturation=0.85, contrast=0.94, lift=(-2, 5, 2), exposure=0.18,
        blur=0.5, noise=5,
    ),
    "night": Appearance(
        PHOTOGRAPHED, ambient=(0.25, 0.30, 0.46), sun=(0.05, 0.06, 0.10), grain=0.9, contact=0.4, softness=2.4,
        lamps=(0.80, 0.54, 0.22), headlights=(0.78, 0.70, 0.54), glow=LIT, haze=(14, 18, 36), visibility=150,
        lift=(2, 3, 8), exposure=0.2, blur=0.45, noise=6,
    ),
    "fog": Appearance(
        PHOTOGRAPHED, ambient=(0.90, 0.93, 0.96), sun=(0.02, 0.02, 0.02), grain=0.8, contact=0.6, softness=2.4,
        haze=(202, 206, 210), visibility=30, saturation=0.85, exposure=0.1, blur=0.45, noise=3,
    ),
}  # fmt: skip
"""The domains. `game` is the usual source; the others are what it must transfer to."""


class Streets:
    """Street scenes seen from a car, in one appearance; sample i is the same wherever it is drawn.

    Item i is (image, label): uint8 (H, W, 3) RGB and uint8 (H, W) of training ids in `label_space`. The label, and all
    that stands in the scene, is the same in every appearance. `size` is (height, width) in pixels; 128 x 256 is meant,
    and the drawing scales. Raises ValueError for an unknown appearance or split or a size below 32 x 32, IndexError
    outside of `length`.
    """

    label_space = STREET
    evaluated = tuple(range(len(STREET)))

    def __init__(
        self,
        appearance: str = "game",
        split: str = "train",
        length: int = 1000,
        size: tuple[int, int] = (128, 256),
        seed: int = 0,
    ):
        if appearance not in APPEARANCES:
            raise ValueError(f"unknown appearance {appearance!r}: choose one of {', '.join(APPEARANCES)}")
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
        if min(size) < 32:
            raise ValueError(f"size must be (height, width) of at least 32 pixels each, not {size}")
        self.appearance, self.split, self.length, self.seed = appearance, split, length, seed
        self.size = (int(size[0]), int(size[1]))
        self.name = f"streets-{appearance}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        scene, drawing = self._drawn(index)
        return develop(drawing, APPEARANCES[self.appearance], scene.pick), drawing.label

    def label(self, index: int) -> np.ndarray:
        """The label of sample `index` alone, in about half the time."""
        return self._drawn(index)[1].label

    def _drawn(self, index: int):
        if not -self.length <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        scene = plan(Dice(self.seed, SPLITS.index(self.split), int(index) % self.length))
        return scene, draw(scene, self.size)


def contact_sheet(
    indices: range, size: tuple[int, int] = (128, 256), split: str = "train", seed: int = 0
) -> np.ndarray:
    """A picture of some scenes: a row each, the appearances side by side and the label's colours last; uint8 RGB."""
    palette = np.array(STREET.palette + ((0, 0, 0),) * (256 - len(STREET)), np.uint8)
    worlds = [Streets(name, split, indices.stop, size, seed) for name in APPEARANCES]
    rows = []
    for index in indices:
        samples = [world[index] for world in worlds]
        rows.append(np.hstack([image for image, _ in samples] + [palette[samples[0][1]]]))
    return np.vstack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a contact sheet of street scenes in all appearances.")
    parser.add_argument("--out", type=Path, default=Path("streets.png"))
    parser.add_argument("--start", type=int, default=0, help="first scene")
    parser.add_argument("--count", type=int, default=8, help="number of scenes, a row each")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    sheet = contact_sheet(range(flags.start, flags.start + flags.count), tuple(flags.size), seed=flags.seed)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 82] if flags.out.suffix == ".jpg" else []
    if not cv2.imwrite(str(flags.out), sheet[..., ::-1], quality):
        parser.error(f"cannot write {flags.out}")


if __name__ == "__main__":
    main()
