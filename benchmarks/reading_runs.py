"""The time for reading many run folders: `read_runs` on all at once, compared with reading each folder completely.

    python benchmarks/reading_runs.py --folders 1000

An artificial run of four segmentation networks is written to a temporary directory through `RunFolder`, like a study's,
and copied. "The plain way" reads each folder completely: YAML with PyYAML's parser in Python, tables with pandas, and
`melt` for metrics. It is timed on fewer folders, and its time is scaled up. Both ways alternate in rounds; medians are
printed with the lowest and highest. Files are in the page cache, so the disk is not measured.
"""

import argparse
import itertools
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from datamodules.segmentation.labels import STREET
from experiments.study.reader import RunTables, read_runs
from experiments.study.run_folder import RunFolder

NORMS = ("bn", "ibn-a", "sn", "bin")
DOMAINS = ("streets-game", "streets-city", "streets-night", "streets-fog")
LAYERS, CHANNELS, EPOCHS = 20, 64, 9
TABLES = ("results", "configs", "metrics", "gates", "divergence")


@dataclass
class Flags:
    """About as many flags as a study has."""

    norm: tuple[str, ...] = NORMS
    seed: int = 0
    seeds: int = 1
    resume: bool = False
    source: str = DOMAINS[0]
    target: tuple[str, ...] = DOMAINS[1:]
    others: dict = field(default_factory=lambda: {f"flag_{i}": None if i % 3 else i / 7 for i in range(30)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=20, help="folders that are read the plain way")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = made(Path(folder), flags.folders)
        pattern = f"{folder}/run*"
        ways: dict[str, Callable[[], object]] = {
            "the plain way": lambda: [plain(run) for run in runs[: flags.plain]],
            "open": lambda: read_runs(pattern),
        }
        ways |= {f"open, {name}": lambda name=name: getattr(read_runs(pattern), name) for name in TABLES}
        ways["open, all tables"] = lambda: whole(read_runs(pattern))
        times = {name: [] for name in ways}
        for _ in range(flags.rounds):
            for name in random.sample(list(ways), len(ways)):  # other load affects all equally
                begin = time.perf_counter()
                ways[name]()
                times[name].append(time.perf_counter() - begin)
    times["the plain way"] = [seconds * len(runs) / flags.plain for seconds in times["the plain way"]]
    print(f"| {flags.folders} folders of {len(NORMS)} networks | seconds | times as fast |\n| --- | ---: | ---: |")
    for name, seconds in times.items():
        ratios = [before / now for before, now in zip(times["the plain way"], seconds, strict=True)]
        print(f"| {name} | {spread(seconds, 2)} | {spread(ratios, 1)} |")


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def whole(tables: RunTables) -> list[pd.DataFrame]:
    return [getattr(tables, name) for name in TABLES]


def made(folder: Path, count: int) -> list[Path]:
    """Create `count` folders of finished runs."""
    first, dice = folder / "run0000", np.random.default_rng(0)
    run = RunFolder(first, Flags(), "Which?", {}, {norm: {"norm": norm} for norm in NORMS}, headline="miou")
    for norm in NORMS:
        fill(run, norm, dice)
    run.gather(1, lambda results: None)
    copies = [folder / f"run{number:04d}" for number in range(1, count)]
    for copy in copies:
        shutil.copytree(first, copy)
    return [first, *copies]


def fill(run: RunFolder, norm: str, dice: np.random.Generator) -> None:
    """Write the files of a training of 160 steps with an evaluation in every epoch."""
    part = run.part(norm, 0)
    part.mkdir()
    recipe = {f"part_{i}": [None, True, i / 3, "text"][i % 4] for i in range(60)} | {"crop": (96, 192)}
    (part / "hparams.yaml").write_text(yaml.dump({"norm": norm, "recipe": recipe}))
    measures = ["miou", "chance", *(f"iou/{name}" for name in STREET.classes)]
    logged = [{"step": step, "train/loss": dice.random()} for step in range(0, 160, 10)]
    logged += [{"step": step, "lr-SGD/weights": dice.random()} for step in range(0, 160, 10)]
    names = [f"{domain}/{measure}" for domain in DOMAINS for measure in measures]
    logged += [{"step": 20 * e, "epoch": e, **dict(zip(names, dice.random(len(names)), strict=True))} for e in range(8)]
    pd.DataFrame(logged).to_csv(part / "metrics.csv", index=False)
    labels = {"sn": [("mean", s) for s in ("in", "ln", "bn")], "bin": [("rho", str(c)) for c in range(CHANNELS)]}
    gates = [
        {"epoch": e, "step": 20 * e, "layer": f"layer{d}", "depth": d, "statistic": s, "label": each, "value": 0.5}
        for e, d, (s, each) in itertools.product(range(EPOCHS), range(LAYERS), labels.get(norm, []))
    ]
    if gates:
        pd.DataFrame(gates).to_parquet(part / "gates.parquet", index=False)
    about = {"part": "clean", "condition": "clean", "mean_over": "19 classes, where they occur"}
    results = [
        {"domain": domain, "role": "target" if i else "source", "measure": m, "value": dice.random(), **about}
        for (i, domain), m in itertools.product(enumerate(DOMAINS), measures)
    ]
    apart = [
        {"domain": domain, "layer": f"layer{d}", "depth": d, "channels": CHANNELS, "mean": dice.random(), "total": 1.0}
        for domain, d in itertools.product(DOMAINS[1:], range(3 * LAYERS))
    ]
    run.finish(norm, 0, {"results": results, "divergence": apart})


def plain(run: Path) -> list[pd.DataFrame]:
    """All tables of a run, read without `read_runs`."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", Loader.construct_yaml_seq)
    config = yaml.load((run / "config.yaml").read_text(), Loader)
    arms = json.loads((run / "arms.json").read_text())
    recipes = [yaml.load((run / f"{arm}-seed0" / "hparams.yaml").read_text(), Loader)["recipe"] for arm in arms]
    results, metrics, divergence = (pd.read_csv(run / f"{n}.csv") for n in ("results", "metrics", "divergence"))
    kept = ["arm", "norm", "seed", "step", "epoch"]
    long = metrics.melt(kept, var_name="metric", value_name="value", ignore_index=False)
    long = long.dropna(subset=["value"]).sort_index(kind="stable").reset_index(drop=True)
    configs = pd.DataFrame([{"arm": arm, **config, **recipe} for arm, recipe in zip(arms, recipes, strict=True)])
    return [results, long, pd.read_parquet(run / "gates.parquet"), divergence, configs]


if __name__ == "__main__":
    main()
