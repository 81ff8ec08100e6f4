"""docs/plugins.md is true: its files are written as it says, and its commands run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
FILES = dict(re.findall(r"Save this as `(\w+\.py)`.*?```python\n(.+?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^python (experiments/.+)$", PAGE, re.MULTILINE)
QUICK = ["--gpus", "0", "--workers", "0", "--wandb", "disabled"]


@pytest.fixture
def written(tmp_path) -> Path:
    """A folder with the page's files, and the images of its farm."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    dice = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for kind, shape, high in (("images", (64, 128, 3), 256), ("labels", (64, 128), 3)):
            folder = tmp_path / "data" / "farm" / kind / split
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = dice.integers(0, high, shape).astype(np.uint8)
                if kind == "labels":
                    pixels[:4] = 9
                cv2.imwrite(str(folder / f"{index}.png"), pixels)
    return tmp_path


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    script, *flags = shlex.split(command)
    line = [sys.executable, str(ROOT / script), *flags, *QUICK]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)


def test_the_page_has_two_files_and_their_commands():
    assert list(FILES) == ["mine.py", "farm.py"] and len(COMMANDS) == 3


@pytest.mark.slow
def test_its_set_network_and_recipe_are_trained_and_evaluated(written):
    for command in COMMANDS[:2]:
        done = run(command, written)
        assert done.returncode == 0, done.stderr[-2000:]
    results = pd.read_csv(written / "runs" / "stripes" / "results.csv")
    assert set(results["domain"]) == {"stripes"} and set(results["norm"]) == {"bn", "sn"}
    again = pd.read_csv(written / "runs" / "evaluate" / "results.csv")
    trained, evaluated = (frame[frame["measure"] == "top1"].set_index("arm")["value"] for frame in (results, again))
    assert evaluated.to_dict() == pytest.approx(trained.to_dict())
    refused = run(f"{COMMANDS[0]} --dropout", written)
    assert refused.returncode == 2
    without = run("experiments/evaluate.py runs/stripes --out runs/without", written)
    assert without.returncode == 2 and without.stderr.count("\n") == 1 and "small" in without.stderr


def test_its_label_maps_and_encoder_are_trained(written):
    done = run(COMMANDS[2], written)
    assert done.returncode == 0, done.stderr[-2000:]
    results = pd.read_csv(written / "runs" / "farm" / "results.csv")
    assert {"farm", "farm:test"} == set(results["domain"])
    assert {"iou/soil", "iou/crop", "iou/weed"} <= set(results["measure"])


def test_recipes_of_a_file_are_listed(written):
    line = [sys.executable, str(ROOT / "experiments" / "cls_cifar.py"), "--plugin", "mine.py", "--recipe", "quick"]
    done = subprocess.run([*line, "--recipes"], cwd=written, capture_output=True, text=True, check=True)
    assert re.search(r"^backbone +small$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("register_recipe('laptop', None)", "there is a recipe 'laptop' already"),
        ("register_backbone('resnet18', None)", "there is a backbone 'resnet18' already"),
        ("register_image_set(ImageSet(('pacs',), None))", "there is a data set 'pacs' already"),
    ],
)
def test_a_name_that_there_is_is_refused(code, said, tmp_path):
    imports = re.search(r"(from datamodules.+?register_recipe)\n", FILES["mine.py"], re.DOTALL)[1]
    (tmp_path / "again.py").write_text(f"{imports}\n{code}\n")
    done = run("experiments/cls_cifar.py --plugin again.py", tmp_path)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
