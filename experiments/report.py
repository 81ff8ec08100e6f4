"""Turn what a study left in its run folder into report.html: one file to read, to send, to keep.

    python experiments/report.py runs/seg_gta2city

Reads config.yaml, results.csv, metrics.csv, gates.parquet, divergence.csv and predictions/, whichever of them there
are; a run that was stopped half-way gets a report of what it had done. The page needs no network.
"""

from __future__ import annotations

import argparse
import re
import sys
from base64 import b64encode
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

PICTURE_BYTES = 1_600_000
"""What the embedded predictions may weigh together, in base64; a report is to be sent by mail."""

PICTURE_WIDTH = 320
"""Pixels to which wider predictions are reduced."""

INK = "#3d4650"
"""Text in the figures."""


@dataclass
class Run:
    """What a run folder holds. A frame is None where its file is missing, empty or damaged."""

    path: Path
    config: dict
    results: DataFrame | None
    metrics: DataFrame | None
    gates: DataFrame | None
    divergence: DataFrame | None

    @property
    def norms(self) -> list[str]:
        """The norms of the flags and whatever else was measured, in that order."""
        frames = (self.results, self.metrics, self.gates, self.divergence)
        measured = [norm for frame in frames if frame is not None for norm in frame["norm"].unique()]
        return list(dict.fromkeys([*_listed(self.config.get("norm")), *measured]))

    @property
    def domains(self) -> list[str]:
        """Source first, then the targets, then what else was measured."""
        flags = [*_listed(self.config.get("source")), *_listed(self.config.get("target"))]
        results = [] if self.results is None else [*self.results["domain"].unique()]
        metrics = [] if self.metrics is None else [c[: -len("/miou")] for c in self.metrics if c.endswith("/miou")]
        return list(dict.fromkeys([*flags, *results, *metrics]))


@dataclass
class Drawing:
    """Figures that share a caption. Wide ones scroll sideways on a phone, others stand beside each other."""

    caption: str
    images: list[tuple[str, str]]  # (data URI, what it shows in a few words)
    heading: str = ""
    wide: bool = False


@dataclass
class Section:
    """A chapter of the page: its drawings, or one line on why there are none."""

    title: str
    drawings: list[Drawing] = field(default_factory=list)
    absent: str = ""


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Whatever is missing from the folder is missing from the page, with a line that says so.

    Raises:
        ValueError: where the folder holds none of config.yaml, results.csv and metrics.csv.
    """
    from jinja2 import Environment

    from lightning_modules.gate_figures import NORM_COLOURS

    loaded = read_run(Path(run))
    pictures, left_out = prediction_pictures(loaded)
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    html = page.render(
        style=STYLE,
        run=loaded,
        config=loaded.config,
        title=_title(loaded),
        colours={norm: NORM_COLOURS.get(norm, "#777777") for norm in loaded.norms},
        result=_result(loaded),
        sections=[drop_section(loaded), training_section(loaded), gate_section(loaded), divergence_section(loaded)],
        pictures=pictures,
        left_out=left_out,
        classes=_class_colours(loaded.config),
        class_tables=class_tables(loaded),
        environment=_environment(loaded.config),
        flags=_flags(loaded.config),
    )
    report = loaded.path / "report.html"
    report.write_text(html, encoding="utf-8")
    return report


def read_run(path: Path) -> Run:
    """Read a run folder, forgiving whatever a killed run left behind. Raises ValueError where it is no run folder."""
    import pandas as pd
    import yaml

    if not any((path / name).is_file() for name in ("config.yaml", "results.csv", "metrics.csv")):
        raise ValueError(f"{path} is no run folder: it holds neither config.yaml nor results.csv nor metrics.csv.")

    def frame(name: str, columns: tuple[str, ...]) -> DataFrame | None:
        file = path / name
        try:
            table = pd.read_parquet(file) if name.endswith(".parquet") else pd.read_csv(file, on_bad_lines="skip")
            for column in table.columns.difference(["norm", "domain", "role", "layer", "statistic", "label"]):
                table[column] = pd.to_numeric(table[column], errors="coerce")
        except (OSError, ValueError):  # not there, empty, or cut off in the middle
            return None
        if not set(columns) <= set(table.columns):
            return None
        table = table.dropna(subset=list(columns)).reset_index(drop=True)
        return table if len(table) else None

    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        config = None
    return Run(
        path,
        config if isinstance(config, dict) else {},
        frame("results.csv", ("norm", "seed", "domain", "role", "miou")),
        frame("metrics.csv", ("norm", "seed", "step")),
        frame("gates.parquet", ("norm", "seed", "epoch", "step", "layer", "depth", "statistic", "label", "value")),
        frame("divergence.csv", ("norm", "seed", "domain", "depth", "mean")),
    )


def drop_section(run: Run) -> Section:
    """What is lost between source and targets, and from which heights."""
    from experiments.tables import DROP, seed_scores

    section = Section("The drop")
    scores = None if run.results is None else seed_scores(run.results).dropna(subset=[DROP])
    if scores is None or scores.empty:
        section.absent = "No norm has been judged on the source and on every target."
        return section
    ranked = scores.groupby("norm")[DROP].mean().sort_values(ascending=False).index
    lost, heights = (_figure(4.5, 1.0 + 0.34 * len(ranked), title) for title in ("what is lost", "from where to where"))
    _draw_drops(_axes(lost), scores, ranked)
    _draw_heights(_axes(heights), scores, ranked, run)
    section.drawings = [
        Drawing(
            "What is lost: points of mIoU from the source to the mean of the targets, least on top; a bar is the mean "
            "over seeds, a dot one seed. Where the dots of two norms overlap, their order may be chance. From where to "
            "where: the filled dot is the source, the ring the mean of the targets, each tick one target. A short line "
            "far to the left lost little because it had little.",
            [(_svg(lost), "bars: the drop of each norm"), (_svg(heights), "mIoU on source and targets, norm by norm")],
        )
    ]
    return section


def training_section(run: Run) -> Section:
    """Loss and mIoU of each domain against the step."""
    section = Section("Training")
    if run.metrics is None:
        section.absent = "metrics.csv is missing or empty."
        return section
    measured = run.metrics.dropna(axis=1, how="all").columns
    titles = {"train/loss": "training loss"} | {f"{domain}/miou": f"{domain}: mIoU" for domain in run.domains}
    columns = {column: title for column, title in titles.items() if column in measured}
    best = max((run.metrics[column].max() for column in columns if column.endswith("/miou")), default=1)
    images = []
    for column, title in columns.items():
        figure = _figure(4.5, 2.5, title)
        _draw_curves(_axes(figure), run.metrics, column)
        if column.endswith("/miou"):
            figure.axes[0].set_ylim(0, 105 * best)  # one scale for all domains, so that the drop can be seen
        images.append((_svg(figure), f"{title} during training"))
    caption = (
        "Against the optimiser's step: a thin line a seed, a bold line the mean of those that got to the end. A "
        "target's curve that sinks while the source's still climbs is a network that fits its source's appearance."
    )
    section.drawings = [Drawing(caption, images)] if images else []
    section.absent = "" if images else "metrics.csv holds neither a loss nor a mIoU."
    return section


def gate_section(run: Run) -> Section:
    """Which statistics the switchable norms settled on, and on what way."""
    from lightning_modules.gate_figures import NEAR, draw_gate_movement, draw_gates

    section = Section("What the gates learned")
    if run.gates is None:
        section.absent = (
            "gates.parquet is missing or damaged: the run may have been stopped before it was written."
            if {"sn", "sn-in-ln", "bin"} & set(run.norms)
            else "No norm of this run has gates."
        )
        return section
    shares = (
        "As last recorded, averaged over seeds: how each layer divides its trust between the moments of the instance "
        "(IN), the layer (LN) and, where it may, the batch (BN). The shares start equal; what is not equal was learned."
    )
    quantiles = (
        "As last recorded, over the channels of each layer: rho is 1 where a channel uses the batch's moments, 0 where "
        f"the instance's; it starts at 1. Below: how many channels are within {NEAR:g} of either side."
    )
    moved = (
        "The way there, for early, middle and late layers; a thin line is one seed. What still slopes at the end "
        "had not settled."
    )
    for norm, gates in run.gates.groupby("norm", sort=False):
        caption = quantiles if (gates["statistic"] == "rho").all() else shares
        images = [(_svg(draw_gates(gates)), f"gates of {norm} by depth")]
        section.drawings.append(Drawing(caption, images, heading=norm, wide=True))
        if gates["epoch"].nunique() > 1:
            images = [(_svg(draw_gate_movement(gates)), f"gates of {norm} over epochs")]
            section.drawings.append(Drawing(moved, images, wide=True))
    return section


def divergence_section(run: Run) -> Section:
    """How far apart source and targets are inside the networks."""
    section = Section("Inside the network: how far apart the domains are")
    if run.divergence is None or not (run.divergence["mean"] > 0).any():
        section.absent = "divergence.csv is missing or empty."
        return section
    measured = run.divergence[run.divergence["mean"] > 0]
    low, high = measured["mean"].quantile([0.002, 0.998])
    images = []
    for domain, rows in measured.groupby("domain", sort=False):
        figure = _figure(4.5, 2.7, f"source and {domain}")
        _draw_divergence(_axes(figure), rows)
        figure.axes[0].set_ylim(low / 1.5, high * 1.5)
        images.append((_svg(figure), f"feature divergence between source and {domain} by depth"))
    caption = (
        "Symmetric Kullback-Leibler divergence of the channels' mean activations, source against target, averaged over "
        "the channels of a layer (IBN-Net, section 3.1); seeds averaged on this logarithmic scale. Lower: the layer "
        "sees less of what sets the domains apart. Look for where a norm's line leaves the others."
    )
    section.drawings = [Drawing(caption, images)]
    return section


def prediction_pictures(run: Run) -> tuple[list[tuple[str, list[list[tuple[str, str]]]]], int]:
    """Each domain's examples, an example being (what, data URI) for image, truth and norms; and how many did not fit.

    Every domain gets its first example before any gets a second.
    """
    examples = []
    for file in (run.path / "predictions").glob("*-image.png"):
        domain, _, index = file.name.removesuffix("-image.png").rpartition("-")
        if domain and index.isdigit():
            examples.append((int(index), domain))
    order = {domain: i for i, domain in enumerate(run.domains)}
    shown: dict[str, list] = {domain: [] for domain in sorted({d for _, d in examples}, key=lambda d: order.get(d, 99))}
    budget, left_out = PICTURE_BYTES, 0
    for index, domain in sorted(examples, key=lambda e: (e[0], order.get(e[1], 99))):
        stem = run.path / "predictions" / f"{domain}-{index}"
        found = {what: _png_uri(Path(f"{stem}-{what}.png"), what == "image") for what in ("image", "truth", *run.norms)}
        uris = [(what, uri) for what, uri in found.items() if uri]
        budget -= sum(len(uri) for _, uri in uris)
        if budget < 0:
            left_out += 1
        elif uris:
            shown[domain].append(uris)
    return [(domain, rows) for domain, rows in shown.items() if rows], left_out


def class_tables(run: Run) -> list[tuple[str, list[str], list[tuple[str, list[tuple[str, bool]]]]]]:
    """For each domain its name, the norms, and a row a class: mean IoU over seeds in points, and whether it is best."""
    from experiments.tables import MISSING

    if run.results is None:
        return []
    columns = [column for column in run.results if column.startswith("iou/")]
    tables = []
    for domain, rows in run.results.groupby("domain", sort=False):
        means = 100 * rows.groupby("norm", sort=False)[columns].mean().T.dropna(how="all")
        if not means.empty:
            body = []
            for name, row in means.round(1).iterrows():
                cells = [(MISSING if v != v else f"{v:.1f}", len(row) > 1 and v == row.max()) for v in row]
                body.append((str(name).removeprefix("iou/"), cells))
            tables.append((str(domain), list(means.columns), body))
    return tables


def _result(run: Run) -> dict | None:
    """The closing table as the page shows it."""
    from experiments.tables import closing_table, legend, table_header, table_rows, verdict

    if run.results is None:
        return None
    table = closing_table(run.results)
    unfinished = [norm for norm in run.norms if norm not in table.index]
    return {
        "header": table_header(table),
        "rows": list(table_rows(table)),
        "legend": legend(table),
        "verdict": verdict(table),
        "unfinished": ", ".join(unfinished),
    }


def _draw_drops(ax: Axes, scores: DataFrame, ranked: list[str]) -> None:
    from experiments.tables import DROP
    from lightning_modules.gate_figures import NORM_COLOURS

    reach = max(scores[DROP].max(), 0.1)
    for y, norm in enumerate(ranked):
        seeds, colour = scores.loc[[norm], DROP], NORM_COLOURS.get(norm, "#777777")
        ax.barh(y, seeds.mean(), 0.56, color=colour, alpha=0.45, linewidth=0)
        ax.plot(seeds, [y] * len(seeds), "o", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.8)
        ax.text(max(seeds.max(), 0) + 0.03 * reach, y, f"{seeds.mean():.1f}", va="center", fontsize=8.5, color=INK)
    ax.set_xlim(min(0, scores[DROP].min()), 1.14 * reach)
    _norm_axis(ax, ranked, "points of mIoU lost")


def _draw_heights(ax: Axes, scores: DataFrame, ranked: list[str], run: Run) -> None:
    from experiments.tables import DROP, TARGETS
    from lightning_modules.gate_figures import NORM_COLOURS

    targets = run.results.loc[run.results["role"] == "target", "domain"].unique()
    means = scores.groupby("norm").mean()
    for y, norm in enumerate(ranked):
        row, colour = means.loc[norm], NORM_COLOURS.get(norm, "#777777")
        source = row[TARGETS] + row[DROP]
        ax.plot([row[TARGETS], source], [y, y], color=colour, linewidth=2, alpha=0.6)
        ax.plot([row[target] for target in targets], [y] * len(targets), "|", color=colour, markersize=9)
        ax.plot(row[TARGETS], y, "o", color="white", markeredgecolor=colour, markeredgewidth=2, markersize=6.5)
        ax.plot(source, y, "o", color=colour, markersize=7.5)
    ax.set_xlim(left=0)
    _norm_axis(ax, ranked, "mIoU, per cent")


def _draw_curves(ax: Axes, metrics: DataFrame, column: str) -> None:
    from lightning_modules.gate_figures import NORM_COLOURS

    rows = metrics.dropna(subset=[column])
    share = 100 if column.endswith("/miou") else 1
    width = max(1, (rows["step"].max() + 1) / 100)  # averaged over a hundredth of the run: a loss a step is a smear
    binned = rows["step"].floordiv(width) if rows.groupby(["norm", "seed"]).size().max() > 120 else rows["step"]
    rows = rows.assign(bin=binned)
    for norm, part in rows.groupby("norm", sort=False):
        colour = NORM_COLOURS.get(norm, "#777777")
        seeds = part.groupby(["bin", "seed"])[column].mean().unstack() * share
        steps = part.groupby("bin")["step"].mean()
        ends = seeds.apply(lambda seed: seed.last_valid_index())
        common = seeds.loc[:, ends >= 0.9 * ends.max()].dropna()  # a seed just begun must not cut the mean short
        if seeds.shape[1] > 1:
            ax.plot(steps, seeds, color=colour, linewidth=0.7, alpha=0.45)
        style = "-" if len(common) > 1 else "o"
        ax.plot(steps[common.index], common.mean(axis=1), style, color=colour, linewidth=1.9, markersize=4)
    ax.set_xlabel("step")


def _draw_divergence(ax: Axes, rows: DataFrame) -> None:
    import numpy as np

    from lightning_modules.gate_figures import NORM_COLOURS

    for norm, part in rows.groupby("norm", sort=False):
        line = np.exp(np.log(part["mean"]).groupby(part["depth"]).mean())
        style = "-" if len(line) > 1 else "o"
        ax.plot(line, style, color=NORM_COLOURS.get(norm, "#777777"), linewidth=1.6, markersize=4)
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("depth of the layer")


def _figure(width: float, height: float, title: str = "") -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.add_subplot().set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK)
    return figure


def _axes(figure: Figure) -> Axes:
    from lightning_modules.gate_figures import quiet

    quiet(figure.axes[0])
    return figure.axes[0]


def _norm_axis(ax: Axes, norms: list[str], label: str) -> None:
    ax.set_yticks(range(len(norms)), norms)
    ax.set_ylim(-0.6, len(norms) - 0.4)
    ax.grid(False, axis="y")
    ax.grid(axis="x", color="#d7dce1", linewidth=0.6)
    ax.set_xlabel(label)


def _svg(figure: Figure) -> str:
    """A figure as a data URI, its text in the reader's own font."""
    import matplotlib

    buffer = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "normshift"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'Segoe UI', Roboto, sans-serif", buffer.getvalue().decode())
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", svg)  # a hundredth of a point is plenty
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def _png_uri(file: Path, photograph: bool) -> str | None:
    """A prediction as a data URI, reduced to PICTURE_WIDTH; None where it is missing or cut off."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except OSError:
        return None
    if image.width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, round(image.height * PICTURE_WIDTH / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS if photograph else Image.Resampling.NEAREST)
    buffer = BytesIO()
    if photograph:
        image.save(buffer, "JPEG", quality=84)
        return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()
    image.quantize(64).save(buffer, "PNG", optimize=True)  # label colours: a palette loses nothing
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


def _title(run: Run) -> str:
    source, targets = _listed(run.config.get("source")), _listed(run.config.get("target"))
    return f"{', '.join(source)} → {', '.join(targets)}" if source and targets else run.path.resolve().name


def _class_colours(config: dict) -> list[tuple[str, str]]:
    from datamodules.labels import DRIVABLE, STREET

    space = DRIVABLE if config.get("label_space") == "drivable" else STREET
    return [(name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in zip(space.classes, space.palette, strict=True)]


_ABOUT = ("question", "command", "machine", "git", "versions", "minutes")
"""What config.yaml says about a run beside its flags."""


def _environment(config: dict) -> dict[str, str]:
    facts = {"machine": config.get("machine"), "git revision": config.get("git")}
    minutes = config.get("minutes")
    if isinstance(minutes, (int, float)):
        facts["time"] = f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"
    versions = config.get("versions")
    facts |= versions if isinstance(versions, dict) else {}
    return {name: str(fact) for name, fact in facts.items() if fact is not None}


def _flags(config: dict) -> dict[str, str]:
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in config.items()
        if name not in _ABOUT and value is not None
    }


def _listed(value: object) -> list[str]:
    return [] if value is None else [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]


STYLE = """
:root { color-scheme: light; --ink: #22272d; --soft: #5d6873; --line: #e3e7eb; --wash: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 56px 24px 96px; }
h1 { font-size: 30px; line-height: 1.25; letter-spacing: -.015em; margin: 0 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 21px; letter-spacing: -.01em; margin: 72px 0 16px; }
h3 { font-size: 16px; margin: 32px 0 8px; }
p { max-width: 68ch; margin: 0 0 16px; }
.over { color: var(--soft); font-size: 14px; margin: 0 0 8px; }
.question { font-size: 19px; line-height: 1.5; }
.verdict { font-size: 18px; line-height: 1.5; border-left: 3px solid var(--ink); padding-left: 16px; margin: 24px 0; }
.soft, figcaption, .legend { color: var(--soft); font-size: 14px; line-height: 1.5; }
figcaption { max-width: 84ch; margin-top: 8px; }
figure { margin: 0 0 32px; }
pre { background: var(--wash); border-radius: 6px; padding: 12px 16px; margin: 0; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 15px; font-variant-numeric: tabular-nums; }
.result { width: 100%; border-collapse: separate; border-spacing: 0; }
th, td { padding: 8px 0 8px 24px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; font-size: 14px; vertical-align: bottom; }
thead th { white-space: normal; overflow-wrap: break-word; }
th:first-child { padding-left: 0; text-align: left; }
tbody th { color: var(--ink); font-size: 15px; }
td b { border-bottom: 2px solid currentColor; }
.facts th { white-space: nowrap; } .facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts th, .facts td { padding-top: 4px; padding-bottom: 4px; font-size: 14px; vertical-align: top; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 24px 32px; }
.pair img { width: 100%; max-width: 520px; }
.wide img { width: 100%; min-width: 600px; }
img { display: block; height: auto; }
.samples { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 12px; margin-bottom: 24px; }
.samples figure { margin: 0; } .samples figcaption { margin-top: 2px; font-size: 13px; }
.samples img { width: 100%; border-radius: 3px; background: var(--wash); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 0 0 20px; }
.dot { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
nav { position: sticky; top: 0; z-index: 1; background: #fff; border-bottom: 1px solid var(--line); }
nav .legend { max-width: 960px; margin: 0 auto; padding: 8px 24px; color: var(--ink); font-size: 13px; }
details { border-top: 1px solid var(--line); padding: 12px 0; } summary { cursor: pointer; }
@media (max-width: 600px) {
  main { padding: 32px 16px 64px; } h1 { font-size: 24px; } h2 { margin-top: 56px; }
  nav .legend { padding: 8px 16px; gap: 2px 12px; }
  th, td { padding-left: 14px; } .samples { grid-template-columns: 1fr 1fr; gap: 8px; }
  .result th:first-child { position: sticky; left: 0; background: #fff; }
}
@media print { nav { position: static; } figure { break-inside: avoid; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} · NormShift</title>
<style>{{ style | safe }}</style>
</head>
<body>
{% if colours %}
<nav><ul class="legend">
{% for norm, colour in colours.items() %}
<li><span class="dot" style="background: {{ colour }}"></span>{{ norm }}</li>
{% endfor %}
</ul></nav>
{% endif %}
<main>
<header>
<p class="over">NormShift · {{ run.path.resolve().name }}</p>
<h1>{{ title }}</h1>
{% if config.question %}<p class="question">{{ config.question }}</p>{% endif %}
{% if config.command %}<pre>{{ config.command }}</pre>{% endif %}
</header>

<section>
<h2>Result</h2>
{% if result %}
<div class="scroll"><table class="result">
<thead><tr>{% for heading in result.header %}<th scope="col">{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for norm, cells in result.rows %}
<tr><th scope="row"><span class="dot" style="background: {{ colours[norm] }}"></span>{{ norm }}</th>
{% for text, best in cells %}<td>{% if best %}<b>{{ text }}</b>{% else %}{{ text }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="soft" style="margin-top: 8px">{{ result.legend }} Underlined: best of its column.
{% if result.unfinished %} Without a result so far: {{ result.unfinished }}.{% endif %}</p>
<p class="verdict">{{ result.verdict }}</p>
{% else %}
<p class="soft">results.csv is missing or empty: the run was stopped before a network was judged.</p>
{% endif %}
</section>

{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.absent %}<p class="soft">{{ section.absent }}</p>{% endif %}
{% for drawing in section.drawings %}
{% if drawing.heading %}<h3>{{ drawing.heading }}</h3>{% endif %}
<figure>
<div {% if drawing.wide %}class="scroll wide" tabindex="0"{% else %}class="pair"{% endif %}>
{% for uri, alt in drawing.images %}<img src="{{ uri }}" alt="{{ alt }}">{% endfor %}
</div>
<figcaption>{{ drawing.caption }}</figcaption>
</figure>
{% endfor %}
</section>
{% endfor %}

<section>
<h2>Predictions</h2>
{% if pictures %}
<p class="soft">What each norm's network makes of a scene, beside the image and the truth. Compare the targets with the
source: what breaks first tells what a network had leaned on.
{% if left_out %}{{ left_out }} more are in the folder predictions.{% endif %}</p>
<ul class="legend">
{% for name, colour in classes %}
<li><span class="dot" style="background: {{ colour }}"></span>{{ name }}</li>
{% endfor %}
</ul>
{% for domain, examples in pictures %}
<h3>{{ domain }}</h3>
{% for example in examples %}
{% set rows = (example | length + 4) // 5 %}
<div class="samples" style="--columns: {{ (example | length + rows - 1) // rows }}">
{% for what, uri in example %}
<figure><img src="{{ uri }}" alt="{{ what }}, {{ domain }}"><figcaption>
{% if what in colours %}<span class="dot" style="background: {{ colours[what] }}"></span>{% endif %}
{{ what }}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}
{% endfor %}
{% else %}
<p class="soft">The folder predictions is missing or empty.</p>
{% endif %}
</section>

<section>
<h2>Class by class</h2>
{% for domain, norms, rows in class_tables %}
<details><summary>{{ domain }}</summary>
<div class="scroll"><table>
<thead><tr><th scope="col">IoU, points</th>
{% for norm in norms %}<th scope="col">{{ norm }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, cells in rows %}
<tr><th scope="row">{{ name }}</th>
{% for text, best in cells %}<td>{% if best %}<b>{{ text }}</b>{% else %}{{ text }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
</details>
{% else %}
<p class="soft">results.csv holds no IoU of single classes.</p>
{% endfor %}
</section>

<section>
<h2>How it was run</h2>
{% if environment or flags %}
<table class="facts">
{% for name, fact in environment.items() %}<tr><th scope="row">{{ name }}</th><td>{{ fact }}</td></tr>{% endfor %}
</table>
<h3>Flags</h3>
<table class="facts">
{% for name, value in flags.items() %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
</table>
{% else %}
<p class="soft">config.yaml is missing or damaged.</p>
{% endif %}
</section>
</main>
</body>
</html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write report.html, one self-contained page, into a run's folder.")
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="folder of a run, such as runs/seg_gta2city")
    flags = parser.parse_args()
    failed = False
    for run in flags.run:
        try:
            print(write_report(run))
        except (OSError, ValueError) as error:
            print(f"report: {error}", file=sys.stderr)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
