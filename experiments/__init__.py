"""The studies, and what a user runs beside them."""

import sys
from pathlib import Path

if Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve().parent == Path(__file__).resolve().parent:
    from experiments.study.signals.stops import (
        exit_on_signals,  # of a script: Ctrl-C may come while the rest is imported
    )

    exit_on_signals()
