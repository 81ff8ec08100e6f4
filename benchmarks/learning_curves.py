"""What the laptop recipes reach in how many seconds: whole trainings of several lengths, three seeds each.

    python benchmarks/learning_curves.py
    python benchmarks/learning_curves.py --world shapes --lengths 5 10 20 40 --norm sn

Every point is a training whose schedule has that length, not a stop on the way of a longer one. Seconds are a
training's share of its run: start, steps, evaluations, tables and report. The images are those that studies report.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import machine

ROOT = Path(__file__).parents[1]
WORLDS = {
    "streets": ("seg_gta2city.py --source streets-game --target streets-city --no-augment-colour --max-steps", "miou"),
    "shapes": ("cls_imagenet.py --data shapes/photo --epochs", "top1"),
}
"""The study that learns a world, up to its length, and its measure."""
LENGTHS = {"streets": (125, 250, 500, 1000), "shapes": (5, 10, 20, 40)}
UNITS = {"streets": "steps", "shapes": "epochs"}
SHOWN = {"miou": "mIoU", "top1": "top-1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--world", choices=WORLDS, nargs="+", default=list(WORLDS))
    parser.add_argument("--lengths", type=machine.positive, nargs="+", help="steps of streets, epochs of shapes")
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--seeds", type=machine.positive, default=3)
    flags = parser.parse_args()
    for world in flags.world:
        print(f"| {UNITS[world]} | seconds a training | {SHOWN[WORLDS[world][1]]} of {flags.norm} on {world} |")
        print("| ---: | ---: | ---: |", flush=True)
        for length in flags.lengths or LENGTHS[world]:
            print(row(world, length, flags.norm, flags.seeds), flush=True)
        print()


def row(world: str, length: int, norm: str, seeds: int) -> str:
    """Train under every seed for one length; its line of the table."""
    from experiments.study.reader import read_folder  # imports pandas: --help must not wait for it

    command, measure = WORLDS[world]
    script, *line = [*command.split(), str(length), "--norm", norm, "--seeds", str(seeds), "--wandb", "disabled"]
    with tempfile.TemporaryDirectory() as folder:
        whole = [sys.executable, str(ROOT / "experiments" / script), *line, "--out", f"{folder}/run"]
        subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)
        run = read_folder(f"{folder}/run")
        found = run.results[(run.results["measure"] == measure) & (run.results["part"] == "clean")]
        found = found[found["role"] == "source"] if "role" in found else found
        values = 100 * found.groupby("seed")["value"].mean()
        spread = f" ± {values.std():.1f}" if seeds > 1 else ""
        seconds = 60 * run.files.config["minutes"] / seeds
    return f"| {length:,} | {seconds:.0f} | {values.mean():.1f}{spread} |"


if __name__ == "__main__":
    main()
