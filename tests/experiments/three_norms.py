"""The results of a small segmentation run, for tests."""

import numpy as np
import pandas as pd

SOURCE, TARGETS = "streets-game", ("streets-night", "camvid:test")

# norm -> seed -> mIoU on the source and on the two targets
MIOU = {
    "bn": {0: (0.60, 0.30, 0.40), 1: (0.62, 0.28, 0.36)},  # drops 25 and 30: 27.5 +- 3.54
    "sn": {0: (0.61, 0.41, 0.45), 1: (0.63, 0.43, 0.47)},  # drops 18 and 18: 18.0 +- 0
    "bin": {0: (0.50, 0.31, 0.33), 1: (0.54, 0.34, 0.34)},  # drops 18 and 20: 19.0 +- 1.41
}


def results(miou: dict = MIOU) -> pd.DataFrame:
    """One row a norm, seed and domain, as a study gathers them."""
    rows = [
        {
            "arm": norm,
            "norm": norm,
            "seed": seed,
            "domain": domain,
            "role": role,
            "miou": value,
            "iou/road": value,
            "iou/sky": np.nan,
        }
        for norm, seeds in miou.items()
        for seed, values in seeds.items()
        for domain, role, value in zip((SOURCE, *TARGETS), ("source", "target", "target"), values, strict=True)
    ]
    return pd.DataFrame(rows)
