"""Make a W&B workspace and a W&B report of all runs in a project: domain gap, gates, batch sizes, robustness.

When the project has runs (`wandb sync` uploads offline ones), this makes a new workspace and a new report, and prints
their addresses. Older ones are kept:

    python experiments/dashboard.py --project normshift

Without network or login, this writes the same specification to a file:

    python experiments/dashboard.py --project normshift --dry-run dashboard.json

`experiments.reporting.dashboard_pages` has the panels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import check_numbers, parse, register_plugins


@dataclass
class Flags:
    """Flags of the dashboard."""

    project: str = ""
    """The W&B project: NAME or ENTITY/NAME."""
    layers: int = 20
    """Number of norm layers with their own panels, counted from the input; a ResNet-18 has 20, a ResNet-50 53."""
    plugin: list[str] = field(default_factory=list)
    """Python files of yours that register norms, whose gates then get panels too (docs/plugins.md)."""
    dry_run: str | None = None
    """Write the specification to this JSON file, and do not contact W&B."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self)
        entity, slash, name = self.project.rpartition("/")
        if not name or "/" in entity or (slash and not entity):
            raise UsageError(f"--project {self.project}: name a W&B project, NAME or ENTITY/NAME.".replace("  ", " "))


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> None:
    """Build the workspace and the report, in W&B or as a file."""
    try:
        from experiments.reporting import dashboard_pages  # needs an optional package, and loads slowly
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("wandb_workspaces"):
            raise
        raise UsageError("the PyPI package wandb-workspaces is missing: pip install -r requirements.txt.") from error
    if not flags.dry_run:
        dashboard_pages.publish(flags)
        return
    text = dashboard_pages.written(flags)
    try:
        Path(flags.dry_run).write_text(text)
    except OSError as error:
        raise UsageError(f"--dry-run {flags.dry_run} cannot be written ({error.strerror}).") from error
    print(f"specification: {flags.dry_run}")


if __name__ == "__main__":
    main()
