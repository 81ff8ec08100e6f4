"""Sets of labelled images made of other sets: joined, or in part and under other labels."""

import numpy as np


class Relabelled:
    """Some images of a set, under other labels."""

    def __init__(self, samples, chosen: np.ndarray, labels: np.ndarray):
        self.samples, self.chosen, self.labels, self.classes = samples, chosen, labels, samples.classes

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int):
        return self.samples[int(self.chosen[index])][0], int(self.labels[index])


class Joined:
    """Sets of the same classes, one behind the other."""

    def __init__(self, *sets):
        self.sets, self.classes = sets, sets[0].classes
        self.labels = np.concatenate([samples.labels for samples in sets])
        self._ends = np.cumsum([len(samples) for samples in sets])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} is out of range for {len(self)} images.")
        index %= len(self)
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self.sets[which][index - (self._ends[which - 1] if which else 0)]
