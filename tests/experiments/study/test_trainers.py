"""What the trainers of all studies share."""

import signal
import subprocess
import sys
from types import SimpleNamespace

from experiments.study import stops
from experiments.study.trainers import EndsOthers


def test_processes_that_lightning_has_started_end_with_the_first_one(monkeypatch):
    from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

    launcher = _SubprocessScriptLauncher(None, num_processes=2, num_nodes=1)
    watched = launcher.procs  # the list that Lightning's observer looks at
    watched.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
    other, trainer = watched[0], SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
    EndsOthers().on_exception(trainer, None, RuntimeError("no signal: what then is right, Lightning knows"))
    assert other.poll() is None and watched
    monkeypatch.setattr(stops, "_received", [signal.SIGINT])
    EndsOthers().on_exception(trainer, None, SystemExit(130))
    assert other.wait(20) == -signal.SIGKILL and not watched
    EndsOthers().on_exception(SimpleNamespace(strategy=SimpleNamespace(launcher=None)), None, SystemExit(130))
