"""Make a W&B workspace and a W&B report of all runs in a project: domain gap, gates, batch sizes, robustness.

When the project has runs (`wandb sync` uploads offline ones), this makes a new workspace and a new report, and prints
their addresses. Older ones are kept:

    python experiments/dashboard.py --project normshift

Without network or login, this writes the same specification to a file:

    python experiments/dashboard.py --project normshift --dry-run dashboard.json

Panels show the keys that studies log (`experiments.study.wandb_runs.outcome`, `lightning_modules.layer_log`), which do
not depend on the domains' names. They include the curves of single layers, which W&B's automatic panels do not show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.study.flags import UsageError, check_numbers, one_sentence, parse, register_plugins
from normshift.registry import NORMS

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

TITLE = "NormShift"
STEP = "trainer/global_step"


@dataclass
class Flags:
    """Flags of the dashboard."""

    project: str = ""
    """The W&B project: NAME or ENTITY/NAME."""
    layers: int = 20
    """Number of norm layers with their own panels, counted from the input; a ResNet-18 has 20, a ResNet-50 53."""
    plugin: list[str] = field(default_factory=list)
    """Python files that register your own norms, whose gates then get panels too (docs/own-norm.md)."""
    dry_run: str | None = None
    """Write the specification to this JSON file, and do not contact W&B."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self)
        entity, slash, name = self.project.rpartition("/")
        if not name or "/" in entity or (slash and not entity):
            raise UsageError(f"--project {self.project}: name a W&B project, NAME or ENTITY/NAME.".replace("  ", " "))


class Part(NamedTuple):
    """A section of both the workspace and the report."""

    name: str
    text: str
    panels: Callable[[Flags], list]  # called for each page, since a panel belongs to one page
    is_open: bool = True


def domain_gap(flags: Flags) -> list:
    import wandb_workspaces.reports.v2 as wr

    return [
        bar("final/drop", "drop from source to targets"),
        bar("final/source", "on the source"),
        bar("final/target", "on the targets, mean"),
        bar("final/divergence", "feature divergence between source and targets, mean of layers"),
        wr.LinePlot(title="training loss", x=STEP, y=["train/loss"], smoothing_factor=0.6),
        wr.MediaBrowser(title="examples", media_keys=["examples"], num_columns=2),
        wr.WeavePanelSummaryTable(table_name="results"),
    ]


def gate_measures() -> dict[tuple[str, str], list[str]]:
    """What is logged of the gates of every registered norm: from statistic and title to measures, such as "mean/bn"."""
    from lightning_modules.gates.tracker import GateMeasures  # imports torch
    from normshift.gate_reader import GateReader

    norms, measures = {}, {}
    for norm, spec in NORMS.items():
        headings = {gate.statistic: gate.heading for gate in spec.gates}
        slots = GateReader(spec(8, dims=max(spec.dims))).slots
        for statistic in dict.fromkeys(slot.statistic for slot in slots):
            kind = statistic, headings.get(statistic, statistic)
            norms.setdefault(kind, []).append(norm)
            names = GateMeasures([slot for slot in slots if slot.statistic == statistic]).names
            measures[kind] = list(dict.fromkeys([*measures.get(kind, []), *names]))
    return {(kind[0], f"{kind[1]} of {', '.join(norms[kind])}"): names for kind, names in measures.items()}


def gates_over_time(flags: Flags) -> list:
    return [
        *(
            line(f"{title}: mean of layers", *(f"gates/{measure}" for measure in measures))
            for (_, title), measures in gate_measures().items()
        ),
        line("IBN's halves: standard deviation", "ibn/in_std", "ibn/bn_std"),
        line("IBN's halves: mean", "ibn/in_mean", "ibn/bn_mean"),
        line("IBN's BN half: share of the variance between images", "ibn/bn_between_images"),
    ]


def gates_by_layer(flags: Flags) -> list:
    import wandb_workspaces.reports.v2 as wr

    maps = {
        "gates/map": "gates, layer by epoch",
        "ibn/map": "IBN's halves, layer by epoch",
        "gates/across_layers": "gates across the layers",
    }
    titles = {
        f"gates/{measure}": f"{title}: {measure.partition('/')[2]}"
        for (_, title), measures in gate_measures().items()
        for measure in measures
    }
    titles["ibn/bn_between_images"] = "IBN's BN half: share of the variance between images"
    pictures = [wr.MediaBrowser(title=title, media_keys=[key], num_columns=1) for key, title in maps.items()]
    return pictures + [
        layer_lines(f"{title}, a line for each layer", f"layers/{key}/.*") for key, title in titles.items()
    ]


def single_layers(flags: Flags) -> list:
    """A panel for each layer and kind of gate, with the curves of all its measures."""
    patterns = {
        title: f"layers/gates/{statistic}/({'|'.join(measure.partition('/')[2] for measure in measures)})"
        for (statistic, title), measures in gate_measures().items()
    }
    return [
        layer_lines(f"layer {depth}: {title}", f"{pattern}/{depth:03d}_.*")
        for depth in range(flags.layers)
        for title, pattern in patterns.items()
    ]


def batch_sizes(flags: Flags) -> list:
    import wandb_workspaces.reports.v2 as wr

    together = wr.Config("images_together")
    columns = {
        wr.Config("norm"): "norm",
        together: "images normalised together",
        wr.SummaryMetric("final/top1"): "top-1",
    }
    return [
        wr.ScatterPlot(
            title="top-1 by images normalised together",
            x=together,
            y=wr.SummaryMetric("final/top1"),
            log_x=True,
            legend_template="${config:norm}",
        ),
        wr.ParallelCoordinatesPlot(
            title="norm, batch, accuracy",
            columns=[wr.ParallelCoordinatesPlotColumn(metric, name) for metric, name in columns.items()],
        ),
        bar("final/top1", "top-1"),
    ]


def robustness(flags: Flags) -> list:
    import wandb_workspaces.reports.v2 as wr

    return [
        bar("final/shifts/top1", "top-1 under shifts of appearance"),
        bar("final/corruptions/error", "mean error on corrupted images"),
        bar("final/consistency/consistency", "shift consistency"),
        bar("final/perturbations/flip", "flip probability under perturbations"),
        wr.ScatterPlot(
            title="clean against shifted",
            x=wr.SummaryMetric("final/top1"),
            y=wr.SummaryMetric("final/shifts/top1"),
            legend_template="${config:norm}",
        ),
    ]


SECTIONS = [
    Part(
        "Domain gap", "Accuracy of each norm on the source and on the targets, and the drop between them.", domain_gap
    ),
    Part("Gates over time", "Which statistics the norms with gates use, averaged over layers.", gates_over_time),
    Part(
        "Gates by layer", "The same layer by layer; the number in a layer's name counts from the input.", gates_by_layer
    ),
    Part("Gates of single layers", "The gates of one layer in one panel.", single_layers, is_open=False),
    Part("Batch-size study", "Accuracy of each norm when fewer images are normalised together.", batch_sizes),
    Part(
        "Robustness",
        "Accuracy under shifts, corruptions and perturbations, of runs with `--evaluate` or of eval_robustness.py.",
        robustness,
    ),
]


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> None:
    """Build the workspace and the report, in W&B or as a file."""
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise UsageError("the PyPI package wandb-workspaces is missing: pip install -r requirements.txt.") from error
    if flags.dry_run:
        specification = [
            page._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
            for page in pages(flags, "ENTITY")
        ]
        text = json.dumps(dict(zip(("workspace", "report"), specification, strict=True)), indent=1)
        try:
            Path(flags.dry_run).write_text(text + "\n")
        except OSError as error:
            raise UsageError(f"--dry-run {flags.dry_run} cannot be written ({error.strerror}).") from error
        print(f"specification: {flags.dry_run}")
        return
    import wandb

    from experiments.study.wandb_runs.start import NO_LOGIN, trouble_online

    try:
        trouble = trouble_online()
        if trouble:
            login = f"{NO_LOGIN} to W&B: run `wandb login` first, or"
            raise UsageError(f"{login if trouble == NO_LOGIN else f'W&B: {trouble}:'} pass --dry-run FILE.")
        workspace, report = pages(flags, wandb.Api().default_entity)
        print(f"workspace: {workspace.save().url}")
        print(f"report: {report.save().url}")
    except (wandb.Error, OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"W&B refused the dashboard: {' '.join(str(error).split())}") from error


def pages(flags: Flags, entity: str) -> tuple[Workspace, Report]:
    """The workspace and the report, not yet saved. `entity` is that of a project that is named without one."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    given, _, project = flags.project.rpartition("/")
    place = {"entity": given or entity, "project": project}
    workspace = ws.Workspace(
        **place,
        name=TITLE,
        sections=[ws.Section(name=p.name, panels=p.panels(flags), is_open=p.is_open) for p in SECTIONS],
        settings=ws.WorkspaceSettings(x_axis=STEP, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(groupby=[expr.Config("norm")]),
    )
    blocks = [wr.TableOfContents()]
    for part in SECTIONS:
        if part.panels is single_layers:  # sixty small panels are too many for a report
            continue
        runs = wr.Runset(name="by norm", groupby=["config.norm"])  # of the report's own project
        blocks += [wr.H2(part.name), wr.P(part.text), wr.PanelGrid(runsets=[runs], panels=part.panels(flags))]
    about = "Which normalization survives a change of domain, of batch size, of a few pixels?"
    return workspace, wr.Report(**place, title=TITLE, description=about, blocks=blocks, width="fluid")


def bar(key: str, title: str):
    """One number from the end of every run, grouped by norm."""
    import wandb_workspaces.reports.v2 as wr

    grouped = {"groupby": wr.Config("norm"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    return wr.BarPlot(title=title, metrics=[key], **grouped)


def line(title: str, *keys: str):
    """Curves over the training."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(title=title, x=STEP, y=list(keys))


def layer_lines(title: str, pattern: str):
    """Curves of all keys that a pattern matches."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(title=title, x=STEP, metric_regex=pattern)


if __name__ == "__main__":
    main()
