"""The results of a small segmentation run, for tests."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from experiments.study.tables.domain_drop import drop_table
from lightning_modules.examples import Example, save_examples
from lightning_modules.measures import measures_to_plain

SOURCE, TARGETS = "streets-game", ("streets-night", "camvid:test")

# norm -> seed -> mIoU on the source and on the two targets
MIOU = {
    "bn": {0: (0.60, 0.30, 0.40), 1: (0.62, 0.28, 0.36)},  # drops 25 and 30: 27.5 +- 3.54
    "sn": {0: (0.61, 0.41, 0.45), 1: (0.63, 0.43, 0.47)},  # drops 18 and 18: 18.0 +- 0
    "bin": {0: (0.50, 0.31, 0.33), 1: (0.54, 0.34, 0.34)},  # drops 18 and 20: 19.0 +- 1.41
}


def results(miou: dict = MIOU) -> pd.DataFrame:
    """One row a norm, seed, domain and measure, as a study gathers them."""
    rows = [
        {"arm": norm, "norm": norm, "seed": seed, "domain": domain, "role": role, "part": "clean"}
        | {"condition": "clean", "measure": measure, "value": value}
        for norm, seeds in miou.items()
        for seed, values in seeds.items()
        for domain, role, value in zip((SOURCE, *TARGETS), ("source", "target", "target"), values, strict=True)
        for measure in ("miou", "iou/road")
    ]
    return pd.DataFrame(rows)


def gates(norm: str, layers: int = 6, epochs: int = 3, seeds: int = 2, channels: int = 8) -> pd.DataFrame:
    dice = np.random.default_rng(0)
    rows = []
    for seed, epoch, depth in np.ndindex(seeds, epochs, layers):
        about = {
            "arm": norm,
            "norm": norm,
            "seed": seed,
            "epoch": epoch,
            "step": 10 * epoch,
            "layer": f"net.layer{depth // 2}.{depth}",
        }
        if norm == "bin":
            values = [("rho", str(channel), dice.random()) for channel in range(channels)]
        else:
            labels = ("in", "ln", "bn") if norm == "sn" else ("in", "ln")
            shares = {statistic: dice.dirichlet([1.0] * len(labels)) for statistic in ("mean", "var")}
            values = [(s, label, share) for s in shares for label, share in zip(labels, shares[s], strict=True)]
        rows += [about | {"depth": depth, "statistic": s, "label": label, "value": v} for s, label, v in values]
    return pd.DataFrame(rows)


def finished_run(run: Path) -> Path:
    """The folder of a finished run of the three norms and two seeds."""
    run.mkdir(parents=True)
    config = {
        "source": SOURCE, "target": list(TARGETS), "norm": list(MIOU), "seeds": 2,
        "colours": {"road": "#804080", "sidewalk": "#f423e8"},
        "question": "Which norm sees <best> at night?", "command": "python experiments/seg_gta2city.py --norm bn sn",
        "machine": "a laptop", "git": "abc1234", "versions": {"torch": "2.11.0"}, "minutes": 3.2,
    }  # fmt: skip
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "arms.json").write_text(json.dumps({norm: {"norm": norm} for norm in MIOU}))
    (run / "table.json").write_text(drop_table(results()).to_json())
    results().to_csv(run / "results.csv", index=False)
    metrics, divergence = [], []
    for norm, seed in ((norm, seed) for norm in MIOU for seed in (0, 1)):
        one = {"arm": norm, "norm": norm, "seed": seed}
        for epoch in (0, 1):
            metrics += [
                one | {"epoch": epoch, "step": 5 * epoch + i, "train/loss": 2 - epoch, "lr": 0.1} for i in range(5)
            ]
            metrics += [one | {"epoch": epoch, "step": 5 * epoch + 4} | {f"{d}/miou": 0.1 for d in (SOURCE, *TARGETS)}]
        divergence += [
            one | {"domain": domain, "layer": f"l{i}", "depth": i, "channels": 4, "mean": i + 1.0, "total": 4 * i + 4.0}
            for domain in TARGETS
            for i in range(3)
        ]
    pd.DataFrame(metrics).to_csv(run / "metrics.csv", index=False)
    pd.DataFrame(divergence).to_csv(run / "divergence.csv", index=False)
    pd.concat([gates("sn"), gates("bin")]).to_parquet(run / "gates.parquet")
    for norm in MIOU:
        save_examples([all_road(domain) for domain in (SOURCE, *TARGETS)], run / "examples", norm)
    measures = measures_to_plain(("miou", "iou/*", "chance", "drop", "divergence"))
    (run / "measures.json").write_text(json.dumps({"headline": "miou", "measures": measures}))
    return run


def all_road(domain: str, index: int = 0, size: tuple[int, int] = (32, 64)) -> Example:
    """A picture, its truth and a prediction, all road."""
    return Example(domain, index, *[np.full((*size, 3), (128, 64, 128), np.uint8)] * 3)
