"""How processes find each other that torchrun has started anew (`--max-restarts`)."""

from __future__ import annotations

import os
from datetime import timedelta

import torch.distributed as processes


def join_round(timeout: timedelta, gpu: bool) -> None:
    """Initialise torch.distributed in a later round of torchrun on one machine, before Lightning would.

    torchrun's store lives through all its rounds, and torch reads addresses of processes of the round before from it.
    Here each round has keys of its own. The count of restarts is the same in all processes of one machine, but not of
    several, where TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives each round its own store.
    """
    round_, machines = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.environ.get("GROUP_WORLD_SIZE", "1")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if round_ == "0" or machines != "1" or not shared or processes.is_initialized():
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = processes.TCPStore(address, port, world, is_master=False, timeout=timeout)
    processes.init_process_group(
        "nccl" if gpu else "gloo",
        store=processes.PrefixStore(f"round-{round_}", store),
        rank=rank,
        world_size=world,
        timeout=timeout,
    )
