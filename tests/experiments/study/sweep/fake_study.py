"""A program as small as a study can be: it leaves a run's folder with one training, in no time.

    fake_study.py --x=0.3 --norm=bn --out FOLDER --resume auto

Its accuracy is 1 - (x - 0.3)^2. `--fails NORM` ends with status 3 for that norm, `--crashes NORM` with 1, `--sleeps S`
takes so long, and goes on where it was stopped.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
for name, kind, default in (
    ("x", float, 0.0), ("n", int, 1), ("norm", str, "bn"), ("sleeps", float, 0.0), ("fails", str, ""),
    ("crashes", str, ""), ("seeds", int, 1), ("out", Path, None), ("resume", str, "no"),
):  # fmt: skip
    parser.add_argument(f"--{name}", type=kind, default=default)
flags = parser.parse_args()
assert flags.resume == "auto"
flags.out.mkdir(parents=True, exist_ok=True)
with (flags.out / "starts.txt").open("a") as starts:
    starts.write(f"{sys.argv[1:]}\n")
slept = flags.out / "slept.txt"


def stop(number: int, _) -> None:
    slept.write_text("1")
    print("stopped in order", flush=True)
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print(f"trains {flags.norm}", flush=True)
if not slept.exists():
    time.sleep(flags.sleeps)
if flags.norm == flags.fails:
    print("error: 1 of the trainings failed: bn, seed 0: at step 3 the loss is not finite.", flush=True)
    sys.exit(3)
if flags.norm == flags.crashes:
    raise RuntimeError("a fault of the program")
for seed in range(flags.seeds):
    part = flags.out / f"{flags.norm}-seed{seed}"
    part.mkdir(exist_ok=True)
    value = 1 - (flags.x - 0.3) ** 2 + 0.01 * seed
    rows = [{"domain": "shapes", "part": "clean", "condition": "clean", "measure": "top1", "value": value}]
    rows += [{"domain": "shapes", "part": "shifts", "condition": "dark", "measure": "top1", "value": value / 2}]
    (part / "metrics.csv").write_text(f"step,epoch,train/loss,shapes/top1\n1,0,0.5,\n2,0,0.25,{value}\n")
    (part / "result.json").write_text(json.dumps({"results": rows}))
