"""The sections of the W&B dashboard, its workspace and its report; `flags` are those of `dashboard.py`.

Panels show the keys that studies log (`experiments.study.wandb_runs.outcome`, `lightning_modules.layer_log`), which do
not depend on the domains' names. They include the curves of single layers, which W&B's automatic panels do not show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr
from wandb_workspaces.reports.v2 import Report
from wandb_workspaces.workspaces import Workspace

from experiments.study.endings import UsageError
from experiments.study.wandb_runs.start import NO_LOGIN, trouble_online
from lightning_modules.gates.tracker import GateMeasures
from normshift.gate_reader import GateReader
from normshift.registry import NORMS

TITLE = "NormShift"
STEP = "trainer/global_step"


class Part(NamedTuple):
    """A section of both the workspace and the report."""

    name: str
    text: str
    panels: Callable  # called for each page, since a panel belongs to one page
    is_open: bool = True


def domain_gap(flags) -> list:
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


def gates_over_time(flags) -> list:
    return [
        *(
            line(f"{title}: mean of layers", *(f"gates/{measure}" for measure in measures))
            for (_, title), measures in gate_measures().items()
        ),
        line("IBN's halves: standard deviation", "ibn/in_std", "ibn/bn_std"),
        line("IBN's halves: mean", "ibn/in_mean", "ibn/bn_mean"),
        line("IBN's BN half: share of the variance between images", "ibn/bn_between_images"),
    ]


def gates_by_layer(flags) -> list:
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


def single_layers(flags) -> list:
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


def batch_sizes(flags) -> list:
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


def robustness(flags) -> list:
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


def written(flags) -> str:
    """The specification of both pages, as JSON."""
    specification = [
        page._to_model().model_dump(by_alias=True, exclude_none=True, mode="json") for page in pages(flags, "ENTITY")
    ]
    return json.dumps(dict(zip(("workspace", "report"), specification, strict=True)), indent=1) + "\n"


def publish(flags) -> None:
    """Save both pages on W&B, and print where they are."""
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


def pages(flags, entity: str) -> tuple[Workspace, Report]:
    """The workspace and the report, not yet saved. `entity` is that of a project that is named without one."""
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
    grouped = {"groupby": wr.Config("norm"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    return wr.BarPlot(title=title, metrics=[key], **grouped)


def line(title: str, *keys: str):
    """Curves over the training."""
    return wr.LinePlot(title=title, x=STEP, y=list(keys))


def layer_lines(title: str, pattern: str):
    """Curves of all keys that a pattern matches."""
    return wr.LinePlot(title=title, x=STEP, metric_regex=pattern)
