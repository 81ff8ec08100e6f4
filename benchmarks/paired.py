"""Compares the times of candidates on a machine with varying load.

Candidates run in turn within each round, in a random order, so that other load affects all of them equally. Ratios are
between samples of the same round; the results are the median and quartiles of the rounds' ratios. Work on a GPU is
timed by CUDA events.
"""

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

Group = TypeVar("Group", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)

WARM_UP = 2
"""Number of first calls that are not timed, because they compile, choose algorithms and allocate memory."""


@dataclass
class Candidate:
    """Something to be timed."""

    call: Callable[[], object]
    around: Callable[[], AbstractContextManager] = nullcontext  # entered for each sample, outside of the timed part


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(own: Sequence[float], reference: Sequence[float]) -> list[float]:
    """The ratio of both times in each round."""
    return [a / b for a, b in zip(own, reference, strict=True)]


def geometric_means(rows: Sequence[Sequence[float]]) -> list[float]:
    """The geometric mean over the rows, for each round."""
    return [math.exp(statistics.fmean(map(math.log, column))) for column in zip(*rows, strict=True)]


def interleaved(
    groups: dict[Group, dict[Key, Candidate]], rounds: int, at_least: float, device: str, seed: int = 0
) -> dict[Group, dict[Key, list[float]]]:
    """Seconds per call, by group, candidate and round; progress is printed to stderr.

    Args:
        groups: candidates are compared within a group. Every round runs all groups, so that means over groups can be
            computed for each round.
        rounds: number of rounds.
        at_least: the shortest time of a sample in seconds; short calls are repeated.
        device: "cpu" or "cuda".
        seed: seed of the random order.
    """
    order, started = random.Random(seed), time.perf_counter()
    _say(f"warming up {sum(map(len, groups.values()))} candidates")
    repeats = {
        group: {key: repeats_to_fill(candidate, at_least, device) for key, candidate in candidates.items()}
        for group, candidates in groups.items()
    }
    _say(f"warmed up in {time.perf_counter() - started:.0f} s")
    found = {group: {key: [] for key in candidates} for group, candidates in groups.items()}
    started = time.perf_counter()
    for round_ in range(1, rounds + 1):
        for group, candidates in groups.items():
            for key in order.sample(list(candidates), len(candidates)):
                found[group][key].append(seconds_a_call(candidates[key], repeats[group][key], device))
        left = (time.perf_counter() - started) / round_ * (rounds - round_)
        _say(f"round {round_} of {rounds}, {left:.0f} s left")
    return found


def repeats_to_fill(candidate: Candidate, at_least: float, device: str) -> int:
    """The number of calls for a sample of at least so many seconds, after warming up."""
    for _ in range(WARM_UP):
        one = seconds_a_call(candidate, 1, device)
    if one >= at_least:
        return 1
    few = min(10, math.ceil(at_least / one))  # the time of one short call is inaccurate
    return max(1, math.ceil(at_least / seconds_a_call(candidate, few, device)))


def seconds_a_call(candidate: Candidate, repeats: int, device: str) -> float:
    with candidate.around():
        return (_on_gpu if device == "cuda" else _on_cpu)(candidate.call, repeats) / repeats


def _on_cpu(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - started


def _on_gpu(call: Callable[[], object], repeats: int) -> float:
    import torch  # here, so that --help does not wait for it

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
