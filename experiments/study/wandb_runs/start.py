"""Starts W&B runs without a long wait: online if W&B can be reached, else offline, with a message."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from datamodules.whole_file import write_whole
from experiments.study.run_folder import SHORTER
from experiments.study.run_parts import readable
from experiments.study.wandb_runs.offline_files import rows_logged
from experiments.study.wandb_runs.rows import Rows

if TYPE_CHECKING:  # loads in seconds; only where something goes there
    import wandb  # slow to import, and --wandb disabled needs none

ANSWER_SECONDS = 5
INIT_SECONDS = 30
"""How long W&B may take to begin a run; its own default is 90."""
FLUSH_SECONDS = 1.0
"""How often W&B's own process writes rows to the run's file; what is not written is lost if it is killed, too."""
NO_LOGIN = "you are not logged in"
PORTS = {"http": 80, "https": 443}

_chosen: dict[str, str] = {}  # the resolved mode by requested mode


def start_wandb(mode: str, folder: Path, group: str, name: str, about: dict) -> wandb.Run:
    """A new run in W&B's project normshift, its files below `folder`.

    A run that cannot start online starts offline; if that fails, too, the work goes on without W&B. A line on stderr
    says so, once.

    Args:
        mode: online or offline; auto is online where the user is logged in.
        group: the study's run that it belongs to. about: its settings.
    """
    return _started(mode, folder, group=group, name=name, config=about)[0]


def start_training(mode: str, folder: Path, group: str, name: str, about: dict) -> wandb.Run:
    """As `start_wandb`, for the training of this folder: if it has begun before, its run goes on."""
    run, now = _started(mode, folder, group=group, name=name, config=about, id=_id_of(folder), resume="allow")
    known = max(run.starting_step, rows_logged(folder, run.id, online=now == "offline"))
    known = sys.maxsize if now == "disabled" else known  # nothing goes there, and nothing is missing
    Rows(run, known, _rows_at_end(folder) if (folder / SHORTER).exists() else 0)
    return run


def _started(mode: str, folder: Path, **own: Any) -> tuple[wandb.Run, str]:
    """A run, and the mode that it is in."""
    import wandb  # slow to import, and --wandb disabled needs none

    folder.mkdir(parents=True, exist_ok=True)
    _own_folders(folder / "wandb", wandb.env)
    settings = wandb.Settings(silent=True, init_timeout=INIT_SECONDS)
    if "x_transaction_log_flush_interval" in wandb.Settings.model_fields:  # releases before have no such interval
        settings.x_transaction_log_flush_interval = FLUSH_SECONDS
    while True:
        now = _resolved(mode)
        try:
            return wandb.init(mode=now, project="normshift", dir=folder, settings=settings, **own), now
        except (wandb.Error, OSError, ValueError) as error:
            if now == "disabled":
                raise
            _chosen[mode] = _instead("disabled" if now == "offline" else "offline", f"no run can begin ({error})")


ID_FILE = "wandb-run.json"
"""In a training's folder: the id of its W&B run, which it keeps whenever it is resumed, and `rows` at its end."""


def _id_of(folder: Path) -> str | None:
    """The id of a training's run; in a sweep, None: W&B's agent has chosen it."""
    if os.environ.get("WANDB_SWEEP_ID"):
        return None
    known = _kept(folder).get("id")
    if isinstance(known, str):
        return known
    folder.mkdir(parents=True, exist_ok=True)
    new = secrets.token_hex(6)  # no seed decides it: two runs must not share one
    write_whole(folder / ID_FILE, json.dumps({"id": new}))
    return new


def keep_rows_at_end(folder: Path, rows: int) -> None:
    """Note how many rows a training has logged at its end; if it is made longer, it continues behind them."""
    if kept := _kept(folder):
        write_whole(folder / ID_FILE, json.dumps(kept | {"rows": rows}))


def _rows_at_end(folder: Path) -> int:
    rows = _kept(folder).get("rows")
    return rows if isinstance(rows, int) else 0


def _kept(folder: Path) -> dict:
    """What is known of a training's run from before."""
    kept = readable(lambda: json.loads((folder / ID_FILE).read_text(encoding="utf-8")))
    return kept if isinstance(kept, dict) else {}


HOME_FOLDERS = {"WANDB_DATA_DIR": "get_data_dir", "WANDB_CACHE_DIR": "get_cache_dir"}
"""Environment variables of the folders in which W&B keeps files of tables and images, with the functions of `wandb.env`
that return these folders."""


def _own_folders(folder: Path, env: ModuleType) -> None:
    """If the user's home cannot be written, let W&B use folders below `folder` instead; `env` is `wandb.env`."""
    for variable, place in HOME_FOLDERS.items():
        try:
            home = Path(getattr(env, place)())
            home.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=home).close()
        except OSError:
            os.environ[variable] = str((folder / variable.split("_")[1].lower()).resolve())


def trouble_online() -> str:
    """Why W&B cannot be used online; "" if the user is logged in and W&B answers."""
    import wandb  # slow to import, and --wandb disabled needs none

    try:
        if not wandb.login(prompt=False, verify=False):
            return NO_LOGIN
    except wandb.Error as error:
        return f"the login does not work ({error})"
    url = wandb.setup().settings.base_url
    return "" if _answers(url) else f"{url} does not answer"


def _resolved(mode: str) -> str:
    """online, offline or disabled for a mode."""
    if mode in ("offline", "disabled"):
        return _chosen.get(mode, mode)
    if mode not in _chosen:
        trouble = trouble_online()
        if trouble == NO_LOGIN and mode == "auto":
            _chosen[mode] = "offline"  # as it is meant
        else:
            _chosen[mode] = _instead("offline", trouble) if trouble else "online"
    return _chosen[mode]


def _instead(mode: str, trouble: str) -> str:
    kept = "runs stay offline, and `wandb sync` sends them" if mode == "offline" else "nothing is logged there"
    print(f"W&B: {' '.join(trouble.split())[:300]}; {kept}.", file=sys.stderr, flush=True)
    return mode


def _answers(url: str) -> bool:
    """Whether a server, or the proxy on the way to it, takes connections."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", parts.scheme)
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS.get(parts.scheme, 443)), ANSWER_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True
