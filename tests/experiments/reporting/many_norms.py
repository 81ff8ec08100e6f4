"""A large study for the report: twelve norms, two of them a user's own, ten seeds each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from experiments.study.tables.domain_drop import drop_table
from lightning_modules.examples import save_examples
from lightning_modules.measures import measures_to_plain
from normshift.registry import NORMS
from tests.experiments.three_norms import all_road, gates

SOURCE, TARGETS = "streets-game", ("streets-city", "streets-night", "streets-fog")
OWN = ("evonorm-s0", "mynorm")
SEEDS = range(10)
STEPS = np.arange(4, 400, 8)


def large_run(run: Path) -> Path:
    """The folder of a finished study of all norms and two more, with every chapter of a report."""
    run.mkdir(parents=True)
    dice = np.random.default_rng(0)
    arms = [*NORMS, *OWN]
    better = dict(zip(arms, dice.uniform(0, 12, len(arms)), strict=True))
    config = {
        "source": SOURCE, "target": list(TARGETS), "norm": arms, "seed": 0, "seeds": len(SEEDS),
        "colours": {"road": "#804080", "sidewalk": "#f423e8"}, "machine": "a laptop", "minutes": 540.0,
        "question": "Which norm keeps most of its accuracy in domains that it has never seen?",
        "command": f"python experiments/seg_gta2city.py --norm {' '.join(arms)} --seeds {len(SEEDS)}",
        "versions": {"torch": "2.11.0"},
    }  # fmt: skip
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run / "arms.json").write_text(json.dumps({arm: {"norm": arm} for arm in arms}))
    measures = measures_to_plain(("miou", "iou/*", "chance", "drop", "divergence"))
    (run / "measures.json").write_text(json.dumps({"headline": "miou", "measures": measures}))
    rows, metrics, divergence = [], [], []
    for arm in arms:
        for seed in SEEDS:
            one = {"arm": arm, "norm": arm, "seed": seed}
            source = 0.245 + dice.normal(0, 0.005)
            values = {SOURCE: source}
            values |= {domain: source - 0.19 + 0.01 * better[arm] + dice.normal(0, 0.01) for domain in TARGETS}
            rows += [one | row for row in result_rows(values, dice)]
            metrics += [one | row for row in curves(values, dice)]
            divergence += [
                one | {"domain": domain, "layer": f"l{i}", "depth": i, "channels": 64, "total": 0.0}
                | {"mean": float(np.exp(dice.normal(0, 0.2)) * (1 + i / 8) / (1 + better[arm] / 4))}
                for domain in TARGETS
                for i in range(20)
            ]  # fmt: skip
    results = pd.DataFrame(rows)
    (run / "table.json").write_text(drop_table(results).to_json())
    results.to_csv(run / "results.csv", index=False)
    pd.DataFrame(metrics).to_csv(run / "metrics.csv", index=False)
    pd.DataFrame(divergence).to_csv(run / "divergence.csv", index=False)
    gated = [gates(norm, layers=20, epochs=6, seeds=3, channels=32) for norm in ("bin", "sn", "sn-in-ln")]
    pd.concat(gated).to_parquet(run / "gates.parquet")
    for arm in arms:
        save_examples([all_road(domain, i) for domain in (SOURCE, *TARGETS) for i in (0, 1)], run / "examples", arm)
    return run


def result_rows(values: dict[str, float], dice: np.random.Generator) -> list[dict]:
    """The results of one network: the headline, and two classes of it."""
    return [
        {"domain": domain, "role": "source" if domain == SOURCE else "target", "part": "clean", "condition": "clean"}
        | {"measure": measure, "value": float(np.clip(value + offset + dice.normal(0, 0.01), 0, 1))}
        for domain, value in values.items()
        for measure, offset in (("miou", 0.0), ("iou/road", 0.3), ("iou/traffic sign", -0.1))
    ]


def curves(values: dict[str, float], dice: np.random.Generator) -> list[dict]:
    """What a training logs: its loss, and six evaluations of every domain."""
    loss = [
        {"step": int(step), "epoch": int(step) // 67, "train/loss": 2.5 * np.exp(-step / 150) + dice.normal(0.4, 0.05)}
        for step in STEPS
    ]
    every = [
        {"step": 66 * (epoch + 1), "epoch": epoch}
        | {f"{domain}/miou": value * (1 - 0.6 * np.exp(-epoch)) for domain, value in values.items()}
        for epoch in range(6)
    ]
    return loss + every
