"""How robust are trained networks to shifts of appearance, corruptions, perturbations and translations?

Each paper measured one kind of robustness. ImageNet-C and -P (Hendrycks, Dietterich, ICLR 2019): a ResNet-50 of 23.85 %
clean error has mCE 76.7 and mFR 58.0. Anti-aliased CNNs (Zhang, ICML 2019): blur before subsampling raises a
ResNet-50's shift consistency from 89.20 to 91.32 % (filter 4), and lowers mFR to 51.2 (filter 5). IBN-Net (Pan et al.,
ECCV 2018): with instance norm in the shallow layers, accuracy drops less under shifts of light and colour.

Eight GPUs, with data/imagenet on disk (not run here); each GPU evaluates some of the networks:

    python experiments/eval_robustness.py torchvision/resnet50 torchvision/alexnet --gpus 8 --workers 64

As published, on the files of ImageNet-C and -P in data/imagenet-c and data/imagenet-p:

    python experiments/eval_robustness.py torchvision/resnet50 --gpus 1 --published

A laptop: the networks of a study, on the data that they were trained on (the embedded shapes need no files):

    python experiments/cls_imagenet.py --norm bn ibn-a
    python experiments/eval_robustness.py runs/cls_imagenet

All parts together evaluate each network on about 360 views of an image. A CIFAR ResNet-20 at 32 x 32 takes 0.9 s an
image on one core, three quarters of it for the perturbations; --parts and --images make it shorter.

The script evaluates every network on clean images, under IBN-Net's appearance shifts, ImageNet-C's corruptions and
ImageNet-P's perturbations, and by shift consistency and calibration. It generates the corruptions itself, once for all
networks of one input size. mCE, relative mCE and mFR divide by AlexNet's errors on the published files. They are given
only for these files (--published), for all 1000 classes at 224 x 224. For generated corruptions and perturbations the
table gives plain means, called "mean error, corrupted" and "flip probability". OUT then holds table.md, results.csv and
a figure, robustness.png. W&B gets one run for each network, with the keys that the dashboard shows.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.whole_file import write_whole
from experiments.study.bounds import Bounds
from experiments.study.flags import (
    UsageError,
    check_numbers,
    check_wandb,
    one_sentence,
    parse,
    register_plugins,
    smoke_wandb,
)

if TYPE_CHECKING:  # these import torch: --help must not wait for them
    from pandas import DataFrame

    from datamodules.classification.domains import ImageDomain
    from experiments.study.run_lock import RunLock
    from experiments.study.tables import Table
    from experiments.tasks.evaluated_networks import Network

PARTS = ("clean", "shifts", "corruptions", "perturbations", "consistency")
SMALLER = ("ECE", "mean error, corrupted", "mCE", "relative mCE", "flip probability", "mFR", "top-5 distance")
HIDDEN = frozenset({"NLL"})
"""Columns that are only in results.csv: the table is wide enough."""
POSITIONAL = {"positional": True, "custom_args": {"metavar": "NETWORK ..."}}
OFFERED = 200
"""Default number of images of an embedded set, of which any number can be drawn."""


@dataclass
class Flags:
    """Flags of this evaluation."""

    networks: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """Checkpoints, folders of runs (all their checkpoints; seeds of one arm are averaged), or torchvision and timm
    names."""
    data: str | None = None
    """Set to evaluate on; by default the set that the checkpoints were trained on, and imagenet for names."""
    data_root: str = "data"
    """Folder with the real data sets, each in a subfolder of its name."""
    split: str = "val"
    """Split of the set."""
    images: int | None = None
    """Number of images, spread over the classes; by default all, and 200 of an embedded set."""
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    """What to measure: clean shifts corruptions perturbations consistency."""
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Severities of the corruptions, 1 to 5."""
    frames: int | None = None
    """Number of frames of each perturbation; by default as many as in ImageNet-P."""
    published: bool = False
    """Evaluate on the published files of ImageNet-C and -P, in DATA_ROOT/imagenet-c and DATA_ROOT/imagenet-p."""
    frost: str | None = None
    """Folder with ImageNet-C's photographs of frost, frost1.png to frost5.jpg; by default frost is drawn."""
    weights: str = "imagenet"
    """Weights of networks that are named: imagenet (downloaded) or none."""
    batch_size: int = 128
    """Images per batch; it does not change the results."""
    gpus: int | None = None
    """GPUs; 0 evaluates on the CPU. By default one GPU if there is one. With several, each evaluates some networks."""
    workers: int | None = None
    """Data loader processes, which also corrupt the images; by default half the cores, at most 8."""
    seed: int = 0
    """Seed of corruptions and crops."""
    out: str = "runs/eval_robustness"
    """Folder for the table, the results and the figure."""
    plugin: list[str] = field(default_factory=list)
    """Python files that register your own norms, if a network has them (docs/own-norm.md)."""
    wandb: str = "auto"
    """Weights & Biases: online, offline or disabled; auto is online if you are logged in, else offline."""
    smoke: bool = False
    """Evaluate a small untrained network on a few embedded shapes: a test, in seconds, that everything runs."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self, images=Bounds(1, 10**9))
        for flag, chosen, known in (("parts", self.parts, PARTS), ("severities", self.severities, (1, 2, 3, 4, 5))):
            unknown = [value for value in chosen if value not in known]
            if unknown or not chosen:
                hint = " (networks come before flags that take several values)" if flag == "parts" and unknown else ""
                said = f"--{flag} {unknown[0] if unknown else ''}".strip()
                raise UsageError(f"{said}: choose from {', '.join(map(str, known))}{hint}.")
        if self.weights not in ("imagenet", "none"):
            raise UsageError(f"--weights {self.weights}: choose imagenet or none.")
        if self.published and self.frames is not None:
            raise UsageError("--frames is for generated perturbations: leave it out with --published.")
        if self.published and self.frost is not None:
            raise UsageError("--frost is for generated corruptions: leave it out with --published.")
        check_wandb(self.wandb)
        if not self.networks and not self.smoke:
            raise UsageError("name a network to evaluate: a checkpoint, a run's folder, or a torchvision or timm name.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame:
    """Evaluate the networks; returns results in long form: arm, its columns, seed, part, condition, severity, measure,
    value."""
    import pandas as pd

    from datamodules.corruptions.frost import frost_photographs
    from experiments.study.settings import devices, loader_workers
    from lightning_modules.robustness.evaluator import evaluate

    flags = smoked(flags) if flags.smoke else flags
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
    from experiments.study.run_lock import locked

    try:
        return locked(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror or error}): choose another.") from error


def smoked(flags: Flags) -> Flags:
    """The flags of a smoke run; parts and the like stay."""
    changed = {"data": "shapes", "images": 4, "workers": 0, "frames": 3, "severities": [1, 5], "published": False}
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    networks = flags.networks or ["cifar_resnet8"]
    return dataclasses.replace(flags, networks=networks, weights="none", out=out, wandb=smoke_wandb(flags), **changed)


def gathered(flags: Flags) -> tuple[list[Network], ImageDomain]:
    """The networks, in the order of the command line, and the images to evaluate them on.

    Raises:
        UsageError: one of them is missing or cannot be rebuilt, or they were trained on different sets and --data is
            not given.
    """
    from datamodules.classification.joined import unlike_classes
    from experiments.tasks.evaluated_networks import classifiers, is_path, named_network, told_apart

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
    from experiments.study.trained.networks import learned_whole

    for network in networks:
        learned = learned_whole(network.trained_on or "", data)
        if learned:
            raise UsageError(
                f"{network.source} was trained on all images of {', '.join(learned)}: "
                "name another set to evaluate it on by --data, such as another domain, NAME:all."
            )


def opened(flags: Flags, data: str, size: int) -> ImageDomain:
    """The images to evaluate on. An embedded set is drawn at the size from which the networks' crops are cut."""
    from datamodules.classification.domains import open_images
    from datamodules.image_files import DataError, MissingDataError

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

    def __init__(self, flags: Flags):
        self.flags, self.labels = flags, {}

    def __call__(self, name: str):
        """The samples of "imagenet-c/fog/3" or "imagenet-p/tilt"."""
        from datamodules.classification.domains import open_images

        samples = open_images(name, self.flags.split, self.flags.data_root).samples
        self.labels[name] = samples.labels
        return samples


def check_fit(flags: Flags, networks: list[Network], domain: ImageDomain) -> None:
    """Refuse networks that cannot be evaluated on these images, or not as the flags ask."""
    from datamodules.classification.joined import unlike_classes

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
    flags: Flags, networks: list[Network], domain: ImageDomain, rows: list[dict], files: PublishedFiles | None = None
) -> Table:
    """A row for each arm, a column for each measure, with mean and standard deviation over the seeds.

    Args:
        files: the published files that were evaluated; None if corruptions were generated, for which there is no mCE
            and no mFR.
    """
    import pandas as pd

    from experiments.study.chance import compared_in_nothing
    from experiments.study.tables import table_of
    from lightning_modules.robustness.summary import compares_with_alexnet, summary
    from lightning_modules.robustness.views import spread

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
    smaller = frozenset(scores) & frozenset(SMALLER)
    digits = {column: 2 for column in scores if column == "top-5 distance"}
    text = legend(flags, domain, len(images), list(scores), {len(labels) for labels in theirs})
    table = table_of(scores, text, corner="network", smaller=smaller, digits=digits)
    return compared_in_nothing(table, *at_chance(networks, rows), losses=FLIPS & {*scores})


FLIPS = {"flip probability", "mFR", "top-5 distance"}
"""Columns in which a network that always predicts the same class is perfect."""


def at_chance(networks: list[Network], rows: list[dict]) -> tuple[list[str], float]:
    """The arms whose clean top-1 is no better than chance with any seed, and the top-1 of chance."""
    from experiments.study.chance import LUCK

    clean = {row["network"]: row["value"] for row in rows if (row["part"], row["measure"]) == ("clean", "top1")}
    guess = {network.evaluated.name: 1 / len(network.evaluated.classes) for network in networks}
    learned = {n.arm for n in networks if clean.get(n.evaluated.name, 1) > LUCK * guess[n.evaluated.name]}
    return [arm for arm in dict.fromkeys(n.arm for n in networks) if arm not in learned], max(guess.values())


def legend(flags: Flags, domain: ImageDomain, images: int, columns: list[str], files: Collection[int] = ()) -> str:
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


def write(flags: Flags, out: Path, results: DataFrame, table: Table) -> None:
    """Write table, flags, results and figure into the folder, and print the table."""
    import yaml

    from experiments.reporting.arm_styles import arm_styles
    from experiments.reporting.robustness_figures import draw_robustness

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
    table.print()
    print(f"table, results and figure: {out}")


def to_wandb(flags: Flags, out: Path, networks: list[Network], results: DataFrame) -> None:
    """Log a run for each network, with its results under the keys that studies use for `--evaluate`."""
    from experiments.study.trained.network_outcome import log_network

    settings = {"images": flags.images, "split": flags.split}
    for network in networks:
        own = results[(results["arm"] == network.arm) & (results["seed"] == network.seed)]
        about = {"arm": network.arm, **network.columns, "seed": network.seed, "network": network.source}
        log_network(flags.wandb, out, about | settings, own)


if __name__ == "__main__":
    main()
