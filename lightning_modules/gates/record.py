"""The gates of a training in one table that stays small: what `gates.parquet` holds."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.whole_file import write_whole
from normshift.gate_reader import GateSlot

KEPT = 64
"""Channels of a layer that are kept; of a wider one so many, evenly spread, stand for all."""


class GateRecord:
    """Gate values by time. One row a value: `columns`, epoch, step, layer, depth, statistic, label, value.

    SN's shares are kept whole, and so is the rho of layers up to `KEPT` channels. Of wider layers `KEPT` channels are
    kept, the same ones at all times: a ResNet-101 has 50,000 channels, and a hundred epochs of them would be a file of
    twenty megabytes and a table of five million rows. What is kept is exact, float32.

    Args:
        slots: what the values given to `add` are, from a `GateReader`.
        columns: constant columns to stand in front, such as {"norm": "sn", "seed": 0}.
    """

    def __init__(self, slots: list[GateSlot], columns: dict):
        self.columns = columns
        self.times: list[tuple[int, int]] = []  # (epoch, step)
        self.values: list[np.ndarray] = []  # what is kept, one array a time
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
        """How many times were recorded."""
        return len(self.times)

    def add(self, epoch: int, step: int, values: np.ndarray) -> None:
        """Keep what a `GateReader` has read."""
        self.times.append((epoch, step))
        self.values.append(values[self._kept])

    def last(self) -> pd.DataFrame:
        """The rows of the last time."""
        epoch, step = self.times[-1]
        return pd.DataFrame(self.columns | {"epoch": epoch, "step": step} | self._slots | {"value": self.values[-1]})

    def write(self, file: Path) -> None:
        """Write the whole table; a file of that name is replaced once the new one is complete."""
        times, size = len(self.times), len(self._kept)
        epochs, steps = np.array(self.times).T
        table = {name: pa.repeat(pa.scalar(value), times * size) for name, value in self.columns.items()}
        table |= {"epoch": np.repeat(epochs, size), "step": np.repeat(steps, size)}
        for name, column in self._slots.items():
            once = pa.array(column)
            table[name] = pa.chunked_array([once] * times)  # the same memory at every time
        table |= {"value": np.concatenate(self.values)}
        written = partial(
            pq.write_table,
            pa.table(table),
            compression="zstd",
            use_dictionary=[name for name in table if name != "value"],
            column_encoding={"value": "BYTE_STREAM_SPLIT"},  # neighbours' exponents and signs are much alike
        )
        write_whole(file, written)

    def state_dict(self) -> dict:
        """Only tensors and plain lists, which `torch.load(weights_only=True)` accepts."""
        import torch

        return {"times": [list(time) for time in self.times], "values": torch.from_numpy(np.stack(self.values))}

    def load_state_dict(self, state_dict: dict) -> None:
        """Raises ValueError where the record is of a network with other gates."""
        values = np.asarray(state_dict["values"], np.float32)
        if values.shape[1:] != self._kept.shape:
            raise ValueError(f"a record of {values.shape[1:]} gate values does not fit a network of {len(self._kept)}.")
        self.times, self.values = [tuple(time) for time in state_dict["times"]], list(values)


def _kept_channels(size: int) -> np.ndarray:
    """The channels that are kept of so many."""
    return np.arange(size) if size <= KEPT else np.linspace(0, size - 1, KEPT).round().astype(int)
