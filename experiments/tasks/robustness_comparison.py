"""Classifiers side by side in robustness: what `eval_robustness.py` does once its flags are parsed."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path

import pandas as pd
import yaml
from pandas import DataFrame

from datamodules.classification.domains import ImageDomain, open_images
from datamodules.classification.joined import unlike_classes
from datamodules.corruptions.frost import frost_photographs
from datamodules.image_files import DataError, MissingDataError
from datamodules.whole_file import write_whole
from experiments.reporting.arm_styles import arm_styles
from experiments.reporting.robustness_figures import draw_robustness
from experiments.study.endings import UsageError
from experiments.study.run_lock import RunLock, locked
from experiments.study.settings import devices, loader_workers
from experiments.study.tables.chance import LUCK, compared_in_nothing
from experiments.study.tables.printed import print_table
from experiments.study.tables.table import Table, table_of
from experiments.study.trained.network_outcome import log_network
from experiments.study.trained.networks import learned_whole
from experiments.tasks.evaluated_networks import Network, classifiers, is_path, named_network, told_apart
from lightning_modules.measures import Measure, measure_of
from lightning_modules.robustness.evaluator import evaluate
from lightning_modules.robustness.summary import compares_with_alexnet, summary
from lightning_modules.robustness.views import spread

MEASURES = {
    "ECE": measure_of("ece"),
    "mean error, corrupted": measure_of("error"),
    "flip probability": measure_of("flip"),
    "top-5 distance": measure_of("top5_distance"),
    **{name: Measure(name, name, better="lower") for name in ("mCE", "relative mCE", "mFR")},
}
"""What the table's columns show. The others are accuracies."""
HIDDEN = frozenset({"NLL"})
"""Columns that are only in results.csv: the table is wide enough."""
OFFERED = 200
"""Default number of images of an embedded set, of which any number can be drawn."""


def compared(flags) -> DataFrame:
    """Evaluate the networks; returns results in long form: arm, its columns, seed, part, condition, severity, measure,
    value."""
    out = Path(flags.out)
    if (out / "results.csv").exists() and not flags.smoke:
        raise UsageError(f"{out} already holds an evaluation: pass another --out, or move it away.")
    if (out / "arms.json").exists():
        raise UsageError(f"--out {out} holds a study's run, whose files this would overwrite: choose another.")
    accelerator, gpus = devices(flags)
    networks, domain = gathered(flags)
    check_fit(flags, networks, domain)
    lock = locked_folder(out)
    for i, network in enumerate(networks):
        network.evaluated.net.to(f"cuda:{i % gpus}" if accelerator == "gpu" else "cpu")
    photographs = frost_photographs(flags.frost) if flags.frost else None
    files = PublishedFiles(flags) if flags.published else None
    rows = evaluate(
        [network.evaluated for network in networks],
        domain.samples,
        flags.parts,
        batch_size=flags.batch_size,
        severities=flags.severities,
        seed=flags.seed,
        frames=flags.frames,
        images=flags.images,
        workers=loader_workers(flags),
        published=files,
        frost=photographs,
        progress=True,
    )
    of = {network.evaluated.name: network for network in networks}
    labelled = [(of[row["network"]], {key: v for key, v in row.items() if key != "network"}) for row in rows]
    results = pd.DataFrame({"arm": n.arm, **n.columns, "seed": n.seed, **row} for n, row in labelled)
    write(flags, out, results, closing_table(flags, networks, domain, rows, files))
    if flags.wandb != "disabled":
        to_wandb(flags, out, networks, results)
    del lock
    return results


def locked_folder(out: Path) -> RunLock:
    """Make the folder of the evaluation and lock it. It comes first, since the evaluation may take hours.

    Raises:
        UsageError: it cannot be written, or another process writes to it.
    """
    try:
        return locked(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror or error}): choose another.") from error


def gathered(flags) -> tuple[list[Network], ImageDomain]:
    """The networks, in the order of the command line, and the images to evaluate them on.

    Raises:
        UsageError: one of them is missing or cannot be rebuilt, or they were trained on different sets and --data is
            not given.
    """
    trained = {given: classifiers(given) for given in flags.networks if is_path(given)}
    sets = {network.trained_on: network for found in trained.values() for network in found if network.trained_on}
    if len(sets) > 1 and flags.data is None:
        said = ", ".join(f"{network.source} on {data}" for data, network in sets.items())
        raise UsageError(
            f"the networks were trained on different sets ({said}): name the set to evaluate them on by --data."
        )
    data = flags.data or next(iter(sets), "imagenet")
    refuse_seen(data, [network for found in trained.values() for network in found])
    sizes = {n.evaluated.resize or n.evaluated.size for found in trained.values() for n in found} or {32}
    domain = opened(flags, data, max(sizes))
    networks = []
    for given in flags.networks:
        networks += trained.get(given) or [named_network(given, flags.weights == "imagenet", domain)]
    orders = {network.evaluated.classes for network in networks}
    if len(orders) == 1 and not unlike_classes(domain.classes, *orders):  # one set's classes may be listed in any order
        domain = domain.in_order_of(*orders, networks[0].source)
    return told_apart(networks), domain


def refuse_seen(data: str, networks: list[Network]) -> None:
    """Refuse a domain of which a network was trained on all images."""
    for network in networks:
        learned = learned_whole(network.trained_on or "", data)
        if learned:
            raise UsageError(
                f"{network.source} was trained on all images of {', '.join(learned)}: "
                "name another set to evaluate it on by --data, such as another domain, NAME:all."
            )


def opened(flags, data: str, size: int) -> ImageDomain:
    """The images to evaluate on. An embedded set is drawn at the size from which the networks' crops are cut."""
    try:
        domain = open_images(data, flags.split, flags.data_root, size=size, length=flags.images or OFFERED)
    except MissingDataError as error:
        raise UsageError(f"{str(error).rstrip('.')}; --data shapes needs nothing on disk.") from error
    except DataError as error:
        raise UsageError(f"--data {data}: {error}") from error
    if domain.of_videos:
        raise UsageError(f"--data {data} holds videos: --data imagenet --published evaluates on them.")
    return domain


class PublishedFiles:
    """Opens the published files of ImageNet-C and -P by name, and keeps their labels."""

    def __init__(self, flags):
        self.flags, self.labels = flags, {}

    def __call__(self, name: str):
        """The samples of "imagenet-c/fog/3" or "imagenet-p/tilt"."""
        samples = open_images(name, self.flags.split, self.flags.data_root).samples
        self.labels[name] = samples.labels
        return samples


def check_fit(flags, networks: list[Network], domain: ImageDomain) -> None:
    """Refuse networks that cannot be evaluated on these images, or not as the flags ask."""
    sizes = {network.evaluated.resize or network.evaluated.size for network in networks}
    if len(sizes) > 1 and not domain.on_disk:
        said = ", ".join(f"{n.arm} {n.evaluated.resize or n.evaluated.size}" for n in networks)
        raise UsageError(
            f"{domain.name} is drawn at one size, but the networks need several ({said}): evaluate them apart."
        )
    for network in networks:
        unlike = unlike_classes(network.evaluated.classes, domain.classes)
        if unlike:
            raise UsageError(
                f"{network.source} knows {unlike} of {domain.name}: "
                f"evaluate it on the set it was trained on, --data {network.trained_on or 'SET'}."
            )
        if network.evaluated.classes != domain.classes:
            raise UsageError(f"{network.source} lists {domain.name}'s classes in another order: evaluate it by itself.")
        if flags.published and (domain.name != "imagenet" or network.evaluated.size != 224):
            raise UsageError(
                "--published: the files are ImageNet's at 224 x 224, but "
                f"{network.source} is evaluated on {domain.name} at {network.evaluated.size}: leave --published out."
            )


def closing_table(
    flags, networks: list[Network], domain: ImageDomain, rows: list[dict], files: PublishedFiles | None = None
) -> Table:
    """A row for each arm, a column for each measure, with mean and standard deviation over the seeds.

    Args:
        files: the published files that were evaluated; None if corruptions were generated, for which there is no mCE
            and no mFR.
    """

    def chosen(labels):
        return labels[spread(labels, flags.images or len(labels))]

    images = chosen(domain.samples.labels)
    theirs = [chosen(labels) for labels in files.labels.values()] if files else []
    lines = {}
    for network in networks:
        own = [row for row in rows if row["network"] == network.evaluated.name]
        alexnet = bool(theirs) and all(compares_with_alexnet(network.evaluated, labels) for labels in (images, *theirs))
        lines[network.arm, network.seed] = summary(own, alexnet)
    columns = list(dict.fromkeys(measure for line in lines.values() for measure in line))
    scores = pd.DataFrame(list(lines.values()), pd.MultiIndex.from_tuples(lines), columns).drop(
        columns=HIDDEN & {*columns}
    )
    for plain, normalised in (("mean error, corrupted", "mCE"), ("flip probability", "mFR")):
        if normalised in scores and scores[normalised].notna().all():
            scores = scores.drop(columns=plain)
    text = legend(flags, domain, len(images), list(scores), {len(labels) for labels in theirs})
    table = table_of(scores, text, corner="network", measures=MEASURES)
    return compared_in_nothing(table, *at_chance(networks, rows), losses=FLIPS & {*scores})


FLIPS = {"flip probability", "mFR", "top-5 distance"}
"""Columns in which a network that always predicts the same class is perfect."""


def at_chance(networks: list[Network], rows: list[dict]) -> tuple[list[str], float]:
    """The arms whose clean top-1 is no better than chance with any seed, and the top-1 of chance."""
    clean = {row["network"]: row["value"] for row in rows if (row["part"], row["measure"]) == ("clean", "top1")}
    guess = {network.evaluated.name: 1 / len(network.evaluated.classes) for network in networks}
    learned = {n.arm for n in networks if clean.get(n.evaluated.name, 1) > LUCK * guess[n.evaluated.name]}
    return [arm for arm in dict.fromkeys(n.arm for n in networks) if arm not in learned], max(guess.values())


def legend(flags, domain: ImageDomain, images: int, columns: list[str], files: Collection[int] = ()) -> str:
    """How to read the table; `files` are the numbers of images that the published files have in one condition."""
    but = " except the top-5 distance" if "top-5 distance" in columns else ""
    notes = [f"{images} images of {domain.name} ({flags.split}); in percent{but}" + "{spread}."]
    made = "the published files of ImageNet-C and -P" if files else "generated here"
    panes = "" if files else ", frost from photographs" if flags.frost else ", frost drawn"
    some = f" ({min(files)} to {max(files)} in a condition)" if {*files} - {images} else ""
    severities = "" if len(flags.severities) == 5 else f" at severity {', '.join(map(str, sorted(flags.severities)))}"
    if {"mean error, corrupted", "mCE"} & {*columns}:
        notes.append(f" Corruptions are {made}{some}{severities}{panes}.")
    if {"flip probability", "mFR"} & {*columns}:
        notes.append(f" Perturbations are {made}{some}.")
    if "mCE" in columns:
        notes.append(" mCE and relative mCE: AlexNet is 100.")
    if "mFR" in columns:
        notes.append(" mFR: AlexNet is 100; AlexNet's numbers are second-hand and unverified.")
    return "".join(notes)


def write(flags, out: Path, results: DataFrame, table: Table) -> None:
    """Write table, flags, results and figure into the folder, and print the table."""
    write_whole(out / "table.md", table.markdown() + "\n")
    write_whole(out / "table.json", table.to_json() + "\n")
    config = dataclasses.asdict(flags) | {"command": shlex.join(["python", *sys.argv])}
    write_whole(out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_whole(out / "results.csv", partial(results.to_csv, index=False))  # last: `run` takes it as "finished"
    columns = results.drop_duplicates("arm").set_index("arm")[["norm", "backbone", "antialias"]]
    styles = arm_styles(columns.to_dict("index")).styles
    figure = draw_robustness(results, styles)
    for suffix in ("png", "svg"):
        write_whole(out / f"robustness.{suffix}", partial(figure.savefig, format=suffix, dpi=150))
    print_table(table)
    print(f"table, results and figure: {out}")


def to_wandb(flags, out: Path, networks: list[Network], results: DataFrame) -> None:
    """Log a run for each network, with its results under the keys that studies use for `--evaluate`."""
    settings = {"images": flags.images, "split": flags.split}
    for network in networks:
        own = results[(results["arm"] == network.arm) & (results["seed"] == network.seed)]
        about = {"arm": network.arm, **network.columns, "seed": network.seed, "network": network.source}
        log_network(flags.wandb, out, about | settings, own)
