"""The gates of a training in one small table, `gates.parquet`."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from datamodules.whole_file import write_whole
from normshift.gate_reader import GateSlot

KEPT = 64
"""The most channels of a layer that are recorded; of wider layers, so many evenly spaced ones."""


class GateRecord:
    """Gate values over time, one row for each: `columns`, epoch, step, layer, depth, statistic, label, value.

    All shares (SN) are recorded, and rho (BIN) of layers with up to `KEPT` channels. Of wider layers `KEPT` channels
    are recorded, always the same: a ResNet-101 has 50,000 channels, and a hundred epochs of all would be a file of
    twenty megabytes and a table of five million rows. Values are exact, in float32.

    Args:
        slots: the `slots` of the `GateReader` whose values are given to `add`.
        columns: constant columns that are added in front, such as {"norm": "sn", "seed": 0}.
    """

    def __init__(self, slots: list[GateSlot], columns: dict):
        self.columns = columns
        self.times: list[tuple[int, int]] = []  # (epoch, step)
        self.values: list[np.ndarray] = []  # the recorded values, one array for each time
        chosen = [_kept_channels(len(slot.labels)) for slot in slots]
        self._kept = np.concatenate([slot.start + some for slot, some in zip(slots, chosen, strict=True)])
        counts = [len(some) for some in chosen]
        self._slots = {
            "layer": np.repeat([slot.layer for slot in slots], counts),
            "depth": np.repeat([slot.depth for slot in slots], counts),
            "statistic": np.repeat([slot.statistic for slot in slots], counts),
            "label": np.array([slot.labels[i] for slot, some in zip(slots, chosen, strict=True) for i in some]),
        }

    def __len__(self) -> int:
        """The number of recorded times."""
        return len(self.times)

    def add(self, epoch: int, step: int, values: np.ndarray) -> None:
        """Record the values of a `GateReader`."""
        self.times.append((epoch, step))
        self.values.append(values[self._kept])

    def last(self) -> pd.DataFrame:
        """The rows of the last time."""
        epoch, step = self.times[-1]
        return pd.DataFrame(self.columns | {"epoch": epoch, "step": step} | self._slots | {"value": self.values[-1]})

    def write(self, file: Path) -> None:
        """Write the whole table; an existing file is replaced when the new one is complete."""
        times, size = len(self.times), len(self._kept)
        epochs, steps = np.array(self.times).T
        table = {name: pa.repeat(pa.scalar(value), times * size) for name, value in self.columns.items()}
        table |= {"epoch": np.repeat(epochs, size), "step": np.repeat(steps, size)}
        for name, column in self._slots.items():
            once = pa.array(column)
            table[name] = pa.chunked_array([once] * times)  # all chunks share memory
        table |= {"value": np.concatenate(self.values)}
        written = partial(
            pq.write_table,
            pa.table(table),
            compression="zstd",
            use_dictionary=[name for name in table if name != "value"],
            column_encoding={"value": "BYTE_STREAM_SPLIT"},  # neighbours have similar signs and exponents
        )
        write_whole(file, written)

    def state_dict(self) -> dict:
        """Only tensors and plain lists, which `torch.load(weights_only=True)` accepts."""
        return {"times": [list(time) for time in self.times], "values": torch.from_numpy(np.stack(self.values))}

    def load_state_dict(self, state_dict: dict) -> None:
        """Raises ValueError if the record is of a network with other gates."""
        values = np.asarray(state_dict["values"], np.float32)
        if values.shape[1:] != self._kept.shape:
            raise ValueError(f"a record of {values.shape[1:]} gate values does not fit a network of {len(self._kept)}.")
        self.times, self.values = [tuple(time) for time in state_dict["times"]], list(values)


def _kept_channels(size: int) -> np.ndarray:
    """The numbers of the channels that are recorded, of a layer with `size` channels."""
    return np.arange(size) if size <= KEPT else np.linspace(0, size - 1, KEPT).round().astype(int)
